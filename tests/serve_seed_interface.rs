//! The interface of the two seed documents ("API Reference" and "Monitoring"), under our names: every
//! endpoint, every key with its type, every status code, every metric, in one table each.
//!
//! What the documents show of features that are off here is null, 0 or false, as INTERFACE.md says; so the
//! shapes below say `null` where they may be.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use support::server::{Request, Server, WITHOUT_EBPF};

/// Whether a value is as its shape says: `"text"`, `"number"`, `"boolean"`, `"time"`, alternatives joined by
/// `|`, `"=word"` for exactly that; objects must have all keys of their shape, and may have more; all items
/// of an array are as the one item of its shape.
fn hold(shape: &Value, value: &Value, place: &str) {
    match (shape, value) {
        (Value::Object(keys), Value::Object(_)) => {
            for (key, shape) in keys {
                let Some(value) = value.get(key) else { panic!("{place}.{key} is missing") };
                hold(shape, value, &format!("{place}.{key}"));
            }
        }
        (Value::Array(shapes), Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                hold(&shapes[0], item, &format!("{place}[{index}]"));
            }
        }
        (Value::String(kinds), _) => {
            let is_of = |kind: &str| match kind {
                "text" => value.as_str().is_some_and(|text| !text.is_empty()),
                "number" => value.as_u64().is_some(),
                "boolean" => value.is_boolean(),
                "null" => value.is_null(),
                "time" => value.as_str().is_some_and(is_time),
                "uptime" => value.as_str().is_some_and(is_uptime),
                exactly => exactly.strip_prefix('=').is_some_and(|word| value.as_str() == Some(word)),
            };
            assert!(kinds.split('|').any(is_of), "{place} is {value}, and should be {kinds}");
        }
        _ => panic!("{place} is {value}, and should be like {shape}"),
    }
}

/// `2024-01-15T10:30:00Z`
fn is_time(text: &str) -> bool {
    let digits: String =
        text.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
    digits == "0000-00-00T00:00:00Z"
}

/// `24h15m30s`
fn is_uptime(text: &str) -> bool {
    text.ends_with('s') && text.bytes().all(|byte| byte.is_ascii_digit() || b"hms".contains(&byte))
}

/// Method, path, status, and the shape of the body.
fn endpoints() -> Vec<(&'static str, &'static str, u16, Value)> {
    let queue = json!({"size": "number", "capacity": "number", "exported": "number", "dropped": "number"});
    vec![
        ("GET", "/healthz", 200, json!({"status": "=ok"})),
        (
            "GET",
            "/ready",
            200,
            json!({"status": "=ready",
                   "checks": {"ebpf": "=ok|=disabled", "otlp": "=ok|=disabled", "discovery": "=ok"}}),
        ),
        (
            "GET",
            "/status",
            200,
            json!({
                "version": "text", "commit": "text|null", "built": "time|null", "uptime": "uptime", "mode": "=agent",
                "host": {"name": "text", "os": "=linux", "arch": "=amd64|=arm64", "kernel": "text"},
                "ebpf": {"enabled": "boolean", "programs_loaded": "number", "maps_created": "number",
                         "ringbuf_size": "number"},
                "profiling": {"enabled": "boolean", "sample_rate": "number", "profiles_collected": "number"},
                "export": {"endpoint": "text|null", "connected": "boolean", "last_export": "time|null",
                           "spans_exported": "number", "metrics_exported": "number"},
                "discovery": {"kubernetes": "boolean", "docker": "boolean", "pods_discovered": "number",
                              "containers_discovered": "number"},
            }),
        ),
        (
            "GET",
            "/status/ebpf",
            200,
            json!({
                "enabled": "boolean",
                "programs": [{"name": "text", "type": "text", "attached": "boolean", "id": "number"}],
                "maps": [{"name": "text", "type": "text", "entries": "number", "max_entries": "number"}],
                "ringbuf": {"size": "number", "events_received": "number", "events_lost": "number"},
            }),
        ),
        (
            "GET",
            "/status/export",
            200,
            json!({
                "endpoint": "text|null", "protocol": "=grpc|=http/protobuf|=http/json|null", "tls": "boolean",
                "compression": "=gzip|=none|null", "connected": "boolean", "last_export": "time|null",
                "last_error": "text|null",
                "queues": {"traces": queue, "metrics": queue, "logs": queue},
            }),
        ),
        (
            "GET",
            "/status/discovery",
            200,
            json!({
                "kubernetes": {"enabled": "boolean", "connected": "boolean", "cluster": "text|null",
                               "namespace": "text|null", "pods_watched": "number", "services_watched": "number"},
                "docker": {"enabled": "boolean", "connected": "boolean", "containers": "number"},
                "cloud": {},
                "discovered_services": [{"name": "text", "namespace": "text|null", "instances": "number",
                                         "ports": ["number"]}],
            }),
        ),
        (
            "GET",
            "/config",
            200,
            json!({
                "mode": "=agent",
                "otlp": {"endpoint": "text|null", "insecure": "boolean", "compression": "=gzip|=none"},
                "agent": {"ebpf": {"enabled": "boolean", "network": {"enabled": "boolean"}},
                          "profiling": {"enabled": "boolean", "sample_rate": "number"}},
            }),
        ),
        (
            "GET",
            "/debug/vars",
            200,
            json!({"cmdline": ["text"],
                   "memstats": {"Alloc": "number", "TotalAlloc": "number", "Sys": "number"}}),
        ),
        ("POST", "/admin/reload", 200, json!({"status": "=ok", "message": "=Configuration reloaded"})),
        (
            "POST",
            "/admin/flush",
            200,
            json!({"status": "=ok",
                   "flushed": {"traces": "number", "metrics": "number", "logs": "number", "profiles": "number"}}),
        ),
        ("GET", "/openapi.json", 200, json!({"openapi": "text", "info": {"version": "text"}, "paths": {}})),
        ("GET", "/nothing/here", 404, error("not_found")),
        ("POST", "/status", 405, error("invalid_request")),
        ("GET", "/admin/flush", 405, error("invalid_request")),
        ("DELETE", "/healthz", 405, error("invalid_request")),
    ]
}

/// The body of an error.
fn error(code: &str) -> Value {
    json!({"error": format!("={code}"), "message": "text", "details": {}})
}

fn check_endpoints(server: &Server) {
    for (method, path, status, shape) in endpoints() {
        let response = server.ask(&Request::new(method, path));
        assert_eq!(response.status, status, "{method} {path}: {}", response.text());
        hold(&shape, &response.json(), path);
    }
}

#[test]
fn every_endpoint_has_its_keys_types_and_codes_while_the_host_is_profiled() {
    needs!();
    let server = Server::start(&[]);
    check_endpoints(&server);

    let ready = server.get("/ready").expect(200).json();
    assert_eq!(ready["checks"], json!({"ebpf": "ok", "otlp": "disabled", "discovery": "ok"}));
    let ebpf = server.get("/status/ebpf").json();
    let programs = ebpf["programs"].as_array().expect("checked");
    assert!(
        programs
            .iter()
            .any(|it| it["name"] == "sample" && it["type"] == "perf_event" && it["attached"] == true)
    );
    assert!(programs.iter().all(|it| it["id"].as_u64() > Some(0)), "{programs:?}");
    let maps = ebpf["maps"].as_array().expect("checked");
    assert!(maps.iter().any(|it| it["type"] == "hash" && it["entries"].as_u64() > Some(0)), "{maps:?}");
    let status = server.get("/status").json();
    assert_eq!(status["ebpf"]["programs_loaded"], programs.len());
    assert_eq!(status["ebpf"]["maps_created"], maps.len());
    assert_eq!(status["ebpf"]["ringbuf_size"], ebpf["ringbuf"]["size"]);
    assert!(ebpf["ringbuf"]["size"].as_u64() >= Some(4096));
}

/// What `/status/ebpf` says is what the kernel says, asked by another tool.
#[test]
fn programs_and_maps_are_those_that_bpftool_lists() {
    needs!("bpftool");
    let server = Server::start(&[]);
    let ebpf = server.get("/status/ebpf").json();
    let listing = |of: &str| -> Vec<Value> {
        let output =
            std::process::Command::new("bpftool").args(["--json", of, "show"]).output().expect("bpftool");
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let programs = listing("prog");
    for program in ebpf["programs"].as_array().expect("programs") {
        let listed = programs.iter().find(|it| it["id"] == program["id"]);
        let listed = listed.unwrap_or_else(|| panic!("bpftool does not list {program}"));
        assert_eq!(listed["type"], program["type"], "{program}");
        // The kernel keeps 15 characters; some versions of bpftool find the others in the program's BTF.
        let kept = |name: &Value| name.as_str().map(|name| name.chars().take(15).collect::<String>());
        assert_eq!(kept(&listed["name"]), kept(&program["name"]), "{program}");
    }
    let maps = listing("map");
    for map in ebpf["maps"].as_array().expect("maps") {
        let name = map["name"].as_str().expect("text");
        let is_it = |listed: &&Value| {
            listed["type"] == map["type"]
                && listed["max_entries"] == map["max_entries"]
                && listed["name"].as_str() == name.get(..name.len().min(15))
        };
        // The kernel shows the names of sections in its own way.
        assert!(
            name.contains('.') || maps.iter().any(|listed| is_it(&listed)),
            "bpftool does not list {map}"
        );
    }
}

#[test]
fn every_endpoint_has_its_keys_types_and_codes_without_ebpf() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    check_endpoints(&server);
    let ready = server.get("/ready").expect(200).json();
    assert_eq!(ready["checks"], json!({"ebpf": "disabled", "otlp": "disabled", "discovery": "ok"}));
    let ebpf = server.get("/status/ebpf").json();
    let off = json!({"enabled": false, "programs": [], "maps": [],
                     "ringbuf": {"size": 0, "events_received": 0, "events_lost": 0}});
    assert_eq!(ebpf, off);
    let discovery = server.get("/status/discovery").json();
    assert_eq!(discovery["cloud"], json!({}));
    assert_eq!(discovery["kubernetes"]["enabled"], false);
    assert_eq!(discovery["kubernetes"]["cluster"], Value::Null);
}

#[test]
fn an_endpoint_that_refuses_makes_it_not_ready() {
    // Nobody listens where somebody has just stopped to.
    let port = support::servers::free_port();
    let text = format!("{WITHOUT_EBPF}otlp: {{endpoint: '127.0.0.1:{port}', insecure: true}}\n");
    let server = Server::start_with(&text, &[]);
    let not_ready = support::await_event("it is not ready", Duration::from_secs(30), || {
        let response = server.get("/ready");
        (response.status == 503).then(|| response.json())
    });
    assert_eq!(not_ready["status"], "not_ready");
    let check = not_ready["checks"]["otlp"].as_str().expect("text");
    assert!(check.starts_with("failed: ") && check.contains("refused"), "{check}");
    let export = server.get("/status/export").json();
    assert_eq!(export["endpoint"], format!("127.0.0.1:{port}"));
    assert_eq!(export["connected"], false);
    assert!(export["last_error"].as_str().is_some_and(|error| error.contains("refused")), "{export}");
    // It lives all the same.
    server.get("/healthz").expect(200);
}

#[test]
fn a_listening_server_is_discovered_with_its_port() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let services = server.get("/status/discovery").json()["discovered_services"].clone();
    let with_port = |port: u16| {
        services.as_array().expect("checked").iter().find(|service| {
            service["ports"].as_array().is_some_and(|ports| ports.contains(&Value::from(port)))
        })
    };
    assert!(with_port(port).is_some(), "{services}");
    assert_eq!(with_port(server.address.port()).expect("the server itself")["name"], "spanflame");
}

/// The names of "Monitoring" after the prefix, with their types.
const METRICS: [(&str, &str); 25] = [
    ("spans_collected_total", "counter"),
    ("spans_exported_total", "counter"),
    ("spans_dropped_total", "counter"),
    ("metrics_collected_total", "counter"),
    ("metrics_exported_total", "counter"),
    ("logs_collected_total", "counter"),
    ("logs_exported_total", "counter"),
    ("profiles_collected_total", "counter"),
    ("ebpf_programs_loaded", "gauge"),
    ("ebpf_map_entries", "gauge"),
    ("ebpf_ringbuf_events_total", "counter"),
    ("ebpf_ringbuf_lost_total", "counter"),
    ("ebpf_perf_events_total", "counter"),
    ("ebpf_perf_lost_total", "counter"),
    ("export_requests_total", "counter"),
    ("export_errors_total", "counter"),
    ("export_latency_seconds", "histogram"),
    ("export_batch_size", "histogram"),
    ("export_queue_size", "gauge"),
    ("process_cpu_seconds_total", "counter"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_open_fds", "gauge"),
    // What go_goroutines is replaced by.
    ("process_threads", "gauge"),
    ("tokio_tasks", "gauge"),
    ("losses_total", "counter"),
];

/// A page of metrics in the text format, as a scraper sees it: types by name, values by name and labels.
struct Page {
    types: BTreeMap<String, String>,
    values: BTreeMap<String, f64>,
}

impl Page {
    fn of(text: &str) -> Self {
        let mut page = Self { types: BTreeMap::new(), values: BTreeMap::new() };
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert_eq!(page.types.insert(name.to_owned(), kind.to_owned()), None, "{name} twice");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
                assert_eq!(page.values.insert(series.to_owned(), value), None, "{series} twice");
            }
        }
        page
    }

    fn value(&self, series: &str) -> f64 {
        *self.values.get(series).unwrap_or_else(|| panic!("{series} is missing"))
    }

    /// The sum over all reasons of a stage.
    fn losses(&self, stage: &str) -> f64 {
        let prefix = format!("spanflame_losses_total{{stage=\"{stage}\",");
        let of_stage: Vec<f64> = self
            .values
            .iter()
            .filter(|(name, _)| name.starts_with(&prefix))
            .map(|(_, value)| *value)
            .collect();
        assert!(!of_stage.is_empty(), "no losses of {stage}");
        of_stage.iter().sum()
    }
}

#[test]
fn every_metric_is_there_with_its_type_and_losses_add_up() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let response = server.get("/metrics").expect(200);
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = response.text();
    let page = Page::of(&text);
    for (name, kind) in METRICS {
        let name = format!("spanflame_{name}");
        assert_eq!(page.types.get(&name).map(String::as_str), Some(kind), "{name}");
    }
    for name in ["spans_collected", "spans_exported", "spans_dropped"] {
        assert_eq!(page.value(&format!("spanflame_{name}_total")), 0.0);
    }
    for name in ["logs_collected", "logs_exported"] {
        let help = format!("# HELP spanflame_{name}_total ");
        let line = text.lines().find(|line| line.starts_with(&help)).expect("a HELP");
        assert!(line.ends_with("(not produced yet)"), "{line}");
        assert_eq!(page.value(&format!("spanflame_{name}_total")), 0.0);
    }
    assert_eq!(page.losses("ringbuf"), page.value("spanflame_ebpf_ringbuf_lost_total"));
    assert_eq!(page.losses("perf"), page.value("spanflame_ebpf_perf_lost_total"));
    assert_eq!(page.losses("spans"), page.value("spanflame_spans_dropped_total"));
    assert!(page.value("spanflame_process_resident_memory_bytes") > 1e6);
    assert!(page.value("spanflame_process_open_fds") > 5.0);
}

#[test]
fn figures_of_a_profiled_host_are_true() {
    needs!();
    let server = Server::start(&[]);
    let page = || Page::of(&server.get("/metrics").expect(200).text());
    let page = support::await_event("samples", Duration::from_secs(20), || {
        let page = page();
        let events = page.value("spanflame_ebpf_ringbuf_events_total");
        (events > 0.0 && page.value("spanflame_ebpf_perf_events_total") > 0.0).then_some(page)
    });
    let status = server.get("/status/ebpf").json();
    let programs = status["programs"].as_array().expect("programs").len() as f64;
    assert_eq!(page.value("spanflame_ebpf_programs_loaded"), programs);
    assert!(page.value("spanflame_ebpf_map_entries") > 0.0);
    assert_eq!(page.losses("ringbuf"), page.value("spanflame_ebpf_ringbuf_lost_total"));
    assert_eq!(page.losses("perf"), page.value("spanflame_ebpf_perf_lost_total"));

    // A flush closes the open window; everything that arrived before is stored.
    let before = page.value("spanflame_ebpf_ringbuf_events_total");
    let flushed = server.post("/admin/flush", "").expect(200).json();
    assert_eq!(flushed["flushed"]["windows"], 1, "{flushed}");
    let after = Page::of(&server.get("/metrics").text());
    assert!(after.value("spanflame_samples_stored_total") >= before);
    assert!(after.value("spanflame_profiles_collected_total") >= 1.0);
    assert!(after.value("spanflame_store_bytes") > 0.0);
    let http = "spanflame_http_requests_total{route=\"/admin/flush\",method=\"POST\",status=\"200\"}";
    assert_eq!(after.value(http), 1.0);
}

#[test]
fn open_metrics_is_written_when_it_is_asked_for() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let response = server.ask(&Request::get("/metrics").header("Accept", accept)).expect(200);
    assert_eq!(
        response.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let text = response.text();
    assert!(
        text.ends_with("\n# EOF\n") && text.contains("# TYPE spanflame_spans_collected counter\n"),
        "{text}"
    );
}

#[test]
fn traced_requests_are_exemplars_of_their_histogram_in_open_metrics_only() {
    // Traces want an endpoint; nobody has to be there.
    let port = support::servers::free_port();
    let text = format!(
        "{WITHOUT_EBPF}otlp: {{endpoint: 'http://127.0.0.1:{port}'}}\n\
         self_telemetry: {{tracing: {{enabled: true, sample_rate: 1}}}}\n"
    );
    let server = Server::start_with(&text, &[]);
    server.get("/status").expect(200);
    let accept = "application/openmetrics-text; version=1.0.0";
    let page = server.ask(&Request::get("/metrics").header("Accept", accept)).expect(200).text();
    let bucket = "spanflame_http_request_duration_seconds_bucket{route=\"/status\",";
    let exemplar =
        page.lines().filter(|line| line.starts_with(bucket)).find_map(|line| line.split_once(" # "));
    let (_, exemplar) = exemplar.unwrap_or_else(|| panic!("no exemplar: {page}"));
    let trace =
        exemplar.strip_prefix("{trace_id=\"").and_then(|rest| rest.split_once('"')).expect("a trace").0;
    assert!(trace.len() == 32 && trace.bytes().all(|byte| byte.is_ascii_hexdigit()), "{exemplar}");
    assert!(!server.get("/metrics").expect(200).text().contains(" # {"));
}

#[test]
fn path_and_prefix_of_the_metrics_are_as_configured() {
    let text = format!("{WITHOUT_EBPF}self_telemetry: {{path: /prom/own, prometheus_namespace: sf}}\n");
    let server = Server::start_with(&text, &[]);
    assert!(server.get("/prom/own").expect(200).text().contains("\nsf_process_open_fds "));
    server.get("/metrics").expect(404);
    let description = server.get("/openapi.json").json();
    assert!(description["paths"]["/prom/own"]["get"].is_object());
    assert!(description["paths"]["/metrics"].is_null());
}

#[test]
fn debug_can_be_turned_off() {
    let server = Server::start_with(&format!("{WITHOUT_EBPF}self_telemetry: {{debug: false}}\n"), &[]);
    hold(&error("not_found"), &server.get("/debug/vars").expect(404).json(), "/debug/vars");
}

#[test]
fn every_endpoint_is_described() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let description = server.get("/openapi.json").json();
    for (method, path, status, _) in endpoints() {
        if status == 200 && path != "/openapi.json" {
            let operation = &description["paths"][path][method.to_ascii_lowercase()];
            assert!(operation["responses"]["200"].is_object(), "{method} {path}");
        }
    }
}
