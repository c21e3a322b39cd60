//! The unwinder's tables: who owns which pages, and in which order they become visible.
//!
//! A new table is written completely before anything points to it, and what it replaces rests before
//! its pages are used again (extents.rs). Objects are published by a release store of their state,
//! mapping tables by replacing the process's hash element, which the kernel does in one step.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::mem::{offset_of, size_of};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use libbpf_rs::libbpf_sys::bpf_map_create_opts;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};
use spanflame_symbols::unwind::UnwindTable;
use spanflame_symbols::unwind::layout;

use super::KernelError;
use super::abi::{
    self, MAPPINGS_PER_PAGE, MAX_MAPPINGS, MAX_PROCESSES, MAX_SLABS, OBJECT_SLOTS, PAGE_BYTES, SLAB_PAGES,
    sf_mapping, sf_mapping_kind, sf_object, sf_object_flag, sf_object_state, sf_process, sf_process_flag,
};
use super::extents::{Extent, Extents, REUSE_DELAY};
use super::run_statistics::map_memory_bytes;
use super::shared_memory::SharedMemory;
use crate::model::ObjectId;

/// What an executable mapping holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MappingKind {
    /// A file or the vDSO.
    Object(ObjectId),
    /// Generated code: anonymous memory or a memfd without ELF.
    Jit,
    /// `[uprobes]`.
    Uprobes,
}

/// An executable mapping of a process, half open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessMapping {
    /// First process address.
    pub begin: u64,
    /// End, exclusive.
    pub end: u64,
    /// Process address - ELF address; wraps.
    pub bias: u64,
    /// What it holds.
    pub kind: MappingKind,
}

/// How full the tables are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableStatistics {
    /// Pages taken, those included that rest before they are used again.
    pub pages_used: u32,
    /// Slabs created.
    pub slabs: u32,
    /// Objects allocated.
    pub objects: u32,
    /// Processes with a mapping table.
    pub processes: u32,
    /// Requests refused because there was no room.
    pub refused_full: u64,
}

/// An object's slot as this side knows it.
#[derive(Debug, Clone, Copy)]
struct ObjectSlot {
    generation: u32,
    extent: Option<Extent>,
}

/// A process's entry as this side wrote it last.
#[derive(Debug, Clone, Copy)]
struct PublishedProcess {
    extent: Extent,
    version: u32,
}

/// Writes the unwinder's tables. Owned by one thread.
#[derive(Debug)]
pub struct Tables {
    slabs_map: MapHandle,
    processes_map: MapHandle,
    objects_memory: SharedMemory,
    /// Written by system calls: mapped, each of them would count as 4 MiB of this process.
    slabs: Vec<MapHandle>,
    /// What the slabs take of the kernel's memory; read by the sampler.
    slab_bytes: Arc<AtomicU64>,
    extents: Extents,
    objects: HashMap<u32, ObjectSlot>,
    next_object: u32,
    resting_objects: VecDeque<(Instant, u32, u32)>,
    processes: HashMap<u32, PublishedProcess>,
    next_version: u32,
    refused_full: u64,
}

impl Tables {
    /// Executable mappings that a process can have here.
    pub const MAX_MAPPINGS: usize = MAX_MAPPINGS;

    pub(super) fn new(
        slabs_map: MapHandle,
        objects_map: &MapHandle,
        processes_map: MapHandle,
        slab_bytes: Arc<AtomicU64>,
    ) -> Result<Self, KernelError> {
        let objects_memory = SharedMemory::map(
            objects_map.as_fd(),
            0,
            OBJECT_SLOTS as usize * size_of::<sf_object>(),
            true,
            "the objects of the unwinder",
        )?;
        Ok(Self {
            slabs_map,
            processes_map,
            objects_memory,
            slabs: Vec::new(),
            slab_bytes,
            extents: Extents::default(),
            objects: HashMap::new(),
            next_object: 1,
            resting_objects: VecDeque::new(),
            processes: HashMap::new(),
            next_version: 1,
            refused_full: 0,
        })
    }

    /// A new object, whose table is still to come: walks end there with `TablePending`.
    ///
    /// # Errors
    /// [`KernelError::Full`] if there are as many objects as there can be.
    pub fn allocate_object(&mut self) -> Result<ObjectId, KernelError> {
        let now = Instant::now();
        let rested = match self.resting_objects.front() {
            Some(&(since, _, _)) if now.saturating_duration_since(since) >= REUSE_DELAY => {
                self.resting_objects.pop_front()
            }
            _ => None,
        };
        let (id, generation) = match rested {
            Some((_, id, generation)) => (id, next_generation(generation)),
            None if self.next_object < OBJECT_SLOTS => {
                let id = self.next_object;
                self.next_object += 1;
                (id, 1)
            }
            None => {
                self.refused_full += 1;
                return Err(KernelError::Full {
                    what: "objects",
                    wanted: 1,
                    used: self.objects.len() as u64,
                    limit: u64::from(OBJECT_SLOTS) - 1,
                });
            }
        };
        self.objects.insert(id, ObjectSlot { generation, extent: None });
        self.write_state(id, sf_object_state::SF_OBJECT_PENDING, 0, generation);
        Ok(ObjectId(id))
    }

    /// Puts an object's table where the unwinder finds it. A table that it had before is replaced.
    ///
    /// # Errors
    /// [`KernelError::Full`] if there is no room, [`KernelError::Table`] if the object is not allocated
    /// or the table does not hold together, else the kernel's refusal of another slab.
    pub fn publish_table(&mut self, object: ObjectId, table: &UnwindTable) -> Result<(), KernelError> {
        let unusable = |reason| KernelError::Table { object: object.0, reason };
        let slot = *self.objects.get(&object.0).ok_or_else(|| unusable("the object is not allocated"))?;
        let pages = u32::try_from(table.pages.len() / PAGE_BYTES).map_err(|_| unusable("too many pages"))?;
        let parts = [table.directory_pages, table.rule_pages, table.leaf_pages];
        let sum = parts.iter().try_fold(0u32, |sum, &part| sum.checked_add(part));
        if !table.pages.len().is_multiple_of(PAGE_BYTES) || sum != Some(pages) {
            return Err(unusable("its parts do not add up to its pages"));
        }
        if !table.text_begin.0.is_multiple_of(1 << layout::CHUNK_BITS) {
            return Err(unusable("its text does not begin on a chunk"));
        }
        if u64::from(table.chunks) > u64::from(table.directory_pages) * layout::DIRECTORY_PER_PAGE as u64 {
            return Err(unusable("its directory is shorter than its text"));
        }

        let extent = self.take_pages(pages)?;
        for (number, page) in (extent.first..).zip(table.pages.chunks_exact(PAGE_BYTES)) {
            self.write_page(number, page).inspect_err(|_| self.extents.release(extent, Instant::now()))?;
        }
        if let Some(old) = slot.extent {
            // Between the old table and the new one walks end with TablePending, as at first; a reader
            // that is in the middle goes on with the old pages, which rest.
            self.write_state(object.0, sf_object_state::SF_OBJECT_PENDING, 0, slot.generation);
            self.extents.release(old, Instant::now());
        }
        let rules_page = extent.first + table.directory_pages;
        let flags = if tracks_rbx(table) { sf_object_flag::SF_OBJECT_TRACKS_RBX.0 as u16 } else { 0 };
        let base = object.0 as usize * size_of::<sf_object>();
        self.objects_memory
            .write(base + offset_of!(sf_object, text_begin), &table.text_begin.0.to_ne_bytes());
        self.objects_memory.write(base + offset_of!(sf_object, chunks), &table.chunks.to_ne_bytes());
        self.objects_memory.write(base + offset_of!(sf_object, directory_page), &extent.first.to_ne_bytes());
        self.objects_memory.write(base + offset_of!(sf_object, rules_page), &rules_page.to_ne_bytes());
        self.objects_memory
            .write(base + offset_of!(sf_object, leaf_page), &(rules_page + table.rule_pages).to_ne_bytes());
        // The unwinder remembers rules by generation, so a new table is a new generation.
        let generation = next_generation(slot.generation);
        self.write_state(object.0, sf_object_state::SF_OBJECT_READY, flags, generation);
        self.objects.insert(object.0, ObjectSlot { generation, extent: Some(extent) });
        Ok(())
    }

    /// Says that an object has no unwind information, or cannot be read: walks end there with `NoTable`.
    pub fn mark_without_table(&mut self, object: ObjectId) {
        let Some(slot) = self.objects.get_mut(&object.0) else { return };
        let (generation, extent) = (slot.generation, slot.extent.take());
        self.write_state(object.0, sf_object_state::SF_OBJECT_NO_INFO, 0, generation);
        if let Some(extent) = extent {
            self.extents.release(extent, Instant::now());
        }
    }

    /// Gives an object's number and table back. No process's mappings may name it any more. The number
    /// is used again a second later at the earliest, so samples that carry it should be decoded by then.
    pub fn release_object(&mut self, object: ObjectId) {
        let Some(slot) = self.objects.remove(&object.0) else { return };
        let now = Instant::now();
        self.write_state(object.0, sf_object_state::SF_OBJECT_FREE, 0, slot.generation);
        if let Some(extent) = slot.extent {
            self.extents.release(extent, now);
        }
        self.resting_objects.push_back((now, object.0, slot.generation));
    }

    /// Tells the unwinder a process's executable mappings: all of them, ascending, without overlaps.
    /// Replaces what it knew before, also what a child of fork shared with its parent. `image_ns` is a
    /// time, `CLOCK_MONOTONIC`, at which the mappings were those of the process's program: should the
    /// process be in the middle of an `execve`, it tells the kernel side whether they are the new ones.
    /// With `only_if_known` nothing happens if the kernel side has no entry of the process: a child of
    /// fork has one, lent by its parent, until it calls `execve`.
    ///
    /// # Errors
    /// [`KernelError::Mappings`] if they are not like that, [`KernelError::Full`] if there is no room.
    pub fn set_process(
        &mut self,
        pid: u32,
        image_ns: u64,
        only_if_known: bool,
        mappings: &[ProcessMapping],
    ) -> Result<(), KernelError> {
        check_mappings(pid, mappings)?;
        if self.processes.len() >= MAX_PROCESSES as usize && !self.processes.contains_key(&pid) {
            self.refused_full += 1;
            return Err(KernelError::Full {
                what: "processes",
                wanted: 1,
                used: self.processes.len() as u64,
                limit: u64::from(MAX_PROCESSES),
            });
        }
        let pages = mappings.len().div_ceil(MAPPINGS_PER_PAGE) as u32;
        let extent = self.take_pages(pages)?;
        let mut page = Vec::with_capacity(PAGE_BYTES);
        for (number, mappings) in (extent.first..).zip(mappings.chunks(MAPPINGS_PER_PAGE)) {
            page.clear();
            for mapping in mappings {
                page.extend_from_slice(abi::bytes_of(&encode_mapping(mapping)));
            }
            page.resize(PAGE_BYTES, 0);
            self.write_page(number, &page).inspect_err(|_| self.extents.release(extent, Instant::now()))?;
        }
        let process = sf_process {
            mapping_page: extent.first,
            mappings: mappings.len() as u32,
            flags: sf_process_flag::SF_PROCESS_KNOWN.0,
            version: self.next_version,
            alias_of: 0,
            alias_version: 0,
            image_ns,
        };
        self.next_version = self.next_version.checked_add(1).unwrap_or(1);
        let flags = if only_if_known { MapFlags::EXIST } else { MapFlags::ANY };
        if let Err(error) = self.processes_map.update(&pid.to_ne_bytes(), abi::bytes_of(&process), flags) {
            self.extents.release(extent, Instant::now());
            if only_if_known && error.kind() == libbpf_rs::ErrorKind::NotFound {
                return Ok(());
            }
            return Err(KernelError::bpf(format!("store the mappings of process {pid}"), error));
        }
        let published = PublishedProcess { extent, version: process.version };
        if let Some(old) = self.processes.insert(pid, published) {
            self.extents.release(old.extent, Instant::now());
        }
        Ok(())
    }

    /// Whether the kernel side still has what [`Self::set_process`] gave it last. It drops processes
    /// that exec or exit by itself.
    #[must_use]
    pub fn holds_process(&self, pid: u32) -> bool {
        let Some(published) = self.processes.get(&pid) else { return false };
        let entry = self.processes_map.lookup(&pid.to_ne_bytes(), MapFlags::ANY).ok().flatten();
        let version = entry.and_then(|entry| {
            let begin = offset_of!(sf_process, version);
            entry.get(begin..begin + size_of::<u32>())?.try_into().ok().map(u32::from_ne_bytes)
        });
        version == Some(published.version)
    }

    /// Forgets a process.
    pub fn remove_process(&mut self, pid: u32) {
        // Not there is fine: the kernel side drops processes that exit or exec by itself.
        let _ = self.processes_map.delete(&pid.to_ne_bytes());
        if let Some(published) = self.processes.remove(&pid) {
            self.extents.release(published.extent, Instant::now());
        }
    }

    /// How full the tables are.
    #[must_use]
    pub fn statistics(&self) -> TableStatistics {
        TableStatistics {
            pages_used: self.extents.used(),
            slabs: self.slabs.len() as u32,
            objects: self.objects.len() as u32,
            processes: self.processes.len() as u32,
            refused_full: self.refused_full,
        }
    }

    /// Takes pages, with new slabs if need be. An extent may reach across slabs.
    fn take_pages(&mut self, pages: u32) -> Result<Extent, KernelError> {
        if pages == 0 {
            return Ok(Extent { first: 0, pages: 0 });
        }
        if let Some(extent) = self.extents.take(pages, Instant::now()) {
            return Ok(extent);
        }
        let new_slabs = self.extents.missing(pages).div_ceil(SLAB_PAGES);
        if self.slabs.len() as u64 + u64::from(new_slabs) > u64::from(MAX_SLABS) {
            self.refused_full += 1;
            return Err(KernelError::Full {
                what: "pages of unwind tables",
                wanted: u64::from(pages),
                used: u64::from(self.extents.used()),
                limit: u64::from(MAX_SLABS) * u64::from(SLAB_PAGES),
            });
        }
        for _ in 0..new_slabs {
            self.add_slab()?;
        }
        self.extents.take(pages, Instant::now()).ok_or(KernelError::Full {
            what: "pages of unwind tables",
            wanted: u64::from(pages),
            used: u64::from(self.extents.used()),
            limit: u64::from(self.extents.total()),
        })
    }

    fn add_slab(&mut self) -> Result<(), KernelError> {
        let options = bpf_map_create_opts {
            sz: size_of::<bpf_map_create_opts>() as libbpf_rs::libbpf_sys::size_t,
            map_flags: libbpf_rs::libbpf_sys::BPF_F_MMAPABLE,
            ..Default::default()
        };
        let refused = |error| KernelError::bpf("create a slab of unwind tables (4 MiB)", error);
        let slab =
            MapHandle::create(MapType::Array, Some("slab"), 4, PAGE_BYTES as u32, SLAB_PAGES, &options)
                .map_err(refused)?;
        let index = self.slabs.len() as u32;
        let slab_fd = std::os::fd::AsRawFd::as_raw_fd(&slab.as_fd());
        self.slabs_map
            .update(&index.to_ne_bytes(), &slab_fd.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| KernelError::bpf("add a slab of unwind tables", error))?;
        self.slab_bytes.fetch_add(map_memory_bytes(slab.as_fd()), Ordering::Relaxed);
        self.slabs.push(slab);
        self.extents.grow(SLAB_PAGES);
        Ok(())
    }

    /// `contents`: a whole page.
    fn write_page(&self, number: u32, contents: &[u8]) -> Result<(), KernelError> {
        let slab = self.slabs.get((number / SLAB_PAGES) as usize);
        slab.ok_or(KernelError::Missing("slab of unwind tables"))?
            .update(&(number % SLAB_PAGES).to_ne_bytes(), contents, MapFlags::ANY)
            .map_err(|error| KernelError::bpf("write a page of unwind tables", error))
    }

    /// State, flags and generation share one aligned word, written last and in one piece.
    fn write_state(&mut self, object: u32, state: sf_object_state, flags: u16, generation: u32) {
        const WORD: usize = offset_of!(sf_object, state);
        const {
            assert!(WORD.is_multiple_of(8) && offset_of!(sf_object, flags) == WORD + 2);
            assert!(offset_of!(sf_object, generation) == WORD + 4);
        }
        let word = u64::from(state.0) | u64::from(flags) << 16 | u64::from(generation) << 32;
        self.objects_memory.publish(object as usize * size_of::<sf_object>() + WORD, word);
    }
}

/// Whether a table's rules say where rbx is saved: those do whose CFA is somewhere based on it.
fn tracks_rbx(table: &UnwindTable) -> bool {
    const RBX: u8 = 3;
    let begin = table.directory_pages as usize * PAGE_BYTES;
    let end = begin + table.rule_pages as usize * PAGE_BYTES;
    let rules = table.pages.get(begin..end).unwrap_or_default();
    rules.chunks_exact(size_of::<layout::UnwindRule>()).any(|rule| {
        let cfa = rule.first().copied().unwrap_or(layout::cfa::NONE);
        let register = rule.get(offset_of!(layout::UnwindRule, cfa_register)).copied();
        (cfa == layout::cfa::REGISTER || cfa == layout::cfa::DEREF) && register == Some(RBX)
    })
}

/// Never 0: that is the generation of what was never written.
fn next_generation(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

fn encode_mapping(mapping: &ProcessMapping) -> sf_mapping {
    let (object, kind) = match mapping.kind {
        MappingKind::Object(object) => (object.0, sf_mapping_kind::SF_MAPPING_OBJECT),
        MappingKind::Jit => (0, sf_mapping_kind::SF_MAPPING_JIT),
        MappingKind::Uprobes => (0, sf_mapping_kind::SF_MAPPING_UPROBES),
    };
    sf_mapping { begin: mapping.begin, end: mapping.end, bias: mapping.bias, object, kind: kind.0 }
}

fn check_mappings(pid: u32, mappings: &[ProcessMapping]) -> Result<(), KernelError> {
    let unusable = |reason: String| Err(KernelError::Mappings { pid, reason });
    if mappings.len() > MAX_MAPPINGS {
        return unusable(format!("there are {} of them, at most {MAX_MAPPINGS} are kept", mappings.len()));
    }
    let mut end_before = 0;
    for mapping in mappings {
        if mapping.begin >= mapping.end {
            return unusable(format!("{:#x}-{:#x} is empty", mapping.begin, mapping.end));
        }
        if mapping.begin < end_before {
            return unusable(format!("{:#x} lies below the end of the mapping before it", mapping.begin));
        }
        end_before = mapping.end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(begin: u64, end: u64) -> ProcessMapping {
        ProcessMapping { begin, end, bias: 0, kind: MappingKind::Jit }
    }

    #[test]
    fn mappings_must_be_sorted_disjoint_and_not_empty() {
        assert!(check_mappings(1, &[]).is_ok());
        assert!(check_mappings(1, &[mapping(0, 10), mapping(10, 20)]).is_ok(), "touching is no overlap");
        assert!(check_mappings(1, &[mapping(0, 11), mapping(10, 20)]).is_err());
        assert!(check_mappings(1, &[mapping(10, 20), mapping(0, 5)]).is_err());
        assert!(check_mappings(1, &[mapping(5, 5)]).is_err());
        let many: Vec<_> = (0..=MAX_MAPPINGS as u64).map(|i| mapping(i * 2, i * 2 + 1)).collect();
        assert!(check_mappings(1, &many).is_err());
        assert!(check_mappings(1, &many[1..]).is_ok());
    }
}
