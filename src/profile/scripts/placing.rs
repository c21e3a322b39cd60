//! Where the frames of an interpreter belong in the machine's stack.
//!
//! The interpreter's list has no addresses. What is known of both: each call of the evaluation function works through a
//! run of script frames, of which the outermost is marked as an entry. The outermost call gets the outermost run, and
//! so on, in place of its machine frame. The innermost calls may have none: they have just begun, or are about to
//! return, or are of a part that the compiler split off.
//!
//! Two things upset that. The machine's stack may end before its calls do, since it is too deep or could not be followed
//! further: then the n-th call from the leaf gets the n-th run, and the script frames that are left, which are outside of
//! what there is of the stack, come next. And greenlets (gevent, eventlet) are stacks of their own to the interpreter,
//! whose machine stacks begin on top of whatever had called `switch` when they were started. What is outside of
//! there belongs to others, or is what others have left there: a list of frames ends where the greenlet does, so the
//! stack ends with the first frames of greenlet's own code by which there are calls enough for it.

use crate::model::{ObjectId, Outcome, RawFrame, RawSample, ScriptEnd};

/// Returns how many script frames found no place: those of stacks that do not fit. O(frames).
pub(super) fn put_aside_frames(
    sample: &mut RawSample,
    is_evaluation: impl Fn(ObjectId, u64) -> bool,
    is_greenlets: impl Fn(ObjectId) -> bool,
) -> usize {
    let is_call = |frame: &RawFrame| matches!(frame, RawFrame::Object { object, address } if is_evaluation(*object, *address));
    let mut without_run = 0;
    if sample.script_outcome.end == ScriptEnd::Complete {
        let runs = sample.aside.iter().filter(|script| script.is_entry).count();
        let is_switch =
            |frame: &RawFrame| matches!(frame, RawFrame::Object { object, .. } if is_greenlets(*object));
        if let Some(length) = end_of_greenlet(&sample.user, runs, is_call, is_switch) {
            sample.user.truncate(length);
            sample.outcome = Outcome::Complete;
        }
        let calls = sample.user.iter().filter(|frame| is_call(frame)).count();
        without_run = calls.saturating_sub(runs);
    }
    let mut aside = std::mem::take(&mut sample.aside).into_iter().peekable();
    let mut user = Vec::with_capacity(sample.user.len() + aside.len());
    for frame in sample.user.drain(..) {
        if !is_call(&frame) || aside.peek().is_none() {
            user.push(frame);
            continue;
        }
        if without_run > 0 {
            without_run -= 1;
            user.push(frame);
            continue;
        }
        for script in aside.by_ref() {
            user.push(RawFrame::Script(script));
            if script.is_entry {
                break;
            }
        }
    }
    if sample.script_outcome.end == ScriptEnd::Complete && sample.outcome != Outcome::Complete {
        user.extend(aside.by_ref().map(RawFrame::Script));
    }
    sample.user = user;
    aside.count()
}

/// How many frames from the leaf on are the running greenlet's, if another's follow.
fn end_of_greenlet(
    user: &[RawFrame],
    runs: usize,
    is_call: impl Fn(&RawFrame) -> bool,
    is_switch: impl Fn(&RawFrame) -> bool,
) -> Option<usize> {
    let mut calls = 0;
    let mut frames = user.iter().enumerate().peekable();
    while let Some((place, frame)) = frames.next() {
        calls += usize::from(is_call(frame));
        let is_last_of_switch = is_switch(frame) && frames.peek().is_some_and(|(_, next)| !is_switch(next));
        if is_last_of_switch && runs > 0 && calls >= runs {
            return Some(place + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use spanflame_symbols::script::{Runtime, ScriptFrame};

    use super::*;
    use crate::model::{ImageId, ScriptOutcome};

    fn script(object: u64, is_entry: bool) -> ScriptFrame {
        ScriptFrame {
            runtime: Runtime::Python,
            kind: 0,
            is_entry,
            is_leaf: false,
            address: 0,
            object,
            other: 0,
            position: 0,
            identity: 0,
        }
    }

    fn native(address: u64) -> RawFrame {
        RawFrame::Object { object: ObjectId(1), address }
    }

    fn sample(user: &[RawFrame], aside: &[ScriptFrame]) -> RawSample {
        RawSample {
            time_ns: 0,
            weight_ns: 1,
            pid: 1,
            tid: 1,
            request: None,
            said: None,
            labels: Vec::new(),
            image: ImageId(1),
            comm: String::new(),
            thread_name: String::new(),
            kernel: Vec::new(),
            kernel_truncated: false,
            user: user.to_vec(),
            aside: aside.to_vec(),
            script_outcome: ScriptOutcome::NONE,
            outcome: Outcome::Complete,
            stopped_at: 0,
        }
    }

    /// Addresses from 100 on are of the evaluation function.
    fn place(user: &[RawFrame], aside: &[ScriptFrame]) -> (Vec<RawFrame>, usize) {
        let mut sample = sample(user, aside);
        let unplaced = put_aside_frames(&mut sample, |_, address| address >= 100, |_| false);
        (sample.user, unplaced)
    }

    #[test]
    fn each_call_of_the_evaluation_function_gets_the_frames_up_to_its_entry() {
        let aside = [script(1, false), script(2, true), script(3, true)];
        let (user, unplaced) = place(&[native(7), native(100), native(8), native(101), native(9)], &aside);
        let expected = [
            native(7),
            RawFrame::Script(aside[0]),
            RawFrame::Script(aside[1]),
            native(8),
            RawFrame::Script(aside[2]),
            native(9),
        ];
        assert_eq!((user.as_slice(), unplaced), (&expected[..], 0));
    }

    #[test]
    fn an_innermost_call_that_has_no_frame_yet_leaves_the_others_theirs() {
        let aside = [script(1, false), script(2, true)];
        let mut sample = sample(&[native(100), native(7), native(101), native(8)], &aside);
        sample.script_outcome = ScriptOutcome { runtime: Some(Runtime::Python), end: ScriptEnd::Complete };
        assert_eq!(put_aside_frames(&mut sample, |_, address| address >= 100, |_| false), 0);
        let expected =
            [native(100), native(7), RawFrame::Script(aside[0]), RawFrame::Script(aside[1]), native(8)];
        assert_eq!(sample.user, expected);
    }

    #[test]
    fn calls_without_frames_stay_and_frames_without_a_call_are_counted() {
        let aside = [script(1, true)];
        let (user, unplaced) = place(&[native(100), native(101)], &aside);
        assert_eq!((user.as_slice(), unplaced), (&[RawFrame::Script(aside[0]), native(101)][..], 0));
        let aside = [script(1, true), script(2, false), script(3, true)];
        let (user, unplaced) = place(&[native(100), native(7)], &aside);
        assert_eq!((user.as_slice(), unplaced), (&[RawFrame::Script(aside[0]), native(7)][..], 2));
        assert_eq!(place(&[native(7)], &aside), (vec![native(7)], 3));
    }

    #[test]
    fn a_stack_that_was_cut_has_the_frames_outside_of_the_cut() {
        let aside = [script(1, true), script(2, false), script(3, true)];
        let mut sample = sample(&[native(7), native(100), native(8)], &aside);
        sample.script_outcome = ScriptOutcome { runtime: Some(Runtime::Python), end: ScriptEnd::Complete };
        sample.outcome = Outcome::Truncated;
        assert_eq!(put_aside_frames(&mut sample, |_, address| address >= 100, |_| false), 0);
        let [first, second, third] = aside.map(RawFrame::Script);
        assert_eq!(sample.user, [native(7), first, native(8), second, third]);
    }

    /// Of `_greenlet.….so`.
    fn switch(address: u64) -> RawFrame {
        RawFrame::Object { object: ObjectId(2), address }
    }

    fn place_in_greenlet(user: &[RawFrame], aside: &[ScriptFrame]) -> (Vec<RawFrame>, Outcome) {
        let mut sample = sample(user, aside);
        sample.script_outcome = ScriptOutcome { runtime: Some(Runtime::Python), end: ScriptEnd::Complete };
        sample.outcome = Outcome::StackNotRising;
        put_aside_frames(
            &mut sample,
            |object, address| object == ObjectId(1) && address >= 100,
            |object| object == ObjectId(2),
        );
        (sample.user, sample.outcome)
    }

    #[test]
    fn a_greenlet_ends_where_its_frames_do_whatever_was_below_when_it_was_started() {
        let aside = [script(1, true), script(2, true)];
        let below = [native(103), native(9), native(104)];
        let own = [native(7), native(100), native(8), native(101), switch(1), switch(2)];
        let (user, outcome) = place_in_greenlet(&[&own[..], &below].concat(), &aside);
        let [first, second] = aside.map(RawFrame::Script);
        assert_eq!(user, [native(7), first, native(8), second, switch(1), switch(2)]);
        assert_eq!(outcome, Outcome::Complete);
    }

    #[test]
    fn what_a_greenlet_calls_to_switch_is_not_its_end() {
        let aside = [script(1, true)];
        let [first] = aside.map(RawFrame::Script);
        let (user, _) =
            place_in_greenlet(&[switch(3), native(7), native(100), switch(1), native(101)], &aside);
        assert_eq!(user, [switch(3), native(7), first, switch(1)]);
        // The main one has no end of greenlet's making.
        let (user, outcome) = place_in_greenlet(&[switch(3), native(7), native(100), native(8)], &aside);
        assert_eq!((user, outcome), (vec![switch(3), native(7), first, native(8)], Outcome::StackNotRising));
    }

    #[test]
    fn a_call_that_has_just_begun_in_a_greenlet_has_no_frame_yet() {
        let aside = [script(1, true)];
        let [first] = aside.map(RawFrame::Script);
        let (user, _) =
            place_in_greenlet(&[native(100), native(7), native(101), switch(1), native(102)], &aside);
        assert_eq!(user, [native(100), native(7), first, switch(1)]);
    }
}
