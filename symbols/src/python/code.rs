//! Code objects: what tells one from another, and their names.

use super::layout::{CODE_BODY, CODE_BODY_WORDS, Layout, flag};
use super::line_table;
use super::objects::{read_line_table, read_string};
use crate::little_endian::{u32_at, u64_at};
use crate::process_memory::ProcessMemory;
use crate::script::{Refusal, ScriptFrame, ScriptFunction};

/// `SF_PYTHON_NOT_BEGUN`: the frame is at no instruction yet.
pub(super) const NOT_BEGUN: u32 = u32::MAX;
const HASH_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
const PAGE_BYTES: u64 = 4096;
const STRING_BYTES: u64 = 128;
const SHORT_STRING_BYTES: u64 = 64;
const STRING_WORDS: u64 = 8;
const STRING_LENGTH: usize = 16;
/// `ob_type`.
const TYPE: usize = 8;

/// Gives the function of a frame its name, file and line.
pub(super) fn name_frame(
    layout: &Layout,
    frame: &ScriptFrame,
    memory: &dyn ProcessMemory,
) -> Result<Vec<ScriptFunction>, Refusal> {
    let code = read_code(layout, memory, frame.object)?;
    if identity(layout, memory, &code)? != frame.identity {
        return Err(Refusal::ObjectMoved);
    }
    let pointer = |offset: u16| u64_at(&code, usize::from(offset)).ok_or(Refusal::Malformed);
    let name = read_string(layout, memory, pointer(layout.code_name)?);
    let file = read_string(layout, memory, pointer(layout.code_file)?);
    let lines = read_line_table(memory, pointer(layout.code_line_table)?);
    // It may have been freed while it was read: then what was read may be another one's, or nothing at all. As long as it
    // lives, so does what belongs to it.
    let now = read_code(layout, memory, frame.object)?;
    if now.get(usize::from(CODE_BODY)..) != code.get(usize::from(CODE_BODY)..)
        || identity(layout, memory, &now)? != frame.identity
    {
        return Err(Refusal::ObjectMoved);
    }
    let (name, file, lines) = (name?, file?, lines?);
    // What calls `__init__` for a call of a class (_Py_InitCleanup, 3.12 on): no function of the program.
    if name == "__init__" && file == "__init__" {
        return Ok(Vec::new());
    }
    let start_line = u32_at(&code, usize::from(layout.code_first_line)).ok_or(Refusal::Malformed)?;
    let line = if frame.position == NOT_BEGUN {
        Some(start_line)
    } else {
        line_table::line_at(layout.line_table, &lines, start_line, frame.position)
    };
    Ok(vec![ScriptFunction { name, file, start_line, line: line.unwrap_or(0), is_approximate: false }])
}

/// The part of a code object that does not change. It is one: its type says so.
fn read_code(layout: &Layout, memory: &dyn ProcessMemory, address: u64) -> Result<Vec<u8>, Refusal> {
    let mut code = vec![0; usize::from(layout.code_bytes)];
    memory.read(address, &mut code)?;
    // The kernel side saw a code object there.
    if u64_at(&code, TYPE) != Some(layout.code_type) || !is_counted(u64_at(&code, 0).unwrap_or(0)) {
        return Err(Refusal::ObjectMoved);
    }
    Ok(code)
}

/// Whether a word can be `ob_refcnt` of an object that lives. Freed memory keeps most of what was in it, but its first
/// word becomes a pointer of the allocator's list, or 0. In 3.14 there are flags in the highest 16 bits.
fn is_counted(references: u64) -> bool {
    references & 0xffff_ffff != 0 && references >> 32 & 0xffff == 0
}

/// As `sf_python_read_code` of `bpf/unwind/python.h` computes it.
fn identity(layout: &Layout, memory: &dyn ProcessMemory, code: &[u8]) -> Result<u32, Refusal> {
    let mut hash = 0_u64;
    for place in 0..CODE_BODY_WORDS {
        let offset = CODE_BODY + place * 8;
        if offset >= layout.code_bytes {
            break;
        }
        let word = u64_at(code, usize::from(offset)).ok_or(Refusal::Malformed)?;
        hash = hash.wrapping_add(word.wrapping_mul(factor(u64::from(place))));
    }
    if layout.flags & flag::CODE_UNNUMBERED != 0 {
        for offset in [layout.code_name, layout.code_file] {
            let string = u64_at(code, usize::from(offset)).ok_or(Refusal::Malformed)?;
            hash = mix(hash, hash_string(layout, memory, string)?);
        }
    }
    Ok((hash ^ hash >> 32) as u32)
}

/// As `sf_python_factor`.
const fn factor(place: u64) -> u64 {
    let factor = (place + 1).wrapping_mul(HASH_FACTOR);
    let factor = (factor ^ factor >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let factor = (factor ^ factor >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (factor ^ factor >> 31) | 1
}

fn mix(hash: u64, word: u64) -> u64 {
    let hash = (hash ^ word).wrapping_mul(HASH_FACTOR);
    hash ^ hash >> 29
}

/// As `sf_python_hash_string`.
fn hash_string(layout: &Layout, memory: &dyn ProcessMemory, string: u64) -> Result<u64, Refusal> {
    let in_page = PAGE_BYTES - string % PAGE_BYTES;
    let bytes = in_page.clamp(SHORT_STRING_BYTES, STRING_BYTES);
    let mut contents = vec![0; usize::try_from(bytes).map_err(|_| Refusal::Malformed)?];
    memory.read(string, &mut contents)?;
    let header = u64::from(layout.string_header);
    let length = u64_at(&contents, STRING_LENGTH).ok_or(Refusal::Malformed)?;
    let characters = bytes.saturating_sub(header).min(length);
    let mut hash = length.wrapping_mul(factor(STRING_WORDS));
    for place in 0..STRING_WORDS {
        let Some(left) = characters.checked_sub(place * 8).filter(|left| *left > 0) else { break };
        let offset = usize::try_from(header + place * 8).map_err(|_| Refusal::Malformed)?;
        // The kernel side's buffer has something behind what was read, but masks it away.
        let mut word = [0; 8];
        let available = contents.get(offset..).unwrap_or_default();
        for (to, from) in word.iter_mut().zip(available) {
            *to = *from;
        }
        let mut word = u64::from_le_bytes(word);
        if left < 8 {
            word &= (1 << (left * 8)) - 1;
        }
        hash = hash.wrapping_add(word.wrapping_mul(factor(place)));
    }
    Ok(hash)
}
