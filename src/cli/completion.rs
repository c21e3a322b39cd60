//! `spanflame completions SHELL`: the script that lets a shell complete the command line.

use std::io::{self, Write};

use anyhow::Context;
use clap_complete::Shell;

use super::CommandError;

/// Print the completion script of a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  spanflame completions bash > /etc/bash_completion.d/spanflame
  spanflame completions zsh > ~/.zfunc/_spanflame
  spanflame completions fish > ~/.config/fish/completions/spanflame.fish")]
pub struct Args {
    /// The shell to print it for.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script for `command`, the whole command line of the program.
///
/// # Errors
/// [`CommandError::ExportFailed`] if standard output takes no more.
pub fn run(mut command: clap::Command, arguments: &Args) -> Result<(), CommandError> {
    let name = command.get_name().to_owned();
    // Generated in memory first: the generator panics where a write fails.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    let mut output = io::stdout().lock();
    output
        .write_all(&script)
        .and_then(|()| output.flush())
        .context("writing the completion script to standard output failed")
        .map_err(CommandError::ExportFailed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_has_a_script_that_names_the_subcommands() {
        for &shell in <Shell as clap::ValueEnum>::value_variants() {
            let mut command = clap::Command::new("spanflame").subcommand(clap::Command::new("convert"));
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "spanflame", &mut script);
            assert!(String::from_utf8_lossy(&script).contains("convert"), "{shell}");
        }
    }
}
