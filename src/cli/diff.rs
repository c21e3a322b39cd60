//! `spanflame diff BASE NEW -o OUT`: what has changed between two profiles.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use super::CommandError;
use crate::export::differential::{self, Captions, DiffTree};
use crate::export::flame_tree::{TreeOptions, merge};
use crate::export::folded::has_comm;
use crate::export::{self, ExportError, Format, Options};
use crate::ingest;
use crate::model::{Profile, Sample, ValueType};

/// Show what has changed between two profiles.
///
/// The format of OUT is decided by its ending: .svg (a flame graph with both sides in it), .json (the functions with
/// their values on both sides), .folded .collapsed .txt (folded stacks with both values, for difffolded's readers),
/// .pb.gz .pprof .pb (what `go tool pprof -diff_base` would make). Two profiles say nothing of noise: whether a change
/// is one, `spanflame check` decides from several of each.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  spanflame diff before.pb.gz after.pb.gz -o change.svg   both in one flame graph
  spanflame diff --normalize a.folded b.folded -o -       shares of each side's total, as folded stacks
  spanflame diff before.pb.gz after.pb.gz -o change.pb.gz && go tool pprof -top change.pb.gz")]
pub struct Args {
    /// Profile of before.
    #[arg(value_name = "BASE")]
    base: PathBuf,

    /// Profile of after.
    #[arg(value_name = "NEW")]
    new: PathBuf,

    /// File to write; `-` is standard output (folded stacks unless --to says otherwise).
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,

    /// Format of OUT, whatever its ending.
    #[arg(long, value_name = "FORMAT")]
    to: Option<Format>,

    /// The value to compare, such as `samples` or `cpu`.
    #[arg(long, value_name = "NAME")]
    value: Option<String>,

    /// Bring the base to the new side's total, so that shares are compared and not values: for recordings of different
    /// length or load.
    #[arg(long)]
    normalize: bool,

    /// Title of the flame graph.
    #[arg(long)]
    title: Option<String>,

    /// In folded stacks that are read, the first field is a function and not the process's name.
    #[arg(long)]
    no_comm: bool,
}

/// How many of the functions that changed most are told.
const TOLD: usize = 5;

/// Compares. Nothing is read before the output is known to be writable, and nothing appears there before it is complete.
///
/// # Errors
/// As `convert`; [`CommandError::Usage`] also if the two count nothing in common.
pub fn run(arguments: &Args) -> Result<(), CommandError> {
    let usage = |error: ExportError| CommandError::Usage(error.into());
    // An ending that names no format at all is told with those that a comparison can be written in.
    let format = arguments.to.or_else(|| Format::from_path(&arguments.output).ok());
    let is_possible =
        |format: &Format| matches!(format, Format::Svg | Format::Folded | Format::Speedscope | Format::Pprof);
    let Some(format) = format.filter(is_possible) else {
        return Err(CommandError::Usage(anyhow!(
            "{}: a comparison cannot be written in that format: use .svg, .json, .folded or .pb.gz",
            arguments.output.display()
        )));
    };
    export::check_writable(&arguments.output).map_err(usage)?;
    let reading = ingest::Options { first_field_is_frame: arguments.no_comm, ..ingest::Options::default() };
    let read =
        |path: &Path| ingest::read_file(path, None, &reading).context("diff").map_err(CommandError::Failed);
    let (base, new) = (read(&arguments.base)?, read(&arguments.new)?);
    let (of_base, of_new) = shared_value(arguments, &base, &new)?;
    for (path, profile, index) in [(&arguments.base, &base, of_base), (&arguments.new, &new, of_new)] {
        let is_negative = |sample: &Sample| sample.values.get(index).is_some_and(|value| *value < 0);
        if profile.samples.iter().any(is_negative) {
            return Err(CommandError::Failed(anyhow!(
                "{}: has negative values, as a difference of two profiles does: give the profiles themselves",
                path.display()
            )));
        }
    }
    // A process's name stands above the stacks only if both sides have it: else nothing would be the same.
    let group_by = if has_comm(&base) && has_comm(&new) { vec!["comm".to_owned()] } else { Vec::new() };
    let tree = |profile, value| {
        let options = TreeOptions { value, group_by: group_by.clone(), ..TreeOptions::default() };
        merge(profile, &options).map_err(|error| CommandError::Failed(error.into()))
    };
    let united = differential::unite(&[tree(&base, of_base)?], &[tree(&new, of_new)?], arguments.normalize);
    let value_type =
        new.value_types.get(of_new).cloned().unwrap_or_else(|| ValueType::new("samples", "count"));
    write(arguments, format, &united, &value_type, (&base, &new)).map_err(|error| match error {
        error @ ExportError::NotWritable { .. } => CommandError::Usage(error.into()),
        error => CommandError::ExportFailed(error.into()),
    })?;
    tell(&united, &value_type);
    Ok(())
}

/// The value that is compared, by its index on both sides: the one that was asked for, else the one that the new side
/// shows, else the first that both have.
fn shared_value(arguments: &Args, base: &Profile, new: &Profile) -> Result<(usize, usize), CommandError> {
    let index_in_base = |of_new: usize| {
        let wanted = new.value_types.get(of_new)?;
        base.value_types.iter().position(|value_type| value_type == wanted)
    };
    let known = |profile: &Profile| {
        let names = profile.value_types.iter().map(|known| format!("{}/{}", known.kind, known.unit));
        names.collect::<Vec<_>>().join(", ")
    };
    let in_common = || {
        CommandError::Usage(anyhow!(
            "the two count different things: {} has {}, {} has {}",
            arguments.base.display(),
            known(base),
            arguments.new.display(),
            known(new)
        ))
    };
    if let Some(name) = &arguments.value {
        let of_new = new.value_index(name).ok_or_else(|| {
            CommandError::Usage(anyhow!(
                "{}: has no value `{name}`; it has {}: choose one by --value",
                arguments.new.display(),
                known(new)
            ))
        })?;
        return index_in_base(of_new).map(|of_base| (of_base, of_new)).ok_or_else(in_common);
    }
    std::iter::once(new.default_value)
        .chain(0..new.value_types.len())
        .find_map(|of_new| Some((index_in_base(of_new)?, of_new)))
        .ok_or_else(in_common)
}

fn write(
    arguments: &Args,
    format: Format,
    united: &DiffTree<'_>,
    value_type: &ValueType,
    (base, new): (&Profile, &Profile),
) -> Result<(), ExportError> {
    let output = &arguments.output;
    match format {
        Format::Svg => {
            let (base, new) = (name_of(&arguments.base), name_of(&arguments.new));
            let title = arguments.title.clone().unwrap_or_else(|| format!("{base} → {new}"));
            let basis = if arguments.normalize { "shares of each side's own total" } else { "" };
            let captions = Captions { title: &title, base: &base, new: &new, basis, verdict: "" };
            export::write_with(output, |writer| {
                differential::write_svg(united, value_type, &captions, &[], writer)
            })
        }
        Format::Folded => export::write_with(output, |writer| differential::write_folded(united, writer)),
        Format::Speedscope => export::write_with(output, |writer| {
            differential::write_json(united, value_type, arguments.normalize, writer)
        }),
        // All other formats were refused before anything was read; both sides have a value in common by now.
        _ => match differential::negate_base(base, new, united.base_scale) {
            Some(both) => export::write_file_as(&both, output, Format::Pprof, &Options::default()),
            None => Ok(()),
        },
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Says in a few lines what has changed most.
fn tell(united: &DiffTree<'_>, value_type: &ValueType) {
    let (scale, unit) =
        if value_type.unit == "nanoseconds" { (1e-6, "ms") } else { (1.0, value_type.kind.as_str()) };
    let total = united.nodes.first().map_or((0.0, 0.0), |root| (root.base / united.base_scale, root.new));
    let relative = |base: f64, new: f64| match (base > 0.0, new > 0.0) {
        (true, _) => format!("{:+.1} %", 100.0 * (new - base) / base),
        (false, true) => "new".to_owned(),
        (false, false) => "nothing on either side".to_owned(),
    };
    // Samples are whole, unless they were scaled.
    let is_whole = value_type.unit == "count" && (united.base_scale - 1.0).abs() <= f64::EPSILON;
    let decimals = if is_whole { 0 } else { 1 };
    // What a file says is not for the terminal to obey.
    let printable = |text: &str| text.replace(char::is_control, " ");
    let unit = printable(unit);
    eprintln!(
        "All: {:.decimals$} → {:.decimals$} {unit} ({})",
        total.0 * scale,
        total.1 * scale,
        relative(total.0, total.1)
    );
    for row in differential::functions(united).iter().take(TOLD) {
        let Some(frame) = united.frames.get(row.frame as usize) else { continue };
        if (row.new_self - row.base_self).abs() > 0.0 {
            eprintln!(
                "  {}: {:.decimals$} → {:.decimals$} {unit} ({})",
                printable(&frame.name),
                row.base_self * scale,
                row.new_self * scale,
                relative(row.base_self, row.new_self)
            );
        }
    }
}
