//! A walk over protocol-buffer bytes before they are decoded.
//!
//! Two bytes of an empty embedded message decode into a struct of up to a hundred bytes, so that a
//! limit on the input alone does not bound the memory. This counts the fields first
//! (protobuf.dev/programming-guides/encoding). Whether a length-delimited field is a message, a text
//! or packed numbers does not show in the bytes; whatever can be read as a message is counted as one,
//! which overestimates at most. Each byte is looked at once per level, at most [`LEVELS`] times.

use super::IngestError;

/// Levels of embedded messages that are looked into: `ProfilesData` has six down to a sample's
/// attribute, pprof four.
const LEVELS: u32 = 7;
/// A request of spans has six down to an event's attribute, and four for each list or map in a list or map.
const DEEP_LEVELS: u32 = 20;

/// Refuses bytes that hold more than `limit` fields on all levels, or that are not fields at all.
pub(super) fn check_fields(bytes: &[u8], limit: usize) -> Result<(), IngestError> {
    checked(count(bytes, LEVELS, limit, false), limit)
}

/// The same for messages whose values hold values, to any depth: what lies below the levels that are looked
/// into counts as if it were empty fields, which no honest sender has there.
pub(super) fn check_fields_deeply(bytes: &[u8], limit: usize) -> Result<(), IngestError> {
    checked(count(bytes, DEEP_LEVELS, limit, true), limit)
}

fn checked(walk: Walk, limit: usize) -> Result<(), IngestError> {
    match walk {
        Walk::Fields(_) => Ok(()),
        Walk::TooMany => Err(IngestError::TooLarge { what: "protocol-buffer fields", limit }),
        Walk::Broken(offset) => Err(IngestError::Wire { offset }),
    }
}

#[derive(Clone, Copy)]
enum Walk {
    /// All bytes are fields, this many.
    Fields(usize),
    /// More than the limit.
    TooMany,
    /// Not a message: the offset at which that shows.
    Broken(usize),
}

fn count(bytes: &[u8], levels: u32, limit: usize, below_too: bool) -> Walk {
    let mut fields = 0_usize;
    let mut at = 0_usize;
    while at < bytes.len() {
        let start = at;
        let Some(tag) = varint(bytes, &mut at) else { return Walk::Broken(start) };
        if tag >> 3 == 0 || tag > u64::from(u32::MAX) {
            return Walk::Broken(start);
        }
        fields += 1;
        if fields > limit {
            return Walk::TooMany;
        }
        let length = match tag & 7 {
            0 => {
                if varint(bytes, &mut at).is_none() {
                    return Walk::Broken(start);
                }
                0
            }
            1 => 8,
            2 => {
                let Some(length) = varint(bytes, &mut at) else { return Walk::Broken(start) };
                let Ok(length) = usize::try_from(length) else { return Walk::Broken(start) };
                let Some(inner) = at.checked_add(length).and_then(|end| bytes.get(at..end)) else {
                    return Walk::Broken(start);
                };
                if levels > 0 {
                    match count(inner, levels - 1, limit - fields, below_too) {
                        Walk::Fields(inner_fields) => fields += inner_fields,
                        Walk::TooMany => return Walk::TooMany,
                        Walk::Broken(_) => {}
                    }
                } else if below_too {
                    fields = fields.saturating_add(length / 2);
                    if fields > limit {
                        return Walk::TooMany;
                    }
                }
                length
            }
            5 => 4,
            // Groups are of proto2, and no profile has them.
            _ => return Walk::Broken(start),
        };
        at = match at.checked_add(length) {
            Some(end) if end <= bytes.len() => end,
            _ => return Walk::Broken(start),
        };
    }
    Walk::Fields(fields)
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_messages_count_and_the_limit_is_exact() {
        // Field 2, two bytes long, holding two empty fields 3: three fields in all.
        let bytes = [0x12, 0x04, 0x1a, 0x00, 0x1a, 0x00];
        assert!(check_fields(&bytes, 3).is_ok());
        assert!(matches!(check_fields(&bytes, 2), Err(IngestError::TooLarge { .. })));
        assert!(check_fields(&[], 0).is_ok());
    }

    #[test]
    fn lengths_beyond_the_end_endless_varints_and_field_zero_are_broken() {
        for bytes in [
            &[0x12][..],
            &[0x12, 0x05, 0x00],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
            &[0x00, 0x00],
            &[0x0b],
            &[0x09, 1, 2, 3, 4, 5, 6, 7],
            &[0x0d, 1, 2, 3],
        ] {
            assert!(matches!(check_fields(bytes, 100), Err(IngestError::Wire { .. })), "{bytes:?}");
        }
    }
}
