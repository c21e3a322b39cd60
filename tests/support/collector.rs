//! The OpenTelemetry Collector, built from Go modules on first use; and a receiver of our own that keeps
//! what it is sent.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use super::program::Program;
use super::servers::{await_port, free_port};

/// The Collector's binary, or why there is none.
pub fn binary() -> Result<PathBuf, String> {
    if !super::is_installed("go") {
        return Err("go is not installed, and the Collector is made of Go modules".to_owned());
    }
    let _lock = super::locked("collector.lock");
    let out = super::target_directory().join("collector");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/collector/build");
    let output = Command::new(script).arg(&out).output().expect("a shell");
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the Collector cannot be built: {}", errors.lines().last().unwrap_or("")));
    }
    Ok(out.join("otelcol"))
}

/// Returns from the calling test, saying so, unless there is a Collector.
#[macro_export]
macro_rules! needs_collector {
    () => {
        match $crate::support::collector::binary() {
            Ok(binary) => binary,
            Err(reason) => return $crate::support::skip(&reason),
        }
    };
}

/// A running Collector, ended when the test is done with it.
pub struct Collector {
    pub grpc: u16,
    pub http: u16,
    directory: TempDir,
    _program: Program,
}

impl Collector {
    /// Takes in `signal` (`profiles`, `traces`), prints what it gets and sends it on to `next`, a URL, if
    /// that is given. Profiles are behind a feature gate, which is opened.
    pub fn start(binary: &std::path::Path, signal: &str, next: Option<&str>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (grpc, http) = (free_port(), free_port());
        let (exporters, sends_on) = match next {
            None => ("[debug]", String::new()),
            Some(url) => (
                "[debug, otlphttp]",
                format!("  otlphttp: {{endpoint: '{url}', retry_on_failure: {{initial_interval: 200ms}}}}\n"),
            ),
        };
        let configuration = format!(
            "receivers:\n  otlp:\n    protocols:\n      grpc: {{endpoint: '127.0.0.1:{grpc}'}}\n      \
             http: {{endpoint: '127.0.0.1:{http}'}}\n\
             exporters:\n  debug: {{verbosity: detailed}}\n{sends_on}\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n    \
             {signal}: {{receivers: [otlp], exporters: {exporters}}}\n"
        );
        let path = directory.path().join("collector.yaml");
        std::fs::write(&path, configuration).expect("it is ours");
        let log = File::create(directory.path().join("log")).expect("it is ours");
        let mut command = Command::new(binary);
        command.arg("--config").arg(&path).arg("--feature-gates=service.profilesSupport").stderr(log);
        let program = Program::start(&mut command);
        await_port(grpc);
        await_port(http);
        Self { grpc, http, directory, _program: program }
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.directory.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until it has printed a text.
    pub fn await_text(&self, text: &str) {
        super::await_event(
            &format!("{text:?} in what the Collector prints"),
            Duration::from_secs(20),
            || self.log().contains(text).then_some(()),
        );
    }
}

/// A request that a [`Receiver`] got.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Decompressed.
    pub body: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }
}

/// Listens for OTLP by HTTP, keeps every request and answers with a status.
pub struct Receiver {
    pub port: u16,
    received: Arc<Mutex<Vec<Received>>>,
    status: Arc<Mutex<u16>>,
}

impl Receiver {
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (received, status) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(200)));
        let (kept, answered) = (Arc::clone(&received), Arc::clone(&status));
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, answered) = (Arc::clone(&kept), Arc::clone(&answered));
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    while let Some(request) = read_request(&mut reader) {
                        kept.lock().expect("no panic").push(request);
                        let status = *answered.lock().expect("no panic");
                        if !answer(reader.get_mut(), status) {
                            return;
                        }
                    }
                });
            }
        });
        Self { port, received, status }
    }

    /// From now on.
    pub fn answer_with(&self, status: u16) {
        *self.status.lock().expect("no panic") = status;
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no panic").clone()
    }
}

fn answer(stream: &mut TcpStream, status: u16) -> bool {
    let head =
        format!("HTTP/1.1 {status} X\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).is_ok()
}

/// `None` at the end of the connection.
fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&length| length > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Received { path, headers, body: Vec::new() };
    let length: usize = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    request.body = vec![0; length];
    reader.read_exact(&mut request.body).ok()?;
    if request.header("content-encoding") == Some("gzip") {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(request.body.as_slice()).read_to_end(&mut plain).expect("gzip");
        request.body = plain;
    }
    Some(request)
}
