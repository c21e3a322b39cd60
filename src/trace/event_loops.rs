//! Programs whose event loops are known: what they ask of others right after they have read a request, they ask
//! for that request. Of all other event loops nothing of the kind is certain (bpf/socket/requests.h).

use std::collections::HashMap;

use crate::kernel::{EbpfState, EventLoop, FileIdentity, SocketTracer, TurnProbes, UserProbesStatus};
use crate::process::EventLoopPrograms;

/// See the module's description.
#[derive(Debug)]
pub(super) struct EventLoops {
    programs: EventLoopPrograms,
    /// `None` if the kernel does not take them, which was said.
    probes: Option<TurnProbes>,
    /// The executables of living processes with probes.
    executables: HashMap<u32, FileIdentity>,
}

impl EventLoops {
    /// Loads the program.
    pub(super) fn new(socket: &SocketTracer) -> Self {
        let probes = TurnProbes::load(socket)
            .inspect_err(|error| tracing::warn!("what Node and nginx ask of others has no parents: {error}"));
        Self { programs: EventLoopPrograms::default(), probes: probes.ok(), executables: HashMap::new() }
    }

    /// Tells the kernel side of processes by their executables; `None`: the process runs no such program any more.
    pub(super) fn note(&mut self, socket: &SocketTracer, processes: &mut Vec<(u32, Option<String>)>) {
        for (pid, executable) in processes.drain(..) {
            let event_loop = executable.and_then(|executable| self.event_loop(pid, &executable));
            if event_loop.is_none()
                && self.executables.remove(&pid).is_some()
                && let Some(probes) = &mut self.probes
            {
                let executables = &self.executables;
                probes.keep_only(|file| executables.values().any(|used| used == file));
            }
            if let Err(error) = socket.set_event_loop(pid, event_loop) {
                tracing::warn!("what process {pid} asks of others is not told apart: {error}");
            }
        }
    }

    fn event_loop(&mut self, pid: u32, executable: &str) -> Option<EventLoop> {
        let probes = self.probes.as_mut()?;
        let process = self.programs.of(pid, executable)?;
        if let Err(error) = probes.attach(&process.file, &process.turns) {
            tracing::warn!("what {executable} asks of others has no parents: {error}");
            return None;
        }
        self.executables.insert(pid, process.file.identity());
        Some(process.event_loop)
    }

    /// The executables with probes.
    pub(super) fn status(&self) -> UserProbesStatus {
        self.probes.as_ref().map(TurnProbes::status).unwrap_or_default()
    }

    /// Kernel memory of its own maps.
    pub(super) fn map_bytes(&self) -> u64 {
        self.probes.as_ref().map_or(0, TurnProbes::map_bytes)
    }

    /// Adds the program and its maps, as the kernel has them.
    pub(super) fn add_ebpf(&self, state: &mut EbpfState) {
        state.extend(self.probes.as_ref().map(TurnProbes::ebpf));
    }

    /// Whether a process may be such a program, by its executable.
    pub(super) fn may_be_known(executable: &str) -> bool {
        EventLoopPrograms::may_be(executable)
    }
}
