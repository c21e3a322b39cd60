//! Folded stacks.
//!
//! `comm;root;…;leaf N`, one stack a line; empty lines and lines that begin with `#` are passed over.
//! The first field is the name of the process and becomes the label `comm`, except where
//! [`Options::first_field_is_frame`] says otherwise: the format cannot tell. Suffixes `_[k]`, `_[j]`,
//! `_[i]` become the sort of frame again, `[module+0xoff]` an address without a name. The number is
//! taken for a count of samples, since the format names no unit; it must be whole, and a second number
//! (the other half of a difference) is refused.

use std::collections::HashMap;

use super::builder::{ProfileBuilder, TextFrame};
use super::{IngestError, Options, frame_kind};
use crate::model::{Label, Profile, ValueType};

pub(super) fn read(bytes: &[u8], options: &Options) -> Result<Profile, IngestError> {
    let mut builder = ProfileBuilder::new(&options.limits);
    let value = builder.value_type(ValueType::new("samples", "count"));
    let mut known_frames: HashMap<String, TextFrame> = HashMap::new();
    let mut frames = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let malformed = |what: &str| IngestError::Malformed {
            format: "folded stacks",
            place: format!("line {}", index + 1),
            what: what.to_owned(),
        };
        // A symbol may have bytes that are no UTF-8; the line is still a stack.
        let line = String::from_utf8_lossy(line);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (stack, count) = line
            .rsplit_once([' ', '\t'])
            .ok_or_else(|| malformed("expected `frame;frame;… NUMBER`, found no number"))?;
        let count = count
            .parse::<i64>()
            .map_err(|_| malformed("the line does not end in a whole number below 2^63"))?;
        if count < 0 {
            return Err(malformed("the number is negative"));
        }
        let stack = stack.trim_end();
        let ends_in_number = stack.rsplit_once([' ', '\t']).is_some_and(|(_, word)| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        });
        if ends_in_number {
            return Err(malformed("two numbers: a difference of two profiles is not a profile"));
        }
        if stack.is_empty() {
            return Err(malformed("a number without a stack"));
        }

        let mut fields = stack.split(';');
        let mut labels = Vec::new();
        if !options.first_field_is_frame {
            let comm = fields.next().unwrap_or("");
            if comm != "[unknown]" && !comm.is_empty() {
                labels.push(Label::text("comm", comm));
            }
        }
        frames.clear();
        for text in fields {
            let frame = match known_frames.get(text) {
                Some(&known) => known,
                None => {
                    let new = builder.text_frame(&frame_kind::of_suffix(text), "", 0);
                    known_frames.insert(text.to_owned(), new);
                    new
                }
            };
            frames.push(frame);
        }
        let stack = builder.text_stack(&frames)?;
        let labels = builder.labels(labels);
        builder.add(stack, labels, value, count)?;
    }
    Ok(builder.finish(None))
}

/// Whether bytes of an unknown file begin like a folded stack.
pub(super) fn looks_like(bytes: &[u8]) -> bool {
    let lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    let Some(line) = lines.next() else { return false };
    let no_control = !line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
    let number = line.rsplit(|&byte| byte == b' ').next().unwrap_or(b"");
    let is_number = number.iter().all(u8::is_ascii_digit);
    no_control && number.len() < line.len() && !number.is_empty() && is_number
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FrameKind;

    fn parse(text: &str) -> Result<Profile, IngestError> {
        read(text.as_bytes(), &Options::default())
    }

    #[test]
    fn suffixes_and_addresses_become_what_they_stood_for() {
        let text = "sh;_start;main;inner_[i];write_[j];do_syscall_64_[k];[libc.so.6+0x1f] 3\n";
        let profile = parse(text).expect("valid");
        let locations: Vec<_> = profile.stacks[0].iter().map(|&l| &profile.locations[l as usize]).collect();
        assert_eq!(locations.len(), 5, "the inlined frame has joined its caller");
        assert_eq!((locations[0].address, locations[0].frames.len()), (0x1f, 0));
        assert_eq!(locations[1].kind, FrameKind::Kernel);
        assert_eq!(locations[2].kind, FrameKind::Jit);
        let names: Vec<&str> = locations[3]
            .frames
            .iter()
            .map(|frame| profile.functions[frame.function as usize].name.as_str())
            .collect();
        assert_eq!(names, ["inner", "main"], "innermost first");
        assert_eq!(profile.label_text(&profile.samples[0], "comm"), Some("sh"));
    }

    #[test]
    fn equal_lines_add_up_and_a_process_without_frames_is_a_sample() {
        let profile = parse("# comment\n\na;b 1\r\na;b 2\na 5\n").expect("valid");
        assert_eq!(profile.total(0), 8);
        assert_eq!(profile.samples.len(), 2);
    }

    #[test]
    fn what_is_no_stack_is_named_with_its_line() {
        for (text, place) in [
            ("a;b 1\nnonsense\n", "line 2"),
            ("a;b x", "line 1"),
            ("a;b 1.5", "line 1"),
            ("a;b -1", "line 1"),
            ("a;b 9223372036854775808", "line 1"),
            ("a;b 3 4", "line 1"),
            (" 5", "line 1"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(place), "{text:?}: {error}");
        }
        let overflow = "a;b 9223372036854775807\na;b 1\n";
        assert!(parse(overflow).is_err());
    }

    #[test]
    fn endless_stacks_and_endless_different_rows_are_refused() {
        let endless = "a;".repeat(70_000) + "b 1";
        assert!(matches!(parse(&endless), Err(IngestError::TooLarge { .. })));
        let mut options = Options::default();
        options.limits.rows = 100;
        let different: String = (0..100).map(|index| format!("p;f{index} 1\n")).collect();
        assert!(matches!(read(different.as_bytes(), &options), Err(IngestError::TooLarge { .. })));
        let equal = "p;f 1\n".repeat(1000);
        assert_eq!(read(equal.as_bytes(), &options).expect("few rows").total(0), 1000);
    }

    #[test]
    fn the_first_field_is_a_frame_when_asked() {
        let options = Options { first_field_is_frame: true, ..Options::default() };
        let profile = read(b"main;work 1", &options).expect("valid");
        assert_eq!(profile.stacks[0].len(), 2);
        assert!(profile.label_sets[0].is_empty());
    }
}
