//! Files: when they begin, go, break, and who may use them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::canonical::canonical;
use super::round_trip::all_of;
use super::synthetic::{Host, SMALL, window};
use super::{MIDNIGHT_NS, SECOND_NS, TestClock, WINDOW_NS, open};
use crate::model::Profile;
use crate::store::segment::blocks::Table;
use crate::store::{
    Detail, ProfileQuery, Retention, Selector, SqliteStore, StoreError, TimeRange, WindowStore,
};

const DAY_NS: u64 = 86_400 * SECOND_NS;

fn everything() -> ProfileQuery {
    ProfileQuery { selector: Selector::of_type("cpu"), range: TimeRange::ALL, detail: Detail::Stacks }
}

/// Bytes of all files of a folder.
fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

fn segments_in(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "db")).collect();
    paths.sort();
    paths
}

#[test]
fn a_week_stays_below_a_limit_that_is_smaller_than_a_day_with_dictionaries_and_logs() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::at(MIDNIGHT_NS);
    let store = SqliteStore::open(clock.options(folder.path())).unwrap();
    // Most stacks are new in each window, so that the dictionary is most of it.
    let host =
        Host { services: 10, threads_each: 4, samples: 80, functions: 1 << 24, depth: 20, long_names: 530 };
    let limit = Retention::LEAST_BYTES;
    let mut first_day_bytes = 0;
    for number in 0..7 * 48 {
        // A window each half an hour has what many have.
        let start_unix_ns = MIDNIGHT_NS + number * 180 * WINDOW_NS;
        clock.set(start_unix_ns + WINDOW_NS);
        store.write_window(&Profile { start_unix_ns, ..window(host, number) }).unwrap();
        let bytes = bytes_in(folder.path());
        assert!(bytes <= limit, "window {number}: {bytes} of {limit} bytes");
        if number == 10 {
            first_day_bytes = bytes / 11 * 48;
        }
    }
    assert!(first_day_bytes > limit, "a day takes {first_day_bytes} bytes, which tries nothing");
    let statistics = store.statistics();
    assert!(statistics.segments_removed_by_size > 7 && statistics.segments_removed_by_age == 0);
    assert!(statistics.bytes > limit / 2, "more was removed than had to be: {statistics:?}");
    assert_eq!(store.profile(&everything()).unwrap().coverage.windows, statistics.windows);
    // The newest are those that are left.
    assert_eq!(statistics.newest_unix_ns, MIDNIGHT_NS + (7 * 48 - 1) * 180 * WINDOW_NS + WINDOW_NS);
}

#[test]
fn segments_end_at_midnight_and_go_when_they_are_too_old() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::at(MIDNIGHT_NS);
    let mut options = clock.options(folder.path());
    options.retention.max_age = Duration::from_secs(72 * 3600);
    options.retention.max_bytes = 1 << 30;
    let store = SqliteStore::open(options).unwrap();
    for hour in 0..7 * 24 {
        let start_unix_ns = MIDNIGHT_NS + hour * 3600 * SECOND_NS;
        clock.set(start_unix_ns);
        store.write_window(&Profile { start_unix_ns, ..window(SMALL, hour) }).unwrap();
        let age_ns = clock.now().saturating_sub(store.statistics().oldest_unix_ns);
        assert!(age_ns <= 3 * DAY_NS + 9 * 3600 * SECOND_NS, "hour {hour}: {age_ns}");
    }
    let statistics = store.statistics();
    assert!(statistics.segments_removed_by_age > 3 && statistics.segments_removed_by_size == 0);
    assert!((9..=11).contains(&statistics.segments), "{statistics:?}");
    for path in segments_in(folder.path()).iter().rev().skip(1) {
        assert!(!path.with_extension("db-wal").exists(), "{}: finished with a log", path.display());
    }
    // Nothing is written any more, and time passes.
    clock.set(clock.now() + 4 * DAY_NS);
    store.enforce_retention().unwrap();
    assert_eq!(store.statistics().windows, 0);
    assert!(segments_in(folder.path()).is_empty());
    store.write_window(&window(SMALL, 1)).unwrap();
    assert_eq!(store.statistics().windows, 1);
}

#[test]
fn a_clock_that_is_set_back_a_day_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::at(MIDNIGHT_NS + DAY_NS);
    let store = SqliteStore::open(clock.options(folder.path())).unwrap();
    let mut windows = Vec::new();
    for (number, start_unix_ns) in
        [MIDNIGHT_NS + DAY_NS, MIDNIGHT_NS, 0, MIDNIGHT_NS + 1].into_iter().enumerate()
    {
        clock.set(start_unix_ns);
        let window = Profile { start_unix_ns, ..window(SMALL, number as u64) };
        store.write_window(&window).unwrap();
        windows.push(window);
    }
    assert_eq!(store.statistics().segments, 1);
    assert_eq!(store.profile(&everything()).unwrap().coverage.windows, 4);
    let answer = store.profile(&all_of(&windows[2], "cpu")).unwrap();
    assert!(canonical(&answer.profile) == canonical(&windows[2]));
}

#[test]
fn a_question_that_is_being_answered_outlives_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for number in 0..3 {
        store.write_window(&window(SMALL, number)).unwrap();
    }
    let path = segments_in(folder.path()).remove(0);
    let reader = crate::store::segment::SegmentReader::open(&path).unwrap();
    crate::store::catalog::remove_files(&path).unwrap();
    reader.tables(&mut None).unwrap();
    let mut windows = 0;
    reader
        .windows(TimeRange::ALL, |_| {
            windows += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(windows, 3);
    let mut blocks = 0;
    reader
        .all_blocks(Table::Windows, 1, 3, |_, _, _| {
            blocks += 1;
            Ok(())
        })
        .unwrap();
    assert!(blocks >= 3);
    // The store has not heard of it: to be without a file is no reason to fail.
    drop(reader);
    assert_eq!(store.profile(&everything()).unwrap().coverage.windows, 0);
}

/// A folder with three segments of two windows each.
fn three_segments(folder: &Path) {
    let clock = TestClock::at(MIDNIGHT_NS);
    let store = SqliteStore::open(clock.options(folder)).unwrap();
    for number in 0..6 {
        let start_unix_ns = MIDNIGHT_NS + number / 2 * DAY_NS + number * WINDOW_NS;
        clock.set(start_unix_ns);
        store.write_window(&Profile { start_unix_ns, ..window(SMALL, number) }).unwrap();
    }
    assert_eq!(segments_in(folder).len(), 3);
}

#[test]
fn a_broken_segment_is_set_aside_and_named_wherever_it_is_broken_and_the_others_answer() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 6] = [
        ("torn off", |path| {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("no database", |path| fs::write(path, vec![b'x'; 100_000]).unwrap()),
        ("somebody else's", |path| {
            fs::remove_file(path).unwrap();
            Connection::open(path).unwrap().execute_batch("CREATE TABLE notes (text)").unwrap();
        }),
        ("dictionary", |path| {
            Connection::open(path).unwrap().execute("UPDATE dictionary SET rows = x'ffff'", []).unwrap();
        }),
        ("blocks", |path| {
            Connection::open(path).unwrap().execute("UPDATE blocks SET samples = x'ffff'", []).unwrap();
        }),
        ("stack of nowhere", |path| {
            let sql = "DELETE FROM dictionary WHERE kind = 10";
            Connection::open(path).unwrap().execute(sql, []).unwrap();
        }),
    ];
    for victim in 0..3 {
        for (what, damage) in damages {
            let folder = tempfile::tempdir().unwrap();
            three_segments(folder.path());
            let path = segments_in(folder.path()).remove(victim);
            damage(&path);
            let clock = TestClock::at(MIDNIGHT_NS + 2 * DAY_NS + 10 * WINDOW_NS);
            let store = SqliteStore::open(clock.options(folder.path())).unwrap();
            // Found when it is opened, when it is asked, or when it is to be written on.
            let answer = store.profile(&everything()).unwrap();
            assert_eq!(answer.coverage.windows, 4, "{what} of {victim}");
            store.write_window(&window(SMALL, 7)).unwrap();
            assert_eq!(store.profile(&everything()).unwrap().coverage.windows, 5, "{what} of {victim}");
            let statistics = store.statistics();
            assert_eq!(statistics.set_aside.len(), 1, "{what} of {victim}");
            assert!(!statistics.set_aside[0].reason.is_empty());
            assert!(statistics.set_aside[0].path.exists());
            drop(store);
            let store = SqliteStore::open(clock.options(folder.path())).unwrap();
            assert_eq!(store.statistics().set_aside.len(), 1, "it is still told of after a restart");
            assert_eq!(store.profile(&everything()).unwrap().coverage.windows, 5);
        }
    }
}

#[test]
fn a_segment_of_a_later_version_is_refused_by_name_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    three_segments(folder.path());
    let path = segments_in(folder.path()).remove(1);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 5).unwrap();
    let before = fs::read(&path).unwrap();
    let error = SqliteStore::open(TestClock::at(MIDNIGHT_NS).options(folder.path())).unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { found: 5, known: 4, .. }));
    assert!(error.to_string().contains("windows-00000002.db"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn one_process_uses_a_folder_and_a_segment_that_was_never_finished_being_made_goes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let again = SqliteStore::open(TestClock::at(MIDNIGHT_NS).options(folder.path()));
    assert!(matches!(again, Err(StoreError::InUse { .. })));
    drop(store);
    fs::write(folder.path().join("windows-00000007.db"), "").unwrap();
    let store = open(folder.path());
    assert!(segments_in(folder.path()).is_empty());
    assert_eq!(store.statistics().set_aside, []);
    store.write_window(&window(SMALL, 0)).unwrap();
    assert!(segments_in(folder.path())[0].ends_with("windows-00000008.db"), "no number is used twice");
}

#[test]
fn retention_can_be_changed_while_the_store_is_open_but_not_to_nonsense() {
    let folder = tempfile::tempdir().unwrap();
    three_segments(folder.path());
    let clock = TestClock::at(MIDNIGHT_NS + 2 * DAY_NS + 5 * WINDOW_NS);
    let store = SqliteStore::open(clock.options(folder.path())).unwrap();
    let nothing = Retention { max_bytes: 0, ..Retention::default() };
    assert!(matches!(store.set_retention(nothing), Err(StoreError::BadOptions { .. })));
    store.enforce_retention().unwrap();
    assert_eq!(store.statistics().segments, 3);
    let a_day = Retention { max_age: Duration::from_secs(30 * 3600), ..Retention::default() };
    store.set_retention(a_day).unwrap();
    store.enforce_retention().unwrap();
    assert_eq!(store.statistics().segments, 2);
    assert_eq!(store.statistics().max_bytes, Retention::default().max_bytes);
}
