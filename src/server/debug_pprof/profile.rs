//! `/debug/pprof/profile`: CPU time, of the next seconds or of what is stored.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use utoipa::IntoParams;

use super::{DebugIsOn, GoError, capture, legacy_text};
use crate::export::{self, Format};
use crate::model::{GIT_SHA, Label, LabelValue, Profile};
use crate::process::LivingProcess;
use crate::profile::live::CaptureOptions;
use crate::server::api::flamegraph::{export_error, file_name, main_first};
use crate::server::api::moment::now_unix_ns;
use crate::server::api::parameters::Parameters;
use crate::server::api::question::Question;
use crate::server::api::selector::{RANGE, RangeParameters, SELECTORS, SelectorParameters, selector};
use crate::server::api::{Download, accepts_gzip, complete_share, presence};
use crate::server::{ApiError, App, ErrorBody};
use crate::store::{Coverage, Detail, Selector, TimeRange};

/// What Go takes for `seconds` when there is none. Go also does when it makes no sense; here that is malformed like
/// any other parameter (INTERFACE.md), rather than thirty seconds in which somebody waits for a message.
const DEFAULT_SECONDS: u64 = 30;
/// The longest capture. What is longer is better taken from the store.
const MOST_SECONDS: u64 = 300;
const DEFAULT_FREQUENCY_HZ: u64 = 99;
const MOST_FREQUENCY_HZ: u64 = 999;
/// A service that has just ended may be begun anew while we look on.
const RECENT_NS: u64 = 15 * 60 * 1_000_000_000;

/// How a capture is described.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "the description of an interface")]
pub struct CaptureParameters {
    /// How long to look on.
    #[param(minimum = 1, maximum = 300, default = 30)]
    seconds: Option<u32>,
    /// Samples a second and CPU.
    #[param(minimum = 1, maximum = 999, default = 99)]
    frequency: Option<u32>,
    /// 1 or 2 for text.
    debug: Option<String>,
}

/// CPU time, of the next seconds or of what is stored
///
/// With `from` or `to` it is answered from the store, else by looking on for `seconds` at `frequency`, which
/// leaves what is stored as it is.
#[utoipa::path(
    get, path = "/debug/pprof/profile", tag = "debug",
    params(SelectorParameters, RangeParameters, CaptureParameters),
    responses(
        (status = 200, description = "A profile", content(
            (String = "application/octet-stream"), (String = "text/plain"))),
        (status = 400, description = "A parameter is malformed", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 403, description = "The kernel does not permit it", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 404, description = "There is no such process", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 413, description = "More than can be sent at once", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 429, description = "Too many captures at once", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 503, description = "Too many queries at once", content((String = "text/plain"), (ErrorBody = "application/json"))),
    )
)]
pub async fn profile(
    _: DebugIsOn,
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, GoError> {
    let own = ["seconds", "frequency", "debug"];
    let parameters = Parameters::parse(query.as_deref(), &[SELECTORS, RANGE, &own])?;
    let sending = Sending { as_text: wants_text(&parameters), gzip: accepts_gzip(&headers) };
    if parameters.get("from").is_some() || parameters.get("to").is_some() {
        return Ok(stored(app, &parameters, sending).await?.into_response());
    }
    Ok(live(app, &parameters, sending).await?)
}

/// Whether `debug` asks for text.
pub fn wants_text(parameters: &Parameters) -> bool {
    // What is no number counts as 0, as in Go.
    parameters.get("debug").and_then(|text| text.parse::<i64>().ok()).is_some_and(|level| level > 0)
}

/// How long to look on.
pub fn seconds(parameters: &Parameters) -> Result<Duration, ApiError> {
    let seconds = parameters.number("seconds", 1, u64::MAX)?.unwrap_or(DEFAULT_SECONDS);
    if seconds > MOST_SECONDS {
        let message = format!(
            "seconds: {seconds} is too long; {MOST_SECONDS} is the most, and from= and to= reach further back"
        );
        return Err(ApiError::invalid("seconds", message));
    }
    Ok(Duration::from_secs(seconds))
}

/// As what a profile is sent.
#[derive(Debug, Clone, Copy)]
struct Sending {
    as_text: bool,
    gzip: bool,
}

impl Sending {
    /// An answer without its bytes.
    fn head(self, name: String) -> Download {
        if self.as_text {
            return super::answer::text(String::new());
        }
        let mut download = Download::new(Vec::new(), "application/octet-stream");
        download.file_name = Some(name);
        download
    }

    fn write(self, profile: &Profile) -> Result<Vec<u8>, ApiError> {
        if self.as_text {
            return Ok(legacy_text::write(profile).into_bytes());
        }
        let mut bytes = Vec::new();
        export::write(profile, Format::Pprof, &mut bytes, &export::Options::default())
            .map_err(export_error)?;
        Ok(bytes)
    }
}

async fn stored(app: Arc<App>, parameters: &Parameters, sending: Sending) -> Result<Download, ApiError> {
    for name in ["seconds", "frequency"] {
        if parameters.get(name).is_some() {
            let message = format!("{name}: it is for a capture; from= and to= ask for what is stored");
            return Err(ApiError::invalid(name, message));
        }
    }
    let question = Question::new(parameters)?;
    let asked = Arc::clone(&app);
    app.queries
        .run(move |cancelled| {
            let mut answer = question.ask(&asked, Detail::Labels, cancelled)?;
            main_first(&mut answer.profile, &question.selector);
            cancelled.check()?;
            let name = file_name(&question.selector, &answer.coverage, "pb.gz");
            let mut download = sending.head(name);
            download.bytes = sending.write(&answer.profile)?;
            let share = complete_share(&answer.profile, answer.profile.default_value);
            Ok(download.covering(answer.coverage, share).compress(sending.gzip))
        })
        .await
}

async fn live(app: Arc<App>, parameters: &Parameters, sending: Sending) -> Result<Response, ApiError> {
    let selector = selector(parameters)?;
    let duration = seconds(parameters)?;
    let frequency_hz = parameters.number("frequency", 1, MOST_FREQUENCY_HZ)?.unwrap_or(DEFAULT_FREQUENCY_HZ);
    if !matches!(selector.profile_type.as_str(), "cpu" | "cpu/nanoseconds" | "samples" | "samples/count") {
        let message = format!("type {} is not captured; there is: cpu", selector.profile_type);
        return Err(ApiError::not_found(message));
    }
    for (name, id) in [("trace_id", &selector.trace_id), ("span_id", &selector.span_id)] {
        if id.is_some() {
            let message = format!("{name}: it selects what is stored; give from= or to=");
            return Err(ApiError::invalid(name, message));
        }
    }
    if app.recorder.is_none() {
        return Err(ApiError::not_found("agent.ebpf.enabled is off, and captures with it"));
    }
    let asked = Arc::clone(&app);
    let selected = selector.clone();
    app.queries.run(move |_| exists(&asked, &selected)).await?;

    let pid = selector.pid.and_then(|pid| u32::try_from(pid).ok());
    let frequency_hz = u32::try_from(frequency_hz).unwrap_or(u32::MAX);
    let name = file_name(&selector, &Coverage::default(), "pb.gz");
    let write = move |mut profile: Profile| {
        let Selector { service, container, thread, git_sha, .. } = &selector;
        if [service, container, thread, git_sha].into_iter().any(Option::is_some) {
            profile.keep_samples(|labels| is_selected(labels, &selector));
        }
        let written = sending.write(&profile);
        written.inspect_err(|error| tracing::error!("a capture is lost: {}", error.message())).ok()
    };
    let body = capture::begin(&app, CaptureOptions { pid, frequency_hz, duration }, write).await?;
    let mut response = sending.head(name).into_response();
    *response.body_mut() = axum::body::Body::new(body);
    response.headers_mut().remove(header::CONTENT_LENGTH);
    Ok(response)
}

/// Whether what a capture is of is there, or was a moment ago. Blocks.
fn exists(app: &App, selector: &Selector) -> Result<(), ApiError> {
    if *selector == Selector::of_type(&selector.profile_type) {
        return Ok(());
    }
    let now = now_unix_ns();
    let range = TimeRange { from_unix_ns: now.saturating_sub(RECENT_NS), to_unix_ns: now };
    let is_alive = presence::is_alive(selector, u64::MAX);
    let gone = || ApiError::not_found(format!("there is no {}", presence::described(selector)));
    if let Some(pid) = selector.pid {
        let process = u32::try_from(pid).ok().and_then(LivingProcess::read);
        // Another process of this number would be another one.
        return if process.is_some() && is_alive { Ok(()) } else { Err(gone()) };
    }
    if is_alive {
        return Ok(());
    }
    let timeline = app.store.timeline(
        &Selector { profile_type: "cpu".to_owned(), ..selector.clone() },
        range,
        RECENT_NS,
    )?;
    if timeline.matched { Ok(()) } else { Err(gone()) }
}

/// Whether a sample of these labels is selected, as the store selects.
fn is_selected(labels: &[Label], selector: &Selector) -> bool {
    let value = |key: &str| labels.iter().find(|label| label.key == key).map(|label| &label.value);
    let text = |key: &str| match value(key) {
        Some(LabelValue::Text(text)) => text.as_str(),
        _ => "",
    };
    let number = |key: &str| match value(key) {
        Some(LabelValue::Number(number)) => Some(*number),
        _ => None,
    };
    selector.pid.is_none_or(|pid| number("pid") == Some(pid))
        && selector.service.as_ref().is_none_or(|service| text("service") == service)
        && selector.selects_git_sha(text(GIT_SHA))
        && selector.container.as_ref().is_none_or(|container| {
            let id = text("container_id");
            id == container || container.len() >= 12 && id.starts_with(container.as_str())
        })
        && selector.thread.as_ref().is_none_or(|thread| {
            text("thread_name") == thread || thread.parse::<i64>().is_ok_and(|tid| number("tid") == Some(tid))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(query: &str) -> Parameters {
        Parameters::parse(Some(query), &[&["seconds", "debug"]]).unwrap()
    }

    #[test]
    fn seconds_are_thirty_unless_they_are_said_and_never_guessed() {
        for (query, expected) in [("", 30), ("seconds=1", 1), ("seconds=300", 300)] {
            assert_eq!(seconds(&parsed(query)).unwrap().as_secs(), expected, "{query}");
        }
        for query in ["=", "=0", "=-5", "=1.5", "=x", "=99999999999999999999", "=301"] {
            let query = format!("seconds{query}");
            assert_eq!(seconds(&parsed(&query)).unwrap_err().status(), 400, "{query}");
        }
    }

    #[test]
    fn debug_is_text_from_one_on() {
        for (query, expected) in
            [("", false), ("debug=0", false), ("debug=1", true), ("debug=2", true), ("debug=x", false)]
        {
            assert_eq!(wants_text(&parsed(query)), expected, "{query}");
        }
    }

    #[test]
    fn labels_are_selected_as_the_store_selects_them() {
        let id = "0123456789abcdef".repeat(4);
        let labels = [
            Label::text("container_id", &id),
            Label::text(GIT_SHA, "0123456789abcdef"),
            Label::number("pid", 7),
            Label::text("service", "shop"),
            Label::text("thread_name", "worker"),
            Label::number("tid", 9),
        ];
        let some = |text: &str| Some(text.to_owned());
        let cpu = || Selector::of_type("cpu");
        for selector in [
            cpu(),
            Selector { pid: Some(7), service: some("shop"), ..cpu() },
            Selector { container: some("0123456789ab"), ..cpu() },
            Selector { container: Some(id), ..cpu() },
            Selector { thread: some("worker"), ..cpu() },
            Selector { thread: some("9"), ..cpu() },
            Selector { git_sha: some("0123456"), ..cpu() },
        ] {
            assert!(is_selected(&labels, &selector), "{selector:?}");
        }
        for selector in [
            Selector { pid: Some(8), ..cpu() },
            Selector { service: some(""), ..cpu() },
            Selector { container: some("0123456789a"), ..cpu() },
            Selector { thread: some("7"), ..cpu() },
            Selector { git_sha: some("1234567"), ..cpu() },
            Selector { thread: some("worker"), service: some("cart"), ..cpu() },
        ] {
            assert!(!is_selected(&labels, &selector), "{selector:?}");
        }
        assert!(is_selected(&[], &Selector { service: some(""), ..cpu() }));
    }
}
