//! What the sampler and the life-cycle programs are told of processes: the maps, and how they are written.
//!
//! They exist before the programs do, so that they can be filled while the kernel verifies these.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use libbpf_rs::{MapCore, MapFlags, MapHandle, OpenObject};
use spanflame_symbols::script::Runtime;

use super::abi::{self, PROCESS_MAPS_OBJECT, sf_target};
use super::application_words::ApplicationWords;
use super::bpf_object::{forward_libbpf_messages, open_object, share_map};
use super::tables::Tables;
use super::{KernelError, cpus};

/// See the module's description. Without a [`Sampler`](super::Sampler) nobody reads them.
#[derive(Debug)]
pub struct ProcessMaps {
    maps: Vec<(OsString, MapHandle)>,
    /// What the slabs of unwind tables take.
    slab_bytes: Arc<AtomicU64>,
}

impl ProcessMaps {
    /// Makes them, and what writes the unwinder's tables: to be filled by one thread.
    ///
    /// # Errors
    /// [`KernelError::NotPermitted`] names the missing capability; else what the kernel refused.
    pub fn create() -> Result<(Self, Tables), KernelError> {
        forward_libbpf_messages();
        let cannot = |error| KernelError::bpf("make the maps of processes", error);
        let mut object = open_object("the maps of processes", PROCESS_MAPS_OBJECT)?;
        // CPUs that come later have no timer, see `Sampler::start`.
        let cpus = cpus::online()?.last().map_or(1, |last| last + 1);
        for mut map in object.maps_mut() {
            if map.name() == "rule_cache" {
                map.set_max_entries(cpus).map_err(cannot)?;
            }
        }
        let object = object.load().map_err(cannot)?;
        let maps = object.maps().map(|map| Ok((map.name().to_owned(), MapHandle::try_from(&map)?)));
        let maps: Vec<_> = maps.collect::<Result<_, _>>().map_err(cannot)?;
        let slab_bytes = Arc::new(AtomicU64::new(0));
        let of_processes = Self { maps, slab_bytes: Arc::clone(&slab_bytes) };
        let duplicate = |name| MapHandle::try_from(of_processes.map(name)?).map_err(cannot);
        let tables =
            Tables::new(duplicate("slabs")?, &duplicate("objects")?, duplicate("processes")?, slab_bytes)?;
        Ok((of_processes, tables))
    }

    fn find(&self, name: &OsStr) -> Option<&MapHandle> {
        self.maps.iter().find_map(|(known, map)| (known == name).then_some(map))
    }

    fn map(&self, name: &'static str) -> Result<&MapHandle, KernelError> {
        self.find(OsStr::new(name)).ok_or(KernelError::Missing(name))
    }

    /// Has an object that is to be loaded take these maps where it has such by name.
    pub(super) fn share_with(&self, what: &'static str, object: &mut OpenObject) -> Result<(), KernelError> {
        for mut map in object.maps_mut() {
            if let Some(shared) = self.find(map.name()) {
                share_map(what, &mut map, shared)?;
            }
        }
        Ok(())
    }

    /// Kernel memory of the slabs of unwind tables, bytes, as it will be: these are no maps of an object.
    pub(super) fn slab_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.slab_bytes)
    }

    /// Asks for a process, by its pid in the initial pid namespace; with `follow_children` also for
    /// those that it will fork, and theirs.
    ///
    /// # Errors
    /// If there are as many targets as there can be.
    pub fn add_target(&self, pid: u32, follow_children: bool) -> Result<(), KernelError> {
        let target = sf_target { follow_children: u32::from(follow_children) };
        self.map("targets")?
            .update(&pid.to_ne_bytes(), abi::bytes_of(&target), MapFlags::ANY)
            .map_err(|error| KernelError::bpf(format!("select process {pid}"), error))
    }

    /// The processes asked for, ascending, those included that were forked since.
    #[must_use]
    pub fn targets(&self) -> Vec<u32> {
        let keys = self.map("targets").into_iter().flat_map(MapCore::keys);
        let pids: BTreeSet<u32> =
            keys.filter_map(|key| key.try_into().ok().map(u32::from_ne_bytes)).collect();
        pids.into_iter().collect()
    }

    /// From now on samples of this process say in which span they are, where it does.
    ///
    /// # Errors
    /// If there is no room for more processes.
    pub fn set_words(&self, pid: u32, words: &ApplicationWords) -> Result<(), KernelError> {
        let words = words.for_kernel();
        self.map("words")?
            .update(&pid.to_ne_bytes(), abi::bytes_of(&words), MapFlags::ANY)
            .map_err(|error| KernelError::bpf(format!("note how process {pid} names its spans"), error))
    }

    /// The process has ended, or runs another program.
    pub fn remove_words(&self, pid: u32) {
        self.remove("words", pid);
    }

    /// Says how a runtime is laid out in a process: the bytes of `struct sf_python`, `sf_v8` or `sf_hotspot`.
    ///
    /// # Errors
    /// If there is no room for more processes, or the layout is not of the size that the kernel side has.
    pub fn set_runtime(&self, pid: u32, runtime: Runtime, layout: &[u8]) -> Result<(), KernelError> {
        let what = || format!("note where {} of process {pid} has its frames", runtime.name());
        self.map(runtime_map(runtime))?
            .update(&pid.to_ne_bytes(), layout, MapFlags::ANY)
            .map_err(|error| KernelError::bpf(what(), error))
    }

    /// The process has ended, or runs another program.
    pub fn remove_runtime(&self, pid: u32, runtime: Runtime) {
        self.remove(runtime_map(runtime), pid);
    }

    fn remove(&self, name: &'static str, pid: u32) {
        if let Ok(map) = self.map(name) {
            // Not there is fine.
            let _ = map.delete(&pid.to_ne_bytes());
        }
    }
}

fn runtime_map(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Python => "python_processes",
        Runtime::V8 => "v8_processes",
        Runtime::Hotspot => "hotspot_processes",
    }
}
