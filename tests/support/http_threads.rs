//! Web servers of threads that know the truth about their requests: `fixtures/c/http_threads.c`, and those of Rust and
//! Python that burn CPU time likewise (`classes`).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use super::program::{Program, fixture_command};

/// The fixture `http_threads` under a service's name, and the port it listens on.
pub struct Service {
    pub program: Program,
    pub port: u16,
}

impl Service {
    /// It calls the one that listens on `other`, if there is one.
    pub fn start(name: &str, other: Option<u16>) -> Self {
        let mut arguments = vec!["http_threads".to_owned(), "300".to_owned()];
        arguments.extend(other.map(|port| port.to_string()));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Self::start_as(name, fixture_command(&arguments))
    }

    /// Any such program, by its command line.
    pub fn start_as(name: &str, mut command: Command) -> Self {
        command.env("OTEL_SERVICE_NAME", name);
        let mut program = Program::start_ready(&mut command);
        let line = program.line().expect("it says where it listens");
        let port = line.strip_prefix("listening ").and_then(|port| port.parse().ok()).expect("a port");
        Self { program, port }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
        stream.set_nodelay(true).expect("an option");
        stream
    }
}

/// Sends a request and reads its answer, whose body has three bytes.
pub fn ask(stream: &mut TcpStream, path: &str, headers: &str) {
    // In one piece, as clients do.
    let request = format!("GET {path} HTTP/1.1\r\nHost: shop\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while !answer.windows(7).any(|window| window == b"\r\n\r\nok\n") {
        let read = match stream.read(&mut buffer) {
            // With a limit on how long it waits, the kernel does not go on by itself.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            read => read.expect("an answer"),
        };
        assert!(read > 0, "it ends after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..read]);
    }
}
