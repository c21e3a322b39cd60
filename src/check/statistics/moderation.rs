//! Variances that borrow from each other.
//!
//! Ten runs a side tell a variance with an error of a third; a function that happens to look steady would be an
//! alarm. What is expected of a function of cost `x` is `a + b·x` (see the folder), fitted to all of them; how
//! much a single one may differ from that is the prior's degrees of freedom, fitted as limma's `fitFDist` does by
//! the spread of the logarithms. A variance far above what is expected is left as it is: borrowing would make
//! certain what is not (the reason for limma's `robust = TRUE`).

use statrs::function::gamma::digamma;

use super::student::{self, inverse_trigamma, trigamma};

/// With fewer lines the fit would be as uncertain as what it is to help.
const FEWEST_LINES: usize = 5;

/// Chance that an ordinary variance is taken for one that is out of the ordinary.
const OUTLIER_TAIL: f64 = 0.01;

/// How a line's values vary between runs of one side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Mean cost.
    pub cost: f64,
    /// Variance of the scaled values, pooled over the sides.
    pub variance: f64,
    /// Its degrees of freedom.
    pub degrees: f64,
}

/// What is expected of a variance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prior {
    /// The part that does not depend on the cost.
    constant: f64,
    /// The part that is proportional to it.
    proportional: f64,
    /// How many degrees of freedom the expectation is worth.
    pub degrees: f64,
}

impl Prior {
    /// Fits the expectation. None if there are too few lines, or lines that do not vary.
    #[must_use]
    pub fn fit(spreads: &[Spread]) -> Option<Self> {
        let varying: Vec<Spread> = spreads
            .iter()
            .copied()
            .filter(|spread| spread.variance > 0.0 && spread.variance.is_finite() && spread.degrees >= 1.0)
            .collect();
        if varying.len() < FEWEST_LINES {
            return None;
        }
        let first = trend(&varying)?;
        let ordinary: Vec<Spread> =
            varying.iter().copied().filter(|spread| !first.is_outlier(spread)).collect();
        let fitted = if ordinary.len() < FEWEST_LINES { first } else { trend(&ordinary)? };
        fitted.with_degrees(&varying)
    }

    /// The variance expected of a cost.
    fn expected(&self, cost: f64) -> f64 {
        self.constant + self.proportional * cost
    }

    fn is_outlier(&self, spread: &Spread) -> bool {
        spread.variance > self.expected(spread.cost) * chi_square_over_degrees(OUTLIER_TAIL, spread.degrees)
    }

    /// Degrees of freedom and scale by the first two moments of `ln(variance / expected)`.
    fn with_degrees(self, spreads: &[Spread]) -> Option<Self> {
        let mut deviations = Vec::with_capacity(spreads.len());
        let mut sampling_variance = 0.0;
        for spread in spreads {
            let half = spread.degrees / 2.0;
            let ratio = spread.variance / self.expected(spread.cost);
            deviations.push(ratio.ln() - digamma(half) + half.ln());
            sampling_variance += trigamma(half);
        }
        let count = deviations.len() as f64;
        let mean = deviations.iter().sum::<f64>() / count;
        let variance =
            deviations.iter().map(|deviation| (deviation - mean).powi(2)).sum::<f64>() / (count - 1.0);
        // No more can be known of the expectation than all lines together tell.
        let most = spreads.iter().map(|spread| spread.degrees).sum::<f64>();
        let excess = variance - sampling_variance / count;
        let degrees = if excess > 0.0 { (2.0 * inverse_trigamma(excess)).min(most) } else { most };
        let scale = (mean + digamma(degrees / 2.0) - (degrees / 2.0).ln()).exp();
        let prior =
            Self { constant: self.constant * scale, proportional: self.proportional * scale, degrees };
        scale.is_finite().then_some(prior)
    }

    /// The variance to test with, and its degrees of freedom.
    #[must_use]
    pub fn moderate(&self, spread: &Spread) -> (f64, f64) {
        if self.is_outlier(spread) {
            return (spread.variance, spread.degrees);
        }
        let degrees = self.degrees + spread.degrees;
        let sum = self.degrees * self.expected(spread.cost) + spread.degrees * spread.variance;
        (sum / degrees, degrees.min(student::MANY_DEGREES))
    }
}

/// Least squares for `variance = a + b·cost` with `a, b ≥ 0`, weighted by what the fit itself says that each
/// variance is worth (its error is proportional to it).
fn trend(spreads: &[Spread]) -> Option<Prior> {
    let mean = spreads.iter().map(|spread| spread.variance).sum::<f64>() / spreads.len() as f64;
    let mut fit = Prior { constant: mean, proportional: 0.0, degrees: 0.0 };
    for _ in 0..20 {
        let (mut w, mut wx, mut wxx, mut wy, mut wxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for spread in spreads {
            let weight = spread.degrees / fit.expected(spread.cost).powi(2);
            w += weight;
            wx += weight * spread.cost;
            wxx += weight * spread.cost * spread.cost;
            wy += weight * spread.variance;
            wxy += weight * spread.cost * spread.variance;
        }
        let determinant = w * wxx - wx * wx;
        let free = ((wxx * wy - wx * wxy) / determinant, (w * wxy - wx * wy) / determinant);
        // Where one of the two would be negative it is nought, and the other is alone.
        (fit.constant, fit.proportional) = match free {
            (constant, proportional) if constant >= 0.0 && proportional >= 0.0 => (constant, proportional),
            (constant, _) if constant < 0.0 => (0.0, wxy / wxx),
            _ => (wy / w, 0.0),
        };
    }
    let positive = spreads.iter().all(|spread| {
        let expected = fit.expected(spread.cost);
        expected.is_finite() && expected > 0.0
    });
    positive.then_some(fit)
}

/// The quotient of a chi-square variable and its degrees of freedom that is exceeded with the chance `tail`, by
/// Wilson and Hilferty's approximation.
fn chi_square_over_degrees(tail: f64, degrees: f64) -> f64 {
    let normal = student::upper_quantile(tail, student::MANY_DEGREES);
    let part = 2.0 / (9.0 * degrees);
    (1.0 - part + normal * part.sqrt()).powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Variances of 18 degrees of freedom around `a + b·cost`, as far from it as chance has them: quantiles of
    /// their distribution, in a mixed order.
    fn spreads(constant: f64, proportional: f64) -> Vec<Spread> {
        (0..40)
            .map(|row| {
                let cost = f64::from(1 + row);
                let tail = (f64::from(row * 17 % 40) + 0.5) / 40.0;
                let by_chance = chi_square_over_degrees(tail, 18.0);
                Spread { cost, variance: (constant + proportional * cost) * by_chance, degrees: 18.0 }
            })
            .collect()
    }

    #[test]
    fn both_parts_of_the_expectation_are_found_and_agreeing_lines_lend_much() {
        for (constant, proportional) in [(2.0, 0.0), (2.0, 0.5), (0.0, 0.5)] {
            let prior = Prior::fit(&spreads(constant, proportional)).expect("enough lines");
            for cost in [10.0, 20.0, 40.0] {
                let truth = constant + proportional * cost;
                let part = prior.expected(cost) / truth;
                assert!((0.8..1.25).contains(&part), "{constant} {proportional} at {cost}: {part}");
            }
            assert!(prior.degrees > 100.0, "{prior:?}");
        }
    }

    #[test]
    fn lines_that_do_not_agree_lend_little_and_one_out_of_the_ordinary_keeps_its_own() {
        let mut differing = spreads(2.0, 0.0);
        for (row, spread) in differing.iter_mut().enumerate() {
            spread.variance *= if row % 2 == 0 { 3.0 } else { 0.3 };
        }
        assert!(Prior::fit(&differing).expect("enough lines").degrees < 10.0);

        let mut one = spreads(2.0, 0.0);
        one.push(Spread { cost: 20.0, variance: 60.0, degrees: 18.0 });
        let prior = Prior::fit(&one).expect("enough lines");
        assert_eq!(prior.moderate(one.last().expect("it")), (60.0, 18.0));
        let (variance, degrees) = prior.moderate(&Spread { cost: 20.0, variance: 1.0, degrees: 18.0 });
        assert!(variance > 1.0 && variance < 2.5 && degrees > 18.0, "{variance} {degrees}");
    }

    #[test]
    fn too_few_lines_and_lines_that_do_not_vary_tell_nothing() {
        assert!(Prior::fit(&spreads(2.0, 0.0)[..4]).is_none());
        let still = Spread { cost: 1.0, variance: 0.0, degrees: 18.0 };
        assert!(Prior::fit(&[still; 20]).is_none());
    }
}
