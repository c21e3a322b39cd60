//! HTTP/2 and gRPC connections that have carried a thousand requests before anybody listened: what their header
//! tables hide is told as unknown, and nothing that is told is wrong.
//!
//! Requests follow each other, so that each span is of one of those between two that say their numbers.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use support::certificate::Certificate;
use support::collector::Receiver;
use support::exported::{CLIENT, Exported, SERVER, exporting_spans_to, spans};
use support::program::Program;
use support::server::Server;
use support::servers::{await_port, free_port};
use support::talk::{self, Asked};
use support::{await_event, quiet_cores};

const BEFORE: usize = 1000;
const AFTERWARDS: usize = 500;
/// Numbers of those that are asked many at a time begin here.
const MANY: usize = 10_000;

/// How well a request is known.
#[derive(Debug, Default)]
struct Found {
    all: usize,
    /// Method, path and status of HTTP; service, method and code of gRPC.
    whole: usize,
    /// Of which nothing is known of what was asked, but that it was.
    nameless: usize,
}

/// The requests that a span can be, since those before and behind it say which they are.
fn candidates(spans: &[&Exported], numbers: &[Option<usize>], at: usize, all: usize) -> Vec<usize> {
    if let Some(number) = numbers[at] {
        return vec![number];
    }
    let before = (0..at).rev().find_map(|earlier| Some((earlier, numbers[earlier]?)));
    let behind = (at + 1..spans.len()).find_map(|later| Some((later, numbers[later]?)));
    let first = before.map_or(0, |(_, number)| number + 1);
    let last = behind.map_or(all, |(_, number)| number);
    // As many spans as requests: each has its own.
    if let (Some((earlier, first)), Some((later, last))) = (before, behind)
        && last - first == later - earlier
    {
        return vec![first + (at - earlier)];
    }
    (first..last).collect()
}

/// Nothing that these spans say of the requests is wrong, and what they do not say they call unknown.
fn check(spans: &[&Exported], asked: &[Asked], is_grpc: bool, what: &str) -> Found {
    // Those of a number stand in the path of one request only.
    let number_of = |path: &str| {
        let mut of_path = asked.iter().enumerate().filter(|(_, asked)| asked.path == path);
        let only = of_path.next().map(|(number, _)| number);
        only.filter(|_| of_path.next().is_none())
    };
    let path_of = |span: &Exported| match (span.text("rpc.service"), span.text("rpc.method")) {
        ("", "") => span.path().to_owned(),
        (service, method) => format!("/{service}/{method}"),
    };
    let numbers: Vec<Option<usize>> = spans.iter().map(|span| number_of(&path_of(span))).collect();
    assert!(numbers.iter().flatten().is_sorted(), "{what}: they are in order");
    let mut found = Found { all: spans.len(), ..Found::default() };
    for (at, span) in spans.iter().enumerate() {
        let may_be: Vec<&Asked> =
            candidates(spans, &numbers, at, asked.len()).into_iter().map(|number| &asked[number]).collect();
        let is_rpc = span.text("rpc.system") == "grpc";
        let (method, path) = (span.text("http.request.method"), path_of(span));
        let code = span.text("rpc.grpc.status_code");
        let status = span.text("http.response.status_code");
        let is_right = |asked: &&&Asked| {
            (method.is_empty() || method == asked.method)
                && (path.is_empty() || path == asked.path)
                && (code.is_empty() || code == asked.status.to_string())
                // Of gRPC it is always this one.
                && (status.is_empty() || status == if is_grpc { "200".to_owned() } else { asked.status.to_string() })
        };
        assert!(may_be.iter().any(|asked| is_right(&asked)), "{what}: {span:#?} is none of {may_be:?}");
        let error = span.text("error.type");
        assert!(error.is_empty() || error == status || error == code, "{what}: {span:#?}");
        let mut missing = vec![("path", path.is_empty())];
        if is_rpc {
            missing.push(("grpc_status", code.is_empty()));
        } else {
            missing.extend([("method", method.is_empty()), ("status", status.is_empty())]);
            // What is taken for HTTP only since its content type is not known says so.
            missing.extend(is_grpc.then_some(("content_type", true)));
        }
        for (name, is_missing) in missing {
            assert_eq!(span.has_unknown(name), is_missing, "{what}: {name} of {span:#?}");
        }
        let is_whole = match is_grpc {
            true => is_rpc && !path.is_empty() && !code.is_empty(),
            false => !method.is_empty() && !path.is_empty() && !status.is_empty(),
        };
        found.whole += usize::from(is_whole);
        found.nameless += usize::from(path.is_empty());
    }
    found
}

/// Spans of a service and kind that this port was asked for, in the order in which they began.
fn in_order<'a>(all: &'a [Exported], service: &str, kind: i32, port: u16) -> Vec<&'a Exported> {
    let port = port.to_string();
    let is_it = |span: &&Exported| {
        span.kind == kind && span.text("service.name") == service && span.text("server.port") == port
    };
    let mut found: Vec<&Exported> = all.iter().filter(is_it).collect();
    found.sort_by_key(|span| span.start_ns);
    found
}

/// What a service is asked again and again, of which only the first time stands in full on the connection.
fn again(number: usize, is_grpc: bool) -> Asked {
    if is_grpc {
        let (code, method) = [(0, "Get"), (5, "Find"), (0, "Put"), (13, "Fail"), (0, "List")][number % 5];
        return Asked::grpc(code, &format!("again/{method}"));
    }
    let (method, status, rest) = [
        ("GET", 200, "again/a"),
        ("POST", 201, "again/b"),
        ("GET", 404, "again/c"),
        ("DELETE", 204, "again/d"),
        ("PUT", 503, "again/e"),
    ][number % 5];
    Asked::http(method, status, rest)
}

/// What it is asked once.
fn once(number: usize, is_grpc: bool) -> Asked {
    if is_grpc {
        return Asked::grpc([0, 7, 0, 2][number % 4], &format!("late/M{number}"));
    }
    let method = ["GET", "POST", "PUT", "DELETE"][number % 4];
    let status = [200, 404, 503, 201, 500][number % 5];
    Asked::http(method, status, &format!("late/{number}"))
}

/// A client and a server of Go talk before there is an agent, and go on. Of so many requests one is new.
fn check_talk(how: &str, once_of: usize) {
    let serving = format!("late-{how}-{once_of}-server");
    let served = talk::Server::start(how, &serving);
    check_asking(how, once_of, &serving, served.port);
}

/// Likewise with any server.
fn check_asking(how: &str, once_of: usize, serving: &str, port: u16) {
    let is_grpc = how == "grpc";
    let asking = format!("asks-{serving}");
    let mut client = talk::Client::start(how, port, &asking);
    let before: Vec<Asked> = (0..BEFORE).map(|number| again(number, is_grpc)).collect();
    client.ask(&before, 1);

    let receiver = Receiver::start();
    let server = Server::start_with(&exporting_spans_to(&receiver), &[]);
    let of_number = |number: usize| {
        if number.is_multiple_of(once_of) { once(number, is_grpc) } else { again(number, is_grpc) }
    };
    let afterwards: Vec<Asked> = (0..AFTERWARDS).map(of_number).collect();
    client.ask(&afterwards, 1);
    let all = spans(&server, &receiver);
    for (service, kind) in [(serving, SERVER), (asking.as_str(), CLIENT)] {
        let spans = in_order(&all, service, kind, port);
        let found = check(&spans, &afterwards, is_grpc, service);
        eprintln!("{service}: {found:?} of {AFTERWARDS}");
        assert!(found.all >= AFTERWARDS * 95 / 100 && found.all <= AFTERWARDS, "{service}: {found:?}");
        // Each that is asked once has its path in full, and that is all that is surely known of it.
        let known = found.all - found.nameless;
        assert!(known >= AFTERWARDS.div_ceil(once_of) * 95 / 100, "{service}: {found:?}");
        // That it is gRPC stands in a header that is sent once and for all, and so does the name of its status.
        assert!(is_grpc || found.whole > 0, "{service}: {found:?}");
    }

    // Many at once: whatever has a path has the rest of that request.
    let many: Vec<Asked> = (MANY..MANY + 400).map(|number| once(number, is_grpc)).collect();
    client.ask(&many, 16);
    let all = spans(&server, &receiver);
    for (service, kind) in [(serving, SERVER), (asking.as_str(), CLIENT)] {
        let mut seen = BTreeSet::new();
        for span in in_order(&all, service, kind, port) {
            let name = match span.text("rpc.method") {
                "" => span.path().rsplit('/').next().unwrap_or_default(),
                method => method,
            };
            let Ok(number) = name.trim_start_matches('M').parse::<usize>() else { continue };
            if number < MANY {
                continue;
            }
            let truth = once(number, is_grpc);
            assert!(seen.insert(number), "twice: {span:#?}");
            let is_or_empty = |text: &str, truth: &str| text.is_empty() || text == truth;
            assert!(is_or_empty(span.text("http.request.method"), truth.method), "{span:#?}");
            assert!(is_or_empty(span.text("rpc.grpc.status_code"), &truth.status.to_string()), "{span:#?}");
            if !is_grpc {
                assert!(
                    is_or_empty(span.text("http.response.status_code"), &truth.status.to_string()),
                    "{span:#?}"
                );
                assert_eq!(span.path(), truth.path);
            }
        }
        eprintln!("{service}: {} of {} at once have their path", seen.len(), many.len());
        assert!(seen.len() >= many.len() * 95 / 100, "{service}: {}", seen.len());
    }
    // What both ends say of one request does not contradict itself.
    let clients = in_order(&all, &asking, CLIENT, port);
    let mut paired = 0;
    for span in in_order(&all, serving, SERVER, port) {
        let Some(sent) = clients.iter().find(|sent| sent.id == span.parent) else { continue };
        paired += 1;
        for name in ["http.request.method", "http.response.status_code", "rpc.method", "rpc.grpc.status_code"]
        {
            let (sent, got) = (sent.text(name), span.text(name));
            assert!(sent.is_empty() || got.is_empty() || sent == got, "{name}: {sent} and {got}: {span:#?}");
        }
        let (sent, got) = (sent.path(), span.path());
        assert!(sent.is_empty() || got.is_empty() || sent == got, "{sent} and {got}");
    }
    eprintln!("{how}: {paired} of {} have their sender", AFTERWARDS + many.len());
    assert!(paired >= (AFTERWARDS + many.len()) * 95 / 100, "{paired}");
}

#[test]
fn http2_joined_after_a_thousand_requests_tells_nothing_wrong() {
    needs!();
    let _quiet = quiet_cores();
    check_talk("h2c", 3);
}

#[test]
fn http2_that_asks_for_little_new_stays_unknown_and_says_so() {
    needs!();
    let _quiet = quiet_cores();
    check_talk("h2c", 20);
}

#[test]
fn grpc_joined_after_a_thousand_requests_tells_nothing_wrong() {
    needs!();
    let _quiet = quiet_cores();
    check_talk("grpc", 3);
}

#[test]
fn grpc_that_asks_for_little_new_stays_unknown_and_says_so() {
    needs!();
    let _quiet = quiet_cores();
    check_talk("grpc", 20);
}

/// nginx that speaks HTTP/2 on two ports, in clear text and through TLS: the first part of a path says which status it is
/// answered with.
fn nginx(certificate: &Certificate) -> (Program, [u16; 2]) {
    let (ports, root) = ([free_port(), free_port()], certificate.folder.path());
    let ([clear, tls], base) = (ports, root.display());
    let locations: String = [200, 201, 204, 404, 500, 503]
        .map(|status| format!("location /{status}/ {{ return {status} \"ok\\n\"; }}\n"))
        .concat();
    let configuration = format!(
        "daemon off; worker_processes 1; pid {base}/nginx.pid; error_log {base}/error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; client_body_temp_path {base}/body; proxy_temp_path {base}/proxy;\n\
         fastcgi_temp_path {base}/fastcgi; uwsgi_temp_path {base}/uwsgi; scgi_temp_path {base}/scgi;\n\
         keepalive_requests 100000; ssl_certificate certificate.pem; ssl_certificate_key key.pem;\n\
         server {{ listen 127.0.0.1:{clear} http2; listen 127.0.0.1:{tls} ssl http2; {locations} }} }}\n"
    );
    let path = root.join("nginx.conf");
    std::fs::write(&path, configuration).expect("it is ours");
    let mut command = Command::new("nginx");
    // It keeps nothing of the environment that could say what it is called.
    command.arg("-c").arg(&path).arg("-p").arg(root).stderr(Stdio::null());
    let program = Program::start(&mut command);
    await_port(clear);
    await_port(tls);
    (program, ports)
}

#[test]
fn nginx_asked_by_go_and_joined_after_a_thousand_requests_tells_nothing_wrong() {
    needs!("nginx", "openssl");
    let _quiet = quiet_cores();
    let certificate = Certificate::new();
    let (_nginx, [port, _]) = nginx(&certificate);
    check_asking("h2c", 3, "nginx", port);
}

/// curl on one connection, which says each status when it has it.
struct Curl {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    connects: usize,
}

impl Curl {
    /// It is slowed down, since the agent is to start meanwhile.
    fn start(url: &str, service: &str) -> Self {
        let mut command = Command::new("curl");
        command.args(["-sSk", "--http2", "--rate", "6000/m", "-o", "/dev/null", "--no-buffer"]);
        command.args(["-w", "%{stdout}%{http_code} %{num_connects} %{url_effective}\\n", url]);
        command.env("OTEL_SERVICE_NAME", service).stdout(Stdio::piped());
        let mut child = command.spawn().expect("curl is there");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { child, lines, connects: 0 }
    }

    /// The next one that it has an answer for.
    fn next(&mut self) -> Option<Asked> {
        let line = self.lines.next()?.expect("text");
        let [status, connects, url] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        self.connects += connects.parse::<usize>().expect("a number");
        let path = url.splitn(4, '/').nth(3).map(|path| format!("/{path}")).expect("a path");
        let status = status.parse().expect("a status");
        assert!(path.starts_with(&format!("/{status}/")), "{line}");
        Some(Asked { method: "GET", path, status })
    }
}

impl Drop for Curl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn nginx_and_curl_joined_after_a_thousand_requests_through_tls_tell_nothing_wrong() {
    needs!("nginx", "curl", "openssl");
    let _quiet = quiet_cores();
    let certificate = Certificate::new();
    let (_nginx, [_, port]) = nginx(&certificate);
    let mut curl =
        Curl::start(&format!("https://127.0.0.1:{port}/{{200,404}}/{{late,again}}/[0-499]"), "late-tls-curl");
    let mut asked: Vec<Asked> = (0..BEFORE).map(|_| curl.next().expect("curl goes on")).collect();
    let receiver = Receiver::start();
    let server = Server::start_with(&exporting_spans_to(&receiver), &[]);
    asked.extend(std::iter::from_fn(|| curl.next()));
    assert!(curl.child.wait().expect("it is ours").success());
    assert_eq!((asked.len(), curl.connects), (2000, 1));

    let all = await_event("spans", Duration::from_secs(20), || {
        let all = spans(&server, &receiver);
        all.iter().any(|span| span.path() == "/404/again/499").then_some(all)
    });
    for (service, kind) in [("nginx", SERVER), ("late-tls-curl", CLIENT)] {
        let spans = in_order(&all, service, kind, port);
        let found = check(&spans, &asked, false, service);
        eprintln!("{service}: {found:?}");
        assert!(found.whole >= AFTERWARDS * 95 / 100, "{found:?}");
        assert!(spans.iter().all(|span| span.text("network.protocol.version") == "2"));
    }
}
