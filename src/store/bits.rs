//! Numbers as bits, for what there are tens of millions of: exponential Golomb codes, the first bit of a byte its
//! highest.
//!
//! A number in the code of order `k` is its lowest `k` bits after (the rest + 1) with as many zeros before it as it
//! has bits after its first: small ones take `k + 1` bits, and none more than 129. A run of zeros is no number, so
//! that the end of the last byte is told from one.

use super::varint::{Malformed, unzigzag, zigzag};

/// The highest order of a code.
pub(super) const MAX_ORDER: u32 = 63;

const ENDS_EARLY: Malformed = Malformed("it ends too early");
const TOO_LARGE: Malformed = Malformed("a number of more than 64 bits");

/// The order that suits numbers of this sum.
pub(super) fn order_for(sum: u128, count: usize) -> u32 {
    let mean = sum / (count.max(1) as u128);
    mean.checked_ilog2().unwrap_or(0).min(MAX_ORDER)
}

/// How many bits a number has.
pub(super) fn bits_of(number: u32) -> u32 {
    u32::BITS - number.leading_zeros()
}

/// Bits that are put behind each other.
#[derive(Debug, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// The last bits, of which the lowest `pending_bits` are in no byte yet.
    pending: u64,
    pending_bits: u32,
}

impl BitWriter {
    /// Appends the lowest `count` bits, 64 at most.
    pub(super) fn bits(&mut self, value: u64, count: u32) {
        if count > 32 {
            self.bits(value >> 32, count - 32);
            return self.bits(value, 32);
        }
        self.pending = self.pending << count | value & ((1 << count) - 1);
        self.pending_bits += count;
        while self.pending_bits >= 8 {
            self.pending_bits -= 8;
            self.bytes.push((self.pending >> self.pending_bits).to_le_bytes()[0]);
        }
    }

    /// Appends a number in the code of this order.
    pub(super) fn number(&mut self, order: u32, value: u64) {
        let order = order.min(MAX_ORDER);
        let high = value >> order;
        // One more than all that 64 bits can hold has 65.
        let after_first = high.checked_add(1).map_or(64, u64::ilog2);
        self.bits(0, after_first);
        self.bits(1, 1);
        self.bits(high.wrapping_add(1), after_first);
        self.bits(value, order);
    }

    /// Appends a number that is small in magnitude.
    pub(super) fn signed(&mut self, order: u32, value: i64) {
        self.number(order, zigzag(value));
    }

    /// Appends all bits of another.
    pub(super) fn append(&mut self, other: Self) {
        for byte in other.bytes {
            self.bits(byte.into(), 8);
        }
        self.bits(other.pending, other.pending_bits);
    }

    /// The bytes, the last one filled with zeros.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.pending_bits > 0 {
            self.bits(0, 8 - self.pending_bits);
        }
        self.bytes
    }
}

/// Bits that are read from the front.
#[derive(Debug, Clone)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// How many bits have been read.
    at: usize,
}

/// Bits that [`BitReader::peek`] answers at least.
const PEEKED: u32 = 57;

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bits are left.
    pub(super) fn left(&self) -> usize {
        self.bytes.len().saturating_mul(8).saturating_sub(self.at)
    }

    /// The next bits from the highest on; zeros after the end.
    #[inline]
    fn peek(&self) -> u64 {
        let rest = self.bytes.get(self.at / 8..).unwrap_or_default();
        let next = match rest.first_chunk() {
            Some(next) => *next,
            None => {
                let mut next = [0; 8];
                next.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                next
            }
        };
        u64::from_be_bytes(next) << (self.at % 8)
    }

    #[inline]
    fn skip(&mut self, count: u32) -> Result<(), Malformed> {
        let at = self.at + count as usize;
        if at > self.bytes.len().saturating_mul(8) {
            return Err(ENDS_EARLY);
        }
        self.at = at;
        Ok(())
    }

    /// The next bits as a number, 64 at most.
    #[inline]
    pub(super) fn bits(&mut self, count: u32) -> Result<u64, Malformed> {
        if count > PEEKED {
            let high = self.bits(count - 32)?;
            return Ok(high << 32 | self.bits(32)?);
        }
        let bits = self.peek() >> 1 >> (63 - count);
        self.skip(count)?;
        Ok(bits)
    }

    /// A number in the code of this order.
    #[inline]
    pub(super) fn number(&mut self, order: u32) -> Result<u64, Malformed> {
        let next = self.peek();
        let (number, length) = first_number(next, order);
        if length > PEEKED {
            return self.long_number(order);
        }
        self.skip(length)?;
        Ok(number)
    }

    /// Two numbers in the codes of these orders.
    #[inline]
    pub(super) fn two_numbers(&mut self, orders: [u32; 2]) -> Result<[u64; 2], Malformed> {
        let next = self.peek();
        let (one, length) = first_number(next, orders[0]);
        let (other, length_of_other) = first_number(next.unbounded_shl(length), orders[1]);
        if length.saturating_add(length_of_other) > PEEKED {
            return Ok([self.number(orders[0])?, self.number(orders[1])?]);
        }
        self.skip(length + length_of_other)?;
        Ok([one, other])
    }

    #[cold]
    fn long_number(&mut self, order: u32) -> Result<u64, Malformed> {
        if order > MAX_ORDER {
            return Err(Malformed("a code of an unknown order"));
        }
        let mut zeros = 0;
        while self.bits(1)? == 0 {
            zeros += 1;
            if zeros > 64 {
                return Err(TOO_LARGE);
            }
        }
        let after_first = u128::from(self.bits(zeros)?);
        let high = u64::try_from((1_u128 << zeros) + after_first - 1).map_err(|_| TOO_LARGE)?;
        let value = u128::from(high) << order | u128::from(self.bits(order)?);
        u64::try_from(value).map_err(|_| TOO_LARGE)
    }

    /// A number that is small in magnitude.
    pub(super) fn signed(&mut self, order: u32) -> Result<i64, Malformed> {
        Ok(unzigzag(self.number(order)?))
    }

    /// An index in the code of this order.
    pub(super) fn id(&mut self, order: u32) -> Result<u32, Malformed> {
        u32::try_from(self.number(order)?).map_err(|_| Malformed("an index of more than 32 bits"))
    }

    /// How many things of at least `least_bits` each follow.
    pub(super) fn count(&mut self, order: u32, least_bits: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.number(order)?).unwrap_or(usize::MAX);
        if count.saturating_mul(least_bits) > self.left() {
            return Err(Malformed("a count that is larger than what follows"));
        }
        Ok(count)
    }

    /// What is left at the end: the zeros that fill the last byte.
    pub(super) fn end(&self) -> Result<(), Malformed> {
        let left = self.left();
        if left >= 8 || left > 0 && self.peek() != 0 { Err(Malformed("more after its end")) } else { Ok(()) }
    }
}

/// The number that these bits begin with, in the code of this order, and how many bits it takes; no number if these are
/// more than [`PEEKED`].
#[inline]
fn first_number(next: u64, order: u32) -> (u64, u32) {
    let zeros = next.leading_zeros();
    let length = (2 * zeros + 1).saturating_add(order);
    if length > PEEKED {
        return (0, length);
    }
    ((next << zeros >> (63 - zeros - order)) - (1 << order), length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Numbers of all lengths.
    fn any_number() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0_u32..64).prop_map(|(number, shift)| number >> shift)
    }

    proptest! {
        #[test]
        fn numbers_of_all_lengths_come_back_in_codes_of_all_orders(
            numbers in prop::collection::vec((any_number(), 0..=MAX_ORDER, any::<i64>(), 0..=64_u32), 0..40),
        ) {
            let mut writer = BitWriter::default();
            for &(number, order, signed, count) in &numbers {
                writer.number(order, number);
                writer.signed(order, signed);
                writer.bits(number, count);
            }
            let bytes = writer.finish();
            let mut reader = BitReader::new(&bytes);
            for &(number, order, signed, count) in &numbers {
                prop_assert_eq!(reader.number(order), Ok(number));
                prop_assert_eq!(reader.signed(order), Ok(signed));
                let mask = 1_u64.checked_shl(count).map_or(u64::MAX, |bit| bit - 1);
                prop_assert_eq!(reader.bits(count), Ok(number & mask));
            }
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn two_numbers_at_once_are_one_after_the_other(
            numbers in prop::collection::vec((any_number(), 0..=MAX_ORDER), 0..20), last: Vec<u8>,
        ) {
            let mut writer = BitWriter::default();
            for &(number, order) in &numbers {
                writer.number(order, number);
            }
            let mut bytes = writer.finish();
            bytes.extend(last);
            let (mut both, mut one_by_one) = (BitReader::new(&bytes), BitReader::new(&bytes));
            let orders = numbers.iter().map(|&(_, order)| order).chain([0; 20]).collect::<Vec<_>>();
            for orders in orders.chunks_exact(2) {
                let expected = one_by_one.number(orders[0]).and_then(|one| Ok([one, one_by_one.number(orders[1])?]));
                prop_assert_eq!(both.two_numbers([orders[0], orders[1]]), expected);
                if expected.is_err() {
                    break;
                }
                prop_assert_eq!(both.left(), one_by_one.left());
            }
        }

        #[test]
        fn arbitrary_bits_never_panic_and_take_a_bit_each_at_least(bytes: Vec<u8>, order in 0_u32..70) {
            let mut reader = BitReader::new(&bytes);
            let mut numbers = 0;
            while reader.number(order).is_ok() {
                numbers += 1;
            }
            prop_assert!(numbers <= bytes.len() * 8);
        }
    }

    /// The table of the standard that made the code popular: ITU-T H.264, 9.1, `ue(v)` is the code of order 0.
    #[test]
    fn the_code_of_order_0_is_that_of_h_264() {
        let codes = ["1", "010", "011", "00100", "00101", "00110", "00111", "0001000", "0001001", "0001010"];
        for (number, code) in (0..).zip(codes) {
            let mut writer = BitWriter::default();
            writer.number(0, number);
            let mut bits: String = writer.finish().iter().map(|byte| format!("{byte:08b}")).collect();
            bits.truncate(code.len());
            assert_eq!(bits, code, "{number}");
        }
    }

    #[test]
    fn the_extremes_come_back_and_what_does_not_fit_is_refused() {
        for order in [0, 1, 31, 32, 33, 62, 63] {
            for number in [0, 1, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
                let mut writer = BitWriter::default();
                writer.number(order, number);
                let bytes = writer.finish();
                assert_eq!(BitReader::new(&bytes).number(order), Ok(number), "{number} of order {order}");
                let shorter = bytes.split_last().map(|(_, rest)| rest).unwrap_or_default();
                assert!(BitReader::new(shorter).number(order).is_err(), "{number} of order {order}");
            }
        }
        let mut too_large = [0xff; 24];
        too_large[..8].fill(0);
        assert_eq!(BitReader::new(&too_large).number(0), Err(TOO_LARGE), "64 zeros, and more than nothing");
        assert_eq!(BitReader::new(&[0; 30]).number(0), Err(TOO_LARGE));
        assert_eq!(BitReader::new(&[0; 3]).number(0), Err(ENDS_EARLY));
        assert!(BitReader::new(&[0x80]).number(64).is_err(), "an order that there is not");
        assert!(BitReader::new(&[0]).end().is_err());
        assert_eq!(order_for(0, 0), 0);
        assert_eq!(order_for(u128::MAX, 1), MAX_ORDER);
    }
}
