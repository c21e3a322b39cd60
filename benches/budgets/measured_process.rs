//! What a profiler costs, taken from outside and alike for every profiler: CPU time of the process,
//! its peak memory, the bytes of its BPF maps, run time and runs of its sampling programs.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libbpf_rs::MapHandle;
use libbpf_rs::ProgramType;
use libbpf_rs::libbpf_sys::{BPF_STATS_RUN_TIME, bpf_enable_stats};
use libbpf_rs::query::{MapInfoIter, ProgInfoIter};

/// Nanoseconds of user and system time that a living process and its threads, ended ones included,
/// have used so far.
pub fn cpu_time_ns(pid: u32) -> Result<u64> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: both calls write only to the value they are given a valid pointer to.
    let (found, time) = unsafe {
        let found = libc::clock_getcpuclockid(libc::pid_t::try_from(pid)?, &raw mut clock);
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let read = if found == 0 { libc::clock_gettime(clock, &raw mut time) } else { -1 };
        (found == 0 && read == 0, time)
    };
    ensure!(found, "process {pid} has no CPU clock: it has ended");
    Ok(u64::try_from(time.tv_sec)? * 1_000_000_000 + u64::try_from(time.tv_nsec)?)
}

/// Peak resident memory (`VmHWM`) of a living process, bytes.
pub fn peak_memory_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.split_whitespace().nth(1).context("VmHWM without a number")?.parse()?;
    Ok(kib * 1024)
}

/// What a child used from start to end, its own ended children included.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// User and system time, milliseconds.
    pub cpu_ms: f64,
    /// Peak resident memory, bytes.
    pub peak_memory_bytes: u64,
}

/// Waits for a child and takes its resource usage.
pub fn wait_with_usage(child: Child) -> Result<Ended> {
    use std::os::unix::process::ExitStatusExt;
    let pid = libc::pid_t::try_from(child.id())?;
    let mut raw_status = 0;
    // SAFETY: an all-zero rusage is a valid one; wait4 writes only to the two values given. `child`
    // is consumed, so that nobody waits for this process id again.
    let (waited, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(pid, &raw mut raw_status, 0, &raw mut usage), usage)
    };
    ensure!(waited == pid, "cannot wait for process {pid}: {}", std::io::Error::last_os_error());
    drop(child); // its process id may belong to another process from here on
    let milliseconds = |time: libc::timeval| time.tv_sec as f64 * 1e3 + time.tv_usec as f64 / 1e3;
    Ok(Ended {
        status: ExitStatus::from_raw(raw_status),
        cpu_ms: milliseconds(usage.ru_utime) + milliseconds(usage.ru_stime),
        // The kernel counts it in KiB.
        peak_memory_bytes: u64::try_from(usage.ru_maxrss)? * 1024,
    })
}

/// The BPF objects there were before a profiler started: those that come later are its own. By id,
/// since not every profiler keeps its programs' descriptors open.
#[derive(Debug)]
pub struct BpfBefore {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
}

impl BpfBefore {
    /// Takes the list.
    pub fn take() -> Self {
        Self {
            programs: ProgInfoIter::default().map(|program| program.id).collect(),
            maps: MapInfoIter::default().map(|map| map.id).collect(),
        }
    }
}

/// A profiler's figures at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    at: Instant,
    cpu_ns: u64,
    bpf_run_ns: u64,
    bpf_runs: u64,
    /// Peak memory so far, bytes.
    pub peak_memory_bytes: u64,
    /// Memory of its maps as the kernel accounts it, bytes.
    pub map_bytes: u64,
}

impl Snapshot {
    /// Takes a profiler's figures. Programs other than perf-event ones do not count as samples.
    pub fn take(pid: u32, before: &BpfBefore) -> Result<Self> {
        let mut snapshot = Self {
            at: Instant::now(),
            cpu_ns: cpu_time_ns(pid)?,
            bpf_run_ns: 0,
            bpf_runs: 0,
            peak_memory_bytes: peak_memory_bytes(pid)?,
            map_bytes: 0,
        };
        for program in ProgInfoIter::default() {
            if program.ty == ProgramType::PerfEvent && !before.programs.contains(&program.id) {
                snapshot.bpf_run_ns += program.run_time_ns;
                snapshot.bpf_runs += program.run_cnt;
            }
        }
        for map in MapInfoIter::default() {
            if !before.maps.contains(&map.id) {
                snapshot.map_bytes += map_memory_bytes(map.id).unwrap_or(0);
            }
        }
        Ok(snapshot)
    }

    /// Whether sampling programs have run at all.
    pub fn has_sampled(&self) -> bool {
        self.bpf_runs > 0
    }
}

fn map_memory_bytes(id: u32) -> Option<u64> {
    let map = MapHandle::from_map_id(id).ok()?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("memlock:"))?.trim().parse().ok()
}

/// What a profiler used between two snapshots.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    /// Share of one processor, percent.
    pub cpu_percent_of_core: f64,
    /// BPF run time per run of a sampling program, microseconds; NaN if it never ran.
    pub bpf_us_per_run: f64,
    /// Runs per second.
    pub runs_per_second: f64,
}

impl Used {
    /// The difference of two snapshots.
    pub fn between(begin: &Snapshot, end: &Snapshot) -> Self {
        let elapsed_ns = (end.at - begin.at).as_nanos() as f64;
        let runs = (end.bpf_runs - begin.bpf_runs) as f64;
        Self {
            cpu_percent_of_core: (end.cpu_ns - begin.cpu_ns) as f64 / elapsed_ns * 100.0,
            bpf_us_per_run: (end.bpf_run_ns - begin.bpf_run_ns) as f64 / runs / 1e3,
            runs_per_second: runs / elapsed_ns * 1e9,
        }
    }
}

/// Watches a profiler over `window`, once `warm_up` has passed.
pub fn watch(pid: u32, before: &BpfBefore, warm_up: Duration, window: Duration) -> Result<(Used, Snapshot)> {
    std::thread::sleep(warm_up);
    let begin = Snapshot::take(pid, before)?;
    std::thread::sleep(window);
    let end = Snapshot::take(pid, before)?;
    Ok((Used::between(&begin, &end), end))
}

/// Keeps the kernel counting the run time of every BPF program until this goes, or the process that holds it.
#[derive(Debug)]
pub struct RunTimeCounted {
    _held: OwnedFd,
}

impl RunTimeCounted {
    /// Turns it on.
    pub fn turn_on() -> Result<Self> {
        // SAFETY: no pointers are involved.
        let fd = unsafe { bpf_enable_stats(BPF_STATS_RUN_TIME) };
        ensure!(fd >= 0, "BPF run times cannot be counted: {}", std::io::Error::from_raw_os_error(-fd));
        // SAFETY: the call returned a new descriptor that nobody else has.
        Ok(Self { _held: unsafe { OwnedFd::from_raw_fd(fd) } })
    }
}
