//! Compiles the BPF programs: one object a program file, and Rust types from the sampler's BTF.

use std::env;
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

/// Compiles `bpf/NAME.bpf.c` to `OUT_DIR/NAME.bpf.o`.
fn compile(name: &str, out: &Path) -> SkeletonBuilder {
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang-19".into());
    let mut builder = SkeletonBuilder::new();
    builder
        .source(format!("bpf/{name}.bpf.c"))
        .obj(out.join(format!("{name}.bpf.o")))
        .clang(clang)
        .clang_args(["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"])
        .reference_obj(true);
    if let Err(error) = builder.build() {
        panic!("bpf/{name}.bpf.c does not compile: {error:#}");
    }
    builder
}

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    compile("sample", &out)
        .generate(out.join("sample.skel.rs"))
        .expect("the sampler's types can be described in Rust");
    compile("lifecycle", &out);
    println!("cargo:rerun-if-changed=bpf/spanflame.h");
    println!("cargo:rerun-if-changed=bpf/vmlinux.h");
    println!("cargo:rerun-if-changed=bpf/process_maps.h");
    println!("cargo:rerun-if-changed=bpf/table_maps.h");
    println!("cargo:rerun-if-changed=bpf/sample.bpf.c");
    println!("cargo:rerun-if-changed=bpf/lifecycle.bpf.c");
    println!("cargo:rerun-if-changed=bpf/unwind");
    println!("cargo:rerun-if-env-changed=CLANG");
    // The page is embedded, with the files that are there when this crate is compiled.
    println!("cargo:rerun-if-changed=web/dist");
}
