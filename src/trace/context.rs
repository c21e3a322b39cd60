//! Trace context as it arrives in header fields: W3C Trace Context (`traceparent` and `tracestate`, level 1,
//! with what level 2 asks of those who meet later versions) and B3 (openzipkin/b3-propagation).
//!
//! Where both come, W3C's counts. What is malformed is as if it had not come, as both ask.

use super::exchange::{Known, RequestHead};
use crate::model::span::{SpanId, TraceId};

/// Members that a `tracestate` may have.
const MAX_MEMBERS: usize = 32;
/// Longest `tracestate` that is kept; W3C asks for 512.
const MAX_STATE_BYTES: usize = 1024;
/// Longer members go first when it is too long.
const LONG_MEMBER_BYTES: usize = 128;

/// What a caller says of the trace it is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The caller's span.
    pub parent_span_id: SpanId,
    /// Whether the caller records it; `None` if it leaves that to us.
    pub sampled: Option<bool>,
    /// `tracestate` as it is to be kept; empty if there is none.
    pub trace_state: String,
}

/// What a request's head says of its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// It belongs to one.
    Context(TraceContext),
    /// It belongs to none, but whether it is to be recorded is said.
    Sampling(bool),
    /// Nothing.
    Nothing,
    /// Something that is not well formed.
    Malformed,
    /// It cannot be known: see [`Known::Unknown`].
    Unknown,
}

impl Incoming {
    /// What this head says.
    #[must_use]
    pub fn of(head: &RequestHead) -> Self {
        match &head.traceparent {
            Known::Value(traceparent) => {
                let tracestate = head.tracestate.value().unwrap_or_default();
                if let Some(context) = w3c(traceparent, tracestate) {
                    return Self::Context(context);
                }
            }
            Known::Unknown => return Self::Unknown,
            Known::Absent => {}
        }
        match &head.b3 {
            Known::Value(value) => b3(value),
            Known::Unknown => Self::Unknown,
            Known::Absent if head.traceparent == Known::Absent => Self::Nothing,
            Known::Absent => Self::Malformed,
        }
    }
}

/// The context that a `traceparent` and the `tracestate` beside it carry (W3C Trace Context section 3.2).
#[must_use]
pub fn w3c(traceparent: &str, tracestate: &str) -> Option<TraceContext> {
    const VERSION_0_BYTES: usize = 55;
    let bytes = traceparent.trim_ascii().as_bytes();
    let version = hex_byte(bytes.get(..2)?)?;
    match (version, bytes.len()) {
        (0xff, _) => return None,
        (0, length) if length != VERSION_0_BYTES => return None,
        (_, VERSION_0_BYTES) => {}
        // A later version may append fields, and nothing else.
        _ if bytes.get(VERSION_0_BYTES) != Some(&b'-') => return None,
        _ => {}
    }
    if [2, 35, 52].iter().any(|&at| bytes.get(at) != Some(&b'-')) {
        return None;
    }
    let trace_id = TraceId::from_hex(bytes.get(3..35)?)?;
    let parent_span_id = SpanId::from_hex(bytes.get(36..52)?)?;
    let flags = hex_byte(bytes.get(53..55)?)?;
    Some(TraceContext {
        trace_id,
        parent_span_id,
        sampled: Some(flags & 1 == 1),
        trace_state: trace_state(tracestate).unwrap_or_default(),
    })
}

/// A `tracestate` as it is to be kept; `None` if it is malformed, which is none of `traceparent`'s business.
#[must_use]
pub fn trace_state(value: &str) -> Option<String> {
    let mut members: Vec<&str> = Vec::new();
    for member in value.split(',') {
        let member = member.trim_matches([' ', '\t']);
        if member.is_empty() {
            continue;
        }
        let (key, value) = member.split_once('=')?;
        let is_double =
            members.iter().any(|other| other.split_once('=').is_some_and(|(other, _)| other == key));
        if members.len() == MAX_MEMBERS || is_double || !is_state_key(key) || !is_state_value(value) {
            return None;
        }
        members.push(member);
    }
    let length = |members: &[&str]| members.iter().map(|member| member.len() + 1).sum::<usize>();
    if length(&members) > MAX_STATE_BYTES {
        members.retain(|member| member.len() <= LONG_MEMBER_BYTES);
    }
    while length(&members) > MAX_STATE_BYTES {
        members.pop();
    }
    Some(members.join(","))
}

/// `key = lcalpha 0*255 keychar`, or `tenant@system` with 241 and 14 of them.
fn is_state_key(key: &str) -> bool {
    let are_key_characters = |part: &str| {
        part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/'))
    };
    let begins_with_letter = |part: &str| part.starts_with(|first: char| first.is_ascii_lowercase());
    match key.split_once('@') {
        None => key.len() <= 256 && begins_with_letter(key) && are_key_characters(key),
        Some((tenant, system)) => {
            (1..=241).contains(&tenant.len())
                && !tenant.starts_with(['_', '-', '*', '/'])
                && are_key_characters(tenant)
                && system.len() <= 14
                && begins_with_letter(system)
                && are_key_characters(system)
        }
    }
}

/// Printable characters but `,` and `=`, at most 256, the last no blank.
fn is_state_value(value: &str) -> bool {
    (1..=256).contains(&value.len())
        && !value.ends_with(' ')
        && value.bytes().all(|byte| matches!(byte, 0x20..=0x7e) && byte != b',' && byte != b'=')
}

/// What the single header `b3` says: `{TraceId}-{SpanId}-{SamplingState}-{ParentSpanId}`, of which the last
/// two may be missing, or the sampling state alone.
#[must_use]
pub fn b3(value: &str) -> Incoming {
    let value = value.trim_ascii();
    if let Some(sampled) = sampling_state(value) {
        return Incoming::Sampling(sampled);
    }
    let mut parts = value.split('-');
    let ids =
        (parts.next().and_then(b3_trace_id), parts.next().map(str::as_bytes).and_then(SpanId::from_hex));
    let (Some(trace_id), Some(parent_span_id)) = ids else { return Incoming::Malformed };
    let sampled = match parts.next().map(sampling_state) {
        None => None,
        Some(None) => return Incoming::Malformed,
        Some(sampled) => sampled,
    };
    if parts.next().is_some_and(|parent| SpanId::from_hex(parent.as_bytes()).is_none())
        || parts.next().is_some()
    {
        return Incoming::Malformed;
    }
    Incoming::Context(TraceContext { trace_id, parent_span_id, sampled, trace_state: String::new() })
}

/// 16 or 32 digits; the shorter one is the lower half.
fn b3_trace_id(text: &str) -> Option<TraceId> {
    match text.len() {
        32 => TraceId::from_hex(text.as_bytes()),
        16 => TraceId::from_hex(format!("{:016}{text}", 0).as_bytes()),
        _ => None,
    }
}

/// `d` asks for more than recording.
fn sampling_state(text: &str) -> Option<bool> {
    match text {
        "1" | "d" => Some(true),
        "0" => Some(false),
        _ => None,
    }
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    match digits {
        &[high @ (b'0'..=b'9' | b'a'..=b'f'), low @ (b'0'..=b'9' | b'a'..=b'f')] => {
            let value = |digit: u8| if digit <= b'9' { digit - b'0' } else { digit - b'a' + 10 };
            Some(value(high) << 4 | value(low))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "12345678901234567890123456789012";
    const SPAN: &str = "1234567890123456";

    /// Cases of github.com/w3c/trace-context/test/test.py, by the names they have there.
    #[test]
    fn traceparent_as_w3cs_own_tests_have_it() {
        for (name, value, is_valid) in [
            ("both_traceparent_and_tracestate_missing", String::new(), false),
            ("traceparent_included", format!("00-{TRACE}-{SPAN}-01"), true),
            ("traceparent_not_sampled", format!("00-{TRACE}-{SPAN}-00"), true),
            ("traceparent_duplicated", format!("00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01"), false),
            ("traceparent_version_0x00 with more", format!("00-{TRACE}-{SPAN}-01."), false),
            ("traceparent_version_0x00 with a field", format!("00-{TRACE}-{SPAN}-01-what-the-future"), false),
            ("traceparent_version_0xcc", format!("cc-{TRACE}-{SPAN}-01"), true),
            ("traceparent_version_0xcc with fields", format!("cc-{TRACE}-{SPAN}-01-what-the-future"), true),
            ("traceparent_version_0xcc with other", format!("cc-{TRACE}-{SPAN}-01.what-the-future"), false),
            ("traceparent_version_0xff", format!("ff-{TRACE}-{SPAN}-01"), false),
            ("traceparent_version_illegal_characters", format!(".0-{TRACE}-{SPAN}-01"), false),
            ("traceparent_version_illegal_characters", format!("0.-{TRACE}-{SPAN}-01"), false),
            ("traceparent_version_too_long", format!("000-{TRACE}-{SPAN}-01"), false),
            ("traceparent_version_too_short", format!("0-{TRACE}-{SPAN}-01"), false),
            ("traceparent_trace_id_all_zero", format!("00-{:032}-{SPAN}-01", 0), false),
            ("traceparent_trace_id_illegal_characters", format!("00-.{}-{SPAN}-01", &TRACE[1..]), false),
            ("traceparent_trace_id_too_long", format!("00-{TRACE}0-{SPAN}-01"), false),
            ("traceparent_trace_id_too_short", format!("00-{}-{SPAN}-01", &TRACE[1..]), false),
            ("upper case", format!("00-{}-{SPAN}-01", "ABCDEF".repeat(6).get(..32).unwrap()), false),
            ("traceparent_parent_id_all_zero", format!("00-{TRACE}-{:016}-01", 0), false),
            ("traceparent_parent_id_illegal_characters", format!("00-{TRACE}-.{}-01", &SPAN[1..]), false),
            ("traceparent_parent_id_too_long", format!("00-{TRACE}-{SPAN}0-01"), false),
            ("traceparent_parent_id_too_short", format!("00-{TRACE}-{}-01", &SPAN[1..]), false),
            ("traceparent_trace_flags_illegal_characters", format!("00-{TRACE}-{SPAN}-.0"), false),
            ("traceparent_trace_flags_illegal_characters", format!("00-{TRACE}-{SPAN}-0."), false),
            ("traceparent_trace_flags_too_long", format!("00-{TRACE}-{SPAN}-001"), false),
            ("traceparent_trace_flags_too_short", format!("00-{TRACE}-{SPAN}-1"), false),
            ("traceparent_ows_handling", format!(" \t00-{TRACE}-{SPAN}-01\t "), true),
        ] {
            assert_eq!(w3c(&value, "").is_some(), is_valid, "{name}: {value}");
        }
        let sampled = |flags: &str| w3c(&format!("00-{TRACE}-{SPAN}-{flags}"), "").unwrap().sampled;
        assert_eq!((sampled("01"), sampled("00"), sampled("fe")), (Some(true), Some(false), Some(false)));
        assert_eq!(sampled("ff"), Some(true));
        let context = w3c(&format!("00-{TRACE}-{SPAN}-01"), "a=1").unwrap();
        assert_eq!((context.trace_id.to_string().as_str(), context.trace_state.as_str()), (TRACE, "a=1"));
        assert_eq!(context.parent_span_id.to_string(), SPAN);
    }

    #[test]
    fn tracestate_as_w3cs_own_tests_have_it() {
        let (z256, z257) = ("z".repeat(256), "z".repeat(257));
        let (t241, t242) = ("t".repeat(241), "t".repeat(242));
        let members =
            |count: usize| (0..count).map(|n| format!("bar{n:02}={n:02}")).collect::<Vec<_>>().join(",");
        for (value, kept) in [
            ("foo=1", Some("foo=1")),
            ("foo=1,bar=2", Some("foo=1,bar=2")),
            ("foo=1 \t , \t bar=2, \t baz=3", Some("foo=1,bar=2,baz=3")),
            ("foo=1\t \t,\t \tbar=2,\t \tbaz=3", Some("foo=1,bar=2,baz=3")),
            (" foo=1 ", Some("foo=1")),
            ("foo=1,", Some("foo=1")),
            (",foo=1,,bar=2", Some("foo=1,bar=2")),
            ("", Some("")),
            ("foo", None),
            ("foo=", None),
            ("=1", None),
            ("foo =1", None),
            ("FOO=1", None),
            ("foo.bar=1", None),
            ("foo@=1,bar=2", None),
            ("@foo=1,bar=2", None),
            ("foo@@bar=1,bar=2", None),
            ("foo@bar@baz=1,bar=2", None),
            ("foo=1,foo=2", None),
            ("foo=bar=baz", None),
            ("foo=,bar=3", None),
            ("fo\u{e9}=1", None),
            ("0tenant@sys=1", Some("0tenant@sys=1")),
            ("t@0sys=1", None),
            ("foo=a b", Some("foo=a b")),
        ] {
            assert_eq!(trace_state(value).as_deref(), kept, "{value}");
        }
        for (key, is_valid) in [
            (z256.as_str(), true),
            (z257.as_str(), false),
            (&format!("{t241}@{}", "v".repeat(14)), true),
            (&format!("{t242}@v"), false),
            (&format!("t@{}", "v".repeat(15)), false),
        ] {
            assert_eq!(trace_state(&format!("foo=1,{key}=1")).is_some(), is_valid, "{key}");
        }
        assert_eq!(trace_state(&members(32)), Some(members(32)));
        assert_eq!(trace_state(&members(33)), None);
        assert!(trace_state(&format!("foo={}", "v".repeat(256))).is_some());
        assert_eq!(trace_state(&format!("foo={}", "v".repeat(257))), None);
        // At least 512 characters are kept; then long members go, then the last ones.
        let long = format!("long={}", "v".repeat(250));
        let kept = trace_state(&format!("{long},{}", members(31))).unwrap();
        assert!(kept.starts_with("long=") && kept.len() > 512);
        let many = (0..8).map(|n| format!("k{n}={}", "v".repeat(200))).collect::<Vec<_>>().join(",");
        assert_eq!(trace_state(&format!("{many},foo=1")).as_deref(), Some("foo=1"));
    }

    #[test]
    fn b3_as_its_specification_has_it() {
        let context = |value: &str| match b3(value) {
            Incoming::Context(context) => {
                Some((context.trace_id.to_string(), context.parent_span_id.to_string(), context.sampled))
            }
            _ => None,
        };
        let (long, short, span) =
            ("80f198ee56343ba864fe8b2a57d3eff7", "64fe8b2a57d3eff7", "e457b5a2e4d86bd1");
        let padded = format!("0000000000000000{short}");
        for (value, trace, sampled) in [
            (format!("{long}-{span}-1-05e3ac9a4f6e3b90"), long, Some(true)),
            (format!("{long}-{span}-1"), long, Some(true)),
            (format!("{long}-{span}-d"), long, Some(true)),
            (format!("{long}-{span}-0"), long, Some(false)),
            (format!("{long}-{span}"), long, None),
            (format!("{short}-{span}-1"), padded.as_str(), Some(true)),
        ] {
            assert_eq!(context(&value), Some((trace.to_owned(), span.to_owned(), sampled)), "{value}");
        }
        for value in [
            String::new(),
            "2".to_owned(),
            long.to_owned(),
            format!("{long}-{span}-"),
            format!("{long}-{span}-2"),
            format!("{long}-{span}-1-"),
            format!("{long}-{span}-1-05e3ac9a4f6e3b90-"),
            format!("{long}-{:016}-1", 0),
            format!("{:032}-{span}-1", 0),
            format!("{}-{span}-1", &long[1..]),
            format!("{long}-{}-1", &span[1..]),
        ] {
            assert_eq!(b3(&value), Incoming::Malformed, "{value}");
        }
        assert_eq!(b3("0"), Incoming::Sampling(false));
        assert_eq!(b3("1"), Incoming::Sampling(true));
        assert_eq!(b3("d"), Incoming::Sampling(true));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(value in ".{0,80}", state in ".{0,80}") {
            let _ = (w3c(&value, &state), b3(&value));
        }

        #[test]
        fn what_is_kept_is_well_formed(state in "[a-c@=, \t]{0,60}") {
            if let Some(kept) = trace_state(&state) {
                prop_assert_eq!(trace_state(&kept), Some(kept));
            }
        }
    }
}
