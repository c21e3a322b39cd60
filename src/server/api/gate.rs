//! How many queries run at once: one for each processor, the others wait in line, and beyond that line
//! they are told to come again. A query whose client has gone stops at its next step.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::metrics::memory;
use crate::server::ApiError;

/// Queries that may wait for each one that may run.
const WAITING_EACH: usize = 16;
/// An answer about the present may be so old.
const CAUGHT_UP_FOR: Duration = Duration::from_secs(1);
/// When one that found no place may come again.
const RETRY_AFTER_S: u64 = 2;

/// See the module.
#[derive(Debug)]
pub struct QueryGate {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    most_waiting: usize,
    caught_up: Mutex<Option<Instant>>,
}

impl Default for QueryGate {
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(2, |cpus| cpus.get().clamp(2, 8)))
    }
}

/// Whether the client of a query has gone.
#[derive(Debug, Clone, Default)]
pub struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    /// Whether it has.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error if it has: to be returned, and read by nobody.
    ///
    /// # Errors
    /// If the client has gone.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.is_set() { Err(ApiError::unavailable("the client has gone", RETRY_AFTER_S)) } else { Ok(()) }
    }

    /// Sets it when this is dropped.
    #[must_use]
    pub fn on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(Arc::clone(&self.0))
    }
}

/// See [`Cancelled::on_drop`]: what a handler holds while it waits.
#[derive(Debug)]
pub struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Counts somebody who waits, for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl QueryGate {
    /// A gate of so many places.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            waiting: AtomicUsize::new(0),
            most_waiting: places * WAITING_EACH,
            caught_up: Mutex::new(None),
        }
    }

    /// Calls `catch_up` unless it was called a moment ago. A page asks for several things at once; were the
    /// open window cut for each of them, windows would be many and small. Those that ask meanwhile wait. Blocks.
    pub fn catch_up(&self, catch_up: impl FnOnce()) {
        let asked = Instant::now();
        let mut caught_up = self.caught_up.lock().unwrap_or_else(PoisonError::into_inner);
        // Also one that began while this one waited: with a slow disk they would else go one after the other.
        if caught_up.is_some_and(|at| at + CAUGHT_UP_FOR > asked) {
            return;
        }
        let now = Instant::now();
        catch_up();
        *caught_up = Some(now);
    }

    /// Runs `work` on a thread that may block, once there is a place.
    ///
    /// # Errors
    /// What `work` returns; 503 if too many wait already.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cancelled) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let place = {
            let before = self.waiting.fetch_add(1, Ordering::Relaxed);
            let _waiting = Waiting(&self.waiting);
            if before >= self.most_waiting {
                let message = format!("{before} queries are waiting already");
                return Err(ApiError::unavailable(message, RETRY_AFTER_S));
            }
            let place = Arc::clone(&self.places).acquire_owned().await;
            place.map_err(|_| ApiError::unavailable("the server ends", RETRY_AFTER_S))?
        };
        let cancelled = Cancelled::default();
        let _on_drop = cancelled.on_drop();
        let worked = tokio::task::spawn_blocking(move || {
            let result = cancelled.check().and_then(|()| work(&cancelled));
            memory::give_back();
            drop(place);
            result
        });
        worked.await.map_err(|error| ApiError::internal("a query has failed", &error))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_caught_up_with_a_moment_ago_is_not_caught_up_with_again() {
        let gate = QueryGate::new(1);
        let mut calls = 0;
        for _ in 0..3 {
            gate.catch_up(|| calls += 1);
        }
        assert_eq!(calls, 1);
        *gate.caught_up.lock().unwrap() = Instant::now().checked_sub(CAUGHT_UP_FOR);
        gate.catch_up(|| calls += 1);
        assert_eq!(calls, 2);
    }

    #[tokio::test]
    async fn queries_wait_in_a_line_of_bounded_length() {
        let gate = Arc::new(QueryGate::new(1));
        let (release, released) = std::sync::mpsc::channel::<()>();
        let running = Arc::clone(&gate);
        let first = tokio::spawn(async move {
            running
                .run(move |_| {
                    let _ = released.recv();
                    Ok(1)
                })
                .await
        });
        while gate.places.available_permits() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut line = Vec::new();
        for number in 0..WAITING_EACH {
            let gate = Arc::clone(&gate);
            line.push(tokio::spawn(async move { gate.run(move |_| Ok(number)).await }));
        }
        while gate.waiting.load(Ordering::Relaxed) < WAITING_EACH {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let refused = gate.run(|_| Ok(0)).await.unwrap_err();
        assert_eq!(refused.status(), 503);
        // One that goes away makes room.
        line.pop().unwrap().abort();
        while gate.waiting.load(Ordering::Relaxed) == WAITING_EACH {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        release.send(()).unwrap();
        assert_eq!(first.await.unwrap().unwrap(), 1);
        for (number, waiting) in line.into_iter().enumerate() {
            assert_eq!(waiting.await.unwrap().unwrap(), number);
        }
        assert_eq!(gate.places.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_client_that_goes_cancels_its_query() {
        let gate = Arc::new(QueryGate::new(1));
        let (seen, saw) = std::sync::mpsc::channel();
        let running = Arc::clone(&gate);
        let query = tokio::spawn(async move {
            running
                .run(move |cancelled| {
                    seen.send(false).unwrap();
                    while !cancelled.is_set() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    seen.send(true).unwrap();
                    cancelled.check()
                })
                .await
        });
        let saw = tokio::task::spawn_blocking(move || {
            assert!(!saw.recv().unwrap());
            query.abort();
            saw.recv_timeout(Duration::from_secs(10)).unwrap()
        });
        assert!(saw.await.unwrap());
        assert_eq!(gate.run(|_| Ok(7)).await.unwrap(), 7);
    }
}
