//! The thread that reads memory of processes: it looks for their runtimes and names frames. Reading may wait, for
//! as long as the process that is read likes (`userfaultfd`), so nobody waits for it without a limit.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use spanflame_symbols::process_memory::LiveMemory;
use spanflame_symbols::script::markers::Marked;
use spanflame_symbols::script::{MappedObject, Refusal, ScriptFrame, ScriptRuntime};

use super::names::ScriptNames;
use crate::model::ImageId;
use crate::process::{FoundRuntimes, RuntimeOfProcess, find_runtimes};

/// Questions that may wait. A busy program has some thousands of different frames.
const QUEUE: usize = 65_536;

enum Question {
    Find { pid: u32, image: ImageId, wanted: Vec<Marked>, objects: Vec<MappedObject> },
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
}

/// The thread.
#[derive(Debug)]
pub(super) struct Reader {
    questions: Sender<Question>,
    found: Receiver<Found>,
    names: Arc<ScriptNames>,
}

impl Reader {
    pub(super) fn start(names: Arc<ScriptNames>) -> std::io::Result<Self> {
        let (questions, asked) = crossbeam_channel::bounded(QUEUE);
        let (answers, found) = crossbeam_channel::unbounded();
        let answer_names = Arc::clone(&names);
        // It ends by itself when the last question is answered; nobody waits for that.
        std::thread::Builder::new()
            .name("runtime-names".to_owned())
            .spawn(move || answer_all(&asked, &answers, &answer_names))?;
        Ok(Self { questions, found, names })
    }

    /// Has runtimes be looked for. Where there is no room for the question it is lost: the next change of what the
    /// process has mapped asks again.
    /// Returns whether there was.
    pub(super) fn find(
        &self,
        pid: u32,
        image: ImageId,
        wanted: Vec<Marked>,
        objects: Vec<MappedObject>,
    ) -> bool {
        let is_asked = self.questions.try_send(Question::Find { pid, image, wanted, objects }).is_ok();
        if !is_asked {
            tracing::warn!("the runtime of process {pid} is not looked for: too much else is");
        }
        is_asked
    }

    /// Has a frame be named.
    pub(super) fn name(&self, pid: u32, image: ImageId, frame: ScriptFrame) {
        match self.questions.try_send(Question::Name { pid, image, frame }) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.names.withdraw(image, &frame),
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
}

struct Process {
    image: ImageId,
    memory: LiveMemory,
    runtimes: Vec<Arc<dyn ScriptRuntime>>,
}

fn answer_all(questions: &Receiver<Question>, answers: &Sender<Found>, names: &ScriptNames) {
    let mut processes: HashMap<u32, Process> = HashMap::new();
    for question in questions {
        match question {
            Question::Find { pid, image, wanted, objects } => {
                let found = find(pid, image, wanted, &objects, &mut processes);
                if answers.send(found).is_err() {
                    return;
                }
            }
            Question::Name { pid, image, frame } => {
                let process = processes.get(&pid).filter(|process| process.image == image);
                names.answer(image, &frame, name(process, &frame));
            }
            Question::Forget { pid } => drop(processes.remove(&pid)),
        }
    }
}

/// Memory of processes may hold anything. Should it bring a mistake of ours to light, one frame is lost.
fn survive<T>(work: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(work));
    if done.is_err() {
        tracing::error!("a runtime could not be read, which is a mistake of spanflame; please report it");
    }
    done.ok()
}

fn name(
    process: Option<&Process>,
    frame: &ScriptFrame,
) -> Result<Vec<spanflame_symbols::script::ScriptFunction>, Refusal> {
    let process = process.ok_or(Refusal::Unreadable)?;
    let runtime = process.runtimes.iter().find(|runtime| runtime.runtime() == frame.runtime);
    let runtime = runtime.ok_or(Refusal::Unreadable)?;
    survive(|| runtime.name(frame, &process.memory)).unwrap_or(Err(Refusal::Malformed))
}

fn find(
    pid: u32,
    image: ImageId,
    wanted: Vec<Marked>,
    objects: &[MappedObject],
    processes: &mut HashMap<u32, Process>,
) -> Found {
    let mut found = Found { pid, image, wanted, runtimes: Vec::new(), about: Vec::new(), again: false };
    if processes.get(&pid).is_none_or(|known| known.image != image) {
        processes.remove(&pid);
        match LiveMemory::open(pid) {
            Ok(memory) => drop(processes.insert(pid, Process { image, memory, runtimes: Vec::new() })),
            Err(error) => {
                tracing::debug!("memory of process {pid} cannot be read: {error}");
                return found;
            }
        }
    }
    let Some(process) = processes.get_mut(&pid) else { return found };
    let FoundRuntimes { runtimes, about, again } = find_runtimes(&found.wanted, objects, &process.memory);
    for runtime in &runtimes {
        process.runtimes.retain(|known| known.runtime() != runtime.runtime());
        process.runtimes.push(Arc::clone(runtime));
    }
    for runtime in &about {
        match &runtime.not_read {
            Some(reason) if !again => tracing::info!("frames of process {pid}: {reason}"),
            reason => tracing::debug!("process {pid} runs {} {}: {reason:?}", runtime.name, runtime.version),
        }
    }
    (found.runtimes, found.about, found.again) = (runtimes, about, again);
    found
}
