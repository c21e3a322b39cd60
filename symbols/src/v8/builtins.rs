//! Where V8's builtins are in an object: code that was generated when it was built, without call-frame information.

use std::ops::Range;

use super::elf_symbols::for_each;
use crate::little_endian::u32_at;
use crate::unwind::UnwindRule;
use crate::unwind::layout::{cfa, saved_fp};
use crate::{ElfAddress, ObjectError, ObjectFile};

/// Objects below this have no V8 in them, so their symbols are not looked through: the smallest Node has 70 MB.
pub(super) const MIN_OBJECT_BYTES: u64 = 32 << 20;
/// Those of Node 24 have 2.1 MB.
const MAX_CODE_BYTES: u32 = 64 << 20;
/// What calls the collector's walk of the stack: assembly, of 33 bytes.
const MAX_ASSEMBLY_BYTES: u64 = 64;
const RBP: u8 = 6;
const RSP: u8 = 7;

/// The builtins of an object; ELF addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builtins {
    /// All of them.
    pub code: Range<u64>,
    /// Handlers of bytecodes, which are the last ones.
    pub handlers_begin: u64,
    /// What makes the frame of an interpreted function.
    pub trampoline: Range<u64>,
}

/// Gathers the symbols that tell where the builtins are.
#[derive(Debug, Default)]
pub(super) struct Search {
    begin: Option<u64>,
    size_at: Option<ElfAddress>,
    handlers_begin: Option<u64>,
    trampoline_begin: Option<u64>,
    interpreter_starts: Vec<u64>,
    stack_walk: Option<u64>,
}

impl Search {
    /// Takes what it needs of a symbol.
    pub(super) fn take(&mut self, name: &[u8], address: ElfAddress) {
        match name {
            // In V8 10 that without `data` is a pointer to it.
            b"v8_Default_embedded_blob_code_data_" => self.begin = Some(address.0),
            b"v8_Default_embedded_blob_code_" => {
                self.begin.get_or_insert(address.0);
            }
            b"v8_Default_embedded_blob_code_size_" => self.size_at = Some(address),
            b"Builtins_WideHandler" => self.handlers_begin = Some(address.0),
            b"Builtins_InterpreterEntryTrampoline" => self.trampoline_begin = Some(address.0),
            b"PushAllRegistersAndIterateStack" => self.stack_walk = Some(address.0),
            _ if name.starts_with(b"Builtins_Interpreter") && self.interpreter_starts.len() < 256 => {
                self.interpreter_starts.push(address.0);
            }
            _ => {}
        }
    }

    /// The builtins. `None` if there are none, or if the object was stripped of the symbols that tell where.
    pub(super) fn builtins(&self, object: &ObjectFile) -> Option<Builtins> {
        assemble(
            object,
            self.begin?,
            self.size_at?,
            self.handlers_begin?,
            self.trampoline_begin?,
            &self.interpreter_starts,
        )
    }
}

/// How to unwind code of V8 that nothing describes: the builtins, whose frames V8's unwinder knows, and the assembly
/// below which the collector works. Empty for objects without V8.
///
/// # Errors
/// [`ObjectError`] if a table of the object cannot be read.
pub(crate) fn unwind_rules(object: &ObjectFile) -> Result<Vec<(Range<u64>, UnwindRule)>, ObjectError> {
    let mut rules = Vec::new();
    if object.file_bytes() < MIN_OBJECT_BYTES {
        return Ok(rules);
    }
    let mut search = Search::default();
    for_each(object, |name, address, _| search.take(name, address))?;
    let Some(builtins) = search.builtins(object) else { return Ok(rules) };
    rules.push((builtins.code, UnwindRule { cfa: cfa::RUNTIME, ..UnwindRule::NONE }));
    if let Some(begin) = search.stack_walk {
        let code = object.read_loaded(ElfAddress(begin), MAX_ASSEMBLY_BYTES).unwrap_or_default();
        rules.extend(rules_of_assembly(begin, &code));
    }
    Ok(rules)
}

/// Rules of a function that begins with push rbp; mov rbp, rsp and ends with pop rbp; ret, and does not move the
/// stack pointer above what it pushed. None if it is not so.
fn rules_of_assembly(begin: u64, code: &[u8]) -> Vec<(Range<u64>, UnwindRule)> {
    const ENTRY: [u8; 4] = [0x55, 0x48, 0x89, 0xe5];
    const END: [u8; 2] = [0x5d, 0xc3];
    let end = code.windows(END.len()).position(|bytes| bytes == END);
    let (true, Some(end)) = (code.starts_with(&ENTRY), end.and_then(|end| u64::try_from(end).ok())) else {
        return Vec::new();
    };
    let called = UnwindRule { cfa: cfa::REGISTER, cfa_register: RSP, cfa_offset: 8, ..UnwindRule::NONE };
    let saved = UnwindRule { frame_pointer: saved_fp::AT_CFA, fp_offset: -16, cfa_offset: 16, ..called };
    let framed = UnwindRule { cfa_register: RBP, ..saved };
    // Where its instructions begin: after push, after mov, at ret.
    let places = [begin, begin + 1, begin + 4, begin + end + 1, begin + end + 2];
    let ranges = places.windows(2).filter_map(|pair| Some(*pair.first()?..*pair.last()?));
    ranges.zip([called, saved, framed, called]).collect()
}

fn assemble(
    object: &ObjectFile,
    begin: u64,
    size_at: ElfAddress,
    handlers_begin: u64,
    trampoline_begin: u64,
    starts: &[u64],
) -> Option<Builtins> {
    let bytes = u32_at(&object.read_loaded(size_at, 4).ok()?, 0)?;
    let code = begin..begin.checked_add(u64::from(bytes))?;
    let trampoline_end = *starts.iter().filter(|start| **start > trampoline_begin).min()?;
    let is_right = bytes > 0
        && bytes <= MAX_CODE_BYTES
        && code.contains(&handlers_begin)
        && code.contains(&trampoline_begin)
        && code.contains(&trampoline_end)
        && trampoline_end - trampoline_begin < 1 << 14;
    is_right.then_some(Builtins { code, handlers_begin, trampoline: trampoline_begin..trampoline_end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assembly_has_rules_for_each_state_of_its_frame_or_none() {
        let code = [0x55, 0x48, 0x89, 0xe5, 0x53, 0x41, 0xff, 0xd0, 0x5b, 0x5d, 0xc3, 0x90];
        let rules = rules_of_assembly(0x1000, &code);
        let by: Vec<_> = rules
            .iter()
            .map(|(range, rule)| (range.clone(), rule.cfa_register, rule.cfa_offset, rule.fp_offset))
            .collect();
        assert_eq!(
            by,
            [
                (0x1000..0x1001, RSP, 8, 0),
                (0x1001..0x1004, RSP, 16, -16),
                (0x1004..0x100a, RBP, 16, -16),
                (0x100a..0x100b, RSP, 8, 0),
            ]
        );
        assert_eq!(rules_of_assembly(0x1000, &code[1..]), []);
        assert_eq!(rules_of_assembly(0x1000, &code[..10]), []);
        assert_eq!(rules_of_assembly(0x1000, &[]), []);
    }
}
