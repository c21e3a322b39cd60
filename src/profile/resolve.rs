//! Gives names to counted stacks: [`RawWindow`] → [`Profile`].
//!
//! Each distinct address is symbolized once, in one batch an object, so that the work is bounded by
//! the number of different addresses and not of samples. What cannot be named stays in the profile as
//! module and address.

use std::collections::{BTreeMap, HashMap};

use spanflame_symbols::ElfAddress;
use spanflame_symbols::script::{Runtime, ScriptFrame, ScriptFunction};
use spanflame_symbols::symbolize::{Symbol, SymbolFrame, Symbolizer};

use super::aggregate::{Aggregate, Key, Place};
use super::raw_window::{RawWindow, Taken};
use crate::model::{
    Frame, FrameKind, Function, GIT_SHA, ImageId, Interner, Label, Location, Mapping, ObjectId, Outcome,
    Profile, Sample, Slices, Stamp, ValueType,
};

/// Gives names to everything in a window.
pub fn profile(window: &RawWindow, symbolizer: &mut Symbolizer, taken: Taken) -> Profile {
    let aggregate = &window.aggregate;
    let mut tables = Tables::default();
    tables.locate(window, symbolizer);

    let entries = aggregate.sorted();
    let mut numbered_stacks = NumberedStacks::new(aggregate);
    let mut label_sets = Interner::new();
    // The threads are few and their samples many.
    let mut labels_of_thread: HashMap<Key, u32> = HashMap::new();
    // Different raw stacks can have equal names and labels only if they are equal: no merging needed.
    let samples = entries.into_iter().map(|(key, weight)| Sample {
        stack: numbered_stacks.number(key.stack),
        labels: *labels_of_thread
            .entry(Key { stack: 0, ..key })
            .or_insert_with(|| label_sets.intern(labels_of(&key, window))),
        values: vec![saturating_i64(weight.samples), saturating_i64(weight.time_ns)],
    });
    let samples = samples.collect();
    Profile {
        value_types: vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")],
        default_value: 1,
        period_type: Some(ValueType::new("cpu", "nanoseconds")),
        period: saturating_i64(taken.period_ns),
        start_unix_ns: taken.start_unix_ns,
        duration_ns: taken.duration_ns,
        mappings: tables.mappings,
        functions: tables.functions.into_values(),
        locations: tables.locations,
        stacks: numbered_stacks.into_stacks(&tables.located),
        label_sets: label_sets.into_values(),
        samples,
        comments: Vec::new(),
    }
}

fn saturating_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The labels of a sample, sorted.
fn labels_of(key: &Key, window: &RawWindow) -> Vec<Label> {
    let name = |index: u32| window.aggregate.names().get(index).map_or("", String::as_str);
    let mut labels = vec![
        Label::text("comm", name(key.comm)),
        Label::number("pid", i64::from(key.pid)),
        Label::text("thread_name", name(key.thread_name)),
        Label::number("tid", i64::from(key.tid)),
    ];
    if let Some(image) = window.images.get(&key.image) {
        let service = image.service();
        if !service.is_empty() {
            labels.push(Label::text("service", &service));
        }
        let said = image.identity.iter();
        let said = said.flat_map(|known| [("container_id", &known.container_id), (GIT_SHA, &known.git_sha)]);
        labels.extend(said.filter(|(_, text)| !text.is_empty()).map(|(key, text)| Label::text(key, text)));
    }
    if !matches!(key.outcome, Outcome::Complete | Outcome::NoUser) {
        labels.push(Label::text("unwind", key.outcome.name()));
    }
    if let Some(Stamp { trace_id, span_id }) = key.span {
        labels.push(Label::text("trace_id", &trace_id.to_string()));
        labels.push(Label::text("span_id", &span_id.to_string()));
    }
    for (name, value) in window.aggregate.label_sets().get(key.labels).into_iter().flatten() {
        // What the program says must not pass for what we say.
        let is_ours = OWN_LABELS.contains(&name.as_str());
        labels.push(match is_ours {
            true => Label::text(&format!("pprof.{name}"), value),
            false => Label::text(name, value),
        });
    }
    labels.sort();
    labels
}

/// The labels that we give.
const OWN_LABELS: &[&str] = &[
    "comm",
    "pid",
    "thread_name",
    "tid",
    "service",
    "container_id",
    GIT_SHA,
    "unwind",
    "trace_id",
    "span_id",
];

/// The stacks of the aggregate, numbered anew in the order in which samples name them, so that equal
/// samples give equal profiles.
struct NumberedStacks<'a> {
    aggregate: &'a Aggregate,
    /// By index in the aggregate.
    numbers: Vec<Option<u32>>,
    /// Indices in the aggregate, by number.
    order: Vec<u32>,
}

impl<'a> NumberedStacks<'a> {
    fn new(aggregate: &'a Aggregate) -> Self {
        Self { aggregate, numbers: vec![None; aggregate.stacks().len()], order: Vec::new() }
    }

    fn number(&mut self, stack: u32) -> u32 {
        let new = u32::try_from(self.order.len()).unwrap_or(u32::MAX);
        match self.numbers.get_mut(stack as usize) {
            Some(number) => *number.get_or_insert_with(|| {
                self.order.push(stack);
                new
            }),
            // The aggregate gave the index; were it wrong, writing would refuse the profile.
            None => u32::MAX,
        }
    }

    /// The stacks in order, with `locations` by place instead of places.
    fn into_stacks(self, locations: &[u32]) -> Slices<u32> {
        let mut stacks = Slices::with_capacity(self.order.len(), 0);
        for &stack in &self.order {
            let places = self.aggregate.stacks().get(stack).unwrap_or_default();
            let located = places.iter().filter_map(|&place| locations.get(place as usize));
            stacks.push(located.copied().filter(|&location| location != NO_FRAME));
        }
        stacks
    }
}

/// The location of a place that is no frame of a program.
const NO_FRAME: u32 = u32::MAX;

/// An address, and the index in [`Aggregate::places`] of the place that it is of.
type PlacedAddress = (u64, u32);

/// The tables of the profile while they are filled.
#[derive(Debug, Default)]
struct Tables {
    mappings: Vec<Mapping>,
    functions: Interner<Function>,
    locations: Vec<Location>,
    /// The location of each place.
    located: Vec<u32>,
}

impl Tables {
    /// Symbolizes all places; `located` then says which location each became.
    fn locate(&mut self, window: &RawWindow, symbolizer: &mut Symbolizer) {
        let places = window.aggregate.places();
        let mut by_object: BTreeMap<ObjectId, Vec<PlacedAddress>> = BTreeMap::new();
        // Listed first even if none of its own code was seen running.
        by_object.extend(window.main_object.map(|object| (object, Vec::new())));
        let mut by_process: BTreeMap<u32, Vec<PlacedAddress>> = BTreeMap::new();
        let mut kernel = Vec::new();
        let mut unknown = Vec::new();
        let mut scripts = Vec::new();
        for (index, place) in (0..).zip(places.iter()) {
            match *place {
                Place::Object(object, address) => by_object.entry(object).or_default().push((address, index)),
                Place::Jit(pid, address) => by_process.entry(pid).or_default().push((address, index)),
                Place::Kernel(address) => kernel.push((address, index)),
                Place::Unknown(address) => unknown.push((address, index)),
                Place::Script(image, frame) => scripts.push((image, frame, index)),
            }
        }
        let lists = by_object.values_mut().chain(by_process.values_mut());
        for addresses in lists.chain([&mut kernel, &mut unknown]) {
            addresses.sort_unstable();
        }
        // Exactly one location for each place: a later address never makes this table grow.
        self.locations.reserve_exact(places.len());
        self.located = vec![0; places.len()];
        let mut objects: Vec<_> = by_object.into_iter().collect();
        objects.sort_by_key(|(object, _)| (Some(*object) != window.main_object, *object));
        for (object, addresses) in objects {
            self.locate_object(object, &addresses, window, symbolizer);
        }
        self.locate_kernel(&kernel, symbolizer);
        for (pid, addresses) in by_process {
            let symbols = symbolizer.jit(pid, &plain(&addresses));
            let mapping = self.special_mapping("[jit]", &addresses);
            for (address, symbol) in addresses.iter().zip(symbols) {
                self.add_location(Some(mapping), *address, FrameKind::Jit, symbol);
            }
        }
        self.locate_scripts(&scripts, window);
        for address in unknown {
            self.add_location(None, address, FrameKind::Native, Ok(Vec::new()));
        }
    }

    fn locate_object(
        &mut self,
        object: ObjectId,
        addresses: &[PlacedAddress],
        window: &RawWindow,
        symbolizer: &mut Symbolizer,
    ) {
        let sampled = window.objects.get(&object);
        let file = sampled.and_then(|object| object.file.as_ref());
        let mut mapping = Mapping {
            path: sampled.map(|object| object.path.to_string_lossy().into_owned()).unwrap_or_default(),
            ..Mapping::default()
        };
        let symbols = match file {
            Some(file) => {
                mapping.build_id = file.build_id().to_hex();
                let executable = file.segments().iter().filter(|segment| segment.executable);
                if let Some(first) = executable.clone().min_by_key(|segment| segment.address) {
                    mapping.start = first.address.0;
                    mapping.file_offset = first.offset.0;
                    mapping.limit = executable
                        .map(|segment| segment.address.0.saturating_add(segment.memory_bytes))
                        .max()
                        .unwrap_or(first.address.0);
                }
                let elf_addresses: Vec<_> =
                    addresses.iter().map(|&(address, _)| ElfAddress(address)).collect();
                symbolizer.object_of_process(sampled.and_then(|object| object.pid), file, &elf_addresses)
            }
            None => vec![Err(spanflame_symbols::symbolize::UnknownReason::Unreadable); addresses.len()],
        };
        note_what_is_known(&mut mapping, &symbols);
        let index = self.add_mapping(mapping);
        for (address, symbol) in addresses.iter().zip(symbols) {
            self.add_location(Some(index), *address, FrameKind::Native, symbol);
        }
    }

    fn locate_kernel(&mut self, addresses: &[PlacedAddress], symbolizer: &mut Symbolizer) {
        let mut by_module: BTreeMap<String, Vec<(PlacedAddress, Symbol)>> = BTreeMap::new();
        for (address, found) in addresses.iter().zip(symbolizer.kernel(&plain(addresses))) {
            by_module.entry(found.module).or_default().push((*address, found.symbol));
        }
        for (module, symbols) in by_module {
            let path =
                if module == "kernel" { "[kernel.kallsyms]".to_owned() } else { format!("[{module}]") };
            let addresses: Vec<PlacedAddress> = symbols.iter().map(|(address, _)| *address).collect();
            let mapping = self.special_mapping(&path, &addresses);
            for (address, symbol) in symbols {
                self.add_location(Some(mapping), address, FrameKind::Kernel, symbol);
            }
        }
    }

    fn locate_scripts(&mut self, frames: &[(ImageId, ScriptFrame, u32)], window: &RawWindow) {
        if frames.is_empty() {
            return;
        }
        window.scripts.settle();
        let mut mappings: BTreeMap<FrameKind, u32> = BTreeMap::new();
        for (image, frame, place) in frames {
            let kind = script_kind(frame);
            let named = match window.scripts.of(*image, frame) {
                Ok(functions) if functions.is_empty() => {
                    if let Some(located) = self.located.get_mut(*place as usize) {
                        *located = NO_FRAME;
                    }
                    continue;
                }
                Ok(functions) => functions.iter().map(of_script).collect(),
                // Unknown, with its reason.
                Err(reason) => {
                    let name = format!("[{}: {reason}]", frame.runtime.name());
                    vec![SymbolFrame { name, ..SymbolFrame::default() }]
                }
            };
            let mapping = *mappings
                .entry(kind)
                .or_insert_with(|| self.special_mapping(kind.mapping_path().unwrap_or_default(), &[]));
            let address = if frame.address == 0 { frame.object } else { frame.address };
            self.add_location(Some(mapping), (address, *place), kind, Ok(named));
        }
    }

    /// A mapping that is no file: it spans the addresses seen in it.
    fn special_mapping(&mut self, path: &str, addresses: &[PlacedAddress]) -> u32 {
        let start = addresses.iter().min().map_or(0, |&(first, _)| first);
        let limit = addresses.iter().max().map_or(0, |(last, _)| last.saturating_add(1));
        let (has_functions, path) = (true, path.to_owned());
        self.add_mapping(Mapping { start, limit, path, has_functions, ..Mapping::default() })
    }

    fn add_mapping(&mut self, mapping: Mapping) -> u32 {
        self.mappings.push(mapping);
        u32::try_from(self.mappings.len() - 1).unwrap_or(u32::MAX)
    }

    fn add_location(
        &mut self,
        mapping: Option<u32>,
        (address, place): PlacedAddress,
        kind: FrameKind,
        symbol: Symbol,
    ) {
        let named = symbol.unwrap_or_default();
        // Not collected: that would write these small frames into the allocation of the large ones.
        let mut frames = Vec::with_capacity(named.len());
        frames.extend(named.into_iter().map(|frame| self.frame(frame)));
        let index = u32::try_from(self.locations.len()).unwrap_or(u32::MAX);
        self.locations.push(Location { mapping, address, kind, frames });
        if let Some(located) = self.located.get_mut(place as usize) {
            *located = index;
        }
    }

    fn frame(&mut self, frame: SymbolFrame) -> Frame {
        let SymbolFrame { name, system_name, file, line, start_line } = frame;
        Frame { function: self.functions.intern(Function { name, system_name, file, start_line }), line }
    }
}

fn script_kind(frame: &ScriptFrame) -> FrameKind {
    match (frame.runtime, frame.is_compiled()) {
        (Runtime::Python, _) => FrameKind::Python,
        (Runtime::V8, false) => FrameKind::V8,
        (Runtime::V8, true) => FrameKind::V8Jit,
        (Runtime::Hotspot, false) => FrameKind::Jvm,
        (Runtime::Hotspot, true) => FrameKind::JvmJit,
    }
}

fn of_script(function: &ScriptFunction) -> SymbolFrame {
    let ScriptFunction { name, file, start_line, line, is_approximate } = function;
    SymbolFrame {
        name: name.clone(),
        system_name: if *is_approximate { Function::APPROXIMATE.to_owned() } else { String::new() },
        file: file.clone(),
        line: *line,
        start_line: *start_line,
    }
}

fn plain(addresses: &[PlacedAddress]) -> Vec<u64> {
    addresses.iter().map(|&(address, _)| address).collect()
}

/// Sets the flags by which pprof knows that there is nothing left to symbolize: what has no name here
/// was looked for and not found.
fn note_what_is_known(mapping: &mut Mapping, symbols: &[Symbol]) {
    mapping.has_functions = true;
    mapping.has_inline_frames = true;
    for frames in symbols.iter().flatten() {
        mapping.has_filenames |= frames.iter().any(|frame| !frame.file.is_empty());
        mapping.has_line_numbers |= frames.iter().any(|frame| frame.line != 0);
    }
}
