//! The configuration of `spanflame serve`: one table of keys, and what is made of it.
//!
//! Comes in: a YAML file, the environment, flags of the command line. Goes out: a [`Configuration`] in which
//! everything is checked and typed, where each value came from, and every error at once, with its line.
//! Never: a secret in any message or listing; a guess at what an unknown key may have meant; a connection,
//! a lock or a global.
//!
//! The table is `schema.rs`. A key stands there once, with its type, default, documentation and what a
//! reload does with it; its path, its environment name, the annotated example (`etc/spanflame.yaml`) and
//! `/config` all follow. Precedence: defaults < file < environment < flags.
//!
//! # Why saphyr-parser
//! Errors need positions of keys and values alike, all of them at once; duplicate keys must be seen; and a
//! hostile file must be stopped while it is read. Front ends of serde stop at the first error, and their
//! values forget where they stood (`serde_yaml` is archived besides). saphyr-parser is the YAML 1.2 parser
//! below such front ends: kept up (0.3.3, 2026), run against the YAML test suite by its authors, without
//! `unsafe`, and with one dependency that is new here (arraydeque). Its events come one by one, so `yaml.rs`
//! counts them and gives up in time.

mod address;
mod change;
mod choice;
mod environment;
mod error;
mod file;
mod from_text;
mod name;
mod number;
mod rules;
mod schema;
mod secret;
mod section;
mod show;
mod sources;
mod substitute;
mod suggest;
mod value;
mod yaml;

pub use address::{Endpoint, ListenAddress, ListenHost, Scheme};
pub use change::{ChangedKey, after_reload, changed_keys};
pub use choice::{
    Compression, ContextPropagation, LogFormat, LogLevel, Protocol, Sampler, SemanticConventions, SpanExport,
};
pub use error::{ConfigurationErrors, Place, Position, Problem};
pub use name::{Directory, HostName, MetricPrefix, PathPattern, UrlPath, WebOrigin};
pub use number::{ByteSize, Period, Ratio, Whole};
pub use schema::{
    Agent, Auth, Configuration, Cors, Ebpf, Ingest, LogsOfSpanflame, MetricsSignal, Network, Otlp,
    OtlpReceiver, ProfilesSignal, Profiling, RateLimit, SelfTelemetry, SelfTracing, Storage, TracesSignal,
};
pub use secret::{Headers, Secret};
pub use section::Effect;
pub use show::example;
pub use sources::{Loaded, Origins, Sources};
