//! `/api/v1/profiles/verdicts`: which functions differ between two times or services, and which only seem to.
//!
//! The windows of each side become runs (`check/stretches.rs` says how), and `check` decides about them as it does
//! about a build. What is decided is about a function wherever it is called, not about a place in the call tree.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::body::{Download, accepts_gzip};
use super::gate::Cancelled;
use super::moment::rfc3339;
use super::parameters::Parameters;
use super::question::Question;
use super::selector::{RANGE, RangeParameters, SELECTORS, SelectorParameters};
use crate::check::by_function::{FunctionLines, ShownName, by_function, shown_names};
use crate::check::parts::{Part, Parts, large_functions};
use crate::check::report::refusal;
use crate::check::stretches::{MOST_STRETCHES, Stretch, Windows, stretch_count};
use crate::check::{Comparison, FunctionKey, Line, Policy, Refusal, RunFacts, Side, Verdict, compare};
use crate::model::{Label, LabelValue, Profile};
use crate::server::error::ErrorBody;
use crate::server::{ApiError, App};
use crate::store::{Detail, STRETCH, WindowValue, WindowValues};

/// What the parameters of the base begin with.
const PREFIX: &str = "base_";
const BASE: &[&str] = &[
    "base_pid",
    "base_service",
    "base_container",
    "base_thread",
    "base_trace_id",
    "base_span_id",
    "base_git_sha",
    "base_from",
    "base_to",
];
/// Frames of all different stacks of a side: to take more apart would take longer than a page wants to wait.
const MOST_FRAMES: usize = 500_000;
/// Different stacks of a side.
const MOST_STACKS: usize = 100_000;
/// What sides are called in sentences: as on the page, and as in the parameters.
const LABELS: [&str; 2] = ["A (the baseline)", "B"];

/// How the base is described.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "the description of an interface")]
pub struct BaseParameters {
    /// Process id of the base. What the base is of is said by parameters of its own; only the type is that of what is
    /// compared with it.
    #[param(minimum = 1, maximum = 2_147_483_647)]
    base_pid: Option<u32>,
    /// Service of the base.
    base_service: Option<String>,
    /// Container of the base.
    #[param(min_length = 1)]
    base_container: Option<String>,
    /// Thread of the base.
    #[param(min_length = 1)]
    base_thread: Option<String>,
    /// Trace of the base.
    #[param(pattern = "^[0-9a-fA-F]{32}$")]
    base_trace_id: Option<String>,
    /// Span of the base.
    #[param(pattern = "^[0-9a-fA-F]{16}$")]
    base_span_id: Option<String>,
    /// Revision of the base.
    #[param(min_length = 1, max_length = 128)]
    base_git_sha: Option<String>,
    /// Start of the base's time, as `from`.
    #[param(
        pattern = "^(now|-([0-9]{1,6}(ms|s|m|h|d|w))+|[0-9]{1,10}([.][0-9]{1,9})?|(19[7-9][0-9]|2[0-4][0-9][0-9])-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9]))$"
    )]
    base_from: Option<String>,
    /// Its end, as `to`.
    #[param(
        pattern = "^(now|-([0-9]{1,6}(ms|s|m|h|d|w))+|[0-9]{1,10}([.][0-9]{1,9})?|(19[7-9][0-9]|2[0-4][0-9][0-9])-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9]))$"
    )]
    base_to: Option<String>,
}

/// What is said of the functions of two sides.
#[derive(Debug, Serialize, ToSchema)]
pub struct Verdicts {
    /// What is counted (`cpu`).
    r#type: String,
    /// Its unit (`nanoseconds`).
    unit: String,
    /// What is compared: `share`, of each side's total.
    basis: &'static str,
    /// Whether anything could be said.
    decided: bool,
    /// Why not, as a sentence; null if it could.
    reason: Option<String>,
    /// Functions of a smaller share on both sides are not judged.
    min_share: f64,
    /// A smaller relative change is none, however certain it is.
    min_effect: f64,
    /// How often sides that are equal may come to any verdict but `unchanged`, `inconclusive` and `moved`.
    false_alarm_level: f64,
    /// The base.
    base: VerdictSide,
    /// What is compared with it.
    new: VerdictSide,
    /// Functions that were judged, the greatest changes of the whole first. Of those that are not here nothing can
    /// be said: they are too small, have no name, or are on the stack of (nearly) everything.
    functions: Vec<FunctionVerdict>,
}

/// What a side is of.
#[derive(Debug, Serialize, ToSchema)]
pub struct VerdictSide {
    /// Start of its first window with samples, RFC 3339; null without any.
    from: Option<String>,
    /// End of the last one.
    to: Option<String>,
    /// Windows with samples.
    windows: usize,
    /// Stretches of equal cost that they were put together to, each of which counts as one run; 0 if nothing was
    /// decided.
    stretches: usize,
}

/// What is said of a function.
#[derive(Debug, Serialize, ToSchema)]
pub struct FunctionVerdict {
    /// Its name, as the new side has it.
    name: String,
    /// Path of its object.
    module: String,
    /// Source file, empty if unknown.
    file: String,
    /// Its first line, 0 if unknown.
    line: u32,
    /// What it was called, if it is known to have moved; else null.
    moved_from: Option<String>,
    /// As what flame graphs of the two sides show it.
    frames: Vec<FrameName>,
    /// Of the function by itself; null if that is too small.
    #[serde(rename = "self")]
    of_self: Option<LineVerdict>,
    /// With all that it calls; null if that is as good as `self`, of everything, too small, or on one side only.
    total: Option<LineVerdict>,
}

/// A frame of a flame graph.
#[derive(Debug, Serialize, ToSchema)]
pub struct FrameName {
    /// Name.
    name: String,
    /// Path of the object.
    module: String,
}

/// What is said of a cost.
#[derive(Debug, Serialize, ToSchema)]
pub struct LineVerdict {
    /// `regressed`: it has a greater share, by more than chance and more than `min_effect`. `improved`: a smaller
    /// one. `unchanged`: its share is shown to be within 5 % of what it was. `inconclusive`: neither could be shown.
    /// `moved`: it has another name, and no other share that could be shown.
    verdict: &'static str,
    /// Share of the base's total, 0 to 1.
    base_share: f64,
    /// Share of the new total.
    new_share: f64,
    /// The relative change of the share, 0.2 being +20 %; null if the base has (nearly) nothing of it.
    effect: Option<f64>,
    /// Lower end of the 95 % confidence interval of `effect`.
    low: Option<f64>,
    /// Its upper end; null if it has none.
    high: Option<f64>,
    /// The chance of such a difference if nothing changed, adjusted for all that was looked at.
    q_value: f64,
    /// The smallest increase that would have been found in four of five such comparisons; null if it cannot be said.
    smallest_effect: Option<f64>,
}

/// Which functions differ between two times or services, and which only seem to
///
/// The parameters of `/api/v1/profiles/flamegraph` say what is looked at, and those with `base_` before them what it
/// is compared with. Each side's windows are put together to some stretches of equal cost, and the spread between
/// these tells a change from noise. With fewer than five windows a side nothing is decided, and `reason` says so.
#[utoipa::path(
    get, path = "/api/v1/profiles/verdicts", tag = "profiles",
    params(SelectorParameters, RangeParameters, BaseParameters),
    responses(
        (status = 200, body = Verdicts),
        (status = 400, description = "A parameter is malformed", body = ErrorBody),
        (status = 404, description = "There was no such thing in the range", body = ErrorBody),
        (status = 413, description = "More than can be answered at once", body = ErrorBody),
        (status = 503, description = "Too many queries at once", body = ErrorBody),
    )
)]
pub async fn verdicts(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Download, ApiError> {
    let parameters = Parameters::parse(query.as_deref(), &[SELECTORS, RANGE, BASE])?;
    let new = Question::new(&parameters)?;
    let of_base = parameters.below(PREFIX).with("type", &new.selector.profile_type);
    let base = Question::new(&of_base).map_err(|error| of_the_base(&error))?;
    let gzip = accepts_gzip(&headers);
    let asked = Arc::clone(&app);
    app.queries
        .run(move |cancelled| {
            let verdicts = decide(&asked, &[base, new], cancelled)?;
            Ok(Download::json(&verdicts).compress(gzip))
        })
        .await
}

/// Names the parameter as the client does.
fn of_the_base(error: &ApiError) -> ApiError {
    ApiError::new(error.status(), format!("{PREFIX}{}", error.message()))
}

fn decide(app: &App, questions: &[Question; 2], cancelled: &Cancelled) -> Result<Verdicts, ApiError> {
    let [base, new] = questions;
    let base_windows = base.windows(app, cancelled).map_err(|error| match error.status().as_u16() {
        404 => ApiError::new(error.status(), format!("the base: {}", error.message())),
        _ => error,
    })?;
    let found = [base_windows, new.windows(app, cancelled)?].map(|found: WindowValues| found.windows);
    let mut verdicts = Verdicts::of(&new.selector.profile_type, &found);
    let windows = [windows_of(&found[0]), windows_of(&found[1])];
    for (windows, label) in windows.iter().zip(LABELS) {
        if let Err(why) = windows.check() {
            return Ok(verdicts.undecided(format!("{label}: {why}")));
        }
    }
    let count = stretch_count(&windows);
    let mut answers = Vec::with_capacity(2);
    for ((question, windows), label) in questions.iter().zip(&windows).zip(LABELS) {
        let stretches = windows.stretches(count);
        let starts_ns = stretches.iter().map(|stretch| stretch.from_unix_ns).collect();
        let answer = question.ask(app, Detail::Stretches(starts_ns), cancelled)?;
        if is_too_much(&answer.profile) {
            return Ok(verdicts.undecided(format!(
                "{label} has too many different stacks to be judged at once: choose one service"
            )));
        }
        cancelled.check()?;
        answers.push((answer.profile, parts_of(&stretches)));
    }
    let [(base, base_parts), (new, new_parts)] = answers.as_slice() else { return Ok(verdicts) };
    if let Some(value_type) = new.value_types.get(new.default_value) {
        (verdicts.r#type, verdicts.unit) = (value_type.kind.clone(), value_type.unit.clone());
    }
    let parts = [in_parts(base, base_parts)?, in_parts(new, new_parts)?];
    cancelled.check()?;
    let policy = Policy::default();
    let wanted = large_functions(&parts, &policy);
    let mut sides = parts
        .iter()
        .zip(LABELS)
        .map(|(parts, label)| Side { label: label.to_owned(), runs: parts.runs(|key| wanted.contains(key)) });
    let (Some(base_side), Some(new_side)) = (sides.next(), sides.next()) else { return Ok(verdicts) };
    cancelled.check()?;
    let comparison = match compare(&base_side, &new_side, &policy) {
        Ok(comparison) => comparison,
        Err(why) => return Ok(verdicts.undecided(why.to_string())),
    };
    // That not all could be told apart from noise is said of each function.
    let why = comparison.refusals.iter().find(|refusal| !matches!(refusal, Refusal::TooNoisy { .. }));
    match why {
        Some(why) => verdicts = verdicts.undecided(refusal(why)),
        None => verdicts.decide(&comparison, &[base, new]),
    }
    Ok(verdicts)
}

fn windows_of(found: &[WindowValue]) -> Windows {
    let window = |window: &WindowValue| {
        let value = u64::try_from(window.value).ok().filter(|value| *value > 0)?;
        let to_unix_ns = window.start_unix_ns.saturating_add(window.duration_ns);
        Some(Stretch::of_window(window.start_unix_ns, to_unix_ns, value))
    };
    Windows::new(found.iter().filter_map(window).collect())
}

fn parts_of(stretches: &[Stretch]) -> Vec<Part> {
    let part = |stretch: &Stretch| Part {
        name: format!("{} to {}", rfc3339(stretch.from_unix_ns), rfc3339(stretch.to_unix_ns)),
        facts: RunFacts { windows: Some(stretch.windows), ..RunFacts::default() },
    };
    stretches.iter().map(part).collect()
}

fn is_too_much(profile: &Profile) -> bool {
    profile.stacks.values().len() > MOST_FRAMES || profile.stacks.len() > MOST_STACKS
}

/// The stretches of a side, each a part of its profile.
fn in_parts<'a>(profile: &'a Profile, parts: &'a [Part]) -> Result<Parts<'a, MOST_STRETCHES>, ApiError> {
    let stretch_of = |labels: &[Label]| {
        let label = labels.iter().find(|label| label.key == STRETCH)?;
        match label.value {
            LabelValue::Number(number) => usize::try_from(number).ok(),
            LabelValue::Text(_) => None,
        }
    };
    Parts::new(profile, profile.default_value, parts, stretch_of)
        .map_err(|error| ApiError::invalid("type", error.to_string()))
}

impl Verdicts {
    /// Nothing is decided yet.
    fn of(profile_type: &str, windows: &[Vec<WindowValue>; 2]) -> Self {
        let (kind, unit) = profile_type.split_once('/').unwrap_or((profile_type, ""));
        let policy = Policy::default();
        let side = |windows: &[WindowValue]| VerdictSide {
            from: windows.first().map(|window| rfc3339(window.start_unix_ns)),
            to: windows
                .iter()
                .map(|window| window.start_unix_ns.saturating_add(window.duration_ns))
                .max()
                .map(rfc3339),
            windows: windows.len(),
            stretches: 0,
        };
        Self {
            r#type: kind.to_owned(),
            unit: unit.to_owned(),
            basis: "share",
            decided: false,
            reason: None,
            min_share: policy.min_share,
            min_effect: policy.min_effect,
            false_alarm_level: policy.false_alarm_level,
            base: side(&windows[0]),
            new: side(&windows[1]),
            functions: Vec::new(),
        }
    }

    fn undecided(self, why: String) -> Self {
        Self { reason: Some(why), ..self }
    }

    fn decide(&mut self, comparison: &Comparison, profiles: &[&Profile]) {
        let functions = by_function(comparison);
        let wanted: HashSet<&FunctionKey> = functions.iter().flat_map(|function| &function.keys).collect();
        let names = shown_names(profiles, &wanted);
        self.decided = true;
        (self.base.stretches, self.new.stretches) = (comparison.base.runs, comparison.new.runs);
        self.functions = functions.iter().map(|function| FunctionVerdict::of(function, &names)).collect();
    }
}

impl FunctionVerdict {
    fn of(function: &FunctionLines<'_>, names: &HashMap<FunctionKey, BTreeSet<ShownName>>) -> Self {
        let frames: BTreeSet<&ShownName> =
            function.keys.iter().filter_map(|key| names.get(key)).flatten().collect();
        let moved_from =
            [function.own, function.inclusive].into_iter().flatten().find_map(|line| match &line.verdict {
                Verdict::Moved { from } => Some(from.name.to_string()),
                _ => None,
            });
        let subject = function.subject;
        Self {
            name: subject.name.clone(),
            module: subject.module.clone(),
            file: subject.file.clone(),
            line: subject.line,
            moved_from,
            frames: frames
                .into_iter()
                .map(|shown| FrameName { name: shown.name.clone(), module: shown.module.clone() })
                .collect(),
            of_self: function.own.map(LineVerdict::of),
            total: function.inclusive.map(LineVerdict::of),
        }
    }
}

impl LineVerdict {
    fn of(line: &Line) -> Self {
        // JSON has no infinity.
        let bounded = |number: f64| number.is_finite().then_some(number);
        Self {
            verdict: match line.verdict {
                Verdict::Regressed => "regressed",
                Verdict::Improved => "improved",
                Verdict::Unchanged => "unchanged",
                Verdict::Inconclusive(_) => "inconclusive",
                Verdict::Moved { .. } => "moved",
            },
            base_share: line.base.share,
            new_share: line.new.share,
            effect: line.effect.and_then(bounded),
            low: line.interval.and_then(|interval| bounded(interval.low)),
            high: line.interval.and_then(|interval| bounded(interval.high)),
            q_value: line.q_value,
            smallest_effect: line.sensitivity.smallest_effect,
        }
    }
}
