//! Compiles the BPF programs: one object a program file, and Rust types from the sampler's BTF. Notes which
//! commit is built, and when.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use libbpf_cargo::SkeletonBuilder;

/// Compiles `bpf/NAME.bpf.c` to `OUT_DIR/NAME.bpf.o`.
fn compile(name: &str, out: &Path) -> SkeletonBuilder {
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang-19".into());
    let mut builder = SkeletonBuilder::new();
    builder
        .source(format!("bpf/{name}.bpf.c"))
        .obj(out.join(format!("{name}.bpf.o")))
        .clang(clang)
        // Version 3 of the instruction set (Linux 5.12) has atomics that return the old value.
        .clang_args(["-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"])
        .reference_obj(true);
    if let Err(error) = builder.build() {
        panic!("bpf/{name}.bpf.c does not compile: {error:#}");
    }
    builder
}

/// `SPANFLAME_COMMIT` (short, empty where there is no repository) and `SPANFLAME_BUILT_UNIX_S`, for `/status`.
/// A build of the same source is the same with `SOURCE_DATE_EPOCH` (reproducible-builds.org).
fn note_build() {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_default();
    // Changes with every commit and checkout; in a worktree it is elsewhere than .git/HEAD.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file])
            && Path::new(&path).exists()
        {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let given = env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.trim().parse().ok());
    println!("cargo:rustc-env=SPANFLAME_COMMIT={commit}");
    println!("cargo:rustc-env=SPANFLAME_BUILT_UNIX_S={}", given.unwrap_or_else(now));
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
}

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    compile("sample", &out)
        .generate(out.join("sample.skel.rs"))
        .expect("the sampler's types can be described in Rust");
    compile("sample_small", &out);
    compile("process_maps", &out);
    compile("lifecycle", &out);
    compile("socket", &out)
        .generate(out.join("socket.skel.rs"))
        .expect("the socket programs' types can be described in Rust");
    compile("go", &out);
    compile("go_tls", &out);
    compile("propagate", &out);
    compile("http_header", &out);
    compile("publish", &out);
    compile("turns", &out);
    compile("tls", &out);
    for entry in std::fs::read_dir("bpf").expect("the sources of the programs").flatten() {
        // The tests of the programs are a crate of their own.
        if entry.file_name() != "native" {
            println!("cargo:rerun-if-changed={}", entry.path().display());
        }
    }
    println!("cargo:rerun-if-env-changed=CLANG");
    // The page is embedded, with the files that are there when this crate is compiled.
    println!("cargo:rerun-if-changed=web/dist");
    note_build();
}
