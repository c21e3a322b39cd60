//! One connection's two streams, and which protocol they speak.

use super::exchange::ExchangeEvent;
pub use crate::model::socket::Capture;
use crate::model::socket::{Actor, Ending, Fragment, Role};

/// See the module's description.
#[derive(Debug, Default)]
pub struct Conversation {}

impl Conversation {
    /// A connection whose first bytes may or may not have been seen.
    #[must_use]
    pub fn new(_role: Role) -> Self {
        Self {}
    }

    /// Takes what was moved; says what that means. Fragments of both directions come in the order in which
    /// they happened, those of one direction in order of position.
    pub fn take(
        &mut self,
        _time_ns: u64,
        _actor: Actor,
        _fragment: &Fragment,
        _out: &mut Vec<ExchangeEvent>,
    ) {
    }

    /// The fragment sent at `position` moved only `length` bytes.
    pub fn amend(&mut self, _position: u64, _length: u64) {}

    /// The connection is no more: every exchange that is not complete ends now.
    pub fn end(&mut self, _time_ns: u64, _ending: Ending, _out: &mut Vec<ExchangeEvent>) {}

    /// What it wants to see from now on.
    #[must_use]
    pub fn capture(&self) -> Capture {
        Capture::Heads
    }

    /// Whether a protocol is confirmed: a request and its response have both been understood.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        false
    }
}
