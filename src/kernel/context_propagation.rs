//! Sends the context of requests on in an option of TCP's header, and receives it (`bpf/propagate.bpf.c`).
//!
//! The programs run for every socket of the host, so they are attached to the root of the cgroup tree. Taking
//! them away leaves connections as they were: a flag that nobody looks at any more.

use std::fs::{self, File};
use std::io::{Error, ErrorKind};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object};

use super::bpf_object::{find_program, map_handle, open_object, share_maps};
use super::socket_abi::sf_propagation;
use super::{KernelError, abi};

static PROPAGATE_OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/propagate.bpf.o"));

/// The attached programs. Dropping it ends propagation.
#[derive(Debug)]
pub(super) struct ContextPropagation {
    // The link goes before the object whose program it runs.
    _link: Link,
    object: Object,
    switch: MapHandle,
}

impl ContextPropagation {
    /// Begins to send and receive contexts on new connections.
    pub(super) fn start(sockets: &Object) -> Result<Self, KernelError> {
        let what = "the programs that pass contexts on";
        let mut object = open_object(what, PROPAGATE_OBJECT)?;
        share_maps(what, &mut object, sockets)?;
        let object = object.load().map_err(|error| KernelError::bpf(format!("load {what}"), error))?;
        let root = cgroup_root()?;
        let link = find_program(&object, "on_tcp_header")?
            .attach_cgroup(root.as_raw_fd())
            .map_err(|error| KernelError::bpf("attach on_tcp_header to the root of the cgroups", error))?;
        Ok(Self { _link: link, switch: map_handle(&object, "propagation")?, object })
    }

    /// From now on contexts go out: those that somebody has decided to keep, and of all others those whose lower
    /// 63 bits are below `bound`.
    /// With `inserts_headers` also in headers of HTTP/1, on connections that take them.
    pub(super) fn keep_below(&self, bound: u64, inserts_headers: bool) -> Result<(), KernelError> {
        let switch =
            sf_propagation { sampling_bound: bound, is_on: 1, inserts_headers: u32::from(inserts_headers) };
        self.switch
            .update(&0_u32.to_ne_bytes(), abi::bytes_of(&switch), MapFlags::ANY)
            .map_err(|error| KernelError::bpf("say which contexts are passed on", error))
    }

    /// The programs and maps that are loaded.
    pub(super) fn object(&self) -> &Object {
        &self.object
    }

    /// The iterator that asks for contexts on connections that are there already, in the network namespace in
    /// which it is read. It lists those where that was refused (before Linux 6.12: all).
    pub(super) fn old_connections(&self) -> Result<Link, KernelError> {
        find_program(&self.object, "ask_of_old_connections")?
            .attach()
            .map_err(|error| KernelError::bpf("run ask_of_old_connections", error))
    }
}

/// The root of the tree of control groups, as far as this process sees it.
pub(super) fn cgroup_root() -> Result<File, KernelError> {
    let system =
        |source| KernelError::System { what: "find the root of the control groups".to_owned(), source };
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(system)?;
    // Device, place, type, options (fstab(5)); a blank in the place is written as \\040.
    let place = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let place = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(place.replace("\\040", " ")))
    });
    let missing = || system(Error::new(ErrorKind::NotFound, "no cgroup2 is mounted"));
    File::open(place.ok_or_else(missing)?).map_err(system)
}
