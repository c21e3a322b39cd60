//! What a comparison says, for people and for other programs: a file a format.
//!
//! Comes in: a [`Comparison`]. Goes out: bytes. Never: a verdict of its own, or a clock.

mod github;
mod json;
mod junit;
mod markdown;
mod phrases;
mod sarif;
mod source;
mod text;

use std::io::{self, Write};

use super::Comparison;

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
}

/// Writes a report.
///
/// # Errors
/// The writer's.
pub fn write(
    comparison: &Comparison,
    format: ReportFormat,
    paths: &SourcePaths,
    writer: &mut dyn Write,
) -> io::Result<()> {
    match format {
        ReportFormat::Json => json::write(comparison, writer),
        ReportFormat::Markdown => markdown::write(comparison, paths, writer),
        ReportFormat::Junit => junit::write(comparison, paths, writer),
        ReportFormat::Sarif => sarif::write(comparison, paths, writer),
        ReportFormat::Github => github::write(comparison, paths, writer),
    }
}
