//! Connections that are not used as one request after the other, each answered: what can be understood is right,
//! to the bounds of what the test itself saw of each byte's time; the rest is left alone, and counted.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use support::collector::Receiver;
use support::exported::{CLIENT, Exported, SERVER, exporting_spans_to, spans};
use support::program::Program;
use support::quiet_cores;
use support::server::Server;
use support::streams::{get, pair, pair_at, read, reset, response, under};

fn agent() -> (Receiver, Server) {
    let receiver = Receiver::start();
    let server = Server::start_with(&exporting_spans_to(&receiver), &[]);
    (receiver, server)
}

#[test]
fn pipelined_requests_that_are_cut_anywhere_have_their_own_answers() {
    needs!();
    let (receiver, server) = agent();
    for connection in 0..10_u16 {
        let (mut client, mut serves) = pair();
        let requests: String = (0..40).map(|nth| get(&format!("/pipelined/{connection}/{nth}"))).collect();
        client.write_all(requests.as_bytes()).expect("written");
        assert_eq!(read(&mut serves, requests.len()).len(), requests.len());
        let responses: String = (0..40).map(|nth| response(400 + nth, usize::from(nth))).collect();
        for part in responses.as_bytes().chunks(97) {
            serves.write_all(part).expect("written");
        }
        assert_eq!(read(&mut client, responses.len()).len(), responses.len());
    }
    let all = spans(&server, &receiver);
    let pipelined = under(&all, "/pipelined/");
    assert_eq!(pipelined.len(), 10 * 40 * 2, "each at both ends");
    for ((path, _), span) in &pipelined {
        let nth: u64 = path.rsplit('/').next().and_then(|nth| nth.parse().ok()).expect("a number");
        assert_eq!(span.status(), 400 + nth, "{span:?}");
        assert_eq!(span.text("http.response.body.size"), nth.to_string(), "{span:?}");
    }
}

/// When something surely had not happened yet, and when it surely had.
#[derive(Clone, Copy)]
struct Between(Instant, Instant);

impl Between {
    fn of<T>(does: impl FnOnce() -> T) -> (Self, T) {
        let before = Instant::now();
        let result = does();
        (Self(before, Instant::now()), result)
    }

    /// What it can have taken from the one to the other, nanoseconds.
    fn until(self, end: Self) -> std::ops::RangeInclusive<u128> {
        end.0.saturating_duration_since(self.1).as_nanos()..=end.1.duration_since(self.0).as_nanos()
    }
}

/// Requests of one connection, all alike, whose answers have as many bytes as there were before them.
const ALIKE: usize = 16;

/// What both ends of a connection can say of its requests' durations, the client's first.
fn talk_alike(path: &str, waits_ms: impl Fn(usize) -> u64) -> Vec<[std::ops::RangeInclusive<u128>; 2]> {
    let (mut client, mut serves) = pair();
    let requests = get(path).repeat(ALIKE);
    let (asked, ()) = Between::of(|| client.write_all(requests.as_bytes()).expect("written"));
    let (was_read, got) = Between::of(|| read(&mut serves, requests.len()).len());
    assert_eq!(got, requests.len());
    let heard = std::thread::spawn(move || {
        let hear = |nth| {
            let length = response(200, nth).len();
            Between::of(|| assert_eq!(read(&mut client, length).len(), length)).0
        };
        (0..ALIKE).map(hear).collect::<Vec<_>>()
    });
    let answer = |nth| {
        std::thread::sleep(Duration::from_millis(waits_ms(nth)));
        Between::of(|| serves.write_all(response(200, nth).as_bytes()).expect("written")).0
    };
    let answered: Vec<Between> = (0..ALIKE).map(answer).collect();
    let heard = heard.join().expect("all of them");
    // It cannot be heard before it is said.
    let hears = |(said, heard): (&Between, &Between)| Between(said.0, heard.1);
    let times = answered.iter().zip(&heard);
    times.map(|(said, heard)| [asked.until(hears((said, heard))), was_read.until(*said)]).collect()
}

/// Spans of one path and kind, by the bytes of their answers: that says which one it is.
fn by_size(all: &[Exported], path: &str, kind: i32) -> BTreeMap<usize, Exported> {
    let mut found = BTreeMap::new();
    for span in all.iter().filter(|span| span.path() == path && span.kind == kind) {
        let size = span.text("http.response.body.size").parse().expect("a size");
        assert!(found.insert(size, span.clone()).is_none(), "twice: {span:?}");
    }
    found
}

#[test]
fn pipelined_requests_that_are_all_alike_have_their_own_durations_and_parents() {
    needs!();
    let _quiet = quiet_cores();
    let (receiver, server) = agent();
    const WAITS_MS: [u64; 8] = [3, 40, 0, 12, 25, 1, 0, 60];
    let waits = |connection: usize| move |nth: usize| WAITS_MS[(nth + connection * 3) % WAITS_MS.len()];
    let paths: Vec<String> =
        (0..6).map(|connection| format!("/alike/{}", ["x", "y"][connection % 2])).collect();
    // Those of one path are told apart by nothing but their connection.
    let told: Vec<_> =
        paths.iter().enumerate().map(|(nth, path)| (path, talk_alike(path, waits(nth)))).collect();
    let all = spans(&server, &receiver);
    let of_all =
        |kind| all.iter().filter(move |span| span.kind == kind && span.path().starts_with("/alike/"));
    assert_eq!((of_all(CLIENT).count(), of_all(SERVER).count()), (6 * ALIKE, 6 * ALIKE));
    // One connection after the other: in order of their beginning they are those of the first, then the next.
    let in_order = |kind| {
        let mut in_order: Vec<&Exported> = of_all(kind).collect();
        in_order.sort_by_key(|span| span.start_ns);
        in_order
    };
    let number = |span: &Exported| -> usize {
        span.text("http.response.body.size").parse().unwrap_or_else(|_| panic!("no size: {span:?}"))
    };
    let mut sent = BTreeMap::new();
    for kind in [CLIENT, SERVER] {
        let in_order = in_order(kind);
        for (connection, (path, truth)) in told.iter().enumerate() {
            let of_connection = &in_order[connection * ALIKE..(connection + 1) * ALIKE];
            let mut numbers: Vec<usize> = of_connection.iter().map(|span| number(span)).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..ALIKE).collect::<Vec<_>>());
            for span in of_connection {
                assert_eq!((span.path(), span.status()), (path.as_str(), 200));
                let nth = number(span);
                let bounds = &truth[nth][usize::from(kind == SERVER)];
                assert!(bounds.contains(&span.duration_ns.into()), "number {nth}, {bounds:?}: {span:?}");
                if kind == CLIENT {
                    sent.insert((connection, nth), (&span.id, &span.trace));
                } else {
                    assert_eq!(sent[&(connection, nth)], (&span.parent, &span.trace), "{span:?}");
                }
            }
        }
    }
}

/// A thread that reads requests `/outer/THREAD` and asks another server four times within each, all in one write. The
/// answers within the nth one have n bytes, and so has its own.
fn serve_by_asking(thread: usize, requests: usize) {
    let (mut driver, mut serves) = pair();
    let (mut asks, mut backend) = pair();
    const WITHIN: usize = 4;
    let outer = get(&format!("/outer/{thread}"));
    // The same of all threads.
    let inner = get("/inner").repeat(WITHIN);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for nth in 0..requests {
                assert_eq!(read(&mut backend, inner.len()).len(), inner.len());
                for _ in 0..WITHIN {
                    std::thread::sleep(Duration::from_millis((nth % 3) as u64));
                    backend.write_all(response(200, nth).as_bytes()).expect("written");
                }
            }
        });
        scope.spawn(|| {
            for _ in 0..requests {
                assert_eq!(read(&mut serves, outer.len()).len(), outer.len());
                let nth = {
                    asks.write_all(inner.as_bytes()).expect("written");
                    let mut first = [0; 512];
                    let mut got = 0;
                    // The head says how long all of it is.
                    while !first[..got].windows(4).any(|end| end == b"\r\n\r\n") {
                        got += asks.read(&mut first[got..]).expect("an answer");
                    }
                    let text = String::from_utf8_lossy(&first[..got]).into_owned();
                    let length =
                        text.split("Content-Length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
                    let nth: usize = length.and_then(|length| length.parse().ok()).expect("a length");
                    let rest = response(200, nth).len() * WITHIN - got;
                    assert_eq!(read(&mut asks, rest).len(), rest);
                    nth
                };
                serves.write_all(response(200, nth).as_bytes()).expect("written");
            }
        });
        for nth in 0..requests {
            driver.write_all(outer.as_bytes()).expect("written");
            let length = response(200, nth).len();
            assert_eq!(read(&mut driver, length).len(), length);
        }
    });
}

#[test]
fn what_is_pipelined_within_a_request_is_of_that_request() {
    needs!();
    let _quiet = quiet_cores();
    let (receiver, server) = agent();
    const REQUESTS: usize = 40;
    std::thread::scope(|scope| {
        for thread in 0..3 {
            scope.spawn(move || serve_by_asking(thread, REQUESTS));
        }
    });
    let all = spans(&server, &receiver);
    let is_of = |span: &&Exported, kind: i32, path: &str| span.kind == kind && span.path().starts_with(path);
    let outer: BTreeMap<&[u8], &Exported> = all
        .iter()
        .filter(|span| is_of(span, SERVER, "/outer/"))
        .map(|span| (span.id.as_slice(), span))
        .collect();
    assert_eq!(outer.len(), 3 * REQUESTS);
    let inner: Vec<&Exported> = all.iter().filter(|span| is_of(span, CLIENT, "/inner")).collect();
    assert_eq!(inner.len(), 3 * REQUESTS * 4);
    let mut children: BTreeMap<&[u8], usize> = BTreeMap::new();
    for span in &inner {
        let parent = outer.get(span.parent.as_slice()).unwrap_or_else(|| panic!("nobody's: {span:?}"));
        let size = |span: &Exported| span.text("http.response.body.size").to_owned();
        assert_eq!(size(parent), size(span), "{parent:?} of {span:?}");
        let within = parent.start_ns..=parent.start_ns + parent.duration_ns;
        assert!(within.contains(&span.start_ns) && within.contains(&(span.start_ns + span.duration_ns)));
        *children.entry(span.parent.as_slice()).or_default() += 1;
    }
    assert!(children.values().all(|&children| children == 4), "{children:?}");
    for thread in 0..3 {
        assert_eq!(by_size(&all, &format!("/outer/{thread}"), SERVER).len(), REQUESTS);
    }
}

#[test]
fn connections_that_end_before_they_should_fail_as_they_did() {
    needs!();
    let (receiver, server) = agent();
    // Half-closed: the client says all it has to say; the server answers when it has read that.
    for nth in 0..10 {
        let (mut client, mut serves) = pair();
        let request = get(&format!("/half/closed/{nth}"));
        client.write_all(request.as_bytes()).expect("written");
        client.shutdown(Shutdown::Write).expect("shut down");
        assert_eq!(read(&mut serves, 1 << 20), request.as_bytes());
        std::thread::sleep(Duration::from_millis(20));
        serves.write_all(response(200, 5).as_bytes()).expect("written");
        drop(serves);
        assert!(read(&mut client, 1 << 20).ends_with(b"xxxxx"));
    }
    // Likewise, but nothing of the answer comes, or a part of it.
    for (nth, answer) in [(0, 0), (1, 60)] {
        let (mut client, mut serves) = pair();
        let request = get(&format!("/half/answered/{nth}"));
        client.write_all(request.as_bytes()).expect("written");
        client.shutdown(Shutdown::Write).expect("shut down");
        assert_eq!(read(&mut serves, 1 << 20), request.as_bytes());
        serves.write_all(&response(200, 100).as_bytes()[..answer]).expect("written");
        drop(serves);
        assert_eq!(read(&mut client, 1 << 20).len(), answer);
    }
    // Reset by the server: before anything of the answer, in its middle, and behind it.
    for (nth, answer) in [(0, 0), (1, 60), (2, usize::MAX)] {
        let (mut client, mut serves) = pair();
        let request = get(&format!("/reset/{nth}"));
        client.write_all(request.as_bytes()).expect("written");
        assert_eq!(read(&mut serves, request.len()).len(), request.len());
        let all = response(200, 100);
        let sent = &all[..answer.min(all.len())];
        serves.write_all(sent.as_bytes()).expect("written");
        std::thread::sleep(Duration::from_millis(20));
        reset(serves);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(read(&mut client, all.len()).len(), sent.len());
    }
    // By the client, in the middle of the answer.
    let (mut client, mut serves) = pair();
    let request = get("/reset/by-client");
    client.write_all(request.as_bytes()).expect("written");
    assert_eq!(read(&mut serves, request.len()).len(), request.len());
    serves.write_all(&response(200, 100).as_bytes()[..60]).expect("written");
    assert_eq!(read(&mut client, 60).len(), 60);
    reset(client);
    std::thread::sleep(Duration::from_millis(20));
    assert!(serves.write_all(b"more").is_err(), "it is reset");
    drop(serves);

    let all = spans(&server, &receiver);
    let half = under(&all, "/half/closed/");
    assert_eq!(half.len(), 20);
    for span in half.values() {
        assert_eq!((span.status(), span.text("error.type")), (200, ""), "{span:?}");
        assert_eq!(span.text("http.response.body.size"), "5");
        assert!(span.duration_ns >= 20_000_000, "the answer took its time: {span:?}");
    }
    let cut = under(&all, "/half/answered/");
    assert_eq!(cut.len(), 4);
    for ((path, _), span) in &cut {
        let status = if path.ends_with('1') { 200 } else { 0 };
        assert_eq!((span.status(), span.text("error.type")), (status, "eof"), "{span:?}");
    }
    let resets = under(&all, "/reset/");
    let error = |nth: &str, kind| resets[&(format!("/reset/{nth}"), kind)].text("error.type").to_owned();
    assert_eq!([error("0", CLIENT), error("1", CLIENT), error("2", CLIENT)], ["reset", "reset", ""]);
    assert_eq!(error("2", SERVER), "");
    for (nth, kind) in [("0", SERVER), ("1", SERVER), ("by-client", SERVER), ("by-client", CLIENT)] {
        assert_ne!(error(nth, kind), "", "{nth} {kind}");
    }
    assert_eq!(error("by-client", SERVER), "reset");
    for nth in ["1", "by-client"] {
        assert_eq!(resets[&(format!("/reset/{nth}"), CLIENT)].status(), 200, "that was read");
    }
}

#[test]
fn what_is_peeked_at_is_read_once() {
    needs!();
    let (receiver, server) = agent();
    for nth in 0..20 {
        let (mut client, mut serves) = pair();
        let request = get(&format!("/peeked/at/{nth}"));
        client.write_all(request.as_bytes()).expect("written");
        for _ in 0..3 {
            assert!(serves.peek(&mut [0; 512]).expect("peeked") > 0);
        }
        // In two pieces, the second one looked at first, too.
        assert_eq!(read(&mut serves, nth).len(), nth);
        assert!(serves.peek(&mut [0; 512]).expect("peeked") > 0);
        assert_eq!(read(&mut serves, request.len() - nth).len(), request.len() - nth);
        let answer = response(204, 0);
        serves.write_all(answer.as_bytes()).expect("written");
        assert!(client.peek(&mut [0; 512]).expect("peeked") > 0);
        assert_eq!(read(&mut client, answer.len()).len(), answer.len());
    }
    let all = spans(&server, &receiver);
    let peeked = under(&all, "/peeked/");
    assert!(peeked.len() == 40 && peeked.values().all(|span| span.status() == 204), "{peeked:#?}");
    assert!(peeked.values().all(|span| span.text("error.type").is_empty()));
}

/// `accepts`: the other process reads and answers; `reads`: it only answers; `shares`: a process and its child
/// take turns on each connection. Says the pids, and where it listens.
const PASSES_ON: &str = "
import os, socket, sys, time
how, connections = sys.argv[1], int(sys.argv[2])
print('ready', os.getpid(), time.monotonic_ns(), flush=True)
listener = socket.create_server(('127.0.0.1', 0))
OK = b'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n'
ours, theirs = socket.socketpair()
def take_turns(connection, turn):
    turns = ours if turn == 0 else theirs
    for number in range(4):
        if number % 2 == turn:
            connection.recv(1000)
            connection.sendall(OK)
            turns.send(b'x')
        else:
            turns.recv(1)
if how == 'shares':
    os.write(1, b'child 0\\nlistening %d\\n' % listener.getsockname()[1])
    for _ in range(connections):
        connection, _ = listener.accept()
        child = os.fork()
        take_turns(connection, 1 if child == 0 else 0)
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        os.write(1, b'child %d\\n' % child)
        connection.close()
    os._exit(0)
if not os.fork():
    ours.close()
    os.write(1, b'child %d\\n' % os.getpid())
    for _ in range(connections):
        _, descriptors, _, _ = socket.recv_fds(theirs, 1, 1)
        with socket.socket(fileno=descriptors[0]) as serves:
            if how == 'accepts':
                serves.recv(1000)
            serves.sendall(OK)
    os._exit(0)
os.write(1, b'listening %d\\n' % listener.getsockname()[1])
for _ in range(connections):
    connection, _ = listener.accept()
    if how == 'reads':
        connection.recv(1000)
    socket.send_fds(ours, [b'x'], [connection.fileno()])
    connection.close()
os.wait()
";

#[test]
fn connections_that_processes_pass_to_each_other_are_of_who_reads() {
    needs!("python3");
    let (receiver, server) = agent();
    const CONNECTIONS: usize = 20;
    let mut readers = BTreeMap::new();
    for how in ["accepts", "reads", "shares"] {
        let mut command = Command::new("python3");
        command.args(["-c", PASSES_ON, how, &CONNECTIONS.to_string()]);
        let mut program = Program::start_ready(&mut command);
        let lines = [program.line().expect("a line"), program.line().expect("another")];
        let number = |name: &str| -> u32 {
            let line = lines.iter().find_map(|line| line.strip_prefix(name)).expect("it says that");
            line.trim().parse().expect("a number")
        };
        let (child, own) = (number("child"), program.own_pid());
        for nth in 0..CONNECTIONS {
            let mut client =
                TcpStream::connect(("127.0.0.1", number("listening") as u16)).expect("it listens");
            let turns = if how == "shares" { 4 } else { 1 };
            let mut asked = Vec::new();
            for turn in 0..turns {
                let path = format!("/passed/{how}/{nth}/{turn}");
                client.write_all(get(&path).as_bytes()).expect("written");
                let length = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".len();
                assert!(read(&mut client, length).starts_with(b"HTTP/1.1 200"), "{path}");
                asked.push(path);
            }
            let other = match how {
                "shares" => {
                    let line = program.line().expect("a line");
                    line.strip_prefix("child ").and_then(|pid| pid.parse().ok()).expect("a pid")
                }
                _ => child,
            };
            for (turn, path) in asked.into_iter().enumerate() {
                let reader = match how {
                    "accepts" => other,
                    "reads" => own,
                    _ => [own, other][turn % 2],
                };
                readers.insert(path, reader);
            }
        }
    }
    let all = spans(&server, &receiver);
    let passed = under(&all, "/passed/");
    assert_eq!(passed.len(), readers.len() * 2);
    for (path, reader) in &readers {
        let span = &passed[&(path.clone(), SERVER)];
        assert_eq!((span.text("process.pid"), span.status()), (reader.to_string().as_str(), 200), "{span:?}");
        assert_eq!(span.parent, passed[&(path.clone(), CLIENT)].id, "{span:?}");
    }
}

/// Bytes without any order (xorshift), the same each time.
struct Garbage(u64);

impl Garbage {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            bytes.extend(self.0.to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// What was given up up to now, for whatever reason.
fn discarded(server: &Server) -> f64 {
    let page = server.get("/metrics").expect(200).text();
    let lines = page.lines().filter(|line| line.starts_with("spanflame_requests_discarded_total{"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn garbage_on_port_80_becomes_nothing_and_is_counted_where_it_looked_like_something() {
    needs!();
    let (receiver, server) = agent();
    let before = discarded(&server);
    // An address of its own, since somebody may serve on the usual one. Without the right to, any port will do.
    let listener = TcpListener::bind(("127.0.0.80", 80)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)));
    let listener = listener.expect("a port");
    let mut garbage = Garbage(88_172_645_463_325_252);
    const CONNECTIONS: usize = 300;
    for nth in 0..CONNECTIONS {
        let (mut client, mut serves) = pair_at(&listener);
        let (mut there, mut back) = (garbage.bytes(3000), garbage.bytes(2800));
        let (to_begin_with, answer) = match nth % 6 {
            0 => (String::new(), String::new()),
            // What looks like a request, and nobody answers it as HTTP does.
            1 => (get("/garbage/behind"), String::new()),
            2 => ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), String::new()),
            // An answer to nothing.
            3 => (String::new(), response(200, 5)),
            // A head that never ends.
            4 => ("GET /garbage/head HTTP/1.1\r\nHost: a\r\n".to_owned(), String::new()),
            // Both ends say the same, as an echo server does.
            _ => (get("/garbage/echoed"), get("/garbage/echoed")),
        };
        there.splice(..0, to_begin_with.into_bytes());
        back.splice(..0, answer.into_bytes());
        for (there, back) in there.chunks(701).zip(back.chunks(701)) {
            client.write_all(there).expect("written");
            assert_eq!(read(&mut serves, there.len()).len(), there.len());
            serves.write_all(back).expect("written");
            assert_eq!(read(&mut client, back.len()).len(), back.len());
        }
    }
    let all = spans(&server, &receiver);
    assert!(under(&all, "/garbage/").is_empty() && !all.iter().any(|span| span.path() == "*"));
    let port = listener.local_addr().expect("bound").port().to_string();
    let is_here =
        |span: &&Exported| span.text("server.address") == "127.0.0.80" && span.text("server.port") == port;
    assert_eq!(all.iter().filter(is_here).count(), 0);
    // What looked like a request at one end at least.
    let counted = discarded(&server) - before;
    assert!(counted >= (CONNECTIONS / 6 * 2) as f64, "{counted}");
    let log = server.log();
    assert!(!log.contains("could not be understood"), "{log}");
}
