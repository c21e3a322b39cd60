//! A `.eh_frame` or `.debug_frame` section: the list of its FDEs, and the rows of one of them.
//!
//! Formats: DWARF 5 section 6.4 (`.debug_frame`) and the LSB Core specification, chapter 10.6
//! (`.eh_frame`). gimli decodes entries and runs their programs; this file walks from entry to entry
//! itself, because a section may hold zero terminators in its middle (crtend.o linked before other
//! objects) and damaged entries that must not hide what follows.
//!
//! Hostile input: entries are found by length, so each byte is looked at once; a CIE's program is run
//! again for each of its FDEs and is therefore limited; an FDE's own program is as long as its entry.
//! Known gaps: segmented addresses, address sizes other than 8, and the `eh` augmentation of GCC 2.

use std::collections::HashMap;
use std::ops::Range;

use gimli::{
    BaseAddresses, CommonInformationEntry, EndianSlice, Error, FrameDescriptionEntry, LittleEndian, Register,
    RegisterRule, UnwindContext, UnwindContextStorage, UnwindSection, UnwindTableRow,
};

use super::layout::{UnwindRule, cfa};
use super::rule::{RowContext, rule_of_row};
use super::span::Span;
use crate::little_endian::{u32_at, u64_at};

/// Bytes of code and of data.
pub(super) type Slice<'data> = EndianSlice<'data, LittleEndian>;

/// Largest CIE that is believed. Real ones have some thirty bytes.
const MAX_CIE_BYTES: usize = 2048;
/// CIEs that are kept decoded. GNU ld leaves a handful; one for each input file is the worst.
const MAX_CACHED_CIES: usize = 4096;

/// Enough for every register the psABI numbers to be saved somewhere in a row, and for the nested
/// remembered states that compilers emit (one).
#[derive(Debug)]
pub(super) struct RowStorage;

impl UnwindContextStorage<usize> for RowStorage {
    type Rules = [(Register, RegisterRule<usize>); 64];
    type Stack = Box<[UnwindTableRow<usize, Self>; 8]>;
}

/// What is reused from FDE to FDE.
pub(super) struct EntryReader<'data> {
    context: UnwindContext<usize, RowStorage>,
    cies: HashMap<usize, CommonInformationEntry<Slice<'data>>>,
    last_cie: Option<(usize, CommonInformationEntry<Slice<'data>>)>,
}

impl EntryReader<'_> {
    pub(super) fn new() -> Self {
        Self { context: UnwindContext::new_in(), cies: HashMap::new(), last_cie: None }
    }
}

/// What was met while entries were listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct EntryCounts {
    pub fdes: u64,
    pub malformed: u64,
    pub outside_of_code: u64,
}

/// One section of call-frame information.
pub(super) struct FrameSection<'data, Section> {
    section: Section,
    data: &'data [u8],
    bases: BaseAddresses,
}

impl<'data, Section> FrameSection<'data, Section>
where
    Section: UnwindSection<Slice<'data>>,
    Section::Offset: From<usize>,
{
    /// `section` must be over `data`.
    pub(super) fn new(section: Section, data: &'data [u8], bases: BaseAddresses) -> Self {
        Self { section, data, bases }
    }

    /// Lists the FDEs that describe code, as spans in the order of the section. `code` are the
    /// executable address ranges, sorted. `ends_at_terminator` if what follows the first zero length
    /// need not belong to the section (its end is not known).
    pub(super) fn list_entries(
        &self,
        reader: &mut EntryReader<'data>,
        code: &[Range<u64>],
        ends_at_terminator: bool,
        mut on_fde: impl FnMut(u64, u32, u32),
    ) -> EntryCounts {
        let mut counts = EntryCounts::default();
        let mut offset = 0usize;
        while let Some(entry_end) = self.entry_end(offset) {
            let Some(entry_end) = entry_end else {
                // A zero length.
                if ends_at_terminator {
                    break;
                }
                offset += 4;
                continue;
            };
            if entry_end > self.data.len() {
                counts.malformed += 1;
                break;
            }
            match self.parse_fde(reader, offset) {
                Ok(fde) => {
                    counts.fdes += 1;
                    let begin = fde.initial_address();
                    let range = code.get(code.partition_point(|range| range.end <= begin));
                    match range.filter(|range| range.contains(&begin) && fde.len() > 0) {
                        Some(range) => {
                            let bytes = u32::try_from(fde.len().min(range.end - begin)).unwrap_or(u32::MAX);
                            // Sections are limited to far less than 4 GiB.
                            on_fde(begin, bytes, u32::try_from(offset).unwrap_or(u32::MAX));
                        }
                        None => counts.outside_of_code += 1,
                    }
                }
                Err(Error::NotCiePointer(_)) => {}
                Err(_) => counts.malformed += 1,
            }
            offset = entry_end;
        }
        counts
    }

    /// Where the entry at `offset` ends: `None` at the end of the section, `Some(None)` for a
    /// terminator. May lie past the end of the section.
    fn entry_end(&self, offset: usize) -> Option<Option<usize>> {
        let length = u32_at(self.data, offset)?;
        match length {
            0 => Some(None),
            0xffff_ffff => {
                let length = usize::try_from(u64_at(self.data, offset.checked_add(4)?)?).ok()?;
                Some(Some(offset.checked_add(12)?.saturating_add(length)))
            }
            _ => Some(Some(offset.checked_add(4)?.saturating_add(usize::try_from(length).ok()?))),
        }
    }

    fn parse_fde(
        &self,
        reader: &mut EntryReader<'data>,
        offset: usize,
    ) -> gimli::Result<FrameDescriptionEntry<Slice<'data>>> {
        let partial = self.section.partial_fde_from_offset(&self.bases, Section::Offset::from(offset))?;
        partial.parse(|section, bases, cie_offset| {
            let key = gimli::UnwindOffset::into(cie_offset);
            if let Some((last_key, last)) = &reader.last_cie
                && *last_key == key
            {
                return Ok(last.clone());
            }
            let cie = match reader.cies.get(&key) {
                Some(cie) => cie.clone(),
                None => {
                    let cie = section.cie_from_offset(bases, cie_offset)?;
                    if cie.entry_len() > MAX_CIE_BYTES {
                        return Err(Error::UnknownAugmentation);
                    }
                    if cie.address_size() != 8 {
                        return Err(Error::UnsupportedAddressSize(cie.address_size()));
                    }
                    if reader.cies.len() >= MAX_CACHED_CIES {
                        reader.cies.clear();
                    }
                    reader.cies.insert(key, cie.clone());
                    cie
                }
            };
            reader.last_cie = Some((key, cie.clone()));
            Ok(cie)
        })
    }

    /// Hands on the rules of the FDE at `offset` that are in force within `span`: begin, end, rule, in
    /// ascending order without overlaps. From where the program cannot be followed any more the rule
    /// is UNSUPPORTED. Returns how many rows were of a form that is not evaluated.
    pub(super) fn rules_of_entry(
        &self,
        reader: &mut EntryReader<'data>,
        offset: u32,
        span: &Span,
        follows_rbx: bool,
        mut on_rule: impl FnMut(u64, u64, UnwindRule),
    ) -> u64 {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let Ok(fde) = self.parse_fde(reader, offset) else { return 0 };
        let context = RowContext {
            return_address_register: fde.cie().return_address_register(),
            is_signal_frame: fde.is_signal_trampoline(),
            follows_rbx,
        };
        let mut unsupported = 0;
        let mut position = span.begin;
        let mut complete = false;
        if let Ok(mut rows) = fde.rows(&self.section, &self.bases, &mut reader.context) {
            loop {
                match rows.next_row() {
                    Ok(Some(row)) => {
                        let end = row.end_address().min(span.end());
                        if end <= position {
                            continue;
                        }
                        let begin = row.start_address().max(position);
                        if begin >= span.end() {
                            complete = true;
                            break;
                        }
                        let rule = rule_of_row(&self.section, row, context);
                        unsupported += u64::from(rule.cfa == cfa::UNSUPPORTED);
                        if begin < end {
                            on_rule(begin, end, rule);
                            position = end;
                        }
                    }
                    Ok(None) => {
                        complete = true;
                        break;
                    }
                    Err(_) => break,
                }
            }
        }
        if !complete && position < span.end() {
            on_rule(position, span.end(), UnwindRule::UNSUPPORTED);
            unsupported += 1;
        }
        unsupported
    }
}

#[cfg(test)]
mod tests {
    use gimli::EhFrame;

    use super::*;
    use crate::unwind::span::Source;

    /// A section under construction; addresses are absolute, as without augmentation.
    #[derive(Default)]
    struct Builder {
        data: Vec<u8>,
    }

    impl Builder {
        fn entry(&mut self, contents: &[u8]) -> usize {
            let offset = self.data.len();
            self.data.extend_from_slice(&u32::try_from(contents.len()).unwrap().to_le_bytes());
            self.data.extend_from_slice(contents);
            offset
        }

        /// `cfa = rsp + 8; ra at cfa - 8`, then `padding` nops.
        fn cie(&mut self, padding: usize) -> usize {
            let mut contents = vec![0, 0, 0, 0, 1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1];
            contents.resize(contents.len() + padding, 0);
            self.entry(&contents)
        }

        fn fde(&mut self, cie: usize, begin: u64, bytes: u64, program: &[u8]) -> usize {
            let distance = u32::try_from(self.data.len() + 4 - cie).unwrap();
            let mut contents = distance.to_le_bytes().to_vec();
            contents.extend_from_slice(&begin.to_le_bytes());
            contents.extend_from_slice(&bytes.to_le_bytes());
            contents.extend_from_slice(program);
            self.entry(&contents)
        }

        fn terminator(&mut self) {
            self.data.extend_from_slice(&[0; 4]);
        }

        fn list(&self, ends_at_terminator: bool) -> (Vec<(u64, u32)>, EntryCounts) {
            let code = [0x1000..0x2000, 0x8000..0x9000];
            let section = EhFrame::new(&self.data, LittleEndian);
            let section = FrameSection::new(section, &self.data, BaseAddresses::default());
            let mut found = Vec::new();
            let counts = section.list_entries(
                &mut EntryReader::new(),
                &code,
                ends_at_terminator,
                |begin, bytes, _| {
                    found.push((begin, bytes));
                },
            );
            (found, counts)
        }

        /// Begin, end, kind and offset of CFA.
        fn rules(&self, offset: usize, begin: u64, bytes: u32) -> Vec<(u64, u64, u8, i32)> {
            let section = EhFrame::new(&self.data, LittleEndian);
            let section = FrameSection::new(section, &self.data, BaseAddresses::default());
            let offset = u32::try_from(offset).unwrap();
            let span = Span::new(begin, bytes, Source::EhFrame(offset));
            let mut found = Vec::new();
            section.rules_of_entry(&mut EntryReader::new(), offset, &span, false, |begin, end, rule| {
                found.push((begin, end, rule.cfa, rule.cfa_offset));
            });
            found
        }
    }

    // DW_CFA_advance_loc is 0x40 + bytes, DW_CFA_def_cfa_offset 0x0e.

    #[test]
    fn a_terminator_in_the_middle_ends_only_what_has_no_known_end() {
        let mut builder = Builder::default();
        let cie = builder.cie(0);
        builder.fde(cie, 0x1000, 0x10, &[]);
        builder.terminator();
        builder.fde(cie, 0x1010, 0x10, &[]);
        assert_eq!(builder.list(false).0, [(0x1000, 0x10), (0x1010, 0x10)]);
        assert_eq!(builder.list(true).0, [(0x1000, 0x10)]);
    }

    #[test]
    fn only_code_is_described_and_only_to_its_end() {
        let mut builder = Builder::default();
        let cie = builder.cie(0);
        builder.fde(cie, 0, 0x10, &[]);
        builder.fde(cie, 0x1ff0, 0x100, &[]);
        builder.fde(cie, 0x2000, 0x10, &[]);
        builder.fde(cie, 0x1000, 0, &[]);
        builder.fde(cie, 0x8000, u64::MAX, &[]);
        let (found, counts) = builder.list(false);
        assert_eq!(found, [(0x1ff0, 0x10), (0x8000, 0x1000)]);
        assert_eq!((counts.fdes, counts.outside_of_code, counts.malformed), (5, 3, 0));
    }

    #[test]
    fn a_damaged_entry_hides_no_other_and_one_past_the_end_ends_the_list() {
        let mut builder = Builder::default();
        let cie = builder.cie(0);
        let damaged = builder.fde(cie, 0x1000, 0x10, &[]);
        builder.data[damaged + 4] = 1;
        builder.fde(cie, 0x1010, 0x10, &[]);
        let last = builder.fde(cie, 0x1020, 0x10, &[]);
        builder.data[last] = 0xf0;
        let (found, counts) = builder.list(false);
        assert_eq!(found, [(0x1010, 0x10)]);
        assert_eq!(counts.malformed, 2);
    }

    #[test]
    fn a_cie_that_would_be_run_for_too_long_is_refused() {
        let mut builder = Builder::default();
        let cie = builder.cie(MAX_CIE_BYTES);
        builder.fde(cie, 0x1000, 0x10, &[]);
        let (found, counts) = builder.list(false);
        assert_eq!((found.len(), counts.malformed), (0, 1));
    }

    #[test]
    fn rows_are_cut_to_the_span() {
        let mut builder = Builder::default();
        let cie = builder.cie(0);
        let fde = builder.fde(cie, 0x1000, 0x20, &[0x44, 0x0e, 16, 0x44, 0x0e, 24]);
        let register = cfa::REGISTER;
        let whole =
            [(0x1000, 0x1004, register, 8), (0x1004, 0x1008, register, 16), (0x1008, 0x1020, register, 24)];
        assert_eq!(builder.rules(fde, 0x1000, 0x20), whole);
        assert_eq!(builder.rules(fde, 0x1005, 1), [(0x1005, 0x1006, register, 16)]);
        assert_eq!(builder.rules(fde, 0x1000, 4), [whole[0]]);
        assert_eq!(
            builder.rules(fde, 0x1006, 4),
            [(0x1006, 0x1008, register, 16), (0x1008, 0x100a, register, 24)]
        );
    }

    #[test]
    fn from_an_instruction_that_cannot_be_followed_on_nothing_is_claimed() {
        let mut builder = Builder::default();
        let cie = builder.cie(0);
        // DW_CFA_restore_state without a remembered state.
        let fde = builder.fde(cie, 0x1000, 0x20, &[0x44, 0x0e, 16, 0x44, 0x0b, 0x44, 0x0e, 24]);
        let expected = [
            (0x1000, 0x1004, cfa::REGISTER, 8),
            (0x1004, 0x1008, cfa::REGISTER, 16),
            (0x1008, 0x1020, cfa::UNSUPPORTED, 0),
        ];
        assert_eq!(builder.rules(fde, 0x1000, 0x20), expected);
    }
}
