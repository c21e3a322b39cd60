//! How a subcommand fails, and which exit code that is (INTERFACE.md, "Command line").

use std::process::ExitCode;

/// A failed subcommand: what to tell the user, and how the process ends.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Something failed while it ran. Exit code 1.
    #[error("{}", said(.0))]
    Failed(anyhow::Error),
    /// The command line or configuration is wrong; nothing was begun. Exit code 2.
    #[error("{}", said(.0))]
    Usage(anyhow::Error),
    /// `check` could not decide, be it for want of runs or because something failed. Exit code 3.
    #[error("{}", said(.0))]
    Undecided(anyhow::Error),
    /// A capability is missing; the message names it and how to get it. Exit code 4.
    #[error("{}", said(.0))]
    NotPermitted(anyhow::Error),
    /// A result could not be written or sent. Exit code 5.
    #[error("{}", said(.0))]
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

/// What failed and why, the outermost first. Errors that say their cause themselves say it once. What is shown comes from
/// files and programs too, and is nothing for a terminal to obey.
fn said(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.is_empty() {
            said = cause;
        } else if !said.ends_with(&cause) {
            said.push_str(": ");
            said.push_str(&cause);
        }
    }
    let printable = |character: char| match character {
        '\n' | '\t' => character,
        other if other.is_control() => ' ',
        other => other,
    };
    said.chars().map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once_and_nothing_is_obeyed() {
        #[derive(Debug, thiserror::Error)]
        #[error("a.svg: cannot be read: {source}")]
        struct Unreadable {
            source: std::io::Error,
        }
        let inner = std::io::Error::other("no \u{1b}[31msuch\nfile");
        let error = anyhow::Error::from(Unreadable { source: inner }).context("diff");
        let expected = "diff: a.svg: cannot be read: no  [31msuch\nfile";
        assert_eq!(CommandError::Failed(error).to_string(), expected);
    }
}
