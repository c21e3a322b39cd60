//! The same recording by `perf record --call-graph dwarf`, `perf script` and inferno.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use inferno::collapse::Collapse;
use inferno::collapse::perf::{Folder, Options};

use crate::Context;
use crate::measured_process::{cpu_time_ns, wait_with_usage};
use crate::recorder::Recording;
use crate::report::{Figure, Section};

const STACK_BYTES: u32 = 16384;
const FREQUENCY_HZ: u32 = 997;

/// Figures of one way from nothing to an SVG.
#[derive(Debug, Default)]
struct Way {
    wall_s: Vec<f64>,
    cpu_s: Vec<f64>,
    megabytes: Vec<f64>,
    svg_megabytes: Vec<f64>,
}

/// Runs it.
pub fn section(context: &mut Context) -> Section {
    let mut section = Section::new(
        "Beside perf",
        &format!(
            "whole host for {} s at {FREQUENCY_HZ} Hz, all processors busy 45 user frames deep, from the command to a finished SVG; \
             perf: record -e cpu-clock -a --call-graph dwarf,{STACK_BYTES}, script, inferno (the library, one thread)",
            context.seconds(10)
        ),
    );
    if let Err(error) = measure(context, &mut section) {
        section.missing("beside perf", &error);
    }
    section
}

fn measure(context: &Context, section: &mut Section) -> Result<()> {
    let _load = context.deep.start(45, context.processors)?;
    let (mut ours, mut perfs) = (Way::default(), Way::default());
    for run in 0..context.runs {
        let recording = Recording {
            frequency_hz: FREQUENCY_HZ,
            seconds: context.seconds(10),
            cache: &context.warm_cache,
            output: context.scratch.path().join(format!("beside-{run}.svg")),
        };
        let recorded = recording.run()?;
        ours.wall_s.push(recorded.wall_s);
        ours.cpu_s.push(recorded.cpu_ms / 1e3);
        ours.megabytes.push(recorded.output_bytes as f64 / 1e6);
        ours.svg_megabytes.push(recorded.output_bytes as f64 / 1e6);
        by_perf(context, &mut perfs)?;
    }
    let mut both = |what: &str, unit, ours: Vec<f64>, theirs: Vec<f64>| {
        let (ours, theirs) = (
            Figure::new(format!("{what}: spanflame"), unit, ours),
            Figure::new(format!("{what}: perf"), unit, theirs),
        );
        let ratio = theirs.median().zip(ours.median()).map(|(theirs, ours)| theirs / ours);
        section.add(ours);
        section.add(theirs);
        section.add(Figure::new("… perf takes", "times as much", ratio.into_iter().collect()));
    };
    both("wall time, command to SVG", "s", ours.wall_s, perfs.wall_s);
    both("CPU of the tools", "s", ours.cpu_s, perfs.cpu_s);
    both("bytes written", "MB", ours.megabytes, perfs.megabytes);
    both("SVG", "MB", ours.svg_megabytes, perfs.svg_megabytes);
    Ok(())
}

fn by_perf(context: &Context, way: &mut Way) -> Result<()> {
    let data = context.scratch.path().join("perf.data");
    let script = context.scratch.path().join("perf.script");
    let svg = context.scratch.path().join("perf.svg");
    let begin = Instant::now();

    let mut cpu_ms = 0.0;
    let mut run = |command: &mut Command| -> Result<()> {
        let child = command.stderr(Stdio::null()).spawn().context("cannot start perf")?;
        let ended = wait_with_usage(child)?;
        ensure!(ended.status.success(), "perf ended with {}", ended.status);
        cpu_ms += ended.cpu_ms;
        Ok(())
    };
    run(Command::new("perf")
        .args(["record", "-q", "-a", "-e", "cpu-clock", "-F", &FREQUENCY_HZ.to_string()])
        .arg("--call-graph")
        .arg(format!("dwarf,{STACK_BYTES}"))
        .arg("-o")
        .arg(&data)
        .args(["--", "sleep", &context.seconds(10).to_string()])
        .stdout(Stdio::null()))?;
    run(Command::new("perf").arg("script").arg("-i").arg(&data).stdout(fs::File::create(&script)?))?;

    let cpu_begin = cpu_time_ns(std::process::id())?;
    let mut folder_options = Options::default();
    folder_options.nthreads = 1;
    let mut folded = Vec::new();
    Folder::from(folder_options).collapse_file(Some(&script), &mut folded)?;
    let mut svg_options = inferno::flamegraph::Options::default();
    let svg_file = std::io::BufWriter::new(fs::File::create(&svg)?);
    inferno::flamegraph::from_reader(&mut svg_options, folded.as_slice(), svg_file)?;
    cpu_ms += (cpu_time_ns(std::process::id())? - cpu_begin) as f64 / 1e6;

    way.wall_s.push(begin.elapsed().as_secs_f64());
    way.cpu_s.push(cpu_ms / 1e3);
    let bytes = |path| -> Result<f64> { Ok(fs::metadata(path)?.len() as f64 / 1e6) };
    way.svg_megabytes.push(bytes(&svg)?);
    way.megabytes.push(bytes(&data)? + bytes(&script)? + bytes(&svg)?);
    for path in [&data, &script, &svg] {
        fs::remove_file(path)?;
    }
    Ok(())
}
