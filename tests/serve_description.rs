//! Schemathesis against `/openapi.json`: it sends what the description permits, and what it does not, and
//! compares every answer with what the description says of it.
//!
//! It comes from the Python package index into a virtual environment in `target/`, once; where it cannot be had, the test is
//! skipped and says so.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::server::{Server, WITHOUT_EBPF};

/// A minor version, so that new checks come with a change of ours.
const PACKAGE: &str = "schemathesis==4.32.*";

/// The program `st`, or why it cannot be had.
fn schemathesis() -> Result<PathBuf, String> {
    let _one = support::locked("schemathesis.lock");
    let environment = support::target_directory().join("schemathesis");
    let program = environment.join("bin/st");
    if runs(Command::new(&program).arg("--version")).is_ok() {
        return Ok(program);
    }
    runs(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))
        .map_err(|error| format!("no virtual environment of Python: {error}"))?;
    let pip = environment.join("bin/pip");
    runs(Command::new(pip).args(["install", "--quiet", "--disable-pip-version-check", PACKAGE]))
        .map_err(|error| format!("{PACKAGE} cannot be installed: {error}"))?;
    Ok(program)
}

fn runs(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr)).trim().to_owned())
}

fn find_nothing(program: &Path, server: &Server, more: &[&str]) {
    let examples = support::seconds(5, 100).to_string();
    let mut command = Command::new(program);
    command
        // It keeps a folder of what it has found.
        .current_dir(server.directory.path())
        .arg("--config-file")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schemathesis.toml"))
        .arg("run")
        .arg(format!("{}/openapi.json", server.url))
        .args([
            "--max-examples",
            &examples,
            "--seed",
            "1",
            "--request-timeout",
            "60",
            "--no-color",
            "--warnings",
            "off",
        ])
        .args(more);
    if let Err(found) = runs(&mut command) {
        panic!("{found}\nthe log: {}", server.log());
    }
}

#[test]
fn schemathesis_finds_nothing() {
    let program = match schemathesis() {
        Ok(program) => program,
        Err(reason) => return support::skip(&reason),
    };
    let open = if support::cannot_record().is_some() { WITHOUT_EBPF } else { "" };
    find_nothing(&program, &Server::start_with(open, &[]), &[]);
    let with_token =
        format!("{WITHOUT_EBPF}self_telemetry: {{auth: {{enabled: true, bearer_token: t0ken}}}}\n");
    // What is asked for was tried above; here it matters who asks.
    let header = ["--header", "Authorization: Bearer t0ken", "--phases", "coverage"];
    find_nothing(&program, &Server::start_with(&with_token, &[]), &header);
}
