//! Which traces are kept: `parent_based_traceidratio` (OpenTelemetry specification, trace/sdk.md).
//!
//! The parent's decision holds where a parent is known. Otherwise the trace id decides, so that everyone
//! who sees the trace comes to the same answer: its lowest 63 bits are below `ratio × 2^63`, as the SDKs
//! compare them. Beyond a limit of spans a second that share is smaller (`limit.rs`).

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

    /// Whether a trace is kept that nobody else has decided on.
    #[must_use]
    pub fn keeps(self, trace_id: TraceId) -> bool {
        draw(trace_id) < self.bound
    }
}

/// What a trace draws: its lowest 63 bits.
pub(super) fn draw(trace_id: TraceId) -> u64 {
    let [.., a, b, c, d, e, f, g, h] = trace_id.bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h]) & (u64::MAX >> 1)
}

/// Whether the span of a request is kept, and who has decided that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sampling {
    /// It is: its parent is, as somebody else has decided.
    Asked,
    /// It is: its trace has drawn so.
    Drawn,
    /// It is, although its trace is beyond the limit: for this reason.
    Late(&'static str),
    /// It is not: its parent is not, as somebody else has decided.
    NotAsked,
    /// It is not: its trace is not of the share that is to be kept.
    NotDrawn,
    /// It would be if there were fewer: unless something makes its trace worth it before it is over.
    Beyond,
}

impl Sampling {
    /// What a parent elsewhere has decided.
    pub(super) fn by_parent(is_sampled: bool) -> Self {
        if is_sampled { Self::Asked } else { Self::NotAsked }
    }

    /// Whether it is kept, by what is known now.
    pub(super) fn is_kept(self) -> bool {
        matches!(self, Self::Asked | Self::Drawn | Self::Late(_))
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
            assert!(!Sampler::new(0.0).keeps(trace(low)), "{low:x}");
            assert!(Sampler::new(1.0).keeps(trace(low)), "{low:x}");
        }
    }

    #[test]
    fn a_half_is_decided_by_the_63rd_bit() {
        let half = Sampler::new(0.5);
        assert!(half.keeps(trace((1 << 62) - 1)));
        assert!(!half.keeps(trace(1 << 62)));
        assert!(half.keeps(trace(1 << 63)), "the 64th bit has no say");
    }
}
