//! Many tests at once: Benjamini and Hochberg, "Controlling the false discovery rate", 1995.

/// The adjusted value of each: where those up to `q` are called changes, at most the part `q` of them is none,
/// on average; and if nothing changed at all, any is called one with at most the chance `q`. Holds for
/// independent tests and for such as rise and fall together.
#[must_use]
pub fn adjusted(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    let value = |index: usize| p_values.get(index).copied().unwrap_or(1.0);
    order.sort_by(|&one, &other| value(other).total_cmp(&value(one)));
    let mut adjusted = vec![1.0; p_values.len()];
    let mut least = 1.0_f64;
    for (above, &index) in order.iter().enumerate() {
        let rank = p_values.len() - above;
        least = least.min(value(index) * p_values.len() as f64 / rank as f64);
        if let Some(place) = adjusted.get_mut(index) {
            *place = least;
        }
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy 1.17.1: `false_discovery_control([0.01, 0.04, 0.03, 0.5, 0.005])`.
    #[test]
    fn it_is_that_of_others() {
        let expected = [0.025, 0.05, 0.05, 0.5, 0.025];
        for (one, other) in adjusted(&[0.01, 0.04, 0.03, 0.5, 0.005]).iter().zip(expected) {
            assert!((one - other).abs() < 1e-12, "{one} {other}");
        }
        assert!(adjusted(&[]).is_empty());
        assert_eq!(adjusted(&[0.2]), [0.2]);
    }
}
