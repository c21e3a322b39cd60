//! A user profiles what has only just appeared: compilers that live for a moment, libraries loaded
//! late.

mod support;

use std::collections::{HashMap, HashSet};
use std::process::{Command, Stdio};

use support::folded::percent;
use support::pprof_text::Profile;
use support::program::{Program, fixture};
use support::{long_tests, quiet_cores, recording};

/// The lives of processes as perf's task events tell them: pid → nanoseconds from fork to exit.
/// Only processes whose fork and exit were both seen are in it.
fn lives(perf_data: &std::path::Path) -> HashMap<u32, u64> {
    let output = Command::new("perf")
        .args(["script", "--show-task-events", "--ns", "-i"])
        .arg(perf_data)
        .stderr(Stdio::null())
        .output()
        .expect("perf is installed");
    let (mut forks, mut lives) = (HashMap::new(), HashMap::new());
    // … SECONDS.NANOSECONDS: PERF_RECORD_FORK(pid:tid):(parent:parent tid)
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Some((before, event)) = line.split_once(": PERF_RECORD_") else { continue };
        let Some((seconds, nanoseconds)) =
            before.split_whitespace().last().and_then(|time| time.split_once('.'))
        else {
            continue;
        };
        let (Ok(seconds), Ok(nanoseconds)) = (seconds.parse::<u64>(), nanoseconds.parse::<u64>()) else {
            continue;
        };
        let time_ns = seconds * 1_000_000_000 + nanoseconds;
        let Some((kind, rest)) = event.split_once('(') else { continue };
        let mut ids = rest.split([':', ')']).map(str::parse::<u32>);
        let (Some(Ok(pid)), Some(Ok(tid))) = (ids.next(), ids.next()) else { continue };
        // Threads are not processes, and perf's inventory at its start has no time.
        if pid != tid || time_ns == 0 {
            continue;
        }
        match kind {
            "FORK" => {
                forks.insert(pid, time_ns);
            }
            "EXIT" => {
                if let Some(begin) = forks.remove(&pid) {
                    lives.insert(pid, time_ns.saturating_sub(begin));
                }
            }
            _ => {}
        }
    }
    lives
}

#[test]
fn a_parallel_compile_of_several_hundred_files() {
    needs!("go", "perf", "gcc", "xargs");
    let _quiet = quiet_cores();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let sources = directory.path().join("sources");
    std::fs::create_dir(&sources).expect("it is ours");
    let perf_data = directory.path().join("tasks.data");
    // Another witness of when each process began and ended.
    let witness = Program::start(
        Command::new("perf")
            // Without build ids: reading those of every file takes longer than we wait for its end.
            .args(["record", "-q", "-BN", "-e", "dummy", "-a", "-m", "1024", "-o"])
            .arg(&perf_data)
            .stderr(Stdio::null()),
    );
    support::await_event("perf writes", std::time::Duration::from_secs(10), || {
        std::fs::metadata(&perf_data).is_ok_and(|file| file.len() > 0).then_some(())
    });
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
    drop(witness); // SIGTERM: perf closes its file
    let stats = recording.stats();
    stats.assert_exact();

    let lives = lives(&perf_data);
    let long_lived: HashSet<u32> =
        lives.iter().filter(|&(_, &life_ns)| life_ns >= 100_000_000).map(|(&pid, _)| pid).collect();
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
