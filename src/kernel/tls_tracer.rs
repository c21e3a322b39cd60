//! The programs on TLS libraries (bpf/tls.bpf.c): where they are put, and what they count.

use libbpf_rs::{MapHandle, OpenObject};
use spanflame_symbols::FileOffset;

use super::bpf_object::{map_handle, sum_counter};
use super::introspection::EbpfState;
use super::run_statistics::RunStatistics;
use super::socket_abi::{SPARE_SCRATCHES, TLS_OBJECT, sf_tls_counter, sf_tls_function};
use super::user_probes::{FileIdentity, ProbedFile, UserProbe, UserProbes, UserProbesStatus};
use super::{KernelError, SocketTracer, cpus};

/// A function of a TLS library that says which plain bytes go over which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsFunction {
    /// `SSL_read`.
    Read,
    /// `SSL_read_ex`.
    ReadEx,
    /// `SSL_write`.
    Write,
    /// `SSL_write_ex`.
    WriteEx,
    /// `SSL_write_ex2` (OpenSSL 3.3).
    WriteEx2,
    /// `SSL_sendfile`.
    SendFile,
    /// `SSL_do_handshake`, `SSL_connect`, `SSL_accept`.
    Handshake,
    /// `SSL_free`.
    Free,
}

impl TlsFunction {
    /// The functions by their names.
    pub const NAMES: [(&'static str, Self); 10] = [
        ("SSL_read", Self::Read),
        ("SSL_read_ex", Self::ReadEx),
        ("SSL_write", Self::Write),
        ("SSL_write_ex", Self::WriteEx),
        ("SSL_write_ex2", Self::WriteEx2),
        ("SSL_sendfile", Self::SendFile),
        ("SSL_do_handshake", Self::Handshake),
        ("SSL_connect", Self::Handshake),
        ("SSL_accept", Self::Handshake),
        ("SSL_free", Self::Free),
    ];

    /// The programs on it, and the cookie that tells them which function it is.
    fn probes(self, at: FileOffset) -> Vec<UserProbe> {
        let function = match self {
            Self::Read => sf_tls_function::SF_TLS_READ,
            Self::ReadEx => sf_tls_function::SF_TLS_READ_EX,
            Self::Write => sf_tls_function::SF_TLS_WRITE,
            Self::WriteEx => sf_tls_function::SF_TLS_WRITE_EX,
            Self::WriteEx2 => sf_tls_function::SF_TLS_WRITE_EX2,
            Self::SendFile => sf_tls_function::SF_TLS_SENDFILE,
            Self::Handshake => sf_tls_function::SF_TLS_HANDSHAKE,
            Self::Free => return vec![UserProbe { program: "on_tls_free", at, cookie: 0 }],
        };
        let cookie = u64::from(function.0);
        // The return first: a call that begins between the two is seen to return without having begun, which
        // is counted; the other way round it would be there for ever.
        vec![
            UserProbe { program: "on_tls_return", at, cookie },
            UserProbe { program: "on_tls_call", at, cookie },
        ]
    }
}

/// The counters of the programs, summed over CPUs; see `enum sf_tls_counter`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct TlsCounters {
    pub reads: u64,
    pub writes: u64,
    pub bytes: u64,
    pub bound: u64,
    pub contradicted: u64,
    pub moved: u64,
    pub lost_unbound: u64,
    pub lost_gone: u64,
    pub lost_no_scratch: u64,
    pub lost_no_thread: u64,
    pub lost_depth: u64,
    pub lost_return: u64,
    pub lost_no_room: u64,
}

/// The loaded programs. They share the socket tracer's maps and ring buffer; what they see comes from
/// [`SocketTracer::drain`].
#[derive(Debug)]
pub struct TlsTracer {
    probes: UserProbes,
    counters: MapHandle,
}

impl TlsTracer {
    /// Loads the programs. They run nowhere before [`Self::attach`].
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn load(socket: &SocketTracer) -> Result<Self, KernelError> {
        let what = "the programs on TLS libraries";
        let probes = UserProbes::load_with(what, TLS_OBJECT, socket, |object| size_scratches(what, object))?;
        Ok(Self { counters: map_handle(socket.object(), "tls_counters")?, probes })
    }

    /// Follows what goes through these functions of a file, for every process. True: it did not before.
    ///
    /// # Errors
    /// What the kernel refused; counted in [`Self::status`].
    pub fn attach(
        &mut self,
        file: &ProbedFile,
        functions: &[(TlsFunction, FileOffset)],
    ) -> Result<bool, KernelError> {
        let probes: Vec<UserProbe> =
            functions.iter().flat_map(|(function, at)| function.probes(*at)).collect();
        self.probes.attach(file, &probes)
    }

    /// See [`UserProbes::is_attached`].
    #[must_use]
    pub fn is_attached(&self, file: &FileIdentity) -> bool {
        self.probes.is_attached(file)
    }

    /// See [`UserProbes::keep_only`].
    pub fn keep_only(&mut self, is_wanted: impl FnMut(&FileIdentity) -> bool) {
        self.probes.keep_only(is_wanted);
    }

    /// The files that are followed.
    #[must_use]
    pub fn status(&self) -> UserProbesStatus {
        self.probes.status()
    }

    /// The counters so far.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn counters(&self) -> Result<TlsCounters, KernelError> {
        let sum =
            |counter: sf_tls_counter| sum_counter(&self.counters, counter.0, "the programs on TLS libraries");
        Ok(TlsCounters {
            reads: sum(sf_tls_counter::SF_TLS_COUNTER_READS)?,
            writes: sum(sf_tls_counter::SF_TLS_COUNTER_WRITES)?,
            bytes: sum(sf_tls_counter::SF_TLS_COUNTER_BYTES)?,
            bound: sum(sf_tls_counter::SF_TLS_COUNTER_BOUND)?,
            contradicted: sum(sf_tls_counter::SF_TLS_COUNTER_CONTRADICTED)?,
            moved: sum(sf_tls_counter::SF_TLS_COUNTER_MOVED)?,
            lost_unbound: sum(sf_tls_counter::SF_TLS_COUNTER_LOST_UNBOUND)?,
            lost_gone: sum(sf_tls_counter::SF_TLS_COUNTER_LOST_GONE)?,
            lost_no_scratch: sum(sf_tls_counter::SF_TLS_COUNTER_LOST_NO_SCRATCH)?,
            lost_no_thread: sum(sf_tls_counter::SF_TLS_COUNTER_LOST_NO_THREAD)?,
            lost_depth: sum(sf_tls_counter::SF_TLS_COUNTER_LOST_DEPTH)?,
            lost_return: sum(sf_tls_counter::SF_TLS_COUNTER_LOST_RETURN)?,
            lost_no_room: sum(sf_tls_counter::SF_TLS_COUNTER_LOST_NO_ROOM)?,
        })
    }

    /// Adds what the programs cost since programs are measured.
    pub fn add_run_statistics(&self, statistics: &mut RunStatistics) {
        self.probes.add_run_statistics(statistics);
    }

    /// Kernel memory of the maps that are not the socket tracer's.
    #[must_use]
    pub fn map_bytes(&self) -> u64 {
        self.probes.map_bytes()
    }

    /// The programs and the maps that are not the socket tracer's, as the kernel has them.
    #[must_use]
    pub fn ebpf(&self) -> EbpfState {
        self.probes.ebpf()
    }
}

/// Gives an object's programs memory in which plain bytes are put together, one for each CPU and some more.
pub(super) fn size_scratches(what: &str, object: &mut OpenObject) -> Result<(), KernelError> {
    let scratches = cpus::online()?.last().map_or(1, |last| last + 1) + SPARE_SCRATCHES;
    for mut map in object.maps_mut().filter(|map| map.name() == "plain_scratch") {
        map.set_max_entries(scratches).map_err(|error| KernelError::bpf(format!("prepare {what}"), error))?;
    }
    Ok(())
}
