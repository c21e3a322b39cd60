//! The socket tracer on this machine's kernel, with real connections of this process. These need the
//! capabilities to load BPF programs; without them each says so and passes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::*;
use crate::model::socket::{
    ConnectionId, Direction, Endpoint, Fragment, Opened, Role, SocketEvent, SocketEventKind,
};

fn options() -> SocketTracerOptions {
    SocketTracerOptions { ring_buffer_bytes: 4 << 20, excluded_ports: Vec::new(), exclude_agent: false }
}

/// A tracer that runs, and what it has told so far.
struct Watch {
    tracer: SocketTracer,
    events: Vec<SocketEvent>,
}

impl Watch {
    fn begin(options: &SocketTracerOptions) -> Option<Self> {
        match SocketTracer::load(options) {
            Ok(mut tracer) => {
                tracer.start().expect("it starts");
                Some(Self { tracer, events: Vec::new() })
            }
            Err(error) if error.is_not_permitted() => {
                eprintln!("skipped: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn drain(&mut self) {
        let events = &mut self.events;
        self.tracer.drain(&mut |event| events.push(event));
    }

    /// What became known of the connection end with these two ports.
    fn of(&mut self, local: u16, peer: u16) -> Told {
        self.drain();
        let is_it = |opened: &Opened| {
            matches!(
                (opened.local, opened.peer),
                (Endpoint::Internet { port: from, .. }, Endpoint::Internet { port: to, .. })
                    if from == local && to == peer
            )
        };
        let opened = self.events.iter().find_map(|event| match &event.kind {
            SocketEventKind::Opened(opened) if is_it(opened) => Some((event.connection, *opened)),
            _ => None,
        });
        let Some((id, opened)) = opened else {
            panic!("no connection from port {local} to port {peer}: {:?}", self.tracer.counters())
        };
        self.told(id, opened)
    }

    fn told(&self, id: ConnectionId, opened: Opened) -> Told {
        let kinds = self.events.iter().filter(|event| event.connection == id).map(|event| event.kind.clone());
        Told { id, opened, kinds: kinds.collect() }
    }
}

struct Told {
    id: ConnectionId,
    opened: Opened,
    kinds: Vec<SocketEventKind>,
}

impl Told {
    fn fragments(&self, direction: Direction) -> Vec<&Fragment> {
        self.kinds
            .iter()
            .filter_map(|kind| match kind {
                SocketEventKind::Data(fragment) if fragment.direction == direction => Some(fragment),
                _ => None,
            })
            .collect()
    }
}

/// A connected pair over TCP: client, server.
fn tcp_pair(address: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((address, 0)).expect("a port is free");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (server, _) = listener.accept().expect("one waits");
    (client, server)
}

fn ports(stream: &TcpStream) -> (u16, u16) {
    let port = |address: std::io::Result<SocketAddr>| address.expect("connected").port();
    (port(stream.local_addr()), port(stream.peer_addr()))
}

fn summary(fragments: &[&Fragment]) -> Vec<(u64, u64, Vec<u8>)> {
    fragments.iter().map(|fragment| (fragment.position, fragment.length, fragment.head.clone())).collect()
}

#[test]
fn both_ends_of_a_tcp_connection_are_told_in_order() {
    let begin = Instant::now();
    let Some(mut watch) = Watch::begin(&options()) else { return };
    eprintln!("loaded and started after {:?}", begin.elapsed());
    for address in ["127.0.0.1", "::1"] {
        let (mut client, mut server) = tcp_pair(address);
        let (local, peer) = ports(&client);
        let mut buffer = [0; 64];
        for request in [&b"GET /one HTTP/1.1\r\n\r\n"[..], b"GET /another HTTP/1.1\r\n\r\n"] {
            client.write_all(request).expect("written");
            let read = server.read(&mut buffer).expect("read");
            assert_eq!(&buffer[..read], request);
            server.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("written");
            let _ = client.read(&mut buffer).expect("read");
        }
        drop(client);
        assert_eq!(server.read(&mut buffer).expect("the end"), 0);
        drop(server);
        std::thread::sleep(Duration::from_millis(20));

        let client = watch.of(local, peer);
        let server = watch.of(peer, local);
        assert_ne!(client.id, server.id);
        assert_eq!((client.opened.role, server.opened.role), (Role::Connected, Role::Accepted));
        assert_eq!(client.opened.opener.pid, std::process::id());
        assert_eq!(client.opened.local, server.opened.peer);
        let requests = vec![
            (0, 21, b"GET /one HTTP/1.1\r\n\r\n".to_vec()),
            (21, 25, b"GET /another HTTP/1.1\r\n\r\n".to_vec()),
        ];
        let response = b"HTTP/1.1 204 No Content\r\n\r\n".to_vec();
        let responses = vec![(0, 27, response.clone()), (27, 27, response)];
        assert_eq!(summary(&client.fragments(Direction::Out)), requests);
        assert_eq!(summary(&server.fragments(Direction::In)), requests);
        assert_eq!(summary(&server.fragments(Direction::Out)), responses);
        assert_eq!(summary(&client.fragments(Direction::In)), responses);
        let end = |told: &Told| told.kinds[told.kinds.len() - 2..].to_vec();
        assert!(
            matches!(
                end(&client)[..],
                [SocketEventKind::ShutDown(Direction::Out), SocketEventKind::Ended(_)]
            ),
            "{:?}",
            client.kinds
        );
        assert!(
            matches!(
                end(&server)[..],
                [SocketEventKind::ShutDown(Direction::Out), SocketEventKind::Ended(_)]
            ),
            "{:?}",
            server.kinds
        );
        assert!(server.kinds.contains(&SocketEventKind::ShutDown(Direction::In)), "{:?}", server.kinds);
    }
    let counters = watch.tracer.counters().expect("counters");
    assert_eq!((counters.malformed, counters.lost_no_scratch, counters.lost_ring_full), (0, 0, 0));
}
