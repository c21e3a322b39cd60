//! Profiles leave by OTLP and come in by it: to and from a real Collector, to and from another spanflame,
//! and what happens when the other side refuses, is away, or lies.

mod support;

use std::io::Write;
use std::time::Duration;

use opentelemetry_proto::tonic::profiles::v1development::ProfilesData;
use prost::Message;
use serde_json::Value;
use support::collector::{Collector, Receiver};
use support::otlp_conformance;
use support::program::{Program, fixture_command};
use support::server::{Request, Server, WITHOUT_EBPF};
use support::servers::free_port;

/// A server with a receiver of OTLP, and where that listens.
struct ReceivingServer {
    server: Server,
    grpc: std::net::SocketAddr,
    http: std::net::SocketAddr,
}

const RECEIVES: &str =
    "ingest: {otlp: {enabled: true, grpc_listen: '127.0.0.1:0', http_listen: '127.0.0.1:0'}}\n";

fn receiving(configuration: &str) -> ReceivingServer {
    let configuration = format!("{WITHOUT_EBPF}{RECEIVES}{configuration}");
    let server = Server::start_with(&configuration, &["--listen", "127.0.0.1:0"]);
    let line = server.await_log("the addresses of the receivers", |line| line.contains("Receiving OTLP"));
    let line: Value = serde_json::from_str(&line).expect("the log is JSON");
    let address = |name: &str| line[name].as_str().and_then(|text| text.parse().ok()).expect("an address");
    ReceivingServer { grpc: address("grpc"), http: address("http"), server }
}

fn exporting_to(endpoint: &str, protocol: &str) -> String {
    format!(
        "otlp: {{endpoint: '{endpoint}', insecure: true, protocol: {protocol}, profiles: {{enabled: true}}, \
         metrics: {{enabled: false}}, traces: {{enabled: false}}}}\nagent: {{profiling: {{sample_rate: 99}}}}\n"
    )
}

/// Lets the server see a fixture burn for a while and send what it saw.
fn flushed_after_a_while(server: &Server) -> u64 {
    std::thread::sleep(Duration::from_secs(3));
    let answer = server.post("/admin/flush", "").expect(200).json();
    answer["flushed"]["profiles"].as_u64().expect("a number")
}

/// Exported and dropped, once nothing waits: a window may have ended since a flush.
fn settled_profiles(server: &Server) -> (u64, u64) {
    support::await_event("an empty queue", Duration::from_secs(20), || {
        let (size, exported, dropped) = profiles_queue(server);
        (size == 0).then_some((exported, dropped))
    })
}

fn profiles_queue(server: &Server) -> (u64, u64, u64) {
    let status = server.get("/status/export").expect(200).json();
    let of = |key: &str| status["queues"]["profiles"][key].as_u64().expect("a number");
    (of("size"), of("exported"), of("dropped"))
}

/// Self time of a function of a process by name.
fn functions_of(server: &Server, pid: u32) -> std::collections::BTreeMap<String, u64> {
    let top = server.get(&format!("/api/v1/profiles/top?type=cpu&pid={pid}&from=-1h")).expect(200).json();
    let functions = top["functions"].as_array().expect("a list");
    functions
        .iter()
        .map(|function| {
            let name = function["name"].as_str().expect("a name").to_owned();
            (name, function["self"].as_u64().expect("a number"))
        })
        .collect()
}

#[test]
fn a_collector_accepts_profiles_by_grpc_and_by_http_and_prints_their_functions() {
    needs!();
    let collector_binary = needs_collector!();
    let program = Program::start_ready(&mut fixture_command(&["shares", "90"]));
    for protocol in ["grpc", "http/protobuf", "http/json"] {
        let collector = Collector::start(&collector_binary, "profiles", None);
        let port = if protocol == "grpc" { collector.grpc } else { collector.http };
        let server = Server::start_with(&exporting_to(&format!("127.0.0.1:{port}"), protocol), &[]);
        assert!(flushed_after_a_while(&server) > 0, "{protocol}: {}", server.log());
        for text in ["burn_sixty", "burn_thirty", "burn_ten", "service.name: Str(shares)"] {
            collector.await_text(text);
        }
        collector.await_text(&format!("process.pid: Int({})", program.pid));
        let (exported, dropped) = settled_profiles(&server);
        assert!(exported > 0 && dropped == 0, "{protocol}: {exported} exported, {dropped} dropped");
        assert_eq!(server.get("/ready").expect(200).json()["checks"]["otlp"], "ok");
        let line = server.await_log("the batch", |line| line.contains("Exported batch"));
        let line: Value = serde_json::from_str(&line).expect("the log is JSON");
        assert!(line["latency_ms"].is_u64() && line["profiles"].is_u64(), "{line}");
        assert_eq!(line["endpoint"], format!("127.0.0.1:{port}"));
    }
}

#[test]
fn a_collector_that_refuses_profiles_makes_us_not_ready_and_every_profile_is_counted() {
    needs!();
    let collector_binary = needs_collector!();
    let _program = Program::start_ready(&mut fixture_command(&["shares", "60"]));
    let collector = Collector::start(&collector_binary, "traces", None);
    let server = Server::start_with(&exporting_to(&format!("127.0.0.1:{}", collector.grpc), "grpc"), &[]);
    assert_eq!(flushed_after_a_while(&server), 0);
    let (exported, dropped) = settled_profiles(&server);
    assert!(exported == 0 && dropped > 0, "{exported} exported, {dropped} dropped");
    let ready = server.get("/ready").expect(503).json();
    assert_eq!(ready["status"], "not_ready");
    let reason = ready["checks"]["otlp"].as_str().expect("text");
    assert!(reason.starts_with("failed: refused: unimplemented"), "{reason}");
    let metrics = server.get("/metrics").expect(200).text();
    let counted =
        format!("spanflame_losses_total{{stage=\"export\",reason=\"refused_by_receiver\"}} {dropped}");
    assert!(metrics.contains(&counted), "{counted}:\n{metrics}");
}

#[test]
fn an_endpoint_that_is_away_is_waited_for_and_a_reload_leads_elsewhere() {
    needs!();
    let _program = Program::start_ready(&mut fixture_command(&["shares", "60"]));
    let away = format!("127.0.0.1:{}", free_port());
    let server = Server::start_with(&exporting_to(&away, "http/protobuf"), &[]);
    // The flush waits for an endpoint that does not come.
    assert_eq!(flushed_after_a_while(&server), 0);
    let ready = server.get("/ready").expect(503).json();
    assert_eq!(ready["checks"]["otlp"], "failed: connection refused");
    let (size, exported, dropped) = profiles_queue(&server);
    assert!(size > 0 && exported == 0 && dropped == 0, "{size} {exported} {dropped}");
    let status = server.get("/status/export").expect(200).json();
    assert_eq!((&status["connected"], &status["last_export"]), (&Value::Bool(false), &Value::Null));
    assert_eq!(status["last_error"], "connection refused");

    let receiver = Receiver::start();
    server.write_configuration(&exporting_to(&format!("127.0.0.1:{}", receiver.port), "http/protobuf"));
    server.post("/admin/reload", "").expect(200);
    server.post("/admin/flush", "").expect(200);
    let (exported, dropped) = settled_profiles(&server);
    assert!(exported >= size && dropped == 0, "{exported} {dropped}");
    assert_eq!(server.get("/ready").expect(200).json()["checks"]["otlp"], "ok");

    // An endpoint that cannot be one is refused, and the one before stays.
    server.write_configuration("otlp: {endpoint: 'x'}\n");
    server.post("/admin/reload", "").expect(400);
    assert_eq!(
        server.get("/status/export").expect(200).json()["endpoint"],
        format!("127.0.0.1:{}", receiver.port)
    );
}

#[test]
fn every_request_conforms_to_the_data_model_and_carries_the_secret_headers() {
    needs!();
    let program = Program::start_ready(&mut fixture_command(&["shares", "60"]));
    let receiver = Receiver::start();
    let configuration = exporting_to(&format!("127.0.0.1:{}", receiver.port), "http/protobuf")
        .replace("otlp: {", "otlp: {headers: {authorization: 'Bearer hunter2'}, ");
    let server = Server::start_with(&configuration, &[]);
    flushed_after_a_while(&server);
    flushed_after_a_while(&server);
    let requests = receiver.received();
    assert!(requests.len() >= 2, "{} requests", requests.len());
    let (mut texts, mut attributes) = (std::collections::BTreeSet::new(), String::new());
    for request in &requests {
        assert_eq!(request.path, "/v1development/profiles");
        assert_eq!(request.header("authorization"), Some("Bearer hunter2"));
        let message = ProfilesData::decode(request.body.as_slice()).expect("a request");
        assert_eq!(otlp_conformance::violations(&message), Vec::<String>::new());
        for resource in &message.resource_profiles {
            let attributes = &resource.resource.as_ref().expect("there is one").attributes;
            assert!(attributes.iter().any(|attribute| attribute.key == "host.name"), "{attributes:?}");
        }
        let dictionary = message.dictionary.expect("there is one");
        attributes += &format!("{:?}", dictionary.attribute_table);
        texts.extend(dictionary.string_table);
    }
    // In all of them together: a window may end at the moment of a flush, which then sends two or three samples.
    for expected in ["burn_sixty", "process.executable.build_id.gnu", "profile.frame.type"] {
        assert!(texts.contains(expected), "{expected}");
    }
    assert!(attributes.contains("native") && attributes.contains("kernel"), "{attributes}");
    assert!(!server.log().contains("hunter2"));
    for path in ["/config", "/status/export", "/metrics", "/status", "/ready"] {
        assert!(!server.get(path).text().contains("hunter2"), "{path}");
    }
    drop(program);
}

#[test]
fn what_one_server_exports_another_takes_in_as_it_was() {
    needs!();
    let program = Program::start_ready(&mut fixture_command(&["shares", "90"]));
    for protocol in ["grpc", "http/protobuf", "http/json"] {
        let receiving = receiving("");
        let endpoint = if protocol == "grpc" { receiving.grpc } else { receiving.http };
        let server = Server::start_with(&exporting_to(&endpoint.to_string(), protocol), &[]);
        flushed_after_a_while(&server);
        // No window may come between the two questions: what one has, the other has.
        server.write_configuration(
            &exporting_to(&endpoint.to_string(), protocol)
                .replace("sample_rate: 99", "enabled: false, sample_rate: 99"),
        );
        server.post("/admin/reload", "").expect(200);
        server.post("/admin/flush", "").expect(200);
        let ours = functions_of(&server, program.pid);
        assert!(ours.keys().any(|name| name == "burn_sixty"), "{protocol}: {ours:?}");
        assert_eq!(functions_of(&receiving.server, program.pid), ours, "{protocol}");
        let services = receiving.server.get("/api/v1/services?from=-1h").expect(200).json();
        assert!(services.to_string().contains("\"shares\""), "{services}");
        let metrics = receiving.server.get("/metrics").expect(200).text();
        assert!(!metrics.contains("spanflame_ingest_profiles_total 0\n"), "{metrics}");
    }
}

#[test]
fn a_collector_sends_on_to_us() {
    needs!();
    let collector_binary = needs_collector!();
    let program = Program::start_ready(&mut fixture_command(&["shares", "60"]));
    let receiving = receiving("");
    let collector =
        Collector::start(&collector_binary, "profiles", Some(&format!("http://{}", receiving.http)));
    let server = Server::start_with(&exporting_to(&format!("127.0.0.1:{}", collector.grpc), "grpc"), &[]);
    flushed_after_a_while(&server);
    let functions = support::await_event("the profile behind the Collector", Duration::from_secs(20), || {
        let path = format!("/api/v1/profiles/top?type=cpu&pid={}&from=-1h", program.pid);
        (receiving.server.get(&path).status == 200).then(|| functions_of(&receiving.server, program.pid))
    });
    assert!(functions.contains_key("burn_sixty"), "{functions:?}");
}

/// A small pprof profile of now.
fn pprof(function: &str) -> Vec<u8> {
    use spanflame::model::{Frame, Function, Label, Location, Profile, Sample, ValueType};
    let profile = Profile {
        value_types: vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")],
        default_value: 1,
        duration_ns: 1_000_000_000,
        functions: vec![Function { name: function.to_owned(), ..Function::default() }],
        locations: vec![Location {
            address: 1,
            frames: vec![Frame { function: 0, line: 7 }],
            ..Location::default()
        }],
        stacks: [[0]].into(),
        label_sets: vec![vec![Label::number("pid", 4_000_001)]],
        samples: vec![Sample { stack: 0, labels: 0, values: vec![3, 30_000_000] }],
        ..Profile::default()
    };
    let mut bytes = Vec::new();
    let options = spanflame::export::Options::default();
    spanflame::export::write(&profile, spanflame::export::Format::Pprof, &mut bytes, &options)
        .expect("memory");
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn an_uploaded_pprof_can_be_queried() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let answer = server.post("/api/v1/profiles?service=uploaded", pprof("work")).expect(200).json();
    assert_eq!(answer["samples"], 1, "{answer}");
    let top = server.get("/api/v1/profiles/top?type=cpu&service=uploaded&from=-1h").expect(200).json();
    assert_eq!((&top["functions"][0]["name"], &top["total"]), (&"work".into(), &30_000_000.into()));
    // At a time that the client says.
    let path = "/api/v1/profiles?service=earlier&from=-3h&to=-2h";
    server.post(path, pprof("before")).expect(200);
    let top = server.get("/api/v1/profiles/top?type=cpu&service=earlier&from=-4h&to=-1h").expect(200).json();
    assert_eq!(top["functions"][0]["name"], "before");
    server.get("/api/v1/profiles/top?type=cpu&service=earlier&from=-1h").expect(404);
}

#[test]
fn bad_uploads_are_refused_with_a_reason() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let bomb = gzip(&vec![0; 80 << 20]);
    let upload = |query: &str, body: Vec<u8>| Request::post(&format!("/api/v1/profiles{query}"), body);
    for (request, status, expected) in [
        (upload("", Vec::new()), 400, "empty"),
        (upload("", b"not a profile".to_vec()), 400, "protocol-buffer"),
        (upload("", bomb), 413, "decompression"),
        (upload("?service=", pprof("f")), 400, "service"),
        (upload("?from=-1h", pprof("f")), 400, "to"),
        (upload("?from=-1h&to=-2h", pprof("f")), 400, "after"),
        (upload("?from=yesterday&to=now", pprof("f")), 400, "from"),
        (upload("?from=100&to=200", pprof("f")), 400, "year"),
        (upload("?colour=red", pprof("f")), 400, "colour"),
        (upload("", pprof("f")).header("Content-Type", "text/html"), 415, "text/html"),
        (upload("", pprof("f")).header("Content-Encoding", "br"), 415, "gzip"),
    ] {
        let answer = server.ask(&request).expect(status);
        let json = answer.json();
        assert!(json.to_string().contains(expected), "{expected}: {json}");
        assert_eq!(json["error"], "invalid_request");
    }
    assert!(server.get("/healthz").status == 200);
}

/// Peak of a process's resident memory, bytes.
fn peak_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("there is one");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}

#[test]
fn a_gigabyte_is_refused_and_takes_no_memory_however_it_comes() {
    let receiving = receiving("");
    let before = peak_bytes(receiving.server.pid);
    for address in [receiving.server.address, receiving.http] {
        let path = if address == receiving.http { "/v1development/profiles" } else { "/api/v1/profiles" };
        for framing in ["Content-Length: 1073741824", "Transfer-Encoding: chunked"] {
            let mut stream = std::net::TcpStream::connect(address).expect("it listens");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/x-protobuf\r\n{framing}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).expect("it listens");
            let mut sender = stream.try_clone().expect("a descriptor");
            let sending = std::thread::spawn(move || {
                let block = vec![0_u8; 1 << 20];
                let chunk = [b"100000\r\n".as_slice(), &block, b"\r\n"].concat();
                // Until nobody listens any more.
                (0..1024).take_while(|_| sender.write_all(&chunk).is_ok()).count()
            });
            let mut answer = [0; 64];
            let length = std::io::Read::read(&mut stream, &mut answer).unwrap_or(0);
            let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
            assert!(answer.starts_with("HTTP/1.1 413"), "{path} {framing}: {answer:?}");
            drop(stream);
            let sent = sending.join().expect("no panic");
            assert!(sent < 1024, "{path} {framing}: all of it was read");
        }
    }
    let grown = peak_bytes(receiving.server.pid) - before;
    assert!(grown < 220 << 20, "it took {} MiB", grown >> 20);
    receiving.server.get("/healthz").expect(200);
}

#[test]
fn requests_that_are_none_are_refused_in_the_form_they_came_in() {
    let receiving = receiving("");
    let send = |path: &str, content_type: &str, body: &[u8]| {
        let request = Request::post(path, body).header("Content-Type", content_type);
        request.send(receiving.http).expect("an answer")
    };
    let profiles = "/v1development/profiles";
    let json = send(profiles, "application/json; charset=utf-8", b"{\"resourceProfiles\":7}").expect(400);
    assert_eq!(json.header("content-type"), Some("application/json"));
    assert!(json.json()["message"].as_str().expect("text").contains("resourceProfiles"), "{}", json.text());
    let protobuf = send(profiles, "application/x-protobuf", b"\xff\xff").expect(400);
    assert_eq!(protobuf.header("content-type"), Some("application/x-protobuf"));
    send(profiles, "text/plain", b"").expect(415);
    send(profiles, "application/x-protobuf", &gzip(&vec![0; 80 << 20])).expect(413);
    let empty = send(profiles, "application/x-protobuf", b"").expect(200);
    assert_eq!((empty.header("content-type"), empty.body.len()), (Some("application/x-protobuf"), 0));
    assert_eq!(send(profiles, "application/json", b"{}").expect(200).text(), "{}");
    for signal in ["metrics", "logs"] {
        let answer = send(&format!("/v1/{signal}"), "application/json", b"{}").expect(501);
        assert!(answer.text().contains("only profiles"), "{}", answer.text());
    }
    assert_eq!(Request::get("/v1/profiles").send(receiving.http).expect("an answer").status, 404);

    // A page behind a name that its owner made resolve to us.
    let rebound = Request::post(profiles, "{}").header("Host", "evil.example");
    assert_eq!(
        rebound.header("Content-Type", "application/json").send(receiving.http).expect("an answer").status,
        403
    );
    let metrics = receiving.server.get("/metrics").expect(200).text();
    for counted in [
        "spanflame_losses_total{stage=\"ingest\",reason=\"ingest_malformed\"} 2",
        "spanflame_losses_total{stage=\"ingest\",reason=\"ingest_too_large\"} 1",
    ] {
        assert!(metrics.contains(counted), "{counted}:\n{metrics}");
    }
}

/// Calls the receiver by gRPC with the client that opentelemetry-proto generates.
fn call(
    address: std::net::SocketAddr,
    token: Option<&str>,
    message: ProfilesData,
) -> Result<i64, tonic::Status> {
    use opentelemetry_proto::tonic::collector::profiles::v1development as collector;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let url = format!("http://{address}");
        let client = collector::profiles_service_client::ProfilesServiceClient::connect(url).await;
        let mut client = client.expect("it listens").send_compressed(tonic::codec::CompressionEncoding::Gzip);
        let request = collector::ExportProfilesServiceRequest {
            resource_profiles: message.resource_profiles,
            dictionary: message.dictionary,
        };
        let mut request = tonic::Request::new(request);
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().expect("visible");
            request.metadata_mut().insert("authorization", value);
        }
        let answer = client.export(request).await?.into_inner();
        Ok(answer.partial_success.map_or(0, |partial| partial.rejected_profiles))
    })
}

#[test]
fn grpc_says_what_was_rejected_and_refuses_what_contradicts_itself() {
    use opentelemetry_proto::tonic::profiles::v1development as proto;
    let receiving = receiving("");
    let profile = |time_unix_nano, stack_index| ProfilesData {
        resource_profiles: vec![proto::ResourceProfiles {
            scope_profiles: vec![proto::ScopeProfiles {
                profiles: vec![proto::Profile {
                    time_unix_nano,
                    samples: vec![proto::Sample { stack_index, values: vec![1], ..Default::default() }],
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        }],
        dictionary: Some(proto::ProfilesDictionary::default()),
    };
    assert_eq!(call(receiving.grpc, None, profile(0, 0)).expect("taken"), 0);
    // Seconds where nanoseconds are meant.
    assert_eq!(call(receiving.grpc, None, profile(1_790_000_000, 0)).expect("taken"), 1);
    let refused = call(receiving.grpc, None, profile(0, 7)).expect_err("there is no stack 7");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("stack 7"), "{refused:?}");
}

#[test]
fn with_authentication_nobody_sends_without_the_token() {
    let auth = "self_telemetry: {auth: {enabled: true, bearer_token: hunter2}}\n";
    let receiving = receiving(auth);
    let request =
        || Request::post("/v1development/profiles", "{}").header("Content-Type", "application/json");
    assert_eq!(request().send(receiving.http).expect("an answer").status, 401);
    assert_eq!(request().bearer("hunter1").send(receiving.http).expect("an answer").status, 401);
    assert_eq!(request().bearer("hunter2").send(receiving.http).expect("an answer").status, 200);
    let without = call(receiving.grpc, None, ProfilesData::default()).expect_err("no token");
    assert_eq!(without.code(), tonic::Code::Unauthenticated);
    assert_eq!(call(receiving.grpc, Some("hunter2"), ProfilesData::default()).expect("it may"), 0);
    let upload = Request::post("/api/v1/profiles", pprof("f"));
    assert_eq!(receiving.server.ask(&upload).status, 401);
    assert_eq!(receiving.server.ask(&upload.bearer("hunter2")).status, 200);
    assert!(!receiving.server.log().contains("hunter"), "{}", receiving.server.log());
}

/// Exports its own metrics, and a span of everything it does.
fn telling_of_itself(endpoint: &str, protocol: &str) -> String {
    format!(
        "{WITHOUT_EBPF}otlp: {{endpoint: '{endpoint}', insecure: true, protocol: {protocol}}}\n\
         self_telemetry: {{tracing: {{enabled: true, sample_rate: 1.0}}}}\n"
    )
}

#[test]
fn own_metrics_and_spans_leave_as_well() {
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    let receiver = Receiver::start();
    let server =
        Server::start_with(&telling_of_itself(&format!("127.0.0.1:{}", receiver.port), "http/protobuf"), &[]);
    server.get("/status").expect(200);
    server.post("/api/v1/profiles?service=uploaded", pprof("work")).expect(200);
    let flushed = server.post("/admin/flush", "").expect(200).json()["flushed"].clone();
    assert!(flushed["metrics"].as_u64() > Some(20) && flushed["traces"].as_u64() >= Some(3), "{flushed}");
    let received = receiver.received();
    let bodies = |path: &str| -> Vec<Vec<u8>> {
        received.iter().filter(|request| request.path == path).map(|request| request.body.clone()).collect()
    };
    let metrics = bodies("/v1/metrics");
    let request = ExportMetricsServiceRequest::decode(metrics[0].as_slice()).expect("a request");
    let names: Vec<&str> = request.resource_metrics[0].scope_metrics[0]
        .metrics
        .iter()
        .map(|metric| metric.name.as_str())
        .collect();
    for name in ["spanflame_process_resident_memory_bytes", "spanflame_ingest_profiles", "spanflame_losses"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    assert!(!names.contains(&"spanflame_logs_collected"), "there are none to count");
    let mut spans = Vec::new();
    for body in bodies("/v1/traces") {
        for resource in ExportTraceServiceRequest::decode(body.as_slice()).expect("a request").resource_spans
        {
            spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    let named = |name: &str| {
        let found = spans.iter().find(|span| span.name == name);
        found.unwrap_or_else(|| {
            panic!("{name}: {:?}", spans.iter().map(|span| span.name.as_str()).collect::<Vec<_>>())
        })
    };
    let upload = named("POST /api/v1/profiles");
    assert_eq!(upload.parent_span_id, b"");
    let taken_in = named("take in");
    assert_eq!((&taken_in.parent_span_id, &taken_in.trace_id), (&upload.span_id, &upload.trace_id));
    let status = named("GET /status");
    assert!(status.end_time_unix_nano >= status.start_time_unix_nano);
    assert_ne!(status.trace_id, upload.trace_id);
    // The export of spans makes no spans: it comes to rest.
    assert!(spans.iter().all(|span| span.name != "export"), "{spans:?}");
}

#[test]
fn a_collector_understands_our_metrics_and_spans() {
    let collector_binary = needs_collector!();
    for (signal, protocol, expected) in [
        ("metrics", "http/json", "-> Name: spanflame_process_resident_memory_bytes"),
        ("metrics", "grpc", "-> Name: spanflame_export_latency_seconds"),
        ("traces", "http/json", "Name           : GET /status"),
        ("traces", "grpc", "-> http.route: Str(/status)"),
    ] {
        let collector = Collector::start(&collector_binary, signal, None);
        let port = if protocol == "grpc" { collector.grpc } else { collector.http };
        let server = Server::start_with(&telling_of_itself(&format!("127.0.0.1:{port}"), protocol), &[]);
        server.get("/status").expect(200);
        server.post("/admin/flush", "").expect(200);
        collector.await_text(expected);
        collector.await_text("service.name: Str(spanflame)");
    }
}
