//! What waits to be sent, by signal, and what became of what was offered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::export::otlp_schema;
use crate::model::{Profile, Span};

/// What can be exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Profiles; an item is one profile, that is one process and value type of a window.
    Profiles,
    /// Metrics; an item is one data point.
    Metrics,
    /// Traces; an item is one span.
    Traces,
}

impl Signal {
    /// All, in the order that tables of them have.
    pub const ALL: [Self; 3] = [Self::Profiles, Self::Metrics, Self::Traces];

    /// Its name, as `/status/export` has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Profiles => "profiles",
            Self::Metrics => "metrics",
            Self::Traces => "traces",
        }
    }

    /// How many items may wait.
    fn capacity(self) -> u64 {
        match self {
            Self::Profiles | Self::Traces => 10_000,
            Self::Metrics => 5_000,
        }
    }

    /// The message of its requests.
    pub(super) fn schema(self) -> &'static otlp_schema::Message {
        match self {
            Self::Profiles => &otlp_schema::PROFILES_REQUEST,
            Self::Metrics => &otlp_schema::METRICS_REQUEST,
            Self::Traces => &otlp_schema::TRACES_REQUEST,
        }
    }
}

/// How many bytes may wait, of each signal, about.
const CAPACITY_BYTES: usize = 64 << 20;

/// Why an item was not exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// There was no room in the queue.
    QueueFull,
    /// The receiver took the request and not this item (`partial_success`).
    RejectedByReceiver,
    /// The receiver refused the request for good.
    RefusedByReceiver,
    /// It could not be sent for too long.
    RetriesExhausted,
    /// It is larger than a request may be.
    TooLarge,
    /// The signal was taken out of the configuration while it waited.
    Disabled,
}

impl DropReason {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::QueueFull,
        Self::RejectedByReceiver,
        Self::RefusedByReceiver,
        Self::RetriesExhausted,
        Self::TooLarge,
        Self::Disabled,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "export_queue_full",
            Self::RejectedByReceiver => "rejected_by_receiver",
            Self::RefusedByReceiver => "refused_by_receiver",
            Self::RetriesExhausted => "export_retries_exhausted",
            Self::TooLarge => "export_request_too_large",
            Self::Disabled => "export_disabled",
        }
    }
}

/// A queue at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalStatus {
    /// Whether the signal is exported.
    pub enabled: bool,
    /// Items that wait, those under way included.
    pub size: u64,
    /// How many may.
    pub capacity: u64,
    /// Items that a receiver has taken.
    pub exported: u64,
    /// Items that were dropped, by reason; each reason there is.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Requests that were sent, repetitions included.
    pub requests: u64,
    /// Those of them that failed.
    pub errors: u64,
}

impl SignalStatus {
    /// Items that were dropped for any reason.
    #[must_use]
    pub fn dropped_in_all(&self) -> u64 {
        self.dropped.values().sum()
    }
}

/// What is taken from a queue at once.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) payload: Payload,
    pub(super) items: u64,
    /// Memory that it takes, about.
    pub(super) bytes: usize,
}

#[derive(Debug, Clone)]
pub(super) enum Payload {
    /// Becomes requests when it is sent.
    Profile(Arc<Profile>),
    /// Those of them that have ended become requests, likewise.
    Spans(Arc<[Span]>),
    /// Is one.
    Encoded(Bytes),
}

#[derive(Debug, Default)]
struct State {
    batches: VecDeque<Batch>,
    bytes: usize,
    exported: u64,
    dropped: BTreeMap<&'static str, u64>,
    requests: u64,
    errors: u64,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct SignalQueue {
    signal: Signal,
    state: Mutex<State>,
    /// Items that wait or are under way; changes wake those who wait for it.
    waiting: watch::Sender<u64>,
    arrived: tokio::sync::Notify,
}

impl SignalQueue {
    pub(super) fn new(signal: Signal) -> Self {
        let dropped = DropReason::ALL.iter().map(|reason| (reason.name(), 0)).collect();
        let state = Mutex::new(State { dropped, ..State::default() });
        Self { signal, state, waiting: watch::Sender::new(0), arrived: tokio::sync::Notify::new() }
    }

    fn with_state<T>(&self, ask: impl FnOnce(&mut State) -> T) -> T {
        ask(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a batch in, or counts that it was dropped.
    pub(super) fn offer(&self, batch: Batch) {
        let items = batch.items;
        let taken = self.with_state(|state| {
            let waiting = *self.waiting.borrow();
            // An empty queue takes what is larger than itself: otherwise it would never be sent.
            let has_room = waiting == 0
                || waiting.saturating_add(items) <= self.signal.capacity()
                    && state.bytes.saturating_add(batch.bytes) <= CAPACITY_BYTES;
            if has_room {
                state.bytes += batch.bytes;
                state.batches.push_back(batch);
                self.waiting.send_modify(|waiting| *waiting += items);
            } else {
                *state.dropped.entry(DropReason::QueueFull.name()).or_default() += items;
            }
            has_room
        });
        if taken {
            self.arrived.notify_one();
        }
    }

    /// The oldest batch, when there is one. It counts as waiting until all its items are settled.
    pub(super) async fn take(&self) -> Batch {
        loop {
            let batch = self.with_state(|state| {
                let batch = state.batches.pop_front()?;
                state.bytes = state.bytes.saturating_sub(batch.bytes);
                Some(batch)
            });
            match batch {
                Some(batch) => return batch,
                None => self.arrived.notified().await,
            }
        }
    }

    /// A batch was divided into requests that hold more or fewer items than were counted at first.
    pub(super) fn recount(&self, before: u64, now: u64) {
        self.waiting.send_modify(|waiting| *waiting = (*waiting + now).saturating_sub(before));
    }

    /// So many items left the queue to the receiver.
    pub(super) fn exported(&self, items: u64) {
        self.with_state(|state| state.exported += items);
        self.settle(items);
    }

    /// So many items left the queue and are lost.
    pub(super) fn dropped(&self, reason: DropReason, items: u64) {
        self.with_state(|state| *state.dropped.entry(reason.name()).or_default() += items);
        self.settle(items);
    }

    pub(super) fn request_was_sent(&self, failed: bool) {
        self.with_state(|state| {
            state.requests += 1;
            state.errors += u64::from(failed);
        });
    }

    fn settle(&self, items: u64) {
        self.waiting.send_modify(|waiting| *waiting = waiting.saturating_sub(items));
    }

    /// Items that wait or are under way.
    pub(super) fn waiting(&self) -> u64 {
        *self.waiting.borrow()
    }

    /// Returns when nothing waits.
    pub(super) async fn emptied(&self) {
        // The sender lives as long as this does.
        let _ = self.waiting.subscribe().wait_for(|&waiting| waiting == 0).await;
    }

    pub(super) fn status(&self, enabled: bool) -> SignalStatus {
        self.with_state(|state| SignalStatus {
            enabled,
            size: *self.waiting.borrow(),
            capacity: self.signal.capacity(),
            exported: state.exported,
            dropped: state.dropped.clone(),
            requests: state.requests,
            errors: state.errors,
        })
    }
}
