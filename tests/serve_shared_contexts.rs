//! The map `otel/traces_ctx_v1`, by which tracers tell profilers in which span each thread is: published for others,
//! read where others publish it, shared, refused and taken over.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::http_threads::ask;
use support::program::{Program, fixture_command};
use support::server::Server;
use support::{await_event, quiet_cores};
use tempfile::TempDir;

/// Trace and span id by thread.
type Entries = BTreeMap<u32, (String, String)>;

/// A BPF file system of a test's own.
struct BpfFileSystem {
    folder: TempDir,
}

impl BpfFileSystem {
    fn mount() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        runs(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(folder.path()));
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn map(&self) -> PathBuf {
        self.path().join("otel/traces_ctx_v1")
    }

    /// A `serve` that meets others here.
    fn serve(&self, publish: bool) -> Server {
        let path = self.path().display();
        let network = format!("{{publish_context: {publish}}}");
        Server::start_with(
            &format!("agent: {{ebpf: {{bpf_file_system: {path}, network: {network}}}}}\n"),
            &[],
        )
    }

    /// What a profiler finds: trace and span id by thread, of one process.
    fn entries_of(&self, pid: u32) -> Entries {
        let output = Command::new("bpftool")
            .args(["--json", "map", "dump", "pinned"])
            .arg(self.map())
            .output()
            .expect("bpftool runs");
        let entries: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let mut found = BTreeMap::new();
        for entry in entries.as_array().into_iter().flatten() {
            // One that went while bpftool looked has a message in place of its value.
            if !entry["value"].is_array() {
                continue;
            }
            let (key, value) = (bytes(&entry["key"]), bytes(&entry["value"]));
            let word = |at: usize| u32::from_ne_bytes(key[at..at + 4].try_into().expect("eight bytes"));
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            if word(4) == pid {
                found.insert(word(0), (hex(&value[..16]), hex(&value[16..])));
            }
        }
        found
    }
}

impl Drop for BpfFileSystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn runs(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}

fn bytes(of: &Value) -> Vec<u8> {
    let byte = |text: &Value| {
        u8::from_str_radix(text.as_str().unwrap_or_default().trim_start_matches("0x"), 16).expect("a byte")
    };
    of.as_array().expect("bytes").iter().map(byte).collect()
}

/// Python's server of threads: it computes for as many milliseconds as the path says. `/stream/…` has written the
/// head of its answer before.
const THREAD_SERVER: &str = "
import os, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def work(self):
        end = time.monotonic() + int(self.path.rsplit('/', 1)[1]) / 1000
        while time.monotonic() < end:
            sum(range(1000))

    def do_GET(self):
        streams = self.path.startswith('/stream/')
        if not streams:
            self.work()
        self.send_response(200)
        self.send_header('Content-Length', '3')
        self.end_headers()
        self.wfile.flush()
        if streams:
            self.work()
        self.wfile.write(b'ok\\n')

    def log_message(self, *arguments):
        pass

server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print('ready', os.getpid(), time.monotonic_ns())
print('listening', server.server_address[1], flush=True)
server.serve_forever()
";

struct PythonService {
    program: Program,
    port: u16,
}

impl PythonService {
    fn start(name: &str) -> Self {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", THREAD_SERVER]).env("OTEL_SERVICE_NAME", name);
        let mut program = Program::start_ready(&mut command);
        let line = program.line().expect("it says where it listens");
        let port = line.strip_prefix("listening ").and_then(|port| port.parse().ok()).expect("a port");
        Self { program, port }
    }

    fn connect(&self) -> std::net::TcpStream {
        let stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
        stream
    }

    /// Waits until its requests are followed: on a busy machine that begins late.
    fn is_followed(&self, server: &Server, name: &str) {
        await_event("its first request", Duration::from_secs(60), || {
            ask(&mut self.connect(), "/work/1", "");
            (!span_of(server, name, "/work/{id}").1.is_empty()).then_some(())
        });
    }

    /// Asks on a connection that stays, and looks what a profiler finds meanwhile: each state once.
    fn watch(&self, files: &BpfFileSystem, path: &str, headers: &str) -> Vec<Entries> {
        let mut stream = self.connect();
        let mut states: Vec<Entries> = Vec::new();
        std::thread::scope(|scope| {
            let asks = scope.spawn(|| ask(&mut stream, path, headers));
            let mut is_over = false;
            while !is_over {
                is_over = asks.is_finished();
                let state = files.entries_of(self.program.pid);
                if states.last() != Some(&state) {
                    states.push(state);
                }
            }
        });
        states
    }
}

/// The ids of the newest request to a path.
fn span_of(server: &Server, service: &str, route: &str) -> (String, String) {
    server.flush();
    let answer = server.get(&format!("/api/v1/traces?service={service}&route={route}")).expect(200).json();
    let listed = &answer["traces"][0];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&listed["trace_id"]), text(&listed["span"]["span_id"]))
}

#[test]
fn a_profiler_finds_the_thread_of_a_slow_request_with_its_span_and_none_when_it_is_idle() {
    needs!("bpftool", "python3");
    let _quiet = quiet_cores();
    let files = BpfFileSystem::mount();
    let server = files.serve(true);
    let service = PythonService::start("publishing");
    service.is_followed(&server, "publishing");

    // Whose trace it is, is known once it was understood.
    let states = service.watch(&files, "/work/3000", "");
    let found: Vec<_> = states.iter().filter(|state| !state.is_empty()).collect();
    let [state] = found.as_slice() else { panic!("{states:?}: {}", server.log()) };
    let ids: Vec<_> = state.values().cloned().collect();
    assert_eq!(ids, [span_of(&server, "publishing", "/work/{id}")], "{states:?}");
    assert!(
        !state.contains_key(&service.program.pid),
        "a thread of its own, not the one that accepts: {state:?}"
    );
    assert!(service_is_silent(&files, &service));

    // One that comes with a context is known from its first byte on.
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let states = service.watch(&files, "/work/1000", &format!("traceparent: {parent}\r\n"));
    let found: Vec<_> = states.iter().filter(|state| !state.is_empty()).collect();
    let [state] = found.as_slice() else { panic!("{states:?}") };
    let ids: Vec<_> = state.values().cloned().collect();
    assert_eq!(ids, [span_of(&server, "publishing", "/work/{id}")], "{states:?}");
    assert_eq!(ids[0].0, "0af7651916cd43dd8448eb211c80319c");

    // What is done behind the beginning of the answer is told to nobody.
    let states = service.watch(&files, "/stream/1000", "");
    assert!(states.iter().all(BTreeMap::is_empty), "{states:?}");

    // A thread that ends takes its entry along.
    let mut stream = service.connect();
    std::io::Write::write_all(&mut stream, b"GET /work/20000 HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
    await_event("an entry", Duration::from_secs(60), || {
        (files.entries_of(service.program.pid).len() == 1).then_some(())
    });
    let pid = service.program.pid;
    drop(service);
    assert_eq!(files.entries_of(pid), BTreeMap::new());
}

fn service_is_silent(files: &BpfFileSystem, service: &PythonService) -> bool {
    files.entries_of(service.program.pid).is_empty()
}

#[test]
fn the_map_is_unpinned_at_the_end_and_what_a_killed_agent_has_left_is_taken_over() {
    needs!("bpftool", "python3");
    let files = BpfFileSystem::mount();
    let killed = files.serve(true);
    let service = PythonService::start("left");
    let mut stream = service.connect();
    std::io::Write::write_all(&mut stream, b"GET /work/60000 HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
    let entry = || (!files.entries_of(service.program.pid).is_empty()).then_some(());
    await_event("an entry", Duration::from_secs(60), entry);
    killed.kill();
    assert!(entry().is_some(), "nobody has taken it out");

    // A thread that was at a request before anybody looked is at none: the old entry is wrong now.
    let server = files.serve(true);
    assert_eq!(files.entries_of(service.program.pid), BTreeMap::new());
    drop(service);
    server.stop();
    assert!(!files.map().exists(), "the pin of the first one was taken over");
    assert!(files.path().join("otel").exists());
}

#[test]
fn a_map_of_another_layout_is_left_alone_and_requests_are_followed_without() {
    needs!("bpftool", "python3");
    let files = BpfFileSystem::mount();
    std::fs::create_dir(files.path().join("otel")).expect("made");
    let line = ["type", "hash", "key", "4", "value", "8", "entries", "8", "name", "other"];
    runs(Command::new("bpftool").args(["map", "create"]).arg(files.map()).args(line));
    let server = files.serve(true);
    let log = server.await_log("the reason", |line| line.contains("is a map of another layout"));
    assert!(log.contains("keys of 4 bytes"), "{log}");
    let service = PythonService::start("refused");
    ask(&mut service.connect(), "/work/1", "");
    assert_ne!(span_of(&server, "refused", "/work/{id}").1, "");
    server.stop();
    assert!(files.map().exists(), "it is somebody else's");
}

#[test]
fn the_map_of_a_tracer_is_shared_and_read_and_stays() {
    needs!("bpftool", "python3");
    let files = BpfFileSystem::mount();
    let path = files.map().display().to_string();
    let mut program = Some(Program::start_ready(&mut fixture_command(&["traces_ctx", "600", &path])));
    let server = files.serve(true);
    let trace = "02".repeat(16);
    let query =
        format!("/api/v1/profiles/flamegraph?format=folded&trace_id={trace}&span_id={}", "03".repeat(8));
    let folded = await_event("samples of a span", Duration::from_secs(120), || {
        server.post("/admin/flush", "");
        let answer = server.get(&query);
        (answer.status == 200 && !answer.body.is_empty()).then(|| answer.text())
    });
    assert!(folded.contains("span_3"), "{folded}");
    for other in ["span_1", "span_2", "no_span"] {
        assert!(!folded.contains(other), "{folded}");
    }
    let count = |name: &str| {
        let metrics = server.get("/metrics").expect(200).text();
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        line.unwrap_or_else(|| panic!("no {name} in {metrics}"))
    };
    await_event("a count", Duration::from_secs(5), || {
        (count("spanflame_samples_named_by_other_tracer_total") > 0).then_some(())
    });

    let service = PythonService::start("sharing");
    service.is_followed(&server, "sharing");
    let states = service.watch(&files, "/work/3000", "");
    let ids: Vec<_> = states.iter().flat_map(|state| state.values().cloned()).collect();
    assert_eq!(ids, [span_of(&server, "sharing", "/work/{id}")], "{states:?}");
    server.stop();
    assert!(files.map().exists(), "it is the tracer's");

    // A map that no program writes any more has no writer, whoever reads it: what stands there holds no more.
    drop(program.take());
    let _reader = Program::start_ready(&mut fixture_command(&["traces_ctx", "600", &path, "read"]));
    let server = files.serve(false);
    std::thread::sleep(Duration::from_secs(1));
    assert!(!server.log().contains("samples that nobody else names take their span"), "{}", server.log());
}
