//! The objects (executables, libraries, the vDSO) that are or were mapped by anyone, each once.
//!
//! An object is known by its build id, so that the same library in ten containers is one object with
//! one unwind table. The kernel gives the build id of most mappings with the event itself; then no
//! file is opened for an object that is known already. For the rest the file behind the mapping is
//! opened (`/proc/PID/map_files`, else the path below `/proc/PID/root`) and known by device, inode,
//! size and times from then on. If the process is gone, the path on the host will do if, and only
//! if, the file there carries the build id that the kernel reported.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spanflame_symbols::address::Bias;
use spanflame_symbols::open::{open_in_process, open_mapped_file};
use spanflame_symbols::{BuildId, FileOffset, ObjectFile, ProcessAddress};

use super::mapping_list::MappingContent;
use super::proc_maps;
use crate::model::ObjectId;

/// An object and how it is reached.
#[derive(Debug, Clone)]
pub struct RegisteredObject {
    /// The path of its first mapping, as that process saw it.
    pub path: PathBuf,
    /// The opened file, or why it could not be used.
    pub file: Result<Arc<ObjectFile>, String>,
}

/// A file-backed executable mapping, as an event or `/proc/PID/maps` describes it.
#[derive(Debug, Clone, Copy)]
pub struct FileMapping<'event> {
    /// The process.
    pub pid: u32,
    /// First process address.
    pub begin: u64,
    /// First process address behind it.
    pub end: u64,
    /// Where it begins in the file, bytes.
    pub file_offset: u64,
    /// Build id as the kernel read it, if it did.
    pub build_id: Option<&'event [u8]>,
    /// Path as the process named it.
    pub path: &'event Path,
}

/// Gives out object ids: the kernel side's tables, or a counter in tests.
pub trait ObjectIds {
    /// The next free id, or `None` when there are no more.
    fn next_object_id(&mut self) -> Option<ObjectId>;
}

impl ObjectIds for crate::kernel::Tables {
    fn next_object_id(&mut self) -> Option<ObjectId> {
        match self.allocate_object() {
            Ok(id) => Some(id),
            Err(error) => {
                tracing::warn!("an object is not profiled: {error}");
                None
            }
        }
    }
}

/// What tells two files apart that carry no build id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FileStamp {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified_ns: i128,
    changed_ns: i128,
}

impl FileStamp {
    fn of(file: &File) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        let in_ns =
            |seconds: i64, nanoseconds: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified_ns: in_ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: in_ns(metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// What the file behind a mapping turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileContent {
    Object(ObjectId),
    /// No ELF file: a jitdump, a JIT's double mapping.
    NotElf,
}

/// All objects, by id and by identity.
#[derive(Debug, Default)]
pub struct ObjectRegistry {
    objects: HashMap<ObjectId, RegisteredObject>,
    by_build_id: HashMap<BuildId, ObjectId>,
    by_stamp: HashMap<FileStamp, FileContent>,
    vdso: Option<Option<(ObjectId, u64)>>,
    unopened_mappings: u64,
}

impl ObjectRegistry {
    /// The object of this id.
    #[must_use]
    pub fn get(&self, id: ObjectId) -> Option<&RegisteredObject> {
        self.objects.get(&id)
    }

    /// All objects, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectId, &RegisteredObject)> {
        self.objects.iter().map(|(id, object)| (*id, object))
    }

    /// Mappings whose file could not be opened, typically of processes that were gone by then.
    #[must_use]
    pub fn unopened_mappings(&self) -> u64 {
        self.unopened_mappings
    }

    /// What lies in a file-backed mapping; `None` if its file cannot be had any more.
    pub fn file_content(
        &mut self,
        mapping: FileMapping<'_>,
        ids: &mut dyn ObjectIds,
    ) -> Option<MappingContent> {
        let id = match mapping.build_id.and_then(|id| self.by_build_id.get(&BuildId::Gnu(id.to_vec()))) {
            Some(&known) => known,
            None => match self.open(mapping, ids) {
                Some(FileContent::Object(id)) => id,
                Some(FileContent::NotElf) => return Some(MappingContent::Jit),
                None => {
                    self.unopened_mappings += 1;
                    return None;
                }
            },
        };
        Some(MappingContent::Object { object: id, bias: self.bias(id, mapping) })
    }

    /// What is to be added to ELF addresses of `id` in this mapping. An object that is no usable ELF
    /// file has no ELF addresses: its frames show their offset in the file instead.
    fn bias(&self, id: ObjectId, mapping: FileMapping<'_>) -> Bias {
        let offset = FileOffset(mapping.file_offset);
        let file = self.objects.get(&id).and_then(|object| object.file.as_ref().ok());
        match file.and_then(|file| file.elf_address(offset)) {
            Some(linked) => Bias::between(ProcessAddress(mapping.begin), linked),
            None => Bias(mapping.begin.wrapping_sub(mapping.file_offset)),
        }
    }

    fn open(&mut self, mapping: FileMapping<'_>, ids: &mut dyn ObjectIds) -> Option<FileContent> {
        let opened = open_mapped_file(mapping.pid, mapping.begin, mapping.end)
            .or_else(|_| open_in_process(mapping.pid, mapping.path));
        let Ok(file) = opened else {
            return self.open_on_host(mapping, ids);
        };
        let stamp = FileStamp::of(&file)?;
        if let Some(&known) = self.by_stamp.get(&stamp) {
            return Some(known);
        }
        let content = self.register(file, mapping.path, ids)?;
        self.by_stamp.insert(stamp, content);
        Some(content)
    }

    /// For a process that is gone: the host's file of that path, if the kernel's build id proves it.
    fn open_on_host(&mut self, mapping: FileMapping<'_>, ids: &mut dyn ObjectIds) -> Option<FileContent> {
        let wanted = BuildId::Gnu(mapping.build_id?.to_vec());
        let file = open_in_process(std::process::id(), mapping.path).ok()?;
        let object = ObjectFile::new(file, mapping.path).ok()?;
        if *object.build_id() != wanted {
            return None;
        }
        self.register_object(Ok(Arc::new(object)), mapping.path, ids).map(FileContent::Object)
    }

    fn register(&mut self, file: File, path: &Path, ids: &mut dyn ObjectIds) -> Option<FileContent> {
        let mut magic = [0_u8; 4];
        if file.read_exact_at(&mut magic, 0).is_err() || magic != *b"\x7fELF" {
            return Some(FileContent::NotElf);
        }
        let object = match ObjectFile::new(file, path) {
            Ok(object) => Ok(Arc::new(object)),
            Err(error) => {
                tracing::warn!("shown without symbols, its stacks are cut: {error}");
                Err(error.to_string())
            }
        };
        self.register_object(object, path, ids).map(FileContent::Object)
    }

    fn register_object(
        &mut self,
        file: Result<Arc<ObjectFile>, String>,
        path: &Path,
        ids: &mut dyn ObjectIds,
    ) -> Option<ObjectId> {
        if let Ok(object) = &file
            && let Some(&known) = self.by_build_id.get(object.build_id())
        {
            return Some(known);
        }
        let id = ids.next_object_id()?;
        if let Ok(object) = &file {
            self.by_build_id.insert(object.build_id().clone(), id);
        }
        self.objects.insert(id, RegisteredObject { path: path.to_owned(), file });
        Some(id)
    }

    /// The vDSO at `begin`, if its mapping is as long as ours: every 64-bit process of this kernel has
    /// the same one.
    pub fn vdso_content(&mut self, begin: u64, end: u64, ids: &mut dyn ObjectIds) -> Option<MappingContent> {
        if self.vdso.is_none() {
            self.vdso = Some(self.register_vdso(ids));
        }
        let (object, length) = self.vdso.flatten()?;
        (end.checked_sub(begin)? == length).then(|| {
            let mapping =
                FileMapping { pid: 0, begin, end, file_offset: 0, build_id: None, path: Path::new("[vdso]") };
            MappingContent::Object { object, bias: self.bias(object, mapping) }
        })
    }

    fn register_vdso(&mut self, ids: &mut dyn ObjectIds) -> Option<(ObjectId, u64)> {
        let path = Path::new("[vdso]");
        let own = proc_maps::read(std::process::id()).ok()?;
        let line = own.iter().find(|line| line.path == path)?;
        let length = line.end.checked_sub(line.begin)?;
        let mut contents = vec![0_u8; usize::try_from(length).ok()?];
        File::open("/proc/self/mem").ok()?.read_exact_at(&mut contents, line.begin).ok()?;
        let object = ObjectFile::from_bytes(contents, path).ok()?;
        let id = self.register_object(Ok(Arc::new(object)), path, ids)?;
        Some((id, length))
    }
}
