//! Windows of a server's time → stretches of equal cost, each of which is a run.
//!
//! Windows are no runs: ten seconds of a process resemble the ten seconds before. Means of a few long stretches are nearly
//! independent where single windows are not, and more than some twenty of them tell hardly more (Schmeiser 1982, "Batch
//! size effects in the analysis of simulation output"). They are cut by what is in them and not by the clock, since
//! a share is known as well as its samples are many. Whether they are as good as independent is seen in `batches.rs`.

use std::fmt;

/// With fewer on a side nothing is told from noise.
pub const LEAST_STRETCHES: usize = 5;
/// A side has no more.
pub const MOST_STRETCHES: usize = 20;
/// How many a side may have, if it has so many windows. Each is half of the one before it, so that pairs of
/// stretches are the next ones.
const COUNTS: [usize; 2] = [MOST_STRETCHES, 10];
/// A window of less than this part of the median's value joins a neighbour: a query has cut it short, or there was
/// nearly nothing to do.
const SMALL_PART: u64 = 4;

/// A window, or all windows from one moment to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Its first nanosecond, since the Unix epoch.
    pub from_unix_ns: u64,
    /// The first one after it.
    pub to_unix_ns: u64,
    /// How much it has of what is selected.
    pub value: u64,
    /// How many windows.
    pub windows: u64,
}

impl Stretch {
    /// One window.
    #[must_use]
    pub fn of_window(from_unix_ns: u64, to_unix_ns: u64, value: u64) -> Self {
        Self { from_unix_ns, to_unix_ns, value, windows: 1 }
    }

    fn add(&mut self, later: &Self) {
        self.to_unix_ns = self.to_unix_ns.max(later.to_unix_ns);
        self.value = self.value.saturating_add(later.value);
        self.windows = self.windows.saturating_add(later.windows);
    }
}

/// What a side's runs are made of: its windows, those that are too short by themselves together with a neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    found: usize,
    units: Vec<Stretch>,
}

/// Too few windows for a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct TooFewWindows {
    found: usize,
    apart: usize,
}

impl fmt::Display for TooFewWindows {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { found: 0, .. } => {
                write!(formatter, "there was nothing of it: it was idle, or did not run")?;
            }
            Self { found, apart } if found == apart => write!(formatter, "there are {found} windows of it")?,
            Self { found, apart } => write!(
                formatter,
                "there are {found} windows of it, and {apart} that do not overlap and are of like size"
            )?,
        }
        write!(
            formatter,
            "; at least {LEAST_STRETCHES} are needed to tell a change from noise, and 10 are advised: choose a longer \
             time, or one in which it was at work"
        )
    }
}

impl Windows {
    /// Of windows in any order, those that have something of what is selected.
    #[must_use]
    pub fn new(mut windows: Vec<Stretch>) -> Self {
        windows.sort_by_key(|window| (window.from_unix_ns, window.to_unix_ns));
        Self::of_units(windows.len(), &windows)
    }

    /// Likewise, where stretches are asked for by their range, which no window can be told apart from that overlaps
    /// it: those are one.
    #[must_use]
    pub fn asked_for_by_range(mut windows: Vec<Stretch>) -> Self {
        windows.sort_by_key(|window| (window.from_unix_ns, window.to_unix_ns));
        // One without length is at its moment.
        let overlaps = |last: &Stretch, next: &Stretch| {
            next.from_unix_ns < last.to_unix_ns.max(last.from_unix_ns.saturating_add(1))
        };
        Self::of_units(windows.len(), &joined(&windows, overlaps))
    }

    fn of_units(found: usize, units: &[Stretch]) -> Self {
        let mut values: Vec<u64> = units.iter().map(|unit| unit.value).collect();
        values.sort_unstable();
        let least = values.get(values.len() / 2).copied().unwrap_or(0) / SMALL_PART;
        let units = joined(units, |last, next| last.value < least || next.value < least);
        Self { found, units }
    }

    /// Windows that were found.
    #[must_use]
    pub fn found(&self) -> usize {
        self.found
    }

    /// That they can be told from noise.
    ///
    /// # Errors
    /// [`TooFewWindows`].
    pub fn check(&self) -> Result<(), TooFewWindows> {
        let apart = self.units.len();
        if apart < LEAST_STRETCHES { Err(TooFewWindows { found: self.found, apart }) } else { Ok(()) }
    }

    /// They as `count` stretches of as nearly the same cost as can be, in their order; fewer if there are fewer windows.
    #[must_use]
    pub fn stretches(&self, count: usize) -> Vec<Stretch> {
        let mut left: f64 = self.units.iter().map(|unit| unit.value as f64).sum();
        let mut units = self.units.iter();
        let mut stretches: Vec<Stretch> = Vec::with_capacity(count);
        for remaining in (1..=count.min(self.units.len())).rev() {
            let wanted = left / remaining as f64;
            let Some(mut stretch) = units.next().copied() else { break };
            let mut sum = stretch.value as f64;
            // Those that follow need a window each, and the border goes to the nearer side.
            while units.len() >= remaining
                && let Some(next) = units.as_slice().first()
                && (remaining == 1 || sum + next.value as f64 / 2.0 <= wanted)
            {
                stretch.add(next);
                sum += next.value as f64;
                units.next();
            }
            left -= sum;
            stretches.push(stretch);
        }
        stretches
    }
}

/// How many stretches each of these is to have: as many on both sides, since the test takes their spread to be one, and
/// errs little with as many where those of one side are longer and therefore vary less.
#[must_use]
pub fn stretch_count<'a>(windows: impl IntoIterator<Item = &'a Windows>) -> usize {
    let fewest = windows.into_iter().map(|windows| windows.units.len()).min().unwrap_or(0);
    COUNTS.into_iter().find(|&count| count <= fewest).unwrap_or(fewest)
}

/// Puts those together that belong to the ones before them.
fn joined(units: &[Stretch], belongs: impl Fn(&Stretch, &Stretch) -> bool) -> Vec<Stretch> {
    let mut joined: Vec<Stretch> = Vec::new();
    for unit in units {
        match joined.last_mut() {
            Some(last) if belongs(last, unit) => last.add(unit),
            _ => joined.push(*unit),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn window(from_s: u64, to_s: u64, value: u64) -> Stretch {
        Stretch::of_window(from_s * SECOND_NS, to_s * SECOND_NS, value)
    }

    /// Windows of ten seconds, one after the other.
    fn recorded(values: &[u64]) -> Windows {
        Windows::new((0..).zip(values).map(|(at, &value)| window(at * 10, at * 10 + 10, value)).collect())
    }

    fn windows_each(windows: &Windows, count: usize) -> Vec<u64> {
        windows.stretches(count).iter().map(|stretch| stretch.windows).collect()
    }

    #[test]
    fn both_sides_have_as_many_and_never_more_than_twenty() {
        for (base, new, expected) in
            [(5, 500, 5), (9, 9, 9), (12, 30, 10), (19, 19, 10), (20, 21, 20), (8640, 90, 20)]
        {
            let sides = [base, new].map(|count| recorded(&vec![7; count]));
            assert_eq!(stretch_count(&sides), expected, "{base} {new}");
            for side in &sides {
                assert_eq!((side.check(), side.stretches(expected).len()), (Ok(()), expected));
            }
        }
        let few = recorded(&[7; 4]).check().expect_err("they are too few").to_string();
        assert!(few.starts_with("there are 4 windows of it; at least 5 are needed"), "{few}");
        let none = recorded(&[]).check().expect_err("there are none").to_string();
        assert!(none.starts_with("there was nothing of it"), "{none}");
    }

    #[test]
    fn stretches_have_as_much_in_them_and_not_as_much_time() {
        assert_eq!(windows_each(&recorded(&[1; 10]), 5), [2; 5]);
        assert_eq!(windows_each(&recorded(&[100; 360]), 20), [18; 20]);
        let values: Vec<u64> = [200; 20].into_iter().chain([100; 40]).collect();
        assert_eq!(windows_each(&recorded(&values), 20), [vec![2; 10], vec![4; 10]].concat());
        // What costs much is a stretch of its own.
        assert_eq!(windows_each(&recorded(&[30, 30, 100, 30, 30]), 3), [2, 1, 2]);
    }

    #[test]
    fn a_window_that_was_cut_short_joins_its_neighbour() {
        let cut = recorded(&[3, 100, 100, 24, 100, 100, 30, 2]);
        assert_eq!(windows_each(&cut, 20), [2, 2, 1, 1, 2]);
        assert_eq!((cut.check(), cut.found()), (Ok(()), 8));
        let few = recorded(&[3, 100, 100, 100, 100]).check().expect_err("they are too few").to_string();
        assert!(few.contains("5 windows of it, and 4 that"), "{few}");
    }

    #[test]
    fn windows_that_overlap_are_one_only_where_ranges_have_to_tell_them_apart() {
        let overlapping = vec![window(0, 10, 5), window(9, 20, 5), window(20, 30, 5), window(2, 4, 5)];
        let found = Windows::asked_for_by_range(overlapping.clone()).stretches(20);
        assert_eq!(found.iter().map(|stretch| stretch.windows).collect::<Vec<_>>(), [3, 1]);
        assert_eq!((found[0].from_unix_ns, found[0].to_unix_ns), (0, 20 * SECOND_NS));
        assert_eq!(windows_each(&Windows::new(overlapping), 20), [1; 4]);
        let momentary = vec![window(1, 1, 5), window(1, 1, 5), window(2, 2, 5)];
        assert_eq!(windows_each(&Windows::asked_for_by_range(momentary), 20), [2, 1]);
    }

    proptest! {
        #[test]
        fn every_window_is_in_one_stretch_and_stretches_follow_each_other(
            listed in proptest::collection::vec(
                (0_u64..5_000, 0_u64..30, prop_oneof![1_u64..3, 1_u64..1_000_000, Just(u64::MAX)]), 0..200,
            ),
            count in 1..30_usize,
        ) {
            let windows: Vec<Stretch> =
                listed.iter().map(|&(from, length, value)| window(from, from + length, value)).collect();
            for (by_range, sides) in
                [(false, Windows::new(windows.clone())), (true, Windows::asked_for_by_range(windows.clone()))]
            {
                let found = sides.stretches(count);
                prop_assert_eq!(found.len(), count.min(sides.units.len()));
                prop_assert_eq!(found.iter().map(|stretch| stretch.windows).sum::<u64>(), windows.len() as u64);
                for pair in found.windows(2) {
                    prop_assert!(pair[0].from_unix_ns <= pair[1].from_unix_ns, "{:?}", pair);
                    prop_assert!(!by_range || pair[0].to_unix_ns <= pair[1].from_unix_ns, "{:?}", pair);
                }
            }
        }
    }
}
