//! The BPF unwinder (`bpf/unwind/*.h`), compiled for this machine and fed from memory images.
//!
//! Comes in: an [`Image`] (user memory, unwind tables, mappings, pending uretprobes) and
//! [`Registers`]. Goes out: a [`Walk`]. Never: privileges, processes, a kernel. It is the very code
//! that runs in the kernel, so tests and fuzzers of it are tests of that.

use std::ffi::c_void;

use spanflame_symbols::process_memory::{ProcessMemory, RecordedMemory};
use spanflame_symbols::unwind::{Row, UnwindTable, layout};

mod recorder;

pub use recorder::Recorder;

/// Bytes of a page of tables.
const PAGE_BYTES: usize = layout::PAGE_BYTES;
/// `SF_MAX_USER_FRAMES`.
pub const MAX_FRAMES: usize = 256;
/// `SF_FRAME_OBJECT_SHIFT`.
const OBJECT_SHIFT: u32 = 48;

/// `enum sf_outcome`.
#[allow(missing_docs)]
pub mod outcome {
    pub const COMPLETE: u32 = 0;
    pub const UNKNOWN_PROCESS: u32 = 2;
    pub const UNKNOWN_MAPPING: u32 = 3;
    pub const TABLE_PENDING: u32 = 4;
    pub const NO_TABLE: u32 = 5;
    pub const NO_RULE: u32 = 6;
    pub const UNSUPPORTED_RULE: u32 = 7;
    pub const STACK_UNREADABLE: u32 = 8;
    pub const REGISTER_LOST: u32 = 9;
    pub const STACK_NOT_RISING: u32 = 10;
    pub const FRAME_POINTER_END: u32 = 11;
    pub const TRUNCATED: u32 = 12;
    pub const UPROBE_RETURN: u32 = 14;
}

/// `enum sf_object_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ObjectState {
    Free = 0,
    Pending = 1,
    Ready = 2,
    NoInformation = 3,
}

/// `enum sf_mapping_kind`, with the object where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum MappingKind {
    Object(u32),
    Jit,
    Uprobes,
}

/// The sixteen general registers by their DWARF numbers, and the pc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Registers {
    /// rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8 … r15.
    pub general: [u64; 16],
    /// rip.
    pub pc: u64,
}

/// A register's DWARF number.
#[allow(missing_docs)]
pub mod register {
    pub const RBX: u8 = 3;
    pub const RDI: u8 = 5;
    pub const RBP: u8 = 6;
    pub const RSP: u8 = 7;
    pub const R10: u8 = 10;
}

/// What a walk found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    /// Words as in `struct sf_sample`.
    pub frames: Vec<u64>,
    /// One of [`outcome`].
    pub outcome: u32,
    /// Where an incomplete walk ended.
    pub stopped_at: u64,
    /// Reads of user memory that it took.
    pub user_reads: u32,
    /// Frames of runtimes.
    pub scripts: Vec<RawScriptFrame>,
    /// Index of the first of them that stands in no word of `frames`.
    pub aside_frame: usize,
    /// `enum sf_runtime`.
    pub runtime: u32,
    /// `enum sf_script_outcome`.
    pub script_outcome: u32,
}

/// `struct sf_script_frame`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct RawScriptFrame {
    pub address: u64,
    pub object: u64,
    pub other: u64,
    pub position: u32,
    pub identity: u32,
    pub runtime: u8,
    pub kind: u8,
    pub flags: u8,
    pub reserved: [u8; 5],
}

/// `SF_MAX_SCRIPT_FRAMES`.
pub const MAX_SCRIPT_FRAMES: usize = 512;

/// The word of a frame in an object.
#[must_use]
pub fn frame(object: u32, elf_address: u64) -> u64 {
    (u64::from(object) << OBJECT_SHIFT) | elf_address
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct ShimRegion {
    begin: u64,
    bytes: u64,
    contents: *const u8,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct ShimReturnInstance {
    stack: u64,
    address: u64,
}

#[repr(C)]
struct ShimImage {
    regions: *const ShimRegion,
    region_count: u64,
    pages: *const Page,
    page_count: u64,
    objects: *const Object,
    object_count: u64,
    return_instances: *const ShimReturnInstance,
    return_instance_count: u64,
    xol_address: u64,
    probed_address: u64,
    uprobe_area: u64,
    mapping_page: u32,
    mappings: u32,
    process_flags: u32,
    in_syscall: u32,
    thread_pointer: u64,
    python: *const u64,
    v8: *const u64,
    hotspot: *const u64,
    read: Option<unsafe extern "C" fn(*const c_void, u64, *mut u8, u64) -> i64>,
    read_context: *const c_void,
}

#[repr(C)]
#[derive(Default)]
struct ShimResult {
    frames: u64,
    stopped_at: u64,
    outcome: u32,
    user_reads: u32,
    script_frames: u32,
    aside_frame: u32,
    runtime: u32,
    script_outcome: u32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

/// `struct sf_object`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct Object {
    text_begin: u64,
    chunks: u32,
    directory_page: u32,
    rules_page: u32,
    leaf_page: u32,
    state: u16,
    flags: u16,
    generation: u32,
}

// SAFETY: declared as shim.c defines them.
unsafe extern "C" {
    fn sf_shim_walker_bytes() -> u64;
    fn sf_shim_walk(
        image: *const ShimImage,
        registers: *const Registers,
        walker: *mut c_void,
        frames: *mut u64,
        scripts: *mut RawScriptFrame,
        result: *mut ShimResult,
    );
}

/// Everything that a walk can see.
#[derive(Debug, Clone, Default)]
pub struct Image {
    regions: Vec<(u64, Vec<u8>)>,
    pages: Vec<Page>,
    objects: Vec<Object>,
    return_instances: Vec<ShimReturnInstance>,
    mapping_page: u32,
    mappings: u32,
    /// Whether user space has told the process's mappings (`SF_PROCESS_KNOWN`).
    pub process_known: bool,
    /// Whether the leaf is in a system call.
    pub in_syscall: bool,
    /// Address of the copy of a probed instruction that is being executed, and of that instruction.
    pub single_step: Option<(u64, u64)>,
    /// Where `[uprobes]` begins, as the kernel knows it.
    pub uprobe_area: Option<u64>,
    /// The thread's fs base.
    pub thread_pointer: u64,
    /// `struct sf_python` of the process as words, if it has such a runtime.
    pub python: Option<Vec<u64>>,
    /// `struct sf_v8`, likewise.
    pub v8: Option<Vec<u64>>,
    /// `struct sf_hotspot`, likewise.
    pub hotspot: Option<Vec<u64>>,
}

impl Image {
    /// An image of a process that is known but has nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { objects: vec![Object::default()], process_known: true, ..Self::default() }
    }

    /// Adds readable memory.
    pub fn add_memory(&mut self, begin: u64, contents: Vec<u8>) {
        self.regions.push((begin, contents));
    }

    /// Adds readable memory of 64-bit words.
    pub fn add_words(&mut self, begin: u64, words: &[u64]) {
        self.add_memory(begin, words.iter().flat_map(|word| word.to_ne_bytes()).collect());
    }

    /// Adds an object with a table and returns its id, from 1 on.
    pub fn add_object(&mut self, table: &UnwindTable, tracks_rbx: bool) -> u32 {
        let first = self.add_pages(&table.pages);
        self.push_object(Object {
            text_begin: table.text_begin.0,
            chunks: table.chunks,
            directory_page: first,
            rules_page: first + table.directory_pages,
            leaf_page: first + table.directory_pages + table.rule_pages,
            state: ObjectState::Ready as u16,
            flags: u16::from(tracks_rbx),
            generation: 1,
        })
    }

    /// Adds an object with the table that `rows` make.
    pub fn add_rows(&mut self, rows: &[Row]) -> u32 {
        self.add_object(&pack(rows), false)
    }

    /// Adds an object without a table.
    pub fn add_object_in_state(&mut self, state: ObjectState) -> u32 {
        self.push_object(Object { state: state as u16, generation: 1, ..Object::default() })
    }

    /// Says how often an object's slot was changed before.
    ///
    /// # Panics
    /// If there is no such object.
    pub fn set_generation(&mut self, object: u32, generation: u32) {
        self.objects[object as usize].generation = generation;
    }

    fn push_object(&mut self, object: Object) -> u32 {
        self.objects.push(object);
        self.objects.len() as u32 - 1
    }

    /// Sets the process's mappings: begin, end, bias, kind.
    pub fn set_mappings(&mut self, mappings: &[(u64, u64, u64, MappingKind)]) {
        let mut bytes = Vec::new();
        for &(begin, end, bias, kind) in mappings {
            let (object, kind) = match kind {
                MappingKind::Object(object) => (object, 1u32),
                MappingKind::Jit => (0, 2),
                MappingKind::Uprobes => (0, 3),
            };
            for word in [begin, end, bias] {
                bytes.extend_from_slice(&word.to_ne_bytes());
            }
            bytes.extend_from_slice(&object.to_ne_bytes());
            bytes.extend_from_slice(&kind.to_ne_bytes());
        }
        self.mapping_page = self.add_pages(&bytes);
        self.mappings = mappings.len() as u32;
    }

    /// Sets the pending uretprobes, newest first: stack address and true return address.
    pub fn set_return_instances(&mut self, instances: &[(u64, u64)]) {
        self.return_instances =
            instances.iter().map(|&(stack, address)| ShimReturnInstance { stack, address }).collect();
    }

    /// Adds raw pages and returns the number of the first.
    pub fn add_pages(&mut self, bytes: &[u8]) -> u32 {
        let first = self.pages.len() as u32;
        for chunk in bytes.chunks(PAGE_BYTES) {
            let mut page = Page([0; PAGE_BYTES]);
            page.0[..chunk.len()].copy_from_slice(chunk);
            self.pages.push(page);
        }
        first
    }

    /// Walks.
    #[must_use]
    pub fn walk(&self, registers: &Registers) -> Walk {
        Walker::default().walk(self, registers)
    }
}

/// The memory that the unwinder keeps from walk to walk (its rule cache).
#[derive(Debug)]
pub struct Walker {
    memory: Vec<u64>,
}

impl Default for Walker {
    fn default() -> Self {
        // SAFETY: no arguments, no state.
        let bytes = unsafe { sf_shim_walker_bytes() };
        Self { memory: vec![0; bytes.div_ceil(8) as usize] }
    }
}

impl Walker {
    /// Walks.
    pub fn walk(&mut self, image: &Image, registers: &Registers) -> Walk {
        self.walk_in(image, registers, &RecordedMemory::default())
    }

    /// Walks in memory of which the image has only a part, or nothing.
    pub fn walk_in(&mut self, image: &Image, registers: &Registers, memory: &dyn ProcessMemory) -> Walk {
        let regions: Vec<ShimRegion> = image
            .regions
            .iter()
            .map(|(begin, contents)| ShimRegion {
                begin: *begin,
                bytes: contents.len() as u64,
                contents: contents.as_ptr(),
            })
            .collect();
        let (xol_address, probed_address) = image.single_step.unwrap_or_default();
        let shim_image = ShimImage {
            regions: regions.as_ptr(),
            region_count: regions.len() as u64,
            pages: image.pages.as_ptr(),
            page_count: image.pages.len() as u64,
            objects: image.objects.as_ptr(),
            object_count: image.objects.len() as u64,
            return_instances: image.return_instances.as_ptr(),
            return_instance_count: image.return_instances.len() as u64,
            xol_address,
            probed_address,
            uprobe_area: image.uprobe_area.unwrap_or(0),
            mapping_page: image.mapping_page,
            mappings: image.mappings,
            process_flags: u32::from(image.process_known),
            in_syscall: u32::from(image.in_syscall),
            thread_pointer: image.thread_pointer,
            python: words_or_null(image.python.as_ref()),
            v8: words_or_null(image.v8.as_ref()),
            hotspot: words_or_null(image.hotspot.as_ref()),
            read: Some(read_memory),
            read_context: (&raw const memory).cast(),
        };
        let mut frames = vec![0u64; MAX_FRAMES];
        let mut scripts = vec![RawScriptFrame::default(); MAX_SCRIPT_FRAMES];
        let mut result = ShimResult::default();
        // SAFETY: all pointers lead to arrays of the lengths beside them, which outlive the call; the
        // walk's memory has the size that the shim asked for, is aligned to 8 and initialised.
        unsafe {
            sf_shim_walk(
                &raw const shim_image,
                std::ptr::from_ref(registers),
                self.memory.as_mut_ptr().cast(),
                frames.as_mut_ptr(),
                scripts.as_mut_ptr(),
                &raw mut result,
            );
        }
        frames.truncate(result.frames as usize);
        scripts.truncate(result.script_frames as usize);
        Walk {
            frames,
            outcome: result.outcome,
            stopped_at: result.stopped_at,
            user_reads: result.user_reads,
            scripts,
            aside_frame: result.aside_frame as usize,
            runtime: result.runtime,
            script_outcome: result.script_outcome,
        }
    }
}

/// `context` is a `*const &dyn ProcessMemory`; `to` has room for `bytes`.
unsafe extern "C" fn read_memory(context: *const c_void, address: u64, to: *mut u8, bytes: u64) -> i64 {
    // SAFETY: `walk_in` gave it, and waits for the walk.
    let memory = unsafe { *context.cast::<&dyn ProcessMemory>() };
    // SAFETY: the unwinder's own buffer, of as many bytes as it asks for, initialised.
    let into = unsafe { std::slice::from_raw_parts_mut(to, bytes as usize) };
    if memory.read(address, into).is_ok() { 0 } else { -14 }
}

fn words_or_null(words: Option<&Vec<u64>>) -> *const u64 {
    words.map_or(std::ptr::null(), Vec::as_ptr)
}

/// Packs sorted rows as `bpf/spanflame.h` says, in the plainest way: a leaf for each chunk. Not the
/// packer of the symbols crate, so that each is checked against something else.
///
/// # Panics
/// If there are no rows, or more than fit a leaf in one chunk.
#[must_use]
pub fn pack(rows: &[Row]) -> UnwindTable {
    const CHUNK: u64 = 1 << layout::CHUNK_BITS;
    let (first, last) = (rows.first().expect("rows"), rows.last().expect("rows"));
    let text_begin = first.address.0 & !(CHUNK - 1);
    let chunks = (last.address.0 - text_begin) / CHUNK + 1;
    let mut rules = vec![layout::UnwindRule::NONE];
    let (mut directory, mut leaves) = (Vec::new(), Vec::new());
    let mut in_force = layout::UnwindRule::NONE;
    for chunk in 0..chunks {
        let begin = text_begin + chunk * CHUNK;
        let mut leaf_rows = vec![(0u64, in_force)];
        for row in rows.iter().filter(|row| (begin..begin + CHUNK).contains(&row.address.0)) {
            if row.address.0 == begin {
                leaf_rows.clear();
            }
            leaf_rows.push((row.address.0 - begin, row.rule));
            in_force = row.rule;
        }
        assert!(leaf_rows.len() <= layout::LEAF_ROWS, "too many rows in a chunk");
        directory.extend_from_slice(&(chunk as u32).to_ne_bytes());
        directory.extend_from_slice(&0u16.to_ne_bytes());
        directory.extend_from_slice(&(leaf_rows.len() as u16).to_ne_bytes());
        let mut leaf = vec![0u8; PAGE_BYTES];
        for (index, (offset, rule)) in leaf_rows.into_iter().enumerate() {
            let number = rules.iter().position(|known| *known == rule).unwrap_or_else(|| {
                rules.push(rule);
                rules.len() - 1
            });
            leaf[index * 2..][..2].copy_from_slice(&(offset as u16).to_ne_bytes());
            leaf[PAGE_BYTES / 2 + index * 2..][..2].copy_from_slice(&(number as u16).to_ne_bytes());
        }
        leaves.extend(leaf);
    }
    directory.resize(directory.len().next_multiple_of(PAGE_BYTES), 0);
    let mut rule_bytes: Vec<u8> = rules.iter().flat_map(rule_bytes).collect();
    rule_bytes.resize(rule_bytes.len().next_multiple_of(PAGE_BYTES), 0);
    UnwindTable {
        text_begin: spanflame_symbols::ElfAddress(text_begin),
        chunks: chunks as u32,
        directory_pages: (directory.len() / PAGE_BYTES) as u32,
        rule_pages: (rule_bytes.len() / PAGE_BYTES) as u32,
        leaf_pages: chunks as u32,
        rows: rows.len() as u64,
        oversized_chunks: 0,
        pages: [directory, rule_bytes, leaves].concat(),
    }
}

fn rule_bytes(rule: &layout::UnwindRule) -> Vec<u8> {
    let mut bytes = vec![rule.cfa, rule.cfa_register, rule.frame_pointer, rule.return_address];
    bytes.extend_from_slice(&rule.cfa_offset.to_ne_bytes());
    bytes.extend_from_slice(&rule.cfa_addend.to_ne_bytes());
    bytes.extend_from_slice(&rule.fp_offset.to_ne_bytes());
    bytes.extend_from_slice(&rule.rbx_offset.to_ne_bytes());
    bytes
}
