//! A user opens what was recorded with other people's tools; all formats tell the same story.

mod support;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use support::folded::{Folded, percent, plain_name};
use support::pprof_text::{Profile, go_tool_pprof};
use support::program::{Program, fixture_command};
use support::recording::Recording;
use support::{await_event, quiet_cores, recording, servers};

/// One recording for all tests of this file: two threads of the C fixture for two seconds.
fn recorded() -> &'static Recording {
    static RECORDING: OnceLock<Recording> = OnceLock::new();
    RECORDING.get_or_init(|| {
        let _quiet = quiet_cores();
        let program = Program::start_ready(&mut fixture_command(&["shares", "60", "2"]));
        let pid = program.pid.to_string();
        let recording =
            recording::record("one.pb.gz", &["--pid", &pid, "--frequency", "997", "--duration", "2s"]);
        recording.assert_success();
        recording.stats().assert_exact();
        recording
    })
}

#[test]
fn go_tool_pprof_reads_it_without_a_warning() {
    needs!("go");
    for arguments in
        [&["-top"][..], &["-traces"], &["-top", "-sample_index=samples"], &["-peek=burn_sixty"], &["-tags"]]
    {
        let output = go_tool_pprof(arguments, &recorded().output);
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        assert_eq!(stderr.trim(), "", "{arguments:?} warns");
        assert!(stdout.contains("burn_sixty") || arguments == ["-tags"], "{arguments:?}:\n{stdout}");
    }
}

#[test]
fn go_tool_pprof_says_the_shares() {
    needs!("go");
    let output = go_tool_pprof(&["-top", "-cum", "-sample_index=samples"], &recorded().output);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    // flat flat% sum% cum cum% name
    let cumulative: HashMap<&str, f64> = stdout
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let share = fields.get(4)?.strip_suffix('%')?.parse().ok()?;
            Some((plain_name(fields.get(5)?), share))
        })
        .collect();
    for (name, expected) in [("burn_sixty", 60.0), ("burn_thirty", 30.0), ("burn_ten", 10.0)] {
        let share = cumulative.get(name).copied().unwrap_or_else(|| panic!("no {name} in\n{stdout}"));
        assert!((share - expected).abs() <= 3.0, "{name} has {share} %, {expected} % is right");
    }
}

#[test]
fn go_tool_pprof_serves_it_in_a_browser() {
    needs!("go");
    let port = servers::free_port();
    let file = &recorded().output;
    // `go tool` starts pprof as a child, so the tool itself is asked for and started.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log = directory.path().join("log");
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "go", "tool", "pprof", "-no_browser", "-symbolize=none"]);
    command.arg(format!("-http=127.0.0.1:{port}")).arg(file).env("PPROF_TMPDIR", directory.path());
    command.stderr(Stdio::from(std::fs::File::create(&log).expect("it is ours")));
    let program = Program::start(&mut command);
    let page = await_event("pprof's pages", Duration::from_secs(120), || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        stream
            .write_all(format!("GET /ui/flamegraph HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n").as_bytes())
            .ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        Some(page)
    });
    // Before pprof is ended, which `go tool` would report there too.
    let said = std::fs::read_to_string(&log).expect("a log");
    let children = support::program::children_of(program.pid);
    children.iter().for_each(|&pid| support::send_signal(pid, libc::SIGTERM));
    assert!(page.starts_with("HTTP/1.0 200"), "{}", page.lines().next().unwrap_or_default());
    assert!(page.contains("burn_sixty"), "the flame graph shows the program");
    let warnings: Vec<&str> = said.lines().filter(|line| !line.starts_with("Serving web UI")).collect();
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn the_executable_that_was_asked_for_is_the_first_mapping_and_has_its_build_id() {
    needs!("go", "readelf");
    let profile = Profile::read(&recorded().output);
    let path = support::program::fixture("shares");
    let first = profile.mappings.get(&1).unwrap_or_else(|| panic!("no mapping 1: {:?}", profile.mappings));
    assert!(first.contains(&path), "{first}");
    let notes = Command::new("readelf").args(["-n", &path]).output().expect("readelf is installed");
    let notes = String::from_utf8_lossy(&notes.stdout).into_owned();
    let build_id =
        notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).expect("gcc writes one");
    assert!(first.contains(build_id), "{build_id} is not in {first}");
}

#[test]
fn pprof_locations_are_elf_addresses() {
    needs!("go", "nm");
    // Symbol values of nm are ELF addresses; each location of the burner lies inside of it.
    let output = go_tool_pprof(&["-raw"], &recorded().output);
    let raw = String::from_utf8_lossy(&output.stdout).into_owned();
    let symbols = Command::new("nm").args(["-S", &support::program::fixture("shares")]).output().expect("nm");
    let symbols = String::from_utf8_lossy(&symbols.stdout).into_owned();
    let (begin, size) = symbols
        .lines()
        .find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let hex = |text: &str| u64::from_str_radix(text, 16).ok();
            (fields.last() == Some(&"serve_requests")).then(|| Some((hex(fields[0])?, hex(fields[1])?)))?
        })
        .expect("nm knows serve_requests");
    let mut seen = 0;
    for line in raw.lines().filter(|line| line.contains(" serve_requests ")) {
        let Some(address) = line.split_once(": 0x").and_then(|(_, rest)| rest.split_whitespace().next())
        else {
            continue;
        };
        let address = u64::from_str_radix(address, 16).expect("hex");
        assert!((begin..begin + size).contains(&address), "{address:#x} is outside {begin:#x}+{size:#x}");
        seen += 1;
    }
    assert!(seen > 0, "no location in serve_requests");
}

#[test]
fn folded_svg_speedscope_and_pprof_agree_on_totals() {
    needs!("go");
    let recording = recorded();
    let written = recording.stats().samples.written;
    let folded = recording.folded();
    assert_eq!(folded.total(), written, "folded");
    let profile = Profile::read(&recording.output);
    assert_eq!(profile.total("samples/count"), i64::try_from(written).expect("it fits"), "pprof");

    let svg = std::fs::read_to_string(recording.converted("one.svg")).expect("an SVG");
    let total = svg_total(&svg);
    assert_eq!(total, written, "SVG");
    let share = svg_share(&svg, "burn_sixty").expect("burn_sixty has a box");
    // A box for each thread and path: the largest is what is looked at, and it is no more than all.
    assert!(share <= percent(folded.inclusive("burn_sixty"), written) + 0.1, "{share} %");

    let text = std::fs::read_to_string(recording.converted("one.json")).expect("speedscope JSON");
    let speedscope: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    // A profile for each type of value, samples and time: each alone is the whole recording.
    let totals: Vec<f64> = speedscope["profiles"]
        .as_array()
        .expect("profiles")
        .iter()
        .map(|profile| {
            let unit = profile["unit"].as_str().unwrap_or_default();
            let sum: f64 = profile["weights"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(serde_json::Value::as_f64)
                .sum();
            // Weights may be samples or time; a time is as many samples as periods.
            match unit {
                "nanoseconds" => sum / (1e9 / 997.0),
                "seconds" => sum * 997.0,
                _ => sum,
            }
        })
        .collect();
    assert!(
        !totals.is_empty()
            && totals.iter().all(|total| (total - written as f64).abs() <= 1.0 + written as f64 * 1e-5),
        "speedscope has {totals:?}, {written} were written"
    );
}

/// The number of samples of the box that holds all others.
fn svg_total(svg: &str) -> u64 {
    svg.split("<title>")
        .filter_map(|rest| rest.split_once("</title>"))
        .filter_map(|(title, _)| title.rsplit_once(" ("))
        .filter_map(|(_, figures)| {
            let digits: String =
                figures.split(" samples").next()?.chars().filter(char::is_ascii_digit).collect();
            digits.parse::<u64>().ok()
        })
        .max()
        .expect("boxes with samples")
}

/// The largest percentage of the boxes of a function.
fn svg_share(svg: &str, function: &str) -> Option<f64> {
    svg.split("<title>")
        .filter_map(|rest| rest.split_once("</title>"))
        .filter(|(title, _)| title.starts_with(function))
        .filter_map(|(title, _)| title.rsplit_once(", ")?.1.strip_suffix("%)")?.parse::<f64>().ok())
        .max_by(f64::total_cmp)
}

#[test]
fn each_ending_writes_its_format_directly() {
    needs!();
    let _quiet = quiet_cores();
    let program = Program::start_ready(&mut fixture_command(&["shares", "60"]));
    let pid = program.pid.to_string();
    type Check = fn(&[u8], u64);
    let checks: [(&str, Check); 5] = [
        ("one.folded", |bytes, written| {
            let folded = Folded::parse(std::str::from_utf8(bytes).expect("text"));
            assert_eq!(folded.total(), written);
        }),
        ("one.svg", |bytes, written| {
            let svg = std::str::from_utf8(bytes).expect("text");
            assert!(svg.contains("<svg"), "{}", &svg[..200.min(svg.len())]);
            assert_eq!(svg_total(svg), written);
        }),
        ("one.json", |bytes, _| {
            let value: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
            assert!(value["$schema"].as_str().is_some_and(|schema| schema.contains("speedscope")), "{value}");
        }),
        ("one.pb.gz", |bytes, _| assert_eq!(bytes[..2], [0x1f, 0x8b], "gzip")),
        ("one.otlp", |bytes, _| assert!(!bytes.is_empty())),
    ];
    for (name, check) in checks {
        let recording =
            recording::record(name, &["--pid", &pid, "--frequency", "499", "--duration", "500ms"]);
        recording.assert_success();
        let written = recording.stats().samples.written;
        assert!(written >= 20, "{written} samples in half a second at 499 Hz");
        check(&std::fs::read(&recording.output).expect("a file"), written);
    }
}
