//! What other programs make of the files: `go tool pprof`, and the Python classes of OpenTelemetry's
//! own protocol definitions. A machine without them says that it skips.

#[allow(dead_code, reason = "shared with the tests of formats")]
mod convert_support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use convert_support::one_of_everything;
use spanflame::export;
use spanflame::ingest;
use spanflame::model::{Profile, ValueType};

/// Standard output of `go tool pprof`, which must not say anything on standard error: that is where
/// its complaints go. None if there is no Go here.
fn go_pprof(arguments: &[&str], file: &Path) -> Option<String> {
    let output = Command::new("go").args(["tool", "pprof"]).args(arguments).arg(file).output();
    let Ok(output) = output else {
        eprintln!("skipped: there is no `go` on this machine");
        return None;
    };
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "go tool pprof {arguments:?}: {complaints}");
    assert_eq!(complaints, "", "go tool pprof {arguments:?} complains");
    Some(String::from_utf8(output.stdout).expect("UTF-8"))
}

#[test]
fn go_tool_pprof_reads_totals_inlines_and_labels_without_a_complaint() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("cpu.pb.gz");
    export::write_file(&one_of_everything(), &file).expect("written");

    let Some(top) = go_pprof(&["-top", "-unit=ns", "-nodefraction=0"], &file) else { return };
    assert!(top.contains("File: burn\nBuild ID: 0123456789abcdef0123456789abcdef01234567\n"), "{top}");
    assert!(top.contains("Type: cpu"), "cpu is the default: {top}");
    let total = 117 * 10_101_010_i64;
    assert!(top.contains(&format!("of {total}ns total")), "{top}");
    let flat: BTreeMap<&str, i64> = top
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let flat = fields.next()?.trim_end_matches("ns").parse().ok()?;
            let name = line.rsplit("%  ").next()?;
            Some((name, flat))
        })
        .collect();
    assert_eq!(flat.get("inner (inline)"), Some(&(67 * 10_101_010)), "{top}");
    assert_eq!(flat.get("do_syscall_64"), Some(&(30 * 10_101_010)), "{top}");

    let counted = go_pprof(&["-top", "-sample_index=samples"], &file).expect("go is there");
    assert!(counted.contains("117 total"), "{counted}");
    let traces = go_pprof(&["-traces"], &file).expect("go is there");
    assert!(traces.contains("[libstripped.so.1]"), "no name, yet no attempt to find one: {traces}");
    assert!(traces.contains("trace_id:  0af7651916cd43dd8448eb211c80319c"), "{traces}");
    let pid = traces.lines().find(|line| line.trim_start().starts_with("pid:")).expect("a pid");
    assert_eq!(pid.split_whitespace().collect::<Vec<_>>(), ["pid:", "42"]);
    let peek = go_pprof(&["-peek=^main$"], &file).expect("go is there");
    assert!(peek.contains("|   burn::<[u8; 8]>"), "{peek}");
}

#[test]
fn go_tool_pprof_takes_profiles_without_any_mapping_and_without_any_sample() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("cpu.pb.gz");
    for (text, total) in [
        ("sh;main;work 3\n", "3 total"),
        ("sh;main;work;sys_read_[k] 3\n", "3 total"),
        ("v8;main;loop_[j] 3\nv8;[libx.so+0x10] 1\n", "4 total"),
    ] {
        let read = ingest::read(text.as_bytes(), export::Format::Folded, &ingest::Options::default());
        export::write_file(&read.expect("valid"), &file).expect("written");
        let Some(top) = go_pprof(&["-top"], &file) else { return };
        assert!(top.contains(total), "{text}: {top}");
    }
    let empty = Profile { value_types: vec![ValueType::new("samples", "count")], ..Profile::default() };
    export::write_file(&empty, &file).expect("written");
    go_pprof(&["-raw"], &file);
}

/// Ends the child when the test ends, however it ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn http_get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn the_web_pages_of_go_tool_pprof_show_the_frames() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("cpu.pb.gz");
    export::write_file(&one_of_everything(), &file).expect("written");
    // `go tool` starts pprof as a child of its own, which would outlive it: ask for its path.
    let located = Command::new("go").args(["tool", "-n", "pprof"]).output();
    let Ok(located) = located else {
        eprintln!("skipped: there is no `go` on this machine");
        return;
    };
    let program = String::from_utf8(located.stdout).expect("UTF-8");
    let program = program.trim();
    if !Path::new(program).is_file() {
        eprintln!("skipped: `go tool -n pprof` names no program ({program})");
        return;
    }
    // pprof prints the port it was asked for and not the one it got: 0 would tell nothing. Another
    // process may take this one in between, which is a failure that says so.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = free.expect("a free port").to_string();
    let child = Command::new(program)
        .arg("-no_browser")
        .arg(format!("-http={address}"))
        .arg(&file)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("pprof starts");
    let mut child = Ended(child);
    let mut lines = BufReader::new(child.0.stderr.take().expect("piped")).lines();
    let greeting = lines.next().expect("a line").expect("readable");
    assert!(greeting.starts_with("Serving web UI on http://"), "a complaint comes first: {greeting}");

    let deadline = Instant::now() + Duration::from_secs(30);
    let page = loop {
        match http_get(&address, "/ui/flamegraph") {
            Ok(page) if page.contains("200 OK") => break page,
            other if Instant::now() > deadline => panic!("no flame graph from {address}: {other:?}"),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    for name in ["do_syscall_64", "LazyCompile", "_start"] {
        assert!(page.contains(name), "{name} is missing from the flame graph");
    }
}

#[test]
fn the_python_classes_of_opentelemetry_read_the_same_totals() {
    let script = r"
import sys
from opentelemetry.proto.profiles.v1development import profiles_pb2
data = profiles_pb2.ProfilesData.FromString(open(sys.argv[1], 'rb').read())
table = data.dictionary
strings = table.string_table
for rows in (table.mapping_table, table.location_table, table.function_table, table.link_table,
             table.attribute_table, table.stack_table):
    assert rows[0].ByteSize() == 0, 'the first row of every table is the empty one'
assert strings[0] == ''
totals = {}
leaves = {}
for resource in data.resource_profiles:
    for scope in resource.scope_profiles:
        for profile in scope.profiles:
            kind = strings[profile.sample_type.type_strindex]
            for sample in profile.samples:
                totals[kind] = totals.get(kind, 0) + sum(sample.values)
                stack = table.stack_table[sample.stack_index].location_indices
                if kind == 'samples' and stack and table.location_table[stack[0]].lines:
                    line = table.location_table[stack[0]].lines[0]
                    name = strings[table.function_table[line.function_index].name_strindex]
                    leaves[name] = leaves.get(name, 0) + sum(sample.values)
print(sorted(totals.items()), leaves['inner'], table.link_table[1].trace_id.hex())
";
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("cpu.otlp");
    export::write_file(&one_of_everything(), &file).expect("written");
    let python = std::env::var("SPANFLAME_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let present = Command::new(&python)
        .args(["-c", "from opentelemetry.proto.profiles.v1development import profiles_pb2"])
        .stderr(Stdio::null())
        .status();
    if !present.is_ok_and(|status| status.success()) {
        eprintln!(
            "skipped: {python} has no opentelemetry-proto 1.45 \
             (`pip install opentelemetry-proto` in a venv, its python in SPANFLAME_TEST_PYTHON)"
        );
        return;
    }
    let output = Command::new(&python).args(["-c", script]).arg(&file).output().expect("python runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let total = 117 * 10_101_010_i64;
    let expected = format!("[('cpu', {total}), ('samples', 117)] 67 0af7651916cd43dd8448eb211c80319c\n");
    assert_eq!(said, expected);
}
