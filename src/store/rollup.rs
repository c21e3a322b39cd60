//! Rollups: what a series has in the windows of some hours, added up, so that a question about a day need not read
//! thousands of windows.
//!
//! A stretch is [`STRETCH_NS`] of Unix time. When the first window of a later one is written, or the segment is finished,
//! the windows that begin in it and are there are added up series by series, without what tells threads apart
//! ([`LEFT_OUT`]). A block for each series results, of the same form as a window's (`block.rs`). A question that
//! wants no thread ([`can_answer`]) and whose range has all of a stretch takes it in place of theirs. Windows are never
//! changed, so a rollup stays true: one that comes to a stretch later has a higher number than the last that the rollup
//! knows, and is read by itself.
//!
//! A rollup is only kept of a series for which it takes an eighth of the bytes of the blocks that it stands for, or
//! less. What runs the same again and again takes a hundredth; where nothing comes twice there is nothing to be saved.

use super::block::{BlockWriter, Layout, Samples, Thread};
use super::selection::Selection;
use super::sums::Sums;
use super::varint::Malformed;
use super::{Detail, TimeRange};
use crate::model::Interner;

/// Three hours: eight are a day, in which a segment ends.
pub(super) const STRETCH_NS: u64 = 3 * 3600 * 1_000_000_000;
/// Times that the blocks of windows have to be larger.
const LEAST_SAVING: usize = 8;
/// Labels that the samples of a rollup lack.
pub(super) const LEFT_OUT: [&str; 5] = ["pid", "tid", "thread_name", "trace_id", "span_id"];

/// A number for each stretch of time.
pub(super) fn stretch_at(start_ns: u64) -> u64 {
    start_ns / STRETCH_NS
}

/// When a stretch is.
pub(super) fn range_of(stretch: u64) -> TimeRange {
    let from_unix_ns = stretch.saturating_mul(STRETCH_NS);
    TimeRange { from_unix_ns, to_unix_ns: from_unix_ns.saturating_add(STRETCH_NS) }
}

/// Whether rollups have everything that is asked for.
pub(super) fn can_answer(detail: &Detail, selection: &Selection<'_>) -> bool {
    let has_detail = match detail {
        Detail::Stacks | Detail::Series => true,
        Detail::Keys(keys) => !keys.iter().any(|key| LEFT_OUT.contains(&key.as_str())),
        Detail::Stretches(_) | Detail::Labels => false,
    };
    has_detail && !selection.is_by_thread()
}

/// Adds up blocks of one series; nothing if it is not worth keeping.
pub(super) struct SeriesRollup<'a> {
    factors: &'a [i64],
    /// Rows of labels.
    groups: Interner<u32>,
    sums: Sums,
    bytes: usize,
}

impl<'a> SeriesRollup<'a> {
    /// `stacks` is how many stacks the series has.
    pub(super) fn new(factors: &'a [i64], stacks: usize) -> Self {
        Self { factors, groups: Interner::new(), sums: Sums::new(factors.len() + 1, stacks), bytes: 0 }
    }

    /// Adds a window's block. `kept` answers the row of labels without those that are left out.
    pub(super) fn add(&mut self, block: &[u8], mut kept: impl FnMut(u32) -> u32) -> Result<(), Malformed> {
        let Self { factors, groups, sums, bytes } = self;
        *bytes += block.len();
        let mut samples = Samples::new(Layout::BySeries, block, factors)?;
        while let Some(thread) = samples.next_group()? {
            let group = groups.intern(kept(thread.labels));
            samples.read(|stack, values| sums.add(group, stack, values))?;
        }
        Ok(())
    }

    /// The block, if it is worth keeping.
    pub(super) fn finish(self) -> Option<Vec<u8>> {
        let Self { factors, groups, sums, bytes } = self;
        let mut samples: Vec<(u32, u32, &[i64])> = sums
            .by_stack()
            .map(|(group, stack, values)| (groups.get(group).copied().unwrap_or(0), stack, values))
            .collect();
        samples.sort_unstable_by_key(|&(labels, stack, _)| (labels, stack));
        let mut block = BlockWriter::new(factors);
        for (labels, stack, values) in samples {
            block.add(Thread { labels, ..Thread::default() }, stack, values);
        }
        Some(block.finish()).filter(|block| block.len() <= bytes / LEAST_SAVING)
    }
}
