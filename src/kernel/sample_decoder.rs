//! A record of the ring buffer → [`RawSample`].

use std::mem::offset_of;

use spanflame_symbols::script::{Runtime, ScriptFrame};

use super::abi::{
    FRAME_SCRIPT, sf_event_type, sf_label, sf_runtime, sf_sample, sf_sample_flag, sf_script_flag,
    sf_script_frame,
};
use crate::model::{
    ImageId, ObjectId, Outcome, RawFrame, RawSample, RequestKey, ScriptOutcome, SpanId, Stamp, TraceId,
};

const SCRIPT_BYTES: usize = size_of::<sf_script_frame>();
const LABEL_BYTES: usize = size_of::<sf_label>();
const OBJECT_SHIFT: u32 = 48;
const ADDRESS_MASK: u64 = (1 << OBJECT_SHIFT) - 1;

pub(super) fn bytes_at<const N: usize>(record: &[u8], offset: usize) -> Option<[u8; N]> {
    record.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

pub(super) fn u64_at(record: &[u8], offset: usize) -> Option<u64> {
    bytes_at(record, offset).map(u64::from_ne_bytes)
}

pub(super) fn u32_at(record: &[u8], offset: usize) -> Option<u32> {
    bytes_at(record, offset).map(u32::from_ne_bytes)
}

pub(super) fn u16_at(record: &[u8], offset: usize) -> Option<u16> {
    bytes_at(record, offset).map(u16::from_ne_bytes)
}

/// A name as the kernel keeps it: up to the first NUL; bytes that are not UTF-8 are replaced.
pub(super) fn task_name(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// `None` for a script frame that is not there.
fn user_frame(word: u64, scripts: &[ScriptFrame]) -> Option<RawFrame> {
    let address = word & ADDRESS_MASK;
    match u32::try_from(word >> OBJECT_SHIFT).unwrap_or(0) {
        0 => Some(RawFrame::Process { address }),
        FRAME_SCRIPT => scripts.get(usize::try_from(address).ok()?).copied().map(RawFrame::Script),
        object => Some(RawFrame::Object { object: ObjectId(object), address }),
    }
}

/// Which runtime a number of `enum sf_runtime` is.
pub(super) fn runtime_of(code: u8) -> Option<Runtime> {
    match u32::from(code) {
        code if code == sf_runtime::SF_RUNTIME_PYTHON.0 => Some(Runtime::Python),
        code if code == sf_runtime::SF_RUNTIME_V8.0 => Some(Runtime::V8),
        code if code == sf_runtime::SF_RUNTIME_HOTSPOT.0 => Some(Runtime::Hotspot),
        _ => None,
    }
}

fn script_frame(bytes: &[u8]) -> Option<ScriptFrame> {
    let [runtime] = bytes_at::<1>(bytes, offset_of!(sf_script_frame, runtime))?;
    let [kind] = bytes_at::<1>(bytes, offset_of!(sf_script_frame, kind))?;
    let [flags] = bytes_at::<1>(bytes, offset_of!(sf_script_frame, flags))?;
    Some(ScriptFrame {
        runtime: runtime_of(runtime)?,
        kind,
        is_entry: u32::from(flags) & sf_script_flag::SF_SCRIPT_ENTRY.0 != 0,
        is_leaf: u32::from(flags) & sf_script_flag::SF_SCRIPT_LEAF.0 != 0,
        address: u64_at(bytes, offset_of!(sf_script_frame, address))?,
        object: u64_at(bytes, offset_of!(sf_script_frame, object))?,
        other: u64_at(bytes, offset_of!(sf_script_frame, other))?,
        position: u32_at(bytes, offset_of!(sf_script_frame, position))?,
        identity: u32_at(bytes, offset_of!(sf_script_frame, identity))?,
    })
}

/// Name and value; a value that was cut ends in `…`.
fn label(bytes: &[u8]) -> Option<(String, String)> {
    let text = |length_at: usize, at: usize| {
        let length = usize::from(*bytes.get(length_at)?);
        Some(String::from_utf8_lossy(bytes.get(at..at.checked_add(length)?)?).into_owned())
    };
    let name = text(offset_of!(sf_label, name_bytes), offset_of!(sf_label, name))?;
    let mut value = text(offset_of!(sf_label, value_bytes), offset_of!(sf_label, value))?;
    if bytes_at::<1>(bytes, offset_of!(sf_label, is_cut))? != [0] {
        // Where a character was cut in two, it goes.
        value = value.trim_end_matches('\u{fffd}').to_owned();
        value.push('…');
    }
    Some((name, value))
}

/// The span that the application says it is in.
fn said(record: &[u8]) -> Option<Stamp> {
    let trace_id = TraceId::new(bytes_at(record, offset_of!(sf_sample, said_trace_id))?)?;
    Some(Stamp { trace_id, span_id: SpanId::new(bytes_at(record, offset_of!(sf_sample, said_span_id))?)? })
}

/// Decodes one `struct sf_sample`, `None` if it is none. Fields are read one by one from where BTF
/// says they are: the record is shorter than the struct, by the frames it does not have.
pub(super) fn decode(record: &[u8], weight_ns: u64) -> Option<RawSample> {
    if u32_at(record, offset_of!(sf_sample, r#type))? != sf_event_type::SF_EVENT_SAMPLE.0 {
        return None;
    }
    let kernel_count = usize::from(u16_at(record, offset_of!(sf_sample, kernel_frames))?);
    let user_count = usize::from(u16_at(record, offset_of!(sf_sample, user_frames))?);
    let label_count = usize::from(bytes_at::<1>(record, offset_of!(sf_sample, labels))?[0]);
    let script_count = usize::from(u16_at(record, offset_of!(sf_sample, script_frames))?);
    let words = record.get(offset_of!(sf_sample, frames)..)?;
    if words.len()
        != (kernel_count + user_count) * 8 + script_count * SCRIPT_BYTES + label_count * LABEL_BYTES
    {
        return None;
    }
    let (kernel, user) = words.split_at(kernel_count * 8);
    let (user, scripts) = user.split_at(user_count * 8);
    let (scripts, labels) = scripts.split_at(script_count * SCRIPT_BYTES);
    let scripts: Vec<_> = scripts.chunks_exact(SCRIPT_BYTES).map(script_frame).collect::<Option<_>>()?;
    let aside = scripts.get(usize::from(u16_at(record, offset_of!(sf_sample, aside_frame))?)..)?;
    let [runtime] = bytes_at::<1>(record, offset_of!(sf_sample, runtime))?;
    let [script_outcome] = bytes_at::<1>(record, offset_of!(sf_sample, script_outcome))?;
    let [flags] = bytes_at::<1>(record, offset_of!(sf_sample, flags))?;
    let [outcome] = bytes_at::<1>(record, offset_of!(sf_sample, outcome))?;
    Some(RawSample {
        time_ns: u64_at(record, offset_of!(sf_sample, time_ns))?,
        weight_ns: weight_ns * u64::from(u16_at(record, offset_of!(sf_sample, ticks))?.max(1)),
        pid: u32_at(record, offset_of!(sf_sample, pid))?,
        tid: u32_at(record, offset_of!(sf_sample, tid))?,
        request: RequestKey::of(u64_at(record, offset_of!(sf_sample, request))?),
        said: match u32::from(flags) & (sf_sample_flag::SF_SAMPLE_SAID.0 | sf_sample_flag::SF_SAMPLE_SHARED.0)
        {
            0 => None,
            _ => said(record),
        },
        labels: labels.chunks_exact(LABEL_BYTES).map(label).collect::<Option<_>>()?,
        image: ImageId::default(),
        comm: task_name(&bytes_at::<16>(record, offset_of!(sf_sample, comm))?),
        thread_name: task_name(&bytes_at::<16>(record, offset_of!(sf_sample, thread_name))?),
        kernel: kernel.chunks_exact(8).filter_map(|word| u64_at(word, 0)).collect(),
        kernel_truncated: u32::from(flags) & sf_sample_flag::SF_SAMPLE_KERNEL_TRUNCATED.0 != 0,
        user: user
            .chunks_exact(8)
            .map(|word| user_frame(u64_at(word, 0)?, &scripts))
            .collect::<Option<_>>()?,
        aside: aside.to_vec(),
        script_outcome: ScriptOutcome::from_codes(runtime_of(runtime), script_outcome)?,
        outcome: Outcome::from_code(outcome)?,
        stopped_at: u64_at(record, offset_of!(sf_sample, stopped_at))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kernel: &[u64], user: &[u64], outcome: u8) -> Vec<u8> {
        let mut bytes = vec![0u8; offset_of!(sf_sample, frames)];
        let mut put =
            |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
        put(offset_of!(sf_sample, r#type), &sf_event_type::SF_EVENT_SAMPLE.0.to_ne_bytes());
        put(offset_of!(sf_sample, time_ns), &77u64.to_ne_bytes());
        put(offset_of!(sf_sample, pid), &12u32.to_ne_bytes());
        put(offset_of!(sf_sample, tid), &13u32.to_ne_bytes());
        put(offset_of!(sf_sample, kernel_frames), &(kernel.len() as u16).to_ne_bytes());
        put(offset_of!(sf_sample, user_frames), &(user.len() as u16).to_ne_bytes());
        put(offset_of!(sf_sample, outcome), &[outcome]);
        put(offset_of!(sf_sample, comm), b"sixteen bytes no");
        put(offset_of!(sf_sample, thread_name), b"w\xff\0rest");
        for word in kernel.iter().chain(user) {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn frames_are_split_into_kernel_object_and_process_addresses() {
        let sample =
            decode(&record(&[0xffff_ffff_8100_0000], &[0x0007_0000_0040_1000, 0x7fff_0000_1000], 3), 9);
        let sample = sample.expect("a sound record");
        assert_eq!(sample.kernel, [0xffff_ffff_8100_0000]);
        assert_eq!(
            sample.user,
            [
                RawFrame::Object { object: ObjectId(7), address: 0x40_1000 },
                RawFrame::Process { address: 0x7fff_0000_1000 }
            ]
        );
        assert_eq!((sample.outcome, sample.weight_ns, sample.time_ns), (Outcome::UnknownMapping, 9, 77));
        assert_eq!((sample.pid, sample.tid), (12, 13));
        assert_eq!(sample.comm, "sixteen bytes no", "a name that fills its field has no NUL");
        assert_eq!(sample.thread_name, "w\u{fffd}");
    }

    #[test]
    fn a_kernel_stack_is_truncated_only_if_its_own_flag_says_so() {
        let flags_at = offset_of!(sf_sample, flags);
        let in_kernel = sf_sample_flag::SF_SAMPLE_IN_KERNEL.0 as u8;
        let truncated = sf_sample_flag::SF_SAMPLE_KERNEL_TRUNCATED.0 as u8;
        let unknown = !(in_kernel | truncated);
        for (flags, expected) in
            [(0, false), (in_kernel, false), (in_kernel | truncated, true), (unknown, false)]
        {
            let mut bytes = record(&[1, 2], &[3], 0);
            bytes[flags_at] = flags;
            let sample = decode(&bytes, 0).expect("a sound record");
            assert_eq!(sample.kernel_truncated, expected, "flags {flags:#x}");
            assert_eq!((sample.kernel.len(), sample.user.len()), (2, 1), "the frames stay as they are");
        }
    }

    #[test]
    fn records_of_the_wrong_length_type_or_outcome_are_refused() {
        let sound = record(&[1], &[2], 0);
        assert!(decode(&sound, 0).is_some());
        for length in 0..sound.len() {
            assert!(decode(&sound[..length], 0).is_none(), "cut to {length} bytes");
        }
        assert!(decode(&record(&[], &[], 200), 0).is_none());
        let mut other_type = sound;
        other_type[offset_of!(sf_sample, r#type)] = 99;
        assert!(decode(&other_type, 0).is_none());
    }
}
