//! Fixtures and other programs under test: built once, started, awaited, never left behind.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

/// Where the fixtures are, built on first use.
pub fn fixtures() -> &'static PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let _lock = super::locked("fixtures.lock");
        let manifest = env!("CARGO_MANIFEST_DIR");
        let output = Command::new("make")
            .args(["-s", "-C", &format!("{manifest}/fixtures")])
            .env_remove("MAKEFLAGS")
            .output()
            .expect("make is installed");
        assert!(output.status.success(), "make -C fixtures:\n{}", String::from_utf8_lossy(&output.stderr));
        // The Makefile's own choice, whatever CARGO_TARGET_DIR is.
        PathBuf::from(manifest).join("target/fixtures")
    })
}

/// The path of one fixture.
pub fn fixture(name: &str) -> String {
    fixtures().join(name).to_str().expect("paths of the build are text").to_owned()
}

/// A command line for a fixture: name, then arguments.
pub fn fixture_command(line: &[&str]) -> Command {
    let (name, arguments) = line.split_first().expect("a name");
    let mut command = Command::new(fixture(name));
    command.args(arguments);
    command
}

/// A running program that is killed and reaped when the test is done with it, however it ends.
pub struct Program {
    child: Child,
    /// As seen from here; that of the program inside for `contained`.
    pub pid: u32,
    output: Option<BufReader<ChildStdout>>,
}

impl Program {
    /// Starts a program and does not wait for anything. Its standard output is not read.
    pub fn start(command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { pid: child.id(), child, output: None }
    }

    /// Starts a fixture and waits for its line `ready`.
    pub fn start_ready(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut program = Self { pid: child.id(), child, output: Some(output) };
        loop {
            let line = program.line().unwrap_or_else(|| panic!("{command:?} ended before it was ready"));
            if let Some(pid) = line.strip_prefix("child ") {
                program.pid = pid.parse().expect("a pid");
            }
            if line.starts_with("ready ") {
                return program;
            }
        }
    }

    /// The next line of its standard output, none at its end.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.output.as_mut()?.read_line(&mut line).expect("its output is text");
        (length > 0).then(|| line.trim_end().to_owned())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// The pid that was started here, which `pid` is not for `contained`.
    pub fn own_pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.is_running() {
            // SIGTERM first where the program has children to end (servers), then the hard way.
            super::send_signal(self.child.id(), libc::SIGTERM);
            for _ in 0..200 {
                if !self.is_running() {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Pids of the children of a process, from /proc.
pub fn children_of(parent: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // "pid (comm) state ppid …", and comm may hold anything.
        let parent_field = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        if parent_field == Some(parent.to_string().as_str()) {
            children.push(pid);
        }
    }
    children
}

/// The command line of a process, arguments separated by blanks.
pub fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
}
