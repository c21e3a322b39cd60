//! A user profiles what has only just appeared: compilers that live for a moment, libraries loaded
//! late.

mod support;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use support::folded::percent;
use support::pprof_text::Profile;
use support::program::fixture;
use support::{long_tests, quiet_cores, recording};

/// Another witness of when tasks begin and end: the kernel's own tracer, in an instance of its own, which
/// disturbs nobody else's tracing.
struct TaskTrace {
    instance: PathBuf,
}

impl TaskTrace {
    /// Begins to trace; `None` where there is no tracefs.
    fn begin() -> Option<Self> {
        let instances = Path::new("/sys/kernel/tracing/instances");
        let instance = instances.join(format!("spanflame-test-{}", std::process::id()));
        std::fs::create_dir(&instance).ok()?;
        let trace = Self { instance };
        trace.set("trace_clock", "mono");
        trace.set("buffer_size_kb", "4096");
        trace.set("events/sched/sched_process_fork/enable", "1");
        trace.set("events/sched/sched_process_exit/enable", "1");
        Some(trace)
    }

    fn set(&self, file: &str, value: &str) {
        std::fs::write(self.instance.join(file), value).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    /// The lives of tasks of which both ends were seen: number → seconds.
    fn lives(&self) -> HashMap<u32, f64> {
        self.set("tracing_on", "0");
        let trace = std::fs::read(self.instance.join("trace")).expect("the trace can be read");
        let (mut begun, mut lives) = (HashMap::new(), HashMap::new());
        // NAME-TID [CPU] FLAGS SECONDS: sched_process_fork: comm=C pid=P child_comm=C child_pid=P
        // NAME-TID [CPU] FLAGS SECONDS: sched_process_exit: comm=C pid=P …
        for line in String::from_utf8_lossy(&trace).lines() {
            let Some((before, event)) = line.split_once(": sched_process_") else { continue };
            let time: f64 = before.rsplit(' ').next().and_then(|time| time.parse().ok()).expect("a time");
            let number = |key: &str| -> Option<u32> {
                event.rsplit_once(key)?.1.split_whitespace().next()?.parse().ok()
            };
            if event.starts_with("fork") {
                begun.insert(number("child_pid=").expect("a pid"), time);
            } else if let Some(begin) = begun.remove(&number(" pid=").expect("a pid")) {
                lives.insert(number(" pid=").expect("a pid"), time - begin);
            }
        }
        lives
    }
}

impl Drop for TaskTrace {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.instance);
    }
}

#[test]
fn a_parallel_compile_of_several_hundred_files() {
    needs!("go", "gcc", "xargs");
    let _quiet = quiet_cores();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let sources = directory.path().join("sources");
    std::fs::create_dir(&sources).expect("it is ours");
    let Some(witness) = TaskTrace::begin() else {
        return support::skip("tracefs is not mounted or not ours");
    };
    let files = if long_tests() { "600" } else { "200" };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/storm/compile_storm.sh");
    let recording = recording::record(
        "storm.pb.gz",
        &[
            "--frequency",
            "997",
            "--duration",
            "110s",
            "--",
            "sh",
            script,
            sources.to_str().expect("a path"),
            files,
            "4",
        ],
    );
    recording.assert_success();
    assert!(recording.stdout.contains(&format!("compiled {files}")), "{}", recording.stdout);
    let stats = recording.stats();
    stats.assert_exact();

    let lives = witness.lives();
    let long_lived: HashSet<u32> =
        lives.iter().filter(|&(_, &seconds)| seconds >= 0.1).map(|(&pid, _)| pid).collect();
    let expected: usize = files.parse().expect("a number");
    assert!(
        long_lived.len() >= expected / 2,
        "{} of {} processes lived 100 ms",
        long_lived.len(),
        lives.len()
    );

    let profile = Profile::read(&recording.output);
    let (mut all, mut good) = (0i64, 0i64);
    let mut reasons: HashMap<String, i64> = HashMap::new();
    for sample in &profile.samples {
        let pid: u32 =
            sample.labels.get("pid").and_then(|pid| pid.parse().ok()).expect("every sample has a pid");
        let outcome = sample.labels.get("unwind").map_or("complete", String::as_str);
        if !long_lived.contains(&pid) || outcome == "no_user" {
            continue;
        }
        all += sample.values[0];
        // Named: each address has a function, or at least its file (Debian's cc1 is stripped).
        let unnamed = sample.locations.iter().any(|id| {
            profile
                .locations
                .get(id)
                .is_none_or(|location| location.mapping.is_none() && location.functions.is_empty())
        });
        if outcome == "complete" && !unnamed {
            good += sample.values[0];
        } else {
            let comm = sample.labels.get("comm").map_or("?", String::as_str);
            let reason = if outcome == "complete" { "unnamed" } else { outcome };
            *reasons.entry(format!("{comm}: {reason}")).or_default() += sample.values[0];
        }
    }
    let share = percent(u64::try_from(good).expect("a count"), u64::try_from(all).expect("a count"));
    println!("compile storm: {good} of {all} samples complete and named, {share:.2} %; {reasons:?}");
    assert!(all >= 1000, "{all} samples of processes that lived 100 ms; {:?}", stats.samples);
    assert!(share >= 95.0, "{good} of {all}, {share:.2} %; the others: {reasons:#?}");
}

/// How long each library of `late_libraries` could not be unwound after its dlopen had returned,
/// milliseconds. No timestamps are needed: the fixture uses a known amount of CPU time in each, from
/// the moment of dlopen on, so complete samples that are missing there are time.
fn late_library_delays_ms(count: usize) -> (Vec<f64>, String) {
    const FREQUENCY: f64 = 997.0;
    let program = fixture("late_libraries");
    let cache = tempfile::tempdir().expect("a temporary directory");
    let count_text = count.to_string();
    let running = recording::start_with(
        "late.folded",
        &["--frequency", "997", "--duration", "90s", "--", &program, "80", "300", &count_text, "150"],
        // An empty cache of unwind tables: each library is news.
        |command| {
            command.env("XDG_CACHE_HOME", cache.path());
        },
    );
    let recording = running.finish();
    recording.assert_success();
    recording.stats().assert_exact();
    let folded = recording.folded();
    let mut delays_ms = Vec::new();
    for line in recording.stdout.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ["burnt", number, cpu_ns, _] = fields[..] else { continue };
        let cpu_ms = cpu_ns.parse::<f64>().expect("a number") / 1e6;
        let burner = format!("burn_in_late_library_{number}");
        let path = ["main", "visit_library", "late_entry", &burner];
        let complete = folded.count(|stack| stack.has_path("_start", &path));
        delays_ms.push((cpu_ms - complete as f64 * 1000.0 / FREQUENCY).max(0.0));
    }
    assert_eq!(delays_ms.len(), count, "the fixture visited every library: {}", recording.stdout);
    let others = folded.most_frequent(|stack| !stack.has_path("_start", &["main"]), 5);
    (delays_ms, format!("{:?}\n{others}", recording.stats().stacks))
}

#[test]
fn libraries_loaded_by_dlopen_are_unwindable_within_50_ms() {
    needs!();
    let _quiet = quiet_cores();
    let (mut delays_ms, message) = late_library_delays_ms(if long_tests() { 20 } else { 12 });
    println!("dlopen to unwindable, ms: {delays_ms:.1?}");
    delays_ms.sort_by(f64::total_cmp);
    let median = delays_ms[delays_ms.len() / 2];
    assert!(median <= 50.0, "median {median:.1} ms of {delays_ms:.1?}; {message}");
}

#[test]
fn processes_are_seen_from_their_first_moments() {
    needs!();
    let _quiet = quiet_cores();
    // Sixty processes, one after the other, each with 100 ms of CPU time.
    let storm = fixture("storm");
    let recording = recording::record(
        "bursts.folded",
        &["--frequency", "997", "--duration", "60s", "--", &storm, "50", "60", "1", "100000"],
    );
    recording.assert_success();
    recording.stats().assert_exact();
    let folded = recording.folded();
    let complete =
        folded.count(|stack| stack.comm == "burst" && stack.has_path("_start", &["main", "burn_burst"]));
    let expected = 60.0 * 0.1 * 997.0;
    // Half of it missing is 50 ms from exec to the first complete stack; all are the same file, so
    // only the first needs a new table.
    assert!(
        complete as f64 >= expected * 0.9,
        "{complete} complete samples, {expected} ran: {:?}",
        recording.stats().stacks
    );
}
