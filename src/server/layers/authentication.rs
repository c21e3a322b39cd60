//! The token: as bearer, or as the password of HTTP Basic (RFC 6750, RFC 7617). Only `/healthz` is open.
//!
//! Browsers prompt for Basic and `go tool pprof` sends it for `http://x:TOKEN@host/`, so both are offered.
//! The name that comes with a password does not matter.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::{Auth, Secret};
use crate::server::{ApiError, App};

/// Lets those in who have the token.
pub async fn authentication(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.uri().path() == super::OPEN_PATH {
        return next.run(request).await;
    }
    match check(&app.configuration().self_telemetry.auth, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(message) => refuse(message),
    }
}

fn refuse(message: &'static str) -> Response {
    let mut response = ApiError::new(StatusCode::UNAUTHORIZED, message).into_response();
    for offer in ["Bearer realm=\"spanflame\"", "Basic realm=\"spanflame\", charset=\"UTF-8\""] {
        response.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(offer));
    }
    response
}

fn check(auth: &Auth, headers: &HeaderMap) -> Result<(), &'static str> {
    if !auth.enabled {
        return Ok(());
    }
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err("authentication is needed: the token as bearer, or as the password of Basic");
    };
    // Two of them are read differently by whoever stands before us and by us.
    if values.next().is_some() {
        return Err("there is more than one Authorization header");
    }
    let Some(token) = token_of(value) else {
        return Err(
            "the Authorization header is neither `Bearer TOKEN` nor Basic with the token as password",
        );
    };
    match &auth.bearer_token {
        Some(secret) if Secret::matches(secret, &token) => Ok(()),
        _ => Err("the token is not the one that is configured"),
    }
}

/// What came as token or password.
fn token_of(value: &HeaderValue) -> Option<Vec<u8>> {
    let (scheme, credentials) = value.to_str().ok()?.split_once(' ')?;
    let credentials = credentials.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(credentials.as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = STANDARD.decode(credentials).ok()?;
    let colon = pair.iter().position(|&byte| byte == b':')?;
    pair.get(colon + 1..).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(auth: &Auth, values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).expect("visible"));
        }
        check(auth, &headers).is_ok()
    }

    fn with_token() -> Auth {
        super::super::tests::configuration(
            "self_telemetry: {auth: {enabled: true, bearer_token: 's3cret:x'}}\n",
        )
        .self_telemetry
        .auth
    }

    #[test]
    fn the_token_gets_in_as_bearer_and_as_password_of_any_user() {
        let auth = with_token();
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for value in [
            "Bearer s3cret:x",
            "bearer s3cret:x",
            "BEARER  s3cret:x",
            &basic("x:s3cret:x"),
            &basic(":s3cret:x"),
        ] {
            assert!(answer(&auth, &[value]), "{value}");
        }
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer s3cret",
            "Bearer s3cret:xx",
            "s3cret:x",
            "Token s3cret:x",
            "Basic s3cret:x",
            "Basic ",
            &basic("s3cret:x"),
            &basic("x:"),
            &basic("s3cret:x:"),
        ] {
            assert!(!answer(&auth, &[value]), "{value}");
        }
        assert!(!answer(&auth, &[]));
        assert!(!answer(&auth, &["Bearer s3cret:x", "Bearer s3cret:x"]));
    }

    #[test]
    fn without_authentication_anyone_gets_in() {
        assert!(answer(&Auth::default(), &[]));
        assert!(answer(&Auth::default(), &["Bearer whatever"]));
    }
}
