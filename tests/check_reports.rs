//! The reports of `spanflame check` as others read them: JSON by its schema, SARIF by that of OASIS, `JUnit` by a parser, for
//! each kind of verdict that there is.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use spanflame::export;
use spanflame::model::{Frame, Function, Location, Mapping, Profile, Sample, ValueType};

use support::page::{walk, web};
use support::{is_installed, skip, spanflame};

/// A function below `main`, what it costs a run, and by which part a run may cost more or less.
#[derive(Clone, Copy)]
struct Cost(&'static str, u64, f64);

/// Nothing in a name may leave its place in a report.
const AWKWARD: &str =
    "std::map<int, x>::operator[](\"&'\u{1}\u{fffe}]]>\r\n-->{}%0A::error|`*_@me #1 \u{1b}[31m\u{202e})";

const PROGRAM: [Cost; 5] = [
    Cost("parse", 3_000, 0.01),
    Cost("hash", 2_500, 0.01),
    Cost("sort", 1_500, 0.01),
    Cost(AWKWARD, 1_500, 0.01),
    Cost("wait größe", 1_500, 0.01),
];

fn with(name: &str, change: impl Fn(Cost) -> Cost) -> Vec<Cost> {
    PROGRAM.into_iter().map(|cost| if cost.0 == name { change(cost) } else { cost }).collect()
}

fn dearer(part: f64) -> impl Fn(Cost) -> Cost {
    move |Cost(name, cost, noise)| Cost(name, (cost as f64 * part) as u64, noise)
}

fn profile(costs: &[Cost], run: u64, seed: u64) -> Profile {
    let mut profile =
        Profile { value_types: vec![ValueType::new("cpu", "nanoseconds")], ..Profile::default() };
    profile.mappings.push(Mapping { path: "/app/bench".into(), has_functions: true, ..Mapping::default() });
    profile.label_sets.push(Vec::new());
    for (index, Cost(name, cost, noise)) in
        [&[Cost("main", 500, 0.01)], costs].concat().into_iter().enumerate()
    {
        let index = index as u32;
        let file = if name == "hash" { "/usr/include/hash.h" } else { "src/a b/größe.c" };
        profile.functions.push(Function {
            name: name.to_owned(),
            file: file.to_owned(),
            start_line: 10 + index,
            ..Function::default()
        });
        profile.locations.push(Location {
            mapping: Some(0),
            address: 16 + u64::from(index),
            frames: vec![Frame { function: index, line: 20 }],
            ..Location::default()
        });
        profile.stacks.push(if index == 0 { vec![0] } else { vec![index, 0] });
        let mixed =
            (seed * 7_919 + run * 104_729 + u64::from(index) * 1_299_709).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let chance = (mixed >> 11) as f64 / (1_u64 << 53) as f64 * 2.0 - 1.0;
        let value = cost as f64 * 1_000_000.0 * (1.0 + noise * chance);
        profile.samples.push(Sample { stack: index, labels: 0, values: vec![value as i64] });
    }
    profile
}

/// What is known of a run.
type Facts = fn(u64) -> &'static str;

fn executed(_: u64) -> &'static str {
    r#"{"schema_version":1,"whole_execution":true,"machine":{"cpu_model":"A CPU"}}"#
}

fn record(folder: &Path, seed: u64, facts: Facts, costs: impl Fn(u64) -> Vec<Cost>) {
    fs::create_dir_all(folder).expect("a folder");
    for run in 0..10 {
        let path = folder.join(format!("run-{run:02}.pb.gz"));
        export::write_file(&profile(&costs(run), run, seed), &path).expect("written");
        fs::write(folder.join(format!("run-{run:02}.json")), facts(run)).expect("written");
    }
}

/// A comparison of which all reports were written.
struct Reported {
    folder: PathBuf,
    status: Option<i32>,
    table: String,
    json: Value,
    sarif: Value,
}

impl Reported {
    fn verdicts(&self) -> BTreeSet<String> {
        let lines = self.json["lines"].as_array().expect("lines");
        lines.iter().filter_map(|line| line["verdict"].as_str().map(str::to_owned)).collect()
    }

    fn line(&self, name: &str) -> &Value {
        let lines = self.json["lines"].as_array().expect("lines");
        let found = lines.iter().find(|line| line["name"] == name && line["level"] == "function_self");
        found.unwrap_or_else(|| panic!("no {name}: {:#}", self.json))
    }
}

fn reported(
    project: &Path,
    name: &str,
    base: impl Fn(&Path),
    new: impl Fn(&Path),
    more: &[&str],
) -> Reported {
    let folder = project.join(name);
    base(&folder.join("base"));
    new(&folder.join("new"));
    let mut command = spanflame();
    command
        .args(["check", "compare", "--base"])
        .arg(folder.join("base"))
        .arg("--new")
        .arg(folder.join("new"));
    for (format, file) in [
        ("json", "check.json"),
        ("sarif", "check.sarif"),
        ("junit", "check.xml"),
        ("markdown", "check.md"),
        ("svg", "check.svg"),
        ("github", "check.log"),
    ] {
        command.arg("--report").arg(format!("{format}={}", folder.join(file).display()));
    }
    let output = command.args(more).current_dir(project).output().expect("it runs");
    let json = |file: &str| -> Value {
        let text = fs::read_to_string(folder.join(file))
            .unwrap_or_else(|error| panic!("{file}: {error}: {output:?}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
    };
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    Reported {
        status: output.status.code(),
        table,
        json: json("check.json"),
        sarif: json("check.sarif"),
        folder,
    }
}

/// One comparison for each thing that can be said.
fn one_of_each(project: &Path) -> Vec<(&'static str, Reported)> {
    let base = |folder: &Path| record(folder, 1, executed, |_| PROGRAM.to_vec());
    let of = |name: &'static str, new: Vec<Cost>, more: &[&str]| {
        let new = |folder: &Path| record(folder, 2, executed, |_| new.clone());
        (name, reported(project, name, base, new, more))
    };
    fs::write(project.join("allow-list"), "2999-12-31 parse -- ]]> & \"checks\" lengths now\n")
        .expect("written");
    let without = |name: &'static str| PROGRAM.into_iter().filter(move |cost| cost.0 != name);
    let without_parse: Vec<Cost> = without("parse").collect();
    let divided: Vec<Cost> =
        without("sort").chain([Cost("sort_low", 750, 0.01), Cost("sort_high", 750, 0.01)]).collect();
    let with_added = [&PROGRAM[..], &[Cost("added", 900, 0.01)]].concat();
    let mut all = vec![
        of("same", PROGRAM.to_vec(), &[]),
        of("regressed", with(AWKWARD, dearer(1.5)), &[]),
        of("improved", with("parse", dearer(0.5)), &[]),
        of("moved", with("hash", |Cost(_, cost, noise)| Cost("digest_blocks", cost, noise)), &[]),
        of("divided", divided, &[]),
        of("gone", without_parse, &[]),
        of("new", with_added, &[]),
        of("allowed", with("parse", dearer(1.3)), &["--allow", "allow-list"]),
        of("noisy", with("parse", |Cost(name, cost, _)| Cost(name, cost, 0.9)), &[]),
    ];
    let another: Facts =
        |_| r#"{"schema_version":1,"whole_execution":true,"machine":{"cpu_model":"Another <CPU> \"&\""}}"#;
    let new = |folder: &Path| record(folder, 2, another, |_| with("parse", dearer(1.5)));
    all.push(("other-machine", reported(project, "other-machine", base, new, &[])));
    let drifting = |folder: &Path| {
        record(
            folder,
            1,
            executed,
            |run| if run < 5 { PROGRAM.to_vec() } else { with("parse", dearer(2.0)) },
        );
    };
    let new = |folder: &Path| record(folder, 2, executed, |_| PROGRAM.to_vec());
    all.push(("base-differs", reported(project, "base-differs", drifting, new, &[])));
    let windows: Facts = |_| r#"{"schema_version":1}"#;
    let base = |folder: &Path| record(folder, 1, windows, |_| PROGRAM.to_vec());
    let new = |folder: &Path| record(folder, 2, windows, |_| with("parse", dearer(1.5)));
    all.push(("shares", reported(project, "shares", base, new, &[])));
    let working: Facts = |_| r#"{"schema_version":1,"work":{"done":250.0,"unit":"requests & \"more\""}}"#;
    let base = |folder: &Path| record(folder, 1, working, |_| PROGRAM.to_vec());
    let new = |folder: &Path| record(folder, 2, working, |_| with("parse", dearer(1.5)));
    all.push(("work", reported(project, "work", base, new, &[])));
    all
}

fn project() -> tempfile::TempDir {
    let project = tempfile::tempdir().expect("a folder");
    fs::create_dir(project.path().join(".git")).expect("made");
    fs::create_dir_all(project.path().join("src/a b")).expect("made");
    fs::write(project.path().join("src/a b/größe.c"), "").expect("written");
    project
}

#[test]
fn each_kind_of_verdict_is_in_every_report_as_its_readers_expect_it() {
    let project = project();
    let all = one_of_each(project.path());
    let of = |name: &str| &all.iter().find(|(known, _)| *known == name).expect("it was made").1;

    // Each of them says what it was made for: else the readers below would be shown less than they think.
    let statuses: Vec<(&str, Option<i32>)> =
        all.iter().map(|(name, report)| (*name, report.status)).collect();
    let expected = [
        ("same", 0),
        ("regressed", 1),
        ("improved", 0),
        ("moved", 0),
        ("divided", 0),
        ("gone", 0),
        ("new", 1),
        ("allowed", 0),
        ("noisy", 3),
        ("other-machine", 3),
        ("base-differs", 3),
        ("shares", 1),
        ("work", 1),
    ];
    assert_eq!(statuses, expected.map(|(name, status)| (name, Some(status))));
    let mut verdicts = BTreeSet::new();
    for (_, report) in &all {
        verdicts.extend(report.verdicts());
    }
    let known = ["improved", "inconclusive", "moved", "regressed", "unchanged"];
    assert_eq!(verdicts, known.iter().map(|&word| word.to_owned()).collect());
    assert_eq!(of("moved").line("digest_blocks")["renamed_from"], "hash");
    for part in ["sort_low", "sort_high"] {
        assert_eq!(of("divided").line(part)["regrouped_with"], serde_json::json!(["sort"]));
    }
    let comment = fs::read_to_string(of("divided").folder.join("check.md")).expect("it is there");
    assert!(comment.contains("`sort_low`: counted together with sort, which only one side has"), "{comment}");
    assert_eq!(of("gone").line("parse")["verdict"], "improved");
    assert_eq!(of("new").line("added")["verdict"], "regressed");
    assert!(of("new").line("added")["effect"].is_null(), "of nothing there is no ratio");
    assert_eq!(of("allowed").line("parse")["allowed"], "]]> & \"checks\" lengths now");
    let whole = of("allowed").json["lines"].as_array().and_then(|lines| lines.first()).expect("the whole");
    assert_eq!(whole["allowed_because_of"], serde_json::json!(["parse"]));
    let comment = fs::read_to_string(of("allowed").folder.join("check.md")).expect("it is there");
    assert!(comment.contains("`the whole` may be slower because of parse ("), "{comment}");
    for (name, reason) in [
        ("noisy", "too_noisy"),
        ("other-machine", "machines_differ"),
        ("base-differs", "base_differs_from_itself"),
    ] {
        assert_eq!(of(name).json["refusals"][0]["reason"], reason, "{:#}", of(name).json);
    }
    let bases = ["same", "shares", "work"].map(|name| of(name).json["basis"]["kind"].clone());
    assert_eq!(bases, ["per_run", "share", "per_work"]);

    // No name is obeyed, ends its cell or command, or calls somebody.
    let text = |name: &str, file: &str| fs::read_to_string(of(name).folder.join(file)).expect("it is there");
    for (name, report) in &all {
        let is_obeyed = |character: char| {
            character.is_control() && character != '\n' || matches!(character, '\u{202a}'..='\u{202e}')
        };
        let (comment, log) = (text(name, "check.md"), text(name, "check.log"));
        for (what, text) in [("table", &report.table), ("comment", &comment), ("log", &log)] {
            assert!(!text.contains(is_obeyed), "{name}: {what}: {text:?}");
        }
        assert!(!comment.contains("@me"), "{name}: {comment}");
        for row in comment.lines().filter(|line| line.starts_with('|')) {
            assert_eq!(row.matches('|').count(), 8, "{name}: {row}");
        }
        assert!(log.lines().all(|line| line.starts_with("::")), "{name}: {log}");
        let of_whole = log.lines().next().unwrap_or_default();
        assert!(of_whole.contains(" title=spanflame check::"), "{name}: {log}");
        let has_error = log.lines().any(|line| line.starts_with("::error "));
        assert_eq!(has_error, report.json["verdict"] == "regressed", "{name}: {log}");
    }
    assert!(text("regressed", "check.md").contains("<code>std&#58;&#58;map"), "its bar is no cell's end");
    // What was not decided fails nobody.
    let open = of("other-machine").sarif["runs"][0]["results"].as_array().expect("results").clone();
    assert!(!open.is_empty() && open.iter().all(|result| result["level"] == "note"), "{open:#?}");

    // What was built elsewhere is brought here.
    let base = |folder: &Path| record(folder, 1, executed, |_| PROGRAM.to_vec());
    let new = |folder: &Path| record(folder, 2, executed, |_| with("hash", dearer(2.0)));
    for (more, place) in [
        (&[][..], "::error title=hash "),
        (
            &["--source-map", "/usr/include=third party"][..],
            "::error file=third party/hash.h,line=12,title=hash ",
        ),
        (&["--source-map", "/usr/inc=third party"][..], "::error title=hash "),
    ] {
        let found = reported(project.path(), "mapped", base, new, more);
        let log = fs::read_to_string(found.folder.join("check.log")).expect("it is there");
        assert!(log.lines().any(|line| line.starts_with(place)), "{more:?}: {log}");
    }

    // Findings stand at files of the project; what is allowed is suppressed; what was refused is a notification.
    let results = of("regressed").sarif["runs"][0]["results"].as_array().expect("results").clone();
    let names_it = |result: &&Value| result["locations"][0]["logicalLocations"][0]["name"] == AWKWARD;
    let result = results.iter().find(names_it).unwrap_or_else(|| panic!("{results:#?}"));
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "src/a%20b/gr%C3%B6%C3%9Fe.c", "{result:#}");
    assert_eq!(place["region"]["startLine"], 14, "{result:#}");
    for (file, place) in [
        ("check.log", "::error file=src/a b/größe.c,line=14,title=std%3A%3Amap"),
        ("check.xml", r#" file="src/a b/größe.c" line="14"><failure"#),
        ("check.md", "`src/a b/größe.c:14`"),
    ] {
        assert!(text("regressed", file).contains(place), "{file}: {}", text("regressed", file));
    }
    let of_allowed = of("allowed").sarif["runs"][0]["results"].as_array().expect("results").clone();
    assert!(
        of_allowed.iter().any(|result| result["suppressions"][0]["kind"] == "external"),
        "{of_allowed:#?}"
    );
    for name in ["noisy", "other-machine", "base-differs"] {
        let invocation = &of(name).sarif["runs"][0]["invocations"][0];
        assert_eq!(invocation["executionSuccessful"], false, "{name}");
        assert!(invocation["toolExecutionNotifications"][0]["message"]["text"].is_string(), "{name}");
    }

    if !is_installed("node") || !web().join("node_modules/ajv-formats").exists() {
        return skip("needs node and the page's tools (`make page`)");
    }
    let folders: Vec<&Path> = all.iter().map(|(_, report)| report.folder.as_path()).collect();
    walk("check-reports.js", folders);
}
