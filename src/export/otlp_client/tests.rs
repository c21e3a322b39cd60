//! The exporter against receivers of the test's own.

use std::collections::VecDeque;
use std::sync::Mutex;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use opentelemetry_proto::tonic::collector::profiles::v1development as collector;
use opentelemetry_proto::tonic::profiles::v1development as proto;
use prost::Message;

use super::*;
use crate::config::{Compression, Protocol};
use crate::export::otlp_conformance;
use crate::model::{Label, LabelValue, Sample, ValueType};

fn window(processes: i64) -> Arc<Profile> {
    let labels = |pid| {
        vec![Label::text("comm", "burn"), Label { key: "pid".to_owned(), value: LabelValue::Number(pid) }]
    };
    let count = u32::try_from(processes).expect("few");
    Arc::new(Profile {
        value_types: vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")],
        default_value: 1,
        period_type: Some(ValueType::new("cpu", "nanoseconds")),
        period: 10_000_000,
        start_unix_ns: 1_700_000_000_000_000_000,
        duration_ns: 10_000_000_000,
        stacks: [[]].into(),
        label_sets: (0..processes).map(labels).collect(),
        samples: (0..count).map(|labels| Sample { stack: 0, labels, values: vec![3, 30_000_000] }).collect(),
        ..Profile::default()
    })
}

/// A request as the receiver saw it.
#[derive(Debug, Clone)]
struct Seen {
    path: String,
    headers: ::http::HeaderMap,
    message: proto::ProfilesData,
}

/// Answers with what it was told to, and with success when that is used up.
#[derive(Default)]
struct Receiver {
    seen: Mutex<Vec<Seen>>,
    answers: Mutex<VecDeque<Answer>>,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }
}

impl Receiver {
    fn answering(answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.into_iter().collect()), ..Self::default() })
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }

    /// On a port of its own; HTTP/1.1 and HTTP/2.
    async fn listen(self: &Arc<Self>) -> String {
        let router = Router::new().fallback(answer).with_state(Arc::clone(self));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }
}

async fn answer(State(receiver): State<Arc<Receiver>>, request: axum::extract::Request) -> Response {
    let (head, body) = request.into_parts();
    let mut body = axum::body::to_bytes(body, usize::MAX).await.expect("a body").to_vec();
    let header =
        |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    let content_type = header("content-type");
    let is_grpc = content_type == "application/grpc";
    let mut is_gzip = header("content-encoding") == "gzip";
    if is_grpc {
        is_gzip = body[0] == 1;
        body.drain(..5);
    }
    if is_gzip {
        let mut plain = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(body.as_slice()), &mut plain)
            .expect("gzip");
        body = plain;
    }
    if content_type == "application/json" {
        body = crate::ingest::otlp_json::to_protobuf(&body, &crate::export::otlp_schema::PROFILES_REQUEST)
            .expect("JSON");
    }
    let message = proto::ProfilesData::decode(body.as_slice()).expect("a request");
    let path = head.uri.path().to_owned();
    receiver.seen.lock().expect("no panic").push(Seen { path, headers: head.headers, message });
    let answer =
        receiver.answers.lock().expect("no panic").pop_front().unwrap_or_else(|| Answer::status(200));
    let mut response = Response::builder().status(answer.status).header("content-type", content_type);
    let mut answer = answer;
    if is_grpc && answer.headers.is_empty() {
        response = response.header("grpc-status", "0");
        if answer.body.is_empty() {
            // The frame of an empty message.
            answer.body = vec![0; 5];
        }
    }
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(answer.body)).expect("a response")
}

fn configuration(endpoint: &str, protocol: Protocol) -> Otlp {
    let endpoint = endpoint.strip_prefix("http://").unwrap_or(endpoint);
    let (host, port) = endpoint.rsplit_once(':').expect("a port");
    let mut otlp = Otlp { protocol, insecure: true, ..Otlp::default() };
    otlp.endpoint = Some(crate::config::Endpoint {
        scheme: None,
        host: host.to_owned(),
        port: port.parse().ok(),
        path: String::new(),
    });
    otlp.profiles.enabled = true;
    otlp
}

fn start(configuration: &Otlp) -> OtlpExporter {
    OtlpExporter::start(configuration, Handle::current()).expect("it can be used")
}

fn assert_nothing_is_lost_silently(exporter: &OtlpExporter, offered: u64) {
    let status = exporter.status().profiles;
    assert_eq!(status.exported + status.dropped_in_all() + status.size, offered, "{status:?}");
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn every_protocol_and_compression_carries_the_same_message() {
    let mut messages = Vec::new();
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf, Protocol::HttpJson] {
        for compression in [Compression::Gzip, Compression::None] {
            let receiver = Receiver::answering([]);
            let mut otlp = configuration(&receiver.listen().await, protocol);
            otlp.compression = compression;
            let exporter = start(&otlp);
            exporter.offer(window(3));
            assert_eq!(exporter.flush(LONG).await, 0, "{protocol:?} {compression:?}");
            let seen = receiver.seen();
            assert_eq!(seen.len(), 1, "{protocol:?} {compression:?}");
            let path = match protocol {
                Protocol::Grpc => {
                    "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"
                }
                _ => "/v1development/profiles",
            };
            assert_eq!(seen[0].path, path);
            let agent = seen[0].headers["user-agent"].to_str().expect("text");
            assert!(agent.starts_with("spanflame/"), "{agent}");
            assert_eq!(otlp_conformance::violations(&seen[0].message), Vec::<String>::new());
            messages.push(seen[0].message.clone());
            let status = exporter.status();
            assert_eq!((status.profiles.exported, status.requests(), status.errors()), (6, 1, 0));
            assert!(status.connected && status.last_export.is_some() && status.last_error.is_none());
            assert_eq!((status.latency.count(), status.batch_size.sum), (1, 6.0));
            assert_eq!(exporter.check().await, Health::Ok);
        }
    }
    assert!(messages.iter().all(|message| *message == messages[0]));
}

#[tokio::test]
async fn a_receiver_that_is_busy_is_asked_again_and_not_before_it_said() {
    let busy = Answer { headers: vec![("retry-after", "2".to_owned())], ..Answer::status(503) };
    let receiver = Receiver::answering([busy]);
    let exporter = start(&configuration(&receiver.listen().await, Protocol::HttpProtobuf));
    let began = std::time::Instant::now();
    exporter.offer(window(1));
    while exporter.status().profiles.exported == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(began.elapsed() < LONG, "{:?}", exporter.status());
    }
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    let status = exporter.status();
    assert_eq!((status.requests(), status.errors(), status.profiles.exported), (2, 1, 2));
    assert_eq!(receiver.seen()[0].message, receiver.seen()[1].message);
}

#[tokio::test]
async fn partial_success_is_counted() {
    let partial = collector::ExportProfilesServiceResponse {
        partial_success: Some(collector::ExportProfilesPartialSuccess {
            rejected_profiles: 2,
            error_message: "two are too old".to_owned(),
        }),
    };
    let json = br#"{"partialSuccess":{"rejectedProfiles":"2","errorMessage":"two are too old"}}"#;
    let protobuf = partial.encode_to_vec();
    let mut framed = vec![0, 0, 0, 0, u8::try_from(protobuf.len()).expect("small")];
    framed.extend(&protobuf);
    for (protocol, body) in
        [(Protocol::Grpc, framed), (Protocol::HttpProtobuf, protobuf), (Protocol::HttpJson, json.to_vec())]
    {
        let receiver = Receiver::answering([Answer { body, ..Answer::status(200) }]);
        let exporter = start(&configuration(&receiver.listen().await, protocol));
        exporter.offer(window(2));
        exporter.flush(LONG).await;
        let status = exporter.status().profiles;
        assert_eq!((status.exported, status.dropped["rejected_by_receiver"]), (2, 2), "{protocol:?}");
        assert_nothing_is_lost_silently(&exporter, 4);
    }
}

#[tokio::test]
async fn what_is_refused_for_good_is_dropped_and_not_ready_says_so() {
    let grpc = Answer {
        headers: vec![("grpc-status", "12".to_owned()), ("grpc-message", "unknown service".to_owned())],
        ..Answer::status(200)
    };
    for (protocol, answer, reason) in [
        (Protocol::HttpProtobuf, Answer::status(404), "refused: HTTP 404 Not Found"),
        (Protocol::Grpc, grpc, "refused: unimplemented: unknown service"),
    ] {
        let receiver = Receiver::answering([answer]);
        let exporter = start(&configuration(&receiver.listen().await, protocol));
        exporter.offer(window(1));
        exporter.flush(LONG).await;
        let status = exporter.status().profiles;
        assert_eq!((status.exported, status.errors), (0, 1), "{protocol:?}");
        assert_eq!(status.dropped["refused_by_receiver"], 2);
        assert_eq!(exporter.check().await, Health::Failed(reason.to_owned()));
        exporter.offer(window(1));
        exporter.flush(LONG).await;
        assert_eq!(exporter.check().await, Health::Ok, "the next was taken");
        assert_nothing_is_lost_silently(&exporter, 4);
    }
}

#[tokio::test]
async fn while_nobody_listens_the_queue_fills_and_the_newest_are_counted_as_dropped() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let exporter = start(&configuration(&address.to_string(), Protocol::Grpc));
    for _ in 0..6 {
        exporter.offer(window(1000));
    }
    assert_nothing_is_lost_silently(&exporter, 12_000);
    let status = exporter.status().profiles;
    assert_eq!((status.size, status.dropped["export_queue_full"]), (10_000, 2_000));
    assert_eq!(exporter.flush(Duration::from_millis(1500)).await, 10_000);
    assert_eq!(exporter.check().await, Health::Failed("connection refused".to_owned()));
    let status = exporter.status();
    assert!(!status.connected);
    assert_eq!(status.last_error.as_deref(), Some("connection refused"));

    // A receiver elsewhere gets all that waited.
    let receiver = Receiver::answering([]);
    exporter.reconfigure(&configuration(&receiver.listen().await, Protocol::HttpProtobuf)).expect("usable");
    assert_eq!(exporter.flush(LONG).await, 0);
    assert_eq!(exporter.status().profiles.exported, 10_000);
    assert_nothing_is_lost_silently(&exporter, 12_000);
    assert_eq!(exporter.check().await, Health::Ok);
}

#[tokio::test]
async fn an_endpoint_that_listens_and_lets_nothing_through_is_not_well() {
    // It speaks no TLS.
    let receiver = Receiver::answering([]);
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let mut otlp = configuration(&receiver.listen().await, protocol);
        otlp.insecure = false;
        let exporter = start(&otlp);
        assert_eq!(exporter.check().await, Health::Ok, "nothing has been tried yet");
        exporter.offer(window(1));
        let _ = exporter.flush(Duration::from_millis(3500)).await;
        let health = exporter.check().await;
        assert!(matches!(health, Health::Failed(_)), "{protocol:?}: {health:?} {:?}", exporter.status());
        assert_nothing_is_lost_silently(&exporter, 2);
    }
}

#[tokio::test]
async fn without_an_endpoint_nothing_is_taken_and_what_waits_is_counted_as_dropped() {
    let exporter = start(&Otlp::default());
    exporter.offer(window(1));
    assert_eq!(exporter.check().await, Health::Disabled);
    assert_eq!(exporter.status().profiles.size, 0);
    let mut otlp = configuration("127.0.0.1:9", Protocol::HttpProtobuf);
    exporter.reconfigure(&otlp).expect("usable");
    exporter.offer(window(1));
    otlp.profiles.enabled = false;
    exporter.reconfigure(&otlp).expect("usable");
    exporter.offer(window(1));
    assert_eq!(exporter.flush(LONG).await, 0);
    assert_eq!(exporter.status().profiles.dropped["export_disabled"], 2);
    assert_nothing_is_lost_silently(&exporter, 2);
}

#[tokio::test]
async fn headers_are_sent_and_never_shown() {
    let receiver = Receiver::answering([]);
    let mut otlp = configuration(&receiver.listen().await, Protocol::HttpJson);
    otlp.headers = crate::config::Headers::for_tests("authorization", "Bearer hunter2");
    let exporter = start(&otlp);
    exporter.offer(window(1));
    exporter.flush(LONG).await;
    assert_eq!(receiver.seen()[0].headers["authorization"], "Bearer hunter2");
    let shown = format!("{:?} {:?}", exporter.status(), otlp);
    assert!(!shown.contains("hunter2"), "{shown}");
}
