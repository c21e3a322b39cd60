//! A stretch of samples with everything that is needed to name them, cut loose from what changes.
//!
//! Naming opens files and reads debug information, which takes a second where reading a ring buffer may
//! take a millisecond. So whoever reads samples hands on a window and goes on; processes may end and
//! objects be forgotten meanwhile.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use spanflame_symbols::ObjectFile;

use super::aggregate::{Aggregate, Place};
use super::scripts::ScriptNames;
use crate::model::{ImageId, ObjectId};
use crate::process::{Image, ObjectRegistry, ProcessTable};

/// When samples were taken and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Start, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// Length, nanoseconds.
    pub duration_ns: u64,
    /// Nanoseconds between two samples of one CPU.
    pub period_ns: u64,
}

/// An object that samples lie in.
#[derive(Debug, Clone)]
pub struct SampledObject {
    /// Its path, as the first process that mapped it saw it.
    pub path: PathBuf,
    /// The opened file; `None` if it cannot be used.
    pub file: Option<Arc<ObjectFile>>,
    /// A process that has it mapped and still lived, below whose root files that belong to it may be.
    pub pid: Option<u32>,
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct RawWindow {
    /// The samples.
    pub aggregate: Aggregate,
    /// What their addresses lie in.
    pub objects: HashMap<ObjectId, SampledObject>,
    /// What their processes ran.
    pub images: HashMap<ImageId, Image>,
    /// What frames of runtimes are called.
    pub scripts: Arc<ScriptNames>,
    /// The object to list first: the executable of the one process that was asked for.
    pub main_object: Option<ObjectId>,
}

impl RawWindow {
    /// Adds to samples what is known of their objects and processes now. O(places × processes) at worst,
    /// for objects that no living process has mapped.
    #[must_use]
    pub fn new(
        aggregate: Aggregate,
        main_object: Option<ObjectId>,
        objects: &ObjectRegistry,
        processes: &ProcessTable,
        scripts: &Arc<ScriptNames>,
    ) -> Self {
        let mut window = Self { aggregate, main_object, scripts: Arc::clone(scripts), ..Self::default() };
        let sampled = window.aggregate.places().iter().filter_map(|place| match *place {
            Place::Object(object, _) => Some(object),
            Place::Kernel(_) | Place::Jit(..) | Place::Unknown(_) | Place::Script(..) => None,
        });
        let executables = window.aggregate.images().filter_map(|id| processes.image(id)?.executable_object);
        for id in sampled.chain(main_object).chain(executables) {
            window.objects.entry(id).or_insert_with(|| {
                let registered = objects.get(id);
                SampledObject {
                    path: registered.map(|object| object.path.clone()).unwrap_or_default(),
                    file: registered.and_then(|object| object.file.as_ref().ok()).cloned(),
                    pid: processes.any_with_object(id),
                }
            });
        }
        for id in window.aggregate.images() {
            if let Some(image) = processes.image(id) {
                window.images.entry(id).or_insert_with(|| image.clone());
            }
        }
        window
    }
}
