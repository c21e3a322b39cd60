//! How a function saves and restores rbp, by its machine code (x86-64).
//!
//! pcsp tells where the stack pointer is and nothing of rbp. Go's assembler makes frames in two ways
//! (`cmd/internal/obj/x86/obj6.go`):
//!
//! ```text
//! from Go 1.21   push rbp; mov rbp, rsp; sub rsp, n     …   add rsp, n; pop rbp; ret
//! to Go 1.20     sub rsp, n + 8; mov [rsp + n], rbp; lea rbp, [rsp + n]
//!                                                 …   mov rbp, [rsp + n]; add rsp, n + 8; ret
//! ```
//!
//! In both, the caller's rbp lies below the return address, at CFA - 16. Functions without a frame do
//! not touch rbp, nor does assembly that makes its frame by hand (`go vet` insists).

/// The longest instruction sequence that is looked at.
pub(super) const LONGEST_BYTES: usize = 24;

/// Where a function's frame begins to hold the caller's rbp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SavesFramePointer {
    /// From here on, in bytes from the first byte after the stack pointer moved: the caller's rbp is
    /// at CFA - 16.
    pub saved: u32,
    /// From here on rbp is the frame's own, CFA - 16.
    pub set: u32,
}

/// Looks at the code around the place where the stack pointer first moves: `before` ends there and
/// `after` begins there; it moved by `depth` bytes. `None`: rbp is not saved.
pub(super) fn saves_frame_pointer(before: &[u8], after: &[u8], depth: u32) -> Option<SavesFramePointer> {
    // push rbp, and mov rbp, rsp
    if depth == 8 && before.last() == Some(&0x55) {
        let own = after.starts_with(&[0x48, 0x89, 0xe5]);
        return Some(SavesFramePointer { saved: 0, set: if own { 3 } else { u32::MAX } });
    }
    // mov [rsp + n], rbp
    let slot = depth.checked_sub(8)?;
    let saved = instruction_bytes(after, [0x48, 0x89], 0x28, slot)?;
    // lea rbp, [rsp + n]
    let set = instruction_bytes(after.get(saved..)?, [0x48, 0x8d], 0x28, slot).map(|bytes| saved + bytes);
    let offset = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    Some(SavesFramePointer { saved: offset(saved), set: set.map_or(u32::MAX, offset) })
}

/// Bytes of an instruction with the operand `[rsp + offset]`, if `code` begins with it. `register` is
/// its bits in the `ModRM` byte.
fn instruction_bytes(code: &[u8], opcode: [u8; 2], register: u8, offset: u32) -> Option<usize> {
    let operands = code.strip_prefix(&opcode)?;
    // ModRM: base in the SIB byte (100), with an 8-bit or 32-bit offset; SIB: rsp.
    if let (Ok(offset), [modrm, 0x24, short, ..]) = (i8::try_from(offset), operands)
        && *modrm == (0x44 | register)
        && short.cast_signed() == offset
    {
        return Some(5);
    }
    if let [modrm, 0x24, long @ ..] = operands
        && *modrm == (0x84 | register)
        && long.starts_with(&offset.to_le_bytes())
    {
        return Some(8);
    }
    None
}

/// A piece of an epilogue in which rbp is the caller's again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FramePointerRestored {
    /// Bytes from the function's entry.
    pub begin: usize,
    /// Behind the last byte.
    pub end: usize,
    /// CFA - rsp.
    pub cfa_offset: u8,
}

/// The pieces of a function's code in which rbp is the caller's again, in order. Bytes in the midst of
/// an instruction may be taken for one: a pc is never there.
pub(super) fn epilogues(code: &[u8]) -> Vec<FramePointerRestored> {
    let mut found = vec![];
    for at in 0..code.len() {
        match code.get(at..).unwrap_or_default() {
            // pop rbp; ret
            [0x5d, 0xc3, ..] => {
                found.push(FramePointerRestored { begin: at + 1, end: at + 2, cfa_offset: 8 });
            }
            // pop rbp; jmp register
            [0x5d, 0xff, 0xe0..=0xe7, ..] => {
                found.push(FramePointerRestored { begin: at + 1, end: at + 3, cfa_offset: 8 });
            }
            // mov rbp, [rsp + n]; add rsp, n + 8; ret
            [0x48, 0x8b, 0x6c, 0x24, slot, 0x48, 0x83, 0xc4, frame @ 0..0x78, 0xc3, ..]
                if slot.checked_add(8) == Some(*frame) =>
            {
                found.push(FramePointerRestored { begin: at + 5, end: at + 9, cfa_offset: frame + 8 });
                found.push(FramePointerRestored { begin: at + 9, end: at + 10, cfa_offset: 8 });
            }
            _ => {}
        }
    }
    found
}

/// The register, by its DWARF number, that a two-byte `pop` took from the stack: r8 to r15, whose numbers
/// are the same in both.
pub(super) fn popped_register(code: &[u8]) -> Option<u8> {
    match code {
        [0x41, pop @ 0x58..=0x5f] => Some(8 + (pop & 7)),
        _ => None,
    }
}

/// The end of the first instruction that loads rsp with another stack's: `mov rsp, reg` or
/// `mov rsp, [reg + n]`.
pub(super) fn stack_pointer_load(code: &[u8]) -> Option<usize> {
    (0..code.len()).find_map(|at| match code.get(at..)? {
        // REX.W with any register extension that leaves rsp the target.
        [0x48 | 0x4c, 0x89, modrm, ..] if modrm & 0xc7 == 0xc4 => Some(at + 3),
        [0x48 | 0x49, 0x8b, modrm, ..] if modrm & 0xf8 == 0x60 && modrm & 7 != 4 => Some(at + 4),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pushed_frame_pointer_is_saved_at_once_and_set_by_the_move() {
        let expected = Some(SavesFramePointer { saved: 0, set: 3 });
        assert_eq!(saves_frame_pointer(&[0x55], &[0x48, 0x89, 0xe5, 0x90], 8), expected);
        let without_move = Some(SavesFramePointer { saved: 0, set: u32::MAX });
        assert_eq!(saves_frame_pointer(&[0x55], &[0x90], 8), without_move);
        assert_eq!(saves_frame_pointer(&[0x53], &[0x48, 0x89, 0xe5], 8), None, "push rbx");
    }

    #[test]
    fn a_stored_frame_pointer_is_saved_after_the_store_whatever_the_offset_s_size() {
        let short = [0x48, 0x89, 0x6c, 0x24, 0x10, 0x48, 0x8d, 0x6c, 0x24, 0x10];
        let expected = Some(SavesFramePointer { saved: 5, set: 10 });
        assert_eq!(saves_frame_pointer(&[0x18], &short, 0x18), expected);
        assert_eq!(saves_frame_pointer(&[0x18], &short, 0x20), None, "another slot");
        let long = [0x48, 0x89, 0xac, 0x24, 0, 1, 0, 0, 0x48, 0x8d, 0xac, 0x24, 0, 1, 0, 0];
        let expected = Some(SavesFramePointer { saved: 8, set: 16 });
        assert_eq!(saves_frame_pointer(&[0], &long, 0x108), expected);
    }

    #[test]
    fn code_cut_short_saves_nothing() {
        let code = [0x48, 0x89, 0x6c, 0x24, 0x10];
        for end in 0..code.len() {
            assert_eq!(saves_frame_pointer(&[], &code[..end], 0x18), None);
        }
    }

    #[test]
    fn epilogues_of_both_kinds_are_found() {
        let code =
            [0x90, 0x5d, 0xc3, 0x48, 0x8b, 0x6c, 0x24, 0x10, 0x48, 0x83, 0xc4, 0x18, 0xc3, 0x5d, 0xff, 0xe7];
        let found: Vec<_> =
            epilogues(&code).iter().map(|piece| (piece.begin, piece.end, piece.cfa_offset)).collect();
        assert_eq!(found, [(2, 3, 8), (8, 12, 0x20), (12, 13, 8), (14, 16, 8)]);
    }

    #[test]
    fn only_the_extended_registers_are_popped_by_two_bytes() {
        assert_eq!(popped_register(&[0x41, 0x5c]), Some(12));
        assert_eq!(popped_register(&[0x41, 0x57]), None, "push r15");
        assert_eq!(popped_register(&[0x90, 0x58]), None, "pop rax");
        assert_eq!(popped_register(&[0x5c]), None);
    }

    #[test]
    fn loads_of_the_stack_pointer_are_found() {
        // mov rsp, [r14 + 0x38]; mov rsp, rsi; mov rsp, r12; and what is none: mov rsi, [rsp + 8]
        assert_eq!(stack_pointer_load(&[0x90, 0x49, 0x8b, 0x66, 0x38]), Some(5));
        assert_eq!(stack_pointer_load(&[0x48, 0x89, 0xf4]), Some(3));
        assert_eq!(stack_pointer_load(&[0x4c, 0x89, 0xe4]), Some(3));
        assert_eq!(stack_pointer_load(&[0x48, 0x8b, 0x74, 0x24, 0x08]), None);
    }
}
