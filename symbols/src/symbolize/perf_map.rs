//! Perf maps: `/tmp/perf-PID.map`, by which JIT compilers tell the names of generated code.
//!
//! One line a piece of code, `START SIZE name`, numbers in hex without `0x` (some writers put it; it is
//! accepted), the name up to the end of the line (tools/perf/Documentation/jit-interface.txt in Linux).
//! A runtime appends while it runs, so reading goes on where it stopped, and the start of a line whose
//! end is not written yet is kept for the next time.

use super::code_ranges::{CodeRanges, GeneratedCode};

/// Longest name that is kept whole.
const MAX_NAME_BYTES: usize = 4 << 10;
/// A line longer than this is no line of a perf map.
const MAX_LINE_BYTES: usize = 64 << 10;
/// Code ranges of one process.
const MAX_RANGES: usize = 2 << 20;

/// What was read of a perf map so far.
#[derive(Debug, Default)]
pub struct PerfMap {
    ranges: CodeRanges,
    unfinished_line: Vec<u8>,
    /// The unfinished line is over its limit: skip to its end.
    skipping: bool,
    malformed_lines: u64,
    refused_lines: u64,
}

impl PerfMap {
    /// Reads on: `bytes` follow those of the last call.
    pub fn append(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(newline) = rest.iter().position(|&byte| byte == b'\n') {
            let (line, after) = rest.split_at(newline);
            rest = after.get(1..).unwrap_or_default();
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if self.unfinished_line.is_empty() {
                self.line(line);
            } else {
                let mut whole = std::mem::take(&mut self.unfinished_line);
                whole.extend_from_slice(line);
                self.line(&whole);
            }
        }
        if self.skipping {
            return;
        }
        self.unfinished_line.extend_from_slice(rest);
        if self.unfinished_line.len() > MAX_LINE_BYTES {
            self.unfinished_line = Vec::new();
            self.skipping = true;
            self.malformed_lines += 1;
        }
    }

    fn line(&mut self, line: &[u8]) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let parsed = if line.len() > MAX_LINE_BYTES { None } else { parse_line(line) };
        let Some((begin, end, name)) = parsed else {
            self.malformed_lines += 1;
            return;
        };
        if self.ranges.len() >= MAX_RANGES {
            self.refused_lines += 1;
            return;
        }
        self.ranges.insert(begin, end, GeneratedCode { name, lines: Vec::new() });
    }

    /// The code at a process address.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<&GeneratedCode> {
        self.ranges.find(address)
    }

    /// Lines that were no `START SIZE name`.
    #[must_use]
    pub fn malformed_lines(&self) -> u64 {
        self.malformed_lines
    }

    /// Lines past the limit of ranges.
    #[must_use]
    pub fn refused_lines(&self) -> u64 {
        self.refused_lines
    }

    /// Bytes of memory held, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.ranges.memory_bytes() + self.unfinished_line.capacity()
    }
}

fn parse_line(line: &[u8]) -> Option<(u64, u64, String)> {
    let line = line.trim_ascii();
    let (begin, rest) = split_field(line)?;
    let (bytes, name) = split_field(rest)?;
    let begin = parse_hex(begin)?;
    let bytes = parse_hex(bytes)?;
    if bytes == 0 || name.is_empty() {
        return None;
    }
    let name = String::from_utf8_lossy(name.get(..MAX_NAME_BYTES).unwrap_or(name)).into_owned();
    Some((begin, begin.checked_add(bytes)?, name))
}

fn split_field(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = text.iter().position(|byte| matches!(byte, b' ' | b'\t'))?;
    let (field, rest) = text.split_at(space);
    Some((field, rest.trim_ascii_start()))
}

fn parse_hex(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    let digits = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")).unwrap_or(digits);
    // `from_str_radix` would take a sign.
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(text: &str) -> PerfMap {
        let mut map = PerfMap::default();
        map.append(text.as_bytes());
        map
    }

    fn name(map: &PerfMap, address: u64) -> Option<&str> {
        map.find(address).map(|code| code.name.as_str())
    }

    #[test]
    fn names_keep_their_spaces_and_later_lines_win() {
        let map = map("7f00 100 LazyCompile:~f /srv/a b.js:1\n0x7f80 0x10 JS:*f /srv/a.js:1:10\r\n");
        assert_eq!(name(&map, 0x7f00), Some("LazyCompile:~f /srv/a b.js:1"));
        assert_eq!(name(&map, 0x7f80), Some("JS:*f /srv/a.js:1:10"));
        assert_eq!(name(&map, 0x7f90), Some("LazyCompile:~f /srv/a b.js:1"));
        assert_eq!(name(&map, 0x8000), None);
        assert_eq!(map.malformed_lines(), 0);
    }

    #[test]
    fn malformed_lines_are_counted_and_skipped() {
        let text = "\n \nxyz 10 f\n10 +5 f\n10 f\n10 0 f\nffffffffffffffff 10 f\n10 10  \n100 8 good\n-1 2 f\n11111111111111111 2 f\n";
        let map = map(text);
        assert_eq!(map.malformed_lines(), 8);
        assert_eq!(name(&map, 0x107), Some("good"));
    }

    #[test]
    fn a_line_whose_end_comes_later_counts_once_it_is_whole() {
        let mut map = map("10 8 whole\n20 8 ha");
        assert_eq!(name(&map, 0x20), None);
        map.append(b"lf");
        assert_eq!(name(&map, 0x20), None);
        map.append(b"\n30 8 next\n");
        assert_eq!(name(&map, 0x20), Some("half"));
        assert_eq!(name(&map, 0x30), Some("next"));
    }

    #[test]
    fn an_endless_line_is_not_kept_and_costs_only_itself() {
        let mut map = PerfMap::default();
        for _ in 0..100 {
            map.append(&[b'a'; 10_000]);
        }
        assert!(map.memory_bytes() < 3 * MAX_LINE_BYTES);
        map.append(b"tail\n10 8 after\n");
        assert_eq!((map.malformed_lines(), name(&map, 0x10)), (1, Some("after")));
    }

    proptest! {
        #[test]
        fn cutting_the_text_anywhere_changes_nothing(
            lines in proptest::collection::vec("([0-9a-f]{1,4} [0-9a-f]{1,2} [a-z ]{1,5}|\\PC{0,12})", 0..20),
            cut in 0_usize..400,
            address in 0_u64..0x10000,
        ) {
            let text = lines.join("\n") + "\n";
            let whole = map(&text);
            let (first, second) = text.as_bytes().split_at(cut.min(text.len()));
            let mut cut = PerfMap::default();
            cut.append(first);
            cut.append(second);
            prop_assert_eq!(name(&whole, address), name(&cut, address));
            prop_assert_eq!(whole.malformed_lines(), cut.malformed_lines());
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            PerfMap::default().append(&bytes);
        }
    }
}
