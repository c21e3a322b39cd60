//! The `spanflame` binary: everything is in the library, so that benches and tests reach it.

use std::process::ExitCode;

/// Counts what is allocated, for `/debug/vars`.
#[global_allocator]
static ALLOCATOR: spanflame::metrics::memory::CountingAllocator =
    spanflame::metrics::memory::CountingAllocator;

fn main() -> ExitCode {
    spanflame::cli::main()
}
