//! DWARF → functions, inlined ones included, with files and lines.
//!
//! DWARF 2 to 5, decoded with gimli; with dwz supplements (`.gnu_debugaltlink`). When an object is first
//! asked about, only the address ranges of its units are listed (from `.debug_aranges`, else from each
//! unit's first entry); functions ([`functions`]) and lines ([`lines`]) of a unit are read when an address
//! in it is asked for.
//!
//! Why not blazesym or addr2line, which do the same: blazesym 0.2.7 maps files, and a mapping of a file
//! that someone else cuts short ends in SIGBUS (sections are read into memory here, their sum bounded by
//! [`MAX_DWARF_BYTES`]); it opens by path, so debug links are sought beside `/proc/self/fd`; it gives no
//! first line of a function. addr2line 0.27 recurses once for each level of inlining in the file, so that
//! a hostile file overflows the stack; here nothing recurses.
//!
//! Known gaps: split DWARF (`.dwo`, `.dwp`) gives lines but no functions; type units are not looked into.

mod functions;
mod lines;
mod units;

use gimli::{EndianSlice, LittleEndian, SectionId};
use self_cell::self_cell;

use crate::{ObjectError, ObjectFile};
use units::Units;

/// All DWARF sections of one object together, decompressed.
pub const MAX_DWARF_BYTES: usize = 768 << 20;

const SECTIONS: [SectionId; 10] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];

type Slice<'data> = EndianSlice<'data, LittleEndian>;

/// One function at an address, as DWARF has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DwarfFrame {
    /// Linkage name if there is one, else the plain name.
    pub name: Option<String>,
    /// Source file, with the folder it was compiled in if its name is relative.
    pub file: String,
    /// Line, 0 if unknown.
    pub line: u32,
    /// Line of the declaration, 0 if unknown.
    pub start_line: u32,
}

#[derive(Debug)]
struct Sections {
    of_object: Vec<Vec<u8>>,
    of_supplement: Option<Vec<Vec<u8>>>,
}

self_cell!(
    struct ParsedDwarf {
        owner: Sections,
        #[not_covariant]
        dependent: Units,
    }
);

/// The DWARF of one object.
pub struct Dwarf {
    parsed: ParsedDwarf,
    section_bytes: usize,
}

impl std::fmt::Debug for Dwarf {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Dwarf").field("section_bytes", &self.section_bytes).finish_non_exhaustive()
    }
}

/// Why there is no DWARF to ask.
#[derive(Debug, thiserror::Error)]
pub enum DwarfError {
    /// A section could not be read.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// Over [`MAX_DWARF_BYTES`].
    #[error("{0} bytes of DWARF are over the limit of {MAX_DWARF_BYTES}")]
    TooLarge(usize),
}

/// Whether an object carries DWARF with functions (a stripped one may have `.debug_frame` and no more).
#[must_use]
pub fn is_in(object: &ObjectFile) -> bool {
    object.section_header(".debug_info").is_some_and(|header| header.has_contents() && header.bytes > 0)
}

impl Dwarf {
    /// Reads the sections of an object (and of its dwz supplement) and lists its units.
    ///
    /// # Errors
    /// [`DwarfError`].
    pub fn read(object: &ObjectFile, supplement: Option<&ObjectFile>) -> Result<Self, DwarfError> {
        let mut section_bytes = 0;
        let of_object = read_sections(object, &mut section_bytes)?;
        let of_supplement = supplement.map(|object| read_sections(object, &mut section_bytes)).transpose()?;
        let sections = Sections { of_object, of_supplement };
        let parsed = ParsedDwarf::new(sections, |sections| {
            let mut dwarf = dwarf_of(&sections.of_object);
            if let Some(supplement) = &sections.of_supplement {
                dwarf.set_sup(dwarf_of(supplement));
            }
            Units::list(dwarf)
        });
        Ok(Self { parsed, section_bytes })
    }

    /// Bytes of memory held, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.section_bytes + self.parsed.with_dependent(|_, units| units.memory_bytes())
    }

    /// Units that could not be read.
    #[must_use]
    pub fn malformed_units(&self) -> u64 {
        self.parsed.with_dependent(|_, units| units.malformed())
    }

    /// The functions at an ELF address, innermost first; empty if no unit knows the address.
    #[must_use]
    pub fn find(&self, address: u64) -> Vec<DwarfFrame> {
        self.parsed.with_dependent(|_, units| units.find(address))
    }
}

fn read_sections(object: &ObjectFile, total_bytes: &mut usize) -> Result<Vec<Vec<u8>>, DwarfError> {
    let mut sections = Vec::with_capacity(SECTIONS.len());
    for id in SECTIONS {
        let data = object.section(id.name())?.map_or_else(Vec::new, |section| section.data);
        *total_bytes += data.len();
        if *total_bytes > MAX_DWARF_BYTES {
            return Err(DwarfError::TooLarge(*total_bytes));
        }
        sections.push(data);
    }
    Ok(sections)
}

fn dwarf_of(sections: &[Vec<u8>]) -> gimli::Dwarf<Slice<'_>> {
    let load = |id: SectionId| -> Result<Slice<'_>, std::convert::Infallible> {
        let index = SECTIONS.iter().position(|&section| section == id);
        let data = index.and_then(|index| sections.get(index)).map_or(&[][..], Vec::as_slice);
        Ok(EndianSlice::new(data, LittleEndian))
    };
    let mut dwarf = match gimli::Dwarf::load(load) {
        Ok(dwarf) => dwarf,
        Err(never) => match never {},
    };
    dwarf.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
    dwarf
}
