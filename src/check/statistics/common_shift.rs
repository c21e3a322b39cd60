//! What all functions have in common.
//!
//! Of shares, one function's gain is all others' loss; and where a program runs for a fixed time, the CPU time
//! that one function frees is spent by the others. Who changed cannot be told from such figures without an
//! assumption, and the usual one is that most did not (the size factors of `DESeq` and `edgeR`): the weighted
//! median of all changes is nobody's own.

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

/// No change has more than this many times the middle weight.
const MOST_WEIGHT: f64 = 2.0;

/// The weighted median of the changes without the one at `left_out`, and its standard error. Weights are one
/// over the error, up to a limit: what is better known counts more, but a function of half the program cannot
/// outvote all others. None if there are too few. `n log n`.
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
    let limit = MOST_WEIGHT / others.get(others.len() / 2)?.error;
    others.sort_by(|one, other| one.log_ratio.total_cmp(&other.log_ratio));
    let weight = |change: &Change| (1.0 / change.error).min(limit);
    let whole: f64 = others.iter().map(weight).sum();
    let mut sum = 0.0;
    let middle = others.iter().find(|change| {
        sum += weight(change);
        sum >= whole / 2.0
    })?;
    // That of the weighted mean; a median is √(π/2) times as uncertain.
    let squares: f64 = others.iter().map(|change| (weight(change) * change.error).powi(2)).sum();
    let error = (std::f64::consts::FRAC_PI_2 * squares).sqrt() / whole;
    Some(Change { log_ratio: middle.log_ratio, error })
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
    fn of_two_others_nothing_is_known() {
        let few = changes(&[(0.1, 0.1), (0.2, 0.1), (0.3, 0.1)]);
        assert!(common_shift(&few, None).is_some());
        assert!(common_shift(&few, Some(1)).is_none());
        let unknown = [few.as_slice(), &[None, Some(Change { log_ratio: f64::NAN, error: 0.1 })]].concat();
        assert!(common_shift(&unknown, Some(1)).is_none());
    }
}
