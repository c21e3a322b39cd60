//! What goes over a host's sockets, as the kernel side hands it on: whose bytes, where in the stream, and
//! who was at it.
//!
//! A connection has two streams, one each way, whose positions count bytes from its beginning (or from
//! where we first saw it). A [`Fragment`] is what one system call moved, of which only the first bytes and
//! the last few are there. Events of one connection come in the order in which they happened; where one
//! was lost, positions have a gap.

use std::net::IpAddr;

/// Names one end of a connection for the life of this host. TCP: the socket cookie; UNIX: the inode
/// number of the socket with the highest bit set. Never 0. The two ends of a local connection have two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Names a request that the kernel side has seen begin, for the life of this host. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKey(pub u64);

/// Who was at it: a thread, and where the program has its own threads, which of those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Actor {
    /// Process id, initial pid namespace.
    pub pid: u32,
    /// Thread id, initial pid namespace.
    pub tid: u32,
    /// Goroutine id; 0 if the process is no Go program, or on none.
    pub goroutine: u64,
}

/// Which way bytes went, as the process at this end sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// They were read.
    In,
    /// They were written.
    Out,
}

/// How this end of a connection came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Role {
    /// It is older than the agent, or of a kind that does not tell.
    #[default]
    Unknown,
    /// It was accepted.
    Accepted,
    /// It was connected from here.
    Connected,
}

/// Where an end of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// TCP. An IPv4 address is one, also when the socket is of IPv6.
    Internet {
        /// Address.
        address: IpAddr,
        /// Port.
        port: u16,
    },
    /// A UNIX socket, whose path may be found by its inode.
    Unix {
        /// Inode of the socket; 0 if unknown.
        inode: u64,
    },
}

/// The first event of a connection: sent with its first bytes, or when it could not be connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// How it came to be.
    pub role: Role,
    /// This end.
    pub local: Endpoint,
    /// The other end.
    pub peer: Endpoint,
    /// Inode number of the network namespace that it is in; 0 if unknown.
    pub network_namespace: u32,
    /// The request that was open on the thread or goroutine that connected it.
    pub opened_by: Option<RequestKey>,
    /// Who connected it; zeros if unknown.
    pub opener: Actor,
}

/// The kernel side's belief that a request begins with this fragment, or up to seven bytes before it (Go's
/// HTTP server reads the first byte of the next request by itself): it is the first thing that its
/// reader does for that request, or the first that its writer has said of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minted {
    /// Names the request in samples and in later fragments.
    pub key: RequestKey,
    /// The trace it belongs to: the one of its `traceparent` or of TCP's header if that was seen, or of the request
    /// it is within; else a new one.
    pub trace_id: [u8; 16],
    /// The id of its span.
    pub span_id: [u8; 8],
    /// The client's span, if it came in TCP's header, and with it [`Self::trace_id`]. Its trace is sampled.
    pub received_parent: Option<[u8; 8]>,
    /// Whether the two ids go out in TCP's header: then they are what they are.
    pub is_sent: bool,
}

/// What one system call (or one call of a TLS library) moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Which way.
    pub direction: Direction,
    /// Whether these are the plain bytes inside of TLS, which count positions of their own.
    pub is_decrypted: bool,
    /// Position of the first byte in its stream.
    pub position: u64,
    /// Which number TCP gives the first byte: the same at both ends. Not of other sockets, nor of what was read
    /// inside of TLS.
    pub sequence: Option<u32>,
    /// How many bytes were moved, or are being moved: see [`SocketEventKind::Amended`].
    pub length: u64,
    /// The first of them, as far as they are captured.
    pub head: Vec<u8>,
    /// The last of them, if they are not in `head` and were captured. They end where the fragment ends.
    pub tail: Vec<u8>,
    /// Set with the first bytes of what looks like a request.
    pub minted: Option<Minted>,
    /// The request that was open on the thread or goroutine when it made this call: what an outgoing
    /// request may have been caused by. Not set where `minted` is and the bytes were read.
    pub within: Option<RequestKey>,
    /// A thread that serves many at a time made this call, so that nothing is known of what caused it.
    pub by_event_loop: bool,
    /// `within` is not the writer's, but of the thread that has taken the connection out of a pool for this request.
    pub from_pool: bool,
}

/// Bytes that are missing from a stream, if it is not known how many are: at least so many; `SF_UNKNOWN_GAP`.
pub const UNKNOWN_GAP_BYTES: u64 = 1 << 40;

/// Why a connection is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// It was closed in order.
    Closed,
    /// The other end has reset it.
    Reset,
    /// It timed out.
    TimedOut,
    /// It could not be connected: nobody listens, or no way leads there. The error number.
    NotConnected(i32),
    /// Another error, by its number.
    Failed(i32),
}

/// Bytes that a connection has moved in all: whoever was told of fewer has missed some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Moved {
    /// Plain bytes inside of TLS.
    pub is_decrypted: bool,
    /// Bytes read.
    pub in_bytes: u64,
    /// Bytes written.
    pub out_bytes: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketEventKind {
    /// See [`Opened`].
    Opened(Opened),
    /// Bytes were moved.
    Data(Fragment),
    /// The latest fragment sent at `position` moved only `length` bytes, perhaps none.
    Amended {
        /// Which stream.
        is_decrypted: bool,
        /// Position of that fragment.
        position: u64,
        /// What it really moved.
        length: u64,
    },
    /// Who works on a request of a connection that carries many: the event's actor.
    Stream {
        /// Number of the request's stream.
        stream_id: u32,
        /// `In`: it was read, `request` is its key. `Out`: it is about to be written, within `request`.
        direction: Direction,
        /// See `direction`.
        request: Option<RequestKey>,
    },
    /// The actor's process begins to serve: no connection is that yet.
    Listens,
    /// One direction was shut down: nothing more is read (`In`) or written (`Out`).
    ShutDown(Direction),
    /// The connection is no more. What was moved over it is unknown if its end went by unseen.
    Ended(Ending, Option<Moved>),
    /// Of no connection (its number is 0): the process runs another program, or has mapped a file that is a TLS
    /// library by its name.
    NewCode {
        /// It runs another program.
        is_program: bool,
    },
    /// Of no connection: a process uses `io_uring`. Said once.
    IoUring,
}

/// How much of a connection's fragments is to be captured. Every connection begins with `Heads`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Capture {
    /// The first kilobytes of each call, and the last bytes.
    #[default]
    Heads,
    /// All of it, as far as one event carries: HTTP/2 has heads anywhere.
    Whole,
    /// Nothing, not even lengths: what is spoken there is none of our protocols. Only its end is told.
    Nothing,
}

/// An event of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketEvent {
    /// The connection's end; 0 for [`SocketEventKind::NewCode`] and [`SocketEventKind::IoUring`].
    pub connection: ConnectionId,
    /// `CLOCK_MONOTONIC`, nanoseconds: for reads when they returned, for writes when they began.
    pub time_ns: u64,
    /// Who did it; zeros where nobody did (an ending that the network brought).
    pub actor: Actor,
    /// What happened.
    pub kind: SocketEventKind,
}

impl RequestKey {
    /// The key of this number; 0 is none.
    #[must_use]
    pub fn of(number: u64) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }
}
