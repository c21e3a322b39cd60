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
