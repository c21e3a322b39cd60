//! A user records a command: `spanflame record -o FILE -- CMD…`.

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::program::{Program, children_of, command_line, fixture, fixture_command};
use support::{quiet_cores, recording};

#[test]
fn its_status_is_passed_on() {
    needs!();
    let _quiet = quiet_cores();
    for (script, expected) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
        let recording = recording::record("one.folded", &["--", "sh", "-c", script]);
        assert_eq!(recording.exit_code(), expected, "{script}: {}", recording.stderr);
        assert!(recording.output.exists(), "{script}: a recording is written whatever the status");
        recording.stats().assert_exact();
    }
}

#[test]
fn its_output_and_arguments_are_its_own() {
    needs!();
    let _quiet = quiet_cores();
    let recording = recording::record("one.folded", &["--", "printf", "%s|", "--pid", "a b", "-o"]);
    recording.assert_success();
    assert_eq!(recording.stdout, "--pid|a b|-o|", "nothing but the command writes to standard output");
}

#[test]
fn it_may_ask_to_die_with_its_parent() {
    needs!("setpriv");
    let _quiet = quiet_cores();
    // prctl(2): the signal comes when the *thread* that made the process ends, so a command started
    // from a passing thread of the recorder would be killed at once.
    let command = ["setpriv", "--pdeathsig", "KILL", &fixture("shares"), "1"];
    let recording = recording::record("one.folded", &[&["--duration", "30s", "--"], &command[..]].concat());
    recording.assert_success();
    assert!(recording.stdout.contains("spent burn_sixty"), "it ended by itself: {}", recording.stdout);
}

#[test]
fn the_recording_ends_with_it() {
    needs!();
    let _quiet = quiet_cores();
    let recording = recording::record(
        "one.folded",
        &["--frequency", "997", "--duration", "60s", "--", &fixture("shares"), "1.5"],
    );
    recording.assert_success();
    assert!(recording.elapsed < Duration::from_secs(15), "took {:?}", recording.elapsed);
    let folded = recording.folded();
    let burnt =
        folded.inclusive("burn_sixty") + folded.inclusive("burn_thirty") + folded.inclusive("burn_ten");
    // The program says itself how much CPU time it used, whatever else the machine did.
    let spent_ns: u64 = recording
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("spent ")?.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum();
    let expected = spent_ns as f64 * 997.0 / 1e9;
    assert!(expected > 50.0, "{}", recording.stdout);
    let right = expected * 0.85 - 50.0..=expected * 1.1;
    assert!(right.contains(&(burnt as f64)), "{burnt} samples, {expected:.0} are right at 997 Hz");
}

#[test]
fn children_are_followed() {
    needs!();
    let _quiet = quiet_cores();
    let _other = Program::start_ready(&mut fixture_command(&["recursion", "60"]));
    let (shares, recursion_free) = (fixture("shares"), "burn_at_the_bottom");
    let script = format!("{shares} 1.5 & ( ( {} 1.5 & wait ) & wait ) & wait", fixture("realigned"));
    let recording = recording::record(
        "one.folded",
        &["--frequency", "997", "--duration", "60s", "--", "sh", "-c", &script],
    );
    recording.assert_success();
    recording.stats().assert_exact();
    let folded = recording.folded();
    assert!(folded.inclusive("handle_request") >= 150, "{}", folded.most_frequent(|_| true, 5));
    assert!(folded.inclusive("with_aligned_local") >= 150, "{}", folded.most_frequent(|_| true, 5));
    assert_eq!(folded.inclusive(recursion_free), 0, "a process that is no child is not recorded");
}

#[test]
fn a_duration_shorter_than_it_ends_the_recording_but_not_the_command() {
    needs!();
    let _quiet = quiet_cores();
    let script = format!("{} 3; exit 3", fixture("shares"));
    let recording = recording::record(
        "one.folded",
        &["--frequency", "997", "--duration", "1s", "--", "sh", "-c", &script],
    );
    assert_eq!(recording.exit_code(), 3, "{}", recording.stderr);
    assert!(recording.elapsed >= Duration::from_secs(3), "it waited: {:?}", recording.elapsed);
    assert!(
        recording.stdout.contains("spent burn_sixty"),
        "the command was not disturbed: {}",
        recording.stdout
    );
    let total = recording.folded().total();
    assert!((100..2000).contains(&total), "{total} samples in one second");
}

#[test]
fn interrupting_a_recording_of_it_writes_what_there_is_and_lets_it_end() {
    needs!();
    let _quiet = quiet_cores();
    let running = recording::start(
        "one.folded",
        &["--frequency", "997", "--duration", "60s", "--", &fixture("shares"), "4"],
    );
    running.await_sampling();
    std::thread::sleep(Duration::from_millis(1500));
    running.signal(libc::SIGINT);
    let recording = running.finish();
    recording.assert_success();
    assert!(
        recording.stdout.contains("spent burn_sixty"),
        "the command ended by itself: {}",
        recording.stdout
    );
    let total = recording.folded().total();
    assert!((50..3800).contains(&total), "{total} samples");
    recording.stats().assert_exact();
}

#[test]
fn interrupting_a_recording_of_a_process_writes_what_there_is() {
    needs!();
    let _quiet = quiet_cores();
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut program = Program::start_ready(&mut fixture_command(&["shares", "60"]));
        let pid = program.pid.to_string();
        let running =
            recording::start("one.folded", &["--pid", &pid, "--frequency", "997", "--duration", "60s"]);
        running.await_sampling();
        std::thread::sleep(Duration::from_millis(1500));
        running.signal(signal);
        let recording = running.finish();
        assert!(recording.elapsed < Duration::from_secs(20), "took {:?}", recording.elapsed);
        if signal == libc::SIGINT {
            recording.assert_success();
        }
        let total = recording.folded().total();
        assert!(total >= 50, "{total} samples: {}", recording.stderr);
        recording.stats().assert_exact();
        assert!(program.is_running(), "the process is not touched");
    }
}

#[test]
fn a_process_that_ends_during_the_recording() {
    needs!();
    let _quiet = quiet_cores();
    let program = Program::start_ready(&mut fixture_command(&["shares", "3"]));
    let pid = program.pid.to_string();
    let recording =
        recording::record("one.folded", &["--pid", &pid, "--frequency", "997", "--duration", "6s"]);
    recording.assert_success();
    recording.stats().assert_exact();
    // Its files are gone from /proc when names are looked up; they must be known by then.
    let folded = recording.folded();
    let named = folded.count(|stack| stack.has_path("_start", &["main", "serve_requests"]));
    assert!(named >= 200 && named * 1000 >= folded.total() * 990, "{named} of {} are named", folded.total());
}

#[test]
fn statistics_are_the_last_line_of_standard_error() {
    needs!();
    let _quiet = quiet_cores();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output = support::spanflame()
        .args(["record", "--stats", "json", "-o"])
        .arg(directory.path().join("one.folded"))
        .args(["--", &fixture("burst"), "300000"])
        .output()
        .expect("spanflame starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let last = stderr.lines().last().expect("a line");
    let stats: recording::Stats =
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}"));
    stats.assert_exact();
    assert!(stats.samples.written >= 10, "0.3 s at the default 99 Hz: {stats:#?}");
    assert!(stats.start_to_first_sample_ms.is_some(), "{stats:#?}");
    assert!(stats.start_to_first_complete_ms >= stats.start_to_first_sample_ms, "{stats:#?}");
}

#[test]
fn its_last_words_stand_before_the_statistics() {
    needs!();
    let _quiet = quiet_cores();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output = support::spanflame()
        .args(["record", "--stats", "json", "--duration", "300ms", "-o"])
        .arg(directory.path().join("one.folded"))
        .args(["--", "sh", "-c", "sleep 1.5; echo last words >&2; exit 9"])
        .output()
        .expect("spanflame starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(9), "{stderr}");
    assert!(stderr.contains("last words"), "{stderr}");
    let last = stderr.lines().last().expect("a line");
    let stats: recording::Stats =
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    stats.assert_exact();
}

#[test]
fn it_is_waited_for_also_when_its_recording_cannot_be_written() {
    needs!();
    let _quiet = quiet_cores();
    let outer = tempfile::tempdir().expect("a temporary directory");
    let (inner, marker) = (outer.path().join("inner"), outer.path().join("marker"));
    std::fs::create_dir(&inner).expect("it is ours");
    let script = format!("rmdir {}; sleep 1.5; touch {}", inner.display(), marker.display());
    let profile_fails = ["record", "--duration", "300ms", "-o", &format!("{}/one.folded", inner.display())]
        .map(str::to_owned);
    let good = outer.path().join("one.folded");
    let statistics_fail =
        ["record", "--duration", "300ms", "--stats", "json=/dev/full", "-o", &good.to_string_lossy()]
            .map(str::to_owned);
    for (arguments, word) in [(&profile_fails[..], "one.folded"), (&statistics_fail[..], "/dev/full")] {
        let output = support::spanflame()
            .args(arguments)
            .args(["--", "sh", "-c", &script])
            .output()
            .expect("spanflame starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{arguments:?}: {stderr}");
        assert!(stderr.contains(word), "{arguments:?}: {stderr}");
        assert!(marker.exists(), "{arguments:?}: the command had not ended");
        std::fs::remove_file(&marker).expect("it is ours");
    }
    assert!(good.exists(), "the profile itself was written");
}

#[test]
fn waiting_for_it_outlasts_ctrl_c_and_ends_with_sigterm() {
    needs!();
    let _quiet = quiet_cores();
    let running = recording::start("one.folded", &["--duration", "300ms", "--", "sleep", "20"]);
    support::await_event("the profile is written", Duration::from_secs(20), || {
        running.output_exists().then_some(())
    });
    let [command] = children_of(running.pid())[..] else { panic!("it has one child") };
    running.signal(libc::SIGINT);
    std::thread::sleep(Duration::from_millis(700));
    assert!(Path::new(&format!("/proc/{}", running.pid())).exists(), "Ctrl-C is for the command");
    running.signal(libc::SIGTERM);
    support::await_event("it ends", Duration::from_secs(5), || running.has_ended().then_some(()));
    assert_eq!(command_line(command), "sleep 20", "the command goes on");
    // It holds the recorder's standard output open.
    support::send_signal(command, libc::SIGKILL);
    let recording = running.finish();
    assert_eq!(recording.exit_code(), 143, "{}", recording.stderr);
    recording.stats().assert_exact();
}

#[test]
fn it_keeps_its_own_limit_of_descriptors() {
    needs!("prlimit");
    let _quiet = quiet_cores();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output = Command::new("prlimit")
        .args(["--nofile=777:4000", "--"])
        .arg(support::binary())
        .args(["record", "-o"])
        .arg(directory.path().join("one.folded"))
        .args(["--", "sh", "-c", "ulimit -Sn; grep 'open files' /proc/$PPID/limits"])
        .output()
        .expect("prlimit is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8_lossy(&output.stdout);
    let mut lines = stdout.lines();
    assert_eq!(lines.next(), Some("777"), "{stdout}");
    let of_recorder: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(of_recorder.get(3..5), Some(&["4000", "4000"][..]), "the recorder took all it may: {stdout}");
}

#[test]
fn its_executable_is_the_first_mapping_even_without_samples() {
    needs!("go");
    let _quiet = quiet_cores();
    // Whatever samples there are lie in the kernel and the loader.
    let recording = recording::record("one.pb.gz", &["--", "sleep", "0.3"]);
    recording.assert_success();
    let mappings = support::pprof_text::Profile::read(&recording.output).mappings;
    let first = mappings.get(&1).unwrap_or_else(|| panic!("no mapping: {mappings:?}"));
    assert!(first.contains("/sleep") || first.contains("/coreutils"), "{mappings:?}");
}

#[test]
fn interrupted_before_it_is_started_it_does_not_run() {
    needs!();
    let _quiet = quiet_cores();
    let running = recording::start("one.folded", &["--", "sh", "-c", "echo it ran"]);
    running.await_handler_of(libc::SIGINT);
    running.signal(libc::SIGINT);
    let recording = running.finish();
    assert!(recording.elapsed < Duration::from_secs(10), "took {:?}", recording.elapsed);
    // Loading the programs takes longer than the signal, as a rule; if not, it ran and was recorded.
    let expected = if recording.stdout.contains("it ran") { 0 } else { 130 };
    assert_eq!(recording.exit_code(), expected, "{}", recording.stderr);
    assert_eq!(recording.output.exists(), expected == 0, "{}", recording.stderr);
}
