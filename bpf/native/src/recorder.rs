//! Memory that remembers what was read of it, so that the same can be read again where the process is not.

use std::cell::RefCell;
use std::collections::BTreeMap;

use spanflame_symbols::process_memory::{ProcessMemory, RecordedMemory, Unreadable};

/// Reads from other memory and remembers it.
pub struct Recorder<'a> {
    memory: &'a dyn ProcessMemory,
    bytes: RefCell<BTreeMap<u64, u8>>,
}

impl std::fmt::Debug for Recorder<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Recorder").field("bytes", &self.bytes.borrow().len()).finish_non_exhaustive()
    }
}

impl<'a> Recorder<'a> {
    /// Nothing was read yet.
    #[must_use]
    pub fn new(memory: &'a dyn ProcessMemory) -> Self {
        Self { memory, bytes: RefCell::default() }
    }

    /// What was read.
    #[must_use]
    pub fn recorded(&self) -> RecordedMemory {
        let mut recorded = RecordedMemory::default();
        let mut region: Option<(u64, Vec<u8>)> = None;
        for (&address, &byte) in &*self.bytes.borrow() {
            match &mut region {
                Some((begin, contents)) if *begin + contents.len() as u64 == address => contents.push(byte),
                _ => {
                    if let Some((begin, contents)) = region.replace((address, vec![byte])) {
                        recorded.add(begin, contents);
                    }
                }
            }
        }
        if let Some((begin, contents)) = region {
            recorded.add(begin, contents);
        }
        recorded
    }
}

impl ProcessMemory for Recorder<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        self.memory.read(address, into)?;
        self.bytes.borrow_mut().extend((address..).zip(into.iter().copied()));
        Ok(())
    }
}
