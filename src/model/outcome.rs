//! How unwinding a user stack ended, and how reading the frames of a runtime did: mirrors `enum sf_outcome` of
//! `bpf/spanflame.h` and `enum sf_script_outcome` of `bpf/runtimes.h`.

use std::fmt;

use spanflame_symbols::script::Runtime;

macro_rules! outcomes {
    ($(#[$about:meta])+ $outcome:ident; $($variant:ident = $code:literal, $name:literal, $sentence:literal;)+) => {
        $(#[$about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $outcome {
            $(#[doc = $sentence] $variant = $code,)+
        }

        impl $outcome {
            /// Every outcome, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The outcome with this number in the contract, if there is one.
            #[must_use]
            pub fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }

            /// The name used in `--stats json`, in the pprof label `unwind` and in metrics.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The outcome of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }

            /// One sentence for a person who wonders why a stack is short.
            #[must_use]
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)+ }
            }
        }
    };
}

outcomes! {
    /// How the walk of a sample's user stack ended.
    Outcome;
    Complete = 0, "complete", "The walk reached the outermost frame.";
    NoUser = 1, "no_user", "There is no user stack: a kernel thread, an io worker, or a task that is exiting.";
    UnknownProcess = 2, "unknown_process", "The process was not known yet when the sample was taken.";
    UnknownMapping = 3, "unknown_mapping", "An address lies in no executable mapping that was known.";
    TablePending = 4, "table_pending", "The unwind table of the executable was still being built.";
    NoTable = 5, "no_table", "The executable carries no unwind information, or it could not be read.";
    NoRule = 6, "no_rule", "The executable's unwind information does not cover this address.";
    UnsupportedRule = 7, "unsupported_rule", "The unwind rule is of a form that is not evaluated.";
    StackUnreadable = 8, "stack_unreadable", "Stack memory was not resident and is never faulted in.";
    RegisterLost = 9, "register_lost", "The rule needs a register whose value is not known in this frame.";
    StackNotRising = 10, "stack_not_rising", "The frame address did not grow: a loop, or garbage.";
    FramePointerEnd = 11, "frame_pointer_end", "The frame-pointer chain ended in no known code.";
    Truncated = 12, "truncated", "The stack is deeper than the frame limit.";
    NoRegisters = 13, "no_registers", "The thread's user registers could not be read.";
    UprobeReturn = 14, "uprobe_return", "A return address hidden by a pending uretprobe could not be restored.";
}

outcomes! {
    /// How reading the frames of a runtime ended.
    ScriptEnd;
    None = 0, "none", "The process has no runtime whose frames are read, or the thread is none of its threads.";
    Complete = 1, "complete", "All frames were read.";
    NoThreadState = 2, "no_thread_state", "The thread's state in the runtime was not found.";
    Unreadable = 3, "unreadable", "Memory of the runtime was not resident and is never faulted in.";
    Inconsistent = 4, "inconsistent", "What was read cannot be: it was being changed, or is no such thing.";
    Truncated = 5, "truncated", "There are more frames than the limit.";
    Unsupported = 6, "unsupported", "The state or version is one whose layout is not known.";
}

/// How reading the frames of a runtime ended, for a sample of a process that has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScriptOutcome {
    /// Which runtime; `None`: none that is known.
    pub runtime: Option<Runtime>,
    /// How it ended.
    pub end: ScriptEnd,
}

impl ScriptOutcome {
    /// Of a process without a runtime.
    pub const NONE: Self = Self { runtime: None, end: ScriptEnd::None };

    /// From the numbers of the contract.
    #[must_use]
    pub fn from_codes(runtime: Option<Runtime>, end: u8) -> Option<Self> {
        Some(Self { runtime, end: ScriptEnd::from_code(end)? })
    }
}

impl Outcome {
    /// Whether the stack holds every frame down to the outermost one.
    #[must_use]
    pub fn is_complete(self) -> bool {
        self == Self::Complete
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_lead_back_to_their_outcome() {
        for (index, &outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(usize::from(outcome as u8), index, "codes are dense");
            assert_eq!(Outcome::from_code(outcome as u8), Some(outcome));
            assert_eq!(Outcome::from_name(outcome.name()), Some(outcome));
        }
        assert_eq!(Outcome::from_code(200), None);
    }
}
