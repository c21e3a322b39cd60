//! `spanflame check run`: two builds of a program run in turn, and the command says which function got slower.

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::program::fixture;
use support::{is_installed, quiet_cores, skip, spanflame};

struct Outcome {
    status: Option<i32>,
    out: String,
    err: String,
}

fn check_run(arguments: &[&str]) -> Outcome {
    let output = spanflame().args(["check", "run"]).args(arguments).output().expect("it runs");
    Outcome {
        status: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("written")).expect("JSON")
}

/// About half a second's work, and the knob.
fn knob(percent: u32) -> String {
    format!("{} 30000 {percent}", fixture("knob"))
}

#[test]
fn the_function_that_got_slower_is_named_with_its_line_and_the_build_fails() {
    needs!("cc");
    let _quiet = quiet_cores();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (report, sarif, junit) = (path("check.json"), path("check.sarif"), path("check.xml"));
    let (base, new) = (knob(0), knob(400));
    let of = check_run(&[
        "--base",
        &base,
        "--new",
        &new,
        "--runs",
        "4",
        "--work-from",
        "([0-9]+) requests",
        "--work-unit",
        "request",
        "--keep",
        &path("kept"),
        "--report",
        &format!("json={report}"),
        "--report",
        &format!("sarif={sarif}"),
        "--report",
        &format!("junit={junit}"),
    ]);
    assert_eq!(of.status, Some(1), "{}{}", of.out, of.err);
    assert!(of.out.starts_with("Slower: "), "{}", of.out);
    let report = json(Path::new(&report));
    assert_eq!(report["verdict"], "regressed");
    let lines = report["lines"].as_array().expect("lines");
    let line = lines
        .iter()
        .find(|line| line["name"] == "price_items" && line["level"] == "function_self")
        .unwrap_or_else(|| panic!("{report:#}"));
    assert_eq!(line["verdict"], "regressed", "{line}");
    assert!(line["file"].as_str().is_some_and(|file| file.ends_with("fixtures/c/knob.c")), "{line}");
    // Where FUNCTION(price_items, …) stands.
    let source = include_str!("../fixtures/c/knob.c");
    let expected =
        1 + source.lines().position(|line| line.starts_with("FUNCTION(price_items")).expect("it is there");
    assert_eq!(line["line"].as_u64(), Some(expected as u64), "{line}");

    let sarif = json(Path::new(&sarif));
    let results = sarif["runs"][0]["results"].as_array().expect("results");
    let of_it = |result: &&serde_json::Value| {
        result["message"]["text"].as_str().is_some_and(|text| text.starts_with("price_items regressed"))
    };
    let result = results.iter().find(of_it).unwrap_or_else(|| panic!("{sarif:#}"));
    let at = &result["locations"][0]["physicalLocation"];
    assert_eq!(at["artifactLocation"]["uri"], "fixtures/c/knob.c", "relative to the work tree: {result:#}");
    for result in results {
        let uri = &result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
        assert!(uri.is_null() || uri == "fixtures/c/knob.c", "libraries' files are not ours: {uri}");
    }

    // What was kept says the same, without running anything.
    for part in ["kept", "kept/again"] {
        let sides = ["base", "new"].map(|side| folder.path().join(part).join(side));
        let again = spanflame()
            .args(["check", "compare", "--base"])
            .arg(&sides[0])
            .arg("--new")
            .arg(&sides[1])
            .output();
        let again = again.expect("it runs");
        assert_eq!(again.status.code(), Some(1), "{part}: {}", String::from_utf8_lossy(&again.stdout));
    }
    if is_installed("python3") {
        let counted = Command::new("python3")
            .args(["-c", "import sys, xml.etree.ElementTree as t; print(len(t.parse(sys.argv[1]).findall('.//failure')))"])
            .arg(&junit)
            .output()
            .expect("python3 runs");
        let failures: u32 = String::from_utf8_lossy(&counted.stdout).trim().parse().expect("well-formed XML");
        assert!(failures >= 2, "the line and the whole: {failures}");
    }
}

#[test]
fn a_program_compared_with_itself_or_under_another_name_has_not_got_slower() {
    needs!("cc");
    let _quiet = quiet_cores();
    for (what, new) in [("itself", knob(0)), ("a rename", format!("{} renamed", knob(0)))] {
        let folder = tempfile::tempdir().expect("a folder");
        let report = folder.path().join("check.json").to_string_lossy().into_owned();
        let of = check_run(&[
            "--base",
            &knob(0),
            "--new",
            &new,
            "--runs",
            "4",
            "--min-effect",
            "50%",
            "--margin",
            "50%",
            "--report",
            &format!("json={report}"),
        ]);
        assert!(matches!(of.status, Some(0 | 3)), "{what}: {:?} {}{}", of.status, of.out, of.err);
        let lines = json(Path::new(&report));
        let regressed: Vec<_> = lines["lines"]
            .as_array()
            .expect("lines")
            .iter()
            .filter(|line| line["verdict"] == "regressed")
            .collect();
        assert!(regressed.is_empty(), "{what}: {regressed:?}");
    }
}

#[test]
fn what_cannot_be_measured_says_what_to_do_and_is_no_regression() {
    needs!();
    // Not beside those that measure.
    let _quiet = quiet_cores();
    let cases: [(&[&str], i32, &str); 9] = [
        (&["--base", "true", "--new", "sh -c 'echo out of cheese; exit 7'"], 3, "ended with status 7"),
        (&["--base", "true", "--new", "sh -c 'echo out of cheese; exit 7'"], 3, "out of cheese"),
        (&["--base", "true", "--new", "/does/not/exist"], 2, "/does/not/exist"),
        (&["--base", "true", "--new", "./configure && make"], 2, "there is no shell"),
        (&["--base", "true", "--new", "sh -c 'exit 7' > log"], 3, "\">\" is given to the program as a word"),
        (&["--base", "true", "--new", "sh -c 'unclosed"], 2, "quote"),
        (&["--base", "echo done", "--new", "true", "--work-from", "([0-9]+) requests"], 3, "--work-from"),
        (&["--base", "true", "--new", "true", "--work-from", "requests"], 2, "group"),
        (&["--base", "true", "--new", "true", "--runs", "1"], 2, "at least 3"),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let report = format!("json={}", folder.path().join("check.json").display());
    let picture = format!("svg={}", folder.path().join("check.svg").display());
    for (arguments, status, message) in cases {
        let of = check_run(&[arguments, &["--report", &report, "--report", &picture]].concat());
        assert_eq!(of.status, Some(status), "{arguments:?}: {}{}", of.out, of.err);
        assert!(of.err.contains(message), "{arguments:?}: {}", of.err);
        let left: Vec<_> = std::fs::read_dir(folder.path()).expect("readable").flatten().collect();
        assert!(left.is_empty(), "{arguments:?}: {left:?}");
    }
}

#[test]
fn places_that_cannot_be_written_are_told_before_anything_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let command = format!("touch {}", at("ran"));
    std::fs::create_dir_all(at("kept/again/new")).expect("made");
    std::fs::write(at("kept/again/new/run-01.pb.gz"), "of last week").expect("written");
    std::fs::write(at("file"), "").expect("written");
    let (no_such, same) = (format!("svg={}", at("no/such/x.svg")), format!("json={}", at("check.md")));
    let markdown = format!("markdown={}", at("check.md"));
    let cases: [(&[&str], &str); 5] = [
        (&["--report", &no_such], "in a folder that can be written"),
        (&["--report", &markdown, "--report", &same], "a file of its own"),
        (&["--keep", &at("kept")], "give --keep another folder"),
        (&["--keep", &at("file")], "give --keep a folder that can be written"),
        (&["--keep", "/proc/kept"], "give --keep a folder that can be written"),
    ];
    for (arguments, hint) in cases {
        let of = check_run(&[&["--base", &command, "--new", &command][..], arguments].concat());
        assert_eq!(of.status, Some(2), "{arguments:?}: {}{}", of.out, of.err);
        assert!(of.err.contains(hint), "{arguments:?}: {}", of.err);
        assert!(!Path::new(&at("ran")).exists(), "{arguments:?}");
    }
}

#[test]
fn a_command_that_never_ends_is_ended_with_all_that_it_has_started() {
    needs!();
    let _quiet = quiet_cores();
    let folder = tempfile::tempdir().expect("a folder");
    let pids = folder.path().join("pids");
    // Its child ignores being asked to end.
    let command = format!(
        "sh -c 'sh -c \"trap : TERM; echo \\$\\$ >> {}; while :; do sleep 1; done\"; :'",
        pids.display()
    );
    let begun = Instant::now();
    let report = folder.path().join("check.json");
    let to_report = format!("json={}", report.display());
    let of = check_run(&["--base", &command, "--new", "true", "--timeout", "2s", "--report", &to_report]);
    assert_eq!(of.status, Some(3), "{}{}", of.out, of.err);
    assert!(!report.exists());
    assert!(of.err.contains("--timeout"), "{}", of.err);
    assert!(begun.elapsed() < Duration::from_secs(60), "it waits for nobody");
    let child = std::fs::read_to_string(&pids).expect("it ran");
    let child = child.lines().next().expect("a pid");
    support::await_event("the child's end", Duration::from_secs(10), || {
        (!Path::new(&format!("/proc/{child}")).exists()).then_some(())
    });
}

#[test]
fn ctrl_c_decides_nothing_and_leaves_no_report_and_no_command() {
    needs!();
    let _quiet = quiet_cores();
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("check.json"), "of last week").expect("written");
    let command = format!("sh -c 'echo $$ > {}; exec sleep 1000'", at("pid").display());
    let check = spanflame()
        .args(["check", "run", "--base", &command, "--new", "true", "--report"])
        .arg(format!("json={}", at("check.json").display()))
        .arg("--report")
        .arg(format!("svg={}", at("check.svg").display()))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it runs");
    let pid = support::await_event("the command", Duration::from_secs(60), || {
        std::fs::read_to_string(at("pid")).ok().filter(|text| text.ends_with('\n'))
    });
    let interrupted =
        Command::new("kill").args(["-INT", &check.id().to_string()]).status().expect("kill runs");
    assert!(interrupted.success());
    let output = check.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("told to end; nothing was decided"), "{said}");
    assert_eq!(std::fs::read_to_string(at("check.json")).expect("still there"), "of last week");
    assert!(!at("check.svg").exists());
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "the command goes with it");
}

#[test]
fn runs_that_are_there_are_not_mixed_with_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let side = folder.path().join("base");
    std::fs::create_dir(&side).expect("made");
    std::fs::write(side.join("run-01.pb.gz"), "of last week").expect("written");
    if let Some(reason) = support::cannot_record() {
        return skip(&reason);
    }
    let of = check_run(&["--base", "true", "--new", "true", "--keep", &folder.path().to_string_lossy()]);
    assert_eq!(of.status, Some(2), "{}{}", of.out, of.err);
    assert!(of.err.contains("--keep"), "{}", of.err);
    assert_eq!(std::fs::read(side.join("run-01.pb.gz")).expect("still there"), b"of last week");
}

#[test]
fn three_times_the_same_program_passes_and_three_times_half_as_much_again_of_one_function_fails() {
    needs!("cc");
    if !support::long_tests() {
        return skip("ten runs a side, six times over: SPANFLAME_LONG_TESTS=1");
    }
    let _quiet = quiet_cores();
    let folder = tempfile::tempdir().expect("a folder");
    // About five seconds a run, as the pool of `make bench` has them.
    let long_knob = |percent: u32| format!("{} 300000 {percent}", fixture("knob"));
    let source = include_str!("../fixtures/c/knob.c");
    let place =
        source.lines().position(|line| line.starts_with("FUNCTION(price_items")).expect("it is there");
    for (attempt, percent) in [0, 50, 0, 50, 0, 50].into_iter().enumerate() {
        let report = folder.path().join(format!("{attempt}.json")).to_string_lossy().into_owned();
        let of = check_run(&[
            "--base",
            &long_knob(0),
            "--new",
            &long_knob(percent),
            "--work-from",
            "([0-9]+) requests",
            "--report",
            &format!("json={report}"),
        ]);
        let what = format!("attempt {attempt}, +{percent} %: {:?} {}", of.status, of.err);
        let report = json(Path::new(&report));
        eprintln!("attempt {attempt}, +{percent} %: {}", report["verdict"]);
        let lines = report["lines"].as_array().expect("lines").iter();
        let regressed: Vec<_> = lines.filter(|line| line["verdict"] == "regressed").collect();
        if percent == 0 {
            assert_ne!(report["verdict"], "regressed", "{what}: {regressed:#?}");
            assert!(matches!(of.status, Some(0 | 3)), "{what}");
            continue;
        }
        assert_eq!((of.status, &report["verdict"]), (Some(1), &"regressed".into()), "{what}: {report:#}");
        let own: Vec<_> = regressed.iter().filter(|line| line["level"] == "function_self").collect();
        let [line] = own[..] else { panic!("{what}: one function regressed: {own:#?}") };
        assert_eq!(line["name"], "price_items", "{what}");
        assert!(
            line["file"].as_str().is_some_and(|file| file.ends_with("fixtures/c/knob.c")),
            "{what}: {line}"
        );
        assert_eq!(line["line"].as_u64(), Some(place as u64 + 1), "{what}: {line}");
    }
}
