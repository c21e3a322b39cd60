//! A user profiles a Python program and sees its functions: 60, 30 and 10 % in three of them, under each version of
//! CPython that can be had here; functions that live shortly have their own names or none.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use support::folded::{Folded, Stack, percent};
use support::program::Program;
use support::python_sdk::python_with;
use support::{quiet_cores, recording, seconds};

/// A Python of a Debian suite, this machine's own, or one that pyenv has built for it.
enum Source {
    Suite(&'static str),
    Own(&'static str),
    Pyenv(&'static str),
}

/// The interpreter of a version such as `3.12` among those of pyenv.
fn of_pyenv(version: &str) -> Result<PathBuf, String> {
    let root = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pyenv"));
    let versions = root.or(home).map(|root| root.join("versions"));
    let found = versions.and_then(|versions| versions.read_dir().ok()).into_iter().flatten().flatten();
    found
        .filter(|folder| folder.file_name().to_string_lossy().starts_with(&format!("{version}.")))
        .map(|folder| folder.path().join("bin").join(format!("python{version}")))
        .find(|path| path.exists())
        .ok_or_else(|| format!("pyenv has no Python {version}"))
}

impl Source {
    /// Its interpreter, about to run a fixture. `Err`: why it cannot be had.
    fn command(&self, fixture: &str) -> Result<Command, String> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let here = |interpreter: &Path| {
            let mut command = Command::new(interpreter);
            command.arg(repository.join("fixtures/python").join(fixture));
            Ok(command)
        };
        let suite = match self {
            Self::Own(path) if !Path::new(path).exists() => return Err(format!("{path} is not installed")),
            Self::Own(path) => return here(Path::new(path)),
            Self::Pyenv(version) => return here(&of_pyenv(version)?),
            Self::Suite(suite) => suite,
        };
        let fetched = Command::new(repository.join("fixtures/runtimes/debian.sh"))
            .args([suite, "python3"])
            .output()
            .map_err(|error| error.to_string())?;
        if !fetched.status.success() {
            return Err(String::from_utf8_lossy(&fetched.stderr).trim().to_owned());
        }
        let mut command = Command::new(repository.join("fixtures/runtimes/in_root.sh"));
        command.arg(PathBuf::from(String::from_utf8_lossy(&fetched.stdout).trim()));
        command.arg("/usr/bin/python3").arg(format!("/fixtures/python/{fixture}"));
        Ok(command)
    }
}

/// Whether a frame is this function; methods have their class before them from 3.11 on.
fn is(frame: &str, name: &str) -> bool {
    frame == name || frame.strip_suffix(name).is_some_and(|before| before.ends_with('.'))
}

fn position(stack: &Stack, name: &str) -> Option<usize> {
    stack.frames.iter().position(|frame| is(&frame.name, name))
}

/// Frames in their order, outermost first; others may stand between.
fn has_in_order(stack: &Stack, names: &[&str]) -> bool {
    let mut frames = stack.frames.iter();
    names.iter().all(|name| frames.any(|frame| is(&frame.name, name)))
}

fn is_evaluation(stack: &Stack) -> bool {
    stack.has("_PyEval_EvalFrameDefault")
}

const BURNERS: [(&str, f64, &[&str]); 3] = [
    ("burn_sixty", 60.0, &["<module>", "main", "serve_requests", "burn_sixty"]),
    (
        "burn_thirty",
        30.0,
        &["<module>", "main", "serve_requests", "run_coroutine", "awaiting", "burn_thirty"],
    ),
    ("burn_ten", 10.0, &["<module>", "main", "serve_requests", "run_generator", "burn_ten"]),
];

fn check_shares(source: &Source) {
    let mut command = match source.command("shares.py") {
        Ok(command) => command,
        Err(reason) => return support::skip(&reason),
    };
    let program = Program::start_ready(command.arg("60"));
    let recording = recording::record_pid(program.pid, seconds(5, 15));
    let folded = recording.folded();
    let total = folded.total();
    assert!(total >= 250 * seconds(5, 15), "only {total} samples");

    let with_frames = folded.count(|stack| position(stack, "serve_requests").is_some());
    let without = folded.most_frequent(|stack| position(stack, "serve_requests").is_none(), 5);
    assert!(
        percent(with_frames, total) >= 98.0,
        "{with_frames} of {total} have Python's frames; others:\n{without}"
    );

    let burner_of = |stack: &Stack| BURNERS.iter().find(|(name, ..)| position(stack, name).is_some());
    let in_burners = folded.count(|stack| burner_of(stack).is_some());
    for (name, expected, path) in BURNERS {
        let of_burner = |stack: &Stack| position(stack, name).is_some();
        let share = percent(folded.count(of_burner), in_burners);
        assert!((share - expected).abs() <= 3.0, "{name} has {share:.1} %, {expected} % is right");
        let nested = folded.count(|stack| of_burner(stack) && has_in_order(stack, path));
        let broken = folded.most_frequent(|stack| of_burner(stack) && !has_in_order(stack, path), 3);
        assert!(percent(nested, folded.count(of_burner)) >= 99.5, "{name} is not below {path:?}:\n{broken}");
    }

    check_native_frames(&folded);
    check_recursion(&folded);
}

/// C code stands between the function that calls it and the one that it calls, and the interpreter's functions in place
/// of the interpreter.
fn check_native_frames(folded: &Folded) {
    let called_back = |stack: &Stack| position(stack, "key_of_number").is_some();
    let is_between = |stack: &Stack| {
        let (caller, callee) = (position(stack, "burn_sixty"), position(stack, "key_of_number"));
        matches!((caller, callee), (Some(caller), Some(callee)) if caller + 1 < callee)
    };
    let between = folded.count(|stack| called_back(stack) && is_between(stack));
    let broken = folded.most_frequent(|stack| called_back(stack) && !is_between(stack), 3);
    assert!(percent(between, folded.count(called_back)) >= 99.0, "sorted() is not between:\n{broken}");

    // A call of the evaluation function has no frame yet when it begins; sorted() makes thousands of them a second.
    let (evaluation, total) = (folded.count(is_evaluation), folded.total());
    let left = folded.most_frequent(is_evaluation, 5);
    assert!(
        percent(evaluation, total) <= 4.0,
        "{evaluation} of {total} show the interpreter instead:\n{left}"
    );
}

/// 21 frames of one function below the generator, in some stack: each call of the recursion is there.
fn check_recursion(folded: &Folded) {
    let deepest = (folded.stacks.iter())
        .map(|stack| stack.frames.iter().filter(|frame| is(&frame.name, "descend")).count())
        .max();
    assert_eq!(deepest, Some(21));
}

#[test]
fn shares_of_3_9() {
    needs!();
    let _quiet = quiet_cores();
    check_shares(&Source::Suite("bullseye"));
}

#[test]
fn shares_of_3_11() {
    needs!();
    let _quiet = quiet_cores();
    check_shares(&Source::Own("/usr/bin/python3.11"));
}

#[test]
fn shares_of_3_8() {
    needs!();
    let _quiet = quiet_cores();
    check_shares(&Source::Pyenv("3.8"));
}

#[test]
fn shares_of_3_10() {
    needs!();
    let _quiet = quiet_cores();
    check_shares(&Source::Pyenv("3.10"));
}

#[test]
fn shares_of_3_12() {
    needs!();
    let _quiet = quiet_cores();
    check_shares(&Source::Pyenv("3.12"));
}

#[test]
fn shares_of_3_13() {
    needs!();
    let _quiet = quiet_cores();
    check_shares(&Source::Suite("trixie"));
}

#[test]
fn shares_of_3_14() {
    needs!();
    let _quiet = quiet_cores();
    check_shares(&Source::Suite("sid"));
}

/// Calls within calls, 500 deep: all of them are there, and `main` below them.
fn check_depth(source: &Source) {
    let mut command = match source.command("deep.py") {
        Ok(command) => command,
        Err(reason) => return support::skip(&reason),
    };
    let program = Program::start_ready(command.arg("60"));
    let recording = recording::record_pid(program.pid, seconds(2, 5));
    let folded = recording.folded();
    let at_the_bottom = |stack: &Stack| position(stack, "at_the_bottom").is_some();
    let is_whole = |stack: &Stack| {
        stack.frames.iter().filter(|frame| is(&frame.name, "descend")).count() == 500
            && has_in_order(stack, &["<module>", "main", "descend", "at_the_bottom"])
    };
    let (all, whole) =
        (folded.count(at_the_bottom), folded.count(|stack| at_the_bottom(stack) && is_whole(stack)));
    let broken = folded.most_frequent(|stack| at_the_bottom(stack) && !is_whole(stack), 1);
    assert!(all >= 100, "only {all} samples at the bottom");
    assert!(percent(whole, all) >= 98.0, "{whole} of {all} stacks have 500 calls; others:\n{broken}");
}

#[test]
fn five_hundred_calls_are_all_there_3_9() {
    needs!();
    let _quiet = quiet_cores();
    check_depth(&Source::Suite("bullseye"));
}

#[test]
fn five_hundred_calls_are_all_there_3_11() {
    needs!();
    let _quiet = quiet_cores();
    check_depth(&Source::Own("/usr/bin/python3.11"));
}

#[test]
fn five_hundred_calls_are_all_there_3_14() {
    needs!();
    let _quiet = quiet_cores();
    check_depth(&Source::Suite("sid"));
}

/// Services under gevent have them: each greenlet's functions stand below that greenlet, and below nothing that is not
/// its own.
#[test]
fn greenlets_have_their_own_stacks() {
    needs!();
    let _quiet = quiet_cores();
    let python = match python_with("greenlet", &["greenlet==3.*"], "greenlet") {
        Ok(python) => python,
        Err(reason) => return support::skip(&reason),
    };
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/python/greenlets.py");
    let program = Program::start_ready(Command::new(python).arg(fixture).arg("60"));
    let recording = recording::record_pid(program.pid, seconds(5, 15));
    let folded = recording.folded();
    let burners = [
        ("burn_sixty", 60.0, "serve_sixty"),
        ("burn_thirty", 30.0, "serve_thirty"),
        ("burn_ten", 10.0, "serve_ten"),
    ];
    let foreign =
        ["serve_sixty", "serve_thirty", "serve_ten", "choose", "go_down", "started", "<module>", "main"];
    let in_burners = folded.count(|stack| burners.iter().any(|(name, ..)| position(stack, name).is_some()));
    assert!(in_burners >= 200 * seconds(5, 15), "only {in_burners} samples");
    for (name, expected, serve) in burners {
        let of_burner = |stack: &Stack| position(stack, name).is_some();
        let is_own = |stack: &Stack| {
            has_in_order(stack, &[serve, "take_turns", name])
                && foreign.iter().all(|other| *other == serve || position(stack, other).is_none())
        };
        let share = percent(folded.count(of_burner), in_burners);
        assert!((share - expected).abs() <= 3.0, "{name} has {share:.1} %, {expected} % is right");
        let own = folded.count(|stack| of_burner(stack) && is_own(stack));
        let broken = folded.most_frequent(|stack| of_burner(stack) && !is_own(stack), 3);
        assert!(
            percent(own, folded.count(of_burner)) >= 99.5,
            "{name} is not below {serve} alone:\n{broken}"
        );
    }
    check_native_frames(&folded);
}

/// Whoever profiles a program that is soon over sees what it did up to its end: its last samples are read when it is
/// gone.
#[test]
fn a_program_that_is_soon_over_has_its_functions_up_to_its_end() {
    needs!();
    let _quiet = quiet_cores();
    let command = match Source::Own("/usr/bin/python3").command("brief.py") {
        Ok(command) => command,
        Err(reason) => return support::skip(&reason),
    };
    let program = command.get_args().next().and_then(|path| path.to_str()).expect("a readable path");
    for _ in 0..3 {
        let arguments = ["--frequency", "997", "--", "/usr/bin/python3", program];
        let recording = recording::record("recording.folded", &arguments);
        recording.assert_success();
        recording.stats().assert_exact();
        let folded = recording.folded();
        for (native, function) in [("adler32", "first_half"), ("crc32", "second_half")] {
            let ran = |stack: &Stack| stack.frames.iter().any(|frame| frame.name.starts_with(native));
            let is_whole = |stack: &Stack| has_in_order(stack, &["<module>", "main", function]);
            let (of_it, whole) = (folded.count(ran), folded.count(|stack| ran(stack) && is_whole(stack)));
            let broken = folded.most_frequent(|stack| ran(stack) && !is_whole(stack), 5);
            assert!(of_it >= 70, "only {of_it} samples are in {native}");
            assert!(percent(whole, of_it) >= 98.0, "{whole} of {of_it} are in {function}; others:\n{broken}");
        }
    }
}

/// What of speedscope's format is read here.
#[derive(Deserialize)]
struct Speedscope {
    shared: Shared,
    profiles: Vec<Profile>,
}

#[derive(Deserialize)]
struct Shared {
    frames: Vec<Frame>,
}

#[derive(Deserialize)]
struct Frame {
    name: String,
    file: Option<String>,
    line: Option<u32>,
}

#[derive(Deserialize)]
struct Profile {
    samples: Vec<Vec<usize>>,
}

fn check_churn(source: &Source) {
    let mut command = match source.command("churn.py") {
        Ok(command) => command,
        Err(reason) => return support::skip(&reason),
    };
    let program = Program::start_ready(command.arg("60"));
    let (pid, duration) = (program.pid.to_string(), format!("{}s", seconds(4, 10)));
    let arguments = ["--frequency", "997", "--duration", &duration, "--pid", &pid];
    let recording = recording::record("recording.json", &arguments);
    recording.assert_success();
    let text = std::fs::read_to_string(&recording.output).expect("written");
    let file: Speedscope = serde_json::from_str(&text).expect("speedscope's format");
    let mut seen: BTreeMap<char, u32> = BTreeMap::new();
    for stack in file.profiles.iter().flat_map(|profile| &profile.samples) {
        let frames: Vec<&Frame> = stack.iter().map(|index| &file.shared.frames[*index]).collect();
        let runs = |name: &str| frames.iter().any(|frame| frame.name == name);
        for frame in &frames {
            let Some((family, number)) = frame.name.split_once('_') else { continue };
            let (Ok(number), "a" | "b") = (number.parse::<u32>(), family) else { continue };
            let (own, other) = if family == "a" {
                ("run_family_A", "run_family_B")
            } else {
                ("run_family_B", "run_family_A")
            };
            assert!(runs(own) && !runs(other), "{} below {other}", frame.name);
            assert_eq!(frame.file.as_deref(), Some(format!("{}.py", frame.name).as_str()));
            let first = number % 50 + 2;
            let line = frame.line.expect("a line");
            assert!((first..=first + 4).contains(&line), "{}: line {line}, first {first}", frame.name);
            *seen.entry(if family == "a" { 'a' } else { 'b' }).or_default() += 1;
        }
    }
    // Most are gone before they can be read; some are not, or this would show nothing.
    assert!(seen.values().sum::<u32>() >= 10, "{seen:?}");
}

#[test]
fn functions_that_live_shortly_have_their_own_names_or_none_3_9() {
    needs!();
    let _quiet = quiet_cores();
    check_churn(&Source::Suite("bullseye"));
}

#[test]
fn functions_that_live_shortly_have_their_own_names_or_none_3_11() {
    needs!();
    let _quiet = quiet_cores();
    check_churn(&Source::Own("/usr/bin/python3.11"));
}

#[test]
fn functions_that_live_shortly_have_their_own_names_or_none_3_14() {
    needs!();
    let _quiet = quiet_cores();
    check_churn(&Source::Suite("sid"));
}
