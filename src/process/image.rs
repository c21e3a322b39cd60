//! What processes run, as a person would name it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::identity::Identity;
use super::mapping_list::MappingContent;
use crate::model::{ImageId, ObjectId};

/// One program run by one process: from its fork or `execve` to its next `execve` or its end.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// The process.
    pub pid: u32,
    /// The main executable as the process saw it; empty until known.
    pub executable: PathBuf,
    /// The object of the main executable.
    pub executable_object: Option<ObjectId>,
    /// Service and container, read when the first sample arrived; `None` before.
    pub identity: Option<Identity>,
}

impl Image {
    /// What a person calls it: the service that it says it is, else its executable's file name.
    #[must_use]
    pub fn service(&self) -> Cow<'_, str> {
        let said = self.identity.as_ref().map(|identity| identity.service.as_str()).unwrap_or_default();
        if !said.is_empty() {
            return Cow::Borrowed(said);
        }
        let name = self.executable.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        match name.strip_suffix(" (deleted)") {
            Some(bare) => Cow::Owned(bare.to_owned()),
            None => name,
        }
    }

    /// Takes an executable mapping into account: the first object that a new program maps is its
    /// executable, as the kernel maps it before the loader.
    pub(super) fn note_mapping(&mut self, path: &Path, content: MappingContent) {
        let MappingContent::Object { object, .. } = content else { return };
        if self.executable.as_os_str().is_empty() {
            path.clone_into(&mut self.executable);
            self.executable_object = Some(object);
        } else if self.executable_object.is_none() && self.executable == path {
            self.executable_object = Some(object);
        }
    }

    /// Whether `executable`, as `/proc/PID/exe` names it now, is another program than this one.
    pub(super) fn is_other_program(&self, executable: &Path) -> bool {
        // The name of a file that was removed since ends in " (deleted)".
        let name = |path: &Path| path.to_string_lossy().trim_end_matches(" (deleted)").to_owned();
        let (known, now) = (name(&self.executable), name(executable));
        !known.is_empty() && !now.is_empty() && known != now
    }
}

/// The images of all processes that are known, and all others that were sampled.
#[derive(Debug, Default)]
pub(super) struct Images {
    images: HashMap<ImageId, Image>,
    last: u64,
}

impl Images {
    pub(super) fn get(&self, id: ImageId) -> Option<&Image> {
        self.images.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ImageId) -> Option<&mut Image> {
        self.images.get_mut(&id)
    }

    /// A new image of which nothing is known yet.
    pub(super) fn begin(&mut self, pid: u32) -> ImageId {
        self.last += 1;
        let id = ImageId(self.last);
        self.images.insert(id, Image { pid, ..Image::default() });
        id
    }

    pub(super) fn keep_only(&mut self, wanted: &HashSet<ImageId>) {
        self.images.retain(|id, _| wanted.contains(id));
    }

    /// Lets go of an image that is over, unless samples name it.
    pub(super) fn end(&mut self, id: ImageId) {
        if self.get(id).is_some_and(|image| image.identity.is_none()) {
            self.images.remove(&id);
        }
    }
}
