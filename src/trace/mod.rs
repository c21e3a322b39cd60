//! Turns what goes over sockets into requests, and those into spans.
//!
//! Comes in: [`SocketEvent`](crate::model::SocketEvent)s in the order in which they happened. Goes out:
//! [`Span`](crate::model::Span)s that have ended, those that have been open for a second, what each
//! [`RequestKey`](crate::model::RequestKey) of a sample came to, and numbers for metrics. Never: libbpf, the
//! store, HTTP of our own; never a guess: what cannot be known is said to be unknown, with the reason.
//!
//! Three stages, each in its own files and each with its own tests; `tracer.rs` is the thread that turns them:
//!
//! ```text
//! events ──▶ connections.rs     the connections that are heard of
//!            left_alone.rs      … but of some processes
//!            conversation.rs    one for each: which protocol is it, then
//!            protocols/*.rs     bytes → requests and responses, paired: Exchange events
//!        ──▶ spans.rs           exchange → span: name, status, times
//!            parents.rs         … ids, parent, and the evidence for it; context.rs reads headers
//!            limit.rs           … whether it is kept; beyond_limit.rs, undecided.rs, typical.rs: what else is
//!            open.rs            … the request while it goes on, and the span that it becomes
//!            attributes.rs      … attributes; route.rs finds the template of a path
//!            tls.rs             the libraries whose plain bytes are such events
//!            streams.rs         … who works on which stream of HTTP/2; go_programs.rs: whose that is
//!        ──▶ requests.rs        what the keys of samples came to, untraced.rs: of most; published.rs: what others are told
//! ```
//!
//! Apart from them `joining/` tells which span that an SDK has sent is which of ours.

mod attributes;
mod beyond_limit;
#[cfg(test)]
mod beyond_limit_tests;
mod connections;
pub mod context;
pub mod conversation;
mod event_loops;
pub mod exchange;
mod go_programs;
pub mod joining;
mod left_alone;
mod limit;
mod open;
mod parents;
mod protocols;
mod published;
mod requests;
pub mod route;
mod sampled_minutes;
mod sampling;
mod spans;
#[cfg(test)]
mod spans_tests;
mod status;
mod stream;
mod streams;
mod tls;
mod tracer;
mod typical;
mod undecided;
mod untraced;
#[cfg(test)]
mod wire;

pub use attributes::Conventions;
pub use beyond_limit::KEPT_FOR;
pub use left_alone::{Executables, LeftAlone};
pub use sampled_minutes::Sampled;
pub use sampling::Sampler;
pub use spans::{NotSampled, Outcome, SpanCounts, SpanOptions};
pub use status::{TracerFailures, TracerStatus, UnexplainedProcess};
pub use tls::{TlsStatus, Unreadable};
pub use tracer::{OnOutcome, Tracer};
