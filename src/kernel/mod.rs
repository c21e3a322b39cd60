//! The only code that talks to libbpf and to perf events: loads the BPF programs, fills their tables,
//! decodes what they send.
//!
//! Comes in: unwind tables, mappings of processes, process ids, which connections matter. Goes out:
//! [`RawSample`]s, [`ProcessEvent`]s, [`SocketEvent`](crate::model::SocketEvent)s, counters.
//! Never: reads of /proc/PID or of objects, names for addresses, decisions about which process
//! matters.
//!
//! [`RawSample`]: crate::model::RawSample

pub mod ability;

mod abi;
mod application_words;
mod bpf_object;
mod clock;
mod context_propagation;
#[cfg(test)]
mod context_propagation_live_tests;
mod cpus;
mod error;
mod event_ring;
mod extents;
mod go_probes;
#[cfg(test)]
mod goroutine_live_tests;
mod http_header;
#[cfg(test)]
mod http_header_live_tests;
mod introspection;
#[cfg(test)]
mod live_tests;
mod map_writers;
mod network_namespaces;
mod perf_event;
mod perf_ring;
mod priority;
mod process_events;
mod process_maps;
mod process_records;
mod published_contexts;
mod run_statistics;
mod sample_decoder;
mod sampler;
mod shared_contexts;
mod shared_memory;
mod socket_abi;
mod socket_decoder;
#[cfg(test)]
mod socket_live_tests;
mod socket_tracer;
mod tables;
mod tls_tracer;
mod turn_probes;
mod user_probes;

pub use application_words::ApplicationWords;
pub use clock::monotonic_ns;
pub use cpus::online as online_cpus;
pub use error::KernelError;
pub use go_probes::{GoCounters, GoProbes};
pub use http_header::HeaderCounters;
pub use introspection::{EbpfState, MapState, ProgramState};
pub use priority::{PreferredThread, ThreadPriority};
pub use process_events::{ProcessEvent, ProcessEvents};
pub use process_maps::ProcessMaps;
pub use run_statistics::{ProgramRuns, RunStatistics};
pub use sampler::{Counters, RequestMaps, RequestSampling, Sampler, SamplerOptions};
pub use shared_contexts::{BPF_FILE_SYSTEM, shared_contexts_path};
pub use socket_tracer::{EventLoop, SocketCounters, SocketTracer, SocketTracerOptions};
pub use tables::{MappingKind, ProcessMapping, TableStatistics, Tables};
pub use tls_tracer::{TlsCounters, TlsFunction, TlsTracer};
pub use turn_probes::TurnProbes;
pub use user_probes::{FileIdentity, ProbeRefusal, ProbedFile, UserProbe, UserProbes, UserProbesStatus};

pub use crate::model::{ObjectId, RawFrame, RawSample};
