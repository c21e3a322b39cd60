//! Profiles for the tests of formats, and a form in which two profiles can be compared whatever the
//! order of their tables.

use std::collections::BTreeMap;

use proptest::prelude::*;
use spanflame::model::{
    Frame, FrameKind, Function, Interner, Label, LabelValue, Location, Mapping, Profile, Sample, ValueType,
};

/// Everything a format may keep of a frame, spelled out.
pub type FrameDetail = (Option<Mapping1>, u64, FrameKind, Vec<(Function1, u32)>);
type Mapping1 = (u64, u64, u64, String, String, [bool; 4]);
type Function1 = (String, String, String, u32);

/// The samples of a profile with all indices followed: stack and labels, and their summed values.
/// Samples whose values are all 0 are left out.
pub fn canonical(profile: &Profile) -> BTreeMap<(Vec<FrameDetail>, Vec<Label>), Vec<i64>> {
    let mut canonical = BTreeMap::new();
    for sample in &profile.samples {
        if sample.values.iter().all(|&value| value == 0) {
            continue;
        }
        let stack = profile.stacks[sample.stack as usize]
            .iter()
            .map(|&location| {
                let location = &profile.locations[location as usize];
                let mapping = location.mapping.map(|mapping| {
                    let m = &profile.mappings[mapping as usize];
                    let flags = [m.has_functions, m.has_filenames, m.has_line_numbers, m.has_inline_frames];
                    (m.start, m.limit, m.file_offset, m.path.clone(), m.build_id.clone(), flags)
                });
                let frames = location
                    .frames
                    .iter()
                    .map(|frame| {
                        let f = &profile.functions[frame.function as usize];
                        ((f.name.clone(), f.system_name.clone(), f.file.clone(), f.start_line), frame.line)
                    })
                    .collect();
                (mapping, location.address, location.kind, frames)
            })
            .collect();
        let labels = profile.label_sets[sample.labels as usize].clone();
        let sums = canonical.entry((stack, labels)).or_insert_with(|| vec![0; sample.values.len()]);
        for (sum, value) in sums.iter_mut().zip(&sample.values) {
            *sum += value;
        }
    }
    canonical
}

/// A profile with one of everything: inlined and kernel frames, JIT code, addresses without a name,
/// an unknown mapping, names that break naive writers, every label.
pub fn one_of_everything() -> Profile {
    let function = |name: &str, system_name: &str, file: &str, start_line| Function {
        name: name.to_owned(),
        system_name: system_name.to_owned(),
        file: file.to_owned(),
        start_line,
    };
    let native = Mapping {
        start: 0x1000,
        limit: 0x9000,
        file_offset: 0x1000,
        path: "/usr/bin/burn".to_owned(),
        build_id: "0123456789abcdef0123456789abcdef01234567".to_owned(),
        has_functions: true,
        has_filenames: true,
        has_line_numbers: true,
        has_inline_frames: true,
    };
    let stripped = Mapping {
        start: 0x2_0000,
        limit: 0x3_0000,
        file_offset: 0x1_f000,
        path: "/opt/not/on/this/machine/libstripped.so.1".to_owned(),
        build_id: "ffee".to_owned(),
        has_functions: true,
        has_inline_frames: true,
        ..Mapping::default()
    };
    let kernel = Mapping {
        start: 0xffff_ffff_8100_0000,
        limit: 0xffff_ffff_8200_0000,
        path: "[kernel.kallsyms]".to_owned(),
        has_functions: true,
        ..Mapping::default()
    };
    let jit = Mapping { path: "[jit]".to_owned(), has_functions: true, ..Mapping::default() };
    let location = |mapping, address, kind, frames: &[(u32, u32)]| Location {
        mapping,
        address,
        kind,
        frames: frames.iter().map(|&(function, line)| Frame { function, line }).collect(),
    };
    let labels = |pid, comm: &str, service: Option<&str>, ids: Option<(&str, &str)>| {
        let mut labels = vec![
            Label::text("comm", comm),
            Label::number("pid", pid),
            Label::text("thread_name", "worker; 1"),
            Label::number("tid", pid + 1),
        ];
        if let Some(service) = service {
            labels.push(Label::text("service", service));
            labels.push(Label::text("container_id", "c0ffee"));
            labels.push(Label::text("unwind", "truncated"));
        }
        if let Some((trace_id, span_id)) = ids {
            labels.push(Label::text("trace_id", trace_id));
            labels.push(Label::text("span_id", span_id));
        }
        labels.sort();
        labels
    };
    Profile {
        value_types: vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")],
        default_value: 1,
        period_type: Some(ValueType::new("cpu", "nanoseconds")),
        period: 10_101_010,
        start_unix_ns: 1_700_000_000_000_000_000,
        duration_ns: 10_000_000_000,
        mappings: vec![native, stripped, kernel, jit],
        functions: vec![
            function("_start", "", "", 0),
            function("main", "", "/src/burn.c", 10),
            function("burn::<[u8; 8]>", "_ZN4burnE", "/src/burn.rs", 20),
            function("inner", "", "/src/burn.rs", 30),
            function("do_syscall_64", "", "", 0),
            function("LazyCompile:~loop /app/x.js 12", "", "", 0),
        ],
        locations: vec![
            location(Some(0), 0x1010, FrameKind::Native, &[(0, 0)]),
            location(Some(0), 0x1100, FrameKind::Native, &[(1, 12)]),
            location(Some(0), 0x1200, FrameKind::Native, &[(3, 31), (2, 25)]),
            location(Some(1), 0x2_0042, FrameKind::Native, &[]),
            location(Some(2), 0xffff_ffff_8100_0042, FrameKind::Kernel, &[(4, 0)]),
            location(Some(2), 0xffff_ffff_8100_1042, FrameKind::Kernel, &[]),
            location(Some(3), 0x7f00_0000_1000, FrameKind::Jit, &[(5, 0)]),
            location(None, 0x7fff_dead_0000, FrameKind::Native, &[]),
        ],
        stacks: [vec![2, 1, 0], vec![4, 3, 1, 0], vec![5, 4, 1, 0], vec![6, 1, 0], vec![7], vec![]].into(),
        label_sets: vec![
            labels(42, "burn", None, None),
            labels(
                43,
                "Web Content",
                Some("shop"),
                Some(("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")),
            ),
            vec![],
        ],
        samples: [(0, 0, 60), (1, 0, 30), (2, 1, 10), (3, 1, 5), (4, 2, 3), (5, 0, 2), (0, 1, 7)]
            .into_iter()
            .map(|(stack, labels, count)| Sample { stack, labels, values: vec![count, count * 10_101_010] })
            .collect(),
        comments: vec!["host: testhost".to_owned(), "lost: 0".to_owned()],
    }
}

fn arbitrary_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z_:<>(),.*&;# 0-9\\[\\]+-]{1,24}",
        "\\PC{1,12}",
        Just("a;b".to_owned()),
        Just("x 12".to_owned()),
        Just("new\nline".to_owned()),
    ]
}

/// A small profile that holds together, with kinds that the mapping's name tells (pprof knows no
/// other way) and labels as recording writes them.
pub fn arbitrary_profile() -> impl Strategy<Value = Profile> {
    let function = (arbitrary_name(), prop::bool::ANY, 0_u32..5000).prop_map(|(name, mangled, line)| {
        let system_name = if mangled { format!("_Z{name}") } else { String::new() };
        let file = if line > 2500 { "/src/a b.c".to_owned() } else { String::new() };
        Function { name, system_name, file, start_line: line }
    });
    let functions = prop::collection::vec(function, 1..6);
    let location = (0_u8..4, 0_u64..1 << 40, prop::collection::vec((0_usize..6, 0_u32..99), 0..4));
    let locations = prop::collection::vec(location, 1..8);
    let stacks = prop::collection::vec(prop::collection::vec(0_usize..8, 0..12), 1..8);
    let labels = (0_i64..3, arbitrary_name(), prop::option::of("[0-9a-f]{32}"));
    let label_sets = prop::collection::vec(labels, 1..4);
    let samples = prop::collection::vec((0_usize..8, 0_usize..4, 0_i64..1000, 0_i64..1 << 40), 0..16);
    (functions, locations, stacks, label_sets, samples, 0_usize..2).prop_map(
        |(functions, locations, stacks, label_sets, samples, default_value)| {
            let mut profile = one_of_everything();
            profile.default_value = default_value;
            profile.functions = functions;
            let of_kind = |kind: u8, address: u64| match kind {
                0 => (Some(0), address, FrameKind::Native),
                1 => (Some(2), address | 0xffff_8000_0000_0000, FrameKind::Kernel),
                2 => (Some(3), address, FrameKind::Jit),
                _ => (None, address, FrameKind::Native),
            };
            profile.locations = locations
                .into_iter()
                .map(|(kind, address, frames)| {
                    let (mapping, address, kind) = of_kind(kind, address);
                    let length = profile.functions.len();
                    let to_frame =
                        |(function, line): (usize, u32)| Frame { function: (function % length) as u32, line };
                    Location { mapping, address, kind, frames: frames.into_iter().map(to_frame).collect() }
                })
                .collect();
            let length = profile.locations.len();
            let mut interned: Interner<Vec<u32>> = Interner::new();
            let stack_ids: Vec<u32> = stacks
                .into_iter()
                .map(|stack| interned.intern(stack.into_iter().map(|l| (l % length) as u32).collect()))
                .collect();
            profile.stacks = interned.into_values().into_iter().collect();
            profile.label_sets = label_sets
                .into_iter()
                .map(|(pid, comm, trace_id)| {
                    let mut labels = vec![Label::text("comm", &comm), Label::number("pid", pid)];
                    if let Some(trace_id) = trace_id {
                        labels.push(Label::text("span_id", &trace_id[..16]));
                        labels.push(Label::text("trace_id", &trace_id));
                    }
                    labels.sort();
                    labels
                })
                .collect();
            let sets = profile.label_sets.len();
            profile.samples = samples
                .into_iter()
                .map(|(stack, labels, count, time)| Sample {
                    stack: stack_ids[stack % stack_ids.len()],
                    labels: (labels % sets) as u32,
                    values: vec![count, time],
                })
                .collect();
            profile
        },
    )
}

/// Text of a label, for assertions.
#[allow(dead_code, reason = "not every test file looks at labels")]
pub fn label<'a>(profile: &'a Profile, sample: &Sample, key: &str) -> Option<&'a LabelValue> {
    let labels = &profile.label_sets[sample.labels as usize];
    labels.iter().find(|label| label.key == key).map(|label| &label.value)
}
