//! What others send into the store: how much of it may be in memory, what became of it.
//!
//! Comes in: bodies of requests, by OTLP or as uploads. Goes out: windows and spans into the store, and for the
//! client what was taken. Never: a body that is larger than one may be, more of all bodies together than
//! the budget, two being taken apart at a time.
//!
//! A body is paid for from the budget as it arrives, so that hundreds of clients that send slowly cannot
//! fill the memory together; whoever comes when the budget is spent is told to come again. Taking a body
//! apart may need many times its size, so that one waits for the other.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::SpanKeeper;
use crate::export::{Format, otlp_schema};
use crate::ingest::{self, IngestError, Limits, ReceivedSpans, Rejected};
use crate::model::{GIT_SHA, Label, Profile};
use crate::store::WindowStore;

/// What a body may come to, before and after decompression (specification of OTLP).
pub const MAX_BODY_BYTES: usize = 64 << 20;
/// What all bodies that are being received may come to, in KiB.
const BUDGET_KIB: usize = 256 << 10;
/// How long a body may take to arrive.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(60);
/// How many bodies may wait to be taken apart; those beyond are told to come again.
const MAX_WAITING: usize = 64;

/// How much of anything a body may ask for.
const LIMITS: Limits = Limits {
    file_bytes: MAX_BODY_BYTES,
    fields: 6 << 20,
    text_bytes: 256 << 20,
    stack_entries: 16 << 20,
    rows: 4 << 20,
};

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusedKind {
    /// It is not what it says it is.
    Malformed,
    /// It is, or would become, larger than one may be.
    TooLarge,
    /// It did not arrive in time.
    TooSlow,
    /// There is no room for it now.
    Busy,
    /// The store cannot keep it.
    StoreFailed,
}

impl RefusedKind {
    const ALL: [Self; 5] = [Self::Malformed, Self::TooLarge, Self::TooSlow, Self::Busy, Self::StoreFailed];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "ingest_malformed",
            Self::TooLarge => "ingest_too_large",
            Self::TooSlow => "ingest_too_slow",
            Self::Busy => "ingest_busy",
            Self::StoreFailed => "ingest_store_failed",
        }
    }
}

/// That a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why, for programs.
    pub kind: RefusedKind,
    /// Why, for a person.
    pub message: String,
}

impl Refused {
    fn new(kind: RefusedKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    fn malformed(error: &dyn std::fmt::Display) -> Self {
        Self::new(RefusedKind::Malformed, error.to_string())
    }
}

impl From<IngestError> for Refused {
    fn from(error: IngestError) -> Self {
        let kind = match error {
            IngestError::TooLarge { .. } => RefusedKind::TooLarge,
            _ => RefusedKind::Malformed,
        };
        Self::new(kind, error.to_string())
    }
}

/// What was taken of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken {
    /// Windows that are in the store.
    pub windows: u64,
    /// Profiles that they are made of.
    pub profiles: u64,
    /// Samples in them.
    pub samples: u64,
    /// Spans that are in the store.
    pub spans: u64,
    /// Start of the first window, nanoseconds since the Unix epoch.
    pub from_unix_ns: u64,
    /// End of the last.
    pub to_unix_ns: u64,
    /// Profiles, or spans, that are not.
    pub rejected: Vec<Rejected>,
}

impl Taken {
    /// Profiles, or spans, that are not in the store.
    #[must_use]
    pub fn rejected_items(&self) -> u64 {
        self.rejected.iter().map(|rejected| rejected.items).sum()
    }

    /// Why, for a person; empty if all were taken.
    #[must_use]
    pub fn rejection(&self) -> String {
        let messages: Vec<&str> = self.rejected.iter().map(|rejected| rejected.message.as_str()).collect();
        messages.join("; ")
    }
}

/// What became of everything that was sent here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntakeStatus {
    /// Requests, those that were refused included.
    pub requests: u64,
    /// Requests that were refused, by reason; every reason there is.
    pub refused: BTreeMap<&'static str, u64>,
    /// Profiles that are in the store.
    pub profiles: u64,
    /// Samples in them.
    pub samples: u64,
    /// Spans that are in the store.
    pub spans: u64,
    /// Profiles and spans of requests that were taken that are not, by reason; every reason there is.
    pub rejected: BTreeMap<&'static str, u64>,
}

impl Default for IntakeStatus {
    fn default() -> Self {
        let rejected = [
            "ingest_invalid_id",
            "ingest_time_out_of_range",
            "ingest_too_many_windows",
            "ingest_window_not_stored",
        ];
        Self {
            requests: 0,
            refused: RefusedKind::ALL.iter().map(|kind| (kind.name(), 0)).collect(),
            profiles: 0,
            samples: 0,
            spans: 0,
            rejected: rejected.iter().map(|&reason| (reason, 0)).collect(),
        }
    }
}

/// How a body of OTLP is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-protobuf`, and gRPC.
    Protobuf,
    /// `application/json`.
    Json,
}

/// A whole body, paid for as long as it is held.
#[derive(Debug)]
pub struct HeldBody {
    bytes: Bytes,
    paid: OwnedSemaphorePermit,
}

impl HeldBody {
    /// What was received.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same with a part of the bytes.
    #[must_use]
    pub fn map(mut self, part: impl FnOnce(&Bytes) -> Bytes) -> Self {
        self.bytes = part(&self.bytes);
        self
    }
}

/// What an upload may say of itself beyond what its profile does.
#[derive(Debug, Clone, Default)]
pub struct UploadFacts {
    /// Becomes the label `service` of all samples.
    pub service: Option<String>,
    /// Becomes their label `git_sha`.
    pub git_sha: Option<String>,
    /// When it begins and ends, nanoseconds since the Unix epoch.
    pub range: Option<(u64, u64)>,
}

/// See the module's description.
pub struct Intake {
    store: Arc<dyn WindowStore>,
    budget_kib: Arc<Semaphore>,
    taking_apart: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    status: Arc<Mutex<IntakeStatus>>,
    keeper: Option<Arc<SpanKeeper>>,
}

impl Intake {
    /// Into this store. The keeper of our own spans learns which have come.
    #[must_use]
    pub fn new(store: Arc<dyn WindowStore>, keeper: Option<Arc<SpanKeeper>>) -> Self {
        Self {
            store,
            keeper,
            budget_kib: Arc::new(Semaphore::new(BUDGET_KIB)),
            taking_apart: Arc::new(Semaphore::new(1)),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            status: Arc::default(),
        }
    }

    /// What became of everything so far.
    #[must_use]
    pub fn status(&self) -> IntakeStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a request that is refused before it is taken apart.
    fn counted<T>(&self, result: Result<T, Refused>) -> Result<T, Refused> {
        if let Err(refused) = &result {
            count_refused(&self.status, refused);
        }
        result
    }

    /// Takes a request of OTLP profiles, compressed or not. `body_of` is given the whole body and returns
    /// what of it is the message.
    ///
    /// # Errors
    /// [`Refused`]; nothing of it is in the store.
    pub async fn take_otlp(
        &self,
        body: Body,
        encoding: Encoding,
        message_of: impl FnOnce(&Bytes) -> Result<Bytes, String>,
    ) -> Result<Taken, Refused> {
        let held = self.counted(self.receive(body).await)?;
        let message = message_of(held.bytes()).map_err(|error| Refused::malformed(&error));
        let message = self.counted(message)?;
        self.taken_apart(held.map(|_| message), move |bytes, store| {
            let message = plain_message(bytes, encoding, &otlp_schema::PROFILES_REQUEST)?;
            let received = ingest::read_request(&message, &LIMITS, now_unix_ns())?;
            drop(message);
            keep(store, received.windows, received.rejected)
        })
        .await
    }

    /// Takes a request of OTLP traces, likewise.
    ///
    /// # Errors
    /// [`Refused`]; the client may send all of it again.
    pub async fn take_otlp_spans(
        &self,
        body: Body,
        encoding: Encoding,
        message_of: impl FnOnce(&Bytes) -> Result<Bytes, String>,
    ) -> Result<Taken, Refused> {
        let held = self.counted(self.receive(body).await)?;
        let message = message_of(held.bytes()).map_err(|error| Refused::malformed(&error));
        let message = self.counted(message)?;
        let keeper = self.keeper.clone();
        self.taken_apart(held.map(|_| message), move |bytes, store| {
            let message = plain_message(bytes, encoding, &otlp_schema::TRACES_REQUEST)?;
            let ReceivedSpans { spans, rejected } = ingest::read_spans(&message, &LIMITS, now_unix_ns())?;
            drop(message);
            if let Err(error) = store.write_spans(&spans) {
                tracing::error!("{} spans that were sent here are refused: {error}", spans.len());
                return Err(Refused::new(
                    RefusedKind::StoreFailed,
                    "the store cannot keep them at the moment",
                ));
            }
            if let Some(keeper) = keeper {
                keeper.received(&spans);
            }
            Ok(Taken { spans: spans.len() as u64, rejected, ..Taken::default() })
        })
        .await
    }

    /// Takes a pprof profile, compressed or not.
    ///
    /// # Errors
    /// [`Refused`]; nothing of it is in the store.
    pub async fn take_pprof(&self, body: Body, facts: UploadFacts) -> Result<Taken, Refused> {
        let held = self.counted(self.receive(body).await)?;
        if held.bytes().is_empty() {
            return self.counted(Err(Refused::new(RefusedKind::Malformed, "the body is empty")));
        }
        self.taken_apart(held, move |bytes, store| {
            let options = ingest::Options { limits: LIMITS, ..ingest::Options::default() };
            let mut profile = ingest::read(bytes, Format::Pprof, &options)?;
            apply_facts(&mut profile, &facts)?;
            keep(store, vec![(profile, 1)], Vec::new())
        })
        .await
    }

    /// The whole body, if it is small enough, comes in time and there is room for it.
    async fn receive(&self, body: Body) -> Result<HeldBody, Refused> {
        let too_large = || {
            let message =
                format!("a body has at most {} MiB, before and after decompression", MAX_BODY_BYTES >> 20);
            Refused::new(RefusedKind::TooLarge, message)
        };
        let expected = axum::body::HttpBody::size_hint(&body).lower();
        if expected > MAX_BODY_BYTES as u64 {
            return Err(too_large());
        }
        let mut paid = self.pay(1)?;
        let mut received = BytesMut::new();
        let mut body = body;
        let arrival = async {
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| Refused::malformed(&error))?;
                let Ok(data) = frame.into_data() else { continue };
                if received.len() + data.len() > MAX_BODY_BYTES {
                    return Err(too_large());
                }
                received.extend_from_slice(&data);
                // What was reserved, not what is filled: that is what it takes.
                let needed_kib = received.capacity().div_ceil(1024);
                if let Some(missing) =
                    needed_kib.checked_sub(paid.num_permits()).filter(|&missing| missing > 0)
                {
                    paid.merge(self.pay(missing)?);
                }
            }
            Ok(())
        };
        tokio::time::timeout(ARRIVAL_LIMIT, arrival).await.unwrap_or_else(|_| {
            let message = format!("the body did not arrive within {ARRIVAL_LIMIT:?}");
            Err(Refused::new(RefusedKind::TooSlow, message))
        })?;
        Ok(HeldBody { bytes: received.freeze(), paid })
    }

    fn pay(&self, kib: usize) -> Result<OwnedSemaphorePermit, Refused> {
        let kib = u32::try_from(kib).unwrap_or(u32::MAX);
        Arc::clone(&self.budget_kib)
            .try_acquire_many_owned(kib)
            .map_err(|_| Refused::new(RefusedKind::Busy, "there is no memory for more at the moment"))
    }

    /// Does the work on a thread where it may take its time, one at a time, and counts what became of it. Of a
    /// client that is gone before its turn comes nothing is kept, since the wait ends with it.
    async fn taken_apart(
        &self,
        held: HeldBody,
        work: impl FnOnce(&[u8], &dyn WindowStore) -> Result<Taken, Refused> + Send + 'static,
    ) -> Result<Taken, Refused> {
        let busy = || Refused::new(RefusedKind::Busy, "too much is being taken in at the moment");
        let waiting = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| busy());
        let _waiting = self.counted(waiting)?;
        let turn = Arc::clone(&self.taking_apart).acquire_owned().await.map_err(|_| busy());
        let turn = self.counted(turn)?;
        let (store, status) = (Arc::clone(&self.store), Arc::clone(&self.status));
        let span = tracing::info_span!("take in", bytes = held.bytes().len());
        let done = tokio::task::spawn_blocking(move || {
            let _entered = span.entered();
            // Held until the work is done, also if the client is gone by then.
            let (_turn, HeldBody { bytes, paid }) = (turn, held);
            let result = work(&bytes, store.as_ref());
            drop(paid);
            // Here, where it is done, since the client may be gone and nobody waits for the answer.
            count(&status, &result);
            result
        });
        done.await.unwrap_or_else(|error| {
            tracing::error!("a request could not be taken apart: {error}");
            let message = "spanflame has failed on this request; please report it";
            self.counted(Err(Refused::new(RefusedKind::Malformed, message)))
        })
    }
}

/// The protobuf message of a body without its gzip layer.
fn plain_message<'a>(
    bytes: &'a [u8],
    encoding: Encoding,
    schema: &'static otlp_schema::Message,
) -> Result<Cow<'a, [u8]>, Refused> {
    let plain = ingest::decompressed(bytes, MAX_BODY_BYTES)?;
    match encoding {
        Encoding::Protobuf => Ok(plain),
        Encoding::Json => {
            let converted = ingest::otlp_json::to_protobuf(&plain, schema);
            Ok(Cow::Owned(converted.map_err(|error| Refused::malformed(&error))?))
        }
    }
}

fn count(status: &Mutex<IntakeStatus>, result: &Result<Taken, Refused>) {
    let taken = match result {
        Ok(taken) => taken,
        Err(refused) => return count_refused(status, refused),
    };
    let mut status = status.lock().unwrap_or_else(PoisonError::into_inner);
    status.requests += 1;
    status.profiles += taken.profiles;
    status.samples += taken.samples;
    status.spans += taken.spans;
    for rejected in &taken.rejected {
        *status.rejected.entry(rejected.reason).or_default() += rejected.items;
    }
}

fn count_refused(status: &Mutex<IntakeStatus>, refused: &Refused) {
    let mut status = status.lock().unwrap_or_else(PoisonError::into_inner);
    status.requests += 1;
    *status.refused.entry(refused.kind.name()).or_default() += 1;
}

fn now_unix_ns() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Puts windows into the store. If not even the first can be kept, the client may send all of it again;
/// after that it must not, and the others are rejected.
fn keep(
    store: &dyn WindowStore,
    windows: Vec<(Profile, u64)>,
    rejected: Vec<Rejected>,
) -> Result<Taken, Refused> {
    let mut taken = Taken { rejected, from_unix_ns: u64::MAX, ..Taken::default() };
    let mut not_stored = 0;
    for (profile, profiles) in windows {
        if let Err(error) = store.write_window(&profile) {
            tracing::error!("a window that was sent here is lost: {error}");
            if taken.windows == 0 {
                return Err(Refused::new(RefusedKind::StoreFailed, "the store cannot keep it at the moment"));
            }
            not_stored += profiles;
            continue;
        }
        taken.windows += 1;
        taken.profiles += profiles;
        taken.samples += profile.samples.len() as u64;
        taken.from_unix_ns = taken.from_unix_ns.min(profile.start_unix_ns);
        taken.to_unix_ns = taken.to_unix_ns.max(profile.start_unix_ns.saturating_add(profile.duration_ns));
    }
    if taken.windows == 0 {
        taken.from_unix_ns = 0;
    }
    if not_stored > 0 {
        taken.rejected.push(Rejected {
            items: not_stored,
            reason: "ingest_window_not_stored",
            message: format!("{not_stored} profiles: the store could not keep them"),
        });
    }
    Ok(taken)
}

/// What the client said goes before what the profile says; a profile without a time is of now.
fn apply_facts(profile: &mut Profile, facts: &UploadFacts) -> Result<(), Refused> {
    let now = now_unix_ns();
    if let Some((from, to)) = facts.range {
        (profile.start_unix_ns, profile.duration_ns) = (from, to.saturating_sub(from));
    } else if profile.start_unix_ns == 0 {
        profile.start_unix_ns = now.saturating_sub(profile.duration_ns);
    }
    if !ingest::is_plausible(profile.start_unix_ns, profile.duration_ns, now) {
        let message = "its time is more than a year ago, in the future, or longer than a day; \
                       `from` and `to` say when it was";
        return Err(Refused::new(RefusedKind::Malformed, message));
    }
    for (key, text) in [("service", &facts.service), (GIT_SHA, &facts.git_sha)] {
        let Some(text) = text else { continue };
        for labels in &mut profile.label_sets {
            labels.retain(|label| label.key != key);
            labels.push(Label::text(key, text));
            labels.sort();
        }
    }
    Ok(())
}
