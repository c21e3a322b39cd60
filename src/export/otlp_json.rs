//! OTLP's messages as JSON, from their protobuf bytes.
//!
//! What stands on the wire is written and nothing else: defaults are absent in both. 64-bit numbers are
//! text, ids hexadecimal, other bytes base64, enumerations numbers. Fields that the table of messages does
//! not know are left out.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::otlp_schema::{Field, Kind, Message};

/// Messages within messages beyond this many are refused; attributes may nest.
const DEPTH_LIMIT: u32 = 64;

/// The bytes are not a message of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a protobuf message of the expected kind, or nested too deeply")]
pub struct NotThatMessage;

/// JSON of a message of this kind.
///
/// # Errors
/// [`NotThatMessage`].
pub fn from_protobuf(bytes: &[u8], message: &Message) -> Result<Vec<u8>, NotThatMessage> {
    let mut json = Vec::with_capacity(bytes.len() * 3);
    write_message(&mut json, bytes, message, DEPTH_LIMIT)?;
    Ok(json)
}

/// A value as it stands on the wire.
#[derive(Debug, Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Eight([u8; 8]),
    Four([u8; 4]),
    Bytes(&'a [u8]),
}

fn write_message(
    json: &mut Vec<u8>,
    bytes: &[u8],
    message: &Message,
    depth: u32,
) -> Result<(), NotThatMessage> {
    let depth = depth.checked_sub(1).ok_or(NotThatMessage)?;
    // Repetitions of a field may stand apart on the wire; in JSON they are one list.
    let mut values: Vec<(usize, Wire<'_>)> = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let number = u32::try_from(tag >> 3).map_err(|_| NotThatMessage)?;
        let value = wire_value(tag & 7, &mut rest)?;
        if let Some(place) = message.place_of(number) {
            values.push((place, value));
        }
    }
    values.sort_by_key(|(place, _)| *place);

    json.push(b'{');
    let mut is_first = true;
    for group in values.chunk_by(|(one, _), (other, _)| one == other) {
        let Some((place, last)) = group.last() else { continue };
        let Some(field) = message.fields.get(*place) else { continue };
        if !std::mem::replace(&mut is_first, false) {
            json.push(b',');
        }
        write_text(json, field.name);
        json.push(b':');
        if field.is_list {
            json.push(b'[');
            let mut is_first = true;
            for (_, value) in group {
                write_items(json, *value, field, &mut is_first, depth)?;
            }
            json.push(b']');
        } else {
            // The last one counts, says protobuf.
            write_value(json, *last, field, depth)?;
        }
    }
    json.push(b'}');
    Ok(())
}

/// An item of a list, or several numbers that were packed together.
fn write_items(
    json: &mut Vec<u8>,
    value: Wire<'_>,
    field: &Field,
    is_first: &mut bool,
    depth: u32,
) -> Result<(), NotThatMessage> {
    let mut write = |json: &mut Vec<u8>, value| {
        if !std::mem::replace(is_first, false) {
            json.push(b',');
        }
        write_value(json, value, field, depth)
    };
    let is_packed = !matches!(field.kind, Kind::Message(_) | Kind::Text | Kind::Bytes | Kind::Id);
    let Wire::Bytes(packed) = value else { return write(json, value) };
    if !is_packed {
        return write(json, value);
    }
    let wire_type = match field.kind {
        Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => 1,
        Kind::Fixed32 => 5,
        _ => 0,
    };
    let mut rest = packed;
    while !rest.is_empty() {
        let value = wire_value(wire_type, &mut rest)?;
        write(json, value)?;
    }
    Ok(())
}

#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "as protobuf defines it")]
fn write_value(json: &mut Vec<u8>, value: Wire<'_>, field: &Field, depth: u32) -> Result<(), NotThatMessage> {
    match (field.kind, value) {
        (Kind::Message(message), Wire::Bytes(bytes)) => return write_message(json, bytes, message, depth),
        (Kind::Text, Wire::Bytes(bytes)) => {
            write_text(json, std::str::from_utf8(bytes).map_err(|_| NotThatMessage)?);
        }
        (Kind::Bytes, Wire::Bytes(bytes)) => write_text(json, &STANDARD.encode(bytes)),
        (Kind::Id, Wire::Bytes(bytes)) => {
            json.push(b'"');
            for byte in bytes {
                write_display(json, format_args!("{byte:02x}"));
            }
            json.push(b'"');
        }
        (Kind::Bool, Wire::Varint(value)) => write_display(json, value != 0),
        (Kind::Int32, Wire::Varint(value)) => write_display(json, value as i32),
        (Kind::Uint32, Wire::Varint(value)) => write_display(json, value as u32),
        (Kind::Sint32, Wire::Varint(value)) => {
            let value = value as u32;
            write_display(json, (value >> 1) as i32 ^ -((value & 1) as i32));
        }
        (Kind::Fixed32, Wire::Four(bytes)) => write_display(json, u32::from_le_bytes(bytes)),
        (Kind::Int64, Wire::Varint(value)) => write_display(json, format_args!("\"{}\"", value as i64)),
        (Kind::Uint64, Wire::Varint(value)) => write_display(json, format_args!("\"{value}\"")),
        (Kind::Fixed64, Wire::Eight(bytes)) => {
            write_display(json, format_args!("\"{}\"", u64::from_le_bytes(bytes)));
        }
        (Kind::Sfixed64, Wire::Eight(bytes)) => {
            write_display(json, format_args!("\"{}\"", i64::from_le_bytes(bytes)));
        }
        (Kind::Double, Wire::Eight(bytes)) => match f64::from_le_bytes(bytes) {
            value if value.is_nan() => write_text(json, "NaN"),
            value if value.is_infinite() => {
                write_text(json, if value > 0.0 { "Infinity" } else { "-Infinity" });
            }
            // The shortest text that is this number, with an exponent where that is shorter: JSON's.
            value => write_display(json, format_args!("{value:?}")),
        },
        _ => return Err(NotThatMessage),
    }
    Ok(())
}

fn write_display(json: &mut Vec<u8>, value: impl std::fmt::Display) {
    // Memory takes everything.
    let _ = write!(json, "{value}");
}

fn write_text(json: &mut Vec<u8>, text: &str) {
    let _ = serde_json::to_writer(json, text);
}

fn wire_value<'a>(wire_type: u64, rest: &mut &'a [u8]) -> Result<Wire<'a>, NotThatMessage> {
    Ok(match wire_type {
        0 => Wire::Varint(varint(rest)?),
        1 => Wire::Eight(take_array(rest)?),
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_| NotThatMessage)?;
            let (bytes, after) = rest.split_at_checked(length).ok_or(NotThatMessage)?;
            *rest = after;
            Wire::Bytes(bytes)
        }
        5 => Wire::Four(take_array(rest)?),
        _ => return Err(NotThatMessage),
    })
}

fn take_array<const LENGTH: usize>(rest: &mut &[u8]) -> Result<[u8; LENGTH], NotThatMessage> {
    let (bytes, after) = rest.split_first_chunk::<LENGTH>().ok_or(NotThatMessage)?;
    *rest = after;
    Ok(*bytes)
}

fn varint(rest: &mut &[u8]) -> Result<u64, NotThatMessage> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(NotThatMessage)?;
        *rest = after;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(NotThatMessage)
}
