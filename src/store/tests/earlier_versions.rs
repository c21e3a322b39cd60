//! Segments that earlier versions of this program wrote.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::canonical::canonical;
use super::open;
use super::round_trip::all_of;
use super::spans::{span, trace_id};
use super::synthetic::{SMALL, window};
use crate::store::{Detail, ProfileQuery, Selector, TimeRange, WindowStore};

/// The file of version 3 that `window(SMALL, 0..4)` and three spans of a trace gave when it was the latest.
const VERSION_3: &[u8] = include_bytes!("segment_v3.db.gz");
const WINDOWS: u64 = 4;

fn segment_of_version_3(folder: &Path) -> PathBuf {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(VERSION_3).read_to_end(&mut bytes).unwrap();
    let path = folder.join("windows-00000001.db");
    fs::write(&path, bytes).unwrap();
    path
}

fn version_of(path: &Path) -> i64 {
    Connection::open(path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

fn everything(detail: Detail) -> ProfileQuery {
    ProfileQuery { selector: Selector::of_type("cpu"), range: TimeRange::ALL, detail }
}

#[test]
fn a_segment_of_version_3_says_what_it_said_and_what_comes_goes_into_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = segment_of_version_3(folder.path());
    let store = open(folder.path());
    for number in 0..WINDOWS {
        let written = window(SMALL, number);
        let answer = store.profile(&all_of(&written, "cpu")).unwrap();
        assert_eq!(canonical(&answer.profile), canonical(&written), "window {number}");
    }
    let spans: Vec<_> = (1..4).map(|at| span(1, at)).collect();
    assert_eq!(store.trace(trace_id(1)).unwrap(), spans);

    // The same windows written by this version are the same, whichever way they are asked for.
    let other_folder = tempfile::tempdir().unwrap();
    let other = open(other_folder.path());
    for number in 0..WINDOWS {
        other.write_window(&window(SMALL, number)).unwrap();
    }
    let by_thread = Selector { thread: Some("worker-1".to_owned()), ..Selector::of_type("cpu") };
    for selector in [Selector::of_type("cpu"), Selector::of_type("samples"), by_thread] {
        assert_eq!(
            store.windows(&selector, TimeRange::ALL).unwrap(),
            other.windows(&selector, TimeRange::ALL).unwrap()
        );
        for detail in [Detail::Stacks, Detail::Series, Detail::Keys(vec!["comm".to_owned()]), Detail::Labels]
        {
            let query = ProfileQuery { selector: selector.clone(), range: TimeRange::ALL, detail };
            let (answer, same) = (store.profile(&query).unwrap(), other.profile(&query).unwrap());
            assert!(answer.matched && !answer.profile.samples.is_empty(), "{query:?}");
            assert!(canonical(&answer.profile) == canonical(&same.profile), "{query:?}");
        }
    }
    assert_eq!(store.services(TimeRange::ALL).unwrap(), other.services(TimeRange::ALL).unwrap());

    let before = fs::read(&path).unwrap();
    store.write_window(&window(SMALL, WINDOWS)).unwrap();
    assert_eq!(store.statistics().segments, 2);
    let answer = store.profile(&everything(Detail::Stacks)).unwrap();
    assert_eq!(answer.coverage.windows, WINDOWS + 1);
    other.write_window(&window(SMALL, WINDOWS)).unwrap();
    let same = other.profile(&everything(Detail::Stacks)).unwrap();
    assert_eq!(canonical(&answer.profile), canonical(&same.profile), "of both versions together");
    drop(store);
    let store = open(folder.path());
    assert_eq!((store.statistics().segments, store.statistics().windows), (2, WINDOWS + 1));
    drop(store);
    assert_eq!(version_of(&path), 3);
    assert!(fs::read(&path).unwrap() == before, "it was written on");
    assert_eq!(version_of(&folder.path().join("windows-00000002.db")), 4);
}

#[test]
fn a_segment_of_version_1_is_read_and_spans_go_into_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = segment_of_version_3(folder.path());
    let connection = Connection::open(&path).unwrap();
    for table in ["span_extent", "span_texts", "span_keys", "span_rows", "span_details"] {
        connection.execute_batch(&format!("DROP TABLE {table}")).unwrap();
    }
    connection.pragma_update(None, "user_version", 1).unwrap();
    drop(connection);
    let store = open(folder.path());
    assert_eq!(store.trace(trace_id(1)).unwrap(), []);
    assert_eq!(store.types(TimeRange::ALL).unwrap().len(), 2);
    store.write_spans(&[span(1, 1)]).unwrap();
    assert_eq!(store.statistics().segments, 2);
    assert_eq!(store.trace(trace_id(1)).unwrap(), [span(1, 1)]);
    let timeline = store.timeline(&Selector::of_type("cpu"), TimeRange::ALL, u64::MAX).unwrap();
    assert_eq!(timeline.coverage.windows, WINDOWS);
    drop(store);
    assert_eq!(version_of(&path), 1);
}

#[test]
fn a_damaged_segment_of_version_3_is_set_aside_or_answers_and_never_panics() {
    let place = |damage: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = segment_of_version_3(folder.path());
        Connection::open(&path).unwrap().execute_batch(damage).unwrap();
        let store = open(folder.path());
        let answer = store.profile(&everything(Detail::Labels)).unwrap();
        (store.statistics().set_aside.len(), answer.coverage.windows)
    };
    assert_eq!(place("UPDATE blocks SET samples = x'ffff'"), (1, 0));
    assert_eq!(place("UPDATE blocks SET samples = substr(samples, 1, length(samples) - 1)"), (1, 0));
    assert_eq!(place("DELETE FROM blocks WHERE id = (SELECT max(id) FROM blocks)"), (1, 0));
    assert_eq!(place("DELETE FROM dictionary WHERE kind = 5"), (1, 0));
}
