//! A user makes mistakes, lacks permission, or profiles a program whose files are broken on purpose.

mod support;

use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::folded::percent;
use support::program::{Program, fixture, fixture_command};
use support::{quiet_cores, recording, skip, spanflame};

/// Runs `spanflame record` with these arguments and a file to write that must not come to be.
fn refused(arguments: &[&str], expected_code: i32, expected_words: &[&str]) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output_file = directory.path().join("never.folded");
    let output =
        spanflame().arg("record").arg("-o").arg(&output_file).args(arguments).output().expect("it starts");
    assert_refused(&output, expected_code, expected_words, arguments);
    assert_empty(directory.path());
}

fn assert_refused(output: &Output, expected_code: i32, expected_words: &[&str], arguments: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(expected_code), "{arguments:?}: {stderr}");
    for word in expected_words {
        assert!(stderr.contains(word), "{arguments:?}: the message does not say {word:?}: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// Nothing was written, not even half of it under another name.
fn assert_empty(directory: &Path) {
    let left: Vec<PathBuf> =
        std::fs::read_dir(directory).expect("it is ours").flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn a_process_that_does_not_exist() {
    // Pids end below this number.
    let pid = std::fs::read_to_string("/proc/sys/kernel/pid_max").expect("proc is mounted");
    refused(&["--pid", pid.trim(), "--duration", "1s"], 2, &[pid.trim()]);
}

#[test]
fn flags_that_do_not_exist_or_make_no_sense() {
    refused(&["--no-such-flag"], 2, &["--no-such-flag"]);
    refused(&["--pid", "self"], 2, &["self"]);
    refused(&["--pid", "-1"], 2, &[]);
    refused(&["--duration", "soon"], 2, &["soon"]);
    refused(&["--duration", "0s"], 2, &[]);
    refused(&["--frequency", "0"], 2, &[]);
    refused(&["--frequency", "1000000000"], 2, &[]);
    refused(&["--frequency", "99.5x"], 2, &[]);
    refused(&["--kind", "weather"], 2, &["weather"]);
    refused(&["--stats", "xml"], 2, &["xml"]);
}

#[test]
fn no_subcommand_and_unknown_subcommands() {
    for arguments in [&[][..], &["no-such-command"]] {
        let output = spanflame().args(arguments).output().expect("it starts");
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let output = spanflame().args(["record", "--duration", "1s"]).output().expect("it starts");
    assert_eq!(
        output.status.code(),
        Some(2),
        "record without -o: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_file_name_whose_ending_is_no_format() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for name in ["profile", "profile.png", "profile.folded.bak"] {
        let file = directory.path().join(name);
        let output =
            spanflame().args(["record", "--duration", "1s", "-o"]).arg(&file).output().expect("it starts");
        assert_refused(&output, 2, &[], &[name]);
    }
    assert_empty(directory.path());
}

#[test]
fn an_output_that_cannot_be_written() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let missing = directory.path().join("missing/one.folded");
    let a_directory = directory.path().join("directory.folded");
    std::fs::create_dir(&a_directory).expect("it is ours");
    let started = std::time::Instant::now();
    for file in [&missing, &a_directory, &PathBuf::from("/proc/one.folded")] {
        let output =
            spanflame().args(["record", "--duration", "20s", "-o"]).arg(file).output().expect("it starts");
        let name = file.to_str().expect("text");
        assert_refused(&output, 2, &[name], &[name]);
    }
    assert!(started.elapsed().as_secs() < 20, "it is known before anything is recorded");
}

#[test]
fn an_earlier_recording_survives_a_refused_one() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("one.folded");
    std::fs::write(&file, "earlier;work 5\n").expect("it is ours");
    let pid = std::fs::read_to_string("/proc/sys/kernel/pid_max").expect("proc is mounted");
    let output =
        spanflame().args(["record", "--pid", pid.trim(), "-o"]).arg(&file).output().expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "earlier;work 5\n");
}

#[test]
fn a_command_that_does_not_exist() {
    needs!();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("one.folded");
    let output = spanflame()
        .args(["record", "-o"])
        .arg(&file)
        .args(["--", "/no/such/command"])
        .output()
        .expect("it starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("/no/such/command"), "{stderr}");
    assert_empty(directory.path());
}

#[test]
fn not_being_root_names_the_capability() {
    // SAFETY: geteuid has no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return skip("needs root to become somebody else");
    }
    if !support::is_installed("setpriv") {
        return skip("setpriv is not installed");
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).expect("it is ours");
    // The build directory may be closed to others.
    let binary = directory.path().join("spanflame");
    support::copy_program(support::binary(), &binary);
    let output_directory = directory.path().join("output");
    std::fs::create_dir(&output_directory).expect("it is ours");
    std::fs::set_permissions(&output_directory, std::fs::Permissions::from_mode(0o777)).expect("it is ours");
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--no-new-privs", "--"])
        .arg(&binary)
        .args(["record", "--duration", "1s", "-o"])
        .arg(output_directory.join("one.folded"))
        .env("HOME", directory.path())
        .current_dir("/")
        .output()
        .expect("setpriv is installed");
    assert_refused(&output, 4, &["CAP_"], &["as nobody"]);
    assert_empty(&output_directory);
}

/// Files that are no proper ELF, each in its own way.
fn hostile_files(directory: &Path) -> Vec<PathBuf> {
    let library = std::fs::read(fixture("late_library_00.so")).expect("it is built");
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for length in [0usize, 1, 4, 16, 63, 64, 100, 1000, 5000] {
        files.push((format!("truncated_{length}.so"), library[..length.min(library.len())].to_vec()));
    }
    // Fields of the ELF header (gABI, figure 4-3): offset, bytes.
    let changes: [(&str, usize, &[u8]); 9] = [
        ("class", 4, &[9]),
        ("byte_order", 5, &[2]),
        ("machine", 18, &[0xff, 0xff]),
        ("phoff_beyond", 32, &[0xff; 8]),
        ("shoff_beyond", 40, &[0xff; 8]),
        ("phentsize_zero", 54, &[0, 0]),
        ("phnum_max", 56, &[0xff, 0xff]),
        ("shnum_max", 60, &[0xff, 0xff]),
        ("shstrndx_max", 62, &[0xff, 0xff]),
    ];
    for (name, offset, bytes) in changes {
        let mut changed = library.clone();
        changed[offset..offset + bytes.len()].copy_from_slice(bytes);
        files.push((format!("{name}.so"), changed));
    }
    // Every program header's sizes and offsets are enormous, or its alignment nonsense.
    for (name, field) in
        [("p_offset", 8), ("p_vaddr", 16), ("p_filesz", 32), ("p_memsz", 40), ("p_align", 48)]
    {
        let mut changed = library.clone();
        for header in 0..8 {
            let at = 64 + header * 56 + field;
            changed[at..at + 8].copy_from_slice(&0xffff_ffff_ffff_fff0u64.to_le_bytes());
        }
        files.push((format!("{name}.so"), changed));
    }
    // Random bytes behind a good header: a fixed sequence, so that a failure can be repeated.
    let mut noise = library.clone();
    let mut state = 1u32;
    for byte in noise.iter_mut().skip(64 + 56 * 9) {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    files.push(("noise.so".to_owned(), noise));
    let mut paths = Vec::new();
    for (name, bytes) in files {
        let path = directory.join(name);
        std::fs::write(&path, bytes).expect("it is ours");
        paths.push(path);
    }
    // 8 GiB, most of it a hole, with a header that claims tables in the middle.
    let huge = directory.join("huge.so");
    let mut file = std::fs::File::create(&huge).expect("it is ours");
    let mut header = library[..64].to_vec();
    header[40..48].copy_from_slice(&(4u64 << 30).to_le_bytes());
    header[60..62].copy_from_slice(&60000u16.to_le_bytes());
    file.write_all(&header).expect("there is room");
    file.seek(SeekFrom::Start((8 << 30) - 1)).expect("holes are free");
    file.write_all(&[0]).expect("there is room");
    paths.push(huge);
    paths
}

#[test]
fn hostile_files_mapped_as_code_do_not_stop_the_recording() {
    needs!();
    let _quiet = quiet_cores();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let files = hostile_files(directory.path());
    let mut command = fixture_command(&["map_files", "60"]);
    command.args(&files);
    let program = Program::start_ready(&mut command);
    // One that shrinks after it was mapped.
    std::fs::write(&files[8], b"\x7fELF").expect("it is ours");
    let recording = recording::record_pid(program.pid, 2);
    let folded = recording.folded();
    let whole = folded.count(|stack| stack.has_path("_start", &["main", "burn_beside_files"]));
    assert!(whole >= 100, "{whole} of {} samples:\n{}", folded.total(), folded.most_frequent(|_| true, 5));
    assert!(percent(whole, folded.total()) >= 99.0, "{whole} of {}", folded.total());
    assert!(!recording.stderr.contains("panicked"), "{}", recording.stderr);
    let stats = recording.stats();
    assert!(stats.agent_peak_memory_bytes < 500_000_000, "{} bytes", stats.agent_peak_memory_bytes);
}

#[test]
fn code_whose_unwind_information_is_garbage_is_counted_and_named() {
    needs!("objcopy");
    let _quiet = quiet_cores();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let garbage = directory.path().join("garbage");
    for number in 0..4u8 {
        let original = fixture(&format!("late_library_{number:02}.so"));
        let broken = directory.path().join(format!("late_library_{number:02}.so"));
        let section = if number % 2 == 0 { ".eh_frame" } else { ".eh_frame_hdr" };
        let byte = if number < 2 { 0xff } else { 0x7f };
        let size = section_size(&original, section);
        std::fs::write(&garbage, vec![byte; size]).expect("it is ours");
        let update = format!("{section}={}", garbage.display());
        let status =
            Command::new("objcopy").args(["--update-section", &update, &original]).arg(&broken).status();
        assert!(status.expect("objcopy is installed").success());
    }
    let program = fixture("late_libraries");
    let libraries = directory.path().to_str().expect("text");
    // The damaged files keep their build ids, by which the tables of the sound ones may be cached.
    let recording = recording::start_with(
        "one.folded",
        &["--frequency", "997", "--duration", "30s", "--", &program, "30", "100", "4", "300", libraries],
        |command| {
            command.env("SPANFLAME_CACHE_DIR", directory.path().join("cache"));
        },
    )
    .finish();
    recording.assert_success();
    let stats = recording.stats();
    stats.assert_exact();
    assert!(!recording.stderr.contains("panicked"), "{}", recording.stderr);
    // .symtab is intact, so the leaf has its name even where the walk could not leave it.
    let folded = recording.folded();
    let named =
        folded.count(|stack| stack.frames.iter().any(|frame| frame.name.contains("burn_in_late_library_")));
    assert!(
        named >= 1000,
        "{named} samples in libraries that ran 1.2 s:\n{}",
        folded.most_frequent(|_| true, 8)
    );
    let incomplete: u64 = stats.stacks.incomplete.values().sum();
    assert!(incomplete >= 300, "two libraries have no usable .eh_frame: {:?}", stats.stacks);
}

fn section_size(file: &str, section: &str) -> usize {
    let output = Command::new("objdump").args(["-h", file]).output().expect("objdump is installed");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            (fields.get(1) == Some(&section)).then(|| usize::from_str_radix(fields[2], 16).ok())?
        })
        .unwrap_or_else(|| panic!("no {section} in {file}"))
}

#[test]
fn a_thread_in_place_of_a_process_is_refused_by_the_name_of_its_process() {
    let program = Program::start_ready(&mut fixture_command(&["shares", "60", "2"]));
    let thread = support::await_event("it has threads", std::time::Duration::from_secs(5), || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", program.pid)).ok()?;
        let mut threads = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse::<u32>().ok());
        threads.find(|&thread| thread != program.pid)
    });
    let thread = thread.to_string();
    refused(
        &["--pid", &thread, "--duration", "1s"],
        2,
        &[&thread, "shares", &format!("--pid {}", program.pid)],
    );
}

/// A sysctl that is set back when the test is done with it, however it ends.
struct Sysctl {
    path: &'static str,
    before: String,
}

impl Sysctl {
    fn set(path: &'static str, value: &str) -> std::io::Result<Self> {
        let before = std::fs::read_to_string(path)?;
        std::fs::write(path, value)?;
        Ok(Self { path, before })
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        let _ = std::fs::write(self.path, self.before.trim());
    }
}

#[test]
fn a_frequency_above_the_kernels_limit_is_refused_by_the_name_of_the_limit() {
    needs!();
    let _quiet = quiet_cores();
    // Just below what is asked for: recordings beside this test are not in its way.
    let _limit = match Sysctl::set("/proc/sys/kernel/perf_event_max_sample_rate", "9998") {
        Ok(limit) => limit,
        Err(error) => return skip(&format!("kernel.perf_event_max_sample_rate cannot be set: {error}")),
    };
    refused(
        &["--frequency", "9999", "--duration", "1s"],
        2,
        &["kernel.perf_event_max_sample_rate is 9998", "sysctl"],
    );
    refused(&["--frequency", "9999", "--", "touch", "/no/such/folder/x"], 2, &["perf_event_max_sample_rate"]);
    let recording = recording::record("one.folded", &["--frequency", "9998", "--duration", "200ms"]);
    recording.assert_success();
}

#[test]
fn a_pid_namespace_of_its_own_is_refused_with_what_to_do() {
    needs!("unshare");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let inside = |arguments: &[&str]| {
        Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "--"])
            .arg(support::binary())
            .args(arguments)
            .output()
            .expect("unshare is installed")
    };
    let file = directory.path().join("one.folded");
    let file = file.to_str().expect("text");
    for arguments in [
        &["record", "--duration", "1s", "-o", file][..],
        &["record", "-o", file, "--", "touch", &format!("{file}.ran")],
    ] {
        assert_refused(&inside(arguments), 4, &["pid namespace", "--pid=host"], arguments);
    }
    assert_empty(directory.path());
    let doctor = inside(&["doctor", "--json"]);
    assert_eq!(doctor.status.code(), Some(1), "{}", String::from_utf8_lossy(&doctor.stderr));
    let report: serde_json::Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    assert_eq!(report["summary"]["obstacles"], serde_json::json!(["host_pid_namespace"]));
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("--pid=host"));
}

#[test]
fn ctrl_c_while_unwind_tables_are_built_ends_at_once() {
    needs!("node");
    let _quiet = quiet_cores();
    let cache = tempfile::tempdir().expect("a temporary directory");
    // Hundreds of thousands of unwind rows, none of them in the cache.
    let program = Program::start(Command::new("node").args(["-e", "setTimeout(() => {}, 60000)"]));
    std::thread::sleep(std::time::Duration::from_millis(500));
    let pid = program.pid.to_string();
    let running = recording::start_with("one.folded", &["--pid", &pid, "--duration", "60s"], |command| {
        command.env("SPANFLAME_CACHE_DIR", cache.path());
    });
    running.await_handler_of(libc::SIGINT);
    running.signal(libc::SIGINT);
    let recording = running.finish();
    recording.assert_success();
    recording.stats().assert_exact();
    assert!(recording.elapsed.as_secs() < 5, "took {:?}: {}", recording.elapsed, recording.stderr);
    assert!(recording.output.exists(), "what there is was written");
}

/// Runs the recorder as root without the capabilities that open `/proc/PID/map_files`, and those only.
fn without_map_files(arguments: &[&str]) -> Output {
    Command::new("setpriv")
        .args([
            "--bounding-set=-sys_admin,-checkpoint_restore",
            "--inh-caps=-sys_admin,-checkpoint_restore",
            "--",
        ])
        .arg(support::binary())
        .args(arguments)
        .output()
        .expect("setpriv is installed")
}

#[test]
fn a_file_that_took_the_place_of_the_mapped_one_lends_it_no_names() {
    needs!("setpriv", "unshare", "nsenter");
    let _quiet = quiet_cores();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let executable = directory.path().join("program");
    support::copy_program(fixture("shares"), &executable);
    // In a mount namespace of its own, so that what is mounted goes with it.
    let program = Program::start_ready(
        Command::new("unshare").args(["--mount", "--"]).arg(&executable).arg("60").current_dir("/"),
    );
    let pid = program.pid.to_string();
    let output = directory.path().join("one.folded");
    let output = output.to_str().expect("text");
    let arguments = ["record", "--pid", &pid, "--frequency", "997", "--duration", "2s", "-o", output];
    let record = || {
        let recorded = without_map_files(&arguments);
        assert!(recorded.status.success(), "{}", String::from_utf8_lossy(&recorded.stderr));
        support::folded::Folded::parse(&std::fs::read_to_string(output).expect("it was written"))
    };
    let share = |folded: &support::folded::Folded, wanted: fn(&str) -> bool| {
        let having = folded.count(|stack| stack.frames.iter().any(|frame| wanted(&frame.name)));
        assert!(folded.total() >= 20, "{} samples", folded.total());
        percent(having, folded.total())
    };
    // As long as the path leads to what is mapped, it will do.
    let before = record();
    let named = share(&before, |name| name == "serve_requests");
    assert!(named >= 90.0, "{named:.1} %:\n{}", before.most_frequent(|_| true, 5));
    // Another program of the same path is not what is mapped, though the kernel goes on to name it so.
    let status = Command::new("nsenter")
        .args(["--target", &pid, "--mount", "--", "mount", "--bind", &fixture("recursion")])
        .arg(&executable)
        .status()
        .expect("nsenter is installed");
    assert!(status.success(), "the bind mount is refused");
    for deleted in [false, true] {
        if deleted {
            std::fs::remove_file(&executable).expect("it is ours");
        }
        let after = record();
        let frequent = after.most_frequent(|_| true, 5);
        let foreign = share(&after, |name| name.contains("recurse") || name.contains("burn_"));
        assert!(foreign == 0.0, "names of a file that is not mapped:\n{frequent}");
        let by_offset = share(&after, |name| name.starts_with("[program"));
        assert!(by_offset >= 90.0, "{by_offset:.1} % have module and offset:\n{frequent}");
    }
}

#[test]
fn too_few_descriptors_are_said_once_and_the_recording_is_written() {
    needs!("prlimit");
    let _quiet = quiet_cores();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output_file = directory.path().join("one.folded");
    let program = fixture("late_libraries");
    // 21 libraries of the fixture beside its own; a third of what the recorder needs for them all.
    let output = Command::new("prlimit")
        .args(["--nofile=84:84", "--"])
        .arg(support::binary())
        .args(["record", "--frequency", "997", "-o"])
        .arg(&output_file)
        .args(["--", &program, "30", "20", "20", "50"])
        .arg(Path::new(&program).parent().expect("a directory"))
        .output()
        .expect("prlimit is installed");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(output_file.exists(), "{stderr}");
    assert!(stderr.matches("descriptors").count() <= 1, "{stderr}");
}
