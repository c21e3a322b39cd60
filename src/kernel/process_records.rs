//! Side-band records of perf → [`ProcessEvent`]s (`enum perf_event_type` in `include/uapi/linux/perf_event.h`).
//!
//! Every record ends with what `sample_id_all` appends: with `PERF_SAMPLE_TIME` alone that is the
//! time, eight bytes. Paths and names are NUL-terminated and padded with NULs to eight bytes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::perf_ring::PerfRecord;
use super::process_events::ProcessEvent;
use super::sample_decoder::task_name;

const RECORD_LOST: u32 = 2;
const RECORD_COMM: u32 = 3;
const RECORD_EXIT: u32 = 4;
const RECORD_FORK: u32 = 7;
const RECORD_MMAP2: u32 = 10;

/// `PERF_RECORD_MISC_COMM_EXEC`.
const MISC_COMM_EXEC: u16 = 1 << 13;
/// `PERF_RECORD_MISC_MMAP_BUILD_ID`: a build id stands where device and inode would.
const MISC_MMAP_BUILD_ID: u16 = 1 << 14;
/// `PROT_EXEC`.
const PROTECTION_EXECUTE: u32 = 4;

const TIME_BYTES: usize = 8;
const MAX_BUILD_ID_BYTES: usize = 20;

/// What a record says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// Something about a process.
    Event(ProcessEvent),
    /// Something that is of no interest.
    Ignored,
    /// Too short for what it claims to be.
    Malformed,
}

/// Takes fields off the front of a record.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes(4)?.try_into().ok().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes(8)?.try_into().ok().map(u64::from_ne_bytes)
    }

    /// What is left, up to the first NUL.
    fn text(&self) -> &'a [u8] {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        self.0.get(..end).unwrap_or_default()
    }
}

/// Decodes one record.
pub(super) fn decode(record: PerfRecord<'_>) -> Decoded {
    let Some((fields, time)) =
        record.body.len().checked_sub(TIME_BYTES).and_then(|at| record.body.split_at_checked(at))
    else {
        return Decoded::Malformed;
    };
    let time_ns = time.try_into().map_or(0, u64::from_ne_bytes);
    let fields = Fields(fields);
    let event = match record.kind {
        RECORD_MMAP2 => mapped(fields, record.misc, time_ns),
        RECORD_COMM => named(fields, record.misc, time_ns),
        RECORD_FORK => forked(fields, time_ns),
        RECORD_EXIT => exited(fields, time_ns),
        RECORD_LOST => lost(fields),
        _ => return Decoded::Ignored,
    };
    match event {
        Some(Some(event)) => Decoded::Event(event),
        Some(None) => Decoded::Ignored,
        None => Decoded::Malformed,
    }
}

fn mapped(mut fields: Fields<'_>, misc: u16, time_ns: u64) -> Option<Option<ProcessEvent>> {
    let pid = fields.u32()?;
    let tid = fields.u32()?;
    let begin = fields.u64()?;
    let length = fields.u64()?;
    let file_offset = fields.u64()?;
    let identity = fields.bytes(24)?;
    let protection = fields.u32()?;
    let _flags = fields.u32()?;
    if protection & PROTECTION_EXECUTE == 0 {
        return Some(None);
    }
    let (mut device, mut inode, mut build_id) = ((0, 0), 0, None);
    let mut identity = Fields(identity);
    if misc & MISC_MMAP_BUILD_ID != 0 {
        let bytes = usize::from(*identity.bytes(4)?.first()?);
        if bytes > 0 && bytes <= MAX_BUILD_ID_BYTES {
            build_id = Some(identity.bytes(bytes)?.to_vec());
        }
    } else {
        device = (identity.u32()?, identity.u32()?);
        inode = identity.u64()?;
    }
    let path = PathBuf::from(OsStr::from_bytes(fields.text()));
    Some(Some(ProcessEvent::Mapped {
        time_ns,
        pid,
        tid,
        begin,
        length,
        file_offset,
        device,
        inode,
        build_id,
        path,
    }))
}

fn named(mut fields: Fields<'_>, misc: u16, time_ns: u64) -> Option<Option<ProcessEvent>> {
    let pid = fields.u32()?;
    let tid = fields.u32()?;
    let comm = task_name(fields.text());
    if misc & MISC_COMM_EXEC != 0 {
        return Some(Some(ProcessEvent::Exec { time_ns, pid, comm }));
    }
    Some(Some(ProcessEvent::Renamed { time_ns, pid, tid, comm }))
}

fn forked(mut fields: Fields<'_>, time_ns: u64) -> Option<Option<ProcessEvent>> {
    let (pid, parent_pid) = (fields.u32()?, fields.u32()?);
    let (tid, parent_tid) = (fields.u32()?, fields.u32()?);
    Some(Some(ProcessEvent::Forked { time_ns, pid, tid, parent_pid, parent_tid }))
}

fn exited(mut fields: Fields<'_>, time_ns: u64) -> Option<Option<ProcessEvent>> {
    let (pid, _parent_pid) = (fields.u32()?, fields.u32()?);
    let tid = fields.u32()?;
    Some(Some(ProcessEvent::Exited { time_ns, pid, tid }))
}

fn lost(mut fields: Fields<'_>) -> Option<Option<ProcessEvent>> {
    let _event_id = fields.u64()?;
    Some(Some(ProcessEvent::Lost { count: fields.u64()? }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIME: u64 = 0x1122_3344_5566_7788;

    /// Words and text as the kernel lays them out, with the time behind them.
    fn body(words: &[u32], text: &str) -> Vec<u8> {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        if !text.is_empty() {
            bytes.extend(text.as_bytes());
            bytes.push(0);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        bytes.extend(TIME.to_ne_bytes());
        bytes
    }

    fn decoded(kind: u32, misc: u16, body: &[u8]) -> Decoded {
        decode(PerfRecord { kind, misc, body })
    }

    #[test]
    fn an_executable_mapping_carries_either_build_id_or_inode() {
        // pid tid, address 0x7f0000001000, length 0x2000, offset 0x3000, identity, prot, flags.
        let mut words = vec![10, 11, 0x1000, 0x7f00, 0x2000, 0, 0x3000, 0, 8, 1, 4242, 0, 0, 0, 5, 2];
        let expected = |device, inode, build_id| {
            Decoded::Event(ProcessEvent::Mapped {
                time_ns: TIME,
                pid: 10,
                tid: 11,
                begin: 0x7f00_0000_1000,
                length: 0x2000,
                file_offset: 0x3000,
                device,
                inode,
                build_id,
                path: PathBuf::from("/usr/lib/x.so"),
            })
        };
        assert_eq!(decoded(RECORD_MMAP2, 0, &body(&words, "/usr/lib/x.so")), expected((8, 1), 4242, None));

        words[8..14].copy_from_slice(&[3, 0x00cc_bbaa, 0, 0, 0, 0]);
        let with_id = decoded(RECORD_MMAP2, MISC_MMAP_BUILD_ID, &body(&words, "/usr/lib/x.so"));
        assert_eq!(with_id, expected((0, 0), 0, Some(vec![0xaa, 0xbb, 0xcc])));

        // A build id longer than the field is no build id.
        words[8] = 255;
        let hostile = decoded(RECORD_MMAP2, MISC_MMAP_BUILD_ID, &body(&words, "/usr/lib/x.so"));
        assert_eq!(hostile, expected((0, 0), 0, None));

        words[14] = 3; // readable and writable
        assert_eq!(decoded(RECORD_MMAP2, 0, &body(&words, "/usr/lib/x.so")), Decoded::Ignored);
    }

    #[test]
    fn names_births_ends_and_losses_are_told_apart() {
        let name = body(&[10, 11], "worker");
        assert_eq!(
            decoded(RECORD_COMM, 0, &name),
            Decoded::Event(ProcessEvent::Renamed {
                time_ns: TIME,
                pid: 10,
                tid: 11,
                comm: "worker".to_owned()
            })
        );
        assert_eq!(
            decoded(RECORD_COMM, MISC_COMM_EXEC, &name),
            Decoded::Event(ProcessEvent::Exec { time_ns: TIME, pid: 10, comm: "worker".to_owned() })
        );
        // pid, parent's pid, tid, parent's tid, the event's own time.
        let task = body(&[20, 10, 21, 11, 0, 0], "");
        assert_eq!(
            decoded(RECORD_FORK, 0, &task),
            Decoded::Event(ProcessEvent::Forked {
                time_ns: TIME,
                pid: 20,
                tid: 21,
                parent_pid: 10,
                parent_tid: 11
            })
        );
        assert_eq!(
            decoded(RECORD_EXIT, 0, &task),
            Decoded::Event(ProcessEvent::Exited { time_ns: TIME, pid: 20, tid: 21 })
        );
        assert_eq!(
            decoded(RECORD_LOST, 0, &body(&[1, 0, 77, 0], "")),
            Decoded::Event(ProcessEvent::Lost { count: 77 })
        );
        assert_eq!(decoded(9, 0, &task), Decoded::Ignored);
    }

    #[test]
    fn records_that_are_cut_short_are_malformed() {
        for kind in [RECORD_MMAP2, RECORD_COMM, RECORD_FORK, RECORD_EXIT, RECORD_LOST] {
            for length in 0..16 {
                assert_eq!(
                    decoded(kind, 0, &vec![0; length]),
                    Decoded::Malformed,
                    "{kind} of {length} bytes"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(kind in 0u32..24, misc in any::<u16>(), body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decoded(kind, misc, &body);
        }
    }
}
