//! What of spans a request asks for: the parameters that `/api/v1/traces` and `/api/v1/spans` share.

use utoipa::IntoParams;

use super::parameters::Parameters;
use crate::model::span::{SpanId, SpanKind, SpanStatus, TraceId};
use crate::server::ApiError;
use crate::store::{SpanFilter, StatusFilter};

/// The parameters that say of what; when is [`RANGE`](super::selector::RANGE).
pub const SPAN_FILTER: &[&str] =
    &["service", "route", "method", "status", "kind", "min_duration", "max_duration", "error", "state"];

/// Kinds under the names that OpenTelemetry's documents have for them.
const KINDS: [(&str, SpanKind); 6] = [
    ("server", SpanKind::Server),
    ("client", SpanKind::Client),
    ("internal", SpanKind::Internal),
    ("producer", SpanKind::Producer),
    ("consumer", SpanKind::Consumer),
    ("unspecified", SpanKind::Unspecified),
];
/// Units of a duration and their nanoseconds, the longest text first where one ends with another.
const UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// How the filter is described; [`span_filter`] reads it.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "the description of an interface")]
pub struct SpanFilterParameters {
    /// `service.name`; empty for spans without.
    service: Option<String>,
    /// `http.route`, or `package.Service/Method` of an RPC.
    route: Option<String>,
    /// Method of the request (`GET`), or of the RPC.
    method: Option<String>,
    /// Status code of HTTP (`404`) or gRPC (`14`), or a class of HTTP's (`5xx`).
    #[param(pattern = "^([0-9]|1[0-6]|[1-5][0-9][0-9]|[1-5]xx)$")]
    status: Option<String>,
    /// `server`, `client`, `internal`, `producer`, `consumer` or `unspecified`.
    #[param(pattern = "^(server|client|internal|producer|consumer|unspecified)$")]
    kind: Option<String>,
    /// Least duration: a number and its unit (`250ms`, `1.5s`). Spans that are open have none.
    #[param(pattern = "^[0-9]{1,6}([.][0-9]{1,6})?(ns|us|ms|s|m|h)$")]
    min_duration: Option<String>,
    /// Greatest duration.
    #[param(pattern = "^[0-9]{1,6}([.][0-9]{1,6})?(ns|us|ms|s|m|h)$")]
    max_duration: Option<String>,
    /// Whether its status is an error.
    error: Option<bool>,
    /// `open`: the work goes on; `ended`.
    #[param(pattern = "^(open|ended)$")]
    state: Option<String>,
}

/// Reads of what.
///
/// # Errors
/// 400, naming the parameter.
pub fn span_filter(parameters: &Parameters) -> Result<SpanFilter, ApiError> {
    let text = |name: &str| parameters.get(name).map(str::to_owned);
    let expected = |name: &str, what: &str, text: &str| {
        ApiError::invalid(name, format!("{name}: {what} is expected, not {text:?}"))
    };
    let status = match parameters.get("status") {
        None => None,
        Some(text) => match status(text) {
            Some(status) => Some(status),
            None => return Err(expected("status", "a status code (404), or a class (5xx)", text)),
        },
    };
    let kind = match parameters.get("kind") {
        None => None,
        Some(text) => match KINDS.iter().find(|(name, _)| *name == text) {
            Some((_, kind)) => Some(*kind),
            None => {
                let kinds = "server, client, internal, producer, consumer or unspecified";
                return Err(expected("kind", kinds, text));
            }
        },
    };
    let is_open = match parameters.get("state") {
        None => None,
        Some("open") => Some(true),
        Some("ended") => Some(false),
        Some(text) => return Err(expected("state", "open or ended", text)),
    };
    let error = match parameters.get("error") {
        None => None,
        Some(_) => Some(parameters.flag("error")?),
    };
    let bound = |name: &str| match parameters.get(name) {
        None => Ok(None),
        Some(text) => match duration_ns(text) {
            Some(duration_ns) => Ok(Some(duration_ns)),
            None => Err(expected(name, "a number with a unit (250ms, 1.5s)", text)),
        },
    };
    Ok(SpanFilter {
        service: text("service"),
        route: text("route"),
        method: text("method"),
        status,
        kind,
        min_duration_ns: bound("min_duration")?,
        max_duration_ns: bound("max_duration")?,
        error,
        is_open,
    })
}

fn status(text: &str) -> Option<StatusFilter> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(class) = text.strip_suffix("xx") {
        let class = class.parse().ok().filter(|hundreds| digits(class) && (1..=5).contains(hundreds))?;
        return Some(StatusFilter::Class(class));
    }
    let code: u16 = text.parse().ok().filter(|_| digits(text))?;
    (code <= 16 || (100..600).contains(&code)).then_some(StatusFilter::Code(code))
}

/// A number, perhaps with a point in it, and its unit; what is beyond nanoseconds is cut off.
fn duration_ns(text: &str) -> Option<u64> {
    let at = text.find(|character: char| !character.is_ascii_digit() && character != '.')?;
    let (number, unit) = text.split_at(at);
    let &(_, unit_ns) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_number =
        |text: &str| !text.is_empty() && text.len() <= 15 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let parts = whole.parse::<u128>().ok()?.checked_mul(scale)?.checked_add(fraction.parse().ok()?)?;
    u64::try_from(parts.checked_mul(u128::from(unit_ns))? / scale).ok()
}

/// The name of a kind.
#[must_use]
pub fn kind_name(kind: SpanKind) -> &'static str {
    KINDS.iter().find(|(_, known)| *known == kind).map_or("unspecified", |(name, _)| name)
}

/// The name of a status.
#[must_use]
pub fn status_name(status: SpanStatus) -> &'static str {
    match status {
        SpanStatus::Unset => "unset",
        SpanStatus::Ok => "ok",
        SpanStatus::Error => "error",
    }
}

/// The trace id of this text, upper or lower case. Nothing for anything else, zeros included.
#[must_use]
pub fn trace_id(text: &str) -> Option<TraceId> {
    TraceId::from_hex(text.to_ascii_lowercase().as_bytes())
}

/// The span id of this text.
#[must_use]
pub fn span_id(text: &str) -> Option<SpanId> {
    SpanId::from_hex(text.to_ascii_lowercase().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(query: &str) -> Result<SpanFilter, ApiError> {
        span_filter(&Parameters::parse(Some(query), &[SPAN_FILTER])?)
    }

    #[test]
    fn every_parameter_is_read() {
        let query = "service=shop&route=/a/%7Bid%7D&method=GET&status=5xx&kind=server&min_duration=1.5s\
                     &max_duration=20us&error=true&state=open";
        let some = |text: &str| Some(text.to_owned());
        let expected = SpanFilter {
            service: some("shop"),
            route: some("/a/{id}"),
            method: some("GET"),
            status: Some(StatusFilter::Class(5)),
            kind: Some(SpanKind::Server),
            min_duration_ns: Some(1_500_000_000),
            max_duration_ns: Some(20_000),
            error: Some(true),
            is_open: Some(true),
        };
        assert_eq!(read(query).unwrap(), expected);
        assert_eq!(read("").unwrap(), SpanFilter::default());
        assert_eq!(read("error=0&status=14&state=ended").unwrap().error, Some(false));
    }

    #[test]
    fn durations_are_exact() {
        for (text, expected) in [
            ("0ns", Some(0)),
            ("1ns", Some(1)),
            ("0.3s", Some(300_000_000)),
            ("0.000000001s", Some(1)),
            ("0.9ns", Some(0)),
            ("2m", Some(120_000_000_000)),
            ("1.5µs", Some(1_500)),
            ("5000000h", Some(18_000_000_000_000_000_000)),
            ("6000000h", None),
            ("1", None),
            ("", None),
            ("s", None),
            (".5s", None),
            ("1.s", None),
            ("1.2.3s", None),
            ("-1s", None),
            ("1 s", None),
            ("1e3s", None),
            ("1sec", None),
        ] {
            assert_eq!(duration_ns(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_malformed_is_named() {
        for (query, field) in [
            ("status=600", "status"),
            ("status=17", "status"),
            ("status=0xx", "status"),
            ("status=6xx", "status"),
            ("status=+5xx", "status"),
            ("status=", "status"),
            ("kind=SERVER", "kind"),
            ("state=", "state"),
            ("error=maybe", "error"),
            ("min_duration=5", "min_duration"),
            ("max_duration=x", "max_duration"),
            ("limit=5", "limit"),
        ] {
            let error = read(query).unwrap_err();
            assert_eq!(error.status(), 400, "{query}");
            assert!(error.message().contains(field), "{query}: {}", error.message());
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,20}") {
            let _ = (duration_ns(&text), status(&text), trace_id(&text), span_id(&text));
        }
    }
}
