//! The thread that reads memory of processes: it looks for their runtimes and names frames.
//!
//! Reading may take as long as the process that is read likes. Not by `userfaultfd`: the kernel lets no reader of
//! `/proc/PID/mem` wait for such a page, the read fails at once. But memory may be a file's, of a network or of a file
//! system that the process itself serves. So that no process takes the others' names away:
//!
//! - A question that is not answered within [`PATIENCE`] is answered with [`Refusal::TooSlow`] by whoever looks after
//!   the reader, another thread takes over, and the process is not read before the first thread comes back, which then
//!   ends. At most [`MAX_STUCK`] threads wait so; were there more, nothing is read before one of them comes back.
//! - What a process takes of the reader's time by answers slower than [`SLOW`] may be [`BURST`] at once, and beyond it one
//!   part in [`REST`]. Else it is not read for a while.
//!
//! Memory may change while it is read: a frame has a name if reading it twice brings the same one, and one without
//! characters that no name has.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use spanflame_symbols::process_memory::LiveMemory;
use spanflame_symbols::script::markers::Marked;
use spanflame_symbols::script::{MappedObject, Refusal, ScriptFrame, ScriptFunction, ScriptRuntime};

use super::markers::Markers;
use super::names::ScriptNames;
use crate::kernel::ThreadPriority;
use crate::model::{ImageId, ObjectId};
use crate::process::{FoundRuntimes, RuntimeOfProcess, find_runtimes};

/// Questions that may wait. A busy program has some thousands of different frames.
const QUEUE: usize = 65_536;
/// How long a question may take. Nearly all take microseconds; to look into a large executable on a slow disk takes
/// longest.
const PATIENCE: Duration = Duration::from_secs(1);
/// Threads that may be waiting for memory.
const MAX_STUCK: usize = 8;
/// Hundred times what naming a frame takes. Where all cores are busy it takes that sometimes.
const SLOW: Duration = Duration::from_millis(5);
const BURST: Duration = Duration::from_secs(1);
const REST: u32 = 20;

/// What is to be looked into.
pub(super) struct Wanted {
    pub(super) pid: u32,
    pub(super) image: ImageId,
    /// What need not be looked for any more.
    pub(super) decided: Vec<Marked>,
    pub(super) objects: Vec<(ObjectId, MappedObject)>,
}

enum Question {
    Find(Wanted),
    Name { pid: u32, image: ImageId, frame: ScriptFrame },
    Forget { pid: u32 },
}

/// What was found in a process.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) pid: u32,
    pub(super) image: ImageId,
    /// What was looked for.
    pub(super) wanted: Vec<Marked>,
    pub(super) runtimes: Vec<Arc<dyn ScriptRuntime>>,
    pub(super) about: Vec<RuntimeOfProcess>,
    /// Whether to ask again a moment later.
    pub(super) again: bool,
    /// Whether it was given up before, so that nobody waits for it any more.
    pub(super) is_late: bool,
}

impl Found {
    fn nothing(pid: u32, image: ImageId) -> Self {
        let (wanted, runtimes, about) = (Vec::new(), Vec::new(), Vec::new());
        Self { pid, image, wanted, runtimes, about, again: false, is_late: false }
    }
}

/// The thread, and those that took over from it.
#[derive(Debug)]
pub(super) struct Reader {
    questions: Sender<Question>,
    found: Receiver<Found>,
    shared: Arc<Shared>,
    current: Arc<Thread>,
    stuck: Vec<Arc<Thread>>,
}

/// What the threads have in common.
#[derive(Debug)]
struct Shared {
    asked: Receiver<Question>,
    answers: Sender<Found>,
    names: Arc<ScriptNames>,
    markers: Arc<Markers>,
    processes: Mutex<HashMap<u32, Process>>,
    priority: ThreadPriority,
}

#[derive(Debug, Clone)]
struct Process {
    image: ImageId,
    memory: Arc<LiveMemory>,
    runtimes: Vec<Arc<dyn ScriptRuntime>>,
    /// Threads that wait for its memory.
    waited_for: usize,
    /// When what it has taken will be made up for.
    even_at: Option<Instant>,
}

/// What a thread is at.
#[derive(Debug, Default)]
struct Thread {
    at: Mutex<At>,
}

#[derive(Debug, Default)]
struct At {
    work: Option<Work>,
    /// Another has taken over: this one ends with its question.
    is_replaced: bool,
    has_ended: bool,
}

#[derive(Debug, Clone, Copy)]
struct Work {
    pid: u32,
    image: ImageId,
    /// `None`: runtimes are looked for.
    frame: Option<ScriptFrame>,
    since: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reader {
    pub(super) fn start(names: Arc<ScriptNames>, markers: Arc<Markers>) -> std::io::Result<Self> {
        let (questions, asked) = crossbeam_channel::bounded(QUEUE);
        let (answers, found) = crossbeam_channel::unbounded();
        let processes = Mutex::default();
        // Threads that take over are started by one that is preferred.
        let priority = ThreadPriority::current();
        let shared = Arc::new(Shared { asked, answers, names, markers, processes, priority });
        let current = start_thread(&shared)?;
        Ok(Self { questions, found, shared, current, stuck: Vec::new() })
    }

    /// Has runtimes be looked for. Where there is no room for the question it is lost: the next change of what the
    /// process has mapped asks again.
    /// Returns whether there was.
    pub(super) fn find(&self, wanted: Wanted) -> bool {
        let pid = wanted.pid;
        let is_asked = self.questions.try_send(Question::Find(wanted)).is_ok();
        if !is_asked {
            tracing::warn!("the runtime of process {pid} is not looked for: too much else is");
        }
        is_asked
    }

    /// Has a frame be named.
    pub(super) fn name(&self, pid: u32, image: ImageId, frame: ScriptFrame) {
        match self.questions.try_send(Question::Name { pid, image, frame }) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.names.withdraw(image, &frame);
            }
        }
    }

    /// The process is no more, or runs another program.
    pub(super) fn forget(&self, pid: u32) {
        // What is not forgotten now is when the process id is used again.
        let _ = self.questions.try_send(Question::Forget { pid });
    }

    pub(super) fn take_found(&self) -> Option<Found> {
        self.found.try_recv().ok()
    }

    /// Has another thread take over from one that a process keeps waiting. To be called now and then; it does not wait.
    pub(super) fn look_after(&mut self) {
        self.look_after_at(Instant::now());
    }

    fn look_after_at(&mut self, now: Instant) {
        self.stuck.retain(|thread| !lock(&thread.at).has_ended);
        if self.stuck.len() >= MAX_STUCK {
            return;
        }
        let current = Arc::clone(&self.current);
        let mut at = lock(&current.at);
        let Some(work) = at.work.filter(|work| now.duration_since(work.since) > PATIENCE) else { return };
        match start_thread(&self.shared) {
            Ok(thread) => self.stuck.push(std::mem::replace(&mut self.current, thread)),
            Err(error) => return tracing::warn!("no other thread reads memory of processes: {error}"),
        }
        at.is_replaced = true;
        let Work { pid, image, frame, .. } = work;
        tracing::warn!(
            "reading the memory of process {pid} takes too long: its frames are not named meanwhile"
        );
        self.shared.change(pid, image, |process| process.waited_for += 1);
        match frame {
            Some(frame) => self.shared.names.answer(image, &frame, Err(Refusal::TooSlow)),
            None => drop(self.shared.answers.send(Found::nothing(pid, image))),
        }
    }
}

// It ends by itself when the last question is answered; nobody waits for that.
fn start_thread(shared: &Arc<Shared>) -> std::io::Result<Arc<Thread>> {
    let thread = Arc::new(Thread::default());
    let (own, shared) = (Arc::clone(&thread), Arc::clone(shared));
    std::thread::Builder::new().name("runtime-names".to_owned()).spawn(move || {
        shared.priority.take_on();
        shared.answer_all(&own);
        lock(&own.at).has_ended = true;
    })?;
    Ok(thread)
}

impl Shared {
    fn answer_all(&self, thread: &Thread) {
        for question in &self.asked {
            let work = match &question {
                Question::Find(Wanted { pid, image, .. }) => (*pid, *image, None),
                Question::Name { pid, image, frame } => (*pid, *image, Some(*frame)),
                Question::Forget { pid } => {
                    lock(&self.processes).remove(pid);
                    continue;
                }
            };
            let (pid, image, frame) = work;
            let since = Instant::now();
            lock(&thread.at).work = Some(Work { pid, image, frame, since });
            let (found, named) = match question {
                Question::Find(wanted) => (Some(self.find(wanted)), None),
                Question::Name { frame, .. } => (None, Some((frame, self.name(pid, image, &frame)))),
                Question::Forget { .. } => (None, None),
            };
            let is_replaced = {
                let mut at = lock(&thread.at);
                at.work = None;
                at.is_replaced
            };
            if is_replaced {
                self.change(pid, image, |process| process.waited_for = process.waited_for.saturating_sub(1));
            }
            let took = since.elapsed();
            if took > SLOW && frame.is_some() {
                self.change(pid, image, |process| process.has_taken(took, Instant::now()));
            }
            // Of a frame that was given up it was said already that it has no name.
            if let Some((frame, answer)) = named.filter(|_| !is_replaced) {
                self.names.answer(image, &frame, answer);
            }
            let was_heard =
                found.is_none_or(|found| self.answers.send(Found { is_late: is_replaced, ..found }).is_ok());
            if is_replaced || !was_heard {
                return;
            }
        }
    }

    fn change(&self, pid: u32, image: ImageId, change: impl FnOnce(&mut Process)) {
        if let Some(process) = lock(&self.processes).get_mut(&pid).filter(|process| process.image == image) {
            change(process);
        }
    }

    /// The process, if it may be read now.
    fn readable(&self, pid: u32, image: ImageId) -> Result<Process, Refusal> {
        let mut processes = lock(&self.processes);
        let process = processes.get_mut(&pid).filter(|process| process.image == image);
        let process = process.ok_or(Refusal::Unreadable)?;
        if process.waited_for > 0 || process.has_had_enough(Instant::now()) {
            return Err(Refusal::TooSlow);
        }
        Ok(process.clone())
    }

    fn name(&self, pid: u32, image: ImageId, frame: &ScriptFrame) -> Result<Vec<ScriptFunction>, Refusal> {
        let process = self.readable(pid, image)?;
        let runtime = process.runtimes.iter().find(|runtime| runtime.runtime() == frame.runtime);
        let runtime = runtime.ok_or(Refusal::Unreadable)?;
        let read =
            || survive(|| runtime.name(frame, process.memory.as_ref())).unwrap_or(Err(Refusal::Malformed));
        let functions = read()?;
        if functions.iter().any(is_garbled) {
            return Err(Refusal::Malformed);
        }
        if read()? != functions {
            return Err(Refusal::ObjectMoved);
        }
        Ok(functions)
    }

    /// Opens the memory of the process, unless that was done.
    fn open(&self, pid: u32, image: ImageId) -> Result<Process, Refusal> {
        if lock(&self.processes).get(&pid).is_none_or(|known| known.image != image) {
            let memory = LiveMemory::open(pid).map_err(|error| {
                tracing::debug!("memory of process {pid} cannot be read: {error}");
                Refusal::Unreadable
            })?;
            let (memory, runtimes) = (Arc::new(memory), Vec::new());
            let opened = Process { image, memory, runtimes, waited_for: 0, even_at: None };
            lock(&self.processes).insert(pid, opened);
        }
        self.readable(pid, image)
    }

    fn find(&self, wanted: Wanted) -> Found {
        let Wanted { pid, image, decided, objects } = wanted;
        let mut found = Found::nothing(pid, image);
        for (id, object) in &objects {
            found.wanted.extend(self.markers.look(*id, &object.file).iter().copied());
        }
        found.wanted.sort_unstable();
        found.wanted.dedup();
        found.wanted.retain(|marked| !decided.contains(marked));
        if found.wanted.is_empty() {
            return found;
        }
        let process = match self.open(pid, image) {
            Ok(process) => process,
            Err(refusal) => {
                // It may be read later; what was not looked for is not decided.
                found.again = refusal == Refusal::TooSlow;
                return found;
            }
        };
        let objects: Vec<MappedObject> = objects.into_iter().map(|(_, object)| object).collect();
        let FoundRuntimes { runtimes, about, again } =
            find_runtimes(&found.wanted, &objects, process.memory.as_ref());
        self.change(pid, image, |process| {
            for runtime in &runtimes {
                process.runtimes.retain(|known| known.runtime() != runtime.runtime());
                process.runtimes.push(Arc::clone(runtime));
            }
        });
        for runtime in &about {
            match &runtime.not_read {
                Some(reason) if !again => tracing::info!("frames of process {pid}: {reason}"),
                reason => {
                    tracing::debug!("process {pid} runs {} {}: {reason:?}", runtime.name, runtime.version);
                }
            }
        }
        (found.runtimes, found.about, found.again) = (runtimes, about, again);
        found
    }
}

impl Process {
    fn has_taken(&mut self, time: Duration, now: Instant) {
        self.even_at = self.even_at.unwrap_or(now).max(now).checked_add(time * REST);
    }

    fn has_had_enough(&self, now: Instant) -> bool {
        self.even_at.is_some_and(|even_at| even_at.saturating_duration_since(now) > BURST * REST)
    }
}

/// Whether a name has what no name has: control characters, or bytes that are no text.
fn is_garbled(function: &ScriptFunction) -> bool {
    let is_none = |character: char| character.is_control() || character == char::REPLACEMENT_CHARACTER;
    function.name.contains(is_none) || function.file.contains(is_none)
}

/// Memory of processes may hold anything. Should it bring a mistake of ours to light, one frame is lost.
fn survive<T>(work: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(work));
    if done.is_err() {
        tracing::error!("a runtime could not be read, which is a mistake of spanflame; please report it");
    }
    done.ok()
}

#[cfg(test)]
mod tests {
    use spanflame_symbols::process_memory::ProcessMemory;
    use spanflame_symbols::script::Runtime;

    use super::*;

    /// Names frames; waits before it does if it has a channel for that.
    #[derive(Debug)]
    struct Fake {
        begun: Sender<()>,
        go_on: Option<Receiver<()>>,
    }

    impl ScriptRuntime for Fake {
        fn runtime(&self) -> Runtime {
            Runtime::Python
        }

        fn version(&self) -> &'static str {
            "3"
        }

        fn layout(&self) -> Vec<u8> {
            Vec::new()
        }

        fn name(&self, _: &ScriptFrame, _: &dyn ProcessMemory) -> Result<Vec<ScriptFunction>, Refusal> {
            if let Some(go_on) = &self.go_on {
                let _ = self.begun.send(());
                let _ = go_on.recv();
            }
            Ok(vec![ScriptFunction::default()])
        }
    }

    fn frame(object: u64) -> ScriptFrame {
        ScriptFrame {
            runtime: Runtime::Python,
            kind: 0,
            is_entry: false,
            is_leaf: false,
            address: 0,
            object,
            other: 0,
            position: 0,
            identity: 0,
        }
    }

    fn add(reader: &Reader, pid: u32, go_on: Option<Receiver<()>>) -> Receiver<()> {
        let (begun, listens) = crossbeam_channel::unbounded();
        let memory = Arc::new(LiveMemory::open(std::process::id()).expect("our own"));
        let runtimes: Vec<Arc<dyn ScriptRuntime>> = vec![Arc::new(Fake { begun, go_on })];
        let image = ImageId(pid.into());
        let process = Process { image, memory, runtimes, waited_for: 0, even_at: None };
        lock(&reader.shared.processes).insert(pid, process);
        listens
    }

    fn ask(reader: &Reader, pid: u32, object: u64) {
        let image = ImageId(pid.into());
        let asked = reader.shared.names.add_sample(
            image,
            Runtime::Python,
            crate::model::ScriptEnd::Complete,
            [frame(object)].iter(),
            0,
        );
        for frame in asked {
            reader.name(pid, image, frame);
        }
    }

    fn answer(reader: &Reader, pid: u32, object: u64) -> Result<usize, &'static str> {
        reader.shared.names.settle();
        reader.shared.names.of(ImageId(pid.into()), &frame(object)).map(|functions| functions.len())
    }

    fn reader() -> Reader {
        Reader::start(Arc::default(), Arc::default()).expect("a thread")
    }

    #[test]
    fn a_process_whose_memory_does_not_come_does_not_keep_the_others_waiting() {
        let mut reader = reader();
        let (go, go_on) = crossbeam_channel::unbounded::<()>();
        let begun = add(&reader, 1, Some(go_on));
        add(&reader, 2, None);
        ask(&reader, 1, 10);
        ask(&reader, 2, 20);
        begun.recv().expect("it is read");
        reader.look_after();
        assert!(reader.stuck.is_empty(), "it may take a while");

        let later = Instant::now() + PATIENCE * 2;
        reader.look_after_at(later);
        assert_eq!(answer(&reader, 2, 20), Ok(1));
        assert_eq!(answer(&reader, 1, 10), Err("too_slow"));
        ask(&reader, 1, 11);
        assert_eq!(answer(&reader, 1, 11), Err("too_slow"), "nobody else waits for it");
        assert_eq!(reader.stuck.len(), 1);

        drop(go);
        while !lock(&reader.stuck.first().expect("one").at).has_ended {
            std::thread::yield_now();
        }
        reader.look_after();
        assert!(reader.stuck.is_empty());
        let waited_for = lock(&reader.shared.processes).get(&1).map(|process| process.waited_for);
        assert_eq!(waited_for, Some(0), "it may be read again");
        let names = &reader.shared.names;
        assert_eq!(names.counts().frames.get(&(Runtime::Python, "too_slow")), Some(&2));
    }

    #[test]
    fn a_process_that_is_slow_again_and_again_is_not_read_for_a_while() {
        let reader = reader();
        add(&reader, 1, None);
        let now = Instant::now();
        reader.shared.change(1, ImageId(1), |process| process.has_taken(BURST / 2, now));
        ask(&reader, 1, 10);
        assert_eq!(answer(&reader, 1, 10), Ok(1), "once does not matter");
        reader.shared.change(1, ImageId(1), |process| process.has_taken(BURST, now));
        ask(&reader, 1, 11);
        assert_eq!(answer(&reader, 1, 11), Err("too_slow"));
        let process = lock(&reader.shared.processes).get(&1).cloned().expect("it is there");
        assert!(!process.has_had_enough(now + BURST * REST));
    }

    #[test]
    fn what_is_no_text_is_no_name() {
        let named = |name: &str| ScriptFunction { name: name.to_owned(), ..ScriptFunction::default() };
        assert!(!is_garbled(&named("Größe.<lambda>")));
        assert!(is_garbled(&named("Module._compil\u{0}")));
        assert!(is_garbled(&named("\u{fffd}k.in")));
    }

    #[test]
    fn no_more_threads_wait_than_a_few() {
        let mut reader = reader();
        let (go, go_on) = crossbeam_channel::unbounded::<()>();
        for pid in 1..=20 {
            let begun = add(&reader, pid, Some(go_on.clone()));
            ask(&reader, pid, 10);
            if reader.stuck.len() < MAX_STUCK {
                begun.recv().expect("it is read");
            }
            reader.look_after_at(Instant::now() + PATIENCE * 2);
        }
        assert_eq!(reader.stuck.len(), MAX_STUCK);
        // All come back.
        drop(go);
        assert_eq!(answer(&reader, 20, 10), Ok(1));
    }
}
