//! Names and lines of methods: `Method` → `ConstMethod` → `ConstantPool` → `Symbol`s.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::compressed::line_of;
use super::identity::MethodIdentity;
use super::layout::{Layout, SourceFileIndex};
use super::legal_names::{decoded, is_class, is_method};
use crate::little_endian::{u16_at, u32_at, u64_at};
use crate::process_memory::ProcessMemory;
use crate::script::{Refusal, ScriptFunction};

/// Constants begin at 1, and there are no more.
const MAX_CONSTANTS: u32 = 65536;
const MAX_METHODS: u32 = 65536;
/// A `ConstMethod`: up to 64 KiB of bytecode, and tables.
const MAX_CONST_METHOD_BYTES: u64 = 1 << 20;
/// Methods that are remembered. When there are more, all are read anew.
const MAX_KNOWN: usize = 2048;
/// What is remembered of one at most: a few hundred bytes as a rule, but memory may hold anything.
const MAX_KNOWN_BYTES: usize = 4096;
/// `ConstMethodFlags::_misc_has_linenumber_table`, the same in all versions.
const HAS_LINE_NUMBERS: u16 = 1;

fn plus(address: u64, offset: u64) -> Result<u64, Refusal> {
    address.checked_add(offset).ok_or(Refusal::Malformed)
}

/// A symbol's bytes, in Java's own form of UTF-8.
fn symbol_bytes(layout: &Layout, address: u64, memory: &dyn ProcessMemory) -> Result<Vec<u8>, Refusal> {
    if address == 0 || address & 7 != 0 {
        return Err(Refusal::Malformed);
    }
    let bytes = memory.u16_at(plus(address, u64::from(layout.symbol_length))?)?;
    let mut text = vec![0; usize::from(bytes)];
    memory.read(plus(address, u64::from(layout.symbol_body))?, &mut text)?;
    Ok(text)
}

/// A symbol's text.
fn symbol(layout: &Layout, address: u64, memory: &dyn ProcessMemory) -> Result<String, Refusal> {
    decoded(&symbol_bytes(layout, address, memory)?).ok_or(Refusal::Malformed)
}

/// Whether a symbol is still that of these bytes: one read.
fn is_symbol(
    layout: &Layout,
    address: u64,
    expected: &[u8],
    memory: &dyn ProcessMemory,
) -> Result<bool, Refusal> {
    let (length, body) = (usize::from(layout.symbol_length), usize::from(layout.symbol_body));
    let mut bytes = vec![0; body + expected.len()];
    memory.read(address, &mut bytes)?;
    let is_as_long = u16_at(&bytes, length).is_some_and(|bytes| usize::from(bytes) == expected.len());
    Ok(is_as_long && bytes.get(body..) == Some(expected))
}

/// The address of a symbol among a class's constants.
fn constant(layout: &Layout, constants: u64, index: u16, memory: &dyn ProcessMemory) -> Result<u64, Refusal> {
    let count = memory.u32_at(plus(constants, u64::from(layout.constants_count))?)?;
    if index == 0 || count > MAX_CONSTANTS || u32::from(index) >= count {
        return Err(Refusal::Malformed);
    }
    constant_entry(layout, constants, index, memory)
}

/// The same where there are known to be as many.
fn constant_entry(
    layout: &Layout,
    constants: u64,
    index: u16,
    memory: &dyn ProcessMemory,
) -> Result<u64, Refusal> {
    let entry = u64::from(layout.constants_bytes) + 8 * u64::from(index);
    // The lowest bit once said that a class was not resolved yet.
    Ok(memory.u64_at(plus(constants, entry)?)? & !1)
}

/// A class's name as programs print it: `com/example/Shop$1` → `com.example.Shop$1`, and of hidden classes
/// `com/example/Shop$$Lambda+0x00007f12` → `com.example.Shop$$Lambda/0x00007f12`.
fn external_name(internal: &str) -> String {
    let (name, suffix) = match internal.rfind(['+', '/']) {
        Some(at) if internal.get(at + 1..).is_some_and(|rest| rest.starts_with("0x")) => {
            (internal.get(..at).unwrap_or_default(), internal.get(at + 1..))
        }
        _ => (internal, None),
    };
    let name = name.replace('/', ".");
    match suffix {
        Some(suffix) => format!("{name}/{suffix}"),
        None => name,
    }
}

/// The types of a method's parameters for people: `(ILjava/lang/String;[J)V` → `int, String, long[]`.
fn parameters(signature: &str) -> Option<String> {
    let mut rest = signature.strip_prefix('(')?;
    let mut types: Vec<String> = Vec::new();
    loop {
        let dimensions = rest.bytes().take_while(|byte| *byte == b'[').count();
        rest = rest.get(dimensions..)?;
        let kind = rest.chars().next()?;
        let name = match kind {
            ')' => break,
            'B' => "byte",
            'C' => "char",
            'D' => "double",
            'F' => "float",
            'I' => "int",
            'J' => "long",
            'S' => "short",
            'Z' => "boolean",
            'L' => {
                let class = rest.get(1..rest.find(';')?)?;
                class.rsplit('/').next().unwrap_or(class)
            }
            _ => return None,
        };
        types.push(format!("{name}{}", "[]".repeat(dimensions)));
        let end = if kind == 'L' { rest.find(';')? + 1 } else { 1 };
        rest = rest.get(end..)?;
    }
    Some(types.join(", "))
}

/// A method's name and lines.
#[derive(Debug, Clone)]
pub(super) struct NamedMethod {
    name: String,
    file: String,
    /// The symbols that its name was made of.
    class_symbol: Vec<u8>,
    method_symbol: (u64, Vec<u8>),
    /// The table of its lines, as it is stored.
    lines: Vec<u8>,
    pub(super) identity: u32,
}

/// Methods of a virtual machine that were read, by their addresses. Samples are of ever new places in the same methods,
/// whose names take some thirty reads of the process's memory; whether they are still the same takes nine.
#[derive(Debug, Default)]
pub(super) struct Methods {
    known: Mutex<HashMap<u64, (MethodIdentity, Arc<NamedMethod>)>>,
}

impl Methods {
    /// Reads a method. What was read is checked to be of one method, and what is known to be of the one that is there
    /// now.
    pub(super) fn read(
        &self,
        layout: &Layout,
        method: u64,
        memory: &dyn ProcessMemory,
    ) -> Result<Arc<NamedMethod>, Refusal> {
        let identity = MethodIdentity::read(layout, method, memory)?;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&method).cloned();
        if let Some((of, named)) = known
            && of == identity
            && named.is_still(layout, &identity, memory).unwrap_or(false)
        {
            return Ok(named);
        }
        let named = NamedMethod::of(layout, method, &identity, memory);
        // What was changed meanwhile may have led anywhere.
        if MethodIdentity::read(layout, method, memory)? != identity {
            return Err(Refusal::ObjectMoved);
        }
        let named = Arc::new(named?);
        if named.bytes() > MAX_KNOWN_BYTES {
            return Ok(named);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(method, (identity, Arc::clone(&named)));
        Ok(named)
    }
}

impl NamedMethod {
    fn of(
        layout: &Layout,
        method: u64,
        identity: &MethodIdentity,
        memory: &dyn ProcessMemory,
    ) -> Result<Self, Refusal> {
        let half =
            |offset: u16| u16_at(&identity.const_method_bytes, usize::from(offset)).ok_or(Refusal::Malformed);
        let constants = identity.constants;
        let name_index = half(layout.kernel.const_method_name_index)?;
        let name_symbol = constant(layout, constants, name_index, memory)?;
        let method_symbol = symbol_bytes(layout, name_symbol, memory)?;
        let class_symbol = symbol_bytes(layout, identity.holder_name, memory)?;
        let name = decoded(&method_symbol).ok_or(Refusal::Malformed)?;
        let class = decoded(&class_symbol).ok_or(Refusal::Malformed)?;
        if !is_method(&name) || !is_class(&class) {
            return Err(Refusal::Malformed);
        }
        let mut full_name = format!("{}.{name}", external_name(&class));
        if is_overloaded(layout, method, identity.holder, name_symbol, memory).unwrap_or(false) {
            let index = half(layout.kernel.const_method_signature_index)?;
            let signature = symbol(layout, constant(layout, constants, index, memory)?, memory)?;
            if let Some(parameters) = parameters(&signature) {
                full_name = format!("{full_name}({parameters})");
            }
        }
        let file_index = match layout.source_file {
            SourceFileIndex::InClass(offset) => memory.u16_at(plus(identity.holder, u64::from(offset))?)?,
            SourceFileIndex::InConstants(offset) => memory.u16_at(plus(constants, u64::from(offset))?)?,
        };
        let file = match file_index {
            0 => String::new(),
            index => symbol(layout, constant(layout, constants, index, memory)?, memory)?,
        };
        Ok(Self {
            name: full_name,
            file,
            class_symbol,
            method_symbol: (name_symbol, method_symbol),
            lines: lines(layout, identity, memory)?,
            identity: identity.identity,
        })
    }

    /// Memory that its texts and its table take.
    fn bytes(&self) -> usize {
        let symbols = self.class_symbol.len() + self.method_symbol.1.len();
        self.name.len() + self.file.len() + symbols + self.lines.len()
    }

    /// Whether what it was read of is what is there now, given that its identity is the same: another class of the same
    /// shape that came to lie there has that by chance once in 65,536 times.
    fn is_still(
        &self,
        layout: &Layout,
        identity: &MethodIdentity,
        memory: &dyn ProcessMemory,
    ) -> Result<bool, Refusal> {
        let index = u16_at(&identity.const_method_bytes, usize::from(layout.kernel.const_method_name_index));
        let (name_symbol, name) = &self.method_symbol;
        let entry = constant_entry(layout, identity.constants, index.ok_or(Refusal::Malformed)?, memory)?;
        Ok(entry == *name_symbol
            && is_symbol(layout, *name_symbol, name, memory)?
            && is_symbol(layout, identity.holder_name, &self.class_symbol, memory)?
            && lines(layout, identity, memory)? == self.lines)
    }

    /// The function at a bytecode index; without one at no line.
    pub(super) fn at(
        &self,
        layout: &Layout,
        bytecode_index: Option<u32>,
        is_approximate: bool,
    ) -> ScriptFunction {
        let (line, first) = line_of(&self.lines, layout.encoding, bytecode_index);
        ScriptFunction {
            name: self.name.clone(),
            file: self.file.clone(),
            start_line: first,
            line: line.unwrap_or(0),
            is_approximate,
        }
    }
}

/// The compressed table of lines, which follows the bytecode; empty if there is none.
fn lines(layout: &Layout, identity: &MethodIdentity, memory: &dyn ProcessMemory) -> Result<Vec<u8>, Refusal> {
    let bytes = &identity.const_method_bytes;
    let flags = u16_at(bytes, usize::from(layout.const_method_flags)).ok_or(Refusal::Malformed)?;
    let code = u16_at(bytes, usize::from(layout.kernel.const_method_code_size)).ok_or(Refusal::Malformed)?;
    let words = u32_at(bytes, usize::from(layout.const_method_words)).ok_or(Refusal::Malformed)?;
    if flags & HAS_LINE_NUMBERS == 0 {
        return Ok(Vec::new());
    }
    let whole = 8 * u64::from(words);
    let before = u64::from(layout.kernel.const_method_bytes) + u64::from(code);
    if whole > MAX_CONST_METHOD_BYTES {
        return Err(Refusal::Malformed);
    }
    let mut table = vec![0; whole.checked_sub(before).ok_or(Refusal::Malformed)? as usize];
    memory.read(plus(identity.const_method, before)?, &mut table)?;
    Ok(table)
}

/// Whether a class has another method of the same name. Its methods are ordered by their names' addresses.
fn is_overloaded(
    layout: &Layout,
    method: u64,
    holder: u64,
    name: u64,
    memory: &dyn ProcessMemory,
) -> Result<bool, Refusal> {
    let methods = memory.u64_at(plus(holder, u64::from(layout.class_methods))?)?;
    let count = memory.u32_at(methods)?;
    if count > MAX_METHODS {
        return Err(Refusal::Malformed);
    }
    let mut addresses = vec![0; 8 * count as usize];
    memory.read(plus(methods, u64::from(layout.methods_data))?, &mut addresses)?;
    let address = |index: usize| u64_at(&addresses, index.checked_mul(8)?);
    let Some(index) = (0..count as usize).find(|index| address(*index) == Some(method)) else {
        return Ok(false); // an old version of a method that was redefined
    };
    for neighbour in [index.checked_sub(1), index.checked_add(1)].into_iter().flatten() {
        let Some(neighbour) = address(neighbour) else { continue };
        let const_method = memory.u64_at(plus(neighbour, u64::from(layout.kernel.method_const_method))?)?;
        let constants =
            memory.u64_at(plus(const_method, u64::from(layout.kernel.const_method_constants))?)?;
        let index = memory.u16_at(plus(const_method, u64::from(layout.kernel.const_method_name_index))?)?;
        if constant(layout, constants, index, memory)? == name {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_named_as_the_virtual_machine_does() {
        for (internal, external) in [
            ("com/example/Shop", "com.example.Shop"),
            ("Shop$1", "Shop$1"),
            ("com/example/Shop$$Lambda+0x00007f1234", "com.example.Shop$$Lambda/0x00007f1234"),
            (
                "java/lang/invoke/LambdaForm$MH/0x000000080006",
                "java.lang.invoke.LambdaForm$MH/0x000000080006",
            ),
            ("a/0", "a.0"),
            ("", ""),
        ] {
            assert_eq!(external_name(internal), external);
        }
    }

    #[test]
    fn parameters_of_signatures_and_of_what_is_none() {
        assert_eq!(parameters("()V").as_deref(), Some(""));
        assert_eq!(
            parameters("(ILjava/lang/String;[[JZ)V").as_deref(),
            Some("int, String, long[][], boolean")
        );
        for nonsense in ["", "(", "(I", "(Ljava/lang/String)V", "([", "(Q)V", "I)V", "(Ljava/läng;", "(é"] {
            assert_eq!(parameters(nonsense), None, "{nonsense}");
        }
    }
}
