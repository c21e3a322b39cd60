//! Go symbols against oracles that were not written here: the runtime of the program itself
//! (`runtime.CallersFrames`, which knows inlined calls), and `go tool addr2line`.

mod go_programs;

use std::collections::HashSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use go_programs::{BuiltProgram, Mode, build, object_of, toolchains};
use spanflame_symbols::go::{GoSymbols, Inlining, unwind_rows};
use spanflame_symbols::symbolize::SymbolFrame;
use spanflame_symbols::{ElfAddress, ObjectFile};

const ADDRESSES: usize = 1000;

/// A fixed sequence of numbers that look random (splitmix64): a failure can be repeated.
fn numbers() -> impl Iterator<Item = u64> {
    let mut state = 0x5eed_u64;
    std::iter::from_fn(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(mixed ^ (mixed >> 31))
    })
}

/// Random addresses of the executable segment that have a Go symbol.
fn named_addresses(object: &ObjectFile, symbols: &GoSymbols) -> Vec<(ElfAddress, Vec<SymbolFrame>)> {
    let text = object.segments().iter().find(|segment| segment.executable).expect("a text segment");
    let addresses = numbers().map(|number| ElfAddress(text.address.0 + number % text.file_bytes));
    addresses
        .filter_map(|address| symbols.symbolize(address).map(|frames| (address, frames)))
        .filter(|(_, frames)| !frames.last().expect("a frame").name.starts_with("go:buildid"))
        .take(ADDRESSES)
        .collect()
}

/// What the program itself says about addresses, relative to `main.main`.
fn ask_the_program(program: &BuiltProgram, main: ElfAddress, addresses: &[ElfAddress]) -> Vec<Vec<String>> {
    let mut child = Command::new(&program.path)
        .arg("frames")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut input = String::new();
    for address in addresses {
        input += &format!("{}\n", address.0.wrapping_sub(main.0).cast_signed());
    }
    let mut stdin = child.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("the program ends");
    writer.join().expect("no panic").expect("the program reads all");
    assert!(output.status.success(), "{}", program.path.display());
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// `main.main`, found without a symbol table: it is stripped in some of the programs.
fn main_function(object: &ObjectFile, symbols: &GoSymbols) -> ElfAddress {
    let text = object.segments().iter().find(|segment| segment.executable).expect("a text segment");
    let step = 16;
    let addresses = (text.address.0..text.address.0 + text.file_bytes).step_by(step).map(ElfAddress);
    addresses
        .into_iter()
        .find(|address| {
            let frames = symbols.symbolize(*address).unwrap_or_default();
            frames.last().is_some_and(|frame| frame.name == "main.main")
        })
        .expect("main.main")
}

#[test]
fn frames_lines_and_inlined_calls_are_those_that_the_runtime_gives() {
    for toolchain in toolchains() {
        for mode in Mode::ALL {
            let Some(program) = build(toolchain, mode) else { continue };
            let object = object_of(&program.path);
            let symbols = GoSymbols::read(&object).expect("readable").expect("a Go executable");
            assert_eq!(symbols.inlining(), Inlining::Known, "{program}");
            let named = named_addresses(&object, &symbols);
            assert_eq!(named.len(), ADDRESSES, "{program}");
            let addresses: Vec<_> = named.iter().map(|(address, _)| *address).collect();
            let answers = ask_the_program(&program, main_function(&object, &symbols), &addresses);
            assert_eq!(answers.len(), ADDRESSES, "{program}");
            let (mut inlined, mut first_lines, mut unnamed) = (0, 0, HashSet::new());
            for ((address, frames), expected) in named.iter().zip(&answers) {
                let frames: Vec<_> = frames.iter().map(shown).collect();
                let (mut frames, mut expected) = (frames, &expected[..]);
                if toolchain.tells_all_inlined {
                    inlined += usize::from(expected.len() > 1);
                    // The runtime leaves out wrappers that called something (objabi.GetFuncID).
                    let innermost = frames.remove(0);
                    frames.retain(|frame| !is_wrapper(frame));
                    frames.insert(0, innermost);
                } else {
                    frames.truncate(1);
                    expected = &expected[..1];
                }
                // The runtime takes the name at offset 0 for none: it is that of one function.
                if let (Some(ours), Some(theirs)) = (frames.last_mut(), expected.last())
                    && theirs.starts_with(' ')
                {
                    *ours =
                        ours.split_once(' ').map(|(_, position)| format!(" {position}")).unwrap_or_default();
                    unnamed.insert(ours.clone());
                }
                assert_eq!(frames, expected, "{program} at {address}");
            }
            let files: HashSet<_> = unnamed
                .iter()
                .filter_map(|position| position.split_once(':'))
                .map(|(file, _)| file)
                .collect();
            assert!(files.len() <= 1, "{program}: {unnamed:?}");
            for (_, frames) in &named {
                first_lines += usize::from(frames.iter().all(|frame| frame.start_line > 0));
            }
            if toolchain.tells_all_inlined {
                assert!(inlined > ADDRESSES / 20, "{program}: only {inlined} addresses with inlined calls");
                assert!(first_lines > ADDRESSES * 9 / 10, "{program}: only {first_lines} with first lines");
            }
            eprintln!("{program}: {ADDRESSES} addresses, {inlined} of them with inlined calls: all equal");
        }
    }
}

fn is_wrapper(frame: &str) -> bool {
    let names = ["reflect.callMethod ", "reflect.callReflect ", "runtime.deferreturn "];
    let function = frame.split(' ').next().unwrap_or_default();
    let generated = [".deferwrap", ".gowrap"].iter().any(|part| function.contains(part));
    generated || frame.ends_with(" <autogenerated>:1") || names.iter().any(|name| frame.starts_with(name))
}

fn shown(frame: &SymbolFrame) -> String {
    let file = if frame.line == 0 { "" } else { &frame.file };
    format!("{} {}:{}", frame.name, file, frame.line)
}

#[test]
fn functions_and_lines_are_those_of_addr2line() {
    for toolchain in toolchains() {
        let Some(program) = build(toolchain, Mode::Plain) else { continue };
        let object = object_of(&program.path);
        let symbols = GoSymbols::read(&object).expect("readable").expect("a Go executable");
        let named = named_addresses(&object, &symbols);
        let mut child = toolchain
            .go()
            .args(["tool", "addr2line"])
            .arg(&program.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("go tool addr2line starts");
        let input: String = named.iter().map(|(address, _)| format!("{address}\n")).collect();
        let mut stdin = child.stdin.take().expect("a pipe");
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().expect("addr2line ends");
        writer.join().expect("no panic").expect("addr2line reads all");
        let text = String::from_utf8(output.stdout).expect("text");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2 * named.len());
        for ((address, frames), answer) in named.iter().zip(lines.chunks_exact(2)) {
            let (innermost, outermost) = (frames.first().expect("a frame"), frames.last().expect("a frame"));
            // It knows nothing of inlined calls: the function that holds the code, the innermost line.
            let position = format!("{}:{}", innermost.file, innermost.line);
            let name =
                if outermost.system_name.is_empty() { &outermost.name } else { &outermost.system_name };
            let function = answer[0].strip_suffix(".abi0").unwrap_or(answer[0]);
            assert_eq!((name.as_str(), position.as_str()), (function, answer[1]), "{program} at {address}");
        }
        eprintln!("{program}: {} addresses as go tool addr2line says", named.len());
    }
}

#[test]
fn inlined_calls_are_those_of_the_debug_information() {
    let symbolizer = ["llvm-symbolizer", "llvm-symbolizer-19"].into_iter().find(|name| {
        Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    });
    let Some(symbolizer) = symbolizer else {
        eprintln!("skipped: there is no llvm-symbolizer");
        return;
    };
    for toolchain in toolchains() {
        let Some(program) = build(toolchain, Mode::Plain) else { continue };
        let object = object_of(&program.path);
        let symbols = GoSymbols::read(&object).expect("readable").expect("a Go executable");
        let mut named = named_addresses(&object, &symbols);
        named.retain(|(_, frames)| frames.len() > 1);
        let output = Command::new(symbolizer)
            .args(["--inlines", "--output-style=GNU", "--no-demangle", "--obj"])
            .arg(&program.path)
            .args(named.iter().map(|(address, _)| address.to_string()))
            .output()
            .expect("it starts");
        let text = String::from_utf8(output.stdout).expect("text");
        // Two lines a frame and nothing between two addresses: both sides are flattened.
        let mut answer = text.lines();
        let mut different = vec![];
        for (address, frames) in &named {
            for frame in frames {
                let name = answer.next().unwrap_or_default();
                // It takes the path of generated code for a relative one.
                let position = answer.next().unwrap_or_default().trim_start_matches("./");
                let ours = if frame.system_name.is_empty() { &frame.name } else { &frame.system_name };
                if ours != name || format!("{}:{}", frame.file, frame.line) != position {
                    different
                        .push(format!("{address}: {ours} {}:{} / {name} {position}", frame.file, frame.line));
                }
            }
        }
        assert!(named.len() > ADDRESSES / 20, "{program}: only {} addresses with inlined calls", named.len());
        assert!(different.is_empty(), "{program}: {} of {}: {different:#?}", different.len(), named.len());
        eprintln!("{program}: {} addresses with inlined calls as {symbolizer} says", named.len());
    }
}

#[test]
fn an_executable_without_section_table_is_read_alike() {
    for toolchain in toolchains() {
        for mode in [Mode::Plain, Mode::Pie] {
            let Some(program) = build(toolchain, mode) else { continue };
            let whole = object_of(&program.path);
            let expected = GoSymbols::read(&whole).expect("readable").expect("a Go executable");
            let mut bytes = std::fs::read(&program.path).expect("readable");
            bytes[0x28..0x30].fill(0); // e_shoff
            bytes[0x3c..0x40].fill(0); // e_shnum, e_shstrndx
            let object = ObjectFile::from_bytes(bytes, &program.path).expect("an ELF file");
            assert!(object.section_headers().is_empty());
            let symbols = GoSymbols::read(&object).expect("readable").expect("a Go executable");
            assert_eq!(symbols.inlining(), Inlining::Known, "{program}");
            for (address, frames) in named_addresses(&whole, &expected) {
                assert_eq!(symbols.symbolize(address), Some(frames), "{program} at {address}");
            }
        }
    }
}

#[test]
fn module_data_that_only_the_relocations_tell_are_found() {
    for toolchain in toolchains() {
        let Some(program) = build(toolchain, Mode::Pie) else { continue };
        let whole = object_of(&program.path);
        let expected = GoSymbols::read(&whole).expect("readable").expect("a Go executable");
        let mut bytes = std::fs::read(&program.path).expect("readable");
        let names = [".rela.dyn", ".rela"];
        let relocations = names.iter().find_map(|name| whole.section(name).expect("readable"));
        let mut cleared = 0;
        for triple in relocations.expect("a position-independent executable has some").data.chunks_exact(24) {
            let word =
                |index: usize| u64::from_le_bytes(triple[8 * index..8 * index + 8].try_into().unwrap());
            if word(1) != 8 {
                continue;
            }
            let address = ElfAddress(word(0));
            let segment = whole.segments().iter().find(|segment| {
                address.checked_sub(segment.address).is_some_and(|offset| offset < segment.file_bytes)
            });
            let segment = segment.expect("a segment holds it");
            let at = (segment.offset.0 + address.0 - segment.address.0) as usize;
            bytes[at..at + 8].fill(0);
            cleared += 1;
        }
        assert!(cleared > 100, "{program}");
        let object = ObjectFile::from_bytes(bytes, &program.path).expect("an ELF file");
        let symbols = GoSymbols::read(&object).expect("readable").expect("a Go executable");
        assert_eq!(symbols.inlining(), Inlining::Known, "{program}");
        for (address, frames) in named_addresses(&whole, &expected) {
            assert_eq!(symbols.symbolize(address), Some(frames), "{program} at {address}");
        }
    }
}

#[test]
fn a_damaged_executable_is_refused_or_answers() {
    let Some(toolchain) = toolchains().pop() else { return };
    let Some(program) = build(toolchain, Mode::Stripped) else { return };
    let whole = object_of(&program.path);
    let bytes = std::fs::read(&program.path).expect("readable");
    let mut random = numbers();
    let mut below = |limit: usize| (random.next().expect("endless") % limit as u64) as usize;
    let text = *whole.segments().iter().find(|segment| segment.executable).expect("a text segment");
    let table = whole.section_header(".gopclntab").expect("a pclntab").offset.0 as usize;
    let (mut read, mut refused) = (0, 0);
    for round in 0..150 {
        let mut bytes = bytes.clone();
        for _ in 0..1 + below(64) {
            // The header, what follows it, or anywhere: tables, code, module data, ELF headers.
            let at = match round % 3 {
                0 => table + below(72),
                1 => table + below(600_000),
                _ => below(bytes.len()),
            };
            bytes[at] = [0, 0xff, 0x80, below(256) as u8][below(4)];
        }
        if below(8) == 0 {
            bytes.truncate(below(bytes.len()));
        }
        let Ok(object) = ObjectFile::from_bytes(bytes, &program.path) else { continue };
        let mut rows = vec![];
        let unwound = unwind_rows(&object, &mut rows);
        assert!(rows.is_sorted_by_key(|row| row.address), "round {round}");
        match GoSymbols::read(&object) {
            Ok(Some(symbols)) => {
                read += 1;
                for _ in 0..200 {
                    let address = ElfAddress(text.address.0 + below(text.file_bytes as usize) as u64);
                    if let Some(frames) = symbols.symbolize(address) {
                        assert!(!frames.is_empty() && frames.iter().all(|frame| !frame.name.is_empty()));
                    }
                }
            }
            Ok(None) => {}
            Err(error) => {
                assert!(unwound.is_err(), "round {round}: {error}");
                refused += 1;
            }
        }
    }
    assert!(
        read > 10 && refused > 10,
        "{read} read, {refused} refused: the damage is too small or too large"
    );
}

#[test]
fn an_executable_of_another_language_is_no_go_executable() {
    let own = std::env::current_exe().expect("a path");
    assert!(GoSymbols::read(&object_of(&own)).expect("readable").is_none());
}
