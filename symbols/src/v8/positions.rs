//! Tables of V8 that lead from code to source: bytes in variable-length quantities of 7 bits, lowest first, the
//! highest bit set where more follow.
//!
//! *Source positions* (src/codegen/source-position-table.cc): for each entry two signed numbers (zigzag), the
//! distance from the entry before (the first from -1, where what stands before the function is): of the offset in
//! the code, below zero (and less one) where no statement begins;
//! and of the position, whose 64 bits are in optimised code {external: 1, offset in the script + 1: 30,
//! inlining + 1: 16}.
//!
//! *Bytecode offsets* of baseline code (src/baseline/bytecode-offset-iterator.h): the bytes of the prologue, then
//! those of each bytecode's code, in the order of the bytecodes.

/// A place in a source, as tables have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// In the script; `None` if it is none of the script's.
    pub offset: Option<u32>,
    /// Which of the code's inlinings; `None`: the function itself.
    pub inlining: Option<usize>,
}

impl Position {
    /// As it stands in tables and in inlining positions.
    pub(super) fn decode(raw: u64) -> Self {
        let is_external = raw & 1 == 1;
        let offset = (raw >> 1) as u32 & ((1 << 30) - 1);
        let inlining = (raw >> 31) as usize & 0xffff;
        Self {
            offset: if is_external { None } else { offset.checked_sub(1) },
            inlining: inlining.checked_sub(1),
        }
    }
}

struct Quantities<'a> {
    rest: std::slice::Iter<'a, u8>,
}

impl Quantities<'_> {
    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = *self.rest.next()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let raw = self.unsigned()?;
        Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }
}

/// The entry in force at an offset of the code: the last one that does not lie behind it. And whether it begins
/// just there. `None` if there is none.
pub(super) fn find_position(table: &[u8], offset: u64) -> Option<(u64, bool)> {
    let mut quantities = Quantities { rest: table.iter() };
    let (mut code, mut position) = (-1i64, 0i64);
    let mut found = None;
    while let (Some(code_step), Some(step)) = (quantities.signed(), quantities.signed()) {
        code = code.wrapping_add(if code_step >= 0 { code_step } else { !code_step });
        position = position.wrapping_add(step);
        if code > i64::try_from(offset).ok()? {
            break;
        }
        found = Some((position as u64, code == offset as i64));
    }
    found
}

/// The offset in the bytecodes of what baseline code does at an offset. `sizes`: of bytecodes, for operands of
/// three widths one after the other.
pub(super) fn bytecode_at(table: &[u8], bytecodes: &[u8], sizes: &[u8], offset: u64) -> Option<u64> {
    const WIDE: u8 = 0;
    const EXTRA_WIDE: u8 = 1;
    const DEBUG_WIDE: u8 = 2;
    const DEBUG_EXTRA_WIDE: u8 = 3;
    let count = sizes.len() / 3;
    let mut quantities = Quantities { rest: table.iter() };
    // The prologue belongs to no bytecode: the function's begin.
    let mut end = quantities.unsigned()?;
    if offset < end {
        return Some(0);
    }
    let mut at = 0usize;
    loop {
        end = end.checked_add(quantities.unsigned()?)?;
        let first = *bytecodes.get(at)?;
        if offset < end {
            return Some(at as u64);
        }
        let (prefix, width) = match first {
            WIDE | DEBUG_WIDE => (1, 1),
            EXTRA_WIDE | DEBUG_EXTRA_WIDE => (1, 2),
            _ => (0, 0),
        };
        let bytecode = usize::from(*bytecodes.get(at + prefix)?);
        let size = usize::from(*sizes.get(width * count..)?.get(..count)?.get(bytecode)?);
        if size == 0 {
            return None;
        }
        at = at.checked_add(prefix + size)?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unsigned(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    fn signed(value: i64) -> Vec<u8> {
        unsigned((value << 1 ^ value >> 63) as u64)
    }

    #[test]
    fn the_last_entry_that_does_not_lie_behind_an_offset_counts() {
        // 3 → 100, 10 → 40 (no statement), 10 → 60, 2^20 → 2^40.
        let steps = [(4, 100), (!7, -60), (0, 20), ((1 << 20) - 10, (1 << 40) - 60)];
        let table: Vec<u8> =
            steps.iter().flat_map(|(code, position)| [signed(*code), signed(*position)].concat()).collect();
        assert_eq!(find_position(&table, 2), None);
        assert_eq!(find_position(&table, 3), Some((100, true)));
        assert_eq!(find_position(&table, 9), Some((100, false)));
        assert_eq!(find_position(&table, 10), Some((60, true)));
        assert_eq!(find_position(&table, 1 << 20), Some((1 << 40, true)));
        assert_eq!(find_position(&table, u64::MAX), None);
        for end in 0..table.len() {
            let _ = find_position(table.get(..end).unwrap_or_default(), 10);
        }
    }

    /// Of `*generated() { yield this.price; … }` in Node 18, which lists it so with `--print-bytecode`.
    #[test]
    fn a_table_of_a_real_function_is_read_as_v8_lists_it() {
        const TABLE: [u8; 23] = [
            0x01, 0x98, 0x39, 0x17, 0x00, 0x0b, 0x00, 0x29, 0x00, 0x08, 0x60, 0x17, 0x2b, 0x29, 0x00, 0x08,
            0x58, 0x13, 0x00, 0x29, 0x00, 0x0a, 0x38,
        ];
        let listed = [
            (10, 1829),
            (15, 1829),
            (35, 1829),
            (39, 1853),
            (50, 1842),
            (70, 1842),
            (74, 1864),
            (83, 1864),
            (103, 1864),
            (108, 1878),
        ];
        for (code, offset) in listed {
            let (raw, is_exact) = find_position(&TABLE, code).expect("it is listed");
            assert_eq!((Position::decode(raw).offset, is_exact), (Some(offset), true), "{code}");
        }
        for (code, before) in [(0, 1829), (38, 1829), (40, 1853), (49, 1853), (107, 1864)] {
            let (raw, is_exact) = find_position(&TABLE, code).expect("the function's entry comes first");
            assert_eq!((Position::decode(raw).offset, is_exact), (Some(before), false), "{code}");
        }
    }

    #[test]
    fn positions_of_optimised_code_tell_script_offset_and_inlining() {
        assert_eq!(Position::decode(0), Position { offset: None, inlining: None });
        assert_eq!(Position::decode((42 + 1) << 1), Position { offset: Some(42), inlining: None });
        assert_eq!(
            Position::decode((42 + 1) << 1 | (7 + 1) << 31),
            Position { offset: Some(42), inlining: Some(7) }
        );
        assert_eq!(Position::decode(1 | (42 + 1) << 1).offset, None);
    }

    #[test]
    fn baseline_code_is_counted_by_bytecodes_and_their_prefixes() {
        // Bytecode 10 has 2 bytes, 3 wide, 5 extra wide; 11 has 1.
        let mut sizes = vec![1u8; 3 * 12];
        (sizes[10], sizes[22], sizes[34]) = (2, 3, 5);
        let bytecodes = [10, 0, 11, 0, 10, 0, 0, 1, 10, 0, 0, 0, 0, 11];
        let table: Vec<u8> = [16u64, 200, 4, 8, 8, 1].iter().flat_map(|bytes| unsigned(*bytes)).collect();
        let at = |offset| bytecode_at(&table, &bytecodes, &sizes, offset);
        assert_eq!((at(0), at(15)), (Some(0), Some(0)), "the prologue");
        assert_eq!((at(16), at(215)), (Some(0), Some(0)));
        assert_eq!((at(216), at(219)), (Some(2), Some(2)));
        assert_eq!((at(220), at(227), at(228), at(236)), (Some(3), Some(3), Some(7), Some(13)));
        assert_eq!(at(237), None, "behind its end");
        assert_eq!(bytecode_at(&table, &[10], &sizes, 300), None);
        assert_eq!(bytecode_at(&table, &bytecodes, &[], 16 + 200), None);
    }

    proptest! {
        #[test]
        fn hostile_tables_end(table in proptest::collection::vec(any::<u8>(), 0..200), bytecodes in proptest::collection::vec(any::<u8>(), 0..200), sizes in proptest::collection::vec(any::<u8>(), 0..600), offset: u64) {
            let _ = find_position(&table, offset);
            let _ = bytecode_at(&table, &bytecodes, &sizes, offset % 100_000);
        }
    }
}
