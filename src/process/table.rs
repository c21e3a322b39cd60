//! The processes of the host and what they have mapped, kept current by the kernel's records.
//!
//! `mmap` with `PROT_EXEC` adds a mapping, `execve` begins anew, `fork` inherits, exit ends. Processes
//! that were there before are read from `/proc`; so is a process that a record names and that we do
//! not know, which happens when records were lost. Everything is keyed by the process id of the
//! initial pid namespace.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::mapped_file::FileNumbers;
use super::mapping_list::{ExecutableMapping, MappingContent, MappingList};
use super::objects::{FileMapping, ObjectIds, ObjectRegistry};
use super::proc_maps;
use crate::kernel::ProcessEvent;
use crate::model::ObjectId;

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

/// One process.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// Its executable mappings.
    pub mappings: MappingList,
    /// The main executable as the process saw it; empty until known.
    pub executable: PathBuf,
    /// The object of the main executable.
    pub executable_object: Option<ObjectId>,
    /// Whether it was started while we looked on (and not there before).
    pub started_under_watch: bool,
    /// Whether its last thread is gone.
    pub exited: bool,
}

/// Processes that ended are remembered up to this many, so that their samples can still be named.
const MAX_EXITED: usize = 16_384;

/// The table of processes.
#[derive(Debug)]
pub struct ProcessTable {
    interest: Interest,
    processes: HashMap<u32, Process>,
    exited: std::collections::VecDeque<u32>,
    changed: HashSet<u32>,
    /// Processes that lost a thread and may be ending.
    leaving: HashSet<u32>,
}

impl ProcessTable {
    /// An empty table.
    #[must_use]
    pub fn new(interest: Interest) -> Self {
        Self {
            interest,
            processes: HashMap::new(),
            exited: std::collections::VecDeque::new(),
            changed: HashSet::new(),
            leaving: HashSet::new(),
        }
    }

    /// The process of this id, also for a while after its end.
    #[must_use]
    pub fn get(&self, pid: u32) -> Option<&Process> {
        self.processes.get(&pid)
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

    /// Whether anything is to be known about `pid`.
    #[must_use]
    pub fn is_of_interest(&self, pid: u32) -> bool {
        match &self.interest {
            Interest::All => true,
            Interest::Only { pids, .. } => pids.contains(&pid),
        }
    }

    /// Processes whose mappings changed since the last call, with what they are now.
    pub fn take_changed(&mut self) -> Vec<u32> {
        self.changed.drain().collect()
    }

    /// Processes that ended since the last call. A process ends with its last thread, and the record
    /// of a thread's exit is written while that thread is still listed: so those that lost a thread are
    /// looked at again until they are gone or have proved to live on.
    pub fn take_ended(&mut self) -> Vec<u32> {
        let mut ended = Vec::new();
        self.leaving.retain(|&pid| match life_of(pid) {
            Life::Over => {
                ended.push(pid);
                false
            }
            Life::MainThreadEnding => true,
            Life::GoesOn => false,
        });
        ended.retain(|&pid| self.exit(pid));
        ended
    }

    /// Reads the processes of interest that are there already.
    ///
    /// # Errors
    /// The system's, if `/proc` cannot be listed.
    pub fn read_running(
        &mut self,
        objects: &mut ObjectRegistry,
        ids: &mut dyn ObjectIds,
    ) -> std::io::Result<()> {
        let pids: Vec<u32> = match &self.interest {
            Interest::Only { pids, .. } => pids.iter().copied().collect(),
            Interest::All => std::fs::read_dir("/proc")?
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
                .collect(),
        };
        for pid in pids {
            self.read_process(pid, objects, ids);
        }
        Ok(())
    }

    /// Reads one process from `/proc`. Says whether it is there and could be read.
    pub fn read_process(&mut self, pid: u32, objects: &mut ObjectRegistry, ids: &mut dyn ObjectIds) -> bool {
        let Ok(lines) = proc_maps::read(pid) else { return false };
        let mut process = Process {
            executable: std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default(),
            started_under_watch: self.processes.get(&pid).is_some_and(|known| known.started_under_watch),
            ..Process::default()
        };
        for line in &lines {
            let mapping = FileMapping {
                pid,
                begin: line.begin,
                end: line.end,
                file_offset: line.file_offset,
                build_id: None,
                numbers: Some(FileNumbers { device: line.device, inode: line.inode }),
                path: &line.path,
            };
            if let Some(content) = content_of(mapping, line.inode, objects, ids) {
                note_executable(&mut process, &line.path, content);
                process.mappings.insert(ExecutableMapping { begin: line.begin, end: line.end, content });
            }
        }
        self.processes.insert(pid, process);
        self.changed.insert(pid);
        true
    }

    /// Takes one record into account.
    pub fn apply(&mut self, event: &ProcessEvent, objects: &mut ObjectRegistry, ids: &mut dyn ObjectIds) {
        match event {
            ProcessEvent::Forked { pid, parent_pid, .. } if pid != parent_pid => self.fork(*pid, *parent_pid),
            ProcessEvent::Exec { pid, .. } if self.is_of_interest(*pid) => {
                self.processes.insert(*pid, Process { started_under_watch: true, ..Process::default() });
                self.changed.insert(*pid);
            }
            ProcessEvent::Mapped {
                pid, begin, length, file_offset, device, inode, build_id, path, ..
            } if self.is_of_interest(*pid) => {
                if !self.processes.contains_key(pid) {
                    // A record of a process that we never heard of: others were lost, so ask /proc.
                    self.read_process(*pid, objects, ids);
                }
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
                let content = content_of(mapping, inode, objects, ids);
                let process = self.processes.entry(*pid).or_default();
                process.exited = false;
                if let Some(content) = content {
                    note_executable(process, path, content);
                    if process.mappings.insert(ExecutableMapping { begin: *begin, end, content }) {
                        self.changed.insert(*pid);
                    }
                }
            }
            ProcessEvent::Exited { pid, .. } if self.processes.contains_key(pid) => {
                self.leaving.insert(*pid);
            }
            _ => {}
        }
    }

    fn fork(&mut self, child: u32, parent: u32) {
        if let Interest::Only { pids, follow_children } = &mut self.interest {
            if !*follow_children || !pids.contains(&parent) {
                return;
            }
            pids.insert(child);
        }
        let inherited = self.processes.get(&parent).cloned().unwrap_or_default();
        self.processes.insert(child, Process { started_under_watch: true, exited: false, ..inherited });
        // Not a change to tell the kernel: it lent the child the parent's table at the fork itself, and
        // by the time that this record is read the child may have called execve.
        self.changed.remove(&child);
    }

    /// Marks a process as ended; says whether that is news.
    fn exit(&mut self, pid: u32) -> bool {
        let Some(process) = self.processes.get_mut(&pid) else { return false };
        if std::mem::replace(&mut process.exited, true) {
            return false;
        }
        self.changed.remove(&pid);
        self.exited.push_back(pid);
        while self.exited.len() > MAX_EXITED {
            let Some(oldest) = self.exited.pop_front() else { break };
            if self.processes.get(&oldest).is_some_and(|process| process.exited) {
                self.processes.remove(&oldest);
            }
        }
        true
    }
}

/// How a process that lost a thread goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// No thread is left to run.
    Over,
    /// One thread is left; it may be the one whose exit was reported.
    MainThreadEnding,
    /// Several threads are left: each of them will report its own exit.
    GoesOn,
}

fn life_of(pid: u32) -> Life {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Life::Over };
    let alive = tasks.flatten().filter(|task| {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { return false };
        // pid (comm) state …; comm may hold anything, so the state is looked for from the end.
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().as_bytes().first().copied());
        !matches!(state, Some(b'Z' | b'X' | b'x') | None)
    });
    match alive.take(2).count() {
        0 => Life::Over,
        1 => Life::MainThreadEnding,
        _ => Life::GoesOn,
    }
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

/// The first object that a new image maps is its executable: the kernel maps it before the loader.
fn note_executable(process: &mut Process, path: &Path, content: MappingContent) {
    let MappingContent::Object { object, .. } = content else { return };
    if process.executable.as_os_str().is_empty() {
        path.clone_into(&mut process.executable);
        process.executable_object = Some(object);
    } else if process.executable_object.is_none() && process.executable == path {
        process.executable_object = Some(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct CountingIds(u32);

    impl ObjectIds for CountingIds {
        fn next_object_id(&mut self) -> Option<ObjectId> {
            self.0 += 1;
            Some(ObjectId(self.0))
        }
    }

    struct World {
        table: ProcessTable,
        objects: ObjectRegistry,
        ids: CountingIds,
    }

    impl World {
        fn new(interest: Interest) -> Self {
            let (objects, ids) = (ObjectRegistry::default(), CountingIds(0));
            Self { table: ProcessTable::new(interest), objects, ids }
        }

        fn apply(&mut self, event: &ProcessEvent) {
            self.table.apply(event, &mut self.objects, &mut self.ids);
        }

        fn ranges(&self, pid: u32) -> Vec<(u64, u64)> {
            let process = self.table.get(pid).expect("the process is known");
            process.mappings.as_slice().iter().map(|mapping| (mapping.begin, mapping.end)).collect()
        }
    }

    /// Far beyond `pid_max`: no such process can exist.
    const NOBODY: u32 = 0x7fff_0000;

    fn anonymous(pid: u32, begin: u64, length: u64) -> ProcessEvent {
        ProcessEvent::Mapped {
            time_ns: 0,
            pid,
            tid: pid,
            begin,
            length,
            file_offset: 0,
            device: (0, 0),
            inode: 0,
            build_id: None,
            path: PathBuf::from("//anon"),
        }
    }

    fn forked(pid: u32, parent_pid: u32) -> ProcessEvent {
        ProcessEvent::Forked { time_ns: 0, pid, tid: pid, parent_pid, parent_tid: parent_pid }
    }

    #[test]
    fn a_child_inherits_mappings_and_loses_them_at_exec() {
        let mut world = World::new(Interest::All);
        world.apply(&anonymous(NOBODY, 0x1000, 0x1000));
        world.apply(&forked(NOBODY + 1, NOBODY));
        assert_eq!(world.ranges(NOBODY + 1), [(0x1000, 0x2000)]);
        world.apply(&ProcessEvent::Exec { time_ns: 0, pid: NOBODY + 1, comm: "new".to_owned() });
        world.apply(&anonymous(NOBODY + 1, 0x8000, 0x1000));
        assert_eq!(world.ranges(NOBODY + 1), [(0x8000, 0x9000)]);
        assert_eq!(world.ranges(NOBODY), [(0x1000, 0x2000)], "the parent keeps its own");
        assert!(world.table.get(NOBODY + 1).is_some_and(|child| child.started_under_watch));
        assert!(world.table.get(NOBODY).is_some_and(|parent| !parent.started_under_watch));
    }

    #[test]
    fn a_new_thread_changes_nothing() {
        let mut world = World::new(Interest::All);
        world.apply(&anonymous(NOBODY, 0x1000, 0x1000));
        world.table.take_changed();
        world.apply(&ProcessEvent::Forked {
            time_ns: 0,
            pid: NOBODY,
            tid: NOBODY + 1,
            parent_pid: NOBODY,
            parent_tid: NOBODY,
        });
        assert!(world.table.take_changed().is_empty());
    }

    #[test]
    fn only_what_was_asked_for_and_its_children_are_kept() {
        let pids = HashSet::from([NOBODY]);
        let mut world = World::new(Interest::Only { pids, follow_children: true });
        world.apply(&anonymous(NOBODY + 5, 0x1000, 0x1000));
        world.apply(&forked(NOBODY + 6, NOBODY + 5));
        world.apply(&forked(NOBODY + 1, NOBODY));
        world.apply(&forked(NOBODY + 2, NOBODY + 1));
        assert!(world.table.get(NOBODY + 5).is_none());
        assert!(world.table.get(NOBODY + 6).is_none());
        assert!(world.table.get(NOBODY + 2).is_some(), "a grandchild is a child's child");
    }

    #[test]
    fn a_process_ends_once_and_is_remembered() {
        let mut world = World::new(Interest::All);
        world.apply(&anonymous(NOBODY, 0x1000, 0x1000));
        let exit = ProcessEvent::Exited { time_ns: 0, pid: NOBODY, tid: NOBODY };
        world.apply(&exit);
        assert_eq!(world.table.take_ended(), [NOBODY]);
        world.apply(&exit);
        assert!(world.table.take_ended().is_empty());
        assert_eq!(world.ranges(NOBODY), [(0x1000, 0x2000)], "its samples can still be named");
    }

    #[test]
    fn a_thread_that_ends_does_not_end_its_process() {
        let mut world = World::new(Interest::All);
        let this = std::process::id();
        assert!(world.table.read_process(this, &mut world.objects, &mut world.ids));
        world.apply(&ProcessEvent::Exited { time_ns: 0, pid: this, tid: this + 1 });
        assert!(world.table.take_ended().is_empty());
    }

    #[test]
    fn remembered_processes_are_bounded() {
        let mut world = World::new(Interest::All);
        let count = u32::try_from(MAX_EXITED).expect("small") + 10;
        for pid in NOBODY..NOBODY + count {
            world.apply(&anonymous(pid, 0x1000, 0x1000));
            world.apply(&ProcessEvent::Exited { time_ns: 0, pid, tid: pid });
            world.table.take_ended();
        }
        assert_eq!(world.table.processes.len(), MAX_EXITED);
        assert!(world.table.get(NOBODY).is_none() && world.table.get(NOBODY + count - 1).is_some());
    }

    #[test]
    fn our_own_process_has_its_executable_its_libraries_and_the_vdso() {
        let mut world = World::new(Interest::All);
        let this = std::process::id();
        assert!(world.table.read_process(this, &mut world.objects, &mut world.ids));
        let process = world.table.get(this).expect("we are known");
        assert_eq!(Some(&process.executable), std::env::current_exe().ok().as_ref());
        let here = our_own_process_has_its_executable_its_libraries_and_the_vdso as fn() as usize as u64;
        let mapping = process.mappings.find(here).expect("our code is mapped");
        let MappingContent::Object { object, bias } = mapping.content else { panic!("it is an object") };
        assert_eq!(Some(object), process.executable_object);
        // The test binary's own symbol table is the oracle for the bias: its ELF address lies in text.
        let file = world.objects.get(object).and_then(|object| object.file.clone().ok()).expect("opened");
        let address = here.wrapping_sub(bias.0);
        let within = file.segments().iter().find(|segment| {
            segment.executable
                && (segment.address.0..segment.address.0 + segment.memory_bytes).contains(&address)
        });
        assert!(within.is_some(), "{address:#x} is no text address");
        assert!(world.objects.iter().any(|(_, object)| object.path == Path::new("[vdso]")));
    }
}
