//! What a process says of itself in its memory: OpenTelemetry's process context (OTEP 4719, version 2).
//!
//! A mapping named `OTEL_CTX` (a memfd, or anonymous memory with that name) begins with
//!
//! ```text
//! 0  "OTEL_CTX"
//! 8  version (u32): 2
//! 12 bytes of the payload (u32)
//! 16 when it was published (u64, nanoseconds since the epoch); 0 while it is being written
//! 24 address of the payload: a protobuf `opentelemetry.proto.resource.v1.Resource`
//! ```
//!
//! The header is read again after the payload: if the time is another one, so may the payload be. Attributes
//! `threadlocal.…` are between the process and its reader (OTEP 4947) and are left out.

use std::cell::OnceCell;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use spanflame_symbols::process_memory::{LiveMemory, ProcessMemory as _};

use crate::model::span::AttributeValue;

const SIGNATURE: &[u8; 8] = b"OTEL_CTX";
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 32;
/// The payload is expected to be in the range of a kilobyte.
const MAX_PAYLOAD_BYTES: u32 = 64 << 10;
const MAX_ATTRIBUTES: usize = 128;
/// Of a text.
const MAX_VALUE_BYTES: usize = 4096;
/// Lists of mappings beyond this are cut: a JVM has a megabyte of them.
const MAX_MAPS_BYTES: u64 = 16 << 20;
/// A writer that is at work at each of so many looks is left alone.
const TRIES: u32 = 3;

/// What the process says, texts, numbers and truths; empty if it publishes nothing, or nothing that can be read.
pub(super) fn attributes(pid: u32) -> Vec<(String, AttributeValue)> {
    let Ok(maps) = File::open(format!("/proc/{pid}/maps")) else { return Vec::new() };
    let maps = BufReader::with_capacity(32 << 10, maps.take(MAX_MAPS_BYTES));
    // Most have none, so the memory is not opened before it is wanted.
    let memory = OnceCell::new();
    let read = |address: u64, bytes: usize| {
        let open = || LiveMemory::open(pid).ok().map(LiveMemory::only_what_is_there);
        let memory = memory.get_or_init(open).as_ref()?;
        let mut read = vec![0; bytes];
        memory.read(address, &mut read).ok().map(|()| read)
    };
    told(maps, &read)
}

/// Likewise of a process with these mappings, whose memory is read so: address, bytes.
pub(super) fn told(
    maps: impl BufRead,
    read: &dyn Fn(u64, usize) -> Option<Vec<u8>>,
) -> Vec<(String, AttributeValue)> {
    let payload = mapping(maps).and_then(|address| payload(address, read));
    payload.map(|payload| decoded(&payload)).unwrap_or_default()
}

/// Where the mapping is.
fn mapping(mut maps: impl BufRead) -> Option<u64> {
    let mut line = Vec::new();
    while maps.read_until(b'\n', &mut line).ok()? > 0 {
        if let Some(address) = mapping_of_line(&line) {
            return Some(address);
        }
        line.clear();
    }
    None
}

/// The address of the mapping in a line of `/proc/PID/maps`, if it is the one.
fn mapping_of_line(line: &[u8]) -> Option<u64> {
    let line = line.trim_ascii_end();
    // Address, permissions, offset, device, inode: none of them has such letters.
    let name_at = line.iter().position(|&byte| byte == b'/' || byte == b'[')?;
    let name = line.get(name_at..)?;
    let names: [&[u8]; 3] = [b"/memfd:OTEL_CTX", b"[anon_shmem:OTEL_CTX]", b"[anon:OTEL_CTX]"];
    if !names.iter().any(|known| name.starts_with(known)) {
        return None;
    }
    let begin = line.split(|&byte| byte == b'-').next()?;
    u64::from_str_radix(std::str::from_utf8(begin).ok()?, 16).ok()
}

/// The payload that the header at this address leads to.
fn payload(address: u64, read: &dyn Fn(u64, usize) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    for _ in 0..TRIES {
        let header = Header::parse(&read(address, HEADER_BYTES)?)?;
        if header.published_at_ns == 0 {
            std::thread::yield_now();
            continue;
        }
        let payload = read(header.payload, usize::try_from(header.payload_bytes).ok()?);
        if Header::parse(&read(address, HEADER_BYTES)?)? == header {
            return payload;
        }
    }
    None
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    payload_bytes: u32,
    published_at_ns: u64,
    payload: u64,
}

impl Header {
    /// `None` if it is of another kind, or too large.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (signature, rest) = bytes.split_first_chunk::<8>()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (payload_bytes, rest) = rest.split_first_chunk::<4>()?;
        let (published_at_ns, rest) = rest.split_first_chunk::<8>()?;
        let payload_bytes = u32::from_ne_bytes(*payload_bytes);
        let is_it = signature == SIGNATURE && u32::from_ne_bytes(*version) == VERSION;
        (is_it && payload_bytes <= MAX_PAYLOAD_BYTES).then_some(Self {
            payload_bytes,
            published_at_ns: u64::from_ne_bytes(*published_at_ns),
            payload: u64::from_ne_bytes(*rest.first_chunk()?),
        })
    }
}

fn decoded(payload: &[u8]) -> Vec<(String, AttributeValue)> {
    let Ok(resource) = Resource::decode(payload) else { return Vec::new() };
    let attributes = resource.attributes.into_iter().filter_map(|attribute| {
        let value = match attribute.value?.value? {
            Value::StringValue(text) if text.len() <= MAX_VALUE_BYTES => AttributeValue::Text(text.into()),
            Value::BoolValue(truth) => AttributeValue::Truth(truth),
            Value::IntValue(number) => AttributeValue::Integer(number),
            Value::DoubleValue(number) => AttributeValue::Real(number),
            _ => return None,
        };
        let is_told = !attribute.key.is_empty() && !attribute.key.starts_with("threadlocal.");
        is_told.then_some((attribute.key, value))
    });
    attributes.take(MAX_ATTRIBUTES).collect()
}

/// The service's name among them. One that an SDK has made up says nothing.
pub(super) fn service(attributes: &[(String, AttributeValue)]) -> Option<String> {
    let text = text(attributes, "service.name")?;
    (!text.starts_with("unknown_service")).then(|| text.to_owned())
}

/// The text of this name among them, if it says anything.
pub(super) fn text<'a>(attributes: &'a [(String, AttributeValue)], wanted: &str) -> Option<&'a str> {
    attributes.iter().find_map(|(name, value)| match value {
        AttributeValue::Text(text) if name == wanted => Some(text.trim()).filter(|text| !text.is_empty()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
    use proptest::prelude::*;

    use super::*;

    fn header(version: u32, payload_bytes: u32, published_at_ns: u64, payload: u64) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend(version.to_ne_bytes());
        bytes.extend(payload_bytes.to_ne_bytes());
        bytes.extend(published_at_ns.to_ne_bytes());
        bytes.extend(payload.to_ne_bytes());
        bytes
    }

    fn attribute(key: &str, value: Value) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
    }

    #[test]
    fn the_mapping_is_known_by_its_name() {
        for (line, address) in [
            ("7f00-8000 rw-p 00000000 00:01 1037 /memfd:OTEL_CTX (deleted)\n", Some(0x7f00)),
            ("7f00-8000 rw-p 00000000 00:00 0    [anon:OTEL_CTX]\n", Some(0x7f00)),
            ("7f00-8000 rw-s 00000000 00:01 9    [anon_shmem:OTEL_CTX]\n", Some(0x7f00)),
            ("7f00-8000 rw-p 00000000 00:01 1037 /tmp/memfd:OTEL_CTX\n", None),
            ("7f00-8000 rw-p 00000000 00:00 0\n", None),
            ("x-8000 rw-p 00000000 00:00 0    [anon:OTEL_CTX]\n", None),
            ("", None),
        ] {
            assert_eq!(mapping_of_line(line.as_bytes()), address, "{line}");
        }
    }

    #[test]
    fn what_is_being_written_is_not_taken() {
        let memory = |headers: Vec<Vec<u8>>| {
            let looks = std::cell::Cell::new(0);
            move |address: u64, bytes: usize| match address {
                1 => {
                    let look = looks.get().min(headers.len() - 1);
                    looks.set(looks.get() + 1);
                    headers[look].get(..bytes).map(<[u8]>::to_vec)
                }
                9 => Some(vec![7; bytes]),
                _ => None,
            }
        };
        let sound = header(2, 3, 5, 9);
        assert_eq!(payload(1, &memory(vec![sound.clone()])), Some(vec![7; 3]));
        assert_eq!(payload(1, &memory(vec![header(2, 3, 0, 9)])), None);
        let changed = vec![sound.clone(), header(2, 4, 6, 9), header(2, 4, 6, 9)];
        assert_eq!(payload(1, &memory(changed)), Some(vec![7; 4]), "looked at again");
        assert_eq!(payload(1, &memory(vec![header(1, 3, 5, 9)])), None, "a version for development");
        assert_eq!(payload(1, &memory(vec![header(2, u32::MAX, 5, 9)])), None);
        assert_eq!(payload(1, &memory(vec![header(2, 3, 5, 8)])), None, "no such memory");
        for length in 0..sound.len() {
            assert_eq!(Header::parse(&sound[..length]), None);
        }
    }

    #[test]
    fn texts_numbers_and_truths_are_told_and_what_is_between_sdk_and_reader_is_not() {
        let text = |text: &str| Value::StringValue(text.to_owned());
        let resource = Resource {
            attributes: vec![
                attribute("service.name", text(" shop ")),
                attribute("service.instance.id", text("7")),
                attribute("threadlocal.schema_version", text("tls_v1")),
                attribute("count", Value::IntValue(-1)),
                attribute("list", Value::ArrayValue(ArrayValue::default())),
                attribute("long", text(&"x".repeat(MAX_VALUE_BYTES + 1))),
                KeyValue { key: "none".to_owned(), ..KeyValue::default() },
            ],
            ..Resource::default()
        };
        let told = decoded(&resource.encode_to_vec());
        let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["service.name", "service.instance.id", "count"]);
        assert_eq!(service(&told).as_deref(), Some("shop"));
        let made_up = [("service.name".to_owned(), AttributeValue::Text("unknown_service:go".into()))];
        assert_eq!(service(&made_up), None);
    }

    proptest! {
        #[test]
        fn any_payload_is_understood_or_none(bytes: Vec<u8>) {
            prop_assert!(decoded(&bytes).len() <= MAX_ATTRIBUTES);
        }
    }
}
