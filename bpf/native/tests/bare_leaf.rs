//! Leaves in assembly that no rule covers: whose caller is found, and what is not taken for a caller.

use spanflame_symbols::ElfAddress;
use spanflame_symbols::unwind::Row;
use spanflame_symbols::unwind::layout::{UnwindRule, cfa};
use spanflame_unwind_native::{Image, MappingKind, Registers, Walk, Walker, frame, outcome, register};

const STACK: u64 = 0x7ffd_0000_0000;
const BIAS: u64 = 0x5555_0000_0000;
/// Code of the object, of which rules cover 0x1000 … 0x3000 (frames of 16 bytes), 0x6000 … 0x7000 (rbp is the frame
/// pointer) and 0x8000 … 0x9000 ("main"). Nothing covers 0x3000 … 0x6000, and its table ends with "main".
const CODE: u64 = 0x1000;
const CODE_BYTES: u64 = 0xa000;
const LEAF: u64 = 0x4100;
/// The call's return address in a function with a frame of 16 bytes.
const CALLER: u64 = 0x2005;
/// A return address into "main", which ends the walk.
const MAIN: u64 = BIAS + 0x8123;
/// Other memory, which a `call` in it can reach the object from.
const DATA: u64 = BIAS + 0x100_0000;

struct Machine {
    code: Vec<u8>,
    stack: Vec<u64>,
    pc: u64,
    rbp: u64,
    data: Vec<u8>,
    data_is_code: Option<MappingKind>,
    /// Of the code only what lies from here on is mapped, and what lies before the gap.
    mapped_from: u64,
}

impl Machine {
    /// A leaf that was called from a frame of 16 bytes, and has not moved the stack pointer.
    fn new() -> Self {
        let mut machine = Self {
            code: vec![0x90; CODE_BYTES as usize],
            stack: vec![BIAS + CALLER, 0x1111, MAIN, 0],
            pc: BIAS + LEAF + 9,
            rbp: 0,
            data: vec![0x90; 0x1000],
            data_is_code: None,
            mapped_from: 0x3000,
        };
        machine.put_call(CALLER, LEAF);
        machine
    }

    /// `call target`, in front of its return address.
    fn put_call(&mut self, return_address: u64, target: u64) {
        let at = (return_address - CODE) as usize;
        self.code[at - 5..at].copy_from_slice(&call(return_address, target));
    }

    fn walk(&self) -> Walk {
        let mut image = Image::new();
        let by = |cfa_register| UnwindRule {
            cfa: cfa::REGISTER,
            cfa_register,
            cfa_offset: 16,
            ..UnwindRule::NONE
        };
        let end = UnwindRule { cfa: cfa::END, ..UnwindRule::NONE };
        let rows = [
            (0x1000, by(register::RSP)),
            (0x3000, UnwindRule::NONE),
            (0x6000, by(register::RBP)),
            (0x7000, UnwindRule::NONE),
            (0x8000, end),
        ];
        let object = image.add_rows(&rows.map(|(address, rule)| Row { address: ElfAddress(address), rule }));
        let mut mappings = vec![
            (BIAS + CODE, BIAS + 0x3000, BIAS, MappingKind::Object(object)),
            (BIAS + self.mapped_from, BIAS + CODE + CODE_BYTES, BIAS, MappingKind::Object(object)),
        ];
        if let Some(kind) = self.data_is_code {
            mappings.push((DATA, DATA + 0x1000, DATA, kind));
        }
        image.set_mappings(&mappings);
        image.add_memory(BIAS + CODE, self.code.clone());
        image.add_memory(DATA, self.data.clone());
        image.add_words(STACK, &self.stack);
        let mut registers = Registers { pc: self.pc, ..Registers::default() };
        registers.general[usize::from(register::RSP)] = STACK;
        registers.general[usize::from(register::RBP)] = self.rbp;
        let mut walker = Walker::default();
        let walk = walker.walk(&image, &registers);
        assert_eq!(walker.walk(&image, &registers), walk, "with its rules remembered");
        walk
    }
}

fn call(return_address: u64, target: u64) -> [u8; 5] {
    let [a, b, c, d] = (target.wrapping_sub(return_address) as u32).to_le_bytes();
    [0xe8, a, b, c, d]
}

#[track_caller]
fn assert_found(machine: &Machine, frames: &[u64]) {
    let walk = machine.walk();
    assert_eq!(walk.frames, frames, "{walk:x?}");
    assert_eq!((walk.outcome, walk.stopped_at), (outcome::COMPLETE, 0), "{walk:x?}");
}

/// As it was before anything was looked for: the leaf alone, and that nothing is known of it.
#[track_caller]
fn assert_alone(machine: &Machine) {
    let walk = machine.walk();
    assert_eq!(walk.frames, [frame(1, machine.pc - BIAS)], "{walk:x?}");
    assert_eq!((walk.outcome, walk.stopped_at), (outcome::NO_RULE, machine.pc), "{walk:x?}");
}

#[test]
fn leaf_without_a_frame_has_its_caller() {
    let mut machine = Machine::new();
    for offset in [0, 1, 9, 4096] {
        machine.pc = BIAS + LEAF + offset;
        assert_found(&machine, &[frame(1, LEAF + offset), frame(1, CALLER - 1), frame(1, 0x8122)]);
    }
    // Behind the end of the table.
    machine.pc = BIAS + 0xa109;
    machine.put_call(CALLER, 0xa100);
    assert_found(&machine, &[frame(1, 0xa109), frame(1, CALLER - 1), frame(1, 0x8122)]);
    // Its caller stands behind it.
    machine.pc = BIAS + LEAF + 9;
    machine.stack = vec![MAIN];
    machine.put_call(MAIN - BIAS, LEAF);
    assert_found(&machine, &[frame(1, LEAF + 9), frame(1, 0x8122)]);
}

#[test]
fn rbp_is_still_the_callers() {
    let mut machine = Machine::new();
    machine.put_call(0x6055, LEAF);
    machine.stack = vec![BIAS + 0x6055, 0, 0, 0, MAIN];
    machine.rbp = STACK + 24;
    assert_found(&machine, &[frame(1, LEAF + 9), frame(1, 0x6054), frame(1, 0x8122)]);
}

#[test]
fn leaf_that_has_pushed_something_is_left_alone() {
    let mut machine = Machine::new();
    for pushed in [0, 0x1111, STACK + 8, BIAS + LEAF + 9, BIAS + 0x2105, u64::MAX, DATA + 0x100] {
        machine.stack.insert(0, pushed);
        assert_alone(&machine);
        machine.stack.remove(0);
    }
    machine.stack.clear();
    assert_alone(&machine);
}

#[test]
fn call_that_leads_elsewhere_is_none_of_this_leaf() {
    for target in [LEAF + 10, LEAF + 9 - 4097, 0, BIAS, CODE - 1] {
        let mut machine = Machine::new();
        machine.put_call(CALLER, target);
        assert_alone(&machine);
    }
    // To what is no part of the leaf's mapping.
    let mut machine = Machine::new();
    machine.put_call(CALLER, LEAF - 0x20);
    assert_eq!(machine.walk().outcome, outcome::COMPLETE);
    machine.mapped_from = LEAF - 0x10;
    assert_alone(&machine);
    // What is at the place of the call is another instruction.
    let mut machine = Machine::new();
    machine.code[(CALLER - 5 - CODE) as usize] = 0xe9;
    assert_alone(&machine);
}

#[test]
fn call_of_a_function_that_rules_cover_is_none_of_this_leaf() {
    // In reach of the pc, and its function's rules end before.
    let mut machine = Machine::new();
    machine.pc = BIAS + 0x3010;
    machine.put_call(CALLER, 0x2ff0);
    assert_alone(&machine);
    machine.put_call(CALLER, 0x3000);
    assert_found(&machine, &[frame(1, 0x3010), frame(1, CALLER - 1), frame(1, 0x8122)]);
}

#[test]
fn call_between_its_target_and_the_pc_is_no_leafs() {
    // A function of the gap that calls itself or what stands before it, and `call` in place of reading the pc.
    for (return_address, target) in [(LEAF + 7, LEAF), (LEAF + 9, LEAF), (LEAF + 9, LEAF + 9)] {
        let mut machine = Machine::new();
        machine.stack.insert(0, BIAS + return_address);
        machine.put_call(return_address, target);
        assert_alone(&machine);
    }
}

#[test]
fn code_of_the_caller_must_be_in_an_executable_mapping() {
    let mut machine = Machine::new();
    let return_address = DATA + 0x105;
    machine.data[0x100..0x105].copy_from_slice(&call(return_address, BIAS + LEAF));
    machine.stack = vec![return_address, 0, 0, MAIN];
    machine.rbp = STACK + 16;
    // Of mappings that are not executable nothing is known.
    assert_alone(&machine);
    machine.data_is_code = Some(MappingKind::Uprobes);
    assert_alone(&machine);
    machine.data_is_code = Some(MappingKind::Jit);
    assert_found(&machine, &[frame(1, LEAF + 9), return_address - 1, frame(1, 0x8122)]);
}

#[test]
fn return_address_into_a_gap_is_no_leaf() {
    // The leaf's caller is in the gap, too: it is shown, and the walk ends there.
    let mut machine = Machine::new();
    machine.stack = vec![BIAS + 0x5005, BIAS + CALLER, 0, MAIN];
    machine.put_call(0x5005, LEAF);
    let walk = machine.walk();
    assert_eq!(walk.frames, [frame(1, LEAF + 9), frame(1, 0x5004)], "{walk:x?}");
    assert_eq!((walk.outcome, walk.stopped_at), (outcome::NO_RULE, BIAS + 0x5005), "{walk:x?}");
}
