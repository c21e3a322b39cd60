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
    /// libbpf or the kernel refused something.
    #[error("cannot {what}: {source}")]
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
    /// From a failed libbpf call.
    pub(super) fn bpf(what: impl Into<String>, source: libbpf_rs::Error) -> Self {
        let what = what.into();
        if source.kind() == libbpf_rs::ErrorKind::PermissionDenied {
            return Self::NotPermitted { what, capabilities: BPF_CAPABILITIES };
        }
        Self::Bpf { what, source }
    }

    /// From a failed system call that takes `capabilities`.
    pub(super) fn system(
        what: impl Into<String>,
        source: std::io::Error,
        capabilities: &'static str,
    ) -> Self {
        let what = what.into();
        if source.kind() == std::io::ErrorKind::PermissionDenied {
            return Self::NotPermitted { what, capabilities };
        }
        Self::System { what, source }
    }

    /// Whether a missing capability is the reason (exit code 4).
    #[must_use]
    pub fn is_not_permitted(&self) -> bool {
        matches!(self, Self::NotPermitted { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_for_want_of_capabilities_names_them() {
        for code in [libc::EPERM, libc::EACCES] {
            let error = KernelError::system(
                "open a perf event",
                std::io::Error::from_raw_os_error(code),
                PERF_CAPABILITIES,
            );
            assert!(error.is_not_permitted());
            assert!(error.to_string().contains("CAP_PERFMON"), "{error}");
        }
        let other = KernelError::system(
            "map a page",
            std::io::Error::from_raw_os_error(libc::ENOMEM),
            PERF_CAPABILITIES,
        );
        assert!(!other.is_not_permitted());
    }
}
