//! Walks through frames of HotSpot, laid out by hand as JDK 17 has them, and through memory that is no such thing.

use proptest::prelude::*;
use spanflame_symbols::ElfAddress;
use spanflame_symbols::unwind::Row;
use spanflame_symbols::unwind::layout::{UnwindRule, cfa};
use spanflame_unwind_native::{
    Image, MappingKind, RawScriptFrame, Registers, Walk, Walker, frame, outcome, register,
};

mod hotspot_stubs;

const STACK: u64 = 0x7ffd_0000_0000;
const STACK_WORDS: usize = 512;
const HEAP: u64 = 0x7f00_0000_0000;
const HEAP_BYTES: u64 = 0x40000;
const SEGMENT_MAP: u64 = 0x7f10_0000_0000;
const LOG2_SEGMENT: u64 = 7;
const INTERPRETER: u64 = HEAP + 0x1000;
const INTERPRETER_END: u64 = INTERPRETER + 0x2000;
const METHOD_ENTRY: u64 = INTERPRETER + 0x400;
const NAMES: u64 = 0x7f20_0000_0000;
const METHODS: u64 = 0x7f30_0000_0000;
const BIAS: u64 = 0x5555_0000_0000;
/// A return address into "main", which ends the walk.
const MAIN: u64 = BIAS + 0x8123;
/// What stands in registers that mean nothing.
const NONSENSE: u64 = 0xdead_beef;

mod kind {
    pub const INTERPRETED: u8 = 1;
    pub const COMPILED: u8 = 2;
    pub const NATIVE_WRAPPER: u8 = 3;
    pub const STUB: u8 = 4;
}

mod script_outcome {
    pub const COMPLETE: u32 = 1;
    pub const UNREADABLE: u32 = 3;
    pub const INCONSISTENT: u32 = 4;
    pub const UNSUPPORTED: u32 = 6;
}

/// `struct sf_hotspot` with the offsets of JDK 17.
fn layout() -> Vec<u64> {
    let mut words = vec![
        17 | 1 << 32,
        HEAP,
        HEAP + HEAP_BYTES,
        INTERPRETER,
        INTERPRETER_END,
        METHOD_ENTRY,
        METHOD_ENTRY + 0x200,
        0,
        !0xffff,
    ];
    words.extend([HEAP, HEAP + HEAP_BYTES, SEGMENT_MAP, LOG2_SEGMENT]);
    words.extend([0; 12]);
    // pop rax at +0x10, push rax at +0x20, push rbp at +0x21, mov rbp, rsp at +0x22.
    words.extend([METHOD_ENTRY, METHOD_ENTRY + 0x100, METHOD_ENTRY + 0x10, METHOD_ENTRY + 0x20]);
    words.extend([0; 12]);
    let offsets: [u16; 28] = [
        16, 8, 96, 12, 20, 28, 32, 0, 104, 352, 112, 304, 192, 300, 128, 136, 8, 8, 32, 34, 36, 38, 48, 24,
        24, 0, 0, 0,
    ];
    words.extend(
        offsets
            .chunks_exact(4)
            .map(|four| four.iter().rev().fold(0, |word, half| word << 16 | u64::from(*half))),
    );
    words
}

/// A process with a code heap.
struct Machine {
    heap: Vec<u8>,
    segment_map: Vec<u8>,
    stack: Vec<u64>,
    registers: Registers,
}

/// A blob that was put into the heap.
#[derive(Clone, Copy)]
struct Blob {
    address: u64,
    code: u64,
}

impl Machine {
    fn new() -> Self {
        let mut registers = Registers { general: [NONSENSE; 16], pc: 0 };
        registers.general[usize::from(register::RSP)] = STACK;
        Self {
            heap: vec![0; HEAP_BYTES as usize],
            segment_map: vec![0xff; (HEAP_BYTES >> LOG2_SEGMENT) as usize],
            stack: vec![0; STACK_WORDS],
            registers,
        }
    }

    fn put(&mut self, address: u64, bytes: &[u8]) {
        let at = (address - HEAP) as usize;
        self.heap[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A block of `bytes` at `block`, of a name, frame size in words and with code.
    fn blob(
        &mut self,
        block: u64,
        bytes: u64,
        name: u64,
        frame_words: u32,
        complete: i32,
        code: &[u8],
    ) -> Blob {
        let blob = Blob { address: block + 16, code: block + 0x200 };
        self.put(block + 8, &[1]);
        self.put(blob.address + 96, &name.to_le_bytes());
        self.put(blob.address + 12, &(bytes as u32).to_le_bytes());
        self.put(blob.address + 20, &complete.to_le_bytes());
        self.put(blob.address + 28, &frame_words.to_le_bytes());
        self.put(blob.address + 32, &blob.code.to_le_bytes());
        self.put(blob.address + 112, &(METHODS + 0x100).to_le_bytes());
        self.put(blob.address + 304, &77u32.to_le_bytes());
        self.put(blob.code, code);
        // As CodeHeap::mark_segmap_as_used writes it.
        let first = ((block - HEAP) >> LOG2_SEGMENT) as usize;
        let mut number = 0;
        for segment in 0..(bytes >> LOG2_SEGMENT) as usize {
            self.segment_map[first + segment] = number;
            number = if number == 0xfe { 1 } else { number + 1 };
        }
        blob
    }

    fn walk(&self) -> Walk {
        let mut image = Image::new();
        let end = UnwindRule { cfa: cfa::END, ..UnwindRule::NONE };
        let object = image.add_rows(&[Row { address: ElfAddress(0x8000), rule: end }]);
        image.set_mappings(&[
            (BIAS + 0x8000, BIAS + 0x9000, BIAS, MappingKind::Object(object)),
            (HEAP, HEAP + HEAP_BYTES, 0, MappingKind::Jit),
        ]);
        image.add_memory(HEAP, self.heap.clone());
        image.add_memory(SEGMENT_MAP, self.segment_map.clone());
        image.add_words(STACK, &self.stack);
        image.add_memory(NAMES, NAMES_THERE.to_vec());
        image.add_words(METHODS, &methods());
        image.hotspot = Some(layout());
        Walker::default().walk(&image, &self.registers)
    }

    fn set(&mut self, number: u8, value: u64) {
        self.registers.general[usize::from(number)] = value;
    }
}

const NAMES_THERE: &[u8] =
    b"nmethod\0native nmethod\0call_stub and more\0I2C/C2I adapters\0MethodHandles adapters\0";
const NMETHOD: u64 = NAMES;
const NATIVE_NMETHOD: u64 = NAMES + 8;
const STUB: u64 = NAMES + 23;

/// At +0: `ConstMethod`; at +0x80 `ConstantPool`; at +0x100 `Method`; at +0x180 `InstanceKlass`; at +0x1c0 `Symbol`.
fn methods() -> Vec<u64> {
    let mut words = vec![0; 64];
    words[1] = METHODS + 0x80;
    words[4] = 100 | 7 << 16 | 8 << 32 | 9 << 48; // code size, name, signature, number
    words[0x80 / 8 + 3] = METHODS + 0x180;
    words[0x100 / 8 + 1] = METHODS;
    words[0x180 / 8 + 3] = METHODS + 0x1c0;
    words[0x1c0 / 8] = 0x1234_0005_0042_0001;
    words
}
const METHOD: u64 = METHODS + 0x100;
const BYTECODE: u64 = METHODS + 48;

fn address(index: usize) -> u64 {
    STACK + 8 * index as u64
}

fn described(walk: &Walk) -> Vec<(u8, u64, u64)> {
    walk.scripts.iter().map(|script| (script.kind, script.address, script.object)).collect()
}

fn assert_whole(walk: &Walk, scripts: &[(u8, u64, u64)]) {
    assert_eq!(described(walk), scripts, "{walk:x?}");
    assert_eq!(
        (walk.outcome, walk.script_outcome),
        (outcome::COMPLETE, script_outcome::COMPLETE),
        "{walk:x?}"
    );
    assert_eq!(walk.frames.last(), Some(&frame(1, 0x8122)));
    assert_eq!(walk.frames.len(), scripts.len() + 1);
}

/// mov [rsp - 0x14000], eax; push rbp; sub rsp, 0x20; then a barrier; …; add rsp, 0x20; pop rbp;
/// cmp rsp, [r15 + 0x328]; ja; ret.
const CODE: [u8; 57] = [
    0x89, 0x84, 0x24, 0x00, 0xc0, 0xfe, 0xff, 0x55, 0x48, 0x81, 0xec, 0x20, 0x00, 0x00, 0x00, 0x41, 0x81,
    0x7f, 0x20, 0x01, 0x00, 0x00, 0x00, 0x0f, 0x85, 0x00, 0x00, 0x00, 0x00, 0x90, 0x90, 0x90, 0x90, 0x90,
    0x90, 0x48, 0x83, 0xc4, 0x20, 0x5d, 0x49, 0x3b, 0xa7, 0x28, 0x03, 0x00, 0x00, 0x0f, 0x87, 0x00, 0x00,
    0x00, 0x00, 0xc3, 0xcc, 0xcc, 0xcc,
];
const CODE_FRAME_WORDS: u32 = 6;
const CODE_COMPLETE: i32 = 29;

/// A leaf in CODE at an offset, whose frame lies at the words from `words_of_frame` on to the return address.
fn leaf_in_code(offset: u64, words_of_frame: usize, rbp_is_saved: bool) -> Walk {
    let mut machine = Machine::new();
    let leaf = machine.blob(HEAP + 0x8000, 0x1000, NMETHOD, CODE_FRAME_WORDS, CODE_COMPLETE, &CODE);
    // Its caller is the call stub, which needs the right rbp.
    let stub = machine.blob(HEAP + 0xa000, 0x1000, STUB, 0, 0, &[0; 64]);
    let call_stub = address(40);
    machine.registers.pc = leaf.code + offset;
    machine.set(register::RBP, if rbp_is_saved { NONSENSE } else { call_stub });
    if rbp_is_saved {
        machine.stack[words_of_frame - 1] = call_stub;
    }
    machine.stack[words_of_frame] = stub.code + 0x11;
    machine.stack[40] = 0;
    machine.stack[41] = MAIN;
    let walk = machine.walk();
    assert_whole(
        &walk,
        &[(kind::COMPILED, leaf.code + offset, leaf.address), (kind::STUB, stub.code + 0x10, stub.address)],
    );
    assert_eq!(walk.scripts[0].other, METHOD);
    assert_eq!(walk.scripts[0].position, 77);
    walk
}

#[test]
fn compiled_leaf_at_every_edge_of_its_frame() {
    for offset in [0, 7] {
        leaf_in_code(offset, 0, false);
    }
    leaf_in_code(8, 1, true);
    for offset in [15, 23, 29, 30, 35] {
        leaf_in_code(offset, 5, true);
    }
    leaf_in_code(39, 1, true);
    for offset in [40, 47, 53] {
        leaf_in_code(offset, 0, false);
    }
}

#[test]
fn compiled_caller_whose_return_address_is_the_deoptimisation_handler() {
    let mut machine = Machine::new();
    let blob = machine.blob(HEAP + 0x8000, 0x1000, NATIVE_NMETHOD, 6, 0, &[0x90; 64]);
    let caller = machine.blob(HEAP + 0xa000, 0x1000, NMETHOD, 8, 0, &[0x90; 256]);
    machine.put(caller.address + 128, &(caller.code + 0x80).to_le_bytes());
    machine.put(caller.address + 300, &16u32.to_le_bytes());
    machine.registers.pc = blob.code + 0x20;
    machine.stack[5] = caller.code + 0x80;
    machine.stack[6 + 2] = caller.code + 0x33;
    machine.stack[6 + 7] = MAIN;
    assert_whole(
        &machine.walk(),
        &[
            (kind::NATIVE_WRAPPER, blob.code + 0x20, blob.address),
            (kind::COMPILED, caller.code + 0x32, caller.address),
        ],
    );
    // What is no address of the method's code is not believed.
    machine.stack[6 + 2] = NONSENSE;
    assert_eq!(machine.walk().scripts[1].address, caller.code + 0x7f);
}

#[test]
fn a_large_blob_is_found_over_several_hops() {
    let mut machine = Machine::new();
    let blob = machine.blob(HEAP + 0x8000, 0x30000, NMETHOD, 2, 0, &[0x90; 64]);
    for offset in [0, 254 * 128 - 1, 254 * 128, 255 * 128, 600 * 128, 0x2fc00] {
        machine.registers.pc = blob.code + offset;
        machine.stack[1] = MAIN;
        assert_whole(&machine.walk(), &[(kind::COMPILED, blob.code + offset, blob.address)]);
    }
}

/// An interpreter's frame with rbp at `at`; returns to `caller`.
fn interpreted_frame(machine: &mut Machine, at: usize, caller: u64, caller_rbp: u64, sender: u64, bcp: u64) {
    machine.stack[at + 1] = caller;
    machine.stack[at] = caller_rbp;
    machine.stack[at - 1] = sender;
    machine.stack[at - 3] = METHOD;
    machine.stack[at - 8] = bcp;
}

#[test]
fn interpreted_frames_and_a_compiled_one_below_whose_stack_was_extended() {
    let mut machine = Machine::new();
    let caller = machine.blob(HEAP + 0x8000, 0x1000, NMETHOD, 4, 0, &[0x90; 64]);
    machine.registers.pc = INTERPRETER + 0x1000;
    machine.set(register::RBP, address(12));
    machine.set(13, BYTECODE + 5);
    interpreted_frame(&mut machine, 12, INTERPRETER + 0x900, address(30), address(16), 0);
    // Arguments were moved: the compiled caller's frame begins three words further up.
    interpreted_frame(&mut machine, 30, caller.code + 0x21, NONSENSE, address(35), BYTECODE + 99);
    machine.stack[38] = MAIN;
    let walk = machine.walk();
    assert_whole(
        &walk,
        &[
            (kind::INTERPRETED, INTERPRETER + 0x1000, METHOD),
            (kind::INTERPRETED, INTERPRETER + 0x8ff, METHOD),
            (kind::COMPILED, caller.code + 0x20, caller.address),
        ],
    );
    assert_eq!([walk.scripts[0].position, walk.scripts[1].position], [5, 99]);
    assert_eq!(walk.scripts[0].identity, walk.scripts[1].identity);
    assert_ne!(walk.scripts[0].identity, 0);
}

#[test]
fn a_method_that_is_being_entered_is_in_rbx() {
    // Offset in the entry; word of the return address (none: rax); of the saved rbp.
    let cases = [(0, Some(0)), (0x10, Some(0)), (0x11, None), (0x20, None), (0x21, Some(0)), (0x22, Some(1))];
    for (offset, return_address) in cases {
        let mut machine = Machine::new();
        machine.registers.pc = METHOD_ENTRY + offset;
        machine.set(register::RBX, METHOD);
        machine.set(register::RBP, address(30));
        machine.set(13, address(4));
        match return_address {
            Some(word) => machine.stack[word] = INTERPRETER + 0x900,
            None => machine.set(0, INTERPRETER + 0x900),
        }
        if offset == 0x22 {
            machine.stack[0] = address(30);
        }
        interpreted_frame(&mut machine, 30, MAIN, NONSENSE, address(32), BYTECODE + 1);
        assert_whole(
            &machine.walk(),
            &[
                (kind::INTERPRETED, METHOD_ENTRY + offset, METHOD),
                (kind::INTERPRETED, INTERPRETER + 0x8ff, METHOD),
            ],
        );
    }
    // Of the other entries nothing is known.
    let mut machine = Machine::new();
    machine.registers.pc = METHOD_ENTRY + 0x150;
    machine.set(register::RBP, address(30));
    assert_eq!(machine.walk().script_outcome, script_outcome::UNSUPPORTED);
}

#[test]
fn what_cannot_be_is_not_walked() {
    let mut machine = Machine::new();
    let blob = machine.blob(HEAP + 0x8000, 0x1000, NMETHOD, 6, 0, &[0x90; 64]);
    machine.registers.pc = blob.code + 0x20;
    machine.stack[5] = MAIN;
    assert_eq!(machine.walk().outcome, outcome::COMPLETE);

    machine.put(HEAP + 0x8008, &[0]);
    assert_eq!(machine.walk().script_outcome, script_outcome::INCONSISTENT, "a free block");
    machine.put(HEAP + 0x8008, &[1]);
    let first = ((blob.code - HEAP) >> LOG2_SEGMENT) as usize;
    machine.segment_map[first] = 0xff;
    assert_eq!(machine.walk().script_outcome, script_outcome::INCONSISTENT, "a free segment");
    machine.segment_map.truncate(first);
    assert_eq!(machine.walk().script_outcome, script_outcome::UNREADABLE, "no segment map");
    assert_eq!(machine.walk().scripts, Vec::<RawScriptFrame>::new());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn hostile_memory_ends_the_walk_and_nothing_else(
        heap in prop::collection::vec(any::<u8>(), 1024),
        map in prop::collection::vec(any::<u8>(), 64),
        stack in prop::collection::vec(0u64..(HEAP_BYTES + 256), 64),
        pc in 0..HEAP_BYTES,
        rbp in 0usize..STACK_WORDS,
    ) {
        let mut machine = Machine::new();
        for (index, byte) in machine.heap.iter_mut().enumerate() {
            *byte = heap[index % heap.len()];
        }
        for (index, byte) in machine.segment_map.iter_mut().enumerate() {
            *byte = map[index % map.len()];
        }
        for (index, word) in machine.stack.iter_mut().enumerate() {
            let value = stack[index % stack.len()];
            *word = if value & 1 == 0 { HEAP + value } else { address(value as usize % STACK_WORDS) };
        }
        machine.registers.pc = HEAP + pc;
        machine.set(register::RBP, address(rbp));
        let walk = machine.walk();
        prop_assert!(walk.frames.len() <= 256 && walk.scripts.len() <= 512);
        prop_assert!(walk.user_reads < 256 * 24);
    }
}
