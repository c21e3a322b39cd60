//! Names out of memory that is laid out by hand, and out of memory that holds anything.

use std::cell::Cell;

use proptest::prelude::*;

use super::fuzzing::{layout_17, machine};
use super::identity::{MethodIdentity, of_nmethod, of_stub};
use super::kind;
use crate::process_memory::{ProcessMemory, RecordedMemory, Unreadable};
use crate::script::{Refusal, Runtime, ScriptFrame, ScriptFunction, ScriptRuntime};

const METHOD: u64 = 0x10_000;
const OTHER_METHOD: u64 = 0x10_100;
const CONST_METHODS: u64 = 0x11_000;
const CONSTANTS: u64 = 0x12_000;
const CLASS: u64 = 0x13_000;
const METHODS: u64 = 0x14_000;
const SYMBOLS: u64 = 0x15_000;
const BLOB: u64 = 0x20_000;

fn symbol(text: &str) -> Vec<u8> {
    let mut bytes = vec![1, 0, 0x34, 0x12];
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.resize(64, 0);
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// `com.example.Shop.order` twice, with lines 10 (from 0) and 12 (from 5); `second_name` is the second one's.
fn memory(class_name: &str, second_name: u16) -> RecordedMemory {
    let mut memory = RecordedMemory::default();
    let mut symbols = Vec::new();
    for text in [class_name, "order", "(ILjava/lang/String;)V", "Shop.java", "other"] {
        symbols.extend(symbol(text));
    }
    memory.add(SYMBOLS, symbols);
    let mut constants = vec![0; 128];
    put(&mut constants, 24, &CLASS.to_le_bytes());
    put(&mut constants, 54, &3u16.to_le_bytes());
    put(&mut constants, 60, &5u32.to_le_bytes());
    for index in 1..5u64 {
        put(&mut constants, 72 + 8 * index as usize, &(SYMBOLS + 64 * index).to_le_bytes());
    }
    memory.add(CONSTANTS, constants);
    let mut class = vec![0; 512];
    put(&mut class, 24, &SYMBOLS.to_le_bytes());
    put(&mut class, 408, &METHODS.to_le_bytes());
    memory.add(CLASS, class);
    let mut methods = 2u64.to_le_bytes().to_vec();
    for (index, (method, name)) in [(METHOD, 1), (OTHER_METHOD, second_name)].into_iter().enumerate() {
        let const_method = CONST_METHODS + 0x100 * index as u64;
        methods.extend(method.to_le_bytes());
        let mut bytes = vec![0; 16];
        put(&mut bytes, 8, &const_method.to_le_bytes());
        memory.add(method, bytes);
        let mut bytes = vec![0; 112];
        put(&mut bytes, 8, &CONSTANTS.to_le_bytes());
        put(&mut bytes, 24, &14u32.to_le_bytes());
        put(&mut bytes, 28, &[1]);
        for (at, value) in [(32, 30u16), (34, name), (36, 2), (38, index as u16)] {
            put(&mut bytes, at, &value.to_le_bytes());
        }
        put(&mut bytes, 78, &[0xff, 0, 20, 5 << 3 | 2, 0]);
        memory.add(const_method, bytes);
    }
    memory.add(METHODS, methods);
    memory
}

fn interpreted(identity: u32, position: u32) -> ScriptFrame {
    ScriptFrame {
        runtime: Runtime::Hotspot,
        kind: kind::INTERPRETED,
        is_entry: false,
        is_leaf: false,
        address: 0x7f00,
        object: METHOD,
        other: 0,
        position,
        identity,
    }
}

fn identity(memory: &RecordedMemory) -> u32 {
    MethodIdentity::read(&layout_17(), METHOD, memory).expect("it is a method").identity
}

fn order(name: &str, line: u32, is_approximate: bool) -> ScriptFunction {
    ScriptFunction {
        name: name.to_owned(),
        file: "Shop.java".to_owned(),
        start_line: 10,
        line,
        is_approximate,
    }
}

#[test]
fn an_interpreted_method_with_its_line() {
    let memory = memory("com/example/Shop", 4);
    let identity = identity(&memory);
    let machine = machine(false);
    for (position, line) in [(0, 10), (4, 10), (5, 12), (u32::MAX, 0)] {
        let named = machine.name(&interpreted(identity, position), &memory);
        assert_eq!(named, Ok(vec![order("com.example.Shop.order", line, false)]));
    }
    assert_eq!(machine.name(&interpreted(identity ^ 1, 0), &memory), Err(Refusal::ObjectMoved));
    assert_eq!(machine.name(&interpreted(0, 0), &memory), Err(Refusal::Unreadable), "not read at the sample");
}

#[test]
fn the_signature_is_shown_where_the_name_alone_is_not_enough() {
    let memory = memory("com/example/Shop", 1);
    let named = machine(false).name(&interpreted(identity(&memory), 0), &memory);
    assert_eq!(named, Ok(vec![order("com.example.Shop.order(int, String)", 10, false)]));
}

/// Memory that counts how often it is read.
struct Counted<'a>(&'a RecordedMemory, Cell<u32>);

impl ProcessMemory for Counted<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        self.1.set(self.1.get() + 1);
        self.0.read(address, into)
    }
}

#[test]
fn what_is_known_of_a_method_is_told_of_that_one_and_of_no_other_that_came_to_lie_there() {
    let shop = memory("com/example/Shop", 4);
    let frame = |position| interpreted(identity(&shop), position);
    let machine = machine(false);
    let counted = Counted(&shop, Cell::new(0));
    assert_eq!(machine.name(&frame(0), &counted), Ok(vec![order("com.example.Shop.order", 10, false)]));
    let first = counted.1.replace(0);
    assert_eq!(machine.name(&frame(5), &counted), Ok(vec![order("com.example.Shop.order", 12, false)]));
    assert!(counted.1.get() * 2 < first, "{} reads, {first} the first time", counted.1.get());
    // Its identity is the same, but for the hash of its class's name; this one's is, by chance.
    let show = memory("com/example/Show", 4);
    assert_eq!(machine.name(&frame(5), &show), Ok(vec![order("com.example.Show.order", 12, false)]));
    // The same class, compiled of a file in which it stands elsewhere.
    let mut moved = RecordedMemory::default();
    for (begin, contents) in shop.regions() {
        let mut contents = contents.clone();
        if *begin == CONST_METHODS {
            put(&mut contents, 80, &[30]);
        }
        moved.add(*begin, contents);
    }
    let named = machine.name(&frame(0), &moved).expect("it is a method");
    assert_ne!(named, vec![order("com.example.Shop.order", 10, false)], "that was the other one's line");
    assert!(named[0].name == "com.example.Shop.order" && machine.name(&frame(0), &shop).is_ok());
}

#[test]
fn a_method_of_any_size_is_named_and_a_large_one_is_not_remembered() {
    let small = memory("com/example/Shop", 4);
    let words = 2048_u32;
    let mut large = RecordedMemory::default();
    for (begin, contents) in small.regions() {
        let mut contents = contents.clone();
        if *begin == CONST_METHODS {
            contents.resize(8 * words as usize, 0);
            put(&mut contents, 24, &words.to_le_bytes());
        }
        // The other method's lies in what this one takes.
        if *begin != CONST_METHODS + 0x100 {
            large.add(*begin, contents);
        }
    }
    let machine = machine(false);
    let counted = Counted(&large, Cell::new(0));
    let frame = interpreted(identity(&large), 0);
    let named = machine.name(&frame, &counted).expect("it is a method");
    let first = counted.1.replace(0);
    assert_eq!((machine.name(&frame, &counted), counted.1.get()), (Ok(named), first), "read anew");
}

#[test]
fn a_class_of_the_same_shape_at_the_same_place_has_another_identity() {
    let one = memory("com/example/Shop", 4);
    let mut two = memory("com/example/Show", 4);
    assert_eq!(identity(&one), identity(&two), "but for the hash of the class's name, nothing differs");
    let mut symbols = two.regions().iter().find(|(begin, _)| *begin == SYMBOLS).expect("there").1.clone();
    symbols[2] = 0x35;
    let mut renamed = RecordedMemory::default();
    renamed.add(SYMBOLS, symbols);
    for (begin, contents) in two.regions() {
        renamed.add(*begin, contents.clone());
    }
    two = renamed;
    assert_ne!(identity(&one), identity(&two));
    // The counter of references is no part of it.
    let mut counted = RecordedMemory::default();
    let mut symbols = one.regions().iter().find(|(begin, _)| *begin == SYMBOLS).expect("there").1.clone();
    symbols[0] = 77;
    counted.add(SYMBOLS, symbols);
    for (begin, contents) in one.regions() {
        counted.add(*begin, contents.clone());
    }
    assert_eq!(identity(&one), identity(&counted));
}

/// A compiled `order` in which itself was inlined: records at 16 (exact, two scopes) and 32 (one).
fn with_compiled(sender_of_inlined: u8) -> RecordedMemory {
    let mut memory = memory("com/example/Shop", 4);
    let mut blob = vec![0; 1024];
    put(&mut blob, 32, &(BLOB + 0x100).to_le_bytes());
    put(&mut blob, 112, &METHOD.to_le_bytes());
    put(&mut blob, 304, &77u32.to_le_bytes());
    put(&mut blob, 192, &u32::MAX.to_le_bytes());
    put(&mut blob, 120, &(BLOB + 0x308).to_le_bytes());
    for (at, value) in [(260, 0x300u32), (268, 0x320), (272, 0x360)] {
        put(&mut blob, at, &value.to_le_bytes());
    }
    put(&mut blob, 0x300, &METHOD.to_le_bytes());
    // Scope at 1: of none, method 1, bytecode index 5. At 4: inlined in it, method 1, index 0.
    put(&mut blob, 0x308, &[0, 0, 1, 6, sender_of_inlined, 1, 1]);
    for (index, (offset, scope)) in [(-1, 0), (16, 4), (32, 1), (i32::MAX, 0)].into_iter().enumerate() {
        put(&mut blob, 0x320 + 16 * index, &offset.to_le_bytes());
        put(&mut blob, 0x320 + 16 * index + 4, &i32::to_le_bytes(scope));
    }
    memory.add(BLOB, blob);
    memory
}

fn compiled(offset: u64, is_leaf: bool) -> ScriptFrame {
    ScriptFrame {
        kind: kind::COMPILED,
        is_leaf,
        address: BLOB + 0x100 + offset,
        object: BLOB,
        other: METHOD,
        position: 77,
        identity: of_nmethod(METHOD, 77, u32::MAX),
        ..interpreted(0, 0)
    }
}

#[test]
fn a_compiled_method_with_what_was_inlined_in_it() {
    let memory = with_compiled(1);
    let machine = machine(false);
    let name = "com.example.Shop.order";
    let both = |is_approximate| Ok(vec![order(name, 10, is_approximate), order(name, 12, is_approximate)]);
    assert_eq!(machine.name(&compiled(15, false), &memory), both(false), "a return address's record");
    assert_eq!(machine.name(&compiled(15, true), &memory), both(true), "of a leaf there is none");
    assert_eq!(machine.name(&compiled(3, false), &memory), both(true));
    assert_eq!(machine.name(&compiled(16, true), &memory), Ok(vec![order(name, 12, true)]));
    assert_eq!(
        machine.name(&compiled(40, true), &memory),
        Ok(vec![order(name, 0, true)]),
        "behind all records"
    );
    let another = ScriptFrame { position: 78, ..compiled(15, false) };
    assert_eq!(machine.name(&another, &memory), Err(Refusal::ObjectMoved));
}

#[test]
fn scopes_in_a_circle_are_refused() {
    for sender in [4, 5, 200] {
        let named = machine(false).name(&compiled(15, false), &with_compiled(sender));
        assert_eq!(named, Err(Refusal::Malformed), "inlined in {sender}");
    }
}

#[test]
fn a_stub_has_its_blobs_name() {
    let mut memory = RecordedMemory::default();
    let mut blob = vec![0; 104];
    put(&mut blob, 96, &0x9000u64.to_le_bytes());
    put(&mut blob, 12, &640u32.to_le_bytes());
    memory.add(BLOB, blob);
    memory.add(0x9000, [b"StubRoutines (2)\0".as_slice(), &[0; 64]].concat());
    let stub = ScriptFrame {
        kind: kind::STUB,
        object: BLOB,
        other: 0x9000,
        identity: of_stub(0x9000, 640),
        ..interpreted(0, 0)
    };
    let names = |frame: &ScriptFrame| {
        machine(false)
            .name(frame, &memory)
            .map(|named| named.into_iter().map(|function| function.name).collect())
    };
    assert_eq!(names(&stub), Ok(vec!["StubRoutines (2)".to_owned()]));
    let call_stub = ScriptFrame { address: layout_17().call_stub_return - 1, ..stub };
    assert_eq!(names(&call_stub), Ok(vec!["call_stub".to_owned()]));
    assert_eq!(names(&ScriptFrame { identity: 5, ..stub }), Err(Refusal::ObjectMoved));
}

/// Memory that is the same bytes over and over, from 0 on.
struct Repeated(Vec<u8>);

impl crate::process_memory::ProcessMemory for Repeated {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), crate::process_memory::Unreadable> {
        if address > 1 << 40 {
            return Err(crate::process_memory::Unreadable { address, bytes: into.len() });
        }
        for (index, byte) in into.iter_mut().enumerate() {
            *byte = self.0[(address as usize + index) % self.0.len()];
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn hostile_memory_gives_refusals_or_names_but_no_panic(
        bytes in prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 1..900),
        kind in 0u8..7,
        object in (0u64..1 << 20).prop_map(|object| object & !7),
        address in 0u64..1 << 21,
        is_leaf: bool,
        is_25: bool,
    ) {
        let memory = Repeated(bytes);
        let word = |at: u64| crate::process_memory::ProcessMemory::u64_at(&memory, at).unwrap_or(0);
        let half = |at: u64| crate::process_memory::ProcessMemory::u32_at(&memory, at).unwrap_or(0);
        let offsets = if is_25 { [80, 212, 156] } else { [112, 304, 192] };
        let method = word(object + offsets[0]);
        let compile_id = half(object + offsets[1]);
        let frame = ScriptFrame {
            kind,
            is_leaf,
            object,
            other: method,
            position: compile_id,
            identity: of_nmethod(method, compile_id, half(object + offsets[2])),
            address,
            ..interpreted(0, 0)
        };
        let _ = machine(is_25).name(&frame, &memory);
        if let Ok(identity) = MethodIdentity::read(&layout_17(), object, &memory) {
            let _ = machine(is_25).name(&ScriptFrame { kind: kind::INTERPRETED, identity: identity.identity, ..frame }, &memory);
        }
    }
}
