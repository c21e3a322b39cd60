//! How the kernel side fails.

/// What went wrong with BPF programs, maps or perf events.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A capability is missing.
    #[error(
        "not permitted to {what}: it needs {capabilities}. Run as root, or give the binary these capabilities \
         (setcap) or the container (securityContext.capabilities)"
    )]
    NotPermitted {
        /// What was refused.
        what: String,
        /// The capabilities that allow it.
        capabilities: &'static str,
    },
    /// perf events of the whole host are closed to users without a capability.
    #[error(
        "not permitted to {what}: kernel.perf_event_paranoid is {paranoid}, so it needs {PERF_CAPABILITIES}. Run as \
         root, give the binary these capabilities (setcap), or lower the setting (sysctl kernel.perf_event_paranoid=0)"
    )]
    Paranoid {
        /// What was refused.
        what: String,
        /// The setting's value.
        paranoid: i64,
    },
    /// The kernel answered "permission denied" to something that no capability would have allowed.
    #[error(
        "the kernel refuses to {what}: {source:#}. No capability is missing: the BPF verifier or a security module \
         (SELinux, AppArmor) said no; the lines before this one, or the audit log, say why"
    )]
    Refused {
        /// What was refused.
        what: String,
        /// As libbpf tells it.
        source: libbpf_rs::Error,
    },
    /// Our pids are not those that the kernel's events carry.
    #[error(
        "spanflame runs in a pid namespace of its own (it is process {own_pid} here and {kernel_pid} on the host), \
         where the processes that the kernel speaks of cannot be found. Run it in the host's pid namespace: \
         docker run --pid=host, hostPID: true in a pod, or nsenter --target 1 --pid"
    )]
    PidNamespace {
        /// This process's pid as it sees it.
        own_pid: u32,
        /// … and as the kernel's events do.
        kernel_pid: u32,
    },
    /// More samples a second than the kernel takes.
    #[error(
        "{frequency_hz} samples a second are more than this kernel takes: kernel.perf_event_max_sample_rate is \
         {limit_hz}. Ask for at most that, or raise it (sysctl kernel.perf_event_max_sample_rate={frequency_hz}); \
         the kernel lowers it by itself when sampling takes too long"
    )]
    FrequencyTooHigh {
        /// What was asked for.
        frequency_hz: u32,
        /// What the kernel takes.
        limit_hz: u32,
    },
    /// libbpf or the kernel refused something.
    #[error("cannot {what}: {source:#}")]
    Bpf {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: libbpf_rs::Error,
    },
    /// A system call failed.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The kernel can do it, and does it wrongly.
    #[error("this kernel is not fit to {what}: {found}")]
    Unfit {
        /// What was tried.
        what: &'static str,
        /// What it did.
        found: String,
    },
    /// The compiled-in BPF object lacks something that this code expects in it.
    #[error("the BPF object has no {0}: the binary was built wrongly")]
    Missing(&'static str),
    /// An option has an impossible value.
    #[error("{option} cannot be {value}: {expected}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What it was.
        value: String,
        /// What it must be.
        expected: &'static str,
    },
    /// No room for another table.
    #[error(
        "no room for {wanted} of {what}: {used} of {limit} are used. Samples of what has no table end at its first frame"
    )]
    Full {
        /// Of what there is none left.
        what: &'static str,
        /// How many were wanted.
        wanted: u64,
        /// How many are in use.
        used: u64,
        /// How many there can be.
        limit: u64,
    },
    /// Somebody else's map lies where the one for traces is to be.
    #[error(
        "{} is a map of another layout ({found}): otel/traces_ctx_v1 is an LRU hash with keys of 8 bytes, values of 24 \
         and no flags. Whoever has pinned it there should use another name; without an owner, remove it",
        path.display()
    )]
    ForeignMap {
        /// Where it is pinned.
        path: std::path::PathBuf,
        /// What it is.
        found: String,
    },
    /// Mappings that the kernel side cannot search.
    #[error("the mappings of process {pid} are unusable: {reason}")]
    Mappings {
        /// The process.
        pid: u32,
        /// What is wrong with them.
        reason: String,
    },
    /// An unwind table that does not hold together.
    #[error("the unwind table of object {object} is unusable: {reason}")]
    Table {
        /// The object.
        object: u32,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// What loading and attaching BPF programs for perf events takes.
pub(super) const BPF_CAPABILITIES: &str = "CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN)";
/// What opening perf events on every process takes.
pub(super) const PERF_CAPABILITIES: &str = "CAP_PERFMON (or CAP_SYS_ADMIN)";

impl KernelError {
    /// From a failed libbpf call. Only `EPERM` says that a capability is missing; `EACCES` is how the
    /// verifier refuses a program (`kernel/bpf/verifier.c`), and how security modules refuse anything.
    pub(super) fn bpf(what: impl Into<String>, source: libbpf_rs::Error) -> Self {
        let what = what.into();
        if source.kind() != libbpf_rs::ErrorKind::PermissionDenied {
            return Self::Bpf { what, source };
        }
        match raw_os_error(&source) {
            Some(libc::EACCES) => Self::Refused { what, source },
            _ => Self::NotPermitted { what, capabilities: BPF_CAPABILITIES },
        }
    }

    /// From a failed system call that takes `capabilities`.
    pub(super) fn system(
        what: impl Into<String>,
        source: std::io::Error,
        capabilities: &'static str,
    ) -> Self {
        let what = what.into();
        if source.raw_os_error() == Some(libc::EPERM) {
            return Self::NotPermitted { what, capabilities };
        }
        Self::System { what, source }
    }

    /// From a failed `perf_event_open(2)`, with the value of `kernel.perf_event_paranoid` if it could be
    /// read: events of every process take a capability unless it is 0 or less, and the refusal is
    /// `EACCES` (`kernel/events/core.c`, `perf_allow_cpu`). Where it is not that, a security module was.
    pub(super) fn perf_event(what: impl Into<String>, source: std::io::Error, paranoid: Option<i64>) -> Self {
        match (source.raw_os_error(), paranoid) {
            (Some(libc::EACCES), Some(paranoid)) if paranoid > 0 => {
                Self::Paranoid { what: what.into(), paranoid }
            }
            _ => Self::system(what, source, PERF_CAPABILITIES),
        }
    }

    /// Whether this user or container may not do it (exit code 4).
    #[must_use]
    pub fn is_not_permitted(&self) -> bool {
        matches!(self, Self::NotPermitted { .. } | Self::Paranoid { .. } | Self::PidNamespace { .. })
    }

    /// Whether what was asked for cannot be (exit code 2).
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Option { .. } | Self::FrequencyTooHigh { .. })
    }
}

/// The error number behind a libbpf error. libbpf-rs has no accessor for it and merges `EPERM` and
/// `EACCES` into one kind; what it prints ends in the standard library's text of the number.
fn raw_os_error(error: &libbpf_rs::Error) -> Option<i32> {
    let text = format!("{error:#}");
    let (_, behind) = text.rsplit_once("(os error ")?;
    behind.split_once(')')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os_error(code: i32) -> std::io::Error {
        std::io::Error::from_raw_os_error(code)
    }

    #[test]
    fn a_refusal_for_want_of_capabilities_names_them() {
        let error = KernelError::system("open a perf event", os_error(libc::EPERM), PERF_CAPABILITIES);
        assert!(error.is_not_permitted());
        assert!(error.to_string().contains("CAP_PERFMON"), "{error}");
        let other = KernelError::system("map a page", os_error(libc::ENOMEM), PERF_CAPABILITIES);
        assert!(!other.is_not_permitted());
    }

    #[test]
    fn perf_events_are_closed_by_a_setting_or_by_something_else() {
        let closed = KernelError::perf_event("open the timer", os_error(libc::EACCES), Some(2));
        assert!(closed.is_not_permitted());
        for word in ["CAP_PERFMON", "kernel.perf_event_paranoid is 2"] {
            assert!(closed.to_string().contains(word), "{closed}");
        }
        for paranoid in [Some(-1), Some(0), None] {
            let other = KernelError::perf_event("open the timer", os_error(libc::EACCES), paranoid);
            assert!(!other.is_not_permitted(), "{paranoid:?}: {other}");
        }
        assert!(KernelError::perf_event("open the timer", os_error(libc::EPERM), Some(0)).is_not_permitted());
    }

    #[test]
    fn the_verifiers_refusal_is_no_missing_capability_whatever_libbpf_says_around_it() {
        use libbpf_rs::ErrorExt;
        for (code, not_permitted) in [(libc::EPERM, true), (libc::EACCES, false), (libc::EINVAL, false)] {
            let plain = libbpf_rs::Error::from_raw_os_error(code);
            let layered = libbpf_rs::Error::from_raw_os_error(code).context("failed to load object");
            for source in [plain, layered] {
                assert_eq!(raw_os_error(&source), Some(code), "{source:?}");
                let error = KernelError::bpf("load the sampler", source);
                assert_eq!(error.is_not_permitted(), not_permitted, "{error}");
                assert_eq!(error.to_string().contains("CAP_BPF"), not_permitted, "{error}");
                assert!(
                    not_permitted || error.to_string().contains("os error"),
                    "the cause is told: {error}"
                );
            }
        }
    }
}
