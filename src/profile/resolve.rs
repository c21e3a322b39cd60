//! Gives names to counted stacks: [`Aggregate`] → [`Profile`].
//!
//! Each distinct address is symbolized once, in one batch an object, so that the work is bounded by
//! the number of different addresses and not of samples. What cannot be named stays in the profile as
//! module and address.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use spanflame_symbols::ElfAddress;
use spanflame_symbols::symbolize::{Symbol, SymbolFrame, Symbolizer};

use super::aggregate::{Aggregate, RawStack};
use crate::model::{
    Frame, FrameKind, Function, Interner, Label, Location, Mapping, ObjectId, Outcome, Profile, RawFrame,
    Sample, ValueType,
};
use crate::process::{ObjectRegistry, ProcessTable};

/// When a profile was taken and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Start, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// Length, nanoseconds.
    pub duration_ns: u64,
    /// Nanoseconds between two samples of one CPU.
    pub period_ns: u64,
}

/// What the samples' addresses lie in.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// The objects.
    pub objects: &'a ObjectRegistry,
    /// The processes.
    pub processes: &'a ProcessTable,
    /// The object to list first: the executable of the one process that was asked for.
    pub main_object: Option<ObjectId>,
}

/// An address of the program, wherever it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Place {
    Object(ObjectId, u64),
    Kernel(u64),
    /// Generated code of a process.
    Jit(u32, u64),
    /// Nowhere that is known.
    Unknown(u64),
}

/// Gives names to everything in `aggregate`.
pub fn profile(
    aggregate: &Aggregate,
    world: World<'_>,
    symbolizer: &mut Symbolizer,
    taken: Taken,
) -> Profile {
    let entries = aggregate.sorted();
    let mut places = BTreeSet::new();
    for (key, _) in &entries {
        if let Some(stack) = aggregate.stacks().get(key.stack) {
            places.extend(places_of(stack, key.pid));
        }
    }
    let mut tables = Tables::default();
    let locations = tables.locate(&places, world, symbolizer);

    let mut stacks = Interner::new();
    let mut label_sets = Interner::new();
    let mut samples: Vec<Sample> = Vec::new();
    // Different raw stacks can have equal names and labels only if they are equal: no merging needed.
    for (key, weight) in &entries {
        let Some(raw) = aggregate.stacks().get(key.stack) else { continue };
        let stack =
            places_of(raw, key.pid).filter_map(|place| locations.get(&place).copied()).collect::<Vec<u32>>();
        let name = |index: u32| aggregate.names().get(index).map_or("", String::as_str);
        let mut labels = vec![
            Label::text("comm", name(key.comm)),
            Label::number("pid", i64::from(key.pid)),
            Label::text("thread_name", name(key.thread_name)),
            Label::number("tid", i64::from(key.tid)),
        ];
        if let Some(image) = world.processes.image(key.image) {
            let service = image.service();
            if !service.is_empty() {
                labels.push(Label::text("service", &service));
            }
            if let Some(identity) = image.identity.as_ref().filter(|known| !known.container_id.is_empty()) {
                labels.push(Label::text("container_id", &identity.container_id));
            }
        }
        if !matches!(key.outcome, Outcome::Complete | Outcome::NoUser) {
            labels.push(Label::text("unwind", key.outcome.name()));
        }
        labels.sort();
        samples.push(Sample {
            stack: stacks.intern(stack),
            labels: label_sets.intern(labels),
            values: vec![saturating_i64(weight.samples), saturating_i64(weight.time_ns)],
        });
    }
    Profile {
        value_types: vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")],
        default_value: 1,
        period_type: Some(ValueType::new("cpu", "nanoseconds")),
        period: saturating_i64(taken.period_ns),
        start_unix_ns: taken.start_unix_ns,
        duration_ns: taken.duration_ns,
        mappings: tables.mappings,
        functions: tables.functions.into_values(),
        locations: tables.locations.into_values(),
        stacks: stacks.into_values(),
        label_sets: label_sets.into_values(),
        samples,
        comments: Vec::new(),
    }
}

fn saturating_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The places of a stack, leaf first: kernel, then user.
fn places_of(stack: &RawStack, pid: u32) -> impl Iterator<Item = Place> {
    let kernel = stack.kernel.iter().map(|&address| Place::Kernel(address));
    let user = stack.user.iter().map(move |frame| match *frame {
        RawFrame::Object { object, address } => Place::Object(object, address),
        RawFrame::Generated { address } => Place::Jit(pid, address),
        RawFrame::Process { address } => Place::Unknown(address),
    });
    kernel.chain(user)
}

/// The tables of the profile while they are filled.
#[derive(Debug, Default)]
struct Tables {
    mappings: Vec<Mapping>,
    functions: Interner<Function>,
    locations: Interner<Location>,
}

impl Tables {
    /// Symbolizes all places and says which location each became.
    fn locate(
        &mut self,
        places: &BTreeSet<Place>,
        world: World<'_>,
        symbolizer: &mut Symbolizer,
    ) -> HashMap<Place, u32> {
        let mut by_object: BTreeMap<ObjectId, Vec<u64>> = BTreeMap::new();
        // Listed first even if none of its own code was seen running.
        by_object.extend(world.main_object.map(|object| (object, Vec::new())));
        let mut by_process: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let mut kernel = Vec::new();
        let mut unknown = Vec::new();
        for place in places {
            match *place {
                Place::Object(object, address) => by_object.entry(object).or_default().push(address),
                Place::Jit(pid, address) => by_process.entry(pid).or_default().push(address),
                Place::Kernel(address) => kernel.push(address),
                Place::Unknown(address) => unknown.push(address),
            }
        }
        let mut located = HashMap::with_capacity(places.len());
        let mut objects: Vec<_> = by_object.into_iter().collect();
        objects.sort_by_key(|(object, _)| (Some(*object) != world.main_object, *object));
        for (object, addresses) in objects {
            self.locate_object(object, &addresses, world, symbolizer, &mut located);
        }
        self.locate_kernel(&kernel, symbolizer, &mut located);
        for (pid, addresses) in by_process {
            let symbols = symbolizer.jit(pid, &addresses);
            let mapping = self.special_mapping("[jit]", &addresses);
            for (address, symbol) in addresses.iter().zip(symbols) {
                let location = self.location(Some(mapping), *address, FrameKind::Jit, symbol);
                located.insert(Place::Jit(pid, *address), location);
            }
        }
        for address in unknown {
            let location = self.locations.intern(Location { address, ..Location::default() });
            located.insert(Place::Unknown(address), location);
        }
        located
    }

    fn locate_object(
        &mut self,
        object: ObjectId,
        addresses: &[u64],
        world: World<'_>,
        symbolizer: &mut Symbolizer,
        located: &mut HashMap<Place, u32>,
    ) {
        let registered = world.objects.get(object);
        let file = registered.and_then(|object| object.file.as_ref().ok());
        let mut mapping = Mapping {
            path: registered.map(|object| object.path.to_string_lossy().into_owned()).unwrap_or_default(),
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
                let elf_addresses: Vec<_> = addresses.iter().map(|&address| ElfAddress(address)).collect();
                symbolizer.object_of_process(world.processes.any_with_object(object), file, &elf_addresses)
            }
            None => vec![Err(spanflame_symbols::symbolize::UnknownReason::Unreadable); addresses.len()],
        };
        note_what_is_known(&mut mapping, &symbols);
        let index = self.add_mapping(mapping);
        for (address, symbol) in addresses.iter().zip(symbols) {
            let location = self.location(Some(index), *address, FrameKind::Native, symbol);
            located.insert(Place::Object(object, *address), location);
        }
    }

    fn locate_kernel(
        &mut self,
        addresses: &[u64],
        symbolizer: &mut Symbolizer,
        located: &mut HashMap<Place, u32>,
    ) {
        let mut by_module: BTreeMap<String, Vec<(u64, Symbol)>> = BTreeMap::new();
        for (address, found) in addresses.iter().zip(symbolizer.kernel(addresses)) {
            by_module.entry(found.module).or_default().push((*address, found.symbol));
        }
        for (module, symbols) in by_module {
            let path =
                if module == "kernel" { "[kernel.kallsyms]".to_owned() } else { format!("[{module}]") };
            let addresses: Vec<u64> = symbols.iter().map(|(address, _)| *address).collect();
            let mapping = self.special_mapping(&path, &addresses);
            for (address, symbol) in symbols {
                let location = self.location(Some(mapping), address, FrameKind::Kernel, symbol);
                located.insert(Place::Kernel(address), location);
            }
        }
    }

    /// A mapping that is no file: it spans the addresses seen in it.
    fn special_mapping(&mut self, path: &str, addresses: &[u64]) -> u32 {
        let start = addresses.iter().min().copied().unwrap_or(0);
        let limit = addresses.iter().max().map_or(0, |last| last.saturating_add(1));
        let (has_functions, path) = (true, path.to_owned());
        self.add_mapping(Mapping { start, limit, path, has_functions, ..Mapping::default() })
    }

    fn add_mapping(&mut self, mapping: Mapping) -> u32 {
        self.mappings.push(mapping);
        u32::try_from(self.mappings.len() - 1).unwrap_or(u32::MAX)
    }

    fn location(&mut self, mapping: Option<u32>, address: u64, kind: FrameKind, symbol: Symbol) -> u32 {
        let frames = symbol.unwrap_or_default().into_iter().map(|frame| self.frame(frame)).collect();
        self.locations.intern(Location { mapping, address, kind, frames })
    }

    fn frame(&mut self, frame: SymbolFrame) -> Frame {
        let SymbolFrame { name, system_name, file, line, start_line } = frame;
        Frame { function: self.functions.intern(Function { name, system_name, file, start_line }), line }
    }
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
