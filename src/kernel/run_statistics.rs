//! What BPF costs, in the kernel's own figures: time and runs of programs, memory of maps.

use std::fs;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libbpf_rs::Object;
use libbpf_rs::libbpf_sys::{BPF_STATS_RUN_TIME, bpf_enable_stats, bpf_prog_get_info_by_fd, bpf_prog_info};

use super::KernelError;

/// How often a program ran, and for how long in all. Both are 0 while statistics are off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProgramRuns {
    /// Nanoseconds, summed over CPUs.
    pub run_time_ns: u64,
    /// Runs.
    pub run_count: u64,
}

/// What our BPF programs cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunStatistics {
    /// The sampling program.
    pub sampling: ProgramRuns,
    /// All programs, the sampling program among them.
    pub all: ProgramRuns,
}

/// Makes the kernel measure programs as long as the result is held.
pub(super) fn enable() -> Result<OwnedFd, KernelError> {
    // SAFETY: no pointers are involved.
    let fd = unsafe { bpf_enable_stats(BPF_STATS_RUN_TIME) };
    if fd < 0 {
        return Err(KernelError::system(
            "enable BPF run statistics",
            std::io::Error::from_raw_os_error(-fd),
            "CAP_SYS_ADMIN",
        ));
    }
    // SAFETY: the call returned a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds the runs of an object's programs to `all`, and to `sampling` those of the one named `sample`.
pub(super) fn add(object: &Object, statistics: &mut RunStatistics) {
    for program in object.progs() {
        let runs = program_runs(program.as_fd());
        statistics.all.run_time_ns += runs.run_time_ns;
        statistics.all.run_count += runs.run_count;
        if program.name() == "sample" {
            statistics.sampling = runs;
        }
    }
}

/// The kernel's number of a program; 0 if it does not say.
pub(super) fn program_id(program: BorrowedFd<'_>) -> u32 {
    program_info(program).map_or(0, |info| info.id)
}

fn program_runs(program: BorrowedFd<'_>) -> ProgramRuns {
    let runs = |info: bpf_prog_info| ProgramRuns { run_time_ns: info.run_time_ns, run_count: info.run_cnt };
    program_info(program).map(runs).unwrap_or_default()
}

fn program_info(program: BorrowedFd<'_>) -> Option<bpf_prog_info> {
    let mut info = bpf_prog_info::default();
    let mut bytes = size_of::<bpf_prog_info>() as u32;
    // SAFETY: `info` is zeroed and as long as `bytes` says; zero pointers in it ask for no arrays.
    let result = unsafe { bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut bytes) };
    (result == 0).then_some(info)
}

/// The kernel memory that a map takes, from its `fdinfo`; 0 if that cannot be read.
pub(super) fn map_memory_bytes(map: BorrowedFd<'_>) -> u64 {
    let Ok(text) = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd())) else { return 0 };
    parse_memlock(&text).unwrap_or(0)
}

fn parse_memlock(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("memlock:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memlock_is_found_among_the_other_lines_of_fdinfo() {
        assert_eq!(parse_memlock("pos:\t0\nmap_type:\t2\nmemlock:\t4198400\nmap_id:\t7\n"), Some(4_198_400));
        assert_eq!(parse_memlock("pos:\t0\n"), None);
        assert_eq!(parse_memlock("memlock:\tmany\n"), None);
    }
}
