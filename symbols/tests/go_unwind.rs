//! Unwind rows of Go executables, on stacks of a busy program that gdb stopped.
//!
//! Two oracles that were not written here. Where no stack is switched, the frames are those that gdb
//! finds (by `.debug_frame`). And everywhere a frame's return address must follow a call, and a direct
//! call must be one of the very function that the frame below is in, also across switches.

mod go_programs;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};

use go_programs::{BuiltProgram, Mode, build, object_of, toolchains};
use spanflame_symbols::go::{GoSymbols, unwind_rows};
use spanflame_symbols::unwind::layout::{cfa, return_address, saved_fp};
use spanflame_symbols::unwind::{Row, UnwindRule, UnwindTable};
use spanflame_symbols::{ElfAddress, ObjectFile};

const STOPS: usize = 40;
const RBP: u8 = 6;
const RSP: u8 = 7;

/// A thread as gdb found it.
#[derive(Debug, Default)]
struct Stopped {
    rip: u64,
    rsp: u64,
    rbp: u64,
    frames: Vec<u64>,
    pages: HashMap<u64, Vec<u8>>,
}

impl Stopped {
    fn word(&self, address: u64) -> Option<u64> {
        let page = self.pages.get(&(address & !4095))?;
        let at = (address & 4095) as usize;
        Some(u64::from_le_bytes(page.get(at..at + 8)?.try_into().ok()?))
    }
}

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Complete,
    Unsupported,
    NoRule,
    /// In the vDSO or a library, of which the rows say nothing.
    OtherObject,
    Memory,
    TooDeep,
}

struct Walk {
    /// Addresses to look up.
    frames: Vec<u64>,
    /// Index of the first frame that was reached over a switch or a signal.
    switched: Option<usize>,
    end: End,
}

/// Rows in order, of several at one address the last.
fn rows_of(object: &ObjectFile) -> BTreeMap<u64, UnwindRule> {
    let mut rows: Vec<Row> = vec![];
    unwind_rows(object, &mut rows).expect("readable");
    assert!(rows.is_sorted_by_key(|row| row.address), "rows are sorted");
    rows.into_iter().map(|row| (row.address.0, row.rule)).collect()
}

fn walk(thread: &Stopped, rows: &BTreeMap<u64, UnwindRule>, text: &Range<u64>) -> Walk {
    let (mut pc, mut rsp, mut rbp) = (thread.rip, thread.rsp, thread.rbp);
    let mut walk = Walk { frames: vec![], switched: None, end: End::TooDeep };
    let mut lookup = pc;
    while walk.frames.len() < 200 {
        walk.frames.push(lookup);
        let rule = rows.range(..=lookup).next_back().map_or(UnwindRule::NONE, |(_, rule)| *rule);
        let step = match rule.cfa {
            cfa::END => Err(End::Complete),
            cfa::UNSUPPORTED => Err(End::Unsupported),
            cfa::REGISTER => {
                let base = match rule.cfa_register {
                    RSP => rsp,
                    RBP => rbp,
                    other => panic!("register {other}"),
                };
                let frame = base.wrapping_add_signed(i64::from(rule.cfa_offset));
                let saved = match rule.frame_pointer {
                    saved_fp::SAME => Some(rbp),
                    saved_fp::AT_CFA => thread.word(frame.wrapping_add_signed(i64::from(rule.fp_offset))),
                    other => panic!("saved as {other}"),
                };
                thread.word(frame - 8).zip(saved).map(|(pc, rbp)| (pc, frame, rbp)).ok_or(End::Memory)
            }
            cfa::FRAME_POINTER => {
                walk.switched.get_or_insert(walk.frames.len());
                let words = thread.word(rbp.wrapping_add(8)).zip(thread.word(rbp));
                words.map(|(pc, saved)| (pc, rbp + 16, saved)).ok_or(End::Memory)
            }
            cfa::SIGNAL => {
                walk.switched.get_or_insert(walk.frames.len());
                let word = |index: u64| thread.word(rsp + 40 + 8 * index);
                word(16).zip(word(15)).zip(word(10)).map(|((pc, rsp), rbp)| (pc, rsp, rbp)).ok_or(End::Memory)
            }
            _ if text.contains(&lookup) => Err(End::NoRule),
            _ => Err(End::OtherObject),
        };
        match step {
            Ok(caller) => (pc, rsp, rbp) = caller,
            Err(end) => {
                walk.end = end;
                return walk;
            }
        }
        lookup = if rule.cfa == cfa::SIGNAL { pc } else { pc - 1 };
    }
    walk
}

fn parse(text: &str) -> Vec<Stopped> {
    let mut threads = vec![];
    let mut thread = Stopped::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |index: usize| u64::from_str_radix(words[index], 16).expect("hexadecimal");
        match words[0] {
            "thread" => {
                thread = Stopped { rip: number(1), rsp: number(2), rbp: number(3), ..Stopped::default() };
            }
            "frame" => thread.frames.push(number(1)),
            "memory" => {
                let digits = words[2].as_bytes().chunks(2);
                let bytes = digits
                    .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
                    .collect();
                thread.pages.insert(number(1), bytes);
            }
            _ => threads.push(std::mem::take(&mut thread)),
        }
    }
    threads
}

/// Stops the program many times. `None` if there is no gdb, or it may not attach.
fn stops(program: &BuiltProgram) -> Option<Vec<Stopped>> {
    let folder: &Path = program.path.parent().expect("a folder");
    std::fs::write(folder.join("stops.py"), include_str!("go_programs/stops.py.txt")).expect("writable");
    let mut busy = Command::new(&program.path).arg("busy").stdout(Stdio::null()).spawn().expect("it starts");
    std::thread::sleep(std::time::Duration::from_millis(300));
    let output = Command::new("gdb")
        .current_dir(folder)
        .args(["-nx", "-batch", "-iex", "set auto-load off"])
        .args(["-ex", &format!("set $target_pid = {}", busy.id()), "-ex", &format!("set $stops = {STOPS}")])
        .args(["-ex", "source stops.py"])
        .output();
    let _ = busy.kill();
    let _ = busy.wait();
    let text = std::fs::read_to_string(folder.join("stops.txt")).unwrap_or_default();
    let threads = parse(&text);
    match output {
        Ok(_) if !threads.is_empty() => Some(threads),
        Ok(output) => {
            eprintln!("skipped: {program}: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(_) => {
            eprintln!("skipped: there is no gdb");
            None
        }
    }
}

/// The five bytes before a return address.
fn call_before(object: &ObjectFile, return_address: u64) -> Option<Vec<u8>> {
    object.read_loaded(ElfAddress(return_address - 5), 5).ok()
}

#[test]
fn stacks_are_those_of_gdb_and_lead_from_call_to_call() {
    for toolchain in toolchains() {
        let Some(program) = build(toolchain, Mode::Plain) else { continue };
        let object = object_of(&program.path);
        let symbols = GoSymbols::read(&object).expect("readable").expect("a Go executable");
        let rows = rows_of(&object);
        let segment = object.segments().iter().find(|segment| segment.executable).expect("text");
        let text = segment.address.0..segment.address.0 + segment.file_bytes;
        let Some(threads) = stops(&program) else { continue };
        let mut ends: BTreeMap<(End, String), usize> = BTreeMap::new();
        let mut jumped = BTreeSet::new();
        let (mut frames, mut direct, mut over_switch, mut as_gdb) = (0, 0, 0, 0);
        let name = |address: u64| {
            symbols.symbolize(ElfAddress(address)).and_then(|frames| Some(frames.last()?.name.clone()))
        };
        for thread in &threads {
            let walked = walk(thread, &rows, &text);
            let last = *walked.frames.last().expect("a frame");
            let last_name = name(last).unwrap_or_else(|| format!("{last:#x}"));
            *ends.entry((walked.end, last_name)).or_default() += 1;
            let until = walked.switched.unwrap_or(walked.frames.len()).min(thread.frames.len());
            for (index, (ours, theirs)) in walked.frames.iter().zip(&thread.frames).take(until).enumerate() {
                let theirs = if index == 0 { *theirs } else { theirs - 1 };
                assert_eq!(*ours, theirs, "{program}: frame {index} of {:#x?}", thread.frames);
                as_gdb += 1;
            }
            over_switch += usize::from(walked.switched.is_some_and(|at| at < walked.frames.len()));
            for pair in walked.frames.windows(2) {
                frames += 1;
                let [callee, caller] = *pair else { continue };
                let (Some(callee), Some(bytes)) = (name(callee), call_before(&object, caller + 1)) else {
                    continue;
                };
                if bytes[0] != 0xe8 {
                    continue;
                }
                let distance = i32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
                let target = (caller + 1).wrapping_add_signed(i64::from(distance));
                if name(target).as_ref() == Some(&callee) {
                    direct += 1;
                } else {
                    // Assembly that jumps on to its body, and systemstack on a system stack.
                    jumped.insert((name(target).unwrap_or_default(), callee));
                }
            }
        }
        eprintln!(
            "{program}: {} threads, {frames} frames, {as_gdb} as gdb, {direct} by a direct call of the \
             function, {over_switch} walks over a switch: {ends:?}, jumps {jumped:?}",
            threads.len()
        );
        assert!(direct > frames / 2, "{program}: only {direct} direct calls in {frames} frames");
        for (target, callee) in &jumped {
            let known = [
                "runtime.systemstack",
                "runtime.morestack_noctxt",
                "runtime.gcWriteBarrier",
                "runtime.mem",
                "runtime.cmp",
                "internal/bytealg.",
            ];
            assert!(
                known.iter().any(|known| target.starts_with(known)),
                "{program}: {callee} called as {target}"
            );
        }
        let other_object =
            ends.iter().filter(|((end, _), _)| *end == End::OtherObject).map(|(_, count)| count);
        let in_go = threads.len() - other_object.sum::<usize>();
        let complete: usize =
            ends.iter().filter(|((end, _), _)| *end == End::Complete).map(|(_, count)| count).sum();
        // To Go 1.20 systemstack has no frame by which to find the goroutine's stack.
        let least_percent = if toolchain.has_frame_in_systemstack { 99 } else { 80 };
        assert!(complete * 100 >= in_go * least_percent, "{program}: {complete} of {in_go} complete");
    }
}

#[test]
fn the_table_has_these_rules_and_prefers_them_to_the_debug_information() {
    for toolchain in toolchains() {
        let Some(program) = build(toolchain, Mode::Plain) else { continue };
        let object = object_of(&program.path);
        assert!(object.section_header(".debug_frame").is_some(), "{program}");
        let rows = rows_of(&object);
        let table = UnwindTable::build(&object).expect("a table");
        let symbols = GoSymbols::read(&object).expect("readable").expect("a Go executable");
        let mut rules_of_switches = 0;
        for (address, rule) in &rows {
            assert_eq!(table.find(ElfAddress(*address)), *rule, "{program} at {address:#x}");
            let frames = symbols.symbolize(ElfAddress(*address)).unwrap_or_default();
            if frames.last().is_some_and(|frame| frame.name == "runtime.systemstack") {
                rules_of_switches += usize::from(matches!(rule.cfa, cfa::FRAME_POINTER | cfa::UNSUPPORTED));
            }
        }
        assert!(rules_of_switches > 0, "{program}");
        let in_register =
            rows.values().filter(|rule| rule.return_address & 15 == return_address::IN_REGISTER);
        assert!(in_register.count() <= 1, "{program}: rawVforkSyscall only");
        eprintln!("{program}: {} rows, {} in the table", rows.len(), table.rows);
    }
}
