//! Answers as `go tool pprof` wants them.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use crate::server::ApiError;
use crate::server::api::Download;

/// What `net/http/pprof` sends texts as.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// An error as text: the tool prints the body if the header says that it may.
#[derive(Debug)]
pub struct GoError(ApiError);

impl From<ApiError> for GoError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl From<crate::store::StoreError> for GoError {
    fn from(error: crate::store::StoreError) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for GoError {
    fn into_response(self) -> Response {
        let text = format!("{}\n", self.0.message());
        let mut response = (self.0.status(), text).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert("x-go-pprof", HeaderValue::from_static("1"));
        if let Some(seconds) = self.0.retry_after_s() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A text.
pub fn text(text: String) -> Download {
    Download::new(text.into_bytes(), TEXT)
}
