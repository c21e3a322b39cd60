//! What is written is read back, and whatever is not is refused.

use std::collections::BTreeMap;

use super::*;
use proptest::prelude::*;

type Decoded = BTreeMap<(Thread, u32), Vec<i64>>;

fn decode(block: &[u8], factors: &[i64]) -> Result<Decoded, Malformed> {
    let mut samples = Samples::new(Layout::BySeries, block, factors)?;
    let mut decoded = BTreeMap::new();
    while let Some(thread) = samples.next_group()? {
        samples.read(|stack, values| {
            decoded.insert((thread, stack), values.to_vec());
        })?;
    }
    Ok(decoded)
}

fn encode(samples: &Decoded, factors: &[i64]) -> Vec<u8> {
    let mut writer = BlockWriter::new(factors);
    for (&(thread, stack), values) in samples {
        writer.add(thread, stack, values);
    }
    writer.finish()
}

fn any_thread() -> impl Strategy<Value = Thread> {
    (
        any::<Option<u64>>(),
        any::<Option<u64>>(),
        any::<u32>(),
        any::<Option<[u8; 16]>>(),
        any::<Option<[u8; 8]>>(),
    )
        .prop_map(|(pid, tid, labels, trace_id, span_id)| Thread { pid, tid, labels, trace_id, span_id })
}

/// Values of all sizes, small ones among them.
fn any_value() -> impl Strategy<Value = i64> {
    (any::<i64>(), 0_u32..64).prop_map(|(value, shift)| value >> shift)
}

proptest! {
    #[test]
    fn whatever_is_written_is_read_back_also_when_threads_are_passed_over(
        threads in prop::collection::vec(any_thread(), 1..5),
        samples in prop::collection::vec(
            (0_usize..5, any::<u32>(), 0_u32..32, prop::array::uniform3(any_value())), 0..50,
        ),
        factors: [i64; 2],
        passed_over: [bool; 5],
    ) {
        let mut all = Decoded::new();
        for (thread, stack, shift, values) in samples {
            let thread = threads[thread % threads.len()];
            all.insert((thread, stack >> shift), values.to_vec());
        }
        let block = encode(&all, &factors);
        prop_assert_eq!(decode(&block, &factors), Ok(all.clone()));
        let mut reader = Samples::new(Layout::BySeries, &block, &factors).unwrap();
        let mut read = Decoded::new();
        let mut skipped = Vec::new();
        for skip in passed_over {
            match reader.next_group().unwrap() {
                Some(thread) if skip => skipped.push(thread),
                Some(thread) => reader.read(|stack, values| {
                    read.insert((thread, stack), values.to_vec());
                }).unwrap(),
                None => break,
            }
        }
        all.retain(|(thread, _), _| !skipped.contains(thread));
        prop_assert_eq!(read, all);
    }

    #[test]
    fn hostile_bytes_give_an_error_or_no_more_samples_than_bits(block: Vec<u8>, factors: Vec<i64>) {
        if let Ok(decoded) = decode(&block, &factors) {
            prop_assert!(decoded.len() <= block.len() * 4);
        }
    }

    #[test]
    fn a_block_that_was_damaged_never_panics_and_one_that_was_torn_off_is_refused(
        stacks in prop::collection::btree_set(any::<u32>(), 1..20), at: usize, byte: u8,
    ) {
        let thread = Thread { pid: Some(7), tid: Some(8), ..Thread::default() };
        let samples = stacks.into_iter().map(|stack| ((thread, stack), vec![1, 10])).collect();
        let mut block = encode(&samples, &[10]);
        let at = at % block.len();
        prop_assert!(at == 0 || decode(&block[..at], &[10]).is_err());
        block[at] = byte;
        let _ = decode(&block, &[10]);
    }
}

#[test]
fn samples_that_are_alone_and_come_often_take_few_bits_whatever_their_nanoseconds() {
    let thread = Thread { pid: Some(70_000), tid: Some(70_001), ..Thread::default() };
    let period = 52_631_578;
    let samples: Decoded = (0..64_u32).map(|stack| ((thread, stack), vec![1, period])).collect();
    let block = encode(&samples, &[period]);
    let head = 1 + 1 + 8 + 6 + (2 * 5 + 1 + 12) + 3 + 1 + (2 * 3 + 1 + 3);
    // A bit for the stack and one for the value; as those that are left become fewer, some bits more.
    let more = 6 + 16 * 2;
    assert!(block.len() * 8 <= head + 64 * 2 + more + 64 + 7, "{} bytes", block.len());
    assert_eq!(decode(&block, &[period]), Ok(samples));
}

#[test]
fn values_of_any_size_take_about_their_own_bits() {
    let thread = Thread { pid: Some(1), tid: Some(1), ..Thread::default() };
    // Bytes of a heap, or nanoseconds off the processor.
    let samples: Decoded =
        (0..1000_u32).map(|stack| ((thread, stack), vec![1_000_000 + i64::from(stack) * 997])).collect();
    let block = encode(&samples, &[]);
    assert!(block.len() * 8 < 1000 * 26, "{} bytes for values of 21 bits", block.len());
    assert_eq!(decode(&block, &[]), Ok(samples));
}

#[test]
fn an_empty_block_has_no_groups_and_what_comes_after_the_last_is_a_mistake() {
    assert!(BlockWriter::new(&[]).finish().is_empty());
    assert_eq!(decode(&[], &[]), Ok(Decoded::new()));
    assert_eq!(decode(&[0], &[]), Ok(Decoded::new()));
    assert!(decode(&[0, 0], &[]).is_err());
    assert!(decode(&[1], &[]).is_err());
}
