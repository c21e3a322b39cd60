//! Plain data that moves between the stages: samples, stacks, frames, profiles, units and time.
//!
//! Comes in: nothing. Goes out: types that every other folder shares.
//! Never: I/O, locks, clocks, or knowledge of BPF, ELF, databases or HTTP.

pub mod index_hash;
mod narrowing;
pub mod outcome;
pub mod profile;
pub mod raw;
pub mod rfc3339;
pub mod slice_interner;
mod slices;
pub mod socket;
pub mod span;
pub mod stamp;
mod unsampled;

pub use index_hash::IndexMap;
pub use outcome::{Outcome, ScriptEnd, ScriptOutcome};
pub use profile::{
    Frame, FrameKind, Function, GIT_SHA, GIT_SHA_ATTRIBUTE, Interner, InvalidProfile, Label, LabelValue,
    Location, Mapping, Profile, Sample, StackId, ValueType,
};
pub use raw::{ImageId, ObjectId, RawFrame, RawSample};
pub use slice_interner::SliceInterner;
pub use slices::Slices;
pub use socket::{Actor, ConnectionId, Direction, RequestKey, SocketEvent};
pub use span::{Span, SpanId, SpanKind, SpanResource, SpanStatus, TraceId};
pub use stamp::{RequestSpans, Stamp, Unstamped};
pub use unsampled::UnsampledRequest;
