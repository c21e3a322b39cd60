//! Tiny real attempts: what a kernel or a user may do is known only by doing it.
//!
//! Each attempt makes the smallest object that proves the ability (a program of two instructions, a
//! disabled event, a probe on a function of our own that nobody calls), and lets go of it at once.
//! Nothing here stays in the kernel and nothing else on the host can notice.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libbpf_rs::libbpf_sys as sys;

/// `mov64 r0, 0` and `exit`: valid for every program type that is attempted here.
fn shortest_program() -> [sys::bpf_insn; 2] {
    let instruction = |code| sys::bpf_insn { code, ..Default::default() };
    let [mov64_immediate, exit] = [0xb7, 0x95];
    [instruction(mov64_immediate), instruction(exit)]
}

/// libbpf returns a file descriptor or a negative error number.
fn owned_or_error(returned: RawFd) -> io::Result<OwnedFd> {
    if returned < 0 {
        return Err(io::Error::from_raw_os_error(returned.saturating_neg()));
    }
    // SAFETY: a descriptor that the call before has just opened, and that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(returned) })
}

fn load(program_type: sys::bpf_prog_type, options: &mut sys::bpf_prog_load_opts) -> io::Result<OwnedFd> {
    let instructions = shortest_program();
    options.sz = mem::size_of::<sys::bpf_prog_load_opts>() as sys::size_t;
    // SAFETY: the instructions, strings and options outlive the call, and the count is theirs.
    owned_or_error(unsafe {
        sys::bpf_prog_load(
            program_type,
            c"sf_attempt".as_ptr(),
            c"GPL".as_ptr(),
            instructions.as_ptr(),
            instructions.len() as sys::size_t,
            options,
        )
    })
}

/// Loads a program of type `perf_event`, the kind that takes samples.
pub(super) fn load_perf_event_program() -> io::Result<OwnedFd> {
    load(sys::BPF_PROG_TYPE_PERF_EVENT, &mut sys::bpf_prog_load_opts::default())
}

/// Loads a tracing program on a kernel type or function of the kernel's BTF.
///
/// # Errors
/// `NotFound` if the kernel's BTF does not have it; else the verifier's or the system's.
pub(super) fn load_tracing_program(attach_type: sys::bpf_attach_type, target: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: a string that outlives the call.
    let id = unsafe { sys::libbpf_find_vmlinux_btf_id(target.as_ptr(), attach_type) };
    let id = u32::try_from(id).map_err(|_| io::Error::from_raw_os_error(id.saturating_neg()))?;
    load(
        sys::BPF_PROG_TYPE_TRACING,
        &mut sys::bpf_prog_load_opts {
            expected_attach_type: attach_type,
            attach_btf_id: id,
            ..Default::default()
        },
    )
}

/// Attaches a program of [`load_tracing_program`] until the result is dropped.
pub(super) fn attach_tracing_program(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: a tracing program names its target when it is loaded; the name here must be null.
    owned_or_error(unsafe { sys::bpf_raw_tracepoint_open(ptr::null(), program.as_raw_fd()) })
}

/// Lets BPF programs be timed until the result is dropped.
pub(super) fn enable_run_statistics() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    owned_or_error(unsafe { sys::bpf_enable_stats(sys::BPF_STATS_RUN_TIME) })
}

/// Makes an array map of one value of `bytes` bytes.
pub(super) fn create_array_map(bytes: u32) -> io::Result<OwnedFd> {
    // SAFETY: a string that outlives the call; null options are the defaults.
    owned_or_error(unsafe {
        sys::bpf_map_create(sys::BPF_MAP_TYPE_ARRAY, c"sf_attempt".as_ptr(), 4, bytes, 1, ptr::null())
    })
}

/// On whom an event is opened.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scope {
    /// Everything on one CPU.
    Cpu(i32),
    /// This process, on every CPU.
    Ourselves,
}

fn new_attributes(event_type: u32, config: u64) -> sys::perf_event_attr {
    let mut attributes = sys::perf_event_attr {
        type_: event_type,
        size: mem::size_of::<sys::perf_event_attr>() as u32,
        config,
        ..Default::default()
    };
    attributes.set_disabled(1);
    attributes
}

fn open_event(attributes: &sys::perf_event_attr, scope: Scope) -> io::Result<OwnedFd> {
    let (pid, cpu) = match scope {
        Scope::Cpu(cpu) => (-1, cpu),
        Scope::Ourselves => (0, -1),
    };
    // SAFETY: perf_event_open(2) reads `size` bytes of the attributes and any string that they point
    // to; both outlive the call.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            ptr::from_ref(attributes),
            pid,
            cpu,
            -1,
            libc::c_ulong::from(sys::PERF_FLAG_FD_CLOEXEC),
        )
    };
    match RawFd::try_from(returned) {
        // SAFETY: a descriptor that the kernel has just opened for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The software clock that paces samples, disabled.
pub(super) fn open_cpu_clock(scope: Scope) -> io::Result<OwnedFd> {
    let mut attributes = new_attributes(sys::PERF_TYPE_SOFTWARE, u64::from(sys::PERF_COUNT_SW_CPU_CLOCK));
    attributes.set_freq(1);
    attributes.__bindgen_anon_1.sample_freq = 99;
    open_event(&attributes, scope)
}

/// The hardware's cycle counter, disabled.
pub(super) fn open_cycles(scope: Scope) -> io::Result<OwnedFd> {
    let mut attributes = new_attributes(sys::PERF_TYPE_HARDWARE, u64::from(sys::PERF_COUNT_HW_CPU_CYCLES));
    // With perf_event_paranoid at 2, its default, a user may count their own user code and no more.
    attributes.set_exclude_kernel(u64::from(matches!(scope, Scope::Ourselves)));
    open_event(&attributes, scope)
}

/// The dummy event whose records tell of mappings, new processes and exits.
pub(super) fn open_process_records(scope: Scope, with_build_ids: bool) -> io::Result<OwnedFd> {
    let mut attributes = new_attributes(sys::PERF_TYPE_SOFTWARE, u64::from(sys::PERF_COUNT_SW_DUMMY));
    attributes.set_mmap(1);
    attributes.set_mmap2(1);
    attributes.set_build_id(u64::from(with_build_ids));
    attributes.set_comm(1);
    attributes.set_comm_exec(1);
    attributes.set_task(1);
    attributes.set_sample_id_all(1);
    open_event(&attributes, scope)
}

/// Puts a program on an event.
pub(super) fn set_program(event: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    /// `_IOW('$', 8, __u32)` of `include/uapi/linux/perf_event.h`.
    const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
    // SAFETY: both are open; the argument is the program's descriptor, by value.
    let returned =
        unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF as _, program.as_raw_fd()) };
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A probe's event source: its number stands in sysfs, and no file means that it is not built in.
fn event_source(name: &str) -> io::Result<u32> {
    let text = fs::read_to_string(format!("/sys/bus/event_source/devices/{name}/type"))?;
    text.trim().parse().map_err(io::Error::other)
}

/// A kprobe on a kernel function that only BPF's own test runs call, or that only a reboot calls.
pub(super) fn open_kprobe() -> io::Result<OwnedFd> {
    let source = event_source("kprobe")?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for function in [c"bpf_fentry_test1", c"kernel_restart"] {
        let mut attributes = new_attributes(source, 0);
        attributes.__bindgen_anon_3.kprobe_func = function.as_ptr() as u64;
        match open_event(&attributes, Scope::Cpu(0)) {
            Ok(event) => return Ok(event),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A function that nobody calls, for a uprobe to sit on.
#[inline(never)]
extern "C" fn probe_me(argument: u64) -> u64 {
    std::hint::black_box(argument).wrapping_mul(3)
}

/// A uprobe on [`probe_me`], in this process only.
pub(super) fn open_uprobe() -> io::Result<OwnedFd> {
    let source = event_source("uprobe")?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    let function: extern "C" fn(u64) -> u64 = probe_me;
    let address = function as usize as u64;
    let offset = file_offset_of(&maps, address)
        .ok_or_else(|| io::Error::other("our own code is not in /proc/self/maps"))?;
    let executable = CString::new("/proc/self/exe").map_err(io::Error::other)?;
    let mut attributes = new_attributes(source, 0);
    attributes.__bindgen_anon_3.uprobe_path = executable.as_ptr() as u64;
    attributes.__bindgen_anon_4.probe_offset = offset;
    open_event(&attributes, Scope::Ourselves)
}

/// Where in its file the byte at `address` lies, by `/proc/PID/maps` (proc(5)).
fn file_offset_of(maps: &str, address: u64) -> Option<u64> {
    maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (begin, end) = fields.next()?.split_once('-')?;
        let begin = u64::from_str_radix(begin, 16).ok()?;
        let end = u64::from_str_radix(end, 16).ok()?;
        let offset = u64::from_str_radix(fields.nth(1)?, 16).ok()?;
        if (begin..end).contains(&address) { offset.checked_add(address - begin) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0c8a00000-55d0c8a02000 r--p 00000000 fd:00 1234 /usr/bin/x\n\
55d0c8a02000-55d0c8a07000 r-xp 00002000 fd:00 1234 /usr/bin/x\n\
garbage\n\
7fff0-\n";

    #[test]
    fn file_offset_of_first_last_and_next_byte_of_a_mapping() {
        assert_eq!(file_offset_of(MAPS, 0x55d0_c8a0_2000), Some(0x2000));
        assert_eq!(file_offset_of(MAPS, 0x55d0_c8a0_6fff), Some(0x6fff));
        assert_eq!(file_offset_of(MAPS, 0x55d0_c8a0_7000), None);
        assert_eq!(file_offset_of("", 0), None);
    }

    #[test]
    fn our_own_function_lies_in_our_own_file() {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let function: extern "C" fn(u64) -> u64 = probe_me;
        let offset = file_offset_of(&maps, function as usize as u64).unwrap();
        let code = fs::read("/proc/self/exe").unwrap();
        assert!(usize::try_from(offset).unwrap() < code.len());
        assert_eq!(probe_me(14), 42, "keeps the function in the executable");
    }

    #[test]
    fn an_error_number_becomes_that_error() {
        let error = owned_or_error(-libc::EPERM).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(owned_or_error(i32::MIN).is_err());
    }
}
