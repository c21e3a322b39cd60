//! Connections that are there without having been told of: those older than the programs, and those whose end no hook
//! saw. The kernel's iterators list them, a network namespace at a time.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};

use libbpf_rs::libbpf_sys::bpf_iter_create;
use libbpf_rs::{Link, MapCore, MapFlags};

use super::SocketTracer;
use crate::kernel::bpf_object::{find_map, find_program};
use crate::kernel::{KernelError, monotonic_ns, network_namespaces, socket_abi};
use crate::model::socket::{Actor, ConnectionId, Ending, SocketEvent, SocketEventKind};

/// As much as the kernel puts into one answer.
const LISTED_BYTES: usize = 32 << 10;

/// Connections that exist, and where could not be looked.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) connections: HashSet<u64>,
    /// Inode numbers of the network namespaces that were looked into.
    namespaces: HashSet<u64>,
    /// Of those that could not be.
    pub(super) closed_namespaces: HashSet<u64>,
}

impl SocketTracer {
    /// Runs an iterator to its end in every network namespace: adds the connections that exist.
    pub(super) fn list(&self, name: &'static str, listed: &mut Listed) -> Result<(), KernelError> {
        let link = find_program(&self.socket, name)?
            .attach()
            .map_err(|error| KernelError::bpf(format!("run {name}"), error))?;
        Self::list_with(&link, name, listed)
    }

    /// Likewise, of one that is attached.
    pub(super) fn list_with(link: &Link, name: &'static str, listed: &mut Listed) -> Result<(), KernelError> {
        let system = |what: String| move |source| KernelError::System { what, source };
        let link = link.as_fd();
        let here = list_here(link).map_err(system(format!("read the sockets that {name} lists")))?;
        listed.connections.extend(here);
        let namespaces = network_namespaces::of_all_processes()
            .map_err(system("list the network namespaces of this host".to_owned()))?;
        // The first one is ours.
        listed.namespaces.extend(namespaces.first().map(|own| own.inode));
        for namespace in namespaces.iter().skip(1) {
            match network_namespaces::within(&namespace.file, || list_here(link)) {
                Ok(there) => {
                    listed.namespaces.insert(namespace.inode);
                    listed.connections.extend(there);
                }
                Err(error) => {
                    tracing::debug!("the sockets of a network namespace cannot be listed: {error}");
                    listed.closed_namespaces.insert(namespace.inode);
                }
            }
        }
        Ok(())
    }

    /// Takes connections out whose end the kernel did not tell: UNIX sockets, whose closing no hook sees, and
    /// what slipped through. Drains, then hands an ending for each to `on_event`, also for connections that
    /// were never told of. O(connections followed), each a system call: to be done every few seconds.
    ///
    /// # Errors
    /// If the sockets that exist cannot be listed.
    pub fn sweep(&mut self, on_event: &mut dyn FnMut(SocketEvent)) -> Result<usize, KernelError> {
        // First what is followed, then what exists: whoever comes in between is not taken for gone.
        let followed: Vec<u64> = self
            .connections
            .keys()
            .filter_map(|key| key.as_slice().try_into().ok().map(u64::from_ne_bytes))
            .collect();
        let mut listed = Listed::default();
        // Twice, because a list may lack what exists, see `list_here`.
        for _ in 0..2 {
            self.list("list_unix", &mut listed)?;
            self.list("list_tcp", &mut listed)?;
            if followed.iter().all(|id| listed.connections.contains(id)) {
                break;
            }
        }
        self.drain(on_event);
        let mut gone = 0;
        for id in followed {
            if listed.connections.contains(&id) || self.may_exist_unlisted(id, &listed) {
                continue;
            }
            let value = self.connections.lookup(&id.to_ne_bytes(), MapFlags::ANY).ok().flatten();
            if self.connections.delete(&id.to_ne_bytes()).is_err() {
                continue;
            }
            gone += 1;
            on_event(SocketEvent {
                connection: ConnectionId(id),
                time_ns: monotonic_ns(),
                actor: Actor::default(),
                kind: SocketEventKind::Ended(
                    Ending::Closed,
                    value.and_then(|value| socket_abi::moved_over(&value)),
                ),
            });
        }
        self.swept += gone as u64;
        Ok(gone)
    }

    /// Takes out which objects of TLS libraries are for connections that are no more: their processes ended
    /// without letting go of them. O(objects); to be done every few minutes.
    pub fn sweep_tls_pairs(&self) {
        let Ok(pairs) = find_map(&self.socket, "tls_pairs") else { return };
        for key in pairs.keys() {
            let pair = pairs.lookup(&key, MapFlags::ANY).ok().flatten();
            let connection = pair.and_then(|pair| socket_abi::connection_of_tls_pair(&pair));
            if connection.is_some_and(|id| matches!(self.connections.lookup(&id, MapFlags::ANY), Ok(None))) {
                // Gone meanwhile is fine.
                let _ = pairs.delete(&key);
            }
        }
    }

    /// Whether a connection may be in a network namespace that could not be looked into, or in which no
    /// process is: sockets are passed on. The end of a TCP connection is told anyway.
    fn may_exist_unlisted(&self, id: u64, listed: &Listed) -> bool {
        let connection = self.connections.lookup(&id.to_ne_bytes(), MapFlags::ANY).ok().flatten();
        let namespace = connection.and_then(|connection| socket_abi::network_namespace_of(&connection));
        namespace.is_some_and(|namespace| {
            let namespace = u64::from(namespace);
            let is_tcp = id & socket_abi::CONNECTION_UNIX == 0;
            listed.closed_namespaces.contains(&namespace) || is_tcp && !listed.namespaces.contains(&namespace)
        })
    }
}

/// What an iterator lists in the network namespace of this thread.
pub(in crate::kernel) fn list_here(link: BorrowedFd<'_>) -> std::io::Result<HashSet<u64>> {
    // SAFETY: the descriptor is open for as long as it is borrowed, and no memory is passed.
    let iterator = unsafe { bpf_iter_create(link.as_raw_fd()) };
    if iterator < 0 {
        return Err(std::io::Error::from_raw_os_error(-iterator));
    }
    // SAFETY: it was made just now and nobody else has it.
    let mut iterator = unsafe { File::from_raw_fd(iterator) };
    // The kernel goes on where it stopped by a count, and passes over a socket if another one before it
    // goes away in between. So it is asked for much at a time.
    let mut buffer = vec![0; LISTED_BYTES];
    let mut ids = HashSet::new();
    loop {
        let read = iterator.read(&mut buffer)?;
        if read == 0 {
            return Ok(ids);
        }
        let listed = buffer.get(..read).unwrap_or_default().chunks_exact(8);
        ids.extend(listed.filter_map(|id| id.try_into().ok().map(u64::from_ne_bytes)));
    }
}
