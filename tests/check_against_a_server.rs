//! `spanflame check compare` with sides that a server keeps: ranges of what it has watched, and what builds have sent
//! to it under their revision.

mod support;

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::program::{Program, fixture_command};
use support::server::{Request, Server, WITHOUT_EBPF};
use support::servers::{await_port, free_port};
use support::{is_installed, quiet_cores, skip, spanflame};

const TOKEN: &str = "a-very-secret-token";
const BASE: &str = "1111111aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const NEW: &str = "2222222bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const SAME: &str = "3333333ccccccccccccccccccccccccccccccccc";

/// `check compare` of two sides; what it says is JSON on standard output.
fn compare(base: &str, new: &str, more: &[&str]) -> Output {
    let mut command = spanflame();
    command.args(["check", "compare", "--base", base, "--new", new, "--report", "json=-"]).args(more);
    command.env_remove("SPANFLAME_CHECK_TOKEN");
    command.output().expect("it runs")
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The functions whose own cost regressed.
fn blamed(report: &Value) -> Vec<&Value> {
    let lines = report["lines"].as_array().expect("lines").iter();
    lines.filter(|line| line["level"] == "function_self" && line["verdict"] == "regressed").collect()
}

fn names(lines: &[&Value]) -> Vec<String> {
    lines.iter().filter_map(|line| Some(line["name"].as_str()?.to_owned())).collect()
}

/// A profile of a program whose `parse` costs `parse`, each cost give or take a fiftieth, as pprof.
fn profile(folder: &tempfile::TempDir, parse: u64, seed: u64) -> Vec<u8> {
    let mut text = String::new();
    for (index, (stack, cost)) in [
        ("app;main", 900),
        ("app;main;read", 700),
        ("app;main;read;parse", parse),
        ("app;main;work;hash", 2_500),
        ("app;main;work;sort", 1_500),
        ("app;main;write;format", 1_900),
    ]
    .into_iter()
    .enumerate()
    {
        let mut noise = (seed * 104_729 + index as u64 * 1_299_709).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Else runs would resemble those before.
        noise = (noise ^ (noise >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        noise = (noise ^ (noise >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        writeln!(text, "{stack} {}", cost * (980 + (noise >> 40) % 41) / 1_000).expect("text");
    }
    let (folded, pprof) = (folder.path().join("run.folded"), folder.path().join("run.pb.gz"));
    std::fs::write(&folded, text).expect("written");
    let converted = spanflame().arg("convert").arg(&folded).arg("-o").arg(&pprof).status();
    assert!(converted.expect("it runs").success());
    std::fs::read(pprof).expect("written")
}

fn now_s() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    since.as_secs()
}

/// Sends runs of a revision, as a build does that has measured them, five seconds each, `ago_s` before now.
fn send(server: &Server, token: Option<&str>, git_sha: &str, runs: u64, parse: u64, ago_s: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let seed = git_sha.bytes().map(u64::from).sum::<u64>() * 1_000;
    // Asked once: else a second that passes while they are sent is a gap between them.
    let first_s = now_s() - ago_s;
    for run in 0..runs {
        let from = first_s + run * 5;
        let path = format!("/api/v1/profiles?service=bench&git_sha={git_sha}&from={from}&to={}", from + 5);
        let request = Request::post(&path, profile(&folder, parse, seed + run));
        let request = match token {
            Some(token) => request.bearer(token),
            None => request,
        };
        server.ask(&request).expect(200);
    }
}

fn kept_by_builds() -> Server {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    // The base was measured a day ago, the others lately.
    send(&server, None, BASE, 10, 3_000, 86_400);
    send(&server, None, NEW, 10, 3_900, 600);
    send(&server, None, SAME, 10, 3_000, 300);
    server
}

#[test]
fn a_build_is_compared_with_the_revision_that_it_comes_from() {
    let server = kept_by_builds();
    let of = |git_sha: &str| format!("{}/?service=bench&type=samples&git_sha={git_sha}", server.url);

    let output = compare(&of(BASE), &of(NEW), &[]);
    assert_eq!(status(&output), 1, "{output:?}");
    let found = report(&output);
    assert_eq!(names(&blamed(&found)), ["parse"], "{found:#}");
    // Pairs of them become one where chance has made the ones that follow each other alike.
    assert!([5, 10].map(Value::from).contains(&found["base"]["runs"]), "{found:#}");
    assert_eq!((&found["new"]["runs"], &found["basis"]["kind"]), (&found["base"]["runs"], &"share".into()));
    let notes = found["notes"].to_string();
    assert!(notes.contains("stretches") && notes.contains("shares are compared"), "{notes}");

    // The first digits will do, as they do for git; a range narrows it down.
    let short = format!("{}?service=bench&type=samples&git_sha={}", server.url, &SAME[..8]);
    let output = compare(&of(BASE), &short, &["--margin", "10%"]);
    assert_eq!((status(&output), &report(&output)["verdict"]), (0, &"unchanged".into()), "{output:?}");
    let lately = format!("{}&from=-1h", of(BASE));
    let output = compare(&lately, &of(NEW), &[]);
    assert_eq!(status(&output), 3, "{output:?}");
    assert!(said(&output).contains(BASE), "{output:?}");

    // The other side may be files.
    let folder = tempfile::tempdir().expect("a folder");
    let files: Vec<String> = (0..10)
        .map(|run| {
            let path = folder.path().join(format!("new-{run}.pb.gz"));
            std::fs::write(&path, profile(&folder, 3_900, 77 + run)).expect("written");
            path.to_string_lossy().into_owned()
        })
        .collect();
    let more: Vec<&str> = files.iter().skip(1).map(String::as_str).collect();
    let arguments = [&["--value", "samples", "--new"], &more[..]].concat();
    let output = compare(&of(BASE), &files[0], &arguments);
    assert_eq!(status(&output), 1, "{output:?}");
    assert_eq!(names(&blamed(&report(&output))), ["parse"]);
}

#[test]
fn windows_are_listed_with_what_they_have_of_what_is_selected() {
    let server = kept_by_builds();
    let listed = |query: &str| {
        let answer = server.get(&format!("/api/v1/profiles/windows?{query}")).expect(200).json();
        answer["windows"].as_array().expect("windows").clone()
    };
    let all = listed("type=samples&from=0");
    assert_eq!(all.len(), 30, "{all:?}");
    let of_base = listed(&format!("type=samples&git_sha={}&from=-2d", &BASE[..7]));
    assert_eq!(of_base.len(), 10);
    for (one, next) in of_base.iter().zip(&of_base[1..]) {
        assert_eq!(one["to"], next["from"], "each has five seconds, and there is no gap");
    }
    // A window is asked for by its range, and is what the list says.
    let (from, to) = (of_base[3]["from"].as_str().expect("text"), of_base[3]["to"].as_str().expect("text"));
    let top = server.get(&format!("/api/v1/profiles/top?type=samples&from={from}&to={to}")).expect(200);
    assert_eq!(top.header("x-spanflame-windows"), Some("1"));
    assert_eq!(top.json()["total"], of_base[3]["value"]);
    assert!(listed(&format!("type=samples&git_sha={BASE}&service=bench&from=-1d")).len() <= 10);

    for (query, status, about) in [
        ("type=samples&git_sha=1111112&from=0", 404, "git_sha"),
        ("type=samples&git_sha=111111&from=0", 404, "git_sha"),
        ("git_sha=", 400, "git_sha"),
        ("limit=3", 400, "limit"),
    ] {
        let answer = server.get(&format!("/api/v1/profiles/windows?{query}")).expect(status);
        assert!(
            answer.json()["message"].as_str().is_some_and(|text| text.contains(about)),
            "{query}: {}",
            answer.text()
        );
    }
    let too_long = format!("/api/v1/profiles?git_sha={}", "a".repeat(129));
    assert!(server.post(&too_long, "x").expect(400).text().contains("git_sha"));
}

#[test]
fn a_server_that_wants_a_token_gets_it_and_nobody_else_sees_it() {
    let configuration =
        format!("{WITHOUT_EBPF}self_telemetry: {{auth: {{enabled: true, bearer_token: {TOKEN}}}}}\n");
    let server = Server::start_with(&configuration, &[]);
    send(&server, Some(TOKEN), BASE, 6, 3_000, 600);
    send(&server, Some(TOKEN), NEW, 6, 6_000, 300);
    let selector = |git_sha: &str| format!("?type=samples&git_sha={git_sha}");
    let plain = |git_sha: &str| format!("{}/{}", server.url, selector(git_sha));
    let with_password = |git_sha: &str| format!("http://x:{TOKEN}@{}/{}", server.address, selector(git_sha));

    let refused = compare(&plain(BASE), &plain(NEW), &[]);
    assert_eq!(status(&refused), 3, "{refused:?}");
    assert!(said(&refused).contains("SPANFLAME_CHECK_TOKEN"), "{refused:?}");
    assert!(refused.stdout.is_empty(), "nothing half-written");
    let wrong = compare(&plain(BASE).replace("http://", "http://x:wrong@"), &plain(NEW), &[]);
    assert_eq!(status(&wrong), 3, "{wrong:?}");

    let by_password = compare(&with_password(BASE), &with_password(NEW), &[]);
    let mut command = spanflame();
    command.args(["check", "compare", "--base", &plain(BASE), "--new", &plain(NEW), "--report", "json=-"]);
    let by_variable = command.env("SPANFLAME_CHECK_TOKEN", TOKEN).output().expect("it runs");
    let mut outputs = vec![by_password, by_variable];
    for output in &outputs {
        assert_eq!(status(output), 1, "{output:?}");
        assert_eq!(names(&blamed(&report(output))), ["parse"]);
    }
    // Failures of every sort, all with the token.
    for query in ["?git_sha=unknown", "?nonsense=1", "?service=a b"] {
        let side = format!("http://x:{TOKEN}@{}/{query}", server.address);
        outputs.push(compare(&side, &side, &[]));
    }
    outputs.push(compare(&format!("http://x:{TOKEN}@127.0.0.1:1/"), &plain(NEW), &[]));
    outputs.push(compare(&format!("http://{TOKEN}@{}/", server.address), &plain(NEW), &[]));
    for output in &outputs {
        let all = format!("{}{}", said(output), String::from_utf8_lossy(&output.stdout));
        assert!(!all.contains(TOKEN) && !all.contains("eDph"), "{all}");
    }
}

#[test]
fn what_a_server_cannot_answer_is_told_with_what_to_do() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    send(&server, None, BASE, 10, 3_000, 600);
    send(&server, None, NEW, 4, 3_000, 300);
    let base = format!("{}/?type=samples&git_sha={BASE}", server.url);
    let at = |query: &str| format!("{}/?{query}", server.url);
    let nobody = format!("http://127.0.0.1:{}/?service=x", free_port());
    for (side, expected, hint) in [
        (at(&format!("type=samples&git_sha={NEW}")), 3, "at least 5"),
        (at("service=nobody&from=-1h&type=samples"), 3, "nobody"),
        (at("service=bench&type=samples&from=-3d&to=-2d"), 3, "there are windows from"),
        (at("service=bench&from=-1h&type=memory"), 3, "memory"),
        (at("service=bench&from=yesterday"), 2, "from"),
        (at("servce=bench"), 2, "servce"),
        (at("service=a b"), 2, "%20"),
        (format!("{}/api/v1/profiles/top?service=bench", server.url), 2, "/?service="),
        (nobody, 3, "connection refused"),
        ("http://".to_owned(), 2, "HOST"),
    ] {
        let output = compare(&base, &side, &[]);
        assert_eq!(status(&output), expected, "{side}: {output:?}");
        let text = said(&output);
        assert!(text.contains(hint) && text.contains("--new"), "{side}: {text}");
        assert!(output.stdout.is_empty(), "{side}: nothing half-written");
    }
    // A value that there is not.
    let output = compare(&base, &base, &["--value", "heap"]);
    assert_eq!(status(&output), 3, "{output:?}");
    assert!(said(&output).contains("choose one by --value"), "{output:?}");
}

/// Answers every request with this, on a port of its own.
fn answering(head: &'static str, body: impl Fn(&mut dyn std::io::Write) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(head.as_bytes());
            body(&mut stream);
        }
    });
    port
}

#[test]
fn what_is_no_server_of_ours_cannot_make_it_wait_or_fill_the_memory() {
    let ok = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
    let endless = answering(ok, |stream| {
        // More than anybody would read.
        let piece = vec![b' '; 1 << 20];
        for _ in 0..1024 {
            if stream.write_all(&piece).is_err() {
                return;
            }
        }
    });
    let page = answering(ok, |stream| drop(stream.write_all(b"<html>\x1b[31mhello</html>")));
    let odd = answering(ok, |stream| {
        drop(stream.write_all(br#"{"windows":[{"from":"\u001b[31msoon","to":"later","value":1}]}"#));
    });
    let moved = answering("HTTP/1.1 302 Found\r\nLocation: /x\r\nConnection: close\r\n\r\n", |_| {});
    let gone = answering("HTT", |_| {});
    for (port, hint) in [
        (endless, "larger than 32 MiB"),
        (page, "is it one"),
        (odd, "for a time"),
        (moved, "302"),
        (gone, "cannot be asked"),
    ] {
        let side = format!("http://127.0.0.1:{port}/?service=a");
        let output = compare(&side, &side, &[]);
        assert_eq!(status(&output), 3, "{hint}: {output:?}");
        assert!(said(&output).contains(hint), "{hint}: {output:?}");
        assert!(!said(&output).contains('\x1b'), "nothing of it gets at the terminal: {output:?}");
    }
}

#[test]
fn a_server_behind_tls_is_asked_by_https_and_has_to_be_who_it_says() {
    if !is_installed("python3") || !is_installed("openssl") {
        return skip("python3 and openssl are needed for a server with TLS");
    }
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    send(&server, None, BASE, 6, 3_000, 600);
    let folder = tempfile::tempdir().expect("a folder");
    let (key, certificate) = (folder.path().join("key.pem"), folder.path().join("certificate.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    openssl.args([
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-addext",
        "subjectAltName=DNS:localhost",
    ]);
    openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate).stderr(Stdio::null());
    assert!(openssl.status().expect("openssl is there").success());
    let port = free_port();
    // TLS ends here, as at a proxy. Its certificate names localhost.
    let script = "\
import http.server, ssl, sys, urllib.request
class Proxy(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        with urllib.request.urlopen(sys.argv[1] + self.path.removeprefix('/prefix')) as answer:
            body = answer.read()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[2])), Proxy)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[3], sys.argv[4])
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
";
    let mut command = Command::new("python3");
    command.args(["-c", script, &server.url, &port.to_string()]);
    let _proxy = Program::start(command.arg(&certificate).arg(&key));
    await_port(port);
    let side = format!("https://localhost:{port}/prefix/?type=samples&git_sha={BASE}");
    let asked = |trusted: Option<&Path>| {
        let mut command = spanflame();
        command.args(["check", "compare", "--base", &side, "--new", &side, "--report", "json=-"]);
        if let Some(certificate) = trusted {
            command.env("SSL_CERT_FILE", certificate);
        }
        command.output().expect("it runs")
    };
    let output = asked(Some(&certificate));
    assert!(matches!(status(&output), 0 | 3), "{output:?}");
    let found = report(&output);
    assert_eq!((&found["base"]["runs"], names(&blamed(&found)).len()), (&6.into(), 0), "{found:#}");
    let output = asked(None);
    assert_eq!(status(&output), 3, "{output:?}");
    assert!(said(&output).contains("cannot be asked"), "{output:?}");
}

/// Has the knob run under a server as a revision until it has made so many windows, and returns the range.
fn watched(server: &Server, percent: &str, git_sha: &str) -> String {
    let mut command = fixture_command(&["knob", "2000000000", percent]);
    command.env("OTEL_SERVICE_NAME", "shop");
    command.env("OTEL_RESOURCE_ATTRIBUTES", format!("vcs.ref.head.revision={git_sha}"));
    let program = Program::start(&mut command);
    let from = now_s();
    // A window ends when it is flushed: time has to pass in which there are samples.
    for _ in 0..12 {
        std::thread::sleep(Duration::from_millis(1_000));
        server.flush();
    }
    drop(program);
    server.flush();
    // Whole seconds apart, so that no window is in two ranges.
    std::thread::sleep(Duration::from_secs(2));
    server.flush();
    format!("from={from}&to={}", now_s())
}

#[test]
fn the_function_that_got_slower_between_two_ranges_is_named_with_its_line() {
    needs!("cc");
    let _quiet = quiet_cores();
    let server = Server::start_with("agent: {profiling: {sample_rate: 499}}\n", &[]);
    let ranges =
        [("0", BASE), ("400", NEW), ("0", SAME)].map(|(percent, git_sha)| watched(&server, percent, git_sha));
    let of_range = |range: &str| format!("{}/?service=shop&{range}", server.url);
    let of_revision = |git_sha: &str| format!("{}/?service=shop&git_sha={git_sha}", server.url);
    let wide = ["--min-effect", "50%", "--margin", "50%"];
    for (base, new, same) in [
        (of_range(&ranges[0]), of_range(&ranges[1]), of_range(&ranges[2])),
        (of_revision(BASE), of_revision(&NEW[..7]), of_revision(SAME)),
    ] {
        let output = compare(&base, &new, &[]);
        assert_eq!(status(&output), 1, "{output:?}");
        let found = report(&output);
        let lines = blamed(&found);
        assert_eq!(names(&lines), ["price_items"], "{found:#}");
        let line = lines[0];
        assert!(line["file"].as_str().is_some_and(|file| file.ends_with("fixtures/c/knob.c")), "{line}");
        let source = include_str!("../fixtures/c/knob.c");
        let place =
            source.lines().position(|line| line.starts_with("FUNCTION(price_items")).expect("it is there");
        assert_eq!(line["line"].as_u64(), Some(place as u64 + 1), "{line}");

        let output = compare(&base, &same, &wide);
        assert!(matches!(status(&output), 0 | 3), "{output:?}");
        assert_eq!(names(&blamed(&report(&output))), Vec::<String>::new(), "{output:?}");
    }
    // What a program says of its revision is a label of its samples, and it is alive though asked for by another name.
    let known =
        server.get(&format!("/api/v1/profiles/flamegraph?format=json&group_by=&git_sha={NEW}")).expect(200);
    assert!(known.json()["total"].as_i64().is_some_and(|total| total > 0), "{}", known.text());
    server.get("/api/v1/profiles/top?git_sha=4444444").expect(404);
}
