//! A user profiles a Node program whose shares and lines are known, with every Node that is supported and every
//! way in which V8 runs functions.

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use support::folded::{Folded, Stack, percent};
use support::program::Program;
use support::{quiet_cores, recording, seconds};

/// A fixture of this folder.
fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/v8").join(name)
}

/// The path of a Node of this major version, fetched once; or why there is none.
fn node(version: &str) -> Result<PathBuf, String> {
    let fetch = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/runtimes/node.sh");
    let output = Command::new(fetch).arg(version).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(format!("Node {version} cannot be had: {reason}"));
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// The frames of the fixture's own functions, outermost first, without what sort they are of.
fn own_frames(stack: &Stack) -> Vec<&str> {
    const OWN: [&str; 8] = ["main", "until", "sixty", "thirty", "ten", "mix", "spin", "worked"];
    stack.frames.iter().map(|frame| frame.name.as_str()).filter(|name| OWN.contains(name)).collect()
}

fn is_main_thread(stack: &Stack) -> bool {
    stack.frames.iter().any(|frame| frame.name.starts_with("node::Start("))
}

/// Records a running program of this version of Node. The first recording of a version lets its tables be built and
/// kept, so that each one that counts begins with them.
fn record_with_tables(version: &str, pid: u32) -> Folded {
    static WITH_TABLES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if WITH_TABLES.lock().expect("no test panics here").insert(version.to_owned()) {
        drop(recording::record_pid(pid, 2));
    }
    recording::record_pid(pid, seconds(5, 10)).folded()
}

/// Records a running script.
fn record(version: &str, options: &[&str], arguments: &[&str]) -> Option<Folded> {
    let node = match node(version) {
        Ok(node) => node,
        Err(reason) => {
            support::skip(&reason);
            return None;
        }
    };
    let mut command = Command::new(node);
    command.args(options).arg(script("shares.js")).arg("120").args(arguments);
    // With `--perf-basic-prof` it also writes a log to where it was started.
    command.current_dir(std::env::temp_dir());
    let program = Program::start_ready(&mut command);
    Some(record_with_tables(version, program.pid))
}

fn check_shares(folded: &Folded, what: &str) {
    let in_main = folded.count(is_main_thread);
    assert!(in_main >= 100 * seconds(5, 10), "{what}: only {in_main} samples of the main thread");

    let has_own = |stack: &Stack| is_main_thread(stack) && stack.has("main");
    let with_frames = folded.count(has_own);
    let without = folded.most_frequent(|stack| is_main_thread(stack) && !has_own(stack), 5);
    assert!(
        percent(with_frames, in_main) >= 98.0,
        "{what}: {with_frames} of {in_main} samples carry frames of the script; others:\n{without}"
    );

    let burners = [("sixty", 60.0), ("thirty", 30.0), ("ten", 10.0)];
    let in_burners = folded.count(|stack| burners.iter().any(|(name, _)| own_frames(stack).contains(name)));
    for (name, expected) in burners {
        let own = folded.count(|stack| own_frames(stack).contains(&name));
        let share = percent(own, in_burners);
        assert!((share - expected).abs() <= 3.0, "{what}: {name} has {share:.1} %, {expected} % is right");
    }

    // Order and nesting are the source's: nothing is skipped between, nothing is there twice.
    let right: [&[&str]; 11] = [
        &["main"],
        &["main", "until"],
        &["main", "until", "worked"],
        &["main", "until", "sixty"],
        &["main", "until", "sixty", "spin"],
        &["main", "until", "thirty"],
        &["main", "until", "thirty", "mix"],
        &["main", "until", "thirty", "mix", "spin"],
        &["main", "until", "ten"],
        &["main", "until", "ten", "spin"],
        &[],
    ];
    let is_wrong = |stack: &Stack| !right.contains(&own_frames(stack).as_slice());
    let wrong = folded.count(is_wrong);
    assert!(
        percent(wrong, in_main) <= 0.5,
        "{what}: {wrong} of {in_main} stacks are in no order of the source:\n{}",
        folded.most_frequent(is_wrong, 5)
    );
}

fn check(version: &str, options: &[&str]) {
    let _quiet = quiet_cores();
    if let Some(folded) = record(version, options, &[]) {
        check_shares(&folded, &format!("Node {version} {options:?}"));
    }
}

fn check_native(version: &str) {
    let _quiet = quiet_cores();
    let Some(folded) = record(version, &[], &["native"]) else { return };
    check_shares(&folded, &format!("Node {version}, native work"));
    for (burner, native) in [("sixty", "SHA256"), ("sixty", "sha256"), ("thirty", "deflate"), ("ten", "Sort")]
    {
        let below = folded.count(|stack| {
            let mut frames = stack.frames.iter().skip_while(|frame| frame.name != burner);
            frames.next().is_some() && frames.any(|frame| frame.name.contains(native))
        });
        let all = folded.count(|stack| stack.frames.iter().any(|frame| frame.name == burner));
        // OpenSSL's assembly has the one or the other name.
        let either = native.eq_ignore_ascii_case("sha256");
        assert!(all > 0 && (either || percent(below, all) >= 70.0), "{burner}: {below} of {all} in {native}");
    }
}

#[test]
fn node_18_as_it_is() {
    needs!();
    check("18", &[]);
}

#[test]
fn node_20_as_it_is() {
    needs!();
    check("20", &[]);
}

#[test]
fn node_22_as_it_is() {
    needs!();
    check("22", &[]);
}

#[test]
fn node_24_as_it_is() {
    needs!();
    check("24", &[]);
}

#[test]
fn interpreted_functions() {
    needs!();
    for version in ["18", "20", "22", "24"] {
        check(version, &["--no-opt", "--no-sparkplug"]);
    }
}

#[test]
fn baseline_code() {
    needs!();
    for version in ["18", "20", "22", "24"] {
        check(version, &["--no-opt", "--always-sparkplug"]);
    }
}

#[test]
fn native_work_below_functions() {
    needs!();
    for version in ["18", "24"] {
        check_native(version);
    }
}

/// Functions come and go under garbage collection: a name is right, or there is none.
#[test]
fn functions_that_are_forgotten_are_named_rightly_or_not_at_all() {
    needs!();
    for version in ["18", "20", "22", "24"] {
        let _quiet = quiet_cores();
        let node = match node(version) {
            Ok(node) => node,
            Err(reason) => return support::skip(&reason),
        };
        let program = Program::start_ready(Command::new(node).arg(script("churn.js")).arg("120"));
        let folded = record_with_tables(version, program.pid);
        let number = |name: &str, prefix: &str| name.strip_prefix(prefix).map(str::to_owned);
        let mut pairs = 0;
        for stack in &folded.stacks {
            let names: Vec<&str> = stack.frames.iter().map(|frame| frame.name.as_str()).collect();
            for pair in names.windows(2) {
                if let (Some(inner), Some(outer)) = (number(pair[1], "inner_"), number(pair[0], "churn_")) {
                    assert_eq!(inner, outer, "Node {version}: {names:?}");
                    pairs += 1;
                }
            }
        }
        assert!(pairs >= 20, "Node {version}: only {pairs} different pairs were named");
    }
}

/// `--perf-basic-prof` writes names of all code; functions keep those that V8's own structures give.
#[test]
fn perf_maps_change_nothing_about_functions() {
    needs!();
    check("22", &["--perf-basic-prof"]);
}
