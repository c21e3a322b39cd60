//! Puts a profile together from stacks and values that come one by one.

use std::collections::HashMap;

use super::{IngestError, Limits, frame_kind};
use crate::model::{
    Frame, FrameKind, Function, Interner, Label, Location, Mapping, Profile, Sample, ValueType,
};

/// Frames in one stack of text: more than any runtime's own limit on recursion.
const MAX_STACK_FRAMES: usize = 1 << 16;

/// A frame that is known by its text, as in folded stacks and speedscope files.
pub(super) struct TextFrame<'a> {
    pub(super) name: &'a str,
    pub(super) kind: FrameKind,
    /// Inlined into the frame before it, towards the root.
    pub(super) inlined: bool,
    pub(super) file: &'a str,
    pub(super) line: u32,
}

/// A profile that grows. Equal rows are stored once; values of equal stack and labels are summed.
pub(super) struct ProfileBuilder {
    mappings: Interner<Mapping>,
    functions: Interner<Function>,
    locations: Interner<Location>,
    stacks: Interner<Vec<u32>>,
    label_sets: Interner<Vec<Label>>,
    value_types: Interner<ValueType>,
    samples: Vec<(u32, u32, Vec<i64>)>,
    index: HashMap<(u32, u32), usize>,
    stack_entries: usize,
    limits: Limits,
}

impl ProfileBuilder {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            mappings: Interner::new(),
            functions: Interner::new(),
            locations: Interner::new(),
            stacks: Interner::new(),
            label_sets: Interner::new(),
            value_types: Interner::new(),
            samples: Vec::new(),
            index: HashMap::new(),
            stack_entries: 0,
            limits: *limits,
        }
    }

    pub(super) fn value_type(&mut self, value_type: ValueType) -> usize {
        self.value_types.intern(value_type) as usize
    }

    /// A stack of location indices, leaf first.
    pub(super) fn stack(&mut self, locations: Vec<u32>) -> Result<u32, IngestError> {
        let entries = locations.len();
        let before = self.stacks.len();
        let stack = self.stacks.intern(locations);
        if self.stacks.len() > before {
            self.stack_entries = self.stack_entries.saturating_add(entries);
            if self.stack_entries > self.limits.stack_entries {
                let limit = self.limits.stack_entries;
                return Err(IngestError::TooLarge { what: "frames of different stacks", limit });
            }
        }
        Ok(stack)
    }

    /// A stack of frames that are only text, root first. Inlined ones join the location of the frame
    /// they are inlined into.
    pub(super) fn text_stack<'a>(
        &mut self,
        frames: impl Iterator<Item = TextFrame<'a>>,
    ) -> Result<u32, IngestError> {
        let mut root_first: Vec<Location> = Vec::new();
        for (depth, frame) in frames.enumerate() {
            if depth >= MAX_STACK_FRAMES {
                let what = "frames in one stack";
                return Err(IngestError::TooLarge { what, limit: MAX_STACK_FRAMES });
            }
            if let Some((module, address)) = frame_kind::unnamed(frame.name)
                && !frame.inlined
            {
                let mapping = self.module(module, frame.kind);
                root_first.push(Location { mapping, address, kind: frame.kind, frames: Vec::new() });
                continue;
            }
            let function = self.functions.intern(Function {
                name: frame.name.to_owned(),
                file: frame.file.to_owned(),
                ..Function::default()
            });
            let here = Frame { function, line: frame.line };
            match root_first.last_mut() {
                // An address without a name has no function that something could be inlined into.
                Some(outer) if frame.inlined && !outer.frames.is_empty() => outer.frames.push(here),
                _ => root_first.push(Location {
                    mapping: None,
                    address: 0,
                    kind: frame.kind,
                    frames: vec![here],
                }),
            }
        }
        let mut leaf_first = Vec::with_capacity(root_first.len());
        for mut location in root_first.into_iter().rev() {
            location.frames.reverse();
            leaf_first.push(self.locations.intern(location));
        }
        self.stack(leaf_first)
    }

    /// The mapping behind the module of `[module+0xoff]`; none for the names that stand for none.
    fn module(&mut self, module: &str, kind: FrameKind) -> Option<u32> {
        let stands_for_none = match kind {
            FrameKind::Native => "unknown",
            FrameKind::Kernel => "kernel",
            FrameKind::Jit => "jit",
        };
        if module == stands_for_none {
            return None;
        }
        let bracketed = kind == FrameKind::Kernel || module == "vdso" || module == "vsyscall";
        let path = if bracketed { format!("[{module}]") } else { module.to_owned() };
        Some(self.mappings.intern(Mapping { path, has_functions: true, ..Mapping::default() }))
    }

    /// A set of labels, in any order.
    pub(super) fn labels(&mut self, mut labels: Vec<Label>) -> u32 {
        labels.sort();
        self.label_sets.intern(labels)
    }

    /// Adds to one value of the sample with this stack and these labels.
    pub(super) fn add(
        &mut self,
        stack: u32,
        labels: u32,
        value: usize,
        amount: i64,
    ) -> Result<(), IngestError> {
        // Three bytes of text can make a function, a location, a stack and a sample.
        let rows = self.functions.len()
            + self.locations.len()
            + self.stacks.len()
            + self.label_sets.len()
            + self.samples.len();
        if rows > self.limits.rows {
            return Err(IngestError::TooLarge { what: "different rows", limit: self.limits.rows });
        }
        let samples = &mut self.samples;
        let index = *self.index.entry((stack, labels)).or_insert_with(|| {
            samples.push((stack, labels, Vec::new()));
            samples.len() - 1
        });
        let Some((_, _, values)) = self.samples.get_mut(index) else { return Ok(()) };
        if values.len() <= value {
            values.resize(value + 1, 0);
        }
        if let Some(sum) = values.get_mut(value) {
            *sum = sum.checked_add(amount).ok_or_else(|| IngestError::Malformed {
                format: "profile",
                place: format!("stack {stack}"),
                what: "its values add up to more than 64 bits hold".to_owned(),
            })?;
        }
        Ok(())
    }

    /// The profile. Locations may be given instead of those that came from text.
    pub(super) fn finish(self, tables: Option<Tables>) -> Profile {
        let value_types = self.value_types.into_values();
        let samples = self.samples.into_iter().map(|(stack, labels, mut values)| {
            values.resize(value_types.len(), 0);
            Sample { stack, labels, values }
        });
        let samples = samples.collect();
        let tables = tables.unwrap_or_else(|| Tables {
            mappings: self.mappings.into_values(),
            functions: self.functions.into_values(),
            locations: self.locations.into_values(),
        });
        Profile {
            value_types,
            mappings: tables.mappings,
            functions: tables.functions,
            locations: tables.locations,
            stacks: self.stacks.into_values(),
            label_sets: self.label_sets.into_values(),
            samples,
            ..Profile::default()
        }
    }
}

/// Tables that a file lists row by row.
pub(super) struct Tables {
    pub(super) mappings: Vec<Mapping>,
    pub(super) functions: Vec<Function>,
    pub(super) locations: Vec<Location>,
}
