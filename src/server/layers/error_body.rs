//! Gives the errors that come from the framework (no such path, another method, a body that is too large or
//! of another type, a panic) the body that all errors have.
//!
//! Errors that a handler made are JSON already; those for `go tool pprof` are text and marked as such.

use std::any::Any;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;

use crate::server::ApiError;

/// Replaces bodies of errors that are not of our form. Must stand outside of everything that answers.
pub async fn error_body(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || is_answer_of_ours(response.headers()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    // There are seven statuses of errors here (INTERFACE.md), and this is no other matter than 400.
    let status = if status == StatusCode::UNPROCESSABLE_ENTITY { StatusCode::BAD_REQUEST } else { status };
    let said = text_of(body).await;
    let message = match (status, said.as_str()) {
        (StatusCode::NOT_FOUND, "") => format!("there is nothing at {path}"),
        (StatusCode::METHOD_NOT_ALLOWED, _) => format!("{path} cannot be asked with {method}"),
        (_, "") => status.canonical_reason().unwrap_or("the request cannot be answered").to_owned(),
        (_, said) => said.to_owned(),
    };
    let mut response = ApiError::new(status, message).into_response();
    for (name, value) in &parts.headers {
        if !matches!(*name, header::CONTENT_TYPE | header::CONTENT_LENGTH) {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}

/// What a panic is answered with. What it said is in the log.
pub fn of_panic(_said: Box<dyn Any + Send + 'static>) -> Response {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "spanflame has a bug here; its log says where")
        .into_response()
}

fn is_answer_of_ours(headers: &HeaderMap) -> bool {
    let is_plain = match headers.get(header::CONTENT_TYPE) {
        None => true,
        Some(kind) => kind.as_bytes().starts_with(b"text/plain"),
    };
    !is_plain || headers.contains_key("x-go-pprof")
}

/// The first kilobyte or so; those of the framework are short.
async fn text_of(body: Body) -> String {
    let mut body = body;
    match body.frame().await {
        Some(Ok(frame)) => {
            let data = frame.into_data().unwrap_or_else(|_| Bytes::new());
            String::from_utf8_lossy(data.get(..data.len().min(1024)).unwrap_or_default()).into_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::DefaultBodyLimit;
    use axum::routing::{get, post};
    use axum::{Json, Router, middleware};
    use serde_json::Value;
    use tower::ServiceExt;
    use tower_http::catch_panic::CatchPanicLayer;

    use super::*;

    async fn panics() -> &'static str {
        panic!("on purpose")
    }

    async fn takes(Json(body): Json<Vec<u8>>) -> String {
        body.len().to_string()
    }

    async fn for_pprof() -> impl IntoResponse {
        (StatusCode::NOT_FOUND, [("x-go-pprof", "1"), ("content-type", "text/plain")], "no heap here")
    }

    fn answer(request: Request) -> Result<(StatusCode, HeaderMap, Bytes), Box<dyn std::error::Error>> {
        let router = Router::new()
            .route("/panics", get(panics))
            .route("/takes", post(takes))
            .route("/pprof", get(for_pprof))
            .layer(DefaultBodyLimit::max(100))
            .layer(CatchPanicLayer::custom(of_panic))
            .layer(middleware::from_fn(error_body));
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(async {
            let (parts, body) = router.oneshot(request).await?.into_parts();
            Ok((parts.status, parts.headers, body.collect().await?.to_bytes()))
        })
    }

    fn is_error(
        request: Request,
        status: u16,
        code: &str,
        said: &str,
    ) -> Result<HeaderMap, Box<dyn std::error::Error>> {
        let (answered, headers, body) = answer(request)?;
        let body: Value = serde_json::from_slice(&body)?;
        assert_eq!(answered.as_u16(), status, "{body}");
        assert_eq!(body["error"], code, "{body}");
        assert!(body["message"].as_str().is_some_and(|message| message.contains(said)), "{body}");
        Ok(headers)
    }

    fn post_of(kind: &str, body: Vec<u8>) -> Result<Request, axum::http::Error> {
        Request::post("/takes").header("content-type", kind).body(Body::from(body))
    }

    #[test]
    fn errors_of_the_framework_have_the_usual_form() -> Result<(), Box<dyn std::error::Error>> {
        is_error(Request::get("/nothing").body(Body::empty())?, 404, "not_found", "/nothing")?;
        let headers = is_error(Request::get("/takes").body(Body::empty())?, 405, "invalid_request", "GET")?;
        assert_eq!(headers.get("allow").and_then(|allow| allow.to_str().ok()), Some("POST"));
        is_error(post_of("application/json", vec![b' '; 200])?, 413, "invalid_request", "")?;
        is_error(post_of("text/csv", b"1,2".to_vec())?, 415, "invalid_request", "")?;
        is_error(post_of("application/json", b"{".to_vec())?, 400, "invalid_request", "")?;
        is_error(Request::get("/panics").body(Body::empty())?, 500, "internal_error", "bug")?;
        Ok(())
    }

    #[test]
    fn what_is_right_and_what_is_for_pprof_stays_as_it_is() -> Result<(), Box<dyn std::error::Error>> {
        let (status, _, body) = answer(post_of("application/json", b"[1, 2]".to_vec())?)?;
        assert_eq!((status, body.as_ref()), (StatusCode::OK, &b"2"[..]));
        let (status, _, body) = answer(Request::get("/pprof").body(Body::empty())?)?;
        assert_eq!((status, body.as_ref()), (StatusCode::NOT_FOUND, &b"no heap here"[..]));
        Ok(())
    }
}
