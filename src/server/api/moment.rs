//! Moments in a query: RFC 3339, Unix seconds, or so long ago (`-15m`).

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use crate::model::rfc3339::exact as rfc3339;

const SECOND_NS: u64 = 1_000_000_000;

/// Units of a stretch of time, longest text first where one begins with another.
const UNITS: [(&str, u64); 6] = [
    ("ms", 1_000_000),
    ("s", SECOND_NS),
    ("m", 60 * SECOND_NS),
    ("h", 3_600 * SECOND_NS),
    ("d", 86_400 * SECOND_NS),
    ("w", 7 * 86_400 * SECOND_NS),
];

/// This moment, nanoseconds since the Unix epoch.
#[must_use]
pub fn now_unix_ns() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}

/// Reads a moment, nanoseconds since the Unix epoch. One before 1970 is 1970.
///
/// # Errors
/// What is wrong with the text.
pub fn parse(text: &str, now_unix_ns: u64) -> Result<u64, String> {
    if text == "now" {
        return Ok(now_unix_ns);
    }
    if let Some(ago) = text.strip_prefix('-') {
        let ago_ns = parse_duration(ago)
            .ok_or("a time ago is numbers with units ms, s, m, h, d or w, such as -15m or -1h30m")?;
        return Ok(now_unix_ns.saturating_sub(ago_ns));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return parse_unix_seconds(text);
    }
    // A `+` in a query is a space, unless its sender knew that.
    let offset = text.rfind(' ').filter(|&at| text.get(..at).is_some_and(|date| date.contains(['T', 't'])));
    let mut repaired = text.to_owned();
    if let Some(at) = offset {
        repaired.replace_range(at..=at, "+");
    }
    let parsed = OffsetDateTime::parse(&repaired, &Rfc3339).map_err(|_| {
        format!("{text:?} is no time: RFC 3339 (2026-11-21T09:30:00Z), Unix seconds, or so long ago (-15m)")
    })?;
    u64::try_from(parsed.unix_timestamp_nanos().max(0)).map_err(|_| "it is beyond the year 2554".to_owned())
}

fn parse_unix_seconds(text: &str) -> Result<u64, String> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(seconds) || !is_number(fraction) {
        return Err(format!("{text:?} is no number of seconds"));
    }
    let too_late = || "it is beyond the year 2554; Unix times are in seconds here".to_owned();
    let seconds: u64 = seconds.parse().map_err(|_| too_late())?;
    // Digits beyond nanoseconds are cut off.
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u64 = digits.parse().unwrap_or(0);
    let whole_ns = seconds.checked_mul(SECOND_NS).ok_or_else(too_late)?;
    whole_ns.checked_add(nanoseconds).ok_or_else(too_late)
}

/// Reads a stretch of time, nanoseconds: `90s`, `1h30m`. Nothing for anything else.
#[must_use]
pub fn parse_duration(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum_ns = 0_u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        // `m` begins `ms`.
        let (unit, unit_ns) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = rest.get(unit.len()..)?;
        sum_ns = sum_ns.saturating_add(number.saturating_mul(*unit_ns));
    }
    (!text.is_empty()).then_some(sum_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000 * SECOND_NS;

    #[test]
    fn every_form_is_understood() {
        for (text, seconds, nanoseconds) in [
            ("now", 1_800_000_000, 0),
            ("-15m", 1_799_999_100, 0),
            ("-1h30m", 1_799_994_600, 0),
            ("-500ms", 1_799_999_999, 500_000_000),
            ("-1w2d", 1_799_222_400, 0),
            ("-999999999d", 0, 0),
            ("0", 0, 0),
            ("1700000000", 1_700_000_000, 0),
            ("1700000000.25", 1_700_000_000, 250_000_000),
            ("1700000000.1234567899", 1_700_000_000, 123_456_789),
            ("2023-11-14T22:13:20Z", 1_700_000_000, 0),
            ("2023-11-14t22:13:20.000000001z", 1_700_000_000, 1),
            ("2023-11-15T00:13:20+02:00", 1_700_000_000, 0),
            ("2023-11-15T00:13:20 02:00", 1_700_000_000, 0),
            ("2023-11-14T20:13:20-02:00", 1_700_000_000, 0),
            ("1960-01-01T00:00:00Z", 0, 0),
        ] {
            assert_eq!(parse(text, NOW), Ok(seconds * SECOND_NS + nanoseconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_told_what_would_be() {
        for text in [
            "",
            "-",
            "-15",
            "-m",
            "-15min",
            "-1.5h",
            "--15m",
            "15m",
            "+15m",
            ".",
            "1.",
            ".5",
            "1.2.3",
            "1e9",
            "1700000000000000",
            "18446744074",
            "yesterday",
            "2023-11-14",
            "2023-11-14 22:13:20",
            "2023-13-14T22:13:20Z",
            "2023-11-14T22:13:20",
            "9999-01-01T00:00:00Z",
            "-99999999999999999999d",
            "Tä +",
            " ",
            "T ",
        ] {
            assert!(parse(text, NOW).is_err(), "{text}");
        }
        assert!(parse("1700000000000", NOW).unwrap_err().contains("in seconds"));
    }

    #[test]
    fn a_moment_is_written_in_utc() {
        assert_eq!(rfc3339(1_700_000_000 * SECOND_NS), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339(1_700_000_000_500_000_000), "2023-11-14T22:13:20.5Z");
        assert_eq!(rfc3339(u64::MAX), "2554-07-21T23:34:33.709551615Z");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(unix_ns in any::<u64>()) {
            prop_assert_eq!(parse(&rfc3339(unix_ns), 0), Ok(unix_ns));
            let seconds = format!("{}.{:09}", unix_ns / SECOND_NS, unix_ns % SECOND_NS);
            prop_assert_eq!(parse(&seconds, 0), Ok(unix_ns));
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,40}", now in any::<u64>()) {
            let _ = parse(&text, now);
        }

        #[test]
        fn nearly_moments_are_not_too_strange(text in "-?[0-9smhdw.TZ: +-]{0,30}", now in any::<u64>()) {
            let _ = parse(&text, now);
        }
    }
}
