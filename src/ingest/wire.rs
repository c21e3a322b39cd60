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
        let Some(field) = field(bytes, &mut at) else { return Walk::Broken(start) };
        fields += 1;
        if fields > limit {
            return Walk::TooMany;
        }
        let Value::Bytes(inner) = field.value else { continue };
        if levels > 0 {
            match count(inner, levels - 1, limit - fields, below_too) {
                Walk::Fields(inner_fields) => fields += inner_fields,
                Walk::TooMany => return Walk::TooMany,
                Walk::Broken(_) => {}
            }
        } else if below_too {
            fields = fields.saturating_add(inner.len() / 2);
            if fields > limit {
                return Walk::TooMany;
            }
        }
    }
    Walk::Fields(fields)
}

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field<'a> {
    /// Its number.
    pub number: u32,
    /// What it holds.
    pub value: Value<'a>,
}

/// What a field holds, as far as its bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A number.
    Varint(u64),
    /// A number of four or eight bytes.
    Fixed,
    /// A message, a text, or packed numbers.
    Bytes(&'a [u8]),
}

/// The field that begins at `at`, which is then the place after it. None where there is no field: groups are of proto2,
/// and no profile has them.
#[inline]
pub(super) fn field<'a>(bytes: &'a [u8], at: &mut usize) -> Option<Field<'a>> {
    let tag = varint(bytes, at)?;
    let number = u32::try_from(tag).ok()? >> 3;
    if number == 0 {
        return None;
    }
    let mut fixed = |length: usize| {
        *at = at.checked_add(length).filter(|&end| end <= bytes.len())?;
        Some(Value::Fixed)
    };
    let value = match tag & 7 {
        0 => Value::Varint(varint(bytes, at)?),
        1 => fixed(8)?,
        2 => {
            let length = usize::try_from(varint(bytes, at)?).ok()?;
            let end = at.checked_add(length)?;
            let inner = bytes.get(*at..end)?;
            *at = end;
            Value::Bytes(inner)
        }
        5 => fixed(4)?,
        _ => return None,
    };
    Some(Field { number, value })
}

/// The number that begins at `at`, which is then the place after it. None if it does not end, or has more than 64 bits.
#[inline]
pub(super) fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    // Eight bytes at once: of ids in no order, how many bytes the next one has is what no processor foresees.
    if let Some(word) = bytes.get(*at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*word);
        let last = !word & 0x8080_8080_8080_8080;
        if last != 0 {
            *at += last.trailing_zeros() as usize / 8 + 1;
            return Some(joined(word & (last ^ (last - 1))));
        }
    }
    varint_bytewise(bytes, at)
}

/// The number of which each byte has seven bits, the lowest first; the highest bit of each byte does not count.
#[inline]
fn joined(word: u64) -> u64 {
    let pairs = word & 0x007f_007f_007f_007f | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let fours = pairs & 0x0000_3fff_0000_3fff | (pairs & 0x3fff_0000_3fff_0000) >> 2;
    fours & 0x0fff_ffff | (fours & 0x0fff_ffff_0000_0000) >> 4
}

fn varint_bytewise(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
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

    #[test]
    fn numbers_of_any_length_are_read_as_byte_by_byte_whatever_follows() {
        for bits in 0..=64_u32 {
            for number in [1_u64.checked_shl(bits).unwrap_or(0), u64::MAX.checked_shr(64 - bits).unwrap_or(0)]
            {
                let mut bytes = Vec::new();
                prost::encoding::encode_varint(number, &mut bytes);
                let length = bytes.len();
                for following in [&[][..], &[0], &[0xff; 9], &[0x80, 1, 2, 3, 4, 5, 6, 7, 8]] {
                    bytes.truncate(length);
                    bytes.extend(following);
                    for read in [varint, varint_bytewise] {
                        let mut at = 0;
                        assert_eq!((read(&bytes, &mut at), at), (Some(number), length));
                    }
                }
            }
        }
    }
}
