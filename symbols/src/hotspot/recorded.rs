//! A virtual machine in numbers: what was found in one process, so that memory which was recorded of that process can be
//! read where it is not. What is read to find it (tables for debuggers, flags, the interpreter's codelets) takes
//! megabytes.

use super::Hotspot;
use super::compressed::Encoding;
use super::layout::{DebugInformation, Entry, Heap, KernelLayout, Layout, SourceFileIndex};
use crate::little_endian::u64_at;
use crate::script::ScriptRuntime;

/// Words of [`KernelLayout::bytes`], and of them those before its offsets.
const KERNEL_WORDS: usize = 48;
const KERNEL_WORDS_BEFORE_OFFSETS: usize = 41;

impl Hotspot {
    /// What was found but for the release: the words of `struct sf_hotspot`, and others behind them. Of use to the
    /// program that wrote them only.
    #[must_use]
    pub fn to_numbers(&self) -> Vec<u64> {
        let mut layout = self.layout.clone();
        let bytes = self.layout();
        let mut numbers: Vec<u64> = (0..KERNEL_WORDS).filter_map(|word| u64_at(&bytes, 8 * word)).collect();
        numbers.extend([
            u64::from(layout.encoding == Encoding::WithoutZero),
            layout.call_stub_return,
            u64::from(layout.has_debug_everywhere),
        ]);
        numbers.extend(offsets(&mut layout).map(|offset| u64::from(*offset)));
        numbers.extend(match layout.source_file {
            SourceFileIndex::InClass(offset) => [0, u64::from(offset)],
            SourceFileIndex::InConstants(offset) => [1, u64::from(offset)],
        });
        let debug = match layout.debug {
            DebugInformation::InBlob { scopes_data_begin, metadata, scopes_pcs, dependencies } => {
                vec![scopes_data_begin, metadata, scopes_pcs, dependencies]
            }
            DebugInformation::Outside {
                immutable_data,
                immutable_data_bytes,
                mutable_data,
                mutable_data_bytes,
                relocation_bytes,
                scopes_pcs,
                scopes_data,
            } => vec![
                immutable_data,
                immutable_data_bytes,
                mutable_data,
                mutable_data_bytes,
                relocation_bytes,
                scopes_pcs,
                scopes_data,
            ],
        };
        numbers.extend(debug.into_iter().map(u64::from));
        numbers
    }

    /// The other way. `None`: these are no such numbers.
    #[must_use]
    pub fn of_numbers(release: &str, numbers: &[u64]) -> Option<Self> {
        let (kernel, rest) = numbers.split_at_checked(KERNEL_WORDS)?;
        let kernel = kernel_layout(kernel)?;
        let (&[is_without_zero, call_stub_return, has_debug_everywhere], rest) =
            rest.split_first_chunk::<3>()?;
        let (of_layout, rest) = rest.split_first_chunk::<8>()?;
        let (&[is_in_constants, source_file], debug) = rest.split_first_chunk::<2>()?;
        let half = |number: u64| u16::try_from(number).ok();
        let source_file = half(source_file)?;
        let debug: Vec<u16> = debug.iter().map(|number| half(*number)).collect::<Option<_>>()?;
        let debug = match *debug.as_slice() {
            [scopes_data_begin, metadata, scopes_pcs, dependencies] => {
                DebugInformation::InBlob { scopes_data_begin, metadata, scopes_pcs, dependencies }
            }
            [
                immutable_data,
                immutable_data_bytes,
                mutable_data,
                mutable_data_bytes,
                relocation_bytes,
                scopes_pcs,
                scopes_data,
            ] => DebugInformation::Outside {
                immutable_data,
                immutable_data_bytes,
                mutable_data,
                mutable_data_bytes,
                relocation_bytes,
                scopes_pcs,
                scopes_data,
            },
            _ => return None,
        };
        let mut layout = Layout {
            kernel,
            release: release.to_owned(),
            encoding: if is_without_zero != 0 { Encoding::WithoutZero } else { Encoding::WithZero },
            debug,
            call_stub_return,
            has_debug_everywhere: has_debug_everywhere != 0,
            constants_bytes: 0,
            constants_count: 0,
            symbol_length: 0,
            symbol_body: 0,
            const_method_words: 0,
            const_method_flags: 0,
            class_methods: 0,
            methods_data: 0,
            source_file: match is_in_constants {
                0 => SourceFileIndex::InClass(source_file),
                _ => SourceFileIndex::InConstants(source_file),
            },
        };
        for (offset, number) in offsets(&mut layout).into_iter().zip(of_layout) {
            *offset = half(*number)?;
        }
        Some(Self::of(layout))
    }
}

fn offsets(layout: &mut Layout) -> [&mut u16; 8] {
    [
        &mut layout.constants_bytes,
        &mut layout.constants_count,
        &mut layout.symbol_length,
        &mut layout.symbol_body,
        &mut layout.const_method_words,
        &mut layout.const_method_flags,
        &mut layout.class_methods,
        &mut layout.methods_data,
    ]
}

fn kernel_layout(words: &[u64]) -> Option<KernelLayout> {
    let (before, offsets) = words.split_at_checked(KERNEL_WORDS_BEFORE_OFFSETS)?;
    let (&[numbers, code_begin, code_end, interpreter_begin, interpreter_end], rest) =
        before.split_first_chunk::<5>()?;
    let (&[method_entries_begin, method_entries_end, nmethod_name, symbol_mask], rest) =
        rest.split_first_chunk::<4>()?;
    let mut layout = KernelLayout {
        version: numbers as u32,
        heap_count: (numbers >> 32) as u32,
        code_begin,
        code_end,
        interpreter_begin,
        interpreter_end,
        method_entries_begin,
        method_entries_end,
        nmethod_name,
        symbol_mask,
        ..KernelLayout::default()
    };
    let (of_heaps, of_entries) = rest.as_chunks::<4>().0.split_at_checked(layout.heaps.len())?;
    for (heap, &[begin, end, segment_map, log2_segment]) in layout.heaps.iter_mut().zip(of_heaps) {
        *heap = Heap { begin, end, segment_map, log2_segment };
    }
    for (entry, &[begin, end, pop, push]) in layout.entries.iter_mut().zip(of_entries) {
        *entry = Entry { begin, end, pop, push };
    }
    let halves = offsets.iter().flat_map(|word| (0..4).map(move |index| (word >> (16 * index)) as u16));
    for (offset, half) in layout.offsets().into_iter().zip(halves) {
        *offset = half;
    }
    Some(layout)
}

#[cfg(test)]
mod tests {
    use super::super::fuzzing::{layout_17, layout_25};
    use super::*;

    #[test]
    fn a_virtual_machine_is_the_same_after_numbers_and_of_fewer_it_is_not() {
        for mut layout in [layout_17(), layout_25()] {
            // Each field another number, so that none can stand for another.
            for (index, offset) in layout.kernel.offsets().into_iter().enumerate() {
                *offset = 100 + index as u16;
            }
            let place = |index: u64| 0x7f00_0000_0000 + 0x1000 * index;
            for (index, heap) in (0..).zip(&mut layout.kernel.heaps) {
                let [begin, end, segment_map] = [0, 1, 2].map(|field| place(4 * index + field));
                *heap = Heap { begin, end, segment_map, log2_segment: 7 + index };
            }
            for (index, entry) in (10..).zip(&mut layout.kernel.entries) {
                let [begin, end, pop, push] = [0, 1, 2, 3].map(|field| place(4 * index + field));
                *entry = Entry { begin, end, pop, push };
            }
            layout.kernel.heap_count = 3;
            (layout.kernel.code_begin, layout.kernel.code_end) = (1, 2);
            (layout.kernel.interpreter_begin, layout.kernel.interpreter_end) = (3, 4);
            (layout.kernel.method_entries_begin, layout.kernel.method_entries_end) = (5, 6);
            layout.kernel.nmethod_name = 7;
            let machine = Hotspot::of(layout);
            let numbers = machine.to_numbers();
            assert_eq!(
                Hotspot::of_numbers(machine.version(), &numbers).map(|read| read.layout),
                Some(machine.layout.clone())
            );
            for end in 0..numbers.len() {
                let fewer = numbers.get(..end).unwrap_or_default();
                assert_ne!(
                    Hotspot::of_numbers(machine.version(), fewer).map(|read| read.layout),
                    Some(machine.layout.clone()),
                    "{end}"
                );
            }
        }
    }
}
