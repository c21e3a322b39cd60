//! Requests through Go's own TLS, many at a time: Go answers curl, Go asks nginx, Go asks Go; by HTTP/1 and by HTTP/2.
//! Each request is found once at each end, is right, and its two ends belong together.

mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use support::await_event;
use support::certificate::Certificate;
use support::collector::Receiver;
use support::exported::{CLIENT, Exported, SERVER, exporting_spans_to, spans};
use support::program::Program;
use support::server::Server;
use support::servers::{await_port, free_port};
use support::streams::metric;
use support::talk::{self, Asked};

const AT_A_TIME: usize = 16;
const REQUESTS: usize = 320;

fn agent() -> (Receiver, Server) {
    let receiver = Receiver::start();
    let server = Server::start_with(&exporting_spans_to(&receiver), &[]);
    await_event("TLS libraries are followed", Duration::from_secs(90), || {
        let page = server.get("/metrics").expect(200).text();
        let line = page.lines().find_map(|line| line.strip_prefix("spanflame_tls_libraries_followed "));
        line.is_some_and(|count| count != "0").then_some(())
    });
    (receiver, server)
}

fn requests(what: &str) -> Vec<Asked> {
    let one = |number: usize| {
        let method = ["GET", "POST", "PUT", "DELETE"][number % 4];
        let status = [200, 404, 201, 503, 204][number % 5];
        // Some answer later than those that were asked after them.
        let when = if number.is_multiple_of(7) { "slow" } else { "now" };
        Asked::http(method, status, &format!("{when}/{what}/{number}"))
    };
    (0..REQUESTS).map(one).collect()
}

/// Each of these is there once at each end, right, and the ends belong together. `kinds`: the services at them.
///
/// A connection that is older than the probes may have had an answer that nobody saw: then what waits on it is given up,
/// and so are its next few requests, until it is certain again which answer is whose. That is counted, and they are
/// returned.
fn check(
    all: &[Exported],
    asked: &[Asked],
    version: &str,
    [client, server]: [&str; 2],
    given_up: f64,
) -> usize {
    let of = |kind: i32, service: &str| {
        let mut found: BTreeMap<String, &Exported> = BTreeMap::new();
        for span in all.iter().filter(|span| span.kind == kind && span.text("service.name") == service) {
            let before = found.insert(span.path().to_owned(), span);
            assert!(before.is_none(), "twice: {span:#?}");
        }
        found
    };
    let (sent, served) = (of(CLIENT, client), of(SERVER, server));
    let missing = |of: &BTreeMap<String, &Exported>| {
        asked
            .iter()
            .filter(|asked| !of.contains_key(&asked.path))
            .map(|asked| asked.path.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(missing(&served), Vec::<String>::new(), "{client} to {server}");
    let lacking = missing(&sent);
    assert!(
        lacking.len() <= 6 && lacking.len() as f64 <= given_up,
        "{client} to {server}: {lacking:?}, {given_up}"
    );
    for Asked { method, path, status } in asked.iter().filter(|asked| !lacking.contains(&asked.path)) {
        let (sent, served) = (sent[path], served[path]);
        for span in [sent, served] {
            assert_eq!(
                (span.text("http.request.method"), span.status()),
                (*method, u64::from(*status)),
                "{span:#?}"
            );
            assert_eq!(span.text("network.protocol.version"), version, "{span:#?}");
        }
        assert_eq!(served.text("url.scheme"), "https", "{served:#?}");
        assert!(sent.text("url.full").starts_with("https://"), "{sent:#?}");
        assert_eq!((&served.parent, &served.trace), (&sent.id, &sent.trace), "{sent:#?} {served:#?}");
        assert_eq!(served.text("spanflame.parent.source"), "local_peer");
    }
    lacking.len()
}

/// Requests that were given up because something was not seen.
fn given_up(server: &Server) -> f64 {
    metric(server, r#"spanflame_requests_discarded_total{reason="gap"}"#)
}

/// Spans of paths with this in them, when there are as many as there should be, or after a while.
fn await_spans(server: &Server, receiver: &Receiver, what: &str, wanted: usize) -> Vec<Exported> {
    let mut found = Vec::new();
    for _ in 0..20 {
        found = spans(server, receiver);
        found.retain(|span| span.path().contains(what));
        if found.len() >= wanted {
            break;
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    found
}

/// Programs are met, and their code read, when they first open a connection or listen: until then they are asked what
/// does not count.
fn warm_up(server: &Server, receiver: &Receiver, mut ask: impl FnMut(&Asked)) {
    for attempt in 0..40 {
        let asked = Asked::http(
            "GET",
            200,
            &format!("now/warm-{}/{attempt}", std::thread::current().name().unwrap_or_default()),
        );
        ask(&asked);
        std::thread::sleep(Duration::from_millis(500));
        if spans(server, receiver).iter().filter(|span| span.path() == asked.path).count() >= 2 {
            return;
        }
    }
    panic!("nothing of these programs is seen: {}", server.log());
}

fn check_go_to_go(how: &str, version: &str) {
    needs!();
    let (receiver, server) = agent();
    let (asking, serving) = (format!("go-{how}-client"), format!("go-{how}-server"));
    let served = talk::Server::start(how, &serving);
    let mut client = talk::Client::start(how, served.port, &asking);
    warm_up(&server, &receiver, |asked| client.ask(std::slice::from_ref(asked), 1));
    // Every agent sees the whole host: what another test asks has another name.
    let asked = requests(&format!("both-go-{how}"));
    client.ask(&asked, AT_A_TIME);
    let all = await_spans(&server, &receiver, &format!("/both-go-{how}/"), REQUESTS * 2);
    let lacking = check(&all, &asked, version, [&asking, &serving], given_up(&server));
    assert_eq!(all.len(), REQUESTS * 2 - lacking, "and no others");
}

#[test]
fn go_asks_go_by_http1_through_tls() {
    check_go_to_go("https1", "1.1");
}

#[test]
fn go_asks_go_by_http2_through_tls() {
    check_go_to_go("h2", "2");
}

/// nginx with TLS, which answers as the first part of a path says.
fn nginx(certificate: &Certificate) -> (Program, u16) {
    let (port, root) = (free_port(), certificate.folder.path());
    let base = root.display();
    let locations: String = [200, 201, 204, 404, 503]
        .map(|status| format!("location /{status}/ {{ return {status} \"ok\\n\"; }}\n"))
        .concat();
    let configuration = format!(
        "daemon off; worker_processes 2; pid {base}/nginx.pid; error_log {base}/error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; client_body_temp_path {base}/body; proxy_temp_path {base}/proxy;\n\
         fastcgi_temp_path {base}/fastcgi; uwsgi_temp_path {base}/uwsgi; scgi_temp_path {base}/scgi;\n\
         server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate certificate.pem;\n\
         ssl_certificate_key key.pem; {locations} }} }}\n"
    );
    std::fs::write(root.join("nginx.conf"), configuration).expect("it is ours");
    let mut command = Command::new("nginx");
    // It keeps nothing of the environment that could say what it is called.
    command.arg("-c").arg(root.join("nginx.conf")).arg("-p").arg(root).stderr(std::process::Stdio::null());
    let program = Program::start(&mut command);
    await_port(port);
    (program, port)
}

fn check_go_to_nginx(how: &str, version: &str) {
    needs!("nginx", "openssl");
    let (receiver, server) = agent();
    let certificate = Certificate::new();
    let (_nginx, port) = nginx(&certificate);
    let asking = format!("go-{how}-asks-nginx");
    let mut client = talk::Client::start(how, port, &asking);
    warm_up(&server, &receiver, |asked| client.ask(std::slice::from_ref(asked), 1));
    let asked = requests(&format!("to-nginx-{how}"));
    client.ask(&asked, AT_A_TIME);
    let all = await_spans(&server, &receiver, &format!("/to-nginx-{how}/"), REQUESTS * 2);
    let lacking = check(&all, &asked, version, [&asking, "nginx"], given_up(&server));
    assert_eq!(all.len(), REQUESTS * 2 - lacking, "and no others");
}

#[test]
fn go_asks_nginx_by_http1_through_tls() {
    check_go_to_nginx("https1", "1.1");
}

#[test]
fn go_asks_nginx_by_http2_through_tls() {
    check_go_to_nginx("h2", "2");
}

fn check_curl_to_go(how: &str, option: &str, version: &str) {
    needs!("curl");
    let (receiver, server) = agent();
    let serving = format!("go-{how}-answers-curl");
    let served = talk::Server::start(how, &serving);
    let curl = |paths: &[String]| {
        let mut command = Command::new("curl");
        command.args([
            "-sSk",
            "--no-progress-meter",
            "--max-time",
            "60",
            option,
            "-Z",
            "--parallel-max",
            &AT_A_TIME.to_string(),
        ]);
        command.env("OTEL_SERVICE_NAME", "go-curl").stdout(std::process::Stdio::null());
        for path in paths {
            command.args(["-o", "/dev/null"]).arg(format!("https://127.0.0.1:{}{path}", served.port));
        }
        assert!(command.status().expect("curl is there").success());
    };
    warm_up(&server, &receiver, |asked| curl(std::slice::from_ref(&asked.path)));
    let asked: Vec<Asked> =
        requests(&format!("to-go-{how}")).into_iter().map(|asked| Asked { method: "GET", ..asked }).collect();
    let paths: Vec<String> = asked.iter().map(|asked| asked.path.clone()).collect();
    curl(&paths);
    let all = await_spans(&server, &receiver, &format!("/to-go-{how}/"), REQUESTS * 2);
    let lacking = check(&all, &asked, version, ["go-curl", &serving], given_up(&server));
    assert_eq!(all.len(), REQUESTS * 2 - lacking, "and no others");
}

#[test]
fn curl_asks_go_by_http1_through_tls() {
    check_curl_to_go("https1", "--http1.1", "1.1");
}

#[test]
fn curl_asks_go_by_http2_through_tls() {
    check_curl_to_go("h2", "--http2", "2");
}
