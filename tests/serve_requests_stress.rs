//! Requests where it is hard to follow them: nothing wrong is reported, memory stays bounded, and what cannot be
//! seen is counted. Sizes are small unless `SPANFLAME_LONG_TESTS` is set.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::{Duration, Instant};

use support::collector::Receiver;
use support::exported::{CLIENT, Exported, SERVER, exporting_spans_to, spans};
use support::program::{Program, fixture_command};
use support::server::Server;
use support::{await_event, quiet_cores};

/// Both ends of a connection, the client's first.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (server, _) = listener.accept().expect("one waits");
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
        stream.set_nodelay(true).expect("an option");
    }
    (client, server)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn response(status: u16, body: usize) -> String {
    format!("HTTP/1.1 {status} Some\r\nContent-Length: {body}\r\n\r\n{}", "x".repeat(body))
}

/// Reads until so many bytes have come, or the end.
fn read(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = stream.take(bytes as u64).read_to_end(&mut all);
    all
}

/// Closes with a reset.
fn reset(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the value is as long as is said, and outlives the call.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0);
    drop(stream);
}

/// Spans whose path begins so, by path and kind.
fn under(all: &[Exported], prefix: &str) -> BTreeMap<(String, i32), Exported> {
    let wanted = all.iter().filter(|span| span.path().starts_with(prefix));
    let mut found = BTreeMap::new();
    for span in wanted {
        let before = found.insert((span.path().to_owned(), span.kind), span.clone());
        assert!(before.is_none(), "twice: {span:?}");
    }
    found
}

fn metric(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").expect(200).text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
}

fn memory_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[test]
fn odd_ways_of_talking_are_understood_or_left_alone() {
    needs!("python3");
    let _quiet = quiet_cores();
    let receiver = Receiver::start();
    let server = Server::start_with(&exporting_spans_to(&receiver), &[]);

    // Pipelining: many requests in one write, answered in order, in writes that cut them anywhere.
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

    // Half-closed: the client says all it has to say; the server answers when it has read that.
    let (mut client, mut serves) = pair();
    client.write_all(get("/half/closed").as_bytes()).expect("written");
    client.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(read(&mut serves, 1 << 20), get("/half/closed").as_bytes());
    std::thread::sleep(Duration::from_millis(20));
    serves.write_all(response(200, 5).as_bytes()).expect("written");
    drop(serves);
    assert!(read(&mut client, 1 << 20).ends_with(b"xxxxx"));

    // Reset: before anything of the answer, in its middle, and behind it.
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

    // Peeked at before it is read.
    let (mut client, mut serves) = pair();
    client.write_all(get("/peeked/at").as_bytes()).expect("written");
    for _ in 0..3 {
        assert!(serves.peek(&mut [0; 512]).expect("peeked") > 0);
    }
    assert_eq!(read(&mut serves, get("/peeked/at").len()).len(), get("/peeked/at").len());
    serves.write_all(response(204, 0).as_bytes()).expect("written");
    assert_eq!(read(&mut client, response(204, 0).len()).len(), response(204, 0).len());

    // Accepted by one process, served by another.
    const PASSES_ON: &str = "
import os, socket, time
print('ready', os.getpid(), time.monotonic_ns(), flush=True)
listener = socket.create_server(('127.0.0.1', 0))
ours, theirs = socket.socketpair()
if not os.fork():
    ours.close()
    os.write(1, b'child %d\\n' % os.getpid())
    for _ in range(20):
        _, descriptors, _, _ = socket.recv_fds(theirs, 1, 1)
        with socket.socket(fileno=descriptors[0]) as serves:
            serves.recv(1000)
            serves.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n')
    os._exit(0)
os.write(1, b'listening %d\\n' % listener.getsockname()[1])
for _ in range(20):
    connection, _ = listener.accept()
    socket.send_fds(ours, [b'x'], [connection.fileno()])
    connection.close()
os.wait()
";
    let mut program = Program::start_ready(Command::new("python3").args(["-c", PASSES_ON]));
    let lines = [program.line().expect("a line"), program.line().expect("another")];
    let number = |name: &str| -> u32 {
        let line = lines.iter().find_map(|line| line.strip_prefix(name)).expect("it says that");
        line.trim().parse().expect("a number")
    };
    for nth in 0..20 {
        let mut client = TcpStream::connect(("127.0.0.1", number("listening") as u16)).expect("it listens");
        client.write_all(get(&format!("/passed/{nth}")).as_bytes()).expect("written");
        assert!(read(&mut client, 1000).starts_with(b"HTTP/1.1 200"));
    }

    // Garbage, on its own and behind what looks like a request; and nobody answers as HTTP does.
    let mut word = 88_172_645_463_325_252_u64;
    for nth in 0..100 {
        let (mut client, mut serves) = pair();
        let mut garbage: Vec<u8> = Vec::new();
        while garbage.len() < 3000 {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            garbage.extend(word.to_le_bytes());
        }
        if nth % 4 == 1 {
            garbage.splice(..0, get("/garbage/behind").into_bytes());
        } else if nth % 4 == 2 {
            garbage.splice(..0, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".iter().copied());
        }
        for part in garbage.chunks(701) {
            client.write_all(part).expect("written");
            let got = read(&mut serves, part.len());
            serves.write_all(&got).expect("written");
            assert_eq!(read(&mut client, got.len()).len(), got.len());
        }
    }

    let all = spans(&server, &receiver);
    let pipelined = under(&all, "/pipelined/");
    assert_eq!(pipelined.len(), 10 * 40 * 2, "each at both ends");
    for ((path, _), span) in &pipelined {
        let nth: u64 = path.rsplit('/').next().and_then(|nth| nth.parse().ok()).expect("a number");
        assert_eq!(span.status(), 400 + nth, "{span:?}");
        assert_eq!(span.text("http.response.body.size"), nth.to_string(), "{span:?}");
    }
    let half = under(&all, "/half/");
    let is_whole = |span: &Exported| span.status() == 200 && span.text("error.type").is_empty();
    assert!(half.len() == 2 && half.values().all(is_whole), "{half:?}");
    let resets = under(&all, "/reset/");
    let error = |nth: u8, kind| resets[&(format!("/reset/{nth}"), kind)].text("error.type").to_owned();
    assert_eq!(
        (error(0, CLIENT), error(1, CLIENT), error(2, CLIENT)),
        ("reset".into(), "reset".into(), String::new())
    );
    assert_eq!(error(2, SERVER), "");
    assert_eq!(resets[&("/reset/1".to_owned(), CLIENT)].status(), 200, "that was read");
    let peeked = under(&all, "/peeked/");
    assert!(peeked.len() == 2 && peeked.values().all(|span| span.status() == 204));
    let passed = under(&all, "/passed/");
    assert_eq!(passed.len(), 40);
    for span in passed.values().filter(|span| span.kind == SERVER) {
        assert_eq!(span.text("process.pid"), number("child").to_string(), "{span:?}");
    }
    assert!(under(&all, "/garbage/").is_empty() && !all.iter().any(|span| span.path() == "*"));
    let log = server.log();
    assert!(!log.contains("could not be understood"), "{log}");
}

#[test]
fn connections_without_number_leave_nothing_behind() {
    needs!();
    let _quiet = quiet_cores();
    let connections = support::seconds(6_000, 100_000) as usize;
    let receiver = Receiver::start();
    let server = Server::start_with(&exporting_spans_to(&receiver), &[]);
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let serves = std::thread::spawn(move || {
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().expect("one comes");
            let mut buffer = [0; 512];
            if stream.read(&mut buffer).unwrap_or(0) > 0 {
                let _ = stream.write_all(response(200, 2).as_bytes());
            }
        }
    });
    let begin = Instant::now();
    let mut asked = 0;
    let mut memory = Vec::new();
    for nth in 0..connections {
        let mut client = TcpStream::connect(address).expect("it listens");
        // A third says nothing at all.
        if nth % 3 != 0 {
            client.write_all(get("/one/of/many").as_bytes()).expect("written");
            assert!(client.read(&mut [0; 512]).expect("an answer") > 0);
            asked += 1;
        }
        if nth % (connections / 4) == connections / 4 - 1 {
            memory.push(memory_bytes(server.pid));
        }
        if nth % 2 == 0 {
            reset(client);
        }
    }
    serves.join().expect("it ends");
    eprintln!("{connections} connections in {:?}, resident {memory:?}", begin.elapsed());
    server.flush();
    let left = await_event("the connections' end", Duration::from_secs(10), || {
        std::thread::sleep(Duration::from_millis(200));
        let left = metric(&server, "spanflame_connections_followed");
        (left < 200.0).then_some(left)
    });
    let growth = memory[memory.len() - 1].saturating_sub(memory[0]);
    assert!(growth < 96 << 20, "{growth} bytes more, {left} connections left");
    let maps = server.get("/status/ebpf").expect(200).text();
    assert!(maps.contains("connections"), "{maps}");
    let all = spans(&server, &receiver);
    let of = |kind| all.iter().filter(move |span| span.kind == kind && span.path() == "/one/of/many");
    let lost = metric(&server, "spanflame_losses_total{stage=\"sockets\",reason=\"ring_buffer_full\"}");
    for kind in [SERVER, CLIENT] {
        let found = of(kind).count();
        assert!(found <= asked && (found == asked || lost > 0.0), "{found} of {asked}, {lost} events lost");
        assert!(of(kind).all(|span| span.status() == 200 && span.text("error.type").is_empty()));
    }
}

#[test]
fn bodies_of_any_size_that_no_buffer_holds_are_measured() {
    needs!();
    let _quiet = quiet_cores();
    let bytes = support::seconds(48, 1024) << 20;
    let receiver = Receiver::start();
    let server = Server::start_with(&exporting_spans_to(&receiver), &[]);
    let file = tempfile::tempfile().expect("a file");
    file.set_len(bytes).expect("room");
    for (path, is_spliced) in [("/large/sent", false), ("/large/spliced", true)] {
        let (mut client, mut serves) = pair();
        let file = &file;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                assert_eq!(read(&mut serves, get(path).len()).len(), get(path).len());
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
                serves.write_all(head.as_bytes()).expect("written");
                let (from, to) = rustix::pipe::pipe().expect("a pipe");
                let mut offset = 0;
                while offset < bytes {
                    if is_spliced {
                        let flags = rustix::pipe::SpliceFlags::empty();
                        let moved = rustix::pipe::splice(file, Some(&mut offset), &to, None, 1 << 16, flags);
                        let mut left = moved.expect("filled");
                        while left > 0 {
                            left -= rustix::pipe::splice(&from, None, serves.as_fd(), None, left, flags)
                                .expect("sent");
                        }
                    } else {
                        let left = usize::try_from(bytes - offset).expect("it fits");
                        assert!(
                            rustix::fs::sendfile(&serves, file, Some(&mut offset), left).expect("sent") > 0
                        );
                    }
                }
                // And then another one, on the same connection.
                assert_eq!(read(&mut serves, get("/large/after").len()).len(), get("/large/after").len());
                serves.write_all(response(201, 3).as_bytes()).expect("written");
            });
            client.write_all(get(path).as_bytes()).expect("written");
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").len() as u64;
            let (mut left, mut buffer) = (head + bytes, vec![0; 1 << 18]);
            while left > 0 {
                let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let got = client.read(&mut buffer[..length]).expect("it goes on");
                assert!(got > 0);
                left -= got as u64;
            }
            client.write_all(get("/large/after").as_bytes()).expect("written");
            assert_eq!(read(&mut client, response(201, 3).len()).len(), response(201, 3).len());
        });
    }
    let all = spans(&server, &receiver);
    for path in ["/large/sent", "/large/spliced"] {
        for kind in [SERVER, CLIENT] {
            let span = all.iter().find(|span| span.path() == path && span.kind == kind).expect("a span");
            assert_eq!(span.text("http.response.body.size"), bytes.to_string(), "{span:?}");
            assert_eq!((span.status(), span.text("spanflame.end.uncertain")), (200, ""), "{span:?}");
        }
    }
    let after: Vec<_> = all.iter().filter(|span| span.path() == "/large/after").collect();
    assert!(after.len() == 4 && after.iter().all(|span| span.status() == 201), "{after:?}");
    // A request and a response a connection, and not an event for each of many thousand calls.
    assert!(metric(&server, "spanflame_losses_total{stage=\"sockets\",reason=\"ring_buffer_full\"}") == 0.0);
}

#[test]
fn what_io_uring_moves_is_counted_and_nothing_wrong_is_said_of_it() {
    needs!();
    let _quiet = quiet_cores();
    let receiver = Receiver::start();
    let server = Server::start_with(&exporting_spans_to(&receiver), &[]);
    let mut command = fixture_command(&["http_uring", "60"]);
    command.env("OTEL_SERVICE_NAME", "ring");
    let mut program = Program::start_ready(&mut command);
    let line = program.line().expect("it says where it listens");
    let Some(port) = line.strip_prefix("listening ").and_then(|port| port.parse::<u16>().ok()) else {
        return support::skip(&format!("io_uring cannot be used: {line}"));
    };
    let expected = response(200, 3).len();
    for nth in 0..50 {
        let mut client = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        for turn in 0..4 {
            client.write_all(get(&format!("/ring/{nth}/{turn}")).as_bytes()).expect("written");
            assert_eq!(read(&mut client, expected).len(), expected);
        }
    }
    let all = spans(&server, &receiver);
    let found = under(&all, "/ring/");
    assert_eq!(found.len(), 200, "the client's end is seen");
    assert!(found.values().all(|span| span.kind == CLIENT && span.status() == 200));
    for direction in ["in", "out"] {
        let name = format!("spanflame_socket_unexplained_bytes_total{{direction=\"{direction}\"}}");
        // What is counted is told once a second.
        await_event("bytes that no system call explains", Duration::from_secs(10), || {
            (metric(&server, &name) >= 200.0 * 30.0).then_some(())
        });
        let name = format!(
            "spanflame_socket_unexplained_process_bytes{{pid=\"{}\",service=\"ring\",direction=\"{direction}\"}}",
            program.own_pid()
        );
        assert!(metric(&server, &name) >= 200.0 * 30.0);
    }
}
