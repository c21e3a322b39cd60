//! Frames of language runtimes, which are named by objects in the memory of a process and not by symbols of a
//! file: what all of them have in common. `python/`, `v8/` and `hotspot/` find such a runtime in a process, say
//! where it keeps what the kernel side reads, and give names to what that has read.

pub mod markers;

use std::sync::Arc;

use crate::ObjectFile;
use crate::address::Bias;
use crate::process_memory::{ProcessMemory, Unreadable};

/// Which runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Runtime {
    /// CPython.
    Python,
    /// V8, as Node has it.
    V8,
    /// HotSpot, the Java virtual machine.
    Hotspot,
}

impl Runtime {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Python, Self::V8, Self::Hotspot];

    /// As OTLP's `profile.frame.type` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Python => "cpython",
            Self::V8 => "v8js",
            Self::Hotspot => "jvm",
        }
    }
}

/// A frame of a runtime as the kernel side recorded it (`struct sf_script_frame`); what its numbers mean is said
/// at the head of the runtime's unwinder, `bpf/unwind/{python,v8,hotspot}.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScriptFrame {
    /// Which runtime's.
    pub runtime: Runtime,
    /// What sort of frame, as the runtime's unwinder says.
    pub kind: u8,
    /// Whether C code called the interpreter for this frame (CPython).
    pub is_entry: bool,
    /// Whether it is the innermost frame, so that `address` is that of the instruction itself.
    pub is_leaf: bool,
    /// Process address of the machine code, to look up as it is; 0 if it has none of its own.
    pub address: u64,
    /// Process address of what names the function.
    pub object: u64,
    /// Process address of a second object, or 0.
    pub other: u64,
    /// Where in the function.
    pub position: u32,
    /// What tells `object` from another one that came to lie at its address.
    pub identity: u32,
}

/// Set in [`ScriptFrame::kind`] for machine code that was compiled of the function (`SF_SCRIPT_COMPILED`); else an
/// interpreter works through it.
pub const COMPILED: u8 = 0x80;

impl ScriptFrame {
    /// Whether machine code of the function itself ran.
    #[must_use]
    pub const fn is_compiled(&self) -> bool {
        self.kind & COMPILED != 0
    }
}

/// A function of a program in a runtime's language, at a line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScriptFunction {
    /// Its name with what it is a part of: `Handler.do_GET`, `com.example.Shop.order`.
    pub name: String,
    /// Source file as the runtime knows it; empty if it does not.
    pub file: String,
    /// Line on which the function begins; 0 if that is not known.
    pub start_line: u32,
    /// Line that was being worked on; 0 if that is not known.
    pub line: u32,
    /// Whether this frame and those inlined in it are the nearest that the runtime has a record of, not exactly
    /// this address's.
    pub is_approximate: bool,
}

/// Why a frame has no name. Wrong is worse than unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// The object is another one by now: it was moved, or freed and its memory used again.
    ObjectMoved,
    /// Its memory cannot be read: the process is gone, or the memory is.
    Unreadable,
    /// What is there is no such object.
    Malformed,
    /// Its layout is not known for this version.
    Unsupported,
    /// Its memory does not come, or too slowly: it is a file's, on a slow disk or of a file system that does not answer.
    TooSlow,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::ObjectMoved, Self::Unreadable, Self::Malformed, Self::Unsupported, Self::TooSlow];

    /// For metrics and labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ObjectMoved => "object_moved",
            Self::Unreadable => "unreadable",
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::TooSlow => "too_slow",
        }
    }
}

impl From<Unreadable> for Refusal {
    fn from(_: Unreadable) -> Self {
        Self::Unreadable
    }
}

/// An object file that a process has mapped.
#[derive(Debug, Clone)]
pub struct MappedObject {
    /// The file.
    pub file: Arc<ObjectFile>,
    /// What is added to its addresses in this process.
    pub bias: Bias,
}

/// Why a runtime that is there cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRead {
    /// Not (yet): its memory is not set up, or cannot be read. Worth asking again a moment later.
    #[error("{runtime} is not set up yet, or cannot be read: {what}")]
    NotYet {
        /// As users know it.
        runtime: &'static str,
        /// What is missing.
        what: String,
    },
    /// Never in this process.
    #[error("{runtime} {version} is not supported: {what}")]
    Unsupported {
        /// As users know it.
        runtime: &'static str,
        /// Its version, as far as that is known.
        version: String,
        /// What is missing.
        what: String,
    },
}

/// A runtime in a process. It is asked on a thread of its own: reading memory may wait.
pub trait ScriptRuntime: Send + Sync + std::fmt::Debug {
    /// Which.
    fn runtime(&self) -> Runtime;

    /// Its version as users know it: `3.11.9`, `20.20.2`, `17.0.17+10`.
    fn version(&self) -> &str;

    /// Its layout as the kernel side wants it: the bytes of `struct sf_python`, `sf_v8` or `sf_hotspot`, the value of
    /// its entry in the map of that runtime.
    fn layout(&self) -> Vec<u8>;

    /// Names a frame: innermost inlined function first, the last is the one that the frame is of. Empty if the
    /// frame is none of a program's (a stub of the runtime that is of no interest).
    ///
    /// # Errors
    /// [`Refusal`].
    fn name(&self, frame: &ScriptFrame, memory: &dyn ProcessMemory) -> Result<Vec<ScriptFunction>, Refusal>;

    /// Whether an address of an object is of the function that works through script frames that are kept aside:
    /// there they belong. Only CPython has such.
    fn is_evaluation(&self, object: &Arc<ObjectFile>, address: crate::ElfAddress) -> bool {
        let _ = (object, address);
        false
    }
}
