//! Where functions begin, from the search table of `.eh_frame_hdr` (Linux Standard Base, "Exception
//! Frame Header"): it is in stripped objects too, and keeps a symbol without size from reaching into
//! functions whose names were stripped off.
//!
//! Known gaps: only the encoding that every linker writes (`DW_EH_PE_datarel | DW_EH_PE_sdata4`).

use crate::ObjectFile;
use crate::little_endian::u32_at;

const MAX_HEADER_BYTES: u64 = 64 << 20;
const ENCODING_UDATA4: u8 = 0x03;
const ENCODING_DATAREL_SDATA4: u8 = 0x3b;

/// ELF addresses of functions, sorted; empty if there is no table.
#[must_use]
pub fn read(object: &ObjectFile) -> Vec<u64> {
    let Some((address, bytes)) = object.eh_frame_header() else { return Vec::new() };
    let Ok(header) = object.read_loaded(address, bytes.min(MAX_HEADER_BYTES)) else { return Vec::new() };
    decode(&header, address.0).unwrap_or_default()
}

fn decode(header: &[u8], address: u64) -> Option<Vec<u64>> {
    let &[1, frame_encoding, ENCODING_UDATA4, ENCODING_DATAREL_SDATA4] = header.get(..4)? else {
        return None;
    };
    // The pointer to .eh_frame: sdata4 or udata4, of whatever base.
    if !matches!(frame_encoding & 0xf, 0x3 | 0xb) {
        return None;
    }
    let count = usize::try_from(u32_at(header, 8)?).ok()?;
    let table = header.get(12..)?;
    let mut starts: Vec<u64> = table
        .chunks_exact(8)
        .take(count)
        .filter_map(|entry| u32_at(entry, 0))
        .map(|offset| address.wrapping_add_signed(i64::from(offset.cast_signed())))
        .collect();
    starts.sort_unstable();
    Some(starts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn offsets_are_relative_to_the_header_and_signed() {
        let mut header = vec![1, 0x1b, 0x03, 0x3b, 0, 0, 0, 0];
        header.extend(3_u32.to_le_bytes());
        for offset in [-0x100_i32, 0, 0x20, 0x7777] {
            header.extend(offset.to_le_bytes());
            header.extend([0; 4]);
        }
        assert_eq!(decode(&header, 0x1000), Some(vec![0xf00, 0x1000, 0x1020]));
        header[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&header, 0x1000).map(|starts| starts.len()), Some(4));
        header[3] = 0xff;
        assert_eq!(decode(&header, 0x1000), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..64), address: u64) {
            let _ = decode(&bytes, address);
        }
    }
}
