//! V8, as Node 18, 20, 22 and 24 have it: where it is in a process, and what names its frames.
//!
//! Comes in: the objects of a process and its memory. Goes out: [`find`]'s runtime, which tells the kernel side where
//! V8 keeps what `bpf/unwind/v8.h` reads (the prose on frames is there), and gives functions, files and lines to the frames
//! that it recorded. Never: a name whose function is another one by now, a line that the code does not tell.
//!
//! A frame's function is told by its SharedFunctionInfo: name or scope, script, bytecode. Where in the function it
//! was:
//! - interpreted: the frame holds the offset in the bytecode, whose table leads to the source;
//! - baseline: the code's table leads to bytecodes;
//! - optimised (Maglev, TurboFan): the code's own table leads to the source, and to what was inlined. V8 writes into it
//!   where calls are; of the innermost frame it tells the nearest such place before, which is marked approximate.
//!
//! V8 makes bytecode's tables only where a stack trace or the optimising compiler needed one: before that the line
//! is unknown, and known is the one on which the function begins. Code of builtins has symbols, and is no concern of
//! this module but for where it is ([`builtins`]).
//!
//! Not covered: names of WebAssembly functions; objects that were stripped of the symbols of their builtins; isolates
//! whose sources are outside of the heap and not cached.

pub(crate) mod builtins;
mod code;
mod elf_symbols;
mod functions;
mod heap;
mod layout;
mod lines;
mod positions;

use std::collections::HashMap;
use std::sync::Arc;

use self::builtins::Builtins;
use self::code::{KnownMap, Place};
use self::heap::Heap;
use self::layout::Layout;
use self::lines::Lines;
use crate::ElfAddress;
use crate::process_memory::ProcessMemory;
use crate::script::{MappedObject, NotRead, Refusal, Runtime, ScriptFrame, ScriptFunction, ScriptRuntime};

/// `enum sf_v8_kind`.
const INTERPRETED: u8 = 1;
const COMPILED: u8 = 2;
/// `SF_V8_HASHED_BYTES`.
const HASHED_BYTES: usize = 16;
/// V8's own name for what has none.
const ANONYMOUS: &str = "(anonymous)";

/// V8 in a process.
#[derive(Debug)]
struct V8 {
    version: String,
    layout: Layout,
    builtins: Builtins,
    bytecode_sizes: Vec<u8>,
    lines: Lines,
    instruction_map: KnownMap,
}

/// Finds V8 in a process. `Ok(None)`: it has none.
///
/// # Errors
/// [`NotRead::Unsupported`] for a version or build whose layout is not known.
pub fn find(
    objects: &[MappedObject],
    memory: &dyn ProcessMemory,
) -> Result<Option<Arc<dyn ScriptRuntime>>, NotRead> {
    let Some(mapped) = objects.iter().find(|mapped| builtins::may_have_v8(&mapped.file)) else {
        return Ok(None);
    };
    let unsupported = |version: &str, what: String| NotRead::Unsupported {
        runtime: "V8",
        version: version.to_owned(),
        what,
    };
    let told = elf_symbols::told(&mapped.file).map_err(|error| unsupported("", error.to_string()))?;
    let (number, name) = v8_version(&told.constants)
        .ok_or_else(|| unsupported("", "its symbols do not tell its version".to_owned()))?;
    let layout = Layout::new(number, &told.constants).map_err(|what| unsupported(&name, what))?;
    let builtins = builtins::find(&mapped.file).map_err(|error| unsupported(&name, error.to_string()))?;
    let builtins = builtins
        .ok_or_else(|| unsupported(&name, "it was stripped of the symbols of its builtins".to_owned()))?;
    let version = told.metadata.and_then(|address| node_version(mapped, address, memory));
    Ok(Some(Arc::new(V8 {
        version: version.unwrap_or(name),
        layout,
        builtins,
        bytecode_sizes: told.bytecode_sizes,
        lines: Lines::default(),
        instruction_map: KnownMap::default(),
    })))
}

/// V8's version: the numbers that its layout goes by, and all of them.
fn v8_version(constants: &HashMap<String, i32>) -> Option<((u32, u32), String)> {
    let number = |name: &str| constants.get(name).and_then(|value| u32::try_from(*value).ok());
    let (major, minor) = (number("major_E")?, number("minor_E")?);
    let (build, patch) = (number("build_E").unwrap_or(0), number("patch_E").unwrap_or(0));
    Some(((major, minor), format!("V8 {major}.{minor}.{build}.{patch}")))
}

/// Node's version: the first of the strings that it has for `process.versions`.
fn node_version(mapped: &MappedObject, metadata: ElfAddress, memory: &dyn ProcessMemory) -> Option<String> {
    let address = mapped.bias.to_process(metadata).0;
    // A std::string of libstdc++: where the characters are, and how many.
    let (characters, length) = (memory.u64_at(address).ok()?, memory.u64_at(address.checked_add(8)?).ok()?);
    let mut bytes = vec![0; usize::try_from(length).ok().filter(|length| (5..=32).contains(length))?];
    memory.read(characters, &mut bytes).ok()?;
    let is_version = bytes.first()?.is_ascii_digit() && bytes.iter().all(|byte| byte.is_ascii_graphic());
    is_version.then(|| String::from_utf8(bytes).ok()).flatten()
}

impl ScriptRuntime for V8 {
    fn runtime(&self) -> Runtime {
        Runtime::V8
    }

    fn version(&self) -> &str {
        &self.version
    }

    /// `struct sf_v8`.
    fn layout(&self) -> Vec<u8> {
        let layout = &self.layout;
        let (major, minor) = layout.version;
        let trampoline = &self.builtins.trampoline;
        let halves = [
            major << 16 | minor,
            layout.function_shared as u32,
            u32::from(layout.type_shared),
            layout.map_instance_type as u32,
            layout.shared_data as u32,
            layout.shared_script as u32,
            layout.shared_literal as u32,
            layout.shared_unique as u32,
            layout.script_id as u32,
            (trampoline.end - trampoline.start) as u32,
        ];
        let words = [
            self.builtins.code.start,
            self.builtins.code.end,
            self.builtins.handlers_begin,
            trampoline.start,
            0,
        ];
        let mut bytes = Vec::with_capacity(80);
        bytes.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes
    }

    fn name(&self, frame: &ScriptFrame, memory: &dyn ProcessMemory) -> Result<Vec<ScriptFunction>, Refusal> {
        let heap = Heap { memory, layout: &self.layout };
        self.must_be(frame, &heap)?;
        let named = self.name_places(frame, &heap);
        // What was read meanwhile is right only if it still is the same function.
        self.must_be(frame, &heap)?;
        named
    }
}

impl V8 {
    fn must_be(&self, frame: &ScriptFrame, heap: &Heap<'_>) -> Result<(), Refusal> {
        // An address where no such object is (any more) is as good as another object.
        match heap.identity(frame.object) {
            Ok(Some(identity)) if identity == frame.identity => Ok(()),
            Ok(_) | Err(Refusal::Malformed) => Err(Refusal::ObjectMoved),
            Err(refusal) => Err(refusal),
        }
    }

    fn name_places(&self, frame: &ScriptFrame, heap: &Heap<'_>) -> Result<Vec<ScriptFunction>, Refusal> {
        let unknown = (vec![Place { shared: frame.object, position: None }], true);
        let (places, is_approximate) = match frame.kind {
            INTERPRETED => self.interpreted(frame, heap).unwrap_or(unknown),
            COMPILED => self.compiled(frame, heap).unwrap_or(unknown),
            _ => return Err(Refusal::Unsupported),
        };
        let count = places.len();
        places
            .iter()
            .enumerate()
            .map(|(index, place)| {
                let mut function = self.function(place, heap)?;
                // The outermost is certain: it is what the frame is of.
                function.is_approximate = is_approximate
                    && (count > 1 || function.line != 0)
                    && (index + 1 < count || function.line != 0);
                Ok(function)
            })
            .collect()
    }

    /// Where an interpreted function was; `None` if that cannot be told any more.
    fn interpreted(&self, frame: &ScriptFrame, heap: &Heap<'_>) -> Option<(Vec<Place>, bool)> {
        if heap.bytecode_of(frame.object).ok()?? != frame.other {
            return None;
        }
        // What the frame holds counts from the tagged pointer.
        let offset = u64::from(frame.position).checked_sub(self.layout.bytecode_data - 1)?;
        let position = heap.position_in_bytecode(frame.other, offset).ok()?;
        Some((vec![Place { shared: frame.object, position }], false))
    }

    /// Where a compiled function was, with what was inlined there; `None` if its code is gone.
    fn compiled(&self, frame: &ScriptFrame, heap: &Heap<'_>) -> Option<(Vec<Place>, bool)> {
        let begin = frame.address.checked_sub(HASHED_BYTES as u64 / 2)?;
        let now =
            functions::hash(heap.memory.u64_at(begin).ok()?, heap.memory.u64_at(begin.checked_add(8)?).ok()?);
        if now != frame.position {
            return None;
        }
        let code = heap.code_at(frame.address, &self.instruction_map)?;
        let found =
            heap.places(&code, frame.object, frame.address, frame.is_leaf, &self.bytecode_sizes).ok()??;
        self.instruction_map.remember(&code);
        Some(found)
    }

    fn function(&self, place: &Place, heap: &Heap<'_>) -> Result<ScriptFunction, Refusal> {
        let described = heap.describe(place.shared)?;
        let mut function = ScriptFunction { name: described.name, ..ScriptFunction::default() };
        let script = heap.script_of(place.shared)?;
        if let Some(script) = script {
            function.file = heap.file_of(script)?;
            let line = |offset: Option<u32>| {
                offset.map_or(0, |offset| self.lines.line(heap, script, offset).unwrap_or(0))
            };
            function.start_line = line(described.begin);
            function.line = line(place.position);
        }
        if function.name.is_empty() {
            ANONYMOUS.clone_into(&mut function.name);
        }
        Ok(function)
    }
}
