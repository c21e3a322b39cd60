//! The Go programs of this host: what the kernel side must know of each process, and the probes in their
//! executables.

use std::collections::HashMap;

use crate::kernel::{
    EbpfState, FileIdentity, GoCounters, GoProbes, ProbedFile, SocketTracer, UserProbesStatus,
};
use crate::process::GoProcess;

/// See the module's description.
#[derive(Debug)]
pub(super) struct GoProcesses {
    /// `None` if the kernel does not take them, which was said.
    probes: Option<GoProbes>,
    /// The executables of living processes.
    executables: HashMap<u32, FileIdentity>,
}

impl GoProcesses {
    /// Loads the programs; without them goroutines are told apart all the same.
    pub(super) fn new(socket: &SocketTracer) -> Self {
        let probes = GoProbes::load(socket).inspect_err(|error| {
            tracing::warn!("what Go programs ask of others has no parents, except where they write it themselves: {error}");
        });
        Self { probes: probes.ok(), executables: HashMap::new() }
    }

    /// The counters of the programs.
    pub(super) fn counters(&self) -> GoCounters {
        self.probes.as_ref().and_then(|probes| probes.counters().ok()).unwrap_or_default()
    }

    /// The executables with probes: those for requests, and those for TLS.
    pub(super) fn status(&self) -> [UserProbesStatus; 2] {
        self.probes.as_ref().map(GoProbes::status).unwrap_or_default()
    }

    /// Adds the programs and maps, as the kernel has them.
    pub(super) fn add_ebpf(&self, state: &mut EbpfState) {
        if let Some(probes) = &self.probes {
            probes.add_ebpf(state);
        }
    }

    /// Kernel memory of their own maps.
    pub(super) fn map_bytes(&self) -> u64 {
        self.probes.as_ref().map_or(0, GoProbes::map_bytes)
    }

    /// Tells the kernel side of processes that are Go programs from now on (`Some`) or not any more. The ones whose
    /// crypto/tls is read from now on are put to `readable`.
    pub(super) fn note(
        &mut self,
        socket: &SocketTracer,
        processes: &mut Vec<(u32, Option<GoProcess>)>,
        readable: &mut Vec<u32>,
    ) {
        let mut has_ended = false;
        for (pid, process) in processes.drain(..) {
            match process {
                Some(process) => {
                    self.begin(socket, pid, process);
                    readable.push(pid);
                }
                None => {
                    socket.remove_go_process(pid);
                    has_ended |= self.executables.remove(&pid).is_some();
                }
            }
        }
        if has_ended && let Some(probes) = &mut self.probes {
            let executables = &self.executables;
            probes.keep_only(|file| executables.values().any(|used| used == file));
            probes.forget_reads(|pid| executables.contains_key(&pid));
        }
    }

    fn begin(&mut self, socket: &SocketTracer, pid: u32, process: GoProcess) {
        let Some(offsets) = &process.goroutines else {
            socket.remove_go_process(pid);
            return;
        };
        let code = process.code.as_deref().map(|code| (code, process.load_bias));
        if let Err(error) = socket.set_go_process(pid, offsets, code) {
            tracing::warn!("the goroutines of process {pid} are not told apart: {error}");
            return;
        }
        let (Some(probes), Some(code)) = (&mut self.probes, &process.code) else { return };
        let Ok(file) = ProbedFile::new(process.file, &process.path) else { return };
        self.executables.insert(pid, file.identity());
        if let Err(error) = probes.attach(&file, code) {
            tracing::warn!(
                "requests between goroutines of {} are not followed: {error}",
                process.path.display()
            );
        }
    }
}
