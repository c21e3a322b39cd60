//! Who works on which stream of a connection that carries many requests, where the kernel side was told by the
//! program itself (Go's HTTP/2 and gRPC).
//!
//! A server's stream becomes known after its request's head was read, a client's before it is written.

use std::collections::BTreeMap;

use crate::model::RequestKey;
use crate::model::socket::{Actor, Direction};

/// Streams of a connection that are remembered: those that are waiting for their request's head.
const MAX_STREAMS: usize = 1024;

/// Who works on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamWork {
    /// `In`: a server's. `Out`: a client's.
    pub(super) direction: Direction,
    /// A server's: its key. A client's: the request within which it is asked, if there is one.
    pub(super) request: Option<RequestKey>,
    /// Who.
    pub(super) actor: Actor,
}

/// The streams of a connection of which no head was seen yet.
#[derive(Debug, Default)]
pub(super) struct Streams {
    waiting: BTreeMap<u32, StreamWork>,
}

impl Streams {
    /// Remembers who works on a stream; the oldest stream is forgotten for it if there are too many.
    pub(super) fn add(&mut self, stream_id: u32, work: StreamWork) {
        if self.waiting.len() >= MAX_STREAMS {
            self.waiting.pop_first();
        }
        self.waiting.insert(stream_id, work);
    }

    /// Who works on a stream, once.
    pub(super) fn take(&mut self, stream_id: u32, direction: Direction) -> Option<StreamWork> {
        self.waiting.remove(&stream_id).filter(|work| work.direction == direction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_known_once_and_in_its_direction_only() {
        let mut streams = Streams::default();
        let work = StreamWork {
            direction: Direction::In,
            request: RequestKey::of(7),
            actor: Actor { pid: 1, tid: 2, goroutine: 3 },
        };
        streams.add(1, work);
        streams.add(3, work);
        assert_eq!(streams.take(1, Direction::In), Some(work));
        assert_eq!(streams.take(1, Direction::In), None);
        assert_eq!(streams.take(3, Direction::Out), None);
        for stream_id in 0..5000 {
            streams.add(stream_id, work);
        }
        assert_eq!(streams.waiting.len(), MAX_STREAMS);
        assert_eq!(streams.take(4999, Direction::In), Some(work), "the newest stay");
    }
}
