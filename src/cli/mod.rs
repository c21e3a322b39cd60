//! One file a subcommand.

pub mod doctor;
pub mod error;

pub use error::CommandError;

use std::process::ExitCode;

use clap::Parser;

/// Where does the time go, and why was this request slow?
#[derive(Debug, Parser)]
#[command(name = "spanflame", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// What this kernel and this user permit
    Doctor(doctor::Args),
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let Command::Doctor(args) = CommandLine::parse().command;
    match doctor::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("spanflame: {error}");
            error.exit_code()
        }
    }
}
