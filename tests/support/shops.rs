//! The same web shop on servers that people run (`fixtures/shop`): Flask under gunicorn, Express, the JDK's own server,
//! Jetty, Go's net/http. What they need beside this machine's programs is fetched once, below the target directory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::program::Program;
use super::servers::{await_port, free_port};

/// What the shop stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Gunicorn,
    Express,
    JdkServer,
    Jetty,
    NetHttp,
}

/// A running shop.
pub struct Shop {
    pub program: Program,
    pub port: u16,
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/shop")
}

/// A folder below the target directory.
fn folder(name: &str) -> PathBuf {
    let folder = super::target_directory().join("shop").join(name);
    std::fs::create_dir_all(&folder).expect("the target directory is ours");
    folder
}

/// Why a command failed, if it did.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// The folder in which npm has put Express.
fn express() -> Result<PathBuf, String> {
    let folder = folder("express");
    if !folder.join("node_modules/express/package.json").exists() {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"]).arg(&folder);
        run(npm.arg("express@5.1.0"))?;
    }
    Ok(folder)
}

/// The class path of the Java shops, compiled.
fn java(with_jetty: bool) -> Result<String, String> {
    let classes = folder(if with_jetty { "jetty-classes" } else { "java-classes" });
    let mut path = classes.display().to_string();
    let server = if with_jetty { "JettyShop.java" } else { "ShopServer.java" };
    if with_jetty {
        let jars = folder("jetty");
        if std::fs::read_dir(&jars).map_err(|error| error.to_string())?.next().is_none() {
            let mut maven = Command::new("mvn");
            maven.args(["--batch-mode", "--quiet", "dependency:copy-dependencies", "-f"]);
            run(maven.arg(sources().join("pom.xml")).arg(format!("-DoutputDirectory={}", jars.display())))?;
        }
        path = format!("{path}:{}/*", jars.display());
    }
    let mut javac = Command::new("javac");
    javac.args(["--release", "17", "-g", "-cp", &path, "-d"]).arg(&classes);
    run(javac.args([sources().join("Pages.java"), sources().join(server)]))?;
    Ok(path)
}

fn command(kind: Kind, port: u16) -> Result<Command, String> {
    match kind {
        Kind::Gunicorn => {
            let packages = ["flask==3.1.*", "gunicorn==23.*"];
            let python = super::python_sdk::python_with("flask-gunicorn", &packages, "flask, gunicorn")?;
            let mut command = Command::new(python);
            command.args(["-m", "gunicorn", "--workers", "2", "--worker-class", "sync"]);
            command.args(["--log-level", "warning", "--bind", &format!("127.0.0.1:{port}")]);
            command.arg("--pythonpath").arg(sources()).arg("shop:app").env("PYTHONDONTWRITEBYTECODE", "1");
            Ok(command)
        }
        Kind::Express => {
            let mut command = Command::new("node");
            command.arg(sources().join("shop.js")).arg(express()?).arg(port.to_string());
            Ok(command)
        }
        Kind::JdkServer | Kind::Jetty => {
            let class = if kind == Kind::Jetty { "JettyShop" } else { "ShopServer" };
            let mut command = Command::new("java");
            command.args(["-Xmx128m", "-cp", &java(kind == Kind::Jetty)?, class, &port.to_string()]);
            Ok(command)
        }
        Kind::NetHttp => {
            let program = folder("go").join("shop");
            run(Command::new("go").args(["build", "-o"]).arg(&program).arg(sources().join("shop.go")))?;
            let mut command = Command::new(program);
            command.arg(port.to_string());
            Ok(command)
        }
    }
}

impl Shop {
    /// Opens one under a service's name, or says why it cannot be had.
    pub fn open(kind: Kind, service: &str) -> Result<Self, String> {
        let port = free_port();
        let mut command = {
            let _one_at_a_time = super::locked("shop.lock");
            command(kind, port)?
        };
        command.env("OTEL_SERVICE_NAME", service).stderr(Stdio::null());
        let program = Program::start(&mut command);
        await_port(port);
        Ok(Self { program, port })
    }

    /// Asks for a page, on a connection of its own; it must be there.
    pub fn visit(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
        let request = format!("GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap_or_else(|error| panic!("{path}: {error}"));
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        answer
    }

    /// `wrk` with four connections asks for a page until this is dropped, at most for two minutes.
    pub fn crowd(&self, path: &str) -> Program {
        let mut command = Command::new("wrk");
        command.args(["-t", "1", "-c", "4", "-d", "120s", &format!("http://127.0.0.1:{}{path}", self.port)]);
        Program::start(&mut command)
    }
}
