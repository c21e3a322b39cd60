//! `serve` beside programs that say themselves what they are and in which span; and captures for
//! `/debug/pprof/` that carry spans.

mod support;

use std::time::{Duration, Instant};

use serde_json::Value;
use support::http_threads::{Service, ask};
use support::pprof_text::Profile;
use support::program::{Program, fixture_command};
use support::server::{Request, Server};
use support::{await_event, quiet_cores};

/// The samples of a live capture of a process: what ran, and whether they say in which span.
fn captured(server: &Server, query: &str) -> Vec<(Vec<String>, Option<String>)> {
    let request = Request::get(&format!("/debug/pprof/profile?{query}"));
    let answer = request.send(server.address).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let file = server.directory.path().join("captured.pb.gz");
    std::fs::write(&file, &answer.body).expect("it is ours");
    let profile = Profile::read(&file);
    let functions = |ids: &[u64]| -> Vec<String> {
        let locations = ids.iter().filter_map(|id| profile.locations.get(id));
        let names = locations.flat_map(|location| location.functions.clone());
        names.filter_map(|name| Some(name.split_whitespace().next()?.to_owned())).collect()
    };
    let of = |sample: &support::pprof_text::Sample| {
        assert_eq!(sample.labels.contains_key("span_id"), sample.labels.contains_key("trace_id"));
        (functions(&sample.locations), sample.labels.get("span_id").cloned())
    };
    profile.samples.iter().map(of).collect()
}

#[test]
fn a_program_is_called_what_it_calls_itself_and_its_samples_are_found_by_its_spans() {
    needs!("go");
    let server = Server::start(&[]);
    let program = Program::start_ready(&mut fixture_command(&["otel_context", "120"]));
    let _quiet = quiet_cores();
    await_event("its name", Duration::from_secs(60), || {
        // A busy machine may not keep the window in time: then the next look finds it.
        server.post("/admin/flush", "");
        let services = server.get("/api/v1/services").expect(200).json();
        let services = services["services"].as_array().expect("a list").clone();
        services.iter().any(|service| service["name"] == "told-by-itself").then_some(())
    });
    let trace = "02".repeat(16);
    let path =
        format!("/api/v1/profiles/flamegraph?format=folded&trace_id={trace}&span_id={}", "03".repeat(8));
    let folded = await_event("samples of a span", Duration::from_secs(60), || {
        server.post("/admin/flush", "");
        let answer = server.get(&path);
        (answer.status == 200 && !answer.body.is_empty()).then(|| answer.text())
    });
    assert!(folded.contains("span_3"), "{folded}");
    for other in ["span_1", "span_2", "no_span"] {
        assert!(!folded.contains(other), "{folded}");
    }
    let metrics = server.get("/metrics").expect(200).text();
    let said =
        metrics.lines().find_map(|line| line.strip_prefix("spanflame_samples_named_by_application_total "));
    assert!(said.and_then(|count| count.parse::<u64>().ok()) > Some(0), "{said:?}");

    let captured = captured(&server, &format!("seconds=2&frequency=499&pid={}", program.pid));
    let mut named = 0;
    for (functions, span) in &captured {
        let work = functions.iter().find_map(|name| name.strip_prefix("span_")?.parse::<u8>().ok());
        let expected = work.map(|span| format!("{span:02x}").repeat(8));
        assert_eq!(*span, expected, "{functions:?}");
        named += usize::from(span.is_some());
    }
    assert!(named > 20, "{named} of {}", captured.len());
}

#[test]
fn a_live_capture_says_in_which_request_its_samples_were_taken() {
    needs!("go");
    let server = Server::start(&[]);
    let shop = Service::start("shop", None);
    let _quiet = quiet_cores();
    let until = Instant::now() + Duration::from_secs(6);
    let captured = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = shop.connect();
            while Instant::now() < until {
                ask(&mut stream, "/class/a/20", "");
            }
        });
        captured(&server, &format!("seconds=3&frequency=499&pid={}", shop.program.pid))
    });
    let of = |function: &str| {
        let mut counts = [0, 0];
        for (functions, span) in &captured {
            if functions.iter().any(|name| name == function) {
                counts[usize::from(span.is_some())] += 1;
            }
        }
        counts
    };
    // Each line is a stack and a span; there are as many spans as requests.
    let [without, with] = of("serve_a");
    eprintln!("in a request: {with} stamped, {without} not");
    assert!(with > 20 && without * 20 <= with, "{with} {without}");
    assert_eq!(of("after_the_response")[1], 0, "that is no request's");
    let ids: std::collections::BTreeSet<&String> =
        captured.iter().filter_map(|(_, span)| span.as_ref()).collect();
    server.post("/admin/flush", "");
    for id in ids.iter().take(3) {
        let answer = server.get(&format!("/api/v1/spans/{id}/flamegraph?format=json")).expect(200).json();
        assert!(matches!(answer["total"], Value::Number(_)), "{answer}");
    }
}
