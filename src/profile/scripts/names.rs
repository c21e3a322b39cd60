//! What script frames are called, by (program, frame): filled by the reader, asked when windows are named.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use spanflame_symbols::script::{Refusal, Runtime, ScriptFrame, ScriptFunction};

use crate::model::{ImageId, ScriptEnd};

/// Frames that are known at a time. Beyond it new ones stay without a name, counted as `too_many`.
const MAX_NAMES: usize = 400_000;
/// Windows after which the name of a frame that was in none of them is forgotten.
const REMEMBERED_WINDOWS: u32 = 6;
/// A frame that was refused is asked about again after this time: its memory may be there by now.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long naming waits in all for names that are still being read.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a frame came to: functions, innermost inlined first; or why it has no name.
pub type ScriptName = Result<Arc<[ScriptFunction]>, &'static str>;

#[derive(Debug, Clone)]
enum State {
    Asked,
    Named(Arc<[ScriptFunction]>),
    Refused(Refusal, Instant),
}

#[derive(Debug)]
struct Entry {
    state: State,
    used_in: u32,
}

/// How often what came of reading runtimes, since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScriptCounts {
    /// Samples by how reading their runtime's frames ended.
    pub samples: BTreeMap<(Runtime, ScriptEnd), u64>,
    /// Distinct frames by how naming them ended: `named`, or a reason.
    pub frames: BTreeMap<(Runtime, &'static str), u64>,
    /// Frames of an interpreter that found no place in the machine stack, which was cut.
    pub unplaced: u64,
}

impl ScriptCounts {
    /// Adds what others have counted.
    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.samples {
            *self.samples.entry(*key).or_default() += count;
        }
        for (key, count) in &other.frames {
            *self.frames.entry(*key).or_default() += count;
        }
        self.unplaced += other.unplaced;
    }
}

#[derive(Debug, Default)]
struct Inside {
    entries: HashMap<(ImageId, ScriptFrame), Entry>,
    counts: ScriptCounts,
    window: u32,
    /// Questions asked and answered so far. They are answered in their order.
    asked: u64,
    answered: u64,
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct ScriptNames {
    inside: Mutex<Inside>,
    answered: Condvar,
}

impl Inside {
    fn is_new(&mut self, image: ImageId, frame: &ScriptFrame) -> bool {
        let Self { entries, counts, window, asked, .. } = self;
        if let Some(known) = entries.get_mut(&(image, *frame)) {
            known.used_in = *window;
            if !matches!(known.state, State::Refused(_, since) if since.elapsed() > ASK_AGAIN) {
                return false;
            }
            known.state = State::Asked;
        } else if entries.len() >= MAX_NAMES {
            *counts.frames.entry((frame.runtime, "too_many")).or_default() += 1;
            return false;
        } else {
            entries.insert((image, *frame), Entry { state: State::Asked, used_in: *window });
        }
        *asked += 1;
        true
    }
}

impl ScriptNames {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often what came of reading runtimes.
    #[must_use]
    pub fn counts(&self) -> ScriptCounts {
        self.lock().counts.clone()
    }

    /// Counts a sample of a runtime, `unplaced` of whose frames found no place. Returns those of its frames that are to
    /// be asked about; from then on they are not, for a while.
    pub(super) fn add_sample<'frames>(
        &self,
        image: ImageId,
        runtime: Runtime,
        end: ScriptEnd,
        frames: impl Iterator<Item = &'frames ScriptFrame>,
        unplaced: usize,
    ) -> Vec<ScriptFrame> {
        let mut inside = self.lock();
        *inside.counts.samples.entry((runtime, end)).or_default() += 1;
        inside.counts.unplaced += unplaced as u64;
        frames.filter(|frame| inside.is_new(image, frame)).copied().collect()
    }

    /// The reader's answer.
    pub(super) fn answer(
        &self,
        image: ImageId,
        frame: &ScriptFrame,
        answer: Result<Vec<ScriptFunction>, Refusal>,
    ) {
        let mut inside = self.lock();
        let Inside { entries, counts, answered, .. } = &mut *inside;
        let how = answer.as_ref().map_or_else(|refusal| refusal.name(), |_| "named");
        *counts.frames.entry((frame.runtime, how)).or_default() += 1;
        *answered += 1;
        if let Some(entry) = entries.get_mut(&(image, *frame)) {
            entry.state = match answer {
                Ok(functions) => State::Named(functions.into()),
                Err(refusal) => State::Refused(refusal, Instant::now()),
            };
        }
        self.answered.notify_all();
    }

    /// The reader will not answer: there was no room for the question.
    pub(super) fn withdraw(&self, image: ImageId, frame: &ScriptFrame) {
        let mut inside = self.lock();
        inside.entries.remove(&(image, *frame));
        inside.answered += 1;
        *inside.counts.frames.entry((frame.runtime, "too_many")).or_default() += 1;
    }

    /// Waits until what was asked up to now is answered, a moment at most.
    pub fn settle(&self) {
        let inside = self.lock();
        let asked = inside.asked;
        // Whoever gives up waiting finds the frames that are still asked about unnamed.
        drop(self.answered.wait_timeout_while(inside, PATIENCE, |inside| inside.answered < asked));
    }

    /// What a frame is called.
    pub fn of(&self, image: ImageId, frame: &ScriptFrame) -> ScriptName {
        match self.lock().entries.get(&(image, *frame)).map(|entry| &entry.state) {
            Some(State::Named(functions)) => Ok(Arc::clone(functions)),
            Some(State::Refused(refusal, _)) => Err(refusal.name()),
            Some(State::Asked) => Err("not_read_in_time"),
            None => Err("too_many"),
        }
    }

    /// A window was taken: names that none of the last ones had are forgotten.
    pub(super) fn forget_the_past(&self) {
        let mut inside = self.lock();
        let Inside { entries, window, .. } = &mut *inside;
        *window = window.wrapping_add(1);
        entries.retain(|_, entry| {
            matches!(entry.state, State::Asked) || window.wrapping_sub(entry.used_in) <= REMEMBERED_WINDOWS
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(object: u64) -> ScriptFrame {
        ScriptFrame {
            runtime: Runtime::V8,
            kind: 1,
            is_entry: false,
            is_leaf: false,
            address: 1,
            object,
            other: 0,
            position: 0,
            identity: 0,
        }
    }

    fn is_new(names: &ScriptNames, image: ImageId, frame: ScriptFrame) -> bool {
        let asked = names.add_sample(image, Runtime::V8, ScriptEnd::Complete, [frame].iter(), 0);
        asked == [frame]
    }

    #[test]
    fn a_frame_is_asked_about_once_and_its_answer_stays_while_it_is_used() {
        let names = ScriptNames::default();
        let image = ImageId(3);
        assert!(is_new(&names, image, frame(1)));
        assert!(!is_new(&names, image, frame(1)), "it was asked");
        assert_eq!(names.of(image, &frame(1)), Err("not_read_in_time"));
        let function = ScriptFunction { name: "f".to_owned(), ..ScriptFunction::default() };
        names.answer(image, &frame(1), Ok(vec![function.clone()]));
        names.settle();
        assert_eq!(names.of(image, &frame(1)), Ok(vec![function].into()));
        assert_eq!(names.of(ImageId(4), &frame(1)), Err("too_many"), "another program's");
        for _ in 0..=REMEMBERED_WINDOWS {
            names.forget_the_past();
        }
        assert!(names.of(image, &frame(1)).is_err(), "forgotten");
        assert_eq!(names.counts().frames, BTreeMap::from([((Runtime::V8, "named"), 1)]));
    }

    #[test]
    fn a_refusal_is_its_reason() {
        let names = ScriptNames::default();
        assert!(is_new(&names, ImageId(1), frame(1)));
        names.answer(ImageId(1), &frame(1), Err(Refusal::ObjectMoved));
        assert_eq!(names.of(ImageId(1), &frame(1)), Err("object_moved"));
        assert!(!is_new(&names, ImageId(1), frame(1)), "not again at once");
        assert!(is_new(&names, ImageId(1), frame(2)));
        names.withdraw(ImageId(1), &frame(2));
        names.settle();
    }
}
