//! Both ends of connections in the hands of a test, so that it knows when each byte was moved.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::exported::Exported;
use super::server::Server;

/// Both ends of a connection, the client's first.
pub fn pair() -> (TcpStream, TcpStream) {
    pair_at(&TcpListener::bind(("127.0.0.1", 0)).expect("a free port"))
}

/// The same through this listener.
pub fn pair_at(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (server, _) = listener.accept().expect("one waits");
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
        stream.set_nodelay(true).expect("an option");
    }
    (client, server)
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

pub fn response(status: u16, body: usize) -> String {
    format!("HTTP/1.1 {status} Some\r\nContent-Length: {body}\r\n\r\n{}", "x".repeat(body))
}

/// Reads until so many bytes have come, or the end.
pub fn read(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = stream.take(bytes as u64).read_to_end(&mut all);
    all
}

/// Closes with a reset.
pub fn reset(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the value is as long as is said, and outlives the call.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0);
    drop(stream);
}

/// Spans whose path begins so, by path and kind.
pub fn under(all: &[Exported], prefix: &str) -> BTreeMap<(String, i32), Exported> {
    let wanted = all.iter().filter(|span| span.path().starts_with(prefix));
    let mut found = BTreeMap::new();
    for span in wanted {
        let before = found.insert((span.path().to_owned(), span.kind), span.clone());
        assert!(before.is_none(), "twice: {span:?}");
    }
    found
}

/// A metric, with its labels.
pub fn metric(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").expect(200).text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
}

/// What a process has of memory.
pub fn memory_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}
