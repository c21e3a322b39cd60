//! `CPython`'s frames by the kernel side's unwinder, named by the symbols crate: of interpreters that run here, and of
//! recorded ones (`images/python-*.txt`, which hold what was read of such processes; `SPANFLAME_RECORD=1` writes them
//! anew). What is right is said by the interpreter itself: see `fixtures/python/held.py`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use spanflame_symbols::ProcessAddress;
use spanflame_symbols::process_memory::{LiveMemory, ProcessMemory, RecordedMemory};
use spanflame_symbols::python::{Interpreter, InterpreterPlace};
use spanflame_symbols::script::{Runtime, ScriptFunction, ScriptRuntime};
use spanflame_unwind_native::{Image, Recorder, Registers, Walk, Walker};

use recording::naming::layout_words;
use recording::{
    ENTRY, Held, LEAF, Told, executable_mappings, hex, images, mapped_objects, read_frame_or_memory,
    recordings, repository, script_frame, start, write_frames_and_memory,
};

mod recording;

const COMPLETE: u32 = 1;

/// Interpreters that can be had here: how to start each, and its minor version.
fn interpreters() -> Vec<Vec<String>> {
    let repository = repository();
    let fixture = |path: &Path| path.join("python/held.py").display().to_string();
    let mut commands = Vec::new();
    let versions =
        std::env::var("HOME").map(|home| PathBuf::from(home).join(".pyenv/versions")).unwrap_or_default();
    let mut installed: Vec<PathBuf> = std::fs::read_dir(versions)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin/python3"))
        .collect();
    installed.push(PathBuf::from("/usr/bin/python3"));
    installed.sort();
    for python in installed.into_iter().filter(|python| python.exists()) {
        commands.push(vec![python.display().to_string(), fixture(&repository.join("fixtures"))]);
    }
    for suite in ["bullseye", "trixie", "sid"] {
        let fetched =
            Command::new(repository.join("fixtures/runtimes/debian.sh")).args([suite, "python3"]).output();
        let Ok(fetched) = fetched else { continue };
        if !fetched.status.success() {
            eprintln!("skipped: {suite}: {}", String::from_utf8_lossy(&fetched.stderr));
            continue;
        }
        let root = String::from_utf8_lossy(&fetched.stdout).trim().to_owned();
        let start = repository.join("fixtures/runtimes/in_root.sh").display().to_string();
        commands.push(vec![start, root, "/usr/bin/python3".to_owned(), fixture(Path::new("/fixtures"))]);
    }
    commands
}

fn walk(interpreter: &Interpreter, thread: u64, memory: &dyn ProcessMemory) -> Walk {
    let mut image = Image::new();
    image.thread_pointer = thread;
    image.python = Some(layout_words(interpreter));
    let mut walker = Walker::default();
    let walk = walker.walk_in(&image, &Registers::default(), memory);
    let again = walker.walk_in(&image, &Registers::default(), memory);
    assert_eq!(again.scripts, walk.scripts, "the thread state is remembered");
    assert_eq!(again.script_outcome, walk.script_outcome);
    walk
}

fn names(interpreter: &Interpreter, walk: &Walk, memory: &dyn ProcessMemory) -> Vec<(ScriptFunction, bool)> {
    let mut names = Vec::new();
    for raw in &walk.scripts {
        let functions = interpreter.name(&script_frame(Runtime::Python, raw), memory);
        let functions = functions.unwrap_or_else(|refusal| panic!("{}: {refusal:?}", interpreter.version()));
        names.extend(functions.into_iter().map(|function| (function, raw.flags & ENTRY != 0)));
    }
    names
}

fn check(interpreter: &Interpreter, walk: &Walk, memory: &dyn ProcessMemory, told: &[Told]) {
    let version = interpreter.version();
    assert_eq!(walk.script_outcome, COMPLETE, "{version}");
    let names = names(interpreter, walk, memory);
    let found: Vec<Told> = (names.iter())
        .map(|(function, _)| Told {
            line: function.line,
            name: function.name.clone(),
            file: function.file.clone(),
        })
        .collect();
    assert_eq!(found, told, "{version}");
    assert!(walk.scripts[0].flags & LEAF != 0);
    // What C code calls: next() its generator's first frame, sorted() and map() their functions; the others only where
    // each frame has an evaluation call of its own.
    let minor: u32 = version.split('.').nth(1).and_then(|minor| minor.parse().ok()).expect("a version");
    for (function, is_entry) in &names {
        let short = function.name.rsplit('.').next().expect("a name");
        let expected = match short {
            "<module>" | "price" | "finish" => Some(true),
            "generated" if minor < 13 => Some(true),
            "tell" | "<lambda>" | "order" | "main" | "through_c" => Some(minor <= 10),
            _ => None,
        };
        if let Some(expected) = expected {
            assert_eq!(*is_entry, expected, "{version}: {}", function.name);
        }
    }
    let frames = walk.scripts.len() as u32;
    let reads_each = if minor < 12 { 4 } else { 2 };
    assert!(
        walk.user_reads <= 16 + (frames + 16) * reads_each,
        "{version}: {} reads for {frames}",
        walk.user_reads
    );
}

#[test]
fn every_interpreter_that_runs_here() {
    let mut seen = 0;
    for command in interpreters() {
        let Some(held) = start(&command) else { continue };
        let pid = held.pid();
        let live = LiveMemory::open(pid).expect("its memory");
        let recorder = Recorder::new(&live);
        let objects = mapped_objects(&executable_mappings(pid));
        let found = Interpreter::find(&objects, &recorder);
        let minor: u32 = held.version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0);
        if minor < 8 || held.version.starts_with('2') {
            assert!(!matches!(found, Ok(Some(_))), "{} is not read", held.version);
            continue;
        }
        let interpreter = found.expect("readable").expect("it is one");
        assert_eq!(interpreter.version(), held.version);
        let walk = walk(&interpreter, held.thread, &recorder);
        check(&interpreter, &walk, &recorder, &held.frames);
        eprintln!(
            "{}: {} frames, {} reads, evaluation {:x?}",
            held.version,
            walk.scripts.len(),
            walk.user_reads,
            interpreter.evaluation()
        );
        seen += 1;
        if recording::is_recording() {
            let place = objects.iter().find_map(InterpreterPlace::find).expect("it was found");
            record(&held, &place, &recorder.recorded());
        }
    }
    if seen == 0 {
        eprintln!("skipped: no CPython can be had here");
    }
}

fn record(held: &Held, place: &InterpreterPlace, memory: &RecordedMemory) {
    let mut text = format!("thread {:x}\nruntime {:x}\n", held.thread, place.runtime.0);
    for (word, address) in [("code_type", place.code_type), ("version", place.version)] {
        if let Some(ProcessAddress(address)) = address {
            let _ = writeln!(text, "{word} {address:x}");
        }
    }
    if let Some((minor, Some(micro))) = place.told {
        let _ = writeln!(text, "told {minor:x} {micro:x}");
    }
    write_frames_and_memory(&mut text, &held.frames, memory);
    std::fs::write(images().join(format!("python-{}.txt", held.version)), text).expect("written");
}

#[test]
fn every_recorded_interpreter() {
    let mut seen = 0;
    for text in recordings("python-") {
        let (place, thread, told, memory) = recorded(&text);
        let interpreter = Interpreter::read(&place, &memory).expect("it was readable");
        check(&interpreter, &walk(&interpreter, thread, &memory), &memory, &told);
        seen += 1;
    }
    assert!(seen >= 6, "one of each version: {seen}");
}

fn recorded(text: &str) -> (InterpreterPlace, u64, Vec<Told>, RecordedMemory) {
    let mut place =
        InterpreterPlace { runtime: ProcessAddress(0), code_type: None, version: None, told: None };
    let (mut thread, mut frames, mut memory) = (0, Vec::new(), RecordedMemory::default());
    for line in text.lines() {
        let (word, rest) = line.split_once(' ').expect("two words");
        match word {
            "thread" => thread = hex(rest),
            "runtime" => place.runtime = ProcessAddress(hex(rest)),
            "code_type" => place.code_type = Some(ProcessAddress(hex(rest))),
            "version" => place.version = Some(ProcessAddress(hex(rest))),
            "told" => {
                let (minor, micro) = rest.split_once(' ').expect("both");
                place.told = Some((hex(minor) as u8, Some(hex(micro) as u8)));
            }
            _ => assert!(read_frame_or_memory((word, rest), &mut frames, &mut memory), "{word}?"),
        }
    }
    (place, thread, frames, memory)
}
