//! Builds small Go programs with several toolchains and link modes, once for each test binary.

#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use spanflame_symbols::ObjectFile;

/// A Go release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Toolchain {
    /// What `GOTOOLCHAIN` is set to.
    pub name: &'static str,
    /// Whether `runtime.CallersFrames` gives all inlined calls of an address (not to Go 1.22, from 1.26 at the latest).
    pub tells_all_inlined: bool,
    /// Whether the runtime's stack switches have frames (from Go 1.21).
    pub has_frame_in_systemstack: bool,
}

impl Toolchain {
    /// `go` of this toolchain.
    pub fn go(self) -> Command {
        let mut go = Command::new("go");
        go.env("GOTOOLCHAIN", self.name).env("GOFLAGS", "-buildvcs=false").env("GOWORK", "off");
        go
    }
}

/// The toolchains that can be had; the others are named on standard error.
pub fn toolchains() -> Vec<Toolchain> {
    let all = [
        Toolchain { name: "go1.18.10", tells_all_inlined: false, has_frame_in_systemstack: false },
        Toolchain { name: "go1.22.12", tells_all_inlined: false, has_frame_in_systemstack: true },
        Toolchain { name: "local", tells_all_inlined: true, has_frame_in_systemstack: true },
    ];
    let had = all.into_iter().filter(|toolchain| {
        let version = toolchain.go().arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        let had = version.is_ok_and(|status| status.success());
        if !had {
            eprintln!("skipped: the Go toolchain {} cannot be had", toolchain.name);
        }
        had
    });
    had.collect()
}

/// How a program is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// As `go build` does it.
    Plain,
    /// Without symbol table and DWARF.
    Stripped,
    /// Position-independent, by Go's own linker.
    Pie,
    /// With C code, by the system's linker.
    Cgo,
    /// With C code, position-independent, stripped, by the system's linker.
    CgoPieStripped,
    /// Without inlined calls, also in the runtime, as for a debugger.
    NotInlined,
}

impl Mode {
    /// Those that are shipped.
    pub const ALL: [Self; 5] = [Self::Plain, Self::Stripped, Self::Pie, Self::Cgo, Self::CgoPieStripped];

    fn arguments(self) -> &'static [&'static str] {
        match self {
            // Go 1.18 compresses DWARF in a way that LLVM has forgotten.
            Self::Plain => &["-ldflags=-compressdwarf=false"],
            Self::Cgo => &[],
            Self::Stripped => &["-ldflags=-s -w"],
            Self::Pie => &["-buildmode=pie"],
            Self::NotInlined => &["-gcflags=all=-N -l"],
            Self::CgoPieStripped => &["-buildmode=pie", "-ldflags=-s -w -linkmode=external"],
        }
    }

    fn uses_c(self) -> bool {
        matches!(self, Self::Cgo | Self::CgoPieStripped)
    }
}

/// A program that was built; its folder goes with the test.
#[derive(Debug)]
pub struct BuiltProgram {
    pub path: PathBuf,
    toolchain: Toolchain,
    mode: Mode,
    _folder: tempfile::TempDir,
}

impl fmt::Display for BuiltProgram {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {:?}", self.toolchain.name, self.mode)
    }
}

type Built = Mutex<HashMap<(Toolchain, Mode), Option<Arc<BuiltProgram>>>>;
static BUILT: Mutex<Option<Built>> = Mutex::new(None);

/// Builds the program; `None` if this machine cannot, which standard error then says.
pub fn build(toolchain: Toolchain, mode: Mode) -> Option<Arc<BuiltProgram>> {
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_with(Built::default);
    let built = built.get_mut().unwrap_or_else(PoisonError::into_inner);
    built.entry((toolchain, mode)).or_insert_with(|| build_now(toolchain, mode).map(Arc::new)).clone()
}

fn build_now(toolchain: Toolchain, mode: Mode) -> Option<BuiltProgram> {
    if mode.uses_c() && Command::new("gcc").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: {} {mode:?}: there is no gcc", toolchain.name);
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("writable");
    write("go.mod", "module example.com/program\n\ngo 1.18\n");
    write("main.go", include_str!("main.go.txt"));
    if mode.uses_c() {
        write("with_c.go", include_str!("with_c.go.txt"));
    }
    let path = folder.path().join("program");
    let output = toolchain
        .go()
        .env("CGO_ENABLED", if mode.uses_c() { "1" } else { "0" })
        .current_dir(folder.path())
        .args(["build", "-o", "program"])
        .args(mode.arguments())
        .output()
        .expect("go was there before");
    assert!(
        output.status.success(),
        "{} {mode:?}: {}",
        toolchain.name,
        String::from_utf8_lossy(&output.stderr)
    );
    Some(BuiltProgram { path, toolchain, mode, _folder: folder })
}

/// An object by path.
pub fn object_of(path: &Path) -> ObjectFile {
    let file = std::fs::File::open(path).expect("the file is there");
    ObjectFile::new(file, path).expect("an ELF file")
}
