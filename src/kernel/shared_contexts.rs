//! The map by which tracers tell profilers in which span each thread is: `otel/traces_ctx_v1` below a BPF file
//! system (`bpf/shared_contexts.h`). Here it is found and looked at; `published_contexts.rs` fills it.
//!
//! Whoever writes it is expected to take out what holds no more. Nobody does that once its writer is gone, and
//! then each entry names a span that has ended for a thread that may be another one by now. So the map is read
//! only while a BPF program writes it (`map_writers.rs`): a tracer's does, another profiler's reads it as we do.

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libbpf_rs::libbpf_sys::bpf_prog_get_next_id;
use libbpf_rs::query::{ProgInfoIter, ProgInfoQueryOptions};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use super::abi::sf_shared_context;
use super::{KernelError, map_writers};

/// Where the BPF file system is, unless somebody says otherwise.
pub const BPF_FILE_SYSTEM: &str = "/sys/fs/bpf";
/// The folder in it.
pub(super) const FOLDER: &str = "otel";
/// The name of the map, and of its file.
pub(super) const NAME: &str = "traces_ctx_v1";
/// How often it is looked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Bytes of a key: tgid and thread id.
pub(super) const KEY_BYTES: u32 = 8;
/// Bytes of a value.
pub(super) const VALUE_BYTES: u32 = 24;

const _: () = assert!(size_of::<sf_shared_context>() == VALUE_BYTES as usize);

/// Where the map is pinned, below a BPF file system.
#[must_use]
pub fn shared_contexts_path(bpf_file_system: &Path) -> PathBuf {
    bpf_file_system.join(FOLDER).join(NAME)
}

/// The map that is pinned at a path, and its number; `None` if there is none.
///
/// # Errors
/// [`KernelError::ForeignMap`] if it is of another layout; else what the kernel refused.
pub(super) fn open_pinned(path: &Path) -> Result<Option<(MapHandle, u32)>, KernelError> {
    let map = match MapHandle::from_pinned_path(path) {
        Ok(map) => map,
        Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(KernelError::bpf(format!("open the map {}", path.display()), error)),
    };
    let of_path = |error| KernelError::bpf(format!("look at the map {}", path.display()), error);
    let info = libbpf_rs::MapInfo::new(map.as_fd()).map_err(of_path)?.info;
    let is_it = map.map_type() == MapType::LruHash
        && (info.key_size, info.value_size, info.map_flags) == (KEY_BYTES, VALUE_BYTES, 0);
    if is_it {
        return Ok(Some((map, info.id)));
    }
    Err(KernelError::ForeignMap {
        path: path.to_owned(),
        found: format!(
            "{:?} with keys of {} bytes, values of {} bytes and flags {:#x}",
            map.map_type(),
            info.key_size,
            info.value_size,
            info.map_flags
        ),
    })
}

/// Whether any BPF program that is loaded uses a map. Looks at all of them: two system calls each.
///
/// # Errors
/// Takes `CAP_SYS_ADMIN`.
pub(super) fn is_used_by_programs(map_id: u32) -> Result<bool, KernelError> {
    Ok(!users(map_id)?.is_empty())
}

/// Whether any that is loaded writes it, or may.
///
/// # Errors
/// As [`is_used_by_programs`].
pub(super) fn is_written_by_programs(map_id: u32) -> Result<bool, KernelError> {
    Ok(users(map_id)?.into_iter().any(|program| map_writers::writes(program, map_id)))
}

/// The numbers of the programs that use a map.
fn users(map_id: u32) -> Result<Vec<u32>, KernelError> {
    let what = "list the BPF programs that use a map";
    let mut first = 0;
    // SAFETY: writes one number, to a place that lives for as long as the call.
    match unsafe { bpf_prog_get_next_id(0, &raw mut first) } {
        0 => {}
        // There are none at all.
        error if error == -libc::ENOENT => return Ok(Vec::new()),
        error if error == -libc::EPERM => {
            return Err(KernelError::NotPermitted { what: what.to_owned(), capabilities: "CAP_SYS_ADMIN" });
        }
        error => {
            let source = std::io::Error::from_raw_os_error(-error);
            return Err(KernelError::System { what: what.to_owned(), source });
        }
    }
    let options = ProgInfoQueryOptions::default().include_map_ids(true);
    let programs = ProgInfoIter::with_query_opts(options);
    Ok(programs.filter(|program| program.map_ids.contains(&map_id)).map(|program| program.id).collect())
}

/// The sampler's slot for the map of another tracer.
#[derive(Debug)]
pub(super) struct OthersContexts {
    slot: MapHandle,
    looked: Option<Instant>,
    /// The number of the map in the slot.
    current: Option<u32>,
    /// Why there is none: told once.
    refusal: Option<String>,
}

impl OthersContexts {
    /// With the sampler's map `others_contexts`.
    pub(super) fn new(slot: MapHandle) -> Self {
        Self { slot, looked: None, current: None, refusal: None }
    }

    /// Has the map be read that is pinned at `path` now, or none. Does nothing if that was done a moment ago.
    pub(super) fn look_for(&mut self, path: &Path) {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_INTERVAL) {
            return;
        }
        self.looked = Some(Instant::now());
        let refusal = self.follow(path).err().map(|error| error.to_string());
        if let Some(refusal) = &refusal {
            self.clear();
            if self.refusal.as_ref() != Some(refusal) {
                tracing::warn!("spans that another tracer tells of are not on samples: {refusal}");
            }
        }
        self.refusal = refusal;
    }

    fn follow(&mut self, path: &Path) -> Result<(), KernelError> {
        let Some((map, id)) = open_pinned(path)? else {
            self.clear();
            return Ok(());
        };
        if !is_written_by_programs(id)? {
            self.clear();
            return Ok(());
        }
        if self.current == Some(id) {
            return Ok(());
        }
        self.slot
            .update(&0_u32.to_ne_bytes(), &map.as_fd().as_raw_fd().to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| KernelError::bpf(format!("read the map {}", path.display()), error))?;
        self.current = Some(id);
        tracing::info!("samples that nobody else names take their span from {}", path.display());
        Ok(())
    }

    fn clear(&mut self) {
        if self.current.take().is_some() {
            // It can only be gone already.
            let _ = self.slot.delete(&0_u32.to_ne_bytes());
        }
    }
}
