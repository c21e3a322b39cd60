//! What being profiled costs programs of language runtimes, and what their frames cost the profiler: operations with
//! and without, alternating in one process; BPF time of one more frame; the agent while all runtimes are busy.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::agent_cost;
use crate::recorder::Recording;
use crate::report::{Bound, Figure, Section};
use crate::workload::{Running, build_folder};
use crate::{Context, workload};

/// Beyond all that a bench of one runtime takes; the loads end by themselves then.
const LOAD_SECONDS: &str = "600";

/// Runs it.
pub fn section(context: &mut Context) -> Section {
    let mut section = Section::new(
        "Language runtimes",
        &format!(
            "operations: fixtures/orders, one thread, {} s with `record` of the whole host at 99 Hz against those \
             before and after without; frames: whole host at 997 Hz, all processors busy in fixtures/bench/deep.*; agent: \
             the four programs of fixtures/orders at once",
            context.seconds(6)
        ),
    );
    for runtime in Orders::ALL {
        if let Err(error) = throughput(context, runtime, &mut section) {
            section.missing(format!("{}: operations kept", runtime.name()), &error);
        }
    }
    for (name, program, options) in DEEP {
        if let Err(error) = frame_cost(context, name, program, options, &mut section) {
            section.missing(format!("{name}: one more frame"), &error);
        }
    }
    if let Err(error) = agent(context, &mut section) {
        section.missing("agent with four runtimes", &error);
    }
    section
}

/// The program of `fixtures/orders` in one of its languages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Orders {
    Python,
    JavaScript,
    Java,
    Go,
}

impl Orders {
    const ALL: [Self; 4] = [Self::Python, Self::JavaScript, Self::Java, Self::Go];

    fn name(self) -> &'static str {
        match self {
            Self::Python => "CPython",
            Self::JavaScript => "Node",
            Self::Java => "JVM",
            Self::Go => "Go",
        }
    }

    /// Starts it; what it says comes into the file.
    fn start(self, says: &Path) -> Result<Running> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/orders");
        let mut command = match self {
            Self::Python => interpreted("python3", &sources.join("orders.py")),
            Self::JavaScript => interpreted("node", &sources.join("orders.js")),
            Self::Java => interpreted("java", &sources.join("Orders.java")),
            Self::Go => {
                let program = build_folder()?.join("orders_go");
                workload::run_to_end(
                    Command::new("go").args(["build", "-o"]).arg(&program).arg(sources.join("orders.go")),
                )?;
                Command::new(program)
            }
        };
        Running::start_saying(command.arg(LOAD_SECONDS), File::create(says)?)
    }
}

fn interpreted(program: &str, source: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg(source);
    command
}

/// How many operations had been done until when, as the program said last.
#[derive(Debug, Clone, Copy)]
struct Said {
    operations: f64,
    at_ns: f64,
}

impl Said {
    /// The last of `operations N AT_NS`.
    fn last(says: &Path) -> Result<Self> {
        let text = fs::read_to_string(says)?;
        let whole = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        let numbers = whole.lines().rev().find_map(|line| line.strip_prefix("operations "));
        let (operations, at_ns) =
            numbers.and_then(|numbers| numbers.split_once(' ')).context("it said nothing")?;
        Ok(Self { operations: operations.parse()?, at_ns: at_ns.parse()? })
    }

    /// Waits for the first.
    fn first(says: &Path) -> Result<Self> {
        let begin = Instant::now();
        loop {
            match Self::last(says) {
                Err(error) if begin.elapsed() > Duration::from_secs(20) => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(50)),
                said => return said,
            }
        }
    }

    /// Operations a second from now on for so long.
    fn per_second(says: &Path, length: Duration) -> Result<f64> {
        let begin = Self::last(says)?;
        thread::sleep(length);
        let end = Self::last(says)?;
        ensure!(end.at_ns > begin.at_ns, "the program has ended, or is not run");
        Ok((end.operations - begin.operations) / (end.at_ns - begin.at_ns) * 1e9)
    }
}

fn throughput(context: &Context, runtime: Orders, section: &mut Section) -> Result<()> {
    let says = context.scratch.path().join(format!("operations-{}", runtime.name()));
    let _load = runtime.start(&says)?;
    Said::first(&says)?;
    let length = Duration::from_secs(context.seconds(6).into());
    // Compilers finish.
    thread::sleep(length);
    let (mut without, mut kept) = (vec![Said::per_second(&says, length)?], vec![]);
    for run in 0..context.runs + 2 {
        let recording = Recording {
            frequency_hz: 99,
            seconds: context.seconds(6) + 2,
            cache: &context.warm_cache,
            output: context.scratch.path().join(format!("operations-{}-{run}.pb.gz", runtime.name())),
        };
        let started = recording.start()?;
        thread::sleep(Duration::from_secs(1));
        let with = Said::per_second(&says, length)?;
        started.finish()?;
        let before = without.last().copied().context("it was measured first")?;
        let after = Said::per_second(&says, length)?;
        without.push(after);
        kept.push(with / f64::midpoint(before, after) * 100.0);
    }
    let name = runtime.name();
    section.add(Figure::new(format!("{name}: operations a second, not profiled"), "/s", without));
    section.add(
        Figure::new(format!("{name}: … kept while profiled at 99 Hz"), "%", kept)
            .bounded(Bound::AtLeast(95.0)),
    );
    Ok(())
}

/// Programs whose stack is as deep as wanted, and the options that choose how they run.
const DEEP: [(&str, &str, &[&str]); 5] = [
    ("CPython", "python3", &[]),
    ("Node, interpreted", "node", &["--no-opt", "--no-sparkplug"]),
    ("Node, compiled", "node", &[]),
    ("JVM, interpreted", "java", &["-Xint"]),
    ("JVM, compiled", "java", &[]),
];

const DEPTHS: [u32; 3] = [10, 30, 60];

fn frame_cost(
    context: &Context,
    name: &str,
    program: &str,
    options: &[&str],
    section: &mut Section,
) -> Result<()> {
    let source = match program {
        "python3" => "deep.py",
        "node" => "deep.js",
        _ => "DeepCalls.java",
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/bench").join(source);
    let mut by_depth = Vec::new();
    for depth in DEPTHS {
        let _loads = (0..context.processors)
            .map(|_| {
                let mut command = Command::new(program);
                Running::start(command.args(options).arg(&source).arg(depth.to_string()))
            })
            .collect::<Result<Vec<_>>>()?;
        // Java compiles its source first, and compilers of the running program finish.
        thread::sleep(Duration::from_secs(4));
        let (mut per_sample, mut frames) = (vec![], vec![]);
        for run in 0..context.runs {
            let output = context.scratch.path().join(format!("{program}-{depth}-{run}.folded"));
            let recording = Recording {
                frequency_hz: 997,
                seconds: context.seconds(6),
                cache: &context.warm_cache,
                output: output.clone(),
            };
            per_sample.push(recording.run()?.statistics.bpf_us_per_sample());
            frames.push(frames_of_calls(&fs::read_to_string(&output)?)?);
        }
        let sample = Figure::new(format!("{name}: a sample, {depth} calls deep"), "µs", per_sample);
        let frames = Figure::new(format!("{name}: … frames of these calls, {depth} deep"), "frames", frames);
        by_depth.push((frames.median().context("no frames")?, sample.median().context("no sample")?));
        section.add(if depth == 30 { sample.bounded(Bound::AtMost(12.0)) } else { sample });
        section.add(frames);
    }
    if let (Some(&(shallow, cheap)), Some(&(deep, dear))) = (by_depth.first(), by_depth.last()) {
        let marginal = (dear - cheap) * 1e3 / (deep - shallow);
        section.add(
            Figure::new(
                format!("{name}: one more frame (slope, least to greatest depth)"),
                "ns",
                vec![marginal],
            )
            .bounded(Bound::AtMost(400.0)),
        );
    }
    Ok(())
}

/// How many frames of `descend` a sample of the load has that a profiler has walked: inlined ones are named later.
fn frames_of_calls(folded: &str) -> Result<f64> {
    let (mut frames, mut samples) = (0, 0);
    for line in folded.lines() {
        let (stack, count) = line.rsplit_once(' ').context("a line without a count")?;
        let count: usize = count.parse()?;
        let calls =
            stack.split(';').filter(|name| name.contains("descend") && !name.ends_with("_[i]")).count();
        if calls > 0 {
            frames += calls * count;
            samples += count;
        }
    }
    ensure!(samples > 0, "no sample has a frame of the load");
    Ok(frames as f64 / samples as f64)
}

/// The agent's budgets while all four runtimes run.
fn agent(context: &Context, section: &mut Section) -> Result<()> {
    let mut loads = Vec::new();
    for runtime in Orders::ALL {
        let says = context.scratch.path().join(format!("agent-{}", runtime.name()));
        loads.push(runtime.start(&says)?);
        Said::first(&says)?;
    }
    agent_cost::measure(context, 99, ", four runtimes", section)
}
