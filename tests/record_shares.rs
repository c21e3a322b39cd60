//! A user profiles a program whose shares are known: 60, 30 and 10 % in three functions, in every
//! language, each stack whole from its root to the function.

mod support;

use support::folded::{Folded, Stack, percent};
use support::program::{Program, fixture_command};
use support::{quiet_cores, recording, seconds};

/// What a fixture claims about itself.
struct Claim<'a> {
    /// Where its stacks begin.
    root: &'a str,
    /// The functions that are on every stack of a burner, root to leaf, the burner left out.
    path: &'a [&'a str],
    /// The burners and their percentages.
    burners: [(&'a str, f64); 3],
}

const C_BURNERS: [(&str, f64); 3] = [("burn_sixty", 60.0), ("burn_thirty", 30.0), ("burn_ten", 10.0)];
const GO_BURNERS: [(&str, f64); 3] =
    [("main.burnSixty", 60.0), ("main.burnThirty", 30.0), ("main.burnTen", 10.0)];

/// Records a running fixture and compares it with its claim.
fn check(line: &[&str], claim: &Claim) {
    let program = Program::start_ready(&mut fixture_command(line));
    let recording = recording::record_pid(program.pid, seconds(4, 10));
    let folded = recording.folded();
    assert_eq!(folded.total(), recording.stats().samples.written, "the file holds what was written");
    check_claim(&folded, claim, line);
}

fn check_claim(folded: &Folded, claim: &Claim, line: &[&str]) {
    let burner_of =
        |stack: &Stack| claim.burners.iter().find(|(name, _)| stack.has(name)).map(|&(name, _)| name);
    let in_burners = folded.count(|stack| burner_of(stack).is_some());
    let outside = folded.most_frequent(|stack| burner_of(stack).is_none(), 5);
    // The rest is the fixture's own book-keeping, and the runtime's.
    assert!(
        percent(in_burners, folded.total()) >= 90.0,
        "{line:?}: {in_burners} of {} samples in a burner; outside:\n{outside}",
        folded.total()
    );
    // Enough for three points, also on a machine that has more to do (997 a second if it has not).
    let at_least = 250 * seconds(4, 10);
    assert!(in_burners >= at_least, "{line:?}: only {in_burners} samples, at least {at_least} are wanted");

    for (name, expected) in claim.burners {
        let share = percent(folded.inclusive(name), in_burners);
        assert!((share - expected).abs() <= 3.0, "{line:?}: {name} has {share:.1} %, {expected} % is right");
    }

    let is_whole = |stack: &Stack| {
        let Some(burner) = burner_of(stack) else { return false };
        let mut path = claim.path.to_vec();
        path.push(burner);
        stack.has_path(claim.root, &path) && stack.kernel_is_at_the_leaf()
    };
    let whole = folded.count(is_whole);
    let broken = folded.most_frequent(|stack| burner_of(stack).is_some() && !is_whole(stack), 5);
    assert!(
        percent(whole, in_burners) >= 99.5,
        "{line:?}: {whole} of {in_burners} stacks are whole from {} by {:?}; others:\n{broken}",
        claim.root,
        claim.path
    );
}

#[test]
fn c_without_frame_pointers() {
    needs!();
    let _quiet = quiet_cores();
    let path = ["main", "serve_requests", "handle_request"];
    check(&["shares", "60"], &Claim { root: "_start", path: &path, burners: C_BURNERS });
}

#[test]
fn c_inlined_function_is_the_leaf_of_its_caller() {
    needs!();
    let _quiet = quiet_cores();
    let program = Program::start_ready(&mut fixture_command(&["shares", "60"]));
    let folded = recording::record_pid(program.pid, 2).folded();
    let mixes = folded.count(|stack| {
        let leaf = stack.frames.last();
        leaf.is_some_and(|frame| frame.is("mix") && frame.kind == support::folded::Kind::Inlined)
    });
    // perf with debug information finds 96 %; the rest is in the clock.
    assert!(
        percent(mixes, folded.total()) >= 85.0,
        "{mixes} of {}: {}",
        folded.total(),
        folded.most_frequent(|_| true, 5)
    );
}

#[test]
fn c_threads_with_names() {
    needs!();
    let _quiet = quiet_cores();
    let program = Program::start_ready(&mut fixture_command(&["shares", "60", "2"]));
    let recording = recording::record_pid(program.pid, seconds(4, 10));
    let path = ["start_thread", "worker", "serve_requests", "handle_request"];
    let folded = recording.folded();
    // Which of glibc's two clone functions starts a thread depends on the kernel and the version.
    let is_clone = |stack: &Stack| stack.called().next().is_some_and(|frame| frame.name.contains("clone"));
    let from_clone = folded.count(is_clone);
    assert!(
        percent(from_clone, folded.total()) >= 99.5,
        "{from_clone} of {} stacks begin in clone; others:\n{}",
        folded.total(),
        folded.most_frequent(|stack| !is_clone(stack), 5)
    );
    let root = folded.stacks.iter().find(|stack| is_clone(stack)).and_then(|stack| stack.called().next());
    let root = support::folded::plain_name(&root.expect("there is one").name).to_owned();
    check_claim(&folded, &Claim { root: &root, path: &path, burners: C_BURNERS }, &["shares", "60", "2"]);
}

#[test]
fn cpp_with_virtual_calls_and_templates() {
    needs!();
    let _quiet = quiet_cores();
    let program = Program::start_ready(&mut fixture_command(&["shares_cpp", "60"]));
    let folded = recording::record_pid(program.pid, seconds(4, 10)).folded();
    let burners =
        [("fixture::burn_sixty", 60.0), ("fixture::burn_thirty", 30.0), ("fixture::burn_ten", 10.0)];
    let claim = Claim { root: "_start", path: &["main", "fixture::Server::serve"], burners };
    // The handler is another one for each burner, so the whole path is looked at here.
    for (handler, burner) in
        [(60, "fixture::burn_sixty"), (30, "fixture::burn_thirty"), (10, "fixture::burn_ten")]
    {
        let handler = format!("fixture::Handler<{handler}>::handle");
        let path = ["main", "fixture::Server::serve", &handler, burner];
        let (whole, all) =
            (folded.count(|stack| stack.has_path(claim.root, &path)), folded.inclusive(burner));
        assert!(
            percent(whole, all) >= 99.5,
            "{burner}: {whole} of {all} stacks are whole; others:\n{}",
            folded.most_frequent(|stack| stack.has(burner) && !stack.has_path(claim.root, &path), 5)
        );
    }
    let in_burners = folded.count(|stack| claim.burners.iter().any(|(name, _)| stack.has(name)));
    for (name, expected) in claim.burners {
        let share = percent(folded.inclusive(name), in_burners);
        assert!((share - expected).abs() <= 3.0, "{name} has {share:.1} %, {expected} % is right");
    }
}

#[test]
fn rust_linked_by_the_default_linker() {
    needs!();
    let _quiet = quiet_cores();
    let path = ["serve_requests", "handle_request"];
    check(&["shares_rust", "60"], &Claim { root: "_start", path: &path, burners: C_BURNERS });
}

const GO_PATH: [&str; 3] = ["main.worker", "main.serveRequests", "main.handleRequest"];

#[test]
fn go() {
    needs!();
    let _quiet = quiet_cores();
    check(&["shares_go", "60"], &Claim { root: "runtime.goexit", path: &GO_PATH, burners: GO_BURNERS });
}

#[test]
fn go_position_independent() {
    needs!();
    let _quiet = quiet_cores();
    check(&["shares_go_pie", "60"], &Claim { root: "runtime.goexit", path: &GO_PATH, burners: GO_BURNERS });
}

#[test]
fn go_stripped() {
    needs!();
    let _quiet = quiet_cores();
    check(
        &["shares_go_stripped", "60"],
        &Claim { root: "runtime.goexit", path: &GO_PATH, burners: GO_BURNERS },
    );
}

#[test]
fn go_calling_c() {
    needs!();
    let _quiet = quiet_cores();
    let program = Program::start_ready(&mut fixture_command(&["shares_cgo", "60"]));
    let folded = recording::record_pid(program.pid, seconds(4, 10)).folded();
    let burners = [("burn_sixty_in_c", 60.0), ("burn_thirty_in_c", 30.0), ("burn_ten_in_c", 10.0)];
    let is_burner = |stack: &Stack| burners.iter().any(|(name, _)| stack.has(name));
    let in_burners = folded.count(is_burner);
    assert!(in_burners >= 250 * seconds(4, 10), "{in_burners} of {} in C", folded.total());
    for (name, expected) in burners {
        let share = percent(folded.inclusive(name), in_burners);
        assert!((share - expected).abs() <= 3.0, "{name} has {share:.1} %, {expected} % is right");
    }
    // cgo's own glue lies between: its names are the toolchain's business, their order is not.
    let is_whole = |stack: &Stack| {
        let called: Vec<_> = stack.called().collect();
        let at = |name: &str| called.iter().position(|frame| frame.is(name));
        let burner = called.iter().position(|frame| burners.iter().any(|(name, _)| frame.is(name)));
        called.first().is_some_and(|frame| frame.is("runtime.goexit"))
            && at("main.worker").is_some()
            && at("main.worker") < at("main.serveRequests")
            && at("main.serveRequests") < at("runtime.cgocall")
            && at("runtime.cgocall") < burner
    };
    let whole = folded.count(|stack| is_burner(stack) && is_whole(stack));
    assert!(
        percent(whole, in_burners) >= 99.5,
        "{whole} of {in_burners} stacks lead from runtime.goexit to C; others:\n{}",
        folded.most_frequent(|stack| is_burner(stack) && !is_whole(stack), 5)
    );
}

#[test]
fn jit_code_named_by_a_perf_map() {
    needs!();
    let _quiet = quiet_cores();
    let burners = [("jit_sixty", 60.0), ("jit_thirty", 30.0), ("jit_ten", 10.0)];
    check(&["jit", "60"], &Claim { root: "_start", path: &["main", "run_generated"], burners });
}
