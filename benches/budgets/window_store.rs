//! The window store: a synthetic day of 32 cores, half of their time busy, at 19 and at 99 Hz.
//!
//! 60 services of four threads each, 20,000 stacks a service by Zipf's law with exponent 1.1, 30 frames
//! deep, in a tree: callers are shared, leaves are not; 24,000 functions in all. All names, locations and
//! threads are stored, and bytes are those of all files. Only the clock is quicker than a day: every window
//! is written as the server does, and nothing is removed. At last `serve` goes on with the segment of that day, which
//! is one to come, so that it has not ended: what it keeps in memory to write on, and to answer, is in its peak.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use foldhash::fast::FixedState;
use rusqlite::Connection;
use spanflame::export::{self, Format};
use spanflame::model::{Frame, FrameKind, Function, Label, Location, Mapping, Profile, Sample, ValueType};
use spanflame::store::{
    Detail, Options, ProfileQuery, Retention, Selector, SqliteStore, StoreError, TimeRange, WindowStore,
};

use crate::Context;
use crate::measured_process::peak_memory_bytes;
use crate::report::{Bound, Figure, Section};
use crate::server::Server;

const SERVICES: u64 = 60;
const THREADS_EACH: u64 = 4;
const STACKS_EACH: usize = 20_000;
const DEPTH: u32 = 30;
const BUSY_CORES: u64 = 16;
const WINDOW_SECONDS: u64 = 10;
const WINDOWS_OF_DAY: u64 = 24 * 3600 / WINDOW_SECONDS;
const SECOND_NS: u64 = 1_000_000_000;
/// 2100-01-01 00:00 UTC.
const MIDNIGHT_NS: u64 = 4_102_444_800_000_000_000;

/// Runs it.
pub fn section(context: &mut Context) -> Section {
    let mut section = Section::new(
        "Window store",
        "a day of 32 cores, half busy: 60 services × 20,000 stacks of 30 frames, windows of 10 s; names included",
    );
    for (hz, bytes_bound) in [(19, 56.0), (99, 247.0)] {
        let folder = context.scratch.path().join(format!("store-{hz}"));
        let measured = day(context, &folder, hz, bytes_bound, &mut section)
            .and_then(|()| parts(&folder, hz, &mut section))
            .and_then(|()| served(context, &folder, hz, &mut section));
        if let Err(error) = measured {
            section.add(Figure::missing(format!("{hz} Hz"), format!("{error:#}")));
        }
        // A day of one rate is enough to have on the disk.
        let _ = std::fs::remove_dir_all(&folder);
    }
    section
}

fn day(context: &Context, folder: &Path, hz: u64, bytes_bound: f64, section: &mut Section) -> Result<()> {
    let now_ns = Arc::new(AtomicU64::new(MIDNIGHT_NS));
    let store = SqliteStore::open(Options {
        retention: Retention { max_age: Duration::from_secs(14 * 86_400), max_bytes: 8 << 30 },
        clock: Arc::new({
            let now_ns = Arc::clone(&now_ns);
            move || now_ns.load(Ordering::Relaxed)
        }),
        ..Options::new(folder)
    })?;
    let windows = if context.quick { WINDOWS_OF_DAY / 96 } else { WINDOWS_OF_DAY };
    let mut host = Host::new(hz);
    let (mut writing, mut slowest, mut rows) = (Duration::ZERO, Duration::ZERO, 0);
    for number in 0..windows {
        let window = host.window(number);
        rows += window.samples.len();
        // The last window of the day ends a moment before midnight, which would begin a segment.
        let end_ns = window.start_unix_ns + window.duration_ns;
        now_ns.store(end_ns.min(MIDNIGHT_NS + 24 * 3600 * SECOND_NS - 1), Ordering::Relaxed);
        let begin = Instant::now();
        store.write_window(window)?;
        let took = begin.elapsed();
        writing += took;
        slowest = slowest.max(took);
    }
    let statistics = store.statistics();
    let mebibytes = statistics.bytes as f64 / f64::from(1 << 20);
    let bytes = Figure::new(format!("{hz} Hz, files"), "MiB", vec![mebibytes]);
    section.add(if context.quick { bytes } else { bytes.bounded(Bound::AtMost(bytes_bound)) });
    let bytes_each = statistics.bytes as f64 / rows as f64;
    section.add(Figure::new(format!("{hz} Hz, a different sample"), "bytes", vec![bytes_each]));
    section.add(Figure::new(format!("{hz} Hz, segments"), "", vec![statistics.segments as f64]));
    let rate = rows as f64 / writing.as_secs_f64() / 1e6;
    section.add(Figure::new(format!("{hz} Hz, samples written"), "million/s", vec![rate]));
    let each_ms = writing.as_secs_f64() * 1e3 / windows as f64;
    section.add(Figure::new(format!("{hz} Hz, a window written, mean"), "ms", vec![each_ms]));
    let slowest_ms = slowest.as_secs_f64() * 1e3;
    section.add(Figure::new(format!("{hz} Hz, a window written, slowest"), "ms", vec![slowest_ms]));

    let end_ns = MIDNIGHT_NS + windows * WINDOW_SECONDS * SECOND_NS;
    let one = Selector { service: Some("service-7".to_owned()), ..Selector::of_type("cpu") };
    let pid = Selector { pid: Some(1070), ..Selector::of_type("cpu") };
    let all = Selector::of_type("cpu");
    let shown = vec!["comm".to_owned(), "unwind".to_owned()];
    let cases = [
        ("one service", &one, Detail::Stacks, 170.0),
        ("one process", &pid, Detail::Labels, 720.0),
        ("the host", &all, Detail::Stacks, 720.0),
        ("the host as a flame graph", &all, Detail::Keys(shown), f64::INFINITY),
        ("the host by thread", &all, Detail::Labels, f64::INFINITY),
    ];
    for (what, selector, detail, bound_ms) in cases {
        // Rollups are of three hours from midnight on: 22 hours have two at the ends that are read by window.
        let spans: &[(f64, f64, &str)] = match context.quick {
            true => &[(1.0, 0.0, "a quarter of an hour")],
            false => &[(1.0, 0.0, "1 h"), (24.0, 0.0, "24 h"), (22.0, 1.0, "22 h")],
        };
        for &(hours, before_end, span) in spans {
            let ns = |hours: f64| (hours * 3600.0) as u64 * SECOND_NS;
            let to_unix_ns = end_ns - ns(before_end);
            let from_unix_ns = to_unix_ns.saturating_sub(ns(hours)).max(MIDNIGHT_NS);
            let range = TimeRange { from_unix_ns, to_unix_ns };
            let query = ProfileQuery { selector: selector.clone(), range, detail: detail.clone() };
            let name = format!("{hz} Hz, {what}, {span}");
            let mut times_ms = Vec::new();
            let mut refused = None;
            for _ in 0..context.runs.max(3) {
                let begin = Instant::now();
                match store.profile(&query) {
                    Ok(answer) => {
                        times_ms.push(begin.elapsed().as_secs_f64() * 1e3);
                        anyhow::ensure!(answer.matched, "{what} was not found");
                    }
                    // Told apart by thread, a day at 99 Hz is more than an answer may have.
                    Err(error @ StoreError::TooMuch { .. }) => refused = Some(error.to_string()),
                    Err(error) => return Err(error.into()),
                }
            }
            let figure = match refused {
                Some(reason) => Figure::missing(name, reason),
                None => Figure::new(name, "ms", times_ms),
            };
            let bounded = bound_ms.is_finite() && span == "24 h";
            section.add(if bounded { figure.bounded(Bound::AtMost(bound_ms)) } else { figure });
        }
    }
    let range = TimeRange { from_unix_ns: MIDNIGHT_NS, to_unix_ns: end_ns };
    let begin = Instant::now();
    store.timeline(&all, range, 60 * SECOND_NS)?;
    let timeline_ms = begin.elapsed().as_secs_f64() * 1e3;
    section.add(Figure::new(format!("{hz} Hz, time line of all"), "ms", vec![timeline_ms]));
    let begin = Instant::now();
    store.services(range)?;
    let services_ms = begin.elapsed().as_secs_f64() * 1e3;
    section.add(Figure::new(format!("{hz} Hz, services of all"), "ms", vec![services_ms]));
    Ok(())
}

/// What the bytes of the files are of; the rest is what `SQLite` adds, and the log.
fn parts(folder: &Path, hz: u64, section: &mut Section) -> Result<()> {
    let parts = [
        ("blocks of samples", "SELECT sum(length(samples)) FROM blocks"),
        ("rollups", "SELECT ifnull(sum(length(samples)), 0) FROM rollup_blocks"),
        ("stack nodes", "SELECT sum(length(rows)) FROM dictionary WHERE kind = 10"),
        ("numbers of stacks", "SELECT sum(length(rows)) FROM dictionary WHERE kind % 64 = 9"),
        ("names", "SELECT sum(length(rows)) FROM dictionary WHERE kind % 64 NOT IN (9, 10)"),
        ("totals of windows", "SELECT sum(length(totals)) FROM windows"),
    ];
    for (what, sql) in parts {
        let mut bytes = 0;
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "db") {
                let connection = Connection::open(path)?;
                bytes += connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(0);
            }
        }
        let mebibytes = bytes as f64 / f64::from(1 << 20);
        section.add(Figure::new(format!("{hz} Hz, of it {what}"), "MiB", vec![mebibytes]));
    }
    Ok(())
}

/// The memory of a server that writes on such a day.
fn served(context: &Context, folder: &Path, hz: u64, section: &mut Section) -> Result<()> {
    let variables = [
        ("SPANFLAME_AGENT_EBPF_ENABLED", "false"),
        ("SPANFLAME_STORAGE_MAX_AGE", "3650d"),
        // An eighth of it is more than the segment has, or another one would be begun.
        ("SPANFLAME_STORAGE_MAX_BYTES", "8GiB"),
    ];
    let server = Server::start(folder, &variables, &context.warm_cache)?;
    let mut host = Host::new(hz);
    let mut pprof = Vec::new();
    export::write(host.window(0), Format::Pprof, &mut pprof, &export::Options::default())?;
    server.post("/api/v1/profiles?from=-20s&to=-10s", &pprof)?;
    let segments = std::fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let segments = segments.filter(|name| name.ends_with(".db")).count();
    anyhow::ensure!(segments == 1, "{segments} segments: it has not gone on with that of the day");
    let memory = |what: &str| -> Result<Figure> {
        let megabytes = peak_memory_bytes(server.pid())? as f64 / 1e6;
        let figure = Figure::new(format!("{hz} Hz, memory of serve {what}"), "MB", vec![megabytes]);
        Ok(if context.quick { figure } else { figure.bounded(Bound::AtMost(150.0)) })
    };
    section.add(memory("that writes on")?);
    let (from, to) = (MIDNIGHT_NS / SECOND_NS, MIDNIGHT_NS / SECOND_NS + 24 * 3600);
    server.get(&format!("/api/v1/profiles/flamegraph?type=cpu&service=service-7&from={from}&to={to}"))?;
    section.add(memory("after a graph of a service")?);
    Ok(())
}

/// Makes windows.
struct Host {
    hz: u64,
    period_ns: i64,
    /// Probabilities of the stacks, added up.
    cumulative: Vec<f64>,
    state: u64,
    tables: Tables,
}

impl Host {
    fn new(hz: u64) -> Self {
        let mut sum = 0.0;
        let weights = (1..=STACKS_EACH).map(|rank| (rank as f64).powf(-1.1));
        let mut cumulative: Vec<f64> = weights
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        cumulative.iter_mut().for_each(|value| *value /= sum);
        let period_ns = i64::try_from(SECOND_NS / hz).unwrap_or(i64::MAX);
        Self { hz, period_ns, cumulative, state: 1, tables: Tables::new(period_ns) }
    }

    /// A number without pattern (`SplitMix64`).
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn stack_rank(&mut self) -> usize {
        let point = (self.random() >> 11) as f64 / (1_u64 << 53) as f64;
        self.cumulative.partition_point(|&sum| sum < point)
    }

    /// The window of this number. Names stay from window to window; stacks and samples are its own.
    fn window(&mut self, number: u64) -> &Profile {
        // A fixed hash: the same windows in the same order in each run.
        let mut counts: HashMap<(u64, u64, usize), i64, FixedState> = HashMap::default();
        for _ in 0..self.hz * BUSY_CORES * WINDOW_SECONDS {
            let service = self.random() % SERVICES;
            let thread = self.random() % THREADS_EACH;
            *counts.entry((service, thread, self.stack_rank())).or_default() += 1;
        }
        let Self { tables, period_ns, .. } = self;
        tables.begin_window();
        for ((service, thread, rank), count) in counts {
            let stack = tables.stack(service, rank as u64);
            let labels = (service * THREADS_EACH + thread) as u32;
            let values = vec![count, count * *period_ns];
            tables.profile.samples.push(Sample { stack, labels, values });
        }
        tables.profile.start_unix_ns = MIDNIGHT_NS + number * WINDOW_SECONDS * SECOND_NS;
        &tables.profile
    }
}

fn labels(service: u64, thread: u64) -> Vec<Label> {
    let pid = 1000 + service as i64 * 10;
    vec![
        Label::text("comm", &format!("service-{service}")),
        Label::number("pid", pid),
        Label::text("service", &format!("service-{service}")),
        Label::text("thread_name", &format!("worker-{thread}")),
        Label::number("tid", pid + thread as i64),
    ]
}

/// Functions of a service, each with [`SITES_EACH`] places that call another.
const FUNCTIONS_EACH: u64 = 400;
const SITES_EACH: u64 = 3;

/// The tables of a window while they are filled.
struct Tables {
    profile: Profile,
    /// Index in the window, by service and rank.
    stacks: HashMap<(u64, u64), u32>,
    /// Row of each site and function of each service, if there is one already.
    locations: Vec<Option<u32>>,
    functions: Vec<Option<u32>>,
}

impl Tables {
    fn new(period_ns: i64) -> Self {
        let mapping = |service| Mapping {
            start: 0x1000,
            limit: 0x100_0000,
            path: format!("/usr/bin/service-{service}"),
            build_id: format!("{service:040x}"),
            has_functions: true,
            ..Mapping::default()
        };
        let label_sets =
            |service| (0..THREADS_EACH).map(move |thread| labels(service, thread)).collect::<Vec<_>>();
        let functions = (SERVICES * FUNCTIONS_EACH) as usize;
        Self {
            profile: Profile {
                value_types: vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")],
                default_value: 1,
                period_type: Some(ValueType::new("cpu", "nanoseconds")),
                period: period_ns,
                duration_ns: WINDOW_SECONDS * SECOND_NS,
                mappings: (0..SERVICES).map(mapping).collect(),
                label_sets: (0..SERVICES).flat_map(label_sets).collect(),
                ..Profile::default()
            },
            stacks: HashMap::default(),
            locations: vec![None; functions * SITES_EACH as usize],
            functions: vec![None; functions],
        }
    }

    fn begin_window(&mut self) {
        self.profile.samples.clear();
        self.profile.stacks.clear();
        self.stacks.clear();
    }

    fn stack(&mut self, service: u64, rank: u64) -> u32 {
        if let Some(&known) = self.stacks.get(&(service, rank)) {
            return known;
        }
        // The root is one, every second level has twice as many, and every stack a leaf of its own.
        let stack = (0..DEPTH).rev().map(|level| {
            let place = rank >> (15 - level.div_ceil(2));
            self.location(service, (u64::from(level) * 37 + place) % FUNCTIONS_EACH, place % SITES_EACH)
        });
        let stack: Vec<u32> = stack.collect();
        self.profile.stacks.push(stack);
        let index = self.profile.stacks.len() as u32 - 1;
        self.stacks.insert((service, rank), index);
        index
    }

    fn location(&mut self, service: u64, number: u64, site: u64) -> u32 {
        let key = ((service * FUNCTIONS_EACH + number) * SITES_EACH + site) as usize;
        if let Some(known) = self.locations[key] {
            return known;
        }
        let function = self.function(service, number);
        self.profile.locations.push(Location {
            mapping: Some(service as u32),
            address: 0x1000 + number * 0x400 + site * 0x30,
            kind: FrameKind::Native,
            frames: vec![Frame { function, line: 1 + (number + site) as u32 }],
        });
        let index = self.profile.locations.len() as u32 - 1;
        self.locations[key] = Some(index);
        index
    }

    fn function(&mut self, service: u64, number: u64) -> u32 {
        let key = (service * FUNCTIONS_EACH + number) as usize;
        if let Some(known) = self.functions[key] {
            return known;
        }
        self.profile.functions.push(Function {
            name: format!("shop::service_{service}::module_{}::function_{number}", number / 40),
            system_name: format!("_ZN4shop10service_{service}function_{number}17h0123456789abcdefE"),
            file: format!("/build/service-{service}/src/module_{}.rs", number / 40),
            start_line: 1 + (number % 900) as u32,
        });
        let index = self.profile.functions.len() as u32 - 1;
        self.functions[key] = Some(index);
        index
    }
}
