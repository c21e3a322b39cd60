//! `spanflame convert IN -o OUT`: a profile from one format to another.

use std::path::PathBuf;

use anyhow::{Context, anyhow};

use super::CommandError;
use crate::export::{self, ExportError, Format};
use crate::ingest;

/// Convert a profile between pprof, folded stacks, speedscope and OTLP, or draw it.
///
/// The format of OUT is decided by its ending: .pb.gz .pprof .pb (pprof), .folded .collapsed .txt
/// (folded stacks), .json (speedscope), .otlp (OpenTelemetry), .svg (flame graph), .columnar (flame
/// graph for spanflame's own page). IN is read the same way, and by its contents if its ending says
/// nothing. Flame graphs can only be written.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  spanflame convert cpu.pb.gz -o cpu.svg             a flame graph of a pprof profile
  spanflame convert cpu.pb.gz -o cpu.svg --value cpu the same, by CPU time instead of samples
  spanflame convert perf.folded -o cpu.json          folded stacks for speedscope.app
  curl -s localhost:6060/debug/pprof/profile | spanflame convert - -o - | grep main
                                                     a Go profile as folded stacks")]
pub struct Args {
    /// Profile to read; `-` is standard input.
    #[arg(value_name = "IN")]
    input: PathBuf,

    /// File to write; `-` is standard output (folded stacks unless --to says otherwise).
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,

    /// Format of IN, whatever its ending.
    #[arg(long, value_name = "FORMAT")]
    from: Option<Format>,

    /// Format of OUT, whatever its ending.
    #[arg(long, value_name = "FORMAT")]
    to: Option<Format>,

    /// The value to show, such as `samples` or `cpu`: the only one in folded stacks and SVG, the
    /// default one in the other formats.
    #[arg(long, value_name = "NAME")]
    value: Option<String>,

    /// Title of the flame graph.
    #[arg(long)]
    title: Option<String>,

    /// In folded stacks that are read, the first field is a function and not the process's name.
    #[arg(long)]
    no_comm: bool,
}

/// Converts. Nothing is read before the output is known to be writable, and nothing appears at the
/// output before it is complete.
///
/// # Errors
/// [`CommandError::Usage`] for outputs that cannot be written and values that do not exist,
/// [`CommandError::Failed`] for inputs that cannot be read, [`CommandError::ExportFailed`] when
/// writing fails half-way.
pub fn run(arguments: Args) -> Result<(), CommandError> {
    let Args { input, output, from, to, value, title, no_comm } = arguments;
    let format = to
        .map_or_else(|| Format::from_path(&output), Ok)
        .map_err(|error| CommandError::Usage(error.into()))?;
    if let Some(unreadable) = from.and_then(ingest::cannot_be_read) {
        return Err(CommandError::Usage(unreadable.into()));
    }
    export::check_writable(&output).map_err(|error| CommandError::Usage(error.into()))?;

    let reading = ingest::Options { first_field_is_frame: no_comm, ..ingest::Options::default() };
    let profile =
        ingest::read_file(&input, from, &reading).context("convert").map_err(CommandError::Failed)?;
    let value = match value {
        None => None,
        Some(name) => Some(profile.value_index(&name).ok_or_else(|| {
            let known: Vec<String> = profile
                .value_types
                .iter()
                .map(|value_type| format!("{}/{}", value_type.kind, value_type.unit))
                .collect();
            CommandError::Usage(anyhow!(
                "{}: has no value `{name}`; it has {}",
                input.display(),
                known.join(", ")
            ))
        })?),
    };

    let writing = export::Options { value, title, ..export::Options::default() };
    export::write_file_as(&profile, &output, format, &writing).map_err(|error| match error {
        // `spanflame convert … | head` is no failure of ours.
        ExportError::Stream(ref source) | ExportError::Write { ref source, .. }
            if source.kind() == std::io::ErrorKind::BrokenPipe =>
        {
            CommandError::ExportFailed(anyhow!("{}: the reader has gone away", output.display()))
        }
        error @ ExportError::NotWritable { .. } => CommandError::Usage(error.into()),
        error => CommandError::ExportFailed(error.into()),
    })
}
