//! Takes samples as they arrive, and what must be learnt while their process still lives: the names of
//! its generated code.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use spanflame_symbols::symbolize::Symbolizer;

use super::aggregate::Aggregate;
use super::resolve::{self, Taken, World};
use crate::model::{ObjectId, Profile, RawFrame, RawSample};
use crate::process::{ObjectRegistry, ProcessTable};

/// How often the names of a process's generated code are read on: a runtime reuses addresses.
const GENERATED_CODE_INTERVAL: Duration = Duration::from_secs(1);

/// Samples of one stretch of time, and what is known of their processes.
#[derive(Debug, Default)]
pub struct Collector {
    aggregate: Aggregate,
    generated_code_read: HashMap<u32, Instant>,
    symbolizer: Symbolizer,
    first_sample_ns: Option<u64>,
    first_complete_ns: Option<u64>,
}

impl Collector {
    /// Counts a sample.
    pub fn add(&mut self, sample: RawSample) {
        if sample.user.iter().any(|frame| matches!(frame, RawFrame::Generated { .. })) {
            self.read_generated_code(sample.pid);
        }
        let earlier =
            |first: Option<u64>| Some(first.map_or(sample.time_ns, |first| first.min(sample.time_ns)));
        self.first_sample_ns = earlier(self.first_sample_ns);
        if sample.outcome.is_complete() {
            self.first_complete_ns = earlier(self.first_complete_ns);
        }
        self.aggregate.add(sample);
    }

    fn read_generated_code(&mut self, pid: u32) {
        let now = Instant::now();
        let due =
            self.generated_code_read.get(&pid).is_none_or(|&last| now - last >= GENERATED_CODE_INTERVAL);
        if due {
            self.generated_code_read.insert(pid, now);
            self.symbolizer.remember_process(pid);
        }
    }

    /// What was counted.
    #[must_use]
    pub fn aggregate(&self) -> &Aggregate {
        &self.aggregate
    }

    /// When the first sample was taken, `CLOCK_MONOTONIC` nanoseconds.
    #[must_use]
    pub fn first_sample_ns(&self) -> Option<u64> {
        self.first_sample_ns
    }

    /// When the first sample with a complete stack was taken, `CLOCK_MONOTONIC` nanoseconds.
    #[must_use]
    pub fn first_complete_ns(&self) -> Option<u64> {
        self.first_complete_ns
    }

    /// Names everything that was counted. `main_object` is listed first.
    pub fn profile(
        &mut self,
        objects: &ObjectRegistry,
        processes: &ProcessTable,
        main_object: Option<ObjectId>,
        taken: Taken,
    ) -> Profile {
        let world = World { objects, processes, main_object };
        resolve::profile(&self.aggregate, world, &mut self.symbolizer, taken)
    }
}
