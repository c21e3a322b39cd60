//! V8's frames, in images made by hand: what is on the chain of frame pointers, and what the innermost code has made of
//! its frame.

use spanflame_symbols::ElfAddress;
use spanflame_symbols::process_memory::RecordedMemory;
use spanflame_symbols::unwind::Row;
use spanflame_symbols::unwind::layout::{UnwindRule, cfa};
use spanflame_symbols::v8;
use spanflame_unwind_native::{Image, MappingKind, Registers, Walk, frame, outcome, register};

const STACK: u64 = 0x7ffd_0000_0000;
const CODE: u64 = 0x7f00_0000_0000;
const HEAP: u64 = 0x3000_0000_0000;
const BIAS: u64 = 0x5555_0000_0000;
/// ELF addresses: C++, then builtins.
const MAIN: u64 = 0x8123;
const BUILTINS: u64 = 0x1_0000;
const TRAMPOLINE: u64 = 0x1_1000;
const HANDLERS: u64 = 0x1_8000;
const BUILTINS_END: u64 = 0x2_0000;
const VERSION: (u32, u32) = (12, 4);
const SCRIPT: u64 = 0xff00 << 48;
const INTERPRETED: u8 = 1;
const COMPILED: u8 = 2;
const RCX: usize = 2;
const RDI: usize = 5;

/// Functions by number: `JSFunction`s at HEAP + 0x1000 * (number + 1), their `SharedFunctionInfo`s 0x100 behind.
fn function(number: u64) -> u64 {
    HEAP + 0x1000 * (number + 1) + 1
}

fn shared(number: u64) -> u64 {
    function(number) - 1 + 0x100
}

const CONTEXT: u64 = HEAP + 0x41;
const BYTECODE: u64 = HEAP + 0x81;

fn smi(value: u32) -> u64 {
    u64::from(value) << 32
}

struct Process {
    stack: Vec<u64>,
    code: Vec<u8>,
    builtins: Vec<u8>,
    registers: Registers,
}

impl Process {
    fn new() -> Self {
        let mut process = Self {
            stack: vec![0; 512],
            code: vec![0x90; 4096],
            builtins: vec![0x90; (BUILTINS_END - BUILTINS) as usize],
            registers: Registers::default(),
        };
        // At the end, C++ called by way of a typed frame: JSEntry's.
        process.put(400, &[0, BIAS + MAIN]);
        process.put(399, &[2]);
        process
    }

    fn put(&mut self, index: usize, words: &[u64]) {
        self.stack[index..index + words.len()].copy_from_slice(words);
    }

    /// A function's frame at an index of the stack: the frame that its fp leads to, and its return address.
    fn function_frame(&mut self, at: usize, caller: usize, return_address: u64, number: u64) {
        self.put(at - 3, &[smi(1), function(number), CONTEXT, address(caller), return_address]);
    }

    /// A frame with bytecode.
    fn interpreted_frame(&mut self, at: usize, caller: usize, return_address: u64, number: u64, offset: u32) {
        self.function_frame(at, caller, return_address, number);
        self.put(at - 5, &[smi(offset), BYTECODE]);
    }

    fn registers(&mut self, pc: u64, sp: usize, fp: usize) {
        self.registers.pc = pc;
        self.registers.general[usize::from(register::RSP)] = address(sp);
        self.registers.general[usize::from(register::RBP)] = address(fp);
    }

    fn heap() -> RecordedMemory {
        let mut memory = RecordedMemory::default();
        let map_of_shared = HEAP + 0xc01;
        let mut words = vec![0u64; 0x8000 / 8];
        words[(0xc00 + 8) / 8] = u64::from(274u16) << 32;
        for number in 0..4 {
            let at = 0x1000 * (number + 1);
            words[at / 8 + 4] = HEAP + at as u64 + 0x101;
            words[(at + 0x100) / 8] = map_of_shared;
            // The last one is a builtin's.
            words[(at + 0x108) / 8] = if number == 3 { smi(77) } else { BYTECODE };
            words[(at + 0x130) / 8] = smi(number as u32);
            words[(at + 0x138) / 8] = 100 + number as u64;
        }
        memory.add(HEAP, words.iter().flat_map(|word| word.to_le_bytes()).collect());
        memory
    }

    fn walk(&self) -> Walk {
        let mut image = Image::new();
        let rule = |cfa| UnwindRule { cfa, ..UnwindRule::NONE };
        let row = |address, rule| Row { address: ElfAddress(address), rule };
        let object = image.add_rows(&[
            row(0x8000, rule(cfa::END)),
            row(BUILTINS, rule(cfa::RUNTIME)),
            row(BUILTINS_END, UnwindRule::NONE),
        ]);
        image.set_mappings(&[
            (BIAS + 0x8000, BIAS + BUILTINS_END, BIAS, MappingKind::Object(object)),
            (CODE, CODE + 0x1000, 0, MappingKind::Jit),
        ]);
        image.add_words(STACK, &self.stack);
        image.add_memory(CODE, self.code.clone());
        image.add_memory(BIAS + BUILTINS, self.builtins.clone());
        for (begin, contents) in Self::heap().regions() {
            image.add_memory(*begin, contents.clone());
        }
        let layout = v8::of_version(VERSION).expect("known").layout();
        let mut words: Vec<u64> =
            layout.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8"))).collect();
        words[4] = words[4] & 0xffff_ffff | 0x800 << 32;
        words[5..9].copy_from_slice(&[BUILTINS, BUILTINS_END, HANDLERS, TRAMPOLINE]);
        image.v8 = Some(words);
        image.walk(&self.registers)
    }
}

fn address(index: usize) -> u64 {
    STACK + 8 * index as u64
}

/// The walk's frames in words: `0 compiled`, `builtin 10000`, `main`.
fn told(walk: &Walk) -> Vec<String> {
    let of = |word: &u64| {
        if *word & (0xffff << 48) == SCRIPT {
            let script = &walk.scripts[(*word & !SCRIPT) as usize];
            let number = (0..4).find(|number| shared(*number) == script.object).expect("one of ours");
            assert_eq!(
                v8::identity_of(VERSION, script.object, &Process::heap()),
                Some(script.identity),
                "user space computes the same"
            );
            let place = match (script.kind, script.address) {
                (INTERPRETED, _) => format!("interpreted {}", script.position),
                (COMPILED, 0) => "somewhere".to_owned(),
                (COMPILED, address) => format!("compiled {:x}", address - CODE),
                (kind, _) => panic!("kind {kind}"),
            };
            return format!("{number} {place}");
        }
        if *word == frame(1, MAIN - 1) {
            return "main".to_owned();
        }
        match *word >> 48 {
            1 => format!("builtin {:x}", *word & 0xffff_ffff),
            _ => format!("code {:x}", *word - CODE),
        }
    };
    walk.frames.iter().map(of).collect()
}

fn assert_told(process: &Process, expected: &[&str]) {
    let walk = process.walk();
    assert_eq!(told(&walk), expected, "{walk:x?}");
    assert_eq!(walk.outcome, outcome::COMPLETE, "{walk:x?}");
    assert_eq!(walk.runtime, 2);
}

/// Compiled 0, called by interpreted 1, called by C++.
fn usual() -> Process {
    let mut process = Process::new();
    process.interpreted_frame(300, 400, BIAS + BUILTINS + 0x41, 1, 90);
    // The handler that calls has a frame of its own.
    process.put(249, &[36, address(300), BIAS + TRAMPOLINE + 0x101]);
    process.function_frame(200, 250, BIAS + HANDLERS + 0x51, 0);
    process.registers(CODE + 0x100, 180, 200);
    process
}

const BELOW: [&str; 3] = ["1 interpreted 90", "builtin 10040", "main"];

fn with_below(first: &[&'static str]) -> Vec<&'static str> {
    first.iter().chain(&BELOW).copied().collect()
}

#[test]
fn compiled_and_interpreted_functions_are_found_and_handlers_are_none() {
    assert_told(&usual(), &with_below(&["0 compiled 100"]));
}

#[test]
fn a_function_that_is_being_entered_stands_before_its_caller() {
    let push_and_enter = [0x55, 0x48, 0x89, 0xe5, 0x56, 0x57, 0x50];
    for (pc, pushed) in [(0, 0), (1, 1), (4, 1), (5, 2)] {
        let mut process = usual();
        process.code[0x400..0x407].copy_from_slice(&push_and_enter);
        // Called by 0, whose frame is at 200.
        process.put(180, &[CODE + 0x155]);
        process.put(179, &[address(200)]);
        process.put(178, &[CONTEXT]);
        process.put(177, &[function(3)]);
        process.registers(CODE + 0x400 + pc, 180 - pushed, if pc < 4 { 200 } else { 179 });
        process.registers.general[RDI] = function(2);
        let own =
            ["2 compiled 400", "2 compiled 401", "", "", "2 compiled 404", "2 compiled 405"][pc as usize];
        assert_told(&process, &with_below(&[own, "0 compiled 154"]));
    }
}

#[test]
fn checks_before_a_frame_belong_to_the_function_that_rcx_points_to() {
    // mov rbx, [rcx - 0x60]; test byte [rbx + 15], 1; jz; jmp; push rbp; mov rbp, rsp
    let optimised = [
        0x48, 0x8b, 0x59, 0xa0, 0xf6, 0x43, 0x0f, 0x01, 0x74, 0x05, 0xe9, 0, 0, 0, 0, 0x55, 0x48, 0x89, 0xe5,
    ];
    // xor ebx, ebx; mov r12, bytecode; call
    let baseline = [0x33, 0xdb, 0x49, 0xbc, 1, 2, 3, 4, 5, 6, 7, 8, 0xe8, 0, 0, 0, 0];
    for (code, places) in [(&optimised[..], [0, 4, 8]), (&baseline[..], [0, 2, 12])] {
        for place in places {
            let mut process = usual();
            process.code[0x400..0x400 + code.len()].copy_from_slice(code);
            process.put(180, &[CODE + 0x155]);
            process.registers(CODE + 0x400 + place, 180, 200);
            process.registers.general[RDI] = function(2);
            process.registers.general[RCX] = CODE + 0x400;
            let expected = format!("2 compiled {:x}", 0x400 + place);
            let walk = process.walk();
            assert_eq!(told(&walk)[..2], [expected, "0 compiled 154".to_owned()], "{walk:x?}");
        }
    }
}

#[test]
fn a_function_that_is_being_left_stands_before_its_caller_until_its_arguments_are_off_the_stack() {
    // cmp rcx, 2; jg; ret 16; pop r10; lea rsp, [rsp + rcx * 8]; push r10; ret
    let code = [
        0x49, 0x83, 0xf9, 0x02, 0x7f, 0x03, 0xc2, 0x10, 0x00, 0x41, 0x5a, 0x48, 0x8d, 0x24, 0xcc, 0x41, 0x52,
        0xc3,
    ];
    for (place, is_named) in [(0u64, true), (4, true), (6, true), (9, true), (11, true), (15, false)] {
        let mut process = usual();
        process.code[0x400..0x400 + code.len()].copy_from_slice(&code);
        // What was its frame lies below the return address.
        process.put(177, &[function(2), CONTEXT, address(200), CODE + 0x155]);
        let popped = usize::from(place >= 11);
        process.registers(CODE + 0x400 + place, 180 + popped, 200);
        process.registers.general[usize::from(register::R10)] = CODE + 0x155;
        let own = if is_named {
            format!("2 compiled {:x}", 0x400 + place)
        } else {
            format!("code {:x}", 0x400 + place)
        };
        let walk = process.walk();
        assert_eq!(told(&walk)[..2], [own, "0 compiled 154".to_owned()], "{place}: {walk:x?}");
        assert_eq!(walk.outcome, outcome::COMPLETE);
    }
}

#[test]
fn a_handler_without_a_frame_is_the_interpreter_at_work() {
    let mut process = Process::new();
    process.interpreted_frame(300, 400, BIAS + BUILTINS + 0x41, 1, 90);
    process.put(280, &[BIAS + TRAMPOLINE + 0x101]);
    process.registers(BIAS + HANDLERS + 0x77, 280, 300);
    assert_told(&process, &BELOW);
}

#[test]
fn a_builtin_without_a_frame_is_told_by_the_call_before_the_word_at_rsp() {
    // Called by 0 at +0x150: call rel32 to the builtin at +0x2000, in which we are.
    let target = (BIAS + BUILTINS + 0x2000).wrapping_sub(CODE + 0x155) as i64;
    // Generated code is near builtins; here the distance is made to fit by another call.
    assert!(i32::try_from(target).is_err(), "the image is too spread for a near call");
    let mut process = usual();
    process.put(180, &[BIAS + BUILTINS + 0x3005]);
    process.builtins[0x3000..0x3005].copy_from_slice(&[0xe8, 0xfb, 0xef, 0xff, 0xff]);
    process.registers(BIAS + BUILTINS + 0x2010, 180, 200);
    assert_told(&process, &with_below(&["builtin 12010", "builtin 13004"]));
    // The call of another builtin proves nothing: then the frame is the calling function's.
    process.builtins[0x3001] = 0;
    process.builtins[0x3002] = 0;
    assert_told(&process, &with_below(&["builtin 12010", "0 somewhere"]));
}

#[test]
fn builtins_that_are_functions_are_native_code() {
    let mut process = usual();
    process.function_frame(200, 250, BIAS + HANDLERS + 0x51, 3);
    process.registers(BIAS + BUILTINS + 0x2010, 180, 200);
    assert_told(&process, &with_below(&["builtin 12010"]));
}

#[test]
fn frames_that_are_no_function_s_are_passed_by_their_frame_pointers() {
    let mut process = usual();
    // Regular expressions: a typed frame in generated code.
    process.put(149, &[58, address(200), CODE + 0x155]);
    process.registers(CODE + 0x800, 130, 150);
    assert_told(&process, &with_below(&["code 800", "0 compiled 154"]));
    // A frame whose second slot is no function.
    process.put(148, &[HEAP + 1, HEAP + 0x41]);
    let walk = process.walk();
    assert_eq!(told(&walk), with_below(&["code 800", "0 compiled 154"]));
}

#[test]
fn frames_that_lead_down_or_nowhere_end_the_walk() {
    let mut process = usual();
    process.put(200, &[address(100)]);
    assert_eq!(process.walk().outcome, outcome::STACK_NOT_RISING);
    process.put(200, &[address(250), 0]);
    assert_eq!(process.walk().outcome, outcome::FRAME_POINTER_END);
    process.registers(CODE + 0x100, 180, 200);
    process.registers.general[usize::from(register::RBP)] = 0x1000;
    assert_ne!(process.walk().outcome, outcome::COMPLETE);
}

#[test]
fn hostile_words_on_the_stack_and_in_the_heap_end() {
    let mut state = 1u64;
    for _ in 0..2000 {
        let mut process = usual();
        for word in process.stack.iter_mut().skip(150) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match state >> 60 {
                0 => *word = HEAP + (state >> 40) % 0x8000,
                1 => *word = CODE + (state >> 40) % 0x1000,
                2 => *word = address((state >> 40) as usize % 512),
                3 => *word = BIAS + BUILTINS + (state >> 40) % 0x1_0000,
                4 => *word = state,
                _ => {}
            }
        }
        let walk = process.walk();
        assert!(walk.frames.len() <= 256 && walk.scripts.len() <= 512);
    }
}
