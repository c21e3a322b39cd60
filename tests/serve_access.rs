//! Who gets in, and what everyone is told: authentication, `Host`, `Origin`, limits, headers, and clients
//! that are slow or send nonsense.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::server::{Request, Response, Server, WITHOUT_EBPF, refused};

const TOKEN: &str = "hunter2-of-the-tests";

fn with_token(more: &str) -> Server {
    let text =
        format!("{WITHOUT_EBPF}self_telemetry: {{auth: {{enabled: true, bearer_token: '${{T}}'}}{more}}}\n");
    Server::start_as(&text, &[], &[("T", TOKEN)])
}

fn is_error(response: &Response, status: u16, code: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    let body = response.json();
    assert_eq!(body["error"], code, "{body}");
    assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    assert!(body["details"].is_object(), "{body}");
}

/// Every path of the description, without parameters.
fn described_paths(server: &Server) -> Vec<String> {
    let description = server.ask(&Request::get("/openapi.json").bearer(TOKEN)).expect(200).json();
    let paths = description["paths"].as_object().expect("paths").keys();
    paths.map(|path| path.replace("{trace_id}", "0").replace("{span_id}", "0")).collect()
}

#[test]
fn with_authentication_only_healthz_is_open() {
    let server = with_token("");
    server.get("/healthz").expect(200);
    let mut paths = described_paths(&server);
    assert!(paths.len() > 8, "{paths:?}");
    for more in ["/", "/openapi.json", "/nothing/here", "/metrics", "/debug/pprof/", "/healthz/", "//healthz"]
    {
        paths.push(more.to_owned());
    }
    for path in paths.iter().filter(|path| *path != "/healthz") {
        for method in ["GET", "POST", "HEAD", "OPTIONS"] {
            let response = server.ask(&Request::new(method, path));
            assert_eq!(response.status, 401, "{method} {path}");
            let offers = response.all_headers("www-authenticate");
            assert!(offers.iter().any(|offer| offer.starts_with("Bearer ")), "{offers:?}");
            assert!(offers.iter().any(|offer| offer.starts_with("Basic ")), "{offers:?}");
            if method == "GET" {
                is_error(&response, 401, "unauthorized");
            }
        }
    }
}

#[test]
fn the_token_gets_in_as_bearer_and_as_password() {
    // As curl and `go tool pprof` send http://x:TOKEN@host/: base64 of `x:hunter2-of-the-tests`.
    const BASIC: &str = "Basic eDpodW50ZXIyLW9mLXRoZS10ZXN0cw==";
    let server = with_token("");
    server.ask(&Request::get("/status").bearer(TOKEN)).expect(200);
    server.ask(&Request::get("/status").header("Authorization", BASIC)).expect(200);
    for wrong in ["Bearer hunter2", "Basic aHVudGVyMg==", "Bearer", "Digest x"] {
        let response = server.ask(&Request::get("/status").header("Authorization", wrong));
        is_error(&response, 401, "unauthorized");
    }
    // A secret is nowhere to be seen.
    let seen = [
        server.ask(&Request::get("/config").bearer(TOKEN)).expect(200).text(),
        server.ask(&Request::get("/debug/vars").bearer(TOKEN)).expect(200).text(),
        server.ask(&Request::get("/status").header("Authorization", &format!("Bearer {TOKEN}x"))).text(),
        server.log(),
    ];
    for text in seen {
        assert!(!text.contains(TOKEN), "{text}");
    }
}

#[test]
fn without_authentication_only_our_own_names_are_answered_to() {
    let text = format!("{WITHOUT_EBPF}self_telemetry: {{allowed_hosts: [spanflame.example.com]}}\n");
    let server = Server::start_with(&text, &[]);
    let ask = |host: &str| server.ask(&Request::get("/status").header("Host", host));
    let port = server.address.port();
    for ours in
        ["localhost".to_owned(), format!("localhost:{port}"), "127.0.0.1".to_owned(), "[::1]:80".to_owned()]
    {
        assert_eq!(ask(&ours).status, 200, "{ours}");
    }
    assert_eq!(ask("Spanflame.example.com:443").status, 200);
    for foreign in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "a b"] {
        let response = ask(foreign);
        // What is no host at all may be refused before.
        assert!(response.status == 403 || foreign == "a b" && response.status == 400, "{foreign}");
    }
    is_error(&ask("evil.example"), 403, "forbidden");
    let other_path = Request::get("/api/v1/services").header("Host", "evil.example");
    is_error(&server.ask(&other_path), 403, "forbidden");
}

#[test]
fn pages_of_other_origins_may_not_send() {
    for server in [Server::start_with(WITHOUT_EBPF, &[]), with_token("")] {
        let post = |origin: &str| {
            server.ask(&Request::post("/admin/flush", "").bearer(TOKEN).header("Origin", origin))
        };
        is_error(&post("http://evil.example"), 403, "forbidden");
        is_error(&post("null"), 403, "forbidden");
        assert_eq!(post(&server.url).status, 200, "our own page");
        assert_eq!(server.ask(&Request::post("/admin/flush", "").bearer(TOKEN)).status, 200, "a program");
    }
}

#[test]
fn origins_that_are_configured_may_read_and_others_are_told_nothing() {
    let server = with_token(", cors: {enabled: true, allowed_origins: ['http://localhost:3000']}");
    let from = |origin: &str| server.ask(&Request::get("/status").bearer(TOKEN).header("Origin", origin));
    let allowed = from("http://localhost:3000").expect(200);
    assert_eq!(allowed.header("access-control-allow-origin"), Some("http://localhost:3000"));
    assert_eq!(allowed.header("access-control-allow-credentials"), None);
    assert_eq!(from("http://evil.example").header("access-control-allow-origin"), None);

    let preflight = |origin: &str| {
        let request = Request::new("OPTIONS", "/status")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "GET")
            .header("Access-Control-Request-Headers", "authorization");
        server.ask(&request)
    };
    let allowed = preflight("http://localhost:3000").expect(200);
    assert_eq!(allowed.header("access-control-allow-origin"), Some("http://localhost:3000"));
    let headers = allowed.header("access-control-allow-headers").unwrap_or_default();
    assert!(headers.contains("authorization"), "{headers}");
    assert_eq!(preflight("http://evil.example").header("access-control-allow-origin"), None);

    let without = Server::start_with(WITHOUT_EBPF, &[]);
    let response = without.ask(&Request::get("/status").header("Origin", "http://localhost:3000"));
    assert_eq!(response.header("access-control-allow-origin"), None);
}

#[test]
fn what_is_too_much_is_told_to_come_again_and_healthz_is_exempt() {
    let text =
        format!("{WITHOUT_EBPF}self_telemetry: {{rate_limit: {{enabled: true, requests_per_second: 5}}}}\n");
    let server = Server::start_with(&text, &[]);
    let responses: Vec<Response> = (0..30).map(|_| server.get("/config")).collect();
    let answered = responses.iter().filter(|response| response.status == 200).count();
    assert!((5..=12).contains(&answered), "a burst of one second: {answered} of 30");
    let refused = responses.iter().find(|response| response.status == 429).expect("too many");
    is_error(refused, 429, "service_unavailable");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!((0..50).all(|_| server.get("/healthz").status == 200));
    std::thread::sleep(Duration::from_millis(1100));
    server.get("/config").expect(200);
}

#[test]
fn every_answer_has_the_security_headers() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let foreign = server.ask(&Request::get("/status").header("Host", "evil.example"));
    for response in [server.get("/healthz"), server.get("/metrics"), server.get("/nothing"), foreign] {
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(response.header("x-frame-options"), Some("DENY"));
        assert_eq!(response.header("x-xss-protection"), Some("1; mode=block"));
        assert_eq!(response.header("referrer-policy"), Some("same-origin"));
        let policy = response.header("content-security-policy").unwrap_or_default();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
    }
}

#[test]
fn a_listener_off_loopback_is_refused_without_authentication_or_override() {
    for listen in ["':0'", "'0.0.0.0:0'", "'[::]:0'"] {
        let text = format!("{WITHOUT_EBPF}self_telemetry: {{listen: {listen}}}\n");
        let (status, said) = refused(&text, &[]);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains("allow_unauthenticated") && said.contains("auth"), "{said}");
    }
    let open = Server::start_with(
        &format!("{WITHOUT_EBPF}self_telemetry: {{listen: '0.0.0.0:0'}}\n"),
        &["--allow-unauthenticated"],
    );
    open.get("/status").expect(200);
    let text = format!(
        "{WITHOUT_EBPF}self_telemetry: {{listen: '0.0.0.0:0', auth: {{enabled: true, bearer_token: {TOKEN}}}}}\n"
    );
    let with_token = Server::start_with(&text, &[]);
    with_token.get("/status").expect(401);
}

#[test]
fn heads_that_are_too_large_and_nonsense_are_refused_and_it_goes_on() {
    let mut server = Server::start_with(WITHOUT_EBPF, &[]);
    let long = "x".repeat(100_000);
    let response = Request::get("/status").header("X-Long", &long).send(server.address);
    assert!(response.map_or(true, |response| response.status == 431));
    let response = Request::get(&format!("/{long}")).send(server.address);
    assert!(response.map_or(true, |response| [404, 414, 431].contains(&response.status)));
    for nonsense in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[..], b"GET\r\n\r\n", b"\0\0\0\0", b"PRI * HTTP/2.0\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(server.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        stream.write_all(nonsense).expect("it is sent");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
    server.get("/status").expect(200);
    assert!(server.is_running());
}

#[test]
fn a_body_that_nobody_wants_is_refused_without_being_read() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let mut stream = TcpStream::connect(server.address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let head =
        format!("POST /status HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000000000\r\n\r\n", server.address);
    stream.write_all(head.as_bytes()).expect("it is sent");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an answer before the body");
    assert_eq!(&answer, b"HTTP/1.1 405");
}

#[test]
fn five_hundred_slow_connections_keep_nobody_out() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let slow: Vec<TcpStream> = (0..500)
        .map(|number| {
            let mut stream = TcpStream::connect(server.address).expect("it accepts");
            // Some say nothing, some begin and never end.
            if number % 2 == 0 {
                stream.write_all(b"GET /status HTTP/1.1\r\nHost: local").expect("it is sent");
            }
            stream
        })
        .collect();
    for _ in 0..20 {
        let began = Instant::now();
        server.get("/status").expect(200);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
    // They are gone after a while, though they have not gone by themselves.
    let open = || -> f64 {
        let text = server.get("/metrics").expect(200).text();
        let line = text.lines().find_map(|line| line.strip_prefix("spanflame_http_connections_open "));
        line.expect("a gauge").parse().expect("a number")
    };
    assert!(open() >= 400.0, "they are counted: {}", open());
    support::await_event("the slow ones are cut off", Duration::from_secs(40), || {
        (open() < 50.0).then_some(())
    });
    drop(slow);
}

#[test]
fn it_ends_within_its_limit_and_finishes_what_it_has_begun() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let silent = TcpStream::connect(server.address).expect("it listens");
    let began = Instant::now();
    server.get("/status").expect(200);
    let status = server.stop();
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    drop(silent);
}

#[test]
fn answers_are_compressed_for_those_who_take_it() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let plain = server.get("/metrics").expect(200);
    assert_eq!(plain.header("content-encoding"), None);
    let packed = server.ask(&Request::get("/metrics").header("Accept-Encoding", "gzip")).expect(200);
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert!(packed.body.starts_with(&[0x1f, 0x8b]) && packed.body.len() < plain.body.len() / 2);
    let small = server.ask(&Request::get("/healthz").header("Accept-Encoding", "gzip")).expect(200);
    assert_eq!(small.header("content-encoding"), None);
    assert!(matches!(small.json(), Value::Object(_)));
}
