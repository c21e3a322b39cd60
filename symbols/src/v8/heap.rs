//! Objects of V8's heap: tagged words, types, strings.
//!
//! A word is a Smi (lowest bit 0, number in the upper 32 bits) or a pointer to an object (lowest bits 01; 11 for
//! a weak one). An object's first word points to its map, which tells its type. Strings (types below 128) have a
//! representation in three bits: their characters right behind, two halves (cons), a part of another (sliced),
//! another one (thin), or memory outside of the heap.

use super::layout::Layout;
use crate::process_memory::ProcessMemory;
use crate::script::Refusal;

/// Strings in strings, before it is no name any more.
const MAX_STRING_PARTS: usize = 4096;
const FIRST_NONSTRING_TYPE: u16 = 128;
const STRING_LENGTH: u64 = 12;
const STRING_FIRST: u64 = 16;
const STRING_SECOND: u64 = 24;
/// External strings: their characters, but for those which are not cached.
const EXTERNAL_DATA: u64 = 24;
const UNCACHED: u16 = 16;

/// The heap as it is now.
pub(super) struct Heap<'a> {
    pub memory: &'a dyn ProcessMemory,
    pub layout: &'a Layout,
}

/// The number of a Smi.
pub(super) fn smi(word: u64) -> Option<i32> {
    ((word as u32) == 0).then_some((word >> 32) as u32 as i32)
}

/// The address of an object, strongly or weakly held.
pub(super) fn object(word: u64) -> Option<u64> {
    (word & 1 == 1).then_some(word & !3).filter(|address| *address != 0)
}

impl Heap<'_> {
    /// The word at an offset of an object.
    pub(super) fn word(&self, object: u64, offset: u64) -> Result<u64, Refusal> {
        Ok(self.memory.u64_at(object.checked_add(offset).ok_or(Refusal::Malformed)?)?)
    }

    /// The half word at an offset of an object.
    pub(super) fn half(&self, object: u64, offset: u64) -> Result<u32, Refusal> {
        Ok(self.memory.u32_at(object.checked_add(offset).ok_or(Refusal::Malformed)?)?)
    }

    /// The object that the word at an offset points to.
    pub(super) fn object_at(&self, from: u64, offset: u64) -> Result<u64, Refusal> {
        object(self.word(from, offset)?).ok_or(Refusal::Malformed)
    }

    /// An object's instance type.
    pub(super) fn type_of(&self, of: u64) -> Result<u16, Refusal> {
        let map = self.object_at(of, 0)?;
        let at = map.checked_add(self.layout.map_instance_type).ok_or(Refusal::Malformed)?;
        Ok(self.memory.u16_at(at)?)
    }

    /// Whether an object is a string.
    pub(super) fn is_string(&self, of: u64) -> Result<bool, Refusal> {
        Ok(self.type_of(of)? < FIRST_NONSTRING_TYPE)
    }

    /// A string, of which no more than so many characters are read.
    pub(super) fn string(&self, of: u64, max_characters: usize) -> Result<String, Refusal> {
        let mut units = Vec::new();
        self.characters(of, max_characters, |part| units.extend(part.iter()))?;
        Ok(String::from_utf16_lossy(&units))
    }

    /// Calls back with the characters of a string, UTF-16, in pieces.
    pub(super) fn characters(
        &self,
        of: u64,
        max_characters: usize,
        mut on_part: impl FnMut(&[u16]),
    ) -> Result<(), Refusal> {
        let mut left = max_characters;
        // Strings that are to follow, with the range that is wanted of them: the next one last.
        let mut parts: Vec<(u64, usize, usize)> = vec![(of, 0, usize::MAX)];
        let mut seen = 0;
        while let Some((part, skip, take)) = parts.pop() {
            seen += 1;
            if seen > MAX_STRING_PARTS {
                return Err(Refusal::Malformed);
            }
            let kind = self.type_of(part)?;
            if kind >= FIRST_NONSTRING_TYPE {
                return Err(Refusal::Malformed);
            }
            let length = self.half(part, STRING_LENGTH)? as usize;
            let take = take.min(length.saturating_sub(skip)).min(left);
            if take == 0 {
                continue;
            }
            let is_one_byte = kind & 8 != 0;
            match kind & 7 {
                0 => {
                    let begin = part.checked_add(STRING_FIRST).ok_or(Refusal::Malformed)?;
                    self.flat(begin, is_one_byte, skip, take, &mut on_part)?;
                    left -= take;
                }
                1 => {
                    let (first, second) =
                        (self.object_at(part, STRING_FIRST)?, self.object_at(part, STRING_SECOND)?);
                    let first_length = self.half(first, STRING_LENGTH)? as usize;
                    let of_first = first_length.saturating_sub(skip).min(take);
                    if take > of_first {
                        parts.push((second, skip.saturating_sub(first_length), take - of_first));
                    }
                    if of_first > 0 {
                        parts.push((first, skip, of_first));
                    }
                }
                2 => {
                    if kind & UNCACHED != 0 {
                        return Err(Refusal::Unsupported);
                    }
                    let begin = self.word(part, EXTERNAL_DATA)?;
                    self.flat(begin, is_one_byte, skip, take, &mut on_part)?;
                    left -= take;
                }
                3 => {
                    let offset = smi(self.word(part, STRING_SECOND)?).ok_or(Refusal::Malformed)?;
                    let offset = usize::try_from(offset).map_err(|_| Refusal::Malformed)?;
                    let skip = skip.checked_add(offset).ok_or(Refusal::Malformed)?;
                    parts.push((self.object_at(part, STRING_FIRST)?, skip, take));
                }
                5 => parts.push((self.object_at(part, STRING_FIRST)?, skip, take)),
                _ => return Err(Refusal::Malformed),
            }
        }
        Ok(())
    }

    fn flat(
        &self,
        begin: u64,
        is_one_byte: bool,
        skip: usize,
        take: usize,
        on_part: &mut impl FnMut(&[u16]),
    ) -> Result<(), Refusal> {
        const PIECE: usize = 8192;
        let width = if is_one_byte { 1 } else { 2 };
        let mut done = 0;
        let mut bytes = [0u8; 2 * PIECE];
        let mut units = [0u16; PIECE];
        while done < take {
            let count = (take - done).min(PIECE);
            let offset = skip.checked_add(done).and_then(|units| units.checked_mul(width));
            let address = offset.and_then(|offset| begin.checked_add(offset as u64));
            let (Some(address), Some(piece)) = (address, bytes.get_mut(..count * width)) else {
                return Err(Refusal::Malformed);
            };
            self.memory.read(address, piece)?;
            if is_one_byte {
                for (unit, byte) in units.iter_mut().zip(piece.iter()) {
                    *unit = u16::from(*byte);
                }
            } else {
                for (unit, pair) in units.iter_mut().zip(piece.chunks_exact(2)) {
                    *unit = u16::from_le_bytes([
                        pair.first().copied().unwrap_or(0),
                        pair.get(1).copied().unwrap_or(0),
                    ]);
                }
            }
            on_part(units.get(..count).unwrap_or_default());
            done += count;
        }
        Ok(())
    }
}
