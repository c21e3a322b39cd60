//! The objects (executables, libraries, the vDSO) that are or were mapped by anyone, each once.
//!
//! An object is known by its build id, so that the same library in ten containers is one object with
//! one unwind table. The kernel gives the build id of most mappings with the event itself; then no
//! file is opened for an object that is known already. For the rest the file behind the mapping is
//! opened and proved to be that (`mapped_file`), and known by device, inode, size and times from then
//! on. A file that is not the mapped one any more, or cannot be opened, is never guessed at: the object
//! keeps its path, has no unwind table, and its frames have offsets in place of names.
//!
//! Each object keeps its file open, so that it can be symbolized after it was deleted. When there are
//! no descriptors or no object ids left, that is said once, and what comes then goes without.

mod release;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use spanflame_symbols::address::Bias;
use spanflame_symbols::{BuildId, FileOffset, ObjectFile, ProcessAddress};

use super::mapped_file::{self, FileNumbers, Opened};
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
    /// Device and inode as the kernel wrote them, if it did: with events it is either these or the
    /// build id.
    pub numbers: Option<FileNumbers>,
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
                tracing::debug!("an object is not profiled: {error}");
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

impl FileContent {
    fn is_one_of(self, objects: &HashSet<ObjectId>) -> bool {
        matches!(self, Self::Object(id) if objects.contains(&id))
    }
}

/// What the kernel said of a mapped file that is not to be had, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct LostFile {
    path: PathBuf,
    build_id: Option<Vec<u8>>,
    numbers: Option<FileNumbers>,
    reason: &'static str,
}

/// Of what there is none left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Shortage {
    Descriptors,
    ObjectIds,
}

const NO_DESCRIPTOR: &str = "no file descriptor is left for it";

/// All objects, by id and by identity.
#[derive(Debug)]
pub struct ObjectRegistry {
    objects: HashMap<ObjectId, RegisteredObject>,
    by_build_id: HashMap<BuildId, ObjectId>,
    by_stamp: HashMap<FileStamp, FileContent>,
    lost: HashMap<LostFile, ObjectId>,
    vdso: Option<Option<(ObjectId, u64)>>,
    unopened_mappings: u64,
    open_files: u64,
    max_open_files: u64,
    shortages: HashSet<Shortage>,
    /// Objects that no process has mapped, and since when.
    unmapped_since: HashMap<ObjectId, Instant>,
}

impl Default for ObjectRegistry {
    fn default() -> Self {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        Self::with_file_limit(max_open_files(descriptors.unwrap_or(u64::MAX)))
    }
}

/// Of all descriptors, those that objects may keep: events of each CPU, maps, `/proc` and the output
/// need some as well, and a recording that cannot be written is worth nothing.
fn max_open_files(descriptors: u64) -> u64 {
    descriptors - (descriptors / 2).min(1024)
}

impl ObjectRegistry {
    fn with_file_limit(max_open_files: u64) -> Self {
        Self {
            objects: HashMap::new(),
            by_build_id: HashMap::new(),
            by_stamp: HashMap::new(),
            lost: HashMap::new(),
            vdso: None,
            unopened_mappings: 0,
            open_files: 0,
            max_open_files,
            shortages: HashSet::new(),
            unmapped_since: HashMap::new(),
        }
    }

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

    /// What lies in a file-backed mapping; `None` if no more objects can be known.
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
                None => return None,
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
        let file = match mapped_file::open(mapping) {
            Opened::File(file) => file,
            Opened::Changed => {
                return self.register_lost(mapping, "the file changed since it was mapped", ids);
            }
            Opened::Nothing { no_descriptors } => {
                self.unopened_mappings += 1;
                if no_descriptors {
                    self.tell_once(Shortage::Descriptors);
                    return self.register_lost(mapping, NO_DESCRIPTOR, ids);
                }
                return self.register_lost(mapping, "the file cannot be opened any more", ids);
            }
        };
        let stamp = FileStamp::of(&file)?;
        if let Some(&known) = self.by_stamp.get(&stamp) {
            return Some(known);
        }
        let content = self.register(file, mapping.path, ids)?;
        self.by_stamp.insert(stamp, content);
        Some(content)
    }

    /// A mapped file that is not to be had: found again by what was said of it, never by what is there.
    fn register_lost(
        &mut self,
        mapping: FileMapping<'_>,
        reason: &'static str,
        ids: &mut dyn ObjectIds,
    ) -> Option<FileContent> {
        let key = LostFile {
            path: mapping.path.to_owned(),
            build_id: mapping.build_id.map(<[u8]>::to_vec),
            numbers: mapping.numbers,
            reason,
        };
        if let Some(&known) = self.lost.get(&key) {
            return Some(FileContent::Object(known));
        }
        tracing::debug!("{}: {reason}", mapping.path.display());
        let id = self.next_id(ids)?;
        let file = Err(reason.to_owned());
        self.objects.insert(id, RegisteredObject { path: mapping.path.to_owned(), file });
        self.lost.insert(key, id);
        Some(FileContent::Object(id))
    }

    fn register(&mut self, file: File, path: &Path, ids: &mut dyn ObjectIds) -> Option<FileContent> {
        if !mapped_file::is_elf(&file) {
            return Some(FileContent::NotElf);
        }
        let object = match ObjectFile::new(file, path) {
            Ok(object) => object,
            Err(error) => {
                tracing::warn!("shown without symbols, its stacks are cut: {error}");
                let id = self.next_id(ids)?;
                let file = Err(error.to_string());
                self.objects.insert(id, RegisteredObject { path: path.to_owned(), file });
                return Some(FileContent::Object(id));
            }
        };
        if let Some(&known) = self.by_build_id.get(object.build_id()) {
            return Some(FileContent::Object(known));
        }
        let build_id = object.build_id().clone();
        let id = self.next_id(ids)?;
        let file = if self.open_files < self.max_open_files {
            self.open_files += 1;
            Ok(Arc::new(object))
        } else {
            self.tell_once(Shortage::Descriptors);
            Err(NO_DESCRIPTOR.to_owned())
        };
        self.by_build_id.insert(build_id, id);
        self.objects.insert(id, RegisteredObject { path: path.to_owned(), file });
        Some(FileContent::Object(id))
    }

    fn next_id(&mut self, ids: &mut dyn ObjectIds) -> Option<ObjectId> {
        let id = ids.next_object_id();
        if id.is_none() {
            self.tell_once(Shortage::ObjectIds);
        }
        id
    }

    /// Says once what there is too little of. What it costs is counted with each stack that it cuts.
    fn tell_once(&mut self, shortage: Shortage) {
        if !self.shortages.insert(shortage) {
            return;
        }
        let count = self.objects.len();
        match shortage {
            Shortage::Descriptors => tracing::warn!(
                "no file descriptors are left after {count} executables and libraries: stacks through further ones \
                 are cut and without names. Raise the hard limit (ulimit -Hn)"
            ),
            Shortage::ObjectIds => tracing::warn!(
                "{count} executables and libraries are as many as can be known: stacks through further ones are cut \
                 and without names"
            ),
        }
    }

    /// The vDSO at `begin`, if its mapping is as long as ours: every 64-bit process of this kernel has
    /// the same one.
    pub fn vdso_content(&mut self, begin: u64, end: u64, ids: &mut dyn ObjectIds) -> Option<MappingContent> {
        if self.vdso.is_none() {
            self.vdso = Some(self.register_vdso(ids));
        }
        let (object, length) = self.vdso.flatten()?;
        (end.checked_sub(begin)? == length).then(|| {
            let mapping = FileMapping {
                pid: 0,
                begin,
                end,
                file_offset: 0,
                build_id: None,
                numbers: None,
                path: Path::new("[vdso]"),
            };
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
        let id = self.next_id(ids)?;
        self.by_build_id.insert(object.build_id().clone(), id);
        self.objects.insert(id, RegisteredObject { path: path.to_owned(), file: Ok(Arc::new(object)) });
        Some((id, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) struct LimitedIds(pub u32);

    impl ObjectIds for LimitedIds {
        fn next_object_id(&mut self) -> Option<ObjectId> {
            self.0 = self.0.checked_sub(1)?;
            Some(ObjectId(self.0 + 1))
        }
    }

    /// Copies of our own executable, each with a build id of its own.
    fn executables(folder: &Path, count: u8) -> Vec<PathBuf> {
        let own = std::fs::read("/proc/self/exe").expect("it is readable");
        let object = ObjectFile::from_bytes(own.clone(), Path::new("own")).expect("an ELF file");
        let BuildId::Gnu(build_id) = object.build_id() else { panic!("linked with a build id") };
        let at = own.windows(build_id.len()).position(|window| window == build_id).expect("its note");
        let copy = |number: u8| {
            let mut bytes = own.clone();
            bytes[at] = build_id[0].wrapping_add(number).wrapping_add(1);
            let path = folder.join(format!("copy-{number}"));
            std::fs::write(&path, bytes).expect("it is ours");
            path
        };
        (0..count).map(copy).collect()
    }

    pub(super) fn mapping_of(path: &Path) -> FileMapping<'_> {
        FileMapping {
            pid: std::process::id(),
            begin: 0x1000,
            end: 0x2000,
            file_offset: 0,
            build_id: None,
            numbers: None,
            path,
        }
    }

    pub(super) fn object_of(content: Option<MappingContent>) -> ObjectId {
        match content {
            Some(MappingContent::Object { object, .. }) => object,
            other => panic!("no object: {other:?}"),
        }
    }

    #[test]
    fn past_the_limit_of_descriptors_objects_are_known_but_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = executables(folder.path(), 3);
        let (mut objects, mut ids) = (ObjectRegistry::with_file_limit(1), LimitedIds(10));
        let known: Vec<ObjectId> =
            paths.iter().map(|path| object_of(objects.file_content(mapping_of(path), &mut ids))).collect();
        let readable: Vec<bool> =
            known.iter().map(|id| objects.get(*id).is_some_and(|object| object.file.is_ok())).collect();
        assert_eq!(readable, [true, false, false]);
        assert_eq!(objects.shortages, HashSet::from([Shortage::Descriptors]));
        let again = object_of(objects.file_content(mapping_of(&paths[2]), &mut ids));
        assert_eq!(again, known[2], "it is not registered twice");
    }

    #[test]
    fn without_object_ids_a_mapping_has_no_content_and_the_shortage_is_told_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = executables(folder.path(), 3);
        let (mut objects, mut ids) = (ObjectRegistry::with_file_limit(10), LimitedIds(1));
        assert!(objects.file_content(mapping_of(&paths[0]), &mut ids).is_some());
        assert!(objects.file_content(mapping_of(&paths[1]), &mut ids).is_none());
        assert!(objects.file_content(mapping_of(&paths[2]), &mut ids).is_none());
        assert_eq!(objects.shortages, HashSet::from([Shortage::ObjectIds]));
    }

    #[test]
    fn a_file_that_changed_since_it_was_mapped_is_an_object_without_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = executables(folder.path(), 1);
        let (mut objects, mut ids) = (ObjectRegistry::default(), LimitedIds(10));
        let wanted = [7_u8; 20];
        let changed = FileMapping { build_id: Some(&wanted), ..mapping_of(&paths[0]) };
        let id = object_of(objects.file_content(changed, &mut ids));
        let object = objects.get(id).expect("registered");
        assert!(object.file.as_ref().is_err_and(|reason| reason.contains("changed")), "{object:?}");
        assert_eq!(object.path, paths[0]);
        assert_eq!(object_of(objects.file_content(changed, &mut ids)), id, "one object, however often");
        // The file that is there now is another object.
        let there = object_of(objects.file_content(mapping_of(&paths[0]), &mut ids));
        assert!(there != id && objects.get(there).is_some_and(|object| object.file.is_ok()));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_object_of_its_path_and_counted() {
        let (mut objects, mut ids) = (ObjectRegistry::default(), LimitedIds(10));
        let numbers = FileNumbers { device: (1, 2), inode: 3 };
        let gone = FileMapping { numbers: Some(numbers), ..mapping_of(Path::new("/gone (deleted)")) };
        let id = object_of(objects.file_content(gone, &mut ids));
        assert_eq!(object_of(objects.file_content(gone, &mut ids)), id);
        let another = FileMapping { numbers: Some(FileNumbers { inode: 4, ..numbers }), ..gone };
        assert_ne!(object_of(objects.file_content(another, &mut ids)), id, "two files of one name");
        assert!(objects.get(id).is_some_and(|object| object.file.is_err()));
        assert_eq!(objects.unopened_mappings(), 3);
    }

    #[test]
    fn some_descriptors_are_left_for_everything_else() {
        for (descriptors, kept) in [(0, 0), (1, 1), (64, 32), (1024, 512), (20_000, 18_976)] {
            assert_eq!(max_open_files(descriptors), kept);
        }
        assert_eq!(max_open_files(u64::MAX), u64::MAX - 1024);
    }
}
