//! Opens perf events, see the manual page `perf_event_open(2)`.

use std::mem::size_of;
use std::os::fd::{FromRawFd, OwnedFd};

use libbpf_rs::libbpf_sys::perf_event_attr;

use super::KernelError;

/// `PERF_TYPE_SOFTWARE`.
const TYPE_SOFTWARE: u32 = 1;
/// `PERF_COUNT_SW_CPU_CLOCK`: a high-resolution timer on each CPU; needs no hardware counters.
const SOFTWARE_CPU_CLOCK: u64 = 0;
/// `PERF_COUNT_SW_DUMMY`: never fires, but carries side-band records.
const SOFTWARE_DUMMY: u64 = 9;

/// `PERF_SAMPLE_TIME`, also what `sample_id_all` appends to side-band records.
const SAMPLE_TIME: u64 = 1 << 2;

const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";
const MAX_SAMPLE_RATE: &str = "/proc/sys/kernel/perf_event_max_sample_rate";

fn read_setting<T: std::str::FromStr>(path: &str) -> Option<T> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The kernel refuses a higher frequency than its own limit with a bare `EINVAL`. Where the limit
/// cannot be read it is left to refuse.
///
/// # Errors
/// [`KernelError::FrequencyTooHigh`].
pub(super) fn check_frequency(frequency_hz: u32) -> Result<(), KernelError> {
    match frequency_limit() {
        Some(limit_hz) if frequency_hz > limit_hz => {
            Err(KernelError::FrequencyTooHigh { frequency_hz, limit_hz })
        }
        _ => Ok(()),
    }
}

/// The most samples a second and CPU that the kernel permits now.
pub(super) fn frequency_limit() -> Option<u32> {
    read_setting(MAX_SAMPLE_RATE)
}

/// What an open of an event on an offline CPU fails with.
fn is_cpu_gone(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENODEV)
}

fn attributes(config: u64) -> perf_event_attr {
    perf_event_attr {
        type_: TYPE_SOFTWARE,
        size: size_of::<perf_event_attr>() as u32,
        config,
        ..Default::default()
    }
}

/// Opens an event on one CPU for every process. `None` if the CPU went offline.
fn open(attributes: &mut perf_event_attr, cpu: u32, what: &str) -> Result<Option<OwnedFd>, KernelError> {
    const EVERY_PROCESS: libc::pid_t = -1;
    const NO_GROUP: libc::c_int = -1;
    const CLOSE_ON_EXEC: libc::c_ulong = 1 << 3;
    // SAFETY: `attributes` is a valid perf_event_attr whose `size` is its own; the call reads it, and
    // at most writes back the size.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_mut(attributes),
            EVERY_PROCESS,
            cpu as libc::c_int,
            NO_GROUP,
            CLOSE_ON_EXEC,
        )
    };
    if fd < 0 {
        let error = std::io::Error::last_os_error();
        if is_cpu_gone(&error) {
            return Ok(None);
        }
        let what = format!("open {what} on CPU {cpu}");
        return Err(KernelError::perf_event(what, error, read_setting(PARANOID)));
    }
    // SAFETY: the call returned a new descriptor that nobody else has; descriptors fit an int.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}

/// A timer of `frequency_hz` on a CPU, not running until a program is attached. `None` if the CPU went
/// offline.
pub(super) fn open_timer(cpu: u32, frequency_hz: u32) -> Result<Option<OwnedFd>, KernelError> {
    let mut attributes = attributes(SOFTWARE_CPU_CLOCK);
    attributes.set_freq(1);
    attributes.set_disabled(1);
    attributes.__bindgen_anon_1.sample_freq = u64::from(frequency_hz);
    // The kernel may have lowered its limit since it was looked at first.
    open(&mut attributes, cpu, "the sampling timer")
        .map_err(|error| check_frequency(frequency_hz).err().unwrap_or(error))
}

/// Records of mappings, names, births and ends of processes on a CPU. The reader is woken when
/// `wake_at_bytes` lie in the ring. `None` if the CPU went offline.
pub(super) fn open_process_records(cpu: u32, wake_at_bytes: u32) -> Result<Option<OwnedFd>, KernelError> {
    let mut attributes = attributes(SOFTWARE_DUMMY);
    attributes.sample_type = SAMPLE_TIME;
    attributes.set_mmap(1);
    attributes.set_mmap2(1);
    attributes.set_build_id(1);
    attributes.set_comm(1);
    attributes.set_comm_exec(1);
    attributes.set_task(1);
    attributes.set_sample_id_all(1);
    attributes.set_use_clockid(1);
    attributes.clockid = libc::CLOCK_MONOTONIC;
    attributes.set_watermark(1);
    attributes.__bindgen_anon_2.wakeup_watermark = wake_at_bytes;
    open(&mut attributes, cpu, "the event for process records")
}
