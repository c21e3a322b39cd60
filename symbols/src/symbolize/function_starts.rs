//! Where functions begin, from the search table of `.eh_frame_hdr` (Linux Standard Base, "Exception
//! Frame Header"): it is in stripped objects too, and keeps a symbol without size from reaching into
//! functions whose names were stripped off.
//!
//! Known gaps: only the encoding that every linker writes (`DW_EH_PE_datarel | DW_EH_PE_sdata4`).

use crate::ObjectFile;
use crate::little_endian::u32_at;

/// Largest table that is looked through.
const MAX_HEADER_BYTES: u64 = 64 << 20;
/// Entries that are read together.
const CHUNK_BYTES: u64 = 16 << 10;
const HEADER_BYTES: u64 = 12;
const ENTRY_BYTES: usize = 8;
const ENCODING_UDATA4: u8 = 0x03;
const ENCODING_DATAREL_SDATA4: u8 = 0x3b;

/// For each of some sorted addresses, where the last function begins at or before it. Goes through the
/// table once; it is sorted in sound files, which is not relied upon.
#[must_use]
pub fn last_before(object: &ObjectFile, sorted: &[u64]) -> Vec<Option<u64>> {
    let mut last = vec![None; sorted.len()];
    let Some((address, bytes)) = object.eh_frame_header() else { return last };
    let bytes = bytes.min(MAX_HEADER_BYTES);
    let header = object.read_loaded(address, HEADER_BYTES.min(bytes)).unwrap_or_default();
    let Some(entries) = entries(&header) else { return last };
    let end = bytes.min(HEADER_BYTES + u64::from(entries) * ENTRY_BYTES as u64);
    let mut position = HEADER_BYTES;
    while position < end {
        let Some(chunk_at) = address.checked_add(position) else { break };
        let Ok(chunk) = object.read_loaded(chunk_at, CHUNK_BYTES.min(end - position)) else { break };
        note(&chunk, address.0, sorted, &mut last);
        position += CHUNK_BYTES;
    }
    carry_over(&mut last);
    last
}

/// How many entries follow a header.
fn entries(header: &[u8]) -> Option<u32> {
    let &[1, frame_encoding, ENCODING_UDATA4, ENCODING_DATAREL_SDATA4] = header.get(..4)? else {
        return None;
    };
    // The pointer to .eh_frame: sdata4 or udata4, of whatever base.
    matches!(frame_encoding & 0xf, 0x3 | 0xb).then(|| u32_at(header, 8))?
}

/// Notes each function of `chunk` at the first address behind it.
fn note(chunk: &[u8], header_address: u64, sorted: &[u64], last: &mut [Option<u64>]) {
    for entry in chunk.chunks_exact(ENTRY_BYTES) {
        let Some(offset) = u32_at(entry, 0) else { continue };
        let start = header_address.wrapping_add_signed(i64::from(offset.cast_signed()));
        if let Some(noted) = last.get_mut(sorted.partition_point(|&address| address < start)) {
            *noted = (*noted).max(Some(start));
        }
    }
}

/// What begins before an address begins before those behind it too.
fn carry_over(last: &mut [Option<u64>]) {
    let mut greatest = None;
    for noted in last {
        greatest = greatest.max(*noted);
        *noted = greatest;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn offsets_are_relative_to_the_header_and_signed() {
        let mut header = vec![1, 0x1b, 0x03, 0x3b, 0, 0, 0, 0];
        header.extend(3_u32.to_le_bytes());
        assert_eq!(entries(&header), Some(3));
        let mut chunk = Vec::new();
        for offset in [0x20_i32, -0x100, 0] {
            chunk.extend(offset.to_le_bytes());
            chunk.extend([0; 4]);
        }
        let sorted = [0xeff, 0xf00, 0xf01, 0x1000, 0x101f, 0x1020, 0x9999];
        let mut last = vec![None; sorted.len()];
        note(&chunk, 0x1000, &sorted, &mut last);
        carry_over(&mut last);
        let starts = [0, 0xf00, 0xf00, 0x1000, 0x1000, 0x1020, 0x1020];
        assert_eq!(last, starts.map(|start| (start > 0).then_some(start)));
        header[3] = 0xff;
        assert_eq!(entries(&header), None);
    }

    #[test]
    fn the_functions_of_this_test_are_those_of_a_search_in_its_table() {
        let path = std::env::current_exe().unwrap();
        let object = ObjectFile::new(std::fs::File::open(&path).unwrap(), &path).unwrap();
        let (address, bytes) = object.eh_frame_header().unwrap();
        let table = object.read_loaded(address, bytes).unwrap();
        let offset = |entry: &[u8]| i64::from(u32_at(entry, 0).unwrap().cast_signed());
        let starts: Vec<u64> =
            table[12..].chunks_exact(8).map(|entry| address.0.wrapping_add_signed(offset(entry))).collect();
        assert!(starts.is_sorted() && starts.len() > 4096, "{}", starts.len());
        let asked: Vec<u64> = starts.iter().step_by(97).map(|start| start + 1).collect();
        let expected: Vec<Option<u64>> = asked
            .iter()
            .map(|address| starts.get(starts.partition_point(|start| start <= address) - 1).copied())
            .collect();
        assert_eq!(last_before(&object, &asked), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..64), address: u64) {
            let _ = entries(&bytes);
            note(&bytes, address, &[0, 5, u64::MAX], &mut [None; 3]);
        }
    }
}
