//! What others send to be stored, when they mean no good: every one gets a clear error or is hung up on, and
//! the server goes on serving in the memory it had. And nothing that is secret is told to anybody.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

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
fn secrets_stand_in_no_answer_and_in_no_log() {
    let configuration = "
agent: {ebpf: {enabled: false}}
spanflame: {log_level: trace}
otlp:
  endpoint: 127.0.0.1:9
  insecure: true
  headers: {authorization: 'Bearer sesame-of-export', x-key: sesame-of-key}
  profiles: {enabled: true}
self_telemetry:
  auth: {enabled: true, bearer_token: '${SESAME}'}
";
    let server = Server::start_as(configuration, &[], &[("SESAME", "sesame-of-access")]);
    let asked = |path: &str| server.ask(&Request::get(path).bearer("sesame-of-access"));
    let described = asked("/openapi.json").expect(200).json();
    let paths: Vec<String> = described["paths"].as_object().expect("paths").keys().cloned().collect();
    assert!(paths.len() > 15, "{paths:?}");
    let mut told = String::new();
    for path in paths.iter().filter(|path| !path.contains('{') && !path.contains("profile")) {
        told.push_str(&asked(path).text());
        // What was sent must not come back either, whatever is wrong with it.
        told.push_str(&server.ask(&Request::get(path).bearer("sesame-of-access-no")).text());
    }
    server.ask(&Request::post("/admin/reload", "").bearer("sesame-of-access")).expect(200);
    server.write_configuration(&configuration.replace("insecure: true", "insecure: sesame"));
    told.push_str(
        &server.ask(&Request::post("/admin/reload", "").bearer("sesame-of-access")).expect(400).text(),
    );
    told.push_str(&server.log());
    let line = told.lines().find(|line| line.contains("sesame-of-"));
    assert_eq!(line, None);
    assert!(told.contains("[redacted]"), "the configuration is shown");
}
