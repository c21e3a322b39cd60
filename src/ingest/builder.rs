//! Puts a profile together from stacks and values that come one by one.

use std::collections::HashMap;

use super::frame_kind::{self, SuffixedName};
use super::{IngestError, Limits};
use crate::model::{
    Frame, FrameKind, Function, Interner, Label, Location, Mapping, Profile, Sample, SliceInterner, ValueType,
};

/// Frames in one stack of text: more than any runtime's own limit on recursion.
const MAX_STACK_FRAMES: usize = 1 << 16;

/// A frame that is known by its text, as in folded stacks and speedscope files, once it has been
/// taken apart by [`ProfileBuilder::text_frame`]. Files repeat the same few thousand texts in millions
/// of stacks, so readers keep these instead of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum TextFrame {
    /// A function by name.
    Named {
        /// Row of the function.
        function: u32,
        /// Line, 0 if unknown.
        line: u32,
        kind: FrameKind,
        /// Inlined into the frame before it, towards the root.
        inlined: bool,
    },
    /// `[module+0xoff]`.
    Address { mapping: Option<u32>, address: u64, kind: FrameKind },
}

impl TextFrame {
    fn is_inlined(&self) -> bool {
        matches!(self, Self::Named { inlined: true, .. })
    }
}

/// A profile that grows. Equal rows are stored once; values of equal stack and labels are summed.
pub(super) struct ProfileBuilder {
    mappings: Interner<Mapping>,
    functions: Interner<Function>,
    locations: Interner<Location>,
    stacks: SliceInterner<u32>,
    label_sets: Interner<Vec<Label>>,
    /// Locations of one frame, which nearly all are.
    location_of_frame: HashMap<TextFrame, u32>,
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
            stacks: SliceInterner::default(),
            label_sets: Interner::new(),
            location_of_frame: HashMap::new(),
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
    pub(super) fn stack(&mut self, locations: &[u32]) -> Result<u32, IngestError> {
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

    /// A frame from its text and what else is known of it.
    pub(super) fn text_frame(&mut self, name: &SuffixedName<'_>, file: &str, line: u32) -> TextFrame {
        let SuffixedName { name, kind, inlined } = *name;
        if let Some((module, address)) = frame_kind::unnamed(name)
            && !inlined
        {
            return TextFrame::Address { mapping: self.module(module, kind), address, kind };
        }
        let name = if name.is_empty() { "[unknown]" } else { name };
        let function = Function { name: name.to_owned(), file: file.to_owned(), ..Function::default() };
        TextFrame::Named { function: self.functions.intern(function), line, kind, inlined }
    }

    /// A stack of such frames, root first. Inlined ones join the location of the frame they are
    /// inlined into.
    pub(super) fn text_stack(&mut self, root_first: &[TextFrame]) -> Result<u32, IngestError> {
        if root_first.len() > MAX_STACK_FRAMES {
            let what = "frames in one stack";
            return Err(IngestError::TooLarge { what, limit: MAX_STACK_FRAMES });
        }
        let mut locations = Vec::with_capacity(root_first.len());
        let mut rest = root_first;
        while let Some((&outermost, others)) = rest.split_first() {
            // An address without a name has no function that something could be inlined into.
            let inlined = match outermost {
                TextFrame::Named { .. } => others.iter().take_while(|frame| frame.is_inlined()).count(),
                TextFrame::Address { .. } => 0,
            };
            let (inlined, others) = others.split_at(inlined);
            locations.push(self.text_location(outermost, inlined));
            rest = others;
        }
        locations.reverse();
        self.stack(&locations)
    }

    fn text_location(&mut self, outermost: TextFrame, inlined: &[TextFrame]) -> u32 {
        if inlined.is_empty()
            && let Some(&known) = self.location_of_frame.get(&outermost)
        {
            return known;
        }
        let location = match outermost {
            TextFrame::Address { mapping, address, kind } => {
                Location { mapping, address, kind, frames: Vec::new() }
            }
            TextFrame::Named { kind, .. } => {
                let innermost_first = inlined.iter().rev().chain([&outermost]);
                let frames = innermost_first.filter_map(|frame| match *frame {
                    TextFrame::Named { function, line, .. } => Some(Frame { function, line }),
                    TextFrame::Address { .. } => None,
                });
                Location { mapping: None, address: 0, kind, frames: frames.collect() }
            }
        };
        let row = self.locations.intern(location);
        if inlined.is_empty() {
            self.location_of_frame.insert(outermost, row);
        }
        row
    }

    /// The mapping behind the module of `[module+0xoff]`; none for the names that stand for none.
    fn module(&mut self, module: &str, kind: FrameKind) -> Option<u32> {
        let stands_for_none = match kind {
            FrameKind::Native => "unknown",
            kind => kind.frame_type(),
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
            stacks: self.stacks.into_slices(),
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
