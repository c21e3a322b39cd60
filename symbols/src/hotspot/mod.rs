//! HotSpot, the Java virtual machine: JDK 11, 17, 21 and 25 on x86-64.
//!
//! Comes in: object files of a process, its memory, frames as `bpf/unwind/hotspot.h` recorded them (which says how
//! HotSpot lays out its frames, and what is not covered). Goes out: where that finds what it reads, and names, lines
//! and inlined methods. Never: writes to the process, guesses.
//!
//! Where things are is taken from the tables that the virtual machine exports for its own serviceability agent
//! ([`vm_structs`]), in each process anew. Of versions that nobody has looked at in a running program nothing is
//! believed even so, because the tables do not say what fields mean.
//!
//! - A method is `Method → ConstMethod → ConstantPool → Symbol`s ([`methods`]); its identity is [`identity`].
//! - A compiled method says which methods were inlined at which address ([`debug_info`]), by numbers that are
//!   compressed ([`compressed`]). Its own debug information names Methods that it keeps alive; before and after it is read the
//!   compile id is compared with that of the sample.
//! - Names have the parameters' types behind them where a class has several methods of the name.

mod compressed;
mod debug_info;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod identity;
mod layout;
mod legal_names;
mod methods;
mod recorded;
#[cfg(test)]
mod tests;
mod vm_structs;

use std::collections::HashMap;
use std::sync::Arc;

use debug_info::Compiled;
use layout::Layout;
use methods::Methods;
use vm_structs::{TableError, text_at};

use crate::address::{Bias, ElfAddress};
use crate::little_endian::{u16_at, u32_at, u64_at};
use crate::process_memory::ProcessMemory;
use crate::script::{MappedObject, NotRead, Refusal, Runtime, ScriptFrame, ScriptFunction, ScriptRuntime};
use crate::{Machine, ObjectFile};

/// As users know it.
const NAME: &str = "HotSpot";
/// Every symbol of the tables begins so.
const PREFIX: &[u8] = b"gHotSpotVM";
const MARKER: &str = "gHotSpotVMStructs";
const SYMBOL_BYTES: usize = 24;
const MAX_SYMBOLS: usize = 256;
const MAX_STUB_NAME_BYTES: usize = 96;

/// `enum sf_hotspot_kind`.
mod kind {
    pub(super) const INTERPRETED: u8 = 1;
    pub(super) const COMPILED: u8 = 2;
    pub(super) const NATIVE_WRAPPER: u8 = 3;
    pub(super) const STUB: u8 = 4;
    pub(super) const CODELET: u8 = 5;
}

/// What is exported of the tables: process addresses.
#[derive(Debug, Default)]
struct SymbolTable {
    addresses: HashMap<String, u64>,
}

impl SymbolTable {
    /// Those of an object file, if it is a virtual machine.
    fn of(object: &ObjectFile, bias: Bias) -> Option<Self> {
        let (Ok(Some(texts)), Ok(Some(symbols))) = (object.section(".dynstr"), object.section(".dynsym"))
        else {
            return None;
        };
        let mut addresses = HashMap::new();
        for symbol in symbols.data.chunks_exact(SYMBOL_BYTES) {
            let (Some(name), Some(section), Some(value)) =
                (u32_at(symbol, 0), u16_at(symbol, 6), u64_at(symbol, 8))
            else {
                continue;
            };
            let Some(text) = texts.data.get(name as usize..) else { continue };
            if section == 0 || !text.starts_with(PREFIX) || addresses.len() >= MAX_SYMBOLS {
                continue;
            }
            let Some(end) = text.iter().position(|byte| *byte == 0) else { continue };
            let name = String::from_utf8_lossy(text.get(..end).unwrap_or_default()).into_owned();
            addresses.insert(name, bias.to_process(ElfAddress(value)).0);
        }
        addresses.contains_key(MARKER).then_some(Self { addresses })
    }

    fn address(&self, name: &str) -> Result<u64, TableError> {
        let address = self.addresses.get(name).copied();
        address.ok_or_else(|| TableError::Missing(format!("it does not export {name}")))
    }
}

/// Why a virtual machine cannot be read; [`NotRead`] with a version that may be unknown.
#[derive(Debug)]
enum Refused {
    NotYet(String),
    Unsupported { version: String, what: String },
}

impl From<TableError> for Refused {
    fn from(error: TableError) -> Self {
        match error {
            TableError::NotReadable(what) => Self::NotYet(what),
            TableError::Missing(what) => Self::Unsupported { version: String::new(), what },
        }
    }
}

impl From<Refused> for NotRead {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotYet(what) => Self::NotYet { runtime: NAME, what },
            Refused::Unsupported { version, what } => Self::Unsupported { runtime: NAME, version, what },
        }
    }
}

/// Whether an object file is a HotSpot virtual machine.
#[must_use]
pub fn is_virtual_machine(object: &ObjectFile) -> bool {
    SymbolTable::of(object, Bias(0)).is_some()
}

/// Finds the virtual machine of a process, if it has one.
///
/// # Errors
/// [`NotRead`]: it has one, but that is not set up yet, or is of a version that is not known.
pub fn find(
    objects: &[MappedObject],
    memory: &dyn ProcessMemory,
) -> Result<Option<Arc<dyn ScriptRuntime>>, NotRead> {
    Ok(Hotspot::find(objects, memory)?.map(|machine| Arc::new(machine) as Arc<dyn ScriptRuntime>))
}

/// A virtual machine in a process.
#[derive(Debug)]
pub struct Hotspot {
    layout: Layout,
    methods: Methods,
}

impl Hotspot {
    fn of(layout: Layout) -> Self {
        Self { layout, methods: Methods::default() }
    }

    /// Finds that of a process, if it has one.
    ///
    /// # Errors
    /// [`NotRead`]: it has one, but that is not set up yet, or is of a version that is not known.
    pub fn find(objects: &[MappedObject], memory: &dyn ProcessMemory) -> Result<Option<Self>, NotRead> {
        for object in objects {
            let Some(symbols) = SymbolTable::of(&object.file, object.bias) else { continue };
            if object.file.machine() != Machine::X86_64 {
                return Err(NotRead::Unsupported {
                    runtime: NAME,
                    version: String::new(),
                    what: "only its x86-64 code has been looked at".to_owned(),
                });
            }
            return Ok(Some(Self::of(Layout::read(&symbols, memory)?)));
        }
        Ok(None)
    }

    fn interpreted(
        &self,
        frame: &ScriptFrame,
        memory: &dyn ProcessMemory,
    ) -> Result<Vec<ScriptFunction>, Refusal> {
        let method = self.methods.read(&self.layout, frame.object, memory)?;
        if method.identity != frame.identity {
            return Err(Refusal::ObjectMoved);
        }
        let index = (frame.position != u32::MAX).then_some(frame.position);
        Ok(vec![method.at(&self.layout, index, false)])
    }

    /// A blob's bytes, if it still is the compiled method that it was at the sample.
    fn compiled_blob(&self, frame: &ScriptFrame, memory: &dyn ProcessMemory) -> Result<Vec<u8>, Refusal> {
        let kernel = &self.layout.kernel;
        let mut bytes = vec![0; usize::from(kernel.nmethod_read_bytes)];
        memory.read(frame.object, &mut bytes)?;
        let method = u64_at(&bytes, usize::from(kernel.nmethod_method));
        let compile_id = u32_at(&bytes, usize::from(kernel.nmethod_compile_id));
        let entry_bci = u32_at(&bytes, usize::from(kernel.nmethod_entry_bci));
        let (Some(method), Some(compile_id), Some(entry_bci)) = (method, compile_id, entry_bci) else {
            return Err(Refusal::Malformed);
        };
        let is_it = identity::of_nmethod(method, compile_id, entry_bci) == frame.identity
            && method == frame.other
            && compile_id == frame.position;
        if is_it { Ok(bytes) } else { Err(Refusal::ObjectMoved) }
    }

    fn compiled(
        &self,
        frame: &ScriptFrame,
        memory: &dyn ProcessMemory,
    ) -> Result<Vec<ScriptFunction>, Refusal> {
        let bytes = self.compiled_blob(frame, memory)?;
        let layout = &self.layout;
        let functions = if frame.kind == kind::NATIVE_WRAPPER {
            Ok(Vec::new())
        } else {
            Compiled { layout, methods: &self.methods, blob: frame.object, bytes: &bytes, memory }
                .functions(frame)
        };
        let functions = match functions {
            // Code that belongs to the method as a whole: of a native one, or behind the last record.
            Ok(functions) if functions.is_empty() => self
                .methods
                .read(layout, frame.other, memory)
                .map(|method| vec![method.at(layout, None, frame.kind == kind::COMPILED)]),
            functions => functions,
        };
        // It may have been freed while it was read.
        self.compiled_blob(frame, memory)?;
        functions
    }

    fn stub(&self, frame: &ScriptFrame, memory: &dyn ProcessMemory) -> Result<Vec<ScriptFunction>, Refusal> {
        let kernel = &self.layout.kernel;
        let mut bytes = vec![0; usize::from(kernel.blob_read_bytes)];
        memory.read(frame.object, &mut bytes)?;
        let name = u64_at(&bytes, usize::from(kernel.blob_name)).ok_or(Refusal::Malformed)?;
        let size = u32_at(&bytes, usize::from(kernel.blob_bytes)).ok_or(Refusal::Malformed)?;
        if identity::of_stub(name, size) != frame.identity || name != frame.other {
            return Err(Refusal::ObjectMoved);
        }
        if !frame.is_leaf && frame.address.checked_add(1) == Some(self.layout.call_stub_return) {
            return Ok(vec![runtime_function("call_stub".to_owned())]);
        }
        let name = text_at(memory, name, MAX_STUB_NAME_BYTES)?.unwrap_or_default();
        Ok(vec![runtime_function(name)])
    }
}

fn runtime_function(name: String) -> ScriptFunction {
    ScriptFunction { name, ..ScriptFunction::default() }
}

impl ScriptRuntime for Hotspot {
    fn runtime(&self) -> Runtime {
        Runtime::Hotspot
    }

    fn version(&self) -> &str {
        &self.layout.release
    }

    fn layout(&self) -> Vec<u8> {
        self.layout.kernel.bytes()
    }

    fn name(&self, frame: &ScriptFrame, memory: &dyn ProcessMemory) -> Result<Vec<ScriptFunction>, Refusal> {
        match frame.kind {
            kind::INTERPRETED if frame.identity == 0 => Err(Refusal::Unreadable),
            kind::INTERPRETED => self.interpreted(frame, memory),
            kind::COMPILED | kind::NATIVE_WRAPPER => self.compiled(frame, memory),
            kind::STUB => self.stub(frame, memory),
            kind::CODELET => Ok(vec![runtime_function("Interpreter".to_owned())]),
            _ => Err(Refusal::Unsupported),
        }
    }
}
