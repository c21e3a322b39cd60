//! DWARF → functions, inlined ones included, with files and lines.
//!
//! DWARF 2 to 5, decoded with gimli; with dwz supplements (`.gnu_debugaltlink`). When an object is first
//! asked about, only the address ranges of its units are listed ([`index`]); functions ([`functions`]) and
//! lines ([`lines`]) of a unit are read when an address in it is asked for. Sections are read a page at a
//! time ([`reader`]), and pages and units are dropped when another unit is asked about and they have
//! become more than [`WORKING_BYTES`]: so addresses should be asked for unit by unit ([`Dwarf::order`]).
//!
//! Why not blazesym or addr2line, which do the same: blazesym 0.2.7 maps files, and a mapping of a file
//! that someone else cuts short ends in SIGBUS; it opens by path, so debug links are sought beside `/proc/self/fd`; it gives no
//! first line of a function. addr2line 0.27 recurses once for each level of inlining in the file, so that
//! a hostile file overflows the stack; here nothing recurses.
//!
//! Known gaps: split DWARF (`.dwo`, `.dwp`) gives lines but no functions; type units are not looked into.

mod functions;
mod index;
mod lines;
mod reader;
mod units;

use std::sync::Arc;

use gimli::SectionId;
use self_cell::self_cell;

use crate::paged_bytes::{PageSource, PagedBytes};
use crate::{ObjectError, ObjectFile};
use index::UnitIndex;
use reader::PagedReader;
use units::Units;

/// Compressed DWARF sections of one object together, decompressed; they are held packed.
pub const MAX_UNPACKED_BYTES: u64 = 256 << 20;
/// Pages and units of one object that stay read from one unit to the next.
const WORKING_BYTES: usize = 3 << 20;

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

type Dwarf<'data> = gimli::Dwarf<PagedReader<'data>>;

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

/// Where the sections of one file are.
#[derive(Debug)]
struct SectionSources {
    sources: Vec<PageSource>,
}

/// The sections of one file, of which those pages are held that were looked at.
#[derive(Debug)]
struct Sections {
    sections: Vec<PagedBytes>,
}

impl SectionSources {
    fn read(object: &ObjectFile, unpacked_bytes: &mut u64) -> Result<Self, ObjectError> {
        let mut sources = Vec::with_capacity(SECTIONS.len());
        for id in SECTIONS {
            let header = object.section_header(id.name()).filter(|header| header.has_contents());
            let Some(header) = header else {
                sources.push(PageSource::empty());
                continue;
            };
            let source = PageSource::of_section(object, header, MAX_UNPACKED_BYTES - *unpacked_bytes)?;
            if source.is_packed() {
                *unpacked_bytes = unpacked_bytes.saturating_add(source.len() as u64).min(MAX_UNPACKED_BYTES);
            }
            sources.push(source);
        }
        Ok(Self { sources })
    }

    fn open(&self) -> Sections {
        Sections { sections: self.sources.iter().map(PageSource::open).collect() }
    }

    fn memory_bytes(&self) -> usize {
        self.sources.iter().map(PageSource::memory_bytes).sum()
    }
}

impl Sections {
    fn held_bytes(&self) -> usize {
        self.sections.iter().map(PagedBytes::held_bytes).sum()
    }

    fn dwarf(&self) -> Dwarf<'_> {
        static NOTHING: std::sync::LazyLock<PagedBytes> =
            std::sync::LazyLock::new(|| PageSource::empty().open());
        let load = |id: SectionId| -> Result<PagedReader<'_>, std::convert::Infallible> {
            let index = SECTIONS.iter().position(|&section| section == id);
            let section = index.and_then(|index| self.sections.get(index));
            Ok(PagedReader::new(section.unwrap_or(&NOTHING)))
        };
        match gimli::Dwarf::load(load) {
            Ok(dwarf) => dwarf,
            Err(never) => match never {},
        }
    }
}

/// The sections of an object and of its supplement.
#[derive(Debug)]
struct OpenFiles {
    object: Sections,
    supplement: Option<Sections>,
}

self_cell!(
    struct ParsedDwarf {
        owner: OpenFiles,
        #[not_covariant]
        dependent: Units,
    }
);

/// The DWARF of one object.
pub struct ObjectDwarf {
    object: SectionSources,
    supplement: Option<SectionSources>,
    index: Arc<UnitIndex>,
    parsed: Option<ParsedDwarf>,
    /// The unit that was asked about last.
    last_unit: Option<u32>,
    /// In units that were dropped.
    malformed_units: u64,
}

impl std::fmt::Debug for ObjectDwarf {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ObjectDwarf").field("object", &self.object).finish_non_exhaustive()
    }
}

/// Whether an object carries DWARF with functions (a stripped one may have `.debug_frame` and no more).
#[must_use]
pub fn is_in(object: &ObjectFile) -> bool {
    object.section_header(".debug_info").is_some_and(|header| header.has_contents() && header.bytes > 0)
}

impl ObjectDwarf {
    /// Finds the sections of an object (and of its dwz supplement) and lists its units.
    ///
    /// # Errors
    /// [`ObjectError`], of which `TooLarge` says that compressed sections are over
    /// [`MAX_UNPACKED_BYTES`].
    pub fn read(object: &ObjectFile, supplement: Option<&ObjectFile>) -> Result<Self, ObjectError> {
        let mut unpacked_bytes = 0;
        let object = SectionSources::read(object, &mut unpacked_bytes)?;
        let supplement =
            supplement.map(|object| SectionSources::read(object, &mut unpacked_bytes)).transpose()?;
        let index = Arc::new(UnitIndex::list(&object, supplement.as_ref()));
        Ok(Self { object, supplement, index, parsed: None, last_unit: None, malformed_units: 0 })
    }

    /// Bytes of memory held, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let supplement = self.supplement.as_ref().map_or(0, SectionSources::memory_bytes);
        self.object.memory_bytes() + supplement + self.index.memory_bytes() + self.working_bytes()
    }

    /// Units that could not be read; again when they were read again.
    #[must_use]
    pub fn malformed_units(&self) -> u64 {
        let parsed = self.parsed.as_ref();
        let malformed = parsed.map_or(0, |parsed| parsed.with_dependent(|_, units| units.malformed()));
        self.index.malformed + self.malformed_units + malformed
    }

    /// What addresses are to be sorted by, so that each unit is read once: its number.
    #[must_use]
    pub fn order(&self, address: u64) -> Option<u32> {
        self.index.by_address.covering(address).next()
    }

    /// The functions at an ELF address, innermost first; empty if no unit knows the address.
    #[must_use]
    pub fn find(&mut self, address: u64) -> Vec<DwarfFrame> {
        let Some(unit) = self.order(address) else { return Vec::new() };
        if self.last_unit.replace(unit) != Some(unit) && self.working_bytes() > WORKING_BYTES {
            self.forget();
        }
        let parsed = self.parsed.get_or_insert_with(|| {
            let files = OpenFiles {
                object: self.object.open(),
                supplement: self.supplement.as_ref().map(SectionSources::open),
            };
            ParsedDwarf::new(files, |files| {
                let mut dwarf = files.object.dwarf();
                if let Some(supplement) = &files.supplement {
                    dwarf.set_sup(supplement.dwarf());
                }
                Units::new(dwarf, Arc::clone(&self.index))
            })
        });
        parsed.with_dependent(|_, units| units.find(address))
    }

    /// Drops what can be read again.
    pub fn forget(&mut self) {
        if let Some(parsed) = self.parsed.take() {
            self.malformed_units += parsed.with_dependent(|_, units| units.malformed());
        }
    }

    fn working_bytes(&self) -> usize {
        self.parsed.as_ref().map_or(0, |parsed| {
            parsed.with_dependent(|files, units| {
                let supplement = files.supplement.as_ref().map_or(0, Sections::held_bytes);
                files.object.held_bytes() + supplement + units.memory_bytes()
            })
        })
    }
}
