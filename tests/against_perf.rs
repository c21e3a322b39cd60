//! A user who knows perf compares: on the same steady load, every function with more than 5 % of
//! the time to itself has the same share, within 3 points, as `perf record` says.

mod support;

use std::collections::HashMap;
use std::process::{Child, Command, Stdio};

use support::folded::{Folded, Kind, percent};
use support::program::{Program, fixture_command};
use support::{quiet_cores, recording, seconds};

/// Self time by function, percent. What has no name is one function without a name.
type SelfShares = HashMap<String, f64>;

const UNNAMED: &str = "[unknown]";

/// A name that both tools agree on: perf prints no parameters, glibc's functions have several names,
/// and the compiler marks its clones.
fn common_name(name: &str) -> String {
    if name.starts_with('[') {
        return UNNAMED.to_owned();
    }
    let name = support::folded::plain_name(name);
    let name = name.split(".constprop").next().unwrap_or(name);
    let name = name.split(".isra").next().unwrap_or(name);
    let name = name.split(".part").next().unwrap_or(name);
    name.trim_start_matches("__GI_").trim_start_matches('_').to_owned()
}

fn shares_of(counts: HashMap<String, u64>) -> SelfShares {
    let total = counts.values().sum();
    counts.into_iter().map(|(name, count)| (name, percent(count, total))).collect()
}

/// perf at work on a process.
struct Perf {
    process: Child,
    directory: tempfile::TempDir,
}

impl Perf {
    const DATA: &str = "perf.data";

    fn start(pid: u32, seconds: u64) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let process = Command::new("perf")
            .args(["record", "-q", "-k", "CLOCK_MONOTONIC"])
            .args(["-e", "cpu-clock", "-F", "997", "--call-graph", "dwarf"])
            .args(["-p", &pid.to_string(), "-o"])
            .arg(directory.path().join(Self::DATA))
            .args(["--", "sleep", &seconds.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("perf is installed");
        Self { process, directory }
    }

    /// The innermost function that was called, for each sample between two monotonic times, seconds.
    fn shares(mut self, begin: f64, end: f64) -> SelfShares {
        assert!(self.process.wait().expect("perf is our child").success(), "perf record");
        // Inlined functions are left out on both sides: what counts is the function with the code.
        let output = Command::new("perf")
            .args(["script", "--no-inline", "-F", "ip,sym"])
            .args(["--time", &format!("{begin:.6},{end:.6}"), "-i"])
            .arg(self.directory.path().join(Self::DATA))
            .stderr(Stdio::null())
            .output()
            .expect("perf is installed");
        let mut counts = HashMap::new();
        let mut at_leaf = true;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let line = line.trim();
            if line.is_empty() {
                at_leaf = true;
            } else if at_leaf {
                let name = line.split_once(' ').map_or(UNNAMED, |(_, name)| name.trim());
                *counts.entry(common_name(name)).or_default() += 1;
                at_leaf = false;
            }
        }
        shares_of(counts)
    }
}

/// By spanflame: the same from folded stacks.
fn by_spanflame(folded: &Folded) -> SelfShares {
    let mut counts = HashMap::new();
    for stack in &folded.stacks {
        let leaf = stack.frames.iter().rev().find(|frame| frame.kind != Kind::Inlined);
        let name = leaf.map_or_else(|| UNNAMED.to_owned(), |frame| common_name(&frame.name));
        // perf knows of a script no more than the function that interprets it.
        let name = if is_of_script(&name) { "PyEval_EvalFrameDefault".to_owned() } else { name };
        *counts.entry(name).or_default() += stack.count;
    }
    shares_of(counts)
}

/// The functions of the script below, and those of json that it calls.
fn is_of_script(name: &str) -> bool {
    ["<genexpr>", "<module>", "dumps", "loads"].contains(&name) || name.starts_with("JSON")
}

fn monotonic_seconds() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Both look at the same seconds: on a shared machine the shares of a load that lives in caches move
/// by several points from one second to the next.
fn compare(program: &Program, what: &str) {
    let length = seconds(5, 10);
    let perf = Perf::start(program.pid, length + 5);
    let started = monotonic_seconds();
    let recording = recording::record_pid(program.pid, length);
    let first_sample_ms = recording.stats().start_to_first_sample_ms.expect("samples were taken");
    let begin = started + first_sample_ms / 1e3;
    let perf_shares = perf.shares(begin, begin + length as f64);
    let ours = by_spanflame(&recording.folded());
    let mut names: Vec<&String> = perf_shares.keys().chain(ours.keys()).collect();
    names.sort();
    names.dedup();
    let mut compared = 0;
    let mut wrong = Vec::new();
    for name in names {
        let share = |shares: &SelfShares| shares.get(name).copied().unwrap_or(0.0);
        let perf = share(&perf_shares);
        if perf < 5.0 && share(&ours) < 5.0 {
            continue;
        }
        compared += 1;
        println!("{what}: {name}: perf {perf:.1} %, spanflame {:.1} %", share(&ours));
        if (perf - share(&ours)).abs() > 3.0 {
            wrong.push(format!("{name}: perf {perf:.1} %, spanflame {:.1} %", share(&ours)));
        }
    }
    assert!(compared > 0, "{what}: no function has 5 %");
    assert!(wrong.is_empty(), "{what}: {wrong:#?}");
}

#[test]
fn on_the_c_fixture() {
    needs!("perf");
    let _quiet = quiet_cores();
    compare(&Program::start_ready(&mut fixture_command(&["shares", "90"])), "shares");
}

#[test]
fn on_exceptions_in_cpp() {
    needs!("perf");
    let _quiet = quiet_cores();
    compare(&Program::start_ready(&mut fixture_command(&["exceptions", "90"])), "exceptions");
}

#[test]
fn on_python3() {
    needs!("perf");
    if !std::path::Path::new("/usr/bin/python3").exists() {
        return support::skip("/usr/bin/python3 is not installed");
    }
    let _quiet = quiet_cores();
    let script = "import json, time\n\
                  print('ready 0 0', flush=True)\n\
                  end = time.monotonic() + 90\n\
                  rows = [{'n': i, 't': 'x' * (i % 50)} for i in range(300)]\n\
                  while time.monotonic() < end:\n    \
                      json.loads(json.dumps(rows)); sum(i * i for i in range(2000))\n";
    let program = Program::start_ready(Command::new("/usr/bin/python3").args(["-c", script]));
    compare(&program, "python3");
}
