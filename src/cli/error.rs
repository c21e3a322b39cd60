//! How a subcommand fails, and which exit code that is (INTERFACE.md, "Command line").

use std::process::ExitCode;

/// A failed subcommand: what to tell the user, and how the process ends.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Something failed while it ran. Exit code 1.
    #[error("{0:#}")]
    Failed(anyhow::Error),
    /// The command line or configuration is wrong; nothing was begun. Exit code 2.
    #[error("{0:#}")]
    Usage(anyhow::Error),
    /// `check` could not decide, be it for want of runs or because something failed. Exit code 3.
    #[error("{0:#}")]
    Undecided(anyhow::Error),
    /// A capability is missing; the message names it and how to get it. Exit code 4.
    #[error("{0:#}")]
    NotPermitted(anyhow::Error),
    /// A result could not be written or sent. Exit code 5.
    #[error("{0:#}")]
    ExportFailed(anyhow::Error),
    /// The command that was recorded ended with this status, which is passed on as it is.
    #[error("the recorded command ended with status {0}")]
    CommandStatus(u8),
}

impl CommandError {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Undecided(_) => 3,
            Self::NotPermitted(_) => 4,
            Self::ExportFailed(_) => 5,
            Self::CommandStatus(status) => *status,
        })
    }
}

impl From<anyhow::Error> for CommandError {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}
