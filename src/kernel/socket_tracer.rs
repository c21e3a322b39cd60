//! Loads the socket programs, starts and stops them, hands on what they send.

mod contexts;
mod listing;
mod processes;
mod state;

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use libbpf_rs::libbpf_sys::{BPF_TRACE_RAW_TP, libbpf_find_vmlinux_btf_id};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object, ProgramInput};

use self::listing::Listed;
pub(super) use self::listing::list_here;
pub use self::processes::EventLoop;
pub use self::state::SocketCounters;
use super::bpf_object::{find_map, find_program, forward_libbpf_messages, map_handle, open_object};
use super::context_propagation::ContextPropagation;
use super::event_ring::EventRing;
use super::http_header::HttpHeaders;
use super::published_contexts::{ContextsMap, Pin, PublishedContexts};
use super::sampler::{self, RequestMaps};
use super::socket_abi::{self, SOCKET_OBJECT, sf_capture, sf_socket_config};
use super::{KernelError, abi, cpus, shared_contexts, socket_decoder};
use crate::model::socket::{Capture, ConnectionId, SocketEvent};

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

/// Programs that count what `io_uring` moves, by the tracepoint that older kernels lack.
const IO_URING_PROGRAMS: [(&str, &CStr); 2] =
    [("on_sent", c"sock_send_length"), ("on_received", c"sock_recv_length")];

/// Loaded only if some processes are left alone.
const PROCESS_END: &str = "on_process_end";

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

    fn attach(&self, name: &'static str) -> Result<Link, KernelError> {
        find_program(&self.socket, name)?
            .attach()
            .map_err(|error| KernelError::bpf(format!("attach {name}"), error))
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

    /// Says how much of a connection's fragments is to be captured from now on: of those on the wire, or of the
    /// plain ones inside of TLS. What was said of the others holds no more. A connection that has ended is none.
    ///
    /// # Errors
    /// If the kernel refuses to run what says so.
    pub fn set_capture(
        &self,
        connection: ConnectionId,
        is_decrypted: bool,
        capture: Capture,
    ) -> Result<(), KernelError> {
        if let Some(headers) = self.headers.as_ref().filter(|_| is_decrypted || capture != Capture::Heads) {
            headers.release(connection);
        }
        let mode = match capture {
            Capture::Heads => sf_capture::SF_CAPTURE_HEADS,
            Capture::Whole => sf_capture::SF_CAPTURE_WHOLE,
            Capture::Nothing => sf_capture::SF_CAPTURE_NOTHING,
        };
        let of = if is_decrypted { sf_capture::SF_CAPTURE_OF_DECRYPTED.0 } else { 0 };
        let mut arguments = [connection.0.to_ne_bytes(), u64::from(mode.0 | of).to_ne_bytes()];
        let input =
            ProgramInput { context_in: Some(arguments.as_flattened_mut()), ..ProgramInput::default() };
        find_program(&self.socket, "set_capture")?
            .test_run(input)
            .map(drop)
            .map_err(|error| KernelError::bpf("say what to capture of a connection", error))
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
