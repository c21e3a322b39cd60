//! Which unit has an address, of all units of an object: made once, and kept while the sections come
//! and go. Each section is walked through in steps, and pages read so far are dropped between them, so
//! that listing takes no more memory for a gigabyte than for ten megabytes.

use gimli::{DebugArangesOffset, DebugInfoOffset, Reader};

use super::units::{self, Malformed};
use super::{Dwarf, PagedReader, SectionSources};
use crate::symbolize::intervals::Intervals;

/// Address ranges of all units together; more are not known.
const MAX_RANGES: usize = 1 << 20;
/// Units and line programs that are listed.
const MAX_UNITS: usize = 1 << 20;
/// Bytes of pages after which they are dropped.
const STEP_BYTES: usize = 2 << 20;
/// Largest header of a line program (its table of files): gimli reserves memory in proportion.
const MAX_LINE_HEADER_BYTES: u64 = 16 << 20;

/// Units of one file and where its line programs begin, by section offset, sorted.
#[derive(Debug, Default)]
pub struct FileIndex {
    pub units: Vec<usize>,
    pub line_programs: Vec<usize>,
}

/// See the module.
#[derive(Debug)]
pub struct UnitIndex {
    pub object: FileIndex,
    pub supplement: FileIndex,
    /// Indices of `object.units`.
    pub by_address: Intervals<u32>,
    pub malformed: u64,
}

impl FileIndex {
    /// The unit that holds an offset of `.debug_info`.
    pub fn unit_at(&self, offset: DebugInfoOffset) -> Option<usize> {
        self.units.partition_point(|&unit| unit <= offset.0).checked_sub(1)
    }

    pub fn memory_bytes(&self) -> usize {
        (self.units.capacity() + self.line_programs.capacity()) * size_of::<usize>()
    }

    fn list(sources: &SectionSources, malformed: &mut u64) -> Self {
        let mut index = Self::default();
        let mut offset = 0;
        in_steps(sources, |dwarf| {
            if offset >= gimli::Section::reader(&dwarf.debug_info).len() {
                return false;
            }
            // There is no way to the units after a header that is no header.
            let header = dwarf.debug_info.header_from_offset(DebugInfoOffset(offset));
            let Ok(header) = header else {
                *malformed += 1;
                return false;
            };
            index.units.push(offset);
            offset = offset.saturating_add(header.length_including_self());
            index.units.len() < MAX_UNITS
        });
        let mut position = 0;
        in_steps(sources, |dwarf| {
            let Some(program) = line_program(*gimli::Section::reader(&dwarf.debug_line), position) else {
                return false;
            };
            if program.header_bytes <= MAX_LINE_HEADER_BYTES {
                index.line_programs.push(position);
            }
            position = program.end;
            index.line_programs.len() < MAX_UNITS
        });
        index.units.shrink_to_fit();
        index.line_programs.shrink_to_fit();
        index
    }
}

impl UnitIndex {
    /// Lists units and their address ranges: from `.debug_aranges`, else from each unit's first entry.
    pub fn list(sources: &SectionSources, supplement: Option<&SectionSources>) -> Self {
        let mut malformed = 0;
        let object = FileIndex::list(sources, &mut malformed);
        let supplement =
            supplement.map(|sources| FileIndex::list(sources, &mut malformed)).unwrap_or_default();
        let mut ranges = Vec::new();
        let mut is_listed = vec![false; object.units.len()];
        let mut offset = 0;
        in_steps(sources, |dwarf| {
            let Ok(header) = dwarf.debug_aranges.header(DebugArangesOffset(offset)) else { return false };
            let initial_bytes = header.encoding().format.initial_length_size();
            offset = offset.saturating_add(header.length()).saturating_add(usize::from(initial_bytes));
            let unit = object.units.binary_search(&header.debug_info_offset().0);
            let Ok(unit) = unit else { return true };
            let mut entries = header.entries();
            while let Ok(Some(entry)) = entries.next() {
                let range = entry.range();
                if range.begin > 0 {
                    add(&mut ranges, range.begin, range.end, unit);
                    if let Some(listed) = is_listed.get_mut(unit) {
                        *listed = true;
                    }
                }
            }
            true
        });
        let mut unit = 0;
        in_steps(sources, |dwarf| {
            let Some(&at) = object.units.get(unit) else { return false };
            if !is_listed.get(unit).copied().unwrap_or(true) {
                let listed =
                    units::ranges_of(dwarf, &object, at, |begin, end| add(&mut ranges, begin, end, unit));
                malformed += u64::from(matches!(listed, Err(Malformed)));
            }
            unit += 1;
            true
        });
        Self { object, supplement, by_address: Intervals::new(ranges), malformed }
    }

    pub fn memory_bytes(&self) -> usize {
        self.object.memory_bytes() + self.supplement.memory_bytes() + self.by_address.memory_bytes()
    }
}

fn add(ranges: &mut Vec<(u64, u64, u32)>, begin: u64, end: u64, unit: usize) {
    // What the linker threw away begins at 0.
    if begin == 0 || begin >= end {
        return;
    }
    // Functions in sections of their own, one behind the other: one range is enough.
    if let Some((_, last_end, last_unit)) = ranges.last_mut()
        && *last_unit as usize == unit
        && *last_end == begin
    {
        *last_end = end;
    } else if ranges.len() < MAX_RANGES {
        // At most MAX_UNITS: it fits.
        ranges.push((begin, end, unit as u32));
    }
}

/// Calls `step` with a file's sections as long as it answers `true`; after [`STEP_BYTES`] with sections
/// of which nothing is read yet.
fn in_steps(sources: &SectionSources, mut step: impl FnMut(&Dwarf<'_>) -> bool) {
    loop {
        let sections = sources.open();
        let fixed_bytes = sections.held_bytes();
        let dwarf = sections.dwarf();
        while sections.held_bytes() <= fixed_bytes + STEP_BYTES {
            if !step(&dwarf) {
                return;
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct LineProgram {
    end: usize,
    header_bytes: u64,
}

/// The line program at a position, by its size. `None` at the end, or where the size leads beyond it.
fn line_program(section: PagedReader<'_>, position: usize) -> Option<LineProgram> {
    let mut rest = section;
    rest.skip(position).ok()?;
    let (length, format) = rest.read_initial_length().ok()?;
    let mut body = rest.split(length).ok()?;
    let end = position + usize::from(format.initial_length_size()) + length;
    let mut header_bytes = || {
        let version = body.read_u16()?;
        body.skip(if version >= 5 { 2 } else { 0 })?;
        body.read_length(format)
    };
    Some(LineProgram { end, header_bytes: header_bytes().map_or(u64::MAX, |bytes| bytes as u64) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object_file::Contents;
    use crate::paged_bytes::PageSource;

    fn line_programs(bytes: &[u8]) -> Vec<usize> {
        let source = PageSource::of_contents(Contents::Memory(bytes.to_vec()), bytes.len());
        let paged = source.open();
        let (mut found, mut position) = (Vec::new(), 0);
        while let Some(program) = line_program(PagedReader::new(&paged), position) {
            if program.header_bytes <= MAX_LINE_HEADER_BYTES {
                found.push(position);
            }
            assert!(program.end > position);
            position = program.end;
        }
        found
    }

    #[test]
    fn line_programs_are_followed_by_their_sizes_and_absurd_headers_left_out() {
        let program = |header_bytes: u32| {
            let mut bytes = 10_u32.to_le_bytes().to_vec();
            bytes.extend(4_u16.to_le_bytes());
            bytes.extend(header_bytes.to_le_bytes());
            bytes.extend([0; 4]);
            bytes
        };
        let section = [program(4), program(u32::MAX), program(4)].concat();
        assert_eq!(line_programs(&section), [0, 28]);
        assert_eq!(line_programs(&section[..section.len() - 1]), [0]);
        let mut wide = u32::MAX.to_le_bytes().to_vec();
        wide.extend(u64::MAX.to_le_bytes());
        assert_eq!(line_programs(&wide), [0_usize; 0]);
        assert_eq!(line_programs(&[0xff; 5]), [0_usize; 0]);
    }
}
