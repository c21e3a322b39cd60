//! The command line: one file or folder a subcommand.
//!
//! Comes in: arguments. Goes out: files, text for people, exit codes (INTERFACE.md). Never: logic that
//! another subcommand or the server would want as well.

pub mod check;
pub mod completion;
pub mod config;
pub mod convert;
mod descriptors;
pub mod diff;
pub mod doctor;
pub mod error;
pub mod logging;
pub mod man;
pub mod record;
pub mod serve;

use std::process::ExitCode;
use std::time::Instant;

use clap::{CommandFactory, Parser, Subcommand};
pub use error::CommandError;

/// Where does the time go, and why was this request slow?
#[derive(Debug, Parser)]
#[command(name = "spanflame", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Record(record::Args),
    Convert(convert::Args),
    Diff(diff::Args),
    #[command(subcommand)]
    Check(check::Command),
    /// What this kernel and this user permit
    Doctor(doctor::Args),
    Config(config::Args),
    Completions(completion::Args),
    Man(man::Args),
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let started = Instant::now();
    let command = CommandLine::parse().command;
    // The server's log is as its configuration says, which is not read yet.
    if !matches!(command, Command::Serve(_)) {
        logging::begin_plain();
    }
    let outcome = match command {
        Command::Serve(args) => serve::run(&args),
        Command::Record(args) => record::run(&args, started),
        Command::Convert(args) => convert::run(args),
        Command::Diff(args) => diff::run(&args),
        Command::Check(command) => check::run(&command),
        Command::Doctor(args) => doctor::run(args),
        Command::Config(args) => config::run(&args),
        Command::Completions(args) => completion::run(CommandLine::command(), &args),
        Command::Man(args) => man::run(CommandLine::command(), &args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, CommandError::CommandStatus(_)) {
                eprintln!("spanflame: {error}");
            }
            error.exit_code()
        }
    }
}
