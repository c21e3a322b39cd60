//! Which BPF programs write a map, told from their instructions as the kernel shows them.
//!
//! Comes in: a map's number. Goes out: whether a program that is loaded updates or deletes elements of it. Never: a reader
//! for a writer where that can be told; what cannot be told counts as a writer.
//!
//! The kernel lists a program's maps and not what it does with them. It shows the instructions after its own rewriting
//! (`bpf_insn_prepare_dump`, kernel/bpf/syscall.c): loads of a map's address have the map's number, and a call of a helper
//! has the distance of a kernel function from `__bpf_call_base`, for an update of a map that of its kind's own function
//! (`do_misc_fixups`, kernel/bpf/verifier.c). The functions' names are those of `/proc/kallsyms`. Instructions are as RFC 9669
//! has them.
//!
//! Known gap: a program that stores through the address that it has looked up is no writer here. Tracers update.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

use libbpf_rs::libbpf_sys::{bpf_prog_get_fd_by_id, bpf_prog_get_info_by_fd, bpf_prog_info};

/// The kernel takes no program of more instructions; what its rewriting adds is little.
const MAX_INSTRUCTIONS: usize = 1 << 22;
const INSTRUCTION_BYTES: usize = 8;

/// Registers that a call may change, and those that carry its arguments, as bits.
const CALLER_SAVED: u16 = 0b11_1111;
const ARGUMENTS: u16 = 0b11_1110;
const FIRST_ARGUMENT: u16 = 1 << 1;

/// Calls that change a map, by their distance from `__bpf_call_base`.
#[derive(Debug)]
struct WritingCalls(HashSet<i32>);

impl WritingCalls {
    /// Those of this kernel; `None` if it does not show its functions' addresses.
    fn of_kernel() -> Option<&'static Self> {
        static CALLS: OnceLock<Option<WritingCalls>> = OnceLock::new();
        CALLS.get_or_init(|| Self::read(BufReader::new(File::open("/proc/kallsyms").ok()?))).as_ref()
    }

    fn read(kallsyms: impl BufRead) -> Option<Self> {
        let (mut base, mut found) = (None, Vec::new());
        for line in kallsyms.lines() {
            let line = line.ok()?;
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(_), Some(name), None) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                continue;
            };
            let writes = name.ends_with("map_update_elem") || name.ends_with("map_delete_elem");
            if name != "__bpf_call_base" && !writes {
                continue;
            }
            let address = u64::from_str_radix(address, 16).ok().filter(|&address| address != 0)?;
            match writes {
                true => found.push(address),
                false => base = Some(address),
            }
        }
        let base = base?;
        let distances =
            found.iter().filter_map(|address| i32::try_from(address.wrapping_sub(base).cast_signed()).ok());
        Some(Self(distances.collect()))
    }
}

/// Whether a program that is loaded writes a map. Of one that is gone meanwhile: no.
pub(super) fn writes(program_id: u32, map_id: u32) -> bool {
    let Some(calls) = WritingCalls::of_kernel() else { return true };
    // SAFETY: takes a number, and gives a descriptor that is ours or an error.
    let descriptor = unsafe { bpf_prog_get_fd_by_id(program_id) };
    if descriptor < 0 {
        return descriptor != -libc::ENOENT;
    }
    // SAFETY: it was just opened, by nobody else.
    let program = unsafe { OwnedFd::from_raw_fd(descriptor) };
    instructions(&program).is_none_or(|instructions| updates(&instructions, map_id, calls))
}

/// A program's instructions, if the kernel shows them.
fn instructions(program: &OwnedFd) -> Option<Vec<u8>> {
    let ask = |info: &mut bpf_prog_info| {
        let mut bytes = u32::try_from(size_of::<bpf_prog_info>()).ok()?;
        // SAFETY: the kernel writes no more than `bytes` to `info`, and no more than `xlated_prog_len` to where
        // `xlated_prog_insns` points, which lives for as long as the call.
        let result = unsafe { bpf_prog_get_info_by_fd(program.as_raw_fd(), info, &raw mut bytes) };
        (result == 0).then_some(())
    };
    let mut info = bpf_prog_info::default();
    ask(&mut info)?;
    let bytes = info.xlated_prog_len as usize;
    if bytes == 0 || bytes > MAX_INSTRUCTIONS * INSTRUCTION_BYTES {
        return None;
    }
    let mut instructions = vec![0; bytes];
    let mut info = bpf_prog_info {
        xlated_prog_len: u32::try_from(bytes).ok()?,
        xlated_prog_insns: instructions.as_mut_ptr() as u64,
        ..bpf_prog_info::default()
    };
    ask(&mut info)?;
    // Null if they are not shown.
    (info.xlated_prog_insns != 0).then_some(instructions)
}

/// An instruction of eight bytes.
struct Instruction {
    code: u8,
    to: u8,
    from: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    fn of(bytes: &[u8; INSTRUCTION_BYTES]) -> Self {
        let &[code, registers, o0, o1, i0, i1, i2, i3] = bytes;
        Self {
            code,
            to: registers & 0xf,
            from: registers >> 4,
            offset: i16::from_ne_bytes([o0, o1]),
            immediate: i32::from_ne_bytes([i0, i1, i2, i3]),
        }
    }
}

/// Whether the instructions hand the map to a call that writes, or to where it cannot be followed. Which registers hold the
/// map is followed along all ways at once: each instruction is looked at again as long as one more may. O(instructions).
fn updates(instructions: &[u8], map_id: u32, calls: &WritingCalls) -> bool {
    let (instructions, _) = instructions.as_chunks::<INSTRUCTION_BYTES>();
    let mut held: Vec<u16> = vec![0; instructions.len()];
    let mut due: Vec<usize> = (0..instructions.len()).rev().collect();
    let mut is_loaded = false;
    while let Some(at) = due.pop() {
        let (Some(bytes), Some(&before)) = (instructions.get(at), held.get(at)) else { continue };
        let Instruction { code, to, from, offset, immediate } = Instruction::of(bytes);
        let holds = |register: u8| before & 1 << register != 0;
        let mut after = before & !(1 << to);
        let mut next = [Some(at + 1), None];
        let jump = |distance: i64| i64::try_from(at + 1).ok()?.checked_add(distance)?.try_into().ok();
        match code {
            // A load of 64 bits takes two places; those of a map's address say so in place of a register.
            0x18 => {
                if from == 1 && immediate.cast_unsigned() == map_id {
                    is_loaded = true;
                    after |= 1 << to;
                }
                next = [Some(at + 2), None];
            }
            // One register into another.
            0xbf if holds(from) => after |= 1 << to,
            // Onto the stack, from where somebody may take it again.
            _ if matches!(code & 7, 3) => {
                if holds(from) {
                    return true;
                }
                after = before;
            }
            // A store of a number changes no register.
            _ if matches!(code & 7, 2) => after = before,
            // A function of the program's own gets it.
            0x85 if from == 1 && before & ARGUMENTS != 0 => return true,
            0x85 => {
                if before & FIRST_ARGUMENT != 0 && calls.0.contains(&immediate) {
                    return true;
                }
                after = before & !CALLER_SAVED;
            }
            0x95 => next = [None, None],
            0x05 => (after, next) = (before, [jump(offset.into()), None]),
            0x06 => (after, next) = (before, [jump(immediate.into()), None]),
            _ if matches!(code & 7, 5 | 6) => (after, next) = (before, [Some(at + 1), jump(offset.into())]),
            _ => {}
        }
        for next in next.into_iter().flatten() {
            if let Some(known) = held.get_mut(next)
                && *known | after != *known
            {
                *known |= after;
                due.push(next);
            }
        }
    }
    // It uses the map, and not by any instruction that is shown.
    !is_loaded
}

#[cfg(test)]
#[path = "map_writers_tests.rs"]
mod tests;
