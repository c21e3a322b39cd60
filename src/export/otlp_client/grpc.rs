//! Requests by gRPC. Messages are bytes already, so one call serves all signals.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use prost::Message;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Status};

use super::answer::{Answer, Failure, FailureKind};
use super::signal::Signal;
use super::target::{Manner, TargetError};
use crate::export::http_client::{USER_AGENT, one_line, root_cause};

/// Answers beyond this are refused (specification of OTLP: 4 MiB).
const ANSWER_LIMIT_BYTES: usize = 4 << 20;

pub(super) struct Client {
    channel: Channel,
    metadata: MetadataMap,
    timeout: Duration,
    gzip: bool,
}

impl Client {
    /// Connects when it is first used. Must be called within a runtime.
    pub(super) fn new(manner: &Manner) -> Result<Self, TargetError> {
        let refused = |error: tonic::transport::Error| TargetError::Endpoint {
            endpoint: manner.url.clone(),
            reason: root_cause(&error),
        };
        let mut endpoint = Endpoint::from_shared(manner.url.clone())
            .map_err(refused)?
            .connect_timeout(manner.timeout)
            .user_agent(USER_AGENT)
            .map_err(refused)?
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10));
        if manner.tls {
            let no_tls = |error: tonic::transport::Error| TargetError::Tls { reason: root_cause(&error) };
            endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(no_tls)?;
        }
        Ok(Self {
            channel: endpoint.connect_lazy(),
            metadata: MetadataMap::from_headers(manner.headers.clone()),
            timeout: manner.timeout,
            gzip: manner.gzip,
        })
    }

    pub(super) async fn send(&self, signal: Signal, message: Bytes) -> Result<Answer, Failure> {
        let mut client = tonic::client::Grpc::new(self.channel.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(ANSWER_LIMIT_BYTES);
        if self.gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        client.ready().await.map_err(|error| Failure::transient(root_cause(&error)))?;
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = self.metadata.clone();
        request.set_timeout(self.timeout);
        let path = PathAndQuery::from_static(path(signal));
        match client.unary(request, path, BytesCodec).await {
            Ok(response) => Ok(Answer::from_protobuf(&response.into_inner())),
            Err(status) => Err(failure(&status)),
        }
    }
}

fn path(signal: Signal) -> &'static str {
    match signal {
        Signal::Profiles => "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    }
}

/// What a status means for the request (specification of OTLP, "OTLP/gRPC, Failures").
fn failure(status: &Status) -> Failure {
    let cause = std::error::Error::source(status);
    let reason = cause.map_or_else(|| one_line(status.message()), root_cause);
    let message = match status.code() {
        Code::Unavailable if cause.is_some() => reason,
        code => format!("{}: {reason}", name_of(code)),
    };
    let asked_for = retry_delay(status.details());
    let kind = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => FailureKind::Transient { not_before: asked_for },
        // Only a receiver that says when will have room again.
        Code::ResourceExhausted if asked_for.is_some() => FailureKind::Transient { not_before: asked_for },
        _ => FailureKind::Permanent,
    };
    Failure { message, kind }
}

/// The code as gRPC's documents write it.
fn name_of(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// google.rpc.Status, as far as it is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<RpcAny>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RpcAny {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// google.rpc.RetryInfo.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<RpcDuration>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RpcDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// The pause that a status asks for.
fn retry_delay(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let info = status.details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay.unwrap_or_default();
    let nanos = u32::try_from(delay.nanos).unwrap_or(0).min(999_999_999);
    Some(Duration::new(u64::try_from(delay.seconds).unwrap_or(0), nanos))
}

/// Messages that are bytes already.
#[derive(Debug, Clone, Copy, Default)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_retry_info(code: Code, seconds: i64) -> Status {
        let info = RetryInfo { retry_delay: Some(RpcDuration { seconds, nanos: 500_000_000 }) };
        let type_url = "type.googleapis.com/google.rpc.RetryInfo".to_owned();
        let details = RpcStatus { details: vec![RpcAny { type_url, value: info.encode_to_vec() }] };
        Status::with_details(code, "slow down", details.encode_to_vec().into())
    }

    #[test]
    fn codes_that_may_be_repeated_are_those_of_the_specification() {
        for code in (0..17).map(Code::from_i32) {
            let transient = matches!(code as i32, 1 | 4 | 10 | 11 | 14 | 15);
            let expected = match transient {
                true => FailureKind::Transient { not_before: None },
                false => FailureKind::Permanent,
            };
            assert_eq!(failure(&Status::new(code, "x")).kind, expected, "{code:?}");
        }
    }

    #[test]
    fn the_receiver_says_when() {
        let delay = Some(Duration::from_millis(2500));
        for code in [Code::ResourceExhausted, Code::Unavailable] {
            let failure = failure(&with_retry_info(code, 2));
            assert_eq!(failure.kind, FailureKind::Transient { not_before: delay });
        }
        assert_eq!(failure(&with_retry_info(Code::InvalidArgument, 2)).kind, FailureKind::Permanent);
        assert_eq!(retry_delay(b"\xff\xff"), None);
        let failure = failure(&Status::new(Code::Unimplemented, "unknown service\nx"));
        assert_eq!(failure.message, "unimplemented: unknown service x");
    }
}
