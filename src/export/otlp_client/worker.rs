//! Sends what waits, one batch after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::Instrument;

use super::Shared;
use super::answer::FailureKind;
use super::backoff::Backoff;
use super::signal::{Batch, DropReason, Payload, Signal};
use crate::export::{otlp, otlp_spans};
use crate::model::Span;

/// A request is repeated for so long, and dropped then.
const RETRY_LIMIT: Duration = Duration::from_secs(300);
/// What a request may come to, before compression. The specification permits 64 MiB; receivers that are
/// made with gRPC for Go take 4 MiB unless they are told otherwise.
pub(super) const REQUEST_LIMIT_BYTES: usize = 4_000_000;

/// A message that is ready to be sent.
struct Encoded {
    message: Bytes,
    items: u64,
}

/// Sends batches of one signal for as long as the runtime lives.
pub(super) async fn run(shared: Arc<Shared>, signal: Signal) {
    let queue = shared.queue(signal);
    loop {
        let batch = queue.take().await;
        let counted = batch.items;
        let host = shared.host.clone();
        // Tens of milliseconds for a large host: not on a thread that others wait for.
        let encoded = tokio::task::spawn_blocking(move || encode(batch, &host)).await;
        let Ok((requests, too_large)) = encoded else {
            queue.dropped(DropReason::TooLarge, counted);
            continue;
        };
        queue.recount(counted, requests.iter().map(|request| request.items).sum::<u64>() + too_large);
        if too_large > 0 {
            let name = signal.name();
            tracing::warn!("{too_large} of the {name} are larger than a request may be and are dropped");
            queue.dropped(DropReason::TooLarge, too_large);
        }
        for request in requests {
            deliver(&shared, signal, request).await;
        }
    }
}

fn encode(batch: Batch, host: &str) -> (Vec<Encoded>, u64) {
    match batch.payload {
        Payload::Encoded(message) => (vec![Encoded { message, items: batch.items }], 0),
        Payload::Profile(profile) => {
            let (requests, too_large) = otlp::requests(&profile, host, REQUEST_LIMIT_BYTES);
            let encoded = requests
                .into_iter()
                .map(|request| Encoded { message: request.bytes.into(), items: request.profiles });
            (encoded.collect(), too_large)
        }
        Payload::Spans(spans) => {
            let ended: Vec<&Span> = spans.iter().filter(|span| span.end_unix_ns.is_some()).collect();
            let (requests, too_large) = otlp_spans::requests(&ended, REQUEST_LIMIT_BYTES);
            let encoded =
                requests.into_iter().map(|(message, items)| Encoded { message: message.into(), items });
            (encoded.collect(), too_large)
        }
    }
}

/// Sends a request until it is taken, refused, or too old.
async fn deliver(shared: &Shared, signal: Signal, request: Encoded) {
    let queue = shared.queue(signal);
    let mut backoff = Backoff::new();
    let began = Instant::now();
    loop {
        let target = shared.target.load_full().filter(|target| target.wants(signal));
        let Some(target) = target else {
            return queue.dropped(DropReason::Disabled, request.items);
        };
        // Whoever is in a hurry from now on is noticed, also while the request is under way.
        let hurry = shared.hurry.notified();
        tokio::pin!(hurry);
        hurry.as_mut().enable();

        let sent = Instant::now();
        let result =
            target.send(signal, request.message.clone()).instrument(span_of(signal, request.items)).await;
        let latency = sent.elapsed();
        queue.request_was_sent(result.is_err());
        shared.latency.observe(latency.as_secs_f64());
        shared.batch_size.observe(request.items as f64);
        let failure = match result {
            Ok(answer) => {
                shared.health.taken();
                let rejected = answer.rejected.min(request.items);
                queue.exported(request.items - rejected);
                if rejected > 0 {
                    queue.dropped(DropReason::RejectedByReceiver, rejected);
                }
                if rejected > 0 || !answer.message.is_empty() {
                    let (endpoint, message) = (&target.endpoint, &answer.message);
                    tracing::warn!(%endpoint, rejected, "the receiver says: {message}");
                }
                return log_export(signal, request.items - rejected, latency, &target.endpoint);
            }
            Err(failure) => failure,
        };

        let is_permanent = failure.kind == FailureKind::Permanent;
        let (message, endpoint) = (&failure.message, &target.endpoint);
        let is_news = shared.health.failed(message, is_permanent);
        let FailureKind::Transient { not_before } = failure.kind else {
            if is_news {
                tracing::warn!(%endpoint, "{} were refused and are dropped: {message}", signal.name());
            }
            return queue.dropped(DropReason::RefusedByReceiver, request.items);
        };
        let pause = backoff.next(not_before);
        if began.elapsed() + pause > RETRY_LIMIT {
            tracing::warn!(%endpoint, "{} could not be exported and are dropped: {message}", signal.name());
            return queue.dropped(DropReason::RetriesExhausted, request.items);
        }
        if is_news {
            tracing::warn!(%endpoint, "export failed and is tried again: {message}");
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = hurry => {}
        }
    }
}

/// A span of a request; the export of spans makes none, or there would be no end of it.
fn span_of(signal: Signal, items: u64) -> tracing::Span {
    match signal {
        Signal::Traces => tracing::Span::none(),
        Signal::Profiles | Signal::Metrics => {
            tracing::info_span!("export", otel.kind = "client", signal = signal.name(), items)
        }
    }
}

fn log_export(signal: Signal, items: u64, latency: Duration, endpoint: &str) {
    let latency_ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
    match signal {
        Signal::Profiles => tracing::info!(profiles = items, latency_ms, %endpoint, "Exported batch"),
        Signal::Metrics => tracing::info!(metrics = items, latency_ms, %endpoint, "Exported batch"),
        Signal::Traces => tracing::info!(spans = items, latency_ms, %endpoint, "Exported batch"),
    }
}
