//! Requests of services that nobody instruments: each becomes a span, its calls are its children, and its flame
//! graph shows what it ran and nothing else.

mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::http_threads::{Service, ask};
use support::program::fixture_command;
use support::server::Server;
use support::spans::trace;
use support::{await_event, quiet_cores};

/// All traces of a service that are there, newest first, as they are listed.
fn traces_of(server: &Server, service: &str, more: &str) -> Vec<Value> {
    server.flush();
    let answer = server.get(&format!("/api/v1/traces?service={service}&limit=1000{more}")).expect(200).json();
    answer["traces"].as_array().expect("traces").clone()
}

#[test]
fn every_request_is_a_span_and_the_calls_it_makes_are_its_children() {
    needs!();
    let server = Server::start(&[]);
    let cart = Service::start("cart", None);
    let shop = Service::start("shop", Some(cart.port));
    let mut stream = shop.connect();
    for number in 0..20 {
        ask(&mut stream, &format!("/call/class/a/{number}"), "");
    }
    let traces = traces_of(&server, "shop", "");
    assert_eq!(traces.len(), 20, "a trace a request");
    for listed in &traces {
        let spans = trace(&server, listed["trace_id"].as_str().expect("an id"));
        let find = |service: &str, kind: u64| {
            spans
                .iter()
                .find(|span| span.service == service && span.kind == kind)
                .unwrap_or_else(|| panic!("no span of kind {kind} of {service} in {spans:#?}"))
        };
        let (request, call, answer) = (find("shop", 2), find("shop", 3), find("cart", 2));
        assert_eq!(request.name, "GET /call/class/a/{id}");
        assert_eq!(request.attributes["http.response.status_code"], "200");
        assert_eq!(request.attributes["http.response.body.size"], "3");
        assert_eq!((call.parent.as_str(), answer.parent.as_str()), (request.id.as_str(), call.id.as_str()));
        assert_eq!(call.attributes["spanflame.parent.source"], "thread");
        assert_eq!(answer.attributes["spanflame.parent.source"], "local_peer");
        assert!(request.duration_ns >= call.duration_ns && call.duration_ns >= answer.duration_ns);
        // The driver of this test is a service too: its client span is above the shop's.
        assert_eq!(spans.len(), 4, "{spans:#?}");
    }
}

#[test]
fn the_flame_graph_of_one_request_shows_what_that_request_ran() {
    needs!();
    let _quiet = quiet_cores();
    let server = Server::start(&[]);
    let shop = Service::start("slow-shop", None);
    // Its unwind tables are made when it is first seen.
    ask(&mut shop.connect(), "/class/b/300", "");
    std::thread::sleep(Duration::from_secs(1));
    ask(&mut shop.connect(), "/slow", "");
    let traces = traces_of(&server, "slow-shop", "&route=/slow");
    assert_eq!(traces.len(), 1, "{traces:?}");
    let span = &traces[0]["span"];
    let path = format!(
        "/api/v1/spans/{}/flamegraph?trace_id={}&format=json",
        span["span_id"].as_str().expect("an id"),
        traces[0]["trace_id"].as_str().expect("an id")
    );
    let graph = server.get(&path).expect(200).json();
    let total = graph["total"].as_u64().expect("a total");
    let slow = total_of(&graph, "the_slow_function");
    let rest = total_of(&graph, "the_rest");
    let share = 100.0 * slow as f64 / total as f64;
    assert!((share - 66.7).abs() <= 5.0, "the_slow_function has {share:.1} % of {graph}");
    assert!(slow + rest >= total * 95 / 100, "nothing else: {graph}");
    assert_eq!(total_of(&graph, "after_the_response"), 0, "that belongs to no request");
    assert_eq!(total_of(&graph, "serve_b"), 0, "nor does another request");
    // 300 ms of CPU at 499 Hz.
    assert!((250_000_000..=350_000_000).contains(&total), "{total} ns");
}

/// The sum of a function's nodes that have no such node above them.
fn total_of(node: &Value, function: &str) -> u64 {
    if node["name"].as_str().is_some_and(|name| name.starts_with(function)) {
        return node["total"].as_u64().unwrap_or_default();
    }
    node["children"].as_array().into_iter().flatten().map(|child| total_of(child, function)).sum()
}

/// Samples of processes of one program, which all are asked things of all classes at once. `class_of` says by the
/// functions on its stack which class a sample is of.
fn check_stamps(services: &[(&str, Service)], classes: &[&str], class_of: impl Fn(&[&str]) -> Option<usize>) {
    let server = Server::start(&[]);
    for (_, service) in services {
        // Its unwind tables are made when it is first seen.
        for class in classes {
            ask(&mut service.connect(), &format!("/class/{class}/300"), "");
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    // Four clients of each at once on two cores: requests are preempted in the middle. Each process is at another
    // class at a time.
    std::thread::scope(|scope| {
        for (nth, (_, service)) in services.iter().enumerate() {
            for client in 0..4 {
                let mut stream = service.connect();
                scope.spawn(move || {
                    for turn in 0..25 {
                        let class = classes[(client + turn + nth) % classes.len()];
                        ask(&mut stream, &format!("/class/{class}/{}", 10 + (turn * 7) % 20), "");
                    }
                });
            }
        }
    });
    for (name, _) in services {
        let traces = traces_of(&server, name, "");
        assert_eq!(traces.len(), 100 + classes.len());
        let routes: BTreeMap<String, String> = traces
            .iter()
            .map(|one| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                (text(&one["span"]["span_id"]), text(&one["span"]["route"]))
            })
            .collect();
        let path = format!("/api/v1/profiles/flamegraph?service={name}&format=pprof&from=-2m");
        let profile = server.get(&path).expect(200);
        let file = server.directory.path().join("classes.pb.gz");
        std::fs::write(&file, &profile.body).expect("it can be written");
        let profile = support::pprof_text::Profile::read(&file);
        let (mut right, mut wrong, mut unstamped, mut stray) = (0, 0, 0, 0);
        for sample in &profile.samples {
            let frames = sample.locations.iter().filter_map(|id| profile.locations.get(id));
            let names: Vec<&str> =
                frames.flat_map(|location| &location.functions).map(String::as_str).collect();
            let id = sample.labels.get("span_id");
            // One of the other process's requests would be wrong as well.
            let route = id.map(|id| routes.get(id).map_or("another service's", String::as_str));
            let count = sample.values[0];
            match (class_of(&names), route) {
                (Some(class), Some(route)) if route.starts_with(&format!("/class/{}/", classes[class])) => {
                    right += count;
                }
                (Some(_), Some(_)) => wrong += count,
                (Some(_), None) => unstamped += count,
                (None, Some(_)) if names.contains(&"after_the_response") => stray += count,
                (None, _) => {}
            }
        }
        eprintln!("{name}: {right} right, {wrong} wrong, {unstamped} unstamped, {stray} stray");
        assert!(right >= 300, "{name}: {right} right, {wrong} wrong, {unstamped} unstamped, {stray} stray");
        assert_eq!((wrong, stray), (0, 0), "{name}: {right} right, {unstamped} unstamped");
        let stamped = 100.0 * right as f64 / (right + unstamped) as f64;
        assert!(stamped >= 95.0, "{name}: {stamped:.1} % of the samples in requests are stamped");
    }
}

/// The class whose function, of whatever module, is among these.
fn class_by_function(names: &[&str]) -> Option<usize> {
    ["serve_a", "serve_b", "serve_c"]
        .into_iter()
        .position(|function| names.iter().any(|name| name.rsplit("::").next() == Some(function)))
}

#[test]
fn samples_are_stamped_with_the_span_of_their_request_and_no_other() {
    needs!();
    let _quiet = quiet_cores();
    let services = ["classes-one", "classes-two"].map(|name| (name, Service::start(name, None)));
    check_stamps(&services, &["a", "b", "c"], class_by_function);
}

#[test]
fn samples_of_two_processes_of_a_rust_program_are_stamped_with_their_own_requests() {
    needs!();
    let _quiet = quiet_cores();
    let services = ["rust-one", "rust-two"]
        .map(|name| (name, Service::start_as(name, fixture_command(&["classes_rust", "300"]))));
    check_stamps(&services, &["a", "b", "c"], class_by_function);
}

#[test]
fn samples_of_two_processes_of_a_python_program_are_stamped_with_their_own_requests() {
    needs!("python3");
    let _quiet = quiet_cores();
    let services = ["python-one", "python-two"].map(|name| {
        let mut command = Command::new("python3");
        command.args([concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/python/classes.py"), "300"]);
        (name, Service::start_as(name, command))
    });
    check_stamps(&services, &["a", "b"], |names| {
        let has = |begin: &str| names.iter().any(|name| name.starts_with(begin));
        if has("crc32") { Some(0) } else { has("EVP_DigestUpdate").then_some(1) }
    });
}

#[test]
fn a_context_that_came_with_a_request_is_its_parent() {
    needs!();
    let server = Server::start(&[]);
    let shop = Service::start("contexts", None);
    let trace_id = "0af7651916cd43dd8448eb211c80319c";
    let header = format!("traceparent: 00-{trace_id}-b7ad6b7169203331-01\r\n");
    ask(&mut shop.connect(), "/class/a/1", &header);
    await_event("the trace", Duration::from_secs(10), || {
        server.flush();
        (server.get(&format!("/api/v1/traces/{trace_id}")).status == 200).then_some(())
    });
    let spans = trace(&server, trace_id);
    // This test sent the header, so its own span is the one that the header names.
    let driver = spans.iter().find(|span| span.kind == 3).expect("a client's span");
    let server_span = spans.iter().find(|span| span.kind == 2).expect("a server's span");
    assert_eq!(driver.id, "b7ad6b7169203331");
    assert_eq!(server_span.parent, "b7ad6b7169203331");
    assert_eq!(server_span.attributes["spanflame.parent.source"], "header");
    drop(shop.program);
}
