//! An object's frame sections → its table, in bounded memory and on several threads.
//!
//! The list of spans is cut into batches. Threads evaluate one batch each into compact ranges while
//! the batches before are packed, so that what is in memory besides the sections and the finished
//! pages is a few batches, however many rows there are.

use std::thread;

use super::cfi::{CfiCounts, FrameData, FrameSources, SourceReader};
use super::packer::{MAX_RULES, Packer};
use super::rules::RuleNumbers;
use super::span::Span;
use super::{UnwindError, UnwindTable};
use crate::ObjectFile;

/// Spans from which on threads are worth their start.
const PARALLEL_SPANS: usize = 50_000;
/// Spans of a batch: a millisecond of work, some hundred kilobytes of ranges.
const BATCH_SPANS: usize = 4096;

/// Ranges of one batch; rules by the batch's own numbers.
struct Batch {
    /// Begin, bytes, rule.
    ranges: Vec<(u64, u32, u32)>,
    rules: RuleNumbers,
    unsupported_rows: u64,
    needs_rbx: bool,
}

/// Why a table was not finished.
enum Stopped {
    /// A CFA is based on rbx, which this attempt did not follow.
    NeedsRbx,
    TooLarge(String),
}

/// Builds the table of an object.
///
/// # Errors
/// [`UnwindError`].
pub(super) fn build(object: &ObjectFile) -> Result<(UnwindTable, CfiCounts), UnwindError> {
    let data = FrameData::read(object)?;
    let sources = data.sources();
    let (spans, counts) = sources.spans(object)?;
    if spans.is_empty() {
        return Err(UnwindError::NoInformation(object.path().to_owned()));
    }
    // rbx is followed only where a CFA needs it (ld.so and few others), so that the rules of all
    // other objects do not multiply by where they save it. That is known only at the end.
    let attempt = match pack(&sources, &spans, counts, false) {
        Err(Stopped::NeedsRbx) => pack(&sources, &spans, counts, true),
        finished => finished,
    };
    attempt.map_err(|stopped| UnwindError::TooLarge {
        path: object.path().to_owned(),
        what: match stopped {
            Stopped::TooLarge(what) => what,
            Stopped::NeedsRbx => "rbx".to_owned(),
        },
    })
}

fn pack(
    sources: &FrameSources<'_>,
    spans: &[Span],
    mut counts: CfiCounts,
    follows_rbx: bool,
) -> Result<(UnwindTable, CfiCounts), Stopped> {
    let threads = match spans.len() {
        0..PARALLEL_SPANS => 1,
        _ => thread::available_parallelism().map_or(1, usize::from),
    };
    let mut packing = Packing { packer: Packer::default(), rules: RuleNumbers::new() };
    let mut evaluated: Vec<Batch> = Vec::new();
    for round in spans.chunks(BATCH_SPANS * threads) {
        let mut batches = round.chunks(BATCH_SPANS);
        // This thread takes a batch as well, and packs the round before.
        let own_batch = batches.next().unwrap_or_default();
        evaluated = thread::scope(|scope| {
            let workers: Vec<_> =
                batches.map(|batch| scope.spawn(move || evaluate(sources, batch, follows_rbx))).collect();
            packing.add_all(&evaluated)?;
            let mut results = vec![evaluate(sources, own_batch, follows_rbx)];
            for worker in workers {
                match worker.join() {
                    Ok(batch) => results.push(batch),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok(results)
        })?;
        for batch in &evaluated {
            counts.unsupported_rows += batch.unsupported_rows;
            if batch.needs_rbx && !follows_rbx {
                return Err(Stopped::NeedsRbx);
            }
        }
    }
    packing.add_all(&evaluated)?;
    let table = packing.packer.finish(packing.rules.rules()).map_err(Stopped::TooLarge)?;
    Ok((table, counts))
}

struct Packing {
    packer: Packer,
    rules: RuleNumbers,
}

impl Packing {
    fn add_all(&mut self, batches: &[Batch]) -> Result<(), Stopped> {
        for batch in batches {
            let numbers: Vec<u32> = batch.rules.rules().iter().map(|rule| self.rules.number(*rule)).collect();
            if self.rules.rules().len() > MAX_RULES {
                let message = format!("it has more than {MAX_RULES} different unwind rules");
                return Err(Stopped::TooLarge(message));
            }
            for (begin, bytes, rule) in &batch.ranges {
                let number = numbers.get(*rule as usize).copied().unwrap_or(0);
                let end = begin.saturating_add(u64::from(*bytes));
                // Below MAX_RULES: it fits.
                self.packer.add(*begin, end, number as u16).map_err(Stopped::TooLarge)?;
            }
        }
        Ok(())
    }
}

fn evaluate<'data>(sources: &FrameSources<'data>, spans: &[Span], follows_rbx: bool) -> Batch {
    let mut batch =
        Batch { ranges: Vec::new(), rules: RuleNumbers::new(), unsupported_rows: 0, needs_rbx: false };
    let mut reader: SourceReader<'data> = SourceReader::new();
    for span in spans {
        batch.unsupported_rows +=
            sources.rules_of_span(&mut reader, span, follows_rbx, |begin, end, rule| {
                batch.needs_rbx |= rule.needs_rbx();
                let rule = batch.rules.number(rule);
                // A range lies within a span, which has at most 4 GiB.
                let bytes = (end - begin) as u32;
                match batch.ranges.last_mut() {
                    Some((last_begin, last_bytes, last_rule))
                        if *last_rule == rule
                            && last_begin.checked_add(u64::from(*last_bytes)) == Some(begin)
                            && last_bytes.checked_add(bytes).is_some() =>
                    {
                        *last_bytes += bytes;
                    }
                    _ => batch.ranges.push((begin, bytes, rule)),
                }
            });
    }
    batch
}
