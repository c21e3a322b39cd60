//! What the kernel and this user are set to: sysctls, capabilities, mounts, name spaces. Read, never
//! changed.

use std::fs;
use std::io;
use std::path::PathBuf;

/// One setting that decides about abilities, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name, for a sysctl the one that `sysctl` takes.
    pub name: &'static str,
    /// Its value, or why it could not be read.
    pub value: Result<String, String>,
}

const SYSCTLS: &[(&str, &str)] = &[
    ("kernel.perf_event_paranoid", "/proc/sys/kernel/perf_event_paranoid"),
    ("kernel.perf_event_max_sample_rate", "/proc/sys/kernel/perf_event_max_sample_rate"),
    ("kernel.perf_event_max_stack", "/proc/sys/kernel/perf_event_max_stack"),
    ("kernel.perf_event_mlock_kb", "/proc/sys/kernel/perf_event_mlock_kb"),
    ("kernel.kptr_restrict", "/proc/sys/kernel/kptr_restrict"),
    ("kernel.unprivileged_bpf_disabled", "/proc/sys/kernel/unprivileged_bpf_disabled"),
    ("kernel.bpf_stats_enabled", "/proc/sys/kernel/bpf_stats_enabled"),
    ("kernel.yama.ptrace_scope", "/proc/sys/kernel/yama/ptrace_scope"),
    ("net.core.bpf_jit_enable", "/proc/sys/net/core/bpf_jit_enable"),
    ("lockdown", "/sys/kernel/security/lockdown"),
];

/// Every setting that bears on profiling.
pub(super) fn read_all() -> Vec<Setting> {
    SYSCTLS
        .iter()
        .map(|&(name, path)| Setting {
            name,
            value: match fs::read_to_string(path) {
                Ok(text) => Ok(text.trim().to_owned()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(if name == "lockdown" {
                    "securityfs is not mounted, or the kernel has no lockdown".to_owned()
                } else {
                    "this kernel does not have it".to_owned()
                }),
                Err(error) => Err(error.to_string()),
            },
        })
        .collect()
}

/// A capability by its number in include/uapi/linux/capability.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Capability {
    DacReadSearch = 2,
    NetAdmin = 12,
    SysPtrace = 19,
    SysAdmin = 21,
    Syslog = 34,
    Perfmon = 38,
    Bpf = 39,
    CheckpointRestore = 40,
}

/// The effective capabilities of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capabilities(u64);

impl Capabilities {
    /// Reads `CapEff` of `/proc/self/status`.
    pub(super) fn read() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        Self::parse(&status).ok_or_else(|| io::Error::other("no CapEff in /proc/self/status"))
    }

    fn parse(status: &str) -> Option<Self> {
        let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(hex.trim(), 16).ok().map(Self)
    }

    pub(super) fn has(self, capability: Capability) -> bool {
        self.0 >> (capability as u32) & 1 == 1
    }
}

/// Where file systems of a type are mounted, as this process sees them, by `/proc/self/mountinfo`.
pub(super) fn mount_points(file_system: &str) -> io::Result<Vec<PathBuf>> {
    Ok(parse_mount_points(&fs::read_to_string("/proc/self/mountinfo")?, file_system))
}

/// Fields by `proc_pid_mountinfo(5)`: the mount point is the fifth; the type follows a lone `-`.
fn parse_mount_points(mountinfo: &str, file_system: &str) -> Vec<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, rest) = line.split_once(" - ")?;
            if rest.split(' ').next()? != file_system {
                return None;
            }
            mount.split(' ').nth(4).map(PathBuf::from)
        })
        .collect()
}

/// Whether this process lives in the host's own pid name space.
pub(super) fn in_initial_pid_namespace() -> io::Result<bool> {
    /// `PROC_PID_INIT_INO` of `include/linux/proc_ns.h`: fixed, so that it can be asked for.
    const INITIAL: &str = "pid:[4026531836]";
    Ok(fs::read_link("/proc/self/ns/pid")?.as_os_str() == INITIAL)
}

/// The first CPU that is online: CPU 0 may be taken out.
pub(super) fn first_online_cpu() -> i32 {
    fs::read_to_string("/sys/devices/system/cpu/online")
        .ok()
        .and_then(|list| parse_first_cpu(&list))
        .unwrap_or(0)
}

fn parse_first_cpu(list: &str) -> Option<i32> {
    list.trim().split([',', '-']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_of_root_of_nobody_and_of_garbage() {
        let root = Capabilities::parse("Name:\tx\nCapEff:\t000001ffffffffff\n").unwrap();
        assert!(root.has(Capability::Bpf) && root.has(Capability::CheckpointRestore));
        let nobody = Capabilities::parse("CapEff:\t0000000000000000\n").unwrap();
        assert!(!nobody.has(Capability::SysAdmin));
        let only_bpf = Capabilities::parse("CapEff:\t0000008000000000\n").unwrap();
        assert!(only_bpf.has(Capability::Bpf) && !only_bpf.has(Capability::Perfmon));
        assert_eq!(Capabilities::parse("CapPrm:\t0\n"), None);
        assert_eq!(Capabilities::parse("CapEff:\tzz\n"), None);
    }

    #[test]
    fn mount_points_with_and_without_optional_fields() {
        let mountinfo = "\
30 24 0:26 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
31 24 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
32 24 0:28 / /mnt/cgroup2 rw - ext4 /dev/sda rw\n\
broken line\n";
        assert_eq!(parse_mount_points(mountinfo, "cgroup2"), [PathBuf::from("/sys/fs/cgroup/unified")]);
        assert_eq!(parse_mount_points(mountinfo, "tracefs"), Vec::<PathBuf>::new());
    }

    #[test]
    fn first_cpu_of_lists_and_ranges() {
        assert_eq!(parse_first_cpu("0-1\n"), Some(0));
        assert_eq!(parse_first_cpu("2,4-7\n"), Some(2));
        assert_eq!(parse_first_cpu("3\n"), Some(3));
        assert_eq!(parse_first_cpu(""), None);
    }
}
