//! What goes in comes out.

use super::canonical::canonical;
use super::synthetic::{SMALL, window};
use super::{MIDNIGHT_NS, WINDOW_NS, open};
use crate::export::{self, Format};
use crate::model::{Frame, FrameKind, Function, Label, Location, Mapping, Profile, Sample, ValueType};
use crate::store::{Detail, ProfileQuery, Selector, StoreError, TimeRange, WindowStore};

pub(super) fn all_of(window: &Profile, profile_type: &str) -> ProfileQuery {
    let to_unix_ns = window.start_unix_ns + window.duration_ns.max(1);
    ProfileQuery {
        selector: Selector::of_type(profile_type),
        range: TimeRange { from_unix_ns: window.start_unix_ns, to_unix_ns },
        detail: Detail::Labels,
    }
}

fn exported(profile: &Profile, format: Format) -> Vec<u8> {
    let mut bytes = Vec::new();
    export::write(profile, format, &mut bytes, &export::Options::default()).unwrap();
    bytes
}

#[test]
fn each_window_comes_back_as_it_was_also_after_a_restart_and_among_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let windows: Vec<_> = (0..6).map(|number| window(SMALL, number)).collect();
    for window in &windows[..3] {
        store.write_window(window).unwrap();
    }
    drop(store);
    let store = open(folder.path());
    for window in &windows[3..] {
        store.write_window(window).unwrap();
    }
    assert_eq!(store.statistics().segments, 1, "a restart goes on with the same file");
    for window in &windows {
        let answer = store.profile(&all_of(window, "cpu")).unwrap();
        assert!(answer.matched);
        assert_eq!((answer.coverage.windows, answer.coverage.covered_ns), (1, WINDOW_NS));
        let (written, read) = (canonical(window), canonical(&answer.profile));
        assert_eq!(written, read);
        for format in [Format::Pprof, Format::Otlp, Format::Folded] {
            assert!(exported(&written, format) == exported(&read, format), "{format:?}");
        }
    }
}

/// A heap profile as Go writes it, with everything that is unusual.
fn heap() -> Profile {
    let mapping = |start, path: &str| Mapping {
        start,
        limit: start + 0x1000,
        path: path.to_owned(),
        ..Mapping::default()
    };
    let function = |name: &str| Function { name: name.to_owned(), ..Function::default() };
    let location = |mapping, address| Location {
        mapping,
        address,
        kind: FrameKind::Native,
        frames: vec![Frame { function: 0, line: u32::MAX }, Frame { function: 1, line: 0 }],
    };
    let kinds = ["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"];
    let unit = |kind: &str| if kind.ends_with("space") { "bytes" } else { "count" };
    let number = |key, value| Label::number(key, value);
    let mut strange = vec![
        Label::text("pid", "not a number"),
        number("pid", -4),
        number("tid", 0),
        Label::text("service", "first"),
        Label::text("service", "second"),
        Label::text("trace_id", "too short"),
        Label::text("", ""),
        number("bytes", i64::MIN),
    ];
    strange.sort();
    Profile {
        value_types: kinds.iter().map(|kind| ValueType::new(kind, unit(kind))).collect(),
        default_value: 3,
        period_type: Some(ValueType::new("space", "bytes")),
        period: 524_288,
        start_unix_ns: MIDNIGHT_NS - 1,
        duration_ns: 0,
        mappings: vec![
            mapping(0x40_0000, "/app"),
            mapping(0x80_0000, "/app"),
            mapping(5, "[vdso]"),
            mapping(9, "[vdso]"),
        ],
        functions: vec![function("a"), function("")],
        locations: vec![
            location(Some(0), 0x40_0001),
            location(Some(1), u64::MAX),
            location(Some(2), 6),
            location(Some(3), 10),
            location(None, 0),
        ],
        stacks: [vec![0, 1, 2, 3, 4], vec![], vec![4, 4, 4, 4], vec![4]].into(),
        label_sets: vec![vec![], strange],
        samples: vec![
            Sample { stack: 0, labels: 0, values: vec![1, -2, i64::MAX, i64::MIN] },
            Sample { stack: 1, labels: 1, values: vec![0, 0, 0, 0] },
            Sample { stack: 2, labels: 1, values: vec![0, 3, 0, 5] },
            Sample { stack: 3, labels: 0, values: vec![7, 0, 0, 0] },
        ],
        comments: vec![],
    }
}

#[test]
fn values_labels_and_mappings_of_every_kind_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.write_window(&heap()).unwrap();
    store.write_window(&window(SMALL, 0)).unwrap();
    let answer = store.profile(&all_of(&heap(), "inuse_space")).unwrap();
    assert_eq!(canonical(&answer.profile), canonical(&heap()));
    let answer = store.profile(&all_of(&heap(), "alloc_space/bytes")).unwrap();
    assert_eq!(answer.profile.default_value, 1);
    let answer = store.profile(&all_of(&heap(), "alloc_space/count")).unwrap();
    assert!(!answer.matched);
}

#[test]
fn a_window_that_contradicts_itself_or_ends_beyond_all_time_is_refused_and_the_next_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut dangling = window(SMALL, 0);
    dangling.samples[0].stack = u32::MAX;
    assert!(matches!(store.write_window(&dangling), Err(StoreError::InvalidWindow(_))));
    for (start_unix_ns, duration_ns) in [(u64::MAX, 0), (0, u64::MAX), (i64::MAX as u64, 1)] {
        let late = Profile { start_unix_ns, duration_ns, ..window(SMALL, 0) };
        assert!(matches!(store.write_window(&late), Err(StoreError::RefusedWindow { .. })));
    }
    // As many bytes as a thirty-second part of the limit allows for, and more.
    let large = Profile { comments: vec!["x".repeat(2 << 20)], ..window(SMALL, 0) };
    assert!(matches!(store.write_window(&large), Err(StoreError::RefusedWindow { .. })));
    store.write_window(&window(SMALL, 1)).unwrap();
    let statistics = store.statistics();
    assert_eq!((statistics.windows, statistics.windows_written), (1, 1));
    let answer = store.profile(&all_of(&window(SMALL, 1), "cpu")).unwrap();
    assert_eq!(canonical(&answer.profile), canonical(&window(SMALL, 1)));
}
