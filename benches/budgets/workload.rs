//! The programs that are measured while they run: what keeps the processors busy, and what merely
//! lives beside it so that its unwind tables are loaded. Each ends with its guard.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A process that is killed and reaped when this goes.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts a command; what it prints is thrown away.
    pub fn start(command: &mut Command) -> Result<Self> {
        end_with_parent(command);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("cannot start {}", command.get_program().display()))?))
    }

    /// Starts a command; what it prints comes into a file.
    pub fn start_saying(command: &mut Command, says: File) -> Result<Self> {
        end_with_parent(command);
        let child = command.stdout(says).stderr(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("cannot start {}", command.get_program().display()))?))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The child itself.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }
}

/// Lets the kernel end a child when the benches are killed and no guard runs any more.
pub fn end_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec only one system call runs, which allocates nothing.
    unsafe {
        command.pre_exec(|| {
            let signal = rustix::process::Signal::KILL;
            Ok(rustix::process::set_parent_process_death_signal(Some(signal))?)
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A child that has ended already cannot be killed; it is still to be reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where the benches keep what they build, below the build folder of cargo.
pub fn build_folder() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Runs a command that must succeed.
pub fn run_to_end(command: &mut Command) -> Result<()> {
    let output =
        command.output().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    ensure!(
        output.status.success(),
        "{} failed: {}",
        command.get_program().display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The load program `fixtures/bench/deep.c`, compiled.
#[derive(Debug)]
pub struct Deep {
    object: PathBuf,
    executable: PathBuf,
}

impl Deep {
    /// Compiles it, unless that was done since it last changed.
    pub fn build() -> Result<Self> {
        let folder = build_folder()?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/bench/deep.c");
        let deep = Self { object: folder.join("deep.o"), executable: folder.join("deep") };
        let changed = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified());
        let current = match (changed(&source), changed(&deep.executable)) {
            (Ok(source), Ok(executable)) => executable > source,
            _ => false,
        };
        if !current {
            let flags = ["-O2", "-fomit-frame-pointer", "-c", "-o"];
            run_to_end(Command::new("cc").args(flags).arg(&deep.object).arg(&source))?;
            deep.link(&deep.executable, "sha1")?;
        }
        Ok(deep)
    }

    fn link(&self, executable: &Path, build_id: &str) -> Result<()> {
        let build_id = format!("-Wl,--build-id={build_id}");
        run_to_end(
            Command::new("cc").arg(build_id).arg("-o").arg(executable).arg(&self.object).arg("-lpthread"),
        )
    }

    /// The same program with a build id that no cache has seen.
    pub fn link_unseen(&self, executable: &Path, serial: u64) -> Result<()> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos() as u64;
        self.link(executable, &format!("0x{now:016x}{serial:016x}"))
    }

    /// Where it lies.
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// Keeps `threads` threads busy under `depth` user frames each until the guard goes.
    pub fn start(&self, depth: u32, threads: usize) -> Result<Running> {
        self.start_among(4096, depth, threads)
    }

    /// The same with stacks that lead through so many functions.
    pub fn start_among(&self, functions: u32, depth: u32, threads: usize) -> Result<Running> {
        // The end is a safety net for a bench that is killed: no load is left behind for ever.
        let (seconds, slice_us) = (600, 200);
        Running::start(
            Command::new(&self.executable).args(
                [u64::from(depth), threads as u64, seconds, slice_us, functions.into()]
                    .map(|word| word.to_string()),
            ),
        )
    }
}

/// Idle processes of large executables, so that the tables that are loaded are those of a real host.
#[derive(Debug)]
pub struct Company {
    alive: Vec<Running>,
    names: Vec<&'static str>,
}

impl Company {
    /// Starts those that this machine has: Node, a JVM, the C compiler proper, Python, Chromium.
    pub fn start() -> Result<Self> {
        let mut company = Self { alive: Vec::new(), names: Vec::new() };
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = |name: &str| OsStr::new(name).to_owned();
        let mut candidates = vec![
            ("node", vec![path("node"), path("-e"), path("setTimeout(() => {}, 3600e3)")]),
            (
                "java",
                vec![path("java"), manifest.join("fixtures/bench/Idle.java").into_os_string(), path("3600")],
            ),
            ("python3", vec![path("python3"), path("-c"), path("import time; time.sleep(3600)")]),
            (
                "chromium",
                vec![
                    path("chromium"),
                    path("--headless"),
                    path("--no-sandbox"),
                    path("--disable-gpu"),
                    path("--disable-background-networking"),
                    path("--disable-component-update"),
                    path("--disable-sync"),
                    path("--remote-debugging-port=0"),
                    path("about:blank"),
                ],
            ),
        ];
        if let Some(compiler) = compiler_proper() {
            // It waits for its source on a pipe that nobody writes to.
            candidates.push((
                "cc1",
                vec![compiler.into_os_string(), path("-quiet"), path("-"), path("-o"), path("/dev/null")],
            ));
        }
        for (name, arguments) in candidates {
            let Some((program, rest)) = arguments.split_first() else { continue };
            if let Ok(running) = Running::start(Command::new(program).args(rest).stdin(Stdio::piped())) {
                company.alive.push(running);
                company.names.push(name);
            }
        }
        Ok(company)
    }

    /// The names of those that are alive.
    pub fn names(&mut self) -> String {
        let mut names = Vec::new();
        for (running, name) in self.alive.iter_mut().zip(&self.names) {
            if matches!(running.child().try_wait(), Ok(None)) {
                names.push(*name);
            }
        }
        names.join(", ")
    }
}

/// GCC's `cc1`, which is not on the search path.
pub fn compiler_proper() -> Option<PathBuf> {
    let output = Command::new("gcc").arg("-print-prog-name=cc1").output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_absolute().then_some(path)
}
