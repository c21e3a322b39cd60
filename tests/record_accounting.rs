//! A user trusts the counts: every sample that was taken is in the file or counted as lost with a
//! reason, and the files say the same as `--stats`.

mod support;

use std::time::Duration;

use support::pprof_text::Profile;
use support::program::{Program, fixture, fixture_command};
use support::{quiet_cores, recording, seconds};

#[test]
fn the_whole_host_adds_up() {
    needs!();
    let _quiet = quiet_cores();
    let program = Program::start_ready(&mut fixture_command(&["shares", "60", "2"]));
    let before = cpu_time(program.pid);
    let recording = recording::record("host.folded", &["--frequency", "997", "--duration", "3s"]);
    let used = cpu_time(program.pid) - before;
    recording.assert_success();
    let stats = recording.stats();
    stats.assert_exact();
    let folded = recording.folded();
    assert_eq!(folded.total(), stats.samples.written);
    let busy = folded.count(|stack| stack.has("serve_requests"));
    // It also ran before the first sample and after the last.
    let least = (used.as_secs_f64() * 997.0 / 3.0) as u64;
    assert!(busy >= least.max(1), "{busy} samples of threads that ran {used:?}, of {}", folded.total());
    drop(program);
}

#[test]
fn idle_ticks_are_not_taken_as_work() {
    needs!();
    let _quiet = quiet_cores();
    let recording = recording::record("host.folded", &["--frequency", "997", "--duration", "2s"]);
    recording.assert_success();
    let stats = recording.stats();
    stats.assert_exact();
    let cores = std::thread::available_parallelism().expect("a number").get() as u64;
    let ticks = stats.samples.idle + stats.samples.taken;
    // At most 997 a second on each core; a hypervisor wakes an idle one as late as it likes.
    assert!(ticks > 0 && ticks <= cores * 2 * 997 * 2, "{ticks} ticks on {cores} cores in 2 s: {stats:#?}");
    assert_eq!(recording.folded().inclusive("cpuidle_enter_state"), 0);
    assert_eq!(recording.folded().inclusive("cpu_idle_poll"), 0);
}

#[test]
fn the_chosen_process_and_no_other_is_in_the_file() {
    needs!();
    let _quiet = quiet_cores();
    let wanted = Program::start_ready(&mut fixture_command(&["recursion", "60"]));
    let _other = Program::start_ready(&mut fixture_command(&["shares", "60"]));
    let before = cpu_time(wanted.pid);
    let folded = recording::record_pid(wanted.pid, 2).folded();
    let used = cpu_time(wanted.pid) - before;
    let least = (used.as_secs_f64() * 997.0 / 3.0) as u64;
    assert!(folded.total() >= least.max(1), "{} samples in {used:?}", folded.total());
    assert_eq!(folded.count(|stack| stack.comm != "recursion"), 0, "{}", folded.most_frequent(|_| true, 5));
}

/// The CPU time that a process has used so far.
fn cpu_time(pid: u32) -> Duration {
    // proc(5): nanoseconds on the CPU, nanoseconds waiting, slices.
    let schedstat = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("it runs");
    let on_cpu_ns = schedstat.split_whitespace().next().and_then(|text| text.parse().ok());
    Duration::from_nanos(on_cpu_ns.expect("a number"))
}

#[test]
fn the_frequency_is_kept() {
    needs!();
    let _quiet = quiet_cores();
    let program = Program::start_ready(&mut fixture_command(&["shares", "60"]));
    let pid = program.pid.to_string();
    for frequency in [19u64, 99, 499] {
        let seconds = if frequency < 50 { 6 } else { 3 };
        let arguments =
            ["--pid", &pid, "--frequency", &frequency.to_string(), "--duration", &format!("{seconds}s")];
        let before = cpu_time(program.pid);
        let recording = recording::record("one.folded", &arguments);
        let used = cpu_time(program.pid).saturating_sub(before);
        recording.assert_success();
        // What the program got of the machine during the recording, start and end of it included.
        let share = used.as_secs_f64() / recording.elapsed.as_secs_f64();
        let expected = (frequency * seconds) as f64 * share;
        let written = recording.stats().samples.written as f64;
        assert!(
            (expected * 0.8..=expected * 1.2).contains(&written),
            "{written} samples at {frequency} Hz in {seconds} s with {:.0} % of a core, {expected:.0} expected",
            share * 100.0
        );
    }
}

#[test]
fn samples_and_nanoseconds_of_pprof_are_those_of_the_stats() {
    needs!("go");
    let _quiet = quiet_cores();
    let program = Program::start_ready(&mut fixture_command(&["shares", "60", "2"]));
    let pid = program.pid.to_string();
    let recording =
        recording::record("one.pb.gz", &["--pid", &pid, "--frequency", "997", "--duration", "2s"]);
    recording.assert_success();
    let stats = recording.stats();
    stats.assert_exact();
    let profile = Profile::read(&recording.output);
    let written = i64::try_from(stats.samples.written).expect("it fits");
    assert_eq!(profile.value_types, ["samples/count", "cpu/nanoseconds"]);
    assert_eq!(profile.default_type.as_deref(), Some("cpu/nanoseconds"));
    assert_eq!(profile.total("samples/count"), written);
    let period = profile.period.expect("a period");
    assert!((period - 1_000_000_000 / 997).abs() <= 1, "period {period}");
    let nanoseconds = profile.total("cpu/nanoseconds");
    // Each sample stands for a period; rounding may differ by a nanosecond a sample.
    assert!(
        (nanoseconds - written * period).abs() <= written,
        "{nanoseconds} ns for {written} samples of {period} ns"
    );
    // How stacks ended, told twice.
    let incomplete: u64 = stats.stacks.incomplete.values().sum();
    let labelled: i64 = profile
        .samples
        .iter()
        .filter(|sample| sample.labels.get("unwind").is_some_and(|outcome| outcome != "no_user"))
        .map(|sample| sample.values[0])
        .sum();
    assert_eq!(labelled, i64::try_from(incomplete).expect("it fits"), "{:?}", stats.stacks);
    for sample in &profile.samples {
        assert_eq!(sample.labels.get("pid").map(String::as_str), Some(pid.as_str()), "{:?}", sample.labels);
        assert_eq!(sample.labels.get("comm").map(String::as_str), Some("shares"));
        let thread_name = sample.labels.get("thread_name").map_or("", String::as_str);
        assert!(thread_name.starts_with("worker-"), "{:?}", sample.labels);
        assert!(sample.labels.contains_key("tid"));
    }
}

#[test]
fn a_ring_buffer_made_too_small_loses_and_says_so() {
    needs!();
    let _quiet = quiet_cores();
    // Stacks of 200 frames, and a recorder that is stopped for a while so that it cannot keep up.
    let program = Program::start_ready(&mut fixture_command(&["recursion", "60"]));
    let pid = program.pid.to_string();
    let running = recording::start_with(
        "small.folded",
        &["--pid", &pid, "--frequency", "997", "--duration", "4s"],
        |command| {
            command.env("SPANFLAME_RING_BYTES", "65536");
        },
    );
    running.await_sampling();
    // The time is what is asked for here, not an event: half a second of samples, then a stop that
    // lasts for ten times what 64 KiB hold.
    std::thread::sleep(Duration::from_millis(1000));
    running.signal(libc::SIGSTOP);
    std::thread::sleep(Duration::from_millis(700));
    running.signal(libc::SIGCONT);
    let recording = running.finish();
    recording.assert_success();
    let stats = recording.stats();
    stats.assert_exact();
    let lost: u64 = stats.samples.lost.values().sum();
    assert!(
        lost >= 100,
        "a recorder stopped for 0.7 s at 997 Hz with room for some 40 samples lost {lost}: {stats:#?}"
    );
    assert!(stats.samples.written >= 100, "what fitted was written: {stats:#?}");
    assert_eq!(recording.folded().total(), stats.samples.written);
}

#[test]
fn two_thousand_processes_starting_and_ending() {
    needs!();
    let _quiet = quiet_cores();
    let processes = if support::long_tests() { "8000" } else { "2000" };
    let storm = fixture("storm");
    let recording = recording::record(
        "storm.folded",
        &["--frequency", "997", "--duration", "100s", "--", &storm, "90", processes, "4", "2000"],
    );
    recording.assert_success();
    assert!(recording.stdout.contains(&format!("started {processes} failed 0")), "{}", recording.stdout);
    let stats = recording.stats();
    stats.assert_exact();
    let folded = recording.folded();
    assert_eq!(folded.total(), stats.samples.written);
    // Each burst uses 2 ms of CPU time, that is two samples, complete or not.
    let bursts = folded.count(|stack| stack.comm == "burst");
    let expected = processes.parse::<u64>().expect("a number") * 2;
    assert!(bursts >= expected * 8 / 10, "{bursts} samples of bursts, some {expected} expected; {stats:#?}");
}

#[test]
fn memory_stays_bounded() {
    needs!();
    let _quiet = quiet_cores();
    let _program = Program::start_ready(&mut fixture_command(&["shares", "60", "2"]));
    let duration = format!("{}s", seconds(2, 20));
    let recording = recording::record("host.folded", &["--frequency", "99", "--duration", &duration]);
    recording.assert_success();
    let stats = recording.stats();
    // DESIGN §10: 150 MB on a host with 200 processes; a debug build of the same is no larger.
    assert!(stats.agent_peak_memory_bytes > 1 << 20, "VmHWM was measured: {stats:#?}");
    assert!(stats.agent_peak_memory_bytes < 150_000_000, "{} bytes", stats.agent_peak_memory_bytes);
    assert!(stats.agent_cpu_ms > 0.0 && stats.bpf_map_bytes > 0, "{stats:#?}");
}
