//! The samples of one series in one window, as bits (`bits.rs`; `code k` is a number in the code of order k).
//!
//! ```text
//! block   (1, group)…, in order of thread, 0
//!         the samples of the first group, of the second, …
//!         0 to the end of the last byte
//! group   0 if it has the shape of the group before | 1, shape
//!         [pid: difference to that before, code 0; the first, code 12]
//!         [tid: difference to that before if the pid is the same, else to the pid, code 0]
//!         [trace id, 128 bits] [span id, 64 bits]
//!         index of the other labels: difference to that before, code 0
//!         number of samples − 1, code 3
//! shape   8 bits: 1 pid, 2 tid, 4 trace id, 8 span id, 16 some other value is not the expected one,
//!         32 some first value is less than 1
//!         6 bits: order of the first values
//!         [6 bits: order of the differences to the expected values]
//! sample  (in order of stack) stack − stack before − 1
//!         first value − 1, or the first value, zigzag, if some are less than 1
//!         [for each other value: difference to the expected value, zigzag]
//! ```
//!
//! Stacks are numbered for each series in order of first appearance (`stacks.rs`), so that those that come often
//! have small numbers and lie close together. The further up one goes, the rarer they are: the order of a stack's
//! code follows from how far up it is and how many are still to come, which takes 7 to 9 bits for each of a day of
//! a busy host, where bytes took 12 to 16. The expected value is the first one times the format's factor
//! ([`FormatRow::expected_factors`](super::rows::FormatRow::expected_factors)), so that a sample of a fixed rate
//! takes none for its nanoseconds, and one bit if it is alone. All groups come before the first sample, so that
//! who looks for a thread need not read samples where it is not.
//!
//! Until version 3 of the schema, blocks were other bytes (`varint_block.rs`): [`Samples`] reads both.

use super::bits::{BitReader, BitWriter, bits_of, order_for};
use super::varint::{Malformed, unzigzag, zigzag};
use super::varint_block::VarintSamples;

const HAS_PID: u8 = 1;
const HAS_TID: u8 = 2;
const HAS_TRACE_ID: u8 = 4;
const HAS_SPAN_ID: u8 = 8;
const HAS_DIFFERENCES: u8 = 16;
const HAS_LESS_THAN_ONE: u8 = 32;
const ALL_FLAGS: u8 = 63;
const ORDER_BITS: u32 = 6;
const FIRST_PID_ORDER: u32 = 12;
const COUNT_ORDER: u32 = 3;
const BEYOND_ALL: Malformed = Malformed("a stack beyond all that can be");

/// How the stacks of a segment are numbered, and its samples written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// By their node, for the whole segment (versions 1 to 3 of the schema).
    ByNode,
    /// For each series by itself.
    BySeries,
}

/// Whose samples these are, beyond their series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Thread {
    pub(super) pid: Option<u64>,
    pub(super) tid: Option<u64>,
    /// Row of the dictionary with all other labels.
    pub(super) labels: u32,
    pub(super) trace_id: Option<[u8; 16]>,
    pub(super) span_id: Option<[u8; 8]>,
}

/// What groups beside each other mostly have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Shape {
    flags: u8,
    value_order: u32,
    difference_order: u32,
}

impl Shape {
    fn put(self, bits: &mut BitWriter) {
        bits.bits(self.flags.into(), 8);
        bits.bits(self.value_order.into(), ORDER_BITS);
        if self.flags & HAS_DIFFERENCES != 0 {
            bits.bits(self.difference_order.into(), ORDER_BITS);
        }
    }

    fn take(bits: &mut BitReader<'_>) -> Result<Self, Malformed> {
        let flags = bits.bits(8)?.to_le_bytes()[0];
        if flags & !ALL_FLAGS != 0 {
            return Err(Malformed("a group of an unknown shape"));
        }
        let order = |bits: &mut BitReader<'_>| Ok(u32::from(bits.bits(ORDER_BITS)?.to_le_bytes()[0]));
        let value_order = order(bits)?;
        let difference_order = if flags & HAS_DIFFERENCES != 0 { order(bits)? } else { 0 };
        Ok(Self { flags, value_order, difference_order })
    }
}

/// The order of the code of the next stack, which is `from` at least, when so many are left.
#[inline]
fn stack_order(from: u32, left: u32) -> u32 {
    (bits_of(from) + 1).saturating_sub(bits_of(left))
}

/// Puts a block together.
#[derive(Debug)]
pub(super) struct BlockWriter<'a> {
    factors: &'a [i64],
    groups: BitWriter,
    samples: BitWriter,
    thread: Option<Thread>,
    before: Option<(Thread, Shape)>,
    /// Of the group that is open.
    stacks: Vec<u32>,
    first_values: Vec<i64>,
    /// Of the other values to the expected ones.
    differences: Vec<i64>,
}

impl<'a> BlockWriter<'a> {
    pub(super) fn new(factors: &'a [i64]) -> Self {
        Self {
            factors,
            groups: BitWriter::default(),
            samples: BitWriter::default(),
            thread: None,
            before: None,
            stacks: Vec::new(),
            first_values: Vec::new(),
            differences: Vec::new(),
        }
    }

    /// Adds a sample; those of one thread come together, their stacks rising.
    pub(super) fn add(&mut self, thread: Thread, stack: u32, values: &[i64]) {
        if self.thread != Some(thread) {
            self.end_group();
            self.thread = Some(thread);
        }
        let first = values.first().copied().unwrap_or(0);
        self.stacks.push(stack);
        self.first_values.push(first);
        for (&value, &factor) in values.iter().skip(1).zip(self.factors) {
            self.differences.push(value.wrapping_sub(first.wrapping_mul(factor)));
        }
    }

    fn shape(&self, thread: &Thread) -> Shape {
        let has = |has: bool, flag: u8| if has { flag } else { 0 };
        let less_than_one = self.first_values.iter().any(|&value| value < 1);
        let flags = has(thread.pid.is_some(), HAS_PID)
            | has(thread.tid.is_some(), HAS_TID)
            | has(thread.trace_id.is_some(), HAS_TRACE_ID)
            | has(thread.span_id.is_some(), HAS_SPAN_ID)
            | has(self.differences.iter().any(|&difference| difference != 0), HAS_DIFFERENCES)
            | has(less_than_one, HAS_LESS_THAN_ONE);
        let values = self.first_values.iter().map(|&value| u128::from(coded(value, less_than_one)));
        let differences = self.differences.iter().map(|&difference| u128::from(zigzag(difference)));
        let difference_order = match flags & HAS_DIFFERENCES {
            0 => 0,
            _ => order_for(differences.sum(), self.differences.len()),
        };
        Shape { flags, value_order: order_for(values.sum(), self.stacks.len()), difference_order }
    }

    fn end_group(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let shape = self.shape(&thread);
        let bits = &mut self.groups;
        bits.bits(1, 1);
        if self.before.is_some_and(|(_, before)| before == shape) {
            bits.bits(0, 1);
        } else {
            bits.bits(1, 1);
            shape.put(bits);
        }
        let before = self.before.map(|(thread, _)| thread);
        let difference = |one: u64, other: u64| one.wrapping_sub(other).cast_signed();
        if let Some(pid) = thread.pid {
            bits.signed(pid_order(before), difference(pid, pid_before(before)));
        }
        if let Some(tid) = thread.tid {
            bits.signed(0, difference(tid, tid_expected(before, thread.pid)));
        }
        for byte in thread.trace_id.iter().flatten().chain(thread.span_id.iter().flatten()) {
            bits.bits((*byte).into(), 8);
        }
        let labels_before = before.unwrap_or_default().labels;
        bits.signed(0, i64::from(thread.labels) - i64::from(labels_before));
        bits.number(COUNT_ORDER, self.stacks.len() as u64 - 1);
        let bits = &mut self.samples;
        let mut left = u32::try_from(self.stacks.len()).unwrap_or(u32::MAX);
        let mut from = 0_u32;
        let each = self.factors.len();
        for (index, (&stack, &value)) in self.stacks.iter().zip(&self.first_values).enumerate() {
            bits.number(stack_order(from, left), stack.saturating_sub(from).into());
            from = stack.saturating_add(1);
            left = left.saturating_sub(1);
            bits.number(shape.value_order, coded(value, shape.flags & HAS_LESS_THAN_ONE != 0));
            if shape.flags & HAS_DIFFERENCES != 0 {
                for &difference in self.differences.get(index * each..(index + 1) * each).unwrap_or_default()
                {
                    bits.signed(shape.difference_order, difference);
                }
            }
        }
        self.before = Some((thread, shape));
        self.stacks.clear();
        self.first_values.clear();
        self.differences.clear();
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.end_group();
        if self.before.is_some() {
            self.groups.bits(0, 1);
        }
        self.groups.append(self.samples);
        self.groups.finish()
    }
}

/// A first value as it is written.
fn coded(value: i64, some_are_less_than_one: bool) -> u64 {
    if some_are_less_than_one { zigzag(value) } else { (value - 1).cast_unsigned() }
}

fn pid_order(before: Option<Thread>) -> u32 {
    if before.is_some_and(|before| before.pid.is_some()) { 0 } else { FIRST_PID_ORDER }
}

fn pid_before(before: Option<Thread>) -> u64 {
    before.and_then(|before| before.pid).unwrap_or(0)
}

/// The thread before in the same process, else the first one of the process, which has its number.
fn tid_expected(before: Option<Thread>, pid: Option<u64>) -> u64 {
    let in_process = before.filter(|before| before.pid == pid).and_then(|before| before.tid);
    in_process.or(pid).unwrap_or(0)
}

/// Reads a block, group by group.
pub(super) enum Samples<'a> {
    ByNode(VarintSamples<'a>),
    BySeries(BitSamples<'a>),
}

impl<'a> Samples<'a> {
    pub(super) fn new(layout: Layout, block: &'a [u8], factors: &'a [i64]) -> Result<Self, Malformed> {
        Ok(match layout {
            Layout::ByNode => Self::ByNode(VarintSamples::new(block, factors)),
            Layout::BySeries => Self::BySeries(BitSamples::new(block, factors)?),
        })
    }

    /// Goes on to the next group; nothing after the last one.
    pub(super) fn next_group(&mut self) -> Result<Option<Thread>, Malformed> {
        match self {
            Self::ByNode(samples) => samples.next_group(),
            Self::BySeries(samples) => samples.next_group(),
        }
    }

    /// Calls `each` with every stack of the group and its values.
    pub(super) fn read(&mut self, each: impl FnMut(u32, &[i64])) -> Result<(), Malformed> {
        match self {
            Self::ByNode(samples) => samples.read(each),
            Self::BySeries(samples) => samples.read(each),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Group {
    thread: Thread,
    shape: Shape,
    samples: u32,
}

/// [`Samples`] of a block that [`BlockWriter`] has written.
pub(super) struct BitSamples<'a> {
    bits: BitReader<'a>,
    factors: &'a [i64],
    groups: Vec<Group>,
    /// How many groups have been gone to, and of how many the samples have been read.
    next: usize,
    read: usize,
    values: Vec<i64>,
}

impl<'a> BitSamples<'a> {
    fn new(block: &'a [u8], factors: &'a [i64]) -> Result<Self, Malformed> {
        let mut bits = BitReader::new(block);
        let mut groups: Vec<Group> = Vec::new();
        let mut samples = 0_u64;
        while bits.left() > 0 && bits.bits(1)? == 1 {
            let group = take_group(&mut bits, groups.last())?;
            samples += u64::from(group.samples);
            if samples.saturating_mul(LEAST_BITS) > bits.left() as u64 {
                return Err(Malformed("a count that is larger than what follows"));
            }
            groups.push(group);
        }
        Ok(Self { bits, factors, groups, next: 0, read: 0, values: vec![0; factors.len() + 1] })
    }

    fn next_group(&mut self) -> Result<Option<Thread>, Malformed> {
        let group = self.groups.get(self.next);
        self.next += 1;
        // Who passes some over does not see the end.
        if group.is_none() && self.read == self.groups.len() {
            self.bits.end()?;
        }
        Ok(group.map(|group| group.thread))
    }

    fn read(&mut self, each: impl FnMut(u32, &[i64])) -> Result<(), Malformed> {
        // Those that were passed over lie before.
        while self.read + 1 < self.next {
            self.read_group(|_, _| {})?;
        }
        self.read_group(each)
    }

    /// Reads the samples of the first group of which they have not been read.
    fn read_group(&mut self, mut each: impl FnMut(u32, &[i64])) -> Result<(), Malformed> {
        let Some(&Group { shape, samples, .. }) = self.groups.get(self.read) else { return Ok(()) };
        self.read += 1;
        let Shape { flags, value_order, difference_order } = shape;
        let has_differences = flags & HAS_DIFFERENCES != 0;
        let less_than_one = flags & HAS_LESS_THAN_ONE != 0;
        let values = &mut self.values;
        let mut bits = self.bits.clone();
        let (mut from, mut left) = (0_u64, samples);
        while left > 0 {
            let order = stack_order(u32::try_from(from).map_err(|_| BEYOND_ALL)?, left);
            let [after, first] = bits.two_numbers([order, value_order])?;
            let stack = from.checked_add(after).and_then(|stack| u32::try_from(stack).ok());
            let stack = stack.ok_or(BEYOND_ALL)?;
            from = u64::from(stack) + 1;
            left -= 1;
            let first = decoded(first, less_than_one)?;
            if let Some((first_value, others)) = values.split_first_mut() {
                *first_value = first;
                for (value, factor) in others.iter_mut().zip(self.factors) {
                    let difference = if has_differences { bits.signed(difference_order)? } else { 0 };
                    *value = first.wrapping_mul(*factor).wrapping_add(difference);
                }
            }
            each(stack, values);
        }
        self.bits = bits;
        Ok(())
    }
}

fn take_group(bits: &mut BitReader<'_>, before: Option<&Group>) -> Result<Group, Malformed> {
    let shape = match bits.bits(1)? {
        0 => before.ok_or(Malformed("a first group of the shape of the one before"))?.shape,
        _ => Shape::take(bits)?,
    };
    let before = before.map(|before| before.thread);
    let has = |flag: u8| shape.flags & flag != 0;
    let mut thread = Thread::default();
    if has(HAS_PID) {
        let difference = bits.signed(pid_order(before))?;
        thread.pid = Some(pid_before(before).wrapping_add(difference.cast_unsigned()));
    }
    if has(HAS_TID) {
        let expected = tid_expected(before, thread.pid);
        thread.tid = Some(expected.wrapping_add(bits.signed(0)?.cast_unsigned()));
    }
    if has(HAS_TRACE_ID) {
        thread.trace_id = Some(bytes(bits)?);
    }
    if has(HAS_SPAN_ID) {
        thread.span_id = Some(bytes(bits)?);
    }
    let labels = i64::from(before.unwrap_or_default().labels).checked_add(bits.signed(0)?);
    let labels = labels.and_then(|labels| u32::try_from(labels).ok());
    thread.labels = labels.ok_or(Malformed("labels that do not exist"))?;
    let samples = u32::try_from(bits.number(COUNT_ORDER)?.saturating_add(1)).map_err(|_| BEYOND_ALL)?;
    Ok(Group { thread, shape, samples })
}

/// What [`coded`] was given.
#[inline]
fn decoded(value: u64, some_are_less_than_one: bool) -> Result<i64, Malformed> {
    if some_are_less_than_one {
        return Ok(unzigzag(value));
    }
    let value = i64::try_from(value).ok().and_then(|value| value.checked_add(1));
    value.ok_or(Malformed("a value beyond all that can be"))
}

/// Least bits of a sample: a stack and a value.
const LEAST_BITS: u64 = 2;

fn bytes<const LENGTH: usize>(bits: &mut BitReader<'_>) -> Result<[u8; LENGTH], Malformed> {
    let mut bytes = [0; LENGTH];
    for byte in &mut bytes {
        *byte = bits.bits(8)?.to_le_bytes()[0];
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
