//! Names of OpenTelemetry attributes, and which labels of ours they stand for.
//!
//! Names are those of the semantic conventions 1.38 where one exists (`process.*`, `thread.*`,
//! `container.id`, `profile.frame.type`, `pprof.*`); a label without one keeps its own name. `comm`
//! is `process.title`: what `ps` shows for a process.

use crate::model::{GIT_SHA, GIT_SHA_ATTRIBUTE};

/// Labels that say whose sample it is, with the resource attribute that carries them.
pub const RESOURCE_LABELS: &[(&str, &str)] = &[
    ("service", "service.name"),
    ("pid", "process.pid"),
    ("comm", "process.title"),
    ("container_id", "container.id"),
    (GIT_SHA, GIT_SHA_ATTRIBUTE),
];

/// Labels of a single sample, with the attribute that carries them.
pub const SAMPLE_LABELS: &[(&str, &str)] =
    &[("tid", "thread.id"), ("thread_name", "thread.name"), ("unwind", "spanflame.unwind")];

/// Label of a trace id, 32 hex digits; together with [`SPAN_ID`] a link, not an attribute.
pub const TRACE_ID: &str = "trace_id";
/// Label of a span id, 16 hex digits.
pub const SPAN_ID: &str = "span_id";

/// Resource attribute of the machine.
pub const HOST_NAME: &str = "host.name";
/// What sort of code a location is.
pub const FRAME_TYPE: &str = "profile.frame.type";
/// Build ids; which of them depends on who made the id.
pub const BUILD_ID_GNU: &str = "process.executable.build_id.gnu";
/// Go's own build id.
pub const BUILD_ID_GO: &str = "process.executable.build_id.go";
/// A hash of head and tail of the file.
pub const BUILD_ID_HASH: &str = "process.executable.build_id.htlhash";
/// What pprof's mapping flags are called.
pub const HAS_FUNCTIONS: &str = "pprof.mapping.has_functions";
/// See [`HAS_FUNCTIONS`].
pub const HAS_FILENAMES: &str = "pprof.mapping.has_filenames";
/// See [`HAS_FUNCTIONS`].
pub const HAS_LINE_NUMBERS: &str = "pprof.mapping.has_line_numbers";
/// See [`HAS_FUNCTIONS`].
pub const HAS_INLINE_FRAMES: &str = "pprof.mapping.has_inline_frames";
/// Comments of the profile: an array of strings.
pub const COMMENT: &str = "pprof.profile.comment";
/// Scope attribute: for each profile of the scope, the index of its type in the original order.
pub const SAMPLE_TYPE_ORDER: &str = "pprof.scope.sample_type_order";
/// Scope attribute: the type to show first.
pub const DEFAULT_SAMPLE_TYPE: &str = "pprof.scope.default_sample_type";

/// The attribute that carries a label.
#[must_use]
pub fn attribute_of_label(label: &str) -> &str {
    let mut pairs = RESOURCE_LABELS.iter().chain(SAMPLE_LABELS);
    pairs.find(|(known, _)| *known == label).map_or(label, |(_, attribute)| attribute)
}

/// Whether a label says whose sample it is.
#[must_use]
pub fn is_of_resource(label: &str) -> bool {
    RESOURCE_LABELS.iter().any(|(of_resource, _)| *of_resource == label)
}

/// The label that an attribute stands for.
#[must_use]
pub fn label_of_attribute(attribute: &str) -> &str {
    let mut pairs = RESOURCE_LABELS.iter().chain(SAMPLE_LABELS);
    pairs.find(|(_, known)| *known == attribute).map_or(attribute, |(label, _)| label)
}
