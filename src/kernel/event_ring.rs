//! Reads the BPF ring buffer.
//!
//! Layout (Documentation/bpf/ringbuf.rst, kernel/bpf/ringbuf.c): the map can be mapped as a page with
//! the consumer's position, writable, then a page with the producer's position and the data, both
//! read-only; the data is mapped twice in a row, so that a record never wraps. Positions are bytes
//! since the beginning. A record is a u32 with its length and two flags, a u32 for the kernel, and the
//! data, rounded up to eight bytes. A record that is still being written has the busy flag, and nothing
//! behind it may be read before it is finished.
//!
//! Written here instead of using libbpf's reader, because that one binds its callback at creation,
//! which would tie every sample's receiver to the life of the ring.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use super::KernelError;
use super::shared_memory::SharedMemory;

const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
const HEADER_BYTES: u64 = 8;

/// The reading end of a ring buffer map.
#[derive(Debug)]
pub(super) struct EventRing {
    map: OwnedFd,
    consumer: SharedMemory,
    producer: SharedMemory,
    page_bytes: usize,
    data_bytes: u64,
    record: Vec<u8>,
}

impl EventRing {
    /// Maps the ring of `data_bytes` bytes.
    pub(super) fn new(map: OwnedFd, data_bytes: u32) -> Result<Self, KernelError> {
        let page_bytes = rustix::param::page_size();
        let consumer =
            SharedMemory::map(map.as_fd(), 0, page_bytes, true, "the ring buffer's consumer page")?;
        let producer = SharedMemory::map(
            map.as_fd(),
            page_bytes as u64,
            page_bytes + 2 * data_bytes as usize,
            false,
            "the ring buffer",
        )?;
        Ok(Self {
            map,
            consumer,
            producer,
            page_bytes,
            data_bytes: u64::from(data_bytes),
            record: Vec::new(),
        })
    }

    /// Becomes readable when the kernel side wakes the reader.
    pub(super) fn poll_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    /// Up to where records are written or being written, bytes since the beginning.
    pub(super) fn written_position(&self) -> u64 {
        self.producer.atomic(0).map_or(0, |produced| produced.load(Ordering::Acquire))
    }

    /// Up to where they were read.
    pub(super) fn read_position(&self) -> u64 {
        self.consumer.atomic(0).map_or(0, |consumed| consumed.load(Ordering::Acquire))
    }

    /// Hands every finished record to `on_record` and frees its place, at most as much as the ring holds: there
    /// may be no end of what comes meanwhile. Returns how many there were.
    pub(super) fn drain(&mut self, on_record: &mut dyn FnMut(&[u8])) -> usize {
        let (Some(consumed), Some(produced)) = (self.consumer.atomic(0), self.producer.atomic(0)) else {
            return 0;
        };
        let mut records = 0;
        let mut position = consumed.load(Ordering::Relaxed);
        let limit = position.saturating_add(self.data_bytes);
        loop {
            let end = produced.load(Ordering::Acquire).min(limit);
            if position >= end {
                return records;
            }
            while position < end {
                let offset = self.page_bytes + (position & (self.data_bytes - 1)) as usize;
                // The pair of length and kernel word is read as one aligned word, which is atomic.
                let Some(header) = self.producer.atomic(offset) else { return records };
                let length = header.load(Ordering::Acquire) as u32;
                if length & BUSY != 0 {
                    return records;
                }
                let bytes = u64::from(length & !(BUSY | DISCARDED));
                if bytes > self.data_bytes {
                    // Cannot happen with a sane kernel; without a length there is no way on.
                    consumed.store(end, Ordering::Release);
                    return records;
                }
                if length & DISCARDED == 0 {
                    self.record.resize(bytes as usize, 0);
                    if self.producer.read(offset + HEADER_BYTES as usize, &mut self.record) {
                        on_record(&self.record);
                        records += 1;
                    }
                }
                position += (HEADER_BYTES + bytes + 7) & !7;
                consumed.store(position, Ordering::Release);
            }
        }
    }
}
