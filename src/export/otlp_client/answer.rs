//! What came of a request, in the same words for gRPC and HTTP.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceResponse;
use prost::Message;

use crate::export::http_client::one_line;

/// The receiver has taken the request, or most of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Answer {
    /// Items that it did not take.
    pub(super) rejected: u64,
    /// What it says about that, or otherwise.
    pub(super) message: String,
}

/// The receiver has not taken the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Why, for a person.
    pub(super) message: String,
    pub(super) kind: FailureKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// Repeating it is of no use.
    Permanent,
    /// It may be repeated, not before so long if the receiver has said so.
    Transient { not_before: Option<Duration> },
}

impl Failure {
    pub(super) fn permanent(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: FailureKind::Permanent }
    }

    pub(super) fn transient(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: FailureKind::Transient { not_before: None } }
    }
}

impl Answer {
    /// From the answer's protobuf message. Those of all signals have the same fields. An answer that
    /// cannot be read is none: what was sent has been taken, says the status.
    pub(super) fn from_protobuf(bytes: &[u8]) -> Self {
        let Ok(response) = ExportProfilesServiceResponse::decode(bytes) else { return Self::default() };
        let Some(partial) = response.partial_success else { return Self::default() };
        Self {
            rejected: u64::try_from(partial.rejected_profiles).unwrap_or(0),
            message: one_line(&partial.error_message),
        }
    }

    /// From the answer as JSON.
    pub(super) fn from_json(bytes: &[u8]) -> Self {
        let parsed: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
        let Some(partial) = parsed.get("partialSuccess").and_then(|partial| partial.as_object()) else {
            return Self::default();
        };
        let rejected = partial.iter().find(|(key, _)| key.starts_with("rejected")).map(|(_, count)| count);
        // 64-bit numbers are text in protobuf's JSON.
        let rejected = rejected
            .and_then(|count| count.as_u64().or_else(|| count.as_str().and_then(|text| text.parse().ok())));
        let message = partial.get("errorMessage").and_then(|message| message.as_str());
        Self { rejected: rejected.unwrap_or(0), message: one_line(message.unwrap_or("")) }
    }
}
