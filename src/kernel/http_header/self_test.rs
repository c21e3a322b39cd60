//! Whether this kernel does no harm to sockets whose payload it lets a program change.
//!
//! Asked of what it does and not of its version: Linux 6.6.128, 6.12.75, 6.18.14 and 6.19 have a change
//! (929e30f93125) by which `ioctl(FIONREAD)` says 0 where bytes can be read, and programs that wait for that wait for
//! ever; others have put inserted bytes in the wrong place. Two sockets of our own are connected through loopback and
//! do what programs do with theirs. No other socket of the host has anything to do with it: the program is attached to
//! a map that is nobody else's, in which there is one socket. On loopback everything is there at once, so that this
//! takes milliseconds; a kernel that never delivers is given up after `LIMIT`.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use libbpf_rs::{MapCore, MapFlags, MapHandle, Object};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_cookie;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use super::super::KernelError;
use super::super::bpf_object::{find_map, forward_libbpf_messages, open_object};
use super::super::socket_abi::sf_outgoing_context;
use super::{HTTP_HEADER_OBJECT, WHAT, attach_to_sockets, bytes_of_plan};

/// What all of it may take.
const LIMIT: Duration = Duration::from_millis(800);
/// How long a kernel is given to agree on what can be read.
const PATIENCE: Duration = Duration::from_millis(50);

const TRACE_ID: [u8; 16] = *b"\x4b\xf9\x2f\x35\x77\xb3\x4d\xa6\xa3\xce\x92\x9d\x0e\x0e\x47\x36";
const SPAN_ID: [u8; 8] = *b"\x00\xf0\x67\xaa\x0b\xa9\x02\xb7";
/// As the W3C writes these two ids.
const HEADER: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";

/// The maps that the program needs which puts a header in.
const NEEDED_MAPS: [&str; 4] =
    ["header_sockets", "outgoing_contexts", "header_counters", ".rodata.self_test"];

/// Loads that program and nothing else, with maps of its own.
pub(super) fn load_alone() -> Result<(Object, MapHandle), KernelError> {
    let cannot = |error| KernelError::bpf(format!("prepare {WHAT}"), error);
    let mut object = open_object(WHAT, HTTP_HEADER_OBJECT)?;
    for mut program in object.progs_mut() {
        program.set_autoload(program.name() == "on_message");
    }
    for mut map in object.maps_mut() {
        if map.name() == ".rodata.self_test" {
            map.set_initial_value(&1_u32.to_ne_bytes()).map_err(cannot)?;
        }
        let is_needed = NEEDED_MAPS.iter().any(|name| map.name() == *name)
            // Constants without a name of their own: called after the object.
            || map.name().to_string_lossy().ends_with(".rodata");
        map.set_autocreate(is_needed).map_err(cannot)?;
    }
    let object = object.load().map_err(|error| KernelError::bpf(format!("load {WHAT}"), error))?;
    let sockets = attach_to_sockets(&object)?;
    Ok((object, sockets))
}

/// What was seen that should not be, or what kept us from looking.
enum Failure {
    Wrong(String),
    Refused(KernelError),
}

impl From<KernelError> for Failure {
    fn from(error: KernelError) -> Self {
        Self::Refused(error)
    }
}

fn wrong(what: impl Into<String>) -> Failure {
    Failure::Wrong(what.into())
}

/// A call on one of the two sockets has failed.
fn failed(what: &str) -> impl FnOnce(io::Error) -> Failure + '_ {
    move |error| Failure::Wrong(format!("{what}: {error}"))
}

/// Tries it. Less than a second.
///
/// # Errors
/// [`KernelError::Unfit`] says what was wrong; else what the kernel refused.
pub(in crate::kernel) fn self_test() -> Result<(), KernelError> {
    forward_libbpf_messages();
    run().map_err(|failure| match failure {
        Failure::Wrong(found) => KernelError::Unfit { what: "put contexts into heads", found },
        Failure::Refused(error) => error,
    })
}

fn run() -> Result<(), Failure> {
    let (object, sockets) = load_alone()?;
    let mut pair = Pair::connect().map_err(|source| KernelError::System {
        what: "connect two sockets through loopback, to try the kernel".to_owned(),
        source,
    })?;
    pair.enter(&sockets)?;
    pair.check_reads()?;
    pair.check_writes()?;
    // No method of HTTP, so that nobody else on this host takes it for a request.
    for (first, rest) in [
        ("TRY /a/path?of=it HTTP/1.1\r\n", "Host: here\r\n\r\n".to_owned()),
        ("TRY / HTTP/1.0\r\n", "\r\n".to_owned()),
        ("TRY /with/a/body HTTP/1.1\r\n", format!("Content-Length: 20000\r\n\r\n{}", "b".repeat(20_000))),
    ] {
        pair.check_request(&object, first, &rest)?;
    }
    pair.check_leaving(&sockets)?;
    pair.enter(&sockets)?;
    // The end of the agent is the end of the map.
    pair.check_end_of_map(object, sockets)?;
    pair.check_end_of_stream()
}

/// The program's socket and its peer.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    /// Until when.
    deadline: Instant,
    /// Number of the next byte, so that each is another one than its neighbours.
    next: u8,
}

impl Pair {
    fn connect() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let own = client.local_addr()?;
        // Anybody may connect to a port of this host.
        let server = loop {
            let (server, peer) = listener.accept()?;
            if peer == own {
                break server;
            }
        };
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            socket.set_write_timeout(Some(Duration::from_millis(200)))?;
            socket.set_nodelay(true)?;
        }
        Ok(Self { client, server, deadline: Instant::now() + LIMIT, next: 0 })
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count);
        for _ in 0..count {
            bytes.push(self.next);
            self.next = (self.next + 1) % 251;
        }
        bytes
    }

    fn cookie(&self) -> Result<[u8; 8], Failure> {
        let cookie = socket_cookie(&self.client).map_err(|error| failed("SO_COOKIE")(error.into()))?;
        Ok(cookie.to_ne_bytes())
    }

    /// Puts the client's socket into the map.
    fn enter(&self, sockets: &MapHandle) -> Result<(), Failure> {
        let descriptor = u64::try_from(self.client.as_raw_fd()).unwrap_or_default();
        sockets
            .update(&self.cookie()?, &descriptor.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| KernelError::bpf("put a socket of ours into a map of sockets", error))?;
        Ok(())
    }

    /// Sends to the client so many bytes, which are then there and FIONREAD says so.
    fn send_to_client(&mut self, count: usize) -> Result<Vec<u8>, Failure> {
        let bytes = self.bytes(count);
        self.server.write_all(&bytes).map_err(failed("a write of the peer"))?;
        self.wait_for_client()?;
        self.check_readable(count)?;
        Ok(bytes)
    }

    fn wait_for_client(&self) -> Result<(), Failure> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let limit = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
        let mut sources = [PollFd::new(&self.client, PollFlags::IN)];
        match poll(&mut sources, Some(&limit)) {
            Ok(0) => Err(wrong("poll does not tell that bytes can be read")),
            Ok(_) => Ok(()),
            Err(error) => Err(failed("poll")(error.into())),
        }
    }

    /// FIONREAD says that so many bytes can be read.
    fn check_readable(&self, count: usize) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let readable = rustix::io::ioctl_fionread(&self.client)
                .map_err(|error| failed("ioctl(FIONREAD)")(error.into()))?;
            if readable == count as u64 {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(wrong(format!(
                    "ioctl(FIONREAD) says {readable} where {count} bytes can be read"
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// All ways to look at what has come, in one go: each takes some of the same bytes.
    fn check_reads(&mut self) -> Result<(), Failure> {
        let sent = self.send_to_client(1000)?;
        let mut parts = sent.as_slice();
        let mut expect = |got: &[u8], how: &str| match parts.split_at_checked(got.len()) {
            Some((expected, rest)) if expected == got => {
                parts = rest;
                Ok(())
            }
            _ => Err(wrong(format!("{how} gives other bytes than were sent"))),
        };

        let mut peeked = [0; 16];
        let count = self.client.peek(&mut peeked).map_err(failed("recv(MSG_PEEK)"))?;
        if sent.get(..16) != peeked.get(..count) {
            return Err(wrong("recv(MSG_PEEK) gives other bytes than were sent"));
        }
        self.check_readable(1000)?;

        let (from_pipe, to_pipe) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed("pipe")(error.into()))?;
        let spliced = splice(&self.client, None, &to_pipe, None, 300, SpliceFlags::NONBLOCK)
            .map_err(|error| failed("splice from the socket")(error.into()))?;
        let mut bytes = vec![0; spliced];
        rustix::io::read(&from_pipe, &mut bytes).map_err(|error| failed("read of a pipe")(error.into()))?;
        expect(&bytes, "splice from the socket")?;
        self.check_readable(1000 - spliced)?;

        let (mut first, mut second) = ([0; 60], [0; 140]);
        let count = self
            .client
            .read_vectored(&mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)])
            .map_err(failed("readv"))?;
        if count != 200 {
            return Err(wrong(format!("readv gives {count} bytes of 200")));
        }
        expect(&first, "readv")?;
        expect(&second, "readv")?;
        let left = 1000 - spliced - 200;
        self.check_readable(left)?;

        let mut rest = vec![0; left];
        self.client.read_exact(&mut rest).map_err(failed("read"))?;
        expect(&rest, "read")?;
        self.check_readable(0)?;
        self.check_nothing_waits()
    }

    /// Nothing more can be read, and a read says so at once.
    fn check_nothing_waits(&self) -> Result<(), Failure> {
        self.client.set_nonblocking(true).map_err(failed("O_NONBLOCK"))?;
        let read = (&self.client).read(&mut [0; 1]);
        self.client.set_nonblocking(false).map_err(failed("O_NONBLOCK"))?;
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(failed("a read where there is nothing")(error)),
            Ok(count) => Err(wrong(format!("a read where there is nothing gives {count} bytes"))),
        }
    }

    /// The peer reads just this.
    fn expect_at_peer(&mut self, expected: &[u8], how: &str) -> Result<(), Failure> {
        let mut got = vec![0; expected.len()];
        self.server
            .read_exact(&mut got)
            .map_err(|error| wrong(format!("what {how} has sent does not arrive whole: {error}")))?;
        if got != expected {
            return Err(wrong(format!("{how} sends other bytes than it was given")));
        }
        if rustix::io::ioctl_fionread(&self.server).is_ok_and(|more| more > 0) {
            return Err(wrong(format!("{how} sends more than it was given")));
        }
        Ok(())
    }

    /// What is no request passes unchanged, whichever way it goes.
    fn check_writes(&mut self) -> Result<(), Failure> {
        let bytes = self.bytes(30_000);
        let written = self.client.write(&bytes).map_err(failed("write"))?;
        if written != bytes.len() {
            return Err(wrong(format!("write takes {written} of {} bytes", bytes.len())));
        }
        self.expect_at_peer(&bytes, "write")?;

        let bytes = self.bytes(1000);
        let (first, second) = bytes.split_at(400);
        let written = self
            .client
            .write_vectored(&[IoSlice::new(first), IoSlice::new(second)])
            .map_err(failed("writev"))?;
        if written != bytes.len() {
            return Err(wrong(format!("writev takes {written} of {} bytes", bytes.len())));
        }
        self.expect_at_peer(&bytes, "writev")?;

        let bytes = self.bytes(1000);
        let (from_pipe, to_pipe) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed("pipe")(error.into()))?;
        rustix::io::write(&to_pipe, &bytes).map_err(|error| failed("write to a pipe")(error.into()))?;
        let spliced = splice(&from_pipe, None, &self.client, None, bytes.len(), SpliceFlags::empty())
            .map_err(|error| failed("splice into the socket")(error.into()))?;
        if spliced != bytes.len() {
            return Err(wrong(format!("splice into the socket takes {spliced} of {} bytes", bytes.len())));
        }
        self.expect_at_peer(&bytes, "splice into the socket")
    }

    /// A request whose context is known gets the header behind its first line, once, and its writer sees nothing of
    /// that.
    fn check_request(&mut self, object: &Object, first: &str, rest: &str) -> Result<(), Failure> {
        // The answer acknowledges what was sent before.
        self.send_to_client(10)?;
        self.client.read_exact(&mut [0; 10]).map_err(failed("read"))?;
        let request = format!("{first}{rest}");
        let mut plan = sf_outgoing_context::default();
        plan.context.trace_id = TRACE_ID;
        plan.context.span_id = SPAN_ID;
        plan.insert_at = u32::try_from(first.len()).unwrap_or(0);
        plan.begin = request.as_bytes().first_chunk().map_or(0, |begin| u64::from_ne_bytes(*begin));
        find_map(object, "outgoing_contexts")?
            .update(&self.cookie()?, bytes_of_plan(&plan), MapFlags::ANY)
            .map_err(|error| KernelError::bpf("note a context of ours", error))?;
        let expected = format!("{first}{HEADER}{rest}");
        let written = self.client.write(request.as_bytes()).map_err(failed("write of a request"))?;
        if written != request.len() {
            return Err(wrong(format!("write says {written} of a request of {} bytes", request.len())));
        }
        self.expect_at_peer(expected.as_bytes(), "a write with a header")?;
        let again = self.bytes(100);
        self.client.write_all(&again).map_err(failed("write"))?;
        self.expect_at_peer(&again, "a write behind a header")
    }

    /// Bytes that wait while the socket leaves the map are not lost, and it goes on as before.
    fn check_leaving(&mut self, sockets: &MapHandle) -> Result<(), Failure> {
        let waiting = self.send_to_client(500)?;
        sockets
            .delete(&self.cookie()?)
            .map_err(|error| KernelError::bpf("take a socket of ours out of a map of sockets", error))?;
        self.check_after(&waiting, "a socket that has left the map")
    }

    fn check_end_of_map(&mut self, object: Object, sockets: MapHandle) -> Result<(), Failure> {
        let waiting = self.send_to_client(500)?;
        drop(sockets);
        drop(object);
        self.check_after(&waiting, "a socket whose map has gone")
    }

    fn check_after(&mut self, waiting: &[u8], which: &str) -> Result<(), Failure> {
        self.check_readable(waiting.len())?;
        let mut got = vec![0; waiting.len()];
        self.client.read_exact(&mut got).map_err(failed(which))?;
        if got != waiting {
            return Err(wrong(format!("{which} gives other bytes than were sent")));
        }
        let sent = self.send_to_client(100)?;
        let mut got = vec![0; sent.len()];
        self.client.read_exact(&mut got).map_err(failed(which))?;
        if got != sent {
            return Err(wrong(format!("{which} gives other bytes than were sent")));
        }
        let bytes = self.bytes(100);
        self.client.write_all(&bytes).map_err(failed(which))?;
        self.expect_at_peer(&bytes, which)
    }

    /// The peer's end is one.
    fn check_end_of_stream(&mut self) -> Result<(), Failure> {
        self.server.shutdown(Shutdown::Write).map_err(failed("shutdown"))?;
        match self.client.read(&mut [0; 1]) {
            Ok(0) => Ok(()),
            Ok(count) => Err(wrong(format!("behind the end of the stream there are {count} bytes"))),
            Err(error) => Err(failed("a read at the end of the stream")(error)),
        }
    }
}
