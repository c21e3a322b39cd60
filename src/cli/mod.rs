//! One file a subcommand.

pub mod completion;
pub mod convert;
pub mod error;
pub mod man;

pub use error::CommandError;

use std::process::ExitCode;

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
