//! `/debug/pprof/` as `go tool pprof` and people use it: live captures beside the stored series, errors that
//! the tool prints, this process itself, and all of it behind a token or turned off.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::go_pprof::{self, Top};
use support::program::{Program, fixture_command};
use support::server::{Server, WITHOUT_EBPF};
use support::{await_event, quiet_cores};

#[test]
fn the_index_names_what_there_is_and_every_name_of_go_says_why_not() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let index = server.get("/debug/pprof/").expect(200);
    assert_eq!(index.header("content-type"), Some("text/html; charset=utf-8"));
    for name in
        ["profile", "heap", "goroutine", "threadcreate", "block", "mutex", "trace", "allocs", "self/threads"]
    {
        assert!(index.text().contains(name), "{name}");
    }
    assert_eq!(server.get("/debug/pprof").expect(308).header("location"), Some("/debug/pprof/"));
    for name in [
        "heap",
        "goroutine",
        "threadcreate",
        "block",
        "mutex",
        "trace",
        "allocs",
        "nonsense",
        "self/nonsense",
    ] {
        let answer = server.get(&format!("/debug/pprof/{name}")).expect(404);
        assert_eq!(answer.header("x-go-pprof"), Some("1"), "{name}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"), "{name}");
        assert!(answer.text().contains("There are: profile"), "{name}: {}", answer.text());
    }
    let off = server.get("/debug/pprof/profile?seconds=1").expect(404);
    assert!(off.text().contains("agent.ebpf.enabled"), "{}", off.text());
    let command_line = server.get("/debug/pprof/cmdline").expect(200);
    assert_eq!(command_line.body, server.get("/debug/pprof/self/cmdline").expect(200).body);
    assert_eq!(command_line.text().split('\0').nth(1), Some("serve"));
}

#[test]
fn the_tool_prints_what_is_wrong() {
    needs!("go");
    let server = Server::start(&[]);
    for (query, status, message) in [
        ("pid=2147483647", 404, "there is no process 2147483647"),
        ("service=nobody+has+this", 404, "there is no service"),
        ("seconds=301", 400, "seconds: 301 is too long"),
        ("seconds=1&frequency=1000", 400, "frequency: a whole number from 1 to 999"),
        ("seconds=1&frequency=0", 400, "frequency"),
        ("seconds=1&from=-1m", 400, "seconds: it is for a capture"),
        ("type=lock", 404, "there is: cpu"),
        ("trace_id=0123456789abcdef0123456789abcdef", 400, "it selects what is stored"),
    ] {
        let answer = server.get(&format!("/debug/pprof/profile?{query}")).expect(status);
        assert_eq!(answer.header("x-go-pprof"), Some("1"), "{query}");
        assert!(answer.text().contains(message), "{query}: {}", answer.text());
        let output = go_pprof::fetch(&["-top"], &format!("{}/debug/pprof/profile?{query}", server.url));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(message), "{query}: {said}");
    }
}

#[test]
fn a_capture_has_its_own_rate_and_selects_by_thread_and_leaves_the_stored_series_alone() {
    needs!("go");
    let _quiet = quiet_cores();
    let server = Server::start(&[]);
    let program = Program::start_ready(&mut fixture_command(&["shares", "600", "2"]));
    std::thread::sleep(Duration::from_secs(1));
    server.post("/admin/flush", "").expect(200);
    let samples = || {
        let path = format!("/api/v1/profiles/top?from=-1h&type=samples&pid={}", program.pid);
        server.get(&path).expect(200).json()["total"].as_i64().expect("a number")
    };
    let (before, began) = (samples(), Instant::now());
    let profile = format!("{}/debug/pprof/profile?seconds=3&frequency=499", server.url);
    let one = Top::fetch(&[], &format!("{profile}&service=shares&thread=worker-0"));
    let stored = samples() - before;
    let took_s = began.elapsed().as_secs_f64();
    // 499 a second would be thousands.
    assert!(stored as f64 <= took_s * 19.0 * 2.0 * 1.2 + 10.0, "{stored} samples in {took_s:.1} s");

    // One of two threads: at most the time there was.
    assert!(one.total > 300_000_000 && one.total <= 3_300_000_000, "{}", one.total);
    let text = server.get(&format!(
        "/debug/pprof/profile?seconds=1&frequency=499&debug=1&pid={}&thread=worker-0",
        program.pid
    ));
    let text = text.expect(200).text();
    assert!(text.starts_with("cpu profile: total ") && text.contains("burn_sixty"), "{text}");
    assert!(text.contains("\"thread_name\":\"worker-0\"") && !text.contains("worker-1"), "{text}");
    // The tool reads the text as well.
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("profile.txt");
    std::fs::write(&file, &text).expect("it is ours");
    let output = go_pprof::fetch(&["-symbolize=none", "-raw"], file.to_str().expect("text"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let total: i64 =
        text.lines().next().and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("a total");
    let raw = String::from_utf8_lossy(&output.stdout).into_owned();
    let counted = raw.lines().filter_map(|line| line.split_once(':')?.0.trim().parse::<i64>().ok());
    let (samples, _) = raw.split_once("\nLocations").expect("locations");
    let of_samples: i64 =
        samples.lines().filter_map(|line| line.split_once(": ")?.0.trim().parse::<i64>().ok()).sum();
    assert_eq!(of_samples, total, "{}", counted.count());
}

#[test]
fn eight_captures_run_at_once_and_those_whose_clients_go_make_room() {
    needs!();
    let _quiet = quiet_cores();
    let server = Server::start(&[]);
    let mut clients = Vec::new();
    for _ in 0..9 {
        let mut client = TcpStream::connect(server.address).expect("it listens");
        let request = format!(
            "GET /debug/pprof/profile?seconds=120&pid={} HTTP/1.1\r\nHost: {}\r\n\r\n",
            server.pid, server.address
        );
        client.write_all(request.as_bytes()).expect("it reads");
        clients.push(client);
    }
    // The heads of the eight come when their captures begin, long before they end.
    let mut heads = Vec::new();
    for client in &mut clients {
        client.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
        let mut head = [0; 1024];
        let length = client.read(&mut head).expect("a head");
        heads.push(String::from_utf8_lossy(&head[..length]).to_ascii_lowercase());
    }
    let (refused, begun): (Vec<_>, Vec<_>) =
        heads.iter().partition(|head| !head.starts_with("http/1.1 200 "));
    assert_eq!((begun.len(), refused.len()), (8, 1), "{heads:?}");
    assert!(refused[0].starts_with("http/1.1 429 "), "{refused:?}");
    assert!(refused[0].contains("x-go-pprof: 1") && refused[0].contains("retry-after: "), "{refused:?}");
    let ask = || server.get(&format!("/debug/pprof/profile?seconds=1&pid={}", server.pid));
    ask().expect(429);
    drop(clients);
    await_event("a capture finds a place", Duration::from_secs(30), || (ask().status == 200).then_some(()));
}

#[test]
fn a_capture_of_a_process_that_ends_ends_with_it() {
    needs!("go");
    let server = Server::start(&[]);
    let program = Program::start_ready(&mut fixture_command(&["shares", "600"]));
    let pid = program.pid;
    let ends = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(4));
        drop(program);
    });
    let began = Instant::now();
    let read = Top::fetch(&[], &format!("{}/debug/pprof/profile?seconds=45&pid={pid}", server.url));
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    assert!(read.cumulative("burn_sixty") > 0, "{read:?}");
    ends.join().expect("it only waits");
}

#[test]
fn this_process_is_profiled_too() {
    needs!("go");
    let server = Server::start(&[]);
    let url = format!("{}/debug/pprof/self", server.url);
    // Something to do meanwhile.
    let address = server.address;
    let asks = std::thread::spawn(move || {
        let until = Instant::now() + Duration::from_secs(8);
        while Instant::now() < until {
            let path = "/api/v1/profiles/flamegraph?from=-1h&format=pprof";
            let _ = support::server::Request::get(path).send(address);
        }
    });
    let output = go_pprof::fetch(&["-top"], &format!("{url}/profile?seconds=3&frequency=499"));
    let (table, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(table.contains("spanflame::"), "{table}{said}");
    asks.join().expect("it only asks");

    let output = go_pprof::fetch(&["-top", "-sample_index=inuse_space"], &format!("{url}/heap"));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && table.contains("[anonymous]") && table.contains("spanflame"),
        "{table}"
    );
    let output = go_pprof::fetch(&["-raw"], &format!("{url}/threads"));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && table.contains("profiler") && table.contains("window-writer"),
        "{table}"
    );
    assert!(
        server
            .get("/debug/pprof/self/threads?debug=1")
            .expect(200)
            .text()
            .starts_with("threads profile: total ")
    );
    assert!(server.get("/debug/pprof/self/heap?debug=1").expect(200).text().contains("resident"));
}

#[test]
fn symbols_are_found_in_the_kernel_and_in_a_process() {
    needs!();
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    assert_eq!(server.get("/debug/pprof/symbol").expect(200).text(), "num_symbols: 1\n");
    let symbols = std::fs::read_to_string("/proc/kallsyms").expect("it can be read");
    let line = symbols.lines().find(|line| line.ends_with(" T schedule")).expect("every kernel schedules");
    let address = line.split(' ').next().expect("an address");
    let kernel = server.get(&format!("/debug/pprof/symbol?0x{address}")).expect(200).text();
    assert_eq!(kernel, format!("num_symbols: 1\n0x{} schedule\n", address.trim_start_matches('0')));

    // A function of this test, by its address here.
    let here = symbols_are_found_in_the_kernel_and_in_a_process as *const () as u64;
    let path = format!("/debug/pprof/symbol?pid={}", std::process::id());
    let named = server.post(&path, format!("{here:#x}+0x1")).expect(200).text();
    let lines: Vec<&str> = named.lines().collect();
    assert_eq!(lines.len(), 2, "{named}");
    assert!(
        lines[1].starts_with(&format!("{here:#x} ")) && lines[1].contains("symbols_are_found"),
        "{named}"
    );
    server.get("/debug/pprof/symbol?pid=2147483647&0x1").expect(404);
    server.get("/debug/pprof/symbol?pid=x").expect(400);
}

#[test]
fn the_token_stands_in_the_url_of_the_tool() {
    needs!("go");
    let configuration = "self_telemetry: {auth: {enabled: true, bearer_token: open-sesame}}\n";
    let server = Server::start_with(configuration, &[]);
    let path = format!("{}/debug/pprof/profile?seconds=1&pid={}", server.address, server.pid);
    let output = go_pprof::fetch(&["-top"], &format!("http://x:open-sesame@{path}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = go_pprof::fetch(&["-top"], &format!("http://{path}"));
    assert!(!output.status.success());
    server.get("/debug/pprof/").expect(401);
    server.get("/api/v1/services").expect(401);
}

#[test]
fn debug_can_be_turned_off() {
    let configuration = format!("{WITHOUT_EBPF}self_telemetry: {{debug: false}}\n");
    let server = Server::start_with(&configuration, &[]);
    for path in [
        "/debug/pprof",
        "/debug/pprof/",
        "/debug/pprof/heap",
        "/debug/pprof/profile?seconds=1",
        "/debug/pprof/symbol",
        "/debug/pprof/cmdline",
        "/debug/pprof/self/profile?seconds=1",
        "/debug/pprof/self/heap",
        "/debug/pprof/self/threads",
        "/debug/pprof/self/cmdline",
        "/debug/pprof/self/symbol",
        "/debug/pprof/self/nonsense",
        "/debug/vars",
    ] {
        assert_eq!(server.get(path).expect(404).json()["error"], "not_found", "{path}");
    }
    server.get("/api/v1/services").expect(200);
}
