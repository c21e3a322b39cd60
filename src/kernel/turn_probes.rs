//! The program at the places where an event loop says that it goes on to something else (bpf/turns.bpf.c).

use spanflame_symbols::FileOffset;

use super::user_probes::{ProbedFile, UserProbe, UserProbes};
use super::{KernelError, SocketTracer};

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

    /// How probes of executables are asked for, and told of.
    #[must_use]
    pub fn user_probes(&self) -> &UserProbes {
        &self.probes
    }

    /// Likewise.
    pub fn user_probes_mut(&mut self) -> &mut UserProbes {
        &mut self.probes
    }
}
