//! Which CPUs are online.

use std::fs;

use super::KernelError;

/// The numbers of the CPUs that are online, ascending.
///
/// # Errors
/// [`KernelError::System`] if sysfs does not tell.
pub fn online() -> Result<Vec<u32>, KernelError> {
    let path = "/sys/devices/system/cpu/online";
    let text = fs::read_to_string(path)
        .map_err(|source| KernelError::System { what: format!("read {path}"), source })?;
    parse_list(text.trim()).ok_or_else(|| KernelError::System {
        what: format!("understand {path}"),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, format!("no list of CPUs: {text:?}")),
    })
}

/// Parses `0-3,8,10-11` (Documentation/admin-guide/cputopology.rst).
fn parse_list(text: &str) -> Option<Vec<u32>> {
    const MAX_CPU: u32 = 1 << 16;
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if first > last || last >= MAX_CPU {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_single_cpus_and_ranges_are_understood() {
        assert_eq!(parse_list("0"), Some(vec![0]));
        assert_eq!(parse_list("0-2,5,7-8"), Some(vec![0, 1, 2, 5, 7, 8]));
    }

    #[test]
    fn anything_else_is_refused_without_allocating_for_it() {
        for text in ["", "a", "1-", "3-1", "0-4294967295", "-1", "0,,1"] {
            assert_eq!(parse_list(text), None, "{text:?}");
        }
    }
}
