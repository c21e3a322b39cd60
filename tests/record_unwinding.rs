//! A user profiles programs whose stacks are hard to walk; none may come out broken.

mod support;

use std::process::Command;

use support::folded::{Folded, Stack, percent};
use support::program::{Program, fixture_command};
use support::{quiet_cores, recording};

/// Records a fixture for two seconds.
fn record(command: &mut Command) -> (Folded, recording::Stats) {
    let program = Program::start_ready(command);
    let recording = recording::record_pid(program.pid, 2);
    (recording.folded(), recording.stats())
}

/// At least 99.5 % of the stacks that `wanted` chooses, of which there are enough, satisfy `whole`.
fn assert_whole(folded: &Folded, wanted: impl Fn(&Stack) -> bool, whole: impl Fn(&Stack) -> bool) {
    let all = folded.count(&wanted);
    assert!(all >= 50, "only {all} of {} samples:\n{}", folded.total(), folded.most_frequent(|_| true, 5));
    let good = folded.count(|stack| wanted(stack) && whole(stack));
    let others = folded.most_frequent(|stack| wanted(stack) && !whole(stack), 5);
    assert!(percent(good, all) >= 99.5, "{good} of {all} stacks are whole; others:\n{others}");
}

/// At least 99.5 % of all user stacks are complete.
fn assert_complete(stats: &recording::Stats) {
    assert_complete_but_for(stats, 0);
}

/// Likewise, but for some that nobody could walk.
fn assert_complete_but_for(stats: &recording::Stats, unwalkable: u64) {
    let user = stats.samples.written - stats.stacks.no_user - unwalkable;
    let complete = percent(stats.stacks.complete, user);
    assert!(complete >= 99.5, "{complete:.2} % of {user} are complete: {:?}", stats.stacks);
}

#[test]
fn recursion_200_deep_shows_every_frame() {
    needs!();
    let _quiet = quiet_cores();
    let (folded, stats) = record(&mut fixture_command(&["recursion", "60"]));
    let depth = |stack: &Stack| stack.called().filter(|frame| frame.is("descend")).count();
    let at_the_bottom = |stack: &Stack| stack.has("burn_at_the_bottom");
    assert_whole(&folded, at_the_bottom, |stack| {
        stack.has_path("_start", &["main", "descend"]) && depth(stack) == 200
    });
    assert_complete(&stats);
}

#[test]
fn recursion_beyond_the_limit_is_reported_as_truncated() {
    needs!();
    let _quiet = quiet_cores();
    let (folded, stats) = record(&mut fixture_command(&["recursion", "60", "400"]));
    let truncated = stats.stacks.incomplete.get("truncated").copied().unwrap_or(0);
    assert!(percent(truncated, folded.total()) >= 99.0, "{:?}", stats.stacks);
    // The leaf side is kept: that is where the time is spent.
    assert_whole(&folded, |_| true, |stack| stack.has("burn_at_the_bottom") || stack.has("descend"));
}

#[test]
fn stack_frames_of_40_kib() {
    needs!();
    let _quiet = quiet_cores();
    let (folded, stats) = record(&mut fixture_command(&["big_frames", "60"]));
    let mut path = vec!["main"];
    path.extend(["nest"; 12]);
    path.push("burn_below_big_frames");
    assert_whole(
        &folded,
        |stack| stack.has("burn_below_big_frames"),
        |stack| stack.has_path("_start", &path),
    );
    assert_complete(&stats);
}

#[test]
fn signal_handlers_on_both_stacks_lead_back_to_the_interrupted_code() {
    needs!();
    let _quiet = quiet_cores();
    let (folded, stats) = record(&mut fixture_command(&["signals", "60"]));
    for (handler, burner) in
        [("on_same_stack", "burn_on_same_stack"), ("on_alternate_stack", "burn_on_alternate_stack")]
    {
        let share = percent(folded.inclusive(burner), folded.total());
        assert!((share - 25.0).abs() <= 3.0, "{burner} has {share:.1} %, 25 % is right");
        let in_order = |stack: &Stack| {
            let called: Vec<_> = stack.called().collect();
            let at = |name: &str| called.iter().position(|frame| frame.is(name));
            called.first().is_some_and(|frame| frame.is("_start"))
                && at("main").is_some()
                && at("main") < at("run")
                && at("run") < at(handler)
                && at(handler) < at(burner)
        };
        assert_whole(&folded, |stack| stack.has(burner), in_order);
    }
    assert_complete(&stats);
}

#[test]
fn realigned_frames_and_alloca() {
    needs!();
    let _quiet = quiet_cores();
    let (folded, stats) = record(&mut fixture_command(&["realigned", "60"]));
    let path = ["main", "with_alloca", "with_aligned_local"];
    assert_whole(&folded, |stack| stack.has("with_aligned_local"), |stack| stack.has_path("_start", &path));
    let share = percent(folded.inclusive("burn_below_realigned"), folded.total());
    assert!((share - 50.0).abs() <= 4.0, "burn_below_realigned has {share:.1} %, 50 % is right");
    assert_complete(&stats);
}

#[test]
fn leaf_in_assembly_without_call_frame_information_has_its_callers() {
    needs!();
    let _quiet = quiet_cores();
    let (folded, stats) = record(&mut fixture_command(&["bare_leaf", "60"]));
    let path = ["main", "call_leaf", "spin_until", "spin_without_cfi"];
    assert_whole(&folded, |stack| stack.has("spin_without_cfi"), |stack| stack.has_path("_start", &path));
    let share = percent(folded.inclusive("spin_without_cfi"), folded.total());
    assert!((share - 50.0).abs() <= 4.0, "spin_without_cfi has {share:.1} %, 50 % is right");
    assert_complete(&stats);
}

#[test]
fn calls_through_the_plt() {
    needs!();
    let _quiet = quiet_cores();
    let (folded, stats) = record(&mut fixture_command(&["plt", "60"]));
    for callee in ["plt_first", "plt_second"] {
        let path = ["main", "call_through_plt", callee];
        assert_whole(&folded, |stack| stack.has(callee), |stack| stack.has_path("_start", &path));
    }
    assert_complete(&stats);
}

#[test]
fn lazy_binding_through_the_resolver() {
    needs!();
    let _quiet = quiet_cores();
    let mut command = fixture_command(&["plt", "60"]);
    // Never remembers an address it has resolved: most samples are in ld.so.
    command.env("LD_BIND_NOT", "1");
    let (folded, stats) = record(&mut command);
    assert_whole(&folded, |_| true, |stack| stack.has_path("_start", &["main"]));
    let in_callees = folded.count(|stack| stack.has("plt_first") || stack.has("plt_second"));
    assert!(percent(in_callees, folded.total()) < 50.0, "the resolver is not used: {in_callees}");
    assert_complete(&stats);
}

#[test]
fn exceptions_thrown_through_frames() {
    needs!();
    let _quiet = quiet_cores();
    let (folded, stats) = record(&mut fixture_command(&["exceptions", "60"]));
    assert_whole(
        &folded,
        |stack| stack.has("throw_it"),
        |stack| stack.has_path("_start", &["main", "catch_it", "pass_through"]),
    );
    assert_whole(
        &folded,
        |stack| stack.has("burn_in_cleanup"),
        |stack| stack.has_path("_start", &["main", "catch_it", "pass_through"]),
    );
    // Shortly before a handler goes on, libgcc has written its registers where the unwinder's own frame had saved those of
    // its caller (`uw_install_context`, unwind.inc). No table says so: whoever walks the stack then goes astray, as gdb
    // does there and nowhere else, instruction by instruction (149 of 49,565 in nine of these, 0.3 %).
    let is_handed_over = |stack: &Stack| {
        !stack.has("_start") && (stack.has("_Unwind_Resume") || stack.has("_Unwind_RaiseException"))
    };
    let handed_over = folded.count(is_handed_over);
    assert!(percent(handed_over, folded.total()) <= 1.0, "{handed_over} of {}", folded.total());
    assert_complete_but_for(&stats, handed_over);
}

#[test]
fn children_of_vfork_run_on_their_parents_stack() {
    needs!();
    let _quiet = quiet_cores();
    // Each child is a process of its own, so the whole family is recorded.
    let command = support::program::fixture("vfork_loop");
    let recording = recording::record(
        "recording.folded",
        &["--frequency", "997", "--duration", "10s", "--", &command, "3"],
    );
    recording.assert_success();
    recording.stats().assert_exact();
    let folded = recording.folded();
    let parent = folded.inclusive("burn_in_parent");
    assert!(parent >= 200, "{parent} samples in the parent of {}", folded.total());
    // The children live for two milliseconds each: that they are seen at all is the point.
    let child = folded.inclusive("burn_in_vfork_child");
    assert!(
        percent(child, parent) >= 85.0,
        "{child} samples in children, {parent} in their parent, as many are right"
    );
    // A child lives for two milliseconds: those whose pid was news when the sample was taken may be
    // incomplete, as in any storm of processes, but few.
    let path = ["main", "spawn_once", "burn_in_vfork_child"];
    let whole = folded.count(|stack| stack.has_path("_start", &path));
    let others =
        folded.most_frequent(|stack| stack.has("burn_in_vfork_child") && !stack.has_path("_start", &path), 5);
    assert!(percent(whole, child) >= 95.0, "{whole} of {child} stacks are whole; others:\n{others}");
}
