//! Clients that mean no good, or no sense: every one gets a clear error or is hung up on, and the server
//! goes on serving in the memory it had.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::await_event;
use support::server::{Request, Server, WITHOUT_EBPF};

/// What a request may make the server hold at most, beside what it holds anyway.
const MEMORY_LIMIT_BYTES: u64 = 300 << 20;

fn resident_bytes(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid)).expect("it lives");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

fn assert_serves(server: &Server, memory_before: u64) {
    let begin = Instant::now();
    server.get("/healthz").expect(200);
    assert!(begin.elapsed() < Duration::from_secs(5), "an answer took {:?}", begin.elapsed());
    let grown = resident_bytes(server).saturating_sub(memory_before);
    assert!(grown < MEMORY_LIMIT_BYTES, "{grown} bytes more than before");
}

/// Zeros, compressed: `bytes` of them in a thousandth of that.
fn bomb(bytes: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..bytes.div_ceil(zeros.len()) {
        encoder.write_all(&zeros).expect("memory");
    }
    encoder.finish().expect("memory")
}

#[test]
fn five_hundred_slow_connections_do_not_keep_others_out() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let memory = resident_bytes(&server);
    let mut slow = Vec::new();
    for number in 0..500 {
        let mut stream = TcpStream::connect(server.address).expect("it accepts");
        let beginning = ["GET /healthz HT", "GET /status HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", ""];
        stream.write_all(beginning[number % beginning.len()].as_bytes()).expect("it is open");
        slow.push(stream);
    }
    assert_serves(&server, memory);
    server.get("/api/v1/services").expect(200);
    // Whoever never comes to the end of a request is hung up on.
    for stream in &slow {
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    }
    let mut answer = Vec::new();
    let read = slow.remove(0).read_to_end(&mut answer);
    assert!(read.is_ok(), "it was not hung up on: {read:?}");
}

#[test]
fn uploads_that_are_too_large_are_refused_before_they_are_read() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let memory = resident_bytes(&server);
    // A gigabyte, honestly announced.
    let mut stream = TcpStream::connect(server.address).expect("it accepts");
    let head = format!(
        "POST /api/v1/profiles?service=x HTTP/1.1\r\nHost: {}\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        server.address,
        1_u64 << 30
    );
    stream.write_all(head.as_bytes()).expect("it is open");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("\"invalid_request\""), "{answer}");
    // And one that comes in pieces without end.
    let mut stream = TcpStream::connect(server.address).expect("it accepts");
    let head = format!(
        "POST /api/v1/profiles?service=x HTTP/1.1\r\nHost: {}\r\nContent-Type: application/octet-stream\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        server.address
    );
    stream.write_all(head.as_bytes()).expect("it is open");
    stream.set_write_timeout(Some(Duration::from_secs(10))).expect("a socket");
    let piece = [b"100000\r\n".as_slice(), &vec![b'x'; 1 << 20], b"\r\n"].concat();
    let sent = (0..1024).take_while(|_| stream.write_all(&piece).is_ok()).count();
    assert!(sent < 1024, "a gigabyte was taken");
    drop(stream);
    assert_serves(&server, memory);
}

#[test]
fn bombs_and_garbage_are_errors_that_say_what_is_wrong() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let memory = resident_bytes(&server);
    let post = |body: &[u8], kind: &str| {
        let request = Request::post("/api/v1/profiles?service=x", body);
        server.ask(&request.header("Content-Type", kind))
    };
    let answer = post(&bomb(1 << 30), "application/octet-stream");
    assert!([400, 413].contains(&answer.status), "{} {}", answer.status, answer.text());
    assert_eq!(answer.json()["error"], "invalid_request");
    for garbage in [&b""[..], b"\x1f\x8b", b"hello", &[0xff; 4096], &[0x0a; 4096]] {
        let answer = post(garbage, "application/octet-stream").expect(400).json();
        assert_eq!(answer["error"], "invalid_request");
        assert!(answer["message"].as_str().is_some_and(|message| message.len() > 10), "{answer}");
    }
    assert_serves(&server, memory);
    assert_eq!(server.get("/api/v1/services?from=-1h").json()["services"], serde_json::json!([]));
}

#[test]
fn queries_without_sense_are_400_and_name_the_parameter() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    for (query, field) in [
        ("profiles/flamegraph?type=cpu&format=bmp", "format"),
        ("profiles/flamegraph?type=", "type"),
        ("profiles/flamegraph?from=yesterday", "from"),
        ("profiles/flamegraph?from=-1x", "from"),
        ("profiles/flamegraph?from=-15m&to=-30m", "from"),
        ("profiles/flamegraph?pid=abc", "pid"),
        ("profiles/flamegraph?pid=-1", "pid"),
        ("profiles/flamegraph?pid=99999999999999999999", "pid"),
        ("profiles/flamegraph?trace_id=xyz", "trace_id"),
        ("profiles/flamegraph?span_id=0123", "span_id"),
        ("profiles/timeline?step=0", "step"),
        ("profiles/top?from=99999999999999999999999", "from"),
    ] {
        let answer = server.get(&format!("/api/v1/{query}"));
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
        let body = answer.json();
        assert_eq!(body["error"], "invalid_request", "{query}");
        assert!(body.to_string().contains(field), "{query}: {body}");
    }
}

#[test]
fn requests_that_are_no_http_end_and_leave_nothing() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let memory = resident_bytes(&server);
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(1 << 20));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "X-A: b\r\n".repeat(5000));
    for request in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"\0\0\0\0\r\n\r\n",
        long_path.as_bytes(),
        many_headers.as_bytes(),
    ] {
        let mut stream = TcpStream::connect(server.address).expect("it accepts");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        let _ = stream.write_all(request);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.starts_with("HTTP/1.1 2"), "{text}");
    }
    await_event("it serves", Duration::from_secs(5), || {
        Request::get("/healthz").send(server.address).ok().filter(|answer| answer.status == 200)
    });
    assert_serves(&server, memory);
}
