//! A flame graph as an SVG picture, drawn by inferno.
//!
//! inferno's own palettes guess the language from a name (a capital letter is Java), so colours are
//! given frame by frame: compiled code warm, kernel orange-brown, inlined blue-green, JIT green,
//! what has no name grey, the process's name slate. The hue of a name is always the same, so that
//! two pictures can be compared.

use std::io::Write;

use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap};
use inferno::flamegraph::{self, TextTruncateDirection};

use super::folded::{self, frames_of_locations};
use super::frame_text::{FrameClass, safe_name};
use super::xml::escape;
use super::{ExportError, Options};
use crate::model::{LabelValue, Profile};

/// The comment of a profile that names the host it was taken on begins with this.
pub const HOST_COMMENT: &str = "host: ";

/// Draws one value, by default the first. A profile without samples gives a picture that says so.
///
/// # Errors
/// [`ExportError::Stream`].
pub fn write(profile: &Profile, writer: &mut dyn Write, options: &Options) -> Result<(), ExportError> {
    let value = options.value.unwrap_or(0);
    let with_comm = folded::has_comm(profile);
    let lines: Vec<String> = folded::lines(profile, value, with_comm)
        .into_iter()
        .map(|(mut line, sum)| {
            line.push(' ');
            line.push_str(&sum.to_string());
            line
        })
        .collect();
    let title = options.title.clone().unwrap_or_else(|| title(profile, value));
    let subtitle = subtitle(profile);
    if lines.is_empty() {
        return Ok(write_empty(writer, &title, &subtitle)?);
    }

    let (unit, factor) = shown_unit(profile, value);
    let mut colours = frame_colours(profile, with_comm);
    let mut picture = flamegraph::Options::default();
    picture.title = title;
    picture.subtitle = Some(subtitle);
    picture.count_name = unit;
    picture.factor = factor;
    picture.name_type = "Function:".to_owned();
    picture.bgcolors = Some(BackgroundColor::Grey);
    picture.text_truncate_direction = TextTruncateDirection::Right;
    picture.deterministic = true;
    picture.palette_map = Some(&mut colours);
    flamegraph::from_lines(&mut picture, lines.iter().map(String::as_str), writer)?;
    Ok(())
}

/// The unit as a person reads it, and the factor that leads to it.
fn shown_unit(profile: &Profile, value: usize) -> (String, f64) {
    let Some(value_type) = profile.value_types.get(value) else { return ("samples".to_owned(), 1.0) };
    match value_type.unit.as_str() {
        "count" => (value_type.kind.clone(), 1.0),
        "nanoseconds" => ("ms".to_owned(), 1e-6),
        "microseconds" => ("ms".to_owned(), 1e-3),
        unit => (unit.to_owned(), 1.0),
    }
}

fn title(profile: &Profile, value: usize) -> String {
    let shown = profile.value_types.get(profile.default_value).or(profile.value_types.get(value));
    match shown.map(|value_type| value_type.kind.as_str()) {
        Some("cpu") => "CPU flame graph".to_owned(),
        Some(kind) => format!("Flame graph: {kind}"),
        None => "Flame graph".to_owned(),
    }
}

/// Host, length, samples, and what the colours mean.
fn subtitle(profile: &Profile) -> String {
    let mut parts = Vec::new();
    let host = profile.comments.iter().find_map(|comment| comment.strip_prefix(HOST_COMMENT));
    if let Some(host) = host {
        parts.push(host.trim().to_owned());
    }
    if profile.duration_ns > 0 {
        parts.push(format!("{:.1} s", profile.duration_ns as f64 / 1e9));
    }
    let counted = profile.value_types.iter().position(|value_type| value_type.unit == "count");
    if let Some(counted) = counted {
        parts.push(format!("{} {}", profile.total(counted), profile.value_types[counted].kind));
    }
    if let Some(period_type) = &profile.period_type
        && period_type.unit == "nanoseconds"
        && profile.period > 0
    {
        parts.push(format!("{:.0} Hz", 1e9 / profile.period as f64));
    }
    parts.push("orange: kernel, blue: inlined, green: JIT, grey: no name".to_owned());
    parts.join(" · ")
}

/// The colour of every text that the picture can contain.
fn frame_colours(profile: &Profile, with_comm: bool) -> PaletteMap {
    let mut colours = PaletteMap::default();
    colours.insert("", Color { r: 200, g: 200, b: 205 });
    for frame in frames_of_locations(profile).iter().flatten() {
        let text = frame.folded();
        let colour = if frame.unnamed && frame.class != FrameClass::Kernel {
            shade(&text, [170, 170, 170], [20, 20, 20])
        } else {
            match frame.class {
                FrameClass::Native => shade(&text, [215, 70, 45], [35, 95, 25]),
                FrameClass::Kernel => shade(&text, [205, 125, 20], [30, 35, 20]),
                FrameClass::Inlined => shade(&text, [60, 150, 185], [40, 45, 45]),
                FrameClass::Jit => shade(&text, [70, 170, 70], [45, 55, 40]),
                FrameClass::Interpreted => shade(&text, [150, 110, 200], [40, 40, 40]),
            }
        };
        colours.insert(text, colour);
    }
    if with_comm {
        colours.insert("[unknown]", Color { r: 180, g: 180, b: 180 });
        for label in profile.label_sets.iter().flatten().filter(|label| label.key == "comm") {
            if let LabelValue::Text(comm) = &label.value {
                let text = safe_name(comm).into_owned();
                // A function of the same name keeps its colour: the map knows only texts.
                if colours.get(&text).is_none() {
                    let colour = shade(&text, [120, 135, 165], [25, 25, 25]);
                    colours.insert(text, colour);
                }
            }
        }
    }
    colours
}

/// A colour between `base` and `base + span`, always the same for one text.
fn shade(text: &str, base: [u8; 3], span: [u8; 3]) -> Color {
    // FNV-1a, 32 bits.
    let hash =
        text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let position = (hash >> 8) as u8;
    let channel = |index: usize| {
        let offset = u16::from(span[index]) * u16::from(position) / 255;
        base[index].saturating_add(u8::try_from(offset).unwrap_or(u8::MAX))
    };
    Color { r: channel(0), g: channel(1), b: channel(2) }
}

/// A picture without a graph: inferno refuses to draw one, and an error is not what an idle process
/// deserves.
fn write_empty(writer: &mut dyn Write, title: &str, subtitle: &str) -> std::io::Result<()> {
    writeln!(
        writer,
        r#"<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<svg version="1.1" width="1200" height="120" viewBox="0 0 1200 120" xmlns="http://www.w3.org/2000/svg">
<rect width="100%" height="120" fill="rgb(248,248,248)"/>
<g font-family="monospace" text-anchor="middle">
<text x="50%" y="32" font-size="17">{}</text>
<text x="50%" y="56" font-size="12" fill="rgb(160,160,160)">{}</text>
<text x="50%" y="90" font-size="14">No samples: nothing ran while this profile was taken.</text>
</g>
</svg>"#,
        escape(title),
        escape(subtitle)
    )
}
