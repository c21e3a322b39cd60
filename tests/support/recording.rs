//! `spanflame record`, run and read back.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tempfile::TempDir;

use super::folded::Folded;

/// The object of `--stats json` (INTERFACE.md). A missing key is an error, an extra one is not.
#[derive(Debug, Clone, Deserialize)]
pub struct Stats {
    pub samples: Samples,
    pub stacks: Stacks,
    pub executables: Vec<Executable>,
    pub start_to_first_sample_ms: Option<f64>,
    pub start_to_first_complete_ms: Option<f64>,
    pub agent_cpu_ms: f64,
    pub bpf_run_ms: Option<f64>,
    pub agent_peak_memory_bytes: u64,
    pub bpf_map_bytes: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Samples {
    pub taken: u64,
    pub written: u64,
    pub idle: u64,
    pub lost: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Stacks {
    pub complete: u64,
    pub incomplete: BTreeMap<String, u64>,
    pub no_user: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Executable {
    pub path: String,
    pub build_id: Option<String>,
    pub samples: u64,
    pub complete: u64,
}

impl Stats {
    /// Fails unless every sample that was taken is accounted for, exactly.
    pub fn assert_exact(&self) {
        let lost: u64 = self.samples.lost.values().sum();
        assert_eq!(self.samples.taken, self.samples.written + lost, "taken = written + lost: {self:#?}");
        let incomplete: u64 = self.stacks.incomplete.values().sum();
        let stacks = self.stacks.complete + incomplete + self.stacks.no_user;
        assert_eq!(self.samples.written, stacks, "every written sample has one outcome: {self:#?}");
        for executable in &self.executables {
            assert!(executable.complete <= executable.samples, "{executable:?}");
        }
        let by_executable: u64 = self.executables.iter().map(|executable| executable.samples).sum();
        assert!(by_executable <= self.samples.written, "no sample is counted twice: {self:#?}");
    }

    /// The executables whose file has this name, summed: samples, complete.
    pub fn of_executable(&self, file_name: &str) -> (u64, u64) {
        let of_name = |path: &str| path.rsplit('/').next() == Some(file_name);
        let chosen = self.executables.iter().filter(|executable| of_name(&executable.path));
        chosen.fold((0, 0), |(samples, complete), executable| {
            (samples + executable.samples, complete + executable.complete)
        })
    }
}

/// A finished recording.
pub struct Recording {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub elapsed: Duration,
    /// The file that `-o` named, which need not exist.
    pub output: PathBuf,
    stats_file: PathBuf,
    directory: TempDir,
}

impl Recording {
    /// What `--stats json=FILE` wrote.
    pub fn stats(&self) -> Stats {
        let text = std::fs::read_to_string(&self.stats_file)
            .unwrap_or_else(|error| panic!("no stats: {error}; stderr:\n{}", self.stderr));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("stats: {error} in {text}"))
    }

    /// The recording as folded stacks; converted by `spanflame convert` if written otherwise.
    pub fn folded(&self) -> Folded {
        let path = if self.output.extension().is_some_and(|ending| ending == "folded") {
            self.output.clone()
        } else {
            self.converted("converted.folded")
        };
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; stderr:\n{}", path.display(), self.stderr));
        Folded::parse(&text)
    }

    /// The same profile in the format of another file name.
    pub fn converted(&self, name: &str) -> PathBuf {
        let target = self.directory.path().join(name);
        let output = super::spanflame()
            .arg("convert")
            .arg(&self.output)
            .arg("-o")
            .arg(&target)
            .output()
            .expect("spanflame starts");
        assert!(output.status.success(), "convert: {}", String::from_utf8_lossy(&output.stderr));
        target
    }

    /// Fails with what the binary said unless it ended well.
    pub fn assert_success(&self) -> &Self {
        assert!(self.status.success(), "record: {:?}\n{}", self.status, self.stderr);
        self
    }

    /// Exit code as a shell shows it.
    pub fn exit_code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }
}

/// A recording that is still running.
pub struct Running {
    child: Option<Child>,
    started: Instant,
    output: PathBuf,
    stats_file: PathBuf,
    directory: Option<TempDir>,
}

/// Starts `spanflame record` with `--stats json=FILE -o FILE` (whose name gives the format) and
/// these arguments; `-- CMD` may be among them.
pub fn start(file_name: &str, arguments: &[&str]) -> Running {
    start_with(file_name, arguments, |_| {})
}

/// Like [`start`], with changes to the command (environment, user).
pub fn start_with(file_name: &str, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Running {
    // Below the target directory: a recording that a test keeps in a static is never dropped.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
    let output = directory.path().join(file_name);
    let stats_file = directory.path().join("stats.json");
    let mut command = super::spanflame();
    command.arg("record").arg(format!("--stats=json={}", stats_file.display())).arg("-o").arg(&output);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    change(&mut command);
    let child = command.spawn().expect("spanflame starts");
    Running { child: Some(child), started: Instant::now(), output, stats_file, directory: Some(directory) }
}

/// Records to the end.
pub fn record(file_name: &str, arguments: &[&str]) -> Recording {
    start(file_name, arguments).finish()
}

/// Records one process for so many seconds at 997 Hz into folded stacks.
pub fn record_pid(pid: u32, seconds: u64) -> Recording {
    record_pids(&[pid], seconds)
}

/// Records several processes.
pub fn record_pids(pids: &[u32], seconds: u64) -> Recording {
    let mut arguments =
        vec!["--frequency".to_owned(), "997".to_owned(), "--duration".to_owned(), format!("{seconds}s")];
    for pid in pids {
        arguments.extend(["--pid".to_owned(), pid.to_string()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let recording = record("recording.folded", &arguments);
    recording.assert_success();
    recording.stats().assert_exact();
    recording
}

impl Running {
    /// The recorder's pid.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Waits until the recorder has opened its perf events: from then on samples can be taken.
    pub fn await_sampling(&self) {
        let directory = format!("/proc/{}/fd", self.pid());
        super::await_event("the recorder opens perf events", Duration::from_secs(20), || {
            let entries = std::fs::read_dir(&directory).ok()?;
            let mut links = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
            links.find(|link| link.to_string_lossy().contains("[perf_event]")).map(|_| ())
        });
    }

    /// Whether the file that `-o` named is there.
    pub fn output_exists(&self) -> bool {
        self.output.exists()
    }

    /// Whether the recorder is gone, though nobody has waited for it yet.
    pub fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
    }

    /// Waits until the recorder handles a signal by itself.
    pub fn await_handler_of(&self, signal: i32) {
        super::await_event("the recorder handles signals", Duration::from_secs(20), || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
            let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
            (caught >> (signal - 1) & 1 == 1).then_some(())
        });
    }

    /// Sends the recorder a signal.
    pub fn signal(&self, signal: i32) {
        super::send_signal(self.pid(), signal);
    }

    /// Waits for its end, which must come within two minutes: a recorder that hangs is a failure,
    /// not a test that never ends.
    pub fn finish(mut self) -> Recording {
        let child = self.child.take().expect("it runs");
        let pid = child.id();
        let (done, waiting) = std::sync::mpsc::channel::<()>();
        let watchdog = std::thread::spawn(move || {
            if waiting.recv_timeout(Duration::from_secs(120))
                == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                super::send_signal(pid, libc::SIGKILL);
            }
        });
        let output = child.wait_with_output().expect("it is our child");
        let elapsed = self.started.elapsed();
        let _ = done.send(());
        let _ = watchdog.join();
        Recording {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            elapsed,
            output: std::mem::take(&mut self.output),
            stats_file: std::mem::take(&mut self.stats_file),
            directory: self.directory.take().expect("it is given away once"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
