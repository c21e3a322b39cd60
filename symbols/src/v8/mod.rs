//! V8, as Node 18, 20, 22 and 24 have it: where it is in a process, and what names its frames.
//!
//! Comes in: the objects of a process and its memory. Goes out: [`find`]'s runtime, which tells the kernel side where
//! V8 keeps what `bpf/unwind/v8.h` reads (the prose on frames is there), and gives functions, files and lines to the frames
//! that it recorded. Never: a name whose function is another one by now, a line that the code does not tell.
//!
//! A frame's function is told by its `SharedFunctionInfo`: name or scope, script, bytecode. Where in the function it
//! was:
//! - interpreted: the frame holds the offset in the bytecode, whose table leads to the source;
//! - baseline: the code's table leads to bytecodes;
//! - optimised (Maglev, `TurboFan`): the code's own table leads to the source, and to what was inlined. V8 writes into it
//!   where calls are; of the innermost frame it tells the nearest such place before, which is marked approximate.
//!
//! V8 makes bytecode's tables only where a stack trace or the optimising compiler needed one: before that the line
//! is unknown, and known is the one on which the function begins. Code of builtins has symbols, and is no concern of
//! this module but for where it is ([`builtins`]).
//!
//! Not covered: names of `WebAssembly` functions; objects that were stripped of the symbols of their builtins; isolates
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

pub use self::builtins::Builtins;
use self::code::{KnownMap, Place};
use self::heap::Heap;
use self::layout::Layout;
use self::lines::Lines;
use crate::ProcessAddress;
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

/// What the object that V8 is in tells of it: all that is taken from a file and not from the process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct V8Place {
    /// V8's constants for debuggers: names without `v8dbg_` → numbers. Its version too, as `major_E` and so on.
    pub constants: HashMap<String, i32>,
    /// `None`: it was stripped of their symbols.
    pub builtins: Option<Builtins>,
    /// Sizes of bytecodes: a byte for each bytecode, for operands of three widths.
    pub bytecode_sizes: Vec<u8>,
    /// Where Node has its versions as text.
    pub metadata: Option<ProcessAddress>,
}

impl V8Place {
    /// What an object tells. `Ok(None)`: V8 is not in it.
    ///
    /// # Errors
    /// [`NotRead::Unsupported`] if its tables cannot be read.
    pub fn find(mapped: &MappedObject) -> Result<Option<Self>, NotRead> {
        if mapped.file.file_bytes() < builtins::MIN_OBJECT_BYTES {
            return Ok(None);
        }
        let told = elf_symbols::told(&mapped.file).map_err(|error| unsupported("", error.to_string()))?;
        if told.constants.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            builtins: told.builtins.builtins(&mapped.file),
            constants: told.constants,
            bytecode_sizes: told.bytecode_sizes,
            metadata: told.metadata.map(|address| mapped.bias.to_process(address)),
        }))
    }
}

/// Finds V8 in a process. `Ok(None)`: it has none.
///
/// # Errors
/// [`NotRead::Unsupported`] for a version or build whose layout is not known.
pub fn find(
    objects: &[MappedObject],
    memory: &dyn ProcessMemory,
) -> Result<Option<Arc<dyn ScriptRuntime>>, NotRead> {
    for mapped in objects {
        if let Some(place) = V8Place::find(mapped)? {
            return read(place, memory).map(Some);
        }
    }
    Ok(None)
}

/// V8 as its object tells of it.
///
/// # Errors
/// [`NotRead::Unsupported`] for a version or build whose layout is not known.
pub fn read(place: V8Place, memory: &dyn ProcessMemory) -> Result<Arc<dyn ScriptRuntime>, NotRead> {
    let (number, name) = v8_version(&place.constants)
        .ok_or_else(|| unsupported("", "its symbols do not tell its version".to_owned()))?;
    let layout = Layout::new(number, &place.constants).map_err(|what| unsupported(&name, what))?;
    let builtins = place
        .builtins
        .ok_or_else(|| unsupported(&name, "it was stripped of the symbols of its builtins".to_owned()))?;
    let version = place.metadata.and_then(|address| node_version(address, memory));
    Ok(Arc::new(V8 {
        version: version.unwrap_or(name),
        layout,
        builtins,
        bytecode_sizes: place.bytecode_sizes,
        lines: Lines::default(),
        instruction_map: KnownMap::default(),
    }))
}

fn unsupported(version: &str, what: String) -> NotRead {
    NotRead::Unsupported { runtime: "V8", version: version.to_owned(), what }
}

/// V8's version: the numbers that its layout goes by, and all of them.
fn v8_version(constants: &HashMap<String, i32>) -> Option<((u32, u32), String)> {
    let number = |name: &str| constants.get(name).and_then(|value| u32::try_from(*value).ok());
    let (major, minor) = (number("major_E")?, number("minor_E")?);
    let (build, patch) = (number("build_E").unwrap_or(0), number("patch_E").unwrap_or(0));
    Some(((major, minor), format!("V8 {major}.{minor}.{build}.{patch}")))
}

/// Node's version: the first of the strings that it has for `process.versions`.
fn node_version(metadata: ProcessAddress, memory: &dyn ProcessMemory) -> Option<String> {
    let address = metadata.0;
    // A std::string of libstdc++: where the characters are, and how many.
    let (characters, length) = (memory.u64_at(address).ok()?, memory.u64_at(address.checked_add(8)?).ok()?);
    let mut bytes = vec![0; usize::try_from(length).ok().filter(|length| (5..=32).contains(length))?];
    memory.read(characters, &mut bytes).ok()?;
    let is_version = bytes.first()?.is_ascii_digit() && bytes.iter().all(u8::is_ascii_graphic);
    is_version.then(|| String::from_utf8(bytes).ok()).flatten()
}

/// V8 of a version as such, in no process: for what tries naming on memory of its own making. `None` for versions whose
/// layout is not known.
#[must_use]
pub fn of_version(version: (u32, u32)) -> Option<Arc<dyn ScriptRuntime>> {
    let builtins = Builtins { code: 0..0, handlers_begin: 0, trampoline: 0..0 };
    Some(Arc::new(V8 {
        version: format!("V8 {}.{}", version.0, version.1),
        layout: Layout::of_version(version)?,
        builtins,
        bytecode_sizes: vec![1; 3 * 256],
        lines: Lines::default(),
        instruction_map: KnownMap::default(),
    }))
}

/// What tells the function at an address from others that come to lie there, as the kernel side computes it; `None`
/// if there is no function, or if it cannot be read.
#[must_use]
pub fn identity_of(version: (u32, u32), shared: u64, memory: &dyn ProcessMemory) -> Option<u32> {
    let layout = Layout::of_version(version)?;
    Heap { memory, layout: &layout }.identity(shared).ok()?
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process_memory::RecordedMemory;

    const HEAP: u64 = 0x7000_0000_0000;

    /// A heap of V8 12.4 that is made word by word.
    struct Made {
        words: Vec<u64>,
        layout: Layout,
    }

    impl Made {
        fn new() -> Self {
            let layout = Layout::of_version((12, 4)).expect("it is known");
            Self { words: Vec::new(), layout }
        }

        /// Words that follow one another; the tagged pointer to them.
        fn object(&mut self, words: &[u64]) -> u64 {
            let at = HEAP + 8 * self.words.len() as u64;
            self.words.extend_from_slice(words);
            at + 1
        }

        fn map(&mut self, kind: u16) -> u64 {
            self.object(&[HEAP + 1, u64::from(kind) << 32])
        }

        fn string(&mut self, text: &str) -> u64 {
            let map = self.map(40);
            let mut words = vec![map, (text.len() as u64) << 32];
            let mut bytes = text.as_bytes().to_vec();
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            words.extend(bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8"))));
            self.object(&words)
        }

        fn memory(&self) -> RecordedMemory {
            let mut memory = RecordedMemory::default();
            memory.add(HEAP, self.words.iter().flat_map(|word| word.to_le_bytes()).collect());
            memory
        }
    }

    fn smi(value: u32) -> u64 {
        u64::from(value) << 32
    }

    /// A function `work` that begins at offset 14 of a script, with bytecode; its `SharedFunctionInfo` and bytecode.
    fn function(made: &mut Made, unique: u32) -> (u64, u64) {
        made.map(0);
        let layout = made.layout.clone();
        let (name, file) = (made.string("work"), made.string("file:///srv/app.js"));
        let source = made.string("// a comment\n\nfunction work() {\n  return 1;\n}\n");
        let (script_map, array_map) = (made.map(layout.type_script), made.map(layout.types_bytes[1]));
        let script = made.object(&[script_map, source, file, smi(0), smi(0), 0, 0, smi(0), smi(7), 0, 0, 0]);
        let scope_map = made.map(layout.type_scope_info);
        // A function's scope with one variable, a name, no inferred name.
        let scope = made.object(&[
            scope_map,
            smi(2 | 3 << 12),
            smi(0),
            smi(1),
            name,
            smi(0),
            name,
            smi(u32::MAX),
            smi(22),
            smi(44),
        ]);
        // Bytecode 0: offset 22; 3: offset 36.
        let positions = made.object(&[array_map, smi(4), u64::from_le_bytes([2, 92, 6, 56, 0, 0, 0, 0])]);
        let bytecode_map = made.map(layout.type_bytecode_array);
        let bytecode = made.object(&[bytecode_map, smi(8), 0, positions, 0, 0, 0, 0, 0]);
        let shared_map = made.map(layout.type_shared);
        let shared = made.object(&[
            shared_map,
            bytecode,
            scope,
            0,
            script,
            0,
            u64::from(3u32) << 32,
            u64::from(unique),
            0,
        ]);
        (shared - 1, bytecode - 1)
    }

    fn frame(shared: u64, bytecode: u64, identity: u32) -> ScriptFrame {
        ScriptFrame {
            runtime: Runtime::V8,
            kind: INTERPRETED,
            is_entry: false,
            is_leaf: false,
            address: 0x1000,
            object: shared,
            other: bytecode,
            position: 63 + 3,
            identity,
        }
    }

    #[test]
    fn an_interpreted_frame_has_name_file_and_lines_and_another_function_there_is_refused() {
        let mut made = Made::new();
        let (shared, bytecode) = function(&mut made, 5);
        let memory = made.memory();
        let runtime = of_version((12, 4)).expect("known");
        let identity = identity_of((12, 4), shared, &memory).expect("a function");
        let named = runtime.name(&frame(shared, bytecode, identity), &memory);
        let expected = ScriptFunction {
            name: "work".to_owned(),
            file: "/srv/app.js".to_owned(),
            start_line: 3,
            line: 4,
            is_approximate: false,
        };
        assert_eq!(named, Ok(vec![expected]));
        assert_eq!(
            runtime.name(&frame(shared, bytecode, identity ^ 1), &memory),
            Err(Refusal::ObjectMoved),
            "another identity"
        );
        assert_eq!(
            runtime.name(&frame(bytecode, bytecode, identity), &memory),
            Err(Refusal::ObjectMoved),
            "no function"
        );
        assert_eq!(
            runtime.name(&frame(8, bytecode, identity), &memory),
            Err(Refusal::Unreadable),
            "nothing there"
        );
        // Its bytecode was thrown away since: the function is certain, the line is not known.
        let named = runtime.name(&frame(shared, shared, identity), &memory).expect("named");
        assert_eq!(
            named.iter().map(|function| (function.start_line, function.line)).collect::<Vec<_>>(),
            [(3, 0)]
        );
    }

    #[test]
    fn memory_that_ends_or_changes_anywhere_is_no_panic() {
        let mut made = Made::new();
        let (shared, bytecode) = function(&mut made, 5);
        let identity = identity_of((12, 4), shared, &made.memory()).expect("a function");
        let runtime = of_version((12, 4)).expect("known");
        for changed in 0..made.words.len() {
            let kept = made.words[changed];
            for value in [0, 1, u64::MAX, HEAP + 1, kept ^ 1, smi(u32::MAX), HEAP + 8 * changed as u64 + 1] {
                made.words[changed] = value;
                let _ = runtime.name(&frame(shared, bytecode, identity), &made.memory());
            }
            made.words[changed] = kept;
        }
        let all = made.words.clone();
        for end in 0..all.len() {
            made.words.truncate(end);
            let _ = runtime.name(&frame(shared, bytecode, identity), &made.memory());
            made.words.clone_from(&all);
        }
    }

    #[test]
    fn the_layout_has_the_bytes_of_the_kernel_side_s_structure() {
        let runtime = of_version((13, 6)).expect("known");
        assert_eq!(runtime.layout().len(), 80);
        assert_eq!(runtime.layout().get(..4), Some(&(13u32 << 16 | 6).to_le_bytes()[..]));
        assert!(of_version((12, 5)).is_none());
    }
}
