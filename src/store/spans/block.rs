//! A block: some spans that were written together, in three blobs, so that a search reads only what it needs.
//!
//! ```text
//! keys     for each span 4 bytes of a hash of its trace id and 4 of its span id, little-endian: what is
//!          gone through to find an id, 8 bytes a span
//! rows     texts, then a row for each span: what can be asked for
//! details  texts, then for each span its length and all the rest
//!
//! texts    count, then for each 0, length, bytes | number in the segment's dictionary + 1
//! row      kind | status << 3 | has parent 32 | is open 64 | has status code 128
//!          0, trace id | how many traces ago it came in this block
//!          span id, parent's id if it has one
//!          if the kind was 6 or 7: the kind, trace id and span id of what it was joined to (6) or from (7)
//!          start (difference to the row before), duration unless open
//!          service, name, library (texts), route + 1 or 0, method + 1 or 0, status code if it has one
//! detail   resource, version of the library, trace state, status message (texts)
//!          attributes, count (time − start, name, attributes)…, count (trace id, span id, state, attributes)…
//! attributes  count, (key (text), value)…
//! value    0, text | 1, number | 2, 8 bytes | 3 (false) | 4 (true) | 5, length, bytes
//!          | 6, count, value… | 7, count, (key (text), value)…
//! resource attributes whose texts stand there themselves (length, bytes)
//! ```
//!
//! All numbers are varints. Texts are referred to by their place in the list of their blob.

mod reading;
mod writing;

pub(in crate::store) use self::reading::{Details, Row, Rows, Texts};
pub(in crate::store) use self::writing::BlockWriter;
use crate::model::index_hash::mix;
use crate::model::span::{JOINED_FROM, JOINED_TO, OWN_LIBRARY, Span, SpanId, TraceId, ids_of_text, text_of};

const KIND_BITS: u8 = 0b111;
/// In the place of a kind: the kind follows, and what the span was joined to.
const IS_JOINED_TO: u8 = 6;
/// Likewise, what it was joined from.
const IS_JOINED_FROM: u8 = 7;
const STATUS_SHIFT: u8 = 3;
const STATUS_BITS: u8 = 0b11;
const HAS_PARENT: u8 = 32;
const IS_OPEN: u8 = 64;
const HAS_STATUS_CODE: u8 = 128;
/// Values in values: as deep as the limits let them be, and one more.
const MAX_DEPTH: usize = 9;
/// Bytes of keys for each span.
pub(in crate::store) const KEY_BYTES: usize = 8;

/// A block that is ready to be written.
#[derive(Debug)]
pub(in crate::store) struct EncodedBlock {
    pub(in crate::store) spans: u32,
    pub(in crate::store) first_start_ns: u64,
    pub(in crate::store) last_start_ns: u64,
    pub(in crate::store) keys: Vec<u8>,
    pub(in crate::store) rows: Vec<u8>,
    pub(in crate::store) details: Vec<u8>,
}

/// What of a trace id is in the keys.
pub(in crate::store) fn trace_key(id: TraceId) -> u32 {
    let [a, b, c, d, e, f, g, h, rest @ ..] = id.bytes();
    mix(u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ mix(u64::from_le_bytes(rest))) as u32
}

/// What of a span id is in the keys.
pub(in crate::store) fn span_key(id: SpanId) -> u32 {
    mix(u64::from_le_bytes(id.bytes())) as u32
}

/// The keys of a block: `(trace, span)` for each of its rows.
pub(in crate::store) fn keys(bytes: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    bytes
        .as_chunks::<KEY_BYTES>()
        .0
        .iter()
        .map(|&[a, b, c, d, e, f, g, h]| (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])))
}

/// What a span of ours has to do with one that an SDK made ([`JOINED_TO`], [`JOINED_FROM`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Joined {
    /// It has become that one, and is not shown.
    To((TraceId, SpanId)),
    /// It is what was known of that one under other ids.
    From((TraceId, SpanId)),
}

impl Joined {
    fn of(span: &Span) -> Option<Self> {
        if span.scope.0 != OWN_LIBRARY {
            return None;
        }
        let ids = |name: &str| text_of(&span.attributes, name).and_then(ids_of_text);
        ids(JOINED_TO).map(Self::To).or_else(|| ids(JOINED_FROM).map(Self::From))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::spans::dictionary::{SpanDictionary, SpanTexts};
    use crate::store::tests::spans::span;
    use crate::store::varint::Malformed;
    use proptest::prelude::*;

    /// The block of these spans, and the dictionary it needs.
    fn encoded(spans: &[Span]) -> (EncodedBlock, SpanTexts) {
        let mut dictionary = SpanDictionary::default();
        let mut writer = BlockWriter::new(&mut dictionary);
        for span in spans {
            writer.add(span);
        }
        let block = writer.finish();
        let mut texts = SpanTexts::default();
        texts.read(dictionary.new_page()).unwrap();
        (block, texts)
    }

    fn decoded(block: &EncodedBlock, texts: &SpanTexts) -> Result<Vec<Span>, Malformed> {
        let rows = Rows::read(&block.rows, texts)?;
        let mut details = Details::read(&block.details, texts)?;
        (0..rows.rows.len()).map(|index| details.span(index, &rows)).collect()
    }

    #[test]
    fn a_block_comes_back_and_its_keys_are_those_of_its_rows() {
        let mut spans: Vec<Span> = (0..20).map(|number| span(number / 3, number)).collect();
        // Starts that go back, and further than a difference of 63 bits.
        spans[4].start_unix_ns = 0;
        spans[4].end_unix_ns = Some(u64::MAX);
        spans[5].start_unix_ns = u64::MAX;
        spans[5].end_unix_ns = None;
        spans[6].parent_span_id = Some(spans[5].span_id);
        let (block, texts) = encoded(&spans);
        assert_eq!((block.spans, block.first_start_ns, block.last_start_ns), (20, 0, u64::MAX));
        assert_eq!(decoded(&block, &texts), Ok(spans.clone()));
        let expected: Vec<(u32, u32)> =
            spans.iter().map(|span| (trace_key(span.trace_id), span_key(span.span_id))).collect();
        assert_eq!(keys(&block.keys).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_later_span_of_a_process_takes_little() {
        let spans: Vec<Span> = (0..1000).map(|number| span(number, number)).collect();
        let (block, _) = encoded(&spans);
        let bytes = block.keys.len() + block.rows.len() + block.details.len();
        assert!(bytes < 130 * 1000, "{bytes}");
    }

    #[test]
    fn every_truncation_is_refused_or_has_fewer_spans() {
        let spans = [span(1, 1), span(1, 2)];
        let (block, texts) = encoded(&spans);
        for length in 0..block.rows.len() {
            if let Ok(rows) = Rows::read(&block.rows[..length], &texts) {
                assert!(rows.rows.len() < 2);
            }
        }
        let rows = Rows::read(&block.rows, &texts).unwrap();
        for length in 0..block.details.len() {
            let details = Details::read(&block.details[..length], &texts);
            assert!(details.is_err() || details.is_ok_and(|mut details| details.span(1, &rows).is_err()));
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(rows: Vec<u8>, details: Vec<u8>) {
            let texts = SpanTexts::default();
            let block = EncodedBlock {
                spans: 0, first_start_ns: 0, last_start_ns: 0, keys: rows.clone(), rows, details,
            };
            prop_assert!(keys(&block.keys).count() <= block.keys.len());
            let _ = decoded(&block, &texts);
        }

        #[test]
        fn a_block_that_was_damaged_never_panics(at: usize, byte: u8, in_rows: bool) {
            let (mut block, texts) = encoded(&[span(1, 1), span(2, 2), span(1, 3)]);
            let blob = if in_rows { &mut block.rows } else { &mut block.details };
            let at = at % blob.len();
            blob[at] = byte;
            let _ = decoded(&block, &texts);
        }
    }
}
