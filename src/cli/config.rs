//! `spanflame config`: what is wrong with a configuration, and what is in effect.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;

use super::CommandError;
use crate::config::{self, Loaded, Sources};

/// Check and show the configuration of `spanflame serve`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Say whether a configuration is right: exit code 0, or 2 and every mistake with its line
    #[command(after_help = "\
Examples:
  spanflame config validate --config /etc/spanflame.yaml
  generate-it | spanflame config validate --config -

Variables named SPANFLAME_… are read as by `spanflame serve`, and ${VAR} must be set.")]
    Validate(File),
    /// Print what is in effect, secrets redacted, and where each value comes from
    #[command(after_help = "\
Examples:
  spanflame config show                                            the defaults, and the environment
  spanflame config show --config /etc/spanflame.yaml
  spanflame config show --config a.yaml --format json | jq .configuration.storage")]
    Show {
        #[command(flatten)]
        file: File,
        /// How to print it: YAML with origins as comments, or JSON with configuration and origins
        #[arg(long, value_enum, default_value_t = Format::Yaml)]
        format: Format,
    },
    /// Print a file with every key, its description and its default
    #[command(after_help = "\
Example:
  spanflame config example > /etc/spanflame.yaml")]
    Example,
}

#[derive(Debug, clap::Args)]
struct File {
    /// The configuration file; `-` is standard input. Without it, defaults and environment alone
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Yaml,
    Json,
}

/// Runs it.
///
/// # Errors
/// [`CommandError::Usage`] with every mistake of the configuration, [`CommandError::ExportFailed`] if
/// standard output takes no more.
pub fn run(arguments: &Args) -> Result<(), CommandError> {
    let text = match &arguments.action {
        Action::Validate(file) => {
            let loaded = load(file)?;
            let name = match &file.config {
                Some(path) if path.as_os_str() != "-" => path.display().to_string(),
                Some(_) => "standard input".to_owned(),
                None => "defaults and environment".to_owned(),
            };
            match loaded.origins.len() {
                1 => format!("{name}: valid, 1 key set\n"),
                number => format!("{name}: valid, {number} keys set\n"),
            }
        }
        Action::Show { file, format: Format::Yaml } => load(file)?.to_yaml(),
        Action::Show { file, format: Format::Json } => format!("{:#}\n", load(file)?.to_json()),
        Action::Example => config::example(),
    };
    let mut output = io::stdout().lock();
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .context("writing to standard output failed")
        .map_err(CommandError::ExportFailed)
}

fn load(file: &File) -> Result<Loaded, CommandError> {
    let loaded = Sources::of_process(file.config.clone())
        .load()
        .map_err(|errors| CommandError::Usage(errors.into()))?;
    for warning in &loaded.warnings {
        eprintln!("spanflame: warning: {warning}");
    }
    Ok(loaded)
}
