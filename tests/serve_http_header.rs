//! `agent.ebpf.network.context_propagation: http_header`: refused where the kernel would harm programs, with the reason
//! everywhere; and programs that live by FIONREAD go on as before, whatever is asked for. Where the kernel is fit the
//! header arrives; tests/vm has such a kernel.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::await_event;
use support::server::Server;
use support::spans::{trace, trace_ids};

/// A server that answers in two writes, and a client that reads no more than FIONREAD says is there. It asks for each
/// line of its input, and prints the bytes that the server has got, as text.
///
/// For a line that says `pieces` the client's socket does not wait (`O_NONBLOCK`), as those of event loops, and the
/// server writes each piece of its answer when the client has read all before it and has been told that there is no more.
const EXCHANGE: &str = r#"
import fcntl, select, socket, struct, sys, termios, threading, time

PIECES = [b"HTTP/1.1 200 OK\r\nConte", b"nt-Length: 3000\r\n\r\n", b"x" * 1000, b"x" * 1999, b"x"]
drained = threading.Semaphore(0)

def serve(listener, heads):
    connection, _ = listener.accept()
    while True:
        head = b""
        while b"\r\n\r\n" not in head:
            more = connection.recv(65536)
            if not more:
                return
            head += more
        heads.append(head)
        if head.startswith(b"GET /pieces"):
            for piece in PIECES:
                connection.sendall(piece)
                drained.acquire()
            continue
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n")
        connection.sendall(b"x" * 3000)

def readable(connection):
    return struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, b"\0" * 4))[0]

listener = socket.create_server(("127.0.0.1", 0))
heads = []
threading.Thread(target=serve, args=(listener, heads), daemon=True).start()
connection = socket.create_connection(listener.getsockname())

def ask_for_pieces(number):
    connection.setblocking(False)
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    connection.send(b"GET /pieces/%d HTTP/1.1\r\nHost: here\r\n\r\n" % number)
    for piece in PIECES:
        got = b""
        while len(got) < len(piece):
            if not poll.poll(5000):
                sys.exit("a piece does not come")
            try:
                while True:
                    got += connection.recv(700)
            except BlockingIOError:
                pass
        assert got == piece, (got, piece)
        drained.release()
    connection.setblocking(True)

for number, line in enumerate(sys.stdin):
    if line.startswith("pieces"):
        ask_for_pieces(number)
        print(repr(heads[number])[2:-1], flush=True)
        continue
    connection.sendall(b"GET /fionread/%d HTTP/1.1\r\nHost: here\r\n\r\n" % number)
    answer, begun = b"", time.monotonic()
    while not answer.endswith(b"x" * 3000):
        count = readable(connection)
        if not count:
            if time.monotonic() - begun > 5:
                sys.exit("FIONREAD says 0 for ever")
            time.sleep(0.001)
            continue
        part = connection.recv(count)
        assert len(part) == count, (len(part), count)
        answer += part
    print(repr(heads[number])[2:-1], flush=True)
"#;

struct Exchange {
    child: Child,
    heads: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Exchange {
    fn start() -> Self {
        Self::of_service("exchange")
    }

    /// Tests that run at the same time see each other's requests: who counts his own has a service for himself.
    fn of_service(service: &str) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", EXCHANGE])
            .env("OTEL_SERVICE_NAME", service)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let heads = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { child, heads }
    }

    /// The head that has arrived.
    fn ask(&mut self) -> String {
        self.ask_for("")
    }

    fn ask_for(&mut self, what: &str) -> String {
        let input = self.child.stdin.as_mut().expect("it is piped");
        input.write_all(format!("{what}\n").as_bytes()).expect("it reads");
        self.heads.next().expect("an answer: FIONREAD has stalled it otherwise").expect("text")
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn written(number: usize) -> String {
    format!(r"GET /fionread/{number} HTTP/1.1\r\nHost: here\r\n\r\n")
}

fn ways(server: &Server) -> Value {
    server.get("/status").expect(200).json()["ebpf"]["context_propagation"].clone()
}

#[test]
fn by_default_nobody_s_payload_or_socket_is_touched() {
    needs!();
    let server = Server::start(&[]);
    assert_eq!(ways(&server)["http_header"], serde_json::json!({"state": "off", "reason": null}));
    let maps = server.get("/status/ebpf").expect(200).text();
    assert!(!maps.contains("header_sockets"), "{maps}");
    let mut exchange = Exchange::start();
    for number in 0..20 {
        assert_eq!(exchange.ask(), written(number));
    }
}

#[test]
fn a_kernel_that_would_stall_programs_is_refused_with_the_reason_and_a_fit_one_puts_the_header_in() {
    needs!();
    let begun = Instant::now();
    let server = Server::start_with("agent: {ebpf: {network: {context_propagation: http_header}}}\n", &[]);
    let started = begun.elapsed();
    let way = ways(&server)["http_header"].clone();
    let doctor = support::spanflame().args(["doctor", "--json"]).output().expect("it runs");
    let doctor: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    let ability = doctor["abilities"]
        .as_array()
        .and_then(|all| all.iter().find(|ability| ability["name"] == "http_header"))
        .expect("it is asked");
    let mut exchange = Exchange::start();
    let heads: Vec<String> = (0..20).map(|_| exchange.ask()).collect();

    if way["state"] == "refused" {
        let reason = way["reason"].as_str().expect("a reason").to_owned();
        let log = server.await_log("the refusal", |line| line.contains("TCP's header alone"));
        assert!(log.contains(&reason), "{log}");
        assert!(reason.contains("not fit to put contexts into heads: "), "{reason}");
        assert_eq!(ability["state"], "missing", "{ability}");
        assert!(reason.ends_with(ability["detail"].as_str().expect("text")), "{reason}: {ability}");
        let maps = server.get("/status/ebpf").expect(200).text();
        assert!(!maps.contains("header_sockets"), "{maps}");
        for (number, head) in heads.iter().enumerate() {
            assert_eq!(*head, written(number));
        }
        assert!(started < Duration::from_secs(30), "{started:?}");
        return;
    }
    assert_eq!(way, serde_json::json!({"state": "on", "reason": null}), "{}", server.log());
    for (number, head) in heads.iter().enumerate() {
        let header = head
            .strip_prefix(&format!(r"GET /fionread/{number} HTTP/1.1\r\ntraceparent: 00-"))
            .unwrap_or_else(|| panic!("{head}"));
        let (trace_id, rest) = header.split_at(32);
        let span_id = rest[1..17].to_owned();
        assert_eq!(&rest[17..], r"-01\r\nHost: here\r\n\r\n", "{head}");
        let spans = await_event("the trace", Duration::from_secs(20), || {
            server.flush();
            let found = server.get(&format!("/api/v1/traces/{trace_id}")).status == 200;
            found.then(|| trace(&server, trace_id)).filter(|spans| spans.len() >= 2)
        });
        assert!(spans.iter().any(|span| span.id == span_id), "{spans:?}");
        assert!(spans.iter().any(|span| span.parent == span_id), "{spans:?}");
    }
    // Without warning it is gone, and the same connection goes on.
    server.kill();
    for number in 20..40 {
        assert_eq!(exchange.ask(), written(number));
    }
}

/// Whichever functions of the kernel the socket works by: where headers are put in, it is others.
#[test]
fn an_answer_in_pieces_on_a_socket_that_does_not_wait_is_one_request_with_all_its_bytes() {
    needs!("python3");
    let server = Server::start_with("agent: {ebpf: {network: {context_propagation: http_header}}}\n", &[]);
    let mut exchange = Exchange::of_service("pieces");
    // Both ways on one connection, so that none takes bytes of the other for its own.
    for number in 0..10 {
        let head = exchange.ask_for(if number % 2 == 0 { "pieces" } else { "" });
        assert!(head.contains(&format!("/{number} HTTP/1.1")), "{head}");
    }
    for (route, count) in [("/pieces/{id}", 5), ("/fionread/{id}", 5)] {
        let query = format!("&service=pieces&route={route}");
        let ids = await_event("the requests", Duration::from_secs(20), || {
            Some(trace_ids(&server, &query)).filter(|ids| ids.len() >= count)
        });
        assert_eq!(ids.len(), count, "{route}: {ids:?}");
        for id in ids {
            let spans = trace(&server, &id);
            let kinds: Vec<u64> = spans.iter().map(|span| span.kind).collect();
            assert!(kinds == [2, 3] || kinds == [3, 2], "once at each end: {spans:#?}");
            for span in spans {
                assert_eq!(span.get("http.response.status_code"), "200", "{span:?}");
                assert_eq!(span.get("http.response.body.size"), "3000", "{span:?}");
            }
        }
    }
}
