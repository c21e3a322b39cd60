//! Memory shared with the kernel: rings and mmapable maps.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::KernelError;

/// A shared mapping of a file descriptor, unmapped when dropped. The other side may write at any
/// time, so there are no references into it: everything is copied in or out by value.
#[derive(Debug)]
pub(super) struct SharedMemory {
    base: NonNull<u8>,
    bytes: usize,
    writable: bool,
}

// SAFETY: the mapping is owned and lives until drop; all access goes through `&self`/`&mut self`
// methods that read and write by value.
unsafe impl Send for SharedMemory {}

impl SharedMemory {
    /// Maps `bytes` of `fd` from `offset` on.
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        offset: u64,
        bytes: usize,
        writable: bool,
        what: &str,
    ) -> Result<Self, KernelError> {
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other memory.
        let base = unsafe { mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, fd, offset) }
            .map_err(|error| {
                KernelError::system(
                    format!("map {bytes} bytes of {what}"),
                    error.into(),
                    super::error::BPF_CAPABILITIES,
                )
            })?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(KernelError::Missing("address of a mapping"))?;
        Ok(Self { base, bytes, writable })
    }

    /// Bytes mapped.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Copies bytes out. `false` and nothing copied if they do not lie in the mapping.
    pub(super) fn read(&self, offset: usize, into: &mut [u8]) -> bool {
        let Some(end) = offset.checked_add(into.len()) else { return false };
        if end > self.bytes {
            return false;
        }
        // SAFETY: the range lies in the mapping, and `into` is a distinct Rust allocation. The kernel
        // does not write to what it has handed over; if it did the bytes would be odd, not unsafe.
        unsafe {
            std::ptr::copy_nonoverlapping(self.base.as_ptr().add(offset), into.as_mut_ptr(), into.len());
        }
        true
    }

    /// Copies bytes in. `false` and nothing copied if they do not fit the mapping.
    pub(super) fn write(&mut self, offset: usize, from: &[u8]) -> bool {
        let Some(end) = offset.checked_add(from.len()) else { return false };
        if end > self.bytes || !self.writable {
            return false;
        }
        // SAFETY: as in `read`; the mapping is writable.
        unsafe {
            std::ptr::copy_nonoverlapping(from.as_ptr(), self.base.as_ptr().add(offset), from.len());
        }
        true
    }

    /// A counter that both sides use. `None` if it is not aligned or not in the mapping.
    pub(super) fn atomic(&self, offset: usize) -> Option<&AtomicU64> {
        if !offset.is_multiple_of(8) || offset.checked_add(8)? > self.bytes {
            return None;
        }
        // SAFETY: in bounds, aligned (mappings begin on a page), valid as long as `self`, and only
        // ever accessed atomically.
        Some(unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast::<u64>()) })
    }

    /// Stores a word of which the other side must see either the old or the new value, and with it
    /// everything that was written before.
    pub(super) fn publish(&mut self, offset: usize, value: u64) -> bool {
        if !self.writable {
            return false;
        }
        match self.atomic(offset) {
            Some(word) => {
                word.store(value, Ordering::Release);
                true
            }
            None => false,
        }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours and nothing refers to it any more. A failure would leave it
        // mapped, which is harmless.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
