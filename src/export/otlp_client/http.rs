//! Requests by HTTP.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT as USER_AGENT_HEADER};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prost::Message;

use super::answer::{Answer, Failure, FailureKind};
use super::signal::Signal;
use super::target::{Manner, TargetError};
use crate::export::http_client::{self, USER_AGENT, one_line, retry_after, root_cause};
use crate::export::otlp_json;

/// Answers beyond this are not read (specification of OTLP: 4 MiB).
const ANSWER_LIMIT_BYTES: usize = 4 << 20;

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

pub(super) struct Client {
    client: HyperClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    encoding: Encoding,
    gzip: bool,
    /// By signal, in the order of [`Signal::ALL`].
    urls: [Uri; 3],
    headers: HeaderMap,
}

impl Client {
    pub(super) fn new(manner: Manner, encoding: Encoding) -> Result<Self, TargetError> {
        let connector = http_client::connector(manner.tls, manner.timeout)
            .map_err(|http_client::NoTls(reason)| TargetError::Tls { reason })?;
        let client = HyperClient::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .build(connector);

        let mut urls = Vec::new();
        for signal in Signal::ALL {
            let url = format!("{}{}", manner.url, path(signal));
            urls.push(url.parse().map_err(|error: http::uri::InvalidUri| TargetError::Endpoint {
                endpoint: manner.url.clone(),
                reason: error.to_string(),
            })?);
        }
        let urls = urls.try_into().map_err(|_| TargetError::Endpoint {
            endpoint: manner.url.clone(),
            reason: "a signal has no path".to_owned(),
        })?;
        let mut headers = manner.headers;
        headers.insert(USER_AGENT_HEADER, HeaderValue::from_static(USER_AGENT));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(encoding.content_type()));
        headers.insert(ACCEPT, HeaderValue::from_static(encoding.content_type()));
        if manner.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(Self { client, encoding, gzip: manner.gzip, urls, headers })
    }

    pub(super) async fn send(&self, signal: Signal, message: Bytes) -> Result<Answer, Failure> {
        let (encoding, gzip) = (self.encoding, self.gzip);
        let body = match (encoding, gzip) {
            (Encoding::Protobuf, false) => message,
            // Seconds for the largest: not on a thread that others wait for.
            _ => tokio::task::spawn_blocking(move || encode(signal, &message, encoding, gzip))
                .await
                .map_err(|_| Failure::permanent("the request could not be encoded"))??,
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        let [profiles, metrics, traces] = &self.urls;
        *request.uri_mut() = match signal {
            Signal::Profiles => profiles.clone(),
            Signal::Metrics => metrics.clone(),
            Signal::Traces => traces.clone(),
        };
        *request.headers_mut() = self.headers.clone();
        let response =
            self.client.request(request).await.map_err(|error| Failure::transient(root_cause(&error)))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT_BYTES).collect().await;
        if head.status.is_success() {
            // Whatever an answer that cannot be read says, the request was taken.
            let body = body.map(Collected::to_bytes).unwrap_or_default();
            return Ok(match is_json(&head.headers) {
                true => Answer::from_json(&body),
                false => Answer::from_protobuf(&body),
            });
        }
        let body = body.map(Collected::to_bytes).unwrap_or_default();
        Err(failure(head.status, &head.headers, &body))
    }
}

fn path(signal: Signal) -> &'static str {
    match signal {
        Signal::Profiles => "/v1development/profiles",
        Signal::Metrics => "/v1/metrics",
        Signal::Traces => "/v1/traces",
    }
}

fn encode(signal: Signal, message: &[u8], encoding: Encoding, gzip: bool) -> Result<Bytes, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::permanent(format!("cannot be encoded: {error}"));
    let mut body = match encoding {
        Encoding::Protobuf => message.to_vec(),
        Encoding::Json => {
            otlp_json::from_protobuf(message, signal.schema()).map_err(|error| failed(&error))?
        }
    };
    if gzip {
        use std::io::Write;
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&body).map_err(|error| failed(&error))?;
        body = encoder.finish().map_err(|error| failed(&error))?;
    }
    Ok(body.into())
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// What a status means for the request (specification of OTLP, "OTLP/HTTP, Failures").
fn failure(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
    let said = said_in(headers, body);
    let message = match said.is_empty() {
        true => format!("HTTP {status}"),
        false => format!("HTTP {status}: {said}"),
    };
    let kind = match status.as_u16() {
        429 | 502 | 503 | 504 => {
            FailureKind::Transient { not_before: retry_after(headers, SystemTime::now()) }
        }
        _ => FailureKind::Permanent,
    };
    Failure { message, kind }
}

/// google.rpc.Status, as far as it is shown.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(string, tag = "2")]
    message: String,
}

/// What the body of an error says.
fn said_in(headers: &HeaderMap, body: &[u8]) -> String {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if is_json(headers) {
        let parsed: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        return one_line(parsed.get("message").and_then(|message| message.as_str()).unwrap_or(""));
    }
    if content_type.starts_with("application/x-protobuf") {
        return one_line(&RpcStatus::decode(body).unwrap_or_default().message);
    }
    if content_type.starts_with("text/plain") {
        return one_line(&String::from_utf8_lossy(body));
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use http::header::RETRY_AFTER;

    use super::*;

    #[test]
    fn statuses_that_may_be_repeated_are_those_of_the_specification() {
        for status in [400, 401, 403, 404, 408, 413, 415, 429, 500, 501, 502, 503, 504] {
            let status = StatusCode::from_u16(status).expect("a status");
            let transient = matches!(status.as_u16(), 429 | 502 | 503 | 504);
            let kind = failure(status, &HeaderMap::new(), b"").kind;
            assert_eq!(kind != FailureKind::Permanent, transient, "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sat, 21 Nov 2026 10:00:00 GMT").expect("a date");
        let after = |value: &'static str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
            retry_after(&headers, now)
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("Sat, 21 Nov 2026 10:00:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(after("Sat, 21 Nov 2026 09:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn what_the_receiver_says_is_shown() {
        let said = |kind: &'static str, body: &[u8]| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
            failure(StatusCode::BAD_REQUEST, &headers, body).message
        };
        let status = RpcStatus { message: "no\nprofiles".to_owned() }.encode_to_vec();
        assert_eq!(said("application/x-protobuf", &status), "HTTP 400 Bad Request: no profiles");
        assert_eq!(said("application/json", br#"{"message":"x"}"#), "HTTP 400 Bad Request: x");
        assert_eq!(said("text/html", b"<html>"), "HTTP 400 Bad Request");
    }
}
