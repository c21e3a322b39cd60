//! Entry points for the fuzz targets in `fuzz/` into readers that are not public.
//!
//! Comes in: bytes as a process or a kernel could have written them. Goes out: nothing; what counts is
//! that the readers come back, and that what they say of themselves holds. Never: in the binary.

use std::fs::File;

use super::SymbolFrame;
use super::jitdump::JitDump;
use super::kernel::KernelSymbols;
use super::perf_map::PerfMap;

/// Reads a perf map in pieces that end at `ends`, as it would be while it grows, and looks up addresses.
///
/// # Panics
/// If it answers otherwise than after reading all at once.
pub fn perf_map(bytes: &[u8], ends: &[usize], addresses: &[u64]) {
    let mut at_once = PerfMap::default();
    at_once.append(bytes);
    let mut in_pieces = PerfMap::default();
    let mut rest = bytes;
    for end in ends {
        let (piece, after) = rest.split_at(rest.len().min(*end));
        in_pieces.append(piece);
        rest = after;
    }
    in_pieces.append(rest);
    for address in addresses {
        let name = |map: &PerfMap| map.find(*address).map(|code| code.name.clone());
        assert_eq!(name(&at_once), name(&in_pieces), "the pieces in which a map is read do not matter");
    }
    assert_eq!(at_once.malformed_lines(), in_pieces.malformed_lines());
}

/// Reads a jitdump and looks up addresses.
pub fn jitdump(file: &File, addresses: &[u64]) {
    let mut dump = JitDump::default();
    // Twice: the second reading goes on where the first stopped.
    for _ in 0..2 {
        if dump.read_on(file).is_err() {
            return;
        }
    }
    for address in addresses {
        if let Some(code) = dump.find(*address) {
            let _ = code.line_at(*address);
        }
    }
}

/// Reads `/proc/kallsyms` and `/proc/modules` and names addresses.
///
/// # Panics
/// If a name is empty.
pub fn kallsyms(kallsyms: &str, modules: &str, addresses: &[u64]) {
    let mut addresses = addresses.to_vec();
    addresses.sort_unstable();
    let symbols = KernelSymbols::of_texts(kallsyms, modules, &addresses);
    for address in &addresses {
        let symbol = symbols.name_of(*address);
        let is_named = |frames: &[SymbolFrame]| frames.iter().all(|frame| !frame.name.is_empty());
        assert!(symbol.symbol.is_ok_and(|frames| is_named(&frames)) || !symbol.module.is_empty());
    }
}
