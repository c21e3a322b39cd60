//! `--stats json`: what a recording took, wrote and lost (INTERFACE.md, "Command line").

use std::collections::BTreeMap;

use serde::Serialize;

use crate::kernel::Counters;
use crate::model::Outcome;
use crate::profile::RawWindow;
use crate::profile::aggregate::{Key, Weight};

/// The object that `--stats json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct Statistics {
    /// Where the samples went.
    pub samples: SampleAccount,
    /// How unwinding ended, of the samples written.
    pub stacks: StackAccount,
    /// The same by main executable.
    pub executables: Vec<ExecutableAccount>,
    /// From the start of this program to the first sample; null without one.
    pub start_to_first_sample_ms: Option<f64>,
    /// … to the first whose stack is complete.
    pub start_to_first_complete_ms: Option<f64>,
    /// User and system time of this program.
    pub agent_cpu_ms: f64,
    /// Run time of the BPF programs; null if the kernel did not let us measure it.
    pub bpf_run_ms: Option<f64>,
    /// `VmHWM`.
    pub agent_peak_memory_bytes: u64,
    /// Memory of the BPF maps.
    pub bpf_map_bytes: u64,
    /// User and kernel frames walked, for the cost of one.
    pub frames: FrameAccount,
}

/// taken = written + Σ lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SampleAccount {
    /// Timer ticks that hit something that was asked for.
    pub taken: u64,
    /// Samples in the file.
    pub written: u64,
    /// Ticks on idle CPUs, which are not taken.
    pub idle: u64,
    /// Samples that were taken and are not in the file, by reason.
    pub lost: BTreeMap<&'static str, u64>,
}

/// Of the samples written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StackAccount {
    /// The walk reached the outermost frame.
    pub complete: u64,
    /// It did not, by reason.
    pub incomplete: BTreeMap<&'static str, u64>,
    /// Kernel threads.
    pub no_user: u64,
}

/// The samples of one main executable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExecutableAccount {
    /// As the process saw it; empty if the process was never known.
    pub path: String,
    /// Lower-case hex, empty if unknown.
    pub build_id: String,
    /// Samples written that have a user stack.
    pub samples: u64,
    /// Of them complete.
    pub complete: u64,
}

/// Frames walked in the kernel, of all samples taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FrameAccount {
    /// User frames.
    pub user: u64,
    /// Kernel frames.
    pub kernel: u64,
}

impl SampleAccount {
    /// Accounts for every sample taken. What was neither counted as lost nor arrived is `unaccounted`
    /// rather than hidden: there is a mistake in the counting, and a warning says so.
    #[must_use]
    pub fn new(counters: &Counters, written: u64) -> Self {
        let mut lost = BTreeMap::new();
        for (reason, count) in [
            ("ring_buffer_full", counters.lost_ring_full),
            ("no_scratch_memory", counters.lost_no_scratch),
            ("malformed_event", counters.malformed),
        ] {
            if count > 0 {
                lost.insert(reason, count);
            }
        }
        let known = lost.values().fold(written, |sum, &count| sum.saturating_add(count));
        if let Some(unaccounted) = counters.taken.checked_sub(known).filter(|&count| count > 0) {
            tracing::warn!("{unaccounted} of {} samples are gone and nothing says why", counters.taken);
            lost.insert("unaccounted", unaccounted);
        }
        if known > counters.taken {
            tracing::warn!("{known} samples arrived or were lost, and only {} were taken", counters.taken);
        }
        // What arrived was taken, whatever a counter says.
        Self { taken: counters.taken.max(known), written, idle: counters.idle, lost }
    }
}

/// Counts outcomes over all and by executable.
#[must_use]
pub fn stacks(window: &RawWindow) -> (StackAccount, Vec<ExecutableAccount>) {
    let mut stacks = StackAccount::default();
    let mut executables: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for (Key { image, outcome, .. }, Weight { samples, .. }) in window.aggregate.sorted() {
        match outcome {
            Outcome::NoUser => {
                stacks.no_user += samples;
                continue;
            }
            Outcome::Complete => stacks.complete += samples,
            other => *stacks.incomplete.entry(other.name()).or_default() += samples,
        }
        let image = window.images.get(&image);
        let path = image.map(|image| image.executable.to_string_lossy().into_owned()).unwrap_or_default();
        let build_id = image
            .and_then(|image| window.objects.get(&image.executable_object?)?.file.as_ref())
            .map(|file| file.build_id().to_hex())
            .unwrap_or_default();
        let (total, complete) = executables.entry((path, build_id)).or_default();
        *total += samples;
        if outcome.is_complete() {
            *complete += samples;
        }
    }
    let mut executables: Vec<_> = executables
        .into_iter()
        .map(|((path, build_id), (samples, complete))| ExecutableAccount {
            path,
            build_id,
            samples,
            complete,
        })
        .collect();
    executables.sort_by_key(|executable| std::cmp::Reverse(executable.samples));
    (stacks, executables)
}

/// User and system time of this program so far, milliseconds.
#[must_use]
pub fn own_cpu_ms() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as f64 * 1e3 + spent.tv_nsec as f64 / 1e6
}

/// `VmHWM` of this program, bytes; 0 if `/proc` does not say.
#[must_use]
pub fn own_peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_names_each_loss_and_adds_up() {
        let counters =
            Counters { taken: 100, lost_ring_full: 7, malformed: 1, idle: 3, ..Counters::default() };
        let account = SampleAccount::new(&counters, 92);
        assert_eq!((account.taken, account.written, account.idle), (100, 92, 3));
        assert_eq!(account.lost, BTreeMap::from([("malformed_event", 1), ("ring_buffer_full", 7)]));
    }

    #[test]
    fn the_account_is_exact_also_when_the_counters_are_not() {
        let counters = Counters { taken: 100, lost_ring_full: 7, ..Counters::default() };
        let short = SampleAccount::new(&counters, 90);
        assert_eq!((short.taken, short.written), (100, 90));
        assert_eq!(short.lost, BTreeMap::from([("ring_buffer_full", 7), ("unaccounted", 3)]));
        let over = SampleAccount::new(&counters, 95);
        assert_eq!((over.taken, over.written), (102, 95), "what arrived was taken");
        assert_eq!(over.lost, BTreeMap::from([("ring_buffer_full", 7)]));
    }

    #[test]
    fn our_own_figures_are_not_zero() {
        assert!(own_cpu_ms() > 0.0);
        assert!(own_peak_memory_bytes() > 1 << 20);
    }
}
