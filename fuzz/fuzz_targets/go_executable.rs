//! Go executables for the targets that read them: an ELF file without sections, and the module data that the
//! runtime would have.

#![allow(dead_code, reason = "every target uses another part")]

/// Where the text is.
pub const TEXT: u64 = 0x40_1000;
/// Where the pclntab is.
pub const TABLE: u64 = 0x50_0000;
/// Where the module data is.
pub const MODULE_DATA: u64 = 0x60_0000;

/// A module data for the pclntab, as it would be with or without relocations.
pub fn module_data(table: &[u8], in_relocations: bool) -> (Vec<u8>, Vec<u8>) {
    let word = |at: usize| {
        let bytes = table.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let offset = |index: usize| word(8 + 8 * index).unwrap_or(0);
    let entry = |index: u64| {
        let at = offset(7).saturating_add(index.saturating_mul(8));
        let bytes = usize::try_from(at).ok().and_then(|at| table.get(at..at.checked_add(4)?));
        bytes.map_or(0, |bytes| u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])))
    };
    let mut words = [0_u64; 48];
    words[0] = TABLE;
    for part in 0..5 {
        words[1 + 3 * part] = TABLE.wrapping_add(offset(3 + part));
    }
    let (first, end) = (TEXT + entry(0), TEXT + entry(offset(0)));
    (words[20], words[21], words[22], words[23]) = (first, end, TEXT, end);
    let triples = if in_relocations { 48 } else { 0 };
    let function_data = MODULE_DATA + 8 * 48 + 24 * triples;
    words[38] = function_data;
    words[40] = function_data;
    let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    if !in_relocations {
        return (bytes(&words), vec![]);
    }
    let triple = |(index, value): (usize, &u64)| [MODULE_DATA + 8 * index as u64, 8, *value];
    let relocations: Vec<u64> = words.iter().enumerate().flat_map(triple).collect();
    (vec![0; 8 * 48], bytes(&relocations))
}

/// Where the contents of the first of so many segments are in the file.
pub fn contents_offset(segments: usize) -> u64 {
    64 + 56 * segments as u64
}

/// An ELF file with segments of these addresses, flags and contents, and no sections.
pub fn elf(segments: &[(u64, u32, &[u8])]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2_u16, 62].iter().flat_map(|half| half.to_le_bytes()));
    file.extend(1_u32.to_le_bytes());
    file.extend([0_u64, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 56, segments.len() as u16, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    let mut offset = contents_offset(segments.len());
    for (address, flags, contents) in segments {
        let bytes = contents.len() as u64;
        file.extend([1_u32, *flags].iter().flat_map(|half| half.to_le_bytes()));
        file.extend([offset, *address, *address, bytes, bytes, 8].iter().flat_map(|word| word.to_le_bytes()));
        offset += bytes;
    }
    for (_, _, contents) in segments {
        file.extend(*contents);
    }
    file
}
