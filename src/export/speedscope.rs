//! speedscope JSON: a sampled profile for each value type, the default one active.
//!
//! The process's name is the outermost frame where the samples say it. Other labels, addresses and
//! mappings have no place there. Values above 2^53 lose their last digits in a browser.

use std::io::Write;

use super::folded::{frames_of_locations, has_comm, sums_by_stack};
use super::frame_text::{FrameClass, NamedFrame};
use super::speedscope_schema as schema;
use super::{ExportError, Options};
use crate::model::{Interner, Profile};

/// Writes all values.
///
/// # Errors
/// [`ExportError::Json`] and [`ExportError::Stream`].
pub fn write(profile: &Profile, writer: &mut dyn Write, options: &Options) -> Result<(), ExportError> {
    let with_comm = has_comm(profile);
    let mut frames: Interner<schema::Frame> = Interner::new();
    let frames_by_location: Vec<Vec<u32>> = frames_of_locations(profile)
        .iter()
        .map(|named| named.iter().map(|frame| frames.intern(to_frame(frame))).collect())
        .collect();

    let mut profiles = Vec::new();
    for (value, value_type) in profile.value_types.iter().enumerate() {
        let mut weighted = Vec::new();
        for ((stack, comm), sum) in sums_by_stack(profile, value) {
            if sum == 0 {
                continue;
            }
            let mut path = Vec::new();
            if with_comm {
                let name = comm.unwrap_or("[unknown]").to_owned();
                let kind = Some(schema::FrameKind::Comm);
                path.push(frames.intern(schema::Frame { name, file: None, line: None, kind }));
            }
            let stack = profile.stacks.get(stack).unwrap_or_default();
            for &location in stack.iter().rev() {
                let frames = frames_by_location.get(location as usize);
                path.extend(frames.map_or(&[][..], Vec::as_slice));
            }
            weighted.push((path, sum));
        }
        // A hash map gave the order; equal profiles shall be equal files.
        weighted.sort();
        let total = weighted.iter().fold(0_i64, |total, (_, sum)| total.saturating_add(*sum));
        let (samples, weights) = weighted.into_iter().map(|(path, sum)| (path, sum.into())).unzip();
        profiles.push(schema::Profile::Sampled(schema::Sampled {
            name: format!("{} ({})", value_type.kind, value_type.unit),
            unit: axis_unit(&value_type.unit).to_owned(),
            start_value: 0.into(),
            end_value: total.into(),
            samples,
            weights,
            value_kind: Some(value_type.kind.clone()),
            value_unit: Some(value_type.unit.clone()),
        }));
    }

    let file = schema::File {
        schema: schema::SCHEMA.to_owned(),
        shared: schema::Shared { frames: frames.into_values() },
        profiles,
        name: options.title.clone(),
        active_profile_index: Some(options.value.unwrap_or(profile.default_value)),
        exporter: Some(concat!("spanflame@", env!("CARGO_PKG_VERSION")).to_owned()),
    };
    serde_json::to_writer(&mut *writer, &file)?;
    writer.write_all(b"\n")?;
    Ok(())
}

fn to_frame(frame: &NamedFrame<'_>) -> schema::Frame {
    schema::Frame {
        name: frame.name.clone().into_owned(),
        file: (!frame.file.is_empty()).then(|| frame.file.to_owned()),
        line: (frame.line > 0).then(|| frame.line.into()),
        kind: match frame.class {
            FrameClass::Native | FrameClass::Interpreted => None,
            FrameClass::Inlined => Some(schema::FrameKind::Inlined),
            FrameClass::Kernel => Some(schema::FrameKind::Kernel),
            FrameClass::Jit => Some(schema::FrameKind::Jit),
        },
    }
}

/// The six units that speedscope knows; `none` shows a bare number.
fn axis_unit(unit: &str) -> &str {
    match unit {
        "nanoseconds" | "microseconds" | "milliseconds" | "seconds" | "bytes" => unit,
        _ => "none",
    }
}
