//! The window store: recent profiles and spans, kept by time and found again by what they are of.
//!
//! Comes in: a [`Profile`] for each window (about ten seconds), whoever made it: the collector, an OTLP
//! request, an upload; spans in batches, whoever made them. Goes out: merged profiles, time lines, the
//! services and types there are, traces, and what all that takes. Never: samples of a process, symbolization, HTTP, formats of export; never a `kernel`,
//! `process` or `profile` import.
//!
//! [`WindowStore`] is what the rest of spanflame sees; [`SqliteStore`] is the one that stands behind it.
//! How its files are laid out is told in `segment.rs` (the file), `rows.rs`, `nodes.rs` and `stacks.rs` (its
//! dictionary), `block.rs` (its samples), `rollup.rs` (what is added up already) and `spans/` (its spans).

mod bits;
mod block;
mod catalog;
mod counters;
mod deflated;
mod dictionary;
mod encode;
mod error;
mod gather;
mod kept_labels;
mod merge;
mod nodes;
mod query;
mod retention;
mod rollup;
mod rows;
mod segment;
mod selection;
pub mod spans;
mod sqlite;
mod stack_tree;
mod stacks;
mod sums;
mod timeline;
mod varint;
mod varint_block;
mod window_row;
mod windows;

#[cfg(test)]
mod tests;

pub use error::StoreError;
pub use retention::Retention;
pub use spans::{
    SpanCuts, SpanFilter, SpanList, SpanPosition, SpanQuery, SpanSummary, StatusFilter, TraceCursor,
    TracePage, TraceQuery, TraceSummary,
};
pub use sqlite::{Options, SqliteStore};

use std::path::PathBuf;

use crate::model::{Profile, Span, SpanId, TraceId, ValueType};

/// A store of windows, and of the spans that ran in them: both lie in the same files and go together, so that
/// what a span ran is kept as long as the span. All methods block on the disk: asynchronous callers hand them to a thread.
pub trait WindowStore: Send + Sync {
    /// Keeps a window. When this returns, queries see it, and it survives the end of this process.
    /// Windows may overlap and come in any order.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of the window is kept then, and later windows may be written as ever.
    fn write_window(&self, window: &Profile) -> Result<(), StoreError>;

    /// The services that have windows in the range, by name, with what they have. Samples that name
    /// no service are told of under the empty name.
    ///
    /// # Errors
    /// [`StoreError`].
    fn services(&self, range: TimeRange) -> Result<Vec<ServiceSummary>, StoreError>;

    /// The value types that windows in the range have, each once, the ones to show by default first.
    ///
    /// # Errors
    /// [`StoreError`].
    fn types(&self, range: TimeRange) -> Result<Vec<ProfileType>, StoreError>;

    /// The selected value by time, in steps of `step_ns` from the start of the range. A window that
    /// spans several steps is divided among them by time.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::BadQuery`] for a step of zero or more than [`MAX_POINTS`] steps.
    fn timeline(&self, selector: &Selector, range: TimeRange, step_ns: u64) -> Result<Timeline, StoreError>;

    /// The windows that have something of what is selected, by time, each with how much.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::TooMuch`] beyond [`MAX_POINTS`] windows.
    fn windows(&self, selector: &Selector, range: TimeRange) -> Result<WindowValues, StoreError>;

    /// All that is selected in the windows that overlap the range, as one profile.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::TooMuch`] if the answer would not fit into memory.
    fn profile(&self, query: &ProfileQuery) -> Result<Answer, StoreError>;

    /// Keeps spans. When this returns, queries see them, and they survive the end of this process. A span with
    /// the trace id, span id and library's name (`scope`) of an earlier one replaces it: one that is open is
    /// written without an end first. What is larger than a span may be is cut, and counted
    /// ([`Statistics::span_cuts`]).
    ///
    /// # Errors
    /// [`StoreError`]; of a batch of more than a 64th of the store's bytes the beginning may be kept all the same
    /// ([`StoreError::PartlyWritten`]). To write it again does no harm.
    fn write_spans(&self, spans: &[Span]) -> Result<(), StoreError>;

    /// A page of the traces that have a span which is asked for, the most lately written first.
    ///
    /// # Errors
    /// [`StoreError`].
    fn traces(&self, query: &TraceQuery) -> Result<TracePage, StoreError>;

    /// The most lately written spans that are asked for. Ours that an SDK tells of too are the SDK's.
    ///
    /// # Errors
    /// [`StoreError`].
    fn spans(&self, query: &SpanQuery) -> Result<SpanList, StoreError>;

    /// All spans of a trace, by start; none if it is unknown. What an SDK and we have seen both is the SDK's, with
    /// what we know beside it; a trace that it began and one of ours that are joined by it come together.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::TooMuch`] beyond [`spans::MAX_SPANS_OF_TRACE`].
    fn trace(&self, trace_id: TraceId) -> Result<Vec<Span>, StoreError>;

    /// A span; of several traces or libraries that have one of this id, the most lately written.
    ///
    /// # Errors
    /// [`StoreError`].
    fn span(&self, span_id: SpanId, trace_id: Option<TraceId>) -> Result<Option<Span>, StoreError>;

    /// These spans in short, in the same order; nothing for those that are unknown.
    ///
    /// # Errors
    /// [`StoreError`].
    fn span_summaries(&self, spans: &[(TraceId, SpanId)]) -> Result<Vec<Option<SpanSummary>>, StoreError>;

    /// The ids under which samples of a span or of a trace are labelled beside its own: those that spans of ours
    /// had before an SDK told of them ([`JOINED_FROM`](crate::model::span::JOINED_FROM)), and the SDK's.
    ///
    /// # Errors
    /// [`StoreError`].
    fn span_aliases(
        &self,
        trace_id: Option<TraceId>,
        span_id: Option<SpanId>,
    ) -> Result<Vec<(TraceId, SpanId)>, StoreError>;

    /// What the store holds and what has happened to it.
    fn statistics(&self) -> Statistics;

    /// Removes what is older or more than is to be kept. It happens with each window too; this is for
    /// times at which none comes.
    ///
    /// # Errors
    /// [`StoreError`] if a file cannot be removed.
    fn enforce_retention(&self) -> Result<(), StoreError>;

    /// Changes how much is to be kept, from now on.
    ///
    /// # Errors
    /// [`StoreError::BadOptions`], and nothing has changed.
    fn set_retention(&self, retention: Retention) -> Result<(), StoreError>;
}

/// The most points that a time line may have, and the most windows that are listed.
pub const MAX_POINTS: u64 = 100_000;

/// A stretch of time, nanoseconds since the Unix epoch, its end exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// First nanosecond.
    pub from_unix_ns: u64,
    /// First nanosecond after it.
    pub to_unix_ns: u64,
}

impl TimeRange {
    /// Everything that is stored.
    pub const ALL: Self = Self { from_unix_ns: 0, to_unix_ns: u64::MAX };

    /// Whether a window of this start and duration has a part in the range. One of no duration is where
    /// it starts.
    #[must_use]
    pub fn overlaps(&self, start_unix_ns: u64, duration_ns: u64) -> bool {
        let last = start_unix_ns.saturating_add(duration_ns.max(1) - 1);
        start_unix_ns < self.to_unix_ns && last >= self.from_unix_ns
    }
}

/// What is looked for. What is left out is not asked about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    /// Name of a value type, `cpu` or `cpu/nanoseconds`: profiles that show it by default, or have it
    /// beside others. `samples`, which all have, selects profiles of `cpu` and those that have nothing
    /// better.
    pub profile_type: String,
    /// Label `service`; the empty text selects samples that have none.
    pub service: Option<String>,
    /// Label `container_id`, or its first twelve digits or more.
    pub container: Option<String>,
    /// Label `pid`.
    pub pid: Option<i64>,
    /// Label `thread_name`, or label `tid` in decimal.
    pub thread: Option<String>,
    /// Label `trace_id`, 32 lower-case hexadecimal digits.
    pub trace_id: Option<String>,
    /// Label `span_id`, 16 lower-case hexadecimal digits.
    pub span_id: Option<String>,
    /// Label `git_sha`: the revision that the program was built of, or its first [`SHORT_GIT_SHA`] digits or more.
    pub git_sha: Option<String>,
    /// Label `trace_id`, any of these.
    pub traces: Option<Vec<TraceId>>,
    /// Label `span_id`, any of these.
    pub spans: Option<Vec<SpanId>>,
}

impl Selector {
    /// Everything of one type.
    #[must_use]
    pub fn of_type(profile_type: &str) -> Self {
        Self { profile_type: profile_type.to_owned(), ..Self::default() }
    }

    /// Whether something of this revision (empty: of none that is known) is selected, as far as revisions go.
    #[must_use]
    pub fn selects_git_sha(&self, git_sha: &str) -> bool {
        self.git_sha.as_deref().is_none_or(|wanted| {
            git_sha == wanted || wanted.len() >= SHORT_GIT_SHA && git_sha.starts_with(wanted)
        })
    }
}

/// Least length at which the beginning of a revision stands for it, as git prints them.
pub const SHORT_GIT_SHA: usize = 7;

/// How far the samples of an answer are told apart by their labels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Detail {
    /// Not at all: equal stacks are one sample. The fastest.
    Stacks,
    /// By `service`, `container_id` and `comm`.
    Series,
    /// By the labels of these keys, whichever of them there are: what a flame graph shows.
    Keys(Vec<String>),
    /// By the stretch of time in which their window begins: the last of these starts (Unix time, nanoseconds,
    /// rising) that is not after it. The label [`STRETCH`] has its index.
    Stretches(Vec<u64>),
    /// By all labels they were written with.
    #[default]
    Labels,
}

/// The label of [`Detail::Stretches`].
pub const STRETCH: &str = "stretch";

/// A question for a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileQuery {
    /// Of what.
    pub selector: Selector,
    /// When.
    pub range: TimeRange,
    /// With which labels.
    pub detail: Detail,
}

/// A merged profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The profile; its default value is the selected one, and its time that of [`Coverage`].
    pub profile: Profile,
    /// What time it is of.
    pub coverage: Coverage,
    /// Whether anything was selected. If not, there was no such service, process, … in the range.
    pub matched: bool,
}

/// The windows of the selected type that an answer has looked at. Ranges widen to whole windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Coverage {
    /// How many windows.
    pub windows: u64,
    /// Start of the first one; 0 without any.
    pub from_unix_ns: u64,
    /// End of the last one; 0 without any.
    pub to_unix_ns: u64,
    /// Time within that which at least one window covers: less than `to - from` where there are gaps.
    pub covered_ns: u64,
}

/// A service that has samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSummary {
    /// Label `service`, empty for the samples without.
    pub name: String,
    /// Sum of `samples` over all types, or of the first value where a type has no such.
    pub samples: i64,
    /// The types that it has, by default shown ones only.
    pub types: Vec<ValueType>,
}

/// A value that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileType {
    /// Its name and unit.
    pub value_type: ValueType,
    /// Whether it is what a profile shows by default.
    pub is_default: bool,
}

/// A value by time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// What is counted; nothing if no window of this type was found.
    pub value_type: Option<ValueType>,
    /// When the first step starts.
    pub from_unix_ns: u64,
    /// Length of a step.
    pub step_ns: u64,
    /// The sum in each step.
    pub values: Vec<i64>,
    /// What was looked at.
    pub coverage: Coverage,
    /// See [`Answer::matched`].
    pub matched: bool,
}

/// How much windows have of what is selected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WindowValues {
    /// What is counted; nothing if no window of this type was found.
    pub value_type: Option<ValueType>,
    /// The windows, each by itself though they may overlap.
    pub windows: Vec<WindowValue>,
    /// What was looked at.
    pub coverage: Coverage,
    /// See [`Answer::matched`].
    pub matched: bool,
}

/// How much a window has of what is selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowValue {
    /// Its first nanosecond, since the Unix epoch.
    pub start_unix_ns: u64,
    /// How long it is, nanoseconds.
    pub duration_ns: u64,
    /// The sum.
    pub value: i64,
}

/// What a store holds and what has happened to it since it was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Files that are in use.
    pub segments: u64,
    /// Windows in them.
    pub windows: u64,
    /// Bytes on disk, logs and files that were set aside included.
    pub bytes: u64,
    /// The most it will take.
    pub max_bytes: u64,
    /// Start of the oldest window, 0 without any.
    pub oldest_unix_ns: u64,
    /// End of the newest window, 0 without any.
    pub newest_unix_ns: u64,
    /// Series of the segment that is being written.
    pub open_series: u64,
    /// Stack nodes of the segment that is being written.
    pub open_stack_nodes: u64,
    /// Windows that were written.
    pub windows_written: u64,
    /// Windows that could not be written.
    pub windows_failed: u64,
    /// Why the last of them could not, if the one after it has not been written yet.
    pub last_write_error: Option<String>,
    /// Spans in the files; those that were replaced are in them, too.
    pub spans: u64,
    /// Start of the oldest of them, 0 without any.
    pub oldest_span_unix_ns: u64,
    /// When something was last written to a file that has been removed or set aside since, Unix time; 0 if there is
    /// none. Whatever was written later is there.
    pub removed_until_unix_ns: u64,
    /// Spans that were written.
    pub spans_written: u64,
    /// Spans that could not be written.
    pub spans_failed: u64,
    /// What was cut off spans that were larger than they may be.
    pub span_cuts: SpanCuts,
    /// Segments that were removed because of their age.
    pub segments_removed_by_age: u64,
    /// Segments that were removed because there were too many bytes.
    pub segments_removed_by_size: u64,
    /// Files that could not be read and were set aside, with the reason.
    pub set_aside: Vec<SetAside>,
}

/// A file that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where it is now.
    pub path: PathBuf,
    /// What is wrong with it; empty if it was set aside before this store was opened.
    pub reason: String,
}
