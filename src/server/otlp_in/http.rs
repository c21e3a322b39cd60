//! OTLP by HTTP: protobuf or JSON, and the answer in what the request was written in, errors too
//! (specification of OTLP, "OTLP/HTTP").

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesPartialSuccess, ExportProfilesServiceResponse,
};
use prost::Message;

use super::not_taken_in;
use crate::export::{otlp_json, otlp_schema};
use crate::server::App;
use crate::server::intake::{Encoding, Refused, RefusedKind, Taken};

/// When a client may come again that found no room, seconds.
const COME_AGAIN_S: u64 = 5;
const OTHERS: [(&str, &str); 2] = [("/v1/metrics", "metrics"), ("/v1/logs", "logs")];

pub(super) fn router() -> Router<Arc<App>> {
    let mut router =
        Router::new().route("/v1development/profiles", post(profiles)).route("/v1/traces", post(traces));
    for (path, signal) in OTHERS {
        router = router.route(path, post(async move |headers: HeaderMap| unimplemented(&headers, signal)));
    }
    router
}

/// google.rpc.Status, as far as it is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

async fn profiles(State(app): State<Arc<App>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let encoding = match accepted_encoding(&head.headers) {
        Ok(encoding) => encoding,
        Err(refusal) => return refusal,
    };
    match app.intake.take_otlp(body, encoding, |body| Ok(body.clone())).await {
        Ok(taken) => answer(encoding, &taken, &otlp_schema::PROFILES_ANSWER),
        Err(refused) => refusal(encoding, &refused),
    }
}

async fn traces(State(app): State<Arc<App>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let encoding = match accepted_encoding(&head.headers) {
        Ok(encoding) => encoding,
        Err(refusal) => return refusal,
    };
    match app.intake.take_otlp_spans(body, encoding, |body| Ok(body.clone())).await {
        Ok(taken) => answer(encoding, &taken, &otlp_schema::TRACES_ANSWER),
        Err(refused) => refusal(encoding, &refused),
    }
}

/// How the body is written, or the answer to one that is written otherwise.
#[expect(clippy::result_large_err, reason = "it is the answer, and sent at once")]
fn accepted_encoding(headers: &HeaderMap) -> Result<Encoding, Response> {
    let Some(encoding) = encoding_of(headers) else {
        let message = "the content type is application/x-protobuf or application/json";
        return Err(failed(Encoding::Json, StatusCode::UNSUPPORTED_MEDIA_TYPE, 3, message));
    };
    let content_encoding = headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
    if !matches!(content_encoding, None | Some(b"" | b"identity" | b"gzip")) {
        let message = "a body is plain or compressed by gzip";
        return Err(failed(encoding, StatusCode::UNSUPPORTED_MEDIA_TYPE, 3, message));
    }
    Ok(encoding)
}

fn encoding_of(headers: &HeaderMap) -> Option<Encoding> {
    let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let kind = content_type.split(';').next().unwrap_or("").trim();
    if kind.eq_ignore_ascii_case("application/x-protobuf") {
        Some(Encoding::Protobuf)
    } else if kind.eq_ignore_ascii_case("application/json") {
        Some(Encoding::Json)
    } else {
        None
    }
}

fn unimplemented(headers: &HeaderMap, signal: &str) -> Response {
    let encoding = encoding_of(headers).unwrap_or(Encoding::Json);
    failed(encoding, StatusCode::NOT_IMPLEMENTED, 12, &not_taken_in(signal))
}

/// Those of all signals have the same fields; in JSON they are called otherwise.
fn answer(encoding: Encoding, taken: &Taken, schema: &otlp_schema::Message) -> Response {
    let rejected = taken.rejected_items();
    let partial_success = (rejected > 0).then(|| ExportProfilesPartialSuccess {
        rejected_profiles: i64::try_from(rejected).unwrap_or(i64::MAX),
        error_message: taken.rejection(),
    });
    let message = ExportProfilesServiceResponse { partial_success }.encode_to_vec();
    written(encoding, StatusCode::OK, message, schema)
}

fn refusal(encoding: Encoding, refused: &Refused) -> Response {
    let (status, code) = match refused.kind {
        RefusedKind::Malformed => (StatusCode::BAD_REQUEST, 3),
        RefusedKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, 8),
        RefusedKind::TooSlow => (StatusCode::REQUEST_TIMEOUT, 4),
        RefusedKind::Busy | RefusedKind::StoreFailed => (StatusCode::SERVICE_UNAVAILABLE, 14),
    };
    let mut response = failed(encoding, status, code, &refused.message);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(COME_AGAIN_S));
    }
    response
}

fn failed(encoding: Encoding, status: StatusCode, code: i32, message: &str) -> Response {
    let message = RpcStatus { code, message: message.to_owned() }.encode_to_vec();
    written(encoding, status, message, &otlp_schema::RPC_STATUS)
}

fn written(
    encoding: Encoding,
    status: StatusCode,
    message: Vec<u8>,
    schema: &otlp_schema::Message,
) -> Response {
    let (kind, body) = match encoding {
        Encoding::Protobuf => ("application/x-protobuf", message),
        // It is a message of ours, which is one of these.
        Encoding::Json => {
            ("application/json", otlp_json::from_protobuf(&message, schema).unwrap_or_default())
        }
    };
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static(kind))], Bytes::from(body)).into_response()
}
