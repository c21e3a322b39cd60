//! The examples of docs/check, as far as they can be run without their hosts.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::server::{Server, WITHOUT_EBPF};
use support::{is_installed, quiet_cores, skip};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/check")
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn git(project: &Path, arguments: &[&str]) {
    let names = ["-c", "user.name=A", "-c", "user.email=a@example.org"];
    let output = run(Command::new("git").args(names).args(arguments).current_dir(project));
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A project of two commits, of which the second makes `price_items` cost five times as much.
fn project() -> tempfile::TempDir {
    let project = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(project.path().join(name), text).expect("written");
    git(project.path(), &["init", "--quiet"]);
    let source = include_str!("../fixtures/c/knob.c");
    write("bench.c", source);
    write("Makefile", "bench:\n\tmkdir -p build && cc -O2 -g -o build/bench bench.c\n");
    git(project.path(), &["add", "."]);
    git(project.path(), &["commit", "--quiet", "--message", "before"]);
    let slower = source.replace("(100 + percent)", "(500 + percent)");
    assert_ne!(slower, source);
    write("bench.c", &slower);
    git(project.path(), &["commit", "--quiet", "--all", "--message", "after"]);
    project
}

#[test]
fn make_fails_when_a_commit_is_slower_than_its_base_and_not_when_it_is_the_same() {
    needs!("cc", "make", "git");
    let _quiet = quiet_cores();
    let project = project();
    let check = |base: &str, more: &[&str]| {
        run(Command::new("make")
            .arg("-f")
            .arg(docs().join("Makefile"))
            .args(["check", &format!("BASE={base}"), "PROGRAM=build/bench 20000 0", "RUNS=4"])
            .arg(format!("SPANFLAME={}", support::binary().display()))
            .args(more)
            .current_dir(project.path()))
    };
    let output = check("HEAD~1", &[]);
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    let comment = std::fs::read_to_string(project.path().join("check.md")).expect("the comment is written");
    assert!(comment.starts_with("<!-- spanflame:check -->\n"), "{comment}");
    assert!(comment.contains("`price_items`") && comment.contains("`bench.c:"), "{comment}\n{said}");
    let picture = std::fs::read_to_string(project.path().join("check.svg")).expect("the picture is written");
    assert!(picture.contains(r#"data-v="more""#) && picture.contains("▲ price_items"), "{said}");
    assert!(!project.path().join(".check-base").exists(), "the base's tree is removed");

    // The margins are wide: what is tried is the pipeline, and this machine may be a noisy one.
    let output = check("HEAD", &["WORK=--min-effect 60% --margin 60%"]);
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let json = std::fs::read_to_string(project.path().join("check.json")).expect("the report is written");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_ne!(json["verdict"], "regressed", "{said}");
}

#[test]
fn a_baseline_is_kept_by_a_server_under_its_revision_and_a_later_commit_is_compared_with_it() {
    needs!("cc", "make", "git", "curl");
    let _quiet = quiet_cores();
    let project = project();
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let baseline = |arguments: &[&str]| {
        let output = run(Command::new(docs().join("baseline.sh"))
            .args(arguments)
            .env("SERVER", &server.url)
            .env("SPANFLAME", support::binary())
            .env("RUNS", "5")
            .env_remove("SPANFLAME_CHECK_TOKEN")
            .current_dir(project.path()));
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), said)
    };
    git(project.path(), &["checkout", "--quiet", "HEAD~1"]);
    let revision = run(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(project.path()));
    let revision = String::from_utf8_lossy(&revision.stdout).trim().to_owned();
    assert!(run(Command::new("make").arg("bench").current_dir(project.path())).status.success());
    let (status, said) = baseline(&["keep", "build/bench 20000 0"]);
    assert_eq!((status, said.matches("\"samples\"").count()), (Some(0), 5), "{said}");

    git(project.path(), &["checkout", "--quiet", "-"]);
    assert!(run(Command::new("make").args(["-B", "bench"]).current_dir(project.path())).status.success());
    let (status, said) = baseline(&["compare", &revision[..10], "build/bench 20000 0"]);
    assert_eq!(status, Some(1), "{said}");
    let comment = std::fs::read_to_string(project.path().join("check.md")).expect("the comment is written");
    assert!(comment.contains("`price_items`") && comment.contains("`bench.c:"), "{comment}\n{said}");
    let (status, said) = baseline(&["compare", "0123456789", "build/bench 20000 0"]);
    assert_eq!(status, Some(3), "{said}");
}

#[test]
fn the_hosts_files_are_yaml_and_their_scripts_are_shell() {
    let has_yaml =
        is_installed("python3") && run(Command::new("python3").args(["-c", "import yaml"])).status.success();
    if !has_yaml {
        return skip("python3 has no yaml");
    }
    let scripts = "\
import sys, yaml
document = yaml.safe_load(open(sys.argv[1]))
if 'jobs' in document:
    assert True in document or 'on' in document
    scripts = [step['run'] for job in document['jobs'].values() for step in job['steps'] if 'run' in step]
else:
    scripts = ['\\n'.join(job['script']) for job in document.values()]
assert any('spanflame check run' in script for script in scripts)
print('\\n'.join(scripts))
";
    for name in ["github-actions.yml", "gitlab-ci.yml"] {
        let output = run(Command::new("python3").args(["-c", scripts]).arg(docs().join(name)));
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let script = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(script.path(), &output.stdout).expect("written");
        let checked = run(Command::new("bash").arg("-n").arg(script.path()));
        assert!(checked.status.success(), "{name}: {}", String::from_utf8_lossy(&checked.stderr));
        // The options that they give are options that there are.
        let help = run(support::spanflame().args(["check", "run", "--help"]));
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let words = text
            .split_once("check run")
            .map_or("", |(_, rest)| rest.split("\n\n").next().unwrap_or_default());
        let options: Vec<&str> = words
            .split_whitespace()
            .take_while(|word| *word != "marker=$(head")
            .filter(|word| word.starts_with("--"))
            .collect();
        assert!(options.len() >= 4, "{name}: {options:?}");
        for option in options {
            assert!(help.contains(option), "{name}: there is no {option}");
        }
    }
}

/// The blocks of this language in the page that tells of it all.
fn blocks(language: &str) -> Vec<String> {
    let page = std::fs::read_to_string(docs().join("README.md")).expect("the page");
    let begin = format!("```{language}\n");
    let blocks = page.split(begin.as_str()).skip(1);
    blocks.filter_map(|rest| rest.split_once("```")).map(|(block, _)| block.to_owned()).collect()
}

#[test]
fn what_the_page_says_is_so() {
    let page = std::fs::read_to_string(docs().join("README.md")).expect("the page");
    let help = |subcommand: &str| {
        let help = run(support::spanflame().args(["check", subcommand, "--help"]));
        String::from_utf8_lossy(&help.stdout).into_owned()
    };
    let (of_run, of_compare) = (help("run"), help("compare"));
    let words = page.split(|character: char| !(character.is_ascii_lowercase() || character == '-'));
    let options: Vec<&str> = words.filter(|word| word.starts_with("--") && !word.ends_with('-')).collect();
    assert!(options.len() > 10, "{options:?}");
    for option in options {
        assert!(of_run.contains(option) || of_compare.contains(option), "there is no {option}");
    }
    for link in page.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
        assert!(docs().join(link.0).exists(), "{}", link.0);
    }
    // The commands are such: each is understood, and stopped by what is not there.
    let [commands] = &blocks("sh")[..] else { panic!("one block of commands") };
    let folder = tempfile::tempdir().expect("a folder");
    for command in commands.lines().filter(|line| line.contains("check compare --base runs")) {
        let words = shlex::split(command).expect("a command");
        let arguments = words.iter().skip(1).take_while(|word| !word.starts_with('#'));
        let output = run(support::spanflame().args(arguments).current_dir(folder.path()));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains("runs/base: cannot be read"), "{said}");
    }
    // The list is one.
    let [list] = &blocks("text")[..] else { panic!("one list") };
    std::fs::write(folder.path().join("allowed"), list).expect("written");
    let sides = ["check", "compare", "--base", "missing", "--new", "missing", "--allow", "allowed"];
    let said = |output: Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let understood = said(run(support::spanflame().args(sides).current_dir(folder.path())));
    assert!(understood.contains("missing: cannot be read"), "{understood}");
    std::fs::write(folder.path().join("allowed"), list.replace(" -- ", " ")).expect("written");
    let refused = said(run(support::spanflame().args(sides).current_dir(folder.path())));
    assert!(refused.contains("--allow allowed: line 2"), "{refused}");
}
