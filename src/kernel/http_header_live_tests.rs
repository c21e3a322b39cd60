//! Contexts in headers of HTTP/1, on this machine's kernel, which may be one that does harm to sockets in a map: so
//! only sockets of this file's own are put into one, and nothing is attached to control groups. The rest is in tests/vm.
//! These need the capabilities to load BPF programs; without them each says so and passes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::*;
use crate::model::socket::{Direction, Minted, SocketEventKind};

const ALL: u64 = 1 << 63;

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (server, _) = listener.accept().expect("one waits");
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
    }
    (client, server)
}

/// A tracer that sends contexts on, in TCP's header and for those connections that are put into the map.
fn tracer() -> Option<SocketTracer> {
    let options = SocketTracerOptions {
        ring_buffer_bytes: 4 << 20,
        excluded_ports: Vec::new(),
        exclude_agent: false,
        leaves_some_alone: false,
        publish_contexts_in: None,
    };
    let mut tracer = match SocketTracer::load(&options) {
        Ok(tracer) => tracer,
        Err(error) if error.is_not_permitted() => {
            eprintln!("skipped: {error}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    tracer.start().expect("it starts");
    match tracer.propagate_contexts(ALL) {
        Ok(()) => Some(tracer),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// Whether the kernel lets FIONREAD be 0 for a socket in a map, found out in another way than the test does.
fn fionread_is_broken(tracer: &mut SocketTracer) -> bool {
    let (client, mut server) = pair();
    tracer.insert_headers_on(client.as_fd(), ALL).expect("it can be put there");
    server.write_all(b"four").expect("written");
    let mut buffer = [0; 4];
    assert_eq!(client.peek(&mut buffer).expect("it has come"), 4);
    rustix::io::ioctl_fionread(&client).expect("a socket") != 4
}

#[test]
fn the_kernel_is_refused_where_fionread_is_wrong_and_only_there() {
    let _alone = context_propagation_live_tests::alone();
    let Some(mut tracer) = tracer() else { return };
    let is_broken = fionread_is_broken(&mut tracer);
    let begun = Instant::now();
    let tried = http_header::self_test();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    match tried {
        Err(KernelError::Unfit { found, .. }) => {
            assert!(is_broken, "{found}");
            assert_eq!(found, "ioctl(FIONREAD) says 0 where 1000 bytes can be read");
        }
        other => assert!(!is_broken && other.is_ok(), "{other:?}"),
    }
}

/// Writes all of `pieces` in a write each, reads `count` bytes at the other end, answers.
fn send(
    tracer: &mut SocketTracer,
    (client, server): (&mut TcpStream, &mut TcpStream),
    pieces: &[&[u8]],
    count: usize,
) -> (Vec<u8>, Option<Minted>, Option<Minted>) {
    tracer.drain(&mut |_| {});
    for piece in pieces {
        assert_eq!(client.write(piece).expect("written"), piece.len(), "the writer sees what it wrote");
    }
    let mut got = vec![0; count];
    server.read_exact(&mut got).expect("it was sent");
    server.set_nonblocking(true).expect("a socket");
    assert!(server.read(&mut [0]).is_err(), "more has come than {}", String::from_utf8_lossy(&got));
    server.set_nonblocking(false).expect("a socket");
    server.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("written");
    assert_eq!(client.read(&mut [0; 64]).expect("an answer"), 27);
    let (mut sent, mut received) = (None, None);
    let (local, peer) = (server.local_addr().expect("bound"), client.local_addr().expect("bound"));
    let cookies = [client.as_fd(), server.as_fd()]
        .map(|socket| rustix::net::sockopt::socket_cookie(socket).expect("a socket"));
    tracer.drain(&mut |event| {
        let SocketEventKind::Data(fragment) = event.kind else { return };
        // Other tests of this process run at the same time.
        if !cookies.contains(&event.connection.0) || fragment.minted.is_none() {
            return;
        }
        match fragment.direction {
            Direction::Out => sent = fragment.minted,
            Direction::In => received = fragment.minted,
        }
    });
    assert!(sent.is_some() && received.is_some(), "a request between {peer} and {local} was not seen");
    (got, sent, received)
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn header(minted: &Minted) -> String {
    format!("traceparent: 00-{}-{}-01\r\n", hexadecimal(&minted.trace_id), hexadecimal(&minted.span_id))
}

#[test]
fn the_head_that_arrives_has_the_ids_of_the_client_s_span_behind_its_first_line() {
    let _alone = context_propagation_live_tests::alone();
    let Some(mut tracer) = tracer() else { return };
    let (mut client, mut server) = pair();
    tracer.insert_headers_on(client.as_fd(), ALL).expect("it can be put there");
    let body = format!("Content-Length: 9000\r\n\r\n{}", "x".repeat(9000));
    let long = format!("Cookie: {}\r\n\r\n", "c".repeat(1800));
    for (turn, (first, rest)) in [
        ("GET /short HTTP/1.1\r\n", "\r\n"),
        ("GET /again HTTP/1.0\r\n", "Host: shop\r\n\r\n"),
        ("POST /body HTTP/1.1\r\n", &body),
        ("DELETE http://proxy/absolute HTTP/1.1\r\n", &long),
        ("GET /colons HTTP/1.1\r\n", "Date: 12:13:14\r\nX-Trace: no context\r\n\r\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let request = format!("{first}{rest}");
        let (got, sent, received) =
            send(&mut tracer, (&mut client, &mut server), &[request.as_bytes()], request.len() + 70);
        let (sent, received) = (sent.expect("seen"), received.expect("seen"));
        let expected = format!("{first}{}{rest}", header(&sent));
        assert_eq!(String::from_utf8_lossy(&got), expected, "{turn}");
        assert!(sent.is_sent);
        assert_eq!(received.trace_id, sent.trace_id, "{turn}: the reader's request is of the same trace");
        assert_eq!(tracer.header_counters().expect("readable").inserted, turn as u64 + 1);
    }
}

#[test]
fn what_is_not_certain_goes_out_as_it_was_written_and_is_counted() {
    let _alone = context_propagation_live_tests::alone();
    let Some(mut tracer) = tracer() else { return };
    let (mut client, mut server) = pair();
    tracer.insert_headers_on(client.as_fd(), ALL).expect("it can be put there");
    let large = format!("POST /large HTTP/1.1\r\nContent-Length: 40000\r\n\r\n{}", "x".repeat(40_000));
    let long_line = format!("GET /{} HTTP/1.1\r\n\r\n", "l".repeat(1100));
    let long_head = format!("GET /long HTTP/1.1\r\nCookie: {}\r\n\r\n", "c".repeat(3000));
    type Count = fn(&HeaderCounters) -> u64;
    let cases: [(&[&str], Count); 11] = [
        (&["GET /b3 HTTP/1.1\r\nHost: a\r\nB3: 0\r\n\r\n"], |counters| counters.left_context),
        (&["GET /b3 HTTP/1.1\r\nX-B3-TraceId: 1\r\n\r\n"], |counters| counters.left_context),
        (&["GET /broken HTTP/1.1\r\nTraceParent: 00-zz\r\n\r\n"], |counters| counters.left_context),
        (&["GET /jaeger HTTP/1.1\r\nuber-trace-id: 1:2:0:1\r\n\r\n"], |counters| counters.left_context),
        (&["GET /pieces HTTP/1.1\r\nHost: a\r\n", "\r\n"], |counters| counters.left_head),
        (&["GET /pieces HTTP/1.1\r\n\r", "\n"], |counters| counters.left_head),
        (&[&long_head], |counters| counters.left_head),
        (&["GET /feeds HTTP/1.1\nHost: a\r\n\r\n"], |counters| counters.left_line),
        (&["GET /version HTTP/2.0\r\n\r\n"], |counters| counters.left_line),
        (&[&long_line], |counters| counters.left_line),
        (&[&large], |counters| counters.left_no_room),
    ];
    for (pieces, count) in cases {
        let before = tracer.header_counters().expect("readable");
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
        let whole = pieces.concat();
        let name = String::from_utf8_lossy(&whole[..whole.len().min(60)]).into_owned();
        let (got, ..) = send(&mut tracer, (&mut client, &mut server), &pieces, whole.len());
        assert!(got == whole, "{name:?} has arrived as {:?}", String::from_utf8_lossy(&got));
        let after = tracer.header_counters().expect("readable");
        assert_eq!(count(&after), count(&before) + 1, "{name:?}: {after:?}");
        assert_eq!(after.inserted, 0, "{name:?}");
    }
}

/// What was written before is still on its way: the other end reads nothing, and acknowledges late.
#[test]
fn the_second_of_two_pipelined_requests_is_left_alone() {
    let _alone = context_propagation_live_tests::alone();
    let Some(mut tracer) = tracer() else { return };
    let (mut client, mut server) = pair();
    tracer.insert_headers_on(client.as_fd(), ALL).expect("it can be put there");
    let request = b"GET /pipelined HTTP/1.1\r\n\r\n";
    let mut written = 0;
    for _ in 0..50 {
        client.write_all(request).expect("written");
        written += request.len();
    }
    let counters = tracer.header_counters().expect("readable");
    assert_eq!(counters.inserted + counters.left_unacknowledged, 50, "{counters:?}");
    assert!(counters.inserted >= 1 && counters.left_unacknowledged >= 1, "{counters:?}");
    let inserted = usize::try_from(counters.inserted).expect("few");
    let mut got = vec![0; written + 70 * inserted];
    server.read_exact(&mut got).expect("it was sent");
    let text = String::from_utf8(got).expect("ASCII");
    assert_eq!(text.matches("GET /pipelined HTTP/1.1\r\n").count(), 50);
    assert_eq!(text.matches("\r\ntraceparent: 00-").count(), inserted);
}

#[test]
fn a_connection_that_has_left_the_map_and_one_whose_map_is_gone_go_on() {
    let _alone = context_propagation_live_tests::alone();
    let Some(mut tracer) = tracer() else { return };
    let (mut client, mut server) = pair();
    tracer.insert_headers_on(client.as_fd(), ALL).expect("it can be put there");
    let request = b"GET /while HTTP/1.1\r\n\r\n";
    send(&mut tracer, (&mut client, &mut server), &[request], request.len() + 70);
    server.write_all(b"waiting").expect("written");
    drop(tracer);
    let mut waiting = [0; 7];
    client.read_exact(&mut waiting).expect("it was sent");
    assert_eq!(&waiting, b"waiting");
    // The kernel frees the map in its own time.
    let begun = Instant::now();
    loop {
        server.write_all(b"four").expect("written");
        let mut buffer = [0; 4];
        assert_eq!(client.peek(&mut buffer).expect("it has come"), 4);
        let is_right = rustix::io::ioctl_fionread(&client).expect("a socket") == 4;
        client.read_exact(&mut buffer).expect("it was sent");
        if is_right {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "the socket has not got its own functions back");
    }
    client.write_all(request).expect("written");
    let mut got = [0; 23];
    server.read_exact(&mut got).expect("it was sent");
    assert_eq!(&got, request);
}

/// The other way of a context goes by TCP's numbers, which count what was put in at both ends.
#[test]
fn behind_a_header_both_ends_number_the_stream_alike() {
    let _alone = context_propagation_live_tests::alone();
    let Some(mut tracer) = tracer() else { return };
    let (mut client, mut server) = pair();
    tracer.insert_headers_on(client.as_fd(), ALL).expect("it can be put there");
    for turn in 0..3 {
        let request = format!("GET /with/{turn} HTTP/1.1\r\n\r\n");
        send(&mut tracer, (&mut client, &mut server), &[request.as_bytes()], request.len() + 70);
        let pieces: [&[u8]; 2] = [b"GET /without HTTP/1.1\r\nHost: a\r\n", b"\r\n"];
        let (_, sent, received) =
            send(&mut tracer, (&mut client, &mut server), &pieces, pieces.concat().len());
        let (sent, received) = (sent.expect("seen"), received.expect("seen"));
        assert_eq!(received.received_parent, Some(sent.span_id), "{turn}");
    }
}
