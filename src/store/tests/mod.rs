//! Tests of the store as a whole.

mod canonical;
mod crash;
mod earlier_versions;
mod full_disk;
mod queries;
mod rollups;
mod round_trip;
pub(in crate::store) mod spans;
mod synthetic;
mod upkeep;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Options, Retention, SqliteStore};

/// 2026-11-21 00:00 UTC.
const MIDNIGHT_NS: u64 = 1_795_219_200_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;
const WINDOW_NS: u64 = 10 * SECOND_NS;

/// A clock that tests set.
#[derive(Clone)]
struct TestClock(Arc<AtomicU64>);

impl TestClock {
    fn at(ns: u64) -> Self {
        Self(Arc::new(AtomicU64::new(ns)))
    }

    fn set(&self, ns: u64) {
        self.0.store(ns, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn options(&self, folder: &std::path::Path) -> Options {
        let clock = self.0.clone();
        Options {
            clock: Arc::new(move || clock.load(Ordering::Relaxed)),
            retention: Retention {
                max_age: Duration::from_secs(24 * 14 * 3600),
                max_bytes: Retention::LEAST_BYTES,
            },
            ..Options::new(folder)
        }
    }
}

fn open(folder: &std::path::Path) -> SqliteStore {
    SqliteStore::open(TestClock::at(MIDNIGHT_NS).options(folder)).unwrap()
}
