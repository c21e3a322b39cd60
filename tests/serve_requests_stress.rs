//! Connections without number and bodies without end: nothing wrong is reported, memory stays bounded, and what
//! cannot be seen is counted. Sizes are small unless `SPANFLAME_LONG_TESTS` is set.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use support::collector::Receiver;
use support::exported::{CLIENT, SERVER, exporting_spans_to, spans};
use support::program::{Program, fixture_command};
use support::server::Server;
use support::streams::{get, memory_bytes, metric, pair, read, reset, response, under};
use support::{await_event, quiet_cores};

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
    // An end that found no room is looked for every half a minute.
    let left = await_event("the connections' end", Duration::from_secs(60), || {
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
        let mut outcomes: BTreeMap<(u64, &str, &str), usize> = BTreeMap::new();
        for span in of(kind) {
            let outcome = (span.status(), span.text("error.type"), span.text("spanflame.end.uncertain"));
            *outcomes.entry(outcome).or_default() += 1;
        }
        eprintln!("kind {kind}: {found} of {asked}, {lost} events lost: {outcomes:?}");
        // What is missing was lost, and counted; and what has lost its answer does not say what that was.
        assert!(found <= asked && (asked - found) as f64 <= lost, "{found} of {asked}, {lost} events lost");
        let is_right = |&(status, error, uncertain): &(u64, &str, &str)| {
            error.is_empty() && (status == 200 || status == 0 && uncertain == "not_seen")
        };
        assert!(outcomes.keys().all(is_right), "{outcomes:?}");
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
    let memory_before = memory_bytes(server.pid);
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
    let memory = memory_bytes(server.pid);
    eprintln!("bodies of {bytes} bytes, resident {memory_before} and {memory}");
    assert!(memory.saturating_sub(memory_before) < 64 << 20, "{memory_before} bytes before, {memory} behind");
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
    let unexplained = |direction: &str| {
        metric(&server, &format!("spanflame_socket_unexplained_bytes_total{{direction=\"{direction}\"}}"))
    };
    // Counting begins a moment after the first ring is seen; what is counted is told once a second.
    await_event("bytes that no system call explains", Duration::from_secs(30), || {
        let mut client = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        client.write_all(get("/first").as_bytes()).expect("written");
        assert_eq!(read(&mut client, expected).len(), expected);
        (unexplained("in") > 0.0 && unexplained("out") > 0.0).then_some(())
    });
    let before = [unexplained("in"), unexplained("out")];
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
    for (direction, before) in [("in", before[0]), ("out", before[1])] {
        await_event("they are counted", Duration::from_secs(10), || {
            (unexplained(direction) - before >= 200.0 * 30.0).then_some(())
        });
        let name = format!(
            "spanflame_socket_unexplained_process_bytes{{pid=\"{}\",service=\"ring\",direction=\"{direction}\"}}",
            program.own_pid()
        );
        assert!(metric(&server, &name) >= 200.0 * 30.0);
    }
}
