//! `_Py_DebugOffsets`, with which `_PyRuntime` begins from 3.13 on (`Include/internal/pycore_debug_offsets.h`): a
//! cookie, the version, whether the build is free-threaded, then groups of 8-byte offsets. What is in a group grew
//! from 3.13 to 3.14, so each has its own positions; versions whose positions are not known are refused.

use super::layout::Layout;
use super::line_table::Format;
use crate::little_endian::u64_at;

/// More than either version's table has.
pub(super) const TABLE_BYTES: usize = 656;
const COOKIE: &[u8] = b"xdebugpy";

/// Where the table has what is wanted, in bytes.
struct Positions {
    interpreters_head: usize,
    interpreter_next: usize,
    interpreter_threads: usize,
    thread_prev: usize,
    thread_next: usize,
    thread_interpreter: usize,
    thread_frame: usize,
    thread_id: usize,
    frame_previous: usize,
    frame_executable: usize,
    frame_instruction: usize,
    frame_owner: usize,
    code_file: usize,
    code_qualified_name: usize,
    code_line_table: usize,
    code_first_line: usize,
    code_instructions: usize,
    type_name: usize,
    string_state: usize,
    string_header: usize,
    bytes_header: usize,
}

const THIRTEEN: Positions = Positions {
    interpreters_head: 40,
    interpreter_next: 64,
    interpreter_threads: 72,
    thread_prev: 160,
    thread_next: 168,
    thread_interpreter: 176,
    thread_frame: 184,
    thread_id: 192,
    frame_previous: 232,
    frame_executable: 240,
    frame_instruction: 248,
    frame_owner: 264,
    code_file: 280,
    code_qualified_name: 296,
    code_line_table: 304,
    code_first_line: 312,
    code_instructions: 344,
    type_name: 376,
    string_state: 544,
    string_header: 560,
    bytes_header: 528,
};

const FOURTEEN: Positions = Positions {
    interpreters_head: 40,
    interpreter_next: 64,
    interpreter_threads: 72,
    thread_prev: 184,
    thread_next: 192,
    thread_interpreter: 200,
    thread_frame: 208,
    thread_id: 216,
    frame_previous: 256,
    frame_executable: 264,
    frame_instruction: 272,
    frame_owner: 288,
    code_file: 320,
    code_qualified_name: 336,
    code_line_table: 344,
    code_first_line: 352,
    code_instructions: 384,
    type_name: 424,
    string_state: 624,
    string_header: 640,
    bytes_header: 608,
};

/// Why a table is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It is not there (yet).
    NoCookie,
    /// It is of a build without a global interpreter lock.
    FreeThreaded,
    /// Of a version whose table is not known.
    Version,
    /// It says what cannot be.
    Nonsense,
}

/// The layout that a table tells. `version` is the interpreter's.
pub(super) fn read(table: &[u8], version: u32) -> Result<Layout, Unusable> {
    if table.get(..8) != Some(COOKIE) {
        return Err(Unusable::NoCookie);
    }
    let at = |position: usize| u64_at(table, position).ok_or(Unusable::Nonsense);
    if at(8)? != u64::from(version) {
        return Err(Unusable::Nonsense);
    }
    if at(16)? != 0 {
        return Err(Unusable::FreeThreaded);
    }
    let minor = (version >> 16) as u8;
    let positions = match minor {
        13 => THIRTEEN,
        14 => FOURTEEN,
        _ => return Err(Unusable::Version),
    };
    let short = |position: usize| u16::try_from(at(position)?).map_err(|_| Unusable::Nonsense);
    let long = |position: usize| u32::try_from(at(position)?).map_err(|_| Unusable::Nonsense);
    let end_of = |offset: u16, bytes: u16| offset.checked_add(bytes).ok_or(Unusable::Nonsense);
    // What no table has (PyTypeObject.tp_basicsize, the end of a structure's part that is read) is as before.
    let known = Layout::of_minor_version(minor).ok_or(Unusable::Version)?;
    let thread_prev = short(positions.thread_prev)?;
    let thread_next = short(positions.thread_next)?;
    let thread_interpreter = short(positions.thread_interpreter)?;
    let thread_frame = short(positions.thread_frame)?;
    let thread_id = short(positions.thread_id)?;
    let last_of_thread =
        thread_prev.max(thread_next).max(thread_interpreter).max(thread_frame).max(thread_id);
    let frame_previous = short(positions.frame_previous)?;
    let frame_code = short(positions.frame_executable)?;
    let frame_position = short(positions.frame_instruction)?;
    let frame_entry = short(positions.frame_owner)?;
    let last_of_frame = frame_previous.max(frame_code).max(frame_position).max(frame_entry & !7);
    let code_line_table = short(positions.code_line_table)?;
    let code_instructions = short(positions.code_instructions)?;
    let string_header = short(positions.string_header)?;
    if short(positions.bytes_header)? != super::objects::BYTES_HEADER {
        return Err(Unusable::Nonsense);
    }
    let layout = Layout {
        version,
        interpreter_next: long(positions.interpreter_next)?,
        interpreter_threads: long(positions.interpreter_threads)?,
        thread_bytes: end_of(last_of_thread, 8)?,
        thread_prev,
        thread_next,
        thread_interpreter,
        thread_frame,
        thread_id,
        frame_bytes: end_of(last_of_frame, 8)?,
        frame_code,
        frame_previous,
        frame_position,
        frame_entry,
        // The pointers to strings and to the line table are the last of the fields that never change.
        code_bytes: end_of(code_line_table, 8)?,
        code_instructions,
        code_name: short(positions.code_qualified_name)?,
        code_file: short(positions.code_file)?,
        string_header,
        runtime_interpreters_head: at(positions.interpreters_head)?,
        code_first_line: short(positions.code_first_line)?,
        code_line_table,
        code_basic_bytes: u64::from(code_instructions),
        type_name: short(positions.type_name)?,
        string_state: short(positions.string_state)?,
        compact_header: end_of(string_header, 16)?,
        line_table: Format::Locations,
        ..known
    };
    if layout.is_sound() { Ok(layout) } else { Err(Unusable::Nonsense) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The table of 3.14.10 as far as it is read: position and number.
    const OF_FOURTEEN: [(usize, u64); 23] = [
        (8, 0x030e_0af0),
        (40, 808),
        (64, 7272),
        (72, 7344),
        (184, 0),
        (192, 8),
        (200, 16),
        (208, 72),
        (216, 152),
        (256, 8),
        (264, 0),
        (272, 56),
        (288, 74),
        (320, 112),
        (336, 128),
        (344, 136),
        (352, 68),
        (384, 208),
        (424, 24),
        (608, 32),
        (624, 32),
        (640, 40),
        (16, 0),
    ];

    fn table() -> Vec<u8> {
        let mut table = vec![0; TABLE_BYTES];
        table[..8].copy_from_slice(COOKIE);
        for (position, number) in OF_FOURTEEN {
            table[position..position + 8].copy_from_slice(&number.to_le_bytes());
        }
        table
    }

    #[test]
    fn the_table_of_3_14_says_what_is_known_of_it() {
        let layout = read(&table(), 0x030e_0af0).expect("usable");
        let known = Layout::of_minor_version(14).expect("known");
        assert_eq!(layout, Layout { version: 0x030e_0af0, ..known });
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let with = |position: usize, number: u64| {
            let mut table = table();
            table[position..position + 8].copy_from_slice(&number.to_le_bytes());
            read(&table, 0x030e_0af0)
        };
        assert_eq!(with(0, 0), Err(Unusable::NoCookie));
        assert_eq!(with(16, 1), Err(Unusable::FreeThreaded));
        assert_eq!(with(8, 0x030e_00f0), Err(Unusable::Nonsense), "another version's");
        assert_eq!(with(216, 153), Err(Unusable::Nonsense), "no word's");
        assert_eq!(with(216, 4096), Err(Unusable::Nonsense), "further away than is read");
        assert_eq!(with(272, u64::MAX), Err(Unusable::Nonsense));
        assert_eq!(read(&table()[..600], 0x030e_0af0), Err(Unusable::Nonsense), "cut off");
        let mut table = table();
        table[8..16].copy_from_slice(&0x030f_00f0_u64.to_le_bytes());
        assert_eq!(read(&table, 0x030f_00f0), Err(Unusable::Version));
    }

    proptest! {
        #[test]
        fn any_table_gives_a_sound_layout_or_none(
            contents in prop::collection::vec(any::<u16>(), TABLE_BYTES / 8), minor in 12..16_u32
        ) {
            let version = 0x0300_00f0 | minor << 16;
            let mut table: Vec<u8> = contents.iter().flat_map(|number| u64::from(*number).to_le_bytes()).collect();
            table[..8].copy_from_slice(COOKIE);
            table[8..16].copy_from_slice(&u64::from(version).to_le_bytes());
            table[16..24].copy_from_slice(&0_u64.to_le_bytes());
            if let Ok(layout) = read(&table, version) {
                prop_assert!(layout.is_sound());
            }
        }
    }
}
