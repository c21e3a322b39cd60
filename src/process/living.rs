//! The processes that are alive now, as `/proc` lists them, named as the profiler names those it samples.
//!
//! Who asks wants to tell *idle* from *never there*: a process that slept through a range of time has no
//! samples in it. What is read is a moment's view; a process that ends meanwhile is left out.

use std::path::PathBuf;
use std::time::SystemTime;

use rustix::time::{ClockId, clock_gettime};

use super::identity::Identity;
use super::image::Image;

/// A process that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivingProcess {
    /// Process id.
    pub pid: u32,
    /// What the profiler calls it ([`Image::service`]); empty for a kernel thread.
    pub service: String,
    /// Container id, 64 hex digits, or empty.
    pub container_id: String,
    /// The revision that it says it was built of, or empty.
    pub git_sha: String,
    /// The executable as the process sees it; empty for a kernel thread.
    pub executable: PathBuf,
    /// When it was started, nanoseconds since the Unix epoch, exact to a clock tick (10 ms).
    pub started_unix_ns: u64,
}

/// A thread of a living process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivingThread {
    /// Thread id.
    pub tid: u32,
    /// Its name.
    pub name: String,
}

impl LivingProcess {
    /// What `/proc` says of this process now; `None` if there is none, or if it has ended and is only
    /// still to be waited for. A number that names a thread and no process names no process.
    #[must_use]
    pub fn read(pid: u32) -> Option<Self> {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let Stat { ended: false, start_ticks } = Stat::parse(&stat)? else { return None };
        // `/proc/TID` exists for every thread, though it is not listed.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let leader = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
        if leader.trim().parse() != Ok(pid) {
            return None;
        }
        let identity = Identity::read(pid);
        let (container_id, git_sha) = (identity.container_id.clone(), identity.git_sha.clone());
        let executable = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let image = Image { pid, executable, identity: Some(identity), ..Image::default() };
        let service = image.service().into_owned();
        let started_unix_ns = unix_ns_of_ticks(start_ticks);
        Some(Self { pid, service, container_id, git_sha, executable: image.executable, started_unix_ns })
    }

    /// Its threads.
    #[must_use]
    pub fn threads(&self) -> Vec<LivingThread> {
        let mut threads = Vec::new();
        for tid in numbers_in(&format!("/proc/{}/task", self.pid)) {
            // One that has ended meanwhile is none.
            if let Ok(name) = std::fs::read(format!("/proc/{}/task/{tid}/comm", self.pid)) {
                let name = String::from_utf8_lossy(&name);
                threads.push(LivingThread { tid, name: name.trim_end_matches('\n').to_owned() });
            }
        }
        threads
    }
}

/// Every process of the host that is alive now, by number. Reads four files for each: some tens of
/// microseconds a process.
#[must_use]
pub fn living() -> Vec<LivingProcess> {
    let mut pids = living_pids();
    pids.sort_unstable();
    pids.into_iter().filter_map(LivingProcess::read).collect()
}

/// The numbers of the processes that there are, kernel threads and those included that have ended and are
/// only still to be waited for.
pub(super) fn living_pids() -> Vec<u32> {
    numbers_in("/proc")
}

/// The names in a folder that are numbers.
fn numbers_in(folder: &str) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// What matters of `/proc/PID/stat` (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    ended: bool,
    /// Clock ticks between boot and start.
    start_ticks: u64,
}

impl Stat {
    /// `pid (comm) state ppid …`: comm may hold anything, so that the fields are counted from its end.
    fn parse(stat: &[u8]) -> Option<Self> {
        let name_end = stat.iter().rposition(|&byte| byte == b')')?;
        let fields = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
        let mut fields = fields.split_ascii_whitespace();
        let ended = matches!(fields.next()?, "Z" | "X" | "x");
        // Field 22 of proc(5); the state, which has just been taken, is field 3.
        let start_ticks = fields.nth(18)?.parse().ok()?;
        Some(Self { ended, start_ticks })
    }
}

fn unix_ns_of_ticks(ticks_since_boot: u64) -> u64 {
    let boot_clock = clock_gettime(ClockId::Boottime);
    let since_boot_ns = i128::from(boot_clock.tv_sec) * 1_000_000_000 + i128::from(boot_clock.tv_nsec);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now_ns = i128::try_from(now.as_nanos()).unwrap_or(i128::MAX);
    let ticks_a_second = i128::from(rustix::param::clock_ticks_per_second().max(1));
    let start_ns = i128::from(ticks_since_boot) * 1_000_000_000 / ticks_a_second;
    u64::try_from(now_ns - since_boot_ns + start_ns).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_name_of_parentheses_and_spaces_moves_no_field() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        for name in ["cat", "a) Z 1 2", "(((", ""] {
            let stat = Stat::parse(format!("9 ({name}) {rest}").as_bytes());
            assert_eq!(stat, Some(Stat { ended: false, start_ticks: 4711 }), "{name}");
        }
        assert!(
            Stat::parse(b"9 (x) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 0").is_some_and(|it| it.ended)
        );
        for broken in ["", "9 (x)", "9 (x) S 1 2", "9 (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x"] {
            assert_eq!(Stat::parse(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn a_child_is_found_with_its_name_start_and_thread_until_it_has_ended() {
        let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let mut child = Command::new("sleep")
            .arg("60")
            .env("OTEL_SERVICE_NAME", "idle-shop")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        // Between fork and exec the child still has our environment and name.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let found = loop {
            let found = living().into_iter().find(|process| process.pid == child.id());
            if found.as_ref().is_some_and(|process| process.service == "idle-shop")
                || std::time::Instant::now() > deadline
            {
                break found.unwrap();
            }
        };
        assert_eq!(found.service, "idle-shop");
        assert!(found.executable.ends_with("sleep"), "{found:?}");
        // A tick is 10 ms, and the two clocks are read one after the other.
        assert!(found.started_unix_ns + 50_000_000 > before, "{found:?} {before}");
        assert!(found.started_unix_ns < before + 10_000_000_000, "{found:?} {before}");
        assert_eq!(found.threads(), [LivingThread { tid: child.id(), name: "sleep".to_owned() }]);
        child.kill().unwrap();
        // Not waited for yet, it is a zombie.
        while LivingProcess::read(child.id()).is_some() {
            assert!(std::time::Instant::now() < deadline);
        }
        child.wait().unwrap();
        assert_eq!(LivingProcess::read(child.id()), None);
    }

    #[test]
    fn a_thread_is_no_process_and_this_process_is_one() {
        let tid = std::thread::spawn(|| {
            let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
            (tid, LivingProcess::read(tid).is_none())
        });
        let (tid, is_none) = tid.join().unwrap();
        assert!(is_none, "{tid}");
        assert!(LivingProcess::read(std::process::id()).is_some());
        assert_eq!(LivingProcess::read(u32::MAX), None);
    }
}
