//! Counts equal stacks of equal threads: what is kept of samples until they are given names.

use std::collections::HashMap;

use spanflame_symbols::script::ScriptFrame;

use crate::model::{
    ImageId, Interner, ObjectId, Outcome, RawFrame, RawSample, RequestKey, RequestSpans, SliceInterner, Stamp,
};

/// An address of the program, wherever it lies: what is to be named, once however often it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// An ELF address in an object.
    Object(ObjectId, u64),
    /// A kernel address.
    Kernel(u64),
    /// Generated code of a process.
    Jit(u32, u64),
    /// A frame of a program's runtime.
    Script(ImageId, ScriptFrame),
    /// Nowhere that is known.
    Unknown(u64),
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
    /// Index in [`Aggregate::label_sets`].
    pub labels: u32,
    /// Index in [`Aggregate::stacks`].
    pub stack: u32,
    /// How unwinding ended.
    pub outcome: Outcome,
    /// The span that was being worked on, if that is known.
    pub span: Option<Stamp>,
}

/// How many samples, and the time they stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weight {
    /// Samples.
    pub samples: u64,
    /// Nanoseconds.
    pub time_ns: u64,
}

/// A thread under one name, running one program, at something that has these labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Thread {
    pid: u32,
    tid: u32,
    image: ImageId,
    comm: u32,
    thread_name: u32,
    labels: u32,
}

/// A [`Key`] as it is kept: there is one for almost every sample where stacks differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct CompactKey {
    /// Index in [`Aggregate::threads`].
    thread: u32,
    stack: u32,
    outcome: Outcome,
    /// Index in [`Aggregate::spans`].
    span: Option<u32>,
}

/// A sample taken in a request: which span that is, and whether the sample lies in it, may be known only later.
#[derive(Debug, Clone, Copy)]
struct InRequest {
    key: CompactKey,
    request: RequestKey,
    time_ns: u64,
    weight_ns: u64,
}

/// Samples counted by process, thread and stack. A stack that is like no other takes four bytes a frame
/// and about 80 more.
#[derive(Debug, Clone, Default)]
pub struct Aggregate {
    places: Interner<Place>,
    /// Indices in `places`, leaf first.
    stacks: SliceInterner<u32>,
    names: Interner<String>,
    label_sets: Interner<Vec<(String, String)>>,
    threads: Interner<Thread>,
    spans: Interner<Stamp>,
    weights: HashMap<CompactKey, Weight>,
    in_requests: Vec<InRequest>,
    samples: u64,
    /// The stack of the sample at hand.
    stack: Vec<u32>,
}

impl Aggregate {
    /// Counts one sample.
    pub fn add(&mut self, sample: RawSample) {
        let thread = Thread {
            pid: sample.pid,
            tid: sample.tid,
            image: sample.image,
            comm: self.names.intern(sample.comm),
            thread_name: self.names.intern(sample.thread_name),
            labels: self.label_sets.intern(sample.labels),
        };
        self.stack.clear();
        for &address in &sample.kernel {
            self.stack.push(self.places.intern(Place::Kernel(address)));
        }
        for frame in &sample.user {
            let place = match *frame {
                RawFrame::Object { object, address } => Place::Object(object, address),
                RawFrame::Generated { address } => Place::Jit(sample.pid, address),
                RawFrame::Process { address } => Place::Unknown(address),
                RawFrame::Script(frame) => Place::Script(sample.image, frame),
            };
            self.stack.push(self.places.intern(place));
        }
        let key = CompactKey {
            thread: self.threads.intern(thread),
            stack: self.stacks.intern(&self.stack),
            outcome: sample.outcome,
            // What the application says itself is more than what anybody could infer.
            span: sample.said.map(|stamp| self.spans.intern(stamp)),
        };
        self.samples += 1;
        match sample.request.filter(|_| key.span.is_none()) {
            Some(request) => {
                let RawSample { time_ns, weight_ns, .. } = sample;
                self.in_requests.push(InRequest { key, request, time_ns, weight_ns });
            }
            None => self.count(key, sample.weight_ns),
        }
    }

    fn count(&mut self, key: CompactKey, weight_ns: u64) {
        let weight = self.weights.entry(key).or_default();
        weight.samples += 1;
        weight.time_ns += weight_ns;
    }

    /// Decides for samples that were taken in requests in which spans they lie. Without anybody who knows, in
    /// none. To be called once all samples are there: those of requests are not counted before.
    pub fn settle(&mut self, spans: Option<&dyn RequestSpans>) {
        for InRequest { key, request, time_ns, weight_ns } in std::mem::take(&mut self.in_requests) {
            let stamp = spans.and_then(|spans| spans.span_at(request, time_ns).ok());
            let span = stamp.map(|stamp| self.spans.intern(stamp));
            self.count(CompactKey { span, ..key }, weight_ns);
        }
    }

    /// Whether samples wait for [`Aggregate::settle`] to be counted.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.in_requests.is_empty()
    }

    /// Samples counted so far.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The distinct addresses of all stacks.
    #[must_use]
    pub fn places(&self) -> &Interner<Place> {
        &self.places
    }

    /// The distinct stacks: indices in [`Aggregate::places`], kernel before user, leaf first.
    #[must_use]
    pub fn stacks(&self) -> &SliceInterner<u32> {
        &self.stacks
    }

    /// The distinct names of processes and threads.
    #[must_use]
    pub fn names(&self) -> &Interner<String> {
        &self.names
    }

    /// The distinct sets of labels that programs gave.
    #[must_use]
    pub fn label_sets(&self) -> &Interner<Vec<(String, String)>> {
        &self.label_sets
    }

    /// What the processes ran, an image as often as it has threads.
    pub fn images(&self) -> impl Iterator<Item = ImageId> {
        self.threads.iter().map(|thread| thread.image)
    }

    /// Every key with its weight, in a fixed order, once it is settled.
    #[must_use]
    pub fn sorted(&self) -> Vec<(Key, Weight)> {
        let with_thread = |(key, weight): (&CompactKey, &Weight)| {
            let &Thread { pid, tid, image, comm, thread_name, labels } = self.threads.get(key.thread)?;
            let &CompactKey { stack, outcome, span, .. } = key;
            let span = span.and_then(|span| self.spans.get(span)).copied();
            Some((Key { pid, tid, image, comm, thread_name, labels, stack, outcome, span }, *weight))
        };
        let mut sorted = Vec::with_capacity(self.weights.len());
        sorted.extend(self.weights.iter().filter_map(with_thread));
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
            request: None,
            said: None,
            labels: Vec::new(),
            image: ImageId(1),
            comm: "server".to_owned(),
            thread_name: format!("worker-{tid}"),
            kernel: vec![],
            kernel_truncated: false,
            user: vec![RawFrame::Object { object: ObjectId(1), address }],
            aside: Vec::new(),
            script_outcome: crate::model::ScriptOutcome::NONE,
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
