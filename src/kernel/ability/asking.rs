//! How this kernel and this user are asked for each ability: by trying it, or by what they say of themselves.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use libbpf_rs::libbpf_sys as sys;
use libbpf_rs::{MapType, ProgramType};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::attempt::{self, Scope};
use super::setting::{self, Capability};
use super::{Finding, Host, State};
use crate::kernel::user_probes::has_multi_links;
use crate::kernel::{KernelError, http_header};

fn not_asked(host: &Host) -> Option<Finding> {
    let error = host.load.as_ref().err()?;
    Some(Finding::unknown(format!("not asked, since no BPF program could be loaded ({error})")))
}

/// A refusal for want of permission or of the thing itself is an answer; anything else is not.
fn from_attempt<T>(attempt: io::Result<T>, present: impl FnOnce(T) -> String) -> Finding {
    match attempt {
        Ok(value) => Finding::present(present(value)),
        Err(error) => match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN | libc::EINTR) => {
                Finding::unknown(error.to_string())
            }
            _ => Finding::missing(error.to_string()),
        },
    }
}

fn from_probe(probe: libbpf_rs::Result<bool>) -> Finding {
    match probe {
        Ok(true) => Finding::present("libbpf's probe was accepted"),
        Ok(false) => Finding::missing("libbpf's probe was refused"),
        Err(error) => Finding::unknown(format!("libbpf's probe failed: {error}")),
    }
}

pub(super) fn map_type(host: &Host, map_type: MapType) -> Finding {
    not_asked(host).unwrap_or_else(|| from_probe(map_type.is_supported()))
}

pub(super) fn program_type(host: &Host, program_type: ProgramType) -> Finding {
    not_asked(host).unwrap_or_else(|| from_probe(program_type.is_supported()))
}

pub(super) fn helper(host: &Host, program_type: ProgramType, helper: sys::bpf_func_id) -> Finding {
    not_asked(host).unwrap_or_else(|| from_probe(program_type.is_helper_supported(helper)))
}

/// Two sockets of our own are connected, and one does what programs do with theirs while its payload may be changed.
pub(super) fn http_header(host: &Host) -> Finding {
    not_asked(host).unwrap_or_else(|| {
        let tried = http_header::self_test();
        // It has libbpf speak into our log; the questions that follow are to be refused in silence.
        libbpf_rs::set_print(None);
        match tried {
            Ok(()) => Finding::present("a header was put in, and reads, writes and FIONREAD stayed right"),
            Err(KernelError::Unfit { found, .. }) => Finding::missing(found),
            Err(error) if error.is_not_permitted() => Finding::missing(error.to_string()),
            Err(error) => Finding::unknown(error.to_string()),
        }
    })
}

pub(super) fn capability(host: &Host, wanted: Capability, implied_by_admin: bool) -> Finding {
    match &host.capabilities {
        Ok(capabilities) if capabilities.has(wanted) => Finding::present("in the effective set"),
        // CAP_BPF, CAP_PERFMON, CAP_CHECKPOINT_RESTORE and CAP_SYSLOG were split off CAP_SYS_ADMIN,
        // which still implies them; a socket program takes it for CAP_NET_ADMIN.
        Ok(capabilities) if implied_by_admin && capabilities.has(Capability::SysAdmin) => {
            Finding::present("implied by CAP_SYS_ADMIN")
        }
        Ok(_) => Finding::missing("not in the effective set"),
        Err(error) => Finding::unknown(format!("/proc/self/status: {error}")),
    }
}

pub(super) fn btf(_host: &Host) -> Finding {
    const PATH: &str = "/sys/kernel/btf/vmlinux";
    /// `BTF_MAGIC` of include/uapi/linux/btf.h, in the machine's byte order.
    const MAGIC: [u8; 2] = 0xeb9f_u16.to_ne_bytes();
    let mut magic = [0_u8; 2];
    match File::open(PATH).and_then(|mut file| file.read_exact(&mut magic)) {
        Ok(()) if magic == MAGIC => Finding::present(PATH),
        Ok(()) => Finding::missing(format!("{PATH} is no BTF")),
        Err(error) => Finding::missing(format!("{PATH}: {error}")),
    }
}

pub(super) fn bpf_load(host: &Host) -> Finding {
    match &host.load {
        Ok(()) => Finding::present("a program of type perf_event was loaded"),
        Err(error) => Finding::missing(error.to_string()),
    }
}

pub(super) fn cpu_clock(host: &Host) -> Finding {
    from_attempt(attempt::open_cpu_clock(Scope::Cpu(host.cpu)), |_| {
        format!("opened on everything of CPU {}", host.cpu)
    })
}

pub(super) fn perf_event_program(host: &Host) -> Finding {
    not_asked(host).unwrap_or_else(|| {
        let event = match attempt::open_cpu_clock(Scope::Cpu(host.cpu)) {
            Ok(event) => event,
            Err(error) => {
                return Finding::unknown(format!("not asked, since the timer could not be opened ({error})"));
            }
        };
        let put = attempt::load_perf_event_program()
            .and_then(|program| attempt::set_program(event.as_fd(), program.as_fd()));
        from_attempt(put, |()| "a program was put on the timer".to_owned())
    })
}

/// The abilities before this one each stand for a refusal that has a remedy; this one is the whole
/// truth: the programs that `record` loads, loaded.
pub(super) fn sampling_programs(host: &Host) -> Finding {
    not_asked(host).unwrap_or_else(|| match host.sampler() {
        Ok(loaded) => Finding::present(format!("loaded in {} ms", loaded.took.as_millis())),
        Err(error) => Finding::missing(error.clone()),
    })
}

pub(super) fn generated_code(host: &Host) -> Finding {
    not_asked(host).unwrap_or_else(|| match host.sampler() {
        Ok(loaded) => match loaded.follows_generated_code {
            Some(true) => Finding::present("the programs that read V8's and HotSpot's frames were accepted"),
            Some(false) => {
                Finding::missing("the verifier refuses the programs that read V8's and HotSpot's frames")
            }
            None => Finding::unknown("not asked outside the host's pid namespace"),
        },
        Err(_) => Finding::unknown("not asked, since no sampling program could be loaded"),
    })
}

pub(super) fn tp_btf(host: &Host) -> Finding {
    not_asked(host).unwrap_or_else(|| {
        let attached = attempt::load_tracing_program(sys::BPF_TRACE_RAW_TP, c"sched_process_fork")
            .and_then(|program| attempt::attach_tracing_program(program.as_fd()));
        from_attempt(attached, |_| "attached to sched_process_fork".to_owned())
    })
}

pub(super) fn syscall_tracepoints(host: &Host) -> Finding {
    not_asked(host).unwrap_or_else(|| {
        from_attempt(attempt::load_tracing_program(sys::BPF_TRACE_RAW_TP, c"sys_enter"), |_| {
            "a program for sys_enter was loaded".to_owned()
        })
    })
}

pub(super) fn fentry(host: &Host) -> Finding {
    not_asked(host).unwrap_or_else(|| {
        let attached = attempt::load_tracing_program(sys::BPF_TRACE_FENTRY, c"bpf_fentry_test1")
            .and_then(|program| attempt::attach_tracing_program(program.as_fd()));
        match attached {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Finding::unknown("the function that BPF keeps for such attempts is not in this kernel")
            }
            attached => from_attempt(attached, |_| "attached to bpf_fentry_test1".to_owned()),
        }
    })
}

pub(super) fn process_events(host: &Host) -> Finding {
    let scope = Scope::Cpu(host.cpu);
    match attempt::open_process_records(scope, true) {
        // A kernel before 5.12 does not know the bit.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            from_attempt(attempt::open_process_records(scope, false), |_| {
                "without the kernel's build ids: files are read for them".to_owned()
            })
        }
        opened => from_attempt(opened, |_| "with the kernel's build ids".to_owned()),
    }
}

pub(super) fn hardware_cycles(host: &Host) -> Finding {
    match attempt::open_cycles(Scope::Cpu(host.cpu)) {
        // No permission for a whole CPU says nothing about the machine.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            from_attempt(attempt::open_cycles(Scope::Ourselves), |_| {
                "for one's own processes only".to_owned()
            })
        }
        opened => from_attempt(opened, |_| "opened".to_owned()),
    }
}

pub(super) fn kprobes(_host: &Host) -> Finding {
    from_attempt(attempt::open_kprobe(), |_| "one was set".to_owned())
}

pub(super) fn uprobes(_host: &Host) -> Finding {
    if has_multi_links() {
        return Finding::present("links of many uprobes");
    }
    from_attempt(attempt::open_uprobe(), |_| "one was set on ourselves".to_owned())
}

pub(super) fn bpf_stats(_host: &Host) -> Finding {
    from_attempt(attempt::enable_run_statistics(), |_| "enabled for a moment".to_owned())
}

pub(super) fn bpf_jit(_host: &Host) -> Finding {
    match fs::read_to_string("/proc/sys/net/core/bpf_jit_enable") {
        Ok(value) if value.trim() == "0" => Finding::missing("net.core.bpf_jit_enable = 0"),
        Ok(value) => Finding::present(format!("net.core.bpf_jit_enable = {}", value.trim())),
        Err(error) => Finding::unknown(format!("net.core.bpf_jit_enable: {error}")),
    }
}

/// BPF memory is charged either to the control group or to `RLIMIT_MEMLOCK`: a map of more than the
/// limit tells which.
pub(super) fn map_memory(host: &Host) -> Finding {
    /// A limit above this one does not bind us, and is not worth the memory to try.
    const ENOUGH_BYTES: u64 = 1 << 30;
    not_asked(host).unwrap_or_else(|| {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
        let Some(limit) = limit.filter(|&bytes| bytes < ENOUGH_BYTES) else {
            return Finding::present("RLIMIT_MEMLOCK does not bind");
        };
        let over_limit = u32::try_from(limit.saturating_add(1 << 20)).unwrap_or(u32::MAX);
        match attempt::create_array_map(over_limit) {
            Ok(_) => Finding::present(format!(
                "charged to the control group: a map over RLIMIT_MEMLOCK ({limit} bytes) was made"
            )),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Finding::missing(format!("a map over RLIMIT_MEMLOCK ({limit} bytes) was refused"))
            }
            Err(error) => Finding::unknown(error.to_string()),
        }
    })
}

/// Opening a process's maps asks what reading its code asks (`PTRACE_MODE_READ`); a kernel thread has
/// none, and a process may end meanwhile: neither is a refusal.
pub(super) fn other_processes(_host: &Host) -> Finding {
    let folders = match fs::read_dir("/proc") {
        Ok(folders) => folders,
        Err(error) => return Finding::unknown(format!("/proc: {error}")),
    };
    let (mut readable, mut hidden, mut example) = (0_u64, 0_u64, None);
    for folder in folders.flatten() {
        let is_process = folder.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        if !is_process {
            continue;
        }
        match File::open(folder.path().join("maps")) {
            Ok(_) => readable += 1,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                hidden += 1;
                example.get_or_insert_with(|| folder.file_name().to_string_lossy().into_owned());
            }
            Err(_) => {}
        }
    }
    match example {
        Some(pid) => {
            Finding::missing(format!("{hidden} of {} hidden, such as process {pid}", hidden + readable))
        }
        None => Finding::present(format!("all {readable} readable")),
    }
}

pub(super) fn map_files(_host: &Host) -> Finding {
    let name = match fs::read_to_string("/proc/self/maps").map(|maps| first_file_mapping(&maps)) {
        Ok(Some(name)) => name,
        Ok(None) => return Finding::unknown("no mapping of a file in /proc/self/maps"),
        Err(error) => return Finding::unknown(format!("/proc/self/maps: {error}")),
    };
    from_attempt(File::open(Path::new("/proc/self/map_files").join(name)), |_| {
        "a file of ours was opened by its mapping".to_owned()
    })
}

/// The range of the first mapping of a file, as it is named in `map_files`.
fn first_file_mapping(maps: &str) -> Option<String> {
    let line = maps
        .lines()
        .find(|line| line.split_ascii_whitespace().nth(5).is_some_and(|path| path.starts_with('/')))?;
    let (begin, end) = line.split_once(' ')?.0.split_once('-')?;
    // maps pads addresses with zeros, map_files does not.
    let [begin, end] = [begin, end].map(|text| u64::from_str_radix(text, 16));
    Some(format!("{:x}-{:x}", begin.ok()?, end.ok()?))
}

pub(super) fn openat2(_host: &Host) -> Finding {
    let opened =
        rustix::fs::openat2(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT);
    from_attempt(opened.map_err(io::Error::from), |_| "with RESOLVE_IN_ROOT".to_owned())
}

pub(super) fn kernel_symbols(_host: &Host) -> Finding {
    const PATH: &str = "/proc/kallsyms";
    /// The first lines may be per-CPU offsets, which are small or zero even for root.
    const LOOKED_AT_BYTES: u64 = 1 << 20;
    let mut text = Vec::new();
    match File::open(PATH).and_then(|file| file.take(LOOKED_AT_BYTES).read_to_end(&mut text)) {
        Ok(0) => Finding::missing(format!("{PATH} is empty")),
        Ok(_) if shows_addresses(&text) => Finding::present(format!("{PATH} shows addresses")),
        Ok(_) => Finding::missing(format!("{PATH} hides addresses from this user")),
        Err(error) => Finding::missing(format!("{PATH}: {error}")),
    }
}

fn shows_addresses(kallsyms: &[u8]) -> bool {
    kallsyms
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.split(|&byte| byte == b' ').next())
        .any(|address| address.len() >= 16 && address.first() == Some(&b'f'))
}

pub(super) fn host_pid_namespace(_host: &Host) -> Finding {
    match setting::in_initial_pid_namespace() {
        Ok(true) => Finding::present("we live in it"),
        Ok(false) => Finding::missing("we live in a pid namespace of our own"),
        Err(error) => Finding::unknown(format!("/proc/self/ns/pid: {error}")),
    }
}

pub(super) fn tracefs(_host: &Host) -> Finding {
    let mut refusal = None;
    for folder in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"] {
        match fs::read_dir(Path::new(folder).join("events")) {
            Ok(_) => return Finding::present(folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => refusal = Some(format!("{folder}: {error}")),
        }
    }
    Finding { state: State::Missing, detail: refusal.unwrap_or_else(|| "not mounted".to_owned()) }
}

pub(super) fn cgroup2(_host: &Host) -> Finding {
    match setting::mount_points("cgroup2") {
        Ok(mounts) => match mounts.first() {
            Some(mount) => Finding::present(mount.display().to_string()),
            None => Finding::missing("not mounted"),
        },
        Err(error) => Finding::unknown(format!("/proc/self/mountinfo: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_file_mapping_is_named_without_leading_zeros() {
        let maps = "\
00001000-00002000 rw-p 00000000 00:00 0\n\
00400000-00401000 r--p 00000000 fd:00 12 /usr/bin/x\n";
        assert_eq!(first_file_mapping(maps).as_deref(), Some("400000-401000"));
        assert_eq!(first_file_mapping("7f00-\n"), None);
    }

    #[test]
    fn hidden_kernel_addresses_are_zeros_and_user_ones_do_not_count() {
        assert!(shows_addresses(b"0000000000000000 A __per_cpu_start\nffffffff81000000 T _text\n"));
        assert!(!shows_addresses(b"0000000000000000 A __per_cpu_start\n0000000000000000 T _text\n"));
        assert!(!shows_addresses(b""));
        assert!(!shows_addresses(b"f\n\n"));
    }

    #[test]
    fn a_refusal_is_missing_and_a_shortage_is_unknown() {
        let refused: io::Result<()> = Err(io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(from_attempt(refused, |()| String::new()).state, State::Missing);
        let short: io::Result<()> = Err(io::Error::from_raw_os_error(libc::EMFILE));
        assert_eq!(from_attempt(short, |()| String::new()).state, State::Unknown);
    }
}
