//! Reads the ring of one perf event: `perf_event_open(2)`, "MMAP layout"; `kernel/events/ring_buffer.c`.
//!
//! A control page with `data_head`, written by the kernel, and `data_tail`, written by us, is followed
//! by a power of two of data pages. Both positions are bytes since the beginning. A record begins with
//! {u32 type, u16 misc, u16 size}, may wrap at the end of the data, and is copied out before use.

use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use libbpf_rs::libbpf_sys::perf_event_mmap_page;

use super::KernelError;
use super::shared_memory::SharedMemory;

const HEADER_BYTES: usize = 8;

/// One record: its header's type and misc bits, and what follows the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PerfRecord<'a> {
    /// `PERF_RECORD_*`.
    pub kind: u32,
    /// `PERF_RECORD_MISC_*`.
    pub misc: u16,
    /// The rest.
    pub body: &'a [u8],
}

/// A perf event and its ring.
#[derive(Debug)]
pub(super) struct PerfRing {
    event: OwnedFd,
    memory: SharedMemory,
    page_bytes: usize,
    data_bytes: u64,
    record: Vec<u8>,
}

impl PerfRing {
    /// Maps a ring of `data_pages` pages, a power of two, for an event.
    pub(super) fn new(event: OwnedFd, data_pages: usize) -> Result<Self, KernelError> {
        let page_bytes = rustix::param::page_size();
        let memory = SharedMemory::map(
            event.as_fd(),
            0,
            (1 + data_pages) * page_bytes,
            true,
            "the ring of a perf event",
        )?;
        let data_bytes = (memory.len() - page_bytes) as u64;
        Ok(Self { event, memory, page_bytes, data_bytes, record: Vec::new() })
    }

    /// Becomes readable when the watermark is reached.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Hands every record to `on_record`. What cannot be a record ends the batch: the rest of it is
    /// skipped, and `false` returned.
    pub(super) fn drain(&mut self, on_record: &mut dyn FnMut(PerfRecord<'_>)) -> bool {
        let (Some(head), Some(tail)) = (
            self.memory.atomic(offset_of!(perf_event_mmap_page, data_head)),
            self.memory.atomic(offset_of!(perf_event_mmap_page, data_tail)),
        ) else {
            return false;
        };
        let end = head.load(Ordering::Acquire);
        let mut position = tail.load(Ordering::Relaxed);
        let mut sound = true;
        while position < end {
            let mut header = [0u8; HEADER_BYTES];
            copy_wrapped(&self.memory, self.page_bytes, self.data_bytes, position, &mut header);
            let [a, b, c, d, e, f, g, h] = header;
            let kind = u32::from_ne_bytes([a, b, c, d]);
            let misc = u16::from_ne_bytes([e, f]);
            let size = usize::from(u16::from_ne_bytes([g, h]));
            if size < HEADER_BYTES || size as u64 > end - position || size as u64 > self.data_bytes {
                sound = false;
                break;
            }
            self.record.resize(size - HEADER_BYTES, 0);
            copy_wrapped(
                &self.memory,
                self.page_bytes,
                self.data_bytes,
                position.wrapping_add(HEADER_BYTES as u64),
                &mut self.record,
            );
            on_record(PerfRecord { kind, misc, body: &self.record });
            position += size as u64;
        }
        // Release: the kernel may overwrite the records only after they have been copied.
        tail.store(end, Ordering::Release);
        sound
    }
}

fn copy_wrapped(memory: &SharedMemory, data_begin: usize, data_bytes: u64, position: u64, into: &mut [u8]) {
    let offset = (position % data_bytes) as usize;
    let until_end = (data_bytes as usize - offset).min(into.len());
    let (first, second) = into.split_at_mut(until_end);
    memory.read(data_begin + offset, first);
    memory.read(data_begin, second);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A ring over a file instead of a perf event: one control page and one data page.
    fn ring(data: &[u8], head: u64, tail: u64) -> PerfRing {
        let page = rustix::param::page_size();
        let mut contents = vec![0u8; page];
        contents[offset_of!(perf_event_mmap_page, data_head)..][..8].copy_from_slice(&head.to_ne_bytes());
        contents[offset_of!(perf_event_mmap_page, data_tail)..][..8].copy_from_slice(&tail.to_ne_bytes());
        let mut page_of_data = data.to_vec();
        page_of_data.resize(page, 0);
        contents.extend(page_of_data);
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&contents).expect("it can be written");
        PerfRing::new(file.into(), 1).expect("it can be mapped")
    }

    fn record(kind: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_ne_bytes().to_vec();
        bytes.extend(7u16.to_ne_bytes());
        bytes.extend(((body.len() + HEADER_BYTES) as u16).to_ne_bytes());
        bytes.extend(body);
        bytes
    }

    fn drained(ring: &mut PerfRing) -> (Vec<(u32, u16, Vec<u8>)>, bool) {
        let mut records = Vec::new();
        let sound = ring.drain(&mut |record| records.push((record.kind, record.misc, record.body.to_vec())));
        (records, sound)
    }

    #[test]
    fn records_come_in_order_and_only_once() {
        let data = [record(1, b"first..."), record(2, b""), record(3, b"third...")].concat();
        let mut ring = ring(&data, data.len() as u64, 0);
        let expected = vec![(1, 7, b"first...".to_vec()), (2, 7, Vec::new()), (3, 7, b"third...".to_vec())];
        assert_eq!(drained(&mut ring), (expected, true));
        assert_eq!(drained(&mut ring), (Vec::new(), true));
    }

    #[test]
    fn a_record_wraps_at_the_end_of_the_data_in_header_and_in_body() {
        let page = rustix::param::page_size();
        let whole = record(5, b"0123456789abcdef");
        for before_the_end in [1, 4, 8, 12, 23] {
            let mut data = vec![0u8; page];
            let (first, second) = whole.split_at(before_the_end);
            data[page - before_the_end..].copy_from_slice(first);
            data[..second.len()].copy_from_slice(second);
            let tail = (3 * page - before_the_end) as u64;
            let mut ring = ring(&data, tail + whole.len() as u64, tail);
            assert_eq!(drained(&mut ring), (vec![(5, 7, b"0123456789abcdef".to_vec())], true));
        }
    }

    #[test]
    fn impossible_sizes_end_the_batch_instead_of_looping() {
        for size in [0u16, 7, 100, 65535] {
            let mut data = record(1, b"12345678");
            data[6..8].copy_from_slice(&size.to_ne_bytes());
            let mut ring = ring(&data, data.len() as u64, 0);
            assert_eq!(drained(&mut ring), (Vec::new(), false), "size {size}");
            assert_eq!(drained(&mut ring), (Vec::new(), true), "the rest was skipped");
        }
    }
}
