//! The unwinder on the recorded memory of a real program, against what gdb saw.
//!
//! `images/walk.c` says what the program does, `images/record.sh` how it was recorded. Everything but
//! the kernel is real: the executable's `.eh_frame` goes through the table compiler of the symbols
//! crate, and the walk over its pages is the BPF code.

use std::path::Path;

use spanflame_symbols::ObjectFile;
use spanflame_symbols::unwind::UnwindTable;
use spanflame_unwind_native::{Image, MappingKind, Registers, Walker, frame, outcome};

const EXECUTABLE: &[u8] = include_bytes!("images/walk.elf");
const RECORDING: &str = include_str!("images/walk.txt");

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text, 16).expect("hexadecimal")
}

struct Recording {
    registers: Registers,
    frames: Vec<u64>,
    spans: Vec<(u64, Vec<u8>)>,
}

fn recording() -> Recording {
    let mut recording = Recording { registers: Registers::default(), frames: Vec::new(), spans: Vec::new() };
    for line in RECORDING.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            "registers" => {
                for (register, word) in recording.registers.general.iter_mut().zip(&words[1..]) {
                    *register = hex(word);
                }
                recording.registers.pc = hex(words[17]);
            }
            "frames" => recording.frames = words[1..].iter().map(|word| hex(word)).collect(),
            "span" => {
                let (begin, end) = (hex(words[1]), hex(words[2]));
                recording.spans.push((begin, vec![0; (end - begin) as usize]));
            }
            "memory" => {
                let (begin, span) = recording.spans.last_mut().expect("a span first");
                let at = (hex(words[1]) - *begin) as usize;
                for (index, pair) in words[2].as_bytes().chunks(2).enumerate() {
                    span[at + index] = hex(std::str::from_utf8(pair).expect("digits")) as u8;
                }
            }
            other => panic!("{other}?"),
        }
    }
    recording
}

fn image(recording: &Recording) -> Image {
    let object = ObjectFile::from_bytes(EXECUTABLE.to_vec(), Path::new("walk.elf")).expect("an ELF file");
    let table = UnwindTable::build(&object).expect("it has .eh_frame");
    let text = *object.segments().iter().find(|segment| segment.executable).expect("text");
    let mut image = Image::new();
    let id = image.add_object(&table, false);
    let begin = text.address.0 & !4095;
    image.set_mappings(&[(begin, text.address.0 + text.memory_bytes, 0, MappingKind::Object(id))]);
    for (begin, contents) in &recording.spans {
        image.add_memory(*begin, contents.clone());
    }
    image
}

/// What the unwinder is to record for what gdb saw: callers by the byte before the return address,
/// but not the frame that a signal interrupted, nor the trampoline, which nobody called.
fn expected_words(frames: &[u64]) -> Vec<u64> {
    // stop_here, in_handler, handler, restore, raise_signal (interrupted), …
    const TRAMPOLINE: usize = 3;
    frames
        .iter()
        .enumerate()
        .map(|(index, &pc)| {
            let is_call = index > 0 && index != TRAMPOLINE && index != TRAMPOLINE + 1;
            frame(1, if is_call { pc - 1 } else { pc })
        })
        .collect()
}

#[test]
fn the_walk_sees_every_frame_that_gdb_saw() {
    let recording = recording();
    assert_eq!(recording.frames.len(), 30, "20 calls deep, a signal, and what is around them");
    let walk = image(&recording).walk(&recording.registers);
    assert_eq!(walk.frames, expected_words(&recording.frames));
    assert_eq!((walk.outcome, walk.stopped_at), (outcome::COMPLETE, 0));
    // No frame takes more than three reads, most take one.
    assert!(walk.user_reads < 2 * 30, "{} reads", walk.user_reads);
}

#[test]
fn a_stack_that_is_cut_anywhere_gives_the_frames_below_the_cut() {
    let recording = recording();
    let whole = image(&recording).walk(&recording.registers).frames;
    let mut walker = Walker::default();
    for (span, (_, contents)) in recording.spans.iter().enumerate() {
        for keep in (0..contents.len()).step_by(8) {
            let mut cut = Recording { spans: recording.spans.clone(), frames: Vec::new(), ..recording };
            cut.spans[span].1.truncate(keep);
            let walk = walker.walk(&image_of_cut(&cut), &cut.registers);
            assert!(whole.starts_with(&walk.frames), "span {span} cut to {keep}");
            let complete = walk.frames.len() == whole.len();
            let expected = if complete { outcome::COMPLETE } else { outcome::STACK_UNREADABLE };
            assert_eq!(walk.outcome, expected, "span {span} cut to {keep}");
        }
    }
}

fn image_of_cut(recording: &Recording) -> Image {
    use std::sync::OnceLock;
    static WITHOUT_MEMORY: OnceLock<Image> = OnceLock::new();
    let mut image = WITHOUT_MEMORY
        .get_or_init(|| image(&Recording { spans: Vec::new(), frames: Vec::new(), ..*recording }))
        .clone();
    for (begin, contents) in &recording.spans {
        image.add_memory(*begin, contents.clone());
    }
    image
}
