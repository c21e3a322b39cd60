//! The OpenTelemetry eBPF profiler on the same load, measured alike from outside.
//!
//! `benches/peer/build` builds it and its sink. Where it is missing, the figures that were once
//! measured on such a machine stand in, and are named as that.

use std::io::BufRead;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::Context;
use crate::measured_process::{BpfBefore, Snapshot, Used, watch};
use crate::recorder::Recording;
use crate::report::{Bound, Figure, Section};
use crate::workload::{Running, end_with_parent};

/// Names the folder with `ebpf-profiler` and `peer`; without it `~/.cache/spanflame-bench/peer`.
const FOLDER_VARIABLE: &str = "SPANFLAME_BENCH_PEER";

/// Figures of one profiler, one value a run.
#[derive(Debug, Default)]
struct Cost {
    cpu_percent_of_core: Vec<f64>,
    memory_mb: Vec<f64>,
    maps_mb: Vec<f64>,
    bpf_us: Vec<f64>,
    runs_per_second: Vec<f64>,
    start_ms: Vec<f64>,
    start_cpu_ms: Vec<f64>,
}

impl Cost {
    fn add(&mut self, used: &Used, end: &Snapshot) {
        self.cpu_percent_of_core.push(used.cpu_percent_of_core);
        self.memory_mb.push(end.peak_memory_bytes as f64 / 1e6);
        self.maps_mb.push(end.map_bytes as f64 / 1e6);
        self.bpf_us.push(used.bpf_us_per_run);
        self.runs_per_second.push(used.runs_per_second);
    }
}

/// Runs it.
pub fn section(context: &mut Context) -> Section {
    let mut section = Section::new(
        "Beside the OpenTelemetry eBPF profiler",
        &format!(
            "one thread a processor busy 45 user frames deep, whole host, company {}; steady CPU (user + system) over {} s from the \
             tenth second on; the peer names no native function, ours does; whether the peer's stacks are complete is not seen from outside: a run that is \
             much cheaper than 15 µs stopped early",
            context.company_names(),
            context.seconds(10)
        ),
    );
    for frequency_hz in [99, 997] {
        let result = peer_folder().and_then(|folder| measure(context, frequency_hz, &folder, &mut section));
        if let Err(error) = result {
            section.missing(format!("peer at {frequency_hz} Hz"), &error);
            quote(frequency_hz, &mut section);
        }
    }
    section
}

/// What was measured once with the peer of August 2026: two threads, 45 user frames, two processors.
fn quote(frequency_hz: u32, section: &mut Section) {
    let (cpu, memory) = if frequency_hz == 99 { (1.25, 70.0) } else { (4.4, 191.0) };
    let mut line = |what: &str, unit, value| {
        section.add(Figure::new(
            format!("{what}: peer at {frequency_hz} Hz, earlier measurement"),
            unit,
            vec![value],
        ));
    };
    line("user CPU", "% of a core", cpu);
    line("peak memory", "MB", memory);
    if frequency_hz == 997 {
        line("BPF per run", "µs", 22.6);
    }
}

fn peer_folder() -> Result<PathBuf> {
    let folder = match std::env::var_os(FOLDER_VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => {
            let home = std::env::var_os("HOME").context("HOME is not set")?;
            PathBuf::from(home).join(".cache/spanflame-bench/peer")
        }
    };
    for name in ["ebpf-profiler", "peer"] {
        ensure!(
            folder.join(name).is_file(),
            "{} is not there: run benches/peer/build",
            folder.join(name).display()
        );
    }
    Ok(folder)
}

fn measure(context: &Context, frequency_hz: u32, folder: &Path, section: &mut Section) -> Result<()> {
    let _load = context.deep.start(45, context.processors)?;
    let (mut ours, mut peers) = (Cost::default(), Cost::default());
    for run in 0..context.runs {
        our_run(context, frequency_hz, run, &mut ours)?;
        peer_run(context, frequency_hz, folder, &mut peers)?;
    }
    let mut pair = |what: &str, unit, ours: Vec<f64>, theirs: Vec<f64>, bound: Option<f64>| {
        let ours = Figure::new(format!("{what} at {frequency_hz} Hz: spanflame"), unit, ours);
        let theirs = Figure::new(format!("{what} at {frequency_hz} Hz: peer"), unit, theirs);
        let ratio = ours.median().zip(theirs.median()).map(|(ours, theirs)| ours / theirs);
        let share = Figure::new("… share of the peer's", "", ratio.into_iter().collect());
        section.add(ours);
        section.add(theirs);
        section.add(match bound {
            Some(limit) => share.bounded(Bound::AtMost(limit)),
            None => share,
        });
    };
    pair("steady CPU", "% of a core", ours.cpu_percent_of_core, peers.cpu_percent_of_core, Some(0.5));
    pair("peak memory (VmHWM)", "MB", ours.memory_mb, peers.memory_mb, Some(0.5));
    pair("BPF maps", "MB", ours.maps_mb, peers.maps_mb, None);
    pair("BPF per run of the sampling program", "µs", ours.bpf_us, peers.bpf_us, None);
    pair("runs of the sampling program", "/s", ours.runs_per_second, peers.runs_per_second, None);
    pair("start to first run", "ms", ours.start_ms, peers.start_ms, None);
    pair("CPU until the first run", "ms", ours.start_cpu_ms, peers.start_cpu_ms, None);
    Ok(())
}

fn our_run(context: &Context, frequency_hz: u32, run: usize, cost: &mut Cost) -> Result<()> {
    let before = BpfBefore::take();
    let window_s = context.seconds(10);
    let recording = Recording {
        frequency_hz,
        seconds: window_s + 12,
        cache: &context.warm_cache,
        output: context.scratch.path().join(format!("peer-{frequency_hz}-{run}.pb.gz")),
    };
    let begin = Instant::now();
    let started = recording.start()?;
    let watched = wait_and_watch(started.pid(), &before, begin, window_s, cost);
    started.finish()?;
    let (used, end) = watched?;
    cost.add(&used, &end);
    Ok(())
}

fn peer_run(context: &Context, frequency_hz: u32, folder: &Path, cost: &mut Cost) -> Result<()> {
    let (_sink, address) = start_sink(folder)?;
    let before = BpfBefore::take();
    let begin = Instant::now();
    // It reads tracefs, which is not mounted everywhere: here in a mount namespace of its own.
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c"])
        .arg("mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; exec \"$0\" \"$@\"")
        .arg(folder.join("ebpf-profiler"))
        .args(["-collection-agent", &address, "-disable-tls"])
        .args(["-samples-per-second", &frequency_hz.to_string()]);
    pretend_memlock_was_raised(&mut command);
    let profiler = Running::start(&mut command)?;
    let (used, end) = wait_and_watch(profiler.pid(), &before, begin, context.seconds(10), cost)?;
    cost.add(&used, &end);
    Ok(())
}

/// Waits for the first run of a sampling program, then watches from the tenth second on.
fn wait_and_watch(
    pid: u32,
    before: &BpfBefore,
    begin: Instant,
    window_s: u32,
    cost: &mut Cost,
) -> Result<(Used, Snapshot)> {
    loop {
        let cpu_ns = crate::measured_process::cpu_time_ns(pid).context("the profiler ended early")?;
        if Snapshot::take(pid, before)?.has_sampled() {
            cost.start_ms.push(begin.elapsed().as_secs_f64() * 1e3);
            cost.start_cpu_ms.push(cpu_ns as f64 / 1e6);
            break;
        }
        ensure!(begin.elapsed() < Duration::from_secs(30), "no sampling program ran within 30 s");
        std::thread::sleep(Duration::from_millis(5));
    }
    let warm_up = Duration::from_secs(10).saturating_sub(begin.elapsed());
    watch(pid, before, warm_up, Duration::from_secs(window_s.into()))
}

fn start_sink(folder: &Path) -> Result<(Sink, String)> {
    let mut command = Command::new(folder.join("peer"));
    end_with_parent(&mut command);
    let mut sink = Sink(command.stdout(Stdio::piped()).spawn().context("cannot start the sink")?);
    let mut address = String::new();
    let output = sink.0.stdout.as_mut().context("the sink has no output")?;
    std::io::BufReader::new(output).read_line(&mut address)?;
    Ok((sink, address.trim().to_owned()))
}

/// The sink, ended with its guard.
#[derive(Debug)]
struct Sink(Child);

impl Drop for Sink {
    fn drop(&mut self) {
        // It may have ended by itself; it is to be reaped in either case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lets the profiler run where `RLIMIT_MEMLOCK` cannot be raised. It refuses to start there, though
/// the kernel accounts BPF memory to the cgroup and needs no such limit: a seccomp filter answers
/// its attempts to set that limit with success and changes nothing else.
fn pretend_memlock_was_raised(command: &mut Command) {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // struct seccomp_data: nr at 0, args[] from 16, eight bytes each, low half first.
    const NUMBER: u32 = 0;
    const SECOND_ARGUMENT: u32 = 24;
    const THIRD_ARGUMENT: u32 = 32;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        step(LOAD_WORD, NUMBER, 0, 0),
        step(JUMP_EQUAL, libc::SYS_prlimit64 as u32, 0, 5), // else allow
        step(LOAD_WORD, SECOND_ARGUMENT, 0, 0),
        step(JUMP_EQUAL, libc::RLIMIT_MEMLOCK, 0, 3), // else allow
        step(LOAD_WORD, THIRD_ARGUMENT, 0, 0),
        step(JUMP_EQUAL, 0, 1, 0), // no new limit, low half: it only reads
        step(RETURN, libc::SECCOMP_RET_ERRNO, 0, 0), // errno 0: success, nothing done
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    // SAFETY: between fork and exec only a system call runs, which allocates nothing; the
    // filter was moved into the closure and lives through the call.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
            // Permitted without giving up new privileges, since whoever measures this is root.
            if libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
}
