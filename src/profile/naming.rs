//! Names windows on a thread of its own, so that whoever reads samples never waits for a file.
//!
//! What must be learnt while a process still lives, the names of its generated code, is asked for here
//! as well: perf maps have tens of megabytes.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use spanflame_symbols::symbolize::{Limits, Symbolizer};

use super::raw_window::{RawWindow, Taken};
use super::resolve;
use crate::kernel::monotonic_ns;
use crate::model::{Profile, RequestSpans};

/// How often the names of a process's generated code are read on: a runtime reuses addresses.
const GENERATED_CODE_INTERVAL: Duration = Duration::from_secs(1);
/// What may wait for the thread. A window that finds no room is the caller's loss to count.
const QUEUE: usize = 64;
/// Names of generated code may take no more of it: they are asked for again, windows are not.
const QUEUE_OF_GENERATED_CODE: usize = QUEUE / 2;
/// Processes of which it is known when they were read last; those of long ago are forgotten beyond this.
const MANY_PROCESSES: usize = 4096;

enum Request {
    GeneratedCode(u32),
    Window(Box<RawWindow>, Taken, Sender<(Box<RawWindow>, Profile)>),
}

/// The thread.
#[derive(Debug)]
pub struct Namer {
    requests: Option<Sender<Request>>,
    generated_code_read: HashMap<u32, Instant>,
    thread: Option<JoinHandle<()>>,
}

impl Namer {
    /// Starts the thread. `spans` knows what the requests of samples came to; `limits` is what is kept of the files that
    /// names are in.
    ///
    /// # Errors
    /// The system's, if there can be no more threads.
    pub fn start(spans: Option<Arc<dyn RequestSpans>>, limits: Limits) -> std::io::Result<Self> {
        let (requests, received) = crossbeam_channel::bounded(QUEUE);
        let work = move || work(&received, spans.as_deref(), limits);
        let thread = std::thread::Builder::new().name("naming".to_owned()).spawn(work)?;
        Ok(Self { requests: Some(requests), generated_code_read: HashMap::new(), thread: Some(thread) })
    }

    /// A process was seen in generated code: its names are read, once a second. Never waits.
    pub fn read_generated_code(&mut self, pid: u32) {
        let now = Instant::now();
        let last = self.generated_code_read.get(&pid);
        if last.is_some_and(|&last| now - last < GENERATED_CODE_INTERVAL) {
            return;
        }
        // Where there is no room now, the process's next sample asks again.
        let asked = self.requests.as_ref().is_some_and(|to| {
            to.len() < QUEUE_OF_GENERATED_CODE && to.try_send(Request::GeneratedCode(pid)).is_ok()
        });
        if asked {
            if self.generated_code_read.len() > MANY_PROCESSES {
                self.generated_code_read.retain(|_, &mut last| now - last < GENERATED_CODE_INTERVAL);
            }
            self.generated_code_read.insert(pid, now);
        }
    }

    /// Has a window named. The answer comes to the receiver, the window with it. Never waits.
    ///
    /// # Errors
    /// The window itself, if there is no room for it or the thread is gone.
    pub fn name(
        &mut self,
        window: RawWindow,
        taken: Taken,
    ) -> Result<Receiver<(Box<RawWindow>, Profile)>, Box<RawWindow>> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        let request = Request::Window(Box::new(window), taken, answer);
        let refused = match &self.requests {
            Some(requests) => match requests.try_send(request) {
                Ok(()) => return Ok(answered),
                Err(TrySendError::Full(request) | TrySendError::Disconnected(request)) => request,
            },
            None => request,
        };
        match refused {
            Request::Window(window, ..) => Err(window),
            Request::GeneratedCode(_) => Err(Box::default()),
        }
    }
}

impl Drop for Namer {
    fn drop(&mut self) {
        // It answers what it was asked for and ends. Nobody waits for it here: sampling at another rate is
        // not to begin only when all names of the past are found.
        self.requests = None;
        drop(self.thread.take());
    }
}

fn work(requests: &Receiver<Request>, spans: Option<&dyn RequestSpans>, limits: Limits) {
    let mut symbolizer = Symbolizer::with_limits(limits);
    for request in requests {
        match request {
            Request::GeneratedCode(pid) => {
                survive(&mut symbolizer, limits, |symbolizer| symbolizer.remember_process(pid));
            }
            Request::Window(mut window, taken, answer) => {
                if let Some(spans) = spans
                    && !window.aggregate.is_settled()
                {
                    spans.catch_up(monotonic_ns());
                }
                window.aggregate.settle(spans);
                let named = survive(&mut symbolizer, limits, |symbolizer| {
                    resolve::profile(&window, symbolizer, taken)
                });
                if let Some(profile) = named {
                    // Whoever gave up waiting does not want it any more.
                    let _ = answer.send((window, profile));
                }
            }
        }
    }
}

/// Files of processes are read here, and those may hold anything. Should one of them bring a mistake of ours to
/// light, one window is lost, whoever waits for it learns that, and naming goes on with an empty cache.
fn survive<T>(
    symbolizer: &mut Symbolizer,
    limits: Limits,
    work: impl FnOnce(&mut Symbolizer) -> T,
) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(|| work(&mut *symbolizer)));
    if done.is_err() {
        tracing::error!("names could not be found, which is a mistake of spanflame; please report it");
        *symbolizer = Symbolizer::with_limits(limits);
    }
    done.ok()
}
