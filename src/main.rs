//! The `spanflame` binary: everything is in the library, so that benches and tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    spanflame::cli::main()
}
