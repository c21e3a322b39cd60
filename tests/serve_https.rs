//! Requests that go through TLS are spans as those in clear text are: of OpenSSL with a socket (nginx, curl,
//! Python's threads) and without one (Python's asyncio, Node), as servers and as clients.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use support::certificate::Certificate;
use support::program::{Program, fixture_command};
use support::server::Server;
use support::spans::{Span, trace, trace_ids};
use support::{await_event, servers};

fn script(name: &str) -> String {
    format!("{}/fixtures/https/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn interpreter(name: &str) -> &'static str {
    if Path::new(name).extension().is_some_and(|ending| ending == "js") { "node" } else { "python3" }
}

/// One of the servers of fixtures/https.
struct Https {
    program: Program,
    url: String,
    port: u16,
}

impl Https {
    fn start(name: &str, service: &str, certificate: &Certificate, other: Option<&str>) -> Self {
        let mut command = Command::new(interpreter(name));
        command.arg(script(name)).arg(certificate.certificate()).arg(certificate.key()).args(other);
        command.env("OTEL_SERVICE_NAME", service);
        let mut program = Program::start_ready(&mut command);
        let line = program.line().expect("it says where it listens");
        let port: u16 = line.strip_prefix("listening ").and_then(|port| port.parse().ok()).expect("a port");
        Self { program, url: format!("https://127.0.0.1:{port}"), port }
    }
}

/// nginx with TLS, HTTP/2 too, which passes on to `upstream` or answers by itself.
fn nginx(certificate: &Certificate, upstream: Option<&str>) -> Https {
    let port = servers::free_port();
    let root = certificate.folder.path();
    let base = root.display();
    let location = upstream.map_or_else(
        || "return 200 \"ok\\n\";".to_owned(),
        |url| format!("proxy_pass {url}; proxy_http_version 1.1; proxy_set_header Connection \"\";"),
    );
    let configuration = format!(
        "daemon off; worker_processes 2; pid {base}/nginx.pid; error_log {base}/error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; client_body_temp_path {base}/body; proxy_temp_path {base}/proxy;\n\
         fastcgi_temp_path {base}/fastcgi; uwsgi_temp_path {base}/uwsgi; scgi_temp_path {base}/scgi;\n\
         server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate certificate.pem;\n\
         ssl_certificate_key key.pem; location / {{ {location} }} }} }}\n"
    );
    std::fs::write(root.join("nginx.conf"), configuration).expect("it is ours");
    let mut command = Command::new("nginx");
    command.arg("-c").arg(root.join("nginx.conf")).arg("-p").arg(root).stderr(Stdio::null());
    let program = Program::start(&mut command);
    servers::await_port(port);
    Https { program, url: format!("https://127.0.0.1:{port}"), port }
}

fn curl(arguments: &[&str]) {
    let output = Command::new("curl").args(["-sSk", "--max-time", "20"]).args(arguments).output();
    let output = output.expect("curl is there");
    assert!(output.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits for everything that is probed at the start; TLS libraries are.
fn start() -> Server {
    let server = Server::start(&[]);
    await_event("TLS libraries are followed", Duration::from_secs(90), || {
        (metric(&server, "spanflame_tls_libraries_followed") >= 1.0).then_some(())
    });
    server
}

/// The sum of a metric's samples that begin so.
fn metric(server: &Server, begin: &str) -> f64 {
    let page = server.get("/metrics").expect(200).text();
    let values = page.lines().filter(|line| line.starts_with(begin));
    values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// The spans of a service's traces whose path begins so.
fn spans(server: &Server, service: &str, path: &str) -> Vec<Span> {
    let ids: BTreeSet<String> = trace_ids(server, &format!("&service={service}")).into_iter().collect();
    let all = ids.iter().flat_map(|id| trace(server, id));
    all.filter(|span| span.get("url.path").starts_with(path) || span.get("url.full").contains(path)).collect()
}

/// Requests with each number from 0 were found once at each end, right, and the ends belong together.
fn assert_both_ends(server: &Server, service: &str, path: &str, numbers: usize) {
    assert_pairs(server, &spans(server, service, path), path, numbers);
}

/// Likewise of these spans.
fn assert_pairs(server: &Server, found: &[Span], path: &str, numbers: usize) {
    for number in 0..numbers {
        let end = format!("{path}/{number}");
        let of = |kind: u64| {
            let is_it = |span: &&Span| {
                span.kind == kind && (span.get("url.path") == end || span.get("url.full").ends_with(&end))
            };
            let found: Vec<&Span> = found.iter().filter(is_it).collect();
            assert_eq!(found.len(), 1, "spans of kind {kind} for {end}: {found:#?}; {}", losses(server));
            found[0]
        };
        let (client, served) = (of(3), of(2));
        for span in [client, served] {
            assert_eq!(span.get("http.request.method"), "GET");
            assert_eq!(span.get("http.response.status_code"), "200", "{span:#?}");
        }
        assert_eq!(served.get("url.scheme"), "https");
        assert!(client.get("url.full").starts_with("https://"), "{client:#?}");
        assert_eq!((&served.trace, &served.parent), (&client.trace, &client.id));
        assert_eq!(served.get("spanflame.parent.source"), "local_peer");
    }
    assert_eq!(found.len(), 2 * numbers, "and no others");
}

fn losses(server: &Server) -> String {
    let page = server.get("/metrics").expect(200).text();
    let is_loss = |line: &&str| {
        let is_about =
            line.contains("stage=\"tls\"") || line.contains("_tls_") || line.contains("_unreadable");
        is_about && !line.starts_with('#') && !line.ends_with(" 0")
    };
    page.lines().filter(is_loss).collect::<Vec<_>>().join("; ")
}

#[test]
fn every_request_of_servers_and_clients_with_a_socket_is_found() {
    needs!("nginx", "curl", "openssl", "python3");
    let server = start();
    let certificate = Certificate::new();
    let front = nginx(&certificate, None);
    let threads = Https::start("threads.py", "sockets-threads", &certificate, None);
    for number in 0..10 {
        curl(&["--http1.1", &format!("{}/nginx/one/{number}", front.url)]);
        curl(&[&format!("{}/python/{number}", threads.url)]);
    }
    // On one connection, ten at a time.
    curl(&["--http2", "-Z", "--parallel-max", "10", &format!("{}/nginx/two/[0-29]", front.url)]);
    assert_both_ends(&server, "nginx", "/nginx/one", 10);
    assert_both_ends(&server, "nginx", "/nginx/two", 30);
    assert_both_ends(&server, "sockets-threads", "/python", 10);
    let two = spans(&server, "nginx", "/nginx/two");
    assert!(two.iter().all(|span| span.get("network.protocol.version") == "2"), "{two:#?}");
    drop((front.program, threads.program));
}

#[test]
fn every_request_of_event_loops_that_give_the_library_memory_is_found() {
    needs!("openssl", "python3", "node");
    let server = start();
    let certificate = Certificate::new();
    let python = Https::start("loop.py", "memory-asyncio", &certificate, None);
    let node = Https::start("server.js", "memory-node", &certificate, None);
    for (client, name) in [("loop.py", "from-python"), ("server.js", "from-node")] {
        for (to, port) in [("to-python/slow", python.port), ("to-node", node.port)] {
            let mut command = Command::new(interpreter(client));
            let path = format!("/{name}/{to}");
            command.args([&script(client), "client", &port.to_string(), &path, "32"]);
            assert!(command.status().expect("it starts").success(), "{command:?}");
        }
    }
    for client in ["/from-python", "/from-node"] {
        assert_both_ends(&server, "memory-asyncio", &format!("{client}/to-python/slow"), 32);
        assert_both_ends(&server, "memory-node", &format!("{client}/to-node"), 32);
    }
    drop((python.program, node.program));
}

#[test]
fn requests_of_a_loop_that_reads_several_connections_before_it_calls_the_library_are_found() {
    needs!("openssl", "python3");
    let server = start();
    let certificate = Certificate::new();
    let answering = Https::start("loop.py", "read-together", &certificate, None);
    let mut command = Command::new("python3");
    command.args([&script("together.py"), &answering.port.to_string(), "/together", "8"]);
    assert!(command.status().expect("it starts").success(), "{command:?}");
    assert_both_ends(&server, "read-together", "/together", 16);
    drop(answering.program);
}

#[test]
fn a_request_through_four_programs_is_one_trace() {
    needs!("nginx", "curl", "openssl", "python3", "node");
    let server = start();
    let certificate = Certificate::new();
    // An event loop that asks others may have no evidence of for whom: here is one at each end only.
    let last = Https::start("server.js", "chain-last", &certificate, None);
    let second = Https::start("threads.py", "chain-second", &certificate, Some(&last.url));
    let first = Https::start("threads.py", "chain-first", &certificate, Some(&second.url));
    let front = nginx(&certificate, Some(&first.url));
    for number in 0..10 {
        curl(&["--http1.1", &format!("{}/call/{number}", front.url)]);
    }
    let found = spans(&server, "chain-last", "/call");
    let traces: BTreeSet<&String> = found.iter().map(|span| &span.trace).collect();
    for id in &traces {
        let of_trace: Vec<&Span> = found.iter().filter(|span| span.trace == **id).collect();
        let mut servers: Vec<&str> =
            of_trace.iter().filter(|span| span.kind == 2).map(|span| span.service.as_str()).collect();
        servers.sort_unstable();
        assert_eq!(servers, ["chain-first", "chain-last", "chain-second", "nginx"], "{of_trace:#?}");
        // Each is the child of another one of them, but for curl's.
        let has_parent = |span: &&&Span| of_trace.iter().any(|other| other.id == span.parent);
        assert_eq!((of_trace.len(), of_trace.iter().filter(has_parent).count()), (8, 7), "{of_trace:#?}");
    }
    assert_eq!(traces.len(), 10, "{}", losses(&server));
    drop((last.program, second.program, first.program, front.program));
}

/// fixtures/https/client.py, whose connections stay open.
struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    fn start(port: u16, path: &str, connections: usize, requests: usize) -> Self {
        let mut command = Command::new("python3");
        command.args([&script("client.py"), &port.to_string(), path]);
        command.args([connections.to_string(), requests.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let input = child.stdin.take().expect("it is piped");
        let mut client = Self { child, input, output };
        client.await_line("ready 0");
        client
    }

    fn await_line(&mut self, wanted: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it writes text");
        assert_eq!(line.trim_end(), wanted);
    }

    fn ask(&mut self) {
        self.input.write_all(b"\n").expect("it reads");
        self.await_line("done");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn pieces_are_put_together_and_many_connections_at_once_are_kept_apart() {
    needs!("openssl", "python3");
    let server = start();
    let certificate = Certificate::new();
    let threads = Https::start("threads.py", "pieces", &certificate, None);
    let mut client = Client::start(threads.port, "/pieces", 8, 20);
    client.ask();
    for connection in 0..8 {
        assert_both_ends(&server, "pieces", &format!("/pieces/{connection}"), 20);
    }
    let sizes: BTreeSet<String> = spans(&server, "pieces", "/pieces")
        .iter()
        .map(|span| span.get("http.response.body.size").to_owned())
        .collect();
    assert_eq!(sizes, BTreeSet::from(["3".to_owned()]));
    drop(threads.program);
}

#[test]
fn requests_on_connections_that_are_older_than_the_agent_are_found() {
    needs!("openssl", "python3");
    let certificate = Certificate::new();
    let threads = Https::start("threads.py", "older", &certificate, None);
    let mut client = Client::start(threads.port, "/older", 4, 10);
    client.ask();
    let server = start();
    client.ask();
    client.ask();
    let found = spans(&server, "older", "/older");
    // One goes by while the library is being probed, and four until it is certain that requests wait for
    // their answers on a connection of which the beginning was not seen.
    for kind in [2, 3] {
        let paths: BTreeSet<&str> = found
            .iter()
            .filter(|span| span.kind == kind)
            .filter_map(|span| {
                span.get(if kind == 2 { "url.path" } else { "url.full" }).split("/older/").nth(1)
            })
            .collect();
        assert!(
            paths.len() >= 4 * 15,
            "{} of 80 of kind {kind}: {paths:?}; {}",
            paths.len(),
            losses(&server)
        );
        assert_eq!(paths.len(), found.iter().filter(|span| span.kind == kind).count(), "none twice");
    }
    for span in &found {
        assert_eq!(span.get("http.response.status_code"), "200", "{span:#?}");
    }
    drop(threads.program);
}

#[test]
fn a_connection_that_no_library_shows_is_counted_with_the_reason() {
    needs!();
    let server = start();
    let before = metric(&server, "spanflame_connections_unreadable_total{reason=\"library_unknown\"}");
    // This test has no TLS library; it only says what one would.
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (mut served, _) = listener.accept().expect("one waits");
    let hello = [0x16, 3, 1, 0, 2, 1, 0];
    client.write_all(&hello).expect("written");
    let mut buffer = [0; 16];
    let read = served.read(&mut buffer).expect("read");
    assert_eq!(buffer[..read], hello);
    drop((client, served));
    await_event("both ends are counted", Duration::from_secs(10), || {
        let now = metric(&server, "spanflame_connections_unreadable_total{reason=\"library_unknown\"}");
        (now >= before + 2.0).then_some(())
    });
}

/// The folder with the libraries of OpenSSL 1.1, fetched on first use; or why there is none.
fn openssl11() -> Result<PathBuf, String> {
    let _lock = support::locked("openssl11.lock");
    let out = support::target_directory().join("openssl11");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openssl11/fetch");
    let output = Command::new(script).arg(&out).output().expect("a shell");
    match output.status.success() {
        true => Ok(out),
        false => Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()),
    }
}

/// `fixtures/c/tls_threads.c` as server and client through one library, which both load when they are running.
fn check_library(library: &str, folder: Option<&Path>, version: &str, service: &str) {
    let server = start();
    let followed = || metric(&server, "spanflame_tls_libraries_followed");
    let before = followed();
    let certificate = Certificate::new();
    let (chain, key) = (certificate.certificate(), certificate.key());
    let command = |line: &[&str]| {
        let mut command = fixture_command(&[&["tls_threads", "120", library], line].concat());
        command.env("OTEL_SERVICE_NAME", service).envs(folder.map(|folder| ("LD_LIBRARY_PATH", folder)));
        command
    };
    let text = |path: &PathBuf| path.to_str().expect("text").to_owned();
    let mut served = Program::start_ready(&mut command(&["serve", &text(&chain), &text(&key)]));
    let line = served.line().expect("it says its version");
    assert!(line.contains(version), "{line}");
    let line = served.line().expect("it says where it listens");
    let port = line.strip_prefix("listening ").expect("a port").to_owned();
    if folder.is_some() {
        await_event("a library that nobody has seen before is followed", Duration::from_secs(20), || {
            (followed() > before).then_some(())
        });
    }
    const CONNECTIONS: usize = 16;
    const REQUESTS: usize = 12;
    let path = format!("/{service}");
    let (connections, requests) = (CONNECTIONS.to_string(), REQUESTS.to_string());
    let mut client = Program::start_ready(&mut command(&["ask", &port, &path, &connections, &requests]));
    assert!(client.line().is_some_and(|line| line.contains(version)));
    assert_eq!(client.line().as_deref(), Some("done"), "its standard error says why");
    let all = spans(&server, service, &path);
    for connection in 0..CONNECTIONS {
        let path = format!("{path}/{connection}/");
        let of_it =
            |span: &&Span| span.get("url.path").starts_with(&path) || span.get("url.full").contains(&path);
        let found: Vec<Span> = all.iter().filter(of_it).cloned().collect();
        assert_pairs(&server, &found, path.trim_end_matches('/'), REQUESTS);
    }
    assert_eq!(all.len(), CONNECTIONS * REQUESTS * 2, "and no others");
}

#[test]
fn every_request_through_openssl_1_1_is_found() {
    needs!("openssl");
    let folder = match openssl11() {
        Ok(folder) => folder,
        Err(reason) => return support::skip(&reason),
    };
    let library = folder.join("libssl.so.1.1");
    check_library(library.to_str().expect("text"), Some(&folder), "OpenSSL 1.1.1", "openssl-1-1");
}

#[test]
fn every_request_through_a_library_that_is_loaded_late_is_found() {
    needs!("openssl");
    check_library("libssl.so.3", None, "OpenSSL 3.", "openssl-late");
}
