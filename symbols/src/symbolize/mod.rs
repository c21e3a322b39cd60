//! Addresses → names, files, lines and inlined frames.

use std::sync::Arc;

use crate::{ElfAddress, ObjectFile};

/// One function at an address: the machine code's own, or one inlined into it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SymbolFrame {
    /// Demangled name.
    pub name: String,
    /// The name as the object has it, if it differs; else empty.
    pub system_name: String,
    /// Source file as the compiler wrote it, empty if unknown.
    pub file: String,
    /// Line, 0 if unknown.
    pub line: u32,
    /// First line of the function, 0 if unknown.
    pub start_line: u32,
}

/// Why an address has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnknownReason {
    /// The object has no symbols that cover the address.
    NoSymbol,
    /// The object has no symbol table of any kind.
    NoSymbolTable,
    /// The object could not be read any more, or it is malformed.
    Unreadable,
    /// No perf map and no runtime support for generated code.
    NoPerfMap,
    /// Kernel addresses are hidden from this user (`kptr_restrict`).
    KernelHidden,
}

/// What is known of an address: frames innermost inlined first, or why there are none.
pub type Symbol = Result<Vec<SymbolFrame>, UnknownReason>;

/// Symbolizes, with bounded caches.
#[derive(Debug, Default)]
pub struct Symbolizer {}

impl Symbolizer {
    /// A symbolizer with empty caches.
    #[must_use]
    pub fn new() -> Self {
        todo!("helper symbolize")
    }

    /// Names ELF addresses of one object, in the order given.
    pub fn object(&mut self, _object: &Arc<ObjectFile>, _addresses: &[ElfAddress]) -> Vec<Symbol> {
        todo!("helper symbolize")
    }

    /// Names kernel addresses; the module (or `kernel`) stands beside each.
    pub fn kernel(&mut self, _addresses: &[u64]) -> Vec<KernelSymbol> {
        todo!("helper symbolize")
    }

    /// Names process addresses of generated code through the process's perf map.
    pub fn jit(&mut self, _pid: u32, _addresses: &[u64]) -> Vec<Symbol> {
        todo!("helper symbolize")
    }
}

/// A kernel address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelSymbol {
    /// Its name.
    pub symbol: Symbol,
    /// The module it lies in, `kernel` for the kernel itself.
    pub module: String,
}
