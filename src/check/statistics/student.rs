//! Student's t distribution and two derivatives of the gamma function.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Degrees of freedom beyond which nothing changes that anybody could see.
pub const MANY_DEGREES: f64 = 1e5;

/// Chances below it are taken for it. For the smallest the library fails, or never ends; nobody could tell them apart.
const LEAST_TAIL: f64 = 1e-15;

/// The chance of a value above `t`. One half where there are no degrees of freedom to say more.
#[must_use]
pub fn upper_tail(t: f64, degrees: f64) -> f64 {
    if t.is_nan() {
        return 0.5;
    }
    if t.is_infinite() {
        return if t > 0.0 { 0.0 } else { 1.0 };
    }
    distribution(degrees).map_or(0.5, |student| student.sf(t))
}

/// The value that is exceeded with the chance `tail`, which lies between 0 and 1. Infinite where there are no
/// degrees of freedom.
#[must_use]
pub fn upper_quantile(tail: f64, degrees: f64) -> f64 {
    if tail.is_nan() || tail <= 0.0 {
        return f64::INFINITY;
    }
    if tail >= 1.0 {
        return f64::NEG_INFINITY;
    }
    distribution(degrees).map_or(f64::INFINITY, |student| -student.inverse_cdf(tail.max(LEAST_TAIL)))
}

fn distribution(degrees: f64) -> Option<StudentsT> {
    StudentsT::new(0.0, 1.0, degrees.min(MANY_DEGREES)).ok()
}

/// The first derivative of the digamma function, for `x > 0`: recurrence up to 8, then the asymptotic series.
#[must_use]
pub fn trigamma(mut x: f64) -> f64 {
    let mut sum = 0.0;
    while x < 8.0 {
        sum += 1.0 / (x * x);
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    let series = 1.0 / 6.0 - square * (1.0 / 30.0 - square * (1.0 / 42.0 - square / 30.0));
    sum + (1.0 + 0.5 / x + series * square) / x
}

/// The `x` of which `value` is the trigamma, by bisection over `10⁻³ … 10⁶`; the nearer end beyond these.
#[must_use]
pub fn inverse_trigamma(value: f64) -> f64 {
    let (mut low, mut high) = (1e-3_f64, 1e6_f64);
    for _ in 0..100 {
        let middle = (low * high).sqrt();
        // Trigamma falls.
        if trigamma(middle) > value { low = middle } else { high = middle }
    }
    (low * high).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of scipy 1.17.1: `t.sf(t, df)`.
    #[test]
    fn tails_are_those_of_tables() {
        for (t, degrees, tail) in [
            (1.812_461_1, 10.0, 0.05),
            (2.878_440_5, 18.0, 0.005),
            (3.610_484_9, 18.0, 0.001),
            (6.313_751_5, 1.0, 0.05),
            (3.090_232_3, 1e9, 0.001),
        ] {
            assert!((upper_tail(t, degrees) / tail - 1.0).abs() < 5e-4, "{t} {degrees}");
            assert!((upper_quantile(tail, degrees) - t).abs() < 2e-3, "{tail} {degrees}");
            assert!((upper_tail(-t, degrees) - (1.0 - tail)).abs() < 1e-5);
        }
        assert_eq!(upper_tail(f64::INFINITY, 8.0), 0.0);
        assert_eq!(upper_tail(f64::NAN, 8.0), 0.5);
        assert_eq!(upper_tail(3.0, 0.0), 0.5);
        assert_eq!(upper_quantile(0.0, 8.0), f64::INFINITY);
    }

    #[test]
    fn no_chance_is_too_small_for_a_quantile() {
        for degrees in [0.5, 1.0, 4.0, 18.0, 1e3, 1e9] {
            for tail in [5e-324, 1e-320, 1e-302, 1e-200, 1e-100, 1e-17, 0.5, 1.0 - 1e-16] {
                let quantile = upper_quantile(tail, degrees);
                assert!(!quantile.is_nan(), "{tail} {degrees}");
            }
            assert!(upper_quantile(1e-300, degrees) >= upper_quantile(1e-10, degrees));
            for t in [0.0, 1e-300, 1e-9, 1.0, 40.0, 1e9, 1e150, f64::MAX] {
                let tail = upper_tail(t, degrees);
                assert!((0.0..=0.5).contains(&tail), "{t} {degrees}: {tail}");
            }
        }
    }

    #[test]
    fn trigamma_is_that_of_abramowitz_and_stegun() {
        let pi_squared = std::f64::consts::PI.powi(2);
        for (x, value) in [(1.0, pi_squared / 6.0), (0.5, pi_squared / 2.0), (2.0, pi_squared / 6.0 - 1.0)] {
            assert!((trigamma(x) - value).abs() < 1e-9, "{x}");
            assert!((inverse_trigamma(value) - x).abs() < 1e-6, "{x}");
        }
        // 1/x + 1/2x² + …
        assert!((trigamma(1000.0) - 0.001_000_500_166_666_7).abs() < 1e-12);
    }
}
