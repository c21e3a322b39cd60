//! How long an answer may take to begin. Live profiles take as long as they were asked to, and limit that
//! themselves.

use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::server::ApiError;

/// The longest that a question may take, its body included.
const LIMIT: Duration = Duration::from_secs(120);
/// These take as long as they were asked to.
const LIVE: [&str; 2] = ["/debug/pprof/profile", "/debug/pprof/self/profile"];

/// Answers 503 for what takes too long.
pub async fn time_limit(request: Request, next: Next) -> Response {
    if LIVE.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    match tokio::time::timeout(LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("there was no answer within {} seconds; ask for less", LIMIT.as_secs());
            ApiError::unavailable(message, 10).into_response()
        }
    }
}
