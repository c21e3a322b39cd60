//! Raw stacks → frames → samples, and the unwind tables that make the stacks right.
//!
//! Comes in: [`crate::model::RawSample`]s and process records of the kernel floor. Goes out: a
//! [`crate::model::Profile`]. Never: files, formats, HTTP.
//!
//! [`session`] turns the wheel; [`known_processes`] keeps what the kernel side is told of processes, [`feed`] builds
//! unwind tables in the background; [`collect`] takes the samples, `words` finds out where programs name their spans
//! themselves, [`scripts`] has the frames of language runtimes read and named, [`aggregate`] counts equal stacks; a
//! [`raw_window`] is what is handed on, and [`naming`] has [`resolve`] give it names on another thread. [`continuous`]
//! does all this for as long as it is left running, [`live`] once for whoever asks.

pub mod address_names;
pub mod aggregate;
pub mod collect;
pub mod continuous;
pub mod feed;
pub mod known_processes;
pub mod live;
pub mod naming;
pub mod raw_window;
pub mod resolve;
pub mod resources;
pub mod scripts;
pub mod session;
mod words;

pub use aggregate::Aggregate;
pub use collect::Collector;
pub use continuous::{ContinuousProfiler, CutError, PendingWindow, ProfilerState, ProfilerStatus};
pub use naming::Namer;
pub use raw_window::{RawWindow, Taken};
pub use session::{RequestSamplingOptions, Session, SessionError, SessionOptions};
