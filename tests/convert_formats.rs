//! Every format written and read back: what it keeps, that totals agree, and that no bytes whatever
//! make a reader panic.

mod convert_support;

use std::collections::BTreeMap;

use convert_support::{arbitrary_profile, canonical, one_of_everything};
use proptest::prelude::*;
use spanflame::export::{self, Format};
use spanflame::ingest::{self, IngestError};
use spanflame::model::Profile;

const READABLE: [Format; 4] = [Format::Pprof, Format::Otlp, Format::Speedscope, Format::Folded];

fn written(profile: &Profile, format: Format) -> Vec<u8> {
    let mut bytes = Vec::new();
    export::write(profile, format, &mut bytes, &export::Options::default()).expect("memory takes it");
    bytes
}

fn read(bytes: &[u8], format: Format) -> Result<Profile, IngestError> {
    ingest::read(bytes, format, &ingest::Options::default())
}

fn folded_counts(profile: &Profile, value: usize) -> BTreeMap<String, i64> {
    let mut bytes = Vec::new();
    let options = export::Options { value: Some(value), ..export::Options::default() };
    export::write(profile, Format::Folded, &mut bytes, &options).expect("memory takes it");
    let text = String::from_utf8(bytes).expect("UTF-8");
    text.lines()
        .map(|line| {
            let (stack, count) = line.rsplit_once(' ').expect("a number ends the line");
            (stack.to_owned(), count.parse().expect("a whole number"))
        })
        .collect()
}

/// Samples, labels, addresses, lines, flags, period, comments: nothing is lost.
fn assert_lossless(profile: &Profile, format: Format) {
    let back = read(&written(profile, format), format).expect("what we write can be read");
    assert_eq!(canonical(&back), canonical(profile), "{format:?}");
    assert_eq!(back.value_types, profile.value_types, "{format:?}");
    assert_eq!(back.default_value, profile.default_value, "{format:?}");
    assert_eq!(back.period_type, profile.period_type, "{format:?}");
    assert_eq!(back.period, profile.period, "{format:?}");
    assert_eq!(back.start_unix_ns, profile.start_unix_ns, "{format:?}");
    assert_eq!(back.duration_ns, profile.duration_ns, "{format:?}");
    assert_eq!(back.comments, profile.comments, "{format:?}");
}

#[test]
fn pprof_and_otlp_keep_everything() {
    assert_lossless(&one_of_everything(), Format::Pprof);
    assert_lossless(&one_of_everything(), Format::Otlp);
}

#[test]
fn folded_stacks_read_as_the_interface_says() {
    let lines = folded_counts(&one_of_everything(), 0);
    let expected = [
        ("burn", 2),
        ("burn;_start;main;[libstripped.so.1+0x20042];do_syscall_64_[k]", 30),
        ("burn;_start;main;burn::<[u8: 8]>;inner_[i]", 60),
        ("Web Content;_start;main;burn::<[u8: 8]>;inner_[i]", 7),
        ("Web Content;_start;main;do_syscall_64_[k];[kernel.kallsyms+0xffffffff81001042]_[k]", 10),
        ("Web Content;_start;main;LazyCompile:~loop /app/x.js_12_[j]", 5),
        ("[unknown];[unknown+0x7fffdead0000]", 3),
    ];
    let expected: BTreeMap<String, i64> =
        expected.into_iter().map(|(line, count)| (line.to_owned(), count)).collect();
    assert_eq!(lines, expected);
}

#[test]
fn every_format_has_the_same_folded_stacks_and_totals() {
    let profile = one_of_everything();
    for format in READABLE {
        let back = read(&written(&profile, format), format).expect("readable");
        assert_eq!(folded_counts(&back, 0), folded_counts(&profile, 0), "{format:?}");
        assert_eq!(back.total(0), 117, "{format:?}");
        if format != Format::Folded {
            assert_eq!(back.total(1), 117 * 10_101_010, "{format:?}");
            assert_eq!(folded_counts(&back, 1), folded_counts(&profile, 1), "{format:?}");
        }
    }
}

#[test]
fn the_picture_has_the_total_of_the_folded_stacks_and_colours_by_sort() {
    let svg = String::from_utf8(written(&one_of_everything(), Format::Svg)).expect("UTF-8");
    assert!(svg.contains(r#"total_samples="117""#), "the total");
    assert!(svg.contains("testhost · 10.0 s · 117 samples · 99 Hz"), "the subtitle");
    assert!(svg.contains("inner (60 samples, 51.28%)"), "inlined frames are there");
    let colour_of = |name: &str| {
        let (_, rest) = svg.split_once(&format!("<title>{name} (")).expect(name);
        let (_, rest) = rest.split_once("fill=\"").expect("a colour");
        rest.split_once('"').expect("closed").0.to_owned()
    };
    let channels = |name: &str| -> Vec<u16> {
        let colour = colour_of(name);
        let inner = colour.trim_start_matches("rgb(").trim_end_matches(')');
        inner.split(',').map(|channel| channel.parse().expect("a number")).collect()
    };
    let (native, kernel) = (channels("main"), channels("do_syscall_64"));
    let (inlined, jit) = (channels("inner"), channels("LazyCompile:~loop /app/x.js_12"));
    assert!(native[0] > 200 && native[2] < 80, "compiled code is red to yellow: {native:?}");
    assert!(kernel[0] > 200 && (120..170).contains(&kernel[1]) && kernel[2] < 50, "{kernel:?}");
    assert!(inlined[2] > inlined[0] + 50, "inlined frames are blue: {inlined:?}");
    assert!(jit[1] > jit[0] + 40 && jit[1] > jit[2] + 40, "JIT code is green: {jit:?}");
    assert_eq!(svg, String::from_utf8(written(&one_of_everything(), Format::Svg)).expect("UTF-8"));
}

#[test]
fn an_empty_profile_is_an_empty_file_of_each_format_and_not_an_error() {
    let mut profile = one_of_everything();
    profile.samples.clear();
    for format in READABLE {
        let back = read(&written(&profile, format), format).expect("readable");
        assert_eq!(back.total(0), 0, "{format:?}");
    }
    let svg = String::from_utf8(written(&profile, Format::Svg)).expect("UTF-8");
    assert!(svg.contains("No samples"));
}

#[test]
fn speedscope_files_have_the_fields_of_their_schema() {
    let json: serde_json::Value =
        serde_json::from_slice(&written(&one_of_everything(), Format::Speedscope)).expect("JSON");
    assert_eq!(json["$schema"], "https://www.speedscope.app/file-format-schema.json");
    assert_eq!(json["activeProfileIndex"], 1, "cpu is the default");
    let frames = json["shared"]["frames"].as_array().expect("frames").len() as u64;
    let profiles = json["profiles"].as_array().expect("profiles");
    for (profile, unit) in profiles.iter().zip(["none", "nanoseconds"]) {
        assert_eq!((profile["type"].as_str(), profile["unit"].as_str()), (Some("sampled"), Some(unit)));
        let samples = profile["samples"].as_array().expect("samples");
        let weights = profile["weights"].as_array().expect("weights");
        assert_eq!(samples.len(), weights.len());
        let total: i64 = weights.iter().map(|weight| weight.as_i64().expect("whole")).sum();
        assert_eq!(profile["endValue"].as_i64(), Some(total));
        let indices = samples.iter().flat_map(|sample| sample.as_array().expect("stack"));
        assert!(indices.into_iter().all(|index| index.as_u64().expect("index") < frames));
    }
}

#[test]
fn contents_tell_the_format_where_the_name_does_not() {
    let profile = one_of_everything();
    for format in READABLE {
        let bytes = written(&profile, format);
        let back = ingest::read_any(&bytes, &ingest::Options::default()).expect("recognised");
        assert_eq!(folded_counts(&back, 0), folded_counts(&profile, 0), "{format:?}");
    }
    let options = ingest::Options::default();
    let svg = ingest::read_any(&written(&profile, Format::Svg), &options);
    assert!(matches!(svg, Err(IngestError::Picture)));
    for nonsense in [&b""[..], b"hello", b"\x7fELF\x02\x01\x01", b"\xff\xff\xff\xff"] {
        assert!(ingest::read_any(nonsense, &options).is_err(), "{nonsense:?}");
    }
}

#[test]
fn no_file_may_ask_for_more_than_the_limits() {
    let bytes = written(&one_of_everything(), Format::Pprof);
    let limits = ingest::Limits { fields: 20, ..ingest::Limits::default() };
    let options = ingest::Options { limits, ..ingest::Options::default() };
    let refused = ingest::read(&bytes, Format::Pprof, &options);
    assert!(matches!(refused, Err(IngestError::TooLarge { .. })), "{refused:?}");
    for format in [Format::Pprof, Format::Otlp] {
        let limits = ingest::Limits { text_bytes: 100, ..ingest::Limits::default() };
        let options = ingest::Options { limits, ..ingest::Options::default() };
        let refused = ingest::read(&written(&one_of_everything(), format), format, &options);
        assert!(matches!(refused, Err(IngestError::TooLarge { .. })), "{refused:?}");
    }
}

#[test]
fn every_truncation_and_every_changed_byte_is_an_error_or_a_sound_profile() {
    let profile = one_of_everything();
    for format in READABLE {
        let mut bytes = Vec::new();
        let options = export::Options { uncompressed: true, ..export::Options::default() };
        export::write(&profile, format, &mut bytes, &options).expect("memory takes it");
        for length in 0..bytes.len() {
            if let Ok(back) = read(&bytes[..length], format) {
                back.validate().expect("sound");
            }
        }
        for at in 0..bytes.len() {
            for change in [0x01, 0x80] {
                bytes[at] ^= change;
                if let Ok(back) = read(&bytes, format) {
                    back.validate().expect("sound");
                    // Whatever was read can be written, in a format that follows every index.
                    written(&back, Format::Folded);
                    written(&back, Format::Otlp);
                }
                bytes[at] ^= change;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_profile_survives_pprof_and_otlp(profile in arbitrary_profile()) {
        assert_lossless(&profile, Format::Pprof);
        assert_lossless(&profile, Format::Otlp);
    }

    #[test]
    fn totals_agree_in_all_formats_and_folded_text_is_stable(profile in arbitrary_profile()) {
        let folded = read(&written(&profile, Format::Folded), Format::Folded).expect("readable");
        prop_assert_eq!(folded.total(0), profile.total(0));
        prop_assert_eq!(folded_counts(&folded, 0), folded_counts(&profile, 0));
        let speedscope = read(&written(&profile, Format::Speedscope), Format::Speedscope).expect("readable");
        prop_assert_eq!(speedscope.total(0), profile.total(0));
        prop_assert_eq!(speedscope.total(1), profile.total(1));
        let svg = String::from_utf8(written(&profile, Format::Svg)).expect("UTF-8");
        let total = format!("total_samples=\"{}\"", profile.total(0));
        prop_assert!(profile.total(0) == 0 || svg.contains(&total));
    }

    #[test]
    fn arbitrary_bytes_are_never_more_than_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for format in READABLE {
            if let Ok(profile) = read(&bytes, format) {
                profile.validate().expect("sound");
            }
        }
        let _ = ingest::read_any(&bytes, &ingest::Options::default());
    }
}
