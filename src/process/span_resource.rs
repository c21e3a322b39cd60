//! What spans say of the process that made them: OpenTelemetry's resource attributes.
//!
//! `service.name` is the same as in profiles. What the process says of itself, in the context that its SDK
//! publishes or in `OTEL_RESOURCE_ATTRIBUTES` (percent-decoded; specification, resource/sdk.md), is added, and never
//! replaces what we have seen ourselves.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::living::LivingProcess;
use super::{identity, process_context};
use crate::model::SpanResource;
use crate::model::span::{Attribute, AttributeValue};

/// What was read of a process is believed for so long: it may execute another program, and its number may
/// be given to another one.
const BELIEVED_NS: u64 = 5_000_000_000;
/// Whether it still runs the same file is looked at so often: one call of the system.
const LOOKED_AT_NS: u64 = 20_000_000;
/// Processes that are remembered; more of them take a few files each time they are met.
const MAX_PROCESSES: usize = 8192;

#[derive(Debug)]
struct Entry {
    resource: Arc<SpanResource>,
    started_unix_ns: u64,
    read_ns: u64,
    /// Device and inode of what it runs, when that was looked at last.
    executable: Option<(u64, u64)>,
    looked_at_ns: u64,
}

/// What a process runs; `None` if it is gone.
fn executable_of(pid: u32) -> Option<(u64, u64)> {
    let file = rustix::fs::stat(format!("/proc/{pid}/exe")).ok()?;
    Some((file.st_dev, file.st_ino))
}

/// The resources of processes that were met.
#[derive(Debug, Default)]
pub struct SpanResources {
    entries: HashMap<u32, Entry>,
    host_name: String,
}

impl SpanResources {
    /// Knows nobody yet.
    #[must_use]
    pub fn new() -> Self {
        let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { entries: HashMap::new(), host_name }
    }

    /// The resource of a process at `now_ns` (`CLOCK_MONOTONIC`). One that has ended is what it was when it
    /// was met last, or its number alone. Reads a few files of `/proc` at most every five seconds a process, unless
    /// it has executed another program.
    pub fn of(&mut self, pid: u32, now_ns: u64) -> Arc<SpanResource> {
        if let Some(entry) = self.entries.get_mut(&pid)
            && now_ns.saturating_sub(entry.read_ns) < BELIEVED_NS
        {
            let is_due = now_ns.saturating_sub(entry.looked_at_ns) >= LOOKED_AT_NS;
            if is_due {
                entry.looked_at_ns = now_ns;
            }
            if !is_due || executable_of(pid).is_none_or(|now| entry.executable == Some(now)) {
                return Arc::clone(&entry.resource);
            }
        }
        // Before the rest is read: if it executes another program meanwhile, that will show.
        let executable = executable_of(pid);
        let living = LivingProcess::read(pid);
        if living.is_none()
            && let Some(entry) = self.entries.get(&pid)
        {
            return Arc::clone(&entry.resource);
        }
        if self.entries.len() >= MAX_PROCESSES {
            self.entries.retain(|_, entry| now_ns.saturating_sub(entry.read_ns) < BELIEVED_NS);
        }
        let started_unix_ns = living.as_ref().map_or(0, |living| living.started_unix_ns);
        let made = SpanResource { attributes: self.attributes(pid, living.as_ref()) };
        // The same resource stays the same allocation, so that whoever stores spans finds it once.
        let resource = match self.entries.remove(&pid) {
            Some(entry) if *entry.resource == made => entry.resource,
            _ => Arc::new(made),
        };
        let entry = Entry {
            resource: Arc::clone(&resource),
            started_unix_ns,
            read_ns: now_ns,
            executable,
            looked_at_ns: now_ns,
        };
        if self.entries.len() < MAX_PROCESSES {
            self.entries.insert(pid, entry);
        }
        resource
    }

    /// It is another program now: what was read of it holds no more.
    pub fn forget(&mut self, pid: u32) {
        self.entries.remove(&pid);
    }

    /// When a process that was met was started, nanoseconds since the Unix epoch.
    #[must_use]
    pub fn started_unix_ns(&self, pid: u32) -> Option<u64> {
        self.entries.get(&pid).map(|entry| entry.started_unix_ns).filter(|&started| started != 0)
    }

    fn attributes(&self, pid: u32, living: Option<&LivingProcess>) -> Vec<Attribute> {
        let mut attributes: Vec<Attribute> = Vec::new();
        let mut put = |name: &'static str, text: &str| {
            if !text.is_empty() {
                attributes.push((Cow::Borrowed(name), AttributeValue::Text(text.into())));
            }
        };
        put("host.name", &self.host_name);
        if let Some(living) = living {
            put("service.name", &living.service);
            put("container.id", &living.container_id);
            let executable = living.executable.to_string_lossy();
            put("process.executable.path", executable.trim_end_matches(" (deleted)"));
        }
        attributes.push((Cow::Borrowed("process.pid"), AttributeValue::Integer(pid.into())));
        let of_environment = identity::resource_attributes(pid).into_iter();
        let of_environment = of_environment.map(|(name, value)| (name, AttributeValue::Text(value.into())));
        for (name, value) in process_context::attributes(pid).into_iter().chain(of_environment) {
            if !attributes.iter().any(|(known, _)| *known == name) {
                attributes.push((Cow::Owned(name), value));
            }
        }
        attributes.sort_by(|one, other| one.0.cmp(&other.0));
        attributes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_says_what_it_is_and_is_remembered_after_its_end() {
        let mut child = Command::new("sleep")
            .arg("60")
            .env("OTEL_SERVICE_NAME", "shop")
            .env("OTEL_RESOURCE_ATTRIBUTES", "team=a%20b,service.version=1.2,process.pid=1,broken")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut resources = SpanResources::new();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let mut now_ns = 1;
        // Between fork and exec the child still has our environment.
        let resource = loop {
            let resource = resources.of(child.id(), now_ns);
            if resource.service() == "shop" || std::time::Instant::now() > deadline {
                break resource;
            }
            now_ns += BELIEVED_NS;
        };
        assert_eq!(resource.service(), "shop");
        assert_eq!(resource.text("team"), Some("a b"));
        assert_eq!(resource.text("service.version"), Some("1.2"));
        assert!(
            resource.attributes.contains(&("process.pid".into(), AttributeValue::Integer(child.id().into())))
        );
        assert!(
            Arc::ptr_eq(&resource, &resources.of(child.id(), now_ns + BELIEVED_NS)),
            "nothing has changed"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(resources.of(child.id(), now_ns + 9 * BELIEVED_NS).service(), "shop");
    }

    #[test]
    fn a_process_that_executes_another_program_is_another_one_at_once() {
        let script = "read line; exec sleep 60";
        let mut child = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
        let (pid, mut input) = (child.id(), child.stdin.take().unwrap());
        let mut resources = SpanResources::new();
        let path = |resources: &mut SpanResources, now_ns: u64| {
            let resource = resources.of(pid, now_ns);
            resource.text("process.executable.path").unwrap_or_default().to_owned()
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let mut now_ns = 1;
        let mut wait_for = |name: &str, step_ns: u64| {
            while !path(&mut resources, now_ns).ends_with(name) {
                assert!(std::time::Instant::now() < deadline, "it never is {name}");
                std::thread::sleep(std::time::Duration::from_millis(1));
                now_ns += step_ns;
            }
            now_ns
        };
        // It may be seen before it executes the shell.
        let first_ns = wait_for("sh", LOOKED_AT_NS);
        std::io::Write::write_all(&mut input, b"go\n").unwrap();
        let second_ns = wait_for("sleep", LOOKED_AT_NS / 1000);
        assert!(second_ns - first_ns < BELIEVED_NS, "after {} ns", second_ns - first_ns);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn of_a_process_that_was_never_met_the_number_is_all_there_is() {
        let resource = SpanResources::new().of(u32::MAX, 1);
        assert_eq!(resource.service(), "");
        assert!(resource.attributes.iter().any(|(name, _)| name == "process.pid"));
    }
}
