//! A capture on a thread of its own, which ends when nobody waits for it any more.

use std::sync::Arc;

use crate::model::Profile;
use crate::profile::SessionError;
use crate::profile::live::{CaptureError, CaptureOptions, capture};
use crate::server::api::gate::Cancelled;
use crate::server::{ApiError, App};

/// Runs one. A handler that is dropped meanwhile, since its client has gone, ends it within a tenth of a
/// second.
///
/// # Errors
/// 429 if too many run; what the kernel refused.
pub async fn run(app: &App, options: CaptureOptions) -> Result<Profile, ApiError> {
    let place = Arc::clone(&app.debug.captures).try_acquire_owned().map_err(|_| {
        let message = format!("{} captures are running already", super::CAPTURES_AT_ONCE);
        ApiError::too_many(message, 5)
    })?;
    let cancelled = Cancelled::default();
    let _on_drop = cancelled.on_drop();
    let (send, answer) = tokio::sync::oneshot::channel();
    let work = move || {
        let captured = capture(options, &|| cancelled.is_set());
        drop(place);
        // A handler that is gone wants no answer.
        let _ = send.send(captured);
    };
    std::thread::Builder::new()
        .name("capture".to_owned())
        .spawn(work)
        .map_err(|error| ApiError::internal("a capture cannot be begun", &error))?;
    match answer.await {
        Ok(Ok(profile)) => Ok(profile),
        Ok(Err(CaptureError::Session(SessionError::Kernel(error)))) if error.is_not_permitted() => {
            Err(ApiError::new(axum::http::StatusCode::FORBIDDEN, error.to_string()))
        }
        Ok(Err(error)) => Err(ApiError::internal("the capture has failed", &error)),
        Err(error) => Err(ApiError::internal("the capture has failed", &error)),
    }
}
