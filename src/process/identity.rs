//! What a process says of itself: its service and its container.
//!
//! All of it is read from `/proc` once, when the first sample of a process arrives; a process that is
//! gone by then has only its name. Container ids are the 64 hex digits that Docker, containerd, CRI-O
//! and podman put into the last components of the cgroup path (`/docker/ID`, `…/cri-containerd-ID.scope`,
//! `/kubepods/…/ID`, `libpod-ID.scope`).

use std::fs::File;
use std::io::Read;

use super::{process_context, service_name};
use crate::kernel::monotonic_ns;
use crate::model::GIT_SHA_ATTRIBUTE;

/// Environments and cgroup files beyond this are cut: nothing that we look for stands that far back.
const MAX_PROC_FILE_BYTES: u64 = 1 << 20;
/// As many as an SDK takes (OpenTelemetry specification, attribute limits).
const MAX_RESOURCE_ATTRIBUTES: usize = 128;

/// SHA-256 has 64 digits; other systems have names for revisions.
const MAX_GIT_SHA_BYTES: usize = 128;

/// What is known of a process beyond its number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// What the process, its unit or its script is called ([`super::service_name`]), or empty: then it is
    /// known by its executable.
    pub service: String,
    /// Container id, 64 hex digits, or empty.
    pub container_id: String,
    /// The revision that it was built of, `vcs.ref.head.revision` of the context that its SDK publishes or of
    /// `OTEL_RESOURCE_ATTRIBUTES`, or empty.
    pub git_sha: String,
    /// It was read while `execve` was still loading the program, whose arguments and environment are not there
    /// before the end of that: it is to be read again.
    pub is_early: bool,
    /// The process has published a context of its own, which is the last word.
    pub has_context: bool,
    /// When this was read, `CLOCK_MONOTONIC`, nanoseconds.
    pub read_ns: u64,
}

impl Identity {
    /// Reads what `/proc` says of process `pid` now. What cannot be read stays empty.
    #[must_use]
    pub fn read(pid: u32) -> Self {
        let executable = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
        // Threads of the kernel have neither.
        let command_line = executable.as_ref().map(|_| read_bounded(pid, "cmdline"));
        let program = || {
            let (executable, command_line) = (executable.as_ref()?, command_line.as_ref()?);
            service_name::program_of_interpreter(executable, command_line)
        };
        let cgroup = read_bounded(pid, "cgroup");
        let context = process_context::attributes(pid);
        let environment = read_bounded(pid, "environ");
        let service = process_context::service(&context)
            .or_else(|| service_of_environment(&environment))
            .or_else(|| service_name::unit_of_cgroup(&cgroup))
            .or_else(program);
        let container_id = container_of_cgroup(&cgroup).unwrap_or_default();
        let git_sha = git_sha_of(process_context::text(&context, GIT_SHA_ATTRIBUTE), &environment);
        let is_early = command_line.as_ref().is_some_and(Vec::is_empty);
        Self {
            service: service.unwrap_or_default(),
            container_id,
            git_sha: git_sha.unwrap_or_default(),
            is_early,
            has_context: !context.is_empty(),
            read_ns: monotonic_ns(),
        }
    }
}

fn read_bounded(pid: u32, file: &str) -> Vec<u8> {
    let mut contents = Vec::new();
    if let Ok(opened) = File::open(format!("/proc/{pid}/{file}")) {
        // A process that exits while it is read leaves what had been read.
        let _ = opened.take(MAX_PROC_FILE_BYTES).read_to_end(&mut contents);
    }
    contents
}

/// What a process says of itself in `OTEL_RESOURCE_ATTRIBUTES`, percent-decoded; pairs that are none are left
/// out.
pub(super) fn resource_attributes(pid: u32) -> Vec<(String, String)> {
    attributes_of_environment(&read_bounded(pid, "environ"))
}

fn attributes_of_environment(environment: &[u8]) -> Vec<(String, String)> {
    let said = environment
        .split(|&byte| byte == 0)
        .find_map(|entry| entry.strip_prefix(b"OTEL_RESOURCE_ATTRIBUTES="))
        .unwrap_or_default();
    let pairs = said.split(|&byte| byte == b',').filter_map(|pair| {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let (key, value) = (pair.get(..equals)?, pair.get(equals + 1..)?);
        let key = std::str::from_utf8(key).ok()?.trim();
        (!key.is_empty()).then(|| (key.to_owned(), percent_decoded(value.trim_ascii())))
    });
    pairs.take(MAX_RESOURCE_ATTRIBUTES).collect()
}

fn percent_decoded(text: &[u8]) -> String {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, behind @ ..] = rest {
        rest = behind;
        let escaped = match (byte, behind) {
            (b'%', [high, low, ..]) => digit(high).zip(digit(low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        decoded.push(escaped.unwrap_or(*byte));
        if escaped.is_some() {
            rest = behind.get(2..).unwrap_or_default();
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// The service name that the process's own environment gives (OpenTelemetry environment variables).
fn service_of_environment(environment: &[u8]) -> Option<String> {
    let variable = |name: &str| {
        environment.split(|&byte| byte == 0).find_map(|entry| {
            let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            std::str::from_utf8(value).ok().map(str::trim).filter(|value| !value.is_empty())
        })
    };
    if let Some(service) = variable("OTEL_SERVICE_NAME") {
        return Some(service.to_owned());
    }
    variable("OTEL_RESOURCE_ATTRIBUTES")?.split(',').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key.trim() == "service.name" && !value.trim().is_empty()).then(|| value.trim().to_owned())
    })
}

/// The revision that a process names: in its context, or else in its environment.
fn git_sha_of(of_context: Option<&str>, environment: &[u8]) -> Option<String> {
    let of_environment = || {
        let mut attributes = attributes_of_environment(environment).into_iter();
        attributes.find_map(|(name, value)| (name == GIT_SHA_ATTRIBUTE).then_some(value))
    };
    let said = of_context.map(ToOwned::to_owned).or_else(of_environment)?;
    let said = said.trim();
    // What is longer is none, and would be stored with each of its threads.
    let is_one = !said.is_empty() && said.len() <= MAX_GIT_SHA_BYTES && !said.chars().any(char::is_control);
    is_one.then(|| said.to_owned())
}

/// The container id in the text of `/proc/PID/cgroup`.
fn container_of_cgroup(cgroup: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(cgroup).ok()?;
    text.lines().find_map(|line| {
        let path = line.splitn(3, ':').nth(2)?;
        path.rsplit('/').find_map(|component| {
            let name = component.strip_suffix(".scope").unwrap_or(component);
            let id = name.rsplit(['-', ':']).next()?;
            let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_id.then(|| id.to_owned())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn container_ids_of_every_runtime_are_found() {
        for path in [
            format!("/docker/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
            format!("/kubepods.slice/kubepods-pod1234.slice/cri-containerd-{ID}.scope"),
            format!("/kubepods/burstable/pod1-2-3/{ID}"),
            format!("/kubepods.slice/kubepods-pod1.slice/crio-{ID}.scope/container"),
            format!("/machine.slice/libpod-{ID}.scope"),
        ] {
            let line = format!("0::{path}\n");
            assert_eq!(container_of_cgroup(line.as_bytes()).as_deref(), Some(ID), "{path}");
        }
    }

    #[test]
    fn a_process_outside_of_containers_has_no_id() {
        assert_eq!(container_of_cgroup(b"0::/user.slice/session-1.scope\n"), None);
        assert_eq!(container_of_cgroup(b"0::/system.slice/nginx.service"), None);
        assert_eq!(container_of_cgroup(b""), None);
        assert_eq!(container_of_cgroup(b"\xff\xfe"), None);
    }

    #[test]
    fn the_context_or_the_environment_names_the_revision() {
        let environment = b"A=1\0OTEL_RESOURCE_ATTRIBUTES=x=y, vcs.ref.head.revision = 0123%20abc ,z=1\0";
        assert_eq!(git_sha_of(None, environment).as_deref(), Some("0123 abc"));
        assert_eq!(git_sha_of(Some("fedcba9"), environment).as_deref(), Some("fedcba9"));
        assert_eq!(git_sha_of(None, b"OTEL_RESOURCE_ATTRIBUTES=vcs.ref.head.revision=\0"), None);
        assert_eq!(git_sha_of(None, b"vcs.ref.head.revision=0123abc\0"), None);
        assert_eq!(git_sha_of(Some(&"a".repeat(MAX_GIT_SHA_BYTES + 1)), b""), None);
        assert_eq!(git_sha_of(Some("two\nlines"), b""), None);
    }

    #[test]
    fn the_environment_names_the_service() {
        assert_eq!(service_of_environment(b"A=1\0OTEL_SERVICE_NAME=shop\0").as_deref(), Some("shop"));
        let attributes = b"OTEL_RESOURCE_ATTRIBUTES=team=a, service.name = cart ,x=y\0";
        assert_eq!(service_of_environment(attributes).as_deref(), Some("cart"));
        assert_eq!(service_of_environment(b"OTEL_SERVICE_NAME=\0NOT_OTEL_SERVICE_NAME=x\0"), None);
    }
}
