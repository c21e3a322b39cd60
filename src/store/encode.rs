//! A window as a segment keeps it: [`Profile`] → rows of the dictionary and blocks.

use std::collections::HashMap;

use super::block::{BlockWriter, Thread};
use super::dictionary::Dictionary;
use super::error::StoreError;
use super::rows::{
    FormatRow, FunctionRow, LabelValueRow, LabelsRow, LocationRow, MappingRow, SeriesRow, TextId,
};
use super::window_row::{SeenMapping, SeriesTotals, flags, write_comments, write_mappings, write_totals};
use crate::model::{Label, LabelValue, Profile, ValueType};

/// A window that is ready to be written.
#[derive(Debug)]
pub(super) struct EncodedWindow {
    pub(super) start_ns: i64,
    pub(super) duration_ns: i64,
    pub(super) format: u32,
    pub(super) totals: Vec<u8>,
    pub(super) mappings: Vec<u8>,
    pub(super) comments: Vec<u8>,
    /// By series.
    pub(super) blocks: Vec<(u32, Vec<u8>)>,
}

impl EncodedWindow {
    /// About how much the file grows by it, the dictionary left out.
    pub(super) fn bytes(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(|(_, block)| block.len() + 16).sum();
        blocks + self.totals.len() + self.mappings.len() + self.comments.len()
    }
}

/// Encodes a window whose indices have been checked. New rows are in `dictionary` afterwards, and have to
/// be forgotten if the window is not written.
pub(super) fn encode(window: &Profile, dictionary: &mut Dictionary) -> Result<EncodedWindow, StoreError> {
    let time = |ns: u64| i64::try_from(ns).ok();
    let end = window.start_unix_ns.checked_add(window.duration_ns).and_then(time);
    let (Some(start_ns), Some(duration_ns), Some(_)) =
        (time(window.start_unix_ns), time(window.duration_ns), end)
    else {
        return Err(StoreError::RefusedWindow { what: "it ends after the year 2262".to_owned() });
    };
    let value_type = |dictionary: &mut Dictionary, value: &ValueType| {
        (dictionary.text(&value.kind), dictionary.text(&value.unit))
    };
    let format = FormatRow {
        value_types: window.value_types.iter().map(|value| value_type(dictionary, value)).collect(),
        default_value: u32::try_from(window.default_value).unwrap_or(0),
        period_type: window.period_type.as_ref().map(|value| value_type(dictionary, value)),
        period: window.period,
    };
    let factors = format.expected_factors();
    let format = dictionary.formats.intern(format);

    let mut encoder = Encoder::new(window, dictionary);
    encoder.find_stacks();
    let entries = encoder.entries(format);

    let mappings = encoder.seen_mappings;
    let mut totals = SeriesTotals::new();
    let mut blocks: Vec<(u32, BlockWriter<'_>)> = Vec::new();
    let mut entries = entries.into_iter().peekable();
    while let Some(Entry { series, thread, stack, values }) = entries.next() {
        let mut values = values.to_vec();
        // Samples that differ by their order in the profile only are one.
        while let Some(more) =
            entries.next_if(|next| (next.series, next.thread, next.stack) == (series, thread, stack))
        {
            add(&mut values, more.values);
        }
        match blocks.last_mut() {
            Some((last, block)) if *last == series => block.add(thread, stack, &values),
            _ => {
                let mut block = BlockWriter::new(&factors);
                block.add(thread, stack, &values);
                blocks.push((series, block));
            }
        }
        match totals.last_mut() {
            Some((last, total)) if *last == series => add(total, &values),
            _ => totals.push((series, values)),
        }
    }
    Ok(EncodedWindow {
        start_ns,
        duration_ns,
        format,
        totals: write_totals(&totals, &factors),
        mappings: write_mappings(&mappings),
        comments: write_comments(&window.comments),
        blocks: blocks.into_iter().map(|(series, block)| (series, block.finish())).collect(),
    })
}

fn add(sums: &mut [i64], values: &[i64]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = sum.saturating_add(*value);
    }
}

/// A sample as a block has it.
struct Entry<'a> {
    series: u32,
    thread: Thread,
    /// Its number in the series.
    stack: u32,
    values: &'a [i64],
}

/// The rows of a window's tables in the dictionary, found when they are first needed: a row that no
/// sample leads to is not kept.
struct Encoder<'a> {
    window: &'a Profile,
    dictionary: &'a mut Dictionary,
    ordinals: Vec<u32>,
    mappings: Vec<Option<u32>>,
    functions: Vec<Option<u32>>,
    locations: Vec<Option<u32>>,
    /// Node of the leaf of each stack that a sample has.
    nodes: Vec<u32>,
    label_sets: Vec<Option<(u32, Thread)>>,
    seen_mappings: Vec<SeenMapping>,
}

impl<'a> Encoder<'a> {
    fn new(window: &'a Profile, dictionary: &'a mut Dictionary) -> Self {
        let mut seen = HashMap::new();
        let mut ordinals = Vec::with_capacity(window.mappings.len());
        for mapping in &window.mappings {
            let same = seen.entry((&mapping.path, &mapping.build_id)).or_insert(0);
            // Files are told apart by where they begin, too.
            ordinals.push(if extent_varies(&mapping.path) { *same } else { 0 });
            *same += 1;
        }
        Self {
            window,
            dictionary,
            ordinals,
            mappings: vec![None; window.mappings.len()],
            functions: vec![None; window.functions.len()],
            locations: vec![None; window.locations.len()],
            nodes: vec![0; window.stacks.len()],
            label_sets: vec![None; window.label_sets.len()],
            seen_mappings: Vec::new(),
        }
    }

    fn mapping(&mut self, index: u32) -> u32 {
        if let Some(Some(known)) = self.mappings.get(index as usize) {
            return *known;
        }
        let Some(mapping) = self.window.mappings.get(index as usize) else { return u32::MAX };
        let varies = extent_varies(&mapping.path);
        let fixed = |number: u64| if varies { 0 } else { number };
        let row = MappingRow {
            path: self.dictionary.text(&mapping.path),
            build_id: self.dictionary.text(&mapping.build_id),
            ordinal: self.ordinals.get(index as usize).copied().unwrap_or(0),
            start: fixed(mapping.start),
            limit: fixed(mapping.limit),
            file_offset: fixed(mapping.file_offset),
        };
        let flags = flags(mapping);
        let (row, known_flags) = self.dictionary.mapping(row, flags);
        if varies || flags != known_flags {
            let (start, limit, file_offset) = (mapping.start, mapping.limit, mapping.file_offset);
            self.seen_mappings.push(SeenMapping { mapping: row, start, limit, file_offset, flags });
        }
        remember(&mut self.mappings, index, row)
    }

    fn function(&mut self, index: u32) -> u32 {
        if let Some(Some(known)) = self.functions.get(index as usize) {
            return *known;
        }
        let Some(function) = self.window.functions.get(index as usize) else { return u32::MAX };
        let row = FunctionRow {
            name: self.dictionary.text(&function.name),
            system_name: self.dictionary.text(&function.system_name),
            file: self.dictionary.text(&function.file),
            start_line: function.start_line,
        };
        let row = self.dictionary.functions.intern(row);
        remember(&mut self.functions, index, row)
    }

    fn location(&mut self, index: u32) -> u32 {
        if let Some(Some(known)) = self.locations.get(index as usize) {
            return *known;
        }
        let Some(location) = self.window.locations.get(index as usize) else { return u32::MAX };
        let row = LocationRow {
            mapping: location.mapping.map(|mapping| self.mapping(mapping)),
            address: location.address,
            kind: location.kind,
            frames: location.frames.iter().map(|frame| (self.function(frame.function), frame.line)).collect(),
        };
        let row = self.dictionary.locations.intern(row);
        remember(&mut self.locations, index, row)
    }

    /// Finds the nodes of all stacks that samples have. In this order neighbours have their beginnings in
    /// common, and no frame is looked up twice: each look is a cache miss or two in a table of millions. And
    /// stacks that are new together get numbers close to each other, which take fewer bytes.
    fn find_stacks(&mut self) {
        let window = self.window;
        let stack_of = |index: u32| window.stacks.get(index).unwrap_or_default();
        let mut used: Vec<u32> = window.samples.iter().map(|sample| sample.stack).collect();
        used.sort_unstable();
        used.dedup();
        used.sort_unstable_by(|&one, &other| stack_of(one).iter().rev().cmp(stack_of(other).iter().rev()));
        let mut before: &[u32] = &[];
        // Of the stack before, from the root on.
        let mut nodes: Vec<u32> = Vec::new();
        for index in used {
            let stack = stack_of(index);
            let pairs = stack.iter().rev().zip(before.iter().rev());
            nodes.truncate(pairs.take_while(|(one, other)| one == other).count());
            for &location in stack.iter().rev().skip(nodes.len()) {
                let location = self.location(location);
                let parent = nodes.last().copied().unwrap_or(0);
                nodes.push(self.dictionary.nodes.intern(parent, location));
            }
            before = stack;
            if let Some(entry) = self.nodes.get_mut(index as usize) {
                *entry = nodes.last().copied().unwrap_or(0);
            }
        }
    }

    /// The samples by series, thread and stack.
    fn entries(&mut self, format: u32) -> Vec<Entry<'a>> {
        let window = self.window;
        let mut entries = Vec::with_capacity(window.samples.len());
        for sample in &window.samples {
            let (series, thread) = self.labels(sample.labels, format);
            entries.push(Entry { series, thread, stack: self.node(sample.stack), values: &sample.values });
        }
        // New stacks of a series are numbered in order of their nodes.
        entries.sort_unstable_by_key(|entry| (entry.series, entry.stack));
        for entry in &mut entries {
            entry.stack = self.dictionary.stacks.intern(entry.series, entry.stack);
        }
        entries.sort_unstable_by_key(|entry| (entry.series, entry.thread, entry.stack));
        entries
    }

    /// The node of a stack that was found.
    fn node(&self, stack: u32) -> u32 {
        self.nodes.get(stack as usize).copied().unwrap_or(u32::MAX)
    }

    /// The series of a set of labels, and the rest of it.
    fn labels(&mut self, index: u32, format: u32) -> (u32, Thread) {
        if let Some(Some(known)) = self.label_sets.get(index as usize) {
            return *known;
        }
        let labels = self.window.label_sets.get(index as usize).map_or(&[][..], Vec::as_slice);
        let mut series = SeriesRow { format, service: None, container_id: None, comm: None };
        let mut thread = Thread::default();
        let mut others = LabelsRow::default();
        for label in labels {
            if !take_label(label, &mut series, &mut thread, |text| self.dictionary.text(text)) {
                let key = self.dictionary.text(&label.key);
                let value = match &label.value {
                    LabelValue::Text(text) => LabelValueRow::Text(self.dictionary.text(text)),
                    LabelValue::Number(number) => LabelValueRow::Number(*number),
                };
                others.0.push((key, value));
            }
        }
        thread.labels = self.dictionary.labels.intern(others);
        let series = self.dictionary.series.intern(series);
        remember(&mut self.label_sets, index, (series, thread))
    }
}

fn remember<T: Copy>(table: &mut [Option<T>], index: u32, row: T) -> T {
    if let Some(entry) = table.get_mut(index as usize) {
        *entry = Some(row);
    }
    row
}

/// Whether where a mapping begins and ends depends on what was seen of it.
pub(super) fn extent_varies(path: &str) -> bool {
    path.starts_with('[')
}

/// Takes a label that a series or a block has a place for. The second of a key, or one of a form that
/// would not come back the same, has none.
fn take_label(
    label: &Label,
    series: &mut SeriesRow,
    thread: &mut Thread,
    mut text_id: impl FnMut(&str) -> TextId,
) -> bool {
    match (label.key.as_str(), &label.value) {
        ("service", LabelValue::Text(text)) => set(&mut series.service, || Some(text_id(text))),
        ("container_id", LabelValue::Text(text)) => set(&mut series.container_id, || Some(text_id(text))),
        ("comm", LabelValue::Text(text)) => set(&mut series.comm, || Some(text_id(text))),
        ("pid", LabelValue::Number(number)) => set(&mut thread.pid, || u64::try_from(*number).ok()),
        ("tid", LabelValue::Number(number)) => set(&mut thread.tid, || u64::try_from(*number).ok()),
        ("trace_id", LabelValue::Text(text)) => set(&mut thread.trace_id, || from_hex(text)),
        ("span_id", LabelValue::Text(text)) => set(&mut thread.span_id, || from_hex(text)),
        _ => false,
    }
}

fn set<T>(place: &mut Option<T>, value: impl FnOnce() -> Option<T>) -> bool {
    if place.is_some() {
        return false;
    }
    *place = value();
    place.is_some()
}

/// The bytes of lower-case hexadecimal digits of exactly this length.
pub(super) fn from_hex<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    if text.len() != LENGTH * 2 {
        return None;
    }
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = digits else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// The digits of [`from_hex`].
pub(super) fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_ids_come_back_and_anything_else_stays_text() {
        assert_eq!(from_hex::<2>("0aff"), Some([0x0a, 0xff]));
        assert_eq!(to_hex(&[0x0a, 0xff]), "0aff");
        for text in ["0AFF", "0aff0", "0af", "", "0agf", "é12"] {
            assert_eq!(from_hex::<2>(text), None, "{text}");
        }
    }

    #[test]
    fn a_label_of_a_second_value_or_another_kind_is_left_to_the_others() {
        let mut series = SeriesRow { format: 0, service: None, container_id: None, comm: None };
        let mut thread = Thread::default();
        let mut take = |label: Label| take_label(&label, &mut series, &mut thread, |_| 1);
        assert!(take(Label::text("service", "a")));
        assert!(!take(Label::text("service", "b")));
        assert!(!take(Label::number("comm", 4)));
        assert!(take(Label::number("pid", i64::MAX)));
        assert!(!take(Label::number("tid", -1)));
        assert!(take(Label::number("tid", 0)));
        assert!(!take(Label::text("span_id", "ABCDEF0123456789")));
        assert!(!take(Label::text("thread_name", "x")));
    }
}
