//! From offsets in a script to lines.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::heap::{Heap, object, smi};
use crate::script::Refusal;

/// Characters of a source that is gone through; a bundle of everything has some millions.
const MAX_SOURCE_CHARACTERS: usize = 32 << 20;
/// Sources whose lines are remembered, and lines of all of them.
const MAX_SCRIPTS: usize = 64;
const MAX_LINES: usize = 2 << 20;
const ARRAY_LENGTH: u64 = 8;
const ARRAY_DATA: u64 = 16;

/// Which script: its address, number and source. Another one that comes to lie there has another number.
type Key = (u64, u64, u64);

/// Where lines end, of sources that V8 has no such table of.
#[derive(Debug, Default)]
pub(super) struct Lines {
    known: Mutex<VecDeque<(Key, Arc<Vec<u32>>)>>,
}

impl Lines {
    /// The line of an offset in a script, from 1 on.
    ///
    /// # Errors
    /// [`Refusal`] if the script is none, or cannot be read.
    pub(super) fn line(&self, heap: &Heap<'_>, script: u64, offset: u32) -> Result<u32, Refusal> {
        let layout = heap.layout;
        let first = smi(heap.word(script, layout.script_line_offset)?).unwrap_or(0);
        let first = u32::try_from(first).unwrap_or(0);
        let table = object(heap.word(script, layout.script_line_ends)?);
        if let Some(table) = table
            && heap.type_of(table)? == layout.type_fixed_array
        {
            let length = smi(heap.word(table, ARRAY_LENGTH)?).and_then(|length| u64::try_from(length).ok());
            let length = length.ok_or(Refusal::Malformed)?;
            if length > 0 {
                let (mut low, mut high) = (0, length);
                while low < high {
                    let middle = low + (high - low) / 2;
                    let end = smi(heap.word(table, ARRAY_DATA + 8 * middle)?).ok_or(Refusal::Malformed)?;
                    if i64::from(end) < i64::from(offset) {
                        low = middle + 1;
                    } else {
                        high = middle;
                    }
                }
                return Ok(first.saturating_add(low as u32).saturating_add(1));
            }
        }
        let ends = self.ends(heap, script)?;
        let line = ends.partition_point(|end| *end < offset);
        Ok(first.saturating_add(line as u32).saturating_add(1))
    }

    fn ends(&self, heap: &Heap<'_>, script: u64) -> Result<Arc<Vec<u32>>, Refusal> {
        let source = heap.object_at(script, heap.layout.script_source)?;
        let key = (script, heap.word(script, heap.layout.script_id)?, source);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, ends)) = known.iter().find(|(of, _)| *of == key) {
            return Ok(Arc::clone(ends));
        }
        let ends = Arc::new(line_ends(heap, source)?);
        known.push_back((key, Arc::clone(&ends)));
        while known.len() > MAX_SCRIPTS || known.iter().map(|(_, ends)| ends.len()).sum::<usize>() > MAX_LINES
        {
            if known.pop_front().is_none() {
                break;
            }
        }
        Ok(ends)
    }
}

/// Where the lines of a source end, by `ECMAScript`'s line terminators.
fn line_ends(heap: &Heap<'_>, source: u64) -> Result<Vec<u32>, Refusal> {
    const LINE_FEED: u16 = 0x0a;
    const CARRIAGE_RETURN: u16 = 0x0d;
    const LINE_SEPARATOR: u16 = 0x2028;
    const PARAGRAPH_SEPARATOR: u16 = 0x2029;
    let mut ends = Vec::new();
    let (mut at, mut before) = (0u32, 0u16);
    heap.characters(source, MAX_SOURCE_CHARACTERS, |part| {
        for unit in part {
            match *unit {
                // The two together are one end, which lies at the second.
                LINE_FEED if before == CARRIAGE_RETURN => {
                    if let Some(last) = ends.last_mut() {
                        *last = at;
                    }
                }
                LINE_FEED | CARRIAGE_RETURN | LINE_SEPARATOR | PARAGRAPH_SEPARATOR => ends.push(at),
                _ => {}
            }
            before = *unit;
            at = at.wrapping_add(1);
        }
    })?;
    Ok(ends)
}
