//! `POST /api/v1/profiles`: a pprof profile that somebody made elsewhere, into the store.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::moment;
use super::api::parameters::Parameters;
use super::intake::{Refused, RefusedKind, UploadFacts};
use super::{ApiError, App};

/// A name of a service may be so long.
const MAX_SERVICE_BYTES: usize = 255;
/// A revision may be so long: SHA-256 has 64 digits, and other systems have names.
const MAX_GIT_SHA_BYTES: usize = 128;

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(upload))
}

/// What was taken of an upload.
#[derive(Debug, Serialize, ToSchema)]
struct Uploaded {
    /// Samples that are in the store now.
    samples: u64,
    /// When they begin, RFC 3339.
    from: String,
    /// When they end.
    to: String,
}

/// Puts a pprof profile into the store
///
/// The body is the profile, compressed by gzip or not, 64 MiB at most before and after decompression.
#[utoipa::path(post, path = "/api/v1/profiles", tag = "profiles",
    params(
        ("service" = Option<String>, Query, description = "Becomes the service of all samples."),
        ("git_sha" = Option<String>, Query,
            description = "Becomes the revision of all samples, by which they are found again."),
        ("from" = Option<String>, Query,
            description = "When it begins: RFC 3339, Unix seconds, or such as `-15m`. With `to`, and instead \
                           of what the profile says."),
        ("to" = Option<String>, Query, description = "When it ends."),
    ),
    request_body(content(
        (Vec<u8> = "application/octet-stream"),
        (Vec<u8> = "application/gzip"),
        (Vec<u8> = "application/x-protobuf"),
    )),
    responses(
        (status = 200, description = "It can be queried.", body = Uploaded),
        (status = 400, description = "It is no pprof profile, or a parameter is malformed.",
            body = super::ErrorBody),
        (status = 408, description = "It did not arrive in time.", body = super::ErrorBody),
        (status = 413, description = "It is larger than 64 MiB, or becomes so.", body = super::ErrorBody),
        (status = 415, description = "The content type or encoding is another.", body = super::ErrorBody),
    ))]
async fn upload(State(app): State<Arc<App>>, request: Request) -> Result<Json<Uploaded>, ApiError> {
    let facts = facts_of(request.uri().query())?;
    check_type(request.headers())?;
    let taken = app.intake.take_pprof(request.into_body(), facts).await?;
    Ok(Json(Uploaded {
        samples: taken.samples,
        from: moment::rfc3339(taken.from_unix_ns),
        to: moment::rfc3339(taken.to_unix_ns),
    }))
}

fn facts_of(query: Option<&str>) -> Result<UploadFacts, ApiError> {
    let parameters = Parameters::parse(query, &[&["service", "git_sha", "from", "to"]])?;
    let text = |name: &str, what: &str, most: usize| match parameters.get(name) {
        Some(text) if text.is_empty() || text.len() > most || text.chars().any(char::is_control) => {
            Err(ApiError::invalid(name, format!("{what} of at most {most} bytes")))
        }
        text => Ok(text.map(ToOwned::to_owned)),
    };
    let service = text("service", "a service has a name", MAX_SERVICE_BYTES)?;
    let git_sha = text("git_sha", "a revision has a name", MAX_GIT_SHA_BYTES)?;
    let now = moment::now_unix_ns();
    let time = |name: &str| {
        let text = parameters.get(name);
        text.map(|text| moment::parse(text, now).map_err(|message| ApiError::invalid(name, message)))
            .transpose()
    };
    let range = match (time("from")?, time("to")?) {
        (None, None) => None,
        (Some(from), Some(to)) if from < to => Some((from, to)),
        (Some(_), Some(_)) => return Err(ApiError::invalid("to", "`to` is not after `from`")),
        (Some(_), None) => return Err(ApiError::invalid("to", "`from` needs a `to`")),
        (None, Some(_)) => return Err(ApiError::invalid("from", "`to` needs a `from`")),
    };
    Ok(UploadFacts { service, git_sha, range })
}

/// Anything that says that it is something else is refused. The bytes themselves tell whether they are
/// compressed.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = text(header::CONTENT_TYPE).split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let is_known = [
        "",
        "application/octet-stream",
        "application/gzip",
        "application/x-gzip",
        "application/x-protobuf",
        "application/protobuf",
        "application/vnd.google.protobuf",
        // What curl's --data-binary says of everything.
        "application/x-www-form-urlencoded",
    ]
    .contains(&kind.as_str());
    let unsupported = |message: String| ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    if !is_known {
        let message = format!("{kind} is not taken: the body is a pprof profile, application/octet-stream");
        return Err(unsupported(message));
    }
    match text(header::CONTENT_ENCODING) {
        "" | "identity" | "gzip" => Ok(()),
        other => Err(unsupported(format!("a body is plain or compressed by gzip, not {other:?}"))),
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused.kind {
            RefusedKind::Malformed => Self::new(StatusCode::BAD_REQUEST, refused.message),
            RefusedKind::TooLarge => Self::new(StatusCode::PAYLOAD_TOO_LARGE, refused.message),
            RefusedKind::TooSlow => Self::new(StatusCode::REQUEST_TIMEOUT, refused.message),
            RefusedKind::Busy | RefusedKind::StoreFailed => Self::unavailable(refused.message, 5),
        }
    }
}
