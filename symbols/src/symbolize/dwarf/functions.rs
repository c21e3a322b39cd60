//! Functions of a unit and what is inlined into them.
//!
//! Nothing here recurses: entries are read in the order of the file, and an inlined call that holds the
//! address lies within the one read before it that also does.

use gimli::{AttributeValue, UnitOffset};

use super::{Dwarf, PagedReader};

/// Inlined calls at one address.
const MAX_INLINED: usize = 256;

type Unit<'data> = gimli::Unit<PagedReader<'data>>;

/// An inlined call that holds an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inlined {
    /// Its entry.
    pub offset: UnitOffset,
    /// Where it was called from: number in the unit's table of files.
    pub call_file: Option<u64>,
    /// Line of the call.
    pub call_line: u32,
}

/// Address ranges of the functions of a unit.
pub fn list(
    dwarf: &Dwarf<'_>,
    unit: &Unit<'_>,
    max_ranges: usize,
) -> gimli::Result<Vec<(u64, u64, UnitOffset)>> {
    let mut found = Vec::new();
    let mut entries = unit.entries_raw(None)?;
    while !entries.is_empty() && found.len() < max_ranges {
        let offset = entries.next_offset();
        let Some(abbreviation) = entries.read_abbreviation()? else { continue };
        if abbreviation.tag() != gimli::DW_TAG_subprogram {
            entries.skip_attributes(abbreviation.attributes())?;
            continue;
        }
        let mut ranges = Ranges::default();
        for &specification in abbreviation.attributes() {
            let attribute = entries.read_attribute(specification)?;
            ranges.take(dwarf, unit, attribute.name(), attribute.value())?;
        }
        ranges.for_each(dwarf, unit, |begin, end| {
            if found.len() < max_ranges {
                found.push((begin, end, offset));
            }
            false
        })?;
    }
    Ok(found)
}

/// Inlined calls of the function whose entry is at `function` that hold `address`, outermost first.
/// Linear in the entries below the function.
pub fn inlined_at(
    dwarf: &Dwarf<'_>,
    unit: &Unit<'_>,
    function: UnitOffset,
    address: u64,
) -> gimli::Result<Vec<Inlined>> {
    let mut chain: Vec<(isize, Inlined)> = Vec::new();
    let mut entries = unit.entries_raw(Some(function))?;
    let Some(abbreviation) = entries.read_abbreviation()? else { return Ok(Vec::new()) };
    entries.skip_attributes(abbreviation.attributes())?;
    while !entries.is_empty() && entries.next_depth() > 0 {
        let depth = entries.next_depth();
        let offset = entries.next_offset();
        let Some(abbreviation) = entries.read_abbreviation()? else { continue };
        if abbreviation.tag() != gimli::DW_TAG_inlined_subroutine {
            entries.skip_attributes(abbreviation.attributes())?;
            continue;
        }
        let mut ranges = Ranges::default();
        let mut inlined = Inlined { offset, call_file: None, call_line: 0 };
        for &specification in abbreviation.attributes() {
            let attribute = entries.read_attribute(specification)?;
            match attribute.name() {
                gimli::DW_AT_call_file => {
                    // Before DWARF 5, file 0 meant none.
                    if let AttributeValue::FileIndex(file) = attribute.value()
                        && (file > 0 || unit.header.version() >= 5)
                    {
                        inlined.call_file = Some(file);
                    }
                }
                gimli::DW_AT_call_line => {
                    let line = attribute.udata_value().and_then(|line| u32::try_from(line).ok());
                    inlined.call_line = line.unwrap_or(0);
                }
                name => ranges.take(dwarf, unit, name, attribute.value())?,
            }
        }
        let holds = ranges.for_each(dwarf, unit, |begin, end| begin <= address && address < end)?;
        // A sibling of one taken before can hold the address too only in a file that contradicts itself.
        if holds && chain.len() < MAX_INLINED && chain.last().is_none_or(|(last, _)| *last < depth) {
            chain.push((depth, inlined));
        }
    }
    Ok(chain.into_iter().map(|(_, inlined)| inlined).collect())
}

/// The attributes of an entry that say which addresses it has.
#[derive(Debug, Default)]
struct Ranges {
    low: Option<u64>,
    high: Option<u64>,
    bytes: Option<u64>,
    list: Option<gimli::RangeListsOffset>,
}

impl Ranges {
    fn take<'data>(
        &mut self,
        dwarf: &Dwarf<'data>,
        unit: &Unit<'data>,
        name: gimli::DwAt,
        value: AttributeValue<PagedReader<'data>>,
    ) -> gimli::Result<()> {
        match name {
            gimli::DW_AT_low_pc => self.low = dwarf.attr_address(unit, value)?,
            gimli::DW_AT_high_pc => match value {
                AttributeValue::Udata(bytes) => self.bytes = Some(bytes),
                _ => self.high = dwarf.attr_address(unit, value)?,
            },
            gimli::DW_AT_ranges => self.list = dwarf.attr_ranges_offset(unit, value)?,
            _ => {}
        }
        Ok(())
    }

    /// Calls `each` with begin and end of each range until it answers `true`, and answers that.
    fn for_each(
        &self,
        dwarf: &Dwarf<'_>,
        unit: &Unit<'_>,
        mut each: impl FnMut(u64, u64) -> bool,
    ) -> gimli::Result<bool> {
        // What the linker threw away begins at 0, or near the end of the addresses.
        let mut each_real = |begin: u64, end: u64| begin > 0 && begin < end && each(begin, end);
        if let Some(list) = self.list {
            let mut ranges = dwarf.ranges(unit, list)?;
            while let Some(range) = ranges.next()? {
                if each_real(range.begin, range.end) {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        let Some(low) = self.low else { return Ok(false) };
        let end = self.high.or_else(|| low.checked_add(self.bytes?));
        Ok(end.is_some_and(|end| each_real(low, end)))
    }
}
