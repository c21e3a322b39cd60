//! `spanflame record`, run as a user runs it, and what it says about itself with `--stats json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::measured_process::wait_with_usage;

/// The object that `--stats json` writes (INTERFACE.md, "Command line"), as far as it is used here.
#[derive(Debug, Deserialize)]
pub struct Statistics {
    /// Samples by what became of them.
    pub samples: Samples,
    /// Written samples by how their unwinding ended.
    pub stacks: Stacks,
    /// The same by the executable of the process.
    pub executables: Vec<Executable>,
    /// Frames of all samples that were taken.
    pub frames: Frames,
    /// Milliseconds from the start of the program.
    pub start_to_first_sample_ms: Option<f64>,
    /// Milliseconds from the start of the program.
    pub start_to_first_complete_ms: Option<f64>,
    /// User and system time.
    pub agent_cpu_ms: f64,
    /// Run time of the sampling program.
    pub bpf_run_ms: f64,
    /// `VmHWM`.
    pub agent_peak_memory_bytes: u64,
    /// Memory of the BPF maps.
    pub bpf_map_bytes: u64,
}

/// See [`Statistics::samples`].
#[derive(Debug, Deserialize)]
pub struct Samples {
    /// Taken.
    pub taken: u64,
    /// In the file.
    pub written: u64,
    /// Lost, by reason.
    pub lost: BTreeMap<String, u64>,
}

/// See [`Statistics::stacks`].
#[derive(Debug, Deserialize)]
pub struct Stacks {
    /// Down to the outermost frame.
    pub complete: u64,
    /// Not so, by reason.
    pub incomplete: BTreeMap<String, u64>,
}

/// See [`Statistics::executables`].
#[derive(Debug, Deserialize)]
pub struct Executable {
    /// Its file.
    pub path: String,
    /// Written samples with a user stack.
    pub samples: u64,
    /// Of these, down to the outermost frame.
    pub complete: u64,
}

/// See [`Statistics::frames`].
#[derive(Debug, Deserialize)]
pub struct Frames {
    /// User frames.
    pub user: u64,
}

impl Statistics {
    /// Share of samples with a user stack whose stack is complete, percent.
    pub fn complete_percent(&self) -> f64 {
        let incomplete: u64 = self.stacks.incomplete.values().sum();
        self.stacks.complete as f64 * 100.0 / (self.stacks.complete + incomplete) as f64
    }

    /// Which stacks are not complete, and why; empty if all are.
    pub fn incomplete(&self) -> String {
        let reasons = self.stacks.incomplete.iter().map(|(reason, count)| format!("{count} {reason}"));
        let executables =
            self.executables.iter().filter(|executable| executable.complete < executable.samples);
        let executables = executables.map(|executable| {
            let name = executable.path.rsplit('/').next().unwrap_or_default();
            format!("{} of {} in {name}", executable.samples - executable.complete, executable.samples)
        });
        reasons.chain(executables).collect::<Vec<_>>().join(", ")
    }

    /// Microseconds of BPF for each sample.
    pub fn bpf_us_per_sample(&self) -> f64 {
        self.bpf_run_ms * 1e3 / self.samples.taken as f64
    }

    /// User frames of the average sample.
    pub fn user_frames_per_sample(&self) -> f64 {
        self.frames.user as f64 / self.samples.taken as f64
    }

    /// Whether taken = written + Σ lost.
    pub fn adds_up(&self) -> bool {
        self.samples.taken == self.samples.written + self.samples.lost.values().sum::<u64>()
    }
}

/// A recording of the whole host, to be started.
#[derive(Debug)]
pub struct Recording<'folder> {
    /// Samples a second and processor.
    pub frequency_hz: u32,
    /// How long.
    pub seconds: u32,
    /// Folder of the unwind-table cache.
    pub cache: &'folder Path,
    /// The file to write; its ending is the format.
    pub output: PathBuf,
}

/// A recording that runs.
#[derive(Debug)]
pub struct Started {
    child: Child,
    begin: Instant,
    output: PathBuf,
    statistics: PathBuf,
    messages: PathBuf,
}

/// A recording that has ended well.
#[derive(Debug)]
pub struct Recorded {
    /// What it says about itself.
    pub statistics: Statistics,
    /// From its start to its end, seconds.
    pub wall_s: f64,
    /// User and system time, all of it, milliseconds.
    pub cpu_ms: f64,
    /// Size of what it wrote.
    pub output_bytes: u64,
}

impl Recording<'_> {
    /// Starts it.
    pub fn start(&self) -> Result<Started> {
        let statistics = self.output.with_extension("stats.json");
        let messages = self.output.with_extension("messages");
        let begin = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_spanflame"))
            .arg("record")
            .args(["--duration", &format!("{}s", self.seconds)])
            .args(["--frequency", &self.frequency_hz.to_string()])
            .arg(format!("--stats=json={}", statistics.display()))
            .arg("-o")
            .arg(&self.output)
            .env("SPANFLAME_CACHE_DIR", self.cache)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&messages)?)
            .spawn()
            .context("cannot start spanflame record")?;
        Ok(Started { child, begin, output: self.output.clone(), statistics, messages })
    }

    /// Starts it and waits for its end.
    pub fn run(&self) -> Result<Recorded> {
        self.start()?.finish()
    }
}

impl Started {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub fn finish(self) -> Result<Recorded> {
        let ended = wait_with_usage(self.child)?;
        let wall_s = self.begin.elapsed().as_secs_f64();
        ensure!(
            ended.status.success(),
            "spanflame record ended with {}: {}",
            ended.status,
            fs::read_to_string(&self.messages).unwrap_or_default().trim()
        );
        let text = fs::read_to_string(&self.statistics).context("spanflame record wrote no statistics")?;
        let statistics: Statistics = serde_json::from_str(&text).context("statistics of another form")?;
        ensure!(statistics.samples.taken > 0, "spanflame record took no sample");
        ensure!(statistics.adds_up(), "samples are not accounted for: {text}");
        let output_bytes = fs::metadata(&self.output).context("spanflame record wrote no file")?.len();
        Ok(Recorded { statistics, wall_s, cpu_ms: ended.cpu_ms, output_bytes })
    }
}
