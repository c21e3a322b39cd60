//! The program at the places where an event loop says that it goes on to something else (bpf/turns.bpf.c).

use spanflame_symbols::FileOffset;

use super::user_probes::{FileIdentity, ProbedFile, UserProbe, UserProbes, UserProbesStatus};
use super::{EbpfState, KernelError, SocketTracer};

static TURNS_OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/turns.bpf.o"));

/// See the module's description. Dropping it detaches everything.
#[derive(Debug)]
pub struct TurnProbes {
    probes: UserProbes,
}

impl TurnProbes {
    /// Loads the program. It is attached nowhere yet.
    ///
    /// # Errors
    /// [`KernelError::NotPermitted`] names the missing capability; else what the kernel refused.
    pub fn load(socket: &SocketTracer) -> Result<Self, KernelError> {
        Ok(Self { probes: UserProbes::load("the program for event loops", TURNS_OBJECT, socket)? })
    }

    /// Attaches it to the places in an executable where it goes on, for all processes that run it.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn attach(&mut self, file: &ProbedFile, turns: &[FileOffset]) -> Result<(), KernelError> {
        let probe = |&at: &FileOffset| UserProbe { program: "on_turn", at, cookie: 0 };
        let probes: Vec<UserProbe> = turns.iter().map(probe).collect();
        self.probes.attach(file, &probes).map(drop)
    }

    /// See [`UserProbes::keep_only`].
    pub fn keep_only(&mut self, is_wanted: impl FnMut(&FileIdentity) -> bool) {
        self.probes.keep_only(is_wanted);
    }

    /// The executables with probes.
    #[must_use]
    pub fn status(&self) -> UserProbesStatus {
        self.probes.status()
    }

    /// Kernel memory of the maps that are not the socket tracer's.
    #[must_use]
    pub fn map_bytes(&self) -> u64 {
        self.probes.map_bytes()
    }

    /// The program and the maps that are not the socket tracer's, as the kernel has them.
    #[must_use]
    pub fn ebpf(&self) -> EbpfState {
        self.probes.ebpf()
    }
}
