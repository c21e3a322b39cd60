//! Is one side higher than the other?

use super::moderation::{Prior, Spread};
use super::scale::Scale;
use super::student::{upper_quantile, upper_tail};

/// A direction of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// It costs more.
    Increase,
    /// It costs less.
    Decrease,
}

/// Values of the runs of both sides, on their own scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaled {
    /// Mean of the base.
    pub base_mean: f64,
    /// Mean of what is new.
    pub new_mean: f64,
    base_runs: f64,
    new_runs: f64,
    spread: Spread,
    scale: Scale,
}

impl Scaled {
    /// From costs of runs; each side has at least one.
    #[must_use]
    pub fn new(scale: Scale, base: &[f64], new: &[f64]) -> Self {
        let (base_mean, base_squares) = moments(base, scale);
        let (new_mean, new_squares) = moments(new, scale);
        let degrees = (base.len() + new.len()).saturating_sub(2) as f64;
        let costs = base.iter().chain(new).sum::<f64>() / (base.len() + new.len()).max(1) as f64;
        let variance = if degrees > 0.0 { (base_squares + new_squares) / degrees } else { f64::NAN };
        let spread = Spread { cost: costs, variance, degrees };
        Self { base_mean, new_mean, base_runs: base.len() as f64, new_runs: new.len() as f64, spread, scale }
    }

    /// How it varies.
    #[must_use]
    pub fn spread(&self) -> Spread {
        self.spread
    }

    /// The test, with the expectation of the variance if there is one.
    #[must_use]
    pub fn test(&self, prior: Option<&Prior>) -> TwoSample {
        let (variance, degrees) = match prior {
            Some(prior) => prior.moderate(&self.spread),
            None => (self.spread.variance, self.spread.degrees),
        };
        TwoSample { values: self.clone(), variance, degrees }
    }
}

/// The sides with what is known of their variance.
#[derive(Debug, Clone, PartialEq)]
pub struct TwoSample {
    values: Scaled,
    variance: f64,
    /// Degrees of freedom.
    pub degrees: f64,
}

impl TwoSample {
    /// The same with a variance that is so many times as large.
    #[must_use]
    pub fn inflated(self, factor: f64) -> Self {
        Self { variance: self.variance * factor, ..self }
    }

    fn difference(&self) -> f64 {
        self.values.new_mean - self.values.base_mean
    }

    /// Standard error of the difference on the scale. Never nought: values that do not vary at all are those of too few
    /// samples, or of rounding.
    #[must_use]
    pub fn error(&self) -> f64 {
        let runs = 1.0 / self.values.base_runs + 1.0 / self.values.new_runs;
        let rounding = 1e-9 * (self.values.base_mean + self.values.new_mean);
        (self.variance * runs).sqrt().max(rounding)
    }

    /// The chance of such a change in this direction, or a greater one, if there is none.
    #[must_use]
    pub fn p_value(&self, direction: Direction) -> f64 {
        let t = self.difference() / self.error();
        upper_tail(if direction == Direction::Increase { t } else { -t }, self.degrees)
    }

    /// The relative change: 0.2 is +20 %. Infinite or not a number if the base is nought.
    #[must_use]
    pub fn effect(&self) -> f64 {
        self.values.scale.from(self.values.new_mean) / self.values.scale.from(self.values.base_mean) - 1.0
    }

    /// The logarithm of new / base, and its standard error; none where one of them is not clearly above nought.
    #[must_use]
    pub fn log_ratio(&self) -> Option<(f64, f64)> {
        let Scaled { base_mean, new_mean, base_runs, new_runs, scale, .. } = self.values;
        let (base_error, new_error) = ((self.variance / base_runs).sqrt(), (self.variance / new_runs).sqrt());
        if !(base_mean > 3.0 * base_error && new_mean > 3.0 * new_error) {
            return None;
        }
        let error = (base_error * scale.log_slope(base_mean)).hypot(new_error * scale.log_slope(new_mean));
        Some(((scale.from(new_mean) / scale.from(base_mean)).ln(), error))
    }

    /// The increase, on the scale, that is found with the chance `power` if the test may err with the chance
    /// `level`.
    fn visible(&self, level: f64, power: f64) -> f64 {
        (upper_quantile(level, self.degrees) + upper_quantile(1.0 - power, self.degrees)) * self.error()
    }

    /// The smallest relative increase that is found with the chance `power` at this level. None if the base is
    /// nought.
    #[must_use]
    pub fn smallest_effect(&self, level: f64, power: f64) -> Option<f64> {
        let scale = self.values.scale;
        let base = scale.from(self.values.base_mean);
        let raised = scale.from(self.values.base_mean + self.visible(level, power));
        let effect = raised / base - 1.0;
        (base > 0.0 && effect.is_finite()).then_some(effect)
    }

    /// Runs a side with which an increase by `effect` is found with the chance `power`. None if it cannot be
    /// said, or would be more than a million.
    #[must_use]
    pub fn runs_needed(&self, effect: f64, level: f64, power: f64) -> Option<u64> {
        let scale = self.values.scale;
        let raised = scale.to(scale.from(self.values.base_mean) * (1.0 + effect));
        let step = raised - self.values.base_mean;
        if step.is_nan() || step <= 0.0 || !self.variance.is_finite() {
            return None;
        }
        // The degrees of freedom depend on the number that is sought; what is borrowed stays.
        let borrowed = (self.degrees - self.values.spread.degrees).max(0.0);
        let mut runs = self.values.base_runs.max(2.0);
        for _ in 0..30 {
            let degrees = borrowed + 2.0 * runs - 2.0;
            let quantiles = upper_quantile(level, degrees) + upper_quantile(1.0 - power, degrees);
            runs = (2.0 * self.variance * (quantiles / step).powi(2)).max(2.0);
        }
        (runs < 1e6).then(|| runs.ceil() as u64)
    }
}

/// Mean and sum of squared deviations of the scaled values.
fn moments(values: &[f64], scale: Scale) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().map(|&value| scale.to(value)).sum::<f64>() / count;
    let squares = values.iter().map(|&value| (scale.to(value) - mean).powi(2)).sum();
    (mean, squares)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy 1.17.1: `ttest_ind([3, 4, 5, 6], [1, 2, 3, 4], alternative="greater")`; on the scale of roots
    /// these are the values.
    #[test]
    fn without_an_expectation_it_is_students_test() {
        let scaled = Scaled::new(Scale::Root, &[1.0, 4.0, 9.0, 16.0], &[9.0, 16.0, 25.0, 36.0]);
        let test = scaled.test(None);
        assert_eq!(test.degrees, 6.0);
        assert!((test.p_value(Direction::Increase) - 0.0355).abs() < 1e-4);
        assert!((test.p_value(Direction::Increase) + test.p_value(Direction::Decrease) - 1.0).abs() < 1e-12);
        assert!((test.effect() - (4.5_f64 / 2.5).powi(2) + 1.0).abs() < 1e-12);
    }

    #[test]
    fn what_never_varies_is_certain_and_what_is_nought_has_no_ratio() {
        let certain = Scaled::new(Scale::Root, &[4.0; 5], &[9.0; 5]).test(None);
        assert!(certain.p_value(Direction::Increase) < 1e-9);
        let same = Scaled::new(Scale::Root, &[0.0; 5], &[0.0; 5]).test(None);
        assert!((same.p_value(Direction::Increase) - 0.5).abs() < 1e-9);
        assert!(same.log_ratio().is_none() && same.smallest_effect(0.01, 0.8).is_none());
        assert!(same.runs_needed(0.05, 0.01, 0.8).is_none());
    }

    #[test]
    fn with_as_many_runs_as_are_needed_the_effect_is_just_visible() {
        let runs = |count: usize| -> Vec<f64> {
            (0..count).map(|run| 100.0 + if run % 2 == 0 { 8.0 } else { -8.0 }).collect()
        };
        let few = Scaled::new(Scale::Root, &runs(10), &runs(10)).test(None);
        let needed = few.runs_needed(0.05, 0.002, 0.8).expect("it can be said") as usize;
        let many = Scaled::new(Scale::Root, &runs(needed), &runs(needed)).test(None);
        let visible = many.smallest_effect(0.002, 0.8).expect("it can be said");
        assert!((visible - 0.05).abs() < 0.003, "{needed} runs: {visible}");
    }
}
