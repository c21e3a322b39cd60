//! `spanflame serve`: what it costs to leave it running, and what a graph of a million nodes costs.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use spanflame::model::{Frame, Function, Label, Location, Mapping, Profile, Sample, ValueType};
use spanflame::store::{Options, SqliteStore, WindowStore};

use crate::Context;
use crate::measured_process::{cpu_time_ns, peak_memory_bytes};
use crate::report::{Bound, Figure, Section};

/// Stacks of the great graph …
const STACKS: u32 = 62_500;
/// … and the frames that each has to itself.
const OWN_FRAMES: u32 = 16;
/// 2026-11-21 00:00 UTC.
const MIDNIGHT_S: u64 = 1_795_219_200;

/// Runs it.
pub fn section(context: &mut Context) -> Section {
    let mut section = Section::new(
        "Server",
        &format!(
            "serve at 19 Hz for {} s beside the idle company {}, then with all processors busy 45 user frames deep; \
             memory is VmHWM; times of answers are from request to last byte, over loopback",
            context.seconds(30),
            context.company_names(),
        ),
    );
    for (what, busy) in [("idle", false), ("busy", true)] {
        if let Err(error) = left_running(context, what, busy, &mut section) {
            section.missing(format!("serve, {what}"), &error);
        }
    }
    if let Err(error) = great_graph(context, &mut section) {
        section.missing("a graph of 1 million nodes".to_owned(), &error);
    }
    section
}

fn left_running(context: &Context, what: &str, busy: bool, section: &mut Section) -> Result<()> {
    let _load = if busy { Some(context.deep.start(45, context.processors)?) } else { None };
    let data = context.scratch.path().join(format!("serve-{what}"));
    let server = Server::start(&data, &[], &context.warm_cache)?;
    // What was there before is read, and its names are found, in the first window.
    std::thread::sleep(Duration::from_secs(12));
    let (begin, before_ns) = (Instant::now(), cpu_time_ns(server.pid())?);
    std::thread::sleep(Duration::from_secs(context.seconds(30).into()));
    let used_ns = (cpu_time_ns(server.pid())? - before_ns) as f64;
    let share = used_ns / begin.elapsed().as_nanos() as f64 * 100.0;
    section.add(Figure::new(format!("CPU, host {what}"), "% of a core", vec![share]));
    let memory = peak_memory_bytes(server.pid())? as f64 / 1e6;
    let memory = Figure::new(format!("memory, host {what}"), "MB", vec![memory]);
    section.add(memory.bounded(Bound::AtMost(150.0)));
    Ok(())
}

fn great_graph(context: &Context, section: &mut Section) -> Result<()> {
    let data = context.scratch.path().join("serve-great");
    SqliteStore::open(Options::new(&data))?.write_window(&great_profile())?;
    let without_profiler =
        [("SPANFLAME_AGENT_EBPF_ENABLED", "false"), ("SPANFLAME_STORAGE_MAX_AGE", "3650d")];
    let server = Server::start(&data, &without_profiler, &context.warm_cache)?;
    let range = format!("from={MIDNIGHT_S}&to={}", MIDNIGHT_S + 10);
    for format in ["columnar", "json", "pprof"] {
        let path = format!("/api/v1/profiles/flamegraph?type=cpu&{range}&format={format}");
        let (mut times_ms, mut bytes) = (Vec::new(), 0);
        for _ in 0..context.runs.max(3) {
            let begin = Instant::now();
            bytes = server.get(&path)?.len();
            times_ms.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        section.add(Figure::new(format!("1 M nodes as {format}"), "ms", times_ms));
        section.add(Figure::new(format!("1 M nodes as {format}, size"), "MB", vec![bytes as f64 / 1e6]));
    }
    let memory = peak_memory_bytes(server.pid())? as f64 / 1e6;
    section.add(Figure::new("memory after that", "MB", vec![memory]));
    Ok(())
}

/// One window whose graph has a million nodes.
fn great_profile() -> Profile {
    let mut profile = Profile {
        value_types: vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")],
        default_value: 1,
        period_type: Some(ValueType::new("cpu", "nanoseconds")),
        period: 10_101_010,
        start_unix_ns: MIDNIGHT_S * 1_000_000_000,
        duration_ns: 10_000_000_000,
        mappings: vec![Mapping {
            start: 0x1000,
            limit: 1 << 30,
            path: "/usr/bin/great".to_owned(),
            ..Mapping::default()
        }],
        label_sets: vec![vec![Label::text("comm", "great"), Label::text("service", "great")]],
        ..Profile::default()
    };
    for function in 0..4096_u32 {
        profile.functions.push(Function {
            name: format!("great::module_{}::function_{function}", function / 64),
            ..Function::default()
        });
        profile.locations.push(Location {
            mapping: Some(0),
            address: 0x1000 + u64::from(function) * 64,
            frames: vec![Frame { function, line: 0 }],
            ..Location::default()
        });
    }
    for stack in 0..STACKS {
        // The first two levels tell all stacks apart, so every frame below them is a node of its own.
        let own = (0..OWN_FRAMES - 2).map(|level| (stack.wrapping_mul(31) + level * 97) % 4096);
        let mut frames: Vec<u32> = own.collect();
        frames.extend([stack % 4096, 1 + stack / 4096]);
        profile.stacks.push(frames);
        profile.samples.push(Sample { stack, labels: 0, values: vec![1, 10_101_010] });
    }
    profile
}

/// A server of the release build.
pub struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Starts it, and waits until it says where it is.
    pub fn start(data: &Path, variables: &[(&str, &str)], cache: &Path) -> Result<Self> {
        fs::create_dir_all(data)?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_spanflame"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .env("SPANFLAME_CACHE_DIR", cache)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output is piped")?).read_line(&mut line)?;
        let address = line.trim().trim_start_matches("http://").trim_end_matches('/').to_owned();
        ensure!(!address.is_empty(), "the server has not started");
        Ok(Self { child, address })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The body of an answer, which must be 200.
    pub fn get(&self, path: &str) -> Result<Vec<u8>> {
        self.ask(&format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address), &[])
    }

    /// Sends bytes, and answers likewise.
    pub fn post(&self, path: &str, body: &[u8]) -> Result<Vec<u8>> {
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.0\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n", self.address);
        self.ask(&head, body)
    }

    fn ask(&self, head: &str, body: &[u8]) -> Result<Vec<u8>> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no end of headers")?;
        let status = String::from_utf8_lossy(&answer[..end]).lines().next().unwrap_or_default().to_owned();
        let asked = head.lines().next().unwrap_or_default();
        ensure!(status.contains(" 200 "), "{asked}: {status} {}", String::from_utf8_lossy(&answer[end..]));
        Ok(answer.split_off(end + 4))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
