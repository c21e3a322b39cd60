//! A user who knows a runtime's own profiler compares: on the same load at the same time every function with more
//! than 5 % of the time has the same share, within 3 points, by itself and with what it calls. The load is the same
//! program in four languages (`fixtures/orders`).
//!
//! The peers: py-spy, Node's `--cpu-prof`, the JVM's flight recorder, Go's runtime/pprof.

mod support;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use support::folded::{Folded, Frame, Kind, Stack, plain_name};
use support::peer_stacks::{PeerStacks, agree_in_one_of_three, compare, not_compared};
use support::program::Program;
use support::recording::{self, Recording};
use support::{await_event, long_tests, pprof_text, quiet_cores, skip};

/// The functions of the program in all four languages.
const FUNCTIONS: [&str; 12] = [
    "main",
    "serve",
    "handle",
    "parse",
    "price",
    "discounted",
    "rank",
    "rank_of",
    "rankOf",
    "render",
    "sign",
    "textOfOrders",
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn orders(file: &str) -> PathBuf {
    repository().join("fixtures/orders").join(file)
}

/// The name of one of the program's functions without its class or package, if it is one.
fn of_program(name: &str, prefix: &str) -> Option<String> {
    let own = plain_name(name).strip_prefix(prefix)?;
    FUNCTIONS.contains(&own).then(|| own.to_owned())
}

/// Our stacks of those of the program's functions that are wanted, without all other frames.
fn ours(folded: &Folded, prefix: &str, is_wanted: impl Fn(&Frame) -> bool) -> PeerStacks {
    let mut stacks = PeerStacks::default();
    for stack in &folded.stacks {
        let frames = stack.frames.iter().filter(|frame| is_wanted(frame));
        stacks.add(frames.filter_map(|frame| of_program(&frame.name, prefix)).collect(), stack.count);
    }
    stacks
}

fn succeeded(what: &str, output: &Output) {
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A recording of a process, and the seconds in which its samples were taken: by the monotonic clock and since 1970.
struct Watched {
    recording: Recording,
    begin_monotonic_s: f64,
    begin_s: f64,
    length_s: f64,
}

/// For how long the busiest thread of a process, which is that with the program's functions, has run, and for how long
/// it has waited for a processor, seconds.
fn scheduled(pid: u32) -> (f64, f64) {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok());
    let times_s = texts.map(|text| {
        let mut numbers = text.split(' ').map(|number| number.parse::<f64>().unwrap_or(0.0) / 1e9);
        (numbers.next().unwrap_or(0.0), numbers.next().unwrap_or(0.0))
    });
    times_s.max_by(|(one, _), (other, _)| one.total_cmp(other)).unwrap_or_default()
}

impl Watched {
    /// Records a program, or says why that cannot be compared: who waits for a processor is seen by one profiler and
    /// not by another.
    fn watch(program: &mut Program, length_s: u64) -> Result<Self, String> {
        let (ran_before_s, waited_before_s) = scheduled(program.pid);
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        let recording = recording::record_pid(program.pid, length_s);
        let first_sample_s = recording.stats().start_to_first_sample_ms.expect("samples were taken") / 1e3;
        let (ran_s, waited_s) = scheduled(program.pid);
        if !program.is_running() {
            return Err("the machine is so slow that the program has ended before its recording".to_owned());
        }
        let (ran_s, waited_s) = (ran_s - ran_before_s, waited_s - waited_before_s);
        if waited_s > 0.15 * ran_s {
            return Err(format!(
                "the machine is busy: the program ran {ran_s:.1} s and waited {waited_s:.1} s"
            ));
        }
        Ok(Self {
            recording,
            begin_monotonic_s: now.tv_sec as f64 + now.tv_nsec as f64 / 1e9 + first_sample_s,
            begin_s: since_1970 + first_sample_s,
            length_s: length_s as f64,
        })
    }
}

/// Lets unwind tables be built and compilers finish, so that what is compared begins with both.
fn warm_up(program: &Program) {
    drop(recording::record_pid(program.pid, 2));
}

fn await_end(program: &mut Program) {
    await_event("the program ends", Duration::from_secs(60), || (!program.is_running()).then_some(()));
}

/// Whether functions that were inlined count for themselves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inlined {
    /// Of every instruction it is certain whose it is.
    Exactly,
    /// A compiler says so of some instructions only, and between those each profiler takes another one's word. Which
    /// compiled function it was is certain.
    NotCounted,
}

// ---- CPython: py-spy -----------------------------------------------------------------------------------------

const PY_SPY_SECONDS: u64 = 12;

fn against_py_spy(what: &str, command: &mut Command) -> bool {
    let environment = match support::python_sdk::python_with("py-spy", &["py-spy==0.4.*"], "sys") {
        Ok(python) => python,
        Err(reason) => return not_compared(&format!("py-spy cannot be had: {reason}")),
    };
    let _quiet = quiet_cores();
    let mut program = Program::start_ready(command.arg("90"));
    warm_up(&program);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let raw = directory.path().join("raw.txt");
    // It stops the program for each sample; both see the same of what the program does between.
    let py_spy = Command::new(environment.with_file_name("py-spy"))
        .args(["record", "--format", "raw", "--rate", "600", "--pid", &program.pid.to_string()])
        .args(["--duration", &PY_SPY_SECONDS.to_string(), "--output"])
        .arg(&raw)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("py-spy starts");
    let watched = Watched::watch(&mut program, PY_SPY_SECONDS);
    succeeded("py-spy", &py_spy.wait_with_output().expect("it is our child"));
    let watched = match watched {
        Ok(watched) => watched,
        Err(reason) => return not_compared(&format!("{what}: {reason}")),
    };

    let mut theirs = PeerStacks::default();
    for line in std::fs::read_to_string(&raw).expect("py-spy has written").lines() {
        let (frames, count) = line.rsplit_once(' ').expect("a count");
        // `handle (orders.py:84);parse (orders.py:38) 12`
        let names = frames.split(';').filter_map(|frame| frame.split_once(' ')).map(|(name, _)| name);
        theirs.add(names.filter_map(|name| of_program(name, "")).collect(), count.parse().expect("a count"));
    }
    compare(what, &ours(&watched.recording.folded(), "", |_| true), &theirs, |_| true, 4)
}

#[test]
fn cpython_against_py_spy() {
    needs!();
    if !Path::new("/usr/bin/python3").exists() {
        return skip("/usr/bin/python3 is not installed");
    }
    agree_in_one_of_three(|| {
        against_py_spy("CPython", Command::new("/usr/bin/python3").arg(orders("orders.py")))
    });
    if !long_tests() {
        return;
    }
    for (version, suite) in [("3.9", "bullseye"), ("3.13", "trixie")] {
        let fetched = Command::new(repository().join("fixtures/runtimes/debian.sh"))
            .args([suite, "python3"])
            .output()
            .expect("a shell");
        succeeded(suite, &fetched);
        let mut command = Command::new(repository().join("fixtures/runtimes/in_root.sh"));
        command.arg(String::from_utf8_lossy(&fetched.stdout).trim());
        command.args(["/usr/bin/python3", "/fixtures/orders/orders.py"]);
        agree_in_one_of_three(|| against_py_spy(&format!("CPython {version}"), &mut command));
    }
}

// ---- Node: --cpu-prof ----------------------------------------------------------------------------------------

const NODE_SECONDS: u64 = 9;

/// What of V8's `.cpuprofile` is read here: a tree of call frames, and which of them was innermost when.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CpuProfile {
    nodes: Vec<Node>,
    /// By the monotonic clock, microseconds.
    start_time: u64,
    samples: Vec<u32>,
    /// From one sample to the next, microseconds.
    time_deltas: Vec<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    id: u32,
    call_frame: CallFrame,
    #[serde(default)]
    children: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CallFrame {
    function_name: String,
    url: String,
}

impl CpuProfile {
    /// The stacks of the samples between two times, of functions of `orders.js` that are wanted.
    fn stacks(&self, begin_s: f64, end_s: f64, is_wanted: impl Fn(&str) -> bool) -> PeerStacks {
        let by_id: HashMap<u32, &Node> = self.nodes.iter().map(|node| (node.id, node)).collect();
        let callers: HashMap<u32, u32> =
            self.nodes.iter().flat_map(|node| node.children.iter().map(|&child| (child, node.id))).collect();
        let mut stacks = PeerStacks::default();
        let mut at_us = self.start_time as i64;
        for (&leaf, delta_us) in self.samples.iter().zip(&self.time_deltas) {
            at_us += delta_us;
            let leaf_name = by_id[&leaf].call_frame.function_name.as_str();
            let is_collector = leaf_name == "(garbage collector)";
            if is_collector || !(begin_s..=end_s).contains(&(at_us as f64 / 1e6)) {
                continue;
            }
            let path = std::iter::successors(Some(leaf), |id| callers.get(id).copied());
            let frames = path.map(|id| &by_id[&id].call_frame);
            let own = frames.filter(|frame| frame.url.ends_with("/orders.js"));
            let named = own.filter_map(|frame| of_program(&frame.function_name, ""));
            let mut functions: Vec<String> = named.filter(|name| is_wanted(name)).collect();
            functions.reverse();
            stacks.add(functions, 1);
        }
        stacks
    }
}

/// The program's functions that a compiler has put into others.
fn inlined_functions(folded: &Folded) -> HashSet<String> {
    let frames = folded.stacks.iter().flat_map(|stack| &stack.frames);
    frames
        .filter(|frame| frame.kind == Kind::Inlined)
        .filter_map(|frame| of_program(&frame.name, ""))
        .collect()
}

fn against_cpu_prof(version: &str, node: &Path, inlined: Inlined) -> bool {
    let what = match inlined {
        Inlined::Exactly => format!("Node {version}, nothing inlined"),
        Inlined::NotCounted => format!("Node {version}, by functions that are not inlined"),
    };
    let _quiet = quiet_cores();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(node);
    if inlined == Inlined::Exactly {
        command.arg("--no-turbo-inlining");
        // The compiler between, which inlines too, came with Node 22.
        command.args(["22", "24"].contains(&version).then_some("--no-maglev-inlining"));
    }
    command.args(["--cpu-prof", "--cpu-prof-interval", "1000", "--cpu-prof-dir"]).arg(directory.path());
    command.arg(orders("orders.js")).arg((NODE_SECONDS + 9).to_string());
    let mut program = Program::start_ready(&mut command);
    warm_up(&program);
    let watched = match Watched::watch(&mut program, NODE_SECONDS) {
        Ok(watched) => watched,
        Err(reason) => return not_compared(&format!("{what}: {reason}")),
    };
    await_end(&mut program);
    let file = std::fs::read_dir(directory.path()).expect("it is ours").next().expect("a profile");
    let text = std::fs::read_to_string(file.expect("a profile").path()).expect("a profile");
    let profile: CpuProfile = serde_json::from_str(&text).expect("V8's form of it");
    let folded = watched.recording.folded();
    // V8's profiler gives most of an inlined function's time to its caller (that of `parse`, which does not show at
    // all, is in `serve`), so such functions are left out on both sides.
    let left_out = inlined_functions(&folded);
    if inlined == Inlined::Exactly {
        assert_eq!(left_out, HashSet::new(), "{what}");
    }
    let is_wanted = |name: &str| !left_out.contains(name);
    let begin_s = watched.begin_monotonic_s;
    let theirs = profile.stacks(begin_s, begin_s + watched.length_s, is_wanted);
    // V8 says of its collector's time that no function had it. Its other threads run no function either.
    let mut running = folded;
    running.stacks.retain(|stack| !stack.has("Heap::CollectGarbage"));
    let is_of_running = |frame: &Frame| of_program(&frame.name, "").is_some_and(|name| is_wanted(&name));
    let own = ours(&running, "", is_of_running);
    let functions_at_least = if inlined == Inlined::Exactly { 5 } else { 2 };
    compare(&what, &own, &theirs, |_| true, functions_at_least)
}

#[test]
fn node_against_its_own_cpu_prof() {
    needs!("node");
    let said = Command::new("node").arg("--version").output().expect("node is installed");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let version = said.trim_start_matches('v').split('.').next().expect("a version");
    let node = Path::new("node");
    agree_in_one_of_three(|| against_cpu_prof(version, node, Inlined::Exactly));
    agree_in_one_of_three(|| against_cpu_prof(version, node, Inlined::NotCounted));
    if !long_tests() {
        return;
    }
    for version in ["18", "22", "24"] {
        let fetched = Command::new(repository().join("fixtures/runtimes/node.sh")).arg(version).output();
        let fetched = fetched.expect("a shell");
        succeeded(version, &fetched);
        let node = PathBuf::from(String::from_utf8_lossy(&fetched.stdout).trim());
        agree_in_one_of_three(|| against_cpu_prof(version, &node, Inlined::Exactly));
        agree_in_one_of_three(|| against_cpu_prof(version, &node, Inlined::NotCounted));
    }
}

// ---- HotSpot: the flight recorder ------------------------------------------------------------------------------

const JFR_SECONDS: u64 = 11;
const JFR_SETTINGS: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<configuration version="2.0">
  <event name="jdk.ExecutionSample"><setting name="enabled">true</setting><setting name="period">1 ms</setting></event>
</configuration>
"#;

/// JDKs of this machine that have everything (`javac`, the recorder's reader).
fn jdks() -> Vec<(u32, PathBuf)> {
    let known = [(17, "java-17-openjdk-amd64"), (25, "temurin-25-jdk-amd64")];
    let folders = known.map(|(version, name)| (version, Path::new("/usr/lib/jvm").join(name).join("bin")));
    folders.into_iter().filter(|(_, folder)| folder.join("javac").exists()).collect()
}

/// Whether the thread was in a method: the flight recorder takes no samples of the virtual machine's stubs (copying
/// arrays) and of its C++.
fn is_in_java(stack: &Stack) -> bool {
    let leaf = stack.frames.iter().rfind(|frame| frame.kind != Kind::Kernel);
    leaf.is_some_and(|leaf| !leaf.is_unnamed() && leaf.name.contains('.') && !leaf.name.contains("::"))
}

fn against_jfr(jdk: u32, bin: &Path, inlined: Inlined) -> bool {
    let what = match inlined {
        Inlined::Exactly => format!("JDK {jdk}, exactly"),
        Inlined::NotCounted => format!("JDK {jdk}, by compiled method"),
    };
    let _quiet = quiet_cores();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (settings, file) = (directory.path().join("settings.jfc"), directory.path().join("recording.jfr"));
    std::fs::write(&settings, JFR_SETTINGS).expect("it is ours");
    let compiled = Command::new(bin.join("javac"))
        .args(["--release", "17", "-g", "-d"])
        .arg(directory.path())
        .args([orders("Orders.java"), orders("JfrStacks.java")])
        .output();
    succeeded("javac", &compiled.expect("it is there"));
    let mut command = Command::new(bin.join("java"));
    command.arg("-Xmx64m").arg("-cp").arg(directory.path());
    if inlined == Inlined::Exactly {
        command.args(["-XX:+UnlockDiagnosticVMOptions", "-XX:+DebugNonSafepoints"]);
    }
    command.arg(format!(
        "-XX:StartFlightRecording=settings={},filename={},dumponexit=true",
        settings.display(),
        file.display()
    ));
    command.arg("-Xlog:disable").args(["Orders", &(JFR_SECONDS + 9).to_string()]);
    let mut program = Program::start_ready(&mut command);
    warm_up(&program);
    let watched = match Watched::watch(&mut program, JFR_SECONDS) {
        Ok(watched) => watched,
        Err(reason) => return not_compared(&format!("{what}: {reason}")),
    };
    await_end(&mut program);

    let nanoseconds = |seconds: f64| ((seconds * 1e9) as u64).to_string();
    let read = Command::new(bin.join("java"))
        .arg("-cp")
        .arg(directory.path())
        .arg("JfrStacks")
        .arg(&file)
        .args([nanoseconds(watched.begin_s), nanoseconds(watched.begin_s + watched.length_s)])
        .output()
        .expect("java is there");
    succeeded("the reader of the flight recording", &read);
    let is_called = |kind: Kind| inlined == Inlined::Exactly || kind != Kind::Inlined;
    // Its lines are whole stacks; ours begin with a thread's name.
    let text: String =
        String::from_utf8_lossy(&read.stdout).lines().map(|line| format!("jfr;{line}\n")).collect();
    let reduced = |folded: &Folded| ours(folded, "Orders.", |frame| is_called(frame.kind));
    let mut sampled = watched.recording.folded();
    sampled.stacks.retain(is_in_java);
    let (own, theirs) = (reduced(&sampled), reduced(&Folded::parse(&text)));
    let functions_at_least = if inlined == Inlined::Exactly { 4 } else { 3 };
    compare(&what, &own, &theirs, |_| true, functions_at_least)
}

#[test]
fn hotspot_against_its_flight_recorder() {
    needs!();
    let jdks = jdks();
    if jdks.is_empty() {
        return skip("there is no JDK 17 or 25 in /usr/lib/jvm");
    }
    let tried = if long_tests() { jdks.len() } else { 1 };
    for (version, bin) in &jdks[..tried] {
        agree_in_one_of_three(|| against_jfr(*version, bin, Inlined::Exactly));
        agree_in_one_of_three(|| against_jfr(*version, bin, Inlined::NotCounted));
    }
}

// ---- Go: runtime/pprof -------------------------------------------------------------------------------------------

const GO_SECONDS: u64 = 16;
/// Timers of CPU time do not fire between ticks of the kernel, of which many have 250 a second.
const GO_HZ: &str = "250";

/// Go's names of instances of generic functions say of which types in more than one way.
fn go_name(name: &str) -> String {
    let name = name.strip_suffix(".abi0").unwrap_or(name);
    name.split_once('[')
        .filter(|(before, _)| !before.is_empty())
        .map_or(name, |(before, _)| before)
        .to_owned()
}

fn against_go_pprof(what: &str, toolchain: Option<&str>) -> bool {
    let _quiet = quiet_cores();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (program, file) = (directory.path().join("orders"), directory.path().join("cpu.pprof"));
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&program).arg(orders("orders.go"));
    build.envs(toolchain.map(|version| ("GOTOOLCHAIN", version)));
    succeeded("go build", &build.output().expect("go is installed"));
    let mut command = Command::new(&program);
    // The timers are each thread's own, and one that sleeps between two ticks is behind.
    command.env("GOMAXPROCS", "1");
    command.arg((GO_SECONDS + 6).to_string()).arg(&file).arg(GO_HZ).stderr(Stdio::null());
    let mut program = Program::start_ready(&mut command);
    warm_up(&program);
    let watched = match Watched::watch(&mut program, GO_SECONDS) {
        Ok(watched) => watched,
        Err(reason) => return not_compared(&format!("{what}: {reason}")),
    };
    await_end(&mut program);

    let profile = pprof_text::Profile::read(&file);
    let mut theirs = PeerStacks::default();
    for sample in &profile.samples {
        let locations = sample.locations.iter().rev().filter_map(|id| profile.locations.get(id));
        let functions = locations.flat_map(|location| location.functions.iter().rev());
        let mut functions: Vec<String> = functions.map(|name| go_name(name)).collect();
        // The signal by which Go's scheduler interrupts a goroutine and the profiler's come in the same tick: what
        // the profiler then finds is the call that the other one has put before the goroutine's next instruction.
        if functions.len() > 1 && functions.last().is_some_and(|leaf| leaf == "runtime.asyncPreempt") {
            functions.pop();
        }
        theirs.add(functions, sample.values[0].unsigned_abs());
    }
    let mut own = PeerStacks::default();
    for stack in &watched.recording.folded().stacks {
        // Go's profiler gets a signal for what the kernel does when the program goes on.
        let frames = stack.frames.iter().filter(|frame| frame.kind != Kind::Kernel);
        own.add(frames.map(|frame| go_name(plain_name(&frame.name))).collect(), stack.count);
    }
    // Theirs begin at other outermost functions of the runtime.
    compare(what, &own, &theirs, |name| name.starts_with("main."), 5)
}

#[test]
fn go_against_its_runtime_pprof() {
    needs!("go");
    agree_in_one_of_three(|| against_go_pprof("Go", None));
    if long_tests() {
        agree_in_one_of_three(|| against_go_pprof("Go 1.22", Some("go1.22.12")));
    }
}
