//! `/api/v1/profiles/flamegraph`: everything that is selected, merged, in any format.

use std::io::Write;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::body::{Download, SVG, accepts_gzip, complete_share};
use super::gate::Cancelled;
use super::moment::rfc3339;
use super::parameters::Parameters;
use super::question::Question;
use super::selector::{RANGE, RangeParameters, SELECTORS, SelectorParameters};
use crate::export::flame_tree::{TreeOptions, merge};
use crate::export::{self, ExportError, columnar, flame_json};
use crate::model::Profile;
use crate::server::error::ErrorBody;
use crate::server::{ApiError, App};
use crate::store::{Answer, Coverage, Detail, Selector};

/// The page draws a million exactly, and a person sees no more: of a graph of more, the smallest stacks are put together.
const MAX_NODES: usize = 1 << 20;
/// Labels that may stand above the stacks, under the names that selectors have for them.
const GROUPS: [(&str, &str); 11] = [
    ("service", "service"),
    ("comm", "comm"),
    ("thread", "thread_name"),
    ("thread_name", "thread_name"),
    ("container", "container_id"),
    ("container_id", "container_id"),
    ("pid", "pid"),
    ("tid", "tid"),
    ("unwind", "unwind"),
    ("trace_id", "trace_id"),
    ("span_id", "span_id"),
];

/// How the options are described.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "the description of an interface")]
pub struct FlameGraphParameters {
    /// By default `json`.
    #[param(inline)]
    format: Option<GraphFormat>,
    /// Labels that stand above the stacks, the outermost first, separated by commas: `service`, `comm`,
    /// `thread`, `container`, `pid`, `tid`, `trace_id`, `span_id`. By default `comm`; empty for none. For
    /// `columnar` and `json`.
    #[param(
        pattern = "^((service|comm|thread|container|pid|tid|trace_id|span_id)(,(service|comm|thread|container|pid|tid|trace_id|span_id)){0,7})?$"
    )]
    group_by: Option<String>,
    /// Put incomplete stacks beside complete ones, without the marker that names the reason. For `columnar`
    /// and `json`.
    hide_incomplete: Option<bool>,
}

/// A form that a flame graph is sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum GraphFormat {
    /// What the page reads: a merged tree, column by column (`src/export/columnar.rs`).
    Columnar,
    /// The same tree, nested.
    Json,
    /// A picture.
    Svg,
    /// A line of text for each stack.
    Folded,
    /// For `go tool pprof` and its like.
    Pprof,
    /// For speedscope.app.
    Speedscope,
    /// One binary `ProfilesData` message of OpenTelemetry.
    Otlp,
}

impl GraphFormat {
    const ALL: [(&'static str, Self); 7] = [
        ("columnar", Self::Columnar),
        ("json", Self::Json),
        ("svg", Self::Svg),
        ("folded", Self::Folded),
        ("pprof", Self::Pprof),
        ("speedscope", Self::Speedscope),
        ("otlp", Self::Otlp),
    ];

    fn from_name(name: &str) -> Result<Self, ApiError> {
        if let Some((_, format)) = Self::ALL.iter().find(|(known, _)| *known == name) {
            return Ok(*format);
        }
        let names: Vec<&str> = Self::ALL.iter().map(|(name, _)| *name).collect();
        let message = format!("format: {name:?} is none of {}", names.join(", "));
        Err(ApiError::invalid("format", message))
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Columnar | Self::Pprof => "application/octet-stream",
            Self::Json | Self::Speedscope => "application/json",
            Self::Svg => SVG,
            Self::Folded => "text/plain; charset=utf-8",
            Self::Otlp => "application/x-protobuf",
        }
    }

    /// Of what is saved as a file. The others are read by the page and by scripts.
    fn ending(self) -> Option<&'static str> {
        match self {
            Self::Columnar | Self::Json => None,
            Self::Svg => Some("svg"),
            Self::Folded => Some("folded"),
            Self::Pprof => Some("pb.gz"),
            Self::Speedscope => Some("speedscope.json"),
            Self::Otlp => Some("otlp"),
        }
    }
}

/// A node of a flame graph. The root has the keys of [`FlameGraphRoot`] as well.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "the description of an interface")]
pub struct FlameGraphNode {
    /// The function; `all` at the root.
    name: String,
    /// The value of stacks that end here.
    #[serde(rename = "self")]
    value_self: u64,
    /// The value of all stacks that come through here.
    total: u64,
    /// By name.
    #[schema(no_recursion)]
    children: Vec<FlameGraphNode>,
}

/// A flame graph as JSON: its root.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "the description of an interface")]
pub struct FlameGraphRoot {
    /// What is counted (`cpu`).
    r#type: String,
    /// Its unit (`nanoseconds`).
    unit: String,
    /// Start of what was covered, RFC 3339; of what was asked for if there was no window in it.
    from: String,
    /// Its end.
    to: String,
    /// Windows that were added up.
    windows: u64,
    /// The share of the value whose stacks are complete; null without any samples.
    complete_share: Option<f64>,
    /// `all`.
    name: String,
    /// The value of stacks without any frame.
    #[serde(rename = "self")]
    value_self: u64,
    /// The value of all stacks.
    total: u64,
    /// By name.
    children: Vec<FlameGraphNode>,
}

/// Everything that is selected, merged, in any format
///
/// `pprof` and `otlp` carry all labels and all values; `svg` and `folded` the value of the type that is asked
/// for, below the names of the processes. A tree (`columnar`, `json`) has a million nodes at most: of more, the smallest
/// stacks end in a node `[smaller]` where no greater one goes the same way.
#[utoipa::path(
    get, path = "/api/v1/profiles/flamegraph", tag = "profiles",
    params(SelectorParameters, RangeParameters, FlameGraphParameters),
    responses(
        (status = 200, description = "The flame graph. Headers `X-Spanflame-Covered-From`, `-To`, `-Seconds`, \
          `X-Spanflame-Windows` and `X-Spanflame-Complete-Share` say what it is of.",
         content(
            (FlameGraphRoot = "application/json"),
            (String = "application/octet-stream"),
            (String = "image/svg+xml"),
            (String = "text/plain"),
            (String = "application/x-protobuf"),
        )),
        (status = 400, description = "A parameter is malformed", body = ErrorBody),
        (status = 404, description = "There was no such thing in the range", body = ErrorBody),
        (status = 413, description = "More than can be drawn or sent at once", body = ErrorBody),
        (status = 503, description = "Too many queries at once", body = ErrorBody),
    )
)]
pub async fn flamegraph(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Download, ApiError> {
    let parameters = Parameters::parse(query.as_deref(), &[SELECTORS, RANGE, DRAWING])?;
    let question = Question::new(&parameters)?;
    let drawing = Drawing::new(&parameters)?;
    let gzip = accepts_gzip(&headers);
    let asked = Arc::clone(&app);
    app.queries
        .run(move |cancelled| {
            let mut answer = question.ask(&asked, drawing.detail(), cancelled)?;
            main_first(&mut answer.profile, &question.selector);
            Ok(drawing.draw(&answer, &question, cancelled)?.compress(gzip))
        })
        .await
}

/// The parameters of [`Drawing::new`].
pub const DRAWING: &[&str] = &["format", "group_by", "hide_incomplete"];

/// In which form, and how merged.
#[derive(Debug)]
pub struct Drawing {
    format: GraphFormat,
    group_by: Vec<String>,
    hide_incomplete: bool,
    /// Further keys of the root in JSON.
    pub about: serde_json::Map<String, serde_json::Value>,
}

impl Drawing {
    /// Reads it from the parameters of a request.
    ///
    /// # Errors
    /// 400, naming the parameter.
    pub fn new(parameters: &Parameters) -> Result<Self, ApiError> {
        let format = GraphFormat::from_name(parameters.get("format").unwrap_or("json"))?;
        let is_tree = matches!(format, GraphFormat::Columnar | GraphFormat::Json);
        for name in ["group_by", "hide_incomplete"] {
            if !is_tree && parameters.get(name).is_some() {
                let message = format!("{name}: it is for the formats columnar and json");
                return Err(ApiError::invalid(name, message));
            }
        }
        let mut group_by = Vec::new();
        let asked = parameters.get("group_by").unwrap_or("comm");
        for name in asked.split(',').filter(|_| !asked.is_empty()) {
            let Some((_, key)) = GROUPS.iter().find(|(known, _)| *known == name) else {
                let message = format!(
                    "group_by: {name:?} is none of service, comm, thread, container, pid, tid, trace_id, span_id"
                );
                return Err(ApiError::invalid("group_by", message));
            };
            group_by.push((*key).to_owned());
        }
        let about = serde_json::Map::new();
        Ok(Self { format, group_by, hide_incomplete: parameters.flag("hide_incomplete")?, about })
    }

    /// The answer as it is sent, not compressed yet.
    ///
    /// # Errors
    /// 413, or that the client has gone.
    pub fn draw(
        &self,
        answer: &Answer,
        question: &Question,
        cancelled: &Cancelled,
    ) -> Result<Download, ApiError> {
        let bytes = self.write(answer, question, cancelled)?;
        let share = self.told_share(&answer.profile);
        let mut download = Download::new(bytes, self.format.content_type());
        download.file_name =
            self.format.ending().map(|ending| file_name(&question.selector, &answer.coverage, ending));
        Ok(download.covering(answer.coverage, share))
    }

    /// The labels that it shows, and the one that tells of incomplete stacks.
    pub fn detail(&self) -> Detail {
        let mut keys = vec!["unwind".to_owned()];
        match self.format {
            GraphFormat::Pprof | GraphFormat::Otlp => return Detail::Labels,
            GraphFormat::Svg | GraphFormat::Folded | GraphFormat::Speedscope => keys.push("comm".to_owned()),
            GraphFormat::Columnar | GraphFormat::Json => keys.extend(self.group_by.iter().cloned()),
        }
        Detail::Keys(keys)
    }

    fn told_share(&self, profile: &Profile) -> Option<f64> {
        complete_share(profile, profile.default_value)
    }

    fn write(
        &self,
        answer: &Answer,
        question: &Question,
        cancelled: &Cancelled,
    ) -> Result<Vec<u8>, ApiError> {
        let profile = &answer.profile;
        let mut writer = CancellableWriter { bytes: Vec::new(), cancelled };
        let written = match self.format {
            GraphFormat::Columnar | GraphFormat::Json => self.write_tree(answer, question, &mut writer),
            GraphFormat::Svg => self.write_as(export::Format::Svg, profile, question, &mut writer),
            GraphFormat::Folded => self.write_as(export::Format::Folded, profile, question, &mut writer),
            GraphFormat::Pprof => self.write_as(export::Format::Pprof, profile, question, &mut writer),
            GraphFormat::Speedscope => {
                self.write_as(export::Format::Speedscope, profile, question, &mut writer)
            }
            GraphFormat::Otlp => self.write_as(export::Format::Otlp, profile, question, &mut writer),
        };
        cancelled.check()?;
        written.map_err(export_error)?;
        Ok(writer.bytes)
    }

    fn write_tree(
        &self,
        answer: &Answer,
        question: &Question,
        writer: &mut dyn Write,
    ) -> Result<(), ExportError> {
        let profile = &answer.profile;
        profile.validate()?;
        let options = TreeOptions {
            value: profile.default_value,
            group_by: self.group_by.clone(),
            hide_incomplete: self.hide_incomplete,
            max_nodes: Some(MAX_NODES),
        };
        let tree = merge(profile, &options)?;
        if self.format == GraphFormat::Columnar {
            return columnar::write_tree(profile, &tree, options.value, writer);
        }
        let value_type = profile.value_types.get(options.value);
        let (from, to) = match answer.coverage.windows {
            0 => (question.range.from_unix_ns, question.range.to_unix_ns),
            _ => (answer.coverage.from_unix_ns, answer.coverage.to_unix_ns),
        };
        let mut about = serde_json::json!({
            "type": value_type.map_or("", |value_type| value_type.kind.as_str()),
            "unit": value_type.map_or("", |value_type| value_type.unit.as_str()),
            "from": rfc3339(from),
            "to": rfc3339(to),
            "windows": answer.coverage.windows,
            "complete_share": self.told_share(profile),
        });
        let mut empty = serde_json::Map::new();
        let about = about.as_object_mut().unwrap_or(&mut empty);
        about.extend(self.about.clone());
        flame_json::write_tree(&tree, about, writer)
    }

    fn write_as(
        &self,
        format: export::Format,
        profile: &Profile,
        question: &Question,
        writer: &mut dyn Write,
    ) -> Result<(), ExportError> {
        let title = format!("{} of {}", shown_type(&question.selector), shown_selector(&question.selector));
        let options = export::Options {
            value: Some(profile.default_value),
            title: Some(title),
            ..export::Options::default()
        };
        export::write(profile, format, writer, &options)
    }
}

/// What could not be written: too large is the client's to narrow, anything else is ours.
pub fn export_error(error: ExportError) -> ApiError {
    match error {
        ExportError::TooLarge { table, limit } => {
            let message = format!(
                "there are more than {limit} {table}: ask for a shorter range, one service, or one process"
            );
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        }
        other => ApiError::internal("the profile cannot be written", &other),
    }
}

fn shown_type(selector: &Selector) -> String {
    match selector.profile_type.as_str() {
        "cpu" | "cpu/nanoseconds" => "CPU time".to_owned(),
        other => other.to_owned(),
    }
}

fn shown_selector(selector: &Selector) -> String {
    if *selector == Selector::of_type(&selector.profile_type) {
        return "the host".to_owned();
    }
    super::presence::described(selector)
}

/// `spanflame-cpu-SERVICE-20261121T093000Z.pb.gz`
pub fn file_name(selector: &Selector, coverage: &Coverage, ending: &str) -> String {
    let kind = selector.profile_type.split('/').next().unwrap_or_default();
    let mut name = format!("spanflame-{kind}");
    let texts = [&selector.service, &selector.container, &selector.thread, &selector.trace_id];
    for text in texts.into_iter().flatten() {
        name.push('-');
        name.extend(text.chars().take(32));
    }
    name.extend(selector.pid.map(|pid| format!("-{pid}")));
    if coverage.windows > 0 {
        let start = rfc3339(coverage.from_unix_ns - coverage.from_unix_ns % 1_000_000_000);
        name.push('-');
        name.extend(start.chars().filter(|character| !matches!(character, '-' | ':')));
    }
    format!("{name}.{ending}")
}

/// Readers take the first mapping for the program. Of one process that is its executable: what
/// `/proc/PID/exe` is while it lives, else the mapping that its name is the name of.
pub fn main_first(profile: &mut Profile, selector: &Selector) {
    let Some(pid) = selector.pid else {
        // Readers take the first one for the program: of several there is none, but `[vdso]` surely is not it.
        let file = profile.mappings.iter().position(|mapping| mapping.path.starts_with('/'));
        if let Some(index) = file.and_then(|index| u32::try_from(index).ok()) {
            profile.put_mapping_first(index);
        }
        return;
    };
    let executable = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let by_path = executable.and_then(|path| {
        let path = path.to_string_lossy().into_owned();
        profile.mappings.iter().position(|mapping| mapping.path == path)
    });
    let by_name = || {
        let comm = profile.samples.iter().find_map(|sample| profile.label_text(sample, "comm"))?;
        profile.mappings.iter().position(|mapping| {
            let name = export::frame_text::module_name(&mapping.path);
            // The kernel keeps fifteen bytes.
            !comm.is_empty()
                && !mapping.path.starts_with('[')
                && (name == comm || comm.len() == 15 && name.starts_with(comm))
        })
    };
    if let Some(index) = by_path.or_else(by_name).and_then(|index| u32::try_from(index).ok()) {
        profile.put_mapping_first(index);
    }
}

/// Fails once the client has gone, so that whoever writes stops.
struct CancellableWriter<'a> {
    bytes: Vec<u8>,
    cancelled: &'a Cancelled,
}

impl Write for CancellableWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.cancelled.is_set() {
            return Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
