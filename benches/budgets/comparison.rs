//! How long `check compare` takes from its start to its verdict, of sides of large profiles.
//!
//! The profiles are of a program that does not exist, as `record` would write them: functions with names as long as C++ has
//! them, locations of which some have inlined functions, stacks that are walks through a graph of calls, so that most are
//! met once, on sixteen threads. One function costs half as much again on the new side.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use spanflame::export::{self, Format};
use spanflame::model::{
    Frame, Function, Label, Location, Mapping, Profile, Sample, SliceInterner, ValueType,
};

use crate::Context;
use crate::report::{Bound, Figure, Section};
use crate::simulated_truth::Random;

const RUNS: usize = 10;
const FUNCTIONS: usize = 8_000;
const LOCATIONS_PER_FUNCTION: usize = 3;
const MODULES: usize = 24;
const THREADS: usize = 16;
const PERIOD_NS: i64 = 1_003_009;
const MEGABYTE: u64 = 1_000_000;
/// The function that costs more on the new side.
const CHANGED: usize = 41;

/// Runs it.
pub fn section(context: &mut Context) -> Section {
    let mut section = Section::new(
        "Comparing large recordings",
        &format!(
            "`check compare --base DIR --new DIR`, {RUNS} runs a side, from exec to exit, files in the page cache; pprof as \
             `record` writes it: {FUNCTIONS} functions, {} locations, stacks of 8 to 64 frames, {THREADS} threads",
            FUNCTIONS * LOCATIONS_PER_FUNCTION
        ),
    );
    let runs = if context.quick { 3 } else { context.runs.max(5) };
    for (what, measure) in [("on disk", Size::OnDisk), ("before compression", Size::Plain)] {
        let folder = context.scratch.path().join(format!("compare-{}", what.replace(' ', "-")));
        let name = format!("sides of {RUNS} profiles of 10 MB {what}");
        match measured(&folder, measure, runs) {
            Ok(measured) => {
                let what = format!(
                    "{name} ({:.0} MB on disk, {:.0} MB unpacked, {} stacks each)",
                    measured.on_disk as f64 / MEGABYTE as f64,
                    measured.plain as f64 / MEGABYTE as f64,
                    measured.stacks
                );
                let figure = Figure::new(what, "s", measured.seconds);
                section.add(figure.bounded(Bound::AtMost(2.0)));
                section.add(Figure::new(format!("{name}: peak memory"), "MB", vec![measured.peak_megabytes]));
            }
            Err(error) => section.missing(name, &error),
        }
        // Half a gigabyte that no other section needs.
        let _ = fs::remove_dir_all(&folder);
    }
    section
}

/// What of a profile is 10 MB.
#[derive(Clone, Copy)]
enum Size {
    OnDisk,
    Plain,
}

struct Measured {
    seconds: Vec<f64>,
    peak_megabytes: f64,
    /// Bytes of a profile's file, and of its message.
    on_disk: u64,
    plain: u64,
    stacks: usize,
}

fn measured(folder: &Path, size: Size, runs: usize) -> Result<Measured> {
    let program = Program::new();
    let mut random = Random(91);
    // Names and locations take the same in each; beyond them bytes grow with the samples.
    let mut probe = |samples| {
        let written = Written::of(&program.run(samples, 1.0, &mut random), &folder.join("probe"))?;
        let bytes = match size {
            Size::OnDisk => written.on_disk,
            Size::Plain => written.plain,
        };
        anyhow::Ok((written, samples as f64, bytes as f64))
    };
    let ((_, few, fewer_bytes), (mut written, many, bytes)) = (probe(20_000)?, probe(100_000)?);
    let per_sample = (bytes - fewer_bytes) / (many - few);
    let samples = (many + ((10 * MEGABYTE) as f64 - bytes) / per_sample) as usize;
    for (side, cost) in [("base", 1.0), ("new", 1.5)] {
        for run in 0..RUNS {
            // Runs of one program are never quite as long.
            let samples = (samples as f64 * (1.0 + 0.01 * random.normal())) as usize;
            let profile = program.run(samples, cost, &mut random);
            let folder = folder.join(side);
            written = Written::of(&profile, &folder.join(format!("run-{run:02}")))?;
            let facts = r#"{"schema_version":1,"whole_execution":true}"#;
            fs::write(folder.join(format!("run-{run:02}.json")), facts)?;
        }
    }
    let mut seconds = Vec::new();
    let mut peak_megabytes = 0.0_f64;
    // The first one is not counted: it fills the page cache.
    for run in 0..=runs {
        let report = folder.join("check.json");
        let begun = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_spanflame"))
            .args(["check", "compare", "--base", "base", "--new", "new", "--report"])
            .arg(format!("json={}", report.display()))
            .current_dir(folder)
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start the comparison")?;
        let ended = crate::measured_process::wait_with_usage(child)?;
        let elapsed = begun.elapsed();
        ensure!(ended.status.code() == Some(1), "it did not find the change: {}", ended.status);
        if run > 0 {
            seconds.push(elapsed.as_secs_f64());
            peak_megabytes = peak_megabytes.max(ended.peak_memory_bytes as f64 / MEGABYTE as f64);
        }
        let report: serde_json::Value = serde_json::from_slice(&fs::read(&report)?)?;
        let lines = report["lines"].as_array().context("no lines")?;
        let changed = program.names[CHANGED].as_str();
        let is_found = |line: &serde_json::Value| line["name"] == changed && line["verdict"] == "regressed";
        ensure!(lines.iter().any(is_found), "{changed} is not named");
    }
    Ok(Measured {
        seconds,
        peak_megabytes,
        on_disk: written.on_disk,
        plain: written.plain,
        stacks: written.stacks,
    })
}

/// Sizes of a profile that was written.
struct Written {
    on_disk: u64,
    plain: u64,
    stacks: usize,
}

impl Written {
    fn of(profile: &Profile, stem: &Path) -> Result<Self> {
        fs::create_dir_all(stem.parent().context("no folder")?)?;
        let path = PathBuf::from(format!("{}.pb.gz", stem.display()));
        export::write_file(profile, &path)?;
        let mut plain = Counted(0);
        let options = export::Options { uncompressed: true, ..export::Options::default() };
        export::write(profile, Format::Pprof, &mut plain, &options)?;
        Ok(Self { on_disk: fs::metadata(&path)?.len(), plain: plain.0, stacks: profile.stacks.len() })
    }
}

/// Counts what is written.
struct Counted(u64);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The program: its tables, and who calls whom.
struct Program {
    tables: Profile,
    names: Vec<String>,
    callees: Vec<Vec<usize>>,
}

impl Program {
    fn new() -> Self {
        const WORDS: [&str; 16] = [
            "storage", "index", "Block", "encode", "Reader", "merge", "scan", "filter", "Cursor", "commit",
            "page", "Router", "handle", "parse", "request", "Session",
        ];
        let mut random = Random(7);
        let mut tables = Profile {
            value_types: vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")],
            default_value: 1,
            period_type: Some(ValueType::new("cpu", "nanoseconds")),
            period: PERIOD_NS,
            ..Profile::default()
        };
        for module in 0..MODULES {
            tables.mappings.push(Mapping {
                start: 0x1000,
                limit: 0x100_0000,
                path: format!("/usr/lib/x86_64-linux-gnu/libcomponent{module:02}.so"),
                build_id: format!("{:040x}", module * 0x9e37_79b9),
                has_functions: true,
                ..Mapping::default()
            });
        }
        let mut names = Vec::new();
        for function in 0..FUNCTIONS {
            let mut word = || WORDS[random.below(WORDS.len())];
            let name = format!(
                "{}::{}<{}::{}Traits, std::allocator<char>>::{}_{function}(unsigned long, {} const&)",
                word(),
                word(),
                word(),
                word(),
                word(),
                word()
            );
            tables.functions.push(Function {
                name: name.clone(),
                file: format!("/src/{}/{}/{}.cc", word(), word(), word()),
                start_line: 20 + function as u32 % 900,
                ..Function::default()
            });
            names.push(name);
        }
        for location in 0..FUNCTIONS * LOCATIONS_PER_FUNCTION {
            let function = location % FUNCTIONS;
            let mut frames = vec![Frame { function: function as u32, line: 25 + location as u32 % 900 }];
            // A fifth has something inlined, which is called nowhere else.
            if location % 5 == 0 {
                frames.insert(0, Frame { function: random.below(FUNCTIONS) as u32, line: 7 });
            }
            tables.locations.push(Location {
                mapping: Some((function % MODULES) as u32),
                address: 0x1000 + 0x40 * location as u64,
                frames,
                ..Location::default()
            });
        }
        for thread in 0..THREADS {
            tables.label_sets.push(vec![
                Label::text("comm", "component-server"),
                Label::number("pid", 4_711),
                Label::text("thread_name", &format!("worker-{thread}")),
                Label::number("tid", 4_711 + thread as i64),
            ]);
        }
        // A few functions are called by many, as everywhere: the square of an even chance.
        let callees = (0..FUNCTIONS)
            .map(|_| (0..2 + random.below(6)).map(|_| random.skewed(FUNCTIONS)).collect())
            .collect();
        Self { tables, names, callees }
    }

    /// A run in which the function [`CHANGED`] costs `cost` times what it otherwise does.
    fn run(&self, samples: usize, cost: f64, random: &mut Random) -> Profile {
        let mut profile = self.tables.clone();
        let mut stacks: SliceInterner<u32> = SliceInterner::default();
        let mut sums: std::collections::HashMap<(u32, u32), i64> = std::collections::HashMap::new();
        let mut path: Vec<u32> = Vec::new();
        for _ in 0..samples {
            path.clear();
            let mut function = 0;
            for _ in 0..8 + random.below(57) {
                // A function calls most from one place.
                let place = random.skewed(LOCATIONS_PER_FUNCTION);
                path.push((function + place * FUNCTIONS) as u32);
                let callees = &self.callees[function];
                function = callees[random.skewed(callees.len())];
            }
            // One sample in thirty ends in the function that changes.
            let mut weight = 1;
            if random.below(30) == 0 {
                path.push(CHANGED as u32);
                weight = 1 + i64::from(random.uniform() < cost - 1.0);
            }
            path.reverse();
            let labels = random.below(THREADS) as u32;
            *sums.entry((stacks.intern(&path), labels)).or_default() += weight;
        }
        profile.stacks = stacks.into_slices();
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_unstable();
        profile.samples = sums
            .into_iter()
            .map(|((stack, labels), count)| Sample { stack, labels, values: vec![count, count * PERIOD_NS] })
            .collect();
        profile
    }
}
