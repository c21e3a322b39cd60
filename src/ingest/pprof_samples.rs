//! The samples of a pprof profile, which are nearly all of its bytes.
//!
//! A profile of ten megabytes has millions of location ids. Decoding them into messages first and looking at these then
//! takes several times as long as reading them once, where they lie. What is unusual about a sample (a field that
//! profile.proto does not know, labels between other fields, anything broken) is left to the general decoder, so that both
//! say the same.

use prost::Message;

use super::{IngestError, wire};
use crate::export::pprof_proto as proto;

/// Number of the field in the message `Profile`.
const SAMPLE: u32 = 2;

/// The message `Profile` in two parts.
pub(super) struct Parts<'a> {
    /// Each sample's bytes.
    pub samples: Vec<&'a [u8]>,
    /// All other fields, in their order.
    pub rest: Vec<u8>,
}

/// Takes the samples out. More than `limit` of them are refused, and bytes that are no fields.
///
/// # Errors
/// [`IngestError::TooLarge`], [`IngestError::Wire`].
pub(super) fn parts(bytes: &[u8], limit: usize) -> Result<Parts<'_>, IngestError> {
    let mut parts = Parts { samples: Vec::new(), rest: Vec::new() };
    let (mut at, mut rest_begins) = (0, 0);
    while at < bytes.len() {
        let begin = at;
        let field = wire::field(bytes, &mut at).ok_or(IngestError::Wire { offset: begin })?;
        if let wire::Field { number: SAMPLE, value: wire::Value::Bytes(sample) } = field {
            if parts.samples.len() >= limit {
                return Err(IngestError::TooLarge { what: "protocol-buffer fields", limit });
            }
            parts.samples.push(sample);
            parts.rest.extend_from_slice(bytes.get(rest_begins..begin).unwrap_or_default());
            rest_begins = at;
        }
    }
    parts.rest.extend_from_slice(bytes.get(rest_begins..).unwrap_or_default());
    Ok(parts)
}

/// One sample as it is written. The vectors are used again for the next one.
#[derive(Debug, Default)]
pub(super) struct RawSample<'a> {
    /// Ids of locations, leaf first.
    pub locations: Vec<u64>,
    /// One value for each sample type.
    pub values: Vec<i64>,
    /// The fields of its labels, end to end: samples for which they are equal have equal labels.
    pub labels: Labels<'a>,
}

/// The labels of a sample.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Labels<'a> {
    /// As they are written.
    Written(&'a [u8]),
    /// Written between other fields, and therefore decoded.
    Decoded(Vec<proto::Label>),
}

impl Default for Labels<'_> {
    fn default() -> Self {
        Self::Written(&[])
    }
}

impl Labels<'_> {
    /// The labels, in the order of the file.
    ///
    /// # Errors
    /// [`IngestError::Message`].
    pub(super) fn decoded(&self) -> Result<Vec<proto::Label>, IngestError> {
        match self {
            // A sample that has nothing but labels.
            Self::Written(bytes) => Ok(decoded(bytes)?.label),
            Self::Decoded(labels) => Ok(labels.clone()),
        }
    }
}

impl<'a> RawSample<'a> {
    /// Reads a sample in the place of the one before it.
    ///
    /// # Errors
    /// [`IngestError::Message`].
    pub(super) fn read(&mut self, bytes: &'a [u8]) -> Result<(), IngestError> {
        if self.read_usual(bytes).is_none() {
            let sample = decoded(bytes)?;
            self.locations = sample.location_id;
            self.values = sample.value;
            self.labels = Labels::Decoded(sample.label);
        }
        Ok(())
    }

    /// None for anything unusual.
    fn read_usual(&mut self, bytes: &'a [u8]) -> Option<()> {
        self.locations.clear();
        self.values.clear();
        let mut labels = 0..0;
        let mut at = 0;
        while at < bytes.len() {
            let begin = at;
            let field = wire::field(bytes, &mut at)?;
            match (field.number, field.value) {
                (1, wire::Value::Varint(id)) => self.locations.push(id),
                (1, wire::Value::Bytes(packed)) => each_number(packed, |id| self.locations.push(id))?,
                (2, wire::Value::Varint(value)) => self.values.push(value.cast_signed()),
                (2, wire::Value::Bytes(packed)) => {
                    each_number(packed, |value| self.values.push(value.cast_signed()))?;
                }
                (3, wire::Value::Bytes(_)) if labels.is_empty() => labels = begin..at,
                (3, wire::Value::Bytes(_)) if labels.end == begin => labels.end = at,
                _ => return None,
            }
        }
        self.labels = Labels::Written(bytes.get(labels)?);
        Some(())
    }
}

#[inline]
fn each_number(packed: &[u8], mut take: impl FnMut(u64)) -> Option<()> {
    let mut at = 0;
    while at < packed.len() {
        take(wire::varint(packed, &mut at)?);
    }
    Some(())
}

fn decoded(bytes: &[u8]) -> Result<proto::Sample, IngestError> {
    proto::Sample::decode(bytes).map_err(|source| IngestError::Message { format: "pprof", source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the general decoder makes of the same bytes.
    fn agrees(bytes: &[u8]) -> Result<(), TestCaseError> {
        let mut sample = RawSample::default();
        let read = sample.read(bytes).and_then(|()| sample.labels.decoded());
        match (read, proto::Sample::decode(bytes)) {
            (Ok(labels), Ok(expected)) => {
                prop_assert_eq!(&sample.locations, &expected.location_id);
                prop_assert_eq!(&sample.values, &expected.value);
                prop_assert_eq!(labels, expected.label);
            }
            (Err(_), Err(_)) => {}
            (one, other) => prop_assert!(false, "{one:?} but {other:?}"),
        }
        Ok(())
    }

    fn label() -> impl Strategy<Value = proto::Label> {
        (any::<i64>(), any::<i64>(), any::<i64>(), any::<i64>())
            .prop_map(|(key, str, num, num_unit)| proto::Label { key, str, num, num_unit })
    }

    proptest! {
        #[test]
        fn any_sample_is_read_as_the_general_decoder_reads_it(
            location_id in proptest::collection::vec(any::<u64>(), 0..5),
            value in proptest::collection::vec(any::<i64>(), 0..4),
            label in proptest::collection::vec(label(), 0..4),
            cut in 0_usize..200,
            changed in proptest::collection::vec((0_usize..200, any::<u8>()), 0..3),
        ) {
            let mut bytes = proto::Sample { location_id, value, label }.encode_to_vec();
            agrees(&bytes)?;
            for (at, byte) in changed {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            agrees(&bytes)?;
            agrees(&bytes[..cut.min(bytes.len())])?;
        }

        #[test]
        fn any_bytes_are_read_as_the_general_decoder_reads_them(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            agrees(&bytes)?;
        }

        #[test]
        fn a_message_is_its_parts(
            before in proptest::collection::vec(any::<i64>(), 0..3),
            samples in proptest::collection::vec(proptest::collection::vec(any::<i64>(), 0..3), 0..4),
            after in proptest::collection::vec(any::<i64>(), 0..3),
        ) {
            let sample = |value: &Vec<i64>| proto::Sample { value: value.clone(), ..proto::Sample::default() };
            let first = proto::Profile {
                comment: before, sample: samples.iter().map(sample).collect(), ..proto::Profile::default()
            };
            let second = proto::Profile {
                comment: after, sample: samples.iter().map(sample).collect(), ..proto::Profile::default()
            };
            // Two messages end to end are one.
            let bytes = [first.encode_to_vec(), second.encode_to_vec()].concat();
            let whole = proto::Profile::decode(bytes.as_slice()).expect("it was encoded");
            let parts = parts(&bytes, 100).expect("it was encoded");
            let rest = proto::Profile::decode(parts.rest.as_slice()).expect("fields of it");
            prop_assert_eq!(rest, proto::Profile { sample: Vec::new(), ..whole.clone() });
            let read: Vec<_> = parts.samples.iter().map(|bytes| decoded(bytes).expect("a sample")).collect();
            prop_assert_eq!(read, whole.sample);
        }
    }

    #[test]
    fn too_many_samples_and_bytes_that_are_none_are_refused() {
        let bytes = [0x12, 0x00, 0x12, 0x00, 0x12, 0x00];
        assert_eq!(parts(&bytes, 3).expect("three").samples.len(), 3);
        assert!(matches!(parts(&bytes, 2), Err(IngestError::TooLarge { .. })));
        assert!(matches!(parts(&[0x12, 0x05, 0x00], 9), Err(IngestError::Wire { offset: 0 })));
        assert!(matches!(parts(&[0x12, 0x00, 0x0b], 9), Err(IngestError::Wire { offset: 2 })));
    }
}
