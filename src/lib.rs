//! spanflame: where does the time go, and why was this request slow?
//!
//! The floors (see ARCHITECTURE.md): `model` ← `kernel` ← `process` ← `profile` ← `export` ← `cli`.
//! A module imports from its own floor's folder or from below.

pub mod check;
pub mod cli;
pub mod config;
pub mod export;
pub mod ingest;
pub mod kernel;
pub mod metrics;
pub mod model;
pub mod process;
pub mod profile;
pub mod server;
pub mod store;
pub mod trace;
