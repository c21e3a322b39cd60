//! How much is kept, and which files have to go.

use std::time::Duration;

use super::error::StoreError;

/// How much is kept: what is older goes, and so does the oldest of what is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long windows are kept after they were written. Files go as a whole, so that some of them
    /// stay up to a day longer, or an eighth of this if that is less.
    pub max_age: Duration,
    /// The most bytes that the store's files take, logs and dictionaries included.
    pub max_bytes: u64,
}

impl Default for Retention {
    /// A week, and 2 GiB: at 19 Hz a host of 32 cores, half busy, needs a fifth of it (`benches/run store`).
    fn default() -> Self {
        Self { max_age: Duration::from_secs(7 * 24 * 3600), max_bytes: 2 << 30 }
    }
}

impl Retention {
    /// Less than this, and the names of one busy window would not fit.
    pub const LEAST_BYTES: u64 = 32 << 20;

    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.max_bytes < Self::LEAST_BYTES {
            let what = format!("max_bytes is {}, the least is {}", self.max_bytes, Self::LEAST_BYTES);
            return Err(StoreError::BadOptions { what });
        }
        if self.max_age < Duration::from_secs(60) {
            return Err(StoreError::BadOptions { what: "max_age is less than a minute".to_owned() });
        }
        Ok(())
    }

    /// A segment that has grown to this is finished.
    pub(super) fn segment_bytes(&self) -> u64 {
        self.max_bytes / 8
    }

    /// A larger window is refused.
    pub(super) fn window_bytes(&self) -> u64 {
        self.max_bytes / 32
    }

    /// How far a log grows before it is written back.
    pub(super) fn log_bytes(&self) -> u64 {
        (self.segment_bytes() / 8).min(2 << 20)
    }

    /// What is left after a window was written. The next one takes its bytes twice, in the log and in the
    /// file, and has room above this.
    fn kept_bytes(&self) -> u64 {
        self.max_bytes - self.max_bytes / 8
    }

    fn age_ns(&self) -> u64 {
        u64::try_from(self.max_age.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether a segment that was made at this time is to be finished although there is room in it: at
    /// midnight UTC, or when an eighth of the time to keep is over. A clock that was set back finishes
    /// nothing.
    pub(super) fn is_over(&self, created_ns: u64, now_ns: u64) -> bool {
        const DAY_NS: u64 = 86_400_000_000_000;
        now_ns / DAY_NS > created_ns / DAY_NS || now_ns.saturating_sub(created_ns) > self.age_ns() / 8
    }

    /// Which files have to go, oldest first; the last one is written at the moment if `last_is_open`.
    pub(super) fn removals(&self, files: &[KeptFile], last_is_open: bool, now_ns: u64) -> Vec<Removal> {
        let mut left: u64 = files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes));
        let mut removals = Vec::new();
        for (index, file) in files.iter().enumerate() {
            let is_open = last_is_open && index + 1 == files.len();
            let is_old = now_ns.saturating_sub(file.written_ns) > self.age_ns();
            let why = if is_old {
                Why::Age
            } else if left > self.kept_bytes() && !is_open {
                Why::Size
            } else {
                continue;
            };
            left -= file.bytes;
            removals.push(Removal { index, why });
        }
        removals
    }
}

/// A file as retention sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeptFile {
    pub(super) bytes: u64,
    pub(super) written_ns: u64,
}

/// A file that has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Removal {
    pub(super) index: usize,
    pub(super) why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Age,
    Size,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_NS: u64 = 3_600_000_000_000;

    fn retention(hours: u64, max_bytes: u64) -> Retention {
        Retention { max_age: Duration::from_secs(hours * 3600), max_bytes }
    }

    fn removed(retention: &Retention, files: &[(u64, u64)], last_is_open: bool) -> Vec<(usize, Why)> {
        let files: Vec<_> =
            files.iter().map(|&(bytes, hour)| KeptFile { bytes, written_ns: hour * HOUR_NS }).collect();
        let removals = retention.removals(&files, last_is_open, 100 * HOUR_NS);
        removals.into_iter().map(|removal| (removal.index, removal.why)).collect()
    }

    #[test]
    fn the_oldest_go_until_there_is_room_and_the_open_one_stays() {
        let retention = retention(1000, 800);
        assert_eq!(removed(&retention, &[(300, 1), (300, 2), (100, 3)], true), []);
        assert_eq!(removed(&retention, &[(300, 1), (300, 2), (101, 3)], true), [(0, Why::Size)]);
        assert_eq!(removed(&retention, &[(1, 1), (900, 2), (1, 3)], true), [(0, Why::Size), (1, Why::Size)]);
        assert_eq!(removed(&retention, &[(900, 1)], true), []);
        assert_eq!(removed(&retention, &[(900, 1)], false), [(0, Why::Size)]);
    }

    #[test]
    fn what_is_too_old_goes_even_if_it_is_open_and_what_comes_from_the_future_stays() {
        let retention = retention(10, 800);
        assert_eq!(removed(&retention, &[(1, 89), (1, 90), (1, 91), (1, 500)], true), [(0, Why::Age)]);
        assert_eq!(removed(&retention, &[(1, 1)], true), [(0, Why::Age)]);
    }

    #[test]
    fn a_segment_is_over_at_midnight_or_after_an_eighth_of_the_age_but_not_when_the_clock_is_set_back() {
        let week = retention(7 * 24, 1 << 30);
        assert!(week.is_over(23 * HOUR_NS, 24 * HOUR_NS));
        assert!(!week.is_over(24 * HOUR_NS, 44 * HOUR_NS));
        assert!(week.is_over(24 * HOUR_NS, 46 * HOUR_NS));
        assert!(!week.is_over(30 * HOUR_NS, HOUR_NS));
        let hours = retention(8, 1 << 30);
        assert!(!hours.is_over(HOUR_NS, 2 * HOUR_NS));
        assert!(hours.is_over(HOUR_NS, 2 * HOUR_NS + 1));
    }

    #[test]
    fn limits_under_which_nothing_would_fit_are_refused() {
        assert!(Retention::default().check().is_ok());
        assert!(retention(1, Retention::LEAST_BYTES - 1).check().is_err());
        assert!(retention(0, Retention::LEAST_BYTES).check().is_err());
    }
}
