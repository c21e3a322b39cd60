//! One row of call-frame information → one [`UnwindRule`] for x86-64.
//!
//! A rule has room for what an unwinder needs to go on: the CFA, the return address, rbp, and rbx in
//! the few objects that base a CFA on it. Other callee-saved registers are not followed. What does not
//! fit becomes `UNSUPPORTED` (no CFA or return address) or `UNKNOWN` (no rbp), never a guess.

use gimli::{CfaRule, EndianSlice, LittleEndian, Register, RegisterRule, UnwindExpression};
use gimli::{UnwindContextStorage, UnwindSection, UnwindTableRow};

use super::expression::{self, Meaning};
use super::layout::{UnwindRule, cfa, return_address, saved_fp};

const RBX: Register = Register(3);
const RBP: Register = Register(6);
const RSP: u16 = 7;
/// General-purpose registers have the numbers below this.
const GENERAL_REGISTERS: u16 = 16;

/// Where a call pushed the return address.
const RETURN_ADDRESS_OFFSET: i64 = -8;
/// `uc_mcontext.gregs[REG_RSP]` and `…[REG_RIP]` from the start of the `ucontext` to which rsp points
/// in a signal trampoline (arch/x86/include/uapi/asm/sigcontext.h, `struct rt_sigframe`).
const UCONTEXT_RSP_OFFSET: i64 = 160;
const UCONTEXT_RIP_OFFSET: i64 = 168;

impl UnwindRule {
    /// There is information, but of a form that is not evaluated.
    pub const UNSUPPORTED: Self = Self { cfa: cfa::UNSUPPORTED, ..Self::NONE };
    /// The outermost frame.
    pub const END: Self = Self { cfa: cfa::END, ..Self::NONE };
    /// A signal trampoline.
    pub const SIGNAL: Self = Self { cfa: cfa::SIGNAL, ..Self::NONE };

    /// Whether the CFA is based on rbx, which is followed only through objects that do this.
    #[must_use]
    pub fn needs_rbx(&self) -> bool {
        matches!(self.cfa, cfa::REGISTER | cfa::DEREF) && u16::from(self.cfa_register) == RBX.0
    }
}

/// What a row is converted with, besides itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowContext {
    /// The CIE's return-address column.
    pub return_address_register: Register,
    /// The CIE's augmentation has `S`.
    pub is_signal_frame: bool,
    /// Whether the object follows rbx.
    pub follows_rbx: bool,
}

/// The rule of a row.
pub(super) fn rule_of_row<'data, Section, Storage>(
    section: &Section,
    row: &UnwindTableRow<usize, Storage>,
    context: RowContext,
) -> UnwindRule
where
    Section: UnwindSection<EndianSlice<'data, LittleEndian>>,
    Storage: UnwindContextStorage<usize>,
{
    let return_address = row.register(context.return_address_register);
    if matches!(return_address, Some(RegisterRule::Undefined)) {
        return UnwindRule::END;
    }
    let Some(mut rule) = cfa_rule(section, row.cfa()) else { return UnwindRule::UNSUPPORTED };
    if context.is_signal_frame && is_signal_trampoline(section, &rule, return_address.as_ref()) {
        return UnwindRule::SIGNAL;
    }
    match return_address {
        Some(RegisterRule::Offset(RETURN_ADDRESS_OFFSET)) => {}
        Some(RegisterRule::Register(register)) if register.0 < GENERAL_REGISTERS => {
            // Below 16: it fits the high nibble.
            rule.return_address = return_address::IN_REGISTER | (register.0 as u8) << 4;
        }
        _ => return UnwindRule::UNSUPPORTED,
    }
    (rule.frame_pointer, rule.fp_offset) = match saved_register(section, &rule, row.register(RBP).as_ref()) {
        Saved::Same => (saved_fp::SAME, 0),
        Saved::AtCfa(offset) => (saved_fp::AT_CFA, offset),
        Saved::AtFramePointer(offset) => (saved_fp::AT_FP, offset),
        Saved::Unknown => (saved_fp::UNKNOWN, 0),
    };
    if context.follows_rbx {
        rule.rbx_offset = match saved_register(section, &rule, row.register(RBX).as_ref()) {
            Saved::Same => 0,
            // 0 is taken for "not touched", and nothing is ever saved at the CFA itself.
            Saved::AtCfa(offset) if offset != 0 => offset,
            // The rule cannot say that rbx is lost, and its old value would be a lie.
            _ => return UnwindRule::UNSUPPORTED,
        };
    }
    rule
}

/// A rule with its CFA set and everything else as on function entry; `None` for other forms.
fn cfa_rule<'data, Section>(section: &Section, rule: &CfaRule<usize>) -> Option<UnwindRule>
where
    Section: UnwindSection<EndianSlice<'data, LittleEndian>>,
{
    let meaning = match rule {
        CfaRule::RegisterAndOffset { register, offset } => {
            Meaning::Register { register: register.0, offset: *offset }
        }
        CfaRule::Expression(expression) => meaning_of(section, *expression)?,
    };
    let (kind, register, offset, addend) = match meaning {
        Meaning::Register { register, offset } => (cfa::REGISTER, register, offset, 0),
        Meaning::Loaded { register, offset, addend } => (cfa::DEREF, register, offset, addend),
        Meaning::Plt { offset, pushed_from } => (cfa::PLT, RSP, offset, pushed_from),
        Meaning::Constant(_) => return None,
    };
    if register >= GENERAL_REGISTERS {
        return None;
    }
    Some(UnwindRule {
        cfa: kind,
        cfa_register: u8::try_from(register).ok()?,
        cfa_offset: i32::try_from(offset).ok()?,
        cfa_addend: i32::try_from(addend).ok()?,
        ..UnwindRule::NONE
    })
}

fn meaning_of<'data, Section>(section: &Section, expression: UnwindExpression<usize>) -> Option<Meaning>
where
    Section: UnwindSection<EndianSlice<'data, LittleEndian>>,
{
    expression::meaning(expression.get(section).ok()?)
}

/// `S` alone only says that pc is not a return address (the kernel's own assembly uses it so); all
/// registers are in a ucontext only where the rules say so.
fn is_signal_trampoline<'data, Section>(
    section: &Section,
    rule: &UnwindRule,
    return_address: Option<&RegisterRule<usize>>,
) -> bool
where
    Section: UnwindSection<EndianSlice<'data, LittleEndian>>,
{
    let Some(RegisterRule::Expression(expression)) = return_address else { return false };
    let at = Meaning::Register { register: RSP, offset: UCONTEXT_RIP_OFFSET };
    rule.cfa == cfa::DEREF
        && u16::from(rule.cfa_register) == RSP
        && i64::from(rule.cfa_offset) == UCONTEXT_RSP_OFFSET
        && rule.cfa_addend == 0
        && meaning_of(section, *expression) == Some(at)
}

/// Where the caller's value of a register is.
enum Saved {
    Same,
    AtCfa(i16),
    AtFramePointer(i16),
    Unknown,
}

fn saved_register<'data, Section>(
    section: &Section,
    rule: &UnwindRule,
    register_rule: Option<&RegisterRule<usize>>,
) -> Saved
where
    Section: UnwindSection<EndianSlice<'data, LittleEndian>>,
{
    match register_rule {
        // No rule: callee-saved registers are preserved (System V ABI, figure 3.4).
        None | Some(RegisterRule::SameValue) => Saved::Same,
        Some(RegisterRule::Offset(offset)) => i16::try_from(*offset).map_or(Saved::Unknown, Saved::AtCfa),
        Some(RegisterRule::Expression(expression)) => {
            let Some(Meaning::Register { register, offset }) = meaning_of(section, *expression) else {
                return Saved::Unknown;
            };
            if register == RBP.0 {
                return i16::try_from(offset).map_or(Saved::Unknown, Saved::AtFramePointer);
            }
            // The same register as the CFA's: the distance of the two is a constant.
            if rule.cfa == cfa::REGISTER && register == u16::from(rule.cfa_register) {
                let from_cfa = offset.checked_sub(i64::from(rule.cfa_offset));
                return from_cfa
                    .and_then(|bytes| i16::try_from(bytes).ok())
                    .map_or(Saved::Unknown, Saved::AtCfa);
            }
            Saved::Unknown
        }
        Some(_) => Saved::Unknown,
    }
}
