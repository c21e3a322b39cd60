//! Takes samples as they arrive, and has learnt what must be learnt while their process still lives.

use super::aggregate::Aggregate;
use super::known_processes::KnownProcesses;
use super::naming::Namer;
use super::raw_window::RawWindow;
use super::session::Session;
use crate::model::{ObjectId, RawFrame, RawSample};

/// The samples of the window at hand.
#[derive(Debug)]
pub struct Collector {
    aggregate: Aggregate,
    namer: Namer,
    first_sample_ns: Option<u64>,
    first_complete_ns: Option<u64>,
}

impl Collector {
    /// Without samples. `namer` is asked for the names of generated code.
    #[must_use]
    pub fn new(namer: Namer) -> Self {
        Self { aggregate: Aggregate::default(), namer, first_sample_ns: None, first_complete_ns: None }
    }

    /// Counts a sample.
    pub fn add(&mut self, sample: RawSample) {
        if sample.user.iter().any(|frame| matches!(frame, RawFrame::Generated { .. })) {
            self.namer.read_generated_code(sample.pid);
        }
        let earlier =
            |first: Option<u64>| Some(first.map_or(sample.time_ns, |first| first.min(sample.time_ns)));
        self.first_sample_ns = earlier(self.first_sample_ns);
        if sample.outcome.is_complete() {
            self.first_complete_ns = earlier(self.first_complete_ns);
        }
        self.aggregate.add(sample);
    }

    /// What was counted.
    #[must_use]
    pub fn aggregate(&self) -> &Aggregate {
        &self.aggregate
    }

    /// Whom to have windows named by.
    pub fn namer(&mut self) -> &mut Namer {
        &mut self.namer
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

    /// Ends the window and begins another. `main_object` is listed first.
    pub fn take_window(&mut self, main_object: Option<ObjectId>, session: &Session) -> RawWindow {
        let aggregate = std::mem::take(&mut self.aggregate);
        let KnownProcesses { objects, processes, .. } = &session.known;
        RawWindow::new(aggregate, main_object, objects, processes, session.script_names())
    }
}
