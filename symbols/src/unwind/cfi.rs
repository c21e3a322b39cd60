//! `.eh_frame`, `.debug_frame` and Go's tables of one object: found, listed, and evaluated.
//!
//! `.eh_frame` is found by its section, or for objects without sections by `PT_GNU_EH_FRAME`; it is
//! what the running program itself unwinds with and wins where it says something. Go's tables come
//! next, since Go's `.debug_frame` repeats them without their ends of stack; `.debug_frame` fills what
//! is left. Only addresses in executable segments count: entries of functions that a linker threw away
//! are left behind at address 0 or thereabouts.

use std::ops::Range;

use gimli::{BaseAddresses, DebugFrame, EhFrame, EhFrameHdr, EndianSlice, LittleEndian};

use super::frame_pointers;
use super::frame_section::{EntryReader, FrameSection};
use super::go_rows::GoRows;
use super::span::{self, Source, Span};
use super::{Row, UnwindError, UnwindRule};
use crate::object_file::MAX_FRAME_SECTION_BYTES;
use crate::{ElfAddress, Machine, ObjectError, ObjectFile, object_file::Section};

/// What was read of an object, and what of it could not be used. Figures for `doctor` and benches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CfiCounts {
    /// FDEs that were read.
    pub fdes: u64,
    /// Entries that are malformed or of an unknown version or augmentation.
    pub malformed_entries: u64,
    /// FDEs of addresses that are not executable.
    pub outside_of_code: u64,
    /// FDEs that were cut short or dropped because another begins within them.
    pub overlapping: u64,
    /// Rows of a form that is not evaluated (`UNSUPPORTED`).
    pub unsupported_rows: u64,
    /// Rows of Go's tables.
    pub go_rows: u64,
}

/// Longest piece of an entry point that nothing describes: ld.so's has 61 bytes. What lies behind may be
/// other functions.
const MAX_ENTRY_BYTES: u64 = 64;

/// The contents of an object's frame sections.
#[derive(Debug, Default)]
pub(super) struct FrameData {
    eh_frame: Option<Section>,
    /// The end of `.eh_frame` is not known, only that it ends with a terminator.
    eh_frame_ends_at_terminator: bool,
    debug_frame: Option<Section>,
    bases: BaseAddresses,
    /// Executable ranges, sorted and disjoint.
    code: Vec<Range<u64>>,
    /// Where the program begins, an ELF address.
    entry: u64,
    go_rows: GoRows,
    /// Code of V8 that nothing describes: what was generated when the object was built, and assembly.
    runtime_code: Vec<(Range<u64>, UnwindRule)>,
}

impl FrameData {
    /// Reads the sections of an x86-64 object.
    ///
    /// # Errors
    /// [`UnwindError::Object`] if `.eh_frame` cannot be read, or if another source cannot and nothing
    /// else is there; [`UnwindError::TooLarge`] likewise for Go's tables;
    /// [`UnwindError::UnsupportedMachine`].
    pub(super) fn read(object: &ObjectFile) -> Result<Self, UnwindError> {
        if object.machine() != Machine::X86_64 {
            return Err(UnwindError::UnsupportedMachine(object.path().to_owned()));
        }
        let mut data = Self { code: executable_ranges(object), entry: object.entry().0, ..Self::default() };
        data.eh_frame = object.section(".eh_frame")?;
        if data.eh_frame.is_none() {
            data.eh_frame = eh_frame_by_header(object);
            data.eh_frame_ends_at_terminator = true;
        }
        data.debug_frame = match object.section(".debug_frame") {
            Ok(section) => section,
            // A damaged second source must not cost the first.
            Err(error) if data.eh_frame.is_some() => {
                tracing::debug!("unwound without .debug_frame: {error}");
                None
            }
            Err(error) => return Err(error.into()),
        };
        data.go_rows = match GoRows::read(object) {
            Ok(rows) => rows,
            // Damage lasts, a failed read need not: a table without them must not be kept for good.
            Err(error @ UnwindError::Object(ObjectError::Io { .. })) => return Err(error),
            Err(error) if data.eh_frame.is_some() || data.debug_frame.is_some() => {
                tracing::debug!("unwound without Go's tables: {error}");
                GoRows::default()
            }
            Err(error) => return Err(error),
        };
        data.runtime_code = crate::v8::builtins::unwind_rules(object)?;
        // Pointers relative to text or data are relative to these (LSB Core, DW_EH_PE_textrel).
        let address_of = |name| object.section_header(name).map_or(0, |header| header.address.0);
        data.bases = BaseAddresses::default().set_text(address_of(".text")).set_got(address_of(".got"));
        if let Some(eh_frame) = &data.eh_frame {
            data.bases = data.bases.clone().set_eh_frame(eh_frame.address.0);
        }
        Ok(data)
    }

    /// The sections, ready to be evaluated; borrowed, so that threads can share them.
    pub(super) fn sources(&self) -> FrameSources<'_> {
        let mut sources = FrameSources {
            eh_frame: None,
            debug_frame: None,
            go_rows: &self.go_rows,
            runtime_code: &self.runtime_code,
            code: &self.code,
            entry: self.entry,
            eh_frame_ends_at_terminator: self.eh_frame_ends_at_terminator,
        };
        if let Some(section) = &self.eh_frame {
            let mut eh_frame = EhFrame::new(&section.data, LittleEndian);
            eh_frame.set_address_size(8);
            sources.eh_frame = Some(FrameSection::new(eh_frame, &section.data, self.bases.clone()));
        }
        if let Some(section) = &self.debug_frame {
            let mut debug_frame = DebugFrame::new(&section.data, LittleEndian);
            debug_frame.set_address_size(8);
            sources.debug_frame = Some(FrameSection::new(debug_frame, &section.data, self.bases.clone()));
        }
        sources
    }
}

/// The sources of an object's rules.
pub(super) struct FrameSources<'data> {
    eh_frame: Option<FrameSection<'data, EhFrame<EndianSlice<'data, LittleEndian>>>>,
    debug_frame: Option<FrameSection<'data, DebugFrame<EndianSlice<'data, LittleEndian>>>>,
    go_rows: &'data GoRows,
    runtime_code: &'data [(Range<u64>, UnwindRule)],
    code: &'data [Range<u64>],
    entry: u64,
    eh_frame_ends_at_terminator: bool,
}

/// What is reused from entry to entry; one for each thread.
pub(super) struct SourceReader<'data> {
    eh_frame: EntryReader<'data>,
    debug_frame: EntryReader<'data>,
}

impl SourceReader<'_> {
    pub(super) fn new() -> Self {
        Self { eh_frame: EntryReader::new(), debug_frame: EntryReader::new() }
    }
}

impl<'data> FrameSources<'data> {
    /// Everything that is known of an object's code, in ascending order, without overlaps.
    ///
    /// # Errors
    /// [`UnwindError::Object`] if code that nothing describes cannot be read.
    pub(super) fn spans(&self, object: &ObjectFile) -> Result<(Vec<Span>, CfiCounts), UnwindError> {
        let mut counts = CfiCounts { go_rows: self.go_rows.len() as u64, ..CfiCounts::default() };
        let mut reader = SourceReader::new();
        let mut spans = Vec::new();
        if let Some(section) = &self.eh_frame {
            let ends_at_terminator = self.eh_frame_ends_at_terminator;
            let entries = section.list_entries(
                &mut reader.eh_frame,
                self.code,
                ends_at_terminator,
                |begin, bytes, offset| spans.push(Span::new(begin, bytes, Source::EhFrame(offset))),
            );
            counts.add(entries);
            counts.overlapping += span::sort_and_separate(&mut spans);
        }
        spans = span::fill_gaps(spans, &go_spans(self.go_rows, self.code));
        if let Some(section) = &self.debug_frame {
            let mut fillers = Vec::new();
            let entries =
                section.list_entries(&mut reader.debug_frame, self.code, false, |begin, bytes, offset| {
                    fillers.push(Span::new(begin, bytes, Source::DebugFrame(offset)));
                });
            counts.add(entries);
            counts.overlapping += span::sort_and_separate(&mut fillers);
            spans = span::fill_gaps(spans, &fillers);
        }
        for (index, (range, _)) in self.runtime_code.iter().enumerate() {
            let bytes = u32::try_from(range.end.saturating_sub(range.start)).unwrap_or(u32::MAX);
            let span = Span::new(range.start, bytes, Source::Runtime(index as u32));
            spans = span::fill_gaps(spans, &[span]);
        }
        let keeping_frame_pointers = frame_pointers::spans(object, self.code, &spans)?;
        if !(spans.is_empty() && keeping_frame_pointers.is_empty()) {
            self.add_entry(&mut spans);
        }
        Ok((span::fill_gaps(spans, &keeping_frame_pointers), counts))
    }

    /// The entry point is the outermost frame whether or not anything says so. In ld.so of glibc before
    /// 2.37 and in musl's start files nothing does.
    fn add_entry(&self, spans: &mut Vec<Span>) {
        let behind = spans.partition_point(|span| span.begin <= self.entry);
        let is_described = behind.checked_sub(1).and_then(|last| spans.get(last));
        let is_described = is_described.is_some_and(|span| self.entry < span.end());
        let is_code = self.code.iter().any(|range| range.contains(&self.entry));
        if is_described || !is_code {
            return;
        }
        let end = spans.get(behind).map_or(u64::MAX, |next| next.begin);
        let bytes = end.saturating_sub(self.entry).min(MAX_ENTRY_BYTES) as u32;
        spans.insert(behind, Span::new(self.entry, bytes, Source::Entry));
    }

    /// Hands on the rules in force within a span: begin, end, rule. Returns how many were UNSUPPORTED.
    pub(super) fn rules_of_span(
        &self,
        reader: &mut SourceReader<'data>,
        span: &Span,
        follows_rbx: bool,
        mut on_rule: impl FnMut(u64, u64, UnwindRule),
    ) -> u64 {
        match span.source() {
            Source::EhFrame(offset) => self.eh_frame.as_ref().map_or(0, |section| {
                section.rules_of_entry(&mut reader.eh_frame, offset, span, follows_rbx, on_rule)
            }),
            Source::DebugFrame(offset) => self.debug_frame.as_ref().map_or(0, |section| {
                section.rules_of_entry(&mut reader.debug_frame, offset, span, follows_rbx, on_rule)
            }),
            Source::Entry => {
                on_rule(span.begin, span.end(), UnwindRule::END);
                0
            }
            Source::FramePointer => {
                on_rule(span.begin, span.end(), frame_pointers::RULE);
                0
            }
            Source::Runtime(index) => {
                if let Some((_, rule)) = self.runtime_code.get(index as usize) {
                    on_rule(span.begin, span.end(), *rule);
                }
                0
            }
            Source::Go => {
                let mut index = self.go_rows.after(span.begin).saturating_sub(1);
                while let Some(row) = self.go_rows.get(index) {
                    index += 1;
                    let begin = row.address.0.max(span.begin);
                    let next = self.go_rows.get(index);
                    let end = next.map_or(span.end(), |next| next.address.0.min(span.end()));
                    if begin >= span.end() {
                        break;
                    }
                    if begin < end {
                        on_rule(begin, end, row.rule);
                    }
                }
                0
            }
        }
    }
}

impl CfiCounts {
    fn add(&mut self, entries: super::frame_section::EntryCounts) {
        self.fdes += entries.fdes;
        self.malformed_entries += entries.malformed;
        self.outside_of_code += entries.outside_of_code;
    }
}

/// Appends the rows of everything an object has, Go's tables included, in ascending order, with a row
/// of [`UnwindRule::NONE`] where nothing is known any more. For tests and tools: [`super::UnwindTable`]
/// is built without this detour.
///
/// # Errors
/// [`UnwindError::Object`] if a section cannot be read.
pub fn rows(object: &ObjectFile, rows: &mut Vec<Row>) -> Result<CfiCounts, UnwindError> {
    let data = FrameData::read(object)?;
    let sources = data.sources();
    let (spans, mut counts) = sources.spans(object)?;
    let first_row = rows.len();
    for follows_rbx in [false, true] {
        let mut reader = SourceReader::new();
        let mut end_of_known = None;
        let mut needs_rbx = false;
        rows.truncate(first_row);
        counts.unsupported_rows = 0;
        for span in &spans {
            counts.unsupported_rows +=
                sources.rules_of_span(&mut reader, span, follows_rbx, |begin, end, rule| {
                    if let Some(known) = end_of_known
                        && known < begin
                    {
                        rows.push(Row { address: ElfAddress(known), rule: UnwindRule::NONE });
                    }
                    needs_rbx |= rule.needs_rbx();
                    rows.push(Row { address: ElfAddress(begin), rule });
                    end_of_known = Some(end);
                });
        }
        if let Some(known) = end_of_known {
            rows.push(Row { address: ElfAddress(known), rule: UnwindRule::NONE });
        }
        if !needs_rbx {
            break;
        }
    }
    Ok(counts)
}

/// Address ranges of the executable segments that have contents in the file.
fn executable_ranges(object: &ObjectFile) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = object
        .segments()
        .iter()
        .filter(|segment| segment.executable && segment.file_bytes > 0)
        .map(|segment| segment.address.0..segment.address.0.saturating_add(segment.file_bytes))
        .collect();
    ranges.sort_by_key(|range| (range.start, range.end));
    ranges.dedup_by(|later, earlier| {
        let joined = later.start <= earlier.end;
        if joined {
            earlier.end = earlier.end.max(later.end);
        }
        joined
    });
    ranges
}

/// `.eh_frame` of an object without sections: `.eh_frame_hdr` points to it, its end is a terminator.
/// `None` if there is none or the header is not usable.
fn eh_frame_by_header(object: &ObjectFile) -> Option<Section> {
    let (header_address, header_bytes) = object.eh_frame_header()?;
    // The fixed part is enough; the table behind it is not needed.
    let header = object.read_loaded(header_address, header_bytes.min(64)).ok()?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(header_address.0);
    let parsed = EhFrameHdr::new(&header, LittleEndian).parse(&bases, 8).ok()?;
    let address = ElfAddress(parsed.eh_frame_ptr().direct().ok()?);
    let data = object.read_loaded(address, MAX_FRAME_SECTION_BYTES).ok()?;
    Some(Section { address, data })
}

/// Go's rows as spans: each stretch between two rows of NONE, within the code.
fn go_spans(rows: &GoRows, code: &[Range<u64>]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for (index, row) in (0..rows.len()).filter_map(|index| Some((index, rows.get(index)?))) {
        if row.rule == UnwindRule::NONE {
            continue;
        }
        let begin = row.address.0;
        let Some(range) = code.get(code.partition_point(|range| range.end <= begin)) else { break };
        if !range.contains(&begin) {
            continue;
        }
        let end = rows.get(index + 1).map_or(range.end, |next| next.address.0.min(range.end));
        let last_end = spans.last().map_or(0, Span::end);
        match spans.last_mut() {
            Some(last) if last_end == begin => {
                last.bytes = u32::try_from(end - last.begin).unwrap_or(u32::MAX);
            }
            _ if begin < end => {
                let bytes = u32::try_from(end - begin).unwrap_or(u32::MAX);
                spans.push(Span::new(begin, bytes, Source::Go));
            }
            _ => {}
        }
    }
    spans
}
