//! What the programs have counted, what they cost, and what there is of them.

use std::os::fd::AsFd;

use libbpf_rs::Object;

use super::{IO_URING_PROGRAMS, SocketTracer};
use crate::kernel::KernelError;
use crate::kernel::bpf_object::{find_map, is_created, sum_counter};
use crate::kernel::context_propagation::ContextPropagation;
use crate::kernel::http_header::HttpHeaders;
use crate::kernel::introspection::{self, EbpfState};
use crate::kernel::published_contexts::PublishedContexts;
use crate::kernel::run_statistics::{self, RunStatistics, map_memory_bytes};
use crate::kernel::socket_abi::sf_socket_counter;

/// The counters of the socket programs, summed over CPUs; see `enum sf_socket_counter`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SocketCounters {
    pub events: u64,
    pub bytes: u64,
    pub connections: u64,
    pub minted: u64,
    pub amended: u64,
    pub read_late: u64,
    pub lost_ring_full: u64,
    pub lost_no_scratch: u64,
    pub lost_no_thread: u64,
    pub lost_connection: u64,
    pub lost_no_cookie: u64,
    pub lost_unreadable: u64,
    pub lost_32_bit: u64,
    pub lost_protocol: u64,
    pub lost_request: u64,
    pub unexplained_in_bytes: u64,
    pub unexplained_out_bytes: u64,
    pub event_loop: u64,
    pub after_end: u64,
    pub contexts_sent: u64,
    pub contexts_received: u64,
    pub contexts_stray: u64,
    /// Of the events sent: records that could not be decoded. Counted on this side.
    pub malformed: u64,
    /// Connections whose end was not seen and that a sweep has found gone. Counted on this side.
    pub swept: u64,
}

impl SocketTracer {
    /// The counters so far.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn counters(&self) -> Result<SocketCounters, KernelError> {
        let map = find_map(&self.socket, "socket_counters")?;
        let sum = |counter: sf_socket_counter| sum_counter(&map, counter.0, "the socket programs");
        Ok(SocketCounters {
            events: sum(sf_socket_counter::SF_SOCKET_COUNTER_EVENTS)?,
            bytes: sum(sf_socket_counter::SF_SOCKET_COUNTER_BYTES)?,
            connections: sum(sf_socket_counter::SF_SOCKET_COUNTER_CONNECTIONS)?,
            minted: sum(sf_socket_counter::SF_SOCKET_COUNTER_MINTED)?,
            amended: sum(sf_socket_counter::SF_SOCKET_COUNTER_AMENDED)?,
            read_late: sum(sf_socket_counter::SF_SOCKET_COUNTER_READ_LATE)?,
            lost_ring_full: sum(sf_socket_counter::SF_SOCKET_COUNTER_LOST_RING_FULL)?,
            lost_no_scratch: sum(sf_socket_counter::SF_SOCKET_COUNTER_LOST_NO_SCRATCH)?,
            lost_no_thread: sum(sf_socket_counter::SF_SOCKET_COUNTER_LOST_NO_THREAD)?,
            lost_connection: sum(sf_socket_counter::SF_SOCKET_COUNTER_LOST_CONNECTION)?,
            lost_no_cookie: sum(sf_socket_counter::SF_SOCKET_COUNTER_LOST_NO_COOKIE)?,
            lost_unreadable: sum(sf_socket_counter::SF_SOCKET_COUNTER_LOST_UNREADABLE)?,
            lost_32_bit: sum(sf_socket_counter::SF_SOCKET_COUNTER_LOST_32_BIT)?,
            lost_protocol: sum(sf_socket_counter::SF_SOCKET_COUNTER_LOST_PROTOCOL)?,
            lost_request: sum(sf_socket_counter::SF_SOCKET_COUNTER_LOST_REQUEST)?,
            unexplained_in_bytes: sum(sf_socket_counter::SF_SOCKET_COUNTER_UNEXPLAINED_IN)?,
            unexplained_out_bytes: sum(sf_socket_counter::SF_SOCKET_COUNTER_UNEXPLAINED_OUT)?,
            event_loop: sum(sf_socket_counter::SF_SOCKET_COUNTER_EVENT_LOOP)?,
            after_end: sum(sf_socket_counter::SF_SOCKET_COUNTER_AFTER_END)?,
            contexts_sent: sum(sf_socket_counter::SF_SOCKET_COUNTER_CONTEXTS_SENT)?,
            contexts_received: sum(sf_socket_counter::SF_SOCKET_COUNTER_CONTEXTS_RECEIVED)?,
            contexts_stray: sum(sf_socket_counter::SF_SOCKET_COUNTER_CONTEXTS_STRAY)?,
            malformed: self.malformed,
            swept: self.swept,
        })
    }

    /// Makes the kernel measure its BPF programs, as long as this lives. Costs some 20 ns a run.
    ///
    /// # Errors
    /// Takes `CAP_SYS_ADMIN`.
    pub fn enable_run_statistics(&mut self) -> Result<(), KernelError> {
        if self.statistics.is_none() {
            self.statistics = Some(run_statistics::enable()?);
        }
        Ok(())
    }

    /// What the programs cost since they are measured; `None` if they are not.
    #[must_use]
    pub fn run_statistics(&self) -> Option<RunStatistics> {
        self.statistics.as_ref()?;
        let mut statistics = RunStatistics::default();
        for object in self.objects() {
            run_statistics::add(object, &mut statistics);
        }
        Some(statistics)
    }

    /// Kernel memory that all maps take.
    #[must_use]
    pub fn map_bytes(&self) -> u64 {
        let own: u64 = self.socket.maps().filter(is_created).map(|map| map_memory_bytes(map.as_fd())).sum();
        own + self.headers.as_ref().map_or(0, HttpHeaders::map_bytes)
    }

    fn objects(&self) -> impl Iterator<Item = &Object> {
        std::iter::once(&self.socket)
            .chain(self.propagation.as_ref().map(ContextPropagation::object))
            .chain(self.headers.as_ref().map(HttpHeaders::object))
            .chain(self.published.as_ref().map(PublishedContexts::object))
    }

    /// The programs and maps as the kernel has them. A system call for each entry of a map that is a hash.
    #[must_use]
    pub fn ebpf(&self) -> EbpfState {
        let is_of_rings = |name: &str| IO_URING_PROGRAMS.iter().any(|(of_rings, _)| *of_rings == name);
        let is_following = |name: &str| {
            let is_wanted = self.counts_io_uring || !is_of_rings(name);
            name.starts_with("on_") && is_wanted && !self.links.is_empty()
        };
        let waiting_bytes = self.ring.written_position().saturating_sub(self.ring.read_position());
        EbpfState {
            programs: self
                .objects()
                .flat_map(|object| introspection::programs(object, &is_following))
                .collect(),
            maps: self
                .socket
                .maps()
                .filter(is_created)
                .map(|map| introspection::map(&map, waiting_bytes))
                .chain(self.headers.as_ref().and_then(HttpHeaders::map_state))
                .collect(),
        }
    }
}
