//! Tells other profilers which request each thread is at: makes, shares and fills the map `otel/traces_ctx_v1`
//! (`bpf/socket/publishing.h` and `bpf/publish.bpf.c` say when there is an entry).
//!
//! Whose map it is: nobody's at `path` means that one is made and pinned there. One that is pinned there already, of
//! the same layout, is shared. If no BPF program writes that one, its owner is gone without having removed it, most
//! likely one of us that was killed: then it is taken over. Entries that are found in it are taken out in any
//! case: those of a tracer that is gone are wrong, those of one that is at work come again.
//! At the end what was made or taken over is unpinned, unless somebody else's programs have begun to use it.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object, OpenObject};

use super::bpf_object::{find_program, map_handle, open_object, share_maps};
use super::shared_contexts::{self, is_used_by_programs, is_written_by_programs, open_pinned};
use super::socket_abi::sf_publishing;
use super::{KernelError, abi};
use crate::model::{RequestKey, SpanId, Stamp};

static PUBLISH_OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/publish.bpf.o"));

/// Requests that are told of at a time; `SF_MAX_FINAL_CONTEXTS`.
const MOST_AT_A_TIME: usize = 4096;
/// Programs are gone a moment after their last descriptor was closed: the kernel unloads them behind the end of the
/// process that held them, and takes its time when it is busy.
const UNLOADING: Duration = Duration::from_millis(20);
const UNLOADING_LOOKS: u32 = 75;

/// The map, before programs use it.
#[derive(Debug)]
pub(super) struct ContextsMap {
    path: PathBuf,
    /// What is pinned there, with its number.
    found: Option<(MapHandle, u32)>,
    is_ours: bool,
}

impl ContextsMap {
    /// Looks at what there is below a BPF file system.
    ///
    /// # Errors
    /// [`KernelError::ForeignMap`]; else what the kernel refused.
    pub(super) fn find(bpf_file_system: &Path) -> Result<Self, KernelError> {
        let path = shared_contexts::shared_contexts_path(bpf_file_system);
        let found = open_pinned(&path)?;
        let is_ours = match &found {
            None => true,
            Some((_, id)) => !stays(*id, is_written_by_programs)?,
        };
        Ok(Self { path, found, is_ours })
    }

    /// Has an object use it that is not loaded yet.
    ///
    /// # Errors
    /// What libbpf refuses.
    pub(super) fn share_with(&self, object: &mut OpenObject) -> Result<(), KernelError> {
        let Some((map, _)) = &self.found else { return Ok(()) };
        let mut maps = object.maps_mut();
        let mut own = maps
            .find(|own| own.name() == shared_contexts::NAME)
            .ok_or(KernelError::Missing("map traces_ctx_v1"))?;
        own.reuse_fd(map.as_fd()).map_err(|error| KernelError::bpf("share the map traces_ctx_v1", error))
    }
}

/// The programs, and the map that they fill. Dropping it takes all entries out.
#[derive(Debug)]
pub(super) struct PublishedContexts {
    // Links go before the object whose programs they run.
    thread_exits: Option<Link>,
    look: Link,
    object: Object,
    contexts: MapHandle,
    publishing: MapHandle,
    final_contexts: MapHandle,
}

/// What is pinned. Dropping it unpins what is ours; to be dropped after all programs that use the map.
#[derive(Debug)]
pub(super) struct Pin {
    path: PathBuf,
    map_id: u32,
    is_ours: bool,
}

impl PublishedContexts {
    /// Begins to publish, and pins the map unless it is pinned.
    ///
    /// # Errors
    /// What the kernel or the BPF file system refused.
    pub(super) fn start(sockets: &Object, map: ContextsMap) -> Result<(Self, Pin), KernelError> {
        let what = "the programs that tell other profilers of requests";
        let mut object = open_object(what, PUBLISH_OBJECT)?;
        share_maps(what, &mut object, sockets)?;
        let object = object.load().map_err(|error| KernelError::bpf(format!("load {what}"), error))?;
        let attach = |name: &'static str| {
            find_program(&object, name)?
                .attach()
                .map_err(|error| KernelError::bpf(format!("attach {name}"), error))
        };
        let (thread_exits, look) = (attach("on_thread_exit")?, attach("publish_contexts")?);
        let mut contexts = map_handle(&object, shared_contexts::NAME)?;
        let map_id = libbpf_rs::MapInfo::new(contexts.as_fd())
            .map_err(|error| KernelError::bpf("look at the map traces_ctx_v1", error))?
            .info
            .id;
        let ContextsMap { path, found, is_ours } = map;
        if found.is_none() {
            pin(&mut contexts, &path)?;
        }
        let pin = Pin { path, map_id, is_ours };
        let published = Self {
            thread_exits: Some(thread_exits),
            look,
            contexts,
            publishing: map_handle(&object, "publishing")?,
            final_contexts: map_handle(&object, "final_contexts")?,
            object,
        };
        for left in published.contexts.keys().collect::<Vec<_>>() {
            // Its thread's tracer may have taken it out meanwhile.
            let _ = published.contexts.delete(&left);
        }
        published.set(true, false)?;
        Ok((published, pin))
    }

    /// The programs and maps that are loaded.
    pub(super) fn object(&self) -> &Object {
        &self.object
    }

    /// Whether requests are told of as soon as they are read, if their context says that they are sampled.
    pub(super) fn set_at_once(&self, at_once: bool) -> Result<(), KernelError> {
        self.set(true, at_once)
    }

    fn set(&self, is_on: bool, at_once: bool) -> Result<(), KernelError> {
        let how = sf_publishing { is_on: u32::from(is_on), at_once: u32::from(at_once) };
        self.publishing
            .update(&0_u32.to_ne_bytes(), abi::bytes_of(&how), MapFlags::ANY)
            .map_err(|error| KernelError::bpf("say what other profilers are told", error))
    }

    /// Tells of requests that are open and whose ids will stay, as far as their threads are at them. Returns which were
    /// told of. One look at every thread of the host.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) fn publish(&self, requests: &[(RequestKey, Stamp)]) -> Result<Vec<RequestKey>, KernelError> {
        let mut told = Vec::new();
        for some in requests.chunks(MOST_AT_A_TIME) {
            for (key, stamp) in some {
                self.final_contexts
                    .update(&key.0.to_ne_bytes(), &value_of(stamp), MapFlags::ANY)
                    .map_err(|error| KernelError::bpf("note a request's ids", error))?;
            }
            let listed = super::socket_tracer::list_here(self.look.as_fd());
            for (key, _) in some {
                // All of them are there.
                let _ = self.final_contexts.delete(&key.0.to_ne_bytes());
            }
            let listed = listed.map_err(|source| KernelError::System {
                what: "look which threads are at a request".to_owned(),
                source,
            })?;
            told.extend(listed.into_iter().map(RequestKey));
        }
        Ok(told)
    }

    /// A request that a thread has read is over: its entry goes if the thread still has it.
    pub(super) fn withdraw(&self, pid: u32, tid: u32, span_id: SpanId) {
        let key = (u64::from(pid) << 32 | u64::from(tid)).to_ne_bytes();
        let Ok(Some(value)) = self.contexts.lookup(&key, MapFlags::ANY) else { return };
        if value.get(16..) == Some(&span_id.bytes()[..]) {
            // The thread may have done so itself by now.
            let _ = self.contexts.delete(&key);
        }
    }
}

impl Drop for PublishedContexts {
    fn drop(&mut self) {
        // Before threads' ends are no longer seen. If either fails, entries stay until their threads do something else.
        if self.set(false, false).is_ok() {
            let _ = super::socket_tracer::list_here(self.look.as_fd());
        }
        self.thread_exits = None;
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if !self.is_ours {
            return;
        }
        match stays(self.map_id, is_used_by_programs) {
            Ok(true) => tracing::info!("{} is left there: programs of others use it", self.path.display()),
            Ok(false) => {
                if let Err(error) = fs::remove_file(&self.path) {
                    tracing::warn!("{} cannot be removed: {error}", self.path.display());
                }
            }
            Err(error) => tracing::debug!("{} is left there: {error}", self.path.display()),
        }
    }
}

/// Whether programs use a map so that are not just being unloaded. Waits for those that may be.
fn stays(map_id: u32, used: fn(u32) -> Result<bool, KernelError>) -> Result<bool, KernelError> {
    for _ in 0..UNLOADING_LOOKS {
        if !used(map_id)? {
            return Ok(false);
        }
        std::thread::sleep(UNLOADING);
    }
    Ok(true)
}

fn pin(map: &mut MapHandle, path: &Path) -> Result<(), KernelError> {
    if let Some(folder) = path.parent() {
        // As the others who meet there make it: nobody else may remove what somebody has pinned.
        match fs::DirBuilder::new().mode(0o1700).create(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(KernelError::System {
                    what: format!("make {}", folder.display()),
                    source: error,
                });
            }
            _ => {}
        }
    }
    map.pin(path).map_err(|error| {
        KernelError::bpf(
            format!("pin a map as {} (is a BPF file system mounted there?)", path.display()),
            error,
        )
    })
}

fn value_of(stamp: &Stamp) -> [u8; shared_contexts::VALUE_BYTES as usize] {
    let mut value = [0; shared_contexts::VALUE_BYTES as usize];
    let (trace_id, span_id) = value.split_at_mut(16);
    trace_id.copy_from_slice(&stamp.trace_id.bytes());
    span_id.copy_from_slice(&stamp.span_id.bytes());
    value
}
