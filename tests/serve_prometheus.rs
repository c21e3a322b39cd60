//! Debian's Prometheus, as the judge of our metrics: it scrapes both formats, accepts the alert rules, has
//! them fire when they should, and has a series for every query of the documented dashboard.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::program::Program;
use support::server::{Request, Server, WITHOUT_EBPF};
use support::servers::{await_port, free_port};

/// The panels of "Monitoring", under our names; threads and tasks stand for goroutines.
const DASHBOARD: [&str; 11] = [
    "rate(spanflame_spans_collected_total[5m])",
    "rate(spanflame_spans_dropped_total[5m]) / rate(spanflame_spans_collected_total[5m])",
    "rate(spanflame_ebpf_ringbuf_lost_total[5m]) / rate(spanflame_ebpf_ringbuf_events_total[5m])",
    "spanflame_ebpf_programs_loaded",
    "rate(spanflame_export_errors_total[5m]) / rate(spanflame_export_requests_total[5m])",
    "histogram_quantile(0.99, rate(spanflame_export_latency_seconds_bucket[5m]))",
    "spanflame_export_queue_size",
    "rate(spanflame_process_cpu_seconds_total[5m])",
    "spanflame_process_resident_memory_bytes",
    "spanflame_process_threads",
    "spanflame_tokio_tasks",
];

fn rules() -> String {
    format!("{}/etc/prometheus/alerts.yml", env!("CARGO_MANIFEST_DIR"))
}

/// Returns from the calling test, saying so, unless the tools are installed.
macro_rules! needs_prometheus {
    () => {
        for program in ["prometheus", "promtool"] {
            if !support::is_installed(program) {
                return support::skip(&format!("{program} is not installed"));
            }
        }
    };
}

/// Passes requests on without their `Accept`: this Prometheus cannot be told to scrape text.
fn relay_of_text(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
            }
            let Ok(answer) = Request::get("/metrics").send(server) else { continue };
            let kind = answer.header("content-type").unwrap_or_default();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                answer.body.len()
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&answer.body));
        }
    });
    address
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

#[test]
fn prometheus_scrapes_both_formats_and_every_panel_of_the_dashboard_has_a_series() {
    needs_prometheus!();
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let configuration = directory.path().join("prometheus.yml");
    let (open_metrics, text) = (server.address, relay_of_text(server.address));
    let written = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n\
         - job_name: open_metrics\n  static_configs: [{{targets: ['{open_metrics}']}}]\n\
         - job_name: text\n  static_configs: [{{targets: ['{text}']}}]\n",
        rules()
    );
    std::fs::write(&configuration, written).expect("it is ours");
    let port = free_port();
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", configuration.display()))
        .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stderr(Stdio::null());
    let _prometheus = Program::start(&mut command);
    await_port(port);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let ask = |path: &str| {
        Request::get(path).send(address).ok().filter(|answer| answer.status == 200).map(|it| it.json())
    };
    support::await_event("both targets are up", Duration::from_secs(40), || {
        let targets = ask("/api/v1/targets")?;
        let targets = targets["data"]["activeTargets"].as_array()?.clone();
        let is_up = |target: &Value| target["health"] == "up" && target["lastError"] == "";
        (targets.len() == 2 && targets.iter().all(is_up)).then_some(())
    });
    for query in DASHBOARD {
        // A rate takes two scrapes.
        support::await_event(query, Duration::from_secs(40), || {
            let answer = ask(&format!("/api/v1/query?query={}", percent_encoded(query)))?;
            let series = answer["data"]["result"].as_array()?;
            let has = |job: &str| series.iter().any(|series| series["metric"]["job"] == job);
            (has("open_metrics") && has("text")).then_some(())
        });
    }
    // What both formats say is the same.
    let threads = ask("/api/v1/query?query=spanflame_export_queue_size").expect("an answer");
    let values: Vec<&Value> =
        threads["data"]["result"].as_array().expect("series").iter().map(|it| &it["value"][1]).collect();
    assert_eq!(values[0], values[1]);
    support::await_event("all rules are evaluated", Duration::from_secs(20), || {
        let rules = ask("/api/v1/rules")?;
        let rules = rules["data"]["groups"][0]["rules"].as_array()?.clone();
        assert!(rules.iter().all(|rule| rule["lastError"].is_null() || rule["lastError"] == ""), "{rules:?}");
        (rules.len() >= 5 && rules.iter().all(|rule| rule["health"] == "ok")).then_some(())
    });
}

fn promtool(arguments: &[&str], input: &[u8]) {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    child.stdin.take().expect("it is piped").write_all(input).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

#[test]
fn promtool_finds_nothing_wrong_with_the_names_and_the_text() {
    needs_prometheus!();
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    // Once more, so that requests and their histograms are in it.
    server.get("/metrics").expect(200);
    let text = server.get("/metrics").expect(200).text();
    promtool(&["check", "metrics"], text.as_bytes());
}

#[test]
fn the_alert_rules_are_valid_and_fire_when_they_should() {
    needs_prometheus!();
    promtool(&["check", "rules", &rules()], b"");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tests = directory.path().join("tests.yml");
    std::fs::write(&tests, tests_of_rules()).expect("it is ours");
    promtool(&["test", "rules", tests.to_str().expect("text")], b"");
}

/// For each alert: series that make it fire, and what it then says.
fn tests_of_rules() -> String {
    let cases = [
        (
            "SpanflameHighDropRate",
            vec![
                ("spanflame_spans_dropped_total", "0+60x20"),
                ("spanflame_spans_collected_total", "0+600x20"),
            ],
            "spanflame dropping spans (10%)",
        ),
        (
            "SpanflameEbpfEventLoss",
            vec![("spanflame_ebpf_ringbuf_lost_total", "0+60000x20")],
            "spanflame losing eBPF events (1k/s)",
        ),
        (
            "SpanflameExportErrors",
            vec![("spanflame_export_errors_total", "0+1x20")],
            "spanflame export errors detected",
        ),
        (
            "SpanflameHighMemory",
            vec![("spanflame_process_resident_memory_bytes", "2147483648x20")],
            "spanflame using 2GiB memory",
        ),
        (
            "SpanflameQueueBackup",
            vec![("spanflame_export_queue_size", "20000x20")],
            "spanflame export queue backing up (20000 items)",
        ),
        (
            "SpanflameStoreFailing",
            vec![("spanflame_store_write_failures_total", "0+1x20")],
            "spanflame cannot keep what it samples (5 windows lost in 5 minutes)",
        ),
    ];
    let mut text = format!("rule_files: ['{}']\nevaluation_interval: 1m\ntests:\n", rules());
    for (alert, series, summary) in cases {
        text.push_str("- interval: 1m\n  input_series:\n");
        for (name, values) in series {
            text.push_str(&format!("  - {{series: '{name}', values: '{values}'}}\n"));
        }
        text.push_str(&format!(
            "  alert_rule_test:\n  - eval_time: 15m\n    alertname: {alert}\n    exp_alerts:\n    \
             - exp_labels: {{severity: warning}}\n      exp_annotations: {{summary: '{summary}'}}\n"
        ));
    }
    // A server that does nothing alarms nobody: no NaN, no empty result fires.
    let quiet =
        ["spanflame_spans_dropped_total", "spanflame_spans_collected_total", "spanflame_export_errors_total"];
    text.push_str("- interval: 1m\n  input_series:\n");
    for name in quiet {
        text.push_str(&format!("  - {{series: '{name}', values: '0x20'}}\n"));
    }
    text.push_str("  alert_rule_test:\n");
    for alert in ["SpanflameHighDropRate", "SpanflameExportErrors"] {
        text.push_str(&format!("  - {{eval_time: 15m, alertname: {alert}, exp_alerts: []}}\n"));
    }
    text
}
