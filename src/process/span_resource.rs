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
/// Processes that are remembered; more of them take a few files each time they are met.
const MAX_PROCESSES: usize = 8192;

#[derive(Debug)]
struct Entry {
    resource: Arc<SpanResource>,
    started_unix_ns: u64,
    read_ns: u64,
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
    /// was met last, or its number alone. Reads a few files of `/proc` at most every five seconds a process.
    pub fn of(&mut self, pid: u32, now_ns: u64) -> Arc<SpanResource> {
        if let Some(entry) = self.entries.get(&pid)
            && now_ns.saturating_sub(entry.read_ns) < BELIEVED_NS
        {
            return Arc::clone(&entry.resource);
        }
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
        let entry = Entry { resource: Arc::clone(&resource), started_unix_ns, read_ns: now_ns };
        if self.entries.len() < MAX_PROCESSES {
            self.entries.insert(pid, entry);
        }
        resource
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
                attributes.push((Cow::Borrowed(name), AttributeValue::Text(text.to_owned())));
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
        let of_environment = of_environment.map(|(name, value)| (name, AttributeValue::Text(value)));
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
    fn of_a_process_that_was_never_met_the_number_is_all_there_is() {
        let resource = SpanResources::new().of(u32::MAX, 1);
        assert_eq!(resource.service(), "");
        assert!(resource.attributes.iter().any(|(name, _)| name == "process.pid"));
    }
}
