//! Any rules, mappings, registers and stacks, walked by the BPF unwinder compiled for this machine
//! (with its own checks of memory: what it reads outside of the tables aborts).
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use spanflame_symbols::ElfAddress;
use spanflame_symbols::unwind::{Row, UnwindRule, UnwindTable};
use spanflame_unwind_native::{Image, MAX_FRAMES, MappingKind, ObjectState, Registers, outcome};

const TEXT: u64 = 0x40_0000;
const STACK: u64 = 0x7fff_0000;
/// Outcomes that this walk cannot have: it is always known what is where, and in user space.
const OUTCOMES: u32 = 15;

#[derive(Debug, Arbitrary)]
struct Rule {
    distance: u8,
    cfa: u8,
    cfa_register: u8,
    frame_pointer: u8,
    return_address: u8,
    cfa_offset: i16,
    cfa_addend: i8,
    fp_offset: i16,
    rbx_offset: i16,
}

#[derive(Debug, Arbitrary)]
struct Mapping {
    pages_from_text: u8,
    pages: u8,
    bias_pages: i8,
    kind: u8,
}

#[derive(Debug, Arbitrary)]
struct Input {
    rules: Vec<Rule>,
    mappings: Vec<Mapping>,
    registers: [u16; 16],
    pc: u16,
    /// Words of the stack: text addresses, stack addresses or anything, by their lowest bits.
    stack: Vec<u64>,
    raw_page: Option<Vec<u8>>,
    return_instances: Vec<(u16, u16)>,
    in_syscall: bool,
    process_known: bool,
    tracks_rbx: bool,
}

fn somewhere(word: u64) -> u64 {
    match word & 3 {
        0 => TEXT + (word >> 2) % 0x8000,
        1 => STACK + (word >> 2) % 0x4000,
        2 => STACK + ((word >> 2) % 0x800) * 8,
        _ => word,
    }
}

fn run(input: &Input) {
    let mut address = TEXT;
    let mut rows = vec![];
    for rule in input.rules.iter().take(900) {
        rows.push(Row {
            address: ElfAddress(address),
            rule: UnwindRule {
                // Mostly what the contract has, and what it has not.
                cfa: rule.cfa % 9,
                cfa_register: rule.cfa_register % 17,
                frame_pointer: rule.frame_pointer % 5,
                return_address: rule.return_address,
                cfa_offset: i32::from(rule.cfa_offset),
                cfa_addend: i32::from(rule.cfa_addend),
                fp_offset: rule.fp_offset,
                rbx_offset: rule.rbx_offset,
            },
        });
        address += u64::from(rule.distance) + 1;
    }
    let mut image = Image::new();
    let mut object = image.add_object_in_state(ObjectState::NoInformation);
    if let Ok(table) = UnwindTable::from_rows(&rows)
        && !table.pages.is_empty()
    {
        object = image.add_object(&table, input.tracks_rbx);
    }
    // A table that nobody packed: what stands in it may lead anywhere.
    let hostile = input.raw_page.as_ref().map(|page| {
        let mut page = page.clone();
        page.resize(3 * 4096, 0xa5);
        image.add_object(
            &UnwindTable {
                text_begin: ElfAddress(TEXT),
                chunks: 64,
                directory_pages: 1,
                rule_pages: 1,
                leaf_pages: 1,
                rows: 0,
                oversized_chunks: 0,
                pages: page,
            },
            true,
        )
    });
    let mut mappings = vec![];
    let mut begin = TEXT;
    for mapping in input.mappings.iter().take(64) {
        begin += u64::from(mapping.pages_from_text % 4) * 4096;
        let end = begin + (u64::from(mapping.pages % 16) + 1) * 4096;
        let kind = match mapping.kind % 6 {
            0 => MappingKind::Jit,
            1 => MappingKind::Uprobes,
            2 => MappingKind::Object(hostile.unwrap_or(object)),
            _ => MappingKind::Object(object),
        };
        mappings.push((begin, end, (i64::from(mapping.bias_pages) * 4096).cast_unsigned(), kind));
        begin = end;
    }
    image.set_mappings(&mappings);
    let words: Vec<u64> = input.stack.iter().take(2048).map(|word| somewhere(*word)).collect();
    image.add_words(STACK, &words);
    let instances: Vec<(u64, u64)> = input
        .return_instances
        .iter()
        .take(80)
        .map(|(stack, address)| (STACK + u64::from(*stack), TEXT + u64::from(*address)))
        .collect();
    image.set_return_instances(&instances);
    image.in_syscall = input.in_syscall;
    image.process_known = input.process_known;
    let mut registers = Registers { pc: TEXT + u64::from(input.pc), ..Registers::default() };
    for (register, value) in registers.general.iter_mut().zip(input.registers) {
        *register = somewhere(u64::from(value));
    }
    let walk = image.walk(&registers);
    assert!(walk.frames.len() <= MAX_FRAMES);
    assert!(walk.outcome < OUTCOMES);
    assert_eq!(walk.outcome == outcome::COMPLETE, walk.stopped_at == 0 && walk.outcome == outcome::COMPLETE);
    // Four reads a frame at most, each tried as a stretch and as a word, and a few for frames that are
    // none (pending uretprobes).
    assert!(walk.user_reads <= 8 * (MAX_FRAMES as u32 + 64), "{} reads", walk.user_reads);
    assert_eq!(image.walk(&registers), walk, "a walk depends on nothing but what it is given");
}

fuzz_target!(|bytes: &[u8]| {
    let mut unstructured = Unstructured::new(bytes);
    if let Ok(input) = Input::arbitrary(&mut unstructured) {
        run(&input);
    }
});
