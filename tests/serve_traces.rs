//! Spans come in by OTLP, from an SDK too, are found again, and show what they ran.

mod support;

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use serde_json::{Value, json};
use support::collector::Collector;
use support::python_sdk::{SDK, python_with};
use support::server::{Request, Server, WITHOUT_EBPF};

/// A server with a receiver of OTLP, and where that listens.
struct ReceivingServer {
    server: Server,
    grpc: std::net::SocketAddr,
    http: std::net::SocketAddr,
}

const RECEIVES: &str =
    "ingest: {otlp: {enabled: true, grpc_listen: '127.0.0.1:0', http_listen: '127.0.0.1:0'}}\n";

fn receiving() -> ReceivingServer {
    let configuration = format!("{WITHOUT_EBPF}{RECEIVES}");
    let server = Server::start_with(&configuration, &["--listen", "127.0.0.1:0"]);
    let line = server.await_log("the addresses of the receivers", |line| line.contains("Receiving OTLP"));
    let line: Value = serde_json::from_str(&line).expect("the log is JSON");
    let address = |name: &str| line[name].as_str().and_then(|text| text.parse().ok()).expect("an address");
    ReceivingServer { grpc: address("grpc"), http: address("http"), server }
}

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_nanos()).expect("before 2554")
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn number(key: &str, value: i64) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::IntValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// A server's span of 100 ms that ended a second ago.
fn span(trace: u8, id: u8, parent: Option<u8>, name: &str) -> Span {
    let start = now_ns() - 1_100_000_000;
    Span {
        trace_id: vec![trace; 16],
        span_id: vec![id; 8],
        parent_span_id: parent.map_or_else(Vec::new, |parent| vec![parent; 8]),
        name: name.to_owned(),
        kind: 2,
        start_time_unix_nano: start,
        end_time_unix_nano: start + 100_000_000,
        attributes: vec![
            text("http.request.method", "GET"),
            text("http.route", name),
            number("http.response.status_code", 200),
        ],
        status: Some(Status::default()),
        ..Span::default()
    }
}

fn of_process(service: &str, pid: i64, spans: Vec<Span>) -> ResourceSpans {
    ResourceSpans {
        resource: Some(Resource {
            attributes: vec![text("service.name", service), number("process.pid", pid)],
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    }
}

fn request(resource_spans: Vec<ResourceSpans>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest { resource_spans }
}

fn send(receiving: &ReceivingServer, request: &ExportTraceServiceRequest) {
    let sent = Request::post("/v1/traces", request.encode_to_vec())
        .header("Content-Type", "application/x-protobuf")
        .send(receiving.http)
        .expect("an answer");
    assert_eq!(sent.header("content-type"), Some("application/x-protobuf"));
    assert_eq!(sent.status, 200, "{}", sent.text());
}

fn ids(answer: &Value, place: &str) -> Vec<String> {
    let all = answer["traces"].as_array().expect("a list");
    all.iter().map(|trace| trace[place].as_str().expect("a text").to_owned()).collect()
}

fn hex(byte: u8, count: usize) -> String {
    format!("{byte:02x}").repeat(count)
}

#[test]
fn traces_are_found_by_what_their_spans_are_and_come_back_as_otlp() {
    let receiving = receiving();
    let server = &receiving.server;
    let mut failed = span(2, 0x21, None, "/checkout");
    failed.status = Some(Status { code: 2, message: "no stock".to_owned() });
    failed.attributes[2] = number("http.response.status_code", 503);
    failed.end_time_unix_nano += 400_000_000;
    let mut open = span(3, 0x31, None, "/slow");
    open.end_time_unix_nano = 0;
    let shop = of_process("shop", 10, vec![span(1, 0x11, None, "/cart/{id}"), failed, open]);
    let mut client = span(1, 0x12, Some(0x11), "GET");
    client.kind = 3;
    client.attributes = Vec::new();
    let cart = of_process("cart", 20, vec![span(1, 0x13, Some(0x12), "/items")]);
    let shop_again = of_process("shop", 10, vec![client]);
    send(&receiving, &request(vec![shop, cart, shop_again]));

    let asked = |query: &str| server.get(&format!("/api/v1/traces?{query}")).expect(200).json();
    let all = asked("");
    assert_eq!(ids(&all, "trace_id"), [hex(1, 16), hex(3, 16), hex(2, 16)]);
    assert_eq!(all["next_cursor"], Value::Null);
    let first = &all["traces"][0];
    assert_eq!(
        first["root"],
        json!({"service": "shop", "name": "/cart/{id}", "span_id": hex(0x11, 8), "kind": "server"})
    );
    assert_eq!((&first["spans"], &first["errors"], &first["open"]), (&json!(3), &json!(0), &json!(0)));
    assert_eq!(first["services"], json!(["cart", "shop"]));
    for (query, expected) in [
        ("service=cart", vec![1]),
        ("service=cart&kind=client", vec![]),
        ("route=/checkout", vec![2]),
        ("status=5xx", vec![2]),
        ("status=503", vec![2]),
        ("error=true", vec![2]),
        ("error=false", vec![1, 3]),
        ("state=open", vec![3]),
        ("min_duration=0.5s", vec![2]),
        ("min_duration=501ms", vec![]),
        ("max_duration=100ms&kind=server", vec![1]),
        ("method=GET&kind=server&service=shop", vec![3, 2, 1]),
        ("from=-10m&to=-5m", vec![]),
        ("service=nobody", vec![]),
    ] {
        let expected: Vec<String> = expected.into_iter().map(|trace| hex(trace, 16)).collect();
        assert_eq!(ids(&asked(query), "trace_id"), expected, "{query}");
    }
    // Page by page, while another comes in.
    let first_page = asked("limit=2");
    send(&receiving, &request(vec![of_process("shop", 10, vec![span(4, 0x41, None, "/late")])]));
    let (from, to) =
        (first_page["from"].as_str().expect("a time"), first_page["to"].as_str().expect("a time"));
    let cursor = first_page["next_cursor"].as_str().expect("there is more");
    let second_page = asked(&format!("limit=2&from={from}&to={to}&cursor={cursor}"));
    let pages = [ids(&first_page, "trace_id"), ids(&second_page, "trace_id")].concat();
    assert_eq!(pages, [hex(1, 16), hex(3, 16), hex(2, 16)]);

    let trace = server.get(&format!("/api/v1/traces/{}", hex(1, 16))).expect(200).json();
    let resources = trace["resourceSpans"].as_array().expect("a list");
    let names: Vec<&Value> = resources
        .iter()
        .flat_map(|resource| resource["scopeSpans"][0]["spans"].as_array().expect("a list"))
        .map(|span| &span["name"])
        .collect();
    assert_eq!(names.len(), 3, "{trace}");
    let root = &resources[0]["scopeSpans"][0]["spans"][0];
    assert_eq!(
        (&root["traceId"], &root["spanId"], &root["kind"]),
        (&json!(hex(1, 16)), &json!(hex(0x11, 8)), &json!(2))
    );
    assert!(root["startTimeUnixNano"].is_string() && root["parentSpanId"].is_null(), "{root}");
    server.get(&format!("/api/v1/traces/{}", hex(9, 16))).expect(404);
    for malformed in ["x", &hex(0, 16), &hex(1, 15)] {
        server.get(&format!("/api/v1/traces/{malformed}")).expect(400);
    }
    for query in ["status=999", "kind=x", "limit=0", "cursor=x", "colour=red", "min_duration=5", "state=x"] {
        server.get(&format!("/api/v1/traces?{query}")).expect(400);
    }

    let spans = server.get("/api/v1/spans?kind=server&service=shop").expect(200).json();
    assert_eq!((&spans["count"], &spans["truncated"]), (&json!(4), &json!(false)));
    let columns = &spans["columns"];
    for column in columns.as_object().expect("columns").values() {
        assert_eq!(column.as_array().map(Vec::len), Some(4), "{columns}");
    }
    assert_eq!(columns["trace_id"][0], hex(4, 16));
    assert_eq!(spans["services"], json!(["shop"]));
    assert_eq!(columns["error"], json!([0, 0, 1, 0]));

    // The same spans sent again are no others.
    send(&receiving, &request(vec![of_process("shop", 10, vec![span(4, 0x41, None, "/late")])]));
    assert_eq!(server.get("/api/v1/spans?route=/late").expect(200).json()["count"], 1);
    let metrics = server.get("/metrics").expect(200).text();
    assert!(metrics.contains("\nspanflame_ingest_spans_total 7\n"), "{metrics}");
}

#[test]
fn what_cannot_be_taken_is_told_in_the_form_that_was_asked_in() {
    let receiving = receiving();
    let mut bad = span(1, 1, None, "/");
    bad.trace_id = vec![1; 3];
    let mut old = span(1, 2, None, "/");
    old.start_time_unix_nano = 5;
    let message = request(vec![of_process("shop", 1, vec![bad, old, span(1, 3, None, "/")])]);
    let json = spanflame::export::otlp_json::from_protobuf(
        &message.encode_to_vec(),
        &spanflame::export::otlp_schema::TRACES_REQUEST,
    );
    let sent = Request::post("/v1/traces", json.expect("ours")).header("Content-Type", "application/json");
    let answer = sent.send(receiving.http).expect("an answer").expect(200).json();
    assert_eq!(answer["partialSuccess"]["rejectedSpans"], "2", "{answer}");
    assert!(answer["partialSuccess"]["errorMessage"].to_string().contains("trace_id"), "{answer}");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let answered = runtime.block_on(async {
        let url = format!("http://{}", receiving.grpc);
        let mut client = TraceServiceClient::connect(url).await.expect("it listens");
        client.export(message).await
    });
    let partial = answered.expect("taken").into_inner().partial_success.expect("two are not");
    assert_eq!(partial.rejected_spans, 2);
    assert_eq!(receiving.server.get("/api/v1/spans").expect(200).json()["count"], 1);

    for (body, kind, status) in [
        (b"\xff\xff\xff".to_vec(), "application/x-protobuf", 400),
        (b"{".to_vec(), "application/json", 400),
        (Vec::new(), "text/plain", 415),
    ] {
        let sent = Request::post("/v1/traces", body).header("Content-Type", kind);
        sent.send(receiving.http).expect("an answer").expect(status);
    }
    let metrics = receiving.server.get("/metrics").expect(200).text();
    assert!(metrics.contains("{stage=\"ingest\",reason=\"ingest_invalid_id\"} 2\n"), "{metrics}");
}

/// A profile of 10 samples of 10 ms for each of these spans, in a function that is named after it.
fn stamped_profile(trace: u8, spans: &[u8]) -> Vec<u8> {
    use spanflame::model::{Frame, Function, Label, Location, Profile, Sample, ValueType};
    let mut profile = Profile {
        value_types: vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")],
        default_value: 1,
        duration_ns: 1_000_000_000,
        functions: vec![Function { name: "main".to_owned(), ..Function::default() }],
        ..Profile::default()
    };
    let location = |function, address| Location {
        address,
        frames: vec![Frame { function, line: 0 }],
        ..Location::default()
    };
    profile.locations.push(location(0, 1));
    for (index, &span) in (1..).zip(spans) {
        profile.functions.push(Function { name: format!("burn_{span:02x}"), ..Function::default() });
        profile.locations.push(location(index, u64::from(index) + 1));
        profile.stacks.push(vec![index, 0]);
        let ids = vec![Label::text("span_id", &hex(span, 8)), Label::text("trace_id", &hex(trace, 16))];
        profile.label_sets.push(ids);
        profile.samples.push(Sample { stack: index - 1, labels: index - 1, values: vec![10, 100_000_000] });
    }
    let mut bytes = Vec::new();
    let options = spanflame::export::Options::default();
    spanflame::export::write(&profile, spanflame::export::Format::Pprof, &mut bytes, &options)
        .expect("memory");
    bytes
}

#[test]
fn a_span_shows_what_it_ran_and_a_function_the_spans_that_ran_it() {
    let receiving = receiving();
    let server = &receiving.server;
    // 0x11 calls 0x12 in its own process and 0x13 in another; 0x14 is nobody's child, 0x15 was never sampled.
    let spans = vec![
        span(1, 0x11, None, "/a"),
        span(1, 0x12, Some(0x11), "inner"),
        span(1, 0x14, Some(0x99), "other"),
    ];
    let idle = span(2, 0x15, None, "/idle");
    let elsewhere = of_process("cart", 20, vec![span(1, 0x13, Some(0x12), "/b")]);
    send(&receiving, &request(vec![of_process("shop", 10, spans), elsewhere]));
    send(&receiving, &request(vec![of_process("shop", 10, vec![idle])]));
    let now = now_ns() / 1_000_000_000;
    let upload = format!("/api/v1/profiles?from={}&to={}", now - 5, now + 1);
    server.post(&upload, stamped_profile(1, &[0x11, 0x12, 0x13, 0x14, 0x16])).expect(200);

    let graph = |query: &str| {
        let answer = server.get(&format!("/api/v1/spans/{}/flamegraph?{query}", hex(0x11, 8)));
        answer.expect(200).text()
    };
    for (scope, expected) in [
        ("", vec!["11", "12"]),
        ("&scope=self", vec!["11", "12"]),
        ("&scope=subtree", vec!["11", "12", "13"]),
    ] {
        let folded = graph(&format!("format=folded{scope}"));
        for function in ["11", "12", "13", "14", "16"] {
            let is_there = folded.contains(&format!("main;burn_{function} 100000000\n"));
            assert_eq!(is_there, expected.contains(&function), "{scope} {function}: {folded}");
        }
    }
    let json: Value = serde_json::from_str(&graph(&format!("trace_id={}", hex(1, 16)))).expect("JSON");
    assert_eq!((&json["total"], &json["samples"]), (&json!(200_000_000), &json!(20)), "{json}");
    assert!(json.get("reason").is_none());
    for format in ["columnar", "svg", "pprof", "speedscope", "otlp"] {
        assert!(!graph(&format!("format={format}")).is_empty());
    }
    let path = |id: &str, query: &str| format!("/api/v1/spans/{id}/flamegraph?{query}");
    let empty = server.get(&path(&hex(0x15, 8), "")).expect(200);
    assert_eq!(empty.header("x-spanflame-samples"), Some("0"));
    assert!(empty.header("x-spanflame-reason").is_some());
    let empty = empty.json();
    assert_eq!((&empty["total"], &empty["samples"]), (&json!(0), &json!(0)));
    assert!(empty["reason"].as_str().is_some_and(|reason| reason.contains("no sample")), "{empty}");
    server.get(&path(&hex(0x77, 8), "")).expect(404);
    server.get(&path(&hex(0x11, 8), &format!("trace_id={}", hex(2, 16)))).expect(404);
    for (id, query) in
        [("x", ""), (&*hex(0, 8), ""), (&*hex(0x11, 8), "scope=x"), (&*hex(0x11, 8), "trace_id=x")]
    {
        server.get(&path(id, query)).expect(400);
    }

    let ran = server.get("/api/v1/profiles/spans?function=burn_12&from=-1h").expect(200).json();
    assert_eq!(
        (&ran["total"], &ran["stamped"], &ran["spans_total"]),
        (&json!(100_000_000), &json!(100_000_000), &json!(1))
    );
    let first = &ran["spans"][0];
    assert_eq!(
        (&first["span_id"], &first["samples"], &first["span"]["name"]),
        (&json!(hex(0x12, 8)), &json!(10), &json!("inner"))
    );
    let ran = server.get("/api/v1/profiles/spans?function=main&from=-1h&limit=2").expect(200).json();
    assert_eq!((&ran["spans_total"], ran["spans"].as_array().map(Vec::len)), (&json!(5), Some(2)));
    let unknown = server.get("/api/v1/profiles/spans?function=burn_16&from=-1h").expect(200).json();
    assert_eq!(unknown["spans"][0]["span"], Value::Null);
    server.get("/api/v1/profiles/spans?from=-1h").expect(400);
}

#[test]
fn spans_survive_the_end_of_the_process_however_it_comes() {
    let directory = tempfile::tempdir().expect("a folder");
    let configuration = format!("{WITHOUT_EBPF}{RECEIVES}");
    for id in 1..=4_u8 {
        let server = Server::start_on(directory.path(), &configuration);
        let line = server.await_log("the addresses of the receivers", |line| line.contains("Receiving OTLP"));
        let line: Value = serde_json::from_str(&line).expect("the log is JSON");
        let address =
            |name: &str| line[name].as_str().and_then(|text| text.parse().ok()).expect("an address");
        let receiving = ReceivingServer { grpc: address("grpc"), http: address("http"), server };
        send(&receiving, &request(vec![of_process("shop", 10, vec![span(1, id, None, "/")])]));
        let trace = receiving.server.get(&format!("/api/v1/traces/{}", hex(1, 16))).expect(200).json();
        let spans = trace["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().map(Vec::len);
        assert_eq!(spans, Some(id.into()), "{trace}");
        match id % 2 {
            0 => drop(receiving.server.stop()),
            _ => receiving.server.kill(),
        }
    }
}

#[test]
fn spans_come_through_a_collector_unchanged() {
    let collector_binary = needs_collector!();
    let receiving = receiving();
    let next = format!("http://{}", receiving.http);
    let collector = Collector::start(&collector_binary, "traces", Some(&next));
    // Own spans, since they are made with or without a kernel that can be traced.
    let configuration = format!(
        "{WITHOUT_EBPF}otlp: {{endpoint: '127.0.0.1:{}', insecure: true, protocol: grpc}}\n\
         self_telemetry: {{tracing: {{enabled: true, sample_rate: 1.0}}}}\n",
        collector.grpc
    );
    let server = Server::start_with(&configuration, &[]);
    server.get("/status").expect(200);
    server.post("/admin/flush", "").expect(200);
    let path = "/api/v1/traces?service=spanflame&kind=server";
    let named = support::await_event("the span behind the Collector", Duration::from_secs(20), || {
        let traces = receiving.server.get(path).expect(200).json();
        let all = traces["traces"].as_array().expect("a list").clone();
        all.into_iter().find(|trace| trace["root"]["name"] == "GET /status")
    });
    let id = named["trace_id"].as_str().expect("a text");
    // The same span in the Collector's words.
    collector.await_text(id);
    let log = collector.log();
    let printed = log.split("Span #").find(|span| span.contains(id) && span.contains("GET /status"));
    let printed = printed.expect("it was sent through it");
    for field in [named["span"]["span_id"].as_str().expect("a text"), "Server"] {
        assert!(printed.contains(field), "{field}: {printed}");
    }
}

/// Two thousand requests of two services, each with a client's span between; prints what it made.
const SDK_PROGRAM: &str = r#"
import json, sys
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
import opentelemetry.trace as api

exporter = lambda: OTLPSpanExporter(endpoint=sys.argv[1] + "/v1/traces")
providers = {}
for name in ("front", "back"):
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(exporter(), max_queue_size=1 << 20))
    providers[name] = provider
front, back = (providers[name].get_tracer("sdk", "1") for name in ("front", "back"))
made = []
for number in range(1000):
    with front.start_as_current_span("GET /a", kind=SpanKind.SERVER, attributes={"http.route": "/a", "n": number}) as one:
        with front.start_as_current_span("GET", kind=SpanKind.CLIENT) as two:
            with back.start_as_current_span("GET /b", kind=SpanKind.SERVER) as three:
                three.add_event("read", {"rows": [1, 2, 3]})
                if number % 10 == 0:
                    three.set_status(Status(StatusCode.ERROR, "tenth"))
        for span in (one, two, three):
            parent = span.parent.span_id if span.parent else 0
            context = span.get_span_context()
            made.append([format(context.trace_id, "032x"), format(context.span_id, "016x"), format(parent, "016x"), span.name])
for provider in providers.values():
    provider.shutdown()
print(json.dumps(made))
"#;

#[test]
fn what_an_sdk_sends_is_what_is_found() {
    let modules = "opentelemetry.sdk, opentelemetry.exporter.otlp.proto.http";
    let python = match python_with("otel-sdk", &SDK, modules) {
        Ok(python) => python,
        Err(reason) => return support::skip(&reason),
    };
    let receiving = receiving();
    let output = Command::new(python)
        .args(["-c", SDK_PROGRAM, &format!("http://{}", receiving.http)])
        .output()
        .expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: Vec<[String; 4]> = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(made.len(), 3000);
    let server = &receiving.server;

    // All traces, page by page, each with its three spans.
    let mut found = Vec::new();
    let mut query = "limit=300&service=front&kind=server&from=-5m".to_owned();
    loop {
        let page = server.get(&format!("/api/v1/traces?{query}")).expect(200).json();
        for trace in page["traces"].as_array().expect("a list") {
            assert_eq!((&trace["spans"], &trace["root"]["name"]), (&json!(3), &json!("GET /a")), "{trace}");
            assert_eq!(trace["services"], json!(["back", "front"]));
            found.push(trace["trace_id"].as_str().expect("a text").to_owned());
        }
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        let (from, to) = (page["from"].as_str().expect("a time"), page["to"].as_str().expect("a time"));
        query = format!("limit=300&service=front&kind=server&from={from}&to={to}&cursor={cursor}");
    }
    found.sort();
    let mut expected: Vec<String> = made.chunks(3).map(|trace| trace[0][0].clone()).collect();
    expected.sort();
    assert_eq!(found, expected);
    let failed = server.get("/api/v1/spans?error=true&from=-5m").expect(200).json();
    assert_eq!((&failed["count"], &failed["services"]), (&json!(100), &json!(["back"])));

    // Single ones to the last field.
    for trace in made.chunks(3).step_by(97) {
        let stored = server.get(&format!("/api/v1/traces/{}", trace[0][0])).expect(200).json();
        let mut spans = Vec::new();
        for resource in stored["resourceSpans"].as_array().expect("a list") {
            for span in resource["scopeSpans"][0]["spans"].as_array().expect("a list") {
                let of = |key: &str| span[key].as_str().unwrap_or("0000000000000000").to_owned();
                spans.push([of("traceId"), of("spanId"), of("parentSpanId"), of("name")]);
                if span["name"] == "GET /b" {
                    let rows = &span["events"][0]["attributes"][0]["value"]["arrayValue"]["values"];
                    assert_eq!(rows, &json!([{"intValue": "1"}, {"intValue": "2"}, {"intValue": "3"}]));
                }
            }
        }
        let (mut spans, mut trace) = (spans, trace.to_vec());
        spans.sort();
        trace.sort();
        assert_eq!(spans, trace);
    }
    support::await_event("the count", Duration::from_secs(5), || {
        let metrics = server.get("/metrics").expect(200).text();
        metrics.contains("\nspanflame_ingest_spans_total 3000\n").then_some(())
    });
}
