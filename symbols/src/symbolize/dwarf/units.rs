//! Units of an object's DWARF: which one holds an address, and what it says there.

use std::cell::{Cell, OnceCell};

use gimli::{DebugInfoOffset, UnitOffset, UnitSectionOffset};

use super::functions::{self, Inlined};
use super::lines::{self, Lines};
use super::{DwarfFrame, Slice};
use crate::little_endian::{u16_at, u32_at, u64_at};
use crate::symbolize::intervals::Intervals;

/// Ranges of all units together, and of the functions of one unit.
const MAX_RANGES: usize = 8 << 20;
/// Units that are asked about one address: more than one only where linking merged equal functions.
const MAX_UNITS_AT_ADDRESS: usize = 16;
/// Entries followed from an inlined copy to the declaration that has its name.
const MAX_ORIGINS: usize = 16;
/// Largest header of a line program (its table of files): gimli reserves memory in proportion.
const MAX_LINE_HEADER_BYTES: u64 = 16 << 20;

type Unit<'data> = gimli::Unit<Slice<'data>>;
type UnitHeader<'data> = gimli::UnitHeader<Slice<'data>>;

/// A unit, read as far as it was needed so far.
#[derive(Debug)]
struct Slot<'data> {
    header: UnitHeader<'data>,
    /// `None`: malformed.
    unit: OnceCell<Option<Unit<'data>>>,
    code: OnceCell<Option<UnitCode>>,
}

#[derive(Debug)]
struct UnitCode {
    functions: Intervals<UnitOffset>,
    lines: Lines,
}

/// Where an entry is: unit and position in it.
#[derive(Debug, Clone, Copy)]
struct EntryPlace {
    in_supplement: bool,
    unit: usize,
    offset: UnitOffset,
}

/// All units of one object.
#[derive(Debug)]
pub struct Units<'data> {
    dwarf: gimli::Dwarf<Slice<'data>>,
    slots: Vec<Slot<'data>>,
    supplement_slots: Vec<Slot<'data>>,
    /// Indices of `slots`.
    by_address: Intervals<u32>,
    line_programs: Vec<u64>,
    supplement_line_programs: Vec<u64>,
    parsed_bytes: Cell<usize>,
    malformed: Cell<u64>,
}

impl<'data> Units<'data> {
    /// Lists units and their address ranges. Linear in the number of units.
    pub fn list(dwarf: gimli::Dwarf<Slice<'data>>) -> Self {
        let (slots, mut malformed) = slots_of(&dwarf);
        let line_programs = line_programs(dwarf.debug_line.reader_bytes());
        let (supplement_slots, supplement_line_programs) = match dwarf.sup() {
            Some(supplement) => {
                let (slots, malformed_too) = slots_of(supplement);
                malformed += malformed_too;
                (slots, self::line_programs(supplement.debug_line.reader_bytes()))
            }
            None => (Vec::new(), Vec::new()),
        };
        let mut units = Self {
            dwarf,
            slots,
            supplement_slots,
            by_address: Intervals::new(Vec::new()),
            line_programs,
            supplement_line_programs,
            parsed_bytes: Cell::new(0),
            malformed: Cell::new(malformed),
        };
        units.by_address = units.list_ranges();
        units
    }

    pub fn memory_bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot<'_>>() + self.by_address.memory_bytes() + self.parsed_bytes.get()
    }

    pub fn malformed(&self) -> u64 {
        self.malformed.get()
    }

    /// See [`super::Dwarf::find`].
    pub fn find(&self, address: u64) -> Vec<DwarfFrame> {
        let mut only_line = None;
        for index in self.by_address.covering(address).take(MAX_UNITS_AT_ADDRESS) {
            let index = index as usize;
            let (Some(unit), Some(code)) = (self.unit(index), self.code(index)) else { continue };
            let line = code.lines.find(address);
            let function = code.functions.covering(address).next();
            if let Some(function) = function {
                match self.frames(index, unit, function, address, line) {
                    Ok(frames) => return frames,
                    Err(_) => self.count_malformed(),
                }
            }
            if let Some((file, line)) = line
                && only_line.is_none()
            {
                let file = lines::file_name(&self.dwarf, unit, file);
                only_line = Some(DwarfFrame { name: None, file, line, start_line: 0 });
            }
        }
        only_line.into_iter().collect()
    }

    fn frames(
        &self,
        index: usize,
        unit: &Unit<'data>,
        function: UnitOffset,
        address: u64,
        line: Option<(u64, u32)>,
    ) -> gimli::Result<Vec<DwarfFrame>> {
        // Outermost first; each carries where it was called from in the one before it.
        let inlined = functions::inlined_at(&self.dwarf, unit, function, address)?;
        let mut frames = Vec::with_capacity(inlined.len() + 1);
        let mut location = line.map(|(file, line)| (Some(file), line));
        for Inlined { offset, call_file, call_line } in inlined.into_iter().rev() {
            frames.push(self.frame(index, unit, offset, location));
            location = Some((call_file, call_line));
        }
        frames.push(self.frame(index, unit, function, location));
        Ok(frames)
    }

    fn frame(
        &self,
        index: usize,
        unit: &Unit<'data>,
        offset: UnitOffset,
        location: Option<(Option<u64>, u32)>,
    ) -> DwarfFrame {
        let (name, start_line) =
            self.name_and_start_line(EntryPlace { in_supplement: false, unit: index, offset });
        let (file, line) = match location {
            Some((Some(file), line)) => (lines::file_name(&self.dwarf, unit, file), line),
            Some((None, line)) => (String::new(), line),
            None => (String::new(), 0),
        };
        DwarfFrame { name, file, line, start_line }
    }

    /// Follows an entry to its declaration: the first linkage name on the way, else the first plain
    /// name, and the first line.
    fn name_and_start_line(&self, place: EntryPlace) -> (Option<String>, u32) {
        let mut linkage_name = None;
        let mut plain_name = None;
        let mut start_line = None;
        let mut next = Some(place);
        for _ in 0..MAX_ORIGINS {
            let Some(place) = next.take() else { break };
            let Some((dwarf, unit)) = self.unit_of(place) else { break };
            let Ok(entry) = unit.entry(place.offset) else { break };
            for attribute in entry.attrs() {
                let value = attribute.value();
                let text = || {
                    let text = dwarf.attr_string(unit, value).ok()?;
                    Some(text.to_string_lossy().into_owned())
                };
                match attribute.name() {
                    gimli::DW_AT_linkage_name | gimli::DW_AT_MIPS_linkage_name => linkage_name = text(),
                    gimli::DW_AT_name if plain_name.is_none() => plain_name = text(),
                    gimli::DW_AT_decl_line if start_line.is_none() => {
                        start_line = value.udata_value().and_then(|line| u32::try_from(line).ok());
                    }
                    gimli::DW_AT_abstract_origin | gimli::DW_AT_specification => {
                        next = self.resolve(place, &value);
                    }
                    _ => {}
                }
            }
            if linkage_name.is_some() && start_line.is_some() {
                break;
            }
        }
        (linkage_name.or(plain_name), start_line.unwrap_or(0))
    }

    fn resolve(&self, from: EntryPlace, value: &gimli::AttributeValue<Slice<'data>>) -> Option<EntryPlace> {
        let (in_supplement, offset) = match *value {
            gimli::AttributeValue::UnitRef(offset) => return Some(EntryPlace { offset, ..from }),
            gimli::AttributeValue::DebugInfoRef(offset) => (from.in_supplement, offset),
            gimli::AttributeValue::DebugInfoRefSup(offset) => (true, offset),
            _ => return None,
        };
        let slots = if in_supplement { &self.supplement_slots } else { &self.slots };
        let unit = slot_at(slots, offset)?;
        let offset = offset.to_unit_offset(&slots.get(unit)?.header)?;
        Some(EntryPlace { in_supplement, unit, offset })
    }

    fn unit_of(&self, place: EntryPlace) -> Option<(&gimli::Dwarf<Slice<'data>>, &Unit<'data>)> {
        if !place.in_supplement {
            return Some((&self.dwarf, self.unit(place.unit)?));
        }
        let supplement = self.dwarf.sup()?;
        let slot = self.supplement_slots.get(place.unit)?;
        let unit =
            slot.unit.get_or_init(|| self.open(supplement, slot.header, &self.supplement_line_programs).ok());
        Some((supplement, unit.as_ref()?))
    }

    fn unit(&self, index: usize) -> Option<&Unit<'data>> {
        let slot = self.slots.get(index)?;
        let unit = slot.unit.get_or_init(|| {
            let unit = self.open(&self.dwarf, slot.header, &self.line_programs);
            unit.inspect_err(|_| self.count_malformed()).ok()
        });
        unit.as_ref()
    }

    fn code(&self, index: usize) -> Option<&UnitCode> {
        let unit = self.unit(index)?;
        let code = self.slots.get(index)?.code.get_or_init(|| {
            let functions = functions::list(&self.dwarf, unit, MAX_RANGES);
            let functions = functions.inspect_err(|_| self.count_malformed()).unwrap_or_default();
            let lines = Lines::read(unit).inspect_err(|_| self.count_malformed()).unwrap_or_default();
            let code = UnitCode { functions: Intervals::new(functions), lines };
            self.count_bytes(code.functions.memory_bytes() + code.lines.memory_bytes());
            Some(code)
        });
        code.as_ref()
    }

    /// Reads a unit's first entry and abbreviations.
    fn open(
        &self,
        dwarf: &gimli::Dwarf<Slice<'data>>,
        header: UnitHeader<'data>,
        line_programs: &[u64],
    ) -> gimli::Result<Unit<'data>> {
        let abbreviations = dwarf.abbreviations(&header)?;
        let mut cursor = header.entries(&abbreviations);
        cursor.next_dfs()?;
        let root = cursor.current().ok_or(gimli::Error::MissingUnitDie)?;
        if let Some(gimli::AttributeValue::DebugLineRef(offset)) = root.attr_value(gimli::DW_AT_stmt_list)
            && line_programs.binary_search(&(offset.0 as u64)).is_err()
        {
            return Err(gimli::Error::UnexpectedEof(gimli::ReaderOffsetId(0)));
        }
        drop(cursor);
        let unit = Unit::new_with_abbreviations(dwarf, header, abbreviations)?;
        // Tables of abbreviations and files; their size is not told.
        let files = unit.line_program.as_ref().map_or(0, |program| program.header().file_names().len());
        self.count_bytes(size_of::<Unit<'_>>() + files * 160 + (16 << 10));
        Ok(unit)
    }

    fn list_ranges(&self) -> Intervals<u32> {
        let mut ranges = Vec::new();
        let mut is_listed = vec![false; self.slots.len()];
        let mut headers = self.dwarf.debug_aranges.headers();
        while let Ok(Some(header)) = headers.next() {
            let offset = header.debug_info_offset();
            let Some(index) = slot_at(&self.slots, offset) else { continue };
            let Some(slot) = self.slots.get(index) else { continue };
            if slot.header.offset() != UnitSectionOffset(offset.0) {
                continue;
            }
            let mut entries = header.entries();
            while let Ok(Some(entry)) = entries.next() {
                let range = entry.range();
                if ranges.len() < MAX_RANGES && range.begin > 0 {
                    ranges.push((range.begin, range.end, index as u32));
                    is_listed[index] = true;
                }
            }
        }
        for (index, slot) in self.slots.iter().enumerate() {
            if is_listed[index] || ranges.len() >= MAX_RANGES {
                continue;
            }
            // Not kept: a program has thousands of units, and few of them are asked about.
            let bytes_before = self.parsed_bytes.get();
            let unit = self.open(&self.dwarf, slot.header, &self.line_programs);
            self.parsed_bytes.set(bytes_before);
            let Ok(unit) = unit else {
                self.count_malformed();
                continue;
            };
            let Ok(mut unit_ranges) = self.dwarf.unit_ranges(&unit) else { continue };
            while let Ok(Some(range)) = unit_ranges.next() {
                if ranges.len() >= MAX_RANGES {
                    break;
                }
                // What the linker threw away begins at 0.
                if range.begin > 0 {
                    ranges.push((range.begin, range.end, index as u32));
                }
            }
        }
        Intervals::new(ranges)
    }

    fn count_bytes(&self, bytes: usize) {
        self.parsed_bytes.set(self.parsed_bytes.get().saturating_add(bytes));
    }

    fn count_malformed(&self) {
        self.malformed.set(self.malformed.get() + 1);
    }
}

fn slots_of<'data>(dwarf: &gimli::Dwarf<Slice<'data>>) -> (Vec<Slot<'data>>, u64) {
    let mut slots = Vec::new();
    let mut headers = dwarf.units();
    loop {
        match headers.next() {
            Ok(Some(header)) => {
                slots.push(Slot { header, unit: OnceCell::new(), code: OnceCell::new() });
            }
            Ok(None) => return (slots, 0),
            // There is no way to the units after a header that is no header.
            Err(_) => return (slots, 1),
        }
    }
}

fn slot_at(slots: &[Slot<'_>], offset: DebugInfoOffset) -> Option<usize> {
    let after = slots.partition_point(|slot| slot.header.offset().0 <= offset.0);
    after.checked_sub(1)
}

/// Where line programs begin, as far as their sizes lead from one to the next and their headers are not
/// absurd. A unit that points anywhere else is not read.
fn line_programs(section: &[u8]) -> Vec<u64> {
    let mut starts = Vec::new();
    let mut position = 0_usize;
    while let Some(length) = u32_at(section, position) {
        let (length, word_bytes) = if length == u32::MAX {
            (u64_at(section, position + 4), 8)
        } else {
            (Some(u64::from(length)), 4)
        };
        let body = position + if word_bytes == 8 { 12 } else { 4 };
        let end = length.and_then(|length| body.checked_add(usize::try_from(length).ok()?));
        let Some(end) = end.filter(|&end| end <= section.len()) else { break };
        let version = u16_at(section, body).unwrap_or(0);
        let header_length_at = body + if version >= 5 { 4 } else { 2 };
        let header_bytes = if word_bytes == 8 {
            u64_at(section, header_length_at)
        } else {
            u32_at(section, header_length_at).map(u64::from)
        };
        if header_bytes.is_some_and(|bytes| bytes <= MAX_LINE_HEADER_BYTES) {
            starts.push(position as u64);
        }
        position = end;
    }
    starts
}

/// The bytes of a section.
trait ReaderBytes<'data> {
    fn reader_bytes(&self) -> &'data [u8];
}

impl<'data> ReaderBytes<'data> for gimli::DebugLine<Slice<'data>> {
    fn reader_bytes(&self) -> &'data [u8] {
        gimli::Section::reader(self).slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(line_programs(&wide), [0_u64; 0]);
        assert_eq!(line_programs(&[0xff; 5]), [0_u64; 0]);
    }
}
