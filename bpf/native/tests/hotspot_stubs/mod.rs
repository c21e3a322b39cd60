//! Leaves in the adapters between interpreted and compiled code and in those of method handles, as JDK 17 writes them:
//! where the return address and the caller's stack pointer are after each of their instructions, and what is refused
//! since it cannot be told. And in the stubs that C1's code calls, of which some have no frame size.

use spanflame_unwind_native::{Walk, outcome, register};

use super::{
    BYTECODE, Blob, HEAP, INTERPRETER, MAIN, METHOD, METHOD_ENTRY, Machine, NAMES, NMETHOD, NONSENSE, STUB,
    address, assert_whole, described, interpreted_frame, kind, script_outcome,
};

const ADAPTERS: u64 = NAMES + 42;
const METHOD_HANDLES: u64 = ADAPTERS + 17;
const RAX: u8 = 0;
const R13: u8 = 13;

/// A return address in the interpreter.
const INTERPRETED: u64 = INTERPRETER + 0x900;

/// From the interpreter: pop rax; mov r11, rsp; sub rsp, 16; and rsp, -16; push rax; …; jmp r11.
const FROM_INTERPRETER: [u8; 20] = [
    0x58, 0x4c, 0x8b, 0xdc, 0x48, 0x83, 0xec, 0x10, 0x48, 0x83, 0xe4, 0xf0, 0x50, 0x49, 0x8b, 0x75, 0x00,
    0x41, 0xff, 0xe3,
];
/// To the interpreter: pop rax; mov r13, rsp; sub rsp, 32; mov [rsp], rax; mov [rsp + 8], rsi; jmp rcx.
const TO_INTERPRETER: [u8; 19] = [
    0x58, 0x4c, 0x8b, 0xec, 0x48, 0x83, 0xec, 0x20, 0x48, 0x89, 0x04, 0x24, 0x48, 0x89, 0x74, 0x24, 0x08,
    0xff, 0xe1,
];

/// invokeBasic: mov rdx, [rbx + 8]; movzx edx, word [rdx + 0x2c]; mov rcx, [rsp + 8 rdx]; mov ebx, [rcx + 20]; …
const INVOKE_BASIC: [u8; 15] =
    [0x48, 0x8b, 0x53, 0x08, 0x0f, 0xb7, 0x52, 0x2c, 0x48, 0x8b, 0x0c, 0xd4, 0x8b, 0x59, 0x14];
/// linkToStatic: pop rax; pop rbx; push rax; mov ebx, [rbx + 36]; …; test rbx, rbx; …; jmp [rbx + 80].
const LINK_TO: [u8; 20] = [
    0x58, 0x5b, 0x50, 0x8b, 0x5b, 0x24, 0x48, 0xc1, 0xe3, 0x03, 0x48, 0x8b, 0x5b, 0x10, 0x48, 0x85, 0xdb,
    0xff, 0x63, 0x50,
];

/// A machine with adapters, the pc at an offset in them.
fn in_adapter(code: &[u8], offset: u64) -> (Machine, Blob) {
    in_adapters_of(ADAPTERS, code, offset)
}

/// Likewise, with adapters of that name.
fn in_adapters_of(name: u64, code: &[u8], offset: u64) -> (Machine, Blob) {
    let mut machine = Machine::new();
    let adapter = machine.blob(HEAP + 0x8000, 0x1000, name, 0, -1, code);
    machine.registers.pc = adapter.code + offset;
    (machine, adapter)
}

/// The stack of a leaf in an adapter that the interpreter has called: the interpreter's frame, and "main" above it.
fn interpreted_caller(machine: &mut Machine) {
    machine.set(register::RBP, address(30));
    machine.set(R13, address(20));
    interpreted_frame(machine, 30, MAIN, NONSENSE, address(32), BYTECODE + 1);
}

fn assert_called_by_interpreter(walk: &Walk, adapter: Blob, offset: u64) {
    assert_whole(
        walk,
        &[(kind::STUB, adapter.code + offset, adapter.address), (kind::INTERPRETED, INTERPRETED - 1, METHOD)],
    );
}

/// A compiled caller with a frame of four words, which begin at `words` on the stack: found only if the stack pointer
/// that it is left with is exactly that. Its return address.
fn compiled_caller(machine: &mut Machine, words: usize) -> (Blob, u64) {
    // call rel32
    let caller = machine.blob(HEAP + 0xa000, 0x1000, NMETHOD, 4, 0, &[0xe8, 0, 0, 0, 0, 0x90]);
    machine.stack[words + 3] = MAIN;
    (caller, caller.code + 5)
}

fn assert_called_by_compiled(walk: &Walk, adapter: Blob, offset: u64, caller: Blob) {
    assert_whole(
        walk,
        &[
            (kind::STUB, adapter.code + offset, adapter.address),
            (kind::COMPILED, caller.code + 4, caller.address),
        ],
    );
}

fn assert_refused(walk: &Walk, what: &str) {
    assert_eq!(
        (walk.outcome, walk.script_outcome),
        (outcome::NO_RULE, script_outcome::UNSUPPORTED),
        "{what}: {walk:x?}"
    );
    assert_eq!(walk.scripts.len(), walk.frames.len(), "{what}: {walk:x?}");
}

#[test]
fn from_the_interpreter_the_address_is_on_top_in_rax_or_in_both() {
    // Offset; whether rax has it; word of the stack that has it; word of the stack pointer. r13 is that of 20.
    let cases = [
        ("called this moment", 0, false, Some(19), 19),
        ("popped", 1, true, None, 20),
        ("made room", 8, true, None, 18),
        ("pushed", 13, true, Some(17), 17),
        ("about to jump", 17, true, Some(17), 17),
    ];
    for (what, offset, in_rax, on_top, stack_pointer) in cases {
        let (mut machine, adapter) = in_adapter(&FROM_INTERPRETER, offset);
        interpreted_caller(&mut machine);
        machine.set(register::RSP, address(stack_pointer));
        if in_rax {
            machine.set(RAX, INTERPRETED);
        }
        machine.stack[on_top.unwrap_or(19)] = INTERPRETED;
        println!("{what}");
        assert_called_by_interpreter(&machine.walk(), adapter, offset);
    }
}

#[test]
fn to_the_interpreter_the_caller_has_the_stack_pointer_that_it_called_with() {
    // Offset; whether rax has the return address; words of the stack pointer and of what r13 has (none: nonsense).
    let cases = [
        ("called this moment", 0, false, 19, None),
        ("popped, about to note the stack pointer", 1, true, 20, None),
        ("popped, and r13 has an older one", 1, true, 20, Some(200)),
        ("noted", 4, true, 20, Some(20)),
        ("made room", 8, true, 16, Some(20)),
        ("stored", 12, true, 16, Some(20)),
        ("about to jump", 17, true, 16, Some(20)),
    ];
    for (what, offset, in_rax, stack_pointer, noted) in cases {
        let (mut machine, adapter) = in_adapter(&TO_INTERPRETER, offset);
        let (caller, return_address) = compiled_caller(&mut machine, 20);
        machine.set(register::RSP, address(stack_pointer));
        if in_rax {
            machine.set(RAX, return_address);
        }
        if let Some(word) = noted {
            machine.set(R13, address(word));
        }
        machine.stack[19] = return_address;
        if offset >= 12 {
            machine.stack[16] = return_address;
            // The slot that it came from has the last argument.
            machine.stack[19] = 7;
        }
        println!("{what}");
        assert_called_by_compiled(&machine.walk(), adapter, offset, caller);
    }
}

#[test]
fn before_r13_is_noted_an_older_stack_pointer_in_it_is_not_taken() {
    // An adapter that may ask for a better callee first: what r13 has is plausible, and not of this call.
    let (mut machine, _) = in_adapter(&TO_INTERPRETER, 0);
    let (_, return_address) = compiled_caller(&mut machine, 20);
    machine.set(register::RSP, address(19));
    machine.set(R13, address(200));
    machine.stack[19] = return_address;
    assert_refused(&machine.walk(), "an older one");
    // A stack pointer is a multiple of eight, and above the one that it is now.
    for nonsense in [address(200) + 4, address(18), NONSENSE] {
        machine.set(R13, nonsense);
        let walk = machine.walk();
        assert_eq!(walk.outcome, outcome::COMPLETE, "{nonsense:#x}");
    }
}

#[test]
fn an_adapter_that_asks_for_a_better_callee_has_noted_where_the_address_lies() {
    let (mut machine, adapter) = in_adapter(&TO_INTERPRETER, 4);
    let (caller, return_address) = compiled_caller(&mut machine, 20);
    machine.set(register::RSP, address(19));
    machine.set(R13, address(19));
    machine.stack[19] = return_address;
    assert_called_by_compiled(&machine.walk(), adapter, 4, caller);
}

#[test]
fn two_return_addresses_that_differ_are_refused() {
    let (mut machine, _) = in_adapter(&FROM_INTERPRETER, 8);
    interpreted_caller(&mut machine);
    machine.set(register::RSP, address(18));
    machine.set(RAX, INTERPRETED);
    machine.stack[19] = INTERPRETED;
    assert_eq!(machine.walk().outcome, outcome::COMPLETE);
    // Another of the interpreter's, then one behind a call of compiled code; r13 leading to either decides nothing.
    let (caller, return_address) = compiled_caller(&mut machine, 40);
    for other in [INTERPRETED + 1, return_address] {
        machine.stack[18] = other;
        assert_refused(&machine.walk(), "two");
        machine.stack[19] = other;
        assert_refused(&machine.walk(), "r13 leads to the one on top");
        machine.stack[19] = INTERPRETED;
    }
    // Code that is behind no call was called by nobody.
    machine.stack[18] = caller.code + 0x40;
    assert_eq!(machine.walk().outcome, outcome::COMPLETE);
}

#[test]
fn without_any_return_address_it_is_refused() {
    let (mut machine, adapter) = in_adapter(&FROM_INTERPRETER, 8);
    interpreted_caller(&mut machine);
    machine.set(register::RSP, address(18));
    machine.stack[18] = METHOD;
    let walk = machine.walk();
    assert_refused(&walk, "neither");
    assert_eq!(described(&walk), [(kind::STUB, adapter.code + 8, adapter.address)]);
}

#[test]
fn while_it_calls_the_virtual_machine_it_is_refused() {
    let (mut machine, adapter) = in_adapter(&TO_INTERPRETER, 4);
    // All that a leaf would need is there.
    let (_, return_address) = compiled_caller(&mut machine, 20);
    machine.set(register::RSP, address(9));
    machine.set(RAX, return_address);
    machine.set(R13, address(20));
    machine.stack[19] = return_address;
    let callee = machine.blob(HEAP + 0xc000, 0x1000, NMETHOD, 2, 0, &[0x90; 64]);
    machine.registers.pc = callee.code + 0x20;
    machine.stack[10] = adapter.code + 4;
    machine.stack[11] = return_address;
    let walk = machine.walk();
    assert_refused(&walk, "calls the VM");
    assert_eq!(walk.scripts.len(), 2);
    assert_eq!(walk.scripts[1].address, adapter.code + 3);
}

#[test]
fn method_handles_that_the_interpreter_calls_have_it_for_their_caller() {
    // Offset; whether rax has the return address; word of the stack that has it; word of the stack pointer. r13 is that
    // of 20, with the argument that linkTo* take; two popped, the stack pointer is above it.
    let basic = [("called", 0, false, Some(19), 19), ("later", 12, false, Some(19), 19)];
    // No `pop rax`, but the last bytes of `mov rbx, [rbx + 0x58]`, and of one with another number.
    let no_pop = [("after 58", 4, false, Some(19), 19), ("after 58 5b", 14, false, Some(19), 19)];
    let numbers = [
        0x48, 0x8b, 0x5b, 0x58, 0x48, 0x85, 0xdb, 0x48, 0x8b, 0x9b, 0x00, 0x00, 0x58, 0x5b, 0x48, 0x85, 0xdb,
    ];
    let link_to = [
        ("called", 0, false, Some(19), 19),
        ("popped", 1, true, None, 20),
        ("both popped", 2, true, None, 21),
        ("pushed", 3, true, Some(20), 20),
        ("about to jump", 17, false, Some(20), 20),
    ];
    for (code, cases) in [(&INVOKE_BASIC[..], &basic[..]), (&LINK_TO, &link_to), (&numbers, &no_pop)] {
        for &(what, offset, in_rax, on_top, stack_pointer) in cases {
            let (mut machine, adapter) = in_adapters_of(METHOD_HANDLES, code, offset);
            interpreted_caller(&mut machine);
            machine.set(register::RSP, address(stack_pointer));
            // rax is a register for anything, at other times.
            machine.set(RAX, if in_rax { INTERPRETED } else { INTERPRETED + 1 });
            match on_top {
                Some(word) => machine.stack[word] = INTERPRETED,
                None => machine.stack[stack_pointer] = METHOD,
            }
            println!("{what}");
            assert_called_by_interpreter(&machine.walk(), adapter, offset);
        }
    }
}

#[test]
fn method_handles_that_compiled_code_calls_leave_it_the_stack_pointer_in_r13() {
    for (offset, in_rax, stack_pointer) in [(0, false, 14), (1, true, 15), (2, true, 16), (3, true, 15)] {
        let (mut machine, adapter) = in_adapters_of(METHOD_HANDLES, &LINK_TO, offset);
        let (caller, return_address) = compiled_caller(&mut machine, 20);
        machine.set(register::RSP, address(stack_pointer));
        machine.set(R13, address(20));
        if in_rax {
            machine.set(RAX, return_address);
        }
        if offset == 0 || offset == 3 {
            machine.stack[stack_pointer] = return_address;
        }
        assert_called_by_compiled(&machine.walk(), adapter, offset, caller);
    }
}

#[test]
fn method_handles_whose_caller_cannot_be_told_are_refused() {
    let new = || {
        let (mut machine, adapter) = in_adapters_of(METHOD_HANDLES, &INVOKE_BASIC, 12);
        interpreted_caller(&mut machine);
        machine.set(register::RSP, address(19));
        machine.stack[19] = INTERPRETED;
        (machine, adapter)
    };
    assert_eq!(new().0.walk().outcome, outcome::COMPLETE);

    let (mut machine, _) = new();
    machine.stack[19] = METHOD;
    assert_refused(&machine.walk(), "no return address");
    for sender in [NONSENSE, address(20) + 4, address(17), address(20) + (4 << 20)] {
        let (mut machine, _) = new();
        machine.set(R13, sender);
        assert_refused(&machine.walk(), "no stack pointer");
        (_, machine.stack[19]) = compiled_caller(&mut machine, 20);
        assert_refused(&machine.walk(), "no stack pointer of compiled code");
    }
    // A barrier has pushed a register in which an older return address was.
    let (mut machine, _) = new();
    machine.set(register::RSP, address(18));
    machine.stack[18] = INTERPRETED + 1;
    assert_refused(&machine.walk(), "something pushed");
    // It calls the virtual machine.
    let (mut machine, adapter) = new();
    let callee = machine.blob(HEAP + 0xc000, 0x1000, NMETHOD, 2, 0, &[0x90; 64]);
    machine.registers.pc = callee.code + 0x20;
    machine.set(register::RSP, address(17));
    machine.stack[18] = adapter.code + 12;
    assert_refused(&machine.walk(), "calls the VM");
}

#[test]
fn method_that_a_method_handle_enters_has_an_argument_less_than_r13_says() {
    // As in a_method_that_is_being_entered_is_in_rbx, in between the pop and the push.
    for offset in [0x11, 0x20] {
        let mut machine = Machine::new();
        machine.registers.pc = METHOD_ENTRY + offset;
        machine.set(register::RBX, METHOD);
        interpreted_caller(&mut machine);
        machine.set(register::RSP, address(21));
        machine.set(RAX, INTERPRETED);
        assert_whole(
            &machine.walk(),
            &[
                (kind::INTERPRETED, METHOD_ENTRY + offset, METHOD),
                (kind::INTERPRETED, INTERPRETED - 1, METHOD),
            ],
        );
        machine.set(register::RSP, address(22));
        assert_eq!(machine.walk().script_outcome, script_outcome::INCONSISTENT);
    }
}

/// What stands for the frame size of stubs that have none.
const NO_FRAME_SIZE: u32 = u32::MAX;

/// A machine in a stub without a frame size that compiled code calls, with a frame of four words from 20 on. Behind the
/// call stands `behind`. The stub, the caller, the return address.
fn in_stub_without_frame_size(code: &[u8], offset: u64, behind: &[u8]) -> (Machine, Blob, Blob, u64) {
    let mut machine = Machine::new();
    let stub = machine.blob(HEAP + 0x8000, 0x1000, STUB, NO_FRAME_SIZE, -1, code);
    let (caller, return_address) = compiled_caller(&mut machine, 20);
    machine.put(caller.code + 1, &(stub.code.wrapping_sub(return_address) as u32).to_le_bytes());
    machine.put(return_address, behind);
    machine.registers.pc = stub.code + offset;
    (machine, stub, caller, return_address)
}

#[test]
fn stub_without_a_frame_size_that_makes_a_frame_is_left_by_it() {
    /// As G1's barriers: push rbp; mov rbp, rsp; push rax; push rdx; …; leave; ret.
    const BARRIER: [u8; 10] = [0x55, 0x48, 0x8b, 0xec, 0x50, 0x52, 0x90, 0x90, 0xc9, 0xc3];
    // Offset; word of the stack pointer; whether there is a frame: the return address is in 19, rbp in 18.
    let cases = [(0, 19, false), (1, 18, false), (4, 18, true), (5, 17, true), (6, 16, true), (9, 19, false)];
    for (offset, stack_pointer, has_frame) in cases {
        let (mut machine, stub, caller, return_address) =
            in_stub_without_frame_size(&BARRIER, offset, &[0x90]);
        machine.set(register::RSP, address(stack_pointer));
        machine.stack[19] = return_address;
        machine.stack[18] = NONSENSE;
        if has_frame {
            machine.set(register::RBP, address(18));
        }
        println!("{offset}");
        assert_called_by_compiled(&machine.walk(), stub, offset, caller);
    }
}

#[test]
fn stub_without_a_frame_is_left_by_the_call_that_leads_to_it_if_nothing_was_pushed_for_that() {
    /// As checks of types: push rdi; push rsi; push rcx; push rax; …; ret.
    const CHECK: [u8; 10] = [0x57, 0x56, 0x51, 0x50, 0x90, 0x90, 0x90, 0x90, 0x90, 0xc3];
    let is_found = |offset, stack_pointer, behind: &[u8]| {
        let (mut machine, stub, caller, return_address) = in_stub_without_frame_size(&CHECK, offset, behind);
        machine.set(register::RSP, address(stack_pointer));
        machine.stack[19] = return_address;
        let walk = machine.walk();
        if walk.outcome == outcome::COMPLETE {
            assert_called_by_compiled(&walk, stub, offset, caller);
            return true;
        }
        assert_refused(&walk, "pops");
        false
    };
    for (offset, stack_pointer) in [(4, 15), (9, 19)] {
        for behind in [[0x90, 0x90], [0x85, 0xc0], [0x41, 0x8b]] {
            assert!(is_found(offset, stack_pointer, &behind), "{offset} {behind:x?}");
        }
        // pop rsi; pop r9.
        for behind in [[0x5e, 0x58], [0x41, 0x59]] {
            assert!(!is_found(offset, stack_pointer, &behind), "{offset} {behind:x?}");
        }
    }
}
