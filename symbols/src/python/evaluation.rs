//! Where the code of the evaluation function is: `_PyEval_EvalFrameDefault` and the piece of it that compilers move
//! away because it is rarely executed (`.cold`).
//!
//! Such a piece has a symbol of its own only in `.symtab`, which most builds are stripped of. Without it the piece is
//! found by the jumps that lead there and back: a jump out of the function, to code that has an entry of its own
//! in `.eh_frame` (by the table of `.eh_frame_hdr`, Linux Standard Base Core 5, 10.6), out of which jumps lead back into
//! the middle of the function. A function that is called in tail position does not jump back there.
//!
//! In builds whose instructions are functions that call each other in tail position (3.14: clang, gcc 15 and later) this
//! function is small. It stays on the stack below them; they are native frames like any other.

use std::ops::Range;

use iced_x86::{Code, Decoder, DecoderOptions, Mnemonic, OpKind};

use crate::little_endian::{u32_at, u64_at};
use crate::object_file::Machine;
use crate::{ElfAddress, ObjectFile};

/// The largest there is (3.13, gcc without optimisation) has a quarter of that.
const MAX_FUNCTION_BYTES: u64 = 1 << 20;
const MAX_PIECES: usize = 8;
/// `.eh_frame_hdr` with a table of 4-byte numbers relative to it, as all linkers write it.
const TABLE_OF_RELATIVE_NUMBERS: u8 = 0x3b;
const MAX_TABLE_BYTES: u64 = 32 << 20;

/// The ranges of the function: itself, and its pieces.
pub(super) fn ranges(object: &ObjectFile, function: Range<u64>, named: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut ranges = vec![function.clone()];
    ranges.extend(named.iter().cloned());
    if named.is_empty() && object.machine() == Machine::X86_64 {
        ranges.extend(pieces(object, &function).unwrap_or_default());
    }
    ranges
}

/// Where jumps out of some code lead: whole of the code is decoded, from its begin on.
fn jumps(object: &ObjectFile, code: &Range<u64>) -> Option<Vec<u64>> {
    let bytes = code.end.checked_sub(code.start).filter(|bytes| *bytes <= MAX_FUNCTION_BYTES)?;
    let contents = object.read_loaded(ElfAddress(code.start), bytes).ok()?;
    let mut targets = Vec::new();
    for instruction in Decoder::with_ip(64, &contents, code.start, DecoderOptions::NONE) {
        if instruction.code() == Code::INVALID {
            continue;
        }
        // Jumps and calls have such an operand, nothing else.
        if instruction.op0_kind() == OpKind::NearBranch64 && instruction.mnemonic() != Mnemonic::Call {
            let target = instruction.near_branch_target();
            if !code.contains(&target) {
                targets.push(target);
            }
        }
    }
    targets.sort_unstable();
    targets.dedup();
    Some(targets)
}

fn pieces(object: &ObjectFile, function: &Range<u64>) -> Option<Vec<Range<u64>>> {
    let table = FrameTable::read(object)?;
    let mut pieces: Vec<Range<u64>> = Vec::new();
    for target in jumps(object, function)? {
        if pieces.len() >= MAX_PIECES {
            break;
        }
        if pieces.iter().any(|piece| piece.contains(&target)) {
            continue;
        }
        let Some(candidate) = table.entry_of(object, target) else { continue };
        let leads_back = jumps(object, &candidate).is_some_and(|targets| {
            targets.iter().any(|target| function.contains(target) && *target != function.start)
        });
        if leads_back {
            pieces.push(candidate);
        }
    }
    Some(pieces)
}

/// The table of `.eh_frame_hdr`: begins of code, ascending, and where their entries in `.eh_frame` are.
struct FrameTable {
    address: u64,
    rows: Vec<u8>,
}

const HEADER_BYTES: usize = 12;
const ROW_BYTES: usize = 8;

impl FrameTable {
    fn read(object: &ObjectFile) -> Option<Self> {
        let (ElfAddress(address), bytes) = object.eh_frame_header()?;
        let contents = object.read_loaded(ElfAddress(address), bytes.min(MAX_TABLE_BYTES)).ok()?;
        // version, encodings of the pointer to .eh_frame, of the count, of the table.
        if contents.get(..4)? != [1, 0x1b, 0x03, TABLE_OF_RELATIVE_NUMBERS] {
            return None;
        }
        Some(Self { address, rows: contents.get(HEADER_BYTES..)?.to_vec() })
    }

    /// The range of the entry that holds an address.
    fn entry_of(&self, object: &ObjectFile, address: u64) -> Option<Range<u64>> {
        let relative = |at: usize| {
            Some(self.address.wrapping_add_signed(i64::from(u32_at(&self.rows, at)?.cast_signed())))
        };
        let (mut low, mut high) = (0, self.rows.len() / ROW_BYTES);
        while low < high {
            let middle = usize::midpoint(low, high);
            if relative(middle * ROW_BYTES)? <= address { low = middle + 1 } else { high = middle }
        }
        let row = low.checked_sub(1)? * ROW_BYTES;
        let (begin, entry) = (relative(row)?, relative(row + 4)?);
        // length, distance to its CIE, begin relative to its own place, bytes.
        let entry_bytes = object.read_loaded(ElfAddress(entry), 16).ok()?;
        let says = u32_at(&entry_bytes, 8)?.cast_signed();
        if entry.checked_add(8)?.wrapping_add_signed(i64::from(says)) != begin
            || u64_at(&entry_bytes, 8).is_none()
        {
            return None;
        }
        let range = begin..begin.checked_add(u64::from(u32_at(&entry_bytes, 12)?))?;
        range.contains(&address).then_some(range)
    }
}
