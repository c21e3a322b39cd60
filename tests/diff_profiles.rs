//! `spanflame diff`: two profiles of a program that has changed, compared as a file for each reader.

mod support;

use std::path::Path;
use std::process::Command;

use support::page::{no_browser, walk};
use support::{is_installed, skip, spanflame};

const BEFORE: &str = "main;parse;read 100\nmain;retired 40\nmain;render 60\n";
const AFTER: &str = "main;parse;read 180\nmain;added 20\nmain;render 60\n";

struct Outcome {
    status: Option<i32>,
    said: String,
}

fn diff(folder: &Path, arguments: &[&str]) -> Outcome {
    std::fs::write(folder.join("before.folded"), BEFORE).expect("written");
    std::fs::write(folder.join("after.folded"), AFTER).expect("written");
    let output = spanflame().arg("diff").args(arguments).current_dir(folder).output().expect("it runs");
    Outcome {
        status: output.status.code(),
        said: String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
    }
}

#[test]
fn the_terminal_says_what_changed_most_and_the_file_has_both_values() {
    let folder = tempfile::tempdir().expect("a folder");
    let of = diff(folder.path(), &["before.folded", "after.folded", "--no-comm", "-o", "change.folded"]);
    assert_eq!(of.status, Some(0), "{}", of.said);
    assert!(of.said.starts_with("All: 200 → 260 samples (+30.0 %)\n"), "{}", of.said);
    assert!(of.said.contains("  read: 100 → 180 samples (+80.0 %)\n"), "{}", of.said);
    let folded = std::fs::read_to_string(folder.path().join("change.folded")).expect("written");
    assert_eq!(folded, "main;added 0 20\nmain;parse;read 100 180\nmain;render 60 60\nmain;retired 40 0\n");
}

#[test]
fn shares_are_compared_where_one_side_was_recorded_longer() {
    let folder = tempfile::tempdir().expect("a folder");
    let tenfold = BEFORE.replace("0\n", "00\n");
    std::fs::write(folder.path().join("longer.folded"), tenfold).expect("written");
    let arguments = ["before.folded", "longer.folded", "--no-comm", "--normalize", "-o", "change.json"];
    let of = diff(folder.path(), &arguments);
    assert_eq!(of.status, Some(0), "{}", of.said);
    let text = std::fs::read_to_string(folder.path().join("change.json")).expect("written");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["normalized"], true);
    assert_eq!(json["total"]["base"], json["total"]["new"]);
    for function in json["functions"].as_array().expect("functions") {
        assert_eq!(function["base"], function["new"], "{function}");
    }
}

#[test]
fn go_tool_pprof_reads_it_as_a_comparison() {
    if !is_installed("go") {
        return skip("go is not installed");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let of = diff(folder.path(), &["before.folded", "after.folded", "--no-comm", "-o", "change.pb.gz"]);
    assert_eq!(of.status, Some(0), "{}", of.said);
    let top = Command::new("go")
        .args(["tool", "pprof", "-top", "-nodefraction=0"])
        .arg(folder.path().join("change.pb.gz"))
        .output()
        .expect("go runs");
    let top = String::from_utf8_lossy(&top.stdout).into_owned();
    // Shares are of the base's total: so it is only told what is the base.
    assert!(top.contains("of 200 total"), "{top}");
    let flat_of = |name: &str| {
        let line = top.lines().find(|line| line.split_whitespace().last() == Some(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<i64>().ok())
    };
    let expected = [("read", Some(80)), ("retired", Some(-40)), ("added", Some(20)), ("render", None)];
    for (name, flat) in expected {
        assert_eq!(flat_of(name), flat, "{name}: {top}");
    }
}

#[test]
fn the_picture_shows_what_changed_and_what_is_gone() {
    if let Some(reason) = no_browser() {
        return skip(reason);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let of = diff(folder.path(), &["before.folded", "after.folded", "--no-comm", "-o", "change.svg"]);
    assert_eq!(of.status, Some(0), "{}", of.said);
    let picture = folder.path().join("change.svg").display().to_string();
    walk("diff-picture.js", [picture.as_str(), "read", "retired"]);
}

#[test]
fn what_cannot_be_compared_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(
        folder.path().join("bytes.json"),
        r#"{"$schema":"https://www.speedscope.app/file-format-schema.json","shared":{"frames":[{"name":"a"}]},
            "profiles":[{"type":"sampled","name":"p","unit":"bytes","startValue":0,"endValue":1,
            "samples":[[0]],"weights":[1]}]}"#,
    )
    .expect("written");
    std::fs::write(folder.path().join("garbage.pb.gz"), "not a profile").expect("written");
    // A difference is no side of another one.
    let difference = diff(folder.path(), &["before.folded", "after.folded", "-o", "difference.pb.gz"]);
    assert_eq!(difference.status, Some(0), "{}", difference.said);
    let cases: [(&[&str], i32, &str); 8] = [
        (&["before.folded", "after.folded", "-o", "x.html"], 2, "use .svg, .json, .folded or .pb.gz"),
        (&["difference.pb.gz", "after.folded", "-o", "x.svg"], 1, "difference.pb.gz: has negative values"),
        (&["after.folded", "difference.pb.gz", "-o", "x.json"], 1, "difference.pb.gz: has negative values"),
        (&["before.folded", "bytes.json", "-o", "x.svg"], 2, "the two count different things"),
        (
            &["before.folded", "after.folded", "-o", "x.svg", "--value", "allocations"],
            2,
            "has no value `allocations`; it has",
        ),
        (&["before.folded", "after.folded", "-o", "x.otlp"], 2, "use .svg, .json, .folded or .pb.gz"),
        (&["before.folded", "missing.folded", "-o", "x.svg"], 1, "missing.folded"),
        (&["before.folded", "garbage.pb.gz", "-o", "x.svg"], 1, "garbage.pb.gz"),
    ];
    for (arguments, status, message) in cases {
        let of = diff(folder.path(), arguments);
        assert_eq!(of.status, Some(status), "{arguments:?}: {}", of.said);
        assert!(of.said.contains(message), "{arguments:?}: {}", of.said);
    }
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .expect("readable")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with('x') || name.contains("partial"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn nothing_on_either_side_is_said_and_names_are_not_obeyed() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("nothing.folded"), "").expect("written");
    let of = diff(folder.path(), &["nothing.folded", "nothing.folded", "-o", "x.svg"]);
    assert_eq!((of.status, of.said.as_str()), (Some(0), "All: 0 → 0 samples (nothing on either side)\n"));
    let strange = "app;main;\u{1b}[31mred\u{7} 20\n";
    std::fs::write(folder.path().join("strange.folded"), strange).expect("written");
    let of = diff(folder.path(), &["before.folded", "strange.folded", "-o", "x.svg"]);
    assert_eq!(of.status, Some(0), "{}", of.said);
    assert!(of.said.contains("  ") && of.said.contains("[31mred"), "{}", of.said);
    assert!(
        !of.said.contains(|character: char| character.is_control() && character != '\n'),
        "{:?}",
        of.said
    );
}
