//! Event loops: within one turn they do things for many, so that what they ask of others has no parent rather
//! than a wrong one, and what they run is in no span. nginx, which handles each event to its end, has parents, and
//! so has Node, as far as a callback goes that has read a request.

mod support;

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use support::collector::Receiver;
use support::exported::{CLIENT, Exported, SERVER, exporting_spans_to, spans};
use support::http_threads::ask;
use support::program::{Program, children_of};
use support::quiet_cores;
use support::server::Server;
use support::servers::{await_port, free_port};

const KINDS: [&str; 5] = ["sync", "timer", "immediate", "promise", "pool"];
const CLIENTS: usize = 16;

/// A program of `tests/event_loops` under a service's name, and its port.
fn start(interpreter: &str, file: &str, service: &str, other: Option<u16>) -> (Program, u16) {
    let mut command = Command::new(interpreter);
    command.arg(format!("{}/tests/event_loops/{file}", env!("CARGO_MANIFEST_DIR")));
    command.args(other.map(|port| port.to_string())).env("OTEL_SERVICE_NAME", service);
    // Its functions have names then.
    command.env("NODE_OPTIONS", "--perf-basic-prof").current_dir(std::env::temp_dir());
    let mut program = Program::start_ready(&mut command);
    let line = program.line().expect("it says where it listens");
    let port = line.strip_prefix("listening ").and_then(|port| port.trim().parse().ok()).expect("a port");
    (program, port)
}

/// Asks for each kind, from several connections at once, each id once.
fn drive(port: u16, turns: usize) {
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
                stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
                stream.set_nodelay(true).expect("an option");
                for turn in 0..turns {
                    let kind = KINDS[(client + turn) % KINDS.len()];
                    ask(&mut stream, &format!("/{kind}/{}", client * turns + turn), "");
                }
            });
        }
    });
}

fn id_in(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Of the calls of a service: how many have the right parent, a wrong one, and none, by why.
#[derive(Debug, Default)]
struct Parents {
    right: usize,
    wrong: usize,
    absent: BTreeMap<String, usize>,
}

fn parents_of(pids: &[u32], all: &[Exported], from: usize) -> Parents {
    let is_theirs = |span: &&Exported| pids.iter().any(|pid| span.text("process.pid") == pid.to_string());
    let by_id: BTreeMap<&[u8], &Exported> = all.iter().map(|span| (span.id.as_slice(), span)).collect();
    let mut parents = Parents::default();
    for call in all[from..].iter().filter(|span| span.kind == CLIENT).filter(is_theirs) {
        match by_id.get(call.parent.as_slice()) {
            Some(request) if id_in(request.path()) == id_in(call.path()) => parents.right += 1,
            Some(_) => parents.wrong += 1,
            None => {
                *parents.absent.entry(call.text("spanflame.parent.absent_reason").to_owned()).or_default() +=
                    1;
            }
        }
    }
    parents
}

fn turns() -> usize {
    support::seconds(40, 700) as usize
}

#[test]
fn what_an_event_loop_asks_of_others_has_no_wrong_parent_and_its_samples_no_wrong_span() {
    needs!("node", "python3");
    let _quiet = quiet_cores();
    for (interpreter, file) in [("node", "server.js"), ("python3", "server.py")] {
        let receiver = Receiver::start();
        let server = Server::start_with(&exporting_spans_to(&receiver), &[]);
        let (_down, down_port) = start(interpreter, file, "down", None);
        let (program, port) = start(interpreter, file, "loop", Some(down_port));
        // The first requests tell which program it is.
        drive(port, 1);
        std::thread::sleep(Duration::from_millis(500));
        let before = spans(&server, &receiver).len();
        drive(port, turns());
        let asked = CLIENTS * turns();
        let all = spans(&server, &receiver);
        let of_loop = all[before..]
            .iter()
            .filter(|span| span.kind == SERVER && span.text("service.name") == "loop")
            .count();
        let parents = parents_of(&[program.pid], &all, before);
        let calls = parents.right + parents.wrong + parents.absent.values().sum::<usize>();
        println!("{interpreter}: {of_loop} of {asked} requests, {calls} calls, {parents:?}");
        assert_eq!(of_loop, asked);
        assert!(calls >= asked);
        assert!(parents.wrong <= calls / 1000, "{parents:?}");
        let named = parents.absent.iter().filter(|(reason, _)| !reason.is_empty());
        assert_eq!(named.map(|(_, count)| count).sum::<usize>(), calls - parents.right - parents.wrong);

        let profile =
            server.get("/api/v1/profiles/flamegraph?service=loop&format=pprof&from=-2m").expect(200);
        let path = server.directory.path().join("loop.pb.gz");
        std::fs::write(&path, &profile.body).expect("it can be written");
        let profile = support::pprof_text::Profile::read(&path);
        let count = |is_stamped: bool, function: &str| -> i64 {
            let samples =
                profile.samples.iter().filter(|one| one.labels.contains_key("span_id") == is_stamped);
            let runs = |sample: &&support::pprof_text::Sample| {
                let frames = sample.locations.iter().filter_map(|id| profile.locations.get(id));
                function.is_empty()
                    || frames.flat_map(|frame| &frame.functions).any(|name| name.contains(function))
            };
            samples.filter(runs).map(|sample| sample.values[0]).sum()
        };
        println!("{interpreter}: {} samples stamped, {} not", count(true, ""), count(false, ""));
        if interpreter == "node" {
            let burnt = (count(true, "burnForNobody"), count(false, "burnForNobody"));
            // Within a request they would be twenty times as many.
            assert!(
                burnt.0 == 0 && burnt.1 >= 2,
                "stamped and unstamped samples of what is for nobody: {burnt:?}"
            );
            // `sync` and `promise` ask within the callback that has read the request.
            assert!(parents.right >= asked * 2 / 5 * 9 / 10, "{parents:?} of {asked}");
            continue;
        }
        assert!(count(false, "") >= 10, "it burns all the time");
        assert!(count(true, "") <= 5, "{} samples are said to be of a request", count(true, ""));
        let metrics = server.get("/metrics").expect(200).text();
        let counted = "spanflame_losses_total{stage=\"sockets\",reason=\"request_of_event_loop\"} ";
        let counted = metrics.lines().find_map(|line| line.strip_prefix(counted)).expect("it is counted");
        assert!(counted.parse::<f64>().expect("a number") > asked as f64 / 2.0, "{counted}");
    }
}

#[test]
fn what_nginx_asks_of_others_has_the_right_parent() {
    needs!("nginx", "node");
    let _quiet = quiet_cores();
    for keep_alive in [false, true] {
        let receiver = Receiver::start();
        let server = Server::start_with(&exporting_spans_to(&receiver), &[]);
        let (_down, down_port) = start("node", "server.js", "down", None);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (base, port) = (directory.path().display(), free_port());
        let (pool, version) = match keep_alive {
            true => ("keepalive 8;", "proxy_http_version 1.1; proxy_set_header Connection '';"),
            false => ("", ""),
        };
        let configuration = format!(
            "daemon off; user root; worker_processes 2; pid {base}/nginx.pid; error_log {base}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; client_body_temp_path {base}/body; proxy_temp_path {base}/proxy;\n\
             fastcgi_temp_path {base}/fastcgi; uwsgi_temp_path {base}/uwsgi; scgi_temp_path {base}/scgi;\n\
             upstream down {{ server 127.0.0.1:{down_port}; {pool} }}\n\
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://down; {version} }} }} }}\n"
        );
        let path = directory.path().join("nginx.conf");
        std::fs::write(&path, configuration).expect("it is ours");
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&path).arg("-p").arg(directory.path());
        let nginx = Program::start(&mut command);
        await_port(port);
        // The first requests tell which program it is.
        drive(port, 4);
        std::thread::sleep(Duration::from_millis(500));
        let before = spans(&server, &receiver).len();
        drive(port, turns());
        let all = spans(&server, &receiver);
        let parents = parents_of(&children_of(nginx.pid), &all, before);
        println!("nginx, keep-alive {keep_alive}: {parents:?}");
        assert_eq!(parents.wrong, 0, "{parents:?}");
        let calls = CLIENTS * turns();
        assert!(parents.right >= calls * 95 / 100, "{parents:?} of {calls}");
    }
}
