//! pcsp tables → unwind rows (x86-64).
//!
//! pcsp says for every pc how many bytes lie between the stack pointer and the return address, so
//! that CFA = rsp + depth + 8. What rbp is, [`prologue`](super::prologue) reads from the code.
//!
//! Not all of a Go executable is so simple. Assembly that writes the stack pointer in ways that pcsp
//! does not tell is marked by Go's assembler (`FuncFlagSPWrite`); the runtime stops there, or finds
//! the other stack through its g. Here, by name, after reading the sources of Go 1.18, 1.20, 1.22 and
//! 1.26 (`asm_amd64.s`, `sys_linux_amd64.s`, `time_linux_amd64.s`):
//!
//! | function | after the switch |
//! |---|---|
//! | systemstack, asmcgocall, calls of the vDSO and of C by the runtime | On the thread's system stack, and back by itself. rbp stays that of its frame on the goroutine's stack all the time, so the frame pointer leads back. To Go 1.20 the first two have no frame: unsupported there. |
//! | cgocallback | On the goroutine's stack, rbp still that of its frame on the system stack: the frame pointer leads to the C code that called Go. (pcsp would do as well, as the runtime's makes a frame that hides the C code.) |
//! | mcall, morestack | On the system stack, and never back: the scheduler's work from here on belongs to no goroutine. Outermost, as the runtime has it too. (What morestack does for the goroutine itself, copying its stack, is shown without that goroutine's callers: they are only to be found through g.) |
//! | clone | The new thread, on its own stack: outermost. |
//! | gogo | On the other goroutine's stack, which is only to be found through its g: unsupported. |
//! | any other | Unsupported, all of the function. |
//!
//! Where the frame pointer leads to another stack, that may lie below: the CFA need not rise there, nor at
//! a signal frame. No other rule here is `FRAME_POINTER`.
//!
//! Outermost functions are those that the runtime marks (`FuncFlagTopFrame`), and the entry points of
//! the process. One of the marked is not taken for it: `sigtramp`, which the kernel calls, returns to
//! `sigreturn`, and from there the interrupted code is found through the signal frame.
//!
//! Known gaps: in `clone` the new thread's first two instructions, whose stack is empty; code that
//! is interrupted in prologues by `asyncPreempt` and `sigpanic`, whose return address is no call's, is
//! looked up one byte early.

use super::pclntab::{Function, PcValue};
use super::prologue::{self, SavesFramePointer};
use super::symbols::read_table;
use super::text::{self, Text};
use crate::object_file::Machine;
use crate::unwind::layout::{cfa, return_address, saved_fp};
use crate::unwind::{Row, UnwindError, UnwindRule};
use crate::{ElfAddress, ObjectFile};

/// Rows of one executable; the largest known have under a million.
const MAX_ROWS: usize = 8 << 20;
/// Bytes of the pclntab that are held.
const WORKING_BYTES: usize = 4 << 20;
/// Longest function whose code is searched for stack switches; they are a few hundred bytes long.
const MAX_SWITCHING_BYTES: u32 = 4096;

/// `SF_RSP`.
const STACK_POINTER: u8 = 7;
/// Where a frame has its caller's rbp, from the CFA.
const SAVED_FRAME_POINTER_OFFSET: i16 = -16;

/// Appends the rows of a Go executable's pcsp tables, sorted by address. Each function's rows end with
/// [`UnwindRule::NONE`] behind its code; where the next function begins there, its row follows with the
/// same address and is the one that counts. Functions without pcsp (C code that Go's linker took in)
/// have no rows. Where `.debug_frame` covers the same code, these rows are to be preferred: it says
/// nothing of rbp and of stack switches.
///
/// Does nothing for other executables and other machines.
///
/// # Errors
/// [`UnwindError::Object`] if the pclntab is damaged or cannot be read, [`UnwindError::TooLarge`].
pub fn unwind_rows(object: &ObjectFile, rows: &mut Vec<Row>) -> Result<(), UnwindError> {
    let mut own = vec![];
    for_each_row(object, |row| own.push(row))?;
    rows.append(&mut own);
    Ok(())
}

/// As [`unwind_rows`], without holding the rows.
///
/// # Errors
/// As [`unwind_rows`]; rows that were handed on before are not to be used then.
pub(crate) fn for_each_row(object: &ObjectFile, mut on_row: impl FnMut(Row)) -> Result<(), UnwindError> {
    if object.machine() != Machine::X86_64 {
        return Ok(());
    }
    let Some((mut table, _, text_start)) = read_table(object)? else { return Ok(()) };
    let mut text = Text::new(object);
    // The rows of one function, behind the last one of the function before.
    let mut own = vec![];
    let mut handed_on = 0;
    for index in 0..table.functions() {
        table.forget_over(WORKING_BYTES);
        let finished = own.len().saturating_sub(1);
        handed_on += finished;
        own.drain(..finished).for_each(&mut on_row);
        let Some(function) = table.function(index) else { continue };
        let Some(entry) = text_start.checked_add(u64::from(function.entry)) else { continue };
        append(&function, entry, &mut text, &mut own);
        if handed_on + own.len() > MAX_ROWS {
            return Err(UnwindError::TooLarge {
                path: object.path().to_owned(),
                what: format!("its pcsp tables have more than {MAX_ROWS} rows"),
            });
        }
    }
    own.into_iter().for_each(on_row);
    Ok(())
}

/// What a function does to the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// What pcsp says.
    Ordinary,
    /// Has no caller.
    Outermost,
    /// Signal handlers return here.
    SignalReturn,
    /// Loads the stack pointer with another stack's; the rule from there on.
    Switches(AfterSwitch),
    /// Writes the stack pointer, nobody knows how.
    Unsupported,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterSwitch {
    FramePointer,
    Outermost,
    Unsupported,
}

fn kind(function: &Function<'_>) -> Kind {
    let name = function.name().unwrap_or_default();
    let name = &*name;
    if text::is_signal_return(name) {
        return Kind::SignalReturn;
    }
    match text::without_abi(name) {
        b"runtime.sigtramp" => Kind::Ordinary,
        b"_rt0_amd64" | b"_rt0_amd64_linux" => Kind::Outermost,
        _ if function.is_top_frame() => Kind::Outermost,
        _ if !function.writes_stack_pointer() => Kind::Ordinary,
        b"runtime.systemstack"
        | b"runtime.asmcgocall"
        | b"runtime.asmcgocall_no_g"
        | b"runtime.cgocallback"
        | b"runtime.nanotime1"
        | b"runtime.walltime"
        | b"runtime.walltime1"
        | b"time.now"
        | b"runtime.vgetrandom1"
        | b"runtime.sigfwd"
        | b"runtime.callCgoSigaction"
        | b"runtime.callCgoMmap"
        | b"runtime.callCgoMunmap" => Kind::Switches(AfterSwitch::FramePointer),
        b"runtime.mcall" | b"runtime.morestack" | b"runtime.clone" => Kind::Switches(AfterSwitch::Outermost),
        b"gogo" | b"runtime.gogo" => Kind::Switches(AfterSwitch::Unsupported),
        _ => Kind::Unsupported,
    }
}

fn append(function: &Function<'_>, entry: ElfAddress, text: &mut Text<'_>, rows: &mut Vec<Row>) {
    let Some(depths) = function.stack_depths() else { return };
    let depths: Vec<PcValue> = depths.collect();
    let Some(end) = depths.last().map(|depth| depth.end) else { return };
    let mut rules = FunctionRules { entry, rows };
    match kind(function) {
        Kind::Ordinary => ordinary(&depths, entry, text, &mut rules),
        Kind::Outermost => rules.from(0, of_kind(cfa::END)),
        Kind::SignalReturn => {
            // A handler's frame is looked up one byte before its return address, which is this
            // function's first byte. What is there is padding.
            let padded = rules.rows.last().is_some_and(|row| row.address < entry);
            if let Some(before) = entry.0.checked_sub(1).filter(|_| padded) {
                rules.rows.push(Row { address: ElfAddress(before), rule: of_kind(cfa::SIGNAL) });
            }
            rules.from(0, of_kind(cfa::SIGNAL));
        }
        Kind::Switches(after) => switching(&depths, end, after, entry, text, &mut rules),
        Kind::Unsupported => rules.from(0, of_kind(cfa::UNSUPPORTED)),
    }
    rules.end(end);
}

fn ordinary(depths: &[PcValue], entry: ElfAddress, text: &mut Text<'_>, rules: &mut FunctionRules<'_>) {
    let saves = frame(depths, entry, text);
    for depth in depths {
        match saves {
            _ if depth.value < 0 => {
                let moved = entry.checked_add(u64::from(depth.begin)).filter(|_| depth.value == -8);
                let before = moved.and_then(|moved| moved.0.checked_sub(2)).map(ElfAddress);
                let code = before.and_then(|before| text.bytes(before, 2)).unwrap_or_default();
                rules.from(depth.begin, without_return_address(prologue::popped_register(code)));
            }
            Some((frame, saves)) if depth.begin == frame.begin => {
                if saves.saved > 0 {
                    rules.from(depth.begin, by_stack_pointer(depth.value, saved_fp::SAME));
                }
                let saved = depth.begin.saturating_add(saves.saved).min(depth.end);
                rules.from(saved, by_stack_pointer(depth.value, saved_fp::AT_CFA));
            }
            Some((frame, _)) if depth.begin > frame.begin && depth.value > 0 => {
                rules.from(depth.begin, by_stack_pointer(depth.value, saved_fp::AT_CFA));
            }
            _ => rules.from(depth.begin, by_stack_pointer(depth.value, saved_fp::SAME)),
        }
    }
}

/// The first piece of the function in which there is a frame, and how that came to hold rbp.
fn frame(depths: &[PcValue], entry: ElfAddress, text: &mut Text<'_>) -> Option<(PcValue, SavesFramePointer)> {
    let first = *depths.iter().find(|depth| depth.value != 0)?;
    let before = entry.checked_add(u64::from(first.begin.checked_sub(1)?))?;
    let (before, after) = text.bytes(before, 1 + prologue::LONGEST_BYTES)?.split_at_checked(1)?;
    let saves = prologue::saves_frame_pointer(before, after, u32::try_from(first.value).ok()?)?;
    Some((first, saves))
}

fn switching(
    depths: &[PcValue],
    end: u32,
    after: AfterSwitch,
    entry: ElfAddress,
    text: &mut Text<'_>,
    rules: &mut FunctionRules<'_>,
) {
    let own_frame = frame(depths, entry, text).filter(|(_, saves)| saves.set != u32::MAX);
    let offset = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let code = text.bytes(entry, end.min(MAX_SWITCHING_BYTES) as usize).unwrap_or_default().to_vec();
    let (Some(switch), true) = (prologue::stack_pointer_load(&code).map(offset), end <= MAX_SWITCHING_BYTES)
    else {
        rules.from(0, of_kind(cfa::UNSUPPORTED));
        return;
    };
    // Up to the switch, or up to where rbp is the frame's own, pcsp is right.
    let set = own_frame.map(|(frame, saves)| frame.begin.saturating_add(saves.set));
    let by_pcsp_until = match (after, set) {
        (AfterSwitch::FramePointer, Some(set)) => set.min(switch),
        _ => switch,
    };
    let before: Vec<PcValue> = depths
        .iter()
        .filter(|depth| depth.begin < by_pcsp_until)
        .map(|depth| PcValue { end: depth.end.min(by_pcsp_until), ..*depth })
        .collect();
    ordinary(&before, entry, text, rules);
    match (after, set) {
        (AfterSwitch::FramePointer, Some(set)) if set <= switch => {
            let rule = of_kind(cfa::FRAME_POINTER);
            rules.from(set, rule);
            let pieces = prologue::epilogues(&code);
            for (index, piece) in pieces.iter().enumerate() {
                rules.from(
                    offset(piece.begin),
                    by_stack_pointer(i32::from(piece.cfa_offset) - 8, saved_fp::SAME),
                );
                // Code behind a return is jumped to, and has the frame.
                if pieces.get(index + 1).is_none_or(|next| next.begin > piece.end) && offset(piece.end) < end
                {
                    rules.from(offset(piece.end), rule);
                }
            }
        }
        (AfterSwitch::Outermost, _) => rules.from(switch, of_kind(cfa::END)),
        (AfterSwitch::FramePointer | AfterSwitch::Unsupported, _) => {
            rules.from(switch, of_kind(cfa::UNSUPPORTED));
        }
    }
}

/// Rows of one function.
struct FunctionRules<'a> {
    entry: ElfAddress,
    rows: &'a mut Vec<Row>,
}

impl FunctionRules<'_> {
    /// A rule that is in force from `offset` bytes behind the entry.
    fn from(&mut self, offset: u32, rule: UnwindRule) {
        let Some(address) = self.entry.checked_add(u64::from(offset)) else { return };
        // The row before may be another function's: the same rule at a higher address says nothing new
        // either, as long as no gap lies between, and a gap is a row.
        if self.rows.last().is_none_or(|last| last.rule != rule) {
            self.rows.push(Row { address, rule });
        }
    }

    /// The code ends here.
    fn end(&mut self, offset: u32) {
        self.from(offset, UnwindRule::NONE);
    }
}

fn of_kind(cfa: u8) -> UnwindRule {
    UnwindRule { cfa, ..UnwindRule::NONE }
}

/// The return address was taken from the stack into a register: `syscall.rawVforkSyscall`, whose child
/// shares the stack and would overwrite it.
fn without_return_address(register: Option<u8>) -> UnwindRule {
    let Some(register) = register else { return of_kind(cfa::UNSUPPORTED) };
    UnwindRule {
        cfa: cfa::REGISTER,
        cfa_register: STACK_POINTER,
        return_address: return_address::IN_REGISTER | register << 4,
        ..UnwindRule::NONE
    }
}

/// `depth` bytes are on the stack below the return address.
fn by_stack_pointer(depth: i32, frame_pointer: u8) -> UnwindRule {
    let Some(cfa_offset) = depth.checked_add(8) else { return of_kind(cfa::UNSUPPORTED) };
    UnwindRule {
        cfa: cfa::REGISTER,
        cfa_register: STACK_POINTER,
        frame_pointer,
        cfa_offset,
        fp_offset: if frame_pointer == saved_fp::AT_CFA { SAVED_FRAME_POINTER_OFFSET } else { 0 },
        ..UnwindRule::NONE
    }
}
