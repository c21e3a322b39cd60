//! The socket tracer on this machine's kernel, with real connections of this process. These need the
//! capabilities to load BPF programs; without them each says so and passes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::model::socket::{
    ConnectionId, Direction, Ending, Endpoint, Fragment, Opened, Role, SocketEvent, SocketEventKind,
};

fn options() -> SocketTracerOptions {
    SocketTracerOptions {
        ring_buffer_bytes: 4 << 20,
        excluded_ports: Vec::new(),
        exclude_agent: false,
        leaves_some_alone: false,
        publish_contexts_in: None,
    }
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
                [SocketEventKind::ShutDown(Direction::Out), SocketEventKind::Ended(..)]
            ),
            "{:?}",
            client.kinds
        );
        assert!(
            matches!(
                end(&server)[..],
                [SocketEventKind::ShutDown(Direction::Out), SocketEventKind::Ended(..)]
            ),
            "{:?}",
            server.kinds
        );
        assert!(server.kinds.contains(&SocketEventKind::ShutDown(Direction::In)), "{:?}", server.kinds);
    }
    let counters = watch.tracer.counters().expect("counters");
    assert_eq!((counters.malformed, counters.lost_no_scratch, counters.lost_ring_full), (0, 0, 0));
}

/// Burns in a function of its own until the sampler has told of `wanted` samples of this thread.
fn burn_until(sampler: &mut Sampler, wanted: usize) -> Vec<crate::model::RawSample> {
    let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
    let mut samples = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut value = 1u64;
    while samples.len() < wanted {
        assert!(Instant::now() < deadline, "{:?}", sampler.counters());
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(20) {
            value = std::hint::black_box(value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
        let _ = sampler.drain(&mut |sample| {
            if sample.tid == tid {
                samples.push(sample);
            }
        });
    }
    samples
}

const SAMPLING: SamplerOptions =
    SamplerOptions { frequency_hz: 99, only_targets: true, ring_buffer_bytes: 1 << 20, exclude_agent: false };

#[test]
fn a_thread_is_sampled_often_and_stamped_from_reading_a_request_until_it_waits_for_many() {
    let Some(mut watch) = Watch::begin(&options()) else { return };
    let maps = watch.tracer.request_maps().expect("descriptors");
    let requests = RequestSampling { maps: &maps, frequency_hz: 499, budget_permille: 1000 };
    let (of_processes, _) = ProcessMaps::create().expect("maps");
    let mut sampler = Sampler::load(&SAMPLING, Some(&requests), &of_processes).expect("loaded");
    of_processes.add_target(std::process::id(), false).expect("room");
    sampler.start().expect("started");
    let (mut client, mut server) = tcp_pair("127.0.0.1");
    let (local, peer) = ports(&client);

    let before = burn_until(&mut sampler, 3);
    assert!(before.iter().all(|sample| sample.request.is_none()));
    assert!(before.iter().all(|sample| sample.weight_ns == 5 * 2_020_202), "{before:?}");

    let traceparent = "TraceParent:\t00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = format!("POST http://a/ HTTP/1.1\r\nHost: a:80\r\n{traceparent}\r\n\r\n");
    // Written by another thread, so that this one's only part is to read it.
    std::thread::scope(|scope| {
        scope.spawn(|| client.write_all(request.as_bytes()).expect("written"));
    });
    let mut buffer = [0; 512];
    let _ = server.read(&mut buffer).expect("read");
    let within = burn_until(&mut sampler, 50);
    let told = watch.of(peer, local);
    let minted = told.fragments(Direction::In)[0].minted.expect("it looks like a request");
    assert_eq!(minted.trace_id[..4], [0x0a, 0xf7, 0x65, 0x19]);
    assert_eq!(minted.trace_id[15], 0x9c);
    assert_ne!(minted.span_id, [0; 8]);
    let stamped = within.iter().filter(|sample| sample.request == Some(minted.key)).count();
    // One that was pending when the request was read.
    assert!(stamped + 1 >= within.len(), "{stamped} of {}", within.len());
    assert!(within.iter().filter(|sample| sample.request.is_some()).all(|s| s.weight_ns == 2_020_202));

    // What it asks of others in the meantime is within it, and has a key of its own.
    let (mut onward, mut other) = tcp_pair("::1");
    onward.write_all(b"GET /onward HTTP/1.1\r\n\r\n").expect("written");
    let (onward_local, onward_peer) = ports(&onward);
    let onward_told = watch.of(onward_local, onward_peer);
    assert_eq!(onward_told.opened.opened_by, Some(minted.key));
    let fragment = onward_told.fragments(Direction::Out)[0].clone();
    assert_eq!(fragment.within, Some(minted.key));
    let asked = fragment.minted.expect("it looks like a request");
    assert_ne!((asked.key, asked.trace_id), (minted.key, minted.trace_id));

    // A poll of one descriptor is a read with a time limit; of two, or an epoll, is the end.
    let mut one = [libc::pollfd { fd: 0, events: 0, revents: 0 }; 2];
    // SAFETY: the array has as many entries as is said.
    unsafe { libc::poll(one.as_mut_ptr(), 1, 0) };
    let still = burn_until(&mut sampler, 5);
    assert!(
        still.iter().all(|sample| sample.request == Some(minted.key)),
        "a poll of one descriptor ends nothing"
    );
    // SAFETY: as above.
    unsafe { libc::poll(one.as_mut_ptr(), 2, 0) };
    let _ = burn_until(&mut sampler, 1);
    let after = burn_until(&mut sampler, 3);
    assert!(after.iter().all(|sample| sample.request.is_none()));

    // And again, until it waits with epoll. The first one is answered, else it would be one that serves many.
    server.write_all(b"HTTP/1.1 204 No\r\n\r\n").expect("written");
    let _ = other.read(&mut buffer).expect("read");
    let again = burn_until(&mut sampler, 10);
    assert!(again.iter().skip(1).all(|sample| sample.request.is_some_and(|key| key != minted.key)));
    let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::empty()).expect("made");
    let mut events = [rustix::event::epoll::Event {
        flags: rustix::event::epoll::EventFlags::empty(),
        data: rustix::event::epoll::EventData::new_u64(0),
    }];
    let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 1 };
    let _ = rustix::event::epoll::wait(&epoll, &mut events[..], Some(&timeout));
    let _ = burn_until(&mut sampler, 1);
    assert!(burn_until(&mut sampler, 3).iter().all(|sample| sample.request.is_none()));

    sampler.stop().expect("stopped");
    let counters = sampler.counters().expect("counters");
    assert_eq!(counters.ticks, counters.idle + counters.not_selected + counters.thinned + counters.taken);
    assert!(counters.stamped >= 60 && counters.over_budget == 0, "{counters:?}");
}

/// Which requests a thread is at, one after the other, as it writes elsewhere after each.
fn within_after_each(watch: &mut Watch, serve: impl FnOnce(&mut dyn FnMut(&mut TcpStream))) -> Vec<bool> {
    let (mut elsewhere, _there) = tcp_pair("127.0.0.1");
    let (local, peer) = ports(&elsewhere);
    // As a pool would have it: used before.
    elsewhere.write_all(b"GET /before HTTP/1.1\r\n\r\n").expect("written");
    serve(&mut |server| {
        let _ = server.read(&mut [0; 512]).expect("read");
        elsewhere.write_all(b"GET /onward HTTP/1.1\r\n\r\n").expect("written");
    });
    let told = watch.of(local, peer);
    let fragments = told.fragments(Direction::Out);
    assert!(fragments[1..].iter().all(|fragment| fragment.by_event_loop == fragment.within.is_none()));
    fragments[1..].iter().map(|fragment| fragment.within.is_some()).collect()
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 204 No\r\n\r\n";

fn epoll_once() {
    let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::empty()).expect("made");
    let data = rustix::event::epoll::EventData::new_u64(0);
    let mut events = [rustix::event::epoll::Event { flags: rustix::event::epoll::EventFlags::empty(), data }];
    let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 1 };
    let _ = rustix::event::epoll::wait(&epoll, &mut events[..], Some(&timeout));
}

/// A look whether a connection is still open, as java.net.http has it.
fn look_at_pooled(pooled: &TcpStream) {
    assert_eq!(rustix::io::read(pooled, &mut [0; 1]), Err(rustix::io::Errno::AGAIN));
}

#[test]
fn what_is_asked_on_a_connection_from_a_pool_is_for_the_request_of_the_thread_that_took_it() {
    let Some(mut watch) = Watch::begin(&options()) else { return };
    let (mut asking, mut server) = tcp_pair("127.0.0.1");
    let (pooled, _other) = tcp_pair("127.0.0.1");
    pooled.set_nonblocking(true).expect("an option");
    let comm = format!("/proc/{}/comm", std::process::id());
    let was_called = std::fs::read_to_string(&comm).expect("it has a name");
    let mut look = |is_at_request: bool| {
        std::thread::scope(|scope| {
            if is_at_request {
                scope.spawn(|| asking.write_all(REQUEST).expect("written")).join().expect("it ends");
            }
            scope.spawn(|| {
                if is_at_request {
                    let _ = server.read(&mut [0; 64]).expect("read");
                }
                look_at_pooled(&pooled);
            });
        });
    };
    let write = || {
        std::thread::scope(|scope| {
            scope.spawn(|| (&pooled).write_all(REQUEST).expect("written"));
        });
    };
    // Not a program whose ways are known.
    look(true);
    write();
    std::fs::write(&comm, "java").expect("ours to change");
    look(true);
    write();
    // Once taken it is asked once; whoever took it last counts, and may be at nothing.
    write();
    look(true);
    look(false);
    write();
    std::fs::write(&comm, was_called.trim_end()).expect("ours to change");
    std::thread::sleep(Duration::from_millis(20));

    let (local, peer) = ports(&pooled);
    let asked = watch.of(local, peer);
    let asked: Vec<_> = asked
        .fragments(Direction::Out)
        .iter()
        .map(|fragment| (fragment.within, fragment.from_pool))
        .collect();
    let (local, peer) = ports(&server);
    let served = watch.of(local, peer);
    let keys: Vec<_> =
        served.fragments(Direction::In).iter().filter_map(|fragment| Some(fragment.minted?.key)).collect();
    assert_eq!(asked, [(None, false), (Some(keys[1]), true), (None, false), (None, false)], "{keys:?}");
}

#[test]
fn a_thread_that_has_two_requests_at_once_is_an_event_loop_and_at_none_from_then_on() {
    let Some(mut watch) = Watch::begin(&options()) else { return };
    let (mut one, mut first) = tcp_pair("127.0.0.1");
    let (mut two, mut second) = tcp_pair("127.0.0.1");
    // Clients write in a thread of their own, as others would.
    let mut ask = |clients: &[bool]| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for is_first in clients {
                    (if *is_first { &mut one } else { &mut two }).write_all(REQUEST).expect("written");
                }
            });
        });
    };
    // One after the other, whatever it waits with in between; the second client goes away unanswered.
    let taken = within_after_each(&mut watch, |serve| {
        for _ in 0..3 {
            ask(&[true]);
            serve(&mut first);
            first.write_all(RESPONSE).expect("written");
            epoll_once();
        }
        let (mut aborting, mut aborted) = tcp_pair("127.0.0.1");
        std::thread::scope(|scope| {
            scope.spawn(|| aborting.write_all(REQUEST).expect("written"));
        });
        serve(&mut aborted);
        drop(aborting);
        assert_eq!(aborted.read(&mut [0; 64]).expect("the end"), 0);
        epoll_once();
        ask(&[true]);
        serve(&mut first);
        first.write_all(RESPONSE).expect("written");
    });
    assert_eq!(taken, [true; 5]);
    // Two at once: the first one is believed once, before that is known.
    let taken = within_after_each(&mut watch, |serve| {
        ask(&[true, false]);
        serve(&mut first);
        serve(&mut second);
        first.write_all(RESPONSE).expect("written");
        second.write_all(RESPONSE).expect("written");
        ask(&[true]);
        serve(&mut first);
    });
    assert_eq!(taken, [true, false, false]);
    assert!(watch.tracer.counters().expect("counters").event_loop >= 2);
}

#[test]
fn a_thread_that_waits_with_epoll_while_a_request_is_open_is_an_event_loop() {
    for is_prompt in [false, true] {
        let Some(mut watch) = Watch::begin(&options()) else { return };
        watch
            .tracer
            .set_event_loop(std::process::id(), is_prompt.then_some(EventLoop::Prompt))
            .expect("room");
        let (mut one, mut first) = tcp_pair("127.0.0.1");
        let mut ask = || {
            std::thread::scope(|scope| {
                scope.spawn(|| one.write_all(REQUEST).expect("written"));
            });
        };
        let (mut elsewhere, _there) = tcp_pair("127.0.0.1");
        let (local, peer) = ports(&elsewhere);
        let taken = within_after_each(&mut watch, |serve| {
            ask();
            serve(&mut first);
            epoll_once();
            first.write_all(RESPONSE).expect("written");
            ask();
            serve(&mut first);
            // What it asks besides is somebody else's.
            elsewhere.write_all(REQUEST).expect("written");
            first.write_all(RESPONSE).expect("written");
        });
        assert_eq!(taken, [true, is_prompt]);
        let others = watch.of(local, peer).fragments(Direction::Out)[0].clone();
        assert_eq!((others.within, others.by_event_loop), (None, true));
    }
}

#[test]
fn what_has_come_before_a_reset_is_read_before_the_end_is_told() {
    let Some(mut watch) = Watch::begin(&options()) else { return };
    for is_read in [true, false] {
        let (mut client, mut server) = tcp_pair("127.0.0.1");
        let (local, peer) = ports(&client);
        client.write_all(b"more than it wants").expect("written");
        let _ = server.read(&mut [0; 4]).expect("read");
        server.write_all(RESPONSE).expect("written");
        // With unread bytes that is a reset.
        drop(server);
        std::thread::sleep(Duration::from_millis(20));
        let is_end = |kind: &SocketEventKind| matches!(kind, SocketEventKind::Ended(Ending::Reset, _));
        assert!(!watch.of(local, peer).kinds.iter().any(is_end), "{:?}", watch.of(local, peer).kinds);
        if is_read {
            assert_eq!(client.read(&mut [0; 64]).expect("read"), RESPONSE.len());
        } else {
            drop(client);
            std::thread::sleep(Duration::from_millis(20));
        }
        let told = watch.of(local, peer);
        assert!(told.kinds.last().is_some_and(is_end), "{:?}", told.kinds);
        assert_eq!(told.fragments(Direction::In).len(), usize::from(is_read));
    }
    assert_eq!(watch.tracer.counters().expect("counters").after_end, 0);
}

#[test]
fn samples_within_requests_beyond_their_budget_are_as_rare_as_others() {
    let Some(watch) = Watch::begin(&options()) else { return };
    let maps = watch.tracer.request_maps().expect("descriptors");
    let requests = RequestSampling { maps: &maps, frequency_hz: 499, budget_permille: 0 };
    let (of_processes, _) = ProcessMaps::create().expect("maps");
    let mut sampler = Sampler::load(&SAMPLING, Some(&requests), &of_processes).expect("loaded");
    of_processes.add_target(std::process::id(), false).expect("room");
    sampler.start().expect("started");
    let (mut client, mut server) = tcp_pair("127.0.0.1");
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("written");
    let _ = server.read(&mut [0; 512]).expect("read");
    let _ = burn_until(&mut sampler, 1);
    let samples = burn_until(&mut sampler, 10);
    assert!(samples.iter().all(|sample| sample.request.is_some() && sample.weight_ns == 5 * 2_020_202));
    assert!(sampler.counters().expect("counters").over_budget >= 40);
}

#[test]
fn a_vector_is_one_fragment_with_its_head_and_its_tail() {
    let Some(mut watch) = Watch::begin(&options()) else { return };
    let (mut client, mut server) = tcp_pair("127.0.0.1");
    let (local, peer) = ports(&client);
    let parts: Vec<Vec<u8>> = (0..20_u8).map(|part| vec![b'a' + part; 100 + usize::from(part)]).collect();
    let expected: Vec<u8> = parts.concat();
    let slices: Vec<std::io::IoSlice<'_>> = parts.iter().map(|part| std::io::IoSlice::new(part)).collect();
    // Within sixteen vectors, with more bytes than a head has, and with more vectors than are read.
    for vectors in [3, 16, 20] {
        assert_eq!(
            client.write_vectored(&slices[..vectors]).expect("written"),
            parts[..vectors].concat().len()
        );
    }
    let mut read = vec![0; 8192];
    let mut total = 0;
    while total < 303 + 1720 + 2190 {
        total += server.read(&mut read).expect("read");
    }
    let told = watch.of(local, peer);
    let fragments = told.fragments(Direction::Out);
    assert_eq!(
        fragments.iter().map(|f| (f.position, f.length)).collect::<Vec<_>>(),
        [(0, 303), (303, 1720), (2023, 2190)]
    );
    assert_eq!(fragments[0].head, expected[..303]);
    assert_eq!(fragments[1].head, expected[..1720]);
    assert_eq!(fragments[2].head, expected[..1720], "sixteen vectors of twenty");
    assert!(fragments[2].tail.is_empty(), "the last vector was not looked at");
    let read: u64 = told_length(&watch.of(peer, local), Direction::In);
    assert_eq!(read, 303 + 1720 + 2190);
}

fn told_length(told: &Told, direction: Direction) -> u64 {
    let fragments = told.fragments(direction);
    let mut position = 0;
    for fragment in fragments {
        assert_eq!(fragment.position, position);
        position += fragment.length;
    }
    position
}

#[test]
fn a_long_write_has_its_first_and_last_bytes_and_as_much_as_is_asked_for() {
    let Some(mut watch) = Watch::begin(&options()) else { return };
    let (mut client, mut server) = tcp_pair("127.0.0.1");
    let (local, peer) = ports(&client);
    let bytes: Vec<u8> = (0..40_000_u32).map(|index| (index % 251) as u8).collect();
    let mut sink = vec![0; bytes.len()];
    client.write_all(&bytes).expect("written");
    server.read_exact(&mut sink).expect("read");
    let id = watch.of(local, peer).id;
    watch.tracer.set_capture(id, false, crate::model::socket::Capture::Whole).expect("room");
    client.write_all(&bytes).expect("written");
    server.read_exact(&mut sink).expect("read");
    watch.tracer.set_capture(id, false, crate::model::socket::Capture::Nothing).expect("room");
    client.write_all(&bytes).expect("written");
    server.read_exact(&mut sink).expect("read");
    watch.tracer.set_capture(id, false, crate::model::socket::Capture::Heads).expect("room");
    client.write_all(b"end").expect("written");
    let told = watch.of(local, peer);
    let fragments = told.fragments(Direction::Out);
    assert_eq!(fragments.len(), 3);
    let length = bytes.len();
    assert_eq!(fragments[0].head, bytes[..2048 - 64]);
    assert_eq!(fragments[0].tail, bytes[length - 64..]);
    assert_eq!(fragments[1].head, bytes[..16384 - 64]);
    assert_eq!(fragments[1].tail, bytes[length - 64..]);
    assert_eq!((fragments[2].position, fragments[2].head.as_slice()), (3 * length as u64, &b"end"[..]));
}

#[test]
fn what_does_not_fit_is_amended_and_positions_stay_exact() {
    let Some(mut watch) = Watch::begin(&options()) else { return };
    let (mut client, mut server) = tcp_pair("127.0.0.1");
    let (local, peer) = ports(&client);
    client.set_nonblocking(true).expect("set");
    let block = vec![7; 1 << 20];
    let mut written = 0;
    let mut short = 0;
    loop {
        match client.write(&block) {
            Ok(bytes) => {
                short += usize::from(bytes < block.len());
                written += bytes;
            }
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                break;
            }
        }
    }
    assert!(short > 0, "the last one that moved anything moved less");
    let mut sink = vec![0; written];
    server.read_exact(&mut sink).expect("read");
    client.set_nonblocking(false).expect("set");
    client.write_all(b"after").expect("written");
    let told = watch.of(local, peer);
    let amended: Vec<(u64, u64)> = told
        .kinds
        .iter()
        .filter_map(|kind| match kind {
            SocketEventKind::Amended { position, length, .. } => Some((*position, *length)),
            _ => None,
        })
        .collect();
    assert_eq!(amended.len(), short + 1, "and one moved nothing");
    assert_eq!(amended.last().expect("some"), &(written as u64, 0));
    let last = told.fragments(Direction::Out).last().copied().expect("some").clone();
    assert_eq!((last.position, last.head.as_slice()), (written as u64, &b"after"[..]));
}

#[test]
fn peeking_moves_nothing_and_a_request_in_two_pieces_is_one() {
    let Some(mut watch) = Watch::begin(&options()) else { return };
    let (mut client, mut server) = tcp_pair("127.0.0.1");
    let (local, peer) = ports(&client);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("written");
    let mut buffer = [0; 64];
    assert_eq!(server.peek(&mut buffer).expect("peeked"), 18);
    let _ = server.read(&mut buffer[..4]).expect("read");
    assert_eq!(server.peek(&mut buffer).expect("peeked"), 14);
    let _ = server.read(&mut buffer).expect("read");
    let told = watch.of(peer, local);
    let expected = vec![(0, 4, b"GET ".to_vec()), (4, 14, b"/ HTTP/1.1\r\n\r\n".to_vec())];
    let fragments = told.fragments(Direction::In);
    assert_eq!(summary(&fragments), expected);
    assert_eq!(fragments[0].minted, None, "it is not known yet to be a request");
    assert!(fragments[1].minted.is_some(), "and now it is");
}

#[test]
fn memory_that_was_never_touched_is_read_when_the_write_returns() {
    let Some(mut watch) = Watch::begin(&options()) else { return };
    let path = std::env::temp_dir().join(format!("spanflame-untouched-{}", std::process::id()));
    let mut content = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    content.resize(8192, b'x');
    std::fs::write(&path, &content).expect("written");
    let file = std::fs::File::open(&path).expect("opened");
    let (client, mut server) = tcp_pair("127.0.0.1");
    let (local, peer) = ports(&client);
    for _ in 0..5 {
        // SAFETY: a new private mapping of a file that nobody changes.
        let pages = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                content.len(),
                rustix::mm::ProtFlags::READ,
                rustix::mm::MapFlags::PRIVATE,
                &file,
                0,
            )
        }
        .expect("mapped");
        // SAFETY: the descriptor is open, and the kernel reads within the mapping.
        let written = unsafe { libc::write(std::os::fd::AsRawFd::as_raw_fd(&client), pages, content.len()) };
        assert_eq!(written, content.len() as isize);
        let mut sink = vec![0; content.len()];
        server.read_exact(&mut sink).expect("read");
        // SAFETY: nothing refers to it any more.
        unsafe { rustix::mm::munmap(pages, content.len()) }.expect("unmapped");
    }
    std::fs::remove_file(&path).expect("removed");
    let told = watch.of(local, peer);
    let fragments = told.fragments(Direction::Out);
    assert_eq!(fragments.len(), 5);
    assert!(
        fragments.iter().all(|fragment| fragment.head[..] == content[..1984] && fragment.tail == [b'x'; 64])
    );
    assert_eq!(fragments[4].position, 4 * 8192);
    assert!(watch.tracer.counters().expect("counters").read_late >= 5);
}

#[test]
fn sendfile_counts_and_what_follows_it_is_in_its_place() {
    let Some(mut watch) = Watch::begin(&options()) else { return };
    let path = std::env::temp_dir().join(format!("spanflame-sendfile-{}", std::process::id()));
    std::fs::write(&path, vec![b'f'; 10_000]).expect("written");
    let file = std::fs::File::open(&path).expect("opened");
    let (mut client, mut server) = tcp_pair("127.0.0.1");
    let (local, peer) = ports(&client);
    client.write_all(b"head").expect("written");
    assert_eq!(rustix::fs::sendfile(&client, &file, None, 20_000).expect("sent"), 10_000);
    client.write_all(b"foot").expect("written");
    std::fs::remove_file(&path).expect("removed");
    server.read_exact(&mut [0; 10_008]).expect("read");
    let expected = vec![(0, 4, b"head".to_vec()), (4, 10_000, Vec::new()), (10_004, 4, b"foot".to_vec())];
    assert_eq!(summary(&watch.of(local, peer).fragments(Direction::Out)), expected);
}

#[test]
fn a_connection_older_than_the_tracer_is_followed_also_by_who_waits_already() {
    let (mut client, mut server) = tcp_pair("127.0.0.1");
    let (local, peer) = ports(&client);
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        let bytes = server.read(&mut buffer).expect("read");
        server.write_all(&buffer[..bytes]).expect("written");
        server
    });
    std::thread::sleep(Duration::from_millis(50));
    let Some(mut watch) = Watch::begin(&options()) else { return };
    client.write_all(b"GET /old HTTP/1.1\r\n\r\n").expect("written");
    drop(reader.join().expect("it ends"));
    let told = watch.of(peer, local);
    assert_eq!(told.opened.role, Role::Unknown);
    let fragments = told.fragments(Direction::In);
    assert_eq!(summary(&fragments), [(0, 21, b"GET /old HTTP/1.1\r\n\r\n".to_vec())]);
    assert!(fragments[0].minted.is_some(), "it is a server's, whatever its role");
    assert_eq!(told.fragments(Direction::Out)[0].minted, None, "an echo is no request of its own");
}

#[test]
fn resets_and_refusals_are_told() {
    let Some(mut watch) = Watch::begin(&options()) else { return };
    let (mut client, server) = tcp_pair("127.0.0.1");
    let (local, peer) = ports(&client);
    client.write_all(b"never read").expect("written");
    drop(server);
    std::thread::sleep(Duration::from_millis(20));
    let told = watch.of(local, peer);
    assert!(matches!(told.kinds.last(), Some(SocketEventKind::Ended(Ending::Reset, _))), "{:?}", told.kinds);

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    assert!(TcpStream::connect(address).is_err());
    watch.drain();
    let refused = watch.events.iter().find_map(|event| match &event.kind {
        SocketEventKind::Opened(opened)
            if opened.peer == (Endpoint::Internet { address: address.ip(), port: address.port() }) =>
        {
            Some(watch.told(event.connection, *opened))
        }
        _ => None,
    });
    let refused = refused.expect("told");
    assert_eq!((refused.opened.role, refused.opened.opener.pid), (Role::Connected, std::process::id()));
    assert!(matches!(
        refused.kinds.last(),
        Some(SocketEventKind::Ended(Ending::NotConnected(libc::ECONNREFUSED), _))
    ));
}

#[test]
fn unix_sockets_are_followed_and_swept_when_they_are_gone() {
    let Some(mut watch) = Watch::begin(&options()) else { return };
    let path = std::env::temp_dir().join(format!("spanflame-unix-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("bound");
    let mut client = std::os::unix::net::UnixStream::connect(&path).expect("connected");
    let (mut server, _) = listener.accept().expect("accepted");
    let inode = |fd: &dyn std::os::fd::AsFd| rustix::fs::fstat(fd.as_fd()).expect("stat").st_ino;
    let (client_inode, server_inode) = (inode(&client), inode(&server));
    client.write_all(b"GET /unix HTTP/1.1\r\n\r\n").expect("written");
    let mut buffer = [0; 64];
    let _ = server.read(&mut buffer).expect("read");
    server.shutdown(std::net::Shutdown::Write).expect("shut down");
    assert_eq!(client.read(&mut buffer).expect("the end"), 0);
    watch.drain();
    let unix = |watch: &Watch, inode: u64| {
        let opened = watch.events.iter().find_map(|event| match &event.kind {
            SocketEventKind::Opened(opened) if opened.local == (Endpoint::Unix { inode }) => {
                Some((event.connection, *opened))
            }
            _ => None,
        });
        let (id, opened) = opened.expect("told");
        watch.told(id, opened)
    };
    let (from, to) = (unix(&watch, client_inode), unix(&watch, server_inode));
    assert_eq!((from.opened.role, to.opened.role), (Role::Connected, Role::Accepted));
    assert_eq!(from.opened.peer, Endpoint::Unix { inode: server_inode });
    assert_eq!(to.opened.peer, Endpoint::Unix { inode: client_inode });
    assert!(to.fragments(Direction::In)[0].minted.is_some());
    assert_eq!(to.kinds.last(), Some(&SocketEventKind::ShutDown(Direction::Out)));
    assert_eq!(from.kinds.last(), Some(&SocketEventKind::ShutDown(Direction::In)));

    let mut swept = Vec::new();
    watch.tracer.sweep(&mut |event| swept.push(event)).expect("listed");
    assert!(
        !swept.iter().any(|event| [from.id, to.id].contains(&event.connection)),
        "both are open: {swept:?}"
    );
    drop(server);
    drop(client);
    watch.tracer.sweep(&mut |event| swept.push(event)).expect("listed");
    let ended = |id: ConnectionId| {
        swept.iter().any(|event| {
            event.connection == id && matches!(event.kind, SocketEventKind::Ended(Ending::Closed, _))
        })
    };
    assert!(ended(from.id) && ended(to.id));
    assert!(watch.tracer.counters().expect("counters").swept >= 2);
    std::fs::remove_file(&path).expect("removed");
}

/// Connects to itself in a network namespace of its own, says so, and sends a request for each line it is told.
const IN_A_NAMESPACE: &str = "
import socket, sys
listener = socket.create_server(('127.0.0.1', 0))
client = socket.create_connection(listener.getsockname())
server, _ = listener.accept()
print(client.getsockname()[1], listener.getsockname()[1], flush=True)
for line in sys.stdin:
    client.sendall(b'GET /there HTTP/1.1\\r\\n\\r\\n')
    server.recv(100)
    print('sent', flush=True)
";

#[test]
fn old_connections_of_other_network_namespaces_are_followed_and_not_swept() {
    let script = "ip link set lo up && exec python3 -c \"$0\"";
    let child = Command::new("unshare")
        .args(["--net", "sh", "-c", script, IN_A_NAMESPACE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else { return eprintln!("skipped: no unshare") };
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut input = child.stdin.take().expect("piped");
    let mut line = || {
        let mut line = String::new();
        output.read_line(&mut line).expect("text");
        line
    };
    let ports: Vec<u16> = line().split_whitespace().filter_map(|port| port.parse().ok()).collect();
    let &[client, server] = ports.as_slice() else {
        child.wait().expect("it is ours");
        return eprintln!("skipped: no namespace, ip or python3");
    };
    let Some(mut watch) = Watch::begin(&options()) else { return };
    writeln!(input, "go").expect("it listens");
    assert_eq!(line(), "sent\n");
    let told = watch.of(client, server);
    assert!(told.fragments(Direction::Out)[0].head.starts_with(b"GET /there"));
    let mut swept = Vec::new();
    watch.tracer.sweep(&mut |event| swept.push(event)).expect("listed");
    let is_over = |event: &SocketEvent| matches!(event.kind, SocketEventKind::Ended(..));
    assert!(!swept.iter().any(|event| event.connection == told.id && is_over(event)), "it lives");
    drop(input);
    child.wait().expect("it is ours");
}

#[test]
fn excluded_ports_are_not_followed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("bound").port();
    let Some(mut watch) = Watch::begin(&SocketTracerOptions { excluded_ports: vec![port], ..options() })
    else {
        return;
    };
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let (mut server, _) = listener.accept().expect("one waits");
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("written");
    let _ = server.read(&mut [0; 64]).expect("read");
    drop((client, server));
    watch.drain();
    let is_it = |endpoint: Endpoint| matches!(endpoint, Endpoint::Internet { port: of, .. } if of == port);
    assert!(!watch.events.iter().any(|event| matches!(&event.kind, SocketEventKind::Opened(opened) if is_it(opened.local) || is_it(opened.peer))));
}

#[test]
fn a_full_ring_loses_events_by_count_and_leaves_a_gap() {
    let Some(mut watch) = Watch::begin(&SocketTracerOptions { ring_buffer_bytes: 4096, ..options() }) else {
        return;
    };
    let (mut client, mut server) = tcp_pair("127.0.0.1");
    for _ in 0..100 {
        client.write_all(&[1; 100]).expect("written");
    }
    server.read_exact(&mut [0; 10_000]).expect("read");
    watch.drain();
    let counters = watch.tracer.counters().expect("counters");
    assert!(counters.lost_ring_full > 0 && counters.malformed == 0, "{counters:?}");
    client.write_all(b"last").expect("written");
    watch.drain();
    assert!(watch.events.iter().any(|event| matches!(&event.kind, SocketEventKind::Data(fragment)
        if fragment.position == 10_000 && fragment.head == b"last")));
}

/// Nanoseconds a turn of `action`, the least of several tries.
fn measure(turns: u32, mut action: impl FnMut()) -> u128 {
    let tries = (0..5).map(|_| {
        let begin = Instant::now();
        for _ in 0..turns {
            action();
        }
        begin.elapsed().as_nanos() / u128::from(turns)
    });
    tries.min().unwrap_or(0)
}

#[test]
#[ignore = "prints what following costs; to be run alone on an idle machine"]
fn what_following_costs() {
    let (mut client, mut server) = tcp_pair("127.0.0.1");
    let mut null = std::fs::File::create("/dev/null").expect("opened");
    let mut costs = |what: &str| {
        let getppid = measure(300_000, || {
            let _ = std::hint::black_box(rustix::process::getppid());
        });
        let write = measure(300_000, || null.write_all(b"x").expect("written"));
        let mut buffer = [0; 256];
        let pair = measure(30_000, || {
            client.write_all(&[b'x'; 200]).expect("written");
            let _ = server.read(&mut buffer).expect("read");
        });
        eprintln!(
            "{what}: getppid {getppid} ns, write to /dev/null {write} ns, socket write and read {pair} ns"
        );
    };
    costs("without");
    let begin = Instant::now();
    let Some(mut watch) = Watch::begin(&options()) else { return };
    eprintln!("loaded and started in {:?}, maps {} bytes", begin.elapsed(), watch.tracer.map_bytes());
    costs("followed, ring full");
    watch.drain();
    watch.tracer.enable_run_statistics().expect("may measure");
    costs("followed, measured");
    let statistics = watch.tracer.run_statistics().expect("measured");
    eprintln!("{statistics:?}");
}
