//! The scale on which costs of equal certainty are equally far from each other.

/// Which scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// `√x`, for costs.
    Root,
    /// `asin √p`, for shares: as the root for small ones, and right for those near 1 as well.
    ArcSine,
}

impl Scale {
    /// Onto the scale. Values that cannot be are held at what can.
    #[must_use]
    pub fn to(self, value: f64) -> f64 {
        match self {
            Self::Root => value.max(0.0).sqrt(),
            Self::ArcSine => value.clamp(0.0, 1.0).sqrt().asin(),
        }
    }

    /// And back.
    #[must_use]
    pub fn from(self, scaled: f64) -> f64 {
        match self {
            Self::Root => scaled.max(0.0).powi(2),
            Self::ArcSine => scaled.clamp(0.0, std::f64::consts::FRAC_PI_2).sin().powi(2),
        }
    }

    /// What one step on the scale is at this point, as a part of the value there: the derivative of its
    /// logarithm.
    #[must_use]
    pub fn log_slope(self, scaled: f64) -> f64 {
        match self {
            Self::Root => 2.0 / scaled,
            Self::ArcSine => 2.0 / scaled.tan(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_and_steps_are_parts_of_the_value() {
        for scale in [Scale::Root, Scale::ArcSine] {
            for value in [0.0, 0.01, 0.3, 0.97] {
                assert!((scale.from(scale.to(value)) - value).abs() < 1e-12);
            }
            let (at, step) = (scale.to(0.3), 1e-7);
            let numeric = (scale.from(at + step).ln() - scale.from(at).ln()) / step;
            assert!((scale.log_slope(at) - numeric).abs() < 1e-5);
        }
    }
}
