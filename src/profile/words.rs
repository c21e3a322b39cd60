//! Finds out how processes say in which span their threads are, and tells the kernel side.
//!
//! Comes in: processes and what they have mapped. Goes out: [`ApplicationWords`]. Never: a symbol looked for
//! twice in one object.
//!
//! A process that has an object mapped which exports `otel_thread_ctx_v1` (OpenTelemetry's OTEP 4947) says it there;
//! a Go program by labels of its goroutines. The loader fills in where a library's variable is a moment after it
//! has mapped the library, so that is asked again for a while.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use spanflame_symbols::address::Bias;
use spanflame_symbols::go::{GoLabels, GoProgram};
use spanflame_symbols::process_memory::{LiveMemory, ProcessMemory as _};
use spanflame_symbols::thread_local::{ThreadLocal, ThreadLocalPlace};
use spanflame_symbols::{ElfAddress, ObjectFile};

use crate::kernel::{ApplicationWords, ProcessMaps};
use crate::model::ObjectId;
use crate::process::{MappingContent, ObjectRegistry, ProcessTable};

const THREAD_CONTEXT: &str = "otel_thread_ctx_v1";
/// How often a slot that is not filled in is looked at again, and how many times.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
const TRIES: u32 = 40;
/// Processes that may wait so at a time.
const MAX_WAITING: usize = 1024;

/// What an object has to say of all processes that map it.
#[derive(Debug, Clone)]
struct OfObject {
    object: Weak<ObjectFile>,
    thread_context: Option<ThreadLocal>,
    go: Option<GoLabels>,
}

#[derive(Debug)]
struct Waiting {
    pid: u32,
    tries: u32,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Words {
    objects: HashMap<ObjectId, OfObject>,
    told: HashMap<u32, ApplicationWords>,
    waiting: Vec<Waiting>,
    looked: Option<Instant>,
}

impl Words {
    /// What a process has mapped has changed.
    pub(super) fn look_at(
        &mut self,
        pid: u32,
        processes: &ProcessTable,
        objects: &ObjectRegistry,
        maps: &ProcessMaps,
    ) {
        if !self.tell(pid, processes, objects, maps) && self.waiting.len() < MAX_WAITING {
            self.waiting.retain(|waiting| waiting.pid != pid);
            self.waiting.push(Waiting { pid, tries: TRIES });
        }
    }

    /// A process is no more.
    pub(super) fn forget(&mut self, pid: u32, maps: &ProcessMaps) {
        if self.told.remove(&pid).is_some() {
            maps.remove_words(pid);
        }
        self.waiting.retain(|waiting| waiting.pid != pid);
    }

    /// Looks again at what was not ready.
    pub(super) fn look_again(
        &mut self,
        processes: &ProcessTable,
        objects: &ObjectRegistry,
        maps: &ProcessMaps,
    ) {
        if self.waiting.is_empty() || self.looked.is_some_and(|looked| looked.elapsed() < RETRY_INTERVAL) {
            return;
        }
        self.looked = Some(Instant::now());
        for mut waiting in std::mem::take(&mut self.waiting) {
            waiting.tries -= 1;
            if !self.tell(waiting.pid, processes, objects, maps) && waiting.tries > 0 {
                self.waiting.push(waiting);
            }
        }
    }

    /// False if it is not known yet.
    fn tell(
        &mut self,
        pid: u32,
        processes: &ProcessTable,
        objects: &ObjectRegistry,
        maps: &ProcessMaps,
    ) -> bool {
        let Some(process) = processes.get(pid) else { return true };
        let executable = processes.executable_object(pid);
        let mut context = None;
        let mut go = None;
        let mut is_musl = false;
        for mapping in process.mappings.as_slice() {
            let MappingContent::Object { object, bias } = mapping.content else { continue };
            is_musl |= objects.get(object).is_some_and(|object| is_loader_of_musl(&object.path));
            let Some(of_object) = self.of_object(object, objects) else { continue };
            context = context.or(of_object.thread_context.map(|found| (found, bias)));
            go = go.or(of_object.go.filter(|_| executable == Some(object)));
        }
        let words = match (go, context) {
            (Some(go), _) => Some(ApplicationWords::GoLabels(go)),
            (None, Some((context, bias))) => match place_of(pid, context, bias) {
                // The entries of its vector of blocks are of another size.
                Some(ThreadLocalPlace::Module { .. }) if is_musl => None,
                Some(place) => Some(ApplicationWords::ThreadContext(place)),
                None => return false,
            },
            (None, None) => None,
        };
        match words {
            // Again where it is known: the kernel side forgets it with each new program.
            Some(words) => match maps.set_words(pid, &words) {
                Ok(()) => drop(self.told.insert(pid, words)),
                Err(error) => tracing::warn!("spans that process {pid} names are not seen: {error}"),
            },
            None => {
                if self.told.remove(&pid).is_some() {
                    maps.remove_words(pid);
                }
            }
        }
        true
    }

    fn of_object(&mut self, id: ObjectId, objects: &ObjectRegistry) -> Option<&OfObject> {
        let file = objects.get(id)?.file.as_ref().ok()?;
        let weak = Arc::downgrade(file);
        let is_known = self.objects.get(&id).is_some_and(|known| known.object.ptr_eq(&weak));
        if !is_known {
            let thread_context = ThreadLocal::find(file, THREAD_CONTEXT).unwrap_or_else(|error| {
                tracing::debug!("thread-local variables of {} are not known: {error}", file.path().display());
                None
            });
            let go = GoProgram::read(file).ok().flatten().and_then(|program| program.labels());
            self.objects.insert(id, OfObject { object: weak, thread_context, go });
        }
        self.objects.get(&id)
    }

    /// Lets go of objects that are no more.
    pub(super) fn forget_objects(&mut self) {
        self.objects.retain(|_, of_object| of_object.object.strong_count() > 0);
    }
}

fn is_loader_of_musl(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"ld-musl-"))
}

/// Where the variable is in a process.
fn place_of(pid: u32, variable: ThreadLocal, bias: Bias) -> Option<ThreadLocalPlace> {
    if let ThreadLocal::Distance(distance) = variable {
        return Some(ThreadLocalPlace::Distance(distance));
    }
    // Whoever starts has written there, and samples wait for us.
    let memory = LiveMemory::open(pid).ok()?.only_what_is_there();
    variable.place(&|at: Result<ElfAddress, u64>| {
        let address = match at {
            Ok(address) => bias.to_process(address).0,
            Err(address) => address,
        };
        memory.u64_at(address).ok()
    })
}
