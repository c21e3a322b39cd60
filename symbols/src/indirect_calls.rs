//! Where a function calls others whose address it takes from memory: what a loop over callbacks does for each of them.
//!
//! Instructions are those of x86-64 (Intel SDM, volume 2: `CALL`, FF /2). A function that ends by jumping to such an
//! address does so in place of a call. Other machines are not decoded, nor is code that goes by way of thunks (retpolines).

use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind};

use crate::object_file::Machine;
use crate::{FileOffset, NamedFunction, ObjectFile};

/// Largest function that is looked at.
const MAX_FUNCTION_BYTES: u64 = 64 << 10;

/// Where those calls are, in order. Empty if there are none, or if it cannot be known.
#[must_use]
pub fn indirect_calls(object: &ObjectFile, function: &NamedFunction) -> Vec<FileOffset> {
    if object.machine() != Machine::X86_64 || !(1..=MAX_FUNCTION_BYTES).contains(&function.bytes) {
        return Vec::new();
    }
    let Ok(code) = object.read_file(function.at, function.bytes) else { return Vec::new() };
    let calls = calls_in(&code).unwrap_or_default();
    calls.into_iter().filter_map(|call| function.at.checked_add(call)).collect()
}

/// `None` if this is no code.
fn calls_in(code: &[u8]) -> Option<Vec<u64>> {
    let mut calls = Vec::new();
    for instruction in Decoder::new(64, code, DecoderOptions::NONE) {
        if instruction.is_invalid() {
            return None;
        }
        let goes_elsewhere = matches!(instruction.mnemonic(), Mnemonic::Call | Mnemonic::Jmp);
        if goes_elsewhere && matches!(instruction.op0_kind(), OpKind::Memory | OpKind::Register) {
            calls.push(instruction.ip());
        }
    }
    Some(calls)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::Command;

    use super::*;
    use crate::find_functions;

    #[test]
    fn calls_by_way_of_memory_and_registers_are_found_and_no_others() {
        // call [rbx-0x18]; call +0; call rax; mov eax, 0xe850ff; jmp [rcx]; ret
        let code =
            [0xff, 0x53, 0xe8, 0xe8, 0, 0, 0, 0, 0xff, 0xd0, 0xb8, 0xff, 0x50, 0xe8, 0, 0xff, 0x21, 0xc3];
        assert_eq!(calls_in(&code), Some(vec![0, 8, 15]));
        assert_eq!(calls_in(&[0x90, 0xc3]), Some(vec![]));
        assert_eq!(calls_in(&[0xff, 0x53, 0xe8, 0x06]), None, "what is no instruction");
        assert_eq!(calls_in(&[0xff]), None, "cut short");
    }

    #[test]
    fn the_place_in_the_file_is_that_of_the_instruction() {
        let folder = tempfile::tempdir().expect("a folder");
        let (source, path) = (folder.path().join("loop.c"), folder.path().join("loop.so"));
        let code = "struct event { void (*handler)(struct event *); struct event *next; };\n\
            void run_all(struct event *event) { for (; event; event = event->next) event->handler(event); }\n\
            int direct(int x) { return x * 3; }\n";
        std::fs::write(&source, code).expect("written");
        let mut gcc = Command::new("gcc");
        gcc.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&path).arg(&source);
        assert!(gcc.status().expect("gcc runs").success());
        let object = ObjectFile::new(File::open(&path).expect("there"), &path).expect("an ELF file");
        let found = find_functions(&object, &["run_all", "direct"]).expect("readable");
        let [all, direct] = found.as_slice() else { panic!("{found:?}") };
        if object.machine() == Machine::X86_64 {
            let [call] = indirect_calls(&object, all)[..] else { panic!("one place") };
            assert!(call > all.at && call.0 < all.at.0 + all.bytes);
            let bytes = object.read_file(call, 1).expect("readable");
            assert_eq!(bytes[0], 0xff);
        }
        assert_eq!(indirect_calls(&object, direct), []);
        assert_eq!(indirect_calls(&object, &NamedFunction { bytes: u64::MAX, ..*all }), []);
        assert_eq!(indirect_calls(&object, &NamedFunction { bytes: 0, ..*all }), []);
    }
}
