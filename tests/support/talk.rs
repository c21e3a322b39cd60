//! The two ends of connections that last, which do what a test says (`fixtures/go/talk`).

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use super::program::{Program, fixture_command};

/// A request, and the status that answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub method: &'static str,
    /// Says by its first part which status answers it.
    pub path: String,
    /// Of HTTP or of gRPC.
    pub status: u16,
}

impl Asked {
    /// `/STATUS/REST`
    pub fn http(method: &'static str, status: u16, rest: &str) -> Self {
        Self { method, path: format!("/{status}/{rest}"), status }
    }

    /// `/SCODE.SERVICE/METHOD`, where the service and the method are `rest`.
    pub fn grpc(code: u16, rest: &str) -> Self {
        Self { method: "POST", path: format!("/S{code}.{rest}"), status: code }
    }
}

/// `talk serve`.
pub struct Server {
    pub program: Program,
    pub port: u16,
}

impl Server {
    pub fn start(how: &str, service: &str) -> Self {
        let mut command = fixture_command(&["talk", "serve", how]);
        command.env("OTEL_SERVICE_NAME", service);
        let mut program = Program::start_ready(&mut command);
        let line = program.line().expect("it says where it listens");
        let port = line.strip_prefix("listening ").and_then(|port| port.parse().ok()).expect("a port");
        Self { program, port }
    }
}

/// `talk ask`.
pub struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    pub fn start(how: &str, port: u16, service: &str) -> Self {
        let mut command = fixture_command(&["talk", "ask", how, &port.to_string()]);
        command.env("OTEL_SERVICE_NAME", service).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let input = child.stdin.take().expect("it is piped");
        let mut client = Self { child, input, output };
        assert!(client.line().starts_with("ready "));
        client
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it writes text");
        line.trim_end().to_owned()
    }

    /// Asks all of these, so many at a time, and waits for the answers.
    pub fn ask(&mut self, requests: &[Asked], at_a_time: usize) {
        let mut text = format!("{} {at_a_time}\n", requests.len());
        for Asked { method, path, status } in requests {
            text.push_str(&format!("{method} {path} {status}\n"));
        }
        self.input.write_all(text.as_bytes()).expect("it reads");
        assert_eq!(self.line(), "done", "its standard error says why");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
