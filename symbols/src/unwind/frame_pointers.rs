//! Code that nothing describes, of programs that keep frame pointers instead.
//!
//! Chromium, and what is built of it (Electron), is compiled without unwind tables (`exclude_unwind_tables`) and with
//! `-fno-omit-frame-pointer`: its `.eh_frame` has a few hundred kilobytes for 200 MB of code, left by libraries that
//! came compiled. Nothing in the file says how the rest is to be unwound, so the code itself is asked: of the functions
//! that begin by making a frame, does nearly each begin with `push rbp; mov rbp, rsp`? Looked at are places that
//! functions are aligned to and that follow padding, a return or a trap, in pieces spread over all of it. Of Debian's
//! Chromium 99.5 in 100 do; of libc 3; of what gcc compiles with `-fno-omit-frame-pointer` 72, since it moves other
//! instructions in between: that is not taken, and has tables.
//!
//! That a function keeps a frame pointer is likely then, not certain: assembly need not. So these addresses get the
//! rule of generated code, whose frames end a walk as incomplete where they lead to what is no code, and whose leaf's
//! prologue and epilogue BPF reads (`sf_step_generated`). Known gap: a leaf of assembly that has no frame hides its
//! caller.

use std::ops::{Range, RangeInclusive};

use super::layout::{UnwindRule, cfa};
use super::span::{Source, Span};
use crate::{ElfAddress, ObjectError, ObjectFile};

/// The rule of such code.
pub(super) const RULE: UnwindRule = UnwindRule { cfa: cfa::RUNTIME, ..UnwindRule::NONE };

/// Less undescribed code than this is PLTs, start files, and assembly; more is in no program.
const UNDESCRIBED_BYTES: RangeInclusive<u64> = 64 << 10..=2 << 30;
/// Shorter stretches between two descriptions are padding.
const MIN_GAP_BYTES: u64 = 64;
/// What is looked at: so many pieces of so many bytes at most.
const PIECES: u64 = 128;
const PIECE_BYTES: u64 = 16 << 10;
/// Fewer beginnings tell nothing.
const MIN_FUNCTIONS: u64 = 50;
/// Of a hundred beginnings so many keep a frame pointer in a program that was compiled so.
const MIN_PERCENT: u64 = 95;
const FUNCTION_ALIGNMENT: u64 = 16;

/// What `described` leaves of the code, as spans, if it keeps frame pointers; else nothing.
///
/// # Errors
/// [`ObjectError::Io`] if the code cannot be read.
pub(super) fn spans(
    object: &ObjectFile,
    code: &[Range<u64>],
    described: &[Span],
) -> Result<Vec<Span>, ObjectError> {
    let gaps = gaps(code, described);
    let bytes = gaps.iter().fold(0_u64, |sum, gap| sum.saturating_add(gap.end - gap.start));
    if !UNDESCRIBED_BYTES.contains(&bytes) || !keep_frame_pointers(object, &gaps, bytes)? {
        return Ok(Vec::new());
    }
    tracing::debug!(
        "{}: {bytes} bytes of code without unwind information keep frame pointers",
        object.path().display()
    );
    // Each is shorter than all of them, which fits.
    let span = |gap: &Range<u64>| Span::new(gap.start, (gap.end - gap.start) as u32, Source::FramePointer);
    Ok(gaps.iter().map(span).collect())
}

/// Both are sorted and disjoint.
fn gaps(code: &[Range<u64>], described: &[Span]) -> Vec<Range<u64>> {
    let mut gaps = Vec::new();
    let mut described = described.iter().peekable();
    // Up to where the spans so far reach.
    let mut reached = 0;
    for range in code {
        let mut begin = reached.max(range.start);
        while let Some(span) = described.next_if(|span| span.begin < range.end) {
            if span.begin.saturating_sub(begin) >= MIN_GAP_BYTES {
                gaps.push(begin..span.begin);
            }
            reached = span.end();
            begin = begin.max(reached);
        }
        if range.end.saturating_sub(begin) >= MIN_GAP_BYTES {
            gaps.push(begin..range.end);
        }
    }
    gaps
}

fn keep_frame_pointers(object: &ObjectFile, gaps: &[Range<u64>], bytes: u64) -> Result<bool, ObjectError> {
    let step = (bytes / PIECES).max(PIECE_BYTES);
    let (mut functions, mut keeping) = (0, 0);
    // How far into the gaps, end to end, the next piece is.
    let mut skip = 0;
    for gap in gaps {
        let mut begin = gap.start.saturating_add(skip);
        while begin < gap.end {
            let piece = object.read_loaded(ElfAddress(begin), PIECE_BYTES.min(gap.end - begin));
            let piece = match piece {
                Err(error @ ObjectError::Io { .. }) => return Err(error),
                // Cut short: what is there counts.
                other => other.unwrap_or_default(),
            };
            for keeps in frames_made(begin, &piece) {
                functions += 1;
                keeping += u64::from(keeps);
            }
            begin = begin.saturating_add(step);
        }
        skip = begin - gap.end;
    }
    Ok(functions >= MIN_FUNCTIONS && keeping * 100 >= functions * MIN_PERCENT)
}

/// For each place at which a function seems to begin by making a frame: whether that keeps a frame pointer.
fn frames_made(address: u64, code: &[u8]) -> impl Iterator<Item = bool> {
    const NOP: u8 = 0x90;
    const RETURN: u8 = 0xc3;
    const TRAP: u8 = 0xcc;
    let first = (address.wrapping_neg() % FUNCTION_ALIGNMENT) as usize;
    let places = (first..code.len()).step_by(FUNCTION_ALIGNMENT as usize);
    places.filter_map(move |at| {
        let before = *code.get(at.checked_sub(1)?)?;
        let start = code.get(at..)?;
        if matches!(before, NOP | RETURN | TRAP) { makes_frame(start) } else { None }
    })
}

/// Whether a function that begins so keeps a frame pointer; `None` if it makes no frame there.
fn makes_frame(code: &[u8]) -> Option<bool> {
    const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
    match code.strip_prefix(&ENDBR64).unwrap_or(code) {
        // push rbp; mov rbp, rsp
        [0x55, 0x48, 0x89, 0xe5, ..] | [0x55, 0x48, 0x8b, 0xec, ..] => Some(true),
        // push rbp or rbx; push r12 to r15; sub rsp, n
        [0x53 | 0x55, ..] | [0x41, 0x54..=0x57, ..] | [0x48, 0x81 | 0x83, 0xec, ..] => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Functions of 16 bytes that begin so.
    fn functions(beginnings: &[(&[u8], usize)]) -> Vec<u8> {
        let mut code = vec![0xcc; 16];
        for (beginning, times) in beginnings {
            for _ in 0..*times {
                let end = code.len() + 16;
                code.extend_from_slice(beginning);
                code.resize(end - 1, 0x11);
                code.push(0xc3);
            }
        }
        code
    }

    const KEEPS: &[u8] = &[0x55, 0x48, 0x89, 0xe5];
    const SAVES: &[u8] = &[0x41, 0x57, 0x41, 0x56];
    const LEAF: &[u8] = &[0x48, 0x8b, 0x07];

    fn counted(address: u64, code: &[u8]) -> (usize, usize) {
        let made: Vec<bool> = frames_made(address, code).collect();
        (made.iter().filter(|keeps| **keeps).count(), made.len())
    }

    #[test]
    fn only_what_makes_a_frame_where_a_function_may_begin_is_counted() {
        let code = functions(&[(KEEPS, 5), (SAVES, 2), (LEAF, 9)]);
        assert_eq!(counted(0x1000, &code), (5, 7));
        assert_eq!(counted(0x1008, &code), (0, 0), "none of them is aligned");
        assert_eq!(
            counted(0x1008, &[&[0x90; 8], &code[16..]].concat()),
            (5, 7),
            "the first aligned place counts"
        );
        let endbr64 = [&[0xf3, 0x0f, 0x1e, 0xfa], KEEPS].concat();
        assert_eq!(counted(0, &functions(&[(&endbr64, 1), (&[0x55, 0x31, 0xc0], 1)])), (1, 2));
        assert_eq!(counted(0, &[0xcc, 0x55]), (0, 0));
        assert_eq!(
            counted(u64::MAX, &[0xcc, 0x55]),
            (0, 1),
            "a damaged file's code may be at the end of all addresses"
        );
    }

    #[test]
    fn gaps_are_what_is_between_descriptions_but_not_padding() {
        let described = |begin, end: u64| Span::new(begin, (end - begin) as u32, Source::Go);
        let code = [0x1000..0x5000, 0x8000..0x9000];
        assert_eq!(gaps(&code, &[]), code);
        let spans = [described(0x1000, 0x2000), described(0x2030, 0x3000), described(0x4800, 0x8100)];
        assert_eq!(gaps(&code, &spans), [0x3000..0x4800, 0x8100..0x9000]);
        assert_eq!(gaps(&code, &[described(0, u64::from(u32::MAX))]), []);
    }
}
