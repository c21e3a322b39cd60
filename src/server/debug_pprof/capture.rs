//! A capture on a thread of its own, which ends when nobody waits for it any more.
//!
//! The head of the answer goes out when sampling begins: the tool waits for it half as long again as the
//! capture should take and not longer, and to name the samples of a host for the first time can take as long
//! as to take them. What fails after that breaks the answer off.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Bytes;
use http_body::Frame;
use tokio::sync::oneshot;

use crate::kernel::shared_contexts_path;
use crate::model::Profile;
use crate::profile::SessionError;
use crate::profile::live::{CaptureError, CaptureOptions, capture};
use crate::server::api::gate::{CancelOnDrop, Cancelled};
use crate::server::{ApiError, App};

type Captured = Result<Bytes, CaptureError>;

/// The body of an answer: it is there when the capture is over. Dropping it, since the client has gone, ends
/// the capture within a tenth of a second.
#[derive(Debug)]
pub struct CaptureBody {
    captured: Option<oneshot::Receiver<Captured>>,
    _cancel: CancelOnDrop,
}

/// Begins one, and waits until it samples. `write` makes the answer of the profile; if it cannot, the answer
/// is broken off.
///
/// # Errors
/// 429 if too many run; what the kernel refused.
pub async fn begin(
    app: &App,
    options: CaptureOptions,
    write: impl FnOnce(Profile) -> Option<Vec<u8>> + Send + 'static,
) -> Result<CaptureBody, ApiError> {
    let place = Arc::clone(&app.debug.captures).try_acquire_owned().map_err(|_| {
        let message = format!("{} captures are running already", super::CAPTURES_AT_ONCE);
        ApiError::too_many(message, 5)
    })?;
    let cancelled = Cancelled::default();
    let cancel = cancelled.on_drop();
    let (started, has_started) = oneshot::channel();
    let (send, mut captured) = oneshot::channel::<Captured>();
    let requests = app.tracer.as_ref().and_then(|tracer| tracer.followed_requests(options.frequency_hz));
    let shared_contexts = shared_contexts_path(app.configuration().agent.ebpf.bpf_file_system.as_path());
    let work = move || {
        // A client that is gone wants no answer: nobody is there to be told then.
        let is_cancelled = || cancelled.is_set();
        let on_started = || {
            let _ = started.send(());
        };
        let profile = capture(options, requests, &shared_contexts, &is_cancelled, on_started);
        if let Err(error) = &profile
            && !matches!(error, CaptureError::Cancelled)
        {
            tracing::warn!("a capture for /debug/pprof/ has failed: {error}");
        }
        let written = profile.map(|profile| write(profile).map(Bytes::from)).transpose();
        if let Some(written) = written {
            let _ = send.send(written);
        }
        drop(place);
    };
    std::thread::Builder::new()
        .name("capture".to_owned())
        .spawn(work)
        .map_err(|error| ApiError::internal("a capture cannot be begun", &error))?;
    if has_started.await.is_err() {
        return Err(match (&mut captured).await {
            Ok(Err(CaptureError::Session(SessionError::Kernel(error)))) if error.is_not_permitted() => {
                ApiError::new(axum::http::StatusCode::FORBIDDEN, error.to_string())
            }
            Ok(Err(error)) => ApiError::internal("the capture has failed", &error),
            Ok(Ok(_)) | Err(_) => ApiError::internal("the capture has failed", &"its thread has ended"),
        });
    }
    Ok(CaptureBody { captured: Some(captured), _cancel: cancel })
}

impl http_body::Body for CaptureBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let Some(captured) = &mut self.captured else { return Poll::Ready(None) };
        let captured = std::task::ready!(Pin::new(captured).poll(context));
        self.captured = None;
        Poll::Ready(Some(match captured {
            Ok(Ok(bytes)) => Ok(Frame::data(bytes)),
            Ok(Err(error)) => Err(std::io::Error::other(error)),
            Err(_) => Err(std::io::Error::other("the thread of the capture has ended")),
        }))
    }
}
