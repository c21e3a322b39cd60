//! `/debug/pprof/self/…`: this process, in the same forms.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use utoipa::IntoParams;

use super::answer::{TEXT, text};
use super::profile::{seconds, wants_text};
use super::{DebugIsOn, GoError, legacy_text, own_heap, own_profile, own_threads};
use crate::export::{self, Format};
use crate::model::Profile;
use crate::server::api::flamegraph::export_error;
use crate::server::api::gate::Cancelled;
use crate::server::api::parameters::Parameters;
use crate::server::api::{Download, accepts_gzip};
use crate::server::{ApiError, App, ErrorBody};

/// How profiles of this process are described.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "the description of an interface")]
pub struct OwnParameters {
    /// 1 or 2 for text.
    debug: Option<String>,
}

/// How a CPU profile of this process is described.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "the description of an interface")]
pub struct OwnCaptureParameters {
    /// How long.
    #[param(minimum = 1, maximum = 300, default = 30)]
    seconds: Option<u32>,
    /// Samples a second of CPU time.
    #[param(minimum = 1, maximum = 999, default = 99)]
    frequency: Option<u32>,
    /// 1 or 2 for text.
    debug: Option<String>,
}

/// The command line of this server
#[utoipa::path(
    get, path = "/debug/pprof/cmdline", tag = "debug",
    responses(
        (status = 200, description = "Arguments, separated by NUL", body = String, content_type = "text/plain"),
        (status = 404, description = "self_telemetry.debug is off", body = ErrorBody),
    )
)]
pub async fn cmdline(_: DebugIsOn, State(_app): State<Arc<App>>) -> Download {
    command_line()
}

/// The command line of this server
#[utoipa::path(
    get, path = "/debug/pprof/self/cmdline", tag = "debug",
    responses(
        (status = 200, description = "Arguments, separated by NUL", body = String, content_type = "text/plain"),
        (status = 404, description = "self_telemetry.debug is off", body = ErrorBody),
    )
)]
pub async fn own_cmdline(_: DebugIsOn, State(_app): State<Arc<App>>) -> Download {
    command_line()
}

fn command_line() -> Download {
    let arguments: Vec<String> =
        std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    text(arguments.join("\0"))
}

/// CPU time of this server
#[utoipa::path(
    get, path = "/debug/pprof/self/profile", tag = "debug", params(OwnCaptureParameters),
    responses(
        (status = 200, description = "A profile", content(
            (String = "application/octet-stream"), (String = "text/plain"))),
        (status = 400, description = "A parameter is malformed", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 404, description = "self_telemetry.debug is off", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 429, description = "One is being taken already", content((String = "text/plain"), (ErrorBody = "application/json"))),
    )
)]
pub async fn own_profile(
    _: DebugIsOn,
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Download, GoError> {
    let parameters = Parameters::parse(query.as_deref(), &[&["seconds", "frequency", "debug"]])?;
    let duration = seconds(&parameters)?;
    let frequency_hz = parameters.number("frequency", 1, 999)?.unwrap_or(99);
    let place = Arc::clone(&app.debug.own_profile).try_acquire_owned().map_err(|_| {
        ApiError::too_many("a profile of this server is being taken already", duration.as_secs().min(30))
    })?;
    let cancelled = Cancelled::default();
    let _on_drop = cancelled.on_drop();
    let as_text = wants_text(&parameters);
    let gzip = accepts_gzip(&headers);
    let work = move || {
        let frequency_hz = i32::try_from(frequency_hz).unwrap_or(99);
        let profile = own_profile::take(frequency_hz, duration, &|| cancelled.is_set());
        drop(place);
        let profile =
            profile.map_err(|error| ApiError::internal("this server cannot be profiled", &error))?;
        send(&profile, as_text, "spanflame-self-cpu.pb.gz", gzip)
    };
    let worked = tokio::task::spawn_blocking(work).await;
    Ok(worked.map_err(|error| ApiError::internal("this server cannot be profiled", &error))??)
}

/// Resident memory of this server, by mapping
#[utoipa::path(
    get, path = "/debug/pprof/self/heap", tag = "debug", params(OwnParameters),
    responses(
        (status = 200, description = "A profile", content(
            (String = "application/octet-stream"), (String = "text/plain"))),
        (status = 400, description = "A parameter is malformed", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 404, description = "self_telemetry.debug is off", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 503, description = "Too many queries at once", content((String = "text/plain"), (ErrorBody = "application/json"))),
    )
)]
pub async fn own_heap(
    _: DebugIsOn,
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Download, GoError> {
    let as_text = wants_text(&Parameters::parse(query.as_deref(), &[&["debug", "gc"]])?);
    let gzip = accepts_gzip(&headers);
    let taken = app.queries.run(move |_| {
        let memory = own_heap::read()
            .map_err(|error| ApiError::internal("the memory of this server cannot be read", &error))?;
        if as_text {
            return Ok(text(own_heap::as_text(&memory)));
        }
        send(&own_heap::profile(&memory), false, "spanflame-self-heap.pb.gz", gzip)
    });
    Ok(taken.await?)
}

/// Threads of this server, and what they wait for
#[utoipa::path(
    get, path = "/debug/pprof/self/threads", tag = "debug", params(OwnParameters),
    responses(
        (status = 200, description = "A profile", content(
            (String = "application/octet-stream"), (String = "text/plain"))),
        (status = 400, description = "A parameter is malformed", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 404, description = "self_telemetry.debug is off", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 503, description = "Too many queries at once", content((String = "text/plain"), (ErrorBody = "application/json"))),
    )
)]
pub async fn own_threads(
    _: DebugIsOn,
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Download, GoError> {
    let as_text = wants_text(&Parameters::parse(query.as_deref(), &[&["debug"]])?);
    let gzip = accepts_gzip(&headers);
    let taken = app.queries.run(move |_| {
        let profile = own_threads::profile(&own_threads::read());
        send(&profile, as_text, "spanflame-self-threads.pb.gz", gzip)
    });
    Ok(taken.await?)
}

/// What there is not of this server
#[utoipa::path(
    get, path = "/debug/pprof/self/{name}", tag = "debug",
    params(("name" = String, Path, description = "What Go has besides")),
    responses((status = 404, description = "What there is", content((String = "text/plain"), (ErrorBody = "application/json"))))
)]
pub async fn own_others(_: DebugIsOn, Path(name): Path<String>) -> GoError {
    let there = "profile, heap, threads, cmdline, symbol";
    ApiError::not_found(format!("{name}: there is no such profile of this server. There are: {there}")).into()
}

fn send(profile: &Profile, as_text: bool, name: &str, gzip: bool) -> Result<Download, ApiError> {
    if as_text {
        return Ok(Download::new(legacy_text::write(profile).into_bytes(), TEXT).compress(gzip));
    }
    let mut bytes = Vec::new();
    export::write(profile, Format::Pprof, &mut bytes, &export::Options::default()).map_err(export_error)?;
    let mut download = Download::new(bytes, "application/octet-stream");
    download.file_name = Some(name.to_owned());
    Ok(download)
}
