//! `spanflame check compare` as a command: what it says of recordings, how it ends, and what it leaves behind.

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use support::page::{no_browser, walk};
use support::skip;

/// A folder of ten folded profiles of a program whose `parse` costs `parse`, each as much as the others give or take a
/// fiftieth.
fn record(folder: &Path, parse: u64, seed: u64) {
    record_with(folder, parse, 2_500, seed);
}

fn record_with(folder: &Path, parse: u64, hash: u64, seed: u64) {
    fs::create_dir_all(folder).expect("a folder");
    for run in 0..10_u64 {
        let mut text = String::new();
        for (index, (stack, cost)) in [
            ("app;main", 900),
            ("app;main;read", 700),
            ("app;main;read;parse", parse),
            ("app;main;work;hash", hash),
            ("app;main;work;sort", 1_500),
            ("app;main;write;format", 1_900),
        ]
        .into_iter()
        .enumerate()
        {
            let noise =
                (seed * 7_919 + run * 104_729 + index as u64 * 1_299_709).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let value = cost * (980 + (noise >> 40) % 41) / 1_000;
            writeln!(text, "{stack} {value}").expect("text");
        }
        fs::write(folder.join(format!("run-{run:02}.folded")), text).expect("written");
        let facts = r#"{"schema_version":1,"whole_execution":true,"machine":{"cpu_model":"A CPU"}}"#;
        fs::write(folder.join(format!("run-{run:02}.json")), facts).expect("written");
    }
}

fn compare(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_spanflame"))
        .args(["check", "compare"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("it runs")
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn folder_with_three_sides() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    record(&folder.path().join("base"), 3_000, 1);
    record(&folder.path().join("same"), 3_000, 2);
    record(&folder.path().join("slower"), 3_600, 3);
    folder
}

#[test]
fn a_slower_function_fails_the_command_and_is_named_in_table_and_json() {
    let folder = folder_with_three_sides();
    let output = compare(folder.path(), &["--base", "base", "--new", "slower", "--report", "json=out.json"]);
    assert_eq!(status(&output), 1, "{output:?}");
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.starts_with("Slower: "), "{table}");
    assert!(table.lines().any(|line| line.starts_with("parse ") && line.contains("regressed")), "{table}");

    let text = fs::read_to_string(folder.path().join("out.json")).expect("it is there");
    let report: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!((&report["verdict"], &report["basis"]["kind"]), (&"regressed".into(), &"per_run".into()));
    let lines = report["lines"].as_array().expect("lines");
    let blamed: Vec<&str> = lines
        .iter()
        .filter(|line| line["level"] == "function_self" && line["verdict"] == "regressed")
        .filter_map(|line| line["name"].as_str())
        .collect();
    assert_eq!(blamed, ["parse"]);
    let parse = lines.iter().find(|line| line["name"] == "parse").expect("a line");
    assert!((parse["effect"].as_f64().expect("a number") - 0.2).abs() < 0.03, "{parse}");
}

#[test]
fn the_same_program_passes_and_a_report_on_standard_output_is_alone_there() {
    let folder = folder_with_three_sides();
    for place in ["json=-", "json=/dev/stdout"] {
        let output = compare(folder.path(), &["--base", "base", "--new", "same", "--report", place]);
        assert_eq!(status(&output), 0, "{output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("nothing but JSON");
        assert_eq!(report["verdict"], "unchanged");
    }
}

#[test]
fn what_fails_the_command_can_be_chosen() {
    let folder = folder_with_three_sides();
    let sides = ["--base", "base", "--new", "slower"];
    for (option, expected) in [("never", 0), ("regression", 1), ("inconclusive", 1)] {
        let output = compare(folder.path(), &[&sides[..], &["--fail-on", option]].concat());
        assert_eq!(status(&output), expected, "{option}: {output:?}");
    }
    let other = folder.path().join("slower/run-03.json");
    fs::write(&other, r#"{"whole_execution":true,"machine":{"cpu_model":"Another"}}"#).expect("written");
    for (option, expected) in [("never", 0), ("regression", 0), ("inconclusive", 3)] {
        let output = compare(folder.path(), &[&sides[..], &["--fail-on", option]].concat());
        assert_eq!(status(&output), expected, "{option}: {output:?}");
        let table = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(table.contains("cpu_model") && table.contains("run both on one"), "{table}");
    }
}

#[test]
fn what_is_allowed_passes_until_its_last_day() {
    let folder = folder_with_three_sides();
    let sides = ["--base", "base", "--new", "slower", "--fail-on", "regression", "--allow", "allowed"];
    let everything = |day: &str| format!("{day} * -- known\n{day} [total] -- known\n");
    for (day, expected) in [("2999-12-31", 0), ("2001-12-31", 1)] {
        fs::write(folder.path().join("allowed"), everything(day)).expect("written");
        let output = compare(folder.path(), &sides);
        assert_eq!(status(&output), expected, "{day}: {output:?}");
    }
    // What costs more only because of what is named need not be named.
    let parse_may = "2999-12-31 parse -- checks lengths now\n";
    fs::write(folder.path().join("allowed"), parse_may).expect("written");
    let strictly =
        ["--base", "base", "--new", "slower", "--allow", "allowed", "--report", "json=allowed.json"];
    let output = compare(folder.path(), &strictly);
    assert_eq!(status(&output), 0, "{output:?}");
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.starts_with("No slower than is allowed: "), "{table}");
    let row_of =
        |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(row_of("parse ").ends_with("regressed, allowed: checks lengths now"), "{table}");
    assert!(row_of("read ").contains("regressed, allowed because of parse ("), "{table}");
    let report = fs::read_to_string(folder.path().join("allowed.json")).expect("it is there");
    let report: Value = serde_json::from_str(&report).expect("it is JSON");
    let lines = report["lines"].as_array().expect("lines");
    let because_of = |name: &str| {
        let line = lines.iter().find(|line| line["name"] == name && line["level"] != "function_self");
        line.unwrap_or_else(|| panic!("no {name}: {report:#}"))["allowed_because_of"].clone()
    };
    assert_eq!(because_of("read"), serde_json::json!(["parse"]));
    assert_eq!(because_of(""), serde_json::json!(["parse"]), "the whole");
    // And what became slower as well fails.
    record_with(&folder.path().join("both"), 3_600, 3_000, 4);
    let output = compare(folder.path(), &["--base", "base", "--new", "both", "--allow", "allowed"]);
    assert_eq!(status(&output), 1, "{output:?}");
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.lines().any(|line| line.starts_with("hash ") && line.ends_with("regressed")), "{table}");

    // An entry that names nothing is told, and changes nothing.
    fs::write(folder.path().join("allowed"), format!("{parse_may}\n2999-12-31 prase -- mistyped\n"))
        .expect("written");
    let output = compare(folder.path(), &strictly);
    assert_eq!(status(&output), 0, "{output:?}");
    let warned = said(&output);
    assert_eq!(warned.matches("names no function and no module").count(), 1, "{warned}");
    assert!(warned.contains(r#"--allow allowed: line 3: "prase""#), "{warned}");
    let report = fs::read_to_string(folder.path().join("allowed.json")).expect("it is there");
    let report: Value = serde_json::from_str(&report).expect("it is JSON");
    assert_eq!(report["allow_list_unmatched"], serde_json::json!([{"line": 3, "name": "prase"}]));

    fs::write(folder.path().join("allowed"), "parse\n").expect("written");
    let output = compare(folder.path(), &sides);
    assert_eq!(status(&output), 2, "{output:?}");
    assert!(said(&output).contains("line 1"), "{output:?}");
}

#[test]
fn the_picture_shows_the_function_that_changed_and_what_is_gone() {
    if let Some(reason) = no_browser() {
        return skip(reason);
    }
    let folder = tempfile::tempdir().expect("a folder");
    record(&folder.path().join("base"), 3_000, 1);
    record(&folder.path().join("slower"), 3_600, 3);
    // On one side only, and with no cost or neighbours that anything new has.
    for run in fs::read_dir(folder.path().join("base")).expect("a folder") {
        let path = run.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "folded") {
            let text = fs::read_to_string(&path).expect("readable");
            fs::write(&path, text + "app;main;retired 600\n").expect("written");
        }
    }
    let output = compare(folder.path(), &["--base", "base", "--new", "slower", "--report", "svg=check.svg"]);
    assert_eq!(status(&output), 1, "{output:?}");
    let picture = folder.path().join("check.svg").display().to_string();
    walk("diff-picture.js", [picture.as_str(), "parse", "retired", "Slower: "]);
}

/// A profile that counts something else than folded stacks do.
fn speedscope(unit: &str) -> String {
    format!(
        r#"{{"$schema":"https://www.speedscope.app/file-format-schema.json","shared":{{"frames":[{{"name":"a"}}]}},
            "profiles":[{{"type":"sampled","name":"p","unit":"{unit}","startValue":0,"endValue":1000,
            "samples":[[0]],"weights":[1000]}}]}}"#
    )
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn bad_input_is_told_with_what_to_do_and_leaves_nothing_behind() {
    let folder = folder_with_three_sides();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("empty")).expect("a folder");
    fs::write(at("garbage.pb.gz"), b"\x1f\x8bno profile").expect("written");
    fs::write(at("nothing.folded"), "").expect("written");
    // Of all users, no one can read it.
    std::os::unix::fs::symlink("/proc/self/mem", at("unreadable.pb.gz")).expect("linked");
    record(&at("mixed"), 3_000, 4);
    fs::write(at("mixed/run-99.speedscope.json"), speedscope("bytes")).expect("written");
    record(&at("one-empty"), 3_000, 5);
    fs::write(at("one-empty/run-05.folded"), "").expect("written");
    for (side, unit) in [("seconds", "seconds"), ("bytes", "bytes")] {
        fs::create_dir(at(side)).expect("a folder");
        for run in 0..4 {
            fs::write(at(&format!("{side}/run-{run}.speedscope.json")), speedscope(unit)).expect("written");
        }
    }
    fs::write(at("report.json"), "of last week").expect("written");
    let before = names_in(folder.path());
    for (sides, expected, hint) in [
        (vec!["--base", "base", "--new", "missing"], 2, "give a folder of profiles"),
        (vec!["--base", "base", "--new", "empty"], 2, "there is no profile in it"),
        (vec!["--base", "base", "--new", "base/run-01.folded"], 3, "at least 3"),
        (vec!["--base", "base/run-01.folded", "--new", "same/run-01.folded"], 3, "at least 3"),
        (vec!["--base", "base", "--new", "garbage.pb.gz"], 3, "garbage.pb.gz"),
        (vec!["--base", "base", "--new", "unreadable.pb.gz"], 3, "unreadable.pb.gz: cannot be read"),
        (vec!["--base", "base", "--new", "nothing.folded"], 3, "nothing.folded"),
        (vec!["--base", "base", "--new", "one-empty"], 3, "run-05.folded: has no samples: record longer"),
        (vec!["--base", "base", "--new", "mixed"], 3, "give --value NAME, or profiles that count the same"),
        (
            vec!["--base", "seconds", "--new", "bytes"],
            3,
            "give --value NAME, or profiles that count the same",
        ),
        (vec!["--base", "base", "--new", "same", "--value", "heap"], 3, "choose one by --value"),
        (vec!["--base", "base", "--new", "same", "--report", "png=x"], 2, "json"),
        (vec!["--base", "base", "--new", "same", "--report", "json=no/such/x"], 2, "no/such/x"),
        (vec!["--base", "base", "--new", "same", "--min-effect=0"], 2, "--min-effect"),
        (vec!["--base", "base", "--new", "same", "./same/run-01.folded"], 2, "is given twice"),
    ] {
        let arguments =
            [&sides[..], &["--report", "json=report.json", "--report", "svg=report.svg"]].concat();
        let output = compare(folder.path(), &arguments);
        assert_eq!(status(&output), expected, "{sides:?}: {output:?}");
        assert!(said(&output).contains(hint), "{sides:?}: {output:?}");
        assert_eq!(names_in(folder.path()), before, "{sides:?}");
    }
    assert_eq!(fs::read_to_string(at("report.json")).expect("readable"), "of last week");
}

#[test]
fn reports_are_written_all_of_them_or_none() {
    let folder = folder_with_three_sides();
    fs::write(folder.path().join("old.json"), "of last week").expect("written");
    let before = names_in(folder.path());
    // What can be known is told before anything is read: that side is not there.
    for (report, hint) in [
        ("markdown=no/such/x.md", "in a folder that can be written"),
        ("markdown=base", "s a directory"),
        ("markdown=/proc/x.md", "/proc/x.md"),
        ("markdown=./old.json", "a file of its own"),
    ] {
        let arguments =
            ["--base", "missing", "--new", "missing", "--report", "json=old.json", "--report", report];
        let output = compare(folder.path(), &arguments);
        assert_eq!(status(&output), 2, "{report}: {output:?}");
        assert!(said(&output).contains(hint), "{report}: {output:?}");
        assert_eq!(names_in(folder.path()), before, "{report}");
    }
    // What shows when it is written keeps the others from their places.
    let sides = ["--base", "base", "--new", "slower"];
    let reports = ["--report", "json=old.json", "--report", "svg=new.svg"];
    // One that is noticed at its end, and one that is before.
    for full in ["markdown=/dev/full", "sarif=/dev/full"] {
        let output = compare(folder.path(), &[&sides[..], &reports[..], &["--report", full]].concat());
        assert_eq!(status(&output), 5, "{output:?}");
        assert!(said(&output).contains("/dev/full"), "{output:?}");
        assert_eq!(names_in(folder.path()), before);
    }
    assert_eq!(fs::read_to_string(folder.path().join("old.json")).expect("readable"), "of last week");

    let output =
        compare(folder.path(), &[&sides[..], &reports[..4], &["--report", "junit=new.xml"]].concat());
    assert_eq!(status(&output), 1, "{output:?}");
    let report = fs::read_to_string(folder.path().join("old.json")).expect("readable");
    let report: Value = serde_json::from_str(&report).expect("this comparison's");
    assert_eq!(report["verdict"], "regressed");
    let mut after = before;
    after.extend(["new.svg".to_owned(), "new.xml".to_owned()]);
    after.sort();
    assert_eq!(names_in(folder.path()), after);
}

#[test]
fn amounts_that_are_none_decide_nothing_and_are_told() {
    let folder = folder_with_three_sides();
    let with_work = |side: &str, work: &str| {
        for run in 0..10 {
            let facts = format!(r#"{{"schema_version":1,"whole_execution":true,"work":{work}}}"#);
            fs::write(folder.path().join(side).join(format!("run-{run:02}.json")), facts).expect("written");
        }
    };
    with_work("base", r#"{"done":5,"unit":"request"}"#);
    for (work, note) in [
        (r#"{"done":0,"unit":"request"}"#, "no amount above zero"),
        (r#"{"done":-3,"unit":"request"}"#, "no amount above zero"),
        (r#"{"done":1e-308,"unit":"request"}"#, "no amount above zero"),
        (r#"{"done":5,"unit":"page"}"#, r#"is of "request" in one run and of "page" in another"#),
    ] {
        with_work("same", work);
        let output = compare(folder.path(), &["--base", "base", "--new", "same"]);
        let table = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(table.contains(note) && table.contains(" a run "), "{work}: {table}");
    }
    with_work("same", r#"{"done":5,"unit":"request"}"#);
    let output = compare(folder.path(), &["--base", "base", "--new", "same"]);
    assert!(!String::from_utf8_lossy(&output.stdout).contains("work that runs did"), "{output:?}");
}

#[test]
fn limits_of_any_size_are_answered() {
    let folder = folder_with_three_sides();
    let sides = ["--base", "base", "--new", "slower", "--report", "json=limits.json"];
    for option in ["--false-alarms", "--min-share", "--min-effect", "--margin"] {
        for percent in ["1e-320%", "1e-300%", "1e-17%", "99.999999%"] {
            let output = compare(folder.path(), &[&sides[..], &[option, percent]].concat());
            assert!(matches!(status(&output), 0 | 1 | 3), "{option} {percent}: {output:?}");
            let report = fs::read_to_string(folder.path().join("limits.json")).expect("it is there");
            let report: Value = serde_json::from_str(&report).expect("it is JSON");
            for line in report["lines"].as_array().expect("lines") {
                assert!(line["base"]["deviation"].is_number() && line["p_value"].is_number(), "{line}");
            }
        }
    }
}

#[test]
fn a_change_that_counts_as_none_passes() {
    let folder = folder_with_three_sides();
    // The whole costs 6 % more, parse 20 %: of that which is no change nobody need be in doubt.
    let output = compare(folder.path(), &["--base", "base", "--new", "slower", "--min-effect", "30%"]);
    assert_eq!(status(&output), 0, "{output:?}");
    let output = compare(
        folder.path(),
        &["--base", "base", "--new", "slower", "--min-effect", "30%", "--margin", "5%"],
    );
    assert_eq!(status(&output), 3, "{output:?}");
}

#[test]
fn json_of_another_tool_beside_a_profile_is_left_alone_and_that_is_said() {
    let folder = folder_with_three_sides();
    let beside = |side: &str, text: &str| fs::write(folder.path().join(side).join("run-03.json"), text);
    // A report of ours, what a bench says of itself, and more than facts ever are.
    let long = format!("[{}]", "1,".repeat(1 << 20) + "1");
    for other in [r#"{"schema_version":1,"verdict":"unchanged"}"#, r#"{"machine":"host-7","work":3}"#, &long]
    {
        beside("same", other).expect("written");
        let output = compare(folder.path(), &["--base", "base", "--new", "same"]);
        assert_eq!(status(&output), 0, "{output:?}");
        assert_eq!(said(&output).matches("same/run-03.json: is beside a profile").count(), 1, "{output:?}");
        // Of one run nothing is known, so runs are not compared as whole ones.
        assert!(String::from_utf8_lossy(&output.stdout).contains("shares are compared"), "{output:?}");
    }
    // Half of what was to be facts is a mistake, and not another tool's.
    beside("same", r#"{"schema_version":1,"whole_ex"#).expect("written");
    let output = compare(folder.path(), &["--base", "base", "--new", "same"]);
    assert_eq!(status(&output), 3, "{output:?}");
    assert!(said(&output).contains("not what `check run --keep` writes there"), "{output:?}");
}

#[test]
fn profiles_of_each_format_are_sides() {
    let folder = folder_with_three_sides();
    for ending in ["pb.gz", "otlp", "speedscope.json", "folded"] {
        for side in ["base", "slower"] {
            let of_format = folder.path().join(format!("{side}-{ending}"));
            fs::create_dir(&of_format).expect("a folder");
            for run in 0..4 {
                let output = Command::new(env!("CARGO_BIN_EXE_spanflame"))
                    .arg("convert")
                    .arg(folder.path().join(side).join(format!("run-{run:02}.folded")))
                    .arg("-o")
                    .arg(of_format.join(format!("run-{run:02}.{ending}")))
                    .output()
                    .expect("it runs");
                assert!(output.status.success(), "{output:?}");
            }
        }
        let (base, new) = (format!("base-{ending}"), format!("slower-{ending}"));
        let output = compare(folder.path(), &["--base", &base, "--new", &new]);
        assert_eq!(status(&output), 1, "{ending}: {output:?}");
        let table = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            table.lines().any(|line| line.starts_with("parse ") && line.contains("regressed")),
            "{ending}: {table}"
        );
    }
}

#[test]
fn speedscope_files_have_their_facts_beside_them() {
    let folder = tempfile::tempdir().expect("a folder");
    for (side, cost) in [("base", 1_000), ("new", 1_500)] {
        fs::create_dir(folder.path().join(side)).expect("a folder");
        for run in 0..4 {
            let at = |name: String| folder.path().join(side).join(name);
            let profile = speedscope("nanoseconds").replace("1000", &(cost + run * 7 % 5).to_string());
            fs::write(at(format!("run-{run}.speedscope.json")), profile).expect("written");
            fs::write(at(format!("run-{run}.json")), r#"{"schema_version":1,"whole_execution":true}"#)
                .expect("written");
        }
    }
    let output = compare(folder.path(), &["--base", "base", "--new", "new"]);
    assert_eq!(status(&output), 1, "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains(" a run"), "{output:?}");
}
