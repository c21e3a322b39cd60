//! Windows that look like a host's: services with threads, stacks that share their beginnings, names,
//! inlined frames, kernel and generated code. The same number gives the same window.

use super::{MIDNIGHT_NS, WINDOW_NS};
use crate::model::{
    Frame, FrameKind, Function, Interner, Label, Location, Mapping, Profile, Sample, ValueType,
};

/// Nanoseconds between two samples at 19 Hz.
pub(super) const PERIOD_NS: i64 = 52_631_578;

/// Numbers without pattern that are the same each time (`SplitMix64`).
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        crate::model::index_hash::mix(self.0) % limit
    }
}

/// The shape of a host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Host {
    pub(super) services: u64,
    pub(super) threads_each: u64,
    /// Different samples of a window.
    pub(super) samples: u64,
    /// Different leaf functions of a service.
    pub(super) functions: u64,
    pub(super) depth: u64,
    /// Bytes that names have beyond what they need.
    pub(super) long_names: usize,
}

pub(super) const SMALL: Host =
    Host { services: 3, threads_each: 2, samples: 50, functions: 20, depth: 8, long_names: 0 };

/// Appends so many characters that cannot be told in many fewer.
fn lengthen(name: &mut String, characters: usize, seed: u64) {
    let mut numbers = Numbers(seed);
    for left in (0..characters).rev().step_by(10) {
        let number = numbers.below(u64::MAX);
        let six_bits = (0..=left.min(9)).map(|at| (number >> (at * 6)).to_le_bytes()[0] & 63);
        name.extend(six_bits.map(|bits| char::from(b'0' + bits)));
    }
}

/// The window of this number: the one of number 0 begins at midnight.
pub(super) fn window(host: Host, number: u64) -> Profile {
    let mut numbers = Numbers(number);
    let mut functions = Interner::new();
    let mut locations = Interner::new();
    let mut stacks = Interner::new();
    let mut label_sets = Interner::new();
    let mut mappings: Vec<Mapping> = (0..host.services)
        .map(|service| Mapping {
            start: 0x1000,
            limit: 0x1000 + 0x10_0000 * (service + 1),
            file_offset: 0x400,
            path: format!("/usr/bin/service-{service}"),
            build_id: format!("{service:040x}"),
            has_functions: true,
            // What a window knows of a file differs.
            has_filenames: number % 3 != service % 3,
            has_line_numbers: true,
            has_inline_frames: true,
        })
        .collect();
    let special = |path: &str, start: u64| Mapping {
        start: start + number % 5,
        limit: start + 0x1000 + number % 7,
        path: path.to_owned(),
        has_functions: true,
        ..Mapping::default()
    };
    let kernel = mappings.len() as u32;
    mappings.push(special("[kernel.kallsyms]", 0xffff_ffff_8100_0000));
    mappings.push(special("[jit]", 0x7fff_0000_0000));
    let samples = (0..host.samples).map(|_| {
        let service = numbers.below(host.services);
        let mut function = |name: String| {
            functions.intern(Function {
                system_name: if name.len().is_multiple_of(2) { format!("_Z{name}") } else { String::new() },
                file: format!("src/{}.rs", name.len() % 11),
                start_line: 10 + (name.len() % 90) as u32,
                name,
            })
        };
        // Leaves are many, callers few: a tree.
        let leaf = numbers.below(host.functions).min(numbers.below(host.functions));
        let mut stack = Vec::new();
        for level in 0..host.depth {
            let place = leaf >> level.min(63);
            let mut name = format!("service_{service}::level_{level}::function_{place}");
            lengthen(&mut name, host.long_names, place << 16 ^ level << 8 ^ service);
            let row = function(name);
            let line = 10 + (place % 50) as u32;
            let mut frames = vec![Frame { function: row, line }];
            if level % 4 == 1 {
                frames.insert(0, Frame { function: row, line: line + 1 });
            }
            let (mapping, address, kind) = match level {
                0 if leaf % 10 == 3 => (Some(kernel), 0xffff_ffff_8100_0010 + place, FrameKind::Kernel),
                0 if leaf % 10 == 4 => (Some(kernel + 1), 0x7fff_0000_0100 + place, FrameKind::Jit),
                0 if leaf % 10 == 5 => (None, 0xdead_0000 + place, FrameKind::Native),
                _ => (Some(service as u32), 0x1000 + level * 0x1000 + place * 16, FrameKind::Native),
            };
            if leaf % 10 == 5 && level == 0 {
                frames.clear();
            }
            stack.push(locations.intern(Location { mapping, address, kind, frames }));
        }
        let pid = 1000 + service as i64;
        let tid = pid + numbers.below(host.threads_each) as i64;
        let mut labels = vec![
            Label::text("comm", &format!("service-{service}")),
            Label::number("pid", pid),
            Label::text("thread_name", &format!("worker-{}", tid - pid)),
            Label::number("tid", tid),
        ];
        if service > 0 {
            labels.push(Label::text("service", &format!("shop-{service}")));
        }
        if service == 1 {
            labels.push(Label::text("container_id", &"0123456789abcdef".repeat(4)));
        }
        if leaf % 7 == 1 {
            labels.push(Label::text("unwind", "no_rule"));
        }
        if leaf % 7 == 2 {
            labels.push(Label::text("trace_id", &format!("{:032x}", leaf + 1)));
            labels.push(Label::text("span_id", &format!("{:016x}", leaf + 2)));
        }
        labels.sort();
        let count = 1 + numbers.below(3) as i64;
        Sample {
            stack: stacks.intern(stack),
            labels: label_sets.intern(labels),
            values: vec![count, count * PERIOD_NS],
        }
    });
    let samples = samples.collect();
    Profile {
        value_types: vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")],
        default_value: 1,
        period_type: Some(ValueType::new("cpu", "nanoseconds")),
        period: PERIOD_NS,
        start_unix_ns: MIDNIGHT_NS + number * WINDOW_NS,
        duration_ns: WINDOW_NS,
        mappings,
        functions: functions.into_values(),
        locations: locations.into_values(),
        stacks: stacks.into_values().into_iter().collect(),
        label_sets: label_sets.into_values(),
        samples,
        comments: vec![format!("window {number}")],
    }
}
