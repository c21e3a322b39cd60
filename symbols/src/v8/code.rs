//! Generated code: which code an address is in, which bytecode or source position that is, and which functions
//! were inlined there.
//!
//! V8 finds code by tables of its pages, which differ from version to version. Here it is found by what stands
//! before it: instructions are in an object whose header has a map (of type `InstructionStream`; in V8 10 Code) and
//! leads to what describes them, and that has to say that the address is within. Searching backwards for such a
//! header costs a few reads for code of usual size.

use std::sync::atomic::{AtomicU64, Ordering};

use super::heap::{Heap, object, smi};
use super::layout::CODE_KIND_MASK;
use super::positions::{Position, bytecode_at, find_position};
use crate::script::Refusal;

/// Of one function: `TurboFan` compiles none of more than 60 KiB of bytecodes.
const MAX_CODE_BYTES: u64 = 1 << 20;
const MAX_TABLE_BYTES: u64 = 1 << 20;
/// Functions that were inlined into one another.
const MAX_INLINED: usize = 64;
const ARRAY_LENGTH: u64 = 8;
const ARRAY_DATA: u64 = 16;
const INLINING_POSITION_BYTES: u64 = 16;

/// What describes code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code {
    address: u64,
    kind: u32,
    begin: u64,
    /// The word before its instructions that points to their map.
    map: u64,
}

/// A function at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Its `SharedFunctionInfo`.
    pub shared: u64,
    /// Offset in its script.
    pub position: Option<u32>,
}

/// The word that was seen to point to the map of instructions; they have one in a process.
#[derive(Debug, Default)]
pub(super) struct KnownMap(AtomicU64);

impl KnownMap {
    /// Remembers how code was found that turned out to be right.
    pub(super) fn remember(&self, code: &Code) {
        self.0.store(code.map, Ordering::Relaxed);
    }
}

impl Heap<'_> {
    /// The code that an address is in; `None` if none is found.
    pub(super) fn code_at(&self, address: u64, known: &KnownMap) -> Option<Code> {
        const PIECE: u64 = 4096;
        // The header is larger than two words, so the last word before the address is none.
        let mut end = address & !7;
        let lowest = address.saturating_sub(MAX_CODE_BYTES);
        let mut bytes = [0u8; PIECE as usize];
        while end > lowest {
            let begin = end.saturating_sub(1) & !(PIECE - 1);
            let piece = bytes.get_mut(..usize::try_from(end - begin).ok()?)?;
            self.memory.read(begin, piece).ok()?;
            for (index, word) in piece.chunks_exact(8).enumerate().rev() {
                let word = u64::from_le_bytes(word.try_into().ok()?);
                if word & 3 != 1 || !self.is_instruction_map(word, known) {
                    continue;
                }
                if let Ok(Some(code)) = self.code_of(begin + 8 * index as u64, address) {
                    return Some(code);
                }
            }
            end = begin;
        }
        None
    }

    fn is_instruction_map(&self, word: u64, known: &KnownMap) -> bool {
        let remembered = known.0.load(Ordering::Relaxed);
        if remembered != 0 {
            return word == remembered;
        }
        let Some(map) = object(word) else { return false };
        // Objects are aligned to words.
        let kind = map % 8 == 0;
        let kind = kind.then(|| self.memory.u16_at(map.wrapping_add(self.layout.map_instance_type)).ok());
        kind.flatten() == Some(self.layout.type_instructions) && self.is_map(map)
    }

    /// A map's map is the map of maps, which is its own.
    fn is_map(&self, map: u64) -> bool {
        let Ok(meta) = self.object_at(map, 0) else { return false };
        self.object_at(meta, 0) == Ok(meta)
    }

    /// The code of the instructions at `instructions`, if `address` is in them.
    fn code_of(&self, instructions: u64, address: u64) -> Result<Option<Code>, Refusal> {
        let code = match self.layout.instructions_code {
            Some(offset) => self.object_at(instructions, offset)?,
            None => instructions,
        };
        if self.type_of(code)? != self.layout.type_code {
            return Ok(None);
        }
        let begin = match self.layout.instructions_code {
            Some(_) => self.word(code, self.layout.code_start)?,
            None => code + self.layout.code_start,
        };
        let bytes = u64::from(self.half(code, self.layout.code_size)?);
        let is_within = bytes <= MAX_CODE_BYTES && address.checked_sub(begin).is_some_and(|at| at < bytes);
        let kind = self.half(code, self.layout.code_flags)? & CODE_KIND_MASK;
        let map = self.word(instructions, 0)?;
        Ok(is_within.then_some(Code { address: code, kind, begin, map }))
    }

    /// The function that code was compiled from, as the code has it; `None` for baseline code, which has not.
    fn shared_of(&self, code: &Code) -> Result<Option<u64>, Refusal> {
        if code.kind <= self.layout.kind_baseline {
            return Ok(None);
        }
        let data = self.object_at(code.address, self.layout.code_deoptimization)?;
        let entry = self.element(data, self.layout.deoptimization_shared)?;
        let entry = object(entry).ok_or(Refusal::Malformed)?;
        self.unwrapped(entry).map(Some)
    }

    /// A `SharedFunctionInfo`, also from the wrapper that V8 13 has around those in optimised code's data.
    fn unwrapped(&self, entry: u64) -> Result<u64, Refusal> {
        let kind = self.type_of(entry)?;
        if Some(kind) == self.layout.type_shared_wrapper {
            let shared = self.object_at(entry, 8)?;
            return if self.type_of(shared)? == self.layout.type_shared {
                Ok(shared)
            } else {
                Err(Refusal::Malformed)
            };
        }
        if kind == self.layout.type_shared { Ok(entry) } else { Err(Refusal::Malformed) }
    }

    fn element(&self, array: u64, index: u64) -> Result<u64, Refusal> {
        let length = smi(self.word(array, ARRAY_LENGTH)?).ok_or(Refusal::Malformed)?;
        if i64::try_from(index).map_or(true, |index| index >= i64::from(length)) {
            return Err(Refusal::Malformed);
        }
        self.word(array, ARRAY_DATA + 8 * index)
    }

    /// The bytes of a `ByteArray`; empty where there is something else (`undefined`: never collected).
    fn bytes_of(&self, array: u64) -> Result<Vec<u8>, Refusal> {
        let kind = self.type_of(array)?;
        let Some(length) = smi(self.word(array, ARRAY_LENGTH)?) else { return Ok(Vec::new()) };
        let bytes = u64::try_from(length).unwrap_or(0);
        if bytes > MAX_TABLE_BYTES || kind == self.layout.type_fixed_array {
            return Ok(Vec::new());
        }
        // Oddballs and exceptions are no arrays; what is one is told by its length being a Smi and its type
        // being that of bytes.
        if !self.layout.types_bytes.contains(&kind) {
            return Ok(Vec::new());
        }
        let mut data = vec![0; bytes as usize];
        self.memory.read(array.checked_add(ARRAY_DATA).ok_or(Refusal::Malformed)?, &mut data)?;
        Ok(data)
    }

    /// The position of an offset (in bytes from the first bytecode) of a function's bytecode.
    pub(super) fn position_in_bytecode(&self, bytecode: u64, offset: u64) -> Result<Option<u32>, Refusal> {
        if self.type_of(bytecode)? != self.layout.type_bytecode_array {
            return Err(Refusal::Malformed);
        }
        let table = self.object_at(bytecode, self.layout.bytecode_positions)?;
        let table = self.bytes_of(table)?;
        Ok(find_position(&table, offset).and_then(|(raw, _)| Position::decode(raw).offset))
    }

    /// The bytecode of a function, if it has any (still).
    pub(super) fn bytecode_of(&self, shared: u64) -> Result<Option<u64>, Refusal> {
        let Some(mut data) = object(self.word(shared, self.layout.shared_data)?) else { return Ok(None) };
        // Baseline code or what a debugger made of it, around the bytecode.
        for _ in 0..3 {
            let kind = self.type_of(data)?;
            if kind == self.layout.type_bytecode_array {
                return Ok(Some(data));
            }
            let inner = if kind == self.layout.type_code {
                self.layout.code_deoptimization
            } else if kind == self.layout.type_interpreter_data {
                8
            } else {
                return Ok(None);
            };
            data = self.object_at(data, inner)?;
        }
        Ok(None)
    }

    /// The functions at an address of code that was compiled from `shared`: inlined ones first. And whether that is the
    /// nearest that is known. `None` if the code is another function's.
    pub(super) fn places(
        &self,
        code: &Code,
        shared: u64,
        address: u64,
        is_leaf: bool,
        bytecode_sizes: &[u8],
    ) -> Result<Option<(Vec<Place>, bool)>, Refusal> {
        let offset = address.saturating_sub(code.begin);
        if code.kind == self.layout.kind_baseline {
            if object(self.word(shared, self.layout.shared_data)?) != Some(code.address) {
                return Ok(None);
            }
            let position = self.baseline_position(code, shared, offset, bytecode_sizes)?;
            return Ok(Some((vec![Place { shared, position }], false)));
        }
        if self.shared_of(code)? != Some(shared) {
            return Ok(None);
        }
        let table = self.bytes_of(self.object_at(code.address, self.layout.code_positions)?)?;
        let Some((raw, is_exact)) = find_position(&table, offset) else {
            return Ok(Some((vec![Place { shared, position: None }], true)));
        };
        let data = self.object_at(code.address, self.layout.code_deoptimization)?;
        let mut places = Vec::new();
        let mut position = Position::decode(raw);
        while let Some(inlining) = position.inlining {
            if places.len() >= MAX_INLINED {
                return Err(Refusal::Malformed);
            }
            let (function, outer) = self.inlining(data, inlining)?;
            places.push(Place { shared: function.unwrap_or(shared), position: position.offset });
            position = outer;
        }
        places.push(Place { shared, position: position.offset });
        Ok(Some((places, is_leaf && !is_exact)))
    }

    fn baseline_position(
        &self,
        code: &Code,
        shared: u64,
        offset: u64,
        bytecode_sizes: &[u8],
    ) -> Result<Option<u32>, Refusal> {
        let Some(bytecode) = self.bytecode_of(shared)? else { return Ok(None) };
        let length = smi(self.word(bytecode, self.layout.bytecode_length)?).ok_or(Refusal::Malformed)?;
        let length = u64::try_from(length).ok().filter(|length| *length <= MAX_TABLE_BYTES);
        let mut bytecodes = vec![0; length.ok_or(Refusal::Malformed)? as usize];
        self.memory.read(bytecode + self.layout.bytecode_data, &mut bytecodes)?;
        let table = self.bytes_of(self.object_at(code.address, self.layout.code_positions)?)?;
        match bytecode_at(&table, &bytecodes, bytecode_sizes, offset) {
            Some(at) => self.position_in_bytecode(bytecode, at),
            None => Ok(None),
        }
    }

    /// An inlining of optimised code: the function (`None`: the outermost itself) and where it was inlined.
    fn inlining(&self, data: u64, index: usize) -> Result<(Option<u64>, Position), Refusal> {
        let positions =
            object(self.element(data, self.layout.deoptimization_inlining)?).ok_or(Refusal::Malformed)?;
        let length = smi(self.word(positions, ARRAY_LENGTH)?).ok_or(Refusal::Malformed)?;
        let offset = INLINING_POSITION_BYTES * index as u64;
        if i64::try_from(offset + INLINING_POSITION_BYTES).map_or(true, |end| end > i64::from(length)) {
            return Err(Refusal::Malformed);
        }
        let outer = Position::decode(self.word(positions, ARRAY_DATA + offset)?);
        let function = self.half(positions, ARRAY_DATA + offset + 8)? as i32;
        let Ok(function) = u64::try_from(function) else { return Ok((None, outer)) };
        let literals =
            object(self.element(data, self.layout.deoptimization_literals)?).ok_or(Refusal::Malformed)?;
        let entry = object(self.element(literals, function)?).ok_or(Refusal::Malformed)?;
        Ok((Some(self.unwrapped(entry)?), outer))
    }
}
