//! What `/proc` says of processes that were there before we looked, or whose records were lost.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::{Interest, ProcessTable, content_of};
use crate::kernel::monotonic_ns;
use crate::process::image::Image;
use crate::process::mapped_file::FileNumbers;
use crate::process::mapping_list::{ExecutableMapping, MappingList};
use crate::process::objects::{FileMapping, ObjectIds, ObjectRegistry};
use crate::process::proc_maps;
use crate::process::task_state::{self, TaskState};

/// A process whose mappings seem to be out of date is read again at most this often …
const MIN_READ_INTERVAL_NS: u64 = 200_000_000;
/// … and less and less often when reading brings nothing new, down to this.
const MAX_READ_INTERVAL_NS: u64 = 10_000_000_000;
/// Threads of one process that are asked whether they run.
const MAX_TASKS_ASKED: usize = 64;

/// Processes of `/proc` that are still to be read.
#[derive(Debug)]
pub(super) struct Scan {
    since_ns: u64,
    pids: Vec<u32>,
}

impl ProcessTable {
    /// Lists the processes of interest that are there, to be read by [`Self::scan`].
    ///
    /// # Errors
    /// The system's, if `/proc` cannot be listed.
    pub fn begin_scan(&mut self) -> std::io::Result<()> {
        let since_ns = monotonic_ns();
        let pids: Vec<u32> = match &self.interest {
            Interest::Only { pids, .. } => pids.iter().copied().collect(),
            Interest::All => std::fs::read_dir("/proc")?
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
                .collect(),
        };
        let there: HashSet<u32> = pids.iter().copied().collect();
        for (pid, process) in &self.processes {
            if !process.exited && !there.contains(pid) {
                self.endings.suspect(*pid);
            }
        }
        self.scan = Some(Scan { since_ns, pids });
        Ok(())
    }

    /// Reads processes that [`Self::begin_scan`] listed and that were not read since, for about `budget`.
    pub fn scan(&mut self, budget: Duration, objects: &mut ObjectRegistry, ids: &mut dyn ObjectIds) {
        let begin = Instant::now();
        let Some(mut scan) = self.scan.take() else { return };
        while let Some(pid) = scan.pids.pop() {
            if self.processes.get(&pid).is_none_or(|process| process.read_ns < scan.since_ns) {
                self.read_process(pid, objects, ids);
            }
            if begin.elapsed() >= budget {
                self.scan = Some(scan);
                return;
            }
        }
    }

    /// Reads those that [`Self::begin_scan`] listed and that are on a processor now or wait for one, for
    /// about `budget`. Says which these are.
    pub fn scan_busy(
        &mut self,
        budget: Duration,
        objects: &mut ObjectRegistry,
        ids: &mut dyn ObjectIds,
    ) -> Vec<u32> {
        let begin = Instant::now();
        let listed = self.scan.as_ref().map(|scan| scan.pids.clone()).unwrap_or_default();
        let mut busy = Vec::new();
        for pid in listed {
            if begin.elapsed() >= budget {
                break;
            }
            // Ourselves included: on an idle host we are what runs.
            if is_busy(pid) && self.read_process(pid, objects, ids) {
                busy.push(pid);
            }
        }
        busy
    }

    /// Whether a process should be read from `/proc`, given that a sample found its mappings unknown.
    #[must_use]
    pub fn may_be_read(&self, pid: u32) -> bool {
        let known = self.processes.get(&pid);
        self.is_of_interest(pid)
            && known.is_none_or(|process| !process.exited && process.read_again_ns <= monotonic_ns())
    }

    /// Reads one process from `/proc`. Says whether it is there, has memory and could be read.
    pub fn read_process(&mut self, pid: u32, objects: &mut ObjectRegistry, ids: &mut dyn ObjectIds) -> bool {
        let read_ns = monotonic_ns();
        let lines = proc_maps::read(pid);
        let executable = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let process = self.know(pid);
        process.read_again_ns = read_ns + MIN_READ_INTERVAL_NS;
        let image = process.image;
        let lines = match lines {
            // Kernel threads have no memory, and processes that end have none any more.
            Ok(lines) if lines.is_empty() => return false,
            Ok(lines) => lines,
            Err(error) => {
                if error.kind() == ErrorKind::NotFound
                    || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
                {
                    self.endings.suspect(pid);
                }
                return false;
            }
        };
        if self.images.get(image).is_some_and(|image| image.is_other_program(&executable)) {
            // Its execve went unheard.
            self.begin_image(pid, read_ns);
        }
        let mut image = Image { pid, executable, ..Image::default() };
        let mut mappings = MappingList::default();
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
                image.note_mapping(&line.path, content);
                mappings.insert(ExecutableMapping { begin: line.begin, end: line.end, content });
            }
        }
        let Some(process) = self.processes.get_mut(&pid) else { return false };
        if let Some(known) = self.images.get_mut(process.image) {
            known.executable = image.executable;
            known.executable_object = image.executable_object;
        }
        process.read_ns = read_ns;
        process.exited = false;
        process.is_forked_copy = false;
        if process.mappings == mappings {
            process.read_interval_ns = (process.read_interval_ns * 2).min(MAX_READ_INTERVAL_NS);
        } else {
            process.read_interval_ns = MIN_READ_INTERVAL_NS;
            process.mappings = mappings;
        }
        process.read_again_ns = read_ns + process.read_interval_ns.max(MIN_READ_INTERVAL_NS);
        self.changed.insert(pid);
        true
    }
}

/// Whether a thread of the process runs or wants to.
fn is_busy(pid: u32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let mut asked = tasks.flatten().take(MAX_TASKS_ASKED).map(|task| task_state::read(&task.path()));
    asked.any(|state| state.is_ok_and(|state| state == TaskState::Running))
}
