//! What is kept of labels when only some keys are wanted ([`Detail::Keys`]), or only the time.

use std::collections::HashMap;

use super::dictionary::Tables;
use super::merge::{GroupKey, labels_of};
use super::varint::Malformed;
use super::{Detail, STRETCH};
use crate::model::{Interner, Label};

/// See the module.
pub(super) struct KeptLabels<'a> {
    keys: &'a [String],
    /// The first one is empty, so that whatever has none of the keys is in the group that is added up
    /// the fastest.
    sets: Interner<Vec<Label>>,
    /// By what the labels are of, without what no key asks for.
    known: HashMap<GroupKey, u32>,
}

impl<'a> KeptLabels<'a> {
    pub(super) fn new(detail: &'a Detail) -> Self {
        let keys = if let Detail::Keys(keys) = detail { keys.as_slice() } else { &[] };
        let mut sets = Interner::new();
        sets.intern(Vec::new());
        Self { keys, sets, known: HashMap::new() }
    }

    /// The group of a window that begins at this time. What begins before the first stretch is of it.
    pub(super) fn stretch(&mut self, starts_ns: &[u64], start_ns: u64) -> GroupKey {
        let number = starts_ns.partition_point(|&start| start <= start_ns).saturating_sub(1);
        let label = Label::number(STRETCH, i64::try_from(number).unwrap_or(i64::MAX));
        GroupKey { series: None, thread: None, kept: Some(self.sets.intern(vec![label])) }
    }

    fn wants(&self, key: &str) -> bool {
        self.keys.iter().any(|wanted| wanted == key)
    }

    /// The group of samples that have all the labels of `key`.
    pub(super) fn group(&mut self, mut key: GroupKey, tables: &Tables) -> Result<GroupKey, Malformed> {
        let (pid, tid) = (self.wants("pid"), self.wants("tid"));
        let (trace_id, span_id) = (self.wants("trace_id"), self.wants("span_id"));
        if let Some(thread) = &mut key.thread {
            thread.pid = thread.pid.filter(|_| pid);
            thread.tid = thread.tid.filter(|_| tid);
            thread.trace_id = thread.trace_id.filter(|_| trace_id);
            thread.span_id = thread.span_id.filter(|_| span_id);
        }
        let kept = match self.known.get(&key) {
            Some(&kept) => kept,
            None => {
                let mut labels = labels_of(&key, tables)?;
                labels.retain(|label| self.wants(&label.key));
                let kept = self.sets.intern(labels);
                self.known.insert(key, kept);
                kept
            }
        };
        Ok(GroupKey { series: None, thread: None, kept: Some(kept) })
    }

    /// The sets of labels that groups name.
    pub(super) fn into_sets(self) -> Vec<Vec<Label>> {
        self.sets.into_values()
    }
}
