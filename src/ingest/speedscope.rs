//! speedscope JSON, sampled and evented, of any producer (format: [`crate::export::speedscope_schema`]).
//!
//! Values become whole numbers: times are nanoseconds, rounded; a file that names no unit counts
//! samples. Where several profiles of a file have the same unit they are threads, and their name
//! becomes the label `thread_name`. In an evented profile a frame is charged with the time between
//! events while it is innermost; what opens must close, in order.

use std::collections::HashMap;

use serde_json::Number;

use super::builder::{ProfileBuilder, TextFrame};
use super::frame_kind::{self, SuffixedName};
use super::{IngestError, Limits};
use crate::export::speedscope_schema as schema;
use crate::model::{FrameKind, Label, Profile, ValueType};

/// Open frames at one time in an evented profile; each event costs this much.
const MAX_DEPTH: usize = 10_000;

fn malformed(place: String, what: impl Into<String>) -> IngestError {
    IngestError::Malformed { format: "speedscope", place, what: what.into() }
}

pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Profile, IngestError> {
    let file: schema::File = serde_json::from_slice(bytes)?;
    if file.profiles.is_empty() {
        return Err(malformed("profiles".to_owned(), "there is none"));
    }
    let mut builder = ProfileBuilder::new(limits);
    let mut value_indices = Vec::with_capacity(file.profiles.len());
    let mut profiles_of_value: HashMap<usize, usize> = HashMap::new();
    for profile in &file.profiles {
        let index = builder.value_type(scale(profile).value_type);
        *profiles_of_value.entry(index).or_default() += 1;
        value_indices.push(index);
    }

    let mut frames = SharedFrames::new(&file.shared.frames);
    for (number, (profile, &value)) in file.profiles.iter().zip(&value_indices).enumerate() {
        let place = format!("profile {}", number + 1);
        let (name, unit) = match profile {
            schema::Profile::Sampled(sampled) => (&sampled.name, &sampled.unit),
            schema::Profile::Evented(evented) => (&evented.name, &evented.unit),
        };
        let scale = scale(profile);
        let Some(factor) = scale.factor else {
            return Err(malformed(place, format!("unknown unit `{unit}`")));
        };
        let several = profiles_of_value.get(&value).is_some_and(|&profiles| profiles > 1);
        let thread_name = (several && !name.is_empty()).then_some(name.as_str());
        let of_file = ProfileOfFile { place: place.clone(), thread_name, value };
        let mut charge = |path: &[u32], amount: i64| -> Result<(), IngestError> {
            frames.charge(&mut builder, path, &of_file, amount)
        };
        match profile {
            schema::Profile::Sampled(sampled) => read_sampled(sampled, factor, &place, &mut charge)?,
            schema::Profile::Evented(evented) => read_evented(evented, factor, &place, &mut charge)?,
        }
    }

    let mut profile = builder.finish(None);
    let active = file.active_profile_index.and_then(|active| value_indices.get(active));
    profile.default_value = active.copied().unwrap_or(0);
    Ok(profile)
}

/// Takes a path of frame indices, root first, and what is added to it.
type Charge<'a> = dyn FnMut(&[u32], i64) -> Result<(), IngestError> + 'a;

fn read_sampled(
    sampled: &schema::Sampled,
    factor: f64,
    place: &str,
    charge: &mut Charge<'_>,
) -> Result<(), IngestError> {
    if sampled.samples.len() != sampled.weights.len() {
        let what = format!("{} samples and {} weights", sampled.samples.len(), sampled.weights.len());
        return Err(malformed(place.to_owned(), what));
    }
    for (path, weight) in sampled.samples.iter().zip(&sampled.weights) {
        let amount = whole(weight, factor)
            .ok_or_else(|| malformed(place.to_owned(), format!("weight {weight} is out of range")))?;
        charge(path, amount)?;
    }
    Ok(())
}

fn read_evented(
    evented: &schema::Evented,
    factor: f64,
    place: &str,
    charge: &mut Charge<'_>,
) -> Result<(), IngestError> {
    let mut open: Vec<u32> = Vec::new();
    let mut last = None;
    for (number, event) in evented.events.iter().enumerate() {
        let wrong = |what: String| malformed(format!("{place}, event {}", number + 1), what);
        let at =
            whole(&event.at, factor).ok_or_else(|| wrong(format!("time {} is out of range", event.at)))?;
        let elapsed = at.checked_sub(last.unwrap_or(at)).filter(|&elapsed| elapsed >= 0);
        let elapsed = elapsed.ok_or_else(|| wrong(format!("time {} goes backwards", event.at)))?;
        if elapsed > 0 && !open.is_empty() {
            charge(&open, elapsed)?;
        }
        last = Some(at);
        match event.event_type {
            schema::EventType::Open if open.len() >= MAX_DEPTH => {
                return Err(IngestError::TooLarge { what: "open frames at one time", limit: MAX_DEPTH });
            }
            schema::EventType::Open => open.push(event.frame),
            schema::EventType::Close => {
                let innermost = open.pop();
                if innermost != Some(event.frame) {
                    let innermost = innermost.map_or("none".to_owned(), |frame| frame.to_string());
                    let what = format!("closes frame {}, the innermost open one is {innermost}", event.frame);
                    return Err(wrong(what));
                }
            }
        }
    }
    if open.is_empty() {
        return Ok(());
    }
    Err(malformed(place.to_owned(), format!("{} frames are never closed", open.len())))
}

/// The shared frames of a file, each taken apart when a stack first has it.
struct SharedFrames<'a> {
    frames: &'a [schema::Frame],
    text_frames: Vec<Option<TextFrame>>,
}

impl<'a> SharedFrames<'a> {
    fn new(frames: &'a [schema::Frame]) -> Self {
        Self { frames, text_frames: vec![None; frames.len()] }
    }

    /// Adds `amount` to the stack of these frame indices, root first.
    fn charge(
        &mut self,
        builder: &mut ProfileBuilder,
        path: &[u32],
        profile: &ProfileOfFile<'_>,
        amount: i64,
    ) -> Result<(), IngestError> {
        let mut labels = Vec::new();
        let mut stack = Vec::with_capacity(path.len());
        for (depth, &index) in path.iter().enumerate() {
            let row = index as usize;
            let known = self.frames.get(row).zip(self.text_frames.get_mut(row));
            let Some((frame, text)) = known else {
                let what = format!("frame {index} of {} shared ones", self.frames.len());
                return Err(malformed(profile.place.clone(), what));
            };
            if depth == 0 && frame.kind == Some(schema::FrameKind::Comm) {
                if frame.name != "[unknown]" {
                    labels.push(Label::text("comm", &frame.name));
                }
                continue;
            }
            stack.push(*text.get_or_insert_with(|| text_frame(frame, builder)));
        }
        if let Some(thread_name) = profile.thread_name {
            labels.push(Label::text("thread_name", thread_name));
        }
        let stack = builder.text_stack(&stack)?;
        let labels = builder.labels(labels);
        builder.add(stack, labels, profile.value, amount)
    }
}

/// Where the samples of one profile of a file go.
struct ProfileOfFile<'a> {
    place: String,
    thread_name: Option<&'a str>,
    value: usize,
}

/// A frame with its sort: our key if it is there, else the suffix of folded stacks, which other
/// programs leave in the names when they convert such files.
fn text_frame(frame: &schema::Frame, builder: &mut ProfileBuilder) -> TextFrame {
    let of_kind = |kind, inlined| SuffixedName { name: frame.name.as_str(), kind, inlined };
    let name = match frame.kind {
        Some(schema::FrameKind::Kernel) => of_kind(FrameKind::Kernel, false),
        Some(schema::FrameKind::Jit) => of_kind(FrameKind::Jit, false),
        Some(schema::FrameKind::Inlined) => of_kind(FrameKind::Native, true),
        Some(schema::FrameKind::Comm | schema::FrameKind::Unknown) | None => {
            frame_kind::of_suffix(&frame.name)
        }
    };
    let line = frame.line.as_ref().and_then(Number::as_u64);
    let line = line.and_then(|line| u32::try_from(line).ok()).unwrap_or(0);
    builder.text_frame(&name, frame.file.as_deref().unwrap_or(""), line)
}

/// What a profile's numbers mean.
struct Scale {
    value_type: ValueType,
    /// What makes them whole numbers of that unit; none if the unit is unknown.
    factor: Option<f64>,
}

fn scale(profile: &schema::Profile) -> Scale {
    let unit = match profile {
        schema::Profile::Sampled(sampled) => {
            if let (Some(kind), Some(unit)) = (&sampled.value_kind, &sampled.value_unit) {
                return Scale { value_type: ValueType::new(kind, unit), factor: Some(1.0) };
            }
            &sampled.unit
        }
        schema::Profile::Evented(evented) => &evented.unit,
    };
    let (kind, unit, factor) = match unit.as_str() {
        "nanoseconds" => ("time", "nanoseconds", Some(1.0)),
        "microseconds" => ("time", "nanoseconds", Some(1e3)),
        "milliseconds" => ("time", "nanoseconds", Some(1e6)),
        "seconds" => ("time", "nanoseconds", Some(1e9)),
        "bytes" => ("space", "bytes", Some(1.0)),
        "none" => ("samples", "count", Some(1.0)),
        _ => ("", "", None),
    };
    Scale { value_type: ValueType::new(kind, unit), factor }
}

/// The number times the factor, rounded; whole numbers are exact.
fn whole(number: &Number, factor: f64) -> Option<i64> {
    if factor == 1.0
        && let Some(exact) = number.as_i64()
    {
        return Some(exact);
    }
    let scaled = (number.as_f64()? * factor).round();
    // 2^63 is the first that does not fit; below it every float is a whole i64.
    let limit = 9_223_372_036_854_775_808.0;
    (scaled > -limit && scaled < limit).then_some(scaled as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evented(events: &str) -> Result<Profile, IngestError> {
        let json = format!(
            r#"{{"$schema":"x","shared":{{"frames":[{{"name":"a"}},{{"name":"b","line":3,"file":"f.js"}}]}},
            "profiles":[{{"type":"evented","name":"t","unit":"milliseconds","startValue":0,"endValue":10,
            "events":[{events}]}}]}}"#
        );
        read(json.as_bytes(), &Limits::default())
    }

    #[test]
    fn time_between_events_belongs_to_the_innermost_open_frame() {
        let profile = evented(
            r#"{"type":"O","frame":0,"at":1},{"type":"O","frame":1,"at":3},
               {"type":"C","frame":1,"at":7.5},{"type":"C","frame":0,"at":8}"#,
        )
        .expect("valid");
        assert_eq!(profile.value_types, [ValueType::new("time", "nanoseconds")]);
        let values: Vec<(usize, i64)> = profile
            .samples
            .iter()
            .map(|sample| (profile.stacks[sample.stack as usize].len(), sample.values[0]))
            .collect();
        assert_eq!(values, [(1, 2_500_000), (2, 4_500_000)]);
    }

    #[test]
    fn events_out_of_order_or_unbalanced_are_refused() {
        for events in [
            r#"{"type":"C","frame":0,"at":1}"#,
            r#"{"type":"O","frame":0,"at":1}"#,
            r#"{"type":"O","frame":0,"at":1},{"type":"C","frame":1,"at":2}"#,
            r#"{"type":"O","frame":0,"at":2},{"type":"C","frame":0,"at":1}"#,
            r#"{"type":"O","frame":7,"at":1},{"type":"C","frame":7,"at":2}"#,
            r#"{"type":"O","frame":0,"at":1e300},{"type":"C","frame":0,"at":2e300}"#,
            r#"{"type":"X","frame":0,"at":1}"#,
        ] {
            assert!(evented(events).is_err(), "{events}");
        }
    }

    #[test]
    fn sampled_profiles_of_one_unit_are_threads() {
        let json = br#"{"shared":{"frames":[{"name":"a"},{"name":"b_[k]"}]},"profiles":[
            {"type":"sampled","name":"one","unit":"seconds","startValue":0,"endValue":1,"samples":[[0,1]],"weights":[0.25]},
            {"type":"sampled","name":"two","unit":"seconds","startValue":0,"endValue":1,"samples":[[0]],"weights":[1]}]}"#;
        let profile = read(json, &Limits::default()).expect("valid");
        assert_eq!(profile.total(0), 1_250_000_000);
        let names: Vec<_> =
            profile.samples.iter().map(|sample| profile.label_text(sample, "thread_name")).collect();
        assert_eq!(names, [Some("one"), Some("two")]);
        assert!(profile.locations.iter().any(|location| location.kind == FrameKind::Kernel));
    }

    #[test]
    fn as_many_weights_as_samples_and_units_that_are_known() {
        for (unit, weights) in [("none", "[1,2]"), ("none", "[]"), ("parsecs", "[1]")] {
            let json = format!(
                r#"{{"shared":{{"frames":[{{"name":"a"}}]}},"profiles":[{{"type":"sampled","name":"","unit":"{unit}",
                "startValue":0,"endValue":1,"samples":[[0]],"weights":{weights}}}]}}"#
            );
            assert!(read(json.as_bytes(), &Limits::default()).is_err(), "{unit} {weights}");
        }
    }
}
