//! Which runtimes the objects may hold that processes have mapped, as far as somebody has looked.
//!
//! To look takes reading a table of names, of tens of megabytes and perhaps of a slow disk: the reader's work. Who
//! reads samples asks only for what is known.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use spanflame_symbols::ObjectFile;
use spanflame_symbols::script::markers::{Marked, marked};

use crate::model::ObjectId;

type Known = HashMap<ObjectId, (Weak<ObjectFile>, Arc<[Marked]>)>;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Markers {
    known: Mutex<Known>,
}

impl Markers {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of an object.
    pub(super) fn known(&self, id: ObjectId, file: &Arc<ObjectFile>) -> Option<Arc<[Marked]>> {
        // A number of an object that is no more may be another's by now.
        let is_of_file =
            |(known, _): &&(Weak<ObjectFile>, _)| std::ptr::eq(known.as_ptr(), Arc::as_ptr(file));
        self.lock().get(&id).filter(is_of_file).map(|(_, marked)| Arc::clone(marked))
    }

    /// The same; looks if need be. Nobody else waits for that.
    pub(super) fn look(&self, id: ObjectId, file: &Arc<ObjectFile>) -> Arc<[Marked]> {
        self.known(id, file).unwrap_or_else(|| {
            let found: Arc<[Marked]> = marked(file).into();
            self.lock().insert(id, (Arc::downgrade(file), Arc::clone(&found)));
            found
        })
    }

    /// Lets go of objects that are no more.
    pub(super) fn forget_the_past(&self) {
        self.lock().retain(|_, (object, _)| object.strong_count() > 0);
    }
}
