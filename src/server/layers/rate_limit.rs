//! So many requests a second for the whole server, with a burst of one second; `/healthz` does not count.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::config::RateLimit;
use crate::server::{ApiError, App};

/// What the layer keeps: the configuration, and the limiter for the rate that is in effect.
#[derive(Clone)]
pub struct Limited {
    app: Arc<App>,
    limiter: Arc<Limiter>,
}

impl Limited {
    /// Nothing has been asked for yet.
    #[must_use]
    pub fn new(app: Arc<App>) -> Self {
        Self { app, limiter: Arc::default() }
    }
}

/// Turns away what is too much.
pub async fn rate_limit(State(limited): State<Limited>, request: Request, next: Next) -> Response {
    if request.uri().path() == super::OPEN_PATH {
        return next.run(request).await;
    }
    match limited.limiter.admit(&limited.app.configuration().self_telemetry.rate_limit) {
        Ok(()) => next.run(request).await,
        Err(seconds) => {
            let message = "more requests than self_telemetry.rate_limit.requests_per_second permits";
            ApiError::too_many(message, seconds).into_response()
        }
    }
}

#[derive(Default)]
struct Limiter {
    of_rate: Mutex<Option<(u64, DefaultDirectRateLimiter)>>,
}

impl Limiter {
    /// The error is the number of seconds after which there is room again.
    fn admit(&self, configured: &RateLimit) -> Result<(), u64> {
        if !configured.enabled {
            return Ok(());
        }
        let rate = configured.requests_per_second.get();
        let mut of_rate = self.of_rate.lock().unwrap_or_else(PoisonError::into_inner);
        if of_rate.as_ref().is_none_or(|(of, _)| *of != rate) {
            let per_second = u32::try_from(rate).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX);
            *of_rate = Some((rate, RateLimiter::direct(Quota::per_second(per_second))));
        }
        let Some((_, limiter)) = of_rate.as_ref() else { return Ok(()) };
        limiter.check().map_err(|refused| {
            let wait = refused.wait_time_from(DefaultClock::default().now());
            wait.as_secs() + u64::from(wait.subsec_nanos() > 0).max(u64::from(wait.is_zero()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(text: &str) -> RateLimit {
        let text = format!("self_telemetry: {{rate_limit: {text}}}\n");
        super::super::tests::configuration(&text).self_telemetry.rate_limit
    }

    #[test]
    fn a_second_s_worth_is_let_through_at_once_and_then_no_more() {
        let limiter = Limiter::default();
        let five = limit("{enabled: true, requests_per_second: 5}");
        let admitted = (0..50).filter(|_| limiter.admit(&five).is_ok()).count();
        assert!((5..=6).contains(&admitted), "{admitted}");
        assert_eq!(limiter.admit(&five), Err(1));
        // Another rate begins anew, and none at all lets everything through.
        assert_eq!(limiter.admit(&limit("{enabled: true, requests_per_second: 7}")), Ok(()));
        assert!((0..50).all(|_| limiter.admit(&limit("{enabled: false}")).is_ok()));
    }
}
