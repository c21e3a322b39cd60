//! Programs at places in executable files, for every process that runs code there.
//!
//! A program object is loaded whose maps of the same name are those of the socket tracer, so that both write
//! one account of connections and threads. Then its programs are attached to file offsets, once for each
//! file, whoever maps it now or later: a uprobe sits on the file's inode. The file is one that the caller has
//! opened (through `/proc/PID/root` or `map_files`, so that those of containers are right); nothing is looked
//! up by path here. As long as a file has probes, its file system cannot be unmounted, therefore
//! [`UserProbes::keep_only`].
//!
//! Where the kernel has links of many uprobes (Linux 6.6), one link carries all places of a program in a file,
//! and `CAP_BPF` with `CAP_PERFMON` is enough. Elsewhere each place takes a perf event, which recent kernels
//! give to `CAP_SYS_ADMIN` only (after CVE-2025-38466).
//!
//! **Preemption.** Uprobe programs run with preemption enabled, and Linux 6.13 and later give programs of
//! their type a stack of which there is one a CPU: a second task on the CPU overwrites that of the first. So
//! each program must begin with `bpf_preempt_disable()` where the kernel has it (bpf/uprobes.h), which is where
//! such stacks are, and do everything else between that and its counterpart.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use libbpf_rs::libbpf_sys as sys;
use libbpf_rs::{
    Link, MapCore, MapHandle, Object, OpenObject, ProgramAttachType, UprobeMultiOpts, UprobeOpts,
};
use spanflame_symbols::FileOffset;

use super::bpf_object::{
    find_program, forward_libbpf_messages, is_created, map_handle, open_object, share_maps,
};
use super::introspection::{self, EbpfState};
use super::run_statistics::{self, RunStatistics, map_memory_bytes};
use super::{KernelError, SocketTracer};

/// `OVERLAYFS_SUPER_MAGIC` (linux/magic.h).
const OVERLAYFS: i64 = 0x794c_7630;

/// Files that can have probes at a time: each holds a few descriptors and keeps its file system mounted.
const MAX_FILES: usize = 4096;

/// Which file it is, and which contents of it. What overwrites a file changes `changed_ns`; what takes its
/// place by renaming has another inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileIdentity {
    /// Device, as `stat(2)` says; 0 on overlayfs, where each container has one of its own for the same file.
    pub device: u64,
    /// Inode.
    pub inode: u64,
    /// Size.
    pub bytes: u64,
    /// Time of the last change, nanoseconds since the Unix epoch.
    pub changed_ns: i128,
}

impl FileIdentity {
    /// That of an open file.
    ///
    /// # Errors
    /// The system's.
    pub fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        // The same file of an image that several containers are made of: probes sit on the one below.
        let is_overlaid = rustix::fs::fstatfs(file).is_ok_and(|system| system.f_type == OVERLAYFS);
        Ok(Self {
            device: if is_overlaid { 0 } else { metadata.dev() },
            inode: metadata.ino(),
            bytes: metadata.size(),
            changed_ns: i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec()),
        })
    }

    fn is_same_inode(&self, other: &Self) -> bool {
        self.device != 0 && (self.device, self.inode) == (other.device, other.inode)
    }
}

/// A file to probe.
#[derive(Debug)]
pub struct ProbedFile {
    file: File,
    path: PathBuf,
    identity: FileIdentity,
}

impl ProbedFile {
    /// An open file, and what its process calls it (for people).
    ///
    /// # Errors
    /// If it cannot be told which file it is.
    pub fn new(file: File, path: &Path) -> io::Result<Self> {
        let identity = FileIdentity::of(&file)?;
        Ok(Self { file, path: path.to_owned(), identity })
    }

    /// Which file it is.
    #[must_use]
    pub fn identity(&self) -> FileIdentity {
        self.identity
    }

    /// What its process calls it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// A program at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserProbe {
    /// Its name in the object. Whether it runs before the instruction (`SEC("uprobe")`) or when the function
    /// that begins there returns (`SEC("uretprobe")`) is said by its section.
    pub program: &'static str,
    /// Where, in the file.
    pub at: FileOffset,
    /// What `bpf_get_attach_cookie` gives the program there.
    pub cookie: u64,
}

/// Why a file has no probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeRefusal {
    /// A capability is missing.
    NotPermitted,
    /// [`MAX_FILES`] have probes already.
    TooManyFiles,
    /// The kernel cannot put a probe on such an instruction, or refuses for another reason.
    Refused,
}

impl ProbeRefusal {
    /// Every refusal there is, with its name in metrics.
    pub const ALL: [(Self, &'static str); 3] = [
        (Self::NotPermitted, "not_permitted"),
        (Self::TooManyFiles, "too_many_files"),
        (Self::Refused, "refused_by_kernel"),
    ];
}

/// What is probed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserProbesStatus {
    /// Files that have probes.
    pub files: Vec<PathBuf>,
    /// Places in them, all together.
    pub places: usize,
    /// Files that got probes, from the beginning.
    pub attached: u64,
    /// Files whose probes were taken off, because nobody maps them or their contents changed.
    pub detached: u64,
    /// Files that got none, by why.
    pub refusals: BTreeMap<ProbeRefusal, u64>,
    /// The latest refusal in words.
    pub latest_refusal: Option<String>,
    /// Whether one link carries all places of a program in a file.
    pub has_multi_links: bool,
}

#[derive(Debug)]
struct Attached {
    // They detach when they are dropped.
    _links: Vec<Link>,
    path: PathBuf,
    places: usize,
}

/// See the module's description. Dropping it detaches everything.
#[derive(Debug)]
pub struct UserProbes {
    what: &'static str,
    // Links go before the object whose programs they run.
    files: HashMap<FileIdentity, Attached>,
    object: Object,
    /// Names of the maps that are the socket tracer's.
    shared: Vec<String>,
    has_multi_links: bool,
    attached: u64,
    detached: u64,
    refusals: BTreeMap<ProbeRefusal, u64>,
    latest_refusal: Option<String>,
    /// Files that the kernel would refuse again.
    refused: HashSet<FileIdentity>,
}

impl UserProbes {
    /// Loads the programs of an object; `what` names them in messages. Every map of it that has the name of
    /// one of the socket tracer's is that map, whose key and value must be as large. Constants
    /// (`.rodata`, `.rodata.*` but `.rodata.config`) and variables without a name of their own (`.data`,
    /// `.bss`) are the object's own.
    ///
    /// # Errors
    /// [`KernelError::NotPermitted`] names the missing capability; else what the kernel refused.
    pub fn load(what: &'static str, elf: &[u8], socket: &SocketTracer) -> Result<Self, KernelError> {
        Self::load_with(what, elf, socket, |_| Ok(()))
    }

    /// Likewise; `prepare` may set the sizes of the object's own maps.
    ///
    /// # Errors
    /// Likewise, and those of `prepare`.
    pub fn load_with(
        what: &'static str,
        elf: &[u8],
        socket: &SocketTracer,
        prepare: impl FnOnce(&mut OpenObject) -> Result<(), KernelError>,
    ) -> Result<Self, KernelError> {
        forward_libbpf_messages();
        let mut object = open_object(what, elf)?;
        let shared = share_maps(what, &mut object, socket.object())?;
        prepare(&mut object)?;
        let has_multi_links = has_multi_links();
        if has_multi_links {
            for mut program in object.progs_mut() {
                program.set_attach_type(ProgramAttachType::TraceUprobeMulti);
            }
        }
        let object = object.load().map_err(|error| KernelError::bpf(format!("load {what}"), error))?;
        Ok(Self {
            what,
            files: HashMap::new(),
            object,
            shared,
            has_multi_links,
            attached: 0,
            detached: 0,
            refusals: BTreeMap::new(),
            latest_refusal: None,
            refused: HashSet::new(),
        })
    }

    /// Puts programs into a file, unless it has some already, or was refused before. True: it has them now and had
    /// none before.
    /// Takes some milliseconds, and longer where the contents of the file have changed.
    ///
    /// # Errors
    /// What the kernel refused; the file has no probe then, and [`Self::status`] counts it.
    pub fn attach(&mut self, file: &ProbedFile, probes: &[UserProbe]) -> Result<bool, KernelError> {
        if self.files.contains_key(&file.identity) || self.refused.contains(&file.identity) {
            return Ok(false);
        }
        let before = self.files.len();
        self.files.retain(|identity, _| !identity.is_same_inode(&file.identity));
        self.detached += (before - self.files.len()) as u64;
        if self.files.len() >= MAX_FILES {
            let error = KernelError::Full {
                what: "files with probes",
                wanted: 1,
                used: self.files.len() as u64,
                limit: MAX_FILES as u64,
            };
            self.note_refusal(ProbeRefusal::TooManyFiles, &error);
            return Err(error);
        }
        match self.attach_all(file, probes) {
            Ok(links) => {
                let attached = Attached { _links: links, path: file.path.clone(), places: probes.len() };
                self.files.insert(file.identity, attached);
                self.attached += 1;
                Ok(true)
            }
            Err(error) => {
                let why = match &error {
                    error if error.is_not_permitted() => ProbeRefusal::NotPermitted,
                    _ => ProbeRefusal::Refused,
                };
                self.note_refusal(why, &error);
                if self.refused.len() < MAX_FILES {
                    self.refused.insert(file.identity);
                }
                Err(error)
            }
        }
    }

    fn attach_all(&self, file: &ProbedFile, probes: &[UserProbe]) -> Result<Vec<Link>, KernelError> {
        let mut by_program: BTreeMap<&'static str, Vec<&UserProbe>> = BTreeMap::new();
        for probe in probes {
            by_program.entry(probe.program).or_default().push(probe);
        }
        // The kernel follows the link to the open file, whatever is at its path by now.
        let path = format!("/proc/self/fd/{}", file.file.as_raw_fd());
        let mut links = Vec::new();
        for (name, probes) in by_program {
            let program = find_program(&self.object, name)?;
            let retprobe = program.section().as_encoded_bytes().starts_with(b"uretprobe");
            let cannot = |error| {
                KernelError::bpf(format!("put {name} of {} into {}", self.what, file.path.display()), error)
            };
            let offset_of = |probe: &UserProbe| {
                usize::try_from(probe.at.0).map_err(|_| KernelError::Option {
                    option: "a probe's place",
                    value: probe.at.to_string(),
                    expected: "an offset in a file",
                })
            };
            if self.has_multi_links {
                let offsets = probes.iter().map(|probe| offset_of(probe)).collect::<Result<_, _>>()?;
                let cookies = probes.iter().map(|probe| probe.cookie).collect();
                let options = UprobeMultiOpts { offsets, cookies, retprobe, ..UprobeMultiOpts::default() };
                links.push(
                    program
                        .attach_uprobe_multi_with_opts(EVERY_PROCESS, &path, "", options)
                        .map_err(cannot)?,
                );
                continue;
            }
            for probe in probes {
                let options = UprobeOpts { cookie: probe.cookie, retprobe, ..UprobeOpts::default() };
                let link = program.attach_uprobe_with_opts(EVERY_PROCESS, &path, offset_of(probe)?, options);
                links.push(link.map_err(cannot)?);
            }
        }
        Ok(links)
    }

    fn note_refusal(&mut self, why: ProbeRefusal, error: &KernelError) {
        *self.refusals.entry(why).or_default() += 1;
        self.latest_refusal = Some(error.to_string());
    }

    /// Whether a file has probes.
    #[must_use]
    pub fn is_attached(&self, file: &FileIdentity) -> bool {
        self.files.contains_key(file)
    }

    /// Takes the probes off all files but those that `is_wanted` names: the others that nobody maps any more.
    /// Takes tens of milliseconds if there is one.
    pub fn keep_only(&mut self, mut is_wanted: impl FnMut(&FileIdentity) -> bool) {
        let before = self.files.len();
        self.files.retain(|identity, _| is_wanted(identity));
        self.refused.retain(&mut is_wanted);
        self.detached += (before - self.files.len()) as u64;
    }

    /// A map of the object, by name.
    ///
    /// # Errors
    /// If there is none, or no descriptor left.
    pub fn map(&self, name: &'static str) -> Result<MapHandle, KernelError> {
        map_handle(&self.object, name)
    }

    /// What is probed, and what was refused.
    #[must_use]
    pub fn status(&self) -> UserProbesStatus {
        let mut files: Vec<PathBuf> = self.files.values().map(|file| file.path.clone()).collect();
        files.sort();
        UserProbesStatus {
            files,
            places: self.files.values().map(|file| file.places).sum(),
            attached: self.attached,
            detached: self.detached,
            refusals: self.refusals.clone(),
            latest_refusal: self.latest_refusal.clone(),
            has_multi_links: self.has_multi_links,
        }
    }

    /// Adds what the programs cost since programs are measured.
    pub fn add_run_statistics(&self, statistics: &mut RunStatistics) {
        run_statistics::add(&self.object, statistics);
    }

    fn own_maps(&self) -> impl Iterator<Item = libbpf_rs::Map<'_>> {
        self.object.maps().filter(is_created).filter(|map| {
            let name = map.name().to_string_lossy();
            !self.shared.iter().any(|shared| *shared == name)
        })
    }

    /// Kernel memory of the maps that are not the socket tracer's.
    #[must_use]
    pub fn map_bytes(&self) -> u64 {
        self.own_maps().map(|map| map_memory_bytes(map.as_fd())).sum()
    }

    /// The programs and the maps that are not the socket tracer's, as the kernel has them.
    #[must_use]
    pub fn ebpf(&self) -> EbpfState {
        let is_attached = |_: &str| !self.files.is_empty();
        EbpfState {
            programs: introspection::programs(&self.object, &is_attached).collect(),
            maps: self.own_maps().map(|map| introspection::map(&map, 0)).collect(),
        }
    }
}

/// "All processes" in libbpf's uprobe calls.
const EVERY_PROCESS: i32 = -1;

/// Whether this kernel has links of many uprobes: asked to make one on a folder it says that this is none
/// of the files it can be made on, which a kernel that knows nothing of such links does not.
pub(super) fn has_multi_links() -> bool {
    let instruction = |code| sys::bpf_insn { code, ..Default::default() };
    // `mov64 r0, 0` and `exit`.
    let instructions = [instruction(0xb7), instruction(0x95)];
    let options = sys::bpf_prog_load_opts {
        sz: size_of::<sys::bpf_prog_load_opts>() as sys::size_t,
        expected_attach_type: sys::BPF_TRACE_UPROBE_MULTI,
        ..Default::default()
    };
    // SAFETY: instructions, names and options outlive the call, and the count is that of the instructions.
    let program = unsafe {
        sys::bpf_prog_load(
            sys::BPF_PROG_TYPE_KPROBE,
            c"sf_attempt".as_ptr(),
            c"GPL".as_ptr(),
            instructions.as_ptr(),
            instructions.len() as sys::size_t,
            (&raw const options).cast_mut(),
        )
    };
    if program < 0 {
        return false;
    }
    // SAFETY: a descriptor that the call before has just opened, and that nobody else owns.
    let program = unsafe { OwnedFd::from_raw_fd(program) };
    let offset = 0;
    let mut options = sys::bpf_link_create_opts {
        sz: size_of::<sys::bpf_link_create_opts>() as sys::size_t,
        ..Default::default()
    };
    options.__bindgen_anon_1.uprobe_multi = sys::bpf_link_create_opts__bindgen_ty_1__bindgen_ty_3 {
        path: c"/".as_ptr(),
        offsets: &raw const offset,
        cnt: 1,
        ..Default::default()
    };
    // SAFETY: path, offset and options outlive the call.
    let link = unsafe {
        sys::bpf_link_create(program.as_raw_fd(), -1, sys::BPF_TRACE_UPROBE_MULTI, &raw const options)
    };
    if link >= 0 {
        // SAFETY: as above. Nobody expects it.
        drop(unsafe { OwnedFd::from_raw_fd(link) });
    }
    link == -libc::EBADF
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_is_overwritten_is_another_one_on_the_same_inode() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("library");
        std::fs::write(&path, "one").expect("written");
        let before = ProbedFile::new(File::open(&path).expect("there"), &path).expect("it has numbers");
        assert_eq!(before.identity(), FileIdentity::of(before.file()).expect("numbers"));
        // The clock of a file system may tick only every few milliseconds; the size differs anyway.
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("ours");
        file.write_all(b" and more").expect("written");
        let after = ProbedFile::new(File::open(&path).expect("there"), &path).expect("it has numbers");
        assert_ne!(before.identity(), after.identity());
        assert!(before.identity().is_same_inode(&after.identity()));
        std::fs::rename(&path, folder.path().join("old")).expect("ours");
        std::fs::write(&path, "one").expect("written");
        let replaced = FileIdentity::of(&File::open(&path).expect("there")).expect("it has numbers");
        assert!(!replaced.is_same_inode(&after.identity()));
    }
}
