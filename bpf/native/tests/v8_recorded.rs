//! V8's frames by the kernel side's unwinder, named by the symbols crate: of every Node that can be had here, and of
//! recorded ones (`images/node-*.txt`, which hold what was read of such processes; `SPANFLAME_RECORD=1` writes them
//! anew). The walk is the whole one, from the system call in which the thread waits to the outermost frame. What is
//! right is said by V8 itself: see `fixtures/v8/held.js`.
//!
//! Besides what `recording/` says, a recording has `constant` (of V8's own for debuggers, those without which it would
//! be read otherwise), `builtins` (begin, end, first handler, begin and end of the trampoline), `sizes` (of bytecodes)
//! and `metadata` (where Node has its version).

use std::fmt::Write as _;
use std::ops::Range;
use std::process::Command;
use std::sync::Arc;

use spanflame_symbols::ProcessAddress;
use spanflame_symbols::process_memory::{LiveMemory, ProcessMemory, RecordedMemory};
use spanflame_symbols::script::{Runtime, ScriptRuntime};
use spanflame_symbols::v8::{self, Builtins, V8Place};
use spanflame_unwind_native::{Recorder, Walk, outcome};

use recording::naming::{COMPILED, INTERPRETED, Named, layout_words, names};
use recording::stack::{LiveStack, Stack};
use recording::{
    Told, bytes_of, digits_of, executable_mappings, hex, images, is_recording, mapped_objects,
    read_frame_or_memory, recordings, repository, start, write_frames_and_memory,
};

mod recording;

const COMPLETE: u32 = 1;

/// How to start the fixture with each Node that can be had here.
fn nodes() -> Vec<Vec<String>> {
    let fixtures = repository().join("fixtures");
    let mut commands = Vec::new();
    for version in ["18", "20", "22", "24"] {
        let fetched =
            Command::new(fixtures.join("runtimes/node.sh")).arg(version).output().expect("a script");
        if !fetched.status.success() {
            eprintln!("skipped: Node {version}: {}", String::from_utf8_lossy(&fetched.stderr).trim());
            continue;
        }
        let node = String::from_utf8_lossy(&fetched.stdout).trim().to_owned();
        let script = fixtures.join("v8/held.js").display().to_string();
        commands.push(vec![node, "--allow-natives-syntax".to_owned(), script]);
    }
    commands
}

fn check(runtime: &dyn ScriptRuntime, walk: &Walk, memory: &dyn ProcessMemory, told: &[Told]) {
    let version = runtime.version();
    assert_eq!((walk.outcome, walk.script_outcome), (outcome::COMPLETE, COMPLETE), "{version}: {walk:x?}");
    assert_eq!(walk.runtime, 2, "{version}");
    let names = names(Runtime::V8, runtime, walk, memory);
    for Named { start_line, told, .. } in &names {
        assert!(*start_line > 0 && *start_line <= told.line, "{version}: {told:?} from {start_line}");
    }
    // It told of itself before it called Node's own function, which waits.
    let (own, rest) = names.split_at(names.len().saturating_sub(told.len()));
    let found: Vec<&Told> = rest.iter().map(|named| &named.told).collect();
    assert_eq!(found, told.iter().collect::<Vec<_>>(), "{version}");
    assert!(own.iter().all(|named| named.told.file == "node:fs"), "{version}");
    assert_eq!(own.last().map(|named| named.told.name.as_str()), Some("readSync"), "{version}");

    let of = |name: &str| names.iter().find(|named| named.told.name == name).expect("it was told");
    for named in names.iter().filter(|named| named.told.file == of("hold").told.file) {
        let expected = match named.told.name.as_str() {
            "inlined" | "optimised" | "baseline" => COMPILED,
            _ => INTERPRETED,
        };
        assert_eq!(named.kind, expected, "{version}: {}", named.told.name);
    }
    assert_eq!(of("inlined").script, of("optimised").script, "{version}: they are one frame");
    assert_ne!(of("baseline").script, of("optimised").script, "{version}");
}

#[test]
fn every_node_that_runs_here() {
    let mut seen = 0;
    for command in nodes() {
        let held = start(&command).expect("it runs the fixture");
        let live = LiveMemory::open(held.pid()).expect("its memory");
        let mappings = executable_mappings(held.pid());
        let place =
            mapped_objects(&mappings).iter().find_map(|object| V8Place::find(object).expect("readable"));
        let place = place.expect("it has V8");
        let runtime = v8::read(place.clone(), &live).expect("its version is known");
        assert_eq!(runtime.version(), held.version);
        let stack = LiveStack::of(held.waiting, &mappings);
        let walk = stack.walk(|image| image.v8 = Some(layout_words(&*runtime)), &live);
        check(&*runtime, &walk, &live, &held.frames);
        eprintln!(
            "{}: {} frames, {} of functions, {} reads",
            held.version,
            walk.frames.len(),
            walk.scripts.len(),
            walk.user_reads
        );
        seen += 1;
        if is_recording() {
            let by_words = stack.by_words(&live);
            let recorder = Recorder::new(&by_words);
            // Anew, since it remembers what it has read.
            let runtime = v8::read(place.clone(), &recorder).expect("its version is known");
            let walk = stack.walk(|image| image.v8 = Some(layout_words(&*runtime)), &recorder);
            check(&*runtime, &walk, &recorder, &held.frames);
            let visited = stack.visited(&walk, place.builtins.as_ref().map(|builtins| &builtins.code));
            let text = written(&visited, needed(place, &live), &held.frames, &recorder.recorded());
            let file = images().join(format!("node-{}.txt", held.version));
            std::fs::write(file, text).expect("written");
        }
    }
    if seen == 0 {
        eprintln!("skipped: no Node can be had here");
    }
}

/// Without the constants that change nothing: there are hundreds.
fn needed(mut place: V8Place, memory: &dyn ProcessMemory) -> V8Place {
    let read = |place: &V8Place| v8::read(place.clone(), memory).map(|runtime| format!("{runtime:?}"));
    let right = read(&place);
    let mut names: Vec<String> = place.constants.keys().cloned().collect();
    names.sort();
    for name in names {
        let value = place.constants.remove(&name).expect("it is there");
        if read(&place) != right {
            place.constants.insert(name, value);
        }
    }
    place
}

fn written(stack: &Stack, place: V8Place, frames: &[Told], memory: &RecordedMemory) -> String {
    let mut text = String::new();
    let mut constants: Vec<(String, i32)> = place.constants.into_iter().collect();
    constants.sort();
    for (name, value) in constants {
        let _ = writeln!(text, "constant {name} {value}");
    }
    let Builtins { code, handlers_begin, trampoline } = place.builtins.expect("it has symbols");
    let (begin, end) = (code.start, code.end);
    let Range { start, end: trampoline_end } = trampoline;
    let _ = writeln!(text, "builtins {begin:x} {end:x} {handlers_begin:x} {start:x} {trampoline_end:x}");
    let _ = writeln!(text, "sizes {}", digits_of(&place.bytecode_sizes));
    let _ = writeln!(text, "metadata {:x}", place.metadata.expect("it is Node").0);
    stack.write(&mut text);
    write_frames_and_memory(&mut text, frames, memory);
    text
}

#[test]
fn every_recorded_node() {
    let mut versions = Vec::new();
    for text in recordings("node-") {
        let (stack, place, told, memory) = recorded(&text);
        let runtime: Arc<dyn ScriptRuntime> = v8::read(place, &memory).expect("it was readable");
        let walk = stack.walk(|image| image.v8 = Some(layout_words(&*runtime)), &memory);
        check(&*runtime, &walk, &memory, &told);
        assert_eq!(walk.frames, stack.walked, "{}: native frames too", runtime.version());
        versions.push(runtime.version().split('.').next().unwrap_or_default().to_owned());
    }
    versions.sort();
    versions.dedup();
    assert_eq!(versions, ["18", "20", "22", "24"]);
}

fn recorded(text: &str) -> (Stack, V8Place, Vec<Told>, RecordedMemory) {
    let (mut stack, mut place) = (Stack::default(), V8Place::default());
    let (mut frames, mut memory) = (Vec::new(), RecordedMemory::default());
    for line in text.lines() {
        let (word, rest) = line.split_once(' ').expect("two words");
        match word {
            "constant" => {
                let (name, value) = rest.split_once(' ').expect("both");
                place.constants.insert(name.to_owned(), value.parse().expect("a number"));
            }
            "builtins" => {
                let words: Vec<u64> = rest.split(' ').map(hex).collect();
                let &[begin, end, handlers_begin, trampoline, trampoline_end] = words.as_slice() else {
                    panic!("{rest}?")
                };
                let (code, trampoline) = (begin..end, trampoline..trampoline_end);
                place.builtins = Some(Builtins { code, handlers_begin, trampoline });
            }
            "sizes" => place.bytecode_sizes = bytes_of(rest),
            "metadata" => place.metadata = Some(ProcessAddress(hex(rest))),
            _ => {
                let is_known =
                    stack.read((word, rest)) || read_frame_or_memory((word, rest), &mut frames, &mut memory);
                assert!(is_known, "{word}?");
            }
        }
    }
    (stack, place, frames, memory)
}
