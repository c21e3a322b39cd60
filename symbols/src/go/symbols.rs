//! Address → functions, files and lines of a Go executable.

use super::inline::{Extent, InlineTrees};
use super::module_data::{self, ModuleData};
use super::pclntab::{Function, Pclntab};
use super::{locate, text};
use crate::symbolize::SymbolFrame;
use crate::{ElfAddress, ObjectError, ObjectFile};

/// Calls inlined into each other at one address; Go's compiler stops far below.
const MAX_INLINED_CALLS: usize = 256;

/// What is known of inlined calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Inlining {
    /// They are read.
    Known,
    /// The executable has none.
    None,
    /// There are some, but the function data that describe them could not be found: addresses are
    /// named by the function that holds them, with the line of the innermost call.
    Unknown,
}

/// The symbols of a Go executable. Of its tables those pages are held that were looked at.
#[derive(Debug)]
pub struct GoSymbols {
    table: Pclntab,
    text_start: ElfAddress,
    trees: Option<InlineTrees>,
    inlining: Inlining,
}

impl GoSymbols {
    /// Reads the symbols of an object. `None` if it is no Go executable, or where its text begins
    /// cannot be told.
    ///
    /// # Errors
    /// [`ObjectError`] if its pclntab is damaged or cannot be read.
    pub fn read(object: &ObjectFile) -> Result<Option<Self>, ObjectError> {
        let Some((mut table, module_data, text_start)) = read_table(object)? else { return Ok(None) };
        let (trees, inlining) = match Extent::of(&mut table) {
            None => (None, Inlining::None),
            Some(extent) => match read_trees(object, &table, extent, module_data.as_ref())? {
                Some(trees) => (Some(trees), Inlining::Known),
                None => (None, Inlining::Unknown),
            },
        };
        Ok(Some(Self { table, text_start, trees, inlining }))
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.table.memory_bytes() + self.trees.as_ref().map_or(0, InlineTrees::memory_bytes)
    }

    /// Drops what can be read again, if either of the tables holds more than `max_bytes`.
    pub fn forget_over(&mut self, max_bytes: usize) {
        self.table.forget_over(max_bytes);
        if let Some(trees) = &mut self.trees {
            trees.forget_over(max_bytes);
        }
    }

    /// What is known of inlined calls.
    #[must_use]
    pub fn inlining(&self) -> Inlining {
        self.inlining
    }

    /// The functions at an address, innermost inlined one first, the one that holds the machine code
    /// last. `None`: no Go function, or padding between two. C functions that Go's own linker took in
    /// have a name only.
    #[must_use]
    pub fn symbolize(&self, address: ElfAddress) -> Option<Vec<SymbolFrame>> {
        let offset = u32::try_from(address.checked_sub(self.text_start)?).ok()?;
        let function = self.table.find(offset)?;
        let pc = offset.checked_sub(function.entry)?;
        if function.has_lines() && function.line(pc).is_none() {
            return self.signal_return(&function, pc);
        }
        let mut frames = vec![];
        let mut at = pc;
        if let Some(trees) = &self.trees {
            while let Some(call) = function.inline_index(at).and_then(|index| trees.call(&function, index)) {
                // An offset of the inlined call's name that leads nowhere: the rest cannot be trusted.
                let Some(name) = self.table.name(call.name_offset) else { break };
                frames.push(frame(&name, call.first_line, &function, at));
                if frames.len() >= MAX_INLINED_CALLS || call.parent >= function.bytes {
                    break;
                }
                at = call.parent;
            }
        }
        frames.push(frame(&function.name()?, function.first_line, &function, at));
        Some(frames)
    }

    /// A handler's return address is the first byte of the signal return trampoline, so its caller's
    /// address is one byte before that: the last byte of the padding.
    fn signal_return(&self, before: &Function<'_>, pc: u32) -> Option<Vec<SymbolFrame>> {
        if pc.checked_add(1)? != before.bytes {
            return None;
        }
        let function = self.table.function(before.index.checked_add(1)?)?;
        let name = function.name().filter(|name| text::is_signal_return(name))?;
        Some(vec![frame(&name, function.first_line, &function, 0)])
    }
}

/// The pclntab, the module data if found, and where the text begins.
pub(super) fn read_table(
    object: &ObjectFile,
) -> Result<Option<(Pclntab, Option<ModuleData>, ElfAddress)>, ObjectError> {
    let Some(table) = locate::pclntab(object)? else { return Ok(None) };
    let module_data = module_data::find(object, &table)?;
    let text_start = match &module_data {
        Some(module_data) => Some(module_data.text),
        None => text::start_without_module_data(object, &table),
    };
    Ok(text_start.map(|text_start| (table, module_data, text_start)))
}

fn read_trees(
    object: &ObjectFile,
    table: &Pclntab,
    extent: Extent,
    module_data: Option<&ModuleData>,
) -> Result<Option<InlineTrees>, ObjectError> {
    for candidate in module_data.iter().flat_map(|module_data| &module_data.function_data_candidates) {
        if let Some(trees) = InlineTrees::read(object, table, extent, *candidate)? {
            return Ok(Some(trees));
        }
    }
    Ok(None)
}

fn frame(name: &[u8], first_line: u32, function: &Function<'_>, pc: u32) -> SymbolFrame {
    let system_name = String::from_utf8_lossy(name).into_owned();
    let name = without_type_arguments(&system_name);
    SymbolFrame {
        system_name: if name == system_name { String::new() } else { system_name },
        name,
        file: function.file(pc).map(|file| String::from_utf8_lossy(&file).into_owned()).unwrap_or_default(),
        line: function.line(pc).unwrap_or(0),
        start_line: first_line,
    }
}

/// `main.apply[go.shape.int]` → `main.apply[...]`, as the runtime and its profiles print it.
fn without_type_arguments(name: &str) -> String {
    match (name.find('['), name.rfind(']')) {
        (Some(open), Some(close)) if open < close => {
            let (before, after) = (name.get(..open), name.get(close + 1..));
            format!("{}[...]{}", before.unwrap_or_default(), after.unwrap_or_default())
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_arguments_are_cut_from_the_first_to_the_last_bracket() {
        for (name, expected) in [
            ("main.main", "main.main"),
            ("main.apply[go.shape.int]", "main.apply[...]"),
            ("main.(*List[go.shape.[]int]).Push.func1", "main.(*List[...]).Push.func1"),
            ("main.apply[...]", "main.apply[...]"),
            ("odd]name[", "odd]name["),
        ] {
            assert_eq!(without_type_arguments(name), expected);
        }
    }
}
