//! Counts equal stacks of equal threads: what is kept of samples until they are given names.

use std::collections::HashMap;

use crate::model::{ImageId, Interner, Outcome, RawFrame, RawSample};

/// A stack before symbolization.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct RawStack {
    /// Kernel addresses, leaf first.
    pub kernel: Vec<u64>,
    /// User frames, leaf first.
    pub user: Vec<RawFrame>,
}

/// What samples must have in common to be counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// The program that the process ran.
    pub image: ImageId,
    /// Index in [`Aggregate::names`] of the process's name.
    pub comm: u32,
    /// Index in [`Aggregate::names`] of the thread's name.
    pub thread_name: u32,
    /// Index in [`Aggregate::stacks`].
    pub stack: u32,
    /// How unwinding ended.
    pub outcome: Outcome,
}

/// How many samples, and the time they stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weight {
    /// Samples.
    pub samples: u64,
    /// Nanoseconds.
    pub time_ns: u64,
}

/// Samples counted by process, thread and stack.
#[derive(Debug, Clone, Default)]
pub struct Aggregate {
    stacks: Interner<RawStack>,
    names: Interner<String>,
    weights: HashMap<Key, Weight>,
    samples: u64,
}

impl Aggregate {
    /// Counts one sample.
    pub fn add(&mut self, sample: RawSample) {
        let key = Key {
            pid: sample.pid,
            tid: sample.tid,
            image: sample.image,
            comm: self.names.intern(sample.comm),
            thread_name: self.names.intern(sample.thread_name),
            stack: self.stacks.intern(RawStack { kernel: sample.kernel, user: sample.user }),
            outcome: sample.outcome,
        };
        let weight = self.weights.entry(key).or_default();
        weight.samples += 1;
        weight.time_ns += sample.weight_ns;
        self.samples += 1;
    }

    /// Samples counted so far.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The distinct stacks.
    #[must_use]
    pub fn stacks(&self) -> &Interner<RawStack> {
        &self.stacks
    }

    /// The distinct names of processes and threads.
    #[must_use]
    pub fn names(&self) -> &Interner<String> {
        &self.names
    }

    /// Every key with its weight, in a fixed order.
    #[must_use]
    pub fn sorted(&self) -> Vec<(Key, Weight)> {
        let mut sorted: Vec<_> = self.weights.iter().map(|(key, weight)| (*key, *weight)).collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ObjectId;

    fn sample(tid: u32, address: u64) -> RawSample {
        RawSample {
            time_ns: 0,
            weight_ns: 10,
            pid: 1,
            tid,
            image: ImageId(1),
            comm: "server".to_owned(),
            thread_name: format!("worker-{tid}"),
            kernel: vec![],
            kernel_truncated: false,
            user: vec![RawFrame::Object { object: ObjectId(1), address }],
            outcome: Outcome::Complete,
            stopped_at: 0,
        }
    }

    #[test]
    fn equal_stacks_of_one_thread_are_one_entry_and_nothing_is_lost() {
        let mut aggregate = Aggregate::default();
        aggregate.add(sample(1, 0x10));
        aggregate.add(sample(1, 0x10));
        aggregate.add(sample(1, 0x20));
        aggregate.add(sample(2, 0x10));
        let sorted = aggregate.sorted();
        assert_eq!(sorted.len(), 3);
        assert_eq!(aggregate.stacks().len(), 2, "threads share their stacks");
        assert_eq!(sorted.iter().map(|(_, weight)| weight.samples).sum::<u64>(), aggregate.samples());
        assert_eq!(sorted.iter().map(|(_, weight)| weight.time_ns).sum::<u64>(), 40);
    }
}
