//! Which source speaks for which addresses.
//!
//! A span is an address range and the entry that describes it. Within one source, an entry is in
//! force from its begin to its end or to the begin of the next entry, whichever is first, as libgcc's
//! and LLVM's look-up through `.eh_frame_hdr` behaves; of entries that begin at one address the first
//! in the section counts. Between sources, a later one only fills what the earlier ones left.

/// Where the rules of a span are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// An FDE of `.eh_frame` at this offset.
    EhFrame(u32),
    /// An FDE of `.debug_frame` at this offset.
    DebugFrame(u32),
    /// Rows of Go's tables.
    Go,
    /// Nobody; but it is where the program begins, so nothing called it.
    Entry,
    /// Nobody; but it is known of a runtime: which of the pieces of code that were found.
    Runtime(u32),
    /// Nobody; but the code keeps frame pointers.
    FramePointer,
}

/// A half-open address range with one source. At most 4 GiB. 16 bytes: large programs have a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub begin: u64,
    pub bytes: u32,
    /// Which source in the two highest bits, offset below: sections of more than 1 GiB are not read.
    source: u32,
}

const DEBUG_FRAME: u32 = 1 << 30;
const GO: u32 = 2 << 30;
const ENTRY: u32 = 3 << 30;
const OFFSET_MASK: u32 = DEBUG_FRAME - 1;
const _: () = assert!(crate::object_file::MAX_FRAME_SECTION_BYTES <= OFFSET_MASK as u64);

impl Span {
    pub(super) fn new(begin: u64, bytes: u32, source: Source) -> Self {
        let source = match source {
            Source::EhFrame(offset) => offset & OFFSET_MASK,
            Source::DebugFrame(offset) => offset & OFFSET_MASK | DEBUG_FRAME,
            Source::Go => GO,
            Source::Entry => ENTRY,
            Source::Runtime(index) => (index + 1) & OFFSET_MASK | ENTRY,
            Source::FramePointer => OFFSET_MASK | ENTRY,
        };
        Self { begin, bytes, source }
    }

    pub(super) fn source(&self) -> Source {
        let offset = self.source & OFFSET_MASK;
        match self.source & !OFFSET_MASK {
            0 => Source::EhFrame(offset),
            DEBUG_FRAME => Source::DebugFrame(offset),
            GO => Source::Go,
            _ if offset == OFFSET_MASK => Source::FramePointer,
            _ => offset.checked_sub(1).map_or(Source::Entry, Source::Runtime),
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.begin.saturating_add(u64::from(self.bytes))
    }
}

/// Sorts the spans of one source and makes them disjoint. Returns how many were cut or dropped.
pub(super) fn sort_and_separate(spans: &mut Vec<Span>) -> u64 {
    spans.sort_unstable_by_key(|span| (span.begin, span.source));
    let mut overlaps = 0;
    spans.dedup_by(|later, earlier| {
        let is_second = later.begin == earlier.begin;
        if is_second {
            overlaps += 1;
        } else if earlier.end() > later.begin {
            overlaps += 1;
            // Shorter than it was, so it still fits.
            earlier.bytes = (later.begin - earlier.begin) as u32;
        }
        is_second
    });
    overlaps
}

/// Adds those parts of `fillers` that `spans` do not cover. Both sorted and disjoint, so is the
/// result. Linear.
pub(super) fn fill_gaps(spans: Vec<Span>, fillers: &[Span]) -> Vec<Span> {
    if fillers.is_empty() {
        return spans;
    }
    let mut merged = Vec::with_capacity(spans.len() + fillers.len());
    let mut covering = spans.iter().peekable();
    for filler in fillers {
        let mut begin = filler.begin;
        while begin < filler.end() {
            while let Some(span) = covering.next_if(|span| span.begin <= begin) {
                merged.push(*span);
                begin = begin.max(span.end());
            }
            // A span that was passed for an earlier filler may reach into this one.
            if let Some(passed) = merged.last() {
                begin = begin.max(passed.end());
            }
            let end = covering.peek().map_or(filler.end(), |span| span.begin.min(filler.end()));
            if begin < end {
                merged.push(Span { begin, bytes: (end - begin) as u32, source: filler.source });
                begin = end;
            }
        }
    }
    merged.extend(covering);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(begin: u64, end: u64, source: Source) -> Span {
        Span::new(begin, u32::try_from(end - begin).unwrap(), source)
    }

    fn source_at(spans: &[Span], address: u64) -> Option<Source> {
        let mut at = spans.iter().filter(|span| (span.begin..span.end()).contains(&address));
        let found = at.next().map(Span::source);
        assert!(at.next().is_none(), "{address} is covered twice");
        found
    }

    #[test]
    fn the_nearest_begin_before_an_address_speaks_for_it_and_nothing_resumes() {
        let mut spans = vec![
            span(0, 100, Source::EhFrame(1)),
            span(40, 60, Source::EhFrame(2)),
            span(40, 90, Source::EhFrame(3)),
        ];
        assert_eq!(sort_and_separate(&mut spans), 2);
        assert_eq!(spans, [span(0, 40, Source::EhFrame(1)), span(40, 60, Source::EhFrame(2))]);
    }

    #[test]
    fn a_source_comes_back_as_it_went_in_up_to_the_largest_offset() {
        assert_eq!(size_of::<Span>(), 16);
        for offset in [0, 1, crate::object_file::MAX_FRAME_SECTION_BYTES as u32, OFFSET_MASK] {
            for source in [Source::EhFrame(offset), Source::DebugFrame(offset), Source::Go] {
                assert_eq!(Span::new(5, 6, source).source(), source);
            }
        }
    }

    #[test]
    fn a_filler_is_split_around_what_is_there() {
        let there = vec![span(10, 20, Source::EhFrame(0)), span(20, 30, Source::EhFrame(9))];
        let merged = fill_gaps(there, &[span(0, 50, Source::Go)]);
        let expected = [
            span(0, 10, Source::Go),
            span(10, 20, Source::EhFrame(0)),
            span(20, 30, Source::EhFrame(9)),
            span(30, 50, Source::Go),
        ];
        assert_eq!(merged, expected);
    }

    prop_compose! {
        fn disjoint(source: Source)(lengths in proptest::collection::vec((0u64..9, 1u64..9), 0..12)) -> Vec<Span> {
            let mut spans = Vec::new();
            let mut position = 0;
            for (gap, length) in lengths {
                spans.push(span(position + gap, position + gap + length, source));
                position += gap + length;
            }
            spans
        }
    }

    proptest! {
        #[test]
        fn the_earlier_source_wins_and_the_later_fills(
            first in disjoint(Source::EhFrame(1)),
            second in disjoint(Source::DebugFrame(2)),
        ) {
            let merged = fill_gaps(first.clone(), &second);
            prop_assert!(merged.windows(2).all(|pair| pair[0].end() <= pair[1].begin));
            for address in 0..220 {
                let expected = source_at(&first, address).or(source_at(&second, address));
                prop_assert_eq!(source_at(&merged, address), expected, "at {}", address);
            }
        }
    }
}
