//! HotSpot's frames by the kernel side's unwinder, named by the symbols crate: of every JDK that can be had here, and of
//! recorded ones (`images/java-*.txt`, which hold what was read of such processes; `SPANFLAME_RECORD=1` writes them
//! anew). The walk is the whole one, from the system call in which the thread waits to the outermost frame. What is
//! right is said by the virtual machine itself: see `fixtures/hotspot/Held.java`.
//!
//! Besides what `recording/` says, a recording has `release` and `numbers` (what was found of the virtual machine, as
//! `Hotspot::to_numbers` has it: the tables that it was found by take megabytes).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use spanflame_symbols::hotspot::Hotspot;
use spanflame_symbols::process_memory::{LiveMemory, ProcessMemory, RecordedMemory};
use spanflame_symbols::script::{Runtime, ScriptRuntime};
use spanflame_unwind_native::{Recorder, Walk, outcome};

use recording::naming::{COMPILED, INTERPRETED, layout_words, names};
use recording::stack::{LiveStack, Stack};
use recording::{
    Told, executable_mappings, hex, images, is_recording, mapped_objects, read_frame_or_memory, recordings,
    repository, start, write_frames_and_memory,
};

mod recording;

const STUB: u8 = 4;
const COMPLETE: u32 = 1;

/// The compiled fixture, or why there is none.
fn classes() -> Result<PathBuf, String> {
    let classes = repository().join("target/fixtures/held");
    let output = Command::new("javac")
        .args(["--release", "11", "-encoding", "UTF-8", "-g", "-d"])
        .arg(&classes)
        .arg(repository().join("fixtures/hotspot/Held.java"))
        .output()
        .map_err(|error| format!("javac: {error}"))?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(classes)
}

/// How to start a program with each JDK that can be had here: that of this machine, or of a Debian suite.
fn machines(classes: &Path) -> Vec<Vec<String>> {
    let runtimes = repository().join("fixtures/runtimes");
    let mut commands = Vec::new();
    for (version, installed, suite) in [
        (11, "java-11-openjdk-amd64", "bullseye"),
        (17, "java-17-openjdk-amd64", "bookworm"),
        (21, "java-21-openjdk-amd64", "trixie"),
        (25, "temurin-25-jdk-amd64", "trixie"),
    ] {
        let installed = format!("/usr/lib/jvm/{installed}/bin/java");
        if Path::new(&installed).exists() {
            commands.push(vec![installed]);
            continue;
        }
        let package = format!("openjdk-{version}-jdk-headless");
        let fetched = Command::new(runtimes.join("debian.sh")).args([suite, &package]).output();
        let fetched = fetched.expect("a script");
        if !fetched.status.success() {
            eprintln!("skipped: JDK {version}: {}", String::from_utf8_lossy(&fetched.stderr).trim());
            continue;
        }
        commands.push(vec![
            runtimes.join("in_root.sh").display().to_string(),
            String::from_utf8_lossy(&fetched.stdout).trim().to_owned(),
            "--bind".to_owned(),
            classes.display().to_string(),
            format!("/usr/lib/jvm/java-{version}-openjdk-amd64/bin/java"),
        ]);
    }
    let options = [
        "-Xmx64m",
        "-Xbatch",
        "-XX:CompileCommand=quiet",
        "-XX:CompileCommand=dontinline,Held::optimised",
        "-cp",
        &classes.display().to_string(),
        "Held",
    ];
    for command in &mut commands {
        command.extend(options.map(str::to_owned));
    }
    commands
}

fn check(machine: &Hotspot, walk: &Walk, memory: &dyn ProcessMemory, told: &[Told]) {
    let version = machine.version();
    assert_eq!((walk.outcome, walk.script_outcome), (outcome::COMPLETE, COMPLETE), "{version}: {walk:x?}");
    assert_eq!(walk.runtime, 3, "{version}");
    let mut names = names(Runtime::Hotspot, machine, walk, memory);
    // By way of this one C++ calls main().
    let call_stub = names.pop().expect("there are frames");
    assert_eq!((call_stub.kind, call_stub.told.name.as_str()), (STUB, "call_stub"), "{version}");
    // It told of itself before it called the method that waits.
    let (own, rest) = names.split_at(names.len().saturating_sub(told.len()));
    let found: Vec<&Told> = rest.iter().map(|named| &named.told).collect();
    assert_eq!(found, told.iter().collect::<Vec<_>>(), "{version}");
    assert!(own.iter().all(|named| named.told.file == "FileInputStream.java"), "{version}");
    let last = own.last().map(|named| named.told.name.as_str());
    assert_eq!(last, Some("java.io.FileInputStream.read()"), "{version}");

    let of = |name: &str| names.iter().find(|named| named.told.name == name).expect("it was told");
    for named in names.iter().filter(|named| named.told.file == "Held.java") {
        let expected = match named.told.name.as_str() {
            "Held.inlined" | "Held.optimised" | "Held.quick" => COMPILED,
            _ => INTERPRETED,
        };
        assert_eq!(named.kind, expected, "{version}: {}", named.told.name);
    }
    assert_eq!(of("Held.inlined").script, of("Held.optimised").script, "{version}: they are one frame");
    assert_ne!(of("Held.quick").script, of("Held.optimised").script, "{version}");
}

#[test]
fn every_jdk_that_runs_here() {
    let classes = match classes() {
        Ok(classes) => classes,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let mut seen = 0;
    for command in machines(&classes) {
        let held = start(&command).expect("it runs the fixture");
        let live = LiveMemory::open(held.pid()).expect("its memory");
        let mappings = executable_mappings(held.pid());
        let machine = Hotspot::find(&mapped_objects(&mappings), &live).expect("readable").expect("it is one");
        assert_eq!(held.version.split('-').next(), Some(machine.version()));
        let stack = LiveStack::of(held.waiting, &mappings);
        let walk = stack.walk(|image| image.hotspot = Some(layout_words(&machine)), &live);
        check(&machine, &walk, &live, &held.frames);
        eprintln!(
            "{}: {} frames, {} of methods and stubs, {} reads",
            held.version,
            walk.frames.len(),
            walk.scripts.len(),
            walk.user_reads
        );
        seen += 1;
        if is_recording() {
            let by_words = stack.by_words(&live);
            let recorder = Recorder::new(&by_words);
            let walk = stack.walk(|image| image.hotspot = Some(layout_words(&machine)), &recorder);
            check(&machine, &walk, &recorder, &held.frames);
            let visited = stack.visited(&walk, None);
            let text = written(&visited, &machine, &held.frames, &recorder.recorded());
            let release = machine.version().split('+').next().expect("a version");
            std::fs::write(images().join(format!("java-{release}.txt")), text).expect("written");
        }
    }
    if seen == 0 {
        eprintln!("skipped: no JDK can be had here");
    }
}

fn written(stack: &Stack, machine: &Hotspot, frames: &[Told], memory: &RecordedMemory) -> String {
    let mut text = format!("release {}\nnumbers", machine.version());
    for number in machine.to_numbers() {
        let _ = write!(text, " {number:x}");
    }
    text.push('\n');
    stack.write(&mut text);
    write_frames_and_memory(&mut text, frames, memory);
    text
}

#[test]
fn every_recorded_jdk() {
    let mut versions = Vec::new();
    for text in recordings("java-") {
        let (stack, machine, told, memory) = recorded(&text);
        let walk = stack.walk(|image| image.hotspot = Some(layout_words(&machine)), &memory);
        check(&machine, &walk, &memory, &told);
        assert_eq!(walk.frames, stack.walked, "{}: native frames too", machine.version());
        versions.push(machine.version().split('.').next().unwrap_or_default().to_owned());
    }
    versions.sort();
    versions.dedup();
    assert_eq!(versions, ["11", "17", "21", "25"]);
}

fn recorded(text: &str) -> (Stack, Hotspot, Vec<Told>, RecordedMemory) {
    let (mut release, mut numbers) = (String::new(), Vec::new());
    let (mut stack, mut frames, mut memory) = (Stack::default(), Vec::new(), RecordedMemory::default());
    for line in text.lines() {
        let (word, rest) = line.split_once(' ').expect("two words");
        match word {
            "release" => rest.clone_into(&mut release),
            "numbers" => numbers = rest.split(' ').map(hex).collect(),
            _ => {
                let is_known =
                    stack.read((word, rest)) || read_frame_or_memory((word, rest), &mut frames, &mut memory);
                assert!(is_known, "{word}?");
            }
        }
    }
    let machine = Hotspot::of_numbers(&release, &numbers).expect("as to_numbers() writes them");
    (stack, machine, frames, memory)
}
