//! What a `SharedFunctionInfo` says of a function: its name, where it begins, its script.
//!
//! A `ScopeInfo` has (each a word): flags, number of parameters, number of variables in the context; in V8 13 begin
//! and end of the function; in modules another number; the variables' names (a table of 75 and more), their
//! properties; then what the flags tell to be there: a class's variable, the function's name and where it is kept, the
//! name that V8 made up for a function without one, and before V8 13 begin and end.

use super::heap::{Heap, object, smi};
use crate::script::Refusal;

/// Characters of a name.
const MAX_NAME: usize = 512;
/// Characters of a file's name.
const MAX_FILE: usize = 4096;
/// Variables from which on a scope has a table of names instead of the names.
const INLINED_NAMES: u64 = 75;
const MAX_VARIABLES: u64 = 1 << 16;

const SCOPE_FLAGS: u64 = 8;
const SCOPE_VARIABLES: u64 = 24;
const SCOPE_TYPE_MASK: u32 = 15;
const HAS_CLASS_VARIABLE: u32 = 1 << 10;
const FUNCTION_VARIABLE_MASK: u32 = 3 << 12;
const HAS_INFERRED_NAME: u32 = 1 << 14;

/// Of a function.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Described {
    /// Empty: it has none.
    pub name: String,
    /// Offset in its script.
    pub begin: Option<u32>,
}

impl Heap<'_> {
    /// What tells a function from others at its address, as the kernel side computes it; `None` if this is none.
    pub(super) fn identity(&self, shared: u64) -> Result<Option<u32>, Refusal> {
        let layout = self.layout;
        if self.type_of(shared)? != layout.type_shared {
            return Ok(None);
        }
        let unique = if layout.shared_unique != 0 {
            u64::from(self.half(shared, layout.shared_unique)?)
        } else {
            let script = self.word(shared, layout.shared_script)?;
            if script & 3 == 1 { self.word(script - 1, layout.script_id)? } else { 0 }
        };
        Ok(Some(hash(unique, u64::from(self.half(shared, layout.shared_literal)?))))
    }

    /// Name and begin of a function.
    pub(super) fn describe(&self, shared: u64) -> Result<Described, Refusal> {
        let Some(named) = object(self.word(shared, self.layout.shared_name)?) else {
            return self.describe_uncompiled(shared, String::new());
        };
        let kind = self.type_of(named)?;
        if kind == self.layout.type_scope_info {
            return self.describe_scope(named);
        }
        if !self.is_string(named)? {
            return Err(Refusal::Malformed);
        }
        self.describe_uncompiled(shared, self.string(named, MAX_NAME)?)
    }

    fn describe_uncompiled(&self, shared: u64, mut name: String) -> Result<Described, Refusal> {
        let Some(data) = object(self.word(shared, self.layout.shared_data)?) else {
            return Ok(Described { name, begin: None });
        };
        if !self.layout.types_uncompiled.contains(&self.type_of(data)?) {
            return Ok(Described { name, begin: None });
        }
        if name.is_empty() {
            let inferred = self.object_at(data, self.layout.uncompiled_inferred_name)?;
            name = if self.is_string(inferred)? { self.string(inferred, MAX_NAME)? } else { name };
        }
        Ok(Described { name, begin: Some(self.half(data, self.layout.uncompiled_start)?) })
    }

    fn describe_scope(&self, scope: u64) -> Result<Described, Refusal> {
        // A Smi in V8 before 13, then half a word.
        let flags = match self.layout.scope_positions_first {
            true => self.half(scope, SCOPE_FLAGS)?,
            false => self.half(scope, SCOPE_FLAGS + 4)?,
        };
        let variables = smi(self.word(scope, SCOPE_VARIABLES)?).and_then(|count| u64::try_from(count).ok());
        let variables = variables.filter(|count| *count <= MAX_VARIABLES).ok_or(Refusal::Malformed)?;
        let mut at = SCOPE_VARIABLES + 8;
        let mut begin = None;
        if self.layout.scope_positions_first {
            begin = Some(self.word(scope, at)?);
            at += 16;
        }
        if flags & SCOPE_TYPE_MASK == self.layout.scope_module {
            at += 8;
        }
        at += 8 * if variables < INLINED_NAMES { variables } else { 1 };
        at += 8 * variables;
        if flags & HAS_CLASS_VARIABLE != 0 {
            at += 8;
        }
        let mut name = String::new();
        if flags & FUNCTION_VARIABLE_MASK != 0 {
            name = self.scope_name(scope, at)?;
            at += 16;
        }
        if flags & HAS_INFERRED_NAME != 0 {
            if name.is_empty() {
                name = self.scope_name(scope, at)?;
            }
            at += 8;
        }
        let begin = match begin {
            Some(begin) => begin,
            None => self.word(scope, at)?,
        };
        let begin = smi(begin).and_then(|begin| u32::try_from(begin).ok());
        Ok(Described { name, begin })
    }

    fn scope_name(&self, scope: u64, offset: u64) -> Result<String, Refusal> {
        match object(self.word(scope, offset)?) {
            Some(named) if self.is_string(named)? => self.string(named, MAX_NAME),
            // `undefined`, or the Smi that says that there is none.
            _ => Ok(String::new()),
        }
    }

    /// The script of a function; `None` for what has none.
    pub(super) fn script_of(&self, shared: u64) -> Result<Option<u64>, Refusal> {
        let Some(mut script) = object(self.word(shared, self.layout.shared_script)?) else { return Ok(None) };
        if self.type_of(script)? == self.layout.type_debug_info {
            script = self.object_at(script, self.layout.debug_info_script)?;
        }
        Ok((self.type_of(script)? == self.layout.type_script).then_some(script))
    }

    /// The file of a script, as Node names it.
    pub(super) fn file_of(&self, script: u64) -> Result<String, Refusal> {
        match object(self.word(script, self.layout.script_name)?) {
            Some(name) if self.is_string(name)? => {
                let name = self.string(name, MAX_FILE)?;
                Ok(name.strip_prefix("file://").map_or(name.clone(), str::to_owned))
            }
            _ => Ok(String::new()),
        }
    }
}

/// `sf_v8_hash` of bpf/unwind/v8.h.
pub(super) fn hash(a: u64, b: u64) -> u32 {
    let hash = (a ^ b.wrapping_mul(0xff51_afd7_ed55_8ccd)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((hash >> 32) ^ hash) as u32
}
