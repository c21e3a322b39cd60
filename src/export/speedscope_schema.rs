//! The file format of speedscope.app, as its `file-format-spec.ts` gives it, with three keys of our
//! own that speedscope passes over: `kind` of a frame, and `value_kind` and `value_unit` of a profile
//! (speedscope knows only six units and no kinds).

use serde::{Deserialize, Serialize};

/// `$schema` of every file.
pub const SCHEMA: &str = "https://www.speedscope.app/file-format-schema.json";

/// A whole file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct File {
    /// [`SCHEMA`].
    #[serde(rename = "$schema", default)]
    pub schema: String,
    /// What the profiles share.
    pub shared: Shared,
    /// The profiles.
    pub profiles: Vec<Profile>,
    /// Name of the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which profile is shown first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_profile_index: Option<usize>,
    /// The program that wrote the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exporter: Option<String>,
}

/// What the profiles share.
#[derive(Debug, Serialize, Deserialize)]
pub struct Shared {
    /// Frames, referred to by index.
    pub frames: Vec<Frame>,
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Frame {
    /// Name.
    pub name: String,
    /// Source file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line. Files of other programs hold all sorts of numbers here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<serde_json::Number>,
    /// What sort of frame it is: absent for compiled code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<FrameKind>,
}

/// Our key `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameKind {
    /// The name of a process, put at the root.
    Comm,
    /// Inlined into the frame before it.
    Inlined,
    /// Kernel code.
    Kernel,
    /// Code that a runtime generated.
    Jit,
    /// Anything a later version may say.
    #[serde(other)]
    Unknown,
}

/// One profile.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Profile {
    /// Stacks with weights.
    Sampled(Sampled),
    /// Frames that open and close.
    Evented(Evented),
}

/// Stacks with weights.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sampled {
    /// Name, often of a thread.
    pub name: String,
    /// Unit of the values.
    pub unit: String,
    /// First value, on the axis.
    pub start_value: serde_json::Number,
    /// Last value, on the axis.
    pub end_value: serde_json::Number,
    /// Stacks, root first.
    pub samples: Vec<Vec<u32>>,
    /// A weight for each stack.
    pub weights: Vec<serde_json::Number>,
    /// Our key: the kind of value.
    #[serde(rename = "value_kind", default, skip_serializing_if = "Option::is_none")]
    pub value_kind: Option<String>,
    /// Our key: its unit.
    #[serde(rename = "value_unit", default, skip_serializing_if = "Option::is_none")]
    pub value_unit: Option<String>,
}

/// Frames that open and close.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evented {
    /// Name, often of a thread.
    pub name: String,
    /// Unit of the values.
    pub unit: String,
    /// First value, on the axis.
    pub start_value: serde_json::Number,
    /// Last value, on the axis.
    pub end_value: serde_json::Number,
    /// What happened, in order.
    pub events: Vec<Event>,
}

/// A frame opens or closes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Event {
    /// Which.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// When.
    pub at: serde_json::Number,
    /// Index of the frame.
    pub frame: u32,
}

/// What an event does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventType {
    /// The frame begins.
    #[serde(rename = "O")]
    Open,
    /// The frame ends.
    #[serde(rename = "C")]
    Close,
}
