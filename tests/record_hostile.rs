//! A user profiles a program whose interpreter's memory is rewritten at random while it runs: what cannot be read is
//! counted with its reason, what is no text is no name, and the profiler goes on.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::folded::Folded;
use support::program::Program;
use support::{quiet_cores, recording, seconds};
use tempfile::TempDir;

/// How much more memory the profiler may take than for the same program in its right mind.
const MORE_BYTES: u64 = 64 << 20;
/// Processes that are tried until one is rewritten while it is read and not before.
const TRIES: u32 = 6;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/hostile").join(name)
}

fn build(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
}

/// The library that does it.
fn scribble(directory: &TempDir) -> PathBuf {
    let library = directory.path().join("scribble.so");
    let mut command = Command::new("cc");
    command.args(["-O2", "-fPIC", "-shared", "-fno-stack-protector", "-o"]);
    build(command.arg(&library).arg(fixture("scribble.c")));
    library
}

/// The profile, and the most memory that taking it took.
fn record(command: &mut Command, scribbles: &str) -> (Folded, u64) {
    let program = Program::start_ready(command.env("SCRIBBLE", scribbles));
    let recording = recording::record_pid(program.pid, seconds(4, 10));
    assert!(!recording.stderr.contains("please report"), "{}", recording.stderr);
    (recording.folded(), recording.stats().agent_peak_memory_bytes)
}

fn names(folded: &Folded) -> BTreeSet<String> {
    folded.stacks.iter().flat_map(|stack| &stack.frames).map(|frame| frame.name.clone()).collect()
}

/// `own` are functions of the program, which are all on the stack; `marker` begins what stands for frames without a name.
fn check(mut command: Command, own: &[&str], marker: &str) {
    let has_all = |folded: &Folded| folded.count(|stack| own.iter().all(|name| stack.has(name)));
    let (sane, sane_bytes) = record(&mut command, "0");
    assert!(has_all(&sane) * 10 >= sane.total() * 9, "{} of {} are whole", has_all(&sane), sane.total());

    // A runtime whose description of itself was read while it was wrong is not looked for again: all frames are native,
    // and another process of it is tried.
    for _ in 0..TRIES {
        let (hostile, bytes) = record(&mut command, "1");
        assert!(bytes <= sane_bytes + MORE_BYTES, "{bytes} bytes instead of {sane_bytes}");
        for name in names(&hostile) {
            let is_text = !name.contains(|character: char| character.is_control() || character == '\u{fffd}');
            assert!(is_text, "{name:?} is no name");
        }
        if hostile.count(|stack| stack.frames.iter().any(|frame| frame.name.starts_with(marker))) > 0 {
            return;
        }
    }
    panic!("nothing was rewritten while it was read");
}

#[test]
fn python_whose_memory_is_rewritten() {
    needs!();
    if !Path::new("/usr/bin/python3").exists() {
        return support::skip("/usr/bin/python3 is not installed");
    }
    let _quiet = quiet_cores();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let mut command = Command::new("/usr/bin/python3");
    command.arg(fixture("hostile.py")).arg(scribble(&directory));
    check(command, &["<module>", "outer", "inner"], "[cpython: ");
}

#[test]
fn node_whose_memory_is_rewritten() {
    needs!();
    if !Path::new("/usr/bin/node").exists() {
        return support::skip("/usr/bin/node is not installed");
    }
    let _quiet = quiet_cores();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let mut command = Command::new("/usr/bin/node");
    command.arg(fixture("hostile.js")).arg(scribble(&directory));
    check(command, &["outer", "inner"], "[v8js: ");
}

#[test]
fn java_whose_memory_is_rewritten() {
    needs!();
    // What is rewritten can end the virtual machine itself, which says nothing of us.
    if !support::long_tests() {
        return support::skip("SPANFLAME_LONG_TESTS=1 asks for it");
    }
    if !Path::new("/usr/bin/javac").exists() {
        return support::skip("/usr/bin/javac is not installed");
    }
    let _quiet = quiet_cores();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    build(Command::new("javac").arg("-g").arg("-d").arg(directory.path()).arg(fixture("Hostile.java")));
    let mut command = Command::new("java");
    // The virtual machine itself is not to trip over what is rewritten: no thread of it stops the others.
    command.args(["-Xint", "-XX:+UnlockDiagnosticVMOptions", "-XX:GuaranteedSafepointInterval=0", "-cp"]);
    command.arg(directory.path()).arg("Hostile").arg(scribble(&directory));
    check(command, &["Hostile.main", "Hostile.outer", "Hostile.inner"], "[jvm: ");
}
