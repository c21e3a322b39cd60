//! Windows → runs.
//!
//! Ten seconds of a process resemble the ten seconds before: neighbouring windows are no independent runs. Means of a
//! few long stretches are nearly so where single windows are not, and little is known better for having more than
//! some twenty of them (Schmeiser 1982, "Batch size effects in the analysis of simulation output"). A stretch is cut by
//! what is in it, not by the clock, since a run's noise is that of its samples.

use crate::model::rfc3339;

/// Fewer are refused.
pub(super) const LEAST_RUNS: usize = 5;
/// So many at most.
const MOST_RUNS: usize = 20;
/// A window of less than this part of the median's value is no run of its own: a query has cut it short, or there was
/// nearly nothing to do.
const SMALL_PART: u64 = 4;

/// A window that has something of what is selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from_unix_ns: u64,
    pub(super) to_unix_ns: u64,
    pub(super) value: u64,
}

/// Windows that make a run together: all that there are from one moment to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    /// RFC 3339.
    pub(super) from: String,
    /// Likewise.
    pub(super) to: String,
    /// How many windows.
    pub(super) windows: u64,
}

#[derive(Debug, Clone, Copy)]
struct Unit {
    whole: Window,
    windows: u64,
}

impl Unit {
    fn add(&mut self, other: &Self) {
        self.whole.to_unix_ns = self.whole.to_unix_ns.max(other.whole.to_unix_ns);
        self.whole.value = self.whole.value.saturating_add(other.whole.value);
        self.windows += other.windows;
    }
}

/// Puts units together as long as `belongs` says so of those so far and the next.
fn joined(units: &[Unit], mut belongs: impl FnMut(&Unit, &Unit) -> bool) -> Vec<Unit> {
    let mut joined: Vec<Unit> = Vec::new();
    for unit in units {
        match joined.last_mut() {
            Some(last) if belongs(last, unit) => last.add(unit),
            _ => joined.push(*unit),
        }
    }
    joined
}

/// The runs: at most [`MOST_RUNS`], in the order of time, none overlapping another.
pub(super) fn stretches(windows: &[Window]) -> Vec<Stretch> {
    let mut units: Vec<Unit> = windows.iter().map(|window| Unit { whole: *window, windows: 1 }).collect();
    units.sort_by_key(|unit| unit.whole.from_unix_ns);
    // A range cannot be asked for without what overlaps it. One without length is at its moment.
    let units = joined(&units, |last, unit| {
        unit.whole.from_unix_ns < last.whole.to_unix_ns.max(last.whole.from_unix_ns.saturating_add(1))
    });
    let limit = median(&units) / SMALL_PART;
    let units = joined(&units, |last, unit| last.whole.value < limit || unit.whole.value < limit);
    if units.len() <= MOST_RUNS {
        return units.into_iter().map(stretch).collect();
    }
    // Of 30 units fifteen runs of two are more alike than ten of one and ten of two.
    let runs = units.len() / units.len().div_ceil(MOST_RUNS);
    let total: u128 = units.iter().map(|unit| u128::from(unit.whole.value)).sum();
    let mut before = 0_u128;
    let mut found: Vec<(u128, Unit)> = Vec::new();
    for unit in units {
        let value = u128::from(unit.whole.value);
        // The run in which its middle lies, if all have the same.
        let run = (2 * before + value) * runs as u128 / (2 * total).max(1);
        before += value;
        match found.last_mut() {
            Some((last, whole)) if *last == run => whole.add(&unit),
            _ => found.push((run, unit)),
        }
    }
    found.into_iter().map(|(_, unit)| stretch(unit)).collect()
}

fn stretch(unit: Unit) -> Stretch {
    Stretch {
        from: rfc3339::exact(unit.whole.from_unix_ns),
        to: rfc3339::exact(unit.whole.to_unix_ns),
        windows: unit.windows,
    }
}

fn median(units: &[Unit]) -> u64 {
    let mut values: Vec<u64> = units.iter().map(|unit| unit.whole.value).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn window(from_s: u64, to_s: u64, value: u64) -> Window {
        Window { from_unix_ns: from_s * SECOND_NS, to_unix_ns: to_s * SECOND_NS, value }
    }

    /// Windows of ten seconds, one after the other.
    fn recorded(values: &[u64]) -> Vec<Window> {
        (0..).zip(values).map(|(at, &value)| window(at * 10, at * 10 + 10, value)).collect()
    }

    fn windows_each(windows: &[Window]) -> Vec<u64> {
        stretches(windows).iter().map(|stretch| stretch.windows).collect()
    }

    #[test]
    fn few_windows_are_runs_and_many_make_at_most_twenty_alike() {
        assert_eq!(windows_each(&recorded(&[100; 7])), [1; 7]);
        assert_eq!(windows_each(&recorded(&[100; 20])), [1; 20]);
        assert_eq!(windows_each(&recorded(&[100; 30])), [2; 15]);
        assert_eq!(windows_each(&recorded(&[100; 90])), [5; 18]);
        assert_eq!(windows_each(&recorded(&[100; 360])), [18; 20]);
        assert!(stretches(&[]).is_empty());
    }

    #[test]
    fn runs_have_as_much_in_them_and_not_as_much_time() {
        let values: Vec<u64> = [200; 20].into_iter().chain([100; 40]).collect();
        let each = windows_each(&recorded(&values));
        assert_eq!(each, [vec![2; 10], vec![4; 10]].concat());
    }

    #[test]
    fn a_window_that_was_cut_short_joins_its_neighbour() {
        assert_eq!(windows_each(&recorded(&[3, 100, 100, 24, 100, 100, 30, 2])), [2, 2, 1, 1, 2]);
    }

    #[test]
    fn windows_that_overlap_are_one_and_those_of_no_length_stand_by_themselves() {
        let overlapping = [window(0, 10, 5), window(9, 20, 5), window(20, 30, 5), window(2, 4, 5)];
        let found = stretches(&overlapping);
        assert_eq!(found.iter().map(|stretch| stretch.windows).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(
            (found[0].from.as_str(), found[0].to.as_str()),
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:20Z")
        );
        assert_eq!(windows_each(&[window(1, 1, 5), window(1, 1, 5), window(2, 2, 5)]), [2, 1]);
    }

    proptest! {
        #[test]
        fn every_window_is_in_one_run_and_runs_follow_each_other(
            listed in proptest::collection::vec((0_u64..5_000, 0_u64..30, 1_u64..1_000_000), 0..200),
        ) {
            let windows: Vec<Window> =
                listed.iter().map(|&(from, length, value)| window(from, from + length, value)).collect();
            let found = stretches(&windows);
            prop_assert!(found.len() <= MOST_RUNS);
            prop_assert_eq!(found.iter().map(|stretch| stretch.windows).sum::<u64>(), windows.len() as u64);
            for pair in found.windows(2) {
                let (one, next) = (&pair[0], &pair[1]);
                prop_assert!(one.to <= next.from, "{:?}", pair);
            }
        }
    }
}
