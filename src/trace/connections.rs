//! The connections of this host that are heard of, each with its conversation.
//!
//! Bounded: a connection that has not said anything for long, whose end was lost, goes when there are too
//! many.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use foldhash::HashMap;

use super::conversation::{Capture, Conversation};
use super::exchange::ExchangeEvent;
use crate::model::ConnectionId;
use crate::model::socket::{Direction, Opened, Role, SocketEvent, SocketEventKind};

/// As many as the kernel side follows at a time, and those whose end is still on its way.
const MAX_CONNECTIONS: usize = 80_000;
/// How many are looked at for the one that has been silent for longest: an approximation of that.
const LOOKED_AT: usize = 32;

/// What an event means for a connection.
#[derive(Debug, Default)]
pub(super) struct News {
    /// It was heard of for the first time.
    pub(super) opened: Option<Opened>,
    /// What was understood.
    pub(super) events: Vec<ExchangeEvent>,
    /// What its protocol wants to see from now on, if that has changed.
    pub(super) capture: Option<Capture>,
    /// What was understood was read inside of a TLS library.
    pub(super) is_decrypted: bool,
    /// Who reads from it may have received requests there that nobody can read.
    pub(super) is_opaque: bool,
    /// It is no more.
    pub(super) is_over: bool,
    /// It is TLS of which nothing could be read up to now, or its end: the process at this end. Told once.
    pub(super) unreadable_by: Option<u32>,
}

#[derive(Debug)]
struct Connection {
    conversation: Conversation,
    capture: Capture,
    /// The process that moved something over it last; 0: none yet.
    pid: u32,
    /// See [`News::unreadable_by`].
    was_told_unreadable: bool,
    last_heard_ns: u64,
    /// When it began; `None` if that was not seen.
    opened_ns: Option<u64>,
    /// When it is to be looked at again although nothing happens.
    settles_at_ns: Option<u64>,
}

impl Connection {
    /// The process at this end, if it is TLS of which nothing could be read and that has not been told.
    fn tell_unreadable(&mut self) -> Option<u32> {
        let is_news = self.conversation.is_encrypted() && !self.was_told_unreadable;
        self.was_told_unreadable |= is_news;
        is_news.then_some(self.pid)
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Connections {
    connections: HashMap<ConnectionId, Connection>,
    /// Earliest first; an entry counts only if its connection still has that time.
    to_settle: BinaryHeap<Reverse<(u64, ConnectionId)>>,
    /// Since when what processes read and write inside of TLS is seen, where that began while they ran.
    readable_since_ns: HashMap<u32, u64>,
    forgotten: u64,
}

impl Connections {
    /// Takes an event; `news` is emptied first.
    pub(super) fn take(&mut self, event: &SocketEvent, news: &mut News) {
        news.opened = None;
        news.events.clear();
        news.capture = None;
        news.is_opaque = false;
        news.is_over = false;
        news.unreadable_by = None;
        let known = self.connections.get(&event.connection);
        news.is_decrypted = known.is_some_and(|known| known.conversation.is_decrypted());
        match &event.kind {
            SocketEventKind::Opened(opened) => {
                news.opened = Some(*opened);
                self.begin(event, opened.role).opened_ns = Some(event.time_ns);
            }
            SocketEventKind::Data(fragment) => {
                let readable_since_ns = self.readable_since_ns.get(&event.actor.pid).copied();
                let connection = self.begin(event, Role::Unknown);
                connection.pid = event.actor.pid;
                if fragment.is_decrypted
                    && !connection.conversation.is_decrypted()
                    && connection
                        .opened_ns
                        .zip(readable_since_ns)
                        .is_some_and(|(opened, since)| opened < since)
                {
                    connection.conversation.was_read_late();
                }
                connection.conversation.take(event.time_ns, event.actor, fragment, &mut news.events);
                news.is_decrypted = fragment.is_decrypted;
                news.is_opaque =
                    fragment.direction == Direction::In && connection.conversation.may_hide_requests();
                let capture = connection.conversation.capture();
                if capture != connection.capture {
                    connection.capture = capture;
                    news.capture = Some(capture);
                    if capture == Capture::Nothing {
                        news.unreadable_by = connection.tell_unreadable();
                    }
                }
            }
            &SocketEventKind::Amended { is_decrypted, position, length } => {
                if let Some(connection) = self.connections.get_mut(&event.connection) {
                    connection.conversation.amend(is_decrypted, position, length);
                }
            }
            &SocketEventKind::ShutDown(direction) => {
                if let Some(connection) = self.connections.get_mut(&event.connection) {
                    connection.conversation.shut_down(direction, &mut news.events);
                }
            }
            // It says nothing of what goes over it.
            SocketEventKind::Stream { .. } | SocketEventKind::Listens => {}
            &SocketEventKind::Ended(ending, moved) => {
                news.is_over = true;
                if let Some(mut connection) = self.connections.remove(&event.connection) {
                    news.unreadable_by = connection.tell_unreadable();
                    if let Some(moved) = moved {
                        connection.conversation.has_moved(event.time_ns, &moved, &mut news.events);
                    }
                    connection.conversation.end(event.time_ns, ending, &mut news.events);
                }
            }
            SocketEventKind::NewCode { .. } | SocketEventKind::IoUring => return,
        }
        self.note_settling(event.connection);
    }

    /// What a process reads and writes inside of TLS is seen since that time.
    pub(super) fn note_readable(&mut self, pid: u32, since_ns: u64) {
        let since = self.readable_since_ns.entry(pid).or_default();
        *since = since_ns.max(*since);
    }

    /// A process is no more, and its number will be another's.
    pub(super) fn forget_process(&mut self, pid: u32) {
        self.readable_since_ns.remove(&pid);
    }

    fn note_settling(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let settles_at_ns = connection.conversation.settles_at();
        if settles_at_ns == connection.settles_at_ns {
            return;
        }
        connection.settles_at_ns = settles_at_ns;
        self.to_settle.extend(settles_at_ns.map(|at| Reverse((at, id))));
    }

    /// Looks at those again whose time has come.
    pub(super) fn settle(&mut self, now_ns: u64, mut on_news: impl FnMut(ConnectionId, News)) {
        while let Some(&Reverse((at, id))) = self.to_settle.peek()
            && at <= now_ns
        {
            self.to_settle.pop();
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            if connection.settles_at_ns != Some(at) {
                continue;
            }
            connection.settles_at_ns = None;
            let is_decrypted = connection.conversation.is_decrypted();
            let mut news = News { is_decrypted, ..News::default() };
            connection.conversation.settle(now_ns, &mut news.events);
            on_news(id, news);
            self.note_settling(id);
        }
    }

    fn begin(&mut self, event: &SocketEvent, role: Role) -> &mut Connection {
        let connection = self.connections.entry(event.connection).or_insert_with(|| Connection {
            conversation: Conversation::new(role),
            capture: Capture::default(),
            pid: 0,
            was_told_unreadable: false,
            last_heard_ns: event.time_ns,
            opened_ns: None,
            settles_at_ns: None,
        });
        connection.last_heard_ns = event.time_ns;
        connection
    }

    /// Lets go of the most silent ones while there are too many, and names them.
    pub(super) fn forget_silent(&mut self) -> Vec<ConnectionId> {
        let mut forgotten = Vec::new();
        while self.connections.len() > MAX_CONNECTIONS {
            let some = self.connections.iter().take(LOOKED_AT);
            let Some(id) = some.min_by_key(|(_, of)| of.last_heard_ns).map(|(&id, _)| id) else { break };
            self.connections.remove(&id);
            self.forgotten += 1;
            forgotten.push(id);
        }
        forgotten
    }

    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Connections that were let go of because there were too many.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_when_a_process_is_readable_is_the_latest_that_was_said_until_it_is_no_more() {
        let mut connections = Connections::default();
        connections.note_readable(7, 500);
        // Another library of the same process was there before; and one came later.
        connections.note_readable(7, 200);
        connections.note_readable(8, 900);
        assert_eq!(connections.readable_since_ns.get(&7), Some(&500));
        connections.note_readable(7, 800);
        assert_eq!(connections.readable_since_ns.get(&7), Some(&800));
        connections.forget_process(7);
        assert_eq!(connections.readable_since_ns.get(&7), None);
        assert_eq!(connections.readable_since_ns.get(&8), Some(&900));
    }
}
