//! OTLP to a receiver: profiles of the windows, spans of requests, metrics, and spanflame's own traces.
//!
//! Comes in: profiles, spans, and messages of the other signals that are encoded already. Goes out: requests by
//! gRPC or HTTP (protobuf or JSON), compressed or not, as `otlp.*` of the configuration says. Never: a
//! wait of whoever offers something, a loss that is not counted, a header in a log.
//!
//! Each signal has a queue and a task. What is offered waits in the queue, bounded by items and by bytes;
//! if there is no room, the newest is dropped. The task sends one batch after the other and repeats it with
//! growing pauses where the receiver says that this may help (specification of OTLP, "Failures"); what the
//! receiver refuses for good is dropped. So offered = exported + dropped + waiting, at any time.
//!
//! All signals share one transport: gRPC calls and HTTP requests carry bytes that were encoded once
//! (`grpc.rs`, `http.rs`), and both tell what came of it in the same words (`answer.rs`).

mod answer;
mod backoff;
mod grpc;
mod health;
mod http;
mod signal;
mod status;
mod target;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::config::Otlp;
use crate::metrics::Histogram;
use crate::model::{Profile, Span};

pub use health::Health;
pub use signal::{DropReason, Signal, SignalStatus};
pub use status::ExporterStatus;
pub use target::TargetError;

use health::HealthRecord;
use signal::{Batch, Payload, SignalQueue};
use target::Target;

/// Upper bounds of the latency of requests, seconds.
const LATENCY_BOUNDS_S: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Upper bounds of the number of items in a request.
const BATCH_BOUNDS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0];

/// See the module's description.
pub struct OtlpExporter {
    shared: Arc<Shared>,
    runtime: Handle,
}

/// What the handle and the tasks have in common.
struct Shared {
    /// Where to; none if nothing is exported.
    target: ArcSwapOption<Target>,
    /// Wakes a task that pauses before it repeats a request: another target, or a flush.
    hurry: Notify,
    profiles: SignalQueue,
    metrics: SignalQueue,
    traces: SignalQueue,
    /// Of this machine.
    host: String,
    health: HealthRecord,
    latency: Histogram,
    batch_size: Histogram,
}

impl Shared {
    fn queue(&self, signal: Signal) -> &SignalQueue {
        match signal {
            Signal::Profiles => &self.profiles,
            Signal::Metrics => &self.metrics,
            Signal::Traces => &self.traces,
        }
    }
}

impl OtlpExporter {
    /// Starts the tasks on `runtime`. Without an endpoint they wait for one.
    ///
    /// # Errors
    /// [`TargetError`] if the endpoint cannot be used as it is configured.
    pub fn start(configuration: &Otlp, runtime: Handle) -> Result<Self, TargetError> {
        let uname = rustix::system::uname();
        let shared = Arc::new(Shared {
            target: ArcSwapOption::empty(),
            hurry: Notify::new(),
            profiles: SignalQueue::new(Signal::Profiles),
            metrics: SignalQueue::new(Signal::Metrics),
            traces: SignalQueue::new(Signal::Traces),
            host: uname.nodename().to_string_lossy().into_owned(),
            health: HealthRecord::default(),
            latency: Histogram::new(LATENCY_BOUNDS_S),
            batch_size: Histogram::new(BATCH_BOUNDS),
        });
        let exporter = Self { shared, runtime };
        exporter.reconfigure(configuration)?;
        for signal in Signal::ALL {
            exporter.runtime.spawn(worker::run(Arc::clone(&exporter.shared), signal));
        }
        Ok(exporter)
    }

    /// Offers a window. Never blocks: what finds no room is dropped and counted. Nothing happens while
    /// profiles are not exported.
    pub fn offer(&self, profile: Arc<Profile>) {
        if !self.wants(Signal::Profiles) || profile.samples.is_empty() {
            return;
        }
        let items = super::otlp::number_of_profiles(&profile);
        let bytes = approximate_bytes(&profile);
        self.shared.profiles.offer(Batch { payload: Payload::Profile(profile), items, bytes });
    }

    /// Offers spans, likewise. Those that are open are not sent: OTLP has no way to say so, and they come
    /// again when they have ended.
    pub fn offer_spans(&self, spans: Arc<[Span]>) {
        let items = spans.iter().filter(|span| span.end_unix_ns.is_some()).count() as u64;
        if !self.wants(Signal::Traces) || items == 0 {
            return;
        }
        let bytes = spans.iter().map(super::otlp_spans::approximate_bytes).sum();
        self.shared.traces.offer(Batch { payload: Payload::Spans(spans), items, bytes });
    }

    /// Offers an encoded `Export…ServiceRequest` of another signal, likewise.
    pub fn offer_encoded(&self, signal: Signal, message: Vec<u8>, items: u64) {
        if !self.wants(signal) || items == 0 {
            return;
        }
        let bytes = message.len();
        self.shared.queue(signal).offer(Batch { payload: Payload::Encoded(message.into()), items, bytes });
    }

    /// Whether this signal is exported, as things are configured now.
    #[must_use]
    pub fn wants(&self, signal: Signal) -> bool {
        self.shared.target.load().as_ref().is_some_and(|target| target.wants(signal))
    }

    /// Changes where to and how, from the next request on. What waits goes to the new endpoint; what waits
    /// of a signal that is not exported any more is dropped and counted.
    ///
    /// # Errors
    /// [`TargetError`], and nothing has changed.
    pub fn reconfigure(&self, configuration: &Otlp) -> Result<(), TargetError> {
        if self.shared.target.load().as_ref().is_some_and(|target| target.is_of(configuration)) {
            return Ok(());
        }
        // Channels of gRPC need to know the runtime when they are made.
        let _entered = self.runtime.enter();
        let target = Target::of(configuration)?.map(Arc::new);
        self.shared.target.store(target);
        self.shared.health.forget();
        self.shared.hurry.notify_waiters();
        Ok(())
    }

    /// Where its tasks run.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// What has been done so far.
    #[must_use]
    pub fn status(&self) -> ExporterStatus {
        ExporterStatus::of(&self.shared)
    }

    /// Waits until all queues are empty, at most `limit`; a pause before a repetition is cut short. Returns
    /// how many items still wait.
    pub async fn flush(&self, limit: Duration) -> u64 {
        let deadline = tokio::time::Instant::now() + limit;
        self.shared.hurry.notify_waiters();
        for signal in Signal::ALL {
            let _ = tokio::time::timeout_at(deadline, self.shared.queue(signal).emptied()).await;
        }
        Signal::ALL.iter().map(|&signal| self.shared.queue(signal).waiting()).sum()
    }

    /// Whether the endpoint can be reached and has not refused what was last sent; asked anew at most every
    /// few seconds.
    pub async fn check(&self) -> Health {
        let Some(target) = self.shared.target.load_full() else { return Health::Disabled };
        self.shared.health.check(&target.host, target.port).await
    }
}

/// About how much memory a profile takes, in bytes.
fn approximate_bytes(profile: &Profile) -> usize {
    let names: usize = profile.functions.iter().map(|function| 96 + function.name.len()).sum();
    let stacks = 8 * profile.stacks.len() + 4 * profile.stacks.values().len();
    let labels: usize = profile.label_sets.iter().map(|labels| 24 + 80 * labels.len()).sum();
    names + stacks + labels + 96 * profile.locations.len() + 64 * profile.samples.len() + 1024
}
