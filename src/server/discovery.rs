//! The services of this host: processes that live, by what they are called, with the ports they listen on.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use utoipa::ToSchema;

use crate::process::{ListeningPorts, LivingProcess, RuntimeOfProcess, living};
use crate::profile::scripts::RuntimesOfProcesses;

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
    /// The language runtimes of its processes, each once.
    pub runtimes: Vec<ServiceRuntime>,
}

/// A language runtime
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ServiceRuntime {
    /// `CPython`, `Node.js (V8)`, `Java (HotSpot)`, or one whose frames are not read: `Ruby`, `PHP`, `.NET`.
    pub name: String,
    /// Null: not known.
    pub version: Option<String>,
    /// Why stacks show the runtime's own frames and not the program's; null if they show the program's.
    pub not_read: Option<String>,
}

impl From<&RuntimeOfProcess> for ServiceRuntime {
    fn from(runtime: &RuntimeOfProcess) -> Self {
        let RuntimeOfProcess { name, version, not_read, .. } = runtime.clone();
        Self { name, version: (!version.is_empty()).then_some(version), not_read }
    }
}

/// All services, by name. Blocks: reads some files for each process.
#[must_use]
pub fn found_services(runtimes: &RuntimesOfProcesses) -> Vec<FoundService> {
    let mut listening = ListeningPorts::default();
    by_service(&living(), parent_of, |pid| listening.of(pid), runtimes)
}

fn by_service(
    processes: &[LivingProcess],
    parent_of: impl Fn(u32) -> Option<u32>,
    mut ports_of: impl FnMut(u32) -> BTreeSet<u16>,
    runtimes: &RuntimesOfProcesses,
) -> Vec<FoundService> {
    let names: HashMap<u32, &str> =
        processes.iter().map(|process| (process.pid, process.service.as_str())).collect();
    let mut services: BTreeMap<&str, (u64, BTreeSet<u16>, BTreeSet<&RuntimeOfProcess>)> = BTreeMap::new();
    // Threads of the kernel have no service.
    for process in processes.iter().filter(|process| !process.service.is_empty()) {
        let parent = parent_of(process.pid).and_then(|parent| names.get(&parent));
        let is_first = parent != Some(&process.service.as_str());
        let (instances, ports, of_service) = services.entry(&process.service).or_default();
        *instances += u64::from(is_first);
        ports.extend(ports_of(process.pid));
        of_service.extend(runtimes.get(&process.pid).into_iter().flatten());
    }
    let found =
        |(name, (instances, ports, runtimes)): (&str, (_, BTreeSet<u16>, BTreeSet<_>))| FoundService {
            name: name.to_owned(),
            namespace: None,
            instances,
            ports: ports.into_iter().collect(),
            runtimes: runtimes.into_iter().map(ServiceRuntime::from).collect(),
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
            git_sha: String::new(),
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
            runtimes: Vec::new(),
        };
        let python = |version: &str| RuntimeOfProcess {
            runtime: Some(spanflame_symbols::script::Runtime::Python),
            name: "CPython".to_owned(),
            version: version.to_owned(),
            not_read: None,
        };
        let runtimes = RuntimesOfProcesses::from([
            (10, vec![python("3.11.2")]),
            (11, vec![python("3.11.2")]),
            (20, vec![python("3.13.5")]),
        ]);
        let mut expected = [service("init", 1, &[]), service("web", 2, &[80, 443])];
        expected[1].runtimes = vec![(&python("3.11.2")).into(), (&python("3.13.5")).into()];
        assert_eq!(by_service(&processes, parent, ports, &runtimes), expected);
    }

    #[test]
    fn this_process_is_found_with_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        assert!(
            found_services(&RuntimesOfProcesses::new()).iter().any(|service| service.ports.contains(&port))
        );
    }
}
