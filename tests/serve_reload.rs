//! A configuration that changes while the server runs: by `POST /admin/reload` and by `SIGHUP`. And its log.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::server::{Request, Server, WITHOUT_EBPF};

#[test]
fn a_new_configuration_is_in_effect_after_a_reload() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    server.write_configuration(&format!(
        "{WITHOUT_EBPF}storage: {{max_age: 3h, max_bytes: 64MiB}}\nself_telemetry: {{debug: false}}\n"
    ));
    let answer = server.post("/admin/reload", "").expect(200).json();
    assert_eq!(answer["status"], "ok");
    assert_eq!(answer["message"], "Configuration reloaded");
    let changed = json!(["storage.max_age", "storage.max_bytes", "self_telemetry.debug"]);
    assert_eq!(answer["details"]["changed"], changed);
    let configuration = server.get("/config").json();
    assert_eq!(configuration["storage"]["max_age"], "3h");
    server.get("/debug/vars").expect(404);
    assert!(server.get("/metrics").text().contains(&format!("\nspanflame_store_max_bytes {}\n", 64 << 20)));
}

#[test]
fn a_wrong_configuration_changes_nothing_and_all_its_errors_are_told() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let before = server.get("/config").json();
    server.write_configuration(
        "agent: {profiling: {sample_rate: 100000}}\nnonsense: 1\nstorage: {max_age: 3h}\n",
    );
    let response = server.post("/admin/reload", "").expect(400);
    let answer = response.json();
    assert_eq!(answer["error"], "invalid_request");
    let errors: Vec<&str> =
        answer["details"]["errors"].as_array().expect("errors").iter().filter_map(Value::as_str).collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors.iter().any(|error| error.contains("sample_rate") && error.contains(":1:")), "{errors:?}");
    assert!(errors.iter().any(|error| error.contains("nonsense") && error.contains(":2:")), "{errors:?}");
    assert_eq!(server.get("/config").json(), before);
    server.await_log("the refusal", |line| line.contains("\"level\":\"error\"") && line.contains("nonsense"));
}

#[test]
fn keys_that_take_a_restart_are_named_and_stay_as_they_are() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    server.write_configuration("self_telemetry: {path: /other}\nspanflame: {log_format: text}\n");
    let answer = server.post("/admin/reload", "").expect(200).json();
    let message = answer["message"].as_str().expect("text");
    for key in ["agent.ebpf.enabled", "self_telemetry.path", "spanflame.log_format"] {
        assert!(message.contains(key), "{message}");
        let named = answer["details"]["need_restart"].as_array().expect("keys");
        assert!(named.contains(&Value::from(key)), "{named:?}");
    }
    let configuration = server.get("/config").json();
    assert_eq!(configuration["agent"]["ebpf"]["enabled"], false);
    assert_eq!(configuration["self_telemetry"]["path"], "/metrics");
    server.get("/metrics").expect(200);
}

#[test]
fn authentication_cannot_be_taken_away_from_a_listener_that_others_reach() {
    let listen = "listen: '0.0.0.0:0'";
    let with_token =
        format!("{WITHOUT_EBPF}self_telemetry: {{{listen}, auth: {{enabled: true, bearer_token: a}}}}\n");
    let server = Server::start_with(&with_token, &[]);
    // Right by itself; but until a restart the listener stays where it is.
    server.write_configuration(&format!("{WITHOUT_EBPF}self_telemetry: {{listen: '127.0.0.1:0'}}\n"));
    server.ask(&Request::post("/admin/reload", "").bearer("a")).expect(400);
    server.get("/status").expect(401);
}

#[test]
fn limits_and_tokens_follow_a_reload() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let token = |token: &str| {
        format!("{WITHOUT_EBPF}self_telemetry: {{auth: {{enabled: true, bearer_token: {token}}}}}\n")
    };
    server.write_configuration(&token("first"));
    server.post("/admin/reload", "").expect(200);
    server.get("/status").expect(401);
    server.write_configuration(&token("second"));
    server.ask(&Request::post("/admin/reload", "").bearer("first")).expect(200);
    server.ask(&Request::get("/status").bearer("first")).expect(401);
    server.ask(&Request::get("/status").bearer("second")).expect(200);
    server.write_configuration(&format!(
        "{WITHOUT_EBPF}self_telemetry: {{rate_limit: {{enabled: true, requests_per_second: 1}}}}\n"
    ));
    server.ask(&Request::post("/admin/reload", "").bearer("second")).expect(200);
    assert!((0..10).any(|_| server.get("/status").status == 429));
}

#[test]
fn a_hang_up_reloads_too_and_the_level_of_the_log_follows() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    server.get("/status").expect(200);
    assert!(!server.log().contains("\"debug\""), "{}", server.log());
    server.write_configuration(&format!("{WITHOUT_EBPF}spanflame: {{log_level: debug}}\n"));
    support::send_signal(server.pid, libc::SIGHUP);
    let line = server.await_log("the reload", |line| line.contains("Configuration reloaded"));
    let line: Value = serde_json::from_str(&line).expect("a line is JSON");
    assert_eq!(line["changed"], "spanflame.log_level");
    server.get("/status").expect(200);
    let line = server.await_log("the request", |line| line.contains("\"debug\"") && line.contains("/status"));
    let line: Value = serde_json::from_str(&line).expect("a line is JSON");
    assert_eq!(
        (&line["level"], &line["msg"], &line["status"]),
        (&json!("debug"), &json!("Answered"), &json!(200))
    );

    // A wrong one: the old one stays, and the server with it.
    server.write_configuration("nonsense\n");
    support::send_signal(server.pid, libc::SIGHUP);
    server.await_log("the refusal", |line| line.contains("stays in effect"));
    assert_eq!(server.get("/config").json()["spanflame"]["log_level"], "debug");
}

#[test]
fn log_lines_are_json_or_text() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let line = server.await_log("the beginning", |line| line.contains("Serving"));
    let json: Value = serde_json::from_str(&line).expect("JSON");
    let timestamp = json["timestamp"].as_str().expect("text");
    assert!(
        timestamp.len() == 24 && timestamp.ends_with('Z') && timestamp.as_bytes()[19] == b'.',
        "{timestamp}"
    );
    assert_eq!((&json["level"], &json["msg"]), (&Value::from("info"), &Value::from("Serving")));
    assert!(line.starts_with("{\"timestamp\":") && json["address"].is_string(), "{line}");

    let text = Server::start_with(&format!("{WITHOUT_EBPF}spanflame: {{log_format: text}}\n"), &[]);
    let line = text.await_log("the beginning", |line| line.contains("Serving"));
    assert!(
        serde_json::from_str::<Value>(&line).is_err() && line.contains(" info  Serving address="),
        "{line}"
    );
}

#[test]
fn the_rate_of_profiling_follows_a_reload_and_can_be_zero() {
    needs!();
    let rate = |server: &Server, hertz: u64| {
        support::await_event(&format!("{hertz} Hz"), Duration::from_secs(20), || {
            let text = server.get("/metrics").text();
            text.contains(&format!("\nspanflame_profiling_frequency_hertz {hertz}\n")).then_some(())
        });
    };
    let server = Server::start(&[]);
    rate(&server, 19);
    server.write_configuration("agent: {profiling: {sample_rate: 97}}\n");
    server.post("/admin/reload", "").expect(200);
    rate(&server, 97);
    assert_eq!(server.get("/status").json()["profiling"]["sample_rate"], 97);
    server.write_configuration("agent: {profiling: {enabled: false}}\n");
    server.post("/admin/reload", "").expect(200);
    rate(&server, 0);
    assert_eq!(server.get("/ready").expect(200).json()["checks"]["ebpf"], "disabled");
    assert_eq!(server.get("/status").json()["profiling"]["enabled"], false);
    // And a flush of a profiler that has nothing to flush.
    server.post("/admin/flush", "").expect(200);
}
