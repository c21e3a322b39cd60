//! Line tables: which file and line an address belongs to (DWARF 5, section 6.2).

use std::borrow::Cow;

use gimli::{AttributeValue, Reader};

use super::{Dwarf, PagedReader};
use crate::symbolize::intervals::Intervals;

type Unit<'data> = gimli::Unit<PagedReader<'data>>;

#[derive(Debug, Clone, Copy)]
struct Row {
    address: u64,
    file: u32,
    line: u32,
}

/// The line table of one unit.
#[derive(Debug)]
pub struct Lines {
    rows: Vec<Row>,
    /// First and end index in `rows` of each sequence, by the addresses it covers.
    sequences: Intervals<(u32, u32)>,
}

impl Default for Lines {
    fn default() -> Self {
        Self { rows: Vec::new(), sequences: Intervals::new(Vec::new()) }
    }
}

impl Lines {
    /// Runs the line program of a unit. Each of its bytes gives one row at most.
    pub fn read(unit: &Unit<'_>) -> gimli::Result<Self> {
        let Some(program) = unit.line_program.clone() else { return Ok(Self::default()) };
        let mut rows: Vec<Row> = Vec::new();
        let mut sequences = Vec::new();
        let mut first = 0;
        let mut run = program.rows();
        while let Some((_, row)) = run.next_row()? {
            if row.end_sequence() {
                let sequence = rows.get_mut(first..).unwrap_or_default();
                // Addresses must not decrease; in a file where they do, order decides nothing.
                sequence.sort_by_key(|row| row.address);
                let begin = sequence.first().map_or(0, |row| row.address);
                let ends = (u32::try_from(first), u32::try_from(rows.len()));
                match ends {
                    (Ok(start), Ok(end)) if begin > 0 => sequences.push((begin, row.address(), (start, end))),
                    // What the linker threw away begins at 0.
                    _ => rows.truncate(first),
                }
                first = rows.len();
                continue;
            }
            rows.push(Row {
                address: row.address(),
                file: u32::try_from(row.file_index()).unwrap_or(u32::MAX),
                line: row.line().and_then(|line| u32::try_from(line.get()).ok()).unwrap_or(0),
            });
        }
        rows.truncate(first);
        rows.shrink_to_fit();
        Ok(Self { rows, sequences: Intervals::new(sequences) })
    }

    /// Number in the unit's table of files, and line, at an ELF address.
    pub fn find(&self, address: u64) -> Option<(u64, u32)> {
        let (first, end) = self.sequences.covering(address).next()?;
        let rows = self.rows.get(first as usize..end as usize)?;
        let after = rows.partition_point(|row| row.address <= address);
        let row = rows.get(after.checked_sub(1)?)?;
        Some((u64::from(row.file), row.line))
    }

    pub fn memory_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>() + self.sequences.memory_bytes()
    }
}

/// The path of a file of a unit: folder of compilation, folder of the file, name, each of which may be
/// absolute and then replaces what comes before it. Empty if there is no such file.
pub fn file_name(dwarf: &Dwarf<'_>, unit: &Unit<'_>, number: u64) -> String {
    let Some(program) = &unit.line_program else { return String::new() };
    let header = program.header();
    let Some(file) = header.file(number) else { return String::new() };
    let mut path = String::new();
    // Folder 0 is that of compilation; since DWARF 5 it stands in the table itself.
    if file.directory_index() != 0 || header.version() < 5 {
        let folder = unit.comp_dir.as_ref().and_then(|folder| folder.to_string_lossy().ok());
        path = folder.map(Cow::into_owned).unwrap_or_default();
    }
    if file.directory_index() != 0 || header.version() >= 5 {
        append(&mut path, dwarf, unit, file.directory(header));
    }
    append(&mut path, dwarf, unit, Some(file.path_name()));
    path
}

fn append<'data>(
    path: &mut String,
    dwarf: &Dwarf<'data>,
    unit: &Unit<'data>,
    part: Option<AttributeValue<PagedReader<'data>>>,
) {
    let Some(part) = part.and_then(|part| dwarf.attr_string(unit, part).ok()) else { return };
    let Ok(part) = part.to_string_lossy() else { return };
    if part.starts_with('/') {
        path.clear();
    } else if !path.is_empty() && !path.ends_with('/') {
        path.push('/');
    }
    path.push_str(&part);
}
