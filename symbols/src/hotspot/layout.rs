//! Where a virtual machine keeps what is read of it: for the kernel side ([`KernelLayout`], `struct sf_hotspot`), and for
//! names.

use super::compressed::Encoding;
use super::vm_structs::{TableError, VmStructs, text_at};
use super::{Refused, SymbolTable};
use crate::process_memory::{ProcessMemory, Unreadable};

/// Feature releases whose frames were looked at in running programs; the fields of others may mean something else.
const VERIFIED_VERSIONS: [u32; 4] = [11, 17, 21, 25];
/// From this one on `UNSIGNED5` leaves zero bytes out.
const FIRST_WITHOUT_ZERO: u32 = 20;
/// From this one on `CodeBlob` has offsets instead of pointers.
const FIRST_COMPACT: u32 = 23;

/// `SF_HOTSPOT_HEAPS`, `SF_HOTSPOT_ENTRIES` and `SF_HOTSPOT_BLOB_BYTES`.
const MAX_HEAPS: usize = 4;
const MAX_ENTRIES: usize = 4;
const MAX_BLOB_BYTES: u64 = 400;

/// A code cache is at most 2 GiB.
const MAX_CODE_BYTES: u64 = 2 << 30;
/// The interpreter is about 100 KiB, with debugging aids a few times that.
const MAX_INTERPRETER_BYTES: u64 = 4 << 20;
const MAX_CODELETS: u32 = 4096;
/// Blocks of a code heap that are looked at for a compiled method.
const MAX_BLOCKS: u32 = 4096;
const MAX_FLAGS: u64 = 8192;

/// `struct sf_hotspot_heap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Heap {
    pub(super) begin: u64,
    pub(super) end: u64,
    pub(super) segment_map: u64,
    pub(super) log2_segment: u64,
}

/// `struct sf_hotspot_entry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Entry {
    pub(super) begin: u64,
    pub(super) end: u64,
    pub(super) pop: u64,
    pub(super) push: u64,
}

/// `struct sf_hotspot`; its fields are described there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct KernelLayout {
    pub(super) version: u32,
    pub(super) heap_count: u32,
    pub(super) code_begin: u64,
    pub(super) code_end: u64,
    pub(super) interpreter_begin: u64,
    pub(super) interpreter_end: u64,
    pub(super) method_entries_begin: u64,
    pub(super) method_entries_end: u64,
    pub(super) nmethod_name: u64,
    pub(super) symbol_mask: u64,
    pub(super) heaps: [Heap; MAX_HEAPS],
    pub(super) entries: [Entry; MAX_ENTRIES],
    pub(super) heap_block_bytes: u16,
    pub(super) heap_block_used: u16,
    pub(super) blob_name: u16,
    pub(super) blob_bytes: u16,
    pub(super) blob_frame_complete: u16,
    pub(super) blob_frame_size: u16,
    pub(super) blob_code_begin: u16,
    pub(super) blob_is_compact: u16,
    pub(super) blob_read_bytes: u16,
    pub(super) nmethod_read_bytes: u16,
    pub(super) nmethod_method: u16,
    pub(super) nmethod_compile_id: u16,
    pub(super) nmethod_entry_bci: u16,
    pub(super) nmethod_orig_pc: u16,
    pub(super) nmethod_deopt: u16,
    pub(super) nmethod_deopt_mh: u16,
    pub(super) method_const_method: u16,
    pub(super) const_method_constants: u16,
    pub(super) const_method_code_size: u16,
    pub(super) const_method_name_index: u16,
    pub(super) const_method_signature_index: u16,
    pub(super) const_method_idnum: u16,
    pub(super) const_method_bytes: u16,
    pub(super) constants_holder: u16,
    pub(super) klass_name: u16,
}

impl KernelLayout {
    /// As the kernel side reads it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut words = vec![
            u64::from(self.version) | u64::from(self.heap_count) << 32,
            self.code_begin,
            self.code_end,
            self.interpreter_begin,
            self.interpreter_end,
            self.method_entries_begin,
            self.method_entries_end,
            self.nmethod_name,
            self.symbol_mask,
        ];
        for heap in self.heaps {
            words.extend([heap.begin, heap.end, heap.segment_map, heap.log2_segment]);
        }
        for entry in self.entries {
            words.extend([entry.begin, entry.end, entry.pop, entry.push]);
        }
        let mut copy = self.clone();
        let reserved = [0; 3];
        let offsets = copy.offsets().into_iter().map(|offset| *offset).chain(reserved);
        let words = words.into_iter().flat_map(u64::to_le_bytes);
        words.chain(offsets.flat_map(u16::to_le_bytes)).collect()
    }

    /// The offsets, in the order of `struct sf_hotspot`.
    pub(super) fn offsets(&mut self) -> [&mut u16; 25] {
        [
            &mut self.heap_block_bytes,
            &mut self.heap_block_used,
            &mut self.blob_name,
            &mut self.blob_bytes,
            &mut self.blob_frame_complete,
            &mut self.blob_frame_size,
            &mut self.blob_code_begin,
            &mut self.blob_is_compact,
            &mut self.blob_read_bytes,
            &mut self.nmethod_read_bytes,
            &mut self.nmethod_method,
            &mut self.nmethod_compile_id,
            &mut self.nmethod_entry_bci,
            &mut self.nmethod_orig_pc,
            &mut self.nmethod_deopt,
            &mut self.nmethod_deopt_mh,
            &mut self.method_const_method,
            &mut self.const_method_constants,
            &mut self.const_method_code_size,
            &mut self.const_method_name_index,
            &mut self.const_method_signature_index,
            &mut self.const_method_idnum,
            &mut self.const_method_bytes,
            &mut self.constants_holder,
            &mut self.klass_name,
        ]
    }
}

/// Where the debug information of a compiled method lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DebugInformation {
    /// In the blob itself (JDK 11 to 22): offsets of fields. The first is a pointer, the others are 4 bytes, from the blob on.
    InBlob { scopes_data_begin: u16, metadata: u16, scopes_pcs: u16, dependencies: u16 },
    /// Outside of it (JDK 25): two pointers to what does (not) change, and 4 bytes each in them.
    Outside {
        immutable_data: u16,
        immutable_data_bytes: u16,
        mutable_data: u16,
        mutable_data_bytes: u16,
        relocation_bytes: u16,
        scopes_pcs: u16,
        scopes_data: u16,
    },
}

/// Where a class's source file's name is: an index in its constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceFileIndex {
    InClass(u16),
    InConstants(u16),
}

/// Everything that is known of a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) kernel: KernelLayout,
    pub(super) release: String,
    pub(super) encoding: Encoding,
    pub(super) debug: DebugInformation,
    pub(super) call_stub_return: u64,
    /// `-XX:+DebugNonSafepoints`: debug information for every instruction.
    pub(super) has_debug_everywhere: bool,
    pub(super) constants_bytes: u16,
    pub(super) constants_count: u16,
    pub(super) symbol_length: u16,
    pub(super) symbol_body: u16,
    pub(super) const_method_words: u16,
    pub(super) const_method_flags: u16,
    pub(super) class_methods: u16,
    pub(super) methods_data: u16,
    pub(super) source_file: SourceFileIndex,
}

fn plus(address: u64, offset: u64) -> Result<u64, TableError> {
    address
        .checked_add(offset)
        .ok_or_else(|| TableError::NotReadable(format!("{address:#x} is no address yet")))
}

fn field(structs: &VmStructs, of: &'static str, name: &str) -> Result<u16, TableError> {
    let offset = structs.offset(of, name)?;
    u16::try_from(offset).map_err(|_| TableError::Missing(format!("{of}::{name} lies at {offset}")))
}

fn size(structs: &VmStructs, of: &'static str) -> Result<u16, TableError> {
    let size = structs.size(of)?;
    u16::try_from(size).map_err(|_| TableError::Missing(format!("{of} has {size} bytes")))
}

impl Layout {
    /// Reads everything.
    pub(super) fn read(symbols: &SymbolTable, memory: &dyn ProcessMemory) -> Result<Self, Refused> {
        let structs = VmStructs::read(symbols, memory)?;
        let (version, release) = version(&structs, memory)?;
        let unsupported = |what: String| Refused::Unsupported { version: release.clone(), what };
        if !VERIFIED_VERSIONS.contains(&version) {
            return Err(unsupported(format!("only JDK {VERIFIED_VERSIONS:?} have been verified")));
        }
        let with_version = |error: TableError| match error {
            TableError::NotReadable(what) => Refused::NotYet(what),
            TableError::Missing(what) => unsupported(what),
        };
        // Slots that unwind/hotspot.h has by heart.
        for (name, expected) in
            [("frame::interpreter_frame_sender_sp_offset", -1), ("frame::pc_return_offset", 0)]
        {
            if structs.integer(name) != Some(expected) {
                return Err(unsupported(format!("{name} is not {expected}")));
            }
        }
        let mut kernel = offsets(&structs, version).map_err(with_version)?;
        places(&mut kernel, &structs, memory).map_err(with_version)?;
        Self::of(kernel, &structs, version, release.clone(), memory).map_err(with_version)
    }

    fn of(
        kernel: KernelLayout,
        structs: &VmStructs,
        version: u32,
        release: String,
        memory: &dyn ProcessMemory,
    ) -> Result<Self, TableError> {
        let in_class = structs.optional_offset("InstanceKlass", "_source_file_name_index");
        let source_file = match in_class {
            Some(_) => SourceFileIndex::InClass(field(structs, "InstanceKlass", "_source_file_name_index")?),
            None => SourceFileIndex::InConstants(field(structs, "ConstantPool", "_source_file_name_index")?),
        };
        let flags = if structs.optional_offset("ConstMethod", "_flags").is_some() {
            field(structs, "ConstMethod", "_flags")?
        } else {
            field(structs, "ConstMethod", "_flags._flags")?
        };
        let debug = if version >= FIRST_COMPACT {
            DebugInformation::Outside {
                immutable_data: field(structs, "nmethod", "_immutable_data")?,
                immutable_data_bytes: field(structs, "nmethod", "_immutable_data_size")?,
                mutable_data: field(structs, "CodeBlob", "_mutable_data")?,
                mutable_data_bytes: field(structs, "CodeBlob", "_mutable_data_size")?,
                relocation_bytes: field(structs, "CodeBlob", "_relocation_size")?,
                scopes_pcs: field(structs, "nmethod", "_scopes_pcs_offset")?,
                scopes_data: field(structs, "nmethod", "_scopes_data_offset")?,
            }
        } else {
            DebugInformation::InBlob {
                scopes_data_begin: field(structs, "CompiledMethod", "_scopes_data_begin")?,
                metadata: field(structs, "nmethod", "_metadata_offset")?,
                scopes_pcs: field(structs, "nmethod", "_scopes_pcs_offset")?,
                dependencies: field(structs, "nmethod", "_dependencies_offset")?,
            }
        };
        for (name, expected) in [("_pc_offset", 0), ("_scope_decode_offset", 4), ("_flags", 12)] {
            if structs.offset("PcDesc", name)? != expected {
                return Err(TableError::Missing(format!("PcDesc::{name} is not at {expected}")));
            }
        }
        let call_stub_return =
            memory.u64_at(structs.address("StubRoutines", "_call_stub_return_address")?)?;
        if call_stub_return == 0 {
            return Err(TableError::NotReadable("its stubs are not made yet".to_owned()));
        }
        Ok(Self {
            kernel,
            release,
            encoding: if version >= FIRST_WITHOUT_ZERO { Encoding::WithoutZero } else { Encoding::WithZero },
            debug,
            call_stub_return,
            has_debug_everywhere: flag(structs, "DebugNonSafepoints", memory).unwrap_or(false),
            constants_bytes: size(structs, "ConstantPool")?,
            constants_count: field(structs, "ConstantPool", "_length")?,
            symbol_length: field(structs, "Symbol", "_length")?,
            symbol_body: field(structs, "Symbol", "_body")?,
            const_method_words: field(structs, "ConstMethod", "_constMethod_size")?,
            const_method_flags: flags,
            class_methods: field(structs, "InstanceKlass", "_methods")?,
            methods_data: field(structs, "Array<Method*>", "_data")?,
            source_file,
        })
    }
}

/// Feature release and the version as `java -version` has it.
fn version(structs: &VmStructs, memory: &dyn ProcessMemory) -> Result<(u32, String), TableError> {
    let text = memory.u64_at(structs.address("Abstract_VM_Version", "_s_vm_release")?)?;
    let release = text_at(memory, text, 64)?
        .filter(|release| !release.is_empty())
        .ok_or_else(|| TableError::NotReadable("its version is not set yet".to_owned()))?;
    // "17.0.17+10-Debian-1deb12u1", "25.0.1+8-LTS", "21-ea+3".
    let release = release.split('-').next().unwrap_or_default().to_owned();
    let digits = release.split(|character: char| !character.is_ascii_digit()).next().unwrap_or_default();
    let feature =
        digits.parse().map_err(|_| TableError::Missing(format!("{release} is no version that is known")))?;
    Ok((feature, release))
}

fn offsets(structs: &VmStructs, version: u32) -> Result<KernelLayout, TableError> {
    let is_compact = version >= FIRST_COMPACT;
    let owner = if is_compact { "nmethod" } else { "CompiledMethod" };
    let symbol_mask = if let Some(refcount) = structs.optional_offset("Symbol", "_refcount") {
        // A counter of two bytes of its own (JDK 11).
        !(0xffff_u64.checked_shl((refcount as u32).saturating_mul(8)).unwrap_or(0))
    } else {
        // The lower half of a number of four bytes.
        let offset = structs.offset("Symbol", "_hash_and_refcount")?;
        !(0xffff_u64.checked_shl((offset as u32).saturating_mul(8)).unwrap_or(0))
    };
    if structs.offset("Array<int>", "_length")? != 0 {
        return Err(TableError::Missing("Array::_length is not at 0".to_owned()));
    }
    let deopt = |name: &str| {
        let name = if is_compact { format!("{name}_offset") } else { format!("{name}_begin") };
        field(structs, owner, &name)
    };
    let layout = KernelLayout {
        version,
        symbol_mask,
        heap_block_bytes: size(structs, "HeapBlock")?,
        heap_block_used: field(structs, "HeapBlock", "_header")?.saturating_add(field(
            structs,
            "HeapBlock::Header",
            "_used",
        )?),
        blob_name: field(structs, "CodeBlob", "_name")?,
        blob_bytes: field(structs, "CodeBlob", "_size")?,
        blob_frame_complete: field(structs, "CodeBlob", "_frame_complete_offset")?,
        blob_frame_size: field(structs, "CodeBlob", "_frame_size")?,
        blob_code_begin: field(structs, "CodeBlob", if is_compact { "_code_offset" } else { "_code_begin" })?,
        blob_is_compact: u16::from(is_compact),
        blob_read_bytes: size(structs, "CodeBlob")?,
        nmethod_read_bytes: size(structs, "nmethod")?,
        nmethod_method: field(structs, owner, "_method")?,
        nmethod_compile_id: field(structs, "nmethod", "_compile_id")?,
        nmethod_entry_bci: field(structs, "nmethod", "_entry_bci")?,
        nmethod_orig_pc: field(structs, "nmethod", "_orig_pc_offset")?,
        nmethod_deopt: deopt("_deopt_handler")?,
        nmethod_deopt_mh: deopt("_deopt_mh_handler").unwrap_or(0),
        method_const_method: field(structs, "Method", "_constMethod")?,
        const_method_constants: field(structs, "ConstMethod", "_constants")?,
        const_method_code_size: field(structs, "ConstMethod", "_code_size")?,
        const_method_name_index: field(structs, "ConstMethod", "_name_index")?,
        const_method_signature_index: field(structs, "ConstMethod", "_signature_index")?,
        const_method_idnum: field(structs, "ConstMethod", "_method_idnum")?,
        const_method_bytes: size(structs, "ConstMethod")?,
        constants_holder: field(structs, "ConstantPool", "_pool_holder")?,
        klass_name: field(structs, "Klass", "_name")?,
        ..KernelLayout::default()
    };
    // What the kernel side reads at once, and where it looks in that.
    let in_const_method = [
        layout.const_method_constants + 6,
        layout.const_method_code_size,
        layout.const_method_name_index,
        layout.const_method_signature_index,
        layout.const_method_idnum,
    ];
    let read = u64::from(layout.heap_block_bytes) + u64::from(layout.nmethod_read_bytes);
    let limit = layout.nmethod_read_bytes;
    let in_blob = [
        layout.nmethod_method + 4,
        layout.nmethod_compile_id,
        layout.nmethod_entry_bci,
        layout.nmethod_orig_pc,
        layout.nmethod_deopt,
        layout.blob_name + 4,
        layout.blob_frame_size,
        layout.blob_code_begin,
    ];
    if read > MAX_BLOB_BYTES
        || in_const_method.iter().any(|offset| *offset > 62)
        || in_blob.iter().any(|offset| u32::from(*offset) + 4 > u32::from(limit))
    {
        return Err(TableError::Missing(format!("nmethod has {limit} bytes")));
    }
    Ok(layout)
}

/// What lies where in this process.
fn places(
    kernel: &mut KernelLayout,
    structs: &VmStructs,
    memory: &dyn ProcessMemory,
) -> Result<(), TableError> {
    let not_yet = |what: &str| TableError::NotReadable(format!("{what} is not set up yet"));
    kernel.code_begin = memory.u64_at(structs.address("CodeCache", "_low_bound")?)?;
    kernel.code_end = memory.u64_at(structs.address("CodeCache", "_high_bound")?)?;
    if kernel.code_begin == 0 || kernel.code_end.saturating_sub(kernel.code_begin) > MAX_CODE_BYTES {
        return Err(not_yet("the code cache"));
    }
    let heaps = memory.u64_at(structs.address("CodeCache", "_heaps")?)?;
    if heaps == 0 {
        return Err(not_yet("the list of code heaps"));
    }
    let count = structs
        .offset("GrowableArrayBase", "_len")
        .or_else(|_| structs.offset("GenericGrowableArray", "_len"))?;
    let count = memory.u32_at(plus(heaps, count)?)? as usize;
    if count == 0 || count > MAX_HEAPS {
        return Err(not_yet("the list of code heaps"));
    }
    let list = memory.u64_at(plus(heaps, structs.offset("GrowableArray<int>", "_data")?)?)?;
    let space = |name: &str, end: &str| -> Result<u64, TableError> {
        Ok(structs.offset("CodeHeap", name)? + structs.offset("VirtualSpace", end)?)
    };
    for (index, heap) in kernel.heaps.iter_mut().take(count).enumerate() {
        let at = memory.u64_at(plus(list, 8 * index as u64)?)?;
        *heap = Heap {
            begin: memory.u64_at(plus(at, space("_memory", "_low")?)?)?,
            end: memory.u64_at(plus(at, space("_memory", "_high_boundary")?)?)?,
            segment_map: memory.u64_at(plus(at, space("_segmap", "_low")?)?)?,
            log2_segment: u64::from(
                memory.u32_at(plus(at, structs.offset("CodeHeap", "_log2_segment_size")?)?)?,
            ),
        };
        let is_sensible = heap.begin >= kernel.code_begin
            && heap.end <= kernel.code_end
            && heap.begin < heap.end
            && heap.segment_map != 0
            && (4..=20).contains(&heap.log2_segment);
        if !is_sensible {
            return Err(not_yet("a code heap"));
        }
    }
    kernel.heap_count = count as u32;
    interpreter(kernel, structs, memory)?;
    kernel.nmethod_name = nmethod_name(kernel, structs, memory)?.unwrap_or(0);
    Ok(())
}

/// Finds the interpreter and where in it methods begin.
fn interpreter(
    kernel: &mut KernelLayout,
    structs: &VmStructs,
    memory: &dyn ProcessMemory,
) -> Result<(), TableError> {
    let not_yet = || TableError::NotReadable("the interpreter is not made yet".to_owned());
    let queue = memory.u64_at(structs.address("AbstractInterpreter", "_code")?)?;
    if queue == 0 {
        return Err(not_yet());
    }
    let number = |name: &str| -> Result<u32, TableError> {
        Ok(memory.u32_at(plus(queue, structs.offset("StubQueue", name)?)?)?)
    };
    let begin = memory.u64_at(plus(queue, structs.offset("StubQueue", "_stub_buffer")?)?)?;
    let bytes = u64::from(number("_queue_end")?);
    if begin == 0 || bytes == 0 || bytes > MAX_INTERPRETER_BYTES || number("_queue_begin")? != 0 {
        return Err(not_yet());
    }
    kernel.interpreter_begin = begin;
    kernel.interpreter_end = plus(begin, bytes)?;
    let size_at = structs.offset("InterpreterCodelet", "_size")?;
    let description_at = structs.offset("InterpreterCodelet", "_description")?;
    let (mut at, mut entries, mut is_whole) = (begin, 0, false);
    for _ in 0..MAX_CODELETS {
        if at >= kernel.interpreter_end {
            break;
        }
        let bytes = u64::from(memory.u32_at(plus(at, size_at)?)?);
        let end = plus(at, bytes)?;
        if bytes == 0 || end > kernel.interpreter_end {
            return Err(not_yet());
        }
        let description = text_at(memory, memory.u64_at(plus(at, description_at)?)?, 96)?.unwrap_or_default();
        // The last but one to be made, and the last.
        is_whole |= description.starts_with("deoptimization entry point") || description == "breakpoint";
        if description.contains("method entry point (kind = ") {
            if kernel.method_entries_begin == 0 {
                kernel.method_entries_begin = at;
            }
            kernel.method_entries_end = end;
            let mut code = vec![0; bytes.min(1024) as usize];
            memory.read(at, &mut code)?;
            if let (Some((pop, push)), Some(entry)) = (edges(&code), kernel.entries.get_mut(entries)) {
                *entry = Entry { begin: at, end, pop: at + pop, push: at + push };
                entries += 1;
            }
        }
        at = end;
    }
    if !is_whole {
        return Err(not_yet());
    }
    if entries < 2 {
        return Err(TableError::Missing("the interpreter's method entries are not as expected".to_owned()));
    }
    Ok(())
}

/// Where a method's entry takes its return address off the stack (`pop rax; lea r14, [rsp + 8 * rcx - 8]`) and puts it back
/// (`push rax; push rbp; mov rbp, rsp`).
fn edges(code: &[u8]) -> Option<(u64, u64)> {
    let pop = code.windows(6).position(|bytes| bytes == [0x58, 0x4c, 0x8d, 0x74, 0xcc, 0xf8])?;
    let push = code
        .windows(5)
        .position(|bytes| matches!(bytes, [0x50, 0x55, 0x48, 0x8b, 0xec] | [0x50, 0x55, 0x48, 0x89, 0xe5]))?;
    (pop < push).then_some((pop as u64, push as u64))
}

/// The name that compiled methods' blobs have, by the first of them: it is the same address in all.
fn nmethod_name(
    kernel: &KernelLayout,
    structs: &VmStructs,
    memory: &dyn ProcessMemory,
) -> Result<Option<u64>, TableError> {
    let length_at = structs.offset("HeapBlock::Header", "_length")?;
    // Methods have heaps of their own mostly, which come after the one of stubs.
    for heap in kernel.heaps.iter().take(kernel.heap_count as usize).rev() {
        let mut block = heap.begin;
        for _ in 0..MAX_BLOCKS {
            let mut header = [0; 16];
            let Some(bytes) = header.get_mut(..usize::from(kernel.heap_block_bytes).min(16)) else { break };
            if block >= heap.end || memory.read(block, bytes).is_err() {
                break;
            }
            let is_used = header.get(usize::from(kernel.heap_block_used)).is_some_and(|used| used & 1 != 0);
            let segments = memory.u32_at(plus(block, length_at)?)?;
            if segments == 0 {
                break;
            }
            let name_at = u64::from(kernel.heap_block_bytes) + u64::from(kernel.blob_name);
            if is_used && let Ok(name) = memory.u64_at(plus(block, name_at)?) {
                match text_at(memory, name, 16) {
                    Ok(Some(text)) if text == "nmethod" => return Ok(Some(name)),
                    _ => {}
                }
            }
            block = plus(block, u64::from(segments) << heap.log2_segment)?;
        }
    }
    Ok(None)
}

/// A flag of the virtual machine.
fn flag(structs: &VmStructs, name: &str, memory: &dyn ProcessMemory) -> Option<bool> {
    let (flags, count) =
        (structs.address("JVMFlag", "flags").ok()?, structs.address("JVMFlag", "numFlags").ok()?);
    let begin = memory.u64_at(flags).ok()?;
    let count = memory.u64_at(count).ok()?.min(MAX_FLAGS);
    let (stride, name_at) = (structs.size("JVMFlag").ok()?, structs.offset("JVMFlag", "_name").ok()?);
    let value_at = structs.offset("JVMFlag", "_addr").ok()?;
    (0..count).find_map(|index| {
        let flag = begin.checked_add(index.checked_mul(stride)?)?;
        let text = memory.u64_at(flag.checked_add(name_at)?).ok()?;
        let is_it = text_at(memory, text, 64).ok()?.is_some_and(|text| text == name);
        is_it.then(|| {
            let value = memory.u64_at(flag.checked_add(value_at)?).ok()?;
            Some(memory.u8_at(value).ok()? & 1 != 0)
        })?
    })
}

impl From<Unreadable> for Refused {
    fn from(error: Unreadable) -> Self {
        Self::NotYet(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_has_as_many_bytes_as_the_kernel_side_expects() {
        // Nine words, four heaps and four entries of four words each, and 28 halves.
        assert_eq!(KernelLayout::default().bytes().len(), 8 * (9 + 16 + 16) + 2 * 28);
    }

    #[test]
    fn a_methods_entry_is_found_by_its_edges_and_nothing_else_is() {
        let code =
            [0x58, 0x90, 0x58, 0x4c, 0x8d, 0x74, 0xcc, 0xf8, 0x90, 0x50, 0x55, 0x48, 0x8b, 0xec, 0x41, 0x55];
        assert_eq!(edges(&code), Some((2, 9)));
        assert_eq!(edges(&code[..13]), None, "cut off");
        assert_eq!(edges(&code[3..]), None, "no pop");
        assert_eq!(edges(&[]), None);
    }
}
