//! Services that OpenTelemetry's SDK instruments: its spans and ours for the same request are one, the SDK's, with
//! our times and samples beside it, and are not exported twice.

mod support;

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::program::{Program, fixture_command};
use support::python_sdk::{SDK, python_with};
use support::server::{Server, WITHOUT_EBPF};
use support::{await_event, quiet_cores};

const INGEST: &str =
    "ingest: {otlp: {enabled: true, grpc_listen: '127.0.0.1:0', http_listen: '127.0.0.1:0'}}\n";

/// A server, and where it receives OTLP by HTTP.
fn receiving(configuration: &str) -> (Server, String) {
    let server = Server::start_with(&format!("{configuration}{INGEST}"), &["--listen", "127.0.0.1:0"]);
    let line = server.await_log("the addresses of the receivers", |line| line.contains("Receiving OTLP"));
    let line: Value = serde_json::from_str(&line).expect("the log is JSON");
    let url = format!("http://{}", line["http"].as_str().expect("an address"));
    (server, url)
}

fn python() -> Result<PathBuf, String> {
    let more = ["flask==3.1.*", "opentelemetry-instrumentation-flask==0.59b0"];
    let packages = [&SDK[..], &more, &["opentelemetry-instrumentation-urllib==0.59b0"]].concat();
    let modules = "flask, opentelemetry.exporter.otlp.proto.http, opentelemetry.instrumentation.flask, \
                   opentelemetry.instrumentation.urllib";
    python_with("otel-flask", &packages, modules)
}

/// A line of the truth.
#[derive(Debug, Clone, Default)]
struct Told(BTreeMap<String, String>);

impl Told {
    fn of(line: &str) -> Self {
        Self(serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
    }

    fn get(&self, key: &str) -> &str {
        &self.0[key]
    }
}

/// Asks once, on a connection of its own: Flask's server keeps none.
fn ask(port: u16, path: &str, headers: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    let request = format!("GET {path} HTTP/1.1\r\nHost: shop\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(answer.ends_with(b"\r\n\r\nok\n"), "{:?}", String::from_utf8_lossy(&answer));
}

fn listening(program: &mut Program) -> u16 {
    let line = program.line().expect("it says where it listens");
    line.strip_prefix("listening ").and_then(|port| port.trim().parse().ok()).expect("a port")
}

/// A span of OTLP/JSON.
#[derive(Debug, Clone)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    kind: u64,
    scope: String,
    attributes: HashMap<String, String>,
    service: String,
}

fn attributes(of: &Value) -> HashMap<String, String> {
    let text = |value: &Value| {
        let value = value.as_object().and_then(|value| value.values().next()).cloned().unwrap_or_default();
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    };
    let list = of["attributes"].as_array().cloned().unwrap_or_default();
    list.iter().map(|one| (one["key"].as_str().unwrap_or_default().to_owned(), text(&one["value"]))).collect()
}

fn trace(server: &Server, id: &str) -> Vec<Span> {
    let answer = server.get(&format!("/api/v1/traces/{id}")).expect(200).json();
    let mut spans = Vec::new();
    for resource in answer["resourceSpans"].as_array().expect("resources") {
        let service = attributes(&resource["resource"]).remove("service.name").unwrap_or_default();
        for scope in resource["scopeSpans"].as_array().expect("scopes") {
            for span in scope["spans"].as_array().expect("spans") {
                let text = |key: &str| span[key].as_str().unwrap_or_default().to_owned();
                spans.push(Span {
                    trace: text("traceId"),
                    id: text("spanId"),
                    parent: text("parentSpanId"),
                    kind: span["kind"].as_u64().unwrap_or_default(),
                    scope: scope["scope"]["name"].as_str().unwrap_or_default().to_owned(),
                    attributes: attributes(span),
                    service: service.clone(),
                });
            }
        }
    }
    spans
}

fn metric(server: &Server, line: &str) -> u64 {
    let text = server.get("/metrics").expect(200).text();
    let found = text.lines().find_map(|found| found.strip_prefix(line)).unwrap_or("0");
    found.trim().parse().expect("a number")
}

#[test]
fn what_an_sdk_and_we_have_seen_is_one_span_with_its_samples() {
    needs!();
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return support::skip(&reason),
    };
    let (backend, backend_url) = receiving(WITHOUT_EBPF);
    let configuration = format!(
        "otlp: {{endpoint: '{backend_url}', protocol: http/protobuf}}\nagent: {{ebpf: {{network: {{exclude_ports: \
         [{}]}}}}}}\n",
        backend.address.port()
    );
    let (server, url) = receiving(&configuration);
    let mut cart =
        Program::start_ready(fixture_command(&["http_threads", "300"]).env("OTEL_SERVICE_NAME", "cart"));
    let cart_port = listening(&mut cart);
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/python/sdk_service.py"));
    let mut shop = Program::start_ready(command.args([&url, &cart_port.to_string()]));
    let port = listening(&mut shop);

    // At the same time, half of them with a context of the caller's.
    let _quiet = quiet_cores();
    const ASKERS: u64 = 6;
    const EACH: u64 = 8;
    std::thread::scope(|scope| {
        for asker in 1..=ASKERS {
            scope.spawn(move || {
                for number in 1..=EACH {
                    let header = match number % 2 {
                        0 => format!("traceparent: 00-{asker:016x}{number:016x}-{asker:016x}-01\r\n"),
                        _ => String::new(),
                    };
                    let path = if number % 4 < 2 { "/burn/20" } else { "/call/10" };
                    ask(port, path, &header);
                }
            });
        }
    });
    let mut told: Vec<Told> = Vec::new();
    let spans_of_sdk = ASKERS * EACH + ASKERS * EACH / 2;
    for _ in 0..spans_of_sdk {
        told.push(Told::of(&shop.line().expect("a span")));
    }
    let joined = || {
        // A busy machine may not keep the window in time: then the next look finds it.
        server.post("/admin/flush", "");
        ["connection", "trace", "request"].map(|why| {
            metric(&server, &format!("spanflame_span_joins_total{{outcome=\"joined\",why=\"{why}\"}}"))
        })
    };
    let counts = await_event("all to be joined", Duration::from_secs(30), || {
        let counts = joined();
        (counts.iter().sum::<u64>() >= ASKERS * EACH).then_some(counts)
    });
    eprintln!("joined by connection, trace, request: {counts:?}");
    for why in ["ambiguous", "no_room"] {
        let line = format!("spanflame_span_joins_total{{outcome=\"apart\",why=\"{why}\"}}");
        assert_eq!(metric(&server, &line), 0, "{why}");
    }

    let mut samples = 0;
    for one in &told {
        let spans = trace(&server, one.get("trace"));
        let ours = |span: &&Span| span.scope == "spanflame";
        let found: Vec<&Span> = spans.iter().filter(|span| span.id == one.get("span")).collect();
        let [span] = found[..] else { panic!("{one:?} is {} of {spans:#?}", found.len()) };
        assert_eq!((span.service.as_str(), span.trace.as_str()), ("shop-by-sdk", one.get("trace")));
        assert!(
            span.attributes.contains_key("spanflame.duration_ns"),
            "{one:?} has not ours beside it: {span:#?}"
        );
        // The driver of this test is followed too: its client's span is above.
        if one.get("kind") == "server" {
            let parent = spans.iter().find(|span| span.id == found[0].parent);
            let parent = parent.unwrap_or_else(|| panic!("{one:?} has no parent in {spans:#?}"));
            assert_eq!((parent.kind, parent.scope.as_str()), (3, "spanflame"));
            let before = span.attributes["spanflame.joined.from"].split('-').nth(1).expect("its id before");
            let graph = |id: &str| {
                let path = format!("/api/v1/spans/{id}/flamegraph?format=json");
                let answer = server.get(&path).expect(200);
                answer
                    .header("x-spanflame-samples")
                    .and_then(|count| count.parse::<u64>().ok())
                    .expect("a number")
            };
            let count = graph(&span.id);
            assert_eq!(graph(before), count, "by the name that ours had");
            if one.get("path").starts_with("/burn") {
                samples += count;
            }
        } else {
            assert_eq!(span.parent, one.get("parent"), "as the SDK has it");
            let answer = spans.iter().find(|span| span.service == "cart").expect("it was asked");
            assert_eq!((answer.parent.as_str(), answer.kind), (one.get("span"), 2));
        }
        let of_shop = spans.iter().filter(ours).filter(|span| span.service.contains("sdk_service"));
        assert_eq!(of_shop.count(), 0, "nothing of ours is left of it: {spans:#?}");
    }
    // 24 requests of 20 ms at 499 Hz.
    eprintln!("{samples} samples in requests that burnt");
    assert!(samples > 24 * 5, "{samples}");

    // What comes from now on is left to the SDK; the service without one is exported.
    for number in 1..=5 {
        let header = format!("traceparent: 00-{:032x}-{number:016x}-01\r\n", 0xabc);
        ask(port, "/call/5", &header);
    }
    server.post("/admin/flush", "");
    let id = format!("{:032x}", 0xabc);
    let exported = await_event("what is exported", Duration::from_secs(20), || {
        server.post("/admin/flush", "");
        let answer = backend.get(&format!("/api/v1/traces/{id}"));
        (answer.status == 200).then(|| trace(&backend, &id))
    });
    let of = |service: &str| exported.iter().filter(|span| span.service.contains(service)).count();
    assert_eq!((of("sdk_service"), of("cart")), (0, 5), "{exported:#?}");
    assert!(metric(&server, "spanflame_spans_left_to_sdks_total ") >= 10);
}
