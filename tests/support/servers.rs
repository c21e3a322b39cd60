//! Real servers with their own data directories on free loopback ports, and their loads.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::program::{Program, children_of, command_line};

/// A server and what must outlive it.
pub struct Server {
    pub program: Program,
    pub port: u16,
    _directory: TempDir,
}

/// A port on the loopback address that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Waits until somebody listens on a port.
pub fn await_port(port: u16) {
    super::await_event(&format!("a server on port {port}"), Duration::from_secs(20), || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
}

/// A command with its output thrown away, for loads and servers.
fn silent(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A directory that a user without privileges may enter.
fn open_directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    directory
}

/// Redis, in memory only.
pub fn redis() -> Server {
    let directory = open_directory();
    let port = free_port();
    let mut command = silent("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
    command.arg("--dir").arg(directory.path());
    let program = Program::start(&mut command);
    await_port(port);
    Server { program, port, _directory: directory }
}

/// `redis-benchmark` against it until it is dropped.
pub fn redis_load(server: &Server) -> Program {
    let mut command = silent("redis-benchmark");
    command.args(["-h", "127.0.0.1", "-p", &server.port.to_string(), "-l", "-q", "-c", "20", "-P", "8"]);
    command.args(["-t", "set,get,lpush,zadd,hset,lrange_100"]);
    Program::start(&mut command)
}

/// nginx with two workers that serve a file.
pub fn nginx() -> Server {
    let directory = open_directory();
    let port = free_port();
    let root = directory.path();
    std::fs::write(root.join("index.html"), "x".repeat(4000)).expect("it is ours");
    let base = root.display();
    let configuration = format!(
        "daemon off; worker_processes 2; pid {base}/nginx.pid; error_log {base}/error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; client_body_temp_path {base}/body; proxy_temp_path {base}/proxy;\n\
         fastcgi_temp_path {base}/fastcgi; uwsgi_temp_path {base}/uwsgi; scgi_temp_path {base}/scgi;\n\
         gzip on; gzip_min_length 1; gzip_types text/html;\n\
         server {{ listen 127.0.0.1:{port}; root {base}; }} }}\n"
    );
    let path = root.join("nginx.conf");
    std::fs::write(&path, configuration).expect("it is ours");
    let mut command = silent("nginx");
    command.arg("-c").arg(&path).arg("-p").arg(root);
    let program = Program::start(&mut command);
    await_port(port);
    Server { program, port, _directory: directory }
}

/// `wrk` against it for at most a minute.
pub fn nginx_load(server: &Server) -> Program {
    let mut command = silent("wrk");
    command.args(["-t", "1", "-c", "20", "-d", "60s", "-H", "Accept-Encoding: gzip"]);
    command.arg(format!("http://127.0.0.1:{}/index.html", server.port));
    Program::start(&mut command)
}

/// Where Debian keeps `PostgreSQL`'s programs.
pub fn postgres_programs() -> Option<String> {
    let mut versions: Vec<_> = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().collect();
    versions.sort_by_key(std::fs::DirEntry::file_name);
    let programs = versions.pop()?.path().join("bin");
    programs.join("initdb").exists().then(|| programs.display().to_string())
}

/// A command run as the user `postgres`, since `PostgreSQL` refuses to be root.
fn as_postgres(program: &str) -> Command {
    let mut command = silent("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--", program]);
    command.current_dir("/");
    command
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}

/// `PostgreSQL` with pgbench's tables.
pub fn postgres(programs: &str) -> Server {
    let directory = open_directory();
    let port = free_port();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).expect("it is ours");
    run(silent("chown").arg("postgres:postgres").arg(&data));
    run(as_postgres(&format!("{programs}/initdb"))
        .args(["--no-sync", "--auth=trust", "--username=postgres", "--pgdata"])
        .arg(&data));
    let program = Program::start(
        as_postgres(&format!("{programs}/postgres"))
            .arg("-D")
            .arg(&data)
            .args([
                "-p",
                &port.to_string(),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "unix_socket_directories=",
            ])
            .args(["-c", "fsync=off", "-c", "synchronous_commit=off"]),
    );
    await_port(port);
    // The port is open before the server answers.
    super::await_event("PostgreSQL answers", Duration::from_secs(20), || {
        let ready = silent(&format!("{programs}/pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
            .status();
        ready.is_ok_and(|status| status.success()).then_some(())
    });
    run(pgbench(programs, port).args(["-i", "-q", "-s", "2", "postgres"]));
    Server { program, port, _directory: directory }
}

fn pgbench(programs: &str, port: u16) -> Command {
    let mut command = silent(&format!("{programs}/pgbench"));
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres"]);
    if !Path::new(programs).join("pgbench").exists() {
        panic!("no pgbench in {programs}");
    }
    command
}

/// pgbench's select-only load with four clients, and the backends that serve it.
pub fn postgres_load(programs: &str, server: &Server) -> (Program, Vec<u32>) {
    let load = Program::start(pgbench(programs, server.port).args(["-S", "-c", "4", "-T", "60", "postgres"]));
    let backends = super::await_event("four backends", Duration::from_secs(20), || {
        let is_backend = |&pid: &u32| command_line(pid).contains("127.0.0.1(");
        let backends: Vec<u32> = children_of(server.program.pid).into_iter().filter(is_backend).collect();
        (backends.len() >= 4).then_some(backends)
    });
    (load, backends)
}
