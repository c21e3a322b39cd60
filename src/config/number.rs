//! Numbers with their units and ranges: counts, shares, durations, sizes.

use std::fmt;
use std::time::Duration;

use serde_json::Value as Json;

use super::value::Scalar;

/// A whole number from `MIN` to `MAX`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whole<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Whole<MIN, MAX> {
    /// The number, if it is in the range.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number < MIN || number > MAX { None } else { Some(Self(number)) }
    }

    /// A default of the table: out of range it does not compile.
    pub(super) const fn of<const NUMBER: u64>() -> Self {
        const { assert!(NUMBER >= MIN && NUMBER <= MAX) }
        Self(NUMBER)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> Scalar for Whole<MIN, MAX> {
    fn expected() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }

    fn parse(text: &str) -> Result<Self, String> {
        Self::new(whole(text)?).ok_or_else(String::new)
    }

    fn to_json(&self) -> Json {
        Json::from(self.0)
    }
}

fn whole(text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(String::new());
    }
    text.parse().map_err(|_| "it is too large".to_owned())
}

/// A share from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Ratio(f64);

impl Ratio {
    pub(super) const ALL: Self = Self(1.0);
    pub(super) const ONE_IN_A_HUNDRED: Self = Self(0.01);

    /// The share.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl Scalar for Ratio {
    fn expected() -> String {
        "a number from 0 to 1 such as 0.1".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        // Rust reads `inf`, `nan` and `+1` as numbers too.
        if !text.bytes().all(|byte| byte.is_ascii_digit() || b".eE-".contains(&byte)) {
            return Err(String::new());
        }
        match text.parse::<f64>() {
            // Of the two zeros the one without a sign.
            Ok(number) if (0.0..=1.0).contains(&number) => Ok(Self(number + 0.0)),
            Ok(number) if (1.0..=100.0).contains(&number) => Err("1 is all, not a percentage".to_owned()),
            _ => Err(String::new()),
        }
    }

    fn to_json(&self) -> Json {
        Json::from(self.0)
    }
}

/// A duration from `MIN_S` to `MAX_S` seconds, in whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period<const MIN_S: u64, const MAX_S: u64> {
    milliseconds: u64,
}

/// Units of time, in milliseconds, the longest first.
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl<const MIN_S: u64, const MAX_S: u64> Period<MIN_S, MAX_S> {
    /// A default of the table: out of range it does not compile.
    pub(super) const fn seconds<const SECONDS: u64>() -> Self {
        const { assert!(SECONDS >= MIN_S && SECONDS <= MAX_S) }
        Self { milliseconds: SECONDS * 1000 }
    }

    /// The duration.
    #[must_use]
    pub const fn get(self) -> Duration {
        Duration::from_millis(self.milliseconds)
    }
}

impl<const MIN_S: u64, const MAX_S: u64> Scalar for Period<MIN_S, MAX_S> {
    fn expected() -> String {
        let shown = |seconds: u64| in_largest_unit(seconds.saturating_mul(1000), &TIME_UNITS);
        format!("a duration from {} to {} such as 10s, 15m, 1h30m or 7d", shown(MIN_S), shown(MAX_S))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let milliseconds = sum_of_parts(text, &TIME_UNITS)?;
        if milliseconds < MIN_S.saturating_mul(1000) || milliseconds > MAX_S.saturating_mul(1000) {
            return Err(String::new());
        }
        Ok(Self { milliseconds })
    }

    fn to_json(&self) -> Json {
        Json::from(self.to_string())
    }
}

impl<const MIN_S: u64, const MAX_S: u64> fmt::Display for Period<MIN_S, MAX_S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&in_largest_unit(self.milliseconds, &TIME_UNITS))
    }
}

/// A number of bytes from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize<const MIN: u64, const MAX: u64> {
    bytes: u64,
}

/// Units of size in bytes, the largest first; those of 1024 and those of 1000 by their proper names.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1000),
    ("B", 1),
];

impl<const MIN: u64, const MAX: u64> ByteSize<MIN, MAX> {
    /// A default of the table: out of range it does not compile.
    pub(super) const fn of<const BYTES: u64>() -> Self {
        const { assert!(BYTES >= MIN && BYTES <= MAX) }
        Self { bytes: BYTES }
    }

    /// The size in bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.bytes
    }
}

impl<const MIN: u64, const MAX: u64> Scalar for ByteSize<MIN, MAX> {
    fn expected() -> String {
        let shown = |bytes: u64| in_largest_unit(bytes, &SIZE_UNITS);
        format!("a size from {} to {} such as 500MB or 2GiB", shown(MIN), shown(MAX))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let bytes = sum_of_parts(&text.replace("KB", "kB"), &SIZE_UNITS)?;
        if (MIN..=MAX).contains(&bytes) { Ok(Self { bytes }) } else { Err(String::new()) }
    }

    fn to_json(&self) -> Json {
        Json::from(self.to_string())
    }
}

impl<const MIN: u64, const MAX: u64> fmt::Display for ByteSize<MIN, MAX> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&in_largest_unit(self.bytes, &SIZE_UNITS))
    }
}

/// The sum of whole numbers with units, such as `1h30m`; units must descend, so none comes twice.
fn sum_of_parts(text: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let names = || units.iter().map(|&(name, _)| name).collect::<Vec<_>>().join(", ");
    let mut sum = 0_u64;
    let mut smallest_yet = u64::MAX;
    let mut rest = text;
    loop {
        let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return Err(String::new());
        }
        let letters = after.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        if unit.is_empty() {
            return Err(if after.starts_with('.') {
                "write whole numbers, in a smaller unit".to_owned()
            } else {
                format!("a unit is missing, one of {}", names())
            });
        }
        let &(_, factor) = units
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| format!("there is no such unit, but {}", names()))?;
        if factor >= smallest_yet {
            return Err("units go from large to small".to_owned());
        }
        smallest_yet = factor;
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        sum = part.and_then(|part| sum.checked_add(part)).ok_or("it is too large")?;
        if after.is_empty() {
            return Ok(sum);
        }
        rest = after;
    }
}

/// As one number in the largest unit that leaves no rest.
fn in_largest_unit(amount: u64, units: &[(&str, u64)]) -> String {
    let unit = units.iter().find(|&&(_, factor)| amount > 0 && amount.is_multiple_of(factor));
    let (name, factor) = unit.or(units.last()).copied().unwrap_or(("", 1));
    format!("{}{name}", amount / factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::value::tests::check_scalar;

    #[test]
    fn whole_numbers_at_the_ends_of_their_range() {
        check_scalar::<Whole<1, 999>>(
            &[("1", "1"), ("999", "999"), ("007", "7")],
            &["0", "1000", "-1", "+5", "1.5", "1e2", "", "99999999999999999999", "1_0", "１"],
        );
    }

    #[test]
    fn shares_are_finite_and_no_percentages() {
        check_scalar::<Ratio>(
            &[("0", "0.0"), ("1", "1.0"), ("0.01", "0.01"), ("1e-3", "0.001"), ("-0", "0.0")],
            &["1.01", "-0.1", "nan", "inf", "-inf", "50%", "", "0,5", "e", "+1"],
        );
        let message = <Ratio as crate::config::value::KeyType>::from_text("10").expect_err("ten");
        assert!(message.contains("percentage"), "{message}");
    }

    #[test]
    fn durations_with_their_units_and_the_ends_of_their_range() {
        check_scalar::<Period<10, 315_360_000>>(
            &[
                ("10s", "10s"),
                ("15m", "15m"),
                ("7d", "7d"),
                ("1h30m", "90m"),
                ("168h", "7d"),
                ("10000ms", "10s"),
                ("10s1ms", "10001ms"),
                ("3650d", "3650d"),
            ],
            &[
                "9s",
                "9999ms",
                "3651d",
                "10",
                "10 s",
                "s",
                "",
                "1.5h",
                "-10s",
                "10S",
                "10sec",
                "30m1h",
                "1m1m",
                "1h30",
                "99999999999999999999s",
                "18446744073709551615d",
                "10s ",
                "１０s",
                "10µs",
            ],
        );
    }

    #[test]
    fn sizes_of_1000_and_of_1024_are_told_apart() {
        check_scalar::<ByteSize<1, { 1 << 50 }>>(
            &[
                ("2GiB", "2GiB"),
                ("500MB", "500MB"),
                ("1024B", "1KiB"),
                ("1000B", "1kB"),
                ("1KB", "1kB"),
                ("1024000B", "1000KiB"),
                ("1GiB512MiB", "1536MiB"),
                ("1024TiB", "1024TiB"),
            ],
            &[
                "2G",
                "2Gi",
                "2gib",
                "2",
                "1.5GiB",
                "0B",
                "1025TiB",
                "",
                "GiB",
                "18446744073709551615TiB",
                "-1B",
            ],
        );
    }

    #[test]
    fn what_is_missing_or_wrong_about_a_unit_is_said() {
        let detail = |text: &str| <Period<1, 100> as Scalar>::parse(text).expect_err(text);
        assert!(detail("10").contains("unit is missing"), "{}", detail("10"));
        assert!(detail("10x").contains("d, h, m, s, ms"), "{}", detail("10x"));
        assert!(detail("1.5m").contains("whole numbers"), "{}", detail("1.5m"));
    }

    proptest! {
        #[test]
        fn every_duration_and_size_is_shown_so_that_it_is_read_again(amount in 1_000_u64..=1 << 50) {
            let period = Period::<1, { 1 << 50 }> { milliseconds: amount };
            prop_assert_eq!(Scalar::parse(&period.to_string()), Ok(period));
            let size = ByteSize::<1, { 1 << 50 }> { bytes: amount };
            prop_assert_eq!(Scalar::parse(&size.to_string()), Ok(size));
        }

        #[test]
        fn arbitrary_text_is_no_number_or_one_in_range(text in any::<String>()) {
            if let Ok(number) = <Whole<3, 5> as Scalar>::parse(&text) {
                prop_assert!((3..=5).contains(&number.get()));
            }
            if let Ok(share) = <Ratio as Scalar>::parse(&text) {
                prop_assert!((0.0..=1.0).contains(&share.get()));
            }
            let _ = <Period<1, 2> as Scalar>::parse(&text);
            let _ = <ByteSize<1, 2> as Scalar>::parse(&text);
        }
    }
}
