//! The processes that live at this moment, as a person would name them. Read from `/proc` when asked for,
//! so that it holds those as well that nothing was ever sampled of.
//!
//! `/proc/PID/stat` reads `pid (comm) state ppid … flags … starttime …` (proc(5), fields 4, 9 and 22), and
//! comm may hold anything, so fields are counted from the last closing parenthesis.

use std::time::{Duration, SystemTime};

use super::Image;
use super::identity::Identity;

/// A process that lives. Threads of the kernel are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivingProcess {
    /// Its number, as this process sees it.
    pub pid: u32,
    /// That of its parent.
    pub parent_pid: u32,
    /// The service, named as samples of it are.
    pub service: String,
    /// Container id, 64 hex digits, or empty.
    pub container_id: String,
    /// When it was started, nanoseconds since the Unix epoch, to a hundredth of a second.
    pub started_unix_ns: u64,
}

/// All that live, by number. What is gone while it is read is left out. Some 100 µs a process.
#[must_use]
pub fn living_processes() -> Vec<LivingProcess> {
    let boot = Boot::read();
    let mut pids: Vec<u32> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids.into_iter().filter_map(|pid| read(pid, &boot)).collect()
}

/// One of them, if it lives.
#[must_use]
pub fn living_process(pid: u32) -> Option<LivingProcess> {
    read(pid, &Boot::read())
}

fn read(pid: u32, boot: &Boot) -> Option<LivingProcess> {
    let stat = parse_stat(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)?;
    if stat.is_over || stat.is_of_kernel {
        return None;
    }
    let executable = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let identity = Identity::read(pid);
    let container_id = identity.container_id.clone();
    let image = Image { pid, executable, executable_object: None, identity: Some(identity) };
    Some(LivingProcess {
        pid,
        parent_pid: stat.parent_pid,
        service: image.service().into_owned(),
        container_id,
        started_unix_ns: boot.unix_ns(stat.started_ticks),
    })
}

/// When the system was started, and what it counts time in.
struct Boot {
    unix: Duration,
    ticks_per_s: u64,
}

impl Boot {
    fn read() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let since = Duration::new(
            u64::try_from(since.tv_sec).unwrap_or(0),
            u32::try_from(since.tv_nsec).unwrap_or(0),
        );
        Self { unix: now.saturating_sub(since), ticks_per_s: rustix::param::clock_ticks_per_second().max(1) }
    }

    fn unix_ns(&self, ticks: u64) -> u64 {
        let (whole, rest) = (ticks / self.ticks_per_s, ticks % self.ticks_per_s);
        let since_boot =
            Duration::from_secs(whole) + Duration::from_secs(rest) / per_second(self.ticks_per_s);
        u64::try_from(self.unix.saturating_add(since_boot).as_nanos()).unwrap_or(u64::MAX)
    }
}

fn per_second(ticks: u64) -> u32 {
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent_pid: u32,
    is_over: bool,
    is_of_kernel: bool,
    started_ticks: u64,
}

/// `PF_KTHREAD` of `include/linux/sched.h`.
const OF_KERNEL: u64 = 0x0020_0000;

fn parse_stat(stat: &[u8]) -> Option<Stat> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    // The first is the third of the file: the state.
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        is_over: matches!(*fields.first()?, "Z" | "X" | "x"),
        parent_pid: u32::try_from(number(4)?).ok()?,
        is_of_kernel: number(9)? & OF_KERNEL != 0,
        started_ticks: number(22)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_from_the_end_of_the_name() {
        let stat = b"12 (a) Z 9 (b) S 7 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 100 5\n";
        let parsed = Stat { parent_pid: 7, is_over: false, is_of_kernel: false, started_ticks: 4242 };
        assert_eq!(parse_stat(stat), Some(parsed));
        for length in 0..stat.len() {
            // Whatever is cut off: no panic.
            let _ = parse_stat(&stat[..length]);
        }
        assert_eq!(parse_stat(b"12 (a) S 7"), None);
    }

    #[test]
    fn threads_of_the_kernel_and_zombies_are_told_apart() {
        let of_kernel = b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0";
        assert!(parse_stat(of_kernel).is_some_and(|stat| stat.is_of_kernel));
        let over = b"3 (x) Z 1 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0";
        assert!(parse_stat(over).is_some_and(|stat| stat.is_over));
    }

    #[test]
    fn this_process_lives_and_was_started_a_while_ago() {
        let own = living_process(std::process::id()).expect("this one");
        assert!(living_processes().iter().any(|process| process.pid == own.pid));
        assert!(!own.service.is_empty());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("later").as_nanos();
        let age_ns = i128::from(u64::try_from(now).expect("of this age")) - i128::from(own.started_unix_ns);
        assert!((-1_000_000_000..3_600_000_000_000).contains(&age_ns), "{age_ns}");
    }
}
