//! Python environments with OpenTelemetry's SDK, made once below the target directory.

use std::path::PathBuf;
use std::process::Command;

/// What an SDK needs to send spans by OTLP.
pub const SDK: [&str; 2] = ["opentelemetry-sdk==1.38.*", "opentelemetry-exporter-otlp-proto-http==1.38.*"];

/// The Python of an environment of this name with these packages, in which the modules can be imported; or why
/// it cannot be had.
pub fn python_with(name: &str, packages: &[&str], modules: &str) -> Result<PathBuf, String> {
    let _one = super::locked(&format!("{name}.lock"));
    let environment = super::target_directory().join(name);
    let python = environment.join("bin/python");
    let run = |command: &mut Command| {
        let output = command.output().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    };
    if run(Command::new(&python).args(["-c", &format!("import {modules}")])).is_ok() {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    run(Command::new(environment.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .args(packages))?;
    Ok(python)
}
