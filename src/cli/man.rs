//! `spanflame man`: the manual pages, made from the same definitions as `--help`.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap_mangen::Man;

use super::CommandError;

/// Print a manual page, or write all of them to a directory.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  spanflame man | man -l -                     read the page of spanflame
  spanflame man record | man -l -              that of a subcommand
  spanflame man --all /usr/local/share/man/man1  install one page for each subcommand")]
pub struct Args {
    /// The subcommand whose page is printed; without it, the page of spanflame itself.
    subcommand: Option<String>,

    /// Write all pages to this directory, which must exist.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "subcommand")]
    all: Option<PathBuf>,
}

/// Prints or writes the pages of `command`, the whole command line of the program.
///
/// # Errors
/// [`CommandError::Usage`] for a subcommand that does not exist, [`CommandError::ExportFailed`] if a
/// page cannot be written.
pub fn run(mut command: clap::Command, arguments: &Args) -> Result<(), CommandError> {
    if let Some(directory) = &arguments.all {
        return clap_mangen::generate_to(command, directory)
            .with_context(|| format!("{}: writing the manual pages failed", directory.display()))
            .map_err(CommandError::ExportFailed);
    }
    let page = page(&mut command, arguments.subcommand.as_deref())?;
    let mut output = io::stdout().lock();
    output
        .write_all(&page)
        .and_then(|()| output.flush())
        .context("writing the manual page to standard output failed")
        .map_err(CommandError::ExportFailed)
}

fn page(command: &mut clap::Command, subcommand: Option<&str>) -> Result<Vec<u8>, CommandError> {
    // Building fills in the names that pages of subcommands carry: `spanflame-record`.
    command.build();
    let described = match subcommand {
        None => command.clone(),
        Some(name) => command.find_subcommand(name).cloned().ok_or_else(|| {
            let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
            let names = names.join(", ");
            CommandError::Usage(anyhow!("there is no subcommand `{name}`; there are {names}"))
        })?,
    };
    let mut page = Vec::new();
    Man::new(described)
        .render(&mut page)
        .context("rendering the manual page failed")
        .map_err(CommandError::Failed)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> clap::Command {
        let convert =
            <super::super::convert::Args as clap::Args>::augment_args(clap::Command::new("convert"));
        clap::Command::new("spanflame").subcommand(convert)
    }

    #[test]
    fn the_page_of_a_subcommand_has_its_full_name_options_and_examples() {
        let page = page(&mut program(), Some("convert")).expect("there is one");
        let page = String::from_utf8(page).expect("UTF-8");
        assert!(page.contains(".TH spanflame-convert 1"), "{page}");
        assert!(page.contains("\\-\\-value"), "{page}");
        assert!(page.contains("Examples:"), "{page}");
    }

    #[test]
    fn the_page_of_the_program_names_the_subcommands() {
        let page = String::from_utf8(page(&mut program(), None).expect("there is one")).expect("UTF-8");
        assert!(page.contains("spanflame\\-convert(1)"), "{page}");
    }

    #[test]
    fn an_unknown_subcommand_is_a_usage_error_that_names_the_known_ones() {
        let Err(CommandError::Usage(error)) = page(&mut program(), Some("recrod")) else {
            panic!("a page of nothing")
        };
        assert!(error.to_string().contains("convert"), "{error}");
    }
}
