//! jitdump: `jit-PID.dump`, the binary form in which JIT compilers tell names and lines.
//!
//! Format: tools/perf/Documentation/jitdump-specification.txt in Linux. A header (magic `JiTD` in the
//! writer's byte order, version 1, its own size, machine, pid, time, flags), then records, each with
//! `u32 id, u32 total size, u64 time`: `CODE_LOAD` (0) names a piece of code and carries a copy of it,
//! `CODE_MOVE` (1), `DEBUG_INFO` (2, lines of the `CODE_LOAD` that follows with the same address), CLOSE (3),
//! `UNWINDING_INFO` (4). The machine code itself is skipped, not read.
//!
//! Known gaps: only the byte order of this machine; discriminators and unwinding information are left
//! out; of the time stamps only the order of the records is used.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::code_ranges::{CodeRanges, GeneratedCode, GeneratedLine};

const MAGIC: u32 = 0x4a69_5444;
const HEADER_BYTES: u64 = 40;
const RECORD_HEADER_BYTES: usize = 16;
/// Most that is read of a record: of `DEBUG_INFO` all, of `CODE_LOAD` only up to the end of the name.
const MAX_READ_BYTES: usize = 4 << 20;
const MAX_NAME_BYTES: usize = 4 << 10;
const MAX_RANGES: usize = 2 << 20;
const MAX_PENDING_DEBUG: usize = 1024;
/// Bytes of records kept at most.
const MAX_MEMORY_BYTES: usize = 256 << 20;

/// What was read of a jitdump so far.
#[derive(Debug, Default)]
pub struct JitDump {
    ranges: CodeRanges,
    debug_of_next_load: HashMap<u64, Vec<GeneratedLine>>,
    files: HashMap<String, Arc<str>>,
    files_memory_bytes: usize,
    /// Where the next record begins; 0 before the header was read.
    position: u64,
    /// Nothing that follows can be understood.
    broken: bool,
    malformed_records: u64,
}

impl JitDump {
    /// Reads the records that were completed since the last call.
    ///
    /// # Errors
    /// The system's.
    pub fn read_on(&mut self, file: &File) -> std::io::Result<()> {
        let file_bytes = file.metadata()?.len();
        if self.position == 0 && file_bytes >= HEADER_BYTES {
            let mut header = [0; HEADER_BYTES as usize];
            file.read_exact_at(&mut header, 0)?;
            self.header(&header);
        }
        while !self.broken && self.position > 0 {
            let mut head = [0; RECORD_HEADER_BYTES];
            if self.position + RECORD_HEADER_BYTES as u64 > file_bytes {
                break;
            }
            file.read_exact_at(&mut head, self.position)?;
            let (Some(id), Some(total)) = (u32_at(&head, 0), u32_at(&head, 4)) else { break };
            let Some(body_bytes) = (total as usize).checked_sub(RECORD_HEADER_BYTES) else {
                // Without a size there is no way to the next record.
                self.broken = true;
                self.malformed_records += 1;
                break;
            };
            let next = self.position + u64::from(total);
            if next > file_bytes {
                break;
            }
            let wanted = match id {
                0 => body_bytes.min(40 + MAX_NAME_BYTES),
                1 => body_bytes.min(48),
                2 => body_bytes.min(MAX_READ_BYTES),
                _ => 0,
            };
            let mut body = vec![0; wanted];
            file.read_exact_at(&mut body, self.position + RECORD_HEADER_BYTES as u64)?;
            if self.record(id, &body).is_none() {
                self.malformed_records += 1;
            }
            self.position = next;
        }
        Ok(())
    }

    fn header(&mut self, header: &[u8]) {
        let bytes = u32_at(header, 8).map_or(0, u64::from);
        if u32_at(header, 0) != Some(MAGIC) || bytes < HEADER_BYTES {
            self.broken = true;
            self.malformed_records += 1;
            return;
        }
        self.position = bytes;
    }

    fn record(&mut self, id: u32, body: &[u8]) -> Option<()> {
        if self.ranges.len() >= MAX_RANGES || self.memory_bytes() >= MAX_MEMORY_BYTES {
            return None;
        }
        match id {
            0 => self.code_load(body),
            1 => self.code_move(body),
            2 => self.debug_info(body),
            _ => Some(()),
        }
    }

    fn code_load(&mut self, body: &[u8]) -> Option<()> {
        let begin = u64_at(body, 16)?;
        let end = begin.checked_add(u64_at(body, 24)?)?;
        let name = text(body.get(40..)?)?.0;
        let lines = self.debug_of_next_load.remove(&begin).unwrap_or_default();
        self.ranges.insert(begin, end, GeneratedCode { name, lines });
        Some(())
    }

    fn code_move(&mut self, body: &[u8]) -> Option<()> {
        let old_begin = u64_at(body, 16)?;
        let new_begin = u64_at(body, 24)?;
        let new_end = new_begin.checked_add(u64_at(body, 32)?)?;
        let code = self.ranges.remove(old_begin)?;
        let moved = |line: &GeneratedLine| GeneratedLine {
            address: line.address.wrapping_sub(old_begin).wrapping_add(new_begin),
            ..line.clone()
        };
        let code = GeneratedCode { name: code.name.clone(), lines: code.lines.iter().map(moved).collect() };
        self.ranges.insert(new_begin, new_end, code);
        Some(())
    }

    fn debug_info(&mut self, body: &[u8]) -> Option<()> {
        let begin = u64_at(body, 0)?;
        let entries = u64_at(body, 8)?;
        let mut rest = body.get(16..)?;
        let mut lines = Vec::new();
        let mut last_file: Option<Arc<str>> = None;
        for _ in 0..entries {
            let address = u64_at(rest, 0)?;
            let line = u32_at(rest, 8)?;
            let (name, name_bytes) = text(rest.get(16..)?)?;
            rest = rest.get(16 + name_bytes..)?;
            // A name of the one byte 0xff stands for that of the entry before.
            let file = match last_file.filter(|_| name == "\u{fffd}") {
                Some(same) => same,
                None => self.file(name),
            };
            last_file = Some(Arc::clone(&file));
            lines.push(GeneratedLine { address, line, file });
        }
        lines.sort_by_key(|line| line.address);
        if self.debug_of_next_load.len() >= MAX_PENDING_DEBUG {
            self.debug_of_next_load.clear();
        }
        self.debug_of_next_load.insert(begin, lines);
        Some(())
    }

    fn file(&mut self, name: String) -> Arc<str> {
        if let Some(known) = self.files.get(&name) {
            return Arc::clone(known);
        }
        let file: Arc<str> = name.as_str().into();
        self.files_memory_bytes += 2 * name.len() + 64;
        self.files.insert(name, Arc::clone(&file));
        file
    }

    /// The code at a process address.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<&GeneratedCode> {
        self.ranges.find(address)
    }

    /// Records that were not understood or were over a limit.
    #[must_use]
    pub fn malformed_records(&self) -> u64 {
        self.malformed_records
    }

    /// Bytes of memory held, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.ranges.memory_bytes() + self.files_memory_bytes
    }
}

/// A zero-terminated text and its bytes with the zero.
fn text(bytes: &[u8]) -> Option<(String, usize)> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((String::from_utf8_lossy(bytes.get(..end)?).into_owned(), end + 1))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn header() -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [MAGIC, 1, HEADER_BYTES as u32, 62, 0, 1234] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend([0; 16]);
        bytes
    }

    fn record(id: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(id.to_ne_bytes());
        bytes.extend((RECORD_HEADER_BYTES as u32 + body.len() as u32).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        bytes
    }

    fn load(begin: u64, code_bytes: u64, name: &str) -> Vec<u8> {
        let mut body = vec![0; 8];
        for word in [begin, begin, code_bytes, 1] {
            body.extend(word.to_ne_bytes());
        }
        body.extend(name.bytes());
        body.push(0);
        body.extend(vec![0x90; code_bytes as usize]);
        record(0, &body)
    }

    fn debug(begin: u64, lines: &[(u64, u32, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend(begin.to_ne_bytes());
        body.extend((lines.len() as u64).to_ne_bytes());
        for (address, line, file) in lines {
            body.extend(address.to_ne_bytes());
            body.extend(line.to_ne_bytes());
            body.extend([0; 4]);
            body.extend(*file);
            body.push(0);
        }
        record(2, &body)
    }

    fn moved(old: u64, new: u64, code_bytes: u64) -> Vec<u8> {
        let mut body = vec![0; 8];
        for word in [new, old, new, code_bytes, 1] {
            body.extend(word.to_ne_bytes());
        }
        record(1, &body)
    }

    fn read(bytes: &[u8]) -> JitDump {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let mut dump = JitDump::default();
        dump.read_on(&file).unwrap();
        dump
    }

    #[test]
    fn loads_lines_and_moves() {
        let bytes = [
            header(),
            debug(0x1000, &[(0x1000, 7, b"a.js"), (0x1008, 9, b"\xff")]),
            load(0x1000, 16, "f"),
            load(0x2000, 16, "g"),
            record(99, b"from the future"),
            moved(0x1000, 0x3000, 16),
        ]
        .concat();
        let dump = read(&bytes);
        assert_eq!(dump.find(0x1000), None);
        let code = dump.find(0x300f).unwrap();
        assert_eq!(code.name, "f");
        let line = code.line_at(0x300f).unwrap();
        assert_eq!((line.line, &*line.file), (9, "a.js"));
        assert_eq!(code.line_at(0x3007).unwrap().line, 7);
        assert_eq!(dump.find(0x2000).unwrap().name, "g");
        assert_eq!(dump.malformed_records(), 0);
    }

    #[test]
    fn a_record_still_being_written_is_read_once_it_is_whole() {
        let bytes = [header(), load(0x1000, 16, "f")].concat();
        let mut file = tempfile::tempfile().unwrap();
        let mut dump = JitDump::default();
        for byte in &bytes {
            assert_eq!(dump.find(0x1000), None);
            file.write_all(&[*byte]).unwrap();
            dump.read_on(&file).unwrap();
        }
        assert_eq!(dump.find(0x1000).unwrap().name, "f");
    }

    #[test]
    fn a_record_that_claims_less_than_its_header_ends_the_reading() {
        let mut bad = record(0, b"");
        bad[4..8].copy_from_slice(&0_u32.to_ne_bytes());
        let dump = read(&[header(), bad, load(0x1000, 16, "f")].concat());
        assert_eq!((dump.malformed_records(), dump.find(0x1000)), (1, None));
        assert_eq!(read(b"ELF, or something else that is no jitdump.").malformed_records(), 1);
    }

    #[test]
    fn absurd_counts_and_sizes_cost_nothing() {
        let mut body = 0x1000_u64.to_ne_bytes().to_vec();
        body.extend(u64::MAX.to_ne_bytes());
        let mut overflowing = vec![0; 8];
        for word in [u64::MAX, u64::MAX, u64::MAX, 1] {
            overflowing.extend(word.to_ne_bytes());
        }
        overflowing.extend(b"f\0");
        let bytes = [header(), record(2, &body), record(0, &overflowing), load(0x1000, 16, "f")].concat();
        let dump = read(&bytes);
        assert_eq!((dump.malformed_records(), dump.find(0x1000).is_some()), (2, true));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(tail in proptest::collection::vec(any::<u8>(), 0..300), id in 0_u32..5) {
            let dump = read(&[header(), record(id, &tail), tail].concat());
            let _ = dump.find(0x1000);
        }
    }
}
