//! A `spanflame serve` of its own for a test, on a free port with a data folder of its own; and the small
//! HTTP client that asks it: one connection a request, everything visible, nothing added but `Host`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

/// For tests that need no profiles, and so no privileges.
pub const WITHOUT_EBPF: &str = "agent: {ebpf: {enabled: false}}\n";

/// How long an answer may take, unless the request says otherwise.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// A running server; ended and reaped when the test is done with it.
pub struct Server {
    /// `http://127.0.0.1:PORT`, without a final slash.
    pub url: String,
    pub address: SocketAddr,
    pub pid: u32,
    /// Has `spanflame.yaml` and `data/`.
    pub directory: TempDir,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts one with these flags and no configuration file, and waits for its URL.
    pub fn start(flags: &[&str]) -> Self {
        Self::start_with("", flags)
    }

    /// The same with the text of a configuration file; see [`WITHOUT_EBPF`].
    pub fn start_with(configuration: &str, flags: &[&str]) -> Self {
        Self::start_as(configuration, flags, &[])
    }

    /// The same with variables of the environment.
    pub fn start_as(configuration: &str, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        Self::start_in(directory, &data, configuration, flags, environment)
    }

    /// The same with a data folder that outlives it.
    pub fn start_on(data: &Path, configuration: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self::start_in(directory, data, configuration, &[], &[])
    }

    fn start_in(
        directory: TempDir,
        data: &Path,
        configuration: &str,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut command = serve(directory.path(), data, configuration);
        // Tests look for each request, however fast they ask; what a limit does is for its own test to see.
        if !configuration.contains("max_spans_per_second") {
            command.env("SPANFLAME_AGENT_EBPF_NETWORK_MAX_SPANS_PER_SECOND", "0");
        }
        command.args(flags).envs(environment.iter().copied());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let log = Arc::new(Mutex::new(String::new()));
        let (kept, errors) = (Arc::clone(&log), child.stderr.take().expect("it is piped"));
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                let mut log = kept.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("its standard output can be read");
        let url = line.trim().trim_end_matches('/').to_owned();
        let Some(address) = url.strip_prefix("http://").and_then(|address| address.parse().ok()) else {
            let _ = child.kill();
            let status = child.wait();
            std::thread::sleep(Duration::from_millis(100));
            panic!("no URL but {line:?}, {status:?}: {}", log.lock().unwrap_or_else(PoisonError::into_inner));
        };
        // What it may print later must not stop it.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        Self { url, address, pid: child.id(), directory, child, log }
    }

    /// The configuration file.
    pub fn configuration_path(&self) -> PathBuf {
        self.directory.path().join("spanflame.yaml")
    }

    /// Replaces the configuration file; it takes a reload to have an effect.
    pub fn write_configuration(&self, text: &str) {
        std::fs::write(self.configuration_path(), text).expect("it is ours");
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until a line of its log is as wanted, and returns it.
    pub fn await_log(&self, what: &str, is_wanted: impl Fn(&str) -> bool) -> String {
        super::await_event(&format!("{what} in the log"), Duration::from_secs(20), || {
            self.log().lines().find(|line| is_wanted(line)).map(ToOwned::to_owned)
        })
    }

    pub fn get(&self, path: &str) -> Response {
        self.ask(&Request::get(path))
    }

    /// Waits until everything up to now can be asked for. A busy machine may not do so at once.
    pub fn flush(&self) {
        super::await_event("everything is kept", Duration::from_secs(30), || {
            (self.post("/admin/flush", "").status == 200).then_some(())
        });
    }

    pub fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> Response {
        self.ask(&Request::post(path, body))
    }

    /// Sends a request and reads the whole answer.
    pub fn ask(&self, request: &Request) -> Response {
        request.send(self.address).unwrap_or_else(|error| {
            panic!("{} {}: {error}; the log: {}", request.method, request.path, self.log())
        })
    }

    /// Asks it to end (SIGTERM) and waits for it.
    pub fn stop(mut self) -> ExitStatus {
        super::send_signal(self.pid, libc::SIGTERM);
        super::await_event("the server ends", Duration::from_secs(30), || {
            self.child.try_wait().expect("it is ours")
        })
    }

    /// Ends it as a power cut would (SIGKILL).
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is ours").is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `spanflame serve` on a port of the kernel's choice, with nothing of this process's environment.
/// A `--listen` among later flags would be a second one, so tests of addresses set it in the file.
fn serve(directory: &Path, data: &Path, configuration: &str) -> Command {
    let file = directory.join("spanflame.yaml");
    std::fs::write(&file, configuration).expect("it is ours");
    let mut command = super::spanflame();
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SPANFLAME_") {
            command.env_remove(name);
        }
    }
    command.arg("serve").arg("--config").arg(&file);
    command.arg("--data-dir").arg(data);
    if !configuration.contains("listen:") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs `spanflame serve` with a configuration that it is to refuse: exit code and standard error.
pub fn refused(configuration: &str, flags: &[&str]) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("data");
    let mut command = serve(directory.path(), &data, configuration);
    let mut child = command.args(flags).spawn().expect("the binary runs");
    let mut errors = child.stderr.take().expect("it is piped");
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        super::await_event("the server refuses", Duration::from_secs(20), || {
            child.try_wait().expect("it is ours")
        })
    }));
    let _ = child.kill();
    let status = ended.expect("it does not go on");
    let mut text = String::new();
    errors.read_to_string(&mut text).expect("text");
    (status.code(), text)
}

/// A request, as it goes over the wire.
#[derive(Clone)]
pub struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    limit: Duration,
}

impl Request {
    pub fn new(method: &str, path: &str) -> Self {
        let (method, path) = (method.to_owned(), path.to_owned());
        Self { method, path, headers: Vec::new(), body: Vec::new(), limit: ANSWER_LIMIT }
    }

    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    pub fn post(path: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::new("POST", path) }
    }

    /// Adds a header; one called `Host` replaces ours.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a bearer token.
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// How long the answer may take.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sends it on a connection of its own and reads the answer to its end.
    pub fn send(&self, address: SocketAddr) -> std::io::Result<Response> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(self.limit))?;
        let mut head = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", self.method, self.path);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {address}\r\n"));
        }
        if !self.body.is_empty() || self.method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        // A server that refuses a large body answers before it has read it.
        let sent = stream.write_all(&self.body);
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        Response::parse(&answer).ok_or_else(|| {
            sent.and(read.map(drop))
                .err()
                .unwrap_or_else(|| std::io::Error::other(format!("no answer but {} bytes", answer.len())))
        })
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// Without the framing of chunks; still compressed if it was asked for so.
    pub body: Vec<u8>,
}

impl Response {
    /// `None` unless it is a whole answer.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut response = Self { status, headers, body: bytes[end + 4..].to_vec() };
        if response.header("transfer-encoding") == Some("chunked") {
            response.body = unchunk(&response.body)?;
        } else if let Some(length) = response.header("content-length") {
            let length: usize = length.parse().ok()?;
            // The answer to HEAD has a length and no body.
            if !response.body.is_empty() && response.body.len() != length {
                return None;
            }
        }
        Some(response)
    }

    /// The first header of this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }

    /// All headers of this name, in lower case.
    pub fn all_headers(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(of, _)| of == name).map(|(_, value)| value.as_str()).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body, which must be JSON and say so.
    pub fn json(&self) -> serde_json::Value {
        let kind = self.header("content-type").unwrap_or("none");
        assert!(kind.starts_with("application/json"), "{kind}: {}", self.text());
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Itself, if it has this status.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(bytes.get(..end)?).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        let chunk = bytes.get(end + 2..)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(chunk.get(..size)?);
        bytes = chunk.get(size + 2..)?;
    }
}
