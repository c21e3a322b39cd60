//! A sample as the kernel side hands it on: addresses, no names.

use spanflame_symbols::script::ScriptFrame;

use super::{Outcome, RequestKey, ScriptOutcome, Stamp};

/// Names an object (executable, library, vDSO) that is or was mapped, for the life of this program.
/// Dense from 1; its number is an index of the BPF map `objects`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub u32);

/// Names one program run by one process: from its fork or `execve` to its next `execve` or its end.
/// Never used twice; 0 is a sample that nobody has attributed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ImageId(pub u64);

/// One user frame before symbolization. Addresses are ones to look up as they are: a caller's is
/// that of its call instruction, not of the instruction after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RawFrame {
    /// An ELF address in an object.
    Object {
        /// The object.
        object: ObjectId,
        /// ELF address.
        address: u64,
    },
    /// A process address outside of every object that the kernel side knew. What lies there is looked
    /// up when the sample arrives; then this means that nothing known does.
    Process {
        /// Process address.
        address: u64,
    },
    /// A process address in code that was generated at run time.
    Generated {
        /// Process address.
        address: u64,
    },
    /// A frame of a runtime.
    Script(ScriptFrame),
}

/// One sample as it left the ring buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawSample {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// The time this sample stands for, nanoseconds.
    pub weight_ns: u64,
    /// Process id (thread group), initial pid namespace.
    pub pid: u32,
    /// Thread id, initial pid namespace.
    pub tid: u32,
    /// The request that the thread or goroutine was at, as the kernel side saw it.
    pub request: Option<RequestKey>,
    /// The span that the application itself says the thread or goroutine is in, or where neither it nor we know of
    /// one, another tracer of this host.
    pub said: Option<Stamp>,
    /// Labels that the program gave to what the goroutine does, in its order: name and value.
    pub labels: Vec<(String, String)>,
    /// The program that the process ran; the process table knows it.
    pub image: ImageId,
    /// Name of the process, i.e. of its first thread.
    pub comm: String,
    /// Name of the thread.
    pub thread_name: String,
    /// Kernel addresses, leaf first.
    pub kernel: Vec<u64>,
    /// Whether the kernel's stack is deeper than the frame limit, so that its outermost frames are
    /// missing: a cut between kernel and user frames.
    pub kernel_truncated: bool,
    /// User frames, leaf first.
    pub user: Vec<RawFrame>,
    /// Frames of an interpreter that keeps them aside, leaf first: they belong where its evaluation function
    /// stands among the user frames.
    pub aside: Vec<ScriptFrame>,
    /// How reading a runtime's frames ended.
    pub script_outcome: ScriptOutcome,
    /// How the walk of the user stack ended.
    pub outcome: Outcome,
    /// The process address at which an incomplete walk ended; 0 if complete.
    pub stopped_at: u64,
}
