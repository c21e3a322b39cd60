//! Profiles over HTTP: a program whose shares are known is found with them by every endpoint, in every
//! format and by `go tool pprof`, for the host, a service and a process; and what is not there is told from
//! what slept.

mod support;

use std::io::Read;
use std::time::Duration;

use support::folded::percent;
use support::go_pprof::Top;
use support::program::{Program, fixture, fixture_command};
use support::server::{Request, Response, Server};
use support::{quiet_cores, seconds};

const BURNERS: [(&str, f64); 3] = [("burn_sixty", 60.0), ("burn_thirty", 30.0), ("burn_ten", 10.0)];
/// Enough samples for three points in a few seconds.
const OFTEN: &str = "agent: {profiling: {sample_rate: 499}}\n";
/// The time that one of these samples stands for.
const PERIOD_NS: i64 = 1_000_000_000 / 499;

fn now_s() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    since.as_secs_f64()
}

/// Time on a processor that a process has had.
fn cpu_time_s(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks = |field: usize| fields.split_whitespace().nth(field).and_then(|text| text.parse::<f64>().ok());
    // utime and stime of proc(5), counted from the state, in hundredths of a second.
    (ticks(11).expect("utime") + ticks(12).expect("stime")) / 100.0
}

/// A server that has watched the fixture, and the range in which it did. Nothing is added to the range by
/// later windows, so answers to equal questions are equal.
struct Watched {
    server: Server,
    program: Program,
    range: String,
}

impl Watched {
    fn start() -> Self {
        let server = Server::start_with(OFTEN, &[]);
        let mut command = fixture_command(&["shares", "600"]);
        command.env("OTEL_SERVICE_NAME", "shares-of-three");
        let program = Program::start_ready(&mut command);
        // Its unwind tables are made when it is first seen.
        std::thread::sleep(Duration::from_secs(1));
        server.post("/admin/flush", "").expect(200);
        let from = now_s();
        std::thread::sleep(Duration::from_secs(seconds(4, 10)));
        // On a machine that has more to do it takes longer until there are samples enough.
        let enough_s = seconds(3, 8) as f64 / 2.0;
        support::await_event("the fixture has run", Duration::from_secs(60), || {
            (cpu_time_s(program.pid) >= enough_s + 1.0).then_some(())
        });
        let range = format!("from={from:.3}&to={:.3}", now_s());
        std::thread::sleep(Duration::from_millis(300));
        server.post("/admin/flush", "").expect(200);
        // Ranges widen to whole windows; this one is of whole windows.
        let covered = server.get(&format!("/api/v1/profiles/top?{range}&limit=1")).expect(200);
        let moment = |name| covered.header(name).expect("it says what it covers").to_owned();
        let (from, to) = (moment("x-spanflame-covered-from"), moment("x-spanflame-covered-to"));
        Self { server, program, range: format!("from={from}&to={to}") }
    }

    fn get(&self, path: &str, more: &str) -> Response {
        self.server.get(&format!("{path}?{}{more}", self.range)).expect(200)
    }

    fn of_pid(&self) -> String {
        format!("&pid={}", self.program.pid)
    }
}

/// The shares of the burners among themselves, given the value that each has.
fn check_shares(what: &str, value_of: impl Fn(&str) -> i64) {
    check_shares_within(4.0, what, value_of);
}

/// The same within so many points.
fn check_shares_within(points: f64, what: &str, value_of: impl Fn(&str) -> i64) {
    let values: Vec<i64> = BURNERS.iter().map(|(name, _)| value_of(name)).collect();
    let all: i64 = values.iter().sum();
    assert!(all > 0, "{what}: none of the burners is there");
    for ((name, expected), value) in BURNERS.iter().zip(values) {
        let share = percent(value.unsigned_abs(), all.unsigned_abs());
        assert!((share - expected).abs() <= points, "{what}: {name} has {share:.1} %, {expected} % is right");
    }
}

fn top_value(top: &serde_json::Value, name: &str) -> i64 {
    let functions = top["functions"].as_array().expect("functions");
    functions
        .iter()
        .filter(|row| row["name"] == name)
        .map(|row| row["total"].as_i64().expect("a number"))
        .sum()
}

/// The sum of all nodes of this name that are below no other of it.
fn tree_value(node: &serde_json::Value, name: &str) -> i64 {
    if node["name"] == name {
        return node["total"].as_i64().expect("a number");
    }
    node["children"].as_array().expect("children").iter().map(|child| tree_value(child, name)).sum()
}

#[test]
fn every_endpoint_and_format_has_the_right_shares_and_one_total() {
    needs!("go");
    let _quiet = quiet_cores();
    let watched = Watched::start();
    let of_pid = watched.of_pid();
    let graph = "/api/v1/profiles/flamegraph";

    let top = watched.get("/api/v1/profiles/top", &of_pid).json();
    assert_eq!((top["type"].as_str(), top["unit"].as_str()), (Some("cpu"), Some("nanoseconds")));
    let total = top["total"].as_i64().expect("a number");
    // What it had before the range is a second at most.
    assert!(total >= 500_000_000 * i64::try_from(seconds(2, 7)).expect("few"), "{total} ns");
    check_shares("top", |name| top_value(&top, name));
    let of_self: i64 =
        top["functions"].as_array().unwrap().iter().map(|row| row["self"].as_i64().unwrap()).sum();
    assert_eq!(of_self, total, "self values add up to the total");
    let share = top["complete_share"].as_f64().expect("a share");
    assert!(share > 0.99, "{share}");
    let burner = top["functions"].as_array().unwrap().iter().find(|row| row["name"] == "burn_sixty").unwrap();
    assert!(burner["file"].as_str().unwrap().ends_with("shares.c"), "{burner}");
    assert!(burner["line"].as_i64().unwrap() > 1, "{burner}");
    assert_eq!(burner["module"].as_str().unwrap(), fixture("shares"));

    let json = watched.get(graph, &format!("&format=json{of_pid}"));
    for header in ["x-spanflame-covered-from", "x-spanflame-covered-to", "x-spanflame-complete-share"] {
        assert!(json.header(header).is_some(), "{header} in {:?}", json.headers);
    }
    let json = json.json();
    assert_eq!(json["total"].as_i64(), Some(total));
    check_shares("json", |name| tree_value(&json, name));
    assert_eq!(json["children"][0]["name"], "shares", "the name of the process is outermost");

    let columnar = watched.get(graph, &format!("&format=columnar{of_pid}"));
    assert_eq!(&columnar.body[..4], b"SFCG");
    assert_eq!(columnar.body[8..16], u64::try_from(total).unwrap().to_le_bytes());

    let folded = watched.get(graph, &format!("&format=folded{of_pid}")).text();
    let lines = || folded.lines().filter_map(|line| line.rsplit_once(' '));
    let value = |text: &str| text.parse::<i64>().expect("nanoseconds");
    assert_eq!(lines().map(|(_, of)| value(of)).sum::<i64>(), total);
    check_shares("folded", |name| {
        lines()
            .filter(|(stack, _)| stack.split(';').any(|frame| frame == name))
            .map(|(_, of)| value(of))
            .sum()
    });

    let svg = watched.get(graph, &format!("&format=svg{of_pid}"));
    assert_eq!(svg.header("content-type"), Some("image/svg+xml"));
    let text = svg.text();
    assert!(BURNERS.iter().all(|(name, _)| text.contains(name)) && text.trim_end().ends_with("</svg>"));

    let speedscope = watched.get(graph, &format!("&format=speedscope{of_pid}")).json();
    let active = usize::try_from(speedscope["activeProfileIndex"].as_u64().expect("an index")).unwrap();
    let weights = speedscope["profiles"][active]["weights"].as_array().expect("weights");
    assert_eq!(weights.iter().map(|weight| weight.as_i64().expect("a number")).sum::<i64>(), total);

    // Files that were downloaded are read back.
    let folder = tempfile::tempdir().expect("a temporary directory");
    for (format, file, disposition) in
        [("pprof", "a.pb.gz", ".pb.gz\""), ("otlp", "a.otlp", ".otlp\""), ("speedscope", "a.json", ".json\"")]
    {
        let answer = watched.get(graph, &format!("&format={format}{of_pid}"));
        let saved_as = answer.header("content-disposition").expect("a name");
        assert!(
            saved_as.starts_with("attachment; filename=\"spanflame-cpu-") && saved_as.ends_with(disposition)
        );
        let (from, to) = (folder.path().join(file), folder.path().join("b.folded"));
        std::fs::write(&from, &answer.body).expect("it is ours");
        let status =
            support::spanflame().arg("convert").arg(&from).arg("-o").arg(&to).status().expect("it runs");
        assert!(status.success(), "{format}");
        let text = std::fs::read_to_string(&to).expect("it was written");
        let count =
            |line: &str| line.rsplit_once(' ').and_then(|(_, count)| count.parse::<i64>().ok()).unwrap_or(0);
        let samples: i64 = text.lines().map(count).sum();
        assert_eq!(samples, total / PERIOD_NS, "{format}");
    }

    let timeline = watched.get("/api/v1/profiles/timeline", &format!("&step=1{of_pid}")).json();
    assert_eq!(timeline["step_s"].as_f64(), Some(1.0));
    let points = timeline["points"].as_array().expect("points");
    let sum: i64 = points.iter().map(|point| point["value"].as_i64().expect("a number")).sum();
    // It begins at a whole second, and so with a part of the window before.
    assert!((total..=total + 1_000_000_000).contains(&sum), "{sum} of {total}");
    assert!(points.len() as u64 >= seconds(4, 10), "{points:?}");

    let services = watched.get("/api/v1/services", "").json();
    let service =
        services["services"].as_array().unwrap().iter().find(|row| row["name"] == "shares-of-three");
    let service = service.unwrap_or_else(|| panic!("{services}"));
    assert_eq!(service["types"], serde_json::json!(["cpu"]));
    assert_eq!(service["samples"].as_i64(), Some(total / PERIOD_NS));
    let types = watched.get("/api/v1/profiles/types", "").json();
    assert_eq!(types["types"][0]["name"], "cpu");
    assert_eq!(types["types"][0]["unit"], "nanoseconds");
    let samples = watched.get("/api/v1/profiles/top", &format!("&type=samples{of_pid}")).json();
    assert_eq!(samples["total"], service["samples"]);
}

#[test]
fn go_tool_pprof_reads_stored_and_live_profiles_by_url_and_its_totals_are_those_of_top() {
    needs!("go");
    let _quiet = quiet_cores();
    let watched = Watched::start();
    let url = &watched.server.url;
    let of_pid = watched.of_pid();
    for (what, selector) in
        [("the host", ""), ("a service", "&service=shares-of-three"), ("a process", of_pid.as_str())]
    {
        let top = watched.get("/api/v1/profiles/top", selector).json();
        let read = Top::fetch(&[], &format!("{url}/debug/pprof/profile?{}{selector}", watched.range));
        assert_eq!(Some(read.total), top["total"].as_i64(), "{what}");
        check_shares(what, |name| read.cumulative(name));
        assert_eq!(read.cumulative("burn_sixty"), top_value(&top, "burn_sixty"), "{what}");
        let download = format!("{url}/api/v1/profiles/flamegraph?format=pprof&{}{selector}", watched.range);
        assert_eq!(Top::fetch(&[], &download).total, read.total, "{what}");
    }
    // The tool complains of a program that it cannot find by the first mapping.
    let raw =
        support::go_pprof::fetch(&["-raw"], &format!("{url}/debug/pprof/profile?{}{of_pid}", watched.range));
    let raw = String::from_utf8_lossy(&raw.stdout).into_owned();
    let (_, mappings) = raw.split_once("\nMappings\n").expect("mappings");
    assert!(mappings.lines().next().expect("one").contains("/shares"), "{mappings}");

    for (what, selector) in [
        ("the host", ""),
        ("a service", "service=shares-of-three"),
        ("a process", of_pid.trim_start_matches('&')),
    ] {
        let live = format!("{url}/debug/pprof/profile?frequency=499&{selector}");
        let read = Top::fetch(&["-seconds", "3"], &live);
        check_shares_within(8.0, &format!("{what}, live"), |name| read.cumulative(name));
    }
}

#[test]
fn who_slept_is_empty_who_never_was_is_unknown_and_what_is_malformed_is_named() {
    needs!();
    let server = Server::start(&[]);
    let mut command = std::process::Command::new("sleep");
    command.arg("600").env("OTEL_SERVICE_NAME", "sleeps-all-day");
    let sleeper = Program::start(&mut command);
    // It may have been seen starting; what follows is after that.
    std::thread::sleep(Duration::from_millis(500));
    server.post("/admin/flush", "").expect(200);
    let from = now_s();
    std::thread::sleep(Duration::from_millis(1200));
    let range = format!("from={from:.3}");
    let endpoints = [
        "/api/v1/profiles/top",
        "/api/v1/profiles/flamegraph",
        "/api/v1/profiles/timeline",
        "/debug/pprof/profile",
    ];
    let pid = sleeper.pid.to_string();
    for path in endpoints {
        for selector in
            [format!("pid={pid}"), "service=sleeps-all-day".to_owned(), format!("pid={pid}&thread=sleep")]
        {
            let answer = server.get(&format!("{path}?{range}&{selector}")).expect(200);
            if path.ends_with("top") || path.ends_with("flamegraph") {
                assert_eq!(answer.json()["total"], 0, "{path} {selector}");
            }
        }
        for selector in [
            "pid=2147483647",
            "service=nobody+has+this+name",
            "container=0123456789ab",
            "thread=nobody-has-this",
            "trace_id=0123456789abcdef0123456789abcdef",
            "span_id=0123456789abcdef",
            "type=lock",
            &format!("pid={pid}&service=another"),
        ] {
            let answer = server.get(&format!("{path}?{range}&{selector}")).expect(404);
            if !path.starts_with("/debug") {
                assert_eq!(answer.json()["error"], "not_found", "{path} {selector}");
            }
        }
        // Before the host was watched.
        server.get(&format!("{path}?from=0&to=10&pid={pid}")).expect(404);
        for (query, field) in [
            ("pid=abc", "pid"),
            ("pid=1&pid=2", "pid"),
            ("from=yesterday", "from"),
            ("to=1700000000000000&from=0", "to"),
            ("from=-1m&to=-2m", "from"),
            ("trace_id=xyz&from=-1m", "trace_id"),
            ("type=%20&from=-1m", "type"),
            ("from=-1m&sevice=x", "sevice"),
            ("from=-1m&service=%ff", "service"),
        ] {
            let answer = server.get(&format!("{path}?{query}")).expect(400);
            assert!(answer.text().contains(field), "{path}?{query}: {}", answer.text());
            if !path.starts_with("/debug") {
                let body = answer.json();
                assert_eq!(body["error"], "invalid_request", "{path}?{query}");
                assert_eq!(body["details"]["field"], field, "{path}?{query}");
            }
        }
    }
    for (path, query) in [
        ("/api/v1/profiles/flamegraph", "format=gif"),
        ("/api/v1/profiles/flamegraph", "format=svg&group_by=service"),
        ("/api/v1/profiles/flamegraph", "group_by=colour"),
        ("/api/v1/profiles/flamegraph", "hide_incomplete=perhaps"),
        ("/api/v1/profiles/top", "limit=0"),
        ("/api/v1/profiles/timeline", "step=0"),
        ("/api/v1/profiles/timeline", "from=-1w&step=1ms"),
        ("/api/v1/services", "pid=1"),
        ("/api/v1/profiles/types", "from=x"),
    ] {
        server.get(&format!("{path}?{query}")).expect(400);
    }
}

#[test]
fn answers_are_compressed_for_those_who_take_it_and_grouped_as_asked() {
    needs!();
    let server = Server::start(&[]);
    let program = Program::start_ready(&mut fixture_command(&["shares", "600", "2"]));
    std::thread::sleep(Duration::from_secs(3));
    let path = format!("/api/v1/profiles/flamegraph?pid={}&group_by=service,thread", program.pid);
    let tree = server.get(&path).expect(200).json();
    let service = &tree["children"][0];
    assert_eq!(service["name"], "shares", "{tree}");
    let threads: Vec<&str> =
        service["children"].as_array().unwrap().iter().filter_map(|child| child["name"].as_str()).collect();
    assert!(threads.contains(&"worker-0") && threads.contains(&"worker-1"), "{threads:?}");

    let range = format!("from={:.3}&to={:.3}", now_s() - 2.0, now_s());
    // No window of the range is open any more, so that equal questions have equal answers.
    server.post("/admin/flush", "").expect(200);
    for path in [
        "flamegraph?format=columnar",
        "flamegraph?format=json",
        "flamegraph?format=folded",
        "top?limit=10000",
    ] {
        let path = format!("/api/v1/profiles/{path}&{range}");
        let plain = server.get(&path).expect(200);
        assert_eq!(plain.header("content-encoding"), None, "{path}");
        let packed = server.ask(&Request::get(&path).header("Accept-Encoding", "gzip")).expect(200);
        assert_eq!(packed.header("content-encoding"), Some("gzip"), "{path}");
        assert!(packed.body.len() < plain.body.len());
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(packed.body.as_slice()).read_to_end(&mut unpacked).expect("gzip");
        assert_eq!(unpacked, plain.body, "{path}");
        assert_eq!(plain.header("cache-control"), Some("no-store"));
    }
}
