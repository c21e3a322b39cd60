//! Selectors, ranges, time lines and lists, compared with sums over the windows that were written.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::canonical::canonical;
use super::synthetic::{SMALL, window};
use super::{MIDNIGHT_NS, SECOND_NS, TestClock, WINDOW_NS, open};
use crate::model::{GIT_SHA, Label, LabelValue, Profile, Sample};
use crate::store::{
    Detail, ProfileQuery, STRETCH, Selector, SqliteStore, StoreError, TimeRange, WindowStore, WindowValue,
};

const WINDOWS: u64 = 12;

/// Whether a sample is one of those that a selector is to find.
type Wanted = Box<dyn Fn(&Profile, &Sample) -> bool>;

fn filled(folder: &std::path::Path) -> (SqliteStore, Vec<Profile>) {
    let store = open(folder);
    let windows: Vec<_> = (0..WINDOWS).map(|number| window(SMALL, number)).collect();
    for window in &windows {
        store.write_window(window).unwrap();
    }
    (store, windows)
}

fn has(profile: &Profile, sample: &Sample, key: &str, wanted: &str) -> bool {
    let labels = &profile.label_sets[sample.labels as usize];
    labels.iter().any(|label| {
        label.key == key
            && match &label.value {
                LabelValue::Text(text) => text == wanted,
                LabelValue::Number(number) => number.to_string() == wanted,
            }
    })
}

fn sum(windows: &[Profile], wanted: impl Fn(&Profile, &Sample) -> bool) -> i64 {
    let of_window = |window: &Profile| {
        window
            .samples
            .iter()
            .filter(|sample| wanted(window, sample))
            .map(|sample| sample.values[1])
            .sum::<i64>()
    };
    windows.iter().map(of_window).sum()
}

#[test]
fn every_selector_selects_what_its_label_says_at_every_detail() {
    let folder = tempfile::tempdir().unwrap();
    let (store, windows) = filled(folder.path());
    let cpu = || Selector::of_type("cpu");
    let some = |text: &str| Some(text.to_owned());
    let trace = format!("{:032x}", 3);
    let cases: Vec<(Selector, Wanted)> = vec![
        (cpu(), Box::new(|_, _| true)),
        (Selector { service: some("shop-1"), ..cpu() }, Box::new(|p, s| has(p, s, "service", "shop-1"))),
        (Selector { service: some(""), ..cpu() }, Box::new(|p, s| p.label_text(s, "service").is_none())),
        (Selector { pid: Some(1001), ..cpu() }, Box::new(|p, s| has(p, s, "pid", "1001"))),
        (
            Selector { container: some("0123456789ab"), ..cpu() },
            Box::new(|p, s| p.label_text(s, "container_id").is_some()),
        ),
        (
            Selector { thread: some("worker-1"), ..cpu() },
            Box::new(|p, s| has(p, s, "thread_name", "worker-1")),
        ),
        (Selector { thread: some("1002"), ..cpu() }, Box::new(|p, s| has(p, s, "tid", "1002"))),
        (
            Selector { trace_id: some(&trace), service: some("shop-2"), ..cpu() },
            Box::new(move |p, s| has(p, s, "trace_id", &trace) && has(p, s, "service", "shop-2")),
        ),
    ];
    for (selector, wanted) in cases {
        let expected = sum(&windows, wanted);
        assert!(expected > 0, "{selector:?}");
        for detail in [Detail::Stacks, Detail::Series, Detail::Labels] {
            let query = ProfileQuery { selector: selector.clone(), range: TimeRange::ALL, detail };
            let answer = store.profile(&query).unwrap();
            answer.profile.validate().unwrap();
            assert!(answer.matched);
            assert_eq!(answer.coverage.windows, WINDOWS);
            assert_eq!(answer.profile.total(1), expected, "{query:?}");
        }
        let range = TimeRange { from_unix_ns: MIDNIGHT_NS, to_unix_ns: MIDNIGHT_NS + WINDOWS * WINDOW_NS };
        for step_ns in [7 * SECOND_NS, WINDOW_NS, 33 * SECOND_NS] {
            let timeline = store.timeline(&selector, range, step_ns).unwrap();
            assert_eq!(timeline.values.iter().sum::<i64>(), expected, "{selector:?} by {step_ns}");
            assert_eq!(timeline.values.len() as u64, (WINDOWS * WINDOW_NS).div_ceil(step_ns));
            assert_eq!(timeline.value_type.as_ref().unwrap().kind, "cpu");
        }
    }
    let nobody = [
        Selector { service: some("shop-9"), ..cpu() },
        Selector { pid: Some(-1), ..cpu() },
        Selector { container: some("0123456789a"), ..cpu() },
        Selector { thread: some("worker-99"), ..cpu() },
        Selector::of_type("offcpu"),
    ];
    for selector in nobody {
        let query = ProfileQuery { selector, range: TimeRange::ALL, detail: Detail::Labels };
        let answer = store.profile(&query).unwrap();
        answer.profile.validate().unwrap();
        assert!(!answer.matched && answer.profile.samples.is_empty(), "{query:?}");
    }
}

#[test]
fn windows_are_listed_with_what_they_have_and_a_profile_is_told_apart_by_stretches_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let (store, windows) = filled(folder.path());
    for selector in [
        Selector { service: Some("shop-1".to_owned()), ..Selector::of_type("cpu") },
        Selector { pid: Some(1001), ..Selector::of_type("cpu") },
    ] {
        let wanted = |profile: &Profile, sample: &Sample| match selector.pid {
            Some(_) => has(profile, sample, "pid", "1001"),
            None => has(profile, sample, "service", "shop-1"),
        };
        let listed = store.windows(&selector, TimeRange::ALL).unwrap().windows;
        let expected: Vec<WindowValue> = windows
            .iter()
            .map(|window| WindowValue {
                start_unix_ns: window.start_unix_ns,
                duration_ns: window.duration_ns,
                value: sum(std::slice::from_ref(window), wanted),
            })
            .filter(|window| window.value > 0)
            .collect();
        assert!(listed.len() > 5 && listed == expected, "{listed:?}");

        // Four windows, three, and the rest; what begins before the first start is of the first stretch.
        let starts: Vec<u64> = [2, 4, 7].map(|number| windows[number].start_unix_ns).to_vec();
        let detail = Detail::Stretches(starts);
        let query = ProfileQuery { selector: selector.clone(), range: TimeRange::ALL, detail };
        let profile = store.profile(&query).unwrap().profile;
        profile.validate().unwrap();
        for (stretch, of) in [(0, 0..4), (1, 4..7), (2, 7..windows.len())] {
            let number = Label::number(STRETCH, stretch);
            let labelled = |sample: &&Sample| profile.label_sets[sample.labels as usize].contains(&number);
            let told: i64 = profile.samples.iter().filter(labelled).map(|sample| sample.values[1]).sum();
            assert_eq!(told, sum(&windows[of], wanted), "stretch {stretch} of {selector:?}");
        }
    }
}

#[test]
fn stacks_are_told_apart_by_no_more_than_the_detail_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = filled(folder.path());
    let keys = |detail| {
        let selector = Selector::of_type("cpu");
        let profile =
            store.profile(&ProfileQuery { selector, range: TimeRange::ALL, detail }).unwrap().profile;
        let mut keys: Vec<_> = profile.label_sets.iter().flatten().map(|label| label.key.clone()).collect();
        keys.sort();
        keys.dedup();
        (keys, profile.samples.len())
    };
    let (none, stacks) = keys(Detail::Stacks);
    let (series, _) = keys(Detail::Series);
    let (all, samples) = keys(Detail::Labels);
    assert!(none.is_empty() && stacks < samples);
    assert_eq!(series, ["comm", "container_id", "service"]);
    assert_eq!(all.len(), 9, "{all:?}");
    let chosen = |keys: &[&str]| Detail::Keys(keys.iter().map(ToString::to_string).collect());
    assert_eq!(keys(chosen(&[])), (Vec::new(), stacks));
    assert_eq!(keys(chosen(&["nobody", "tid"])).0, ["tid"]);
    assert_eq!(keys(chosen(&["unwind", "comm"])).0, ["comm", "unwind"]);
    assert_eq!(keys(chosen(&["service", "comm", "container_id"])), keys(Detail::Series));
}

#[test]
fn a_store_that_is_asked_after_every_window_answers_as_one_that_is_asked_once() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (asked, silent) = (open(folders[0].path()), open(folders[1].path()));
    let query =
        ProfileQuery { selector: Selector::of_type("cpu"), range: TimeRange::ALL, detail: Detail::Labels };
    for number in 0..WINDOWS {
        let window = window(SMALL, number);
        asked.write_window(&window).unwrap();
        silent.write_window(&window).unwrap();
        let answer = asked.profile(&query).unwrap();
        assert_eq!(answer.coverage.windows, number + 1);
        assert_eq!(
            asked.services(TimeRange::ALL).unwrap().len(),
            silent.services(TimeRange::ALL).unwrap().len()
        );
    }
    assert_eq!(asked.profile(&query).unwrap(), silent.profile(&query).unwrap());
}

#[test]
fn several_segments_answer_as_one_that_has_all_windows() {
    const DAY_NS: u64 = 24 * 3600 * SECOND_NS;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (one, clock) = (open(folders[0].path()), TestClock::at(MIDNIGHT_NS));
    let several = SqliteStore::open(clock.options(folders[1].path())).unwrap();
    for number in 0..WINDOWS {
        let window = window(SMALL, number);
        one.write_window(&window).unwrap();
        clock.set(MIDNIGHT_NS + number / 4 * DAY_NS);
        several.write_window(&window).unwrap();
    }
    assert_eq!((one.statistics().segments, several.statistics().segments), (1, 3));
    let keys = ["comm", "unwind"].map(str::to_owned).to_vec();
    let middle = MIDNIGHT_NS + 5 * WINDOW_NS;
    let details = [
        Detail::Stacks,
        Detail::Series,
        Detail::Keys(keys),
        Detail::Stretches(vec![MIDNIGHT_NS, middle]),
        Detail::Labels,
    ];
    for detail in details {
        for service in [None, Some("shop-1".to_owned())] {
            let selector = Selector { service, ..Selector::of_type("cpu") };
            let query = ProfileQuery { selector, range: TimeRange::ALL, detail: detail.clone() };
            let answers = [&one, &several].map(|store| store.profile(&query).unwrap());
            let [of_one, of_several] = answers.map(|answer| (canonical(&answer.profile), answer.coverage));
            assert!(!of_one.0.samples.is_empty());
            assert_eq!(of_one, of_several, "{query:?}");
            // Each sample is there once, and so is each stack.
            let profile = several.profile(&query).unwrap().profile;
            assert_eq!(profile.samples.len(), of_one.0.samples.len(), "{query:?}");
            assert_eq!(profile.stacks.len(), of_one.0.stacks.len(), "{query:?}");
        }
    }
}

#[test]
fn chosen_labels_have_the_sums_that_all_labels_have() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = filled(folder.path());
    for chosen in [&["comm", "unwind"][..], &["pid"], &["trace_id", "thread_name"]] {
        let sums = |detail| {
            let query = ProfileQuery { selector: Selector::of_type("cpu"), range: TimeRange::ALL, detail };
            let profile = store.profile(&query).unwrap().profile;
            let mut sums = BTreeMap::new();
            for sample in &profile.samples {
                let mut labels = profile.label_sets[sample.labels as usize].clone();
                labels.retain(|label| chosen.contains(&label.key.as_str()));
                let stack = profile.stacks[sample.stack as usize].to_vec();
                let of_stack: &mut i64 = sums.entry((labels, stack)).or_default();
                *of_stack += sample.values[1];
            }
            // Locations are numbered in the order of reading, which the detail changes.
            let mut by_labels: BTreeMap<Vec<Label>, Vec<i64>> = BTreeMap::new();
            for ((labels, _), sum) in sums {
                by_labels.entry(labels).or_default().push(sum);
            }
            by_labels.values_mut().for_each(|sums| sums.sort_unstable());
            by_labels
        };
        let keys = chosen.iter().map(ToString::to_string).collect();
        assert_eq!(sums(Detail::Keys(keys)), sums(Detail::Labels), "{chosen:?}");
    }
}

#[test]
fn ranges_widen_to_whole_windows_and_gaps_and_overlaps_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    // The clock was set back before the third, which overlaps the first; the fourth follows a gap.
    let starts = [100, 110, 95, 200];
    for (number, start) in starts.into_iter().enumerate() {
        let start_unix_ns = MIDNIGHT_NS + start * SECOND_NS;
        store.write_window(&Profile { start_unix_ns, ..window(SMALL, number as u64) }).unwrap();
    }
    let covered = |from: u64, to: u64| {
        let range = TimeRange {
            from_unix_ns: MIDNIGHT_NS + from * SECOND_NS,
            to_unix_ns: MIDNIGHT_NS + to * SECOND_NS,
        };
        let query = ProfileQuery { selector: Selector::of_type("cpu"), range, detail: Detail::Stacks };
        let coverage = store.profile(&query).unwrap().coverage;
        let seconds = |ns: u64| ns.saturating_sub(MIDNIGHT_NS) / SECOND_NS;
        let (from, to) = (seconds(coverage.from_unix_ns), seconds(coverage.to_unix_ns));
        (coverage.windows, from, to, coverage.covered_ns / SECOND_NS)
    };
    assert_eq!(covered(0, 95), (0, 0, 0, 0));
    assert_eq!(covered(0, 96), (1, 95, 105, 10));
    assert_eq!(covered(104, 105), (2, 95, 110, 15));
    assert_eq!(covered(105, 110), (1, 100, 110, 10));
    assert_eq!(covered(119, 201), (2, 110, 210, 20));
    assert_eq!(covered(0, 1000), (4, 95, 210, 35));
    assert_eq!(covered(120, 200), (0, 0, 0, 0));
}

#[test]
fn services_and_types_are_those_of_the_range() {
    let folder = tempfile::tempdir().unwrap();
    let (store, windows) = filled(folder.path());
    let services = store.services(TimeRange::ALL).unwrap();
    let names: Vec<_> = services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["", "shop-1", "shop-2"]);
    let samples: i64 = services.iter().map(|service| service.samples).sum();
    assert_eq!(samples, windows.iter().map(|window| window.total(0)).sum::<i64>());
    assert_eq!(services[1].types.len(), 1);
    let types = store.types(TimeRange::ALL).unwrap();
    let names: Vec<_> = types.iter().map(|of| (of.value_type.kind.as_str(), of.is_default)).collect();
    assert_eq!(names, [("cpu", true), ("samples", false)]);
    let before = TimeRange { from_unix_ns: 0, to_unix_ns: MIDNIGHT_NS };
    assert!(store.services(before).unwrap().is_empty() && store.types(before).unwrap().is_empty());
}

#[test]
fn questions_without_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = filled(folder.path());
    let refused = |selector: Selector| {
        let query = ProfileQuery { selector, range: TimeRange::ALL, detail: Detail::Stacks };
        matches!(store.profile(&query), Err(StoreError::BadQuery { .. }))
    };
    assert!(refused(Selector::default()));
    assert!(refused(Selector { trace_id: Some("12".to_owned()), ..Selector::of_type("cpu") }));
    assert!(refused(Selector { span_id: Some("x".repeat(16)), ..Selector::of_type("cpu") }));
    let selector = Selector::of_type("cpu");
    assert!(matches!(store.timeline(&selector, TimeRange::ALL, 0), Err(StoreError::BadQuery { .. })));
    assert!(matches!(store.timeline(&selector, TimeRange::ALL, 1), Err(StoreError::BadQuery { .. })));
}

#[test]
fn readers_and_the_writer_do_not_wait_for_each_other_and_readers_see_whole_windows() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let done = AtomicBool::new(false);
    let totals: Vec<i64> = (0..60).map(|number| window(SMALL, number).total(1)).collect();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut most = 0;
                    while !done.load(Ordering::Relaxed) {
                        let (selector, range) = (Selector::of_type("cpu"), TimeRange::ALL);
                        let query = ProfileQuery { selector, range, detail: Detail::Labels };
                        let answer = store.profile(&query).unwrap();
                        let windows = answer.coverage.windows as usize;
                        assert!(windows >= most, "a window that was seen has gone");
                        assert_eq!(answer.profile.total(1), totals[..windows].iter().sum::<i64>());
                        most = windows;
                    }
                    most
                })
            })
            .collect();
        for number in 0..60 {
            store.write_window(&window(SMALL, number)).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        assert!(readers.into_iter().any(|reader| reader.join().unwrap() > 0));
    });
}

#[test]
fn a_revision_selects_its_windows_by_its_first_digits_and_each_window_tells_how_much_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let revisions = ["0123456789abcdef", "0123456fffffffff"];
    let windows: Vec<Profile> = (0..WINDOWS)
        .map(|number| {
            let mut window = window(SMALL, number);
            for labels in &mut window.label_sets {
                let is_of_shop = labels.contains(&Label::text("service", "shop-1"));
                // The first windows are of a program that does not tell.
                if let Some(revision) = (number >= 2 && is_of_shop).then(|| revisions[number as usize % 2]) {
                    labels.push(Label::text(GIT_SHA, revision));
                    labels.sort();
                }
            }
            window
        })
        .collect();
    for window in windows.iter().rev() {
        store.write_window(window).unwrap();
    }
    let of = |git_sha: &str| Selector { git_sha: Some(git_sha.to_owned()), ..Selector::of_type("cpu") };
    for (asked, found) in [
        ("0123456789abcdef", &revisions[..1]),
        ("01234567", &revisions[..1]),
        ("0123456", &revisions[..]),
        // Too short to stand for more than itself.
        ("012345", &[]),
        ("123456789abcdef", &[]),
    ] {
        let wanted = |profile: &Profile, sample: &Sample| {
            profile.label_text(sample, GIT_SHA).is_some_and(|revision| found.contains(&revision))
        };
        let expected: Vec<(u64, u64, i64)> = windows
            .iter()
            .map(|window| {
                (window.start_unix_ns, window.duration_ns, sum(std::slice::from_ref(window), wanted))
            })
            .filter(|(_, _, value)| *value > 0)
            .collect();
        assert_eq!(expected.is_empty(), found.is_empty(), "{asked}");
        let told = store.windows(&of(asked), TimeRange::ALL).unwrap();
        let listed: Vec<_> = told
            .windows
            .iter()
            .map(|window| (window.start_unix_ns, window.duration_ns, window.value))
            .collect();
        assert_eq!(listed, expected, "{asked}");
        assert_eq!((told.matched, told.coverage.windows), (!found.is_empty(), WINDOWS), "{asked}");
        let query = ProfileQuery { selector: of(asked), range: TimeRange::ALL, detail: Detail::Stacks };
        let answer = store.profile(&query).unwrap();
        assert_eq!(answer.matched, !found.is_empty());
        assert_eq!(
            answer.profile.total(1),
            expected.iter().map(|(_, _, value)| value).sum::<i64>(),
            "{asked}"
        );
    }
    // Whatever selects, the windows add up to the profile, and only those in the range are told of.
    let shop = Selector { service: Some("shop-2".to_owned()), ..Selector::of_type("cpu") };
    let range = TimeRange { from_unix_ns: MIDNIGHT_NS + WINDOW_NS, to_unix_ns: MIDNIGHT_NS + 4 * WINDOW_NS };
    let told = store.windows(&shop, range).unwrap();
    let starts: Vec<u64> = told.windows.iter().map(|window| window.start_unix_ns).collect();
    assert_eq!(starts, (1..4).map(|number| MIDNIGHT_NS + number * WINDOW_NS).collect::<Vec<_>>());
    let expected = sum(&windows[1..4], |profile, sample| has(profile, sample, "service", "shop-2"));
    assert_eq!(told.windows.iter().map(|window| window.value).sum::<i64>(), expected);
    assert_eq!(told.value_type.unwrap().unit, "nanoseconds");
}

/// Sums of a profile by labels and frames, whatever the order of its tables.
fn sums(profile: &Profile) -> BTreeMap<String, Vec<i64>> {
    let mut sums = BTreeMap::new();
    for sample in &profile.samples {
        let frames = profile.stacks[sample.stack as usize].iter().map(|&location| {
            let location = &profile.locations[location as usize];
            let names = location.frames.iter().map(|frame| &profile.functions[frame.function as usize].name);
            (location.address, names.collect::<Vec<_>>())
        });
        let labels = &profile.label_sets[sample.labels as usize];
        let key = format!("{labels:?} {:?}", frames.collect::<Vec<_>>());
        let known: &mut Vec<i64> = sums.entry(key).or_insert_with(|| vec![0; sample.values.len()]);
        known.iter_mut().zip(&sample.values).for_each(|(sum, value)| *sum += value);
    }
    sums
}

#[test]
fn so_many_windows_that_several_threads_add_them_up_have_the_sums_of_their_parts() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    // Three series, and 2,000 blocks are what makes it worth it.
    let windows = 800;
    for number in 0..windows {
        store.write_window(&window(SMALL, number)).unwrap();
    }
    let thread = Selector { thread: Some("worker-1".to_owned()), ..Selector::of_type("cpu") };
    let keys = Detail::Keys(vec!["comm".to_owned(), "unwind".to_owned()]);
    for (selector, detail) in [
        (Selector::of_type("cpu"), Detail::Stacks),
        (Selector::of_type("cpu"), Detail::Labels),
        (Selector::of_type("cpu"), keys),
        (thread, Detail::Series),
    ] {
        let ask = |from: u64, to: u64| {
            let at = |number| MIDNIGHT_NS + number * WINDOW_NS;
            let range = TimeRange { from_unix_ns: at(from), to_unix_ns: at(to) };
            let query = ProfileQuery { selector: selector.clone(), range, detail: detail.clone() };
            store.profile(&query).unwrap()
        };
        let whole = ask(0, windows);
        assert!(whole.matched);
        assert_eq!(whole.coverage.windows, windows);
        let mut parts: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for from in (0..windows).step_by(200) {
            for (key, values) in sums(&ask(from, from + 200).profile) {
                let known = parts.entry(key).or_insert_with(|| vec![0; values.len()]);
                known.iter_mut().zip(&values).for_each(|(sum, value)| *sum += value);
            }
        }
        assert!(sums(&whole.profile) == parts, "{detail:?}");
        assert_eq!(whole.profile.samples.len(), parts.len(), "{detail:?}: equal ones are one");
    }

    // What is broken is found on whichever thread it comes to.
    drop(store);
    let path = folder.path().join("windows-00000001.db");
    let sql = "UPDATE blocks SET samples = x'000200ff' WHERE id = (SELECT max(id) FROM blocks)";
    rusqlite::Connection::open(path).unwrap().execute(sql, []).unwrap();
    let store = open(folder.path());
    let range = TimeRange::ALL;
    let query = ProfileQuery { selector: Selector::of_type("cpu"), range, detail: Detail::Stacks };
    assert_eq!(store.profile(&query).unwrap().coverage.windows, 0);
    assert_eq!(store.statistics().set_aside.len(), 1);
}
