//! Profiles as files.
//!
//! Comes in: a [`Profile`] and the name of a format. Goes out: bytes, to a writer or to a file that
//! appears only when it is complete.
//! Never: sampling, symbolization, or guessing at what a profile does not say; nothing here knows
//! libbpf or the store.
//!
//! What the formats keep, and what they cannot:
//!
//! | | values | labels | addresses, mappings | lines | inlined frames | kernel and JIT |
//! |---|---|---|---|---|---|---|
//! | pprof | all | all | yes | yes | yes | by the mapping's name |
//! | OTLP | all, one profile each | all, ids as links | yes | yes | yes | `profile.frame.type` |
//! | speedscope | all, one profile each | `comm`, as the root frame | no | yes | yes | key `kind` |
//! | folded | one | `comm`, as the first field | unnamed frames only | no | yes | suffix |
//! | SVG | one | `comm`, as the root frame | no | no | coloured | coloured |
//! | columnar | one | `comm`, as the root frame | mappings | the function's first | yes | yes |
//!
//! Two profiles at once are `differential/`'s.
//!
//! Known gaps: SVG and columnar files cannot be read back; pprof's `drop_frames`, `keep_frames`, `doc_url`, columns and
//! the units of numeric labels have no place in the model and are lost when such a file is converted.

pub mod columnar;
pub mod differential;
mod file;
pub mod flame_json;
pub mod flame_tree;
pub mod folded;
pub mod frame_text;
mod growing_tree;
pub mod http_client;
pub mod otlp;
pub mod otlp_attributes;
pub mod otlp_client;
#[cfg(test)]
#[path = "../../tests/support/otlp_conformance.rs"]
mod otlp_conformance;
mod otlp_dictionary;
pub mod otlp_json;
pub mod otlp_metrics;
pub mod otlp_schema;
pub mod otlp_spans;
pub mod pprof;
pub mod pprof_proto;
pub mod speedscope;
pub mod speedscope_schema;
pub mod svg;
pub mod xml;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::model::{InvalidProfile, Profile};

pub use file::{
    check_writable, check_writable_together, is_standard_output, write_file, write_file_as, write_together,
    write_with,
};

/// A file format that profiles are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Format {
    /// Protocol buffers of github.com/google/pprof, compressed by gzip.
    Pprof,
    /// A line of text for each stack: `comm;root;…;leaf N`.
    Folded,
    /// A picture: an interactive flame graph.
    Svg,
    /// JSON for speedscope.app.
    Speedscope,
    /// One binary `ProfilesData` message of OpenTelemetry.
    Otlp,
    /// A merged tree in columns: what the flame graph in the browser reads.
    Columnar,
}

/// File name endings, lower case, with the format that each stands for.
const ENDINGS: &[(&str, Format)] = &[
    (".pb.gz", Format::Pprof),
    (".pprof", Format::Pprof),
    (".pb", Format::Pprof),
    (".folded", Format::Folded),
    (".collapsed", Format::Folded),
    (".txt", Format::Folded),
    (".svg", Format::Svg),
    (".json", Format::Speedscope),
    (".otlp", Format::Otlp),
    (".columnar", Format::Columnar),
];

impl Format {
    /// The format that a file of this name holds. `-` and `/dev/stdout` have no ending: they get
    /// folded stacks, the one format made for pipes.
    ///
    /// # Errors
    /// [`ExportError::UnknownEnding`], which lists the endings there are.
    pub fn from_path(path: &Path) -> Result<Self, ExportError> {
        if file::is_standard_output(path) {
            return Ok(Self::Folded);
        }
        let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase());
        let name = name.unwrap_or_default();
        for (ending, format) in ENDINGS {
            if name.len() > ending.len() && name.ends_with(ending) {
                return Ok(*format);
            }
        }
        Err(ExportError::UnknownEnding { path: path.to_owned() })
    }
}

fn known_endings() -> String {
    let endings: Vec<&str> = ENDINGS.iter().map(|(ending, _)| *ending).collect();
    endings.join(" ")
}

/// What a writer may be told beyond the profile itself.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Index in [`Profile::value_types`] of the value to write. Formats of one value (folded, SVG)
    /// write this one, by default the first: the number of samples. Columnar files hold this one, by
    /// default [`Profile::default_value`]. The others write all and mark this one as the one to show.
    pub value: Option<usize>,
    /// Title of the picture.
    pub title: Option<String>,
    /// Leave the gzip layer of pprof away (files that end in `.pb`).
    pub uncompressed: bool,
}

/// Why a profile could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The name of the file says nothing about its format.
    #[error(
        "{}: the ending names no format; use one of {}", path.display(), known_endings()
    )]
    UnknownEnding {
        /// The output that was asked for.
        path: PathBuf,
    },
    /// The output cannot be created; nothing was written.
    #[error("{}: cannot be written: {source}", path.display())]
    NotWritable {
        /// The output that was asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Two outputs are one file.
    #[error("{}: two outputs would be written there: give each a file of its own", path.display())]
    SameFile {
        /// The second of them.
        path: PathBuf,
    },
    /// Writing began and failed; the file that was there before, if any, is untouched.
    #[error("{}: writing failed: {source}", path.display())]
    Write {
        /// The output that was asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A stream took no more bytes.
    #[error("writing the profile failed: {0}")]
    Stream(#[from] io::Error),
    /// The profile contradicts itself: a mistake in spanflame.
    #[error("the profile is inconsistent ({0}); please report this")]
    Invalid(#[from] InvalidProfile),
    /// The options ask for a value type that the profile does not have.
    #[error("the profile has {types} value types, there is no number {index}")]
    NoSuchValue {
        /// Index that was asked for.
        index: usize,
        /// How many there are.
        types: usize,
    },
    /// More rows than the format can number.
    #[error("the profile has more than {limit} {table}: too many for this format")]
    TooLarge {
        /// What there is too much of.
        table: &'static str,
        /// How many the format can number.
        limit: usize,
    },
    /// Encoding as JSON failed.
    #[error("writing JSON failed: {0}")]
    Json(serde_json::Error),
}

impl From<serde_json::Error> for ExportError {
    fn from(error: serde_json::Error) -> Self {
        if error.is_io() { Self::Stream(error.into()) } else { Self::Json(error) }
    }
}

/// Writes `profile` to `writer` in `format`.
///
/// # Errors
/// [`ExportError`]; what was written up to then is of no use.
pub fn write(
    profile: &Profile,
    format: Format,
    writer: &mut dyn Write,
    options: &Options,
) -> Result<(), ExportError> {
    profile.validate()?;
    if let Some(index) = options.value
        && index >= profile.value_types.len()
    {
        return Err(ExportError::NoSuchValue { index, types: profile.value_types.len() });
    }
    match format {
        Format::Pprof => pprof::write(profile, writer, options),
        Format::Folded => folded::write(profile, writer, options),
        Format::Svg => svg::write(profile, writer, options),
        Format::Speedscope => speedscope::write(profile, writer, options),
        Format::Otlp => otlp::write(profile, writer, options),
        Format::Columnar => columnar::write(profile, writer, options),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_decides_whatever_its_case_and_whatever_stands_before_it() {
        for (name, format) in [
            ("a.pb.gz", Format::Pprof),
            ("/tmp/x.y/A.PB.GZ", Format::Pprof),
            ("cpu.pprof", Format::Pprof),
            ("cpu.pb", Format::Pprof),
            ("out.folded", Format::Folded),
            ("out.collapsed", Format::Folded),
            ("out.txt", Format::Folded),
            ("out.svg", Format::Svg),
            ("out.speedscope.json", Format::Speedscope),
            ("out.otlp", Format::Otlp),
            ("out.columnar", Format::Columnar),
            ("-", Format::Folded),
            ("/dev/stdout", Format::Folded),
        ] {
            assert_eq!(Format::from_path(Path::new(name)).ok(), Some(format), "{name}");
        }
    }

    #[test]
    fn a_name_that_is_only_an_ending_or_has_an_unknown_one_is_refused_with_the_list() {
        for name in ["out.png", "out", ".svg", "svg", "out.gz", "..", ""] {
            let error = Format::from_path(Path::new(name)).expect_err(name).to_string();
            assert!(error.contains(".pb.gz") && error.contains(".otlp"), "{error}");
        }
    }
}
