//! Where the runtime counts the goroutine ids that it has given to processors: `runtime.sched.goidgen`, the
//! first word of `runtime.sched`.
//!
//! A stripped executable has no symbol for it, but the code that gives them says it. `runtime.newproc1` begins
//! a batch where its processor has no id left, in Go 1.18 to 1.26 alike:
//!
//! ```text
//! mov  count, 16
//! lea  scheduler, [rip + runtime.sched]
//! lock xadd [scheduler], count
//! lea  first, [count + 1]
//! mov  [p + p.goidcache], first
//! ```
//!
//! All five must be there, once, and the offset must be the one that is known of the version: an address that is
//! something else would make goroutines children of requests that are not theirs. What was compiled without inlining
//! (`-gcflags=all=-l`, for debuggers) calls functions in place of these, and has symbols.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

use crate::little_endian::{u32_at, u64_at};
use crate::{ElfAddress, ObjectError, ObjectFile};

/// The function that gives ids.
pub(super) const GIVER: &[u8] = b"runtime.newproc1";
/// Ids in a batch (`_GoidCacheBatch`).
const BATCH: u32 = 16;
const GENERAL_REGISTERS: u32 = 16;

/// Of the code of [`GIVER`], which begins at `begin`; `p_goidcache` is the offset of that field in bytes. `None` if
/// it is not as described above.
pub(super) fn in_code(code: &[u8], begin: ElfAddress, p_goidcache: u32) -> Option<ElfAddress> {
    let decoder = Decoder::with_ip(64, code, begin.0, DecoderOptions::NONE);
    let instructions: Vec<Instruction> = decoder.into_iter().collect();
    let mut batches = instructions.windows(5).filter_map(|five| begins_batch(five, p_goidcache));
    batches.next().filter(|_| batches.next().is_none())
}

fn begins_batch(instructions: &[Instruction], p_goidcache: u32) -> Option<ElfAddress> {
    let [set, point, add, next, store] = instructions else { return None };
    let count = add.op1_register();
    let is_batch = set.mnemonic() == Mnemonic::Mov
        && set.op1_kind() == OpKind::Immediate32
        && set.immediate32() == BATCH
        && is_low_half(set.op0_register(), count);
    let scheduler = point.op0_register();
    let points_there = point.mnemonic() == Mnemonic::Lea && point.is_ip_rel_memory_operand();
    let is_added = add.mnemonic() == Mnemonic::Xadd && add.has_lock_prefix() && is_at(add, scheduler, 0);
    let first = next.op0_register();
    let is_next = next.mnemonic() == Mnemonic::Lea && is_at(next, count, 1);
    let is_stored = store.mnemonic() == Mnemonic::Mov
        && store.op0_kind() == OpKind::Memory
        && is_at(store, store.memory_base(), p_goidcache.into())
        && store.op1_register() == first;
    (is_batch && points_there && is_added && is_next && is_stored)
        .then(|| ElfAddress(point.ip_rel_memory_address()))
}

/// Whether one is the lower 32 bits of the other.
fn is_low_half(low: Register, full: Register) -> bool {
    let number = |of: Register, first: Register| {
        (of as u32).checked_sub(first as u32).filter(|number| *number < GENERAL_REGISTERS)
    };
    let low = number(low, Register::EAX);
    low.is_some() && low == number(full, Register::RAX)
}

/// Whether the memory operand is `[base + offset]`.
fn is_at(instruction: &Instruction, base: Register, offset: u64) -> bool {
    base != Register::None
        && instruction.memory_base() == base
        && instruction.memory_index() == Register::None
        && instruction.memory_displacement64() == offset
}

/// By the symbol table; `None` if there is none, or a very large one.
///
/// # Errors
/// [`ObjectError`] if it cannot be read.
pub(super) fn in_symbols(object: &ObjectFile) -> Result<Option<ElfAddress>, ObjectError> {
    const SYMBOL_BYTES: usize = 24;
    const MAX_SYMBOLS_BYTES: u64 = 64 << 20;
    let Some(symbols) = object.section_header(".symtab").filter(|header| header.has_contents()) else {
        return Ok(None);
    };
    let Some(names) = object.section_headers().get(symbols.link as usize) else { return Ok(None) };
    if symbols.bytes > MAX_SYMBOLS_BYTES || names.bytes > MAX_SYMBOLS_BYTES {
        return Ok(None);
    }
    let (symbols, names) = (object.read_section(symbols)?, object.read_section(names)?);
    let found = symbols.data.chunks_exact(SYMBOL_BYTES).find_map(|symbol| {
        let name = usize::try_from(u32_at(symbol, 0)?).ok()?;
        let is_it = names.data.get(name..)?.starts_with(b"runtime.sched\0");
        if is_it { u64_at(symbol, 8) } else { None }
    });
    Ok(found.map(ElfAddress))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Go 1.26's, from 0x45758a on.
    const CODE: &[u8] = &[
        0x41, 0xba, 0x10, 0, 0, 0, // mov r10d, 16
        0x4c, 0x8d, 0x1d, 0x49, 0x21, 0x61, 0, // lea r11, [rip+0x612149]
        0xf0, 0x4d, 0x0f, 0xc1, 0x13, // lock xadd [r11], r10
        0x4d, 0x8d, 0x5a, 0x01, // lea r11, [r10+1]
        0x4d, 0x89, 0x98, 0x80, 0x01, 0, 0, // mov [r8+0x180], r11
    ];
    const BEGIN: ElfAddress = ElfAddress(0x45_758a);
    const SCHEDULER: ElfAddress = ElfAddress(0xa6_96e0);

    #[test]
    fn the_code_that_begins_a_batch_says_where_ids_are_counted() {
        assert_eq!(in_code(CODE, BEGIN, 0x180), Some(SCHEDULER));
        // mov ecx, 16; lea rdx, [rip+0x49c68b]; lock xadd [rdx], rcx; lea rdx, [rcx+1]; mov [rsi+0x180], rdx
        let go_1_18 = [
            0xb9, 0x10, 0, 0, 0, 0x48, 0x8d, 0x15, 0x8b, 0xc6, 0x49, 0, 0xf0, 0x48, 0x0f, 0xc1, 0x0a, 0x48,
            0x8d, 0x51, 0x01, 0x48, 0x89, 0x96, 0x80, 0x01, 0, 0,
        ];
        assert_eq!(in_code(&go_1_18, ElfAddress(0x43_e389), 0x180), Some(ElfAddress(0x8d_aa20)));
    }

    #[test]
    fn code_that_differs_in_anything_says_nothing() {
        assert_eq!(in_code(CODE, BEGIN, 0x178), None, "another field");
        assert_eq!(in_code(&[CODE, CODE].concat(), BEGIN, 0x180), None, "twice");
        for (at, byte, what) in [
            (2, 0x11, "another count"),
            (1, 0xbb, "in another register"),
            (8, 0x15, "another register has the address"),
            (13, 0x90, "without lock"),
            (17, 0x53, "another place"),
            (17, 0x1b, "another register is added"),
            (21, 0x02, "another first id"),
            (24, 0x90, "another register is stored"),
        ] {
            let mut code = CODE.to_vec();
            code[at] = byte;
            assert_eq!(in_code(&code, BEGIN, 0x180), None, "{what}");
        }
        for end in 0..CODE.len() {
            assert_eq!(in_code(&CODE[..end], BEGIN, 0x180), None, "{end} bytes");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_code_is_borne(code: Vec<u8>, at in 0..CODE.len(), byte: u8) {
            let _ = in_code(&code, BEGIN, 0x180);
            let mut damaged = CODE.to_vec();
            damaged[at] = byte;
            let _ = in_code(&[&damaged[..], &code].concat(), ElfAddress(u64::MAX), 0x180);
        }
    }
}
