//! OTLP by gRPC: one message in, one out, as bytes (gRPC over HTTP2, the protocol's document).
//!
//! The bodies go through the [`Intake`](crate::server::intake::Intake) like all others, so that its
//! bounds hold here too; a server that is made from the services' description would have decoded a message
//! before anybody could look at it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesPartialSuccess, ExportProfilesServiceResponse,
};
use prost::Message;
use tonic::{Code, Status};

use super::not_taken_in;
use crate::server::App;
use crate::server::intake::{Encoding, Refused, RefusedKind, Taken};

const PROFILES: &str = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";
const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const OTHERS: [(&str, &str); 2] = [
    ("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", "metrics"),
    ("/opentelemetry.proto.collector.logs.v1.LogsService/Export", "logs"),
];
/// When a client may come again that found no room.
const COME_AGAIN: Duration = Duration::from_secs(5);
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const ACCEPTED_ENCODINGS: HeaderName = HeaderName::from_static("grpc-accept-encoding");

pub(super) fn router() -> Router<Arc<App>> {
    let mut router = Router::new().route(PROFILES, post(profiles)).route(TRACES, post(traces));
    for (path, signal) in OTHERS {
        router = router.route(path, post(async move || failed(&Status::unimplemented(not_taken_in(signal)))));
    }
    router.fallback(async || failed(&Status::unimplemented("there is no such method")))
}

async fn profiles(State(app): State<Arc<App>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if let Err(status) = check_head(&head.headers) {
        return failed(&status);
    }
    match app.intake.take_otlp(body, Encoding::Protobuf, message_of).await {
        Ok(taken) => answer(&taken),
        Err(refused) => failed(&status_of(&refused)),
    }
}

async fn traces(State(app): State<Arc<App>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if let Err(status) = check_head(&head.headers) {
        return failed(&status);
    }
    match app.intake.take_otlp_spans(body, Encoding::Protobuf, message_of).await {
        Ok(taken) => answer(&taken),
        Err(refused) => failed(&status_of(&refused)),
    }
}

fn check_head(headers: &HeaderMap) -> Result<(), Status> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let content_type = text("content-type");
    if content_type != "application/grpc" && !content_type.starts_with("application/grpc+proto") {
        return Err(Status::invalid_argument("this is gRPC: the content type is application/grpc"));
    }
    match text("grpc-encoding") {
        "" | "identity" | "gzip" => Ok(()),
        other => {
            Err(Status::unimplemented(format!("messages are plain or compressed by gzip, not {other:?}")))
        }
    }
}

/// The one message of a body: a byte that says whether it is compressed, four of length, and as many. The
/// gzip layer shows by itself.
fn message_of(body: &Bytes) -> Result<Bytes, String> {
    let Some((&[flag, a, b, c, d], _)) = body.split_first_chunk::<5>() else {
        return Err("there is no whole gRPC message in the body".to_owned());
    };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if flag > 1 || body.len() - 5 != length {
        return Err("the body is not one gRPC message".to_owned());
    }
    Ok(body.slice(5..))
}

/// Those of all signals have the same fields.
fn answer(taken: &Taken) -> Response {
    let rejected = taken.rejected_items();
    let partial_success = (rejected > 0).then(|| ExportProfilesPartialSuccess {
        rejected_profiles: i64::try_from(rejected).unwrap_or(i64::MAX),
        error_message: taken.rejection(),
    });
    let message = ExportProfilesServiceResponse { partial_success }.encode_to_vec();
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    framed.extend_from_slice(&message);
    let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))]);
    let body = Full::new(Bytes::from(framed)).with_trailers(async move { Some(Ok(trailers)) });
    let headers =
        [(header::CONTENT_TYPE, GRPC), (ACCEPTED_ENCODINGS, HeaderValue::from_static("identity,gzip"))];
    (headers, Body::new(body)).into_response()
}

/// What the layers around the routes have answered, in the form of gRPC.
pub(super) async fn as_status(response: Response) -> Response {
    if response.headers().get(header::CONTENT_TYPE) == Some(&GRPC) {
        return response;
    }
    let refused = match response.status() {
        StatusCode::UNAUTHORIZED => {
            Status::unauthenticated("authentication is needed: the token as `authorization: Bearer TOKEN`")
        }
        StatusCode::FORBIDDEN => {
            Status::permission_denied("the host or the origin of this request is not one that may ask")
        }
        // There are only methods that are called by POST.
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            Status::unimplemented("there is no such method")
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Status::unavailable("not now"),
        other => Status::unknown(other.to_string()),
    };
    failed(&refused)
}

/// An answer that is only a status. HTTP's own is 200, whatever it says.
fn failed(status: &Status) -> Response {
    let mut response = status.clone().into_http::<Body>().into_response();
    response.headers_mut().insert(ACCEPTED_ENCODINGS, HeaderValue::from_static("identity,gzip"));
    response
}

fn status_of(refused: &Refused) -> Status {
    let message = refused.message.clone();
    match refused.kind {
        RefusedKind::Malformed => Status::invalid_argument(message),
        // Without a time to come again this is for good.
        RefusedKind::TooLarge => Status::resource_exhausted(message),
        RefusedKind::TooSlow => Status::deadline_exceeded(message),
        RefusedKind::Busy | RefusedKind::StoreFailed => {
            let mut status = Status::with_details(Code::Unavailable, message, retry_info(COME_AGAIN));
            // For those who read HTTP's headers.
            status.metadata_mut().insert("retry-after", COME_AGAIN.as_secs().into());
            status
        }
    }
}

/// google.rpc.Status with google.rpc.RetryInfo, the little of both that is needed.
fn retry_info(pause: Duration) -> Bytes {
    let seconds = u8::try_from(pause.as_secs()).unwrap_or(u8::MAX).min(127);
    // RetryInfo { retry_delay: Duration { seconds } }
    let info = [0x0a, 0x02, 0x08, seconds];
    let type_url = b"type.googleapis.com/google.rpc.RetryInfo";
    // Any { type_url, value: info }, all lengths below 128.
    let mut any = vec![0x0a, type_url.len() as u8];
    any.extend_from_slice(type_url);
    any.extend_from_slice(&[0x12, info.len() as u8]);
    any.extend_from_slice(&info);
    // Status { code: UNAVAILABLE, details: [any] }
    let mut status = vec![0x08, 14, 0x1a, any.len() as u8];
    status.extend_from_slice(&any);
    status.into()
}
