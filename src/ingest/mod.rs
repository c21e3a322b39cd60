//! Profiles that others wrote, and those that [`crate::export`] wrote.
//!
//! Comes in: bytes that nobody vouches for. Goes out: a [`Profile`] whose indices all hold.
//! Never: a panic, a loop or an allocation that the size of the input does not bound, or a guess where
//! the file contradicts itself: that is an error which says what is wrong, and where.
//!
//! What bounds the work: [`Limits::file_bytes`] bounds the input before and after gzip,
//! [`wire`] bounds how many messages a few bytes of protocol buffers may unfold into, and
//! [`budget::TextBudget`] how often one long string may be referred to.

mod budget;
mod builder;
mod bytes;
#[cfg(test)]
mod damaged_bytes;
mod folded;
mod frame_kind;
mod otlp;
pub mod otlp_json;
mod otlp_request;
mod otlp_spans;
mod pprof;
mod pprof_locations;
mod pprof_parts;
mod pprof_samples;
mod speedscope;
mod wire;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::export::Format;
use crate::model::Profile;

pub use otlp_request::{ReceivedProfiles, Rejected, is_plausible, read_request};
pub use otlp_spans::{ReceivedSpans, read_spans};

/// How much of anything a file may ask for. The defaults suit a file that its owner names on the
/// command line (a hostile one may take a few gigabytes before it is refused); a server sets less.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the file, and bytes it may decompress to.
    pub file_bytes: usize,
    /// Protocol-buffer fields.
    pub fields: usize,
    /// Bytes of names and labels, counted each time they are referred to.
    pub text_bytes: usize,
    /// Frames of all different stacks together, where the format does not list them one by one.
    pub stack_entries: usize,
    /// Functions, locations, stacks, label sets and samples together, where they are told apart by
    /// their text.
    pub rows: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 512 << 20,
            fields: 64 << 20,
            text_bytes: 1 << 30,
            stack_entries: 64 << 20,
            rows: 16 << 20,
        }
    }
}

/// How to read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// How much a file may ask for.
    pub limits: Limits,
    /// Folded stacks: the first field is the outermost frame, not the name of the process.
    pub first_field_is_frame: bool,
}

/// Why a profile could not be read.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no profile, or a broken one.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with its contents.
        source: Box<IngestError>,
    },
    /// More than the limit of something.
    #[error("more than {limit} {what}: refused")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
    /// The gzip layer is broken.
    #[error("not valid gzip: {0}")]
    Gzip(io::Error),
    /// Not a message of protocol buffers.
    #[error("not a valid {format} message: {source}")]
    Message {
        /// Which message was expected.
        format: &'static str,
        /// What the decoder said.
        source: prost::DecodeError,
    },
    /// Not a protocol-buffer message at all.
    #[error("not a protocol-buffer message: broken off or garbled at byte {offset}")]
    Wire {
        /// Where.
        offset: usize,
    },
    /// Not JSON, or not of this shape.
    #[error("not a valid speedscope file: {0}")]
    Json(#[from] serde_json::Error),
    /// Readable, but it contradicts itself or its format.
    #[error("{format}: {place}: {what}")]
    Malformed {
        /// Name of the format.
        format: &'static str,
        /// Which line, sample, location…
        place: String,
        /// What is wrong there.
        what: String,
    },
    /// The contents look like none of the formats.
    #[error("not a profile: neither pprof, folded stacks, speedscope JSON nor OTLP")]
    Unrecognised,
    /// A picture has lost what a profile needs.
    #[error("an SVG cannot be read back; convert the pprof, OTLP, speedscope or folded file instead")]
    Picture,
    /// A merged tree has lost addresses and labels.
    #[error(
        "a columnar flame graph cannot be read back; convert the pprof, OTLP, speedscope or folded file instead"
    )]
    MergedTree,
}

/// Why a format can only be written, if that is so.
#[must_use]
pub fn cannot_be_read(format: Format) -> Option<IngestError> {
    match format {
        Format::Svg => Some(IngestError::Picture),
        Format::Columnar => Some(IngestError::MergedTree),
        Format::Pprof | Format::Folded | Format::Speedscope | Format::Otlp => None,
    }
}

/// Reads a profile of a known format. A gzip layer is taken off whatever the format.
///
/// # Errors
/// [`IngestError`].
pub fn read(bytes: &[u8], format: Format, options: &Options) -> Result<Profile, IngestError> {
    let plain = bytes::without_gzip(bytes, options.limits.file_bytes)?;
    sound(match format {
        Format::Pprof => pprof::read(&plain, &options.limits)?,
        Format::Folded => folded::read(&plain, options)?,
        Format::Speedscope => speedscope::read(&plain, &options.limits)?,
        Format::Otlp => otlp::read(&plain, &options.limits)?,
        Format::Svg => return Err(IngestError::Picture),
        Format::Columnar => return Err(IngestError::MergedTree),
    })
}

/// A mistake of a reader must end here and not as a panic somewhere later.
fn sound(profile: Profile) -> Result<Profile, IngestError> {
    profile.validate().map_err(|invalid| IngestError::Malformed {
        format: "profile",
        place: "tables".to_owned(),
        what: invalid.to_string(),
    })?;
    Ok(profile)
}

/// The bytes without their gzip layer, if they have one.
///
/// # Errors
/// [`IngestError::TooLarge`] beyond `limit_bytes`, and [`IngestError::Gzip`].
pub fn decompressed(bytes: &[u8], limit_bytes: usize) -> Result<std::borrow::Cow<'_, [u8]>, IngestError> {
    bytes::without_gzip(bytes, limit_bytes)
}

/// Reads a profile of an unknown format: by what the contents look like.
///
/// # Errors
/// [`IngestError`]; of the format that the contents come closest to.
pub fn read_any(bytes: &[u8], options: &Options) -> Result<Profile, IngestError> {
    let plain = bytes::without_gzip(bytes, options.limits.file_bytes)?;
    let start = plain.trim_ascii_start();
    if start.is_empty() {
        return Err(IngestError::Unrecognised);
    }
    if start.starts_with(b"{") {
        return read(&plain, Format::Speedscope, options);
    }
    if start.starts_with(b"<") {
        return Err(IngestError::Picture);
    }
    if start.starts_with(&crate::export::columnar::MAGIC) {
        return Err(IngestError::MergedTree);
    }
    if folded::looks_like(start) {
        return read(&plain, Format::Folded, options);
    }
    // Both begin with field 1; a message of the one has no string table as the other.
    match read(&plain, Format::Pprof, options) {
        Ok(profile) => Ok(profile),
        Err(as_pprof) => read(&plain, Format::Otlp, options).map_err(|_| match as_pprof {
            IngestError::Wire { .. } => IngestError::Unrecognised,
            other => other,
        }),
    }
}

/// Reads a file, `-` being standard input. Without a format its ending decides, and if that says
/// nothing, its contents.
///
/// # Errors
/// [`IngestError`], with the path.
pub fn read_file(path: &Path, format: Option<Format>, options: &Options) -> Result<Profile, IngestError> {
    of_file(path, format, options, |contents, format| match format {
        Some(format) => read(contents, format, options),
        None => read_any(contents, options),
    })
}

/// What takes the samples of a profile one by one.
pub trait SampleVisitor {
    /// Before all samples: the profile, of which samples, their stacks and label sets are not to be looked at.
    fn begin(&mut self, tables: &Profile);
    /// A stack, as rows of the tables' locations, leaf first, and a value for each value type. All indices hold.
    fn sample(&mut self, stack: &[u32], values: &[i64]);
}

/// Reads a file as [`read_file`] does, for who needs each sample once and the profile never: of a large pprof file that is
/// half the time and a fraction of the memory. If it fails, some samples may have been taken.
///
/// # Errors
/// Those of [`read_file`].
pub fn visit_file(
    path: &Path,
    options: &Options,
    visitor: &mut impl SampleVisitor,
) -> Result<(), IngestError> {
    of_file(path, None, options, |contents, format| {
        if format == Some(Format::Pprof) {
            let plain = bytes::without_gzip(contents, options.limits.file_bytes)?;
            let profile = pprof::visit(&plain, &options.limits, |tables| {
                visitor.begin(tables);
                |stack: &[u32], _, values: &[i64]| visitor.sample(stack, values)
            })?;
            return sound(profile).map(|_| ());
        }
        let profile = match format {
            Some(format) => read(contents, format, options),
            None => read_any(contents, options),
        }?;
        visit(&profile, visitor);
        Ok(())
    })
}

/// The samples of a profile that has been read.
pub fn visit(profile: &Profile, visitor: &mut impl SampleVisitor) {
    visitor.begin(profile);
    for sample in &profile.samples {
        let stack = profile.stacks.get(sample.stack).unwrap_or_default();
        visitor.sample(stack, &sample.values);
    }
}

/// What is made of a file's contents and the format that its ending says.
fn of_file<T>(
    path: &Path,
    format: Option<Format>,
    options: &Options,
    make: impl FnOnce(&[u8], Option<Format>) -> Result<T, IngestError>,
) -> Result<T, IngestError> {
    let standard_input = path == Path::new("-");
    let limit = options.limits.file_bytes;
    let contents = if standard_input {
        bytes::read_limited(io::stdin().lock(), 0, limit)
    } else {
        File::open(path).and_then(|file| {
            // A pipe has none, and a file may grow.
            let length = file.metadata().map_or(0, |metadata| metadata.len());
            bytes::read_limited(file, usize::try_from(length).unwrap_or(0), limit)
        })
    };
    let contents = contents.map_err(|source| IngestError::Unreadable { path: path.to_owned(), source })?;
    let by_ending = if standard_input { None } else { Format::from_path(path).ok() };
    let result = match (contents, format.or(by_ending)) {
        (None, _) => Err(IngestError::TooLarge { what: "bytes in the file", limit }),
        (Some(contents), format) => make(&contents, format),
    };
    result.map_err(|source| IngestError::File { path: path.to_owned(), source: Box::new(source) })
}
