//! Which traces are kept: `parent_based_traceidratio` (OpenTelemetry specification, trace/sdk.md).
//!
//! The parent's decision holds where a parent is known. Otherwise the trace id decides, so that everyone
//! who sees the trace comes to the same answer: its lowest 63 bits are below `ratio × 2^63`, as the SDKs
//! compare them.

use crate::model::TraceId;

/// The share of traces that is kept where nobody else has decided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    bound: u64,
}

impl Sampler {
    /// `ratio` from 0 to 1; what lies outside is held at the ends.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    pub fn new(ratio: f64) -> Self {
        // A float's cast saturates; 1.0 gives 2^63, above every value of 63 bits.
        Self { bound: (ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64 }
    }

    /// What the lowest 63 bits of a trace id that is kept are below.
    #[must_use]
    pub fn bound(self) -> u64 {
        self.bound
    }

    /// Whether a trace is kept, of which the parent has decided so or nothing.
    #[must_use]
    pub fn keeps(self, trace_id: TraceId, parent: Option<bool>) -> bool {
        parent.unwrap_or_else(|| {
            let bytes = trace_id.bytes();
            let [.., a, b, c, d, e, f, g, h] = bytes;
            u64::from_be_bytes([a, b, c, d, e, f, g, h]) & (u64::MAX >> 1) < self.bound
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(low: u64) -> TraceId {
        let mut bytes = [1; 16];
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        TraceId::new(bytes).expect("not zero")
    }

    #[test]
    fn none_and_all_are_exactly_that() {
        for low in [0, 1, u64::MAX >> 1, u64::MAX] {
            assert!(!Sampler::new(0.0).keeps(trace(low), None), "{low:x}");
            assert!(Sampler::new(1.0).keeps(trace(low), None), "{low:x}");
        }
    }

    #[test]
    fn a_half_is_decided_by_the_63rd_bit() {
        let half = Sampler::new(0.5);
        assert!(half.keeps(trace((1 << 62) - 1), None));
        assert!(!half.keeps(trace(1 << 62), None));
        assert!(half.keeps(trace(1 << 63), None), "the 64th bit has no say");
    }

    #[test]
    fn a_parent_has_the_last_word() {
        assert!(Sampler::new(0.0).keeps(trace(9), Some(true)));
        assert!(!Sampler::new(1.0).keeps(trace(9), Some(false)));
    }
}
