//! The unwinder's rules one by one, and what it does at their edges.

use proptest::prelude::*;
use spanflame_symbols::ElfAddress;
use spanflame_symbols::unwind::Row;
use spanflame_symbols::unwind::layout::{UnwindRule, cfa, return_address, saved_fp};
use spanflame_unwind_native::{
    Image, MAX_FRAMES, MappingKind, ObjectState, Registers, Walker, frame, outcome, register,
};

const STACK: u64 = 0x7ffd_0000_0000;
/// Where the object under test is mapped, minus its ELF address.
const BIAS: u64 = 0x5555_0000_0000;

const END: UnwindRule = UnwindRule { cfa: cfa::END, ..UnwindRule::NONE };

fn by(cfa_register: u8, cfa_offset: i32) -> UnwindRule {
    UnwindRule { cfa: cfa::REGISTER, cfa_register, cfa_offset, ..UnwindRule::NONE }
}

fn row(address: u64, rule: UnwindRule) -> Row {
    Row { address: ElfAddress(address), rule }
}

/// An object at ELF 0x1000 … 0x9000: `rule` from 0x1000 on, then END from 0x8000 on (the "main").
fn image(rows: &[Row]) -> Image {
    let mut image = Image::new();
    let mut rows = rows.to_vec();
    rows.push(row(0x8000, END));
    let object = image.add_rows(&rows);
    assert_eq!(object, 1);
    image.set_mappings(&[(BIAS + 0x1000, BIAS + 0x9000, BIAS, MappingKind::Object(object))]);
    image
}

fn registers(pc: u64, sp: u64, fp: u64) -> Registers {
    let mut registers = Registers { pc: BIAS + pc, ..Registers::default() };
    registers.general[usize::from(register::RSP)] = sp;
    registers.general[usize::from(register::RBP)] = fp;
    registers
}

/// A return address into "main"; what is recorded is the byte before.
const MAIN: u64 = BIAS + 0x8123;
const MAIN_FRAME: u64 = 0x8122;

/// The words, and zeros up to the end of their page: memory as a kernel has it.
fn page_of(words: &[u64]) -> Vec<u64> {
    let mut page = words.to_vec();
    page.resize(512, 0);
    page
}

#[test]
fn words_at_and_across_the_end_of_a_page_are_read_where_the_next_page_is_and_is_not_there() {
    let saves = UnwindRule { frame_pointer: saved_fp::AT_CFA, fp_offset: -16, ..by(register::RSP, 16) };
    // Where rbp is saved, in bytes before the end of the page; the return address lies behind it.
    for before in [24u64, 16, 12, 8, 4, 0] {
        let slot = STACK + 4096 - before;
        for (next_page, expected) in [
            // The caller is found, and that the rbp that was read leads down again.
            (true, outcome::STACK_NOT_RISING),
            (false, if before >= 16 { outcome::STACK_NOT_RISING } else { outcome::STACK_UNREADABLE }),
        ] {
            let mut memory = vec![0u8; if next_page { 8192 } else { 4096 }];
            for (index, word) in [STACK + 0x100, BIAS + 0x2101].into_iter().enumerate() {
                let at = (slot - STACK) as usize + 8 * index;
                if let Some(bytes) = memory.get_mut(at..at + 8) {
                    bytes.copy_from_slice(&word.to_ne_bytes());
                }
            }
            let mut image = image(&[row(0x1000, saves), row(0x2000, by(register::RBP, 16))]);
            image.add_memory(STACK, memory);
            let mut walker = Walker::default();
            for _ in 0..2 {
                let walk = walker.walk(&image, &registers(0x1000, slot, 0));
                let frames = if expected == outcome::STACK_UNREADABLE { 1 } else { 2 };
                assert_eq!(
                    (walk.outcome, walk.frames.len()),
                    (expected, frames),
                    "{before} bytes before the end, next page {next_page}"
                );
            }
        }
    }
}

#[test]
fn a_stack_that_spans_pages_is_read_to_its_end() {
    // Frames of 272 bytes on four pages; the return addresses are 16 bytes off in each.
    let mut image = image(&[row(0x1000, by(register::RSP, 272))]);
    let mut words = vec![0u64; 4 * 512];
    let frames = 4 * 512 / 34;
    for index in 0..frames {
        words[index * 34 + 33] = BIAS + 0x1101;
    }
    words[(frames - 1) * 34 + 33] = MAIN;
    image.add_words(STACK, &words);
    let mut walker = Walker::default();
    let first = walker.walk(&image, &registers(0x1000, STACK, 0));
    assert_eq!((first.outcome, first.frames.len()), (outcome::COMPLETE, frames + 1));
    assert!(first.user_reads <= 12, "{} reads for 16 KiB", first.user_reads);
    assert_eq!(walker.walk(&image, &registers(0x1000, STACK, 0)), first);
}

#[test]
fn remembered_rules_keep_every_case_of_rbp_apart() {
    let saved_far = UnwindRule { frame_pointer: saved_fp::AT_CFA, fp_offset: -120, ..by(register::RSP, 136) };
    let too_far = UnwindRule { frame_pointer: saved_fp::AT_CFA, fp_offset: -128, ..by(register::RSP, 144) };
    let farther = UnwindRule { frame_pointer: saved_fp::AT_CFA, fp_offset: -1016, ..by(register::RSP, 1032) };
    let farthest =
        UnwindRule { frame_pointer: saved_fp::AT_CFA, fp_offset: -1024, ..by(register::RSP, 1040) };
    let lost = UnwindRule { frame_pointer: saved_fp::UNKNOWN, ..by(register::RSP, 8) };
    for (rule, words_to_rbp, words_to_pc, expected) in [
        (saved_far, 2, 16, outcome::COMPLETE),
        (too_far, 2, 17, outcome::COMPLETE),
        (farther, 2, 128, outcome::COMPLETE),
        (farthest, 2, 129, outcome::COMPLETE),
        (lost, 200, 0, outcome::REGISTER_LOST),
        (by(register::RSP, 8), 200, 0, outcome::COMPLETE),
    ] {
        let mut image = image(&[row(0x1000, rule), row(0x2000, by(register::RBP, 16))]);
        let mut words = page_of(&[]);
        words[words_to_rbp] = STACK + 8 * 300;
        words[words_to_pc] = BIAS + 0x2101;
        words[301] = MAIN;
        image.add_words(STACK, &words);
        let start = registers(0x1000, STACK, STACK + 8 * 300);
        let mut walker = Walker::default();
        for _ in 0..3 {
            let walk = walker.walk(&image, &start);
            assert_eq!(walk.outcome, expected, "{rule:?} {walk:x?}");
            assert_eq!(walk.frames[..2], [frame(1, 0x1000), frame(1, 0x2100)]);
        }
    }
}

#[test]
fn a_table_that_was_replaced_is_not_remembered() {
    let mut walker = Walker::default();
    for (generation, offset) in [(1, 8), (2, 24), (3, 8), (1 << 11, 16), ((1 << 24) + 4, 32)] {
        let mut image = image(&[row(0x1000, by(register::RSP, offset))]);
        image.set_generation(1, generation);
        let mut words = page_of(&[]);
        words[offset as usize / 8 - 1] = MAIN;
        image.add_words(STACK, &words);
        for _ in 0..2 {
            let walk = walker.walk(&image, &registers(0x1000, STACK, 0));
            assert_eq!((walk.outcome, walk.frames.len()), (outcome::COMPLETE, 2), "generation {generation}");
        }
    }
}

#[test]
fn a_leaf_without_a_frame_returns_to_what_lies_at_rsp() {
    let mut image = image(&[row(0x1000, by(register::RSP, 8))]);
    image.add_words(STACK, &page_of(&[MAIN]));
    let walk = image.walk(&registers(0x1000, STACK, 0));
    assert_eq!(walk.frames, [frame(1, 0x1000), frame(1, MAIN_FRAME)]);
    assert_eq!((walk.outcome, walk.stopped_at, walk.user_reads), (outcome::COMPLETE, 0, 1));
}

#[test]
fn frames_that_lie_close_together_take_one_read() {
    let rule = UnwindRule { frame_pointer: saved_fp::AT_CFA, fp_offset: -16, ..by(register::RBP, 16) };
    let mut image = image(&[row(0x1000, rule)]);
    image.add_words(STACK, &page_of(&[STACK + 32, BIAS + 0x1501, 0, 0, 0xdead_0000, MAIN]));
    let walk = image.walk(&registers(0x1234, STACK - 64, STACK));
    assert_eq!(walk.frames, [frame(1, 0x1234), frame(1, 0x1500), frame(1, MAIN_FRAME)]);
    assert_eq!((walk.outcome, walk.user_reads), (outcome::COMPLETE, 1));
}

#[test]
fn rbp_saved_elsewhere_is_restored_for_the_caller() {
    let saves = UnwindRule { frame_pointer: saved_fp::AT_CFA, fp_offset: -32, ..by(register::RSP, 40) };
    let mut image = image(&[row(0x1000, saves), row(0x2000, by(register::RBP, 16))]);
    image.add_words(STACK, &[0, STACK + 64, 0, 0, BIAS + 0x2101, 0, 0, 0, 0, MAIN]);
    let walk = image.walk(&registers(0x1000, STACK, 0x1111));
    assert_eq!(walk.frames, [frame(1, 0x1000), frame(1, 0x2100), frame(1, MAIN_FRAME)]);
    assert_eq!(walk.outcome, outcome::COMPLETE);
}

#[test]
fn frames_of_40_kib_and_negative_offsets_are_not_cut_to_16_bits() {
    let mut first = image(&[row(0x1000, by(register::RSP, 40 * 1024 + 8))]);
    first.add_words(STACK + 40 * 1024, &[MAIN]);
    assert_eq!(first.walk(&registers(0x1000, STACK, 0)).outcome, outcome::COMPLETE);

    let mut second = image(&[row(0x1000, by(register::RBP, -(1 << 20)))]);
    second.add_words(STACK, &[MAIN]);
    assert_eq!(second.walk(&registers(0x1000, STACK, STACK + 8 + (1 << 20))).outcome, outcome::COMPLETE);
}

#[test]
fn a_dereferenced_cfa_adds_its_addend_after_the_read() {
    // GCC's realigned main: CFA = *(rbp - 8), rbp at rbp + 0.
    let rule = UnwindRule {
        cfa: cfa::DEREF,
        cfa_register: register::RBP,
        cfa_offset: -8,
        cfa_addend: 24,
        frame_pointer: saved_fp::AT_FP,
        fp_offset: 0,
        ..UnwindRule::NONE
    };
    let mut image = image(&[row(0x1000, rule), row(0x2000, by(register::RBP, 16))]);
    image.add_words(STACK, &[STACK + 24, STACK + 64, 0, 0, 0, BIAS + 0x2101, 0, 0, 0, MAIN]);
    let walk = image.walk(&registers(0x1000, STACK - 128, STACK + 8));
    assert_eq!(walk.frames, [frame(1, 0x1000), frame(1, 0x2100), frame(1, MAIN_FRAME)]);
}

#[test]
fn realigned_leaves_use_r10_and_callers_may_not() {
    let rule = by(register::R10, 0);
    let mut image = image(&[row(0x1000, rule)]);
    image.add_words(STACK, &[BIAS + 0x1101]);
    let mut start = registers(0x1000, STACK - 32, 0);
    start.general[usize::from(register::R10)] = STACK + 8;
    let walk = image.walk(&start);
    assert_eq!(walk.frames, [frame(1, 0x1000), frame(1, 0x1100)]);
    assert_eq!((walk.outcome, walk.stopped_at), (outcome::REGISTER_LOST, BIAS + 0x1101));
}

#[test]
fn a_plt_entry_has_eight_more_bytes_from_its_push_on() {
    let rule = UnwindRule { cfa: cfa::PLT, cfa_offset: 8, cfa_addend: 11, ..UnwindRule::NONE };
    for (pc, depth) in [(0x1020, 0), (0x102a, 0), (0x102b, 1), (0x102f, 1), (0x1030, 0)] {
        let mut image = image(&[row(0x1000, rule)]);
        let mut stack = vec![0xbad; depth];
        stack.push(MAIN);
        image.add_words(STACK, &stack);
        let walk = image.walk(&registers(pc, STACK, 0));
        assert_eq!((walk.outcome, walk.frames.len()), (outcome::COMPLETE, 2), "pc {pc:#x}");
    }
}

#[test]
fn vfork_keeps_its_return_address_in_rdi_and_its_cfa_at_rsp() {
    let rule = UnwindRule {
        return_address: return_address::IN_REGISTER | register::RDI << 4,
        ..by(register::RSP, 0)
    };
    let mut image = image(&[row(0x1000, rule), row(0x2000, by(register::RSP, 8))]);
    image.add_words(STACK, &[MAIN]);
    let mut start = registers(0x1000, STACK, 0);
    start.general[usize::from(register::RDI)] = BIAS + 0x2101;
    let walk = image.walk(&start);
    assert_eq!(walk.frames, [frame(1, 0x1000), frame(1, 0x2100), frame(1, MAIN_FRAME)]);
    assert_eq!(walk.outcome, outcome::COMPLETE);
}

#[test]
fn a_signal_frame_gives_every_register_back_and_its_pc_is_no_return_address() {
    let signal = UnwindRule { cfa: cfa::SIGNAL, ..UnwindRule::NONE };
    // The handler runs on an alternate stack above; the interrupted function's CFA needs r10 again.
    let mut image = image(&[
        row(0x1000, by(register::RSP, 8)),
        row(0x2000, UnwindRule::NONE),
        row(0x2100, signal),
        row(0x2110, UnwindRule::NONE),
        row(0x3000, by(register::R10, 16)),
    ]);
    const ALTERNATE: u64 = STACK + 0x10_0000;
    // As glibc's table does, the trampoline's rule begins one byte before it.
    let mut words = vec![BIAS + 0x2101];
    let mut context = vec![0u64; 5];
    let mut general = [0u64; 17];
    general[2] = STACK; // r10
    general[15] = STACK - 64; // rsp
    general[16] = BIAS + 0x3000; // rip: the function's very first byte
    context.extend(general);
    words.extend(context);
    image.add_words(ALTERNATE, &words);
    image.add_words(STACK, &[0, MAIN]);
    let walk = image.walk(&registers(0x1004, ALTERNATE, 0));
    assert_eq!(
        walk.frames,
        [frame(1, 0x1004), frame(1, 0x2101), frame(1, 0x3000), frame(1, MAIN_FRAME)],
        "{walk:x?}"
    );
    assert_eq!(walk.outcome, outcome::COMPLETE);
}

#[test]
fn rbx_is_followed_only_through_objects_that_track_it() {
    use spanflame_unwind_native::pack;
    let saves = UnwindRule { rbx_offset: -16, ..by(register::RSP, 24) };
    let table = pack(&[row(0x1000, saves), row(0x2000, by(register::RBX, 8)), row(0x8000, END)]);
    for (tracks, expected) in [(true, outcome::COMPLETE), (false, outcome::REGISTER_LOST)] {
        let mut image = Image::new();
        let object = image.add_object(&table, tracks);
        image.set_mappings(&[(BIAS + 0x1000, BIAS + 0x9000, BIAS, MappingKind::Object(object))]);
        image.add_words(STACK, &[0, STACK + 64, BIAS + 0x2101, 0, 0, 0, 0, 0, MAIN]);
        let walk = image.walk(&registers(0x1000, STACK, 0));
        assert_eq!(walk.outcome, expected, "{walk:x?}");
    }
}

#[test]
fn a_return_address_behind_the_last_byte_of_a_function_belongs_to_it() {
    // A call as the last instruction of what lies in front of 0x2000, e.g. of abort().
    let mut image = image(&[row(0x1000, by(register::RSP, 16)), row(0x2000, UnwindRule::NONE)]);
    image.add_words(STACK, &[0, BIAS + 0x2000, 0, MAIN]);
    let walk = image.walk(&registers(0x1000, STACK, 0));
    assert_eq!(walk.frames, [frame(1, 0x1000), frame(1, 0x1fff), frame(1, MAIN_FRAME)]);
    let leaf = image.walk(&registers(0x2000, STACK, 0));
    assert_eq!((leaf.outcome, leaf.frames), (outcome::NO_RULE, vec![frame(1, 0x2000)]));
}

#[test]
fn rows_are_found_at_their_first_and_last_byte_and_across_chunks() {
    let other = UnwindRule { cfa: cfa::UNSUPPORTED, ..UnwindRule::NONE };
    let image = image(&[row(0x1ff0, END), row(0x2fff, other), row(0x3000, END), row(0x3001, other)]);
    let found = |pc| image.walk(&registers(pc, STACK, 0)).outcome;
    assert_eq!(found(0x1fef), outcome::NO_RULE, "before the first row, in its chunk");
    for pc in [0x1ff0, 0x1fff, 0x2000, 0x2ffe, 0x3000] {
        assert_eq!(found(pc), outcome::COMPLETE, "{pc:#x}");
    }
    for pc in [0x2fff, 0x3001, 0x3fff, 0x4000, 0x7fff] {
        assert_eq!(found(pc), outcome::UNSUPPORTED_RULE, "{pc:#x}");
    }
    assert_eq!(found(0x1000), outcome::NO_RULE, "before the first chunk");
    assert_eq!(found(0x8fff), outcome::COMPLETE);
}

#[test]
fn every_row_of_a_full_leaf_is_found() {
    let unsupported = UnwindRule { cfa: cfa::UNSUPPORTED, ..UnwindRule::NONE };
    let rows: Vec<Row> =
        (0..1024).map(|i| row(0x1000 + i * 4, if i % 3 == 0 { END } else { unsupported })).collect();
    let image = image(&rows);
    let mut walker = Walker::default();
    for pc in 0x1000..0x2000 {
        let expected = if (pc - 0x1000) / 4 % 3 == 0 { outcome::COMPLETE } else { outcome::UNSUPPORTED_RULE };
        assert_eq!(walker.walk(&image, &registers(pc, STACK, 0)).outcome, expected, "{pc:#x}");
    }
}

#[test]
fn mappings_are_found_at_their_edges_among_any_number() {
    for count in [1usize, 2, 127, 128, 129, 256, 1000, 4095, 4096] {
        let mut image = Image::new();
        let object = image.add_object_in_state(ObjectState::NoInformation);
        let mappings: Vec<_> = (0..count as u64)
            .map(|i| (0x10_0000 + i * 0x2000, 0x10_1000 + i * 0x2000, 0, MappingKind::Object(object)))
            .collect();
        image.set_mappings(&mappings);
        let at = |pc| image.walk(&Registers { pc, ..Registers::default() }).outcome;
        for &(begin, end, ..) in &mappings {
            assert_eq!(
                [at(begin - 1), at(begin), at(end - 1), at(end)],
                [outcome::UNKNOWN_MAPPING, outcome::NO_TABLE, outcome::NO_TABLE, outcome::UNKNOWN_MAPPING],
                "{count} mappings, {begin:#x}"
            );
        }
        assert_eq!(at(u64::MAX), outcome::UNKNOWN_MAPPING);
        assert_eq!(at(1 << 63), outcome::UNKNOWN_MAPPING);
    }
}

#[test]
fn what_is_not_known_is_said_with_its_reason() {
    let mut image = Image::new();
    let pending = image.add_object_in_state(ObjectState::Pending);
    let none = image.add_object_in_state(ObjectState::NoInformation);
    let free = image.add_object_in_state(ObjectState::Free);
    image.set_mappings(&[
        (0x1000, 0x2000, 0, MappingKind::Object(pending)),
        (0x2000, 0x3000, 0, MappingKind::Object(none)),
        (0x3000, 0x4000, 0, MappingKind::Object(free)),
        (0x4000, 0x5000, 0, MappingKind::Object(9999)),
    ]);
    let at = |image: &Image, pc| {
        let walk = image.walk(&Registers { pc, ..Registers::default() });
        assert_eq!((walk.frames.len(), walk.stopped_at), (1, pc));
        walk.outcome
    };
    assert_eq!(at(&image, 0x1fff), outcome::TABLE_PENDING);
    assert_eq!(at(&image, 0x2000), outcome::NO_TABLE);
    assert_eq!(at(&image, 0x3000), outcome::UNKNOWN_MAPPING);
    assert_eq!(at(&image, 0x4000), outcome::UNKNOWN_MAPPING);
    assert_eq!(at(&image, 0x9000), outcome::UNKNOWN_MAPPING);
    image.process_known = false;
    assert_eq!(at(&image, 0x9000), outcome::UNKNOWN_PROCESS);
}

#[test]
fn jit_code_is_walked_by_frame_pointers_into_compiled_code_and_back() {
    let mut image = Image::new();
    let object = image.add_rows(&[row(0x1000, by(register::RBP, 16)), row(0x8000, END)]);
    const JIT: u64 = 0x3000_0000;
    image.set_mappings(&[
        (JIT, JIT + 0x1000, 0, MappingKind::Jit),
        (BIAS + 0x1000, BIAS + 0x9000, BIAS, MappingKind::Object(object)),
    ]);
    image.add_words(STACK, &[STACK + 16, JIT + 0x51, STACK + 32, MAIN]);
    let mut start = registers(0, STACK - 8, STACK);
    start.pc = JIT + 0x10;
    let walk = image.walk(&start);
    assert_eq!(walk.frames, [JIT + 0x10, JIT + 0x50, frame(object, MAIN_FRAME)]);
    assert_eq!(walk.outcome, outcome::COMPLETE);

    // A chain that leaves known code, or ends in zeros.
    let mut lost = image.clone();
    lost.add_words(STACK + 0x1000, &[7, 0x4141_4141]);
    start.general[usize::from(register::RBP)] = STACK + 0x1000;
    let walk = lost.walk(&start);
    assert_eq!((walk.outcome, walk.frames.len()), (outcome::FRAME_POINTER_END, 1));
    start.general[usize::from(register::RBP)] = 0;
    assert_eq!(lost.walk(&start).outcome, outcome::FRAME_POINTER_END);
}

#[test]
fn a_leaf_of_generated_code_has_its_caller_before_and_after_it_has_a_frame() {
    const JIT: u64 = 0x3000_0000;
    const PC: u64 = JIT + 0x108;
    /// Eight bytes before the pc and eight from it on; where the return address is, words above the stack pointer.
    type Case = (&'static str, [u8; 8], [u8; 8], Option<u64>);
    let cases: [Case; 12] = [
        ("push rbp; mov rbp, rsp", [0xcc; 8], [0x55, 0x48, 0x89, 0xe5, 0x53, 0x50, 0, 0], Some(0)),
        ("as V8 writes it", [0xcc; 8], [0x55, 0x48, 0x8b, 0xec, 0x53, 0x50, 0, 0], Some(0)),
        ("endbr64 before it", [0xcc; 8], [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5], Some(0)),
        ("endbr64 elsewhere", [0xcc; 8], [0xf3, 0x0f, 0x1e, 0xfa, 0x89, 0xc3, 0x48, 0x89], None),
        (
            "mov rbp, rsp",
            [0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0x55],
            [0x48, 0x89, 0xe5, 0, 0, 0, 0, 0],
            Some(1),
        ),
        ("push of another", [0x55; 8], [0x53, 0x48, 0x89, 0xe5, 0, 0, 0, 0], None),
        ("pop rbp", [0; 8], [0x5d, 0xc3, 0, 0, 0, 0, 0, 0], None),
        ("ret", [0, 0, 0, 0, 0, 0, 0, 0x5d], [0xc3, 0, 0, 0, 0, 0, 0, 0], Some(0)),
        ("ret 16", [0, 0, 0, 0, 0, 0, 0, 0x5d], [0xc2, 16, 0, 0, 0, 0, 0, 0], Some(0)),
        ("a tail call", [0, 0, 0, 0, 0, 0, 0, 0x5d], [0xff, 0xe0, 0, 0, 0, 0, 0, 0], Some(0)),
        ("a jump behind pop r13", [0, 0, 0, 0, 0, 0, 0x41, 0x5d], [0xe9, 0, 0, 0, 0, 0, 0, 0], None),
        ("a jump in the middle", [0; 8], [0xe9, 0, 0, 0, 0, 0, 0, 0], None),
    ];
    for (what, before, from, above) in cases {
        let mut image = Image::new();
        let object = image.add_rows(&[row(0x1000, by(register::RBP, 16)), row(0x8000, END)]);
        image.set_mappings(&[
            (JIT, JIT + 0x1000, 0, MappingKind::Jit),
            (BIAS + 0x1000, BIAS + 0x9000, BIAS, MappingKind::Object(object)),
        ]);
        image.add_words(PC - 8, &[u64::from_le_bytes(before), u64::from_le_bytes(from)]);
        // The stack of a leaf, its caller's frame above it.
        image.add_words(STACK, &[STACK + 32, JIT + 0x21, STACK + 32, JIT + 0x41, STACK + 48, MAIN]);
        let slot = STACK + 24;
        let mut start = registers(0, slot - 8 * above.unwrap_or(0), STACK + 32);
        start.pc = PC;
        let walk = image.walk(&start);
        let expected = match above {
            Some(_) => vec![PC, JIT + 0x40, frame(object, MAIN_FRAME)],
            None => vec![PC, frame(object, MAIN_FRAME)],
        };
        assert_eq!(walk.frames, expected, "{what}");
        assert_eq!(walk.outcome, outcome::COMPLETE, "{what}");
    }
}

#[test]
fn pending_uretprobes_are_replaced_by_what_they_hide() {
    const TRAMPOLINE: u64 = 0x7fff_ffff_e000;
    let mut image = Image::new();
    let object = image.add_rows(&[row(0x1000, by(register::RSP, 16)), row(0x8000, END)]);
    // Nobody has to tell of `[uprobes]`: the kernel knows it.
    image.set_mappings(&[(BIAS + 0x1000, BIAS + 0x9000, BIAS, MappingKind::Object(object))]);
    image.uprobe_area = Some(TRAMPOLINE);
    image.add_words(STACK, &[0, TRAMPOLINE, 0, TRAMPOLINE]);
    // Newest first; one that a longjmp left behind; two on one function.
    image.set_return_instances(&[
        (STACK - 800, BIAS + 0x1666),
        (STACK + 8, BIAS + 0x1101),
        (STACK + 24, MAIN),
        (STACK + 24, MAIN),
    ]);
    let walk = image.walk(&registers(0x1000, STACK, 0));
    assert_eq!(walk.frames, [frame(1, 0x1000), frame(1, 0x1100), frame(1, MAIN_FRAME)]);
    assert_eq!(walk.outcome, outcome::COMPLETE);

    image.set_return_instances(&[(STACK + 8, BIAS + 0x1101)]);
    let walk = image.walk(&registers(0x1000, STACK, 0));
    assert_eq!((walk.outcome, walk.stopped_at), (outcome::UPROBE_RETURN, TRAMPOLINE));

    // The leaf executes the copy of a probed instruction, or has just returned into the trampoline.
    image.set_return_instances(&[(STACK + 8, BIAS + 0x1101), (STACK + 24, MAIN)]);
    image.single_step = Some((TRAMPOLINE + 0x80, BIAS + 0x1000));
    let mut start = registers(0, STACK, 0);
    start.pc = TRAMPOLINE + 0x80;
    assert_eq!(image.walk(&start).frames, [frame(1, 0x1000), frame(1, 0x1100), frame(1, MAIN_FRAME)]);
    image.single_step = None;
    start.pc = TRAMPOLINE;
    start.general[usize::from(register::RSP)] = STACK + 16;
    assert_eq!(image.walk(&start).frames, [frame(1, 0x1101), frame(1, MAIN_FRAME)]);
    start.pc = TRAMPOLINE + 13;
    start.general[usize::from(register::RSP)] = STACK + 16 - 24;
    image.in_syscall = true;
    assert_eq!(image.walk(&start).frames, [frame(1, 0x1100), frame(1, MAIN_FRAME)]);
}

#[test]
fn a_system_call_is_named_by_its_own_instruction_but_unwound_behind_it() {
    let mut image = image(&[row(0x1000, UnwindRule::NONE), row(0x1102, by(register::RSP, 8))]);
    image.add_words(STACK, &[MAIN]);
    image.in_syscall = true;
    let walk = image.walk(&registers(0x1102, STACK, 0));
    assert_eq!(walk.frames, [frame(1, 0x1101), frame(1, MAIN_FRAME)]);
}

#[test]
fn deep_stacks_are_cut_at_the_limit_and_say_so() {
    for (depth, expected) in
        [(MAX_FRAMES - 1, outcome::COMPLETE), (MAX_FRAMES, outcome::TRUNCATED), (4000, outcome::TRUNCATED)]
    {
        let mut image = image(&[row(0x1000, by(register::RSP, 8))]);
        let mut words = vec![BIAS + 0x1101; depth - 1];
        words.push(MAIN);
        image.add_words(STACK, &words);
        let walk = image.walk(&registers(0x1000, STACK, 0));
        assert_eq!(
            (walk.outcome, walk.frames.len()),
            (expected, (depth + 1).min(MAX_FRAMES)),
            "depth {depth}"
        );
        assert_eq!(walk.stopped_at != 0, expected == outcome::TRUNCATED);
    }
}

#[test]
fn stacks_that_do_not_rise_or_cannot_be_read_end_the_walk() {
    let mut looping = image(&[row(0x1000, by(register::RBP, 16))]);
    looping.add_words(STACK, &[STACK, BIAS + 0x1101]);
    let walk = looping.walk(&registers(0x1000, STACK - 8, STACK));
    assert_eq!((walk.outcome, walk.frames.len()), (outcome::STACK_NOT_RISING, 2));

    let unreadable = image(&[row(0x1000, by(register::RSP, 8))]);
    let walk = unreadable.walk(&registers(0x1000, STACK, 0));
    assert_eq!((walk.outcome, walk.frames.len()), (outcome::STACK_UNREADABLE, 1));

    let mut over_the_end = image(&[row(0x1000, by(register::RSP, 8))]);
    over_the_end.add_memory(STACK, vec![0; 7]);
    assert_eq!(over_the_end.walk(&registers(0x1000, STACK, 0)).outcome, outcome::STACK_UNREADABLE);
}

#[test]
fn a_return_address_of_zero_is_the_end() {
    let mut image = image(&[row(0x1000, by(register::RSP, 8))]);
    image.add_words(STACK, &[0]);
    let walk = image.walk(&registers(0x1000, STACK, 0));
    assert_eq!((walk.outcome, walk.frames.len(), walk.stopped_at), (outcome::COMPLETE, 1, 0));
}

#[test]
fn zeros_are_no_end_behind_generated_code_or_where_no_stack_pointer_could_be() {
    let mut crooked = image(&[row(0x1000, by(register::RSP, 8))]);
    crooked.add_memory(STACK, vec![0; 4096]);
    for (stack_pointer, expected) in [
        (STACK, outcome::COMPLETE),
        (STACK + 4, outcome::FRAME_POINTER_END),
        (STACK + 1, outcome::FRAME_POINTER_END),
    ] {
        let walk = crooked.walk(&registers(0x1000, stack_pointer, 0));
        assert_eq!((walk.outcome, walk.frames.len()), (expected, 1), "{stack_pointer:#x}");
    }

    const JIT: u64 = 0x4000_0000;
    let mut behind_jit = Image::new();
    let object = behind_jit.add_rows(&[row(0x1000, by(register::RSP, 8)), row(0x8000, END)]);
    behind_jit.set_mappings(&[
        (JIT, JIT + 0x1000, 0, MappingKind::Jit),
        (BIAS + 0x1000, BIAS + 0x9000, BIAS, MappingKind::Object(object)),
    ]);
    behind_jit.add_words(STACK, &page_of(&[STACK + 64, BIAS + 0x1101]));
    let mut start = registers(0, STACK - 16, STACK);
    start.pc = JIT + 0x10;
    let walk = behind_jit.walk(&start);
    assert_eq!((walk.outcome, walk.frames.len()), (outcome::FRAME_POINTER_END, 2));
}

#[test]
fn remembered_rules_are_those_of_the_object_and_address() {
    // Two objects with the same addresses and other rules, walked in turn by one walker.
    let mut image = Image::new();
    let short = image.add_rows(&[row(0x1000, by(register::RSP, 8)), row(0x8000, END)]);
    let long = image.add_rows(&[row(0x1000, by(register::RSP, 16)), row(0x8000, END)]);
    const OTHER: u64 = 0x6666_0000_0000;
    image.set_mappings(&[
        (BIAS + 0x1000, BIAS + 0x9000, BIAS, MappingKind::Object(short)),
        (OTHER + 0x1000, OTHER + 0x9000, OTHER, MappingKind::Object(long)),
    ]);
    image.add_words(STACK, &[OTHER + 0x1101, 0, BIAS + 0x1101, MAIN]);
    let mut walker = Walker::default();
    for _ in 0..3 {
        let walk = walker.walk(&image, &registers(0x1100, STACK, 0));
        assert_eq!(
            walk.frames,
            [frame(short, 0x1100), frame(long, 0x1100), frame(short, 0x1100), frame(short, MAIN_FRAME)]
        );
    }
}

#[test]
fn addresses_that_do_not_fit_what_is_remembered_are_not_taken_for_others() {
    const FAR: u64 = 1 << 32;
    const OTHER: u64 = 0x6666_0000_0000;
    let mut image = Image::new();
    let near = [row(0x1000, by(register::RSP, 8)), row(0x8000, END)];
    image.add_rows(&near);
    // Of 32 bits of the address too many, the one here would make the number of the next object of this one's.
    let far = image.add_rows(&[row(FAR + 0x1000, by(register::RSP, 16)), row(FAR + 0x8000, END)]);
    let near = image.add_rows(&near);
    assert_eq!((far, near), (2, 3));
    image.set_mappings(&[
        (BIAS + 0x1000, BIAS + 0x9000, BIAS, MappingKind::Object(near)),
        (OTHER + 0x1000, OTHER + 0x9000, OTHER - FAR, MappingKind::Object(far)),
    ]);
    image.add_words(STACK, &[OTHER + 0x1101, 0, BIAS + 0x1101, MAIN]);
    let mut walker = Walker::default();
    for _ in 0..3 {
        let walk = walker.walk(&image, &registers(0x1100, STACK, 0));
        assert_eq!(
            walk.frames,
            [frame(near, 0x1100), frame(far, FAR + 0x1100), frame(near, 0x1100), frame(near, MAIN_FRAME)]
        );
    }
}

fn any_rule() -> impl Strategy<Value = UnwindRule> {
    (any::<[u8; 4]>(), any::<i32>(), any::<i32>(), any::<i16>(), any::<i16>(), any::<bool>()).prop_map(
        |(bytes, cfa_offset, cfa_addend, fp_offset, rbx_offset, small)| UnwindRule {
            cfa: bytes[0] % 9,
            cfa_register: bytes[1],
            frame_pointer: bytes[2] % 5,
            return_address: bytes[3],
            cfa_offset: if small { cfa_offset % 256 } else { cfa_offset },
            cfa_addend: if small { cfa_addend % 256 } else { cfa_addend },
            fp_offset,
            rbx_offset,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever the rules, the stack and the registers are: the walk ends, within its frames and its
    /// reads, and says how. (Reads out of bounds would show under a sanitizer or crash.)
    #[test]
    fn nonsense_never_loops_or_leaves_its_bounds(
        rules in prop::collection::vec((0u64..0x40, any_rule()), 1..40),
        stack in prop::collection::vec(prop_oneof![
            any::<u64>(),
            (0u64..0x8000).prop_map(|offset| BIAS + 0x1000 + offset),
            (0u64..512).prop_map(|offset| STACK + offset * 8),
        ], 1..512),
        general in prop::array::uniform16(prop_oneof![any::<u64>(), (0u64..4096).prop_map(|offset| STACK + offset)]),
        pc in 0u64..0x8000,
        tracks_rbx in any::<bool>(),
    ) {
        let mut rules = rules;
        rules.sort_by_key(|(at, _)| *at);
        rules.dedup_by_key(|(at, _)| *at);
        let rows: Vec<Row> = rules.iter().map(|&(at, rule)| row(0x1000 + at * 0x200, rule)).collect();
        let mut image = Image::new();
        let object = image.add_object(&spanflame_unwind_native::pack(&rows), tracks_rbx);
        image.set_mappings(&[(BIAS + 0x1000, BIAS + 0x9000, BIAS, MappingKind::Object(object))]);
        image.add_words(STACK, &stack);
        let mut walker = Walker::default();
        let walk = walker.walk(&image, &Registers { general, pc: BIAS + 0x1000 + pc });
        prop_assert!(!walk.frames.is_empty() && walk.frames.len() <= MAX_FRAMES);
        prop_assert!(walk.user_reads as usize <= 8 * MAX_FRAMES);
        prop_assert!(walk.outcome != outcome::COMPLETE || walk.stopped_at == 0);
        // With every rule remembered the quick way is taken where there is one, to the same end.
        let again = walker.walk(&image, &Registers { general, pc: BIAS + 0x1000 + pc });
        prop_assert_eq!(again.frames, walk.frames);
        prop_assert_eq!((again.outcome, again.stopped_at), (walk.outcome, walk.stopped_at));
    }

    /// Pages full of anything: wrong answers, never wrong accesses.
    #[test]
    fn pages_of_garbage_are_survived(garbage in prop::collection::vec(any::<u8>(), 4096 * 4), pc in any::<u64>(), count in any::<u16>()) {
        let mut image = Image::new();
        image.add_pages(&garbage);
        let table = spanflame_symbols::unwind::UnwindTable {
            text_begin: ElfAddress(0),
            chunks: u32::from(count),
            directory_pages: 1,
            rule_pages: 1,
            leaf_pages: 2,
            rows: 0,
            oversized_chunks: 0,
            pages: garbage,
        };
        let object = image.add_object(&table, true);
        image.set_mappings(&[(0, 1 << 40, 0, MappingKind::Object(object))]);
        image.add_words(STACK, &[pc; 64]);
        let walk = image.walk(&registers(pc & 0xff_ffff, STACK, STACK));
        prop_assert!(walk.frames.len() <= MAX_FRAMES);
    }
}
