//! `spanflame serve`: everything that is asked for over HTTP, and the parts that run behind it.
//!
//! Comes in: requests; windows of the continuous profiler. Goes out: answers in the shapes of INTERFACE.md
//! and of the seed documents; windows into the store and to the exporter. Never: SQL, BPF, knowledge of how
//! a stack was taken; a handler that blocks the executor (the store and files are asked on
//! `spawn_blocking`).
//!
//! [`App`] is what all handlers share. [`router`] is the one list of routes, from which `/openapi.json` is
//! made as well; each area has a module with its own routes.

mod admin;
pub mod api;
mod configuration;
pub mod connections;
pub mod debug_pprof;
mod debug_vars;
mod discovery;
mod error;
pub mod exports;
mod health;
pub mod intake;
mod layers;
mod metrics_page;
mod openapi;
pub mod otlp_in;
mod recorder;
mod reload;
mod request_tracer;
mod router;
pub mod self_exporters;
pub mod self_telemetry;
pub mod spans;
mod state;
mod status;
mod ui;
mod upload;

pub use error::{ApiError, ErrorBody};
pub use layers::{RequestCounts, RouteSnapshot};
pub use recorder::{Recorder, RecorderStatus};
pub use reload::{ReloadError, Reloaded, frequency_of, retention_of};
pub use request_tracer::{ContextWays, RequestTracer, Way};
pub use router::router;
pub use spans::{SpanBatch, SpanKeeper};
pub use state::{App, off_the_executor};

/// What `mode` is told to be: there is no other.
const MODE: &str = "agent";
