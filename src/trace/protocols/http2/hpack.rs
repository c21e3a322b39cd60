//! HPACK (RFC 7541), read by somebody who may have come late.
//!
//! Each direction of a connection has a dynamic table that both its ends keep: an entry that is inserted
//! gets index 62 and moves all others up by one; the oldest ones are evicted when the sizes of all exceed
//! the table's maximum. Who joins in the middle does not have the table. He need not: indices count from the
//! newest entry, so after N insertions that he saw, 62 … 61+N are those, and higher ones are older and
//! unknown. That is never wrong, whatever was evicted:
//!
//! - An encoder only refers to entries that are in the table. Eviction takes the oldest, so an index that is
//!   in the table and at most 61+N is one of the N.
//! - An entry that is too large for the table empties it instead of being inserted. Whether it was too
//!   large cannot be told without the maximum; then it is counted as inserted, and it and all that are older
//!   are never referred to, while newer ones count from the newest as before.
//! - A smaller maximum evicts more, a larger one later brings nothing back; the same holds. After a maximum
//!   of 0 the table is empty, and from then on everything is known.
//!
//! So eviction matters only for memory. Entries are dropped here when the newer ones alone fill the maximum,
//! which changes by the updates in header blocks alone (section 4.2), 4096 at the beginning. Who joined late
//! takes [`MAX_TABLE_BYTES`] for it, and so does who is told more than that: an entry dropped too early
//! is unknown. An entry whose name refers to an unknown one has a size of which only the rest is known; its
//! name counts as empty, so that it is rather kept.
//!
//! The number of insertions must be exact, so a block of which a byte was not seen, or that makes no sense,
//! ends all knowledge ([`Decoder::forget`]).
//!
//! Kept of an entry: which of the fields of `fields.rs` it is, and the value if it is one of those.

use std::collections::VecDeque;

use super::super::fields::{FieldName, known};
use super::huffman;
use crate::trace::exchange::Known;

/// Size that is taken for a table's maximum if that is not known, or larger.
pub(super) const MAX_TABLE_BYTES: u64 = 65536;
/// Maximum at the beginning of a connection (RFC 9113 section 6.5.2).
const DEFAULT_TABLE_BYTES: u64 = 4096;
/// What an entry counts beside its name and value (RFC 7541 section 4.1).
const ENTRY_OVERHEAD_BYTES: u64 = 32;

/// A block makes no sense; nothing is known from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// One direction's dynamic table, as far as it is known.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Newest first.
    entries: VecDeque<Entry>,
    /// Their sizes together, at least.
    size: u64,
    /// At most so much is in the table.
    max_size: u64,
    /// Whether all that is in the table is here.
    is_complete: bool,
    /// Decoded strings, while they are looked at.
    name: Vec<u8>,
    value: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    /// `None` if it is not known.
    name: Option<FieldName>,
    /// Absent if nobody asks for it.
    value: Known,
    /// 0 if the name is not known.
    name_length: u64,
    size: u64,
}

impl Decoder {
    /// At the beginning of a connection.
    pub(super) fn at_beginning() -> Self {
        Self { max_size: DEFAULT_TABLE_BYTES, is_complete: true, ..Self::in_the_middle() }
    }

    /// Somewhere.
    pub(super) fn in_the_middle() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            max_size: MAX_TABLE_BYTES,
            is_complete: false,
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Blocks were lost.
    pub(super) fn forget(&mut self) {
        self.entries.clear();
        self.size = 0;
        self.max_size = MAX_TABLE_BYTES;
        self.is_complete = false;
    }

    #[cfg(test)]
    pub(super) fn footprint(&self) -> usize {
        self.entries.len() * size_of::<Entry>() + self.name.capacity() + self.value.capacity()
    }

    /// Reads a block; each field is given to `take` in order, with what its name is, if that is known. The
    /// value of a field of no interest is absent.
    pub(super) fn decode(
        &mut self,
        block: &[u8],
        mut take: impl FnMut(Option<FieldName>, &Known),
    ) -> Result<(), Malformed> {
        let decoded = self.decode_fields(block, &mut take);
        if decoded.is_err() {
            self.forget();
        }
        // One long value must not keep its memory for ever.
        self.name.shrink_to(256);
        self.value.shrink_to(1024);
        decoded
    }

    fn decode_fields(
        &mut self,
        block: &[u8],
        take: &mut impl FnMut(Option<FieldName>, &Known),
    ) -> Result<(), Malformed> {
        let mut rest = Reader { bytes: block };
        let mut may_resize = true;
        while let Some(&first) = rest.bytes.first() {
            match first {
                // Indexed (section 6.1).
                0x80.. => match rest.integer(7)? {
                    0 => return Err(Malformed),
                    index => self.indexed(index, take)?,
                },
                // Literal, to be inserted (section 6.2.1).
                0x40.. => {
                    let (name, name_length) = self.name_of(&mut rest, 6)?;
                    let value = self.value_of(&mut rest, name)?;
                    take(name, &value);
                    let size = ENTRY_OVERHEAD_BYTES + name_length + self.value.len() as u64;
                    self.insert(Entry { name, value, name_length, size });
                }
                // The maximum changes (section 6.3), which only the beginning of a block can say.
                0x20.. => {
                    let size = rest.integer(5)?;
                    if !may_resize {
                        return Err(Malformed);
                    }
                    self.resize(size);
                    continue;
                }
                // Literal, not to be inserted, now or ever (sections 6.2.2 and 6.2.3).
                _ => {
                    let (name, _) = self.name_of(&mut rest, 4)?;
                    let value = self.value_of(&mut rest, name)?;
                    take(name, &value);
                }
            }
            may_resize = false;
        }
        Ok(())
    }

    fn indexed(&self, index: u64, take: &mut impl FnMut(Option<FieldName>, &Known)) -> Result<(), Malformed> {
        if let Some(&(name, value)) = static_entry(index) {
            match FieldName::of(name.as_bytes()) {
                FieldName::Other => take(Some(FieldName::Other), &Known::Absent),
                name => take(Some(name), &known(value.as_bytes())),
            }
            return Ok(());
        }
        match self.dynamic_entry(index)? {
            Some(entry) => take(entry.name, &entry.value),
            None => take(None, &Known::Unknown),
        }
        Ok(())
    }

    /// The entry of this index; `None` if it is older than what is known.
    fn dynamic_entry(&self, index: u64) -> Result<Option<&Entry>, Malformed> {
        let age = index.checked_sub(STATIC.len() as u64 + 1).ok_or(Malformed)?;
        let entry = usize::try_from(age).ok().and_then(|age| self.entries.get(age));
        // No table holds more than this: what refers to more is no header block.
        let is_possible = age < u64::from(u32::MAX) / ENTRY_OVERHEAD_BYTES && !self.is_complete;
        if entry.is_none() && !is_possible { Err(Malformed) } else { Ok(entry) }
    }

    /// A literal's name, and its length as far as it is known.
    fn name_of(
        &mut self,
        rest: &mut Reader<'_>,
        prefix_bits: u32,
    ) -> Result<(Option<FieldName>, u64), Malformed> {
        match rest.integer(prefix_bits)? {
            0 => {
                rest.string(&mut self.name)?;
                Ok((Some(FieldName::of(&self.name)), self.name.len() as u64))
            }
            index => match static_entry(index) {
                Some((name, _)) => Ok((Some(FieldName::of(name.as_bytes())), name.len() as u64)),
                None => Ok(match self.dynamic_entry(index)? {
                    Some(entry) => (entry.name, entry.name_length),
                    None => (None, 0),
                }),
            },
        }
    }

    /// A literal's value, which is in `self.value` as well.
    fn value_of(&mut self, rest: &mut Reader<'_>, name: Option<FieldName>) -> Result<Known, Malformed> {
        rest.string(&mut self.value)?;
        Ok(match name {
            None | Some(FieldName::Other) => Known::Absent,
            Some(_) => known(&self.value),
        })
    }

    fn insert(&mut self, entry: Entry) {
        if entry.size > self.max_size {
            self.entries.clear();
            self.size = 0;
            return;
        }
        self.size += entry.size;
        self.entries.push_front(entry);
        self.evict();
    }

    fn resize(&mut self, max_size: u64) {
        match max_size {
            // Nothing is in it, so that all is known again.
            0 => self.is_complete = true,
            _ => self.is_complete &= max_size <= MAX_TABLE_BYTES,
        }
        self.max_size = max_size.min(MAX_TABLE_BYTES);
        self.evict();
    }

    fn evict(&mut self) {
        while self.size > self.max_size {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size = self.size.saturating_sub(oldest.size);
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// An integer whose first bits are the lowest of the next byte (section 5.1).
    fn integer(&mut self, prefix_bits: u32) -> Result<u64, Malformed> {
        const MAX_SHIFT: u32 = 28;
        let (&first, mut rest) = self.bytes.split_first().ok_or(Malformed)?;
        let all_ones = (1_u64 << prefix_bits) - 1;
        let mut value = u64::from(first) & all_ones;
        if value == all_ones {
            let mut shift = 0;
            loop {
                let (&next, after) = rest.split_first().ok_or(Malformed)?;
                rest = after;
                value += u64::from(next & 0x7f) << shift;
                if next & 0x80 == 0 {
                    break;
                }
                shift += 7;
                if shift > MAX_SHIFT {
                    return Err(Malformed);
                }
            }
        }
        self.bytes = rest;
        Ok(value)
    }

    /// A string (section 5.2), instead of what was in `decoded`.
    fn string(&mut self, decoded: &mut Vec<u8>) -> Result<(), Malformed> {
        decoded.clear();
        let is_coded = self.bytes.first().is_some_and(|byte| byte & 0x80 != 0);
        let length = usize::try_from(self.integer(7)?).map_err(|_| Malformed)?;
        let (string, rest): (&'a [u8], &'a [u8]) = self.bytes.split_at_checked(length).ok_or(Malformed)?;
        self.bytes = rest;
        if !is_coded {
            decoded.extend_from_slice(string);
            return Ok(());
        }
        if huffman::decode(string, decoded) { Ok(()) } else { Err(Malformed) }
    }
}

fn static_entry(index: u64) -> Option<&'static (&'static str, &'static str)> {
    STATIC.get(usize::try_from(index).ok()?.checked_sub(1)?)
}

/// RFC 7541 appendix A.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""),
    ("cache-control", ""), ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""),
    ("content-length", ""), ("content-location", ""), ("content-range", ""), ("content-type", ""),
    ("cookie", ""), ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(Option<FieldName>, Known)>, Malformed> {
        let mut fields = Vec::new();
        decoder.decode(block, |name, value| fields.push((name, value.clone()))).map(|()| fields)
    }

    /// Fields as the specification's examples write them; those of no interest are absent.
    fn expected(fields: &[&str]) -> Vec<(Option<FieldName>, Known)> {
        fields
            .iter()
            .map(|field| {
                let (name, value) = field.split_at(field[1..].find(':').unwrap() + 1);
                let name = FieldName::of(name.as_bytes());
                let value = value.trim_start_matches(": ");
                (
                    Some(name),
                    if name == FieldName::Other { Known::Absent } else { Known::Value(value.into()) },
                )
            })
            .collect()
    }

    /// RFC 7541 appendix C.2 to C.6, with the sizes that the tables have afterwards.
    #[test]
    fn examples_of_the_specification() {
        let one = |block: &str, fields: &[&str]| {
            let decoded = decode(&mut Decoder::at_beginning(), &bytes_of(block));
            assert_eq!(decoded, Ok(expected(fields)), "{block}");
        };
        one("400a637573746f6d2d6b65790d637573746f6d2d686561646572", &["custom-key: custom-header"]);
        one("040c2f73616d706c652f70617468", &[":path: /sample/path"]);
        one("100870617373776f726406736563726574", &["password: secret"]);
        one("82", &[":method: GET"]);

        let requests = [
            &[":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"][..],
            &[
                ":method: GET",
                ":scheme: http",
                ":path: /",
                ":authority: www.example.com",
                "cache-control: no-cache",
            ],
            &[
                ":method: GET",
                ":scheme: https",
                ":path: /index.html",
                ":authority: www.example.com",
                "custom-key: custom-value",
            ],
        ];
        for blocks in [
            [
                "828684410f7777772e6578616d706c652e636f6d",
                "828684be58086e6f2d6361636865",
                "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
            ],
            [
                "828684418cf1e3c2e5f23a6ba0ab90f4ff",
                "828684be5886a8eb10649cbf",
                "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
            ],
        ] {
            let mut decoder = Decoder::at_beginning();
            for ((block, fields), size) in blocks.iter().zip(requests).zip([57, 110, 164]) {
                assert_eq!(decode(&mut decoder, &bytes_of(block)), Ok(expected(fields)));
                assert_eq!(decoder.size, size);
            }
        }

        let date = "date: Mon, 21 Oct 2013 20:13:21 GMT";
        let (cache, location) = ("cache-control: private", "location: https://www.example.com");
        let cookie = "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
        let responses = [
            &[":status: 302", cache, date, location][..],
            &[":status: 307", cache, date, location],
            &[":status: 200", cache, date, location, "content-encoding: gzip", cookie],
        ];
        for blocks in [
            [
                "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d",
                "4803333037c1c0bf",
                "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
            ],
            [
                "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
                "4883640effc1c0bf",
                "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
            ],
        ] {
            // The examples have a table of 256 bytes, so that entries are evicted.
            let mut decoder = Decoder::at_beginning();
            decoder.resize(256);
            for ((block, fields), size) in blocks.iter().zip(responses).zip([222, 222, 215]) {
                assert_eq!(decode(&mut decoder, &bytes_of(block)), Ok(expected(fields)));
                assert_eq!(decoder.size, size);
            }
        }
    }

    #[test]
    fn integers_of_the_specification() {
        for (bytes, prefix_bits, value) in
            [(&[0x0a][..], 5, Ok(10)), (&[0x1f, 0x9a, 0x0a], 5, Ok(1337)), (&[0x2a], 8, Ok(42))]
        {
            assert_eq!(Reader { bytes }.integer(prefix_bits), value);
        }
        assert_eq!(Reader { bytes: &[0x1f] }.integer(5), Err(Malformed));
        assert_eq!(Reader { bytes: &[0x1f, 0x80] }.integer(5), Err(Malformed));
        assert_eq!(Reader { bytes: &[0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f] }.integer(5), Err(Malformed));
    }

    /// One connection's blocks, each with its fields.
    type Blocks = Vec<(Vec<u8>, Vec<(FieldName, String)>)>;

    /// What Python's encoder made, by connection.
    fn recorded() -> Vec<(&'static str, Blocks)> {
        let mut connections: Vec<(&str, Blocks)> = Vec::new();
        for line in
            include_str!("blocks_of_another_encoder.txt").lines().filter(|line| !line.starts_with('#'))
        {
            if let Some(name) = line.strip_prefix("! ") {
                connections.push((name, Vec::new()));
                continue;
            }
            let mut parts = line.split('\t');
            let block = bytes_of(parts.next().unwrap());
            let fields = parts.map(|field| {
                let (name, value) = field.split_once('=').unwrap();
                (FieldName::of(name.as_bytes()), value.to_owned())
            });
            connections.last_mut().unwrap().1.push((block, fields.collect()));
        }
        connections
    }

    /// How many of the fields of interest are unknown, of how many; none may be wrong.
    fn compare(decoder: &mut Decoder, blocks: &Blocks) -> (usize, usize) {
        let (mut unknown, mut all) = (0, 0);
        for (block, fields) in blocks {
            let decoded = decode(decoder, block).expect("a block");
            assert_eq!(decoded.len(), fields.len());
            for ((name, value), (right_name, right_value)) in decoded.iter().zip(fields) {
                all += usize::from(*right_name != FieldName::Other);
                match name {
                    None => unknown += usize::from(*right_name != FieldName::Other),
                    Some(name) => {
                        assert_eq!(name, right_name);
                        let right = match name {
                            FieldName::Other => Known::Absent,
                            _ => Known::Value(right_value.as_str().into()),
                        };
                        assert_eq!(*value, right);
                    }
                }
            }
        }
        (unknown, all)
    }

    #[test]
    fn another_encoders_blocks_from_the_beginning() {
        for (name, blocks) in recorded() {
            let (unknown, all) = compare(&mut Decoder::at_beginning(), &blocks);
            assert_eq!(unknown, 0, "{name}");
            assert!(all >= 3 * blocks.len());
        }
    }

    #[test]
    fn another_encoders_blocks_joined_at_every_place_are_never_wrong() {
        for (name, blocks) in recorded() {
            let (mut unknown, mut all) = (0, 0);
            for join in 1..blocks.len() {
                let rest: Blocks = blocks[join..].to_vec();
                let (unknown_here, all_here) = compare(&mut Decoder::in_the_middle(), &rest);
                (unknown, all) = (unknown + unknown_here, all + all_here);
            }
            println!("{name}: {unknown} of {all} unknown, none wrong");
            assert!(unknown < all);
        }
    }

    #[test]
    fn another_encoders_blocks_with_losses_are_never_wrong() {
        for (_, blocks) in recorded() {
            for lost in [3, 11, 29] {
                let mut decoder = Decoder::at_beginning();
                for part in blocks.chunks(lost + 2) {
                    compare(&mut decoder, &part[..part.len().min(lost)].to_vec());
                    decoder.forget();
                }
            }
        }
    }

    #[test]
    fn an_index_beyond_a_table_that_is_known_is_malformed_and_beyond_another_unknown() {
        assert_eq!(decode(&mut Decoder::at_beginning(), &[0xbe]), Err(Malformed));
        assert_eq!(decode(&mut Decoder::in_the_middle(), &[0xbe]), Ok(vec![(None, Known::Unknown)]));
        let mut decoder = Decoder::in_the_middle();
        // A literal whose name is not known is inserted all the same, so that the next one is number 63.
        assert_eq!(decode(&mut decoder, &[0x7f, 0x00, 0x01, b'x']), Ok(vec![(None, Known::Absent)]));
        assert_eq!(decode(&mut decoder, b"\x44\x02/a"), Ok(expected(&[":path: /a"])));
        assert_eq!(decode(&mut decoder, &[0xbf]), Ok(vec![(None, Known::Absent)]));
        // A size of nothing and back: the table is empty, and known.
        assert_eq!(decode(&mut decoder, &[0x20, 0x3f, 0xe1, 0x1f]), Ok(vec![]));
        assert_eq!(decode(&mut decoder, &[0xbe]), Err(Malformed));
        assert_eq!(decode(&mut Decoder::in_the_middle(), &[0x80]), Err(Malformed));
        assert_eq!(decode(&mut Decoder::in_the_middle(), &[0x82, 0x20]), Err(Malformed), "resized too late");
    }

    proptest! {
        #[test]
        fn any_blocks_are_read_in_bounded_memory(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..50)) {
            for mut decoder in [Decoder::at_beginning(), Decoder::in_the_middle()] {
                for block in &blocks {
                    let _ = decode(&mut decoder, block);
                    prop_assert!(decoder.size <= MAX_TABLE_BYTES);
                    prop_assert!(decoder.entries.len() <= 2048);
                }
            }
        }
    }
}
