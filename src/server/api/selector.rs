//! What a request selects (INTERFACE.md, "Selectors"): of what, and when.

use utoipa::IntoParams;

use super::moment;
use super::parameters::Parameters;
use crate::server::ApiError;
use crate::store::{Selector, TimeRange};

/// The parameters that say of what.
pub const SELECTORS: &[&str] =
    &["pid", "service", "container", "thread", "trace_id", "span_id", "git_sha", "type", "kind"];
/// The parameters that say when.
pub const RANGE: &[&str] = &["from", "to"];

/// Without `from`, so long before `to`.
pub const DEFAULT_RANGE_NS: u64 = 15 * 60 * 1_000_000_000;
/// Above every process id that Linux gives out, and those of others that may be uploaded.
const MAX_PID: u64 = i32::MAX as u64;
/// Longest name of a type.
const MAX_TYPE_BYTES: usize = 128;

/// Names of types under which people ask, and those under which they are stored.
const TYPES: [(&str, &str); 8] = [
    ("cpu", "cpu"),
    ("offcpu", "offcpu"),
    ("off_cpu", "offcpu"),
    ("off-cpu", "offcpu"),
    ("wall", "wall"),
    ("lock", "lock"),
    ("memory", "memory"),
    ("gpu", "gpu"),
];

/// Whether this is the stored name of a type that is spanflame's own, with or without profiles of it.
pub fn is_type(name: &str) -> bool {
    let kind = name.split_once('/').map_or(name, |(kind, _)| kind);
    kind == "samples" || TYPES.iter().any(|(_, stored)| *stored == kind)
}

/// How the selectors are described; [`selector`] and [`range`] read them.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "the description of an interface")]
pub struct SelectorParameters {
    /// Process id.
    #[param(minimum = 1, maximum = 2_147_483_647)]
    pid: Option<u32>,
    /// Service, as `/api/v1/services` names it; empty for samples of none.
    service: Option<String>,
    /// Container id, or its first twelve digits or more.
    #[param(min_length = 1)]
    container: Option<String>,
    /// Name of a thread, or its id.
    #[param(min_length = 1)]
    thread: Option<String>,
    /// Trace id, 32 hexadecimal digits.
    #[param(pattern = "^[0-9a-fA-F]{32}$")]
    trace_id: Option<String>,
    /// Span id, 16 hexadecimal digits.
    #[param(pattern = "^[0-9a-fA-F]{16}$")]
    span_id: Option<String>,
    /// Revision that the program was built of (`vcs.ref.head.revision` of its resource, or what an upload says), or its
    /// first seven digits or more.
    #[param(min_length = 1)]
    git_sha: Option<String>,
    /// `cpu`, `offcpu`, `wall`, `lock`, `memory`, `gpu`, or a name of `/api/v1/profiles/types`, with its
    /// unit (`cpu/nanoseconds`) where that is wanted. By default `cpu`.
    #[param(pattern = "^[A-Za-z0-9_.:-]{1,64}(/[A-Za-z0-9_.:-]{1,63})?$")]
    r#type: Option<String>,
}

/// How the range is described.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "the description of an interface")]
pub struct RangeParameters {
    /// Start: RFC 3339, Unix seconds, or so long ago (`-15m`, `-1h30m`). By default 15 minutes before `to`.
    /// Ranges widen to whole windows.
    #[param(
        pattern = "^(now|-([0-9]{1,6}(ms|s|m|h|d|w))+|[0-9]{1,10}([.][0-9]{1,9})?|(19[7-9][0-9]|2[0-4][0-9][0-9])-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9]))$"
    )]
    from: Option<String>,
    /// End, likewise. By default now.
    #[param(
        pattern = "^(now|-([0-9]{1,6}(ms|s|m|h|d|w))+|[0-9]{1,10}([.][0-9]{1,9})?|(19[7-9][0-9]|2[0-4][0-9][0-9])-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9]))$"
    )]
    to: Option<String>,
}

/// Reads of what.
///
/// # Errors
/// 400, naming the parameter.
pub fn selector(parameters: &Parameters) -> Result<Selector, ApiError> {
    let text = |name: &str| parameters.get(name).map(str::to_owned);
    let nonempty = |name: &str| match text(name) {
        Some(text) if text.is_empty() => Err(ApiError::invalid(name, format!("{name}: it is empty"))),
        text => Ok(text),
    };
    let pid = parameters.number("pid", 1, MAX_PID)?;
    Ok(Selector {
        profile_type: profile_type(parameters)?,
        service: text("service"),
        container: nonempty("container")?,
        pid: pid.and_then(|pid| i64::try_from(pid).ok()),
        thread: nonempty("thread")?,
        trace_id: hexadecimal(parameters, "trace_id", 32)?,
        span_id: hexadecimal(parameters, "span_id", 16)?,
        git_sha: nonempty("git_sha")?,
        traces: None,
        spans: None,
    })
}

fn profile_type(parameters: &Parameters) -> Result<String, ApiError> {
    let (name, asked) = match (parameters.get("type"), parameters.get("kind")) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid("kind", "type and kind are the same; one of them is enough"));
        }
        (Some(asked), None) => ("type", asked),
        (None, Some(asked)) => ("kind", asked),
        (None, None) => ("type", "cpu"),
    };
    if let Some((_, stored)) = TYPES.iter().find(|(known, _)| *known == asked) {
        return Ok((*stored).to_owned());
    }
    // Whatever was uploaded has a name of its own.
    let is_name = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-'))
    };
    let (kind, unit) = asked.split_once('/').unwrap_or((asked, "count"));
    if !is_name(kind) || !is_name(unit) || asked.len() > MAX_TYPE_BYTES {
        let message = format!(
            "{name}: {asked:?} is no type: cpu, offcpu, wall, lock, memory, gpu, or one of /api/v1/profiles/types"
        );
        return Err(ApiError::invalid(name, message));
    }
    Ok(asked.to_owned())
}

fn hexadecimal(parameters: &Parameters, name: &str, digits: usize) -> Result<Option<String>, ApiError> {
    let Some(text) = parameters.get(name) else { return Ok(None) };
    if text.len() != digits || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let message = format!("{name}: {digits} hexadecimal digits are expected, not {text:?}");
        return Err(ApiError::invalid(name, message));
    }
    Ok(Some(text.to_ascii_lowercase()))
}

/// Reads when. Without `to` it is up to now, without `from` the last [`DEFAULT_RANGE_NS`] of it.
///
/// # Errors
/// 400, naming the parameter.
pub fn range(parameters: &Parameters, now_unix_ns: u64) -> Result<TimeRange, ApiError> {
    let moment = |name: &str| match parameters.get(name) {
        None => Ok(None),
        Some(text) => {
            let parsed = moment::parse(text, now_unix_ns);
            parsed.map(Some).map_err(|why| ApiError::invalid(name, format!("{name}: {why}")))
        }
    };
    let from = moment("from")?;
    let to_unix_ns = moment("to")?.unwrap_or(now_unix_ns);
    let from_unix_ns = from.unwrap_or(to_unix_ns.saturating_sub(DEFAULT_RANGE_NS));
    if from_unix_ns > to_unix_ns {
        let (from, to) = (moment::rfc3339(from_unix_ns), moment::rfc3339(to_unix_ns));
        return Err(ApiError::invalid("from", format!("from: {from} is after the end, {to}")));
    }
    // A moment asks for the window that it lies in.
    Ok(TimeRange { from_unix_ns, to_unix_ns: to_unix_ns.max(from_unix_ns.saturating_add(1)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000_000_000_000;

    fn selected(query: &str) -> Result<(Selector, TimeRange), ApiError> {
        let parameters = Parameters::parse(Some(query), &[SELECTORS, RANGE])?;
        Ok((selector(&parameters)?, range(&parameters, NOW)?))
    }

    #[test]
    fn nothing_selects_the_host_for_the_last_quarter_of_an_hour() {
        let (selector, range) = selected("").unwrap();
        assert_eq!(selector, Selector::of_type("cpu"));
        assert_eq!(range, TimeRange { from_unix_ns: NOW - DEFAULT_RANGE_NS, to_unix_ns: NOW });
    }

    #[test]
    fn every_selector_is_read() {
        let query = "pid=42&service=shop&container=0123456789ab&thread=worker+1&type=off_cpu\
                     &trace_id=0123456789ABCDEF0123456789abcdef&span_id=0123456789ABCDEF&git_sha=v1.2+rc\
                     &from=-1h&to=-30m";
        let (selector, range) = selected(query).unwrap();
        let some = |text: &str| Some(text.to_owned());
        let expected = Selector {
            profile_type: "offcpu".to_owned(),
            service: some("shop"),
            container: some("0123456789ab"),
            pid: Some(42),
            thread: some("worker 1"),
            trace_id: some("0123456789abcdef0123456789abcdef"),
            span_id: some("0123456789abcdef"),
            git_sha: some("v1.2 rc"),
            traces: None,
            spans: None,
        };
        assert_eq!(selector, expected);
        assert_eq!(range.to_unix_ns - range.from_unix_ns, 1_800_000_000_000);
        assert_eq!(selected("service=").unwrap().0.service, some(""));
        let (_, moment) = selected("from=5&to=5").unwrap();
        assert_eq!(moment, TimeRange { from_unix_ns: 5_000_000_000, to_unix_ns: 5_000_000_001 });
    }

    #[test]
    fn types_are_asked_for_by_kind_or_by_the_name_they_are_stored_under() {
        for (asked, stored) in [
            ("type=cpu", "cpu"),
            ("kind=offcpu", "offcpu"),
            ("type=off-cpu", "offcpu"),
            ("type=samples", "samples"),
            ("type=cpu/nanoseconds", "cpu/nanoseconds"),
            ("type=cpu%2Fnanoseconds", "cpu/nanoseconds"),
            ("type=alloc_space", "alloc_space"),
        ] {
            assert_eq!(selected(asked).unwrap().0.profile_type, stored, "{asked}");
        }
    }

    #[test]
    fn what_is_malformed_is_named() {
        for (query, field) in [
            ("pid=0", "pid"),
            ("pid=-1", "pid"),
            ("pid=4294967296", "pid"),
            ("pid=12a", "pid"),
            ("pid=", "pid"),
            ("pid=1&pid=1", "pid"),
            ("thread=", "thread"),
            ("container=", "container"),
            ("git_sha=", "git_sha"),
            ("type=", "type"),
            ("type=c+p+u", "type"),
            ("type=/x", "type"),
            ("type=a/b/c", "type"),
            ("type=cpu&kind=cpu", "kind"),
            ("trace_id=0123", "trace_id"),
            ("trace_id=0123456789abcdef0123456789abcdeg", "trace_id"),
            ("span_id=0123456789abcdef0", "span_id"),
            ("span_id=", "span_id"),
            ("from=soon", "from"),
            ("to=", "to"),
            ("from=-1m&to=-2m", "from"),
            ("pidd=1", "pidd"),
        ] {
            let error = selected(query).unwrap_err();
            assert_eq!(error.status(), 400, "{query}");
            assert_eq!(error.code(), "invalid_request");
            assert!(error.message().contains(field), "{query}: {}", error.message());
        }
    }

    proptest! {
        #[test]
        fn whatever_is_asked_is_answered_or_named(
            names in proptest::collection::vec(0..SELECTORS.len() + RANGE.len(), 0..5),
            values in proptest::collection::vec("[-+%0-9a-fA-Fmsh:.TZ/ä]{0,34}", 5),
        ) {
            let known: Vec<&str> = SELECTORS.iter().chain(RANGE).copied().collect();
            let pairs: Vec<String> =
                names.iter().zip(&values).map(|(&name, value)| format!("{}={value}", known[name])).collect();
            match selected(&pairs.join("&")) {
                Ok((selector, range)) => {
                    prop_assert!(range.from_unix_ns < range.to_unix_ns);
                    prop_assert!(selector.pid.is_none_or(|pid| pid > 0));
                    prop_assert!(!selector.profile_type.is_empty());
                    let lower = |text: &str| !text.bytes().any(|byte| byte.is_ascii_uppercase());
                    prop_assert!(selector.trace_id.as_deref().is_none_or(lower));
                }
                Err(error) => {
                    prop_assert_eq!(error.status(), 400);
                    let named = names.iter().any(|&name| error.message().contains(known[name]));
                    prop_assert!(named, "{}", error.message());
                }
            }
        }

        #[test]
        fn what_selects_is_read_as_it_was_meant(
            pid in proptest::option::of(1..=i32::MAX),
            service in proptest::option::of("[a-z]{0,8}"),
            from_s in 0_u64..1_000_000_000,
            length_s in 1_u64..1_000_000_000,
        ) {
            let mut query = format!("from={from_s}&to={}", from_s + length_s);
            query.extend(pid.map(|pid| format!("&pid={pid}")));
            query.extend(service.as_ref().map(|service| format!("&service={service}")));
            let (selector, range) = selected(&query).unwrap();
            prop_assert_eq!(selector.pid, pid.map(i64::from));
            prop_assert_eq!(selector.service, service);
            prop_assert_eq!(range.from_unix_ns, from_s * 1_000_000_000);
            prop_assert_eq!(range.to_unix_ns, (from_s + length_s) * 1_000_000_000);
        }
    }
}
