//! A pprof message in parts: what there is much of, as bytes where they lie, and the rest.
//!
//! A profile of ten megabytes has millions of location ids, and tens of thousands of locations and texts. Decoding them
//! into messages first and looking at these then takes several times as long as reading them once, where they lie.

use super::{IngestError, wire};

/// Numbers of fields in the message `Profile`.
const SAMPLE: u32 = 2;
const LOCATION: u32 = 4;
const TEXT: u32 = 6;

/// The message `Profile` in parts, each in the order of the file.
pub(super) struct Parts<'a> {
    /// Each sample's bytes.
    pub samples: Vec<&'a [u8]>,
    /// Each location's bytes.
    pub locations: Vec<&'a [u8]>,
    /// The table of strings.
    pub texts: Vec<&'a [u8]>,
    /// All other fields.
    pub rest: Vec<u8>,
}

impl<'a> Parts<'a> {
    /// Takes a message apart. More than `limit` fields are refused, and bytes that are no fields. What the parts hold is
    /// not looked at.
    ///
    /// # Errors
    /// [`IngestError::TooLarge`], [`IngestError::Wire`].
    pub(super) fn of(bytes: &'a [u8], limit: usize) -> Result<Self, IngestError> {
        let mut parts =
            Self { samples: Vec::new(), locations: Vec::new(), texts: Vec::new(), rest: Vec::new() };
        let (mut at, mut rest_begins, mut taken) = (0, 0, 0_usize);
        while at < bytes.len() {
            let begin = at;
            let field = wire::field(bytes, &mut at).ok_or(IngestError::Wire { offset: begin })?;
            let (list, part) = match (field.number, field.value) {
                (SAMPLE, wire::Value::Bytes(part)) => (&mut parts.samples, part),
                (LOCATION, wire::Value::Bytes(part)) => (&mut parts.locations, part),
                (TEXT, wire::Value::Bytes(part)) => (&mut parts.texts, part),
                _ => continue,
            };
            taken += 1;
            if taken > limit {
                return Err(IngestError::TooLarge { what: "protocol-buffer fields", limit });
            }
            list.push(part);
            parts.rest.extend_from_slice(bytes.get(rest_begins..begin).unwrap_or_default());
            rest_begins = at;
        }
        parts.rest.extend_from_slice(bytes.get(rest_begins..).unwrap_or_default());
        wire::check_fields(&parts.rest, limit - taken)?;
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::pprof_proto as proto;
    use proptest::prelude::*;
    use prost::Message;

    proptest! {
        #[test]
        fn a_message_is_its_parts(
            comment in proptest::collection::vec(any::<i64>(), 0..3),
            samples in proptest::collection::vec(proptest::collection::vec(any::<i64>(), 0..3), 0..4),
            locations in proptest::collection::vec(any::<u64>(), 0..4),
            texts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..4),
        ) {
            let sample = |value: &Vec<i64>| proto::Sample { value: value.clone(), ..proto::Sample::default() };
            let location = |&id: &u64| proto::Location { id, ..proto::Location::default() };
            let half = proto::Profile {
                comment,
                sample: samples.iter().map(sample).collect(),
                location: locations.iter().map(location).collect(),
                string_table: texts,
                ..proto::Profile::default()
            };
            // Two messages end to end are one.
            let bytes = [half.encode_to_vec(), half.encode_to_vec()].concat();
            let whole = proto::Profile::decode(bytes.as_slice()).expect("it was encoded");
            let parts = Parts::of(&bytes, 100).expect("it was encoded");
            let rest = proto::Profile::decode(parts.rest.as_slice()).expect("fields of it");
            prop_assert_eq!(rest, proto::Profile { comment: whole.comment.clone(), ..proto::Profile::default() });
            let samples: Vec<_> =
                parts.samples.iter().map(|bytes| proto::Sample::decode(*bytes).expect("a sample")).collect();
            prop_assert_eq!(samples, whole.sample);
            let locations: Vec<_> =
                parts.locations.iter().map(|bytes| proto::Location::decode(*bytes).expect("a location")).collect();
            prop_assert_eq!(locations, whole.location);
            prop_assert_eq!(parts.texts, whole.string_table);
        }
    }

    #[test]
    fn too_many_parts_and_bytes_that_are_none_are_refused() {
        let bytes = [0x12, 0x00, 0x22, 0x00, 0x32, 0x00, 0x68, 0x00];
        assert_eq!(Parts::of(&bytes, 4).map(|parts| parts.samples.len()).expect("four"), 1);
        for fewer in 0..4 {
            assert!(matches!(Parts::of(&bytes, fewer), Err(IngestError::TooLarge { .. })), "{fewer}");
        }
        assert!(matches!(Parts::of(&[0x12, 0x05, 0x00], 9), Err(IngestError::Wire { offset: 0 })));
        assert!(matches!(Parts::of(&[0x12, 0x00, 0x0b], 9), Err(IngestError::Wire { offset: 2 })));
    }
}
