//! Moments of the wall clock as text, RFC 3339 in UTC.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// 9999-12-31T23:59:59.999Z in nanoseconds since the Unix epoch.
const LAST_NS: i128 = 253_402_300_799_999 * 1_000_000;

/// To the second: `2024-01-15T10:30:00Z`. What is before 1970 or after 9999 is shown as the first
/// or last moment that can be.
#[must_use]
pub fn to_second(moment: SystemTime) -> String {
    format!("{}Z", date_and_time(of(moment)))
}

/// To the millisecond: `2024-01-15T10:30:00.123Z`.
#[must_use]
pub fn to_millisecond(moment: SystemTime) -> String {
    let moment = of(moment);
    format!("{}.{:03}Z", date_and_time(moment), moment.millisecond())
}

/// With as many digits of a second as it takes: `2024-01-15T10:30:00.5Z`. `unix_ns` is nanoseconds since the Unix epoch.
#[must_use]
pub fn exact(unix_ns: u64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ns)).ok();
    moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_default()
}

fn of(moment: SystemTime) -> OffsetDateTime {
    let nanoseconds = match moment.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i128::try_from(since.as_nanos()).unwrap_or(i128::MAX),
        Err(before) => i128::try_from(before.duration().as_nanos()).map_or(i128::MIN, |since| -since),
    };
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds.clamp(0, LAST_NS))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn date_and_time(moment: OffsetDateTime) -> String {
    let (year, month, day) = moment.to_calendar_date();
    let (hour, minute, second) = moment.to_hms();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}", u8::from(month))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_are_shown_in_utc_and_those_out_of_range_as_the_nearest_that_is_not() {
        let moment = SystemTime::UNIX_EPOCH + Duration::from_millis(1_705_314_600_123);
        assert_eq!(to_second(moment), "2024-01-15T10:30:00Z");
        assert_eq!(to_millisecond(moment), "2024-01-15T10:30:00.123Z");
        assert_eq!(to_second(SystemTime::UNIX_EPOCH - Duration::from_secs(9)), "1970-01-01T00:00:00Z");
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(to_millisecond(far), "9999-12-31T23:59:59.999Z");
    }
}
