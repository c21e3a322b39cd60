//! Where an interpreter's structures have what is read of them: `struct sf_python` of `bpf/layouts/python.h`, and
//! what only user space needs.
//!
//! Offsets up to 3.12 are those of `Include/cpython/{code,frameobject,pystate}.h` and `Include/internal/pycore_*.h` of
//! the releases, as the DWARF of builds for x86-64 has them (3.8.18, 3.9.18, 3.10.13, 3.11.7, 3.12.1).

use super::line_table::Format;

/// Bits of `sf_python.flags` (`enum sf_python_flag`).
pub(super) mod flag {
    pub const INDIRECT_FRAME: u32 = 1;
    pub const EVERY_FRAME_ENTERS: u32 = 2;
    pub const FLAGGED_ENTRY: u32 = 4;
    pub const OWNED_ENTRY: u32 = 8;
    pub const INDEX_POSITION: u32 = 16;
    pub const INDEX_IN_UNITS: u32 = 32;
    pub const CODE_UNNUMBERED: u32 = 64;
}

/// `SF_PYTHON_HALF`: the kernel side reads no more of a structure than this, and only up to its last byte but one.
pub(super) const MAX_STRUCTURE_BYTES: u16 = 248;
/// `SF_PYTHON_BODY`, `SF_PYTHON_BODY_WORDS`: the part of a code object that identity is of.
pub(super) const CODE_BODY: u16 = 16;
pub(super) const CODE_BODY_WORDS: u16 = 24;

/// Names as in `struct sf_python`; offsets in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub version: u32,
    pub flags: u32,
    pub interpreters_head: u64,
    pub code_type: u64,
    pub interpreter_next: u32,
    pub interpreter_threads: u32,
    pub thread_bytes: u16,
    pub thread_prev: u16,
    pub thread_next: u16,
    pub thread_interpreter: u16,
    pub thread_frame: u16,
    pub thread_id: u16,
    pub cframe_frame: u16,
    pub frame_bytes: u16,
    pub frame_code: u16,
    pub frame_previous: u16,
    pub frame_position: u16,
    pub frame_entry: u16,
    pub code_bytes: u16,
    pub code_instructions: u16,
    pub code_name: u16,
    pub code_file: u16,
    pub string_header: u16,
    // What follows is of user space only.
    /// `_PyRuntime.interpreters.head`, from the begin of `_PyRuntime`.
    pub runtime_interpreters_head: u64,
    pub code_first_line: u16,
    pub code_line_table: u16,
    /// `sizeof(PyCodeObject)` as `PyCode_Type.tp_basicsize` has it.
    pub code_basic_bytes: u64,
    pub type_name: u16,
    pub type_basic_bytes: u16,
    pub string_state: u16,
    /// Bytes before the characters of a compact string that is not ASCII.
    pub compact_header: u16,
    pub line_table: Format,
}

impl Layout {
    /// That of a minor version, without addresses.
    pub(super) fn of_minor_version(minor: u8) -> Option<Self> {
        match minor {
            8 | 9 => Some(EIGHT_AND_NINE),
            10 => Some(TEN),
            11 => Some(ELEVEN),
            12 => Some(TWELVE),
            // Theirs come from the process; these are those of the first release, for tests.
            13 => Some(THIRTEEN),
            14 => Some(FOURTEEN),
            _ => None,
        }
        .map(|layout| Self { version: 0x0300_0000 | u32::from(minor) << 16, ..layout })
    }

    /// Whether the kernel side can use it. Offsets of a process are its own say.
    pub(super) fn is_sound(&self) -> bool {
        let word_within = |offset: u16, bytes: u16| {
            offset.is_multiple_of(8) && offset.checked_add(8).is_some_and(|end| end <= bytes)
        };
        let thread =
            [self.thread_prev, self.thread_next, self.thread_interpreter, self.thread_frame, self.thread_id];
        let frame = [self.frame_code, self.frame_previous];
        let code = [self.code_name, self.code_file, self.code_line_table];
        let is_position_sound = if self.flags & flag::INDEX_POSITION == 0 {
            word_within(self.frame_position, self.frame_bytes)
        } else {
            self.frame_position.is_multiple_of(8) && self.frame_position < self.frame_bytes
        };
        [self.thread_bytes, self.frame_bytes, self.code_bytes]
            .iter()
            .all(|bytes| *bytes <= MAX_STRUCTURE_BYTES)
            && thread.iter().all(|offset| word_within(*offset, self.thread_bytes))
            && frame.iter().all(|offset| word_within(*offset, self.frame_bytes))
            && code.iter().all(|offset| word_within(*offset, self.code_bytes))
            && is_position_sound
            && self.frame_entry < self.frame_bytes
            && self.code_bytes <= CODE_BODY + CODE_BODY_WORDS * 8
            && self.code_first_line.checked_add(4).is_some_and(|end| end <= self.code_bytes)
            && self.string_header.is_multiple_of(8)
            && self.string_header <= 64
            && self.code_instructions <= 4096
            && self.interpreter_next < 1 << 24
            && self.interpreter_threads < 1 << 24
            && self.runtime_interpreters_head < 1 << 24
    }

    /// The bytes of `struct sf_python`.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(72);
        bytes.extend_from_slice(&self.version.to_ne_bytes());
        bytes.extend_from_slice(&self.flags.to_ne_bytes());
        bytes.extend_from_slice(&self.interpreters_head.to_ne_bytes());
        bytes.extend_from_slice(&self.code_type.to_ne_bytes());
        bytes.extend_from_slice(&self.interpreter_next.to_ne_bytes());
        bytes.extend_from_slice(&self.interpreter_threads.to_ne_bytes());
        let offsets = [
            self.thread_bytes,
            self.thread_prev,
            self.thread_next,
            self.thread_interpreter,
            self.thread_frame,
            self.thread_id,
            self.cframe_frame,
            self.frame_bytes,
            self.frame_code,
            self.frame_previous,
            self.frame_position,
            self.frame_entry,
            self.code_bytes,
            self.code_instructions,
            self.code_name,
            self.code_file,
            self.string_header,
            0,
            0,
            0,
        ];
        for offset in offsets {
            bytes.extend_from_slice(&offset.to_ne_bytes());
        }
        bytes
    }
}

const EIGHT_AND_NINE: Layout = Layout {
    version: 0,
    flags: flag::EVERY_FRAME_ENTERS | flag::INDEX_POSITION | flag::CODE_UNNUMBERED,
    interpreters_head: 0,
    code_type: 0,
    interpreter_next: 0,
    interpreter_threads: 8,
    thread_bytes: 184,
    thread_prev: 0,
    thread_next: 8,
    thread_interpreter: 16,
    thread_frame: 24,
    thread_id: 176,
    cframe_frame: 0,
    frame_bytes: 112,
    frame_code: 32,
    frame_previous: 24,
    frame_position: 104,
    frame_entry: 0,
    code_bytes: 128,
    code_instructions: 0,
    code_name: 112,
    code_file: 104,
    string_header: 48,
    runtime_interpreters_head: 32,
    code_first_line: 40,
    code_line_table: 120,
    code_basic_bytes: 176,
    type_name: 24,
    type_basic_bytes: 32,
    string_state: 32,
    compact_header: 72,
    line_table: Format::Lnotab,
};

const TEN: Layout = Layout {
    flags: EIGHT_AND_NINE.flags | flag::INDEX_IN_UNITS,
    frame_bytes: 104,
    frame_position: 96,
    line_table: Format::Ranges,
    ..EIGHT_AND_NINE
};

const ELEVEN: Layout = Layout {
    flags: flag::INDIRECT_FRAME | flag::FLAGGED_ENTRY | flag::CODE_UNNUMBERED,
    interpreter_threads: 16,
    thread_bytes: 160,
    thread_frame: 56,
    thread_id: 152,
    cframe_frame: 8,
    frame_bytes: 72,
    frame_code: 32,
    frame_previous: 48,
    frame_position: 56,
    frame_entry: 68,
    code_bytes: 144,
    code_instructions: 184,
    code_name: 128,
    code_file: 112,
    runtime_interpreters_head: 40,
    code_first_line: 72,
    code_line_table: 136,
    code_basic_bytes: 184,
    line_table: Format::Locations,
    ..EIGHT_AND_NINE
};

const TWELVE: Layout = Layout {
    flags: flag::INDIRECT_FRAME | flag::OWNED_ENTRY,
    interpreter_threads: 72,
    thread_bytes: 144,
    thread_id: 136,
    cframe_frame: 0,
    frame_code: 0,
    frame_previous: 8,
    frame_entry: 70,
    code_instructions: 192,
    string_header: 40,
    code_first_line: 68,
    code_basic_bytes: 192,
    compact_header: 56,
    ..ELEVEN
};

const THIRTEEN: Layout = Layout {
    flags: flag::OWNED_ENTRY,
    interpreter_next: 7264,
    interpreter_threads: 7344,
    thread_bytes: 160,
    thread_frame: 72,
    thread_id: 152,
    code_instructions: 200,
    runtime_interpreters_head: 632,
    code_basic_bytes: 200,
    ..TWELVE
};

const FOURTEEN: Layout = Layout {
    interpreter_next: 7272,
    frame_bytes: 80,
    frame_entry: 74,
    code_instructions: 208,
    runtime_interpreters_head: 808,
    code_basic_bytes: 208,
    ..THIRTEEN
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_has_a_layout_that_the_kernel_side_can_use() {
        for minor in 8..=14 {
            let layout = Layout::of_minor_version(minor).expect("known");
            assert!(layout.is_sound(), "3.{minor}");
            assert_eq!(layout.bytes().len(), 72, "sizeof(struct sf_python)");
        }
        assert_eq!(Layout::of_minor_version(7), None);
        assert_eq!(Layout::of_minor_version(15), None);
    }

    #[test]
    fn offsets_that_lead_outside_of_what_is_read_are_refused() {
        let sound = TWELVE;
        assert!(sound.is_sound());
        assert!(!Layout { thread_id: 137, ..sound }.is_sound(), "no word's");
        assert!(!Layout { thread_id: 144, ..sound }.is_sound(), "past the end");
        assert!(!Layout { thread_id: u16::MAX - 7, ..sound }.is_sound());
        assert!(!Layout { thread_bytes: 256, ..sound }.is_sound());
        assert!(!Layout { frame_entry: 72, ..sound }.is_sound());
        assert!(!Layout { code_bytes: 240, ..sound }.is_sound());
        assert!(!Layout { string_header: 41, ..sound }.is_sound());
    }
}
