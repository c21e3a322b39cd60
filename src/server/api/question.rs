//! A question to the store as requests ask it: up to this moment, and with an answer for those who slept.

use crate::model::{Profile, SpanId, TraceId, ValueType};
use crate::server::{ApiError, App};
use crate::store::{Answer, Detail, ProfileQuery, Selector, TimeRange, WindowValues};

use super::gate::Cancelled;
use super::moment::now_unix_ns;
use super::parameters::Parameters;
use super::{presence, selector};

/// A range whose end is not older than this may have a part in a window that is still open.
const OPEN_WINDOW_NS: u64 = 25_000_000_000;

/// Of what, and when.
#[derive(Debug, Clone)]
pub struct Question {
    /// Of what.
    pub selector: Selector,
    /// When.
    pub range: TimeRange,
}

impl Question {
    /// Reads it from the parameters of a request.
    ///
    /// # Errors
    /// 400, naming the parameter.
    pub fn new(parameters: &Parameters) -> Result<Self, ApiError> {
        let selector = selector::selector(parameters)?;
        let range = selector::range(parameters, now_unix_ns())?;
        Ok(Self { selector, range })
    }

    /// The windows that have something of it, by their start. Blocks.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn windows(&self, app: &App, cancelled: &Cancelled) -> Result<WindowValues, ApiError> {
        catch_up(app, self.range);
        cancelled.check()?;
        let selector = with_aliases(app, self.selector.clone())?;
        let found = app.store.windows(&selector, self.range).map_err(narrower)?;
        cancelled.check()?;
        if !found.matched {
            presence::check(app, &self.selector, self.range, found.coverage.windows)?;
        }
        Ok(found)
    }

    /// Asks for the profile. Blocks.
    ///
    /// # Errors
    /// 404 if there never was such a thing in the range; 413; what the store says.
    pub fn ask(&self, app: &App, detail: Detail, cancelled: &Cancelled) -> Result<Answer, ApiError> {
        catch_up(app, self.range);
        cancelled.check()?;
        let selector = with_aliases(app, self.selector.clone())?;
        let query = ProfileQuery { selector, range: self.range, detail };
        let mut answer = app.store.profile(&query).map_err(narrower)?;
        cancelled.check()?;
        if !answer.matched {
            presence::check(app, &self.selector, self.range, answer.coverage.windows)?;
        }
        if answer.coverage.windows == 0 {
            answer.profile = nothing(&self.selector, self.range);
        }
        Ok(answer)
    }
}

/// Samples of a request that an SDK tells of carry the ids that our span had before that was known: whoever asks
/// for the trace or the span by either name gets all of them.
///
/// # Errors
/// What the store says.
pub fn with_aliases(app: &App, selector: Selector) -> Result<Selector, ApiError> {
    if selector.trace_id.is_none() && selector.span_id.is_none() {
        return Ok(selector);
    }
    let trace_id = selector.trace_id.as_ref().and_then(|text| TraceId::from_hex(text.as_bytes()));
    let span_id = selector.span_id.as_ref().and_then(|text| SpanId::from_hex(text.as_bytes()));
    let aliases = app.store.span_aliases(trace_id, span_id)?;
    if aliases.is_empty() {
        return Ok(selector);
    }
    let (traces, spans): (Vec<TraceId>, Vec<SpanId>) = aliases.into_iter().unzip();
    Ok(Selector {
        trace_id: None,
        span_id: None,
        traces: trace_id.map(|own| traces.into_iter().chain([own]).collect()),
        spans: span_id.map(|own| spans.into_iter().chain([own]).collect()),
        ..selector
    })
}

/// Has the open window kept, if the range has a part in it. Blocks.
pub fn catch_up(app: &App, range: TimeRange) {
    let Some(recorder) = &app.recorder else { return };
    if range.to_unix_ns.saturating_add(OPEN_WINDOW_NS) < now_unix_ns() {
        return;
    }
    app.queries.catch_up(|| {
        if let Err(error) = recorder.catch_up() {
            // The answer says what it covers.
            tracing::debug!("a query goes without the open window: {error}");
        }
    });
}

/// Has the spans that wait kept. Blocks, for milliseconds.
pub fn catch_up_with_spans(app: &App) {
    if !app.spans.flush() {
        tracing::debug!("a query goes without the latest spans");
    }
}

/// What is too much is told with what would be less.
#[must_use]
pub fn narrower(error: crate::store::StoreError) -> ApiError {
    let error = ApiError::from(error);
    if error.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
        let message = format!("{}: ask for a shorter range, one service, or one process", error.message());
        return ApiError::new(error.status(), message);
    }
    error
}

/// The profile of a time in which nothing was recorded.
pub fn nothing(selector: &Selector, range: TimeRange) -> Profile {
    let (start_unix_ns, duration_ns) = (range.from_unix_ns, range.to_unix_ns - range.from_unix_ns);
    let (kind, unit) = match selector.profile_type.split_once('/') {
        Some((kind, unit)) => (kind, unit),
        None => match selector.profile_type.as_str() {
            kind @ ("cpu" | "offcpu" | "wall" | "lock" | "gpu") => (kind, "nanoseconds"),
            kind => (kind, "count"),
        },
    };
    let mut value_types = vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")];
    let asked = ValueType::new(kind, unit);
    let default_value = value_types.iter().position(|known| *known == asked).unwrap_or_else(|| {
        value_types.truncate(1);
        value_types.push(asked);
        1
    });
    Profile { value_types, default_value, start_unix_ns, duration_ns, ..Profile::default() }
}
