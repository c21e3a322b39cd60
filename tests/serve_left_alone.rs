//! Programs that the configuration leaves alone: nothing that they ask is seen from their end, and what others answer
//! them is.

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::await_event;
use support::collector::Receiver;
use support::exported::{CLIENT, Exported, SERVER, exporting_spans_to, spans};
use support::server::Server;
use support::streams::response;

/// Answers every request, in a thread of this process, for as long as the test runs.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            while stream.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0) {
                let _ = stream.write_all(response(200, 3).as_bytes());
            }
        }
    });
    address
}

/// The same program at another path.
fn copy(program: &str, to: PathBuf) -> PathBuf {
    let path = std::env::var_os("PATH").expect("a search path");
    let mut found = std::env::split_paths(&path).map(|folder| folder.join(program));
    let from = found.find(|path| path.is_file()).expect("it is installed");
    std::fs::copy(from, &to).expect("there is room");
    to
}

fn ask(program: &Path, address: SocketAddr, paths: &[&str]) {
    let urls = paths.iter().map(|path| format!("http://{address}{path}"));
    let done = Command::new(program).args(["-sS", "--max-time", "20"]).args(urls).output().expect("it runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// How many processes the kernel side leaves alone.
fn left_alone(server: &Server) -> u64 {
    let ebpf = server.get("/status/ebpf").expect(200).json();
    let maps = ebpf["maps"].as_array().expect("maps").clone();
    let map = maps.iter().find(|map| map["name"] == "left_alone").expect("the map");
    map["entries"].as_u64().expect("a number")
}

fn kinds(all: &[Exported], path: &str) -> BTreeSet<i32> {
    all.iter().filter(|span| span.path() == path).map(|span| span.kind).collect()
}

#[test]
fn what_they_ask_is_seen_by_who_answers_alone_until_they_execute_something_else() {
    needs!("curl");
    let folder = tempfile::tempdir().expect("a folder");
    let alone = copy("curl", folder.path().join("alone-curl"));
    let shell = copy("sh", folder.path().join("alone-sh"));
    let followed = copy("curl", folder.path().join("followed-curl"));
    let receiver = Receiver::start();
    let pattern = folder.path().join("alone-*");
    let server = Server::start_with(
        &format!(
            "{}agent: {{ebpf: {{network: {{exclude_executables: ['{}']}}}}}}\n",
            exporting_spans_to(&receiver),
            pattern.display()
        ),
        &[],
    );
    assert_eq!(left_alone(&server), 0);
    let address = serve();

    ask(&followed, address, &["/followed"]);
    // A process that nobody knew before, on one connection.
    ask(&alone, address, &["/alone/1", "/alone/2", "/alone/3"]);

    let mut executes = Command::new(&shell)
        .args(["-c", "read line; exec \"$0\" -sS --max-time 20 \"$1\""])
        .arg(&followed)
        .arg(format!("http://{address}/executed"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it runs");
    await_event("the shell is left alone", Duration::from_secs(20), || {
        (left_alone(&server) == 1).then_some(())
    });
    executes.stdin.take().expect("piped").write_all(b"go\n").expect("it reads");
    assert!(executes.wait().expect("it is ours").success());
    // One that ended as what it was.
    assert!(Command::new(&shell).args(["-c", "exit 0"]).status().expect("it runs").success());
    await_event("none is left alone any more", Duration::from_secs(20), || {
        (left_alone(&server) == 0).then_some(())
    });

    let all = spans(&server, &receiver);
    for path in ["/followed", "/executed"] {
        assert_eq!(kinds(&all, path), BTreeSet::from([SERVER, CLIENT]), "{path}: {all:#?}");
    }
    for path in ["/alone/1", "/alone/2", "/alone/3"] {
        let seen: Vec<_> = all.iter().filter(|span| span.path() == path).collect();
        let [served] = seen.as_slice() else { panic!("{path}: {seen:#?}") };
        assert_eq!((served.kind, served.status()), (SERVER, 200));
        assert!(served.parent.is_empty(), "nobody's: {served:#?}");
    }
}
