//! What a comparison says, for people and for other programs: a file a format.
//!
//! Comes in: [`Findings`]: a [`Comparison`], and its sides for the picture. Goes out: bytes. Never: a verdict of its own, or
//! a clock.

mod github;
mod json;
mod junit;
mod markdown;
mod phrases;
mod sarif;
mod source;
mod svg;
mod text;

use std::io::Write;

use super::{Comparison, Side};
use crate::export::ExportError;

pub use phrases::refusal;
pub use source::SourcePaths;
pub use text::Table;

/// A format of `--report`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportFormat {
    /// All figures (docs/check.schema.json).
    Json,
    /// A comment for a pull request.
    Markdown,
    /// Test results.
    Junit,
    /// SARIF 2.1.0: findings at lines of code.
    Sarif,
    /// Annotation lines of GitHub's log.
    Github,
    /// A flame graph of both sides, in which what changed is marked.
    Svg,
}

/// What a report is made of.
#[derive(Debug, Clone, Copy)]
pub struct Findings<'a> {
    /// What was found.
    pub comparison: &'a Comparison,
    /// The base that was compared; [`ReportFormat::Svg`] needs its runs' stacks.
    pub base: &'a Side,
    /// What was compared with it.
    pub new: &'a Side,
}

/// Writes a report.
///
/// # Errors
/// The writer's.
pub fn write(
    findings: &Findings<'_>,
    format: ReportFormat,
    paths: &SourcePaths,
    writer: &mut dyn Write,
) -> Result<(), ExportError> {
    let comparison = findings.comparison;
    match format {
        ReportFormat::Json => json::write(comparison, writer)?,
        ReportFormat::Markdown => markdown::write(comparison, paths, writer)?,
        ReportFormat::Junit => junit::write(comparison, paths, writer)?,
        ReportFormat::Sarif => sarif::write(comparison, paths, writer)?,
        ReportFormat::Github => github::write(comparison, paths, writer)?,
        ReportFormat::Svg => svg::write(findings, writer)?,
    }
    Ok(())
}
