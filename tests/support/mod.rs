//! What the black-box tests share: the binary, the fixtures, a recording as its files tell it, real
//! servers on loopback ports, and an honest way to skip.
//!
//! Nothing here knows the library, but `two_times`, which has it write files: everything else goes through the `spanflame` binary, /proc and tools
//! that others wrote.
#![allow(dead_code, reason = "every test binary uses another part of this module")]

pub mod certificate;
pub mod collector;
pub mod exported;
pub mod folded;
pub mod go_pprof;
pub mod http_threads;
pub mod otlp_conformance;
pub mod page;
pub mod peer_stacks;
pub mod pprof_text;
pub mod program;
pub mod python_sdk;
pub mod recording;
pub mod server;
pub mod servers;
pub mod shops;
pub mod spans;
pub mod streams;
pub mod talk;
pub mod two_times;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The binary under test: the one that cargo built beside this test, or `SPANFLAME_TEST_BINARY`, so
/// that the same tests try a release build or an installed package.
pub fn binary() -> PathBuf {
    let chosen = std::env::var_os("SPANFLAME_TEST_BINARY");
    chosen.map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_spanflame")), PathBuf::from)
}

/// A fresh `spanflame` command.
pub fn spanflame() -> Command {
    Command::new(binary())
}

/// The target directory that this test binary was built into.
pub fn target_directory() -> PathBuf {
    // CARGO_TARGET_TMPDIR is TARGET/tmp.
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it has a parent").to_owned()
}

/// Whether the long versions of the tests were asked for.
pub fn long_tests() -> bool {
    std::env::var_os("SPANFLAME_LONG_TESTS").is_some_and(|value| value == "1")
}

/// `ordinary`, or `long` under `SPANFLAME_LONG_TESTS=1`.
pub fn seconds(ordinary: u64, long: u64) -> u64 {
    if long_tests() { long } else { ordinary }
}

/// Says that a test could not be run, past libtest's capture of output, and counts it: one line a
/// test in `target/skipped-tests`, which a caller may empty first and read afterwards.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("skipped: {reason} ({})\n", thread.name().unwrap_or("a test"));
    let _ = std::io::stderr().write_all(line.as_bytes());
    let path = target_directory().join("skipped-tests");
    if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path) {
        let _ = file.write_all(line.as_bytes());
    }
}

/// Why nothing can be recorded on this machine by this user, if that is so. Asks for what the
/// kernel and the user lack, never the binary, so that a broken binary cannot excuse itself.
pub fn cannot_record() -> Option<String> {
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("the kernel has no BTF".to_owned());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let has = |capability: u32| effective & (1 << capability) != 0;
    const CAP_SYS_ADMIN: u32 = 21;
    const CAP_PERFMON: u32 = 38;
    const CAP_BPF: u32 = 39;
    if !(has(CAP_SYS_ADMIN) || has(CAP_BPF) && has(CAP_PERFMON)) {
        return Some("needs CAP_BPF and CAP_PERFMON, or root".to_owned());
    }
    None
}

/// Whether a program can be found in `PATH`.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Returns from the calling test, saying so, unless the machine can record and the given programs
/// are installed.
#[macro_export]
macro_rules! needs {
    ($($program:literal),* $(,)?) => {
        if let Some(reason) = $crate::support::cannot_record() {
            return $crate::support::skip(&reason);
        }
        $(if !$crate::support::is_installed($program) {
            return $crate::support::skip(concat!($program, " is not installed"));
        })*
    };
}

/// An exclusive lock on this machine's cores among all tests that measure; dropped with the value.
/// Tests run in threads of one process and processes may run side by side: `flock` orders both.
pub struct QuietCores {
    _file: File,
}

/// Waits until no other measuring test runs.
pub fn quiet_cores() -> QuietCores {
    QuietCores { _file: locked("quiet-cores.lock") }
}

/// Opens `name` in the target directory and holds its lock for as long as the file is open.
pub fn locked(name: &str) -> File {
    let path = target_directory().join(name);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).expect("a lock file");
    // SAFETY: flock takes a descriptor that is open for as long as `file` lives, and no memory.
    while unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } != 0 {
        let error = std::io::Error::last_os_error();
        assert_eq!(error.kind(), std::io::ErrorKind::Interrupted, "flock {}: {error}", path.display());
    }
    file
}

/// Asks `ready` until it gives a value, at most for `limit`.
pub fn await_event<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Copies a program by another process: a child that a test beside this one starts could inherit our
/// descriptor, and the kernel runs no file that is open for writing.
pub fn copy_program(from: impl AsRef<Path>, to: &Path) {
    let from = from.as_ref();
    let status = Command::new("cp").arg(from).arg(to).status().expect("cp is there");
    assert!(status.success(), "cp {} {}", from.display(), to.display());
}

/// Sends a signal to one process that this test started.
pub fn send_signal(pid: u32, signal: i32) {
    let pid = libc::pid_t::try_from(pid).expect("a pid");
    assert!(pid > 1, "never a group, never init");
    // SAFETY: kill takes two numbers.
    unsafe { libc::kill(pid, signal) };
}
