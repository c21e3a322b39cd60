//! `spanflame serve`: everything that is asked for over HTTP, and the parts that run behind it.
//!
//! Comes in: requests; windows of the continuous profiler. Goes out: answers in the shapes of INTERFACE.md
//! and of the seed documents; windows into the store and to the exporter. Never: SQL, BPF, knowledge of how
//! a stack was taken; a handler that blocks the executor (the store and files are asked on
//! `spawn_blocking`).
//!
//! [`App`] is what all handlers share. [`router`] is the one list of routes, from which `/openapi.json` is
//! made as well; each area has a module with its own routes.

pub mod api;
pub mod debug_pprof;
mod error;
mod health;
mod recorder;
mod router;
mod state;
mod ui;

pub use error::ApiError;
pub use recorder::{Recorder, RecorderStatus};
pub use router::router;
pub use state::App;
