//! The language runtimes of processes, and the names of their frames.
//!
//! Comes in: processes with what they have mapped, samples with script frames. Goes out: how each runtime is laid
//! out, to the sampler; the frames of an interpreter put where they belong in the stack; names, to whoever names
//! windows. Never: a wait of the thread that reads samples. Memory of processes is read by a thread of its own
//! (`reader`), as soon as a frame is seen for the first time, because objects move.

mod markers;
mod names;
mod placing;
mod reader;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use spanflame_symbols::ElfAddress;
use spanflame_symbols::script::markers::Marked;
use spanflame_symbols::script::{MappedObject, Runtime, ScriptRuntime};

use self::markers::Markers;
pub use self::names::{ScriptCounts, ScriptName, ScriptNames};
use self::reader::{Found, Reader, Wanted};
use crate::kernel::ProcessMaps;
use crate::model::{ImageId, ObjectId, RawFrame, RawSample};
use crate::process::{MappingContent, ObjectRegistry, ProcessTable, RuntimeOfProcess};

/// How soon what the reader has found is told to the kernel side.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// How long whoever begins to sample waits for the reader.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// Why frames are not read on an older kernel.
const TOO_OLD: &str = "this kernel's verifier allows its programs less stack than reading these frames takes \
                       (Linux 6.13 and later allow more)";
/// How soon a runtime that was not set up yet is looked for again: each time after twice as long, up to the last. A
/// program that runs for half a second spends the first hundredth of one setting up its interpreter.
const FIRST_RETRY: Duration = Duration::from_millis(2);
const LAST_RETRY: Duration = Duration::from_millis(100);
/// How many times.
const TRIES: u32 = 100;
/// Processes that may wait so at a time.
const MAX_WAITING: usize = 1024;
/// Samples of what a process ran before it ended or ran another program arrive after the news of that; so long, and of
/// so many at most, is it known how their frames are placed.
const REMEMBER_PAST: Duration = Duration::from_secs(3);
const MAX_PAST: usize = 1024;

/// By process id.
pub type RuntimesOfProcesses = BTreeMap<u32, Vec<RuntimeOfProcess>>;

#[derive(Debug)]
struct InProcess {
    image: ImageId,
    runtimes: Vec<Arc<dyn ScriptRuntime>>,
    about: Vec<RuntimeOfProcess>,
    /// What was looked for with an answer that stays: it is not looked for again.
    decided: Vec<Marked>,
}

#[derive(Debug)]
struct Waiting {
    pid: u32,
    tries: u32,
    since: Instant,
    /// How long after that it is looked again.
    interval: Duration,
}

/// What a process ran that ended, or runs another program now.
#[derive(Debug)]
struct Past {
    since: Instant,
    image: ImageId,
    runtimes: Vec<Arc<dyn ScriptRuntime>>,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Scripts {
    reader: Reader,
    names: Arc<ScriptNames>,
    markers: Arc<Markers>,
    processes: HashMap<u32, InProcess>,
    past: VecDeque<Past>,
    waiting: Vec<Waiting>,
    /// Processes that the reader looks into now, and since when.
    looked_into: Vec<u32>,
    looked_into_since: Instant,
    /// What [`Scripts::all`] says, until something changes.
    all: Option<Arc<RuntimesOfProcesses>>,
}

impl Scripts {
    /// Starts the reader.
    ///
    /// # Errors
    /// The system's, if there can be no more threads.
    pub(super) fn start() -> std::io::Result<Self> {
        let (names, markers) = (Arc::new(ScriptNames::default()), Arc::new(Markers::default()));
        Ok(Self {
            reader: Reader::start(Arc::clone(&names), Arc::clone(&markers))?,
            names,
            markers,
            processes: HashMap::new(),
            past: VecDeque::new(),
            waiting: Vec::new(),
            looked_into: Vec::new(),
            looked_into_since: Instant::now(),
            all: None,
        })
    }

    /// The names found.
    pub(super) fn names(&self) -> &Arc<ScriptNames> {
        &self.names
    }

    /// The runtimes of all processes that have any.
    pub(super) fn all(&mut self) -> Arc<RuntimesOfProcesses> {
        let processes = &self.processes;
        let collect = || processes.iter().map(|(pid, process)| (*pid, process.about.clone())).collect();
        Arc::clone(self.all.get_or_insert_with(|| Arc::new(collect())))
    }

    /// What a process has mapped has changed.
    pub(super) fn look_at(
        &mut self,
        pid: u32,
        processes: &ProcessTable,
        objects: &ObjectRegistry,
        maps: &ProcessMaps,
    ) {
        let Some(process) = processes.get(pid) else { return };
        if self.processes.get(&pid).is_some_and(|known| known.image != process.image) {
            self.forget(pid, maps);
        }
        let decided = self.processes.get(&pid).map_or(&[][..], |known| &known.decided);
        let mut mapped = Vec::new();
        let mut is_new = false;
        for mapping in process.mappings.as_slice() {
            let MappingContent::Object { object: id, bias } = mapping.content else { continue };
            let Some(Ok(file)) = objects.get(id).map(|object| object.file.as_ref()) else { continue };
            let known = self.markers.known(id, file);
            is_new |= known.is_none_or(|known| known.iter().any(|marked| !decided.contains(marked)));
            mapped.push((id, MappedObject { file: Arc::clone(file), bias }));
        }
        if is_new {
            if self.looked_into.is_empty() {
                self.looked_into_since = Instant::now();
            }
            let wanted = Wanted { pid, image: process.image, decided: decided.to_vec(), objects: mapped };
            if self.reader.find(wanted) {
                self.looked_into.push(pid);
            }
        }
    }

    /// A process is no more, or runs another program. Its last samples may be still to come.
    pub(super) fn forget(&mut self, pid: u32, maps: &ProcessMaps) {
        if let Some(InProcess { image, runtimes, .. }) = self.processes.remove(&pid) {
            self.all = None;
            for runtime in &runtimes {
                maps.remove_runtime(pid, runtime.runtime());
            }
            if !runtimes.is_empty() {
                self.remember(Past { since: Instant::now(), image, runtimes });
            }
        }
        self.waiting.retain(|waiting| waiting.pid != pid);
        self.reader.forget(pid);
    }

    fn remember(&mut self, past: Past) {
        let is_over = |old: &Past| past.since.duration_since(old.since) > REMEMBER_PAST;
        while self.past.len() >= MAX_PAST || self.past.front().is_some_and(is_over) {
            self.past.pop_front();
        }
        self.past.push_back(past);
    }

    /// The runtimes of the program that a sample is of.
    fn runtimes_of(&self, sample: &RawSample) -> &[Arc<dyn ScriptRuntime>] {
        match self.processes.get(&sample.pid) {
            Some(process) if process.image == sample.image => &process.runtimes,
            _ => {
                let past = self.past.iter().rev().find(|past| past.image == sample.image);
                past.map_or(&[], |past| &past.runtimes)
            }
        }
    }

    /// Takes what the reader has found, tells the kernel side, and looks again for what was not ready.
    pub(super) fn take_found(
        &mut self,
        processes: &ProcessTable,
        objects: &ObjectRegistry,
        maps: &ProcessMaps,
        follows_generated_code: bool,
    ) {
        self.reader.look_after();
        while let Some(found) = self.reader.take_found() {
            let Found { pid, image, wanted, mut runtimes, mut about, again, is_late } = found;
            if let Some(answered) = self.looked_into.iter().position(|asked| !is_late && *asked == pid) {
                self.looked_into.swap_remove(answered);
            }
            if processes.get(pid).is_none_or(|process| process.image != image || process.exited) {
                continue;
            }
            if wanted.is_empty() {
                self.note_waiting(pid, again);
                continue;
            }
            if !follows_generated_code {
                runtimes.retain(|runtime| runtime.runtime() == Runtime::Python);
                for known in about.iter_mut().filter(|known| known.not_read.is_none()) {
                    known.not_read = (known.runtime != Some(Runtime::Python)).then(|| TOO_OLD.to_owned());
                }
            }
            for runtime in &runtimes {
                if let Err(error) = maps.set_runtime(pid, runtime.runtime(), &runtime.layout()) {
                    tracing::warn!("frames of process {pid} are not read: {error}");
                }
            }
            let known = self.processes.entry(pid).or_insert_with(|| InProcess {
                image,
                runtimes: Vec::new(),
                about: Vec::new(),
                decided: Vec::new(),
            });
            if !again {
                known.decided.extend(wanted);
            }
            for runtime in runtimes {
                known.runtimes.retain(|old| old.runtime() != runtime.runtime());
                known.runtimes.push(runtime);
            }
            for new in about {
                known.about.retain(|old| old.name != new.name);
                known.about.push(new);
            }
            self.all = None;
            self.note_waiting(pid, again);
        }
        self.look_again(processes, objects, maps);
    }

    fn note_waiting(&mut self, pid: u32, again: bool) {
        let found = self.waiting.iter().position(|waiting| waiting.pid == pid);
        match (found, again) {
            (Some(index), false) => drop(self.waiting.swap_remove(index)),
            (None, true) if self.waiting.len() < MAX_WAITING => {
                let (since, interval) = (Instant::now(), FIRST_RETRY);
                self.waiting.push(Waiting { pid, tries: TRIES, since, interval });
            }
            _ => {}
        }
    }

    fn look_again(&mut self, processes: &ProcessTable, objects: &ObjectRegistry, maps: &ProcessMaps) {
        let mut due = Vec::new();
        self.waiting.retain_mut(|waiting| {
            if waiting.since.elapsed() < waiting.interval {
                return true;
            }
            due.push(waiting.pid);
            waiting.tries -= 1;
            waiting.interval = (waiting.interval * 2).min(LAST_RETRY);
            waiting.since = Instant::now();
            waiting.tries > 0
        });
        for pid in due {
            self.look_at(pid, processes, objects, maps);
        }
    }

    /// Whether all processes that were to be looked into have been, or it takes too long.
    pub(super) fn is_idle(&self) -> bool {
        self.looked_into.is_empty() || self.looked_into_since.elapsed() > LOOK_LIMIT
    }

    /// Whether the reader looks into a process now.
    pub(super) fn is_looking_into(&self, pid: u32) -> bool {
        self.looked_into.contains(&pid)
    }

    /// When there is something to look at again, or somebody waits for what is found.
    pub(super) fn due_in(&self) -> Option<Duration> {
        if !self.is_idle() {
            return Some(LOOK_INTERVAL);
        }
        self.waiting.iter().map(|waiting| waiting.interval.saturating_sub(waiting.since.elapsed())).min()
    }

    /// Puts the frames of an interpreter where they belong, has frames that are new be named, and counts how reading
    /// them ended.
    pub(super) fn complete(&mut self, sample: &mut RawSample, objects: &ObjectRegistry) {
        let Some(of_sample) = sample.script_outcome.runtime else { return };
        let mut unplaced = 0;
        if !sample.aside.is_empty() {
            let runtimes = self.runtimes_of(sample);
            let python = runtimes.iter().find(|runtime| runtime.runtime() == Runtime::Python);
            let is_evaluation = |object: ObjectId, address: u64| {
                let file = objects.get(object).and_then(|object| object.file.as_ref().ok());
                match (python, file) {
                    (Some(python), Some(file)) => python.is_evaluation(file, ElfAddress(address)),
                    _ => false,
                }
            };
            let is_greenlets = |object: ObjectId| {
                let name = objects.get(object).and_then(|object| object.path.file_name());
                name.is_some_and(|name| name.as_encoded_bytes().starts_with(b"_greenlet."))
            };
            unplaced = placing::put_aside_frames(sample, is_evaluation, is_greenlets);
        }
        let frames = sample.user.iter().filter_map(|frame| match frame {
            RawFrame::Script(frame) => Some(frame),
            _ => None,
        });
        let end = sample.script_outcome.end;
        for frame in self.names.add_sample(sample.image, of_sample, end, frames, unplaced) {
            self.reader.name(sample.pid, sample.image, frame);
        }
    }

    /// Lets go of objects that are no more, and of names that were not needed for long.
    pub(super) fn forget_the_past(&mut self) {
        self.markers.forget_the_past();
        // They keep the files of their runtimes open.
        self.past.retain(|past| past.since.elapsed() <= REMEMBER_PAST);
        self.names.forget_the_past();
    }
}
