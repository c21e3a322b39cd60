//! Loads the socket programs, starts and stops them, hands on what they send.

use std::collections::HashSet;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use libbpf_rs::libbpf_sys::{BPF_TRACE_RAW_TP, bpf_iter_create, libbpf_find_vmlinux_btf_id};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object, ProgramInput};
use spanflame_symbols::go::{GoRequestCode, GoroutineOffsets};

use super::bpf_object::{
    find_map, find_program, forward_libbpf_messages, is_created, map_handle, open_object,
};
use super::context_propagation::ContextPropagation;
use super::event_ring::EventRing;
use super::go_probes::code_ranges;
use super::http_header::{HeaderCounters, HttpHeaders};
use super::introspection::{self, EbpfState};
use super::published_contexts::{ContextsMap, Pin, PublishedContexts};
use super::run_statistics::{self, RunStatistics, map_memory_bytes};
use super::sampler::{self, RequestMaps};
use super::socket_abi::{
    self, SOCKET_OBJECT, sf_capture, sf_event_loop, sf_go_process, sf_socket_config, sf_socket_counter,
};
use super::{
    KernelError, abi, cpus, http_header, monotonic_ns, network_namespaces, shared_contexts, socket_decoder,
};
use crate::model::socket::{Actor, Capture, ConnectionId, Ending, SocketEvent, SocketEventKind};
use crate::model::{RequestKey, SpanId, Stamp};

/// What to follow, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketTracerOptions {
    /// Size of the ring buffer: a power of two, at least a page.
    pub ring_buffer_bytes: u32,
    /// TCP connections with such a port at either end are not followed.
    pub excluded_ports: Vec<u16>,
    /// Nothing that this process itself does is looked at.
    pub exclude_agent: bool,
    /// Some processes are left alone: those that [`SocketTracer::leave_alone`] names.
    pub leaves_some_alone: bool,
    /// Where the BPF file system is in which other profilers are told which request a thread is at; `None`: they are
    /// not.
    pub publish_contexts_in: Option<PathBuf>,
}

/// How an event loop is known to go about its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventLoop {
    /// It handles each event to its end.
    Prompt,
    /// It says when it has done so with all that came together: [`TurnProbes`](super::TurnProbes).
    Turns,
}

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

/// Programs that count what `io_uring` moves, by the tracepoint that older kernels lack.
const IO_URING_PROGRAMS: [(&str, &CStr); 2] =
    [("on_sent", c"sock_send_length"), ("on_received", c"sock_recv_length")];

/// Loaded only if some processes are left alone.
const PROCESS_END: &str = "on_process_end";

/// As much as the kernel puts into one answer.
const LISTED_BYTES: usize = 32 << 10;

/// The loaded programs and maps. Nothing fires before [`SocketTracer::start`].
#[derive(Debug)]
pub struct SocketTracer {
    // Links go before the object whose programs they run.
    links: Vec<Link>,
    propagation: Option<ContextPropagation>,
    headers: Option<HttpHeaders>,
    published: Option<PublishedContexts>,
    socket: Object,
    ring: EventRing,
    captures: MapHandle,
    connections: MapHandle,
    statistics: Option<OwnedFd>,
    counts_io_uring: bool,
    malformed: u64,
    swept: u64,
    // After all programs that use what is pinned.
    _pin: Option<Pin>,
}

impl SocketTracer {
    /// Loads programs and maps.
    ///
    /// # Errors
    /// [`KernelError::NotPermitted`] names the missing capability; [`KernelError::Option`] an option
    /// that cannot be; else what the kernel refused.
    pub fn load(options: &SocketTracerOptions) -> Result<Self, KernelError> {
        sampler::check_ring_buffer(options.ring_buffer_bytes)?;
        forward_libbpf_messages();

        // CPUs that come later are not looked at, and that is counted.
        let scratches = cpus::online()?.last().map_or(1, |last| last + 1);
        let config = sf_socket_config {
            wake_at_bytes: options.ring_buffer_bytes / 4,
            exclude_agent: u32::from(options.exclude_agent),
            cpus: scratches,
            leaves_some_alone: u32::from(options.leaves_some_alone),
        };
        let mut socket = open_object("the socket programs", SOCKET_OBJECT)?;
        let cannot = |error| KernelError::bpf("prepare the socket programs", error);
        let contexts = options
            .publish_contexts_in
            .as_deref()
            .and_then(|bpf_file_system| ContextsMap::find(bpf_file_system).inspect_err(not_published).ok());
        for mut map in socket.maps_mut() {
            if map.name() == "socket_events" {
                map.set_max_entries(options.ring_buffer_bytes).map_err(cannot)?;
            } else if map.name() == shared_contexts::NAME && contexts.is_none() {
                // Nobody writes or reads it then.
                map.set_max_entries(1).map_err(cannot)?;
            } else if map.name() == "socket_scratch" {
                map.set_max_entries(scratches).map_err(cannot)?;
            } else if map.name() == ".rodata.config" {
                map.set_initial_value(abi::bytes_of(&config)).map_err(cannot)?;
            } else if map.name() == ".data.contract" {
                map.set_autocreate(false).map_err(cannot)?;
            }
        }
        for mut program in socket.progs_mut() {
            if program.name() == PROCESS_END {
                program.set_autoload(options.leaves_some_alone);
                continue;
            }
            let Some((_, tracepoint)) =
                IO_URING_PROGRAMS.iter().find(|(name, _)| program.name() == OsStr::new(name))
            else {
                continue;
            };
            // SAFETY: a name that ends in NUL, and a plain number.
            let type_id = unsafe { libbpf_find_vmlinux_btf_id(tracepoint.as_ptr(), BPF_TRACE_RAW_TP) };
            program.set_autoload(type_id > 0);
        }
        if let Some(contexts) = &contexts {
            contexts.share_with(&mut socket)?;
        }
        let socket = socket.load().map_err(|error| KernelError::bpf("load the socket programs", error))?;
        exclude_ports(&map_handle(&socket, "excluded_ports")?, &options.excluded_ports)?;
        let events = find_map(&socket, "socket_events")?.as_fd().try_clone_to_owned().map_err(|source| {
            KernelError::System { what: "duplicate the ring buffer's descriptor".to_owned(), source }
        })?;
        let published = contexts
            .and_then(|contexts| PublishedContexts::start(&socket, contexts).inspect_err(not_published).ok());
        let (published, pin) = published.unzip();
        let tracer = Self {
            links: Vec::new(),
            propagation: None,
            headers: None,
            published,
            _pin: pin,
            ring: EventRing::new(events, options.ring_buffer_bytes)?,
            captures: map_handle(&socket, "captures")?,
            connections: map_handle(&socket, "connections")?,
            statistics: None,
            counts_io_uring: false,
            malformed: 0,
            swept: 0,
            socket,
        };
        find_program(&tracer.socket, "learn_agent")?
            .test_run(ProgramInput::default())
            .map_err(|error| KernelError::bpf("learn this process's pid in the initial namespace", error))?;
        Ok(tracer)
    }

    /// Begins to follow. Does nothing if it has begun already.
    ///
    /// # Errors
    /// What the kernel refused; nothing is left running then.
    pub fn start(&mut self) -> Result<(), KernelError> {
        if !self.links.is_empty() {
            return Ok(());
        }
        // The cookies of old connections come after those of new ones are cared for, so that none has none.
        let mut links = vec![self.attach("on_tcp_state")?, self.attach("on_tcp_destroyed")?];
        let mut listed = Listed::default();
        self.list("list_tcp", &mut listed)?;
        if !listed.closed_namespaces.is_empty() {
            tracing::warn!(
                "connections of containers that are older than this program are not followed: entering their \
                 network namespaces takes CAP_SYS_ADMIN"
            );
        }
        if find_program(&self.socket, PROCESS_END)?.autoload() {
            links.push(self.attach(PROCESS_END)?);
        }
        links.push(self.attach("on_exec")?);
        links.push(self.attach("on_sys_enter")?);
        links.push(self.attach("on_sys_exit")?);
        self.links = links;
        let counted = self.count_rings_that_there_are();
        if counted.is_err() {
            self.links.clear();
        }
        counted
    }

    /// Counts what `io_uring` moves from the start if there are rings already.
    fn count_rings_that_there_are(&mut self) -> Result<(), KernelError> {
        let workers = find_program(&self.socket, "list_io_workers")?
            .attach()
            .map_err(|error| KernelError::bpf("run list_io_workers", error))?;
        let workers = list_here(workers.as_fd()).map_err(|source| KernelError::System {
            what: "read the threads that list_io_workers lists".to_owned(),
            source,
        })?;
        if workers.is_empty() { Ok(()) } else { self.count_io_uring() }
    }

    /// From now on what `io_uring` moves is counted, where the kernel says it (Linux 6.3 and later). Not before, because
    /// it costs every call on a socket some hundred nanoseconds.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn count_io_uring(&mut self) -> Result<(), KernelError> {
        if self.counts_io_uring {
            return Ok(());
        }
        for (name, _) in IO_URING_PROGRAMS {
            if find_program(&self.socket, name)?.autoload() {
                let link = self.attach(name)?;
                self.links.push(link);
            }
        }
        self.counts_io_uring = true;
        Ok(())
    }

    /// From now on the context of a request whose trace is settled and kept goes out in TCP's header, unless one
    /// stands in the payload; and is received there. `bound` decides on traces that nobody has decided on: it
    /// keeps those whose lower 63 bits are below.
    ///
    /// # Errors
    /// What the kernel refused: it takes cgroup v2, and `CAP_NET_ADMIN`.
    pub fn propagate_contexts(&mut self, bound: u64) -> Result<(), KernelError> {
        let propagation = ContextPropagation::start(&self.socket)?;
        propagation.keep_below(bound, false)?;
        let mut refused = Listed::default();
        Self::list_with(&propagation.old_connections()?, "ask_of_old_connections", &mut refused)?;
        if !refused.connections.is_empty() {
            tracing::info!(
                "{} connections that are older than this program do not pass contexts on: that takes Linux 6.12",
                refused.connections.len()
            );
        }
        self.propagation = Some(propagation);
        Ok(())
    }

    /// From now on such a context also goes out as a header of the request, where it is one of HTTP/1 in plain text
    /// on a connection that a program of this host makes from now on, and has none. `bound` as before. First the
    /// kernel is tried, on a connection of our own, which takes less than a second.
    ///
    /// # Errors
    /// [`KernelError::Unfit`] if the kernel would harm programs; else what it refused. Contexts go on as before then.
    pub fn insert_headers(&mut self, bound: u64) -> Result<(), KernelError> {
        let Some(propagation) = &self.propagation else {
            return Err(KernelError::Option {
                option: "headers",
                value: "inserted".to_owned(),
                expected: "contexts have to go out in TCP's header first",
            });
        };
        http_header::self_test()?;
        let mut headers = HttpHeaders::load(&self.socket)?;
        headers.start()?;
        propagation.keep_below(bound, true)?;
        self.headers = Some(headers);
        Ok(())
    }

    /// Decides anew on traces that nobody has decided on, if contexts are propagated.
    ///
    /// # Errors
    /// If the kernel cannot be told.
    pub fn keep_contexts_below(&self, bound: u64) -> Result<(), KernelError> {
        let inserts_headers = self.headers.is_some();
        self.propagation.as_ref().map_or(Ok(()), |propagation| propagation.keep_below(bound, inserts_headers))
    }

    /// Has headers put in on this one connection, of which `socket` is the client's end; whatever the kernel does to
    /// it otherwise.
    #[cfg(test)]
    pub(super) fn insert_headers_on(
        &mut self,
        socket: BorrowedFd<'_>,
        bound: u64,
    ) -> Result<(), KernelError> {
        if self.headers.is_none() {
            self.headers = Some(HttpHeaders::load(&self.socket)?);
        }
        let cookie = rustix::net::sockopt::socket_cookie(socket).expect("a socket").to_ne_bytes();
        let mut value = self
            .connections
            .lookup(&cookie, MapFlags::ANY)
            .expect("readable")
            .expect("it was connected while the tracer ran");
        socket_abi::take_headers(&mut value);
        self.connections.update(&cookie, &value, MapFlags::ANY).expect("it fits");
        if let Some(headers) = &self.headers {
            headers.enter(&cookie, socket)?;
        }
        self.propagation.as_ref().map_or(Ok(()), |propagation| propagation.keep_below(bound, true))
    }

    /// What has become of headers so far.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn header_counters(&self) -> Result<HeaderCounters, KernelError> {
        HeaderCounters::read(&self.socket)
    }

    /// Whether other profilers are told which request a thread is at.
    #[must_use]
    pub fn publishes_contexts(&self) -> bool {
        self.published.is_some()
    }

    /// From now on they are told of a request that comes with a context which says that it is sampled as soon as it is
    /// read, or not before [`SocketTracer::publish_contexts`].
    ///
    /// # Errors
    /// If the kernel cannot be told.
    pub fn publish_contexts_at_once(&self, at_once: bool) -> Result<(), KernelError> {
        self.published.as_ref().map_or(Ok(()), |published| published.set_at_once(at_once))
    }

    /// Tells them of requests that are open and whose ids will stay, as far as threads are at them and have not begun to
    /// answer. Returns which those are. One look at every thread of the host.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn publish_contexts(&self, requests: &[(RequestKey, Stamp)]) -> Result<Vec<RequestKey>, KernelError> {
        self.published.as_ref().map_or(Ok(Vec::new()), |published| published.publish(requests))
    }

    /// A request is over which this thread has read: they are told so, if the thread has not seen to that.
    pub fn withdraw_context(&self, pid: u32, tid: u32, span_id: SpanId) {
        if let Some(published) = &self.published {
            published.withdraw(pid, tid, span_id);
        }
    }

    fn attach(&self, name: &'static str) -> Result<Link, KernelError> {
        find_program(&self.socket, name)?
            .attach()
            .map_err(|error| KernelError::bpf(format!("attach {name}"), error))
    }

    /// Runs an iterator to its end in every network namespace: adds the connections that exist.
    fn list(&self, name: &'static str, listed: &mut Listed) -> Result<(), KernelError> {
        let link = find_program(&self.socket, name)?
            .attach()
            .map_err(|error| KernelError::bpf(format!("run {name}"), error))?;
        Self::list_with(&link, name, listed)
    }

    /// Likewise, of one that is attached.
    fn list_with(link: &Link, name: &'static str, listed: &mut Listed) -> Result<(), KernelError> {
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

    /// Stops following. Afterwards the counters are final and no event is added to the ring.
    pub fn stop(&mut self) {
        self.headers = None;
        self.links.clear();
    }

    /// Becomes readable when events should be fetched before the reader's own timer says so.
    #[must_use]
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.ring.poll_fd()
    }

    /// Up to where events are written or being written into the ring buffer, bytes since the beginning.
    #[must_use]
    pub fn written_position(&self) -> u64 {
        self.ring.written_position()
    }

    /// Up to where they were read.
    #[must_use]
    pub fn read_position(&self) -> u64 {
        self.ring.read_position()
    }

    /// Hands every event that waits to `on_event`. Returns how many there were. Records that cannot be
    /// decoded are counted in [`SocketCounters::malformed`].
    pub fn drain(&mut self, on_event: &mut dyn FnMut(SocketEvent)) -> usize {
        let malformed = &mut self.malformed;
        let mut events = 0;
        self.ring.drain(&mut |record| match socket_decoder::decode(record) {
            Some(event) => {
                events += 1;
                on_event(event);
            }
            None => *malformed += 1,
        });
        events
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
            // Most have no entry there.
            let _ = self.captures.delete(&id.to_ne_bytes());
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

    /// The maps in which the sampler finds who is at which request.
    ///
    /// # Errors
    /// If their descriptors cannot be duplicated.
    pub fn request_maps(&self) -> Result<RequestMaps, KernelError> {
        Ok(RequestMaps {
            threads: map_handle(&self.socket, "threads")?,
            goroutines: map_handle(&self.socket, "goroutines")?,
            go_http2_senders: map_handle(&self.socket, "go_http2_senders")?,
            go_processes: map_handle(&self.socket, "go_processes")?,
            go_code: map_handle(&self.socket, "go_code")?,
        })
    }

    /// The loaded object.
    pub(super) fn object(&self) -> &Object {
        &self.socket
    }

    /// Says that a process is a Go program, and how to find its goroutines. From then on its requests belong
    /// to goroutines and no longer to threads. With its code and what is added to its addresses in this
    /// process, goroutines also work for the requests of those that began them.
    ///
    /// # Errors
    /// If the kernel has no room for another process.
    pub fn set_go_process(
        &self,
        pid: u32,
        offsets: &GoroutineOffsets,
        code: Option<(&GoRequestCode, u64)>,
    ) -> Result<(), KernelError> {
        let cannot = |error| KernelError::bpf(format!("note that process {pid} is a Go program"), error);
        let mut process = sf_go_process {
            tls_offset: offsets.tls_offset,
            g_m: offsets.g_m,
            m_curg: offsets.m_curg,
            g_goid: offsets.g_goid,
            g_parent_goid: offsets.g_parent_goid.unwrap_or(0),
            g_start_pc: offsets.g_start_pc,
            m_p: offsets.m_p,
            p_goidcache: offsets.p_goidcache,
            ..sf_go_process::default()
        };
        if let Some((code, load_bias)) = code {
            let (ranges, senders, all) = code_ranges(code, load_bias);
            process.goroutine_ids = code.goroutine_ids.map_or(0, |at| at.0.wrapping_add(load_bias));
            process.http2_sender_ranges = senders;
            process.code_ranges = all;
            if let Some(grpc) = code.grpc {
                process.grpc_stream_is_pointer = u32::from(grpc.stream_is_pointer);
                process.grpc_stream_id = grpc.stream_id;
                process.grpc_server_conn = grpc.server_conn;
                process.grpc_writer_conn = grpc.writer_conn.unwrap_or(0);
            }
            find_map(&self.socket, "go_code")?
                .update(&pid.to_ne_bytes(), abi::bytes_of(&*ranges), MapFlags::ANY)
                .map_err(cannot)?;
        }
        find_map(&self.socket, "go_processes")?
            .update(&pid.to_ne_bytes(), abi::bytes_of(&process), MapFlags::ANY)
            .map_err(cannot)
    }

    /// Forgets a process that ended or became another program.
    pub fn remove_go_process(&self, pid: u32) {
        for name in ["go_processes", "go_code"] {
            if let Ok(map) = find_map(&self.socket, name) {
                // Not there is fine.
                let _ = map.delete(&pid.to_ne_bytes());
            }
        }
    }

    /// Leaves a process alone until it executes something else or ends, or follows it again.
    ///
    /// # Errors
    /// If the kernel has no room for another one.
    pub fn leave_alone(&self, pid: u32, is_left: bool) -> Result<(), KernelError> {
        let map = find_map(&self.socket, "left_alone")?;
        if !is_left {
            // Not there is fine.
            let _ = map.delete(&pid.to_ne_bytes());
            return Ok(());
        }
        map.update(&pid.to_ne_bytes(), &1_u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| KernelError::bpf(format!("leave process {pid} alone"), error))
    }

    /// Says how the event loops of a process go about their work, if that is known.
    ///
    /// # Errors
    /// If the kernel has no room for another one.
    pub fn set_event_loop(&self, pid: u32, event_loop: Option<EventLoop>) -> Result<(), KernelError> {
        let map = find_map(&self.socket, "event_loops")?;
        let how = match event_loop {
            Some(EventLoop::Prompt) => sf_event_loop::SF_EVENT_LOOP_PROMPT,
            Some(EventLoop::Turns) => sf_event_loop::SF_EVENT_LOOP_TURNS,
            None => {
                // Not there is fine.
                let _ = map.delete(&pid.to_ne_bytes());
                return Ok(());
            }
        };
        map.update(&pid.to_ne_bytes(), &how.0.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| KernelError::bpf(format!("note how process {pid} handles events"), error))
    }

    /// Says how much of a connection's fragments is to be captured from now on: of those on the wire, or of the
    /// plain ones inside of TLS. What was said of the others holds no more.
    ///
    /// # Errors
    /// If the kernel has no room for another connection that is not as all begin.
    pub fn set_capture(
        &self,
        connection: ConnectionId,
        is_decrypted: bool,
        capture: Capture,
    ) -> Result<(), KernelError> {
        let key = connection.0.to_ne_bytes();
        if let Some(headers) = self.headers.as_ref().filter(|_| is_decrypted || capture != Capture::Heads) {
            headers.release(connection);
        }
        let mode = match capture {
            Capture::Heads => {
                // Not there is fine: it means the same.
                let _ = self.captures.delete(&key);
                return Ok(());
            }
            Capture::Whole => sf_capture::SF_CAPTURE_WHOLE,
            Capture::Nothing => sf_capture::SF_CAPTURE_NOTHING,
        };
        let of = if is_decrypted { sf_capture::SF_CAPTURE_OF_DECRYPTED.0 } else { 0 };
        let code = mode.0 | of;
        self.captures
            .update(&key, &code.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| KernelError::bpf("say what to capture of a connection", error))?;
        // The kernel side takes the entry away when the connection ends, which may have been before this.
        if !matches!(self.connections.lookup(&key, MapFlags::ANY), Ok(Some(_))) {
            let _ = self.captures.delete(&key);
        }
        Ok(())
    }

    /// Processes that moved bytes of sockets without any system call of those that are looked at (`io_uring`), with
    /// how many they read and wrote so.
    #[must_use]
    pub fn unexplained(&self) -> Vec<(u32, [u64; 2])> {
        let Ok(map) = find_map(&self.socket, "unexplained") else { return Vec::new() };
        let number = |bytes: &[u8]| Some(u64::from_ne_bytes(bytes.try_into().ok()?));
        let of = |key: Vec<u8>| {
            let value = map.lookup(&key, MapFlags::ANY).ok()??;
            let bytes = [number(value.get(..8)?)?, number(value.get(8..16)?)?];
            Some((u32::from_ne_bytes(key.as_slice().try_into().ok()?), bytes))
        };
        map.keys().filter_map(of).collect()
    }

    /// The counters so far.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn counters(&self) -> Result<SocketCounters, KernelError> {
        let map = find_map(&self.socket, "socket_counters")?;
        let sum = |counter: sf_socket_counter| -> Result<u64, KernelError> {
            let per_cpu = map
                .lookup_percpu(&counter.0.to_ne_bytes(), MapFlags::ANY)
                .map_err(|error| KernelError::bpf("read the socket programs' counters", error))?;
            let values = per_cpu.unwrap_or_default();
            let numbers =
                values.iter().filter_map(|value| value.as_slice().try_into().ok().map(u64::from_ne_bytes));
            Ok(numbers.sum())
        };
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

fn not_published(error: &KernelError) {
    tracing::warn!("other profilers are not told which request a thread is at: {error}");
}

fn exclude_ports(map: &MapHandle, ports: &[u16]) -> Result<(), KernelError> {
    let mut words = vec![0_u64; socket_abi::PORT_WORDS];
    for &port in ports {
        if let Some(word) = words.get_mut(usize::from(port) / 64) {
            *word |= 1 << (port % 64);
        }
    }
    for (index, word) in (0_u32..).zip(&words).filter(|(_, word)| **word != 0) {
        map.update(&index.to_ne_bytes(), &word.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| KernelError::bpf("exclude ports", error))?;
    }
    Ok(())
}

/// Connections that exist, and where could not be looked.
#[derive(Debug, Default)]
struct Listed {
    connections: HashSet<u64>,
    /// Inode numbers of the network namespaces that were looked into.
    namespaces: HashSet<u64>,
    /// Of those that could not be.
    closed_namespaces: HashSet<u64>,
}

/// What an iterator lists in the network namespace of this thread.
pub(super) fn list_here(link: BorrowedFd<'_>) -> std::io::Result<HashSet<u64>> {
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
