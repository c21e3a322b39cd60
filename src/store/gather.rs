//! What a segment has of what is selected: blocks → sums by stack, on several processors.
//!
//! Samples are added up by series, in a table that has as many places as the series has stacks and stays in the
//! caches, each series on one processor. The nodes of the stacks come in at the end, once for each.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use super::block::{Layout, Samples};
use super::dictionary::Tables;
use super::error::StoreError;
use super::kept_labels::KeptLabels;
use super::merge::{GroupKey, MAX_SAMPLES, SeenMappings};
use super::query::{Selected, Times};
use super::rollup::can_answer;
use super::segment::{SegmentReader, broken};
use super::selection::Selection;
use super::sums::{NodeSums, Sums};
use super::varint::Malformed;
use super::window_row::{read_comments, read_mappings};
use super::windows::{Batch, Windows};
use super::{Detail, ProfileQuery};
use crate::model::{Interner, Label};

/// Most processors that one question takes.
pub(super) const MAX_THREADS: usize = 4;
/// With fewer blocks, other threads are not worth their start.
const LEAST_BLOCKS_FOR_THREADS: usize = 2000;

/// What a segment has of what is selected.
pub(super) struct SelectedSums {
    pub(super) selected: Selected,
    pub(super) groups: Interner<GroupKey>,
    pub(super) kept_labels: Vec<Vec<Label>>,
    pub(super) formats: BTreeMap<u32, FormatSums>,
    pub(super) times: Times,
    pub(super) comments: Vec<String>,
    pub(super) matched: bool,
}

pub(super) struct FormatSums {
    pub(super) sums: NodeSums,
    factors: Vec<i64>,
    pub(super) mappings: SeenMappings,
}

impl SelectedSums {
    pub(super) fn collect(
        reader: &SegmentReader,
        tables: Arc<Tables>,
        selection: &Selection<'_>,
        query: &ProfileQuery,
    ) -> Result<Self, StoreError> {
        let selected = Selected::new(reader, tables, selection)?;
        let nodes = selected.tables.nodes.len();
        let mut times = Times::default();
        let mut formats: BTreeMap<u32, FormatSums> = BTreeMap::new();
        let mut comments = Vec::new();
        let rollups = match can_answer(&query.detail, selection) {
            true => reader.rollups(query.range)?,
            false => Vec::new(),
        };
        let mut windows = Windows::with_rollups(rollups);
        let mut stretches: HashMap<i64, u64> = HashMap::new();
        reader.windows(query.range, |window| {
            let failed = |what| broken(reader.path(), "window", what);
            if selected.value(window.format).is_none() {
                return Ok(());
            }
            times.add(window.start_ns, window.duration_ns);
            if let Detail::Stretches(_) = &query.detail {
                stretches.insert(window.id, window.start_ns);
            }
            let row = selected.tables.format(window.format).map_err(failed)?;
            let format = formats.entry(window.format).or_insert_with(|| {
                let factors = row.expected_factors();
                let sums = NodeSums::new(factors.len() + 1, nodes);
                FormatSums { sums, factors, mappings: SeenMappings::default() }
            });
            format.mappings.add_window(read_mappings(window.mappings).map_err(failed)?);
            comments.extend(read_comments(window.comments).map_err(failed)?);
            windows.add(&window, row, &selected).map_err(failed)
        })?;
        let factors: BTreeMap<u32, Vec<i64>> =
            formats.iter().map(|(&format, sums)| (format, sums.factors.clone())).collect();
        let question = Question {
            layout: reader.layout(),
            selected: &selected,
            selection,
            detail: &query.detail,
            factors,
            window_starts: stretches,
        };
        let adders = question.read(reader, &windows)?;
        let mut matched = !windows.is_empty() && !selection.is_by_thread();
        let mut kept_labels = Interner::new();
        let mut groups = Interner::new();
        for adder in adders {
            matched |= adder.matched;
            let failed = |what| broken(reader.path(), "block", what);
            adder.hand_over(&selected.tables, &mut groups, &mut kept_labels, &mut formats).map_err(failed)?;
        }
        for format in formats.values() {
            if format.sums.len() > MAX_SAMPLES {
                return Err(StoreError::TooMuch { what: "different samples", limit: MAX_SAMPLES });
            }
        }
        let kept_labels = kept_labels.into_values();
        Ok(Self { selected, groups, kept_labels, formats, times, comments, matched })
    }
}

/// What is asked of the blocks of a segment.
struct Question<'a> {
    layout: Layout,
    selected: &'a Selected,
    selection: &'a Selection<'a>,
    detail: &'a Detail,
    /// Of the formats that windows have.
    factors: BTreeMap<u32, Vec<i64>>,
    /// When windows begin, if that matters.
    window_starts: HashMap<i64, u64>,
}

impl<'a> Question<'a> {
    /// Reads blocks and adds them up.
    fn read(&'a self, reader: &SegmentReader, windows: &Windows) -> Result<Vec<Adder<'a>>, StoreError> {
        let failed = |error: Refused| match error {
            Refused::Broken(what) => broken(reader.path(), "block", what),
            Refused::TooMuch => StoreError::TooMuch { what: "different samples", limit: MAX_SAMPLES },
        };
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let threads = match self.layout {
            // All series add to the same nodes.
            Layout::ByNode => 1,
            Layout::BySeries if windows.work() < LEAST_BLOCKS_FOR_THREADS => 1,
            Layout::BySeries => processors.min(MAX_THREADS),
        };
        if threads == 1 {
            let mut adder = Adder::new(self);
            windows.read(reader, |batch| {
                for (window, series, block) in batch.blocks() {
                    adder.add(window, series, block).map_err(failed)?;
                }
                Ok(batch.cleared())
            })?;
            return Ok(vec![adder]);
        }
        thread::scope(|scope| {
            let mut senders = Vec::with_capacity(threads);
            let mut running = Vec::with_capacity(threads);
            for own in 0..threads {
                // One batch waits while one is added up and one is read.
                let (sender, batches): (_, Receiver<Arc<Batch>>) = sync_channel(1);
                senders.push(sender);
                running.push(scope.spawn(move || {
                    let mut adder = Adder::new(self);
                    for batch in batches {
                        let is_own = |series: u32| series as usize % threads == own;
                        for (window, series, block) in batch.blocks().filter(|block| is_own(block.1)) {
                            adder.add(window, series, block)?;
                        }
                    }
                    Ok(adder)
                }));
            }
            let read = windows.read(reader, |batch| {
                let batch = Arc::new(batch);
                for sender in &senders {
                    // Who is gone has failed, and says so below.
                    let _ = sender.send(Arc::clone(&batch));
                }
                Ok(Batch::default())
            });
            drop(senders);
            let mut adders = Vec::with_capacity(threads);
            let mut error = None;
            for thread in running {
                match thread.join() {
                    Ok(Ok(adder)) => adders.push(adder),
                    Ok(Err(refused)) => error = error.or(Some(failed(refused))),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            error.map_or(read, Err).map(|()| adders)
        })
    }
}

/// Why blocks cannot be added up.
#[derive(Debug)]
enum Refused {
    Broken(Malformed),
    TooMuch,
}

impl From<Malformed> for Refused {
    fn from(what: Malformed) -> Self {
        Self::Broken(what)
    }
}

/// Adds up the blocks of some series.
struct Adder<'a> {
    question: &'a Question<'a>,
    groups: Interner<GroupKey>,
    kept_labels: KeptLabels<'a>,
    /// By series, or by format if stacks are numbered for the whole segment, with the format.
    sums: BTreeMap<u32, (u32, Sums)>,
    /// How many rows all of them have.
    rows: usize,
    matched: bool,
}

impl<'a> Adder<'a> {
    fn new(question: &'a Question<'a>) -> Self {
        Self {
            question,
            groups: Interner::new(),
            kept_labels: KeptLabels::new(question.detail),
            sums: BTreeMap::new(),
            rows: 0,
            matched: false,
        }
    }

    fn add(&mut self, window: i64, series: u32, block: &[u8]) -> Result<(), Refused> {
        let Question { layout, selected, selection, detail, factors, window_starts } = self.question;
        let Some(row) = selected.tables.series.get(series as usize) else { return Ok(()) };
        let Some(factors) = factors.get(&row.format) else { return Ok(()) };
        let (of, stacks) = match layout {
            Layout::ByNode => (row.format, selected.tables.nodes.len() + 1),
            Layout::BySeries => (series, selected.tables.stacks(series).len()),
        };
        let new = || (row.format, Sums::new(factors.len() + 1, stacks));
        let (_, sums) = self.sums.entry(of).or_insert_with(new);
        let rows_before = sums.len();
        let mut samples = Samples::new(*layout, block, factors)?;
        while let Some(thread) = samples.next_group()? {
            if selection.is_by_thread() {
                if !selection.has_thread(&thread, &selected.tables)? {
                    continue;
                }
                self.matched = true;
            }
            let all = GroupKey { series: Some(series), thread: Some(thread), kept: None };
            let index = self.groups.intern(match detail {
                // There is no other group then.
                Detail::Stacks if !self.groups.is_empty() => {
                    samples.read(|stack, values| sums.add(0, stack, values))?;
                    continue;
                }
                Detail::Stacks => GroupKey::default(),
                Detail::Series => GroupKey { thread: None, ..all },
                Detail::Keys(_) => self.kept_labels.group(all, &selected.tables)?,
                Detail::Stretches(starts_ns) => {
                    let start_ns = window_starts.get(&window).copied().unwrap_or(0);
                    self.kept_labels.stretch(starts_ns, start_ns)
                }
                Detail::Labels => all,
            });
            samples.read(|stack, values| sums.add(index, stack, values))?;
        }
        self.rows += sums.len() - rows_before;
        // Other series may have the same stacks, which are one sample in the end.
        if self.rows > 2 * MAX_SAMPLES { Err(Refused::TooMuch) } else { Ok(()) }
    }

    /// Gives what has been added up to the nodes of the stacks.
    fn hand_over(
        self,
        tables: &Tables,
        groups: &mut Interner<GroupKey>,
        kept_labels: &mut Interner<Vec<Label>>,
        formats: &mut BTreeMap<u32, FormatSums>,
    ) -> Result<(), Malformed> {
        let kept: Vec<u32> =
            self.kept_labels.into_sets().into_iter().map(|set| kept_labels.intern(set)).collect();
        let groups: Vec<u32> = self
            .groups
            .into_values()
            .into_iter()
            .map(|key| {
                let kept = key.kept.and_then(|set| kept.get(set as usize).copied());
                groups.intern(GroupKey { kept, ..key })
            })
            .collect();
        for (of, (format, sums)) in self.sums {
            let Some(FormatSums { sums: by_node, .. }) = formats.get_mut(&format) else { continue };
            for (group, stack, values) in sums.by_stack() {
                let group = groups.get(group as usize).copied().unwrap_or(0);
                let node = match self.question.layout {
                    Layout::ByNode => stack,
                    Layout::BySeries => {
                        let node = tables.stacks(of).get(stack as usize);
                        *node.ok_or(Malformed("a stack that its series does not have"))?
                    }
                };
                by_node.add(group, node, values);
            }
        }
        Ok(())
    }
}
