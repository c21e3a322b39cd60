//! The DWARF expressions that call-frame information really contains.
//!
//! BPF does not run expressions. Nearly all that compilers, linkers and assembler writers emit come
//! to one of three forms, which fit a rule: a register plus a constant, what lies at such an address
//! plus a constant, and the linker's rule for its PLT. They are recognised by running the expression
//! on symbols, so that `breg7 40; deref; plus_uconst 8` (OpenSSL's perlasm) and
//! `breg6 -8; deref` (GCC's realigned stacks) or a `lit8; plus` all come out as what they mean.
//! Anything else is `None`: known not to be known.

use gimli::{EndianSlice, Expression, LittleEndian, Operation};

type Slice<'data> = EndianSlice<'data, LittleEndian>;

/// Operations that are looked at; longer expressions are none of the known forms.
const MAX_OPERATIONS: usize = 24;
const MAX_STACK: usize = 4;

const DWARF_RSP: u16 = 7;
const DWARF_RETURN_ADDRESS: u16 = 16;

/// The meaning of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A number.
    Constant(i64),
    /// `register + offset`.
    Register { register: u16, offset: i64 },
    /// `*(register + offset) + addend`.
    Loaded { register: u16, offset: i64, addend: i64 },
    /// `rsp + offset + ((pc & 15) >= pushed_from ? 8 : 0)`: the linker's rule for lazy PLT entries,
    /// whose one `push` is `pushed_from` bytes into each entry of 16.
    Plt { offset: i64, pushed_from: i64 },
}

/// What an expression means, if it is one of the known forms.
pub(super) fn meaning(expression: Expression<Slice<'_>>) -> Option<Meaning> {
    let encoding = gimli::Encoding { address_size: 8, format: gimli::Format::Dwarf32, version: 4 };
    let mut operations = [Operation::Nop; MAX_OPERATIONS];
    let mut count = 0;
    let mut parser = expression.operations(encoding);
    while let Some(operation) = parser.next().ok()? {
        *operations.get_mut(count)? = operation;
        count += 1;
    }
    let operations = operations.get(..count)?;
    plt(operations).or_else(|| symbolic(operations))
}

fn plt(operations: &[Operation<Slice<'_>>]) -> Option<Meaning> {
    let [
        Operation::RegisterOffset { register: base, offset, .. },
        Operation::RegisterOffset { register: pc, offset: 0, .. },
        Operation::UnsignedConstant { value: 15 },
        Operation::And,
        Operation::UnsignedConstant { value: pushed_from },
        Operation::Ge,
        Operation::UnsignedConstant { value: 3 },
        Operation::Shl,
        Operation::Plus,
    ] = operations
    else {
        return None;
    };
    if base.0 != DWARF_RSP || pc.0 != DWARF_RETURN_ADDRESS || *pushed_from > 15 {
        return None;
    }
    Some(Meaning::Plt { offset: *offset, pushed_from: i64::try_from(*pushed_from).ok()? })
}

/// Runs the expression on symbols.
fn symbolic(operations: &[Operation<Slice<'_>>]) -> Option<Meaning> {
    let mut stack = [Meaning::Constant(0); MAX_STACK];
    let mut depth = 0usize;
    for operation in operations {
        let pushed = match *operation {
            Operation::Nop => continue,
            Operation::RegisterOffset { register, offset, .. } => {
                Meaning::Register { register: register.0, offset }
            }
            Operation::UnsignedConstant { value } => Meaning::Constant(i64::try_from(value).ok()?),
            Operation::SignedConstant { value } => Meaning::Constant(value),
            Operation::PlusConstant { value } => {
                depth = depth.checked_sub(1)?;
                add(*stack.get(depth)?, Meaning::Constant(i64::try_from(value).ok()?))?
            }
            Operation::Plus => {
                depth = depth.checked_sub(2)?;
                add(*stack.get(depth)?, *stack.get(depth + 1)?)?
            }
            Operation::Minus => {
                depth = depth.checked_sub(2)?;
                let Meaning::Constant(subtrahend) = *stack.get(depth + 1)? else { return None };
                add(*stack.get(depth)?, Meaning::Constant(subtrahend.checked_neg()?))?
            }
            Operation::Deref { size: 8, space: false, .. } => {
                depth = depth.checked_sub(1)?;
                let Meaning::Register { register, offset } = *stack.get(depth)? else { return None };
                Meaning::Loaded { register, offset, addend: 0 }
            }
            _ => return None,
        };
        *stack.get_mut(depth)? = pushed;
        depth += 1;
    }
    stack.get(depth.checked_sub(1)?).copied()
}

fn add(left: Meaning, right: Meaning) -> Option<Meaning> {
    let ((term, Meaning::Constant(number)) | (Meaning::Constant(number), term)) = (left, right) else {
        return None;
    };
    Some(match term {
        Meaning::Constant(value) => Meaning::Constant(value.checked_add(number)?),
        Meaning::Register { register, offset } => {
            Meaning::Register { register, offset: offset.checked_add(number)? }
        }
        Meaning::Loaded { register, offset, addend } => {
            Meaning::Loaded { register, offset, addend: addend.checked_add(number)? }
        }
        Meaning::Plt { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meaning_of(bytes: &[u8]) -> Option<Meaning> {
        meaning(Expression(EndianSlice::new(bytes, LittleEndian)))
    }

    // DW_OP_breg0 is 0x70, DW_OP_lit0 0x30, deref 0x06, plus 0x22, plus_uconst 0x23, minus 0x1c.

    #[test]
    fn gcc_s_realigned_stack_and_openssl_s_saved_stack_pointer() {
        let realigned = Meaning::Loaded { register: 6, offset: -8, addend: 0 };
        assert_eq!(meaning_of(&[0x76, 0x78, 0x06]), Some(realigned));
        let saved = Meaning::Loaded { register: 7, offset: 40, addend: 8 };
        assert_eq!(meaning_of(&[0x77, 40, 0x06, 0x23, 8]), Some(saved));
        assert_eq!(meaning_of(&[0x77, 40, 0x06, 0x38, 0x22]), Some(saved), "lit8; plus");
        assert_eq!(meaning_of(&[0x77, 32, 0x38, 0x22, 0x06, 0x38, 0x22]), Some(saved), "in two steps");
    }

    #[test]
    fn the_plt_of_gnu_ld_with_and_without_endbr() {
        for pushed_from in [10, 11] {
            let bytes = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x30 + pushed_from, 0x2a, 0x33, 0x24, 0x22];
            let plt = Meaning::Plt { offset: 8, pushed_from: i64::from(pushed_from) };
            assert_eq!(meaning_of(&bytes), Some(plt));
        }
        let masked_with_7 = [0x77, 8, 0x80, 0, 0x37, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];
        assert_eq!(meaning_of(&masked_with_7), None);
    }

    #[test]
    fn other_forms_are_known_not_to_be_known() {
        assert_eq!(meaning_of(&[]), None);
        assert_eq!(meaning_of(&[0x77, 8, 0x06, 0x06]), None, "two loads");
        assert_eq!(meaning_of(&[0x77, 8, 0x09, 0xf0, 0x1a]), None, "rounding by and");
        assert_eq!(meaning_of(&[0x77, 8, 0x94, 4]), None, "a load of four bytes");
        assert_eq!(meaning_of(&[0x22]), None, "an empty stack");
        assert_eq!(meaning_of(&[0x77]), None, "cut short");
        assert_eq!(meaning_of(&[0x30; 60]), None, "too long");
    }

    proptest! {
        #[test]
        fn arbitrary_expressions_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = meaning_of(&bytes);
        }
    }
}
