//! Contexts in TCP's header, on this machine's kernel. These need the capabilities to load BPF programs and to
//! attach them to the root of the control groups; without them each says so and passes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::*;
use crate::model::socket::{Direction, Minted, SocketEventKind};

/// The programs see every socket of the host: those of two tests at a time would send two contexts.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Held by a test whose contexts go out.
pub(super) fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

const ALL: u64 = 1 << 63;
const REQUEST: &[u8] = b"GET /orders/7 HTTP/1.1\r\nHost: shop\r\n\r\n";

fn tracer() -> Option<SocketTracer> {
    let options = SocketTracerOptions {
        ring_buffer_bytes: 4 << 20,
        excluded_ports: Vec::new(),
        exclude_agent: false,
        leaves_some_alone: false,
        publish_contexts_in: None,
    };
    match SocketTracer::load(&options) {
        Ok(mut tracer) => {
            tracer.start().expect("it starts");
            Some(tracer)
        }
        Err(error) if error.is_not_permitted() => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// False: it cannot be had here.
fn propagate(tracer: &mut SocketTracer, bound: u64) -> bool {
    match tracer.propagate_contexts(bound) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("skipped: {error}");
            false
        }
    }
}

fn pair(address: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((address, 0)).expect("a port is free");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (server, _) = listener.accept().expect("one waits");
    (client, server)
}

/// Bytes that can be read, as programs ask for it.
fn readable(stream: &TcpStream) -> u64 {
    rustix::io::ioctl_fionread(stream).expect("a socket")
}

/// Sends the request and reads it, then answers; returns what the kernel side made of either end.
fn exchange(
    tracer: &mut SocketTracer,
    client: &mut TcpStream,
    server: &mut TcpStream,
    request: &[u8],
) -> (Minted, Minted) {
    tracer.drain(&mut |_| {});
    client.write_all(request).expect("written");
    let begun = Instant::now();
    while readable(server) < request.len() as u64 {
        assert!(begun.elapsed() < Duration::from_secs(5), "{} bytes are readable", readable(server));
        std::thread::yield_now();
    }
    let mut buffer = vec![0; request.len()];
    server.read_exact(&mut buffer).expect("it was sent");
    assert_eq!(buffer, request, "the payload is as it was");
    let (mut sent, mut received) = (None, None);
    tracer.drain(&mut |event| {
        let SocketEventKind::Data(fragment) = event.kind else { return };
        // Other tests of this process run at the same time.
        if fragment.minted.is_some() && request.starts_with(&fragment.head) {
            match fragment.direction {
                Direction::Out => sent = fragment.minted,
                Direction::In => received = fragment.minted,
            }
        }
    });
    server.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("written");
    let read = client.read(&mut [0; 64]).expect("an answer");
    assert_eq!(read, 27);
    (sent.expect("a request was written"), received.expect("… and read"))
}

#[test]
fn the_reader_of_a_request_learns_who_has_sent_it() {
    let _alone = alone();
    let Some(mut tracer) = tracer() else { return };
    if !propagate(&mut tracer, ALL) {
        return;
    }
    for address in ["127.0.0.1", "::1"] {
        let (mut client, mut server) = pair(address);
        for turn in 0..3 {
            // A request of more than one segment has the context in the first one.
            let cookie = "x".repeat(turn * 20_000);
            let request = format!("GET /{address}/{turn} HTTP/1.1\r\nCookie: {cookie}\r\n\r\n");
            let (sent, received) = exchange(&mut tracer, &mut client, &mut server, request.as_bytes());
            assert!(sent.is_sent, "{address}, request {turn}");
            assert_eq!(received.received_parent, Some(sent.span_id), "{address}, request {turn}");
            assert_eq!(received.trace_id, sent.trace_id);
            assert_ne!(received.span_id, sent.span_id);
        }
    }
}

#[test]
fn connections_that_are_older_carry_contexts_too() {
    let (mut client, mut server) = pair("127.0.0.1");
    let _alone = alone();
    let Some(mut tracer) = tracer() else { return };
    if !propagate(&mut tracer, ALL) {
        return;
    }
    let (sent, received) = exchange(&mut tracer, &mut client, &mut server, REQUEST);
    if received.received_parent.is_none() {
        eprintln!("skipped: this kernel cannot be asked for the headers of older connections");
        return;
    }
    assert_eq!(received.received_parent, Some(sent.span_id));
}

#[test]
fn what_is_not_sampled_or_has_a_context_in_its_payload_goes_out_without() {
    let _alone = alone();
    let Some(mut tracer) = tracer() else { return };
    if !propagate(&mut tracer, 0) {
        return;
    }
    let (mut client, mut server) = pair("127.0.0.1");
    // Another agent on this host may send contexts of its own.
    let is_received = |sent: Minted, received: Minted| received.received_parent == Some(sent.span_id);
    let (sent, received) =
        exchange(&mut tracer, &mut client, &mut server, b"GET /unsampled HTTP/1.1\r\n\r\n");
    assert_eq!((sent.is_sent, is_received(sent, received)), (false, false));

    tracer.keep_contexts_below(ALL).expect("it propagates");
    let request =
        b"GET /sdk HTTP/1.1\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";
    let (sent, received) = exchange(&mut tracer, &mut client, &mut server, request);
    assert_eq!((sent.is_sent, is_received(sent, received)), (false, false));
    assert_eq!(received.trace_id[..2], [0x0a, 0xf7]);
}

/// Two requests in one write, or two writes before the first is read: the second context is not the first one's.
#[test]
fn a_context_is_never_taken_for_another_request() {
    let _alone = alone();
    let Some(mut tracer) = tracer() else { return };
    if !propagate(&mut tracer, ALL) {
        return;
    }
    let (mut client, mut server) = pair("127.0.0.1");
    tracer.drain(&mut |_| {});
    client.write_all(b"GET /pipelined/1 HTTP/1.1\r\n\r\n").expect("written");
    client.write_all(b"GET /pipelined/2 HTTP/1.1\r\n\r\n").expect("written");
    let mut buffer = [0; 29];
    for _ in 0..2 {
        server.read_exact(&mut buffer).expect("both were sent");
    }
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    tracer.drain(&mut |event| {
        let SocketEventKind::Data(fragment) = event.kind else { return };
        if let Some(minted) = fragment.minted.filter(|_| fragment.head.starts_with(b"GET /pipelined/")) {
            match fragment.direction {
                Direction::Out => sent.push(minted),
                Direction::In => received.push(minted),
            }
        }
    });
    assert_eq!((sent.len(), received.len()), (2, 2));
    for (sent, received) in sent.iter().zip(&received) {
        assert!(
            received.received_parent.is_none_or(|parent| parent == sent.span_id),
            "{received:?} is not of {sent:?}"
        );
    }
}
