//! Programs that say themselves in which span they are: their samples carry it, and no others do.

mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use opentelemetry_proto::tonic::profiles::v1development::{ProfilesData, Sample};
use prost::Message;
use support::pprof_text::Profile;
use support::program::{Program, fixture, fixture_command};
use support::{locked, quiet_cores, recording};

/// Samples by the function that ran and the span they carry: its id's first byte, and the trace's.
type InSpans = BTreeMap<(String, u8, u8), i64>;

fn samples(pid: u32) -> InSpans {
    samples_and_labelled(pid).0
}

/// Also how many of them had other labels, which are checked: those of `fixtures/go/labels`.
fn samples_and_labelled(pid: u32) -> (InSpans, i64) {
    let pid = pid.to_string();
    let recording =
        recording::record("spans.pb.gz", &["--pid", &pid, "--frequency", "499", "--duration", "3s"]);
    recording.assert_success();
    let profile = Profile::read(&recording.output);
    let mut found = BTreeMap::new();
    let mut labelled = 0;
    for sample in &profile.samples {
        let functions = sample.locations.iter().filter_map(|id| profile.locations.get(id));
        let work = functions.flat_map(|location| &location.functions).find_map(|name| {
            let name = name.split_whitespace().next()?.rsplit('.').next()?;
            let is_span = name.starts_with("span_") || name.starts_with("span") && name.len() == 5;
            (is_span || name == "no_span" || name == "noSpan").then(|| name.to_owned())
        });
        let Some(work) = work else { continue };
        let byte = |label: &str, digits: usize| {
            let id = sample.labels.get(label).map_or("", String::as_str);
            assert!(id.is_empty() || id.len() == digits && id == id[..2].repeat(digits / 2), "{label}: {id}");
            id.get(..2).map_or(0, |byte| u8::from_str_radix(byte, 16).expect("hexadecimal"))
        };
        let trace = byte("trace_id", 32);
        if let Some(zone) = sample.labels.get("zone") {
            let label = |name: &str| sample.labels.get(name).map(String::as_str);
            let expected = if trace % 2 == 0 { ("a", None) } else { ("b", Some("/cart")) };
            assert_eq!((zone.as_str(), label("endpoint")), expected, "trace {trace}");
            assert_eq!((label("traceparent"), label("pprof.trace_id")), (None, None), "ids are said once");
            labelled += sample.values[0];
        }
        *found.entry((work, byte("span_id", 16), trace)).or_default() += sample.values[0];
    }
    (found, labelled)
}

/// Every sample of a function that runs within a span carries that span, and no other does.
fn check(what: &str, found: &InSpans, traces: &[u8]) {
    let (mut right, mut missing, mut outside) = (0, 0, 0);
    for ((function, span, trace), &count) in found {
        let expected =
            function.trim_start_matches("span_").trim_start_matches("span").parse::<u8>().unwrap_or(0);
        if expected == 0 {
            assert_eq!((*span, *trace), (0, 0), "{what}: {count} samples of {function}: {found:?}");
            outside += count;
        } else if *span == 0 {
            missing += count;
        } else {
            assert_eq!(*span, expected, "{what}: {count} samples of {function}: {found:?}");
            assert!(traces.contains(trace), "{what}: trace {trace}: {found:?}");
            right += count;
        }
    }
    eprintln!("{what}: {right} samples in spans right, {missing} without, {outside} outside of any");
    assert!(right > 40 && outside > 20, "{what}: {found:?}");
    assert!(missing * 100 <= right, "{what}: {missing} samples in spans do not say so: {found:?}");
    for trace in traces {
        assert!(found.keys().any(|(_, _, known)| known == trace), "{what}: nothing of {trace}");
    }
}

#[test]
fn thread_contexts_are_read_however_the_variable_is_found() {
    needs!("go");
    let libraries = ["gnu", "gnu2", "initial"].map(|kind| fixture(&format!("libotel_context_{kind}.so")));
    let mut ways = vec![("in the program", vec!["otel_context", "60"])];
    ways.extend(libraries.iter().map(|library| (library.as_str(), vec!["otel_context_late", "60", library])));
    for (what, line) in ways {
        let program = Program::start_ready(&mut fixture_command(&line));
        // The library is loaded after that, and its slot filled in.
        std::thread::sleep(Duration::from_millis(300));
        let _quiet = quiet_cores();
        check(what, &samples(program.pid), &[1, 2, 3]);
    }
}

#[test]
fn what_another_tracer_says_of_threads_is_on_their_samples_as_long_as_it_is_there() {
    needs!();
    let path = "/sys/fs/bpf/otel/traces_ctx_v1";
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    if !mounts.lines().any(|line| line.split(' ').nth(1) == Some("/sys/fs/bpf")) {
        return support::skip("no BPF file system is mounted at /sys/fs/bpf");
    }
    let _pinned = locked("traces_ctx_v1.lock");
    let _ = std::fs::remove_file(path);
    let program = Program::start_ready(&mut fixture_command(&["traces_ctx", "60", path]));
    let _quiet = quiet_cores();
    check("another tracer", &samples(program.pid), &[1, 2, 3]);
    drop(program);
    std::fs::remove_file(path).expect("it was killed, and has left it there");
}

#[test]
fn samples_of_otlp_profiles_link_to_the_spans() {
    needs!();
    let program = Program::start_ready(&mut fixture_command(&["otel_context", "60"]));
    std::thread::sleep(Duration::from_millis(300));
    let pid = program.pid.to_string();
    let line = ["--pid", &pid, "--frequency", "499", "--duration", "2s"];
    let recording = recording::record("spans.otlp", &line);
    recording.assert_success();
    let bytes = std::fs::read(&recording.output).expect("it is there");
    let data = ProfilesData::decode(bytes.as_slice()).expect("OTLP");
    let dictionary = data.dictionary.expect("a dictionary");
    let text = |index: i32| dictionary.string_table[index as usize].as_str();
    let names = |sample: &Sample| -> Vec<&str> {
        let stack = &dictionary.stack_table[sample.stack_index as usize];
        let locations = stack.location_indices.iter().map(|&at| &dictionary.location_table[at as usize]);
        let lines = locations.flat_map(|location| &location.lines);
        lines
            .map(|line| text(dictionary.function_table[line.function_index as usize].name_strindex))
            .collect()
    };
    let (mut linked, mut unlinked) = (0, 0);
    let scopes = data.resource_profiles.iter().flat_map(|resource| &resource.scope_profiles);
    for sample in scopes.flat_map(|scope| &scope.profiles).flat_map(|profile| &profile.samples) {
        let link = &dictionary.link_table[sample.link_index as usize];
        let span = names(sample).into_iter().find_map(|name| name.strip_prefix("span_")?.parse::<u8>().ok());
        match span {
            Some(span) => {
                assert_eq!(link.span_id, [span; 8]);
                assert!((1..=3).contains(&link.trace_id[0]) && link.trace_id.len() == 16);
                linked += 1;
            }
            None => {
                assert_eq!((sample.link_index, link.span_id.len()), (0, 0), "{:?}", names(sample));
                unlinked += 1;
            }
        }
    }
    assert!(linked > 20 && unlinked > 10, "{linked} {unlinked}");
}

#[test]
fn a_child_has_its_parents_variable() {
    needs!("go");
    let program = Program::start_ready(&mut fixture_command(&["otel_context", "60"]));
    std::thread::sleep(Duration::from_millis(300));
    let child = support::program::children_of(program.pid)[0];
    let _quiet = quiet_cores();
    check("a child", &samples(child), &[9]);
}

#[test]
fn labels_of_goroutines_are_read_in_every_version_of_go() {
    needs!("go");
    let folder = tempfile::tempdir().expect("a folder");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/go/labels/labels.go");
    for toolchain in ["go1.18.10", "go1.22.12", "go1.23.12", "go1.24.13", "go1.25.7", "local"] {
        let program = folder.path().join(toolchain);
        let mut build = Command::new("go");
        build.env("GOTOOLCHAIN", toolchain).current_dir(folder.path()).args(["build", "-o"]);
        let is_built = build.arg(&program).arg(source).status().is_ok_and(|status| status.success());
        if !is_built {
            support::skip(&format!("the Go toolchain {toolchain} cannot be had"));
            continue;
        }
        let program = Program::start_ready(Command::new(&program).arg("60"));
        let _quiet = quiet_cores();
        let (found, labelled) = samples_and_labelled(program.pid);
        check(toolchain, &found, &[1, 2, 3, 4, 5, 6]);
        let in_spans: i64 = found.iter().filter(|((_, span, _), _)| *span != 0).map(|(_, count)| count).sum();
        assert_eq!(labelled, in_spans, "{toolchain}: whatever says its span says the rest");
    }
}
