//! Of several servers' spans of an SDK's that could be one request of ours: the one that the others are within.
//!
//! Known by, the surest first:
//!
//! ```text
//! carried   its parent is the span that the request came from, by its header: ours has the same parent
//! parent    it is the parent of another, of the same process
//! root      it has no parent, so all else of its trace is below it
//! ```
//!
//! What the spans say of the request comes after these: an inner one may know the client's port, and the outer one not. An
//! inner span is sent before the outer one if a batch ends between them, so one whose parent is neither known nor none is
//! the request only if no other comes.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::Told;
use super::{Evidence, Ids, Theirs};
use crate::model::span::TraceId;

/// Whether it may be within another span of its process. That of a request whose sender only passed on what it had received
/// may seem so too: our span of that sender stands between.
pub(super) fn may_be_inner(theirs: &Told, ours: &Told) -> bool {
    theirs.parent_span_id.is_some() && !is_carried(theirs, ours)
}

/// Whether the one is the other's child within one process.
pub(super) fn is_directly_within(inner: &Told, outer: &Told) -> bool {
    inner.trace_id == outer.trace_id
        && inner.parent_span_id == Some(outer.span_id)
        && inner.facts.is_same_resource(&outer.facts)
        && !inner.facts.contradict(&outer.facts)
}

/// Whether both name the span that the request came from.
fn is_carried(theirs: &Told, ours: &Told) -> bool {
    theirs.trace_id == ours.trace_id
        && theirs.parent_span_id.is_some()
        && theirs.parent_span_id == ours.parent_span_id
}

/// The one that is this request of ours, if one is, and how many of the others are within it for certain. O(n log n).
pub(super) fn outermost(
    mut claimants: Vec<(Evidence, Theirs)>,
    ours: &Told,
) -> (Option<(Evidence, Theirs)>, u64) {
    let by_ids: BTreeMap<Ids, Told> = claimants
        .iter()
        .map(|(_, theirs)| ((theirs.told.trace_id, theirs.told.span_id), theirs.told.clone()))
        .collect();
    let is_within = |told: &Told| {
        let parent = told.parent_span_id.and_then(|parent| by_ids.get(&(told.trace_id, parent)));
        parent.is_some_and(|parent| is_directly_within(told, parent))
    };
    let all = claimants.len();
    claimants.retain(|(_, theirs)| !is_within(&theirs.told));
    let mut inner = all - claimants.len();
    if claimants.iter().any(|(_, theirs)| is_carried(&theirs.told, ours)) {
        // The others may be of other requests of the trace, which were not seen.
        claimants.retain(|(_, theirs)| is_carried(&theirs.told, ours));
    } else {
        let is_root = |theirs: &Theirs| theirs.told.parent_span_id.is_none();
        let roots = claimants.iter().filter(|(_, theirs)| is_root(theirs));
        let with_root: BTreeSet<TraceId> = roots.map(|(_, theirs)| theirs.told.trace_id).collect();
        claimants.retain(|(_, theirs)| is_root(theirs) || !with_root.contains(&theirs.told.trace_id));
        inner = all - claimants.len();
    }
    match strongest(claimants) {
        Some(request) => (Some(request), inner as u64),
        None => (None, 0),
    }
}

/// That for which more speaks than for any other.
fn strongest(mut claimants: Vec<(Evidence, Theirs)>) -> Option<(Evidence, Theirs)> {
    let strongest = claimants.iter().map(|(evidence, _)| *evidence).max()?;
    claimants.retain(|(evidence, _)| *evidence == strongest);
    if claimants.len() == 1 { claimants.pop() } else { None }
}
