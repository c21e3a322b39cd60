//! Blocks of segments of versions 1 to 3 of the schema, which are read and no longer written.
//!
//! ```text
//! block   group…, in order of thread
//! group   presence (1 pid, 2 tid, 4 trace id, 8 span id)
//!         [pid] [tid − pid, or tid] [trace id, 16 bytes] [span id, 8 bytes]
//!         index of the other labels, length of the samples in bytes
//!         sample…, in order of stack
//! sample  (stack − stack before) × 2 + (1 if some value is not the expected one)
//!         first value
//!         [for each other value: value − expected value]
//! ```
//!
//! All numbers are varints, those that may be negative zigzag. A stack is the number of its node.

use super::block::Thread;
use super::varint::{Malformed, Reader};

const HAS_PID: u8 = 1;
const HAS_TID: u8 = 2;
const HAS_TRACE_ID: u8 = 4;
const HAS_SPAN_ID: u8 = 8;

/// Reads a block, group by group.
pub(super) struct VarintSamples<'a> {
    bytes: Reader<'a>,
    factors: &'a [i64],
    /// Samples of the group.
    samples: &'a [u8],
}

impl<'a> VarintSamples<'a> {
    pub(super) fn new(block: &'a [u8], factors: &'a [i64]) -> Self {
        Self { bytes: Reader::new(block), factors, samples: &[] }
    }

    pub(super) fn next_group(&mut self) -> Result<Option<Thread>, Malformed> {
        let bytes = &mut self.bytes;
        if bytes.is_empty() {
            return Ok(None);
        }
        let present = bytes.byte()?;
        if present & !(HAS_PID | HAS_TID | HAS_TRACE_ID | HAS_SPAN_ID) != 0 {
            return Err(Malformed("a group with labels of an unknown kind"));
        }
        let pid = if present & HAS_PID != 0 { Some(bytes.number()?) } else { None };
        let tid = if present & HAS_TID != 0 {
            Some(pid.unwrap_or(0).wrapping_add(bytes.signed()?.cast_unsigned()))
        } else {
            None
        };
        let trace_id = if present & HAS_TRACE_ID != 0 { Some(bytes.array()?) } else { None };
        let span_id = if present & HAS_SPAN_ID != 0 { Some(bytes.array()?) } else { None };
        let labels = bytes.id()?;
        let length = bytes.count(1)?;
        self.samples = bytes.bytes(length)?;
        Ok(Some(Thread { pid, tid, labels, trace_id, span_id }))
    }

    pub(super) fn read(&mut self, mut each: impl FnMut(u32, &[i64])) -> Result<(), Malformed> {
        let mut bytes = Reader::new(self.samples);
        let mut values = vec![0; self.factors.len() + 1];
        let mut stack = 0_u32;
        while !bytes.is_empty() {
            let head = bytes.number()?;
            let delta = u32::try_from(head >> 1).ok();
            stack = delta
                .and_then(|delta| stack.checked_add(delta))
                .ok_or(Malformed("a stack beyond all that can be"))?;
            let first = bytes.signed()?;
            if let Some((first_value, others)) = values.split_first_mut() {
                *first_value = first;
                for (value, factor) in others.iter_mut().zip(self.factors) {
                    let difference = if head & 1 != 0 { bytes.signed()? } else { 0 };
                    *value = first.wrapping_mul(*factor).wrapping_add(difference);
                }
            }
            each(stack, &values);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(block: &[u8], factors: &[i64]) -> Result<Vec<(Thread, u32, Vec<i64>)>, Malformed> {
        let mut samples = VarintSamples::new(block, factors);
        let mut decoded = Vec::new();
        while let Some(thread) = samples.next_group()? {
            samples.read(|stack, values| decoded.push((thread, stack, values.to_vec())))?;
        }
        Ok(decoded)
    }

    #[test]
    fn a_block_of_two_threads_is_read_as_it_was_written() {
        // pid 7, tid 8, labels 3, four bytes: stack 5 once, stack 6 twice and a nanosecond more than expected.
        let first = [HAS_PID | HAS_TID, 7, 2, 3, 5, 10, 2, 3, 4, 2];
        let second = [HAS_SPAN_ID, 1, 2, 3, 4, 5, 6, 7, 8, 0, 2, 0, 2];
        let thread = Thread { pid: Some(7), tid: Some(8), labels: 3, ..Thread::default() };
        let spanned = Thread { span_id: Some([1, 2, 3, 4, 5, 6, 7, 8]), ..Thread::default() };
        let expected = vec![(thread, 5, vec![1, 10]), (thread, 6, vec![2, 21]), (spanned, 0, vec![1, 10])];
        assert_eq!(decode(&[&first[..], &second].concat(), &[10]), Ok(expected));
    }

    proptest! {
        #[test]
        fn hostile_bytes_give_an_error_or_no_more_samples_than_bytes(block: Vec<u8>, factors: Vec<i64>) {
            if let Ok(decoded) = decode(&block, &factors) {
                prop_assert!(decoded.len() <= block.len());
            }
        }
    }
}
