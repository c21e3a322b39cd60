//! `spanflame check`: is the program slower than it was, and where? Ends with 0 if not, 1 if it is and nothing else was
//! wrong, 2 for wrong usage, 3 if it could not be decided.
//!
//! Comes in: recordings of both sides, however they are had (`run.rs` and `measuring/`: here and now; `compare.rs`: earlier,
//! of files in `sides.rs`, of a server in `server/`). Goes out: a table, reports (`judging.rs`). Never: a verdict of its
//! own, which is [`crate::check`]'s.

mod compare;
mod judging;
mod measuring;
mod run;
mod server;
mod sides;

use super::CommandError;

pub use compare::Args as CompareArgs;
pub use run::Args as RunArgs;

/// Is the program slower than it was, and where?
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Runs both revisions here, in turn.
    Run(Box<RunArgs>),
    /// Takes recordings of both.
    Compare(CompareArgs),
}

/// Runs a subcommand.
///
/// # Errors
/// [`CommandError`]; what fails is no regression, so [`CommandError::Failed`] is one only.
pub fn run(command: &Command) -> Result<(), CommandError> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Compare(args) => compare::run(args),
    }
}

/// Whatever fails while a comparison is made is no regression.
fn undecided(error: CommandError) -> CommandError {
    match error {
        CommandError::Failed(error) => CommandError::Undecided(error),
        other => other,
    }
}
