//! Turns what goes over sockets into requests, and those into spans.
//!
//! Comes in: [`SocketEvent`](crate::model::SocketEvent)s in the order in which they happened. Goes out:
//! [`Span`](crate::model::Span)s that have ended, those that have been open for a second, what each
//! [`RequestKey`](crate::model::RequestKey) of a sample came to, and numbers for metrics. Never: libbpf, the
//! store, HTTP of our own; never a guess: what cannot be known is said to be unknown, with the reason.
//!
//! Three stages, each in its own file and each with its own tests:
//!
//! ```text
//! fragments ──▶ conversation.rs      one for each connection: which protocol is it, then
//!               protocols/*.rs       bytes → requests and responses, paired: Exchange events
//!          ──▶ (spans)               exchange → span: ids, parent and its evidence, name, attributes
//! ```

pub mod context;
pub mod conversation;
pub mod exchange;
mod protocols;
pub mod route;
mod stream;

#[cfg(test)]
mod wire;
