//! The samples of a pprof profile, which are nearly all of its bytes, read where they lie. What is unusual about one (a
//! field that profile.proto does not know, labels between other fields, anything broken) is left to the general decoder, so
//! that both say the same.

use std::ops::Range;

use prost::Message;

use super::{IngestError, wire};
use crate::export::pprof_proto as proto;

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
                (1, wire::Value::Bytes(packed)) => {
                    each_number(bytes, at - packed.len()..at, |id| self.locations.push(id))?;
                }
                (2, wire::Value::Varint(value)) => self.values.push(value.cast_signed()),
                (2, wire::Value::Bytes(packed)) => {
                    each_number(bytes, at - packed.len()..at, |value| {
                        self.values.push(value.cast_signed());
                    })?;
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

/// Takes the numbers that are packed into a part of a message. None if they do not fill it.
#[inline]
fn each_number(message: &[u8], part: Range<usize>, mut take: impl FnMut(u64)) -> Option<()> {
    // What follows the part lets its last numbers, too, be read several bytes at a time.
    let mut at = part.start;
    while at < part.end {
        take(wire::varint(message, &mut at)?);
    }
    (at == part.end).then_some(())
}

fn decoded(bytes: &[u8]) -> Result<proto::Sample, IngestError> {
    proto::Sample::decode(bytes).map_err(|source| IngestError::Message { format: "pprof", source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::damaged_bytes::damage;
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
            damage in damage(),
        ) {
            let bytes = proto::Sample { location_id, value, label }.encode_to_vec();
            damage.each(bytes, agrees)?;
        }

        #[test]
        fn any_bytes_are_read_as_the_general_decoder_reads_them(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            agrees(&bytes)?;
        }
    }
}
