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
