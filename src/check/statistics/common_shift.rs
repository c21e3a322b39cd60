//! What all functions have in common.
//!
//! Of shares, one function's gain is all others' loss; and where a program runs for a fixed time, the CPU time
//! that one function frees is spent by the others. Who changed cannot be told from such figures without an
//! assumption, and the usual one is that most did not (the size factors of `DESeq` and `edgeR`): the middle of all
//! changes, without those that are far from it, is nobody's own.

/// Fewer functions than this have nothing in common that could be told from what is their own.
const FEWEST: usize = 3;

/// A change of a function: the logarithm of new / base, and its standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Logarithm.
    pub log_ratio: f64,
    /// Its standard error.
    pub error: f64,
}

/// No change is taken for better known than the middle one by more than this factor.
const BEST_KNOWN: f64 = 3.0;
/// A change that is so many of its standard errors from what is common has no part in it: Tukey's biweight of 95 %
/// of a mean's efficiency.
const OWN_CHANGE: f64 = 4.685;
/// What that leaves of a mean's efficiency.
const EFFICIENCY: f64 = 0.95;
/// Rounds, after which what is left to move is a small part of the standard error.
const ROUNDS: usize = 10;

/// What the changes but the one at `left_out` have in common, and its standard error: their weighted median, and
/// from there their mean, each with the less weight the further it is from what is common (Tukey's biweight; Huber
/// and Ronchetti, "Robust Statistics", 2009, chapter 4). A median alone is a third less certain. What is better
/// known counts more, up to a limit: a function of half the program cannot outvote all others. None if there are
/// too few. `n log n`.
#[must_use]
pub fn common_shift(changes: &[Option<Change>], left_out: Option<usize>) -> Option<Change> {
    let mut others: Vec<Change> = changes
        .iter()
        .enumerate()
        .filter(|(index, _)| Some(*index) != left_out)
        .filter_map(|(_, change)| *change)
        .filter(|change| change.error > 0.0 && change.error.is_finite() && change.log_ratio.is_finite())
        .collect();
    if others.len() < FEWEST {
        return None;
    }
    others.sort_by(|one, other| one.error.total_cmp(&other.error));
    let least_error = others.get(others.len() / 2)?.error / BEST_KNOWN;
    others.sort_by(|one, other| one.log_ratio.total_cmp(&other.log_ratio));
    let mut common = weighted_median(&others, least_error)?;
    let weight = |change: &Change, common: f64| {
        let from_common = (change.log_ratio - common) / (OWN_CHANGE * change.error);
        (1.0 - from_common.powi(2)).max(0.0).powi(2) / change.error.max(least_error).powi(2)
    };
    for _ in 0..ROUNDS {
        let weights = || others.iter().map(|change| (change, weight(change, common)));
        let whole: f64 = weights().map(|(_, weight)| weight).sum();
        common = weights().map(|(change, weight)| weight / whole * change.log_ratio).sum();
    }
    let whole: f64 = others.iter().map(|change| weight(change, common)).sum();
    let squares: f64 = others.iter().map(|change| (weight(change, common) * change.error).powi(2)).sum();
    let error = (squares / EFFICIENCY).sqrt() / whole;
    (common.is_finite() && error.is_finite()).then_some(Change { log_ratio: common, error })
}

/// Of changes in their order, each with the weight of one over its error.
fn weighted_median(ordered: &[Change], least_error: f64) -> Option<f64> {
    let weight = |change: &Change| 1.0 / change.error.max(least_error);
    let whole: f64 = ordered.iter().map(weight).sum();
    let mut sum = 0.0;
    let middle = ordered.iter().find(|change| {
        sum += weight(change);
        sum >= whole / 2.0
    })?;
    Some(middle.log_ratio)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(values: &[(f64, f64)]) -> Vec<Option<Change>> {
        values.iter().map(|&(log_ratio, error)| Some(Change { log_ratio, error })).collect()
    }

    #[test]
    fn what_most_did_is_common_and_what_one_did_is_not() {
        // One fell by half; of shares, all others rose by a tenth.
        let of_shares = changes(&[(-0.7, 0.01), (0.1, 0.03), (0.11, 0.05), (0.09, 0.04), (0.1, 0.05)]);
        for left_out in [None, Some(0), Some(1)] {
            let shift = common_shift(&of_shares, left_out).expect("enough");
            assert!((shift.log_ratio - 0.1).abs() < 0.011, "{left_out:?} {shift:?}");
            assert!(shift.error > 0.0 && shift.error < 0.05);
        }
    }

    #[test]
    fn what_is_plainly_a_functions_own_has_no_part_in_what_is_common() {
        let shift = |own: f64| {
            let one = |row: u32| (if row.is_multiple_of(3) { own } else { 0.01 * f64::from(row % 4) }, 0.02);
            common_shift(&changes(&(0..60).map(one).collect::<Vec<_>>()), None).expect("enough")
        };
        let (some, more) = (shift(0.2), shift(2.0));
        assert!((some.log_ratio - more.log_ratio).abs() < 1e-6, "{some:?} {more:?}");
        assert!((some.log_ratio - 0.015).abs() < 0.002, "{some:?}");
        // Forty that agree.
        assert!((some.error / (0.02 / 40.0_f64.sqrt()) - 1.0).abs() < 0.05, "{some:?}");
    }

    #[test]
    fn of_two_others_nothing_is_known() {
        let few = changes(&[(0.1, 0.1), (0.2, 0.1), (0.3, 0.1)]);
        assert!(common_shift(&few, None).is_some());
        assert!(common_shift(&few, Some(1)).is_none());
        let unknown = [few.as_slice(), &[None, Some(Change { log_ratio: f64::NAN, error: 0.1 })]].concat();
        assert!(common_shift(&unknown, Some(1)).is_none());
    }
}
