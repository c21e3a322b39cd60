//! A user profiles programs whose files are not what their paths say: in a container, deleted, in
//! memory. What is symbolized is what is mapped.

mod support;

use support::folded::{Folded, Stack, percent};
use support::program::{Program, fixture, fixture_command};
use support::{quiet_cores, recording, seconds};

/// 60/30/10 shares and whole paths of the C fixture, however it was started.
fn check_shares(folded: &Folded) {
    let burners = [("burn_sixty", 60.0), ("burn_thirty", 30.0), ("burn_ten", 10.0)];
    assert!(folded.total() >= 300, "{} samples", folded.total());
    for (name, expected) in burners {
        let share = percent(folded.inclusive(name), folded.total());
        assert!(
            (share - expected).abs() <= 3.0,
            "{name} has {share:.1} %, {expected} % is right:\n{}",
            folded.most_frequent(|_| true, 5)
        );
    }
    let path = ["main", "serve_requests"];
    let whole = folded.count(|stack| stack.has_path("_start", &path));
    assert!(percent(whole, folded.total()) >= 99.5, "{whole} of {} are whole", folded.total());
}

#[test]
fn in_its_own_root_with_other_libraries_of_the_same_path() {
    needs!();
    let _quiet = quiet_cores();
    let program = Program::start_ready(&mut fixture_command(&["contained", "60"]));
    assert_ne!(program.pid, program.own_pid(), "the pid inside is another's child");
    // A recorder that opens the FIFO in place of the perf map hangs here; finish() ends the wait.
    let recording = recording::record_pid(program.pid, seconds(3, 10));
    let folded = recording.folded();
    assert!(folded.total() >= 300, "{} samples", folded.total());
    let foreign = |stack: &Stack| {
        stack.frames.iter().any(|frame| ["decoy", "wrong_"].iter().any(|name| frame.name.contains(name)))
    };
    assert_eq!(folded.count(foreign), 0, "names of files outside:\n{}", folded.most_frequent(foreign, 5));
    for (burner, expected) in [("inside_burn_sixty", 60.0), ("inside_burn_forty", 40.0)] {
        let share = percent(folded.inclusive(burner), folded.total());
        assert!(
            (share - expected).abs() <= 3.0,
            "{burner} has {share:.1} %:\n{}",
            folded.most_frequent(|_| true, 5)
        );
        let path = ["main", "dispatch_inside", "work", burner];
        let (whole, all) = (folded.count(|stack| stack.has_path("_start", &path)), folded.inclusive(burner));
        assert!(percent(whole, all) >= 99.5, "{whole} of {all} are whole");
    }
    assert!(recording.elapsed.as_secs() < seconds(3, 10) + 15, "took {:?}", recording.elapsed);
}

#[test]
fn from_an_executable_that_was_deleted() {
    needs!();
    let _quiet = quiet_cores();
    let shares = fixture("shares");
    let program = Program::start_ready(&mut fixture_command(&["launch", "deleted", &shares, "60"]));
    support::await_event("the executable is deleted", std::time::Duration::from_secs(5), || {
        let path = std::fs::read_link(format!("/proc/{}/exe", program.pid)).ok()?;
        path.to_string_lossy().ends_with(" (deleted)").then_some(())
    });
    check_shares(&recording::record_pid(program.pid, seconds(2, 10)).folded());
}

#[test]
fn from_a_memfd() {
    needs!();
    let _quiet = quiet_cores();
    let shares = fixture("shares");
    let program = Program::start_ready(&mut fixture_command(&["launch", "memfd", &shares, "60"]));
    check_shares(&recording::record_pid(program.pid, seconds(2, 10)).folded());
}
