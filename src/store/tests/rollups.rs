//! Rollups answer what the windows that they stand for would, and only where there is nothing else to be told.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::canonical::canonical;
use super::synthetic::{Host, SMALL, window};
use super::{MIDNIGHT_NS, SECOND_NS, TestClock, open};
use crate::model::Profile;
use crate::store::rollup::STRETCH_NS;
use crate::store::{Detail, ProfileQuery, Selector, SqliteStore, TimeRange, WindowStore};

/// Windows are 200 s apart: 54 in a stretch.
const STEP: u64 = 20;
const IN_STRETCH: u64 = STRETCH_NS / (STEP * 10 * SECOND_NS);
/// Three stretches and a half.
const WINDOWS: u64 = IN_STRETCH * 7 / 2;
/// One service of more stacks than come twice: it is not worth a rollup.
const WIDE: Host = Host { services: 1, threads_each: 1, functions: 1 << 20, ..SMALL };

fn first_file(folder: &Path) -> PathBuf {
    folder.join("windows-00000001.db")
}

fn count(file: &Path, sql: &str) -> i64 {
    Connection::open(file).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

fn rollups(file: &Path) -> i64 {
    count(file, "SELECT count(*) FROM rollups")
}

fn write(store: &SqliteStore, numbers: std::ops::Range<u64>) {
    for number in numbers {
        store.write_window(&window(SMALL, number * STEP)).unwrap();
    }
}

fn ask(store: &SqliteStore, selector: &Selector, range: TimeRange, detail: Detail) -> Profile {
    let query = ProfileQuery { selector: selector.clone(), range, detail };
    let answer = store.profile(&query).unwrap();
    assert!(answer.matched, "{query:?}");
    answer.profile
}

/// What is asked at every detail that rollups have is what the windows themselves say, with labels left out.
fn assert_windows_say_the_same(store: &SqliteStore, ranges: &[TimeRange]) {
    let all = Selector::of_type("cpu");
    let of_service = Selector { service: Some("shop-1".to_owned()), ..all.clone() };
    let container = Selector { container: Some("0123456789ab".to_owned()), ..all.clone() };
    let keys = |keys: &[&str]| Detail::Keys(keys.iter().map(|key| (*key).to_owned()).collect());
    let cases = [
        (Detail::Stacks, &[][..]),
        (Detail::Series, &["service", "container_id", "comm"][..]),
        (keys(&["comm", "unwind"]), &["comm", "unwind"][..]),
        (keys(&["comm", "thread_name"]), &["comm", "thread_name"][..]),
    ];
    for selector in [&all, &of_service, &container] {
        for &range in ranges {
            let by_window = ask(store, selector, range, Detail::Labels);
            for (detail, kept) in &cases {
                let mut expected = by_window.clone();
                for labels in &mut expected.label_sets {
                    labels.retain(|label| kept.contains(&label.key.as_str()));
                }
                let found = ask(store, selector, range, detail.clone());
                assert_eq!(
                    canonical(&found),
                    canonical(&expected),
                    "{detail:?} of {selector:?} in {range:?}"
                );
            }
        }
    }
}

fn ranges() -> Vec<TimeRange> {
    let at = |windows: u64| MIDNIGHT_NS + windows * STEP * 10 * SECOND_NS;
    let between = |from, to| TimeRange { from_unix_ns: at(from), to_unix_ns: at(to) };
    vec![
        TimeRange::ALL,
        between(0, IN_STRETCH),
        between(IN_STRETCH, 2 * IN_STRETCH),
        between(1, WINDOWS),
        between(IN_STRETCH - 1, 2 * IN_STRETCH + 1),
        // A stretch but for a nanosecond at either end, and one more.
        TimeRange { from_unix_ns: at(0) + 1, to_unix_ns: at(IN_STRETCH) },
        TimeRange { from_unix_ns: at(0), to_unix_ns: at(IN_STRETCH) - 1 },
        TimeRange { from_unix_ns: at(0), to_unix_ns: at(IN_STRETCH) + 1 },
    ]
}

#[test]
fn questions_are_answered_alike_whether_windows_are_added_up_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    write(&store, 0..WINDOWS);
    assert_eq!(rollups(&first_file(folder.path())), 3);
    assert_windows_say_the_same(&store, &ranges());
}

#[test]
fn a_question_without_threads_reads_what_is_added_up_in_place_of_the_windows() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    write(&store, 0..WINDOWS);
    let all = Selector::of_type("cpu");
    let before = ask(&store, &all, TimeRange::ALL, Detail::Series);
    drop(store);
    let file = first_file(folder.path());
    let last_window = count(&file, "SELECT max(last_window) FROM rollups");
    let damage = format!("UPDATE blocks SET samples = x'00ff' WHERE id < ({last_window} + 1) << 24");
    Connection::open(&file).unwrap().execute_batch(&damage).unwrap();
    let store = open(folder.path());
    let after = ask(&store, &all, TimeRange::ALL, Detail::Series);
    assert_eq!(canonical(&before), canonical(&after));
    // By thread they are needed.
    let query = ProfileQuery { selector: all, range: TimeRange::ALL, detail: Detail::Labels };
    assert!(store.profile(&query).unwrap().profile.samples.is_empty());
    assert_eq!(store.statistics().set_aside.len(), 1);
}

#[test]
fn a_window_that_comes_late_counts_beside_what_is_added_up() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    write(&store, 0..IN_STRETCH + 2);
    assert_eq!(rollups(&first_file(folder.path())), 1);
    store.write_window(&window(SMALL, 7)).unwrap();
    store.write_window(&window(SMALL, 8)).unwrap();
    write(&store, IN_STRETCH + 2..2 * IN_STRETCH + 1);
    assert_eq!(rollups(&first_file(folder.path())), 2, "a stretch is added up once");
    let all = Selector::of_type("cpu");
    let total = ask(&store, &all, TimeRange::ALL, Detail::Stacks).total(1);
    let numbers = (0..2 * IN_STRETCH + 1).map(|number| number * STEP).chain([7, 8]);
    assert_eq!(total, numbers.map(|number| window(SMALL, number).total(1)).sum::<i64>());
    assert_windows_say_the_same(&store, &ranges()[..2]);
}

#[test]
fn a_stretch_in_which_the_store_was_opened_again_is_added_up_whole_and_the_last_of_a_segment_too() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::at(MIDNIGHT_NS);
    let open = || SqliteStore::open(clock.options(folder.path())).unwrap();
    let store = open();
    write(&store, 0..10);
    drop(store);
    let store = open();
    write(&store, 10..2 * IN_STRETCH);
    let file = first_file(folder.path());
    assert_eq!(rollups(&file), 1);
    assert_windows_say_the_same(&store, &ranges()[..2]);
    // The next day has a file of its own.
    clock.set(MIDNIGHT_NS + 24 * 3600 * SECOND_NS);
    write(&store, 2 * IN_STRETCH..2 * IN_STRETCH + 1);
    assert_eq!(store.statistics().segments, 2);
    assert_eq!(rollups(&file), 2);
    drop(store);
    let store = open();
    assert_windows_say_the_same(&store, &ranges()[..2]);
}

#[test]
fn a_series_of_which_nothing_comes_again_is_read_by_window_beside_others_that_are_added_up() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for number in 0..WINDOWS {
        store.write_window(&window(SMALL, number * STEP)).unwrap();
        store.write_window(&window(WIDE, number * STEP)).unwrap();
    }
    let file = first_file(folder.path());
    assert_eq!(rollups(&file), 3);
    let series = count(&file, "SELECT min(length(series)) FROM rollups");
    assert!((1..6).contains(&series), "{series}");
    assert_windows_say_the_same(&store, &ranges()[..4]);
}

#[test]
fn a_segment_without_these_tables_is_read_and_gets_them_when_it_is_written_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    write(&store, 0..IN_STRETCH + 1);
    let all = Selector::of_type("cpu");
    let before = ask(&store, &all, TimeRange::ALL, Detail::Stacks);
    drop(store);
    let file = first_file(folder.path());
    Connection::open(&file).unwrap().execute_batch("DROP TABLE rollups; DROP TABLE rollup_blocks").unwrap();
    let store = open(folder.path());
    assert_eq!(canonical(&ask(&store, &all, TimeRange::ALL, Detail::Stacks)), canonical(&before));
    write(&store, IN_STRETCH + 1..2 * IN_STRETCH + 1);
    assert_eq!(rollups(&file), 1, "of the stretch that ended since");
    assert_windows_say_the_same(&store, &ranges()[..3]);
}

#[test]
fn a_damaged_rollup_is_found_and_never_panics() {
    let place = |damage: &str| {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        write(&store, 0..IN_STRETCH + 1);
        drop(store);
        Connection::open(first_file(folder.path())).unwrap().execute_batch(damage).unwrap();
        let store = open(folder.path());
        let query = ProfileQuery {
            selector: Selector::of_type("cpu"),
            range: TimeRange::ALL,
            detail: Detail::Stacks,
        };
        store.profile(&query).unwrap();
        store.statistics().set_aside.len()
    };
    assert_eq!(place("UPDATE rollup_blocks SET samples = x'ffff'"), 1);
    assert_eq!(place("DELETE FROM rollup_blocks"), 1);
    assert_eq!(place("UPDATE rollups SET series = x'ffffffffff'"), 1);
    assert_eq!(place("SELECT 1"), 0);
}
