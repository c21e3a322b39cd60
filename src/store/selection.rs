//! Which series and threads of a segment a [`Selector`] selects.

use std::collections::HashSet;

use super::Selector;
use super::block::Thread;
use super::dictionary::Tables;
use super::encode::from_hex;
use super::error::StoreError;
use super::rows::{FormatRow, LabelValueRow, LabelsRow, SeriesRow};
use super::varint::Malformed;
use crate::model::GIT_SHA;

/// Least length at which the beginning of a container's id stands for it, as Docker prints them.
const SHORT_CONTAINER_ID: usize = 12;

/// A selector whose texts have been understood.
#[derive(Debug)]
pub(super) struct Selection<'a> {
    selector: &'a Selector,
    /// [`Selector::thread`] as a number.
    tid: Option<u64>,
    trace_id: Option<[u8; 16]>,
    span_id: Option<[u8; 8]>,
    /// [`Selector::traces`].
    traces: Option<HashSet<[u8; 16]>>,
    /// [`Selector::spans`].
    spans: Option<HashSet<[u8; 8]>>,
}

impl<'a> Selection<'a> {
    pub(super) fn new(selector: &'a Selector) -> Result<Self, StoreError> {
        if selector.profile_type.is_empty() {
            return Err(StoreError::BadQuery { what: "no profile type was asked for".to_owned() });
        }
        let bad_id = |key: &str, digits: usize| StoreError::BadQuery {
            what: format!("{key}: {digits} lower-case hexadecimal digits expected"),
        };
        let trace_id = match &selector.trace_id {
            Some(text) => Some(from_hex(text).ok_or_else(|| bad_id("trace_id", 32))?),
            None => None,
        };
        let span_id = match &selector.span_id {
            Some(text) => Some(from_hex(text).ok_or_else(|| bad_id("span_id", 16))?),
            None => None,
        };
        let tid = selector.thread.as_ref().and_then(|thread| thread.parse().ok());
        let spans = selector.spans.as_ref().map(|spans| spans.iter().map(|span| span.bytes()).collect());
        let traces =
            selector.traces.as_ref().map(|traces| traces.iter().map(|trace| trace.bytes()).collect());
        Ok(Self { selector, tid, trace_id, span_id, traces, spans })
    }

    /// The index of the selected value in profiles of this format, if they have it.
    pub(super) fn value(&self, format: &FormatRow, tables: &Tables) -> Result<Option<usize>, Malformed> {
        let default = format.default_value as usize;
        let shown = format.value_types.get(default).map(|&(kind, _)| tables.text(kind)).transpose()?;
        let is_of_cpu = shown == Some("cpu");
        let mut others = None;
        for (index, &(kind, unit)) in format.value_types.iter().enumerate() {
            let (kind, unit) = (tables.text(kind)?, tables.text(unit)?);
            let wanted = self.selector.profile_type.as_str();
            let is_it =
                wanted == kind || wanted.split_once('/').is_some_and(|(name, of)| name == kind && of == unit);
            if is_it && index == default {
                return Ok(Some(index));
            }
            // Each sort of profile counts its samples too; together they would count nothing. Those of
            // profiles of the processor are what is meant.
            if is_it && (kind != "samples" || is_of_cpu) {
                others = others.or(Some(index));
            }
        }
        Ok(others)
    }

    /// Whether the labels of the series allow for what is selected.
    pub(super) fn has_series(&self, series: &SeriesRow, tables: &Tables) -> Result<bool, Malformed> {
        let text = |id: Option<u32>| id.map_or(Ok(""), |id| tables.text(id));
        if let Some(service) = &self.selector.service
            && text(series.service)? != service
        {
            return Ok(false);
        }
        if let Some(container) = &self.selector.container {
            let id = text(series.container_id)?;
            let is_it = id == container
                || container.len() >= SHORT_CONTAINER_ID && id.starts_with(container.as_str());
            if !is_it {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether threads have to be looked at.
    pub(super) fn is_by_thread(&self) -> bool {
        let Selector { pid, thread, trace_id, span_id, git_sha, traces, spans, .. } = self.selector;
        let is_by_id = trace_id.is_some() || span_id.is_some() || traces.is_some() || spans.is_some();
        pid.is_some() || thread.is_some() || git_sha.is_some() || is_by_id
    }

    /// Whether any sample of a segment with these tables may have the labels that are selected.
    pub(super) fn has_labels(&self, tables: &Tables) -> Result<bool, Malformed> {
        if self.selector.git_sha.is_none() {
            return Ok(true);
        }
        for LabelsRow(labels) in &tables.labels {
            if self.has_git_sha(labels, tables)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn has_git_sha(&self, labels: &[(u32, LabelValueRow)], tables: &Tables) -> Result<bool, Malformed> {
        Ok(self.selector.selects_git_sha(text_of(labels, GIT_SHA, tables)?.unwrap_or_default()))
    }

    /// Whether samples of this thread are selected, their series being so.
    pub(super) fn has_thread(&self, thread: &Thread, tables: &Tables) -> Result<bool, Malformed> {
        if let Some(pid) = self.selector.pid
            && (pid < 0 || thread.pid != u64::try_from(pid).ok())
        {
            return Ok(false);
        }
        if self.trace_id.is_some() && thread.trace_id != self.trace_id
            || self.span_id.is_some() && thread.span_id != self.span_id
        {
            return Ok(false);
        }
        if let Some(traces) = &self.traces
            && !thread.trace_id.is_some_and(|trace_id| traces.contains(&trace_id))
        {
            return Ok(false);
        }
        if let Some(spans) = &self.spans
            && !thread.span_id.is_some_and(|span_id| spans.contains(&span_id))
        {
            return Ok(false);
        }
        let labels = || match tables.labels.get(thread.labels as usize) {
            Some(LabelsRow(labels)) => Ok(labels.as_slice()),
            None => Err(Malformed("labels that do not exist")),
        };
        if self.selector.git_sha.is_some() && !self.has_git_sha(labels()?, tables)? {
            return Ok(false);
        }
        let Some(name) = &self.selector.thread else { return Ok(true) };
        if self.tid.is_some() && thread.tid == self.tid {
            return Ok(true);
        }
        Ok(text_of(labels()?, "thread_name", tables)? == Some(name.as_str()))
    }
}

/// The text of a label.
fn text_of<'a>(
    labels: &[(u32, LabelValueRow)],
    wanted: &str,
    tables: &'a Tables,
) -> Result<Option<&'a str>, Malformed> {
    for &(key, value) in labels {
        if let LabelValueRow::Text(text) = value
            && tables.text(key)? == wanted
        {
            return tables.text(text).map(Some);
        }
    }
    Ok(None)
}
