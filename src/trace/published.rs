//! Which requests other profilers are told of (`bpf/socket/publishing.h`): those that a thread is at, whose ids are
//! known and will stay.
//!
//! Comes in: requests as they are understood. Goes out: to the kernel side, those that are still open; and those
//! that are over. Each is offered once, at the end of the look in which it was understood: a thread that is not at it
//! then never will be. What was told keeps its name: no other trace is found for it afterwards.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::exchange::Began;
use super::requests::Requests;
use crate::kernel::{KernelError, SocketTracer};
use crate::model::socket::{Actor, Direction};
use crate::model::{RequestKey, SpanId};

/// Requests that are looked after at a time; others are not told of.
const MAX_REQUESTS: usize = 1 << 16;

#[derive(Debug)]
struct Watched {
    actor: Actor,
    /// As the kernel side has minted it; or of the name under which it was told.
    span_id: SpanId,
    is_offered: bool,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Published {
    watched: HashMap<RequestKey, Watched>,
    told: u64,
    beyond_limit: u64,
}

impl Published {
    /// A request that is no goroutine's has begun.
    pub(super) fn begin(&mut self, began: &Began) {
        if began.direction == Direction::In
            && let Some(minted) = began.minted
            && let Some(span_id) = SpanId::new(minted.span_id)
        {
            if self.watched.len() >= MAX_REQUESTS {
                self.beyond_limit += 1;
                return;
            }
            self.watched.insert(minted.key, Watched { actor: began.actor, span_id, is_offered: false });
        }
    }

    /// How many were told of by us; those of the kernel side alone are not counted.
    pub(super) fn told(&self) -> u64 {
        self.told
    }

    /// How many were not looked after, since too many were open.
    pub(super) fn beyond_limit(&self) -> u64 {
        self.beyond_limit
    }

    /// Tells of what is new, and takes back what is over.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) fn settle(
        &mut self,
        requests: &Mutex<Requests>,
        socket: &SocketTracer,
    ) -> Result<(), KernelError> {
        if self.watched.is_empty() {
            return Ok(());
        }
        let mut offered = Vec::new();
        let mut over = Vec::new();
        {
            let known = requests.lock().unwrap_or_else(PoisonError::into_inner);
            self.watched.retain(|&key, watched| {
                if !known.is_open(key) {
                    over.push((watched.actor, watched.span_id));
                    return false;
                }
                if !std::mem::replace(&mut watched.is_offered, true)
                    && let Some(stamp) = known.open_stamp(key)
                {
                    watched.span_id = stamp.span_id;
                    offered.push((key, stamp));
                }
                true
            });
        }
        for (actor, span_id) in over {
            socket.withdraw_context(actor.pid, actor.tid, span_id);
        }
        if offered.is_empty() {
            return Ok(());
        }
        let told = socket.publish_contexts(&offered)?;
        self.told += told.len() as u64;
        let mut known = requests.lock().unwrap_or_else(PoisonError::into_inner);
        told.into_iter().for_each(|key| known.note_told(key));
        Ok(())
    }
}
