//! Compiles `bpf/unwind/*.h` for this machine, over a shim of the kernel's side.

use std::env;

fn main() {
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang-19".to_owned());
    // The shim's folder comes first: its <bpf/…> headers stand in for libbpf's.
    cc::Build::new()
        .compiler(clang)
        .file("shim/shim.c")
        .include("shim")
        .define("__TARGET_ARCH_x86", None)
        .warnings(true)
        .extra_warnings(true)
        .flag("-Wno-unknown-attributes")
        .opt_level(1)
        .compile("spanflame_unwind_shim");
    for path in ["shim", "../unwind", "../spanflame.h", "../vmlinux.h"] {
        println!("cargo:rerun-if-changed={path}");
    }
    println!("cargo:rerun-if-env-changed=CLANG");
}
