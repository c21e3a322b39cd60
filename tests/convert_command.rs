//! `spanflame convert` as a command: which failures are the user's, which the file's, and that
//! nothing half-written is left.

#[allow(dead_code, reason = "shared with the tests of formats")]
mod convert_support;

use std::fs;
use std::path::Path;

use clap::Parser;
use convert_support::one_of_everything;
use spanflame::cli::{CommandError, convert};
use spanflame::export;

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    convert: convert::Args,
}

fn run(arguments: &[&str]) -> Result<(), CommandError> {
    let arguments = ["convert"].iter().chain(arguments);
    convert::run(CommandLine::try_parse_from(arguments).expect("valid arguments").convert)
}

fn path(directory: &Path, name: &str) -> String {
    directory.join(name).to_string_lossy().into_owned()
}

#[test]
fn every_format_converts_into_every_other_with_the_same_folded_stacks() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let at = |name: &str| path(directory.path(), name);
    export::write_file(&one_of_everything(), Path::new(&at("start.pb.gz"))).expect("written");
    run(&[&at("start.pb.gz"), "-o", &at("expected.folded")]).expect("converted");
    let expected = fs::read_to_string(at("expected.folded")).expect("readable");
    assert_eq!(expected.lines().count(), 7);

    let endings = ["pb.gz", "pb", "otlp", "json", "folded"];
    for from in endings {
        let source = at(&format!("source.{from}"));
        run(&[&at("start.pb.gz"), "-o", &source]).expect(from);
        for to in endings {
            let target = at(&format!("{from}-to.{to}"));
            run(&[&source, "-o", &target]).expect(to);
            let folded = at("compared.folded");
            run(&[&target, "-o", &folded]).expect(to);
            assert_eq!(fs::read_to_string(&folded).expect("readable"), expected, "{from} to {to}");
        }
        run(&[&source, "-o", &at(&format!("{from}.svg"))]).expect("drawn");
    }
    let gzip = fs::read(at("source.pb.gz")).expect("readable");
    let plain = fs::read(at("source.pb")).expect("readable");
    assert!(gzip.starts_with(&[0x1f, 0x8b]) && !plain.starts_with(&[0x1f, 0x8b]), ".pb has no gzip");
}

#[test]
fn the_value_can_be_chosen_by_its_name() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let at = |name: &str| path(directory.path(), name);
    export::write_file(&one_of_everything(), Path::new(&at("in.pb.gz"))).expect("written");
    for name in ["cpu", "cpu/nanoseconds"] {
        run(&[&at("in.pb.gz"), "-o", &at("out.folded"), "--value", name]).expect("converted");
        let folded = fs::read_to_string(at("out.folded")).expect("readable");
        assert!(folded.contains(&format!("inner_[i] {}\n", 60 * 10_101_010)), "{folded}");
    }
    let wrong = run(&[&at("in.pb.gz"), "-o", &at("out.folded"), "--value", "heap"]);
    let Err(CommandError::Usage(error)) = wrong else { panic!("{wrong:?}") };
    assert!(error.to_string().contains("samples/count, cpu/nanoseconds"), "{error}");
}

#[test]
fn outputs_that_cannot_be_written_are_usage_errors_before_the_input_is_looked_at() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let missing_input = path(directory.path(), "missing.pb.gz");
    for output in ["out.png", "no/such/directory/out.svg", "/proc/out.svg"] {
        let output = if output.starts_with('/') { output.to_owned() } else { path(directory.path(), output) };
        let result = run(&[&missing_input, "-o", &output]);
        assert!(matches!(result, Err(CommandError::Usage(_))), "{output}: {result:?}");
    }
    let svg = run(&[&missing_input, "-o", &path(directory.path(), "out.svg"), "--from", "svg"]);
    assert!(matches!(svg, Err(CommandError::Usage(_))), "{svg:?}");
}

#[test]
fn bad_inputs_are_failures_that_name_the_file_and_leave_the_output_as_it_was() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let at = |name: &str| path(directory.path(), name);
    fs::write(at("out.svg"), "before").expect("written");
    for (name, contents) in [
        ("garbage.pb.gz", &b"\x1f\x8bgarbage"[..]),
        ("text.pb.gz", b"hello"),
        ("lines.folded", b"a;b 1\nnonsense\n"),
        ("half.json", b"{\"shared\":"),
        ("empty.otlp", b""),
        ("picture.svg", b"<svg/>"),
        ("what.bin", b"\x7fELF"),
    ] {
        fs::write(at(name), contents).expect("written");
        let result = run(&[&at(name), "-o", &at("out.svg")]);
        let Err(CommandError::Failed(error)) = result else { panic!("{name}: {result:?}") };
        assert!(format!("{error:#}").contains(name), "{error:#}");
        assert_eq!(fs::read_to_string(at("out.svg")).expect("readable"), "before");
    }
    let missing = run(&[&at("missing.pb.gz"), "-o", &at("out.svg")]);
    assert!(matches!(missing, Err(CommandError::Failed(_))), "{missing:?}");
    let left: Vec<_> = fs::read_dir(directory.path())
        .expect("readable")
        .filter(|entry| entry.as_ref().expect("entry").file_name().to_string_lossy().contains("partial"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
