//! The list of abilities: for each what it is called, what it costs to go without, and how to get it. How each is
//! asked for is in `asking.rs`.

use libbpf_rs::libbpf_sys as sys;
use libbpf_rs::{MapType, ProgramType};

use super::asking;
use super::setting::Capability;
use super::{Finding, Host};

pub(super) struct Question {
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) ask: fn(&Host) -> Finding,
    pub(super) cost: &'static str,
    pub(super) remedy: &'static str,
}

const AS_ROOT: &str = "Run as root, or give the binary its capabilities: \
    setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_syslog,cap_checkpoint_restore,cap_dac_read_search+ep spanflame";
const OF_THE_KERNEL: &str = "A kernel that has it; nothing can be done on this one.";

/// Required ones first, then by what they serve.
pub(super) const ALL: &[Question] = &[
    Question {
        name: "btf",
        required: true,
        ask: asking::btf,
        cost: "No BPF program can be fitted to this kernel's types, so nothing can be recorded.",
        remedy: "A kernel built with CONFIG_DEBUG_INFO_BTF=y (every distribution's since about 2021); in a container, \
            mount /sys.",
    },
    Question {
        name: "bpf_load",
        required: true,
        ask: asking::bpf_load,
        cost: "No BPF program can be loaded, so nothing can be recorded.",
        remedy: AS_ROOT,
    },
    Question {
        name: "cpu_clock",
        required: true,
        ask: asking::cpu_clock,
        cost: "No timer can be opened on the host's CPUs, so no samples can be taken.",
        remedy: AS_ROOT,
    },
    Question {
        name: "perf_event_program",
        required: true,
        ask: asking::perf_event_program,
        cost: "A program cannot be put on the sampling timer, so no samples can be taken.",
        remedy: AS_ROOT,
    },
    Question {
        name: "ring_buffer",
        required: true,
        ask: |host| asking::map_type(host, MapType::RingBuf),
        cost: "Samples have no way from the kernel to us.",
        remedy: OF_THE_KERNEL,
    },
    Question {
        name: "array_of_maps",
        required: true,
        ask: |host| asking::map_type(host, MapType::ArrayOfMaps),
        cost: "Unwind tables cannot be given to the kernel, so user stacks would be empty.",
        remedy: OF_THE_KERNEL,
    },
    Question {
        name: "task_registers",
        required: true,
        ask: |host| asking::helper(host, ProgramType::PerfEvent, sys::BPF_FUNC_task_pt_regs),
        cost: "A thread that was interrupted in the kernel has no user stack (helper bpf_task_pt_regs, Linux 5.15).",
        remedy: OF_THE_KERNEL,
    },
    Question {
        name: "read_kernel_memory",
        required: true,
        ask: |host| asking::helper(host, ProgramType::PerfEvent, sys::BPF_FUNC_probe_read_kernel),
        cost: "Programs may not read the kernel's structures, so samples cannot be attributed to threads.",
        remedy: "Lockdown in mode `confidentiality` forbids it: boot with lockdown=integrity or without.",
    },
    Question {
        name: "tp_btf",
        required: true,
        ask: asking::tp_btf,
        cost: "Children of a recorded process cannot be followed from their first instruction.",
        remedy: AS_ROOT,
    },
    Question {
        name: "process_events",
        required: true,
        ask: asking::process_events,
        cost: "New processes and libraries are not heard of, so their stacks cannot be unwound.",
        remedy: AS_ROOT,
    },
    Question {
        name: "sampling_programs",
        required: true,
        ask: asking::sampling_programs,
        cost: "This kernel's verifier refuses the programs that take samples, so nothing can be recorded.",
        remedy: "Linux 6.1 or later with BTF; where it is that, please report this line with the kernel's release.",
    },
    Question {
        name: "host_pid_namespace",
        required: true,
        ask: asking::host_pid_namespace,
        cost: "The kernel's process ids are not the ones in our /proc: no process could be unwound or named, so `record` \
            refuses.",
        remedy: "Run in the host's pid namespace: docker run --pid=host, hostPID: true in a pod, nsenter --target 1 --pid.",
    },
    Question {
        name: "generated_code",
        required: false,
        ask: asking::generated_code,
        cost: "Stacks of Node and Java have the runtimes' native frames only; Python's and Go's are whole.",
        remedy: "Linux 6.13 or later, whose BPF programs have a stack of their own; else node --perf-basic-prof with \
            --interpreted-frames-native-stack, and for Java a perf map agent with -XX:+PreserveFramePointer.",
    },
    Question {
        name: "bpf_jit",
        required: false,
        ask: asking::bpf_jit,
        cost: "BPF programs are interpreted: a sample costs many times as much.",
        remedy: "sysctl net.core.bpf_jit_enable=1",
    },
    Question {
        name: "map_memory",
        required: false,
        ask: asking::map_memory,
        cost: "Unwind tables are limited by RLIMIT_MEMLOCK: past it, executables go without.",
        remedy: "ulimit -l unlimited before the start, or a kernel that charges BPF memory to control groups.",
    },
    Question {
        name: "bpf_loop",
        required: false,
        ask: |host| asking::helper(host, ProgramType::PerfEvent, sys::BPF_FUNC_loop),
        cost: "Loops in BPF are bounded when they are compiled; programs load more slowly.",
        remedy: OF_THE_KERNEL,
    },
    Question {
        name: "task_storage",
        required: false,
        ask: |host| asking::map_type(host, MapType::TaskStorage),
        cost: "State of a thread lies in hash tables, which costs more at each event.",
        remedy: OF_THE_KERNEL,
    },
    Question {
        name: "bpf_stats",
        required: false,
        ask: asking::bpf_stats,
        cost: "The run time of our BPF programs cannot be reported (`bpf_run_ms`).",
        remedy: "CAP_SYS_ADMIN, or sysctl kernel.bpf_stats_enabled=1.",
    },
    Question {
        name: "cap_bpf",
        required: false,
        ask: |host| asking::capability(host, Capability::Bpf, true),
        cost: "BPF programs cannot be loaded.",
        remedy: AS_ROOT,
    },
    Question {
        name: "cap_perfmon",
        required: false,
        ask: |host| asking::capability(host, Capability::Perfmon, true),
        cost: "Other users' processes and the kernel cannot be sampled.",
        remedy: AS_ROOT,
    },
    Question {
        name: "cap_sys_ptrace",
        required: false,
        ask: |host| asking::capability(host, Capability::SysPtrace, false),
        cost: "Mappings, root folders and memory of other users' processes cannot be read: their stacks have neither \
            unwind tables nor names.",
        remedy: AS_ROOT,
    },
    Question {
        name: "cap_dac_read_search",
        required: false,
        ask: |host| asking::capability(host, Capability::DacReadSearch, false),
        cost: "Executables in folders that are closed to this user cannot be read.",
        remedy: AS_ROOT,
    },
    Question {
        name: "cap_checkpoint_restore",
        required: false,
        ask: |host| asking::capability(host, Capability::CheckpointRestore, true),
        cost: "/proc/PID/map_files cannot be opened: executables that were deleted or replaced have no symbols.",
        remedy: AS_ROOT,
    },
    Question {
        name: "cap_syslog",
        required: false,
        ask: |host| asking::capability(host, Capability::Syslog, true),
        cost: "Kernel addresses are hidden where kernel.kptr_restrict is 1.",
        remedy: AS_ROOT,
    },
    Question {
        name: "cap_net_admin",
        required: false,
        ask: |host| asking::capability(host, Capability::NetAdmin, true),
        cost: "Programs on sockets (sock_ops, sk_msg) cannot be attached: no trace context in TCP options.",
        remedy: "Run as root, or add cap_net_admin to the binary's capabilities.",
    },
    Question {
        name: "cap_sys_admin",
        required: false,
        ask: |host| asking::capability(host, Capability::SysAdmin, false),
        cost: "BPF programs cannot be timed, and what other programs of the host have loaded cannot be seen.",
        remedy: "Run as root.",
    },
    Question {
        name: "other_processes",
        required: false,
        ask: asking::other_processes,
        cost: "Processes whose mappings are hidden from us can be sampled, but neither unwound nor named.",
        remedy: AS_ROOT,
    },
    Question {
        name: "map_files",
        required: false,
        ask: asking::map_files,
        cost: "Executables that were deleted or replaced since they started have no symbols.",
        remedy: AS_ROOT,
    },
    Question {
        name: "openat2",
        required: false,
        ask: asking::openat2,
        cost: "Files of containers cannot be opened without the risk of leaving their root, so they are not.",
        remedy: "Linux 5.6, and a seccomp profile that permits openat2.",
    },
    Question {
        name: "kernel_symbols",
        required: false,
        ask: asking::kernel_symbols,
        cost: "Kernel frames are addresses without names.",
        remedy: "sysctl kernel.kptr_restrict=0, or CAP_SYSLOG where it is 1.",
    },
    Question {
        name: "hardware_cycles",
        required: false,
        ask: asking::hardware_cycles,
        cost: "Nothing for now: samples are paced by the software clock, which every machine has. Stretches with \
            interrupts off are attributed to their end.",
        remedy: "A machine, or a virtual machine, whose performance counters are exposed.",
    },
    Question {
        name: "tracefs",
        required: false,
        ask: asking::tracefs,
        cost: "Tracepoints can be had by BTF only, not by their name and format.",
        remedy: "mount -t tracefs tracefs /sys/kernel/tracing",
    },
    Question {
        name: "syscall_tracepoints",
        required: false,
        ask: asking::syscall_tracepoints,
        cost: "System calls cannot be followed: no off-CPU reasons and no requests (not used by `record --kind cpu`).",
        remedy: "A kernel built with CONFIG_FTRACE_SYSCALLS=y.",
    },
    Question {
        name: "uprobes",
        required: false,
        ask: asking::uprobes,
        cost: "TLS libraries and Go cannot be looked into: encrypted connections stay unread (not used by \
            `record --kind cpu`).",
        remedy: "A kernel built with CONFIG_UPROBE_EVENTS=y; CAP_PERFMON with Linux 6.6 or later, CAP_SYS_ADMIN before.",
    },
    Question {
        name: "kprobes",
        required: false,
        ask: asking::kprobes,
        cost: "Nothing: no feature depends on them.",
        remedy: "A kernel built with CONFIG_KPROBE_EVENTS=y.",
    },
    Question {
        name: "fentry",
        required: false,
        ask: asking::fentry,
        cost: "Nothing: no feature depends on it.",
        remedy: "A kernel built with CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS=y.",
    },
    Question {
        name: "write_user_memory",
        required: false,
        ask: |host| asking::helper(host, ProgramType::PerfEvent, sys::BPF_FUNC_probe_write_user),
        cost: "Nothing: spanflame writes into no process.",
        remedy: "Boot without lockdown.",
    },
    Question {
        name: "sock_ops",
        required: false,
        ask: |host| asking::program_type(host, ProgramType::SockOps),
        cost: "Trace context cannot travel in a TCP option to another host (not used by `record`).",
        remedy: OF_THE_KERNEL,
    },
    Question {
        name: "sk_msg",
        required: false,
        ask: |host| asking::program_type(host, ProgramType::SkMsg),
        cost: "Trace context cannot be put into a request's header (not used by `record`).",
        remedy: OF_THE_KERNEL,
    },
    Question {
        name: "http_header",
        required: false,
        ask: asking::http_header,
        cost: "`agent.ebpf.network.context_propagation: http_header` is refused: contexts of requests go on in TCP's header \
            alone, where services with SDKs do not see them (not used by `record`).",
        remedy: "A kernel that leaves sockets in a sockhash as they were: Linux before 6.6.128, 6.12.75, 6.18.14 and 6.19, \
            or one in which their FIONREAD has been put right.",
    },
    Question {
        name: "cgroup2",
        required: false,
        ask: asking::cgroup2,
        cost: "Programs on sockets have nothing to be attached to (not used by `record`).",
        remedy: "mount -t cgroup2 none /sys/fs/cgroup/unified",
    },
];
