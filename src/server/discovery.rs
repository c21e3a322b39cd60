//! The services of this host: processes that live, by what they are called, with the ports they listen on.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use utoipa::ToSchema;

use crate::process::{ListeningPorts, LivingProcess, living};

/// A service whose processes live.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FoundService {
    /// As in `/api/v1/services`.
    pub name: String,
    /// Null: no orchestrator is asked.
    pub namespace: Option<String>,
    /// Processes of this name that were not started by another of them: a server and its workers are one.
    pub instances: u64,
    /// TCP ports that it listens on.
    pub ports: Vec<u16>,
}

/// All services, by name. Blocks: reads some files for each process.
#[must_use]
pub fn found_services() -> Vec<FoundService> {
    let mut listening = ListeningPorts::default();
    by_service(&living(), parent_of, |pid| listening.of(pid))
}

fn by_service(
    processes: &[LivingProcess],
    parent_of: impl Fn(u32) -> Option<u32>,
    mut ports_of: impl FnMut(u32) -> BTreeSet<u16>,
) -> Vec<FoundService> {
    let names: HashMap<u32, &str> =
        processes.iter().map(|process| (process.pid, process.service.as_str())).collect();
    let mut services: BTreeMap<&str, (u64, BTreeSet<u16>)> = BTreeMap::new();
    // Threads of the kernel have no service.
    for process in processes.iter().filter(|process| !process.service.is_empty()) {
        let parent = parent_of(process.pid).and_then(|parent| names.get(&parent));
        let is_first = parent != Some(&process.service.as_str());
        let (instances, ports) = services.entry(&process.service).or_default();
        *instances += u64::from(is_first);
        ports.extend(ports_of(process.pid));
    }
    let found = |(name, (instances, ports)): (&str, (u64, BTreeSet<u16>))| FoundService {
        name: name.to_owned(),
        namespace: None,
        instances,
        ports: ports.into_iter().collect(),
    };
    services.into_iter().map(found).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_and_its_workers_are_one_instance_with_the_ports_of_all() {
        let process = |pid, service: &str| LivingProcess {
            pid,
            service: service.to_owned(),
            container_id: String::new(),
            executable: std::path::PathBuf::new(),
            started_unix_ns: 0,
        };
        let processes =
            [process(1, "init"), process(2, ""), process(10, "web"), process(11, "web"), process(20, "web")];
        let parent = |pid| match pid {
            1 => Some(0),
            11 => Some(10),
            _ => Some(1),
        };
        let ports = |pid| match pid {
            10 => BTreeSet::from([443, 80]),
            20 => BTreeSet::from([80]),
            _ => BTreeSet::new(),
        };
        let service = |name: &str, instances, ports: &[u16]| FoundService {
            name: name.to_owned(),
            namespace: None,
            instances,
            ports: ports.to_vec(),
        };
        let expected = [service("init", 1, &[]), service("web", 2, &[80, 443])];
        assert_eq!(by_service(&processes, parent, ports), expected);
    }

    #[test]
    fn this_process_is_found_with_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        assert!(found_services().iter().any(|service| service.ports.contains(&port)));
    }
}
