//! Puts the context of requests into their heads (`bpf/http_header.bpf.c`).
//!
//! A socket of whose payload something is to be changed must be in a map of sockets, and from then on it works by
//! other functions of the kernel, which not every kernel has right. So [`self_test`] comes first. What the map
//! holds leaves it when this is dropped or the process ends, however it does: nothing of it is pinned.

mod self_test;

use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::{Link, MapCore, MapHandle, Object};

use super::bpf_object::{find_map, find_program, map_handle, open_object, share_maps, sum_counter};
use super::context_propagation::cgroup_root;
use super::introspection::{self, MapState};
use super::run_statistics::map_memory_bytes;
use super::socket_abi::sf_header_counter;
use super::{KernelError, abi};
use crate::model::ConnectionId;

pub(super) use self_test::self_test;

static HTTP_HEADER_OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/http_header.bpf.o"));

const WHAT: &str = "the programs that put contexts into heads";

/// What has become of requests whose context was to go out as a header, and of connections; see `enum
/// sf_header_counter`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct HeaderCounters {
    pub inserted: u64,
    pub left_connection: u64,
    pub left_context: u64,
    pub left_head: u64,
    pub left_line: u64,
    pub left_late: u64,
    pub left_changed: u64,
    pub left_unacknowledged: u64,
    pub left_no_room: u64,
    pub failed: u64,
    pub connections: u64,
    pub lost_connection: u64,
}

impl HeaderCounters {
    pub(super) fn read(sockets: &Object) -> Result<Self, KernelError> {
        let map = find_map(sockets, "header_counters")?;
        let sum = |counter: sf_header_counter| sum_counter(&map, counter.0, WHAT);
        Ok(Self {
            inserted: sum(sf_header_counter::SF_HEADER_COUNTER_INSERTED)?,
            left_connection: sum(sf_header_counter::SF_HEADER_COUNTER_LEFT_CONNECTION)?,
            left_context: sum(sf_header_counter::SF_HEADER_COUNTER_LEFT_CONTEXT)?,
            left_head: sum(sf_header_counter::SF_HEADER_COUNTER_LEFT_HEAD)?,
            left_line: sum(sf_header_counter::SF_HEADER_COUNTER_LEFT_LINE)?,
            left_late: sum(sf_header_counter::SF_HEADER_COUNTER_LEFT_LATE)?,
            left_changed: sum(sf_header_counter::SF_HEADER_COUNTER_LEFT_CHANGED)?,
            left_unacknowledged: sum(sf_header_counter::SF_HEADER_COUNTER_LEFT_UNACKNOWLEDGED)?,
            left_no_room: sum(sf_header_counter::SF_HEADER_COUNTER_LEFT_NO_ROOM)?,
            failed: sum(sf_header_counter::SF_HEADER_COUNTER_FAILED)?,
            connections: sum(sf_header_counter::SF_HEADER_COUNTER_CONNECTIONS)?,
            lost_connection: sum(sf_header_counter::SF_HEADER_COUNTER_LOST_CONNECTION)?,
        })
    }
}

/// The loaded programs. Dropping it gives all sockets their own functions back.
#[derive(Debug)]
pub(super) struct HttpHeaders {
    // The link goes before the object whose program it runs.
    link: Option<Link>,
    object: Object,
    sockets: MapHandle,
}

impl HttpHeaders {
    /// Loads the programs. There is no socket in the map yet.
    pub(super) fn load(sockets: &Object) -> Result<Self, KernelError> {
        let mut object = open_object(WHAT, HTTP_HEADER_OBJECT)?;
        share_maps(WHAT, &mut object, sockets)?;
        let object = object.load().map_err(|error| KernelError::bpf(format!("load {WHAT}"), error))?;
        Ok(Self { link: None, sockets: attach_to_sockets(&object)?, object })
    }

    /// Begins to make connections ready for headers, those that are made from now on.
    pub(super) fn start(&mut self) -> Result<(), KernelError> {
        let root = cgroup_root()?;
        let link = find_program(&self.object, "on_connected")?
            .attach_cgroup(root.as_raw_fd())
            .map_err(|error| KernelError::bpf("attach on_connected to the root of the cgroups", error))?;
        self.link = Some(link);
        Ok(())
    }

    /// Puts one socket into the map.
    #[cfg(test)]
    pub(super) fn enter(&self, key: &[u8], socket: std::os::fd::BorrowedFd<'_>) -> Result<(), KernelError> {
        self.sockets
            .update(key, &(socket.as_raw_fd() as u64).to_ne_bytes(), libbpf_rs::MapFlags::ANY)
            .map_err(|error| KernelError::bpf("put a socket into the map", error))
    }

    /// Gives a connection's socket its own functions back: something else than HTTP/1 is spoken there.
    pub(super) fn release(&self, connection: ConnectionId) {
        // Most are not there.
        let _ = self.sockets.delete(&connection.0.to_ne_bytes());
    }

    /// The programs and maps that are loaded.
    pub(super) fn object(&self) -> &Object {
        &self.object
    }

    /// Kernel memory of the map that is not the socket tracer's.
    pub(super) fn map_bytes(&self) -> u64 {
        map_memory_bytes(self.sockets.as_fd())
    }

    /// The same map, as the kernel has it.
    pub(super) fn map_state(&self) -> Option<MapState> {
        find_map(&self.object, "header_sockets").ok().map(|map| introspection::map(&map, 0))
    }
}

/// Has what is written to the sockets of the map shown to the program; returns the map.
fn attach_to_sockets(object: &Object) -> Result<MapHandle, KernelError> {
    let sockets = map_handle(object, "header_sockets")?;
    find_program(object, "on_message")?
        .attach_sockmap(sockets.as_fd().as_raw_fd())
        .map_err(|error| KernelError::bpf("attach on_message to a map of sockets", error))?;
    Ok(sockets)
}

/// The value of the map `outgoing_contexts`.
fn bytes_of_plan(plan: &super::socket_abi::sf_outgoing_context) -> &[u8] {
    abi::bytes_of(plan)
}
