//! What counts, where it is told, and how the command ends: options of `check run` and `check compare` alike.

use std::fs;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use clap::ValueEnum;

use crate::check::report::{self, Findings, ReportFormat, SourcePaths, Table};
use crate::check::{AllowList, Comparison, Overall, Policy, Side, Wanted, compare};
use crate::cli::CommandError;
use crate::export;

/// A longer allow-list is not one.
const MAX_LIST_BYTES: u64 = 1 << 20;

/// See the module.
#[derive(Debug, clap::Args)]
pub struct Judging {
    /// Write a report: json, markdown, junit, sarif, github or svg to FILE (`-` is standard output); may be given several
    /// times. All are written, or none
    #[arg(long, value_name = "FORMAT=FILE", value_parser = parse_report)]
    report: Vec<(ReportFormat, PathBuf)>,

    /// What fails the command: `regression` alone (status 1), `inconclusive` as well (status 3), or nothing
    #[arg(long, value_name = "WHAT", default_value = "inconclusive")]
    fail_on: FailOn,

    /// Functions and modules of a smaller share of the whole are not judged
    #[arg(long, value_name = "PERCENT", default_value = "1%", value_parser = parse_percent)]
    min_share: f64,

    /// A smaller change counts as none
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = parse_percent)]
    min_effect: f64,

    /// How often equal programs may seem to differ
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = parse_percent)]
    false_alarms: f64,

    /// What is shown to have changed by less is unchanged [default: 5%, or --min-effect if that is more]
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    margin: Option<f64>,

    /// The value that is compared, such as `samples` or `cpu`
    #[arg(long, value_name = "NAME")]
    value: Option<String>,

    /// Regressions that are allowed: lines of `2026-12-31 function -- reason`, the first being the last day. What costs
    /// more only because of these, as their callers and the whole do, is allowed as well
    #[arg(long, value_name = "FILE")]
    allow: Option<PathBuf>,

    /// Paths of debug information that begin with the folder FROM are TO in the git work tree; may be given several times
    #[arg(long, value_name = "FROM=TO", value_parser = parse_source_map)]
    source_map: Vec<(String, String)>,

    /// Show every line that was judged, not only what changed
    #[arg(long)]
    all: bool,
}

/// What ends with a status other than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// A regression; what could not be decided passes.
    Regression,
    /// A regression, and what could not be decided.
    Inconclusive,
    /// Neither.
    Never,
}

impl Judging {
    /// What counts.
    pub(super) fn policy(&self) -> Policy {
        let by_default = Policy::default();
        Policy {
            min_share: self.min_share,
            min_effect: self.min_effect,
            false_alarm_level: self.false_alarms,
            // What counts as no change must not be too much to be unchanged: nothing could be decided of it.
            equivalence_margin: self.margin.unwrap_or(by_default.equivalence_margin.max(self.min_effect)),
            ..by_default
        }
    }

    /// What is needed of each profile.
    pub(super) fn wanted(&self) -> Wanted<'_> {
        let is_drawn = self.report.iter().any(|(format, _)| *format == ReportFormat::Svg);
        let stacks = is_drawn || self.allow.is_some();
        Wanted { value: self.value.as_deref(), stacks }
    }

    /// Whether all can be read and written that will have to be, before any long work is begun.
    ///
    /// # Errors
    /// [`CommandError::Usage`].
    pub(super) fn check_usage(&self) -> Result<(), CommandError> {
        let paths: Vec<&Path> = self.report.iter().map(|(_, path)| path.as_path()).collect();
        export::check_writable_together(&paths)
            .context("--report: give each a file of its own, in a folder that can be written")
            .map_err(CommandError::Usage)?;
        self.allow_list().map(drop)
    }

    /// Compares two sides and tells what was found.
    ///
    /// # Errors
    /// [`CommandError`]: sides that cannot be compared are undecided; else as [`Self::report`].
    pub(super) fn judge_and_report(&self, base: &Side, new: &Side) -> Result<(), CommandError> {
        let comparison =
            compare(base, new, &self.policy()).map_err(|error| CommandError::Undecided(error.into()))?;
        self.report(comparison, base, new)
    }

    /// Tells what was found: reports first, then a table, which makes way for a report on standard output.
    ///
    /// # Errors
    /// [`CommandError::CommandStatus`] by the verdict and `--fail-on`; [`CommandError::ExportFailed`] for a report that
    /// could not be written.
    pub(super) fn report(
        &self,
        mut comparison: Comparison,
        base: &Side,
        new: &Side,
    ) -> Result<(), CommandError> {
        if let (Some(path), Some(list)) = (&self.allow, self.allow_list()?) {
            list.apply(&mut comparison, base, new, time::OffsetDateTime::from(SystemTime::now()).date());
            for entry in &comparison.unmatched_entries {
                tracing::warn!(
                    "--allow {}: line {}: {:?} names no function and no module of these profiles: see whether it is \
                     spelled as reports have it, or take it out",
                    path.display(),
                    entry.line,
                    entry.name
                );
            }
        }
        let paths = SourcePaths { maps: self.source_map.clone(), work_tree: work_tree() };
        let findings = Findings { comparison: &comparison, base, new };
        // A pipeline that looks at one report believes that the others are of the same comparison.
        let mut rendered: Vec<(&Path, Vec<u8>)> = Vec::new();
        for (format, path) in &self.report {
            let mut bytes = Vec::new();
            report::write(&findings, *format, &paths, &mut bytes)
                .with_context(|| format!("cannot make the report for {}", path.display()))?;
            rendered.push((path, bytes));
        }
        export::write_together(&rendered).map_err(|error| CommandError::ExportFailed(error.into()))?;
        if std::io::stderr().is_terminal() {
            for (_, path) in &self.report {
                eprintln!("wrote {}", path.display());
            }
        }
        let is_taken = |(_, path): &(ReportFormat, PathBuf)| export::is_standard_output(path);
        if !self.report.iter().any(is_taken) {
            let mut table = Vec::new();
            Table { all: self.all }.write(&comparison, &mut table).context("cannot make the table")?;
            // A reader that has gone away, as `head` does, changes no verdict.
            let _ = std::io::stdout().lock().write_all(&table);
        }
        match (comparison.overall, self.fail_on) {
            (Overall::Regressed, FailOn::Regression | FailOn::Inconclusive) => {
                Err(CommandError::CommandStatus(1))
            }
            (Overall::Inconclusive, FailOn::Inconclusive) => Err(CommandError::CommandStatus(3)),
            _ => Ok(()),
        }
    }

    fn allow_list(&self) -> Result<Option<AllowList>, CommandError> {
        let Some(path) = &self.allow else { return Ok(None) };
        let list = read_list(path)
            .and_then(|text| Ok(AllowList::parse(&text)?))
            .with_context(|| format!("--allow {}", path.display()));
        list.map(Some).map_err(CommandError::Usage)
    }
}

/// The text of an allow-list.
fn read_list(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_LIST_BYTES + 1).read_to_string(&mut text)?;
    anyhow::ensure!(
        text.len() as u64 <= MAX_LIST_BYTES,
        "is longer than {MAX_LIST_BYTES} bytes: that is no list of what may be slower"
    );
    Ok(text)
}

/// The top folder of the git work tree that we are in.
fn work_tree() -> Option<String> {
    let here = std::env::current_dir().ok()?;
    // In a linked work tree `.git` is a file.
    let top = here.ancestors().find(|folder| folder.join(".git").exists())?;
    Some(top.to_string_lossy().trim_end_matches('/').to_owned())
}

/// `1%`, `1 %` or `0.5` (of a percent as well): from 0 to 100, as a part of one.
fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').trim_end().parse().ok();
    let number = number.filter(|number: &f64| *number > 0.0 && *number < 100.0);
    number
        .map(|percent| percent / 100.0)
        .ok_or_else(|| format!("{text:?} is no percentage between 0 and 100"))
}

fn parse_report(text: &str) -> Result<(ReportFormat, PathBuf), String> {
    let known = || {
        let formats = ReportFormat::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        formats.map(|format| format.get_name().to_owned()).collect::<Vec<_>>().join(", ")
    };
    let (format, path) = text.split_once('=').ok_or_else(|| "give it as FORMAT=FILE".to_owned())?;
    if path.is_empty() {
        return Err("no file is named after the `=`".to_owned());
    }
    let format = ReportFormat::from_str(format, true)
        .map_err(|_| format!("no format {format:?}; there are {}", known()))?;
    Ok((format, PathBuf::from(path)))
}

fn parse_source_map(text: &str) -> Result<(String, String), String> {
    let (from, to) = text.split_once('=').ok_or_else(|| "give it as FROM=TO".to_owned())?;
    if from.is_empty() { Err("FROM is empty".to_owned()) } else { Ok((from.to_owned(), to.to_owned())) }
}
