//! One connection's two streams, and which protocol they speak.
//!
//! Until that is known, fragments are kept, a few; then the protocol is given them in their order. HTTP/1
//! shows itself by a request line or a status line at the beginning of a fragment. What shows nothing in a
//! few fragments is none of our protocols and costs nothing from then on. HTTP/2 shows itself by the client's
//! preface or, joined in the middle, by fragments that begin with frames in both directions.
//!
//! `Began` comes with a request's complete head, since samples and requests that hang need it at once. That
//! the other end speaks the same is known only when it answers: [`Conversation::is_confirmed`]; if it
//! answers something else, `Discarded(NotConfirmed)` takes the exchange back.
//!
//! An exchange whose last byte was written ends when that write has settled: with the next write, or, on a
//! connection where one request waits for its answer before the next, with the next thing read; at the
//! latest a twentieth of a second later ([`Conversation::settle`]). So `Ended` of one exchange can come after
//! `Began` of the next, which does not make them overlap.
//!
//! Bytes from inside of TLS have streams of their own, and once some were seen, those outside mean nothing.

use super::exchange::ExchangeEvent;
use super::protocols::http1::head::{Likeness, may_be_request, may_be_response, starts_with};
use super::protocols::http1::{Http1, Over};
use super::protocols::http2::frame::may_begin_with_frame;
use super::protocols::http2::{Http2, carry_requests};
use super::protocols::{Held, Output, failure, opposite};
use super::stream::{Moment, Piece, Stream};
pub use crate::model::socket::Capture;
use crate::model::socket::{Actor, Direction, Ending, Fragment, Moved, Role};

/// Fragments in which a connection that was seen from its beginning must show what it speaks.
const TRIES_FROM_BEGINNING: u32 = 8;
/// Likewise of one that is older, which may be within a long body; or in which TLS began, for its plain
/// bytes to come.
const TRIES_IN_THE_MIDDLE: u32 = 64;
/// Bytes of fragments that are kept until the protocol is known.
const MAX_KEPT_BYTES: usize = 16384;
/// Such fragments.
const MAX_KEPT: usize = 256;
/// How the client's preface of HTTP/2 begins.
const HTTP2_PREFACE_LINE: &[u8] = b"PRI * HTTP/2.0\r\n";
/// For how long a write may turn out to have moved less than it announced.
const SETTLING_NS: u64 = 50_000_000;

/// See the module's description.
#[derive(Debug)]
pub struct Conversation {
    role: Role,
    /// Whether the streams are those inside of TLS.
    is_decrypted: bool,
    /// Whether TLS was seen to begin.
    is_tls: bool,
    /// Some of what went through TLS may have gone by before anybody read there.
    is_read_late: bool,
    read: Stream,
    written: Stream,
    protocol: Protocol,
    /// Exchanges whose last byte was written, perhaps.
    held: Vec<Held>,
    exchanges: u64,
    /// When something was last written.
    written_ns: u64,
    was_confirmed: bool,
}

#[derive(Debug)]
enum Protocol {
    Unknown(Box<Unknown>),
    Http1(Box<Http1>),
    Http2(Box<Http2>),
    /// None of ours, or no more.
    Nothing,
}

/// What is known of a connection before its protocol is.
#[derive(Debug, Default)]
struct Unknown {
    tries: u32,
    kept_bytes: usize,
    kept: Vec<(u64, Actor, Fragment)>,
}

/// What a fragment shows of the protocol.
enum Shows {
    Http1 {
        requests: Direction,
    },
    Http2Preface {
        requests: Direction,
    },
    /// Frames, in both directions by now.
    Http2Frames {
        requests: Direction,
    },
    /// It goes on, or it is the other end's turn.
    Nothing,
}

impl Conversation {
    /// A connection whose first bytes may or may not have been seen.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self {
            role,
            is_decrypted: false,
            is_tls: false,
            is_read_late: false,
            read: Stream::default(),
            written: Stream::default(),
            protocol: Protocol::Unknown(Box::default()),
            held: Vec::new(),
            exchanges: 0,
            written_ns: 0,
            was_confirmed: false,
        }
    }

    /// Takes what was moved; says what that means. Fragments of both directions come in the order in which
    /// they happened, those of one direction in order of position.
    pub fn take(&mut self, time_ns: u64, actor: Actor, fragment: &Fragment, out: &mut Vec<ExchangeEvent>) {
        if fragment.is_decrypted != self.is_decrypted {
            if !fragment.is_decrypted {
                return;
            }
            self.begin_decrypted(time_ns, out);
        }
        self.settle_before(time_ns, fragment, out);
        if fragment.direction == Direction::Out {
            self.written_ns = time_ns;
        }
        if let Protocol::Unknown(_) = self.protocol {
            self.take_unknown(time_ns, actor, fragment, out);
        } else {
            self.take_known(time_ns, actor, fragment, out);
        }
    }

    /// Who read inside of TLS began to after the connection had: to be told before its first plain bytes.
    pub fn was_read_late(&mut self) {
        self.is_read_late = true;
    }

    /// The fragment written at `position` moved only `length` bytes.
    pub fn amend(&mut self, is_decrypted: bool, position: u64, length: u64) {
        if is_decrypted != self.is_decrypted {
            return;
        }
        if let Protocol::Unknown(unknown) = &mut self.protocol
            && let Some((.., latest)) = unknown.kept.iter_mut().rfind(|(.., f)| f.direction == Direction::Out)
            && latest.position == position
            && latest.length > length
        {
            latest.length = length;
            latest.tail.clear();
            latest.head.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        }
        self.written.amend(position, length);
    }

    /// One direction was shut down.
    pub fn shut_down(&mut self, direction: Direction, out: &mut Vec<ExchangeEvent>) {
        self.settle_writes(out);
        if let Protocol::Http1(http1) = &mut self.protocol {
            let (held, exchanges) = (&mut self.held, &mut self.exchanges);
            http1.shut_down(direction, &mut Output { events: out, held, exchanges });
        }
        release(&mut self.held, self.written.moved_to(), out);
    }

    /// So much was moved in all, which is told when the connection has ended: more than was seen if something of it
    /// was lost and nothing came behind that.
    pub fn has_moved(&mut self, time_ns: u64, moved: &Moved, out: &mut Vec<ExchangeEvent>) {
        if moved.is_decrypted != self.is_decrypted || matches!(self.protocol, Protocol::Unknown(_)) {
            return;
        }
        self.settle_writes(out);
        for (direction, position) in [(Direction::In, moved.in_bytes), (Direction::Out, moved.out_bytes)] {
            let stream = match direction {
                Direction::In => &self.read,
                Direction::Out => &self.written,
            };
            if position > stream.moved_to() {
                let nothing = Fragment {
                    direction,
                    is_decrypted: moved.is_decrypted,
                    position,
                    sequence: None,
                    length: 0,
                    head: Vec::new(),
                    tail: Vec::new(),
                    minted: None,
                    within: None,
                    by_event_loop: false,
                    from_pool: false,
                };
                self.take_known(time_ns, Actor::default(), &nothing, out);
            }
        }
    }

    /// The connection is no more: every exchange that is not complete ends now.
    pub fn end(&mut self, time_ns: u64, ending: Ending, out: &mut Vec<ExchangeEvent>) {
        self.settle_writes(out);
        let written = self.written.moved_to();
        let (held, exchanges) = (&mut self.held, &mut self.exchanges);
        self.protocol.close(time_ns, ending, written, &mut Output { events: out, held, exchanges });
        for Held { position, mut ended } in self.held.drain(..) {
            if position > written {
                // Its last bytes were to be written, and never were.
                ended.failure = Some(failure(ending));
                ended.last_byte_ns = time_ns;
                ended.response_body_bytes = None;
            }
            out.push(ExchangeEvent::Ended(ended));
        }
        self.give_up();
    }

    /// When [`Self::settle`] is to be called at the latest, if nothing else happens before.
    #[must_use]
    pub fn settles_at(&self) -> Option<u64> {
        let writes = (!self.held.is_empty() || self.written.is_unsettled())
            .then(|| self.written_ns.saturating_add(SETTLING_NS));
        let quiet = self.protocol.settles_at();
        writes.into_iter().chain(quiet).min()
    }

    /// It is that late now.
    pub fn settle(&mut self, now_ns: u64, out: &mut Vec<ExchangeEvent>) {
        if now_ns >= self.written_ns.saturating_add(SETTLING_NS) {
            self.settle_writes(out);
            release(&mut self.held, self.written.moved_to(), out);
        }
        let (held, exchanges) = (&mut self.held, &mut self.exchanges);
        self.protocol.settle(now_ns, &mut Output { events: out, held, exchanges });
    }

    /// What it wants to see from now on.
    #[must_use]
    pub fn capture(&self) -> Capture {
        match &self.protocol {
            Protocol::Unknown(_) | Protocol::Http1(_) => Capture::Heads,
            Protocol::Http2(_) => Capture::Whole,
            Protocol::Nothing => Capture::Nothing,
        }
    }

    /// Whether a protocol is confirmed: a request and its response have both been understood.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.was_confirmed || self.protocol.is_confirmed()
    }

    /// Whether what is understood was read inside of a TLS library.
    #[must_use]
    pub fn is_decrypted(&self) -> bool {
        self.is_decrypted
    }

    /// Whether it is TLS, and nobody can read what is inside.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.is_tls && !self.is_decrypted
    }

    /// Whether requests may be read from it of which nothing is known: this end did not ask for the connection,
    /// and it is encrypted or of another protocol.
    #[must_use]
    pub fn may_hide_requests(&self) -> bool {
        let is_nothing = matches!(self.protocol, Protocol::Nothing);
        self.role != Role::Connected && (self.is_encrypted() || is_nothing && !self.is_confirmed())
    }

    /// About how many bytes it keeps of what others sent.
    #[cfg(test)]
    fn footprint(&self) -> usize {
        let protocol = match &self.protocol {
            Protocol::Unknown(unknown) => {
                let kept = |(.., fragment): &(u64, Actor, Fragment)| {
                    size_of::<(u64, Actor, Fragment)>() + fragment.head.len() + fragment.tail.len()
                };
                unknown.kept.iter().map(kept).sum()
            }
            Protocol::Http1(http1) => http1.footprint(),
            Protocol::Http2(http2) => http2.footprint(),
            Protocol::Nothing => 0,
        };
        protocol + self.held.len() * size_of::<Held>()
    }

    /// The first bytes from inside of TLS: what was outside has meant nothing.
    fn begin_decrypted(&mut self, time_ns: u64, out: &mut Vec<ExchangeEvent>) {
        self.end(time_ns, Ending::Closed, out);
        let Self { exchanges, is_read_late, .. } = *self;
        *self = Self { is_decrypted: true, is_tls: true, is_read_late, exchanges, ..Self::new(self.role) };
    }

    fn give_up(&mut self) {
        self.was_confirmed |= self.is_confirmed();
        self.protocol = Protocol::Nothing;
    }

    /// The write before this fragment has moved what it announced, if this fragment shows that.
    fn settle_before(&mut self, time_ns: u64, fragment: &Fragment, out: &mut Vec<ExchangeEvent>) {
        let is_late = time_ns >= self.written_ns.saturating_add(SETTLING_NS);
        match fragment.direction {
            Direction::Out => {
                self.settle_writes(out);
                release(&mut self.held, fragment.position, out);
                let end = fragment.position.saturating_add(fragment.length);
                for held in self.held.iter_mut().filter(|held| held.position <= end) {
                    held.ended.last_byte_ns = time_ns;
                }
            }
            Direction::In => {
                if is_late || self.protocol.alternates() {
                    self.settle_writes(out);
                    release(&mut self.held, self.written.moved_to(), out);
                }
            }
        }
    }

    fn settle_writes(&mut self, out: &mut Vec<ExchangeEvent>) {
        if !self.written.is_unsettled() {
            return;
        }
        let (held, exchanges) = (&mut self.held, &mut self.exchanges);
        let mut output = Output { events: out, held, exchanges };
        let protocol = &mut self.protocol;
        self.written.settle(|position, piece, moment| {
            protocol.take(Direction::Out, position, piece, moment, &mut output);
        });
        self.look_whether_it_is_over();
    }

    fn take_known(&mut self, time_ns: u64, actor: Actor, fragment: &Fragment, out: &mut Vec<ExchangeEvent>) {
        let &Fragment { minted, within, by_event_loop, from_pool, .. } = fragment;
        // TCP's numbers are those of positions modulo 2³².
        #[expect(clippy::cast_possible_truncation, reason = "modulo 2³²")]
        let sequence_of_start =
            fragment.sequence.map(|sequence| sequence.wrapping_sub(fragment.position as u32));
        let moment = Moment { time_ns, actor, sequence_of_start, minted, within, by_event_loop, from_pool };
        let stream = match fragment.direction {
            Direction::In => &mut self.read,
            Direction::Out => &mut self.written,
        };
        let (held, exchanges) = (&mut self.held, &mut self.exchanges);
        let mut output = Output { events: out, held, exchanges };
        let protocol = &mut self.protocol;
        stream.take(moment, fragment, |position, piece, moment| {
            protocol.take(fragment.direction, position, piece, moment, &mut output);
        });
        self.look_whether_it_is_over();
    }

    fn look_whether_it_is_over(&mut self) {
        match self.protocol.over() {
            None => {}
            Some(Over::Http2) => {
                self.give_up();
                self.protocol = Protocol::Unknown(Box::default());
            }
            Some(Over::Tunnel) if !self.is_decrypted => {
                // What comes now may be TLS that can be seen from inside.
                self.give_up();
                self.protocol = Protocol::Unknown(Box::default());
            }
            Some(_) => self.give_up(),
        }
    }

    fn take_unknown(
        &mut self,
        time_ns: u64,
        actor: Actor,
        fragment: &Fragment,
        out: &mut Vec<ExchangeEvent>,
    ) {
        let Protocol::Unknown(unknown) = &mut self.protocol else { return };
        self.is_tls |= !fragment.is_decrypted && begins_tls(&fragment.head);
        if self.is_tls && !self.is_decrypted {
            // Only the plain bytes can tell anything, which come if somebody shows them.
            unknown.kept.clear();
            unknown.tries += 1;
            if unknown.tries >= TRIES_IN_THE_MIDDLE {
                self.give_up();
            }
            return;
        }
        let (shows, likeness) = unknown.shows(fragment, self.role);
        let protocol = match shows {
            Shows::Http1 { requests } => {
                let before = unknown.kept.iter().filter(|(.., kept)| kept.direction == fragment.direction);
                let first = before.map(|(.., kept)| kept.position).next().unwrap_or(fragment.position);
                // A call that had begun before is not seen to end, and nobody knows what it read.
                let may_have_missed = self.is_decrypted && (self.is_read_late || self.role == Role::Unknown);
                let is_aligned = self.role != Role::Unknown && first == 0 && !may_have_missed;
                Some(Protocol::Http1(Box::new(Http1::new(requests, is_aligned, may_have_missed))))
            }
            Shows::Http2Preface { requests } => {
                Some(Protocol::Http2(Box::new(Http2::from_preface(requests))))
            }
            Shows::Http2Frames { requests } => {
                Some(Protocol::Http2(Box::new(Http2::in_the_middle(requests))))
            }
            Shows::Nothing => None,
        };
        if let Some(protocol) = protocol {
            let kept = std::mem::take(&mut unknown.kept);
            self.protocol = protocol;
            for (time_ns, actor, fragment) in
                kept.iter().map(|(t, a, f)| (*t, *a, f)).chain([(time_ns, actor, fragment)])
            {
                if fragment.direction == Direction::Out {
                    self.settle_writes(out);
                }
                self.take_known(time_ns, actor, fragment, out);
            }
            return;
        }
        let is_beginning = self.role != Role::Unknown;
        unknown.tries += u32::from(!fragment.head.is_empty() && likeness == Likeness::No);
        unknown.kept_bytes += fragment.head.len() + fragment.tail.len();
        let tries = if is_beginning { TRIES_FROM_BEGINNING } else { TRIES_IN_THE_MIDDLE };
        if unknown.tries >= tries || unknown.kept.len() >= MAX_KEPT {
            self.give_up();
        } else if unknown.kept_bytes <= MAX_KEPT_BYTES {
            unknown.kept.push((time_ns, actor, fragment.clone()));
        } else {
            unknown.kept_bytes = 0;
            let kept = std::mem::take(&mut unknown.kept);
            for passed in kept.iter().map(|(.., kept)| kept).chain([fragment]) {
                let stream = match passed.direction {
                    Direction::In => &mut self.read,
                    Direction::Out => &mut self.written,
                };
                stream.pass(passed);
            }
        }
    }
}

impl Protocol {
    fn take(
        &mut self,
        direction: Direction,
        position: u64,
        piece: Piece<'_>,
        moment: &Moment,
        out: &mut Output<'_>,
    ) {
        match self {
            Self::Http1(http1) => http1.take(direction, position, piece, moment, out),
            Self::Http2(http2) => http2.take(direction, position, piece, moment, out),
            Self::Unknown(_) | Self::Nothing => {}
        }
    }

    fn settles_at(&self) -> Option<u64> {
        match self {
            Self::Http1(http1) => http1.settles_at(),
            Self::Http2(http2) => http2.settles_at(),
            Self::Unknown(_) | Self::Nothing => None,
        }
    }

    fn settle(&mut self, now_ns: u64, out: &mut Output<'_>) {
        match self {
            Self::Http1(http1) => http1.settle(now_ns, out),
            Self::Http2(http2) => http2.settle(now_ns, out),
            Self::Unknown(_) | Self::Nothing => {}
        }
    }

    fn close(&mut self, time_ns: u64, ending: Ending, written: u64, out: &mut Output<'_>) {
        match self {
            Self::Http1(http1) => http1.close(time_ns, ending, written, out),
            Self::Http2(http2) => http2.close(time_ns, ending, written, out),
            Self::Unknown(_) | Self::Nothing => {}
        }
    }

    fn is_confirmed(&self) -> bool {
        match self {
            Self::Http1(http1) => http1.is_confirmed(),
            Self::Http2(http2) => http2.is_confirmed(),
            Self::Unknown(_) | Self::Nothing => false,
        }
    }

    /// Whether what is read shows that what was written before has arrived.
    fn alternates(&self) -> bool {
        match self {
            Self::Http1(http1) => http1.alternates(),
            Self::Http2(_) | Self::Unknown(_) | Self::Nothing => false,
        }
    }

    fn over(&self) -> Option<Over> {
        match self {
            Self::Http1(http1) => http1.over(),
            Self::Http2(http2) => http2.is_over().then_some(Over::GivenUp),
            Self::Unknown(_) | Self::Nothing => None,
        }
    }
}

impl Unknown {
    /// What this fragment shows, with those that were kept before it; and whether a message may begin so.
    fn shows(&self, fragment: &Fragment, role: Role) -> (Shows, Likeness) {
        let direction = fragment.direction;
        let joined = self.kept_before(fragment);
        let bytes = match &joined {
            Some(joined) => joined.as_slice(),
            None => fragment.head.as_slice(),
        };
        let likeness = may_be(bytes);
        if may_be_request(bytes) == Likeness::Yes {
            return (Shows::Http1 { requests: direction }, likeness);
        }
        if may_be_response(bytes) == Likeness::Yes {
            return (Shows::Http1 { requests: opposite(direction) }, likeness);
        }
        if starts_with(bytes, HTTP2_PREFACE_LINE) == Likeness::Yes {
            return (Shows::Http2Preface { requests: direction }, likeness);
        }
        if !may_begin_with_frame(&fragment.head, fragment.length) {
            return (Shows::Nothing, likeness);
        }
        let are_frames = |fragment: &&Fragment| may_begin_with_frame(&fragment.head, fragment.length);
        let kept = || self.kept.iter().map(|(.., kept)| kept).filter(are_frames);
        if !kept().any(|kept| kept.direction != direction) {
            return (Shows::Nothing, Likeness::Maybe);
        }
        let requests = match role {
            Role::Accepted => Some(Direction::In),
            Role::Connected => Some(Direction::Out),
            Role::Unknown => kept().chain([fragment]).find_map(|fragment| {
                carry_requests(&fragment.head).map(|are_requests| match are_requests {
                    true => fragment.direction,
                    false => opposite(fragment.direction),
                })
            }),
        };
        match requests {
            Some(requests) => (Shows::Http2Frames { requests }, Likeness::Yes),
            None => (Shows::Nothing, Likeness::Maybe),
        }
    }

    /// What was kept of this fragment's direction right before it with the fragment, if a message may begin
    /// there.
    fn kept_before(&self, fragment: &Fragment) -> Option<Vec<u8>> {
        let mut joined = Vec::new();
        let mut end = None;
        for (.., before) in self.kept.iter().filter(|(.., before)| before.direction == fragment.direction) {
            if end != Some(before.position) {
                joined.clear();
            }
            joined.extend_from_slice(&before.head);
            end = Some(before.position.saturating_add(before.head.len() as u64));
        }
        if joined.is_empty() || end != Some(fragment.position) || may_be(&joined) == Likeness::No {
            return None;
        }
        joined.extend_from_slice(&fragment.head);
        Some(joined)
    }
}

/// Whether a message may begin so.
fn may_be(bytes: &[u8]) -> Likeness {
    let likenesses = [may_be_request(bytes), may_be_response(bytes), starts_with(bytes, HTTP2_PREFACE_LINE)];
    let is = |likeness| likenesses.contains(&likeness);
    match () {
        () if is(Likeness::Yes) => Likeness::Yes,
        () if is(Likeness::Maybe) => Likeness::Maybe,
        () => Likeness::No,
    }
}

/// Lets go of what has ended before `moved_to`.
fn release(held: &mut Vec<Held>, moved_to: u64, out: &mut Vec<ExchangeEvent>) {
    for held in held.extract_if(.., |held| held.position <= moved_to) {
        out.push(ExchangeEvent::Ended(held.ended));
    }
}

/// Whether a fragment begins with a record of TLS that begins a handshake (RFC 8446 section 5.1): readers
/// often take the record's head alone.
fn begins_tls(bytes: &[u8]) -> bool {
    const CLIENT_HELLO: u8 = 1;
    match bytes {
        [0x16, 3, minor, _, _, kind, ..] => *minor <= 4 && *kind == CLIENT_HELLO,
        [0x16, 3, minor, high, _] => *minor <= 4 && *high <= 0x40,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
