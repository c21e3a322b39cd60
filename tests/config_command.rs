//! `spanflame config` as its users see it: exit codes, every mistake with its line, secrets nowhere.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

type TestResult = Result<(), Box<dyn Error>>;

/// `spanflame config ARGUMENTS`, with nothing in the environment but `variables`.
fn config(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Output, Box<dyn Error>> {
    Ok(Command::new(env!("CARGO_BIN_EXE_spanflame"))
        .arg("config")
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()?)
}

fn standard_output(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn standard_error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn write(folder: &Path, text: &str) -> Result<String, Box<dyn Error>> {
    let path = folder.join("spanflame.yaml");
    fs::write(&path, text)?;
    Ok(path.to_str().ok_or("a path in UTF-8")?.to_owned())
}

#[test]
fn a_valid_file_is_one_line_and_exit_code_0() -> TestResult {
    let folder = tempfile::tempdir()?;
    let file = write(folder.path(), "agent:\n  profiling:\n    sample_rate: 49\n")?;
    let output = config(&["validate", "--config", &file], &[("SPANFLAME_LOG_LEVEL", "debug")])?;
    assert_eq!(output.status.code(), Some(0), "{}", standard_error(&output));
    assert_eq!(standard_output(&output), format!("{file}: valid, 2 keys set\n"));
    assert_eq!(standard_error(&output), "");
    Ok(())
}

#[test]
fn a_wrong_file_is_exit_code_2_and_every_mistake_with_its_line() -> TestResult {
    let folder = tempfile::tempdir()?;
    let file = write(
        folder.path(),
        "agnet: {}\nself_telemetry:\n  listen: ':19090'\nstorage:\n  max_age: 10\notlp:\n  endpoint: ${COLLECTOR}\n",
    )?;
    let output = config(&["validate", "--config", &file], &[("SPANFLAME_OTLP_TIMEOUT", "soon")])?;
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(standard_output(&output), "");
    let error = standard_error(&output);
    for wanted in [
        "spanflame: the configuration has 5 errors",
        &format!("{file}:1:1: unknown key `agnet`; did you mean `agent`?"),
        &format!("{file}:3:3: self_telemetry.listen: `:19090` can be reached from other machines by anyone."),
        &format!("{file}:5:12: storage.max_age: `10` is not a duration from 10s to 36500d"),
        &format!("{file}:7:13: otlp.endpoint: the environment has no variable `COLLECTOR`"),
        "SPANFLAME_OTLP_TIMEOUT: otlp.timeout: `soon` is not a duration from 1s to 10m",
    ] {
        assert!(error.lines().any(|line| line.starts_with(wanted)), "{wanted} is not in\n{error}");
    }
    Ok(())
}

#[test]
fn a_file_that_is_not_there_is_exit_code_2_and_named() -> TestResult {
    for action in ["validate", "show"] {
        let output = config(&[action, "--config", "/no/such/file.yaml"], &[])?;
        assert_eq!(output.status.code(), Some(2));
        assert!(standard_error(&output).contains("/no/such/file.yaml: cannot be read"), "{output:?}");
    }
    Ok(())
}

#[test]
fn standard_input_is_a_file_called_dash() -> TestResult {
    let mut child = Command::new(env!("CARGO_BIN_EXE_spanflame"))
        .args(["config", "validate", "--config", "-"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().ok_or("a pipe")?.write_all(b"otlp: {insecure: maybe}\n")?;
    let output = child.wait_with_output()?;
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        standard_error(&output),
        "spanflame: standard input:1:18: otlp.insecure: `maybe` is not true or false\n"
    );
    Ok(())
}

#[test]
fn what_is_shown_has_origins_and_no_secret_and_can_be_read_again() -> TestResult {
    let folder = tempfile::tempdir()?;
    let file = write(
        folder.path(),
        "self_telemetry:\n  auth:\n    enabled: true\n    bearer_token: ${TOKEN}\n\
         otlp:\n  endpoint: http://localhost:4317\n  headers:\n    x-key: hunter3\n",
    )?;
    let variables = [("TOKEN", "hunter2"), ("SPANFLAME_AGENT_PROFILING_SAMPLE_RATE", "99")];
    let output = config(&["show", "--config", &file], &variables)?;
    assert_eq!(output.status.code(), Some(0), "{}", standard_error(&output));
    let yaml = standard_output(&output);
    for line in [
        "    sample_rate: 99  # SPANFLAME_AGENT_PROFILING_SAMPLE_RATE".to_owned(),
        format!("    bearer_token: \"[redacted]\"  # {file}:4:5"),
        format!("  headers: {{\"x-key\":\"[redacted]\"}}  # {file}:7:3"),
        "  listen: 127.0.0.1:19090  # default".to_owned(),
    ] {
        assert!(yaml.lines().any(|of_yaml| of_yaml == line), "{line} is not in\n{yaml}");
    }
    let again = folder.path().join("again.yaml");
    fs::write(&again, yaml.replace("\"[redacted]\"", "hunter2"))?;
    let again = again.to_str().ok_or("a path in UTF-8")?;
    let output = config(&["show", "--format", "json", "--config", again], &[])?;
    assert_eq!(output.status.code(), Some(0), "{}", standard_error(&output));
    let json: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(json["configuration"]["agent"]["profiling"]["sample_rate"], 99);
    assert_eq!(json["configuration"]["otlp"]["headers"]["x-key"], "[redacted]");
    let origin = json["origins"]["self_telemetry.debug"].as_str().ok_or("an origin")?;
    assert!(origin.starts_with(again), "a listing sets every key: {origin}");
    for shown in [&yaml, &standard_output(&output)] {
        assert!(!shown.contains("hunter"), "{shown}");
    }
    Ok(())
}

#[test]
fn a_variable_that_sets_nothing_is_a_warning_and_those_of_the_process_are_none() -> TestResult {
    let variables =
        [("SPANFLAME_LOG_LEVL", "debug"), ("SPANFLAME_CACHE_DIR", "/x"), ("SPANFLAME_RING_BYTES", "1")];
    let output = config(&["validate"], &variables)?;
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        standard_error(&output),
        "spanflame: warning: the environment's SPANFLAME_LOG_LEVL sets no key; did you mean SPANFLAME_LOG_LEVEL?\n"
    );
    assert_eq!(standard_output(&output), "defaults and environment: valid, 0 keys set\n");
    Ok(())
}

#[test]
fn a_secret_in_a_file_is_warned_of_until_others_cannot_read_it() -> TestResult {
    let folder = tempfile::tempdir()?;
    let file = write(folder.path(), "otlp: {headers: {x-key: hunter2}}\n")?;
    for (mode, warnings) in [(0o644, 1), (0o640, 0)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
        let output = config(&["validate", "--config", &file], &[])?;
        assert_eq!(output.status.code(), Some(0));
        let told = standard_error(&output);
        assert_eq!(told.lines().count(), warnings, "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    Ok(())
}

#[test]
fn the_example_is_the_annotated_file_and_valid() -> TestResult {
    let output = config(&["example"], &[])?;
    let annotated = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/spanflame.yaml");
    assert_eq!(standard_output(&output), fs::read_to_string(annotated)?);
    let output = config(&["validate", "--config", annotated], &[])?;
    assert_eq!(output.status.code(), Some(0), "{}", standard_error(&output));
    Ok(())
}

#[test]
fn a_reader_that_has_gone_away_is_no_panic() -> TestResult {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_spanflame"))
        .args(["config", "example"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()?
        .wait_with_output()?;
    assert_eq!(output.status.code(), Some(5), "{}", standard_error(&output));
    assert!(!standard_error(&output).contains("panicked"));
    Ok(())
}

/// `etc/spanflame.service`, with our binary in the place of the installed one.
fn unit(binary: &str) -> Result<String, Box<dyn Error>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/spanflame.service");
    Ok(fs::read_to_string(path)?.replace("/usr/local/bin/spanflame", binary))
}

#[test]
fn the_unit_is_understood_by_systemd() -> TestResult {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("spanflame.service");
    fs::write(&file, unit(env!("CARGO_BIN_EXE_spanflame"))?)?;
    let output = match Command::new("systemd-analyze").arg("verify").arg(&file).output() {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: systemd-analyze: {error}");
            return Ok(());
        }
    };
    let told = standard_error(&output);
    assert!(output.status.success() && !told.contains("spanflame.service"), "{told}");
    Ok(())
}

#[test]
fn the_capabilities_of_the_unit_are_enough_to_record_for_a_user_without_any_others() -> TestResult {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: capabilities can be given by root only");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let binary = folder.path().join("spanflame");
    // Copied by another process: a child of a test beside this one could inherit our descriptor, and the
    // kernel runs no file that is open for writing.
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_spanflame")).arg(&binary).status()?.success());
    let unit = unit("")?;
    let of = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).ok_or(format!("no {key}"));
    assert_eq!(of("CapabilityBoundingSet=")?, of("AmbientCapabilities=")?);
    let capabilities: String = of("AmbientCapabilities=")?
        .split(' ')
        .map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()))
        .collect();
    let set = |option: &str| format!("{option}=-all{capabilities}");
    let output = Command::new("setpriv")
        .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs"])
        .args([set("--inh-caps"), set("--ambient-caps"), set("--bounding-set")])
        .arg(&binary)
        .args(["doctor", "--json"])
        .output()?;
    let report: Value = serde_json::from_slice(&output.stdout).map_err(|_| standard_error(&output))?;
    let missing: Vec<&str> = report["abilities"]
        .as_array()
        .ok_or("abilities")?
        .iter()
        .filter(|ability| ability["state"] == "missing")
        .filter_map(|ability| ability["name"].as_str())
        .collect();
    let as_root = Command::new(&binary).args(["doctor"]).output()?;
    assert_eq!(output.status.code(), as_root.status.code(), "{missing:?}");
    for needed in ["map_files", "kernel_symbols", "cap_sys_ptrace", "cap_dac_read_search"] {
        assert!(!missing.contains(&needed), "{missing:?}");
    }
    Ok(())
}
