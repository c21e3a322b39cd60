//! The locations of a pprof profile, read where they lie. What is unusual about one (a field that profile.proto does not
//! know, anything broken) is left to the general decoder, so that both say the same.

use prost::Message;

use super::{IngestError, wire};
use crate::export::pprof_proto as proto;

/// One location as it is written. The vector is used again for the next one.
#[derive(Debug, Default)]
pub(super) struct RawLocation {
    /// Not 0, in a sound profile.
    pub id: u64,
    /// 0 if there is none.
    pub mapping_id: u64,
    /// Address.
    pub address: u64,
    /// Ids of functions and lines, the innermost first.
    pub lines: Vec<(u64, i64)>,
}

impl RawLocation {
    /// Reads a location in the place of the one before it.
    ///
    /// # Errors
    /// [`IngestError::Message`].
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), IngestError> {
        if self.read_usual(bytes).is_none() {
            let location = proto::Location::decode(bytes)
                .map_err(|source| IngestError::Message { format: "pprof", source })?;
            (self.id, self.mapping_id, self.address) = (location.id, location.mapping_id, location.address);
            self.lines.clear();
            self.lines.extend(location.line.iter().map(|line| (line.function_id, line.line)));
        }
        Ok(())
    }

    /// None for anything unusual.
    fn read_usual(&mut self, bytes: &[u8]) -> Option<()> {
        (self.id, self.mapping_id, self.address) = (0, 0, 0);
        self.lines.clear();
        let mut at = 0;
        while at < bytes.len() {
            let field = wire::field(bytes, &mut at)?;
            match (field.number, field.value) {
                (1, wire::Value::Varint(id)) => self.id = id,
                (2, wire::Value::Varint(id)) => self.mapping_id = id,
                (3, wire::Value::Varint(address)) => self.address = address,
                (4, wire::Value::Bytes(bytes)) => self.lines.push(line(bytes)?),
                // Whether functions were folded into one, which nobody asks for.
                (5, wire::Value::Varint(_)) => {}
                _ => return None,
            }
        }
        Some(())
    }
}

fn line(bytes: &[u8]) -> Option<(u64, i64)> {
    let (mut function_id, mut line) = (0, 0);
    let mut at = 0;
    while at < bytes.len() {
        let field = wire::field(bytes, &mut at)?;
        match (field.number, field.value) {
            (1, wire::Value::Varint(id)) => function_id = id,
            (2, wire::Value::Varint(number)) => line = number.cast_signed(),
            // The column.
            (3, wire::Value::Varint(_)) => {}
            _ => return None,
        }
    }
    Some((function_id, line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::damaged_bytes::damage;
    use proptest::prelude::*;

    /// What the general decoder makes of the same bytes.
    fn agrees(bytes: &[u8]) -> Result<(), TestCaseError> {
        // What was there before leaves no trace.
        let mut location = RawLocation { id: 9, mapping_id: 9, address: 9, lines: vec![(9, 9)] };
        match (location.read(bytes), proto::Location::decode(bytes)) {
            (Ok(()), Ok(expected)) => {
                prop_assert_eq!(
                    (location.id, location.mapping_id, location.address),
                    (expected.id, expected.mapping_id, expected.address)
                );
                let lines: Vec<_> = expected.line.iter().map(|line| (line.function_id, line.line)).collect();
                prop_assert_eq!(location.lines, lines);
            }
            (Err(_), Err(_)) => {}
            (one, other) => prop_assert!(false, "{one:?} but {other:?}"),
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn any_location_is_read_as_the_general_decoder_reads_it(
            (id, mapping_id, address) in any::<(u64, u64, u64)>(),
            lines in proptest::collection::vec(any::<(u64, i64)>(), 0..4),
            damage in damage(),
        ) {
            let line = lines.iter().map(|&(function_id, line)| proto::Line { function_id, line }).collect();
            let bytes = proto::Location { id, mapping_id, address, line }.encode_to_vec();
            damage.each(bytes, agrees)?;
        }

        #[test]
        fn any_bytes_are_read_as_the_general_decoder_reads_them(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            agrees(&bytes)?;
        }
    }
}
