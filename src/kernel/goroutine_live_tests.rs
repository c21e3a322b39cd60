//! Goroutines as the kernel side finds them, against what Go programs of several versions and link modes
//! print of themselves (`runtime.Stack`). These need the capabilities to load BPF programs and Go toolchains;
//! whatever is missing is named and skipped.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use spanflame_symbols::ObjectFile;
use spanflame_symbols::go::GoProgram;

use super::*;
use crate::model::socket::{ConnectionId, Direction, SocketEvent, SocketEventKind};

/// Serves on a port that it prints; answers with the id of the goroutine that it runs, which has burnt for as
/// long as the path says in milliseconds.
const PROGRAM: &str = r#"package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"time"
)

func main() {
	runtime.GOMAXPROCS(2)
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		milliseconds, _ := strconv.Atoi(r.URL.Path[1:])
		for begin := time.Now(); time.Since(begin) < time.Duration(milliseconds)*time.Millisecond; {
		}
		buffer := make([]byte, 64)
		runtime.Stack(buffer, false)
		w.Write(bytes.Fields(buffer)[1])
	}))
}
"#;

struct Server {
    child: Child,
    folder: PathBuf,
    executable: PathBuf,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Server {
    fn start(toolchain: &str, arguments: &[&str]) -> Option<Self> {
        let name = format!("spanflame-goroutines-{}-{toolchain}-{}", std::process::id(), arguments.len());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("go.mod"), "module served\n\ngo 1.18\n").expect("written");
        fs::write(folder.join("main.go"), PROGRAM).expect("written");
        let executable = folder.join("served");
        let mut build = Command::new("go");
        build.current_dir(&folder).env("GOTOOLCHAIN", toolchain).args(["build", "-o"]).arg(&executable);
        let built = build.args(arguments).arg("main.go").stderr(Stdio::null()).status();
        if !built.is_ok_and(|status| status.success()) {
            eprintln!("skipped: the Go toolchain {toolchain} cannot be had");
            let _ = fs::remove_dir_all(&folder);
            return None;
        }
        let mut child = Command::new(&executable).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("it prints");
        let port = line.trim().parse().expect("a port");
        Some(Self { child, folder, executable, port })
    }
}

/// Asks once, on a connection of its own or the one given; the answer's body is a goroutine id.
fn ask(stream: &mut TcpStream, milliseconds: u32) -> u64 {
    write!(stream, "GET /{milliseconds} HTTP/1.1\r\nHost: a\r\n\r\n").expect("written");
    let mut answer = [0; 1024];
    let bytes = stream.read(&mut answer).expect("read");
    let text = String::from_utf8_lossy(&answer[..bytes]);
    text.rsplit("\r\n").next().and_then(|body| body.parse().ok()).expect("a number")
}

#[test]
fn requests_of_go_programs_belong_to_their_goroutines() {
    for (toolchain, arguments) in [
        ("go1.18.10", &[][..]),
        ("go1.22.12", &["-ldflags=-s -w"]),
        ("local", &["-buildmode=pie", "-ldflags=-s -w"]),
    ] {
        let Some(server) = Server::start(toolchain, arguments) else { continue };
        let file = fs::File::open(&server.executable).expect("opened");
        let object = ObjectFile::new(file, &server.executable).expect("an object");
        let program = GoProgram::read(&object).expect("readable").expect("a Go program");
        let offsets = program.goroutines.unwrap_or_else(|| panic!("{} {arguments:?}", program.version));
        check(&server, &program.version, &offsets);
    }
}

fn check(server: &Server, version: &str, offsets: &spanflame_symbols::go::GoroutineOffsets) {
    let options = SocketTracerOptions {
        ring_buffer_bytes: 4 << 20,
        excluded_ports: Vec::new(),
        exclude_agent: true,
        leaves_some_alone: false,
        publish_contexts_in: None,
    };
    let mut tracer = match SocketTracer::load(&options) {
        Ok(tracer) => tracer,
        Err(error) if error.is_not_permitted() => return eprintln!("skipped: {error}"),
        Err(error) => panic!("{error}"),
    };
    let pid = server.child.id();
    tracer.set_go_process(pid, offsets, None).expect("room");
    tracer.start().expect("started");
    let maps = tracer.request_maps().expect("descriptors");
    let requests = RequestSampling { maps: &maps, frequency_hz: 499, budget_permille: 1000 };
    let sampling = SamplerOptions {
        frequency_hz: 99,
        only_targets: true,
        ring_buffer_bytes: 4 << 20,
        exclude_agent: false,
    };
    let (of_processes, _) = ProcessMaps::create().expect("maps");
    let mut sampler = Sampler::load(&sampling, Some(&requests), &of_processes).expect("loaded");
    of_processes.add_target(pid, false).expect("room");
    sampler.start().expect("started");

    // Eight connections at a time on two threads, so that the scheduler takes turns with them.
    let answers: Vec<(u16, Vec<u64>)> = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("it listens");
                    let port = stream.local_addr().expect("bound").port();
                    (port, (0..5).map(|_| ask(&mut stream, 30)).collect())
                })
            })
            .collect();
        askers.into_iter().map(|asker| asker.join().expect("it ends")).collect()
    });
    std::thread::sleep(Duration::from_millis(20));
    sampler.stop().expect("stopped");

    let mut events: Vec<SocketEvent> = Vec::new();
    tracer.drain(&mut |event| events.push(event));
    let mut keys = std::collections::HashMap::new();
    for (port, goroutines) in &answers {
        let connection = events.iter().find_map(|event| match &event.kind {
            SocketEventKind::Opened(opened) => match opened.peer {
                crate::model::socket::Endpoint::Internet { port: peer, .. } if peer == *port => {
                    Some(event.connection)
                }
                _ => None,
            },
            _ => None,
        });
        let connection: ConnectionId = connection.expect("told");
        let mut read = Vec::new();
        for event in events.iter().filter(|event| event.connection == connection) {
            if let SocketEventKind::Data(fragment) = &event.kind
                && fragment.direction == Direction::In
                && let Some(minted) = fragment.minted
            {
                read.push(event.actor.goroutine);
                keys.insert(minted.key, event.actor.goroutine);
            }
        }
        assert_eq!(&read, goroutines, "{version}: who read the requests");
    }
    assert_eq!(keys.len(), 40);
    let (mut stamped, mut all) = (0, 0);
    let _ = sampler.drain(&mut |sample| {
        all += 1;
        stamped += usize::from(sample.request.is_some_and(|key| keys.contains_key(&key)));
    });
    eprintln!("{version}: {stamped} of {all} samples stamped, {:?}", sampler.counters());
    assert!(stamped * 10 >= all * 8 && stamped >= 100, "{version}: {stamped} of {all}");
}
