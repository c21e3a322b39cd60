//! Units of an object's DWARF: which one holds an address, and what it says there.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;

use gimli::{DebugInfoOffset, Reader, UnitOffset};

use super::functions::{self, Inlined};
use super::index::{FileIndex, UnitIndex};
use super::lines::{self, Lines};
use super::{Dwarf, DwarfFrame, PagedReader};
use crate::symbolize::intervals::Intervals;

/// Ranges of the functions of one unit.
const MAX_RANGES: usize = 1 << 20;
/// Units that are asked about one address: more than one only where linking merged equal functions.
const MAX_UNITS_AT_ADDRESS: usize = 16;
/// Entries followed from an inlined copy to the declaration that has its name.
const MAX_ORIGINS: usize = 16;

type Unit<'data> = gimli::Unit<PagedReader<'data>>;

/// A unit that could not be read.
#[derive(Debug)]
pub struct Malformed;

/// A unit, read as far as it was needed so far. `None`: malformed.
type Slot<'data> = OnceCell<Option<Box<OpenUnit<'data>>>>;

#[derive(Debug)]
struct OpenUnit<'data> {
    unit: Unit<'data>,
    code: OnceCell<UnitCode>,
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

/// Units of one object that were asked about.
#[derive(Debug)]
pub struct Units<'data> {
    dwarf: Dwarf<'data>,
    index: Arc<UnitIndex>,
    slots: Box<[Slot<'data>]>,
    supplement_slots: Box<[Slot<'data>]>,
    parsed_bytes: Cell<usize>,
    malformed: Cell<u64>,
}

impl<'data> Units<'data> {
    /// No unit is read yet.
    pub fn new(dwarf: Dwarf<'data>, index: Arc<UnitIndex>) -> Self {
        let slots = |file: &FileIndex| file.units.iter().map(|_| Slot::default()).collect::<Box<[_]>>();
        Self {
            dwarf,
            slots: slots(&index.object),
            supplement_slots: slots(&index.supplement),
            parsed_bytes: Cell::new(0),
            malformed: Cell::new(0),
            index,
        }
    }

    pub fn memory_bytes(&self) -> usize {
        (self.slots.len() + self.supplement_slots.len()) * size_of::<Slot<'_>>() + self.parsed_bytes.get()
    }

    pub fn malformed(&self) -> u64 {
        self.malformed.get()
    }

    /// See [`super::Dwarf::find`].
    pub fn find(&self, address: u64) -> Vec<DwarfFrame> {
        let mut only_line = None;
        for index in self.index.by_address.covering(address).take(MAX_UNITS_AT_ADDRESS) {
            let index = index as usize;
            let Some(open) = self.unit(index) else { continue };
            let (unit, code) = (&open.unit, self.code(open));
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
                    Some(text.to_string_lossy().ok()?.into_owned())
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

    fn resolve(
        &self,
        from: EntryPlace,
        value: &gimli::AttributeValue<PagedReader<'data>>,
    ) -> Option<EntryPlace> {
        let (in_supplement, offset) = match *value {
            gimli::AttributeValue::UnitRef(offset) => return Some(EntryPlace { offset, ..from }),
            gimli::AttributeValue::DebugInfoRef(offset) => (from.in_supplement, offset),
            gimli::AttributeValue::DebugInfoRefSup(offset) => (true, offset),
            _ => return None,
        };
        let (dwarf, index) = if in_supplement {
            (self.dwarf.sup()?, &self.index.supplement)
        } else {
            (&self.dwarf, &self.index.object)
        };
        let unit = index.unit_at(offset)?;
        let header = dwarf.debug_info.header_from_offset(DebugInfoOffset(*index.units.get(unit)?)).ok()?;
        let offset = offset.to_unit_offset(&header)?;
        Some(EntryPlace { in_supplement, unit, offset })
    }

    fn unit_of(&self, place: EntryPlace) -> Option<(&Dwarf<'data>, &Unit<'data>)> {
        if !place.in_supplement {
            return Some((&self.dwarf, &self.unit(place.unit)?.unit));
        }
        let supplement = self.dwarf.sup()?;
        let slot = self.supplement_slots.get(place.unit)?;
        let open = slot.get_or_init(|| self.open(supplement, &self.index.supplement, place.unit));
        Some((supplement, &open.as_ref()?.unit))
    }

    fn unit(&self, index: usize) -> Option<&OpenUnit<'data>> {
        let slot = self.slots.get(index)?;
        slot.get_or_init(|| self.open(&self.dwarf, &self.index.object, index)).as_deref()
    }

    fn open(&self, dwarf: &Dwarf<'data>, index: &FileIndex, unit: usize) -> Option<Box<OpenUnit<'data>>> {
        let unit = open(dwarf, index, *index.units.get(unit)?);
        let unit = unit.inspect_err(|_| self.count_malformed()).ok()?;
        // Tables of abbreviations and files; their size is not told.
        let files = unit.line_program.as_ref().map_or(0, |program| program.header().file_names().len());
        self.count_bytes(size_of::<OpenUnit<'_>>() + files * 320 + (16 << 10));
        Some(Box::new(OpenUnit { unit, code: OnceCell::new() }))
    }

    fn code<'unit>(&self, open: &'unit OpenUnit<'data>) -> &'unit UnitCode {
        open.code.get_or_init(|| {
            let functions = functions::list(&self.dwarf, &open.unit, MAX_RANGES);
            let functions = functions.inspect_err(|_| self.count_malformed()).unwrap_or_default();
            let lines = Lines::read(&open.unit).inspect_err(|_| self.count_malformed()).unwrap_or_default();
            let code = UnitCode { functions: Intervals::new(functions), lines };
            self.count_bytes(code.functions.memory_bytes() + code.lines.memory_bytes());
            code
        })
    }

    fn count_bytes(&self, bytes: usize) {
        self.parsed_bytes.set(self.parsed_bytes.get().saturating_add(bytes));
    }

    fn count_malformed(&self) {
        self.malformed.set(self.malformed.get() + 1);
    }
}

/// Reads the first entry and the abbreviations of the unit at an offset.
fn open<'data>(dwarf: &Dwarf<'data>, index: &FileIndex, offset: usize) -> gimli::Result<Unit<'data>> {
    let header = dwarf.debug_info.header_from_offset(DebugInfoOffset(offset))?;
    let abbreviations = dwarf.abbreviations(&header)?;
    let mut cursor = header.entries(&abbreviations);
    cursor.next_dfs()?;
    let root = cursor.current().ok_or(gimli::Error::MissingUnitDie)?;
    if let Some(gimli::AttributeValue::DebugLineRef(offset)) = root.attr_value(gimli::DW_AT_stmt_list)
        && index.line_programs.binary_search(&offset.0).is_err()
    {
        return Err(gimli::Error::UnexpectedEof(gimli::ReaderOffsetId(0)));
    }
    drop(cursor);
    Unit::new_with_abbreviations(dwarf, header, abbreviations)
}

/// Hands on the address ranges of the unit at an offset, as its first entry has them.
///
/// # Errors
/// [`Malformed`] if the unit cannot be read.
pub fn ranges_of(
    dwarf: &Dwarf<'_>,
    index: &FileIndex,
    offset: usize,
    mut on_range: impl FnMut(u64, u64),
) -> Result<(), Malformed> {
    let unit = open(dwarf, index, offset).map_err(|_| Malformed)?;
    let Ok(mut ranges) = dwarf.unit_ranges(&unit) else { return Ok(()) };
    while let Ok(Some(range)) = ranges.next() {
        on_range(range.begin, range.end);
    }
    Ok(())
}
