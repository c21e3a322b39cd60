//! Memory of this process by mapping, as `/proc/self/smaps` tells it (`proc_pid_smaps(5)`). Who allocated it is
//! not recorded; what is told is what is resident and where.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::model::{Function, Interner, Label, Location, Profile, Sample, Slices, ValueType};
use crate::server::api::moment::now_unix_ns;

/// What one sort of mapping takes, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// Mappings.
    pub mappings: u64,
    /// Resident.
    pub resident: u64,
    /// Resident, written to, and of this process alone: what would be free if it ended.
    pub private_dirty: u64,
}

/// By name of the mapping, what is there of the three sorts of memory.
pub type Memory = BTreeMap<(&'static str, String), Taken>;

/// Reads what it is now.
pub fn read() -> std::io::Result<Memory> {
    Ok(parse(&String::from_utf8_lossy(&std::fs::read("/proc/self/smaps")?)))
}

/// A mapping's line has addresses, rights, offset, device, inode and perhaps a name; lines `Key: N kB` follow.
fn parse(text: &str) -> Memory {
    let mut memory = Memory::new();
    let mut key = None;
    for line in text.lines() {
        let first = line.split_ascii_whitespace().next().unwrap_or_default();
        if let Some(name) = first.strip_suffix(':') {
            let Some(taken) = key.as_ref().and_then(|key| memory.get_mut(key)) else { continue };
            let kilobytes =
                line.split_ascii_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
            let bytes = kilobytes.unwrap_or(0).saturating_mul(1024);
            match name {
                "Rss" => taken.resident = taken.resident.saturating_add(bytes),
                "Private_Dirty" => taken.private_dirty = taken.private_dirty.saturating_add(bytes),
                _ => {}
            }
            continue;
        }
        // A name may hold spaces.
        let mut fields = line.splitn(6, ' ');
        let name = fields.nth(5).unwrap_or_default().trim_start();
        let (sort, name) = match name {
            "" => ("anonymous", "[anonymous]"),
            "[heap]" => ("anonymous", "[heap]"),
            name if name.starts_with('[') => ("special", name),
            name => ("file", name),
        };
        let new = (sort, name.to_owned());
        memory.entry(new.clone()).or_default().mappings += 1;
        key = Some(new);
    }
    memory
}

/// As a profile: `inuse_space` is what is resident.
pub fn profile(memory: &Memory) -> Profile {
    let mut functions = Interner::new();
    let mut locations = Vec::new();
    let mut stacks = Slices::default();
    let mut label_sets = Interner::new();
    let mut samples = Vec::new();
    let mut location = |name: &str| {
        let function = functions.intern(Function { name: name.to_owned(), ..Function::default() });
        let frames = vec![crate::model::Frame { function, line: 0 }];
        locations.push(Location { address: locations.len() as u64 + 1, frames, ..Location::default() });
        (locations.len() - 1) as u32
    };
    for ((sort, name), taken) in memory {
        let values = [taken.mappings, taken.private_dirty, taken.resident];
        let values = values.iter().map(|&value| i64::try_from(value).unwrap_or(i64::MAX)).collect();
        stacks.push([location(name), location(sort)]);
        let labels = label_sets.intern(vec![Label::text("memory", sort)]);
        samples.push(Sample { stack: (stacks.len() - 1) as u32, labels, values });
    }
    Profile {
        value_types: vec![
            ValueType::new("mappings", "count"),
            ValueType::new("private_dirty_space", "bytes"),
            ValueType::new("inuse_space", "bytes"),
        ],
        default_value: 2,
        period_type: Some(ValueType::new("space", "bytes")),
        period: 1,
        start_unix_ns: now_unix_ns(),
        functions: functions.into_values(),
        locations,
        stacks,
        label_sets: label_sets.into_values(),
        samples,
        comments: vec!["resident memory by mapping; who allocated it is not recorded".to_owned()],
        ..Profile::default()
    }
}

/// As a table.
pub fn as_text(memory: &Memory) -> String {
    let mut rows: Vec<_> = memory.iter().collect();
    rows.sort_by_key(|(_, taken)| std::cmp::Reverse(taken.resident));
    let total: u64 = memory.values().map(|taken| taken.resident).sum();
    let mut text = format!("resident memory: {total} bytes\nresident\tprivate_dirty\tmappings\tname\n");
    for ((_, name), taken) in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}\t{}\t{}\t{name}", taken.resident, taken.private_dirty, taken.mappings);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_one_name_are_added_and_names_may_hold_spaces() {
        let text = "00400000-00401000 r-xp 00000000 00:1f 12 /bin/a b\nSize: 4 kB\nRss: 4 kB\nPrivate_Dirty: 0 kB\n\
            00500000-00501000 rw-p 00000000 00:1f 12                         /bin/a b\nRss: 8 kB\nPrivate_Dirty: 8 kB\n\
            00600000-00601000 rw-p 00000000 00:00 0 \nRss: 12 kB\nPrivate_Dirty: 12 kB\nVmFlags: rd wr\n\
            00700000-00701000 rw-p 00000000 00:00 0                          [heap]\nRss: x kB\n\
            ffff0000-ffff1000 r-xp 00000000 00:00 0                          [vdso]\nRss: 4 kB\nnonsense\n";
        let memory = parse(text);
        let of = |sort, name: &str| memory[&(sort, name.to_owned())];
        assert_eq!(of("file", "/bin/a b"), Taken { mappings: 2, resident: 12 << 10, private_dirty: 8 << 10 });
        assert_eq!(of("anonymous", "[anonymous]").resident, 12 << 10);
        assert_eq!(of("anonymous", "[heap]"), Taken { mappings: 1, ..Taken::default() });
        assert_eq!(of("special", "[vdso]").resident, 4 << 10);
        let profile = profile(&memory);
        profile.validate().unwrap();
        assert_eq!(profile.total(2), 28 << 10);
        assert!(as_text(&memory).starts_with("resident memory: 28672 bytes\n"));
    }

    #[test]
    fn what_is_resident_is_about_what_the_status_says() {
        let total: u64 = read().unwrap().values().map(|taken| taken.resident).sum();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let said = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10;
        assert!(total > said / 2 && total < said * 2, "{total} {said}");
    }
}
