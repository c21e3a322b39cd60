//! A process that is killed at a random moment while it writes.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::canonical::canonical;
use super::round_trip::all_of;
use super::spans::{span, trace_id};
use super::synthetic::{Host, Numbers, window};
use super::{MIDNIGHT_NS, TestClock, WINDOW_NS};
use crate::model::Span;
use crate::store::{Options, Retention, SqliteStore, TimeRange, WindowStore};

/// Says to [`the_process_that_is_killed`] where to write.
const FOLDER_VARIABLE: &str = "SPANFLAME_TEST_STORE_TO_BE_KILLED";
const KILLS: u64 = 20;
/// A machine that has other things to do starts few processes before they are killed.
const MOST_KILLS: u64 = 200;
/// Spans of the trace that is written with each window.
const SPANS: u64 = 50;

/// New stacks in each window, and many blocks.
const HOST: Host =
    Host { services: 8, threads_each: 4, samples: 200, functions: 1 << 24, depth: 12, long_names: 0 };

/// Windows are five hours apart, so that midnight comes often and segments are finished and made.
fn time_of(number: u64) -> u64 {
    MIDNIGHT_NS + number * 1800 * WINDOW_NS
}

fn open_at(folder: &Path, number: u64) -> (SqliteStore, TestClock) {
    let clock = TestClock::at(time_of(number));
    // Nothing is to go by itself: what is missing has been lost.
    let retention = Retention { max_age: Duration::from_secs(10 * 365 * 86_400), max_bytes: 4 << 30 };
    (SqliteStore::open(Options { retention, ..clock.options(folder) }).unwrap(), clock)
}

/// The trace of a window's number.
fn spans_of(number: u64) -> Vec<Span> {
    (0..SPANS).map(|at| span(number, number * SPANS + at)).collect()
}

#[test]
#[ignore = "not a test by itself: a_process_that_is_killed_loses_at_most_the_window_at_hand starts and kills it"]
fn the_process_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER_VARIABLE) else { return };
    let (store, clock) = open_at(Path::new(&folder), 0);
    let newest = store.statistics().newest_unix_ns.saturating_sub(MIDNIGHT_NS);
    let first = if newest == 0 { 0 } else { newest / (1800 * WINDOW_NS) + 1 };
    for number in first.. {
        clock.set(time_of(number));
        let start_unix_ns = time_of(number);
        store.write_window(&crate::model::Profile { start_unix_ns, ..window(HOST, number) }).unwrap();
        store.write_spans(&spans_of(number)).unwrap();
        let mut output = std::io::stdout().lock();
        writeln!(output, "\nwritten {number}").and_then(|()| output.flush()).unwrap();
    }
}

#[test]
fn a_process_that_is_killed_loses_at_most_the_window_at_hand() {
    let folder = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(std::process::id().into());
    let mut acknowledged = None;
    // Windows whose writer was killed before their traces came.
    let mut unfinished = HashSet::new();
    // Lives one after another that were too short to write anything, as on a busy machine.
    let mut idle_lives = 0;
    for kill in 0..MOST_KILLS {
        if kill >= KILLS && acknowledged > Some(KILLS) {
            break;
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "store::tests::crash::the_process_that_is_killed"])
            .env(FOLDER_VARIABLE, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        // Some are killed while they open the store, most while they write.
        let delay = Duration::from_micros(numbers.below(400_000 * (1 + idle_lives)));
        let reader = std::thread::spawn(move || {
            let lines = output.lines().map_while(Result::ok);
            lines.filter_map(|line| line.strip_prefix("written ")?.parse::<u64>().ok()).last()
        });
        std::thread::sleep(delay);
        child.kill().unwrap();
        child.wait().unwrap();
        let written = reader.join().unwrap();
        idle_lives = if written.is_some() { 0 } else { (idle_lives + 1).min(8) };
        acknowledged = written.or(acknowledged);

        let (store, _) = open_at(folder.path(), 0);
        let statistics = store.statistics();
        assert_eq!(statistics.set_aside, [], "kill {kill}");
        let least = acknowledged.map_or(0, |last| last + 1);
        assert!((least..=least + 1).contains(&statistics.windows), "{least} acknowledged, {statistics:?}");
        // Traces are whole, or were never there.
        for number in least.saturating_sub(1)..=least {
            let spans = store.trace(trace_id(number)).unwrap().len() as u64;
            if spans == 0 && number == least {
                unfinished.insert(number);
            }
            assert!(
                spans == SPANS || spans == 0 && unfinished.contains(&number),
                "trace {number} of {least}"
            );
        }
        // One more may have been written than was said, its trace or not.
        acknowledged = statistics.windows.checked_sub(1);
    }
    let windows = acknowledged.map_or(0, |last| last + 1);
    assert!(windows > KILLS, "{windows} windows in {KILLS} lives: nothing was tried");
    let (store, _) = open_at(folder.path(), windows);
    for number in 0..windows {
        let written = crate::model::Profile { start_unix_ns: time_of(number), ..window(HOST, number) };
        let answer = store.profile(&all_of(&written, "cpu")).unwrap();
        assert!(canonical(&answer.profile) == canonical(&written), "window {number} of {windows}");
        let spans = store.trace(trace_id(number)).unwrap();
        assert!(spans == spans_of(number) || spans.is_empty() && unfinished.contains(&number), "{number}");
    }
    assert_eq!(store.types(TimeRange::ALL).unwrap().len(), 2);
}
