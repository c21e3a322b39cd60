//! Two times of a service are compared: what has certainly changed is told from what only seems to, and where that
//! cannot be told the reason is.

mod support;

use serde_json::Value;
use support::server::{Server, WITHOUT_EBPF};
use support::two_times::{self, CHANGED, SERVICE, TwoTimes};

fn path(times: &TwoTimes) -> String {
    let ((base_from, base_to), (from, to)) = (times.base, times.new);
    format!(
        "/api/v1/profiles/verdicts?service={SERVICE}&from={from}&to={to}\
         &base_service={SERVICE}&base_from={base_from}&base_to={base_to}"
    )
}

fn function<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let functions = answer["functions"].as_array().expect("functions");
    functions
        .iter()
        .find(|function| function["name"] == name)
        .unwrap_or_else(|| panic!("{name} in {answer:#}"))
}

#[test]
fn the_function_that_costs_more_is_certain_and_the_others_are_noise() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let times = two_times::write(&server, 18, 18, 0.5);
    let answer = server.get(&path(&times)).expect(200).json();
    assert_eq!(
        (&answer["decided"], &answer["reason"], &answer["basis"]),
        (&true.into(), &Value::Null, &"share".into())
    );
    assert_eq!((&answer["type"], &answer["unit"]), (&"cpu".into(), &"nanoseconds".into()));
    for side in ["base", "new"] {
        assert_eq!(answer[side]["windows"], 18, "{answer}");
        assert!([5, 10].map(Value::from).contains(&answer[side]["stretches"]), "{answer}");
    }

    let changed = function(&answer, CHANGED);
    let own = &changed["self"];
    assert_eq!(own["verdict"], "regressed", "{answer:#}");
    let number = |key: &str| own[key].as_f64().unwrap_or_else(|| panic!("{key} in {own}"));
    // +50 % of a tenth is 15 of 105.
    assert!(
        (number("base_share") - 0.10).abs() < 0.01 && (number("new_share") - 0.143).abs() < 0.012,
        "{own}"
    );
    assert!(number("low") < 0.43 && 0.43 < number("high") && number("low") > 0.1, "{own}");
    assert!(number("effect") > number("low") && number("effect") < number("high"), "{own}");
    assert!(number("q_value") < 0.01, "{own}");
    // It calls nothing, so there is nothing else to say of it.
    assert_eq!(changed["total"], Value::Null);
    assert_eq!(changed["frames"], serde_json::json!([{"name": CHANGED, "module": "/usr/bin/till"}]));
    assert_eq!((&changed["file"], &changed["moved_from"]), (&"till.c".into(), &Value::Null));

    for function in answer["functions"].as_array().unwrap() {
        if function["name"] != CHANGED {
            let verdict = function["self"]["verdict"].as_str().expect("a verdict");
            assert!(["unchanged", "inconclusive"].contains(&verdict), "{function}");
        }
    }
    // What is on every stack has the same share always.
    let names: Vec<&str> = answer["functions"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|function| function["name"].as_str())
        .collect();
    assert_eq!(names.len(), 6, "{names:?}");
    assert!(!names.contains(&"main") && !names.contains(&"serve"), "{names:?}");

    // The other way around it is an improvement.
    let turned = TwoTimes { base: times.new, new: times.base };
    let answer = server.get(&path(&turned)).expect(200).json();
    assert_eq!(function(&answer, CHANGED)["self"]["verdict"], "improved");
}

#[test]
fn equal_times_have_no_certain_difference() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let times = two_times::write(&server, 20, 20, 0.0);
    let answer = server.get(&path(&times)).expect(200).json();
    assert_eq!(answer["decided"], true, "{answer}");
    for function in answer["functions"].as_array().unwrap() {
        let verdict = function["self"]["verdict"].as_str().expect("a verdict");
        assert!(["unchanged", "inconclusive"].contains(&verdict), "{function}");
    }
}

#[test]
fn with_too_few_windows_the_answer_says_so() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let times = two_times::write(&server, 4, 8, 0.5);
    let answer = server.get(&path(&times)).expect(200).json();
    assert_eq!((&answer["decided"], &answer["functions"]), (&false.into(), &serde_json::json!([])));
    let reason = answer["reason"].as_str().expect("a reason");
    assert!(
        reason.starts_with("A (the baseline): there are 4 windows of it; at least 5 are needed"),
        "{reason}"
    );
    assert_eq!((&answer["base"]["windows"], &answer["new"]["windows"]), (&4.into(), &8.into()));
    assert_eq!(answer["base"]["stretches"], 0);
}

#[test]
fn what_is_asked_wrongly_is_named_as_it_was_asked() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let times = two_times::write(&server, 5, 5, 0.0);
    let good = path(&times);
    for (more, status, said) in [
        ("&base_pid=x", 400, "base_pid: a whole number"),
        ("&base_container=", 400, "base_container: it is empty"),
        ("&base_type=cpu", 400, "there is no parameter \"base_type\" here"),
        ("&format=json", 400, "there is no parameter \"format\" here"),
        ("&base_pid=2147483646", 404, "the base: "),
        ("&pid=2147483646", 404, ""),
    ] {
        let answer = server.get(&format!("{good}{more}")).expect(status).json();
        assert!(answer["message"].as_str().expect("a message").starts_with(said), "{more}: {answer}");
    }
    let nobody = good.replace("base_service=till", "base_service=nobody");
    let answer = server.get(&nobody).expect(404).json();
    assert!(answer["message"].as_str().unwrap().contains("nobody"), "{answer}");
}
