//! Trees of inlined calls, in the function data (`go:func.*`).
//!
//! Where code of an inlined function begins, the pc table 2 of the function gives an index in its
//! tree; the entry there names the inlined function and a pc of the same function, `parent`, whose
//! file, line and index are those of the call. Following `parent` ends at a pc without an index, which
//! is the function itself. Entries (`runtime.inlinedCall`):
//!
//! ```text
//! Go 1.18, 1.19  i16, u8, u8, i32 file, i32 line, i32 name, i32 parent
//! from Go 1.20   u8 function id, u8[3], i32 name, i32 parent, i32 first line
//! ```
//!
//! A tree has no length: an index is only known to be one of it by its entry's making sense.

use super::pclntab::{Function, Pclntab, Version};
use crate::little_endian::u32_at;
use crate::paged_bytes::{PageSource, PagedBytes};
use crate::{ElfAddress, ObjectError, ObjectFile};

/// Largest extent of trees that is read.
const MAX_TREES_BYTES: u64 = 512 << 20;
/// Bytes of the table that are held while all functions are looked at.
const WORKING_BYTES: usize = 4 << 20;
/// Trees that are looked at to tell whether an address is that of the function data.
const PROBED_TREES: usize = 64;

/// A call that was inlined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InlinedCall {
    /// Offset of the function's name.
    pub name_offset: u32,
    /// A pc, from the entry of the function that holds the code, with the position of the call.
    pub parent: u32,
    /// First line of the inlined function, 0 if unknown.
    pub first_line: u32,
}

fn entry_bytes(version: Version) -> u32 {
    match version {
        Version::Go118 => 20,
        Version::Go120 => 16,
    }
}

fn entry(version: Version, bytes: &[u8]) -> Option<InlinedCall> {
    Some(match version {
        Version::Go118 => {
            InlinedCall { name_offset: u32_at(bytes, 12)?, parent: u32_at(bytes, 16)?, first_line: 0 }
        }
        Version::Go120 => InlinedCall {
            name_offset: u32_at(bytes, 4)?,
            parent: u32_at(bytes, 8)?,
            first_line: u32_at(bytes, 12)?,
        },
    })
}

/// Where the trees of all functions lie in the function data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    begin: u32,
    bytes: u64,
}

impl Extent {
    /// `None`: nothing is inlined anywhere.
    pub fn of(table: &mut Pclntab) -> Option<Self> {
        let (mut begin, mut end) = (u32::MAX, 0);
        for index in 0..table.functions() {
            table.forget_over(WORKING_BYTES);
            let Some(function) = table.function(index) else { continue };
            let Some(tree) = function.inline_tree() else { continue };
            begin = begin.min(tree);
            // Trees do not overlap, so only one that lies higher than all before it can end higher;
            // those of one offset are the same tree of several functions.
            if u64::from(tree) + u64::from(entry_bytes(table.header.version)) > end {
                end = end.max(tree_end(table.header.version, &function, tree));
            }
        }
        Some(Self { begin, bytes: end.checked_sub(u64::from(begin)).filter(|bytes| *bytes > 0)? })
    }
}

fn tree_end(version: Version, function: &Function<'_>, tree: u32) -> u64 {
    let indices = function.inline_indices().into_iter().flatten();
    let last = indices.filter_map(|value| u64::try_from(value.value).ok()).max().unwrap_or(0);
    u64::from(tree) + (last + 1) * u64::from(entry_bytes(version))
}

/// The trees of all functions.
#[derive(Debug)]
pub(super) struct InlineTrees {
    version: Version,
    begin: u32,
    data: PagedBytes,
}

impl InlineTrees {
    /// Reads the trees of function data at `function_data`. `None` if they are not there: the entries
    /// make no sense.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn read(
        object: &ObjectFile,
        table: &Pclntab,
        extent: Extent,
        function_data: ElfAddress,
    ) -> Result<Option<Self>, ObjectError> {
        let Some(begin) = function_data.checked_add(u64::from(extent.begin)) else { return Ok(None) };
        if extent.bytes > MAX_TREES_BYTES {
            return Ok(None);
        }
        let source = object
            .loaded_range(begin, extent.bytes)
            .and_then(|(offset, bytes)| PageSource::of_range(object, offset.0, bytes));
        let data = match source {
            Ok(source) => source.open(),
            Err(ObjectError::Malformed { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let trees = Self { version: table.header.version, begin: extent.begin, data };
        Ok(trees.make_sense(table).then_some(trees))
    }

    /// Whether the entries of some functions are such entries.
    fn make_sense(&self, table: &Pclntab) -> bool {
        let mut probed = 0;
        let step = (table.functions() / PROBED_TREES).max(1);
        for start in (0..table.functions()).step_by(step) {
            let functions = (start..table.functions().min(start.saturating_add(step)))
                .filter_map(|index| table.function(index));
            let Some(function) = functions.into_iter().find(|function| function.inline_tree().is_some())
            else {
                continue;
            };
            for value in function.inline_indices().into_iter().flatten() {
                let Ok(index) = u32::try_from(value.value) else { continue };
                let sound = self.call(&function, index).is_some_and(|call| {
                    table.name(call.name_offset).is_some() && call.parent < function.bytes
                });
                if !sound {
                    return false;
                }
                probed += 1;
            }
        }
        probed > 0
    }

    /// Entry `index` of a function's tree.
    pub fn call(&self, function: &Function<'_>, index: u32) -> Option<InlinedCall> {
        let bytes = entry_bytes(self.version);
        let offset =
            function.inline_tree()?.checked_add(index.checked_mul(bytes)?)?.checked_sub(self.begin)?;
        let at = usize::try_from(offset).ok()?;
        entry(self.version, &self.data.slice(at, bytes as usize).ok()??)
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.data.held_bytes()
    }

    /// Drops what can be read again, if it is more than `max_bytes`.
    pub fn forget_over(&mut self, max_bytes: usize) {
        self.data.forget_over(max_bytes);
    }
}
