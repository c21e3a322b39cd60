//! The processes of the host and what they have mapped, kept current by the kernel's records.
//!
//! `mmap` with `PROT_EXEC` adds a mapping, `execve` begins anew, `fork` inherits, the last thread's exit
//! ends. Processes that were there before are read from `/proc`: when a sample asks for them, and the
//! others little by little ([`ProcessTable::scan`]). So is a process that a record names and that we do
//! not know, which happens when records were lost. Everything is keyed by the process id of the
//! initial pid namespace.
//!
//! Records and `/proc` tell the same story twice: what was read from `/proc` holds whatever older
//! records would say, so those change nothing any more.

mod reading;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use self::reading::Scan;
use super::endings::Endings;
use super::identity::Identity;
use super::image::{Image, Images};
use super::mapped_file::FileNumbers;
use super::mapping_list::{ExecutableMapping, MappingContent, MappingList};
use super::objects::{FileMapping, ObjectIds, ObjectRegistry};
use crate::kernel::{ProcessEvent, monotonic_ns};
use crate::model::{ImageId, ObjectId, RawFrame, RawSample};

/// Which processes are kept track of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interest {
    /// Every process of the host.
    All,
    /// These, and with `follow_children` those that they start.
    Only {
        /// The processes.
        pids: HashSet<u32>,
        /// Whether what they fork counts too.
        follow_children: bool,
    },
}

/// One process. Times are `CLOCK_MONOTONIC`, nanoseconds.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// Its executable mappings.
    pub mappings: MappingList,
    /// Whether it was started while we looked on (and not there before).
    pub started_under_watch: bool,
    /// Whether its last thread is gone.
    pub exited: bool,
    /// Whether the mappings are still those that it got from its parent.
    pub is_forked_copy: bool,
    /// What it runs.
    pub image: ImageId,
    /// What it ran before; samples of then may still arrive.
    previous_image: Option<ImageId>,
    /// When it began to run its image; 0 if that was before we looked.
    image_since_ns: u64,
    /// When it was read from `/proc`; 0 if never.
    read_ns: u64,
    /// When it may be read, or tried to, again, should its mappings seem to be out of date.
    read_again_ns: u64,
    /// How long after reading that is.
    read_interval_ns: u64,
    /// When its mappings were told the kernel side.
    published_ns: u64,
}

impl Process {
    /// A time at which the mappings were surely those of the image.
    #[must_use]
    pub fn image_ns(&self) -> u64 {
        self.image_since_ns.max(self.read_ns)
    }
}

/// Processes that ended are remembered so long for samples that are still to be fetched.
const REMEMBER_ENDED: Duration = Duration::from_secs(3);
/// Processes with more mappings than this (runtimes that generate code) …
const MANY_MAPPINGS: usize = 256;
/// … are told the kernel side at most this often.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(20);

/// How long `execve` may take to load a program on a machine that has much else to do.
const LOADING_LIMIT_NS: u64 = 2_000_000_000;
/// So long after a program has begun, and so often, it is looked whether it says by now what it is.
const CONTEXT_LIMIT_NS: u64 = 60_000_000_000;
const CONTEXT_INTERVAL_NS: u64 = 2_000_000_000;

/// The table of processes.
#[derive(Debug)]
pub struct ProcessTable {
    interest: Interest,
    processes: HashMap<u32, Process>,
    images: Images,
    ended: VecDeque<(Instant, u32, ImageId)>,
    changed: HashSet<u32>,
    endings: Endings,
    scan: Option<Scan>,
}

impl ProcessTable {
    /// An empty table.
    #[must_use]
    pub fn new(interest: Interest) -> Self {
        Self {
            interest,
            processes: HashMap::new(),
            images: Images::default(),
            ended: VecDeque::new(),
            changed: HashSet::new(),
            endings: Endings::default(),
            scan: None,
        }
    }

    /// The process of this id, also for a short while after its end.
    #[must_use]
    pub fn get(&self, pid: u32) -> Option<&Process> {
        self.processes.get(&pid)
    }

    /// What a process ran, or runs: of every image that samples were attributed to.
    #[must_use]
    pub fn image(&self, id: ImageId) -> Option<&Image> {
        self.images.get(id)
    }

    /// The object of the main executable that a process runs.
    #[must_use]
    pub fn executable_object(&self, pid: u32) -> Option<ObjectId> {
        self.image(self.get(pid)?.image)?.executable_object
    }

    /// A live process that has the object mapped, whose root may hold files that belong to it. O(processes).
    #[must_use]
    pub fn any_with_object(&self, object: ObjectId) -> Option<u32> {
        let with_object = |process: &Process| {
            !process.exited
                && process.mappings.as_slice().iter().any(
                    |mapping| matches!(mapping.content, MappingContent::Object { object: mapped, .. } if mapped == object),
                )
        };
        self.processes.iter().find_map(|(pid, process)| with_object(process).then_some(*pid))
    }

    /// The objects that processes have mapped, those that ended a moment ago included. O(mappings).
    #[must_use]
    pub fn mapped_objects(&self) -> HashSet<ObjectId> {
        self.processes.values().flat_map(|process| process.mappings.objects()).collect()
    }

    /// Forgets what processes ran that are gone, though samples were attributed to it. To be called when
    /// none of them is still to be named.
    pub fn forget_past_images(&mut self) {
        let present = self
            .processes
            .values()
            .flat_map(|process| process.previous_image.into_iter().chain([process.image]));
        self.images.keep_only(&present.collect());
    }

    /// Whether anything is to be known about `pid`.
    #[must_use]
    pub fn is_of_interest(&self, pid: u32) -> bool {
        match &self.interest {
            Interest::All => true,
            Interest::Only { pids, .. } => pids.contains(&pid),
        }
    }

    /// Adds processes to those of interest, if not all are.
    pub fn add_interest(&mut self, more: impl IntoIterator<Item = u32>) {
        if let Interest::Only { pids, .. } = &mut self.interest {
            pids.extend(more);
        }
    }

    /// Processes whose mappings are to be told the kernel side. Those with many mappings, which change
    /// often, wait a little for what else is coming.
    pub fn take_changed(&mut self) -> Vec<u32> {
        let now_ns = monotonic_ns();
        let mut taken = Vec::new();
        let processes = &mut self.processes;
        self.changed.retain(|pid| {
            let Some(process) = processes.get_mut(pid) else { return false };
            let wait_until_ns = process.published_ns.saturating_add(nanoseconds(PUBLISH_INTERVAL));
            if process.mappings.as_slice().len() > MANY_MAPPINGS && now_ns < wait_until_ns {
                return true;
            }
            process.published_ns = now_ns;
            taken.push(*pid);
            false
        });
        taken
    }

    /// Has a process's mappings be told the kernel side again.
    pub fn mark_changed(&mut self, pid: u32) {
        self.changed.insert(pid);
    }

    /// Processes that ended since the last call; those of a while ago are forgotten.
    pub fn take_ended(&mut self) -> Vec<u32> {
        self.take_ended_at(Instant::now())
    }

    fn take_ended_at(&mut self, now: Instant) -> Vec<u32> {
        let mut ended = self.endings.take(now);
        ended.retain(|&pid| self.end(pid, now));
        while let Some(&(since, pid, image)) = self.ended.front() {
            if now - since < REMEMBER_ENDED {
                break;
            }
            self.ended.pop_front();
            if self.processes.get(&pid).is_some_and(|process| process.exited && process.image == image)
                && let Some(process) = self.processes.remove(&pid)
            {
                self.images.end(process.image);
                process.previous_image.inspect(|&previous| self.images.end(previous));
            }
        }
        ended
    }

    /// When the table wants to be looked after next, however little happens: processes are to be read,
    /// published, or looked at for their end.
    #[must_use]
    pub fn due_in(&self) -> Option<Duration> {
        if self.scan.is_some() {
            return Some(Duration::ZERO);
        }
        let publish = (!self.changed.is_empty()).then_some(PUBLISH_INTERVAL);
        publish.into_iter().chain(self.endings.due_in(Instant::now())).min()
    }

    /// Takes one record into account.
    pub fn apply(&mut self, event: &ProcessEvent, objects: &mut ObjectRegistry, ids: &mut dyn ObjectIds) {
        match event {
            ProcessEvent::Forked { time_ns, pid, parent_pid, .. } if pid != parent_pid => {
                self.fork(*time_ns, *pid, *parent_pid);
            }
            ProcessEvent::Exec { time_ns, pid, .. } if self.is_of_interest(*pid) => self.exec(*time_ns, *pid),
            ProcessEvent::Mapped {
                time_ns,
                pid,
                begin,
                length,
                file_offset,
                device,
                inode,
                build_id,
                path,
                ..
            } if self.is_of_interest(*pid) => {
                let end = begin.saturating_add(*length);
                let build_id = build_id.as_deref();
                // The kernel tells either the build id or device and inode.
                let numbers = build_id.is_none().then_some(FileNumbers { device: *device, inode: *inode });
                let mapping = FileMapping {
                    pid: *pid,
                    begin: *begin,
                    end,
                    file_offset: *file_offset,
                    build_id,
                    numbers,
                    path,
                };
                // With a build id the kernel gives no inode; a file it is all the same.
                let inode = if build_id.is_some() { 1 } else { *inode };
                self.map(*time_ns, mapping, inode, objects, ids);
            }
            ProcessEvent::Exited { pid, tid, .. } if self.processes.contains_key(pid) => {
                self.endings.thread_exited(*pid, *tid);
            }
            _ => {}
        }
    }

    fn fork(&mut self, time_ns: u64, child: u32, parent: u32) {
        if let Interest::Only { pids, follow_children } = &mut self.interest {
            if !*follow_children || !pids.contains(&parent) {
                return;
            }
            pids.insert(child);
        }
        if let Some(known) = self.processes.get_mut(&child)
            && known.read_ns > time_ns
        {
            known.started_under_watch = true;
            return;
        }
        self.endings.began_anew(child);
        self.begin_image(child, time_ns);
        let parent = self.processes.get(&parent);
        let (mappings, image) =
            parent.map(|parent| (parent.mappings.clone(), parent.image)).unwrap_or_default();
        let inherited = self.images.get(image).cloned().unwrap_or_default();
        if let Some(process) = self.processes.get_mut(&child) {
            process.mappings = mappings;
            process.started_under_watch = true;
            process.is_forked_copy = true;
            if let Some(image) = self.images.get_mut(process.image) {
                image.executable = inherited.executable;
                image.executable_object = inherited.executable_object;
            }
        }
        // The kernel side lent the child its parent's table at the fork itself, for as long as the parent
        // keeps that one.
        self.changed.insert(child);
    }

    fn exec(&mut self, time_ns: u64, pid: u32) {
        self.endings.began_anew(pid);
        let process = self.know(pid);
        process.started_under_watch = true;
        if process.read_ns > time_ns {
            // What was read is the new program. If it was found out then, it began earlier.
            process.image_since_ns = process.image_since_ns.min(time_ns);
            self.changed.insert(pid);
            return;
        }
        self.begin_image(pid, time_ns);
        self.changed.insert(pid);
    }

    fn map(
        &mut self,
        time_ns: u64,
        mapping: FileMapping<'_>,
        inode: u64,
        objects: &mut ObjectRegistry,
        ids: &mut dyn ObjectIds,
    ) {
        let pid = mapping.pid;
        if !self.processes.contains_key(&pid) {
            // A record of a process that we never heard of: it was there before, or others were lost.
            self.read_process(pid, objects, ids);
        }
        let process = self.know(pid);
        if process.exited || process.read_ns > time_ns {
            return;
        }
        let image = process.image;
        let Some(content) = content_of(mapping, inode, objects, ids) else { return };
        if let Some(image) = self.images.get_mut(image) {
            image.note_mapping(mapping.path, content);
        }
        let new = ExecutableMapping { begin: mapping.begin, end: mapping.end, content };
        let process = self.know(pid);
        if process.mappings.insert(new) {
            process.is_forked_copy = false;
            self.changed.insert(pid);
        }
    }

    /// Says which image a sample is of, and what lies at its addresses outside of every object that the
    /// kernel side knew: generated code, an object that we have learnt of since, or still nothing.
    pub fn attribute(&mut self, sample: &mut RawSample) {
        let process = self.know(sample.pid);
        let is_current = sample.time_ns >= process.image_since_ns;
        let image = if is_current { process.image } else { process.previous_image.unwrap_or(process.image) };
        sample.image = image;
        if is_current {
            for frame in &mut sample.user {
                let RawFrame::Process { address } = *frame else { continue };
                *frame = match process.mappings.find(address).map(|mapping| mapping.content) {
                    Some(MappingContent::Jit) => RawFrame::Generated { address },
                    Some(MappingContent::Object { object, bias }) => {
                        RawFrame::Object { object, address: address.wrapping_sub(bias.0) }
                    }
                    Some(MappingContent::Uprobes) | None => *frame,
                };
            }
        }
        let (pid, exited, image_since_ns) = (sample.pid, process.exited, process.image_since_ns);
        if let Some(image) = self.images.get_mut(image) {
            // What has no arguments after this time has none.
            let is_new = sample.time_ns.saturating_sub(image_since_ns) < LOADING_LIMIT_NS;
            // SDKs publish what a process is some time after it has started.
            let is_young =
                image_since_ns != 0 && sample.time_ns.saturating_sub(image_since_ns) < CONTEXT_LIMIT_NS;
            let may_say_more = |known: &Identity| {
                let is_due = sample.time_ns.saturating_sub(known.read_ns) > CONTEXT_INTERVAL_NS;
                is_young && is_due && !known.has_context && is_current && !exited
            };
            let is_wanted =
                image.identity.as_ref().is_none_or(|known| known.is_early && is_new || may_say_more(known));
            if is_wanted {
                // Of what is over, /proc says nothing any more, or something else.
                let is_there = is_current && !exited;
                let read = if is_there { Identity::read(pid) } else { Identity::default() };
                image.identity = Some(read);
            }
        }
    }

    /// The process of this id; one that nothing is known of if need be.
    fn know(&mut self, pid: u32) -> &mut Process {
        let images = &mut self.images;
        self.processes
            .entry(pid)
            .or_insert_with(|| Process { image: images.begin(pid), ..Process::default() })
    }

    /// The process runs another image and has nothing mapped any more.
    fn begin_image(&mut self, pid: u32, since_ns: u64) {
        let image = self.images.begin(pid);
        let process = self.processes.entry(pid).or_default();
        let replaced = Process {
            image,
            previous_image: Some(process.image),
            image_since_ns: since_ns,
            started_under_watch: process.started_under_watch,
            ..Process::default()
        };
        let old = std::mem::replace(process, replaced);
        old.previous_image.inspect(|&before| self.images.end(before));
    }

    /// Marks a process as ended; says whether that is news.
    fn end(&mut self, pid: u32, now: Instant) -> bool {
        let Some(process) = self.processes.get_mut(&pid) else { return false };
        if std::mem::replace(&mut process.exited, true) {
            return false;
        }
        self.changed.remove(&pid);
        self.ended.push_back((now, pid, process.image));
        true
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What lies in an executable mapping, or `None` if it is nothing that can be unwound or named.
fn content_of(
    mapping: FileMapping<'_>,
    inode: u64,
    objects: &mut ObjectRegistry,
    ids: &mut dyn ObjectIds,
) -> Option<MappingContent> {
    match mapping.path.to_str() {
        Some("[vdso]") => objects.vdso_content(mapping.begin, mapping.end, ids),
        Some("[uprobes]") => Some(MappingContent::Uprobes),
        Some("[vsyscall]") => None,
        _ if inode != 0 => objects.file_content(mapping, ids),
        _ => Some(MappingContent::Jit),
    }
}

#[cfg(test)]
mod tests;
