//! What this process takes of the machine, as `/proc/self` tells it (proc(5)).

use std::fs;

/// At one moment. What cannot be read is absent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OwnProcess {
    /// User and system time, seconds.
    pub cpu_s: Option<f64>,
    /// Resident memory, bytes.
    pub resident_bytes: Option<u64>,
    /// Address space, bytes.
    pub virtual_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_descriptors: Option<u64>,
    /// How many there may be.
    pub max_descriptors: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

impl OwnProcess {
    /// Asks `/proc/self`.
    #[must_use]
    pub fn read() -> Self {
        let page = rustix::param::page_size() as u64;
        let memory = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let mut pages = memory.split_ascii_whitespace().map(|field| field.parse::<u64>().ok());
        let virtual_bytes = pages.next().flatten().map(|pages| pages.saturating_mul(page));
        let resident_bytes = pages.next().flatten().map(|pages| pages.saturating_mul(page));
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The descriptor that lists them is one of those that are listed.
        let descriptors =
            fs::read_dir("/proc/self/fd").map(|entries| entries.count().saturating_sub(1) as u64);
        Self {
            cpu_s: cpu_s(&stat, rustix::param::clock_ticks_per_second()),
            resident_bytes,
            virtual_bytes,
            open_descriptors: descriptors.ok(),
            max_descriptors: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
            threads: fields(&stat).nth(20 - 3).and_then(|field| field.parse().ok()),
        }
    }
}

/// Those from the third on, the first after the name.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default().split_ascii_whitespace()
}

/// Fields 14 and 15.
fn cpu_s(stat: &str, ticks_per_s: u64) -> Option<f64> {
    let mut times = fields(stat).skip(14 - 3);
    let mut time = || times.next()?.parse::<u64>().ok();
    let ticks = time()?.saturating_add(time()?);
    #[expect(clippy::cast_precision_loss, reason = "it is scraped as a double")]
    Some(ticks as f64 / ticks_per_s.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_from_the_end_of_the_name() {
        let stat = "9 (a) b) S 1 9 9 0 -1 0 1 2 3 4 150 50 6 7 20 0 3 0 4242";
        assert_eq!(cpu_s(stat, 100), Some(2.0));
        assert_eq!(cpu_s("9 (a) S 1", 100), None);
        assert_eq!(fields(stat).nth(20 - 3), Some("3"));
    }

    #[test]
    fn this_process_has_all_of_it() {
        let own = OwnProcess::read();
        assert!(own.cpu_s.is_some_and(|seconds| seconds < 100_000.0), "{own:?}");
        assert!(own.resident_bytes.is_some_and(|bytes| bytes > 100_000), "{own:?}");
        assert!(own.virtual_bytes >= own.resident_bytes, "{own:?}");
        assert!(own.open_descriptors.is_some_and(|open| open >= 3), "{own:?}");
        assert!(own.threads.is_some_and(|threads| (1..10_000).contains(&threads)), "{own:?}");
    }
}
