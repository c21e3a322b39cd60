//! The programs at places in Go programs (bpf/go.bpf.c), and what they must know of each process.

use libbpf_rs::MapCore as _;
use spanflame_symbols::go::{GoPoint, GoRequestCode};

use super::socket_abi::{self, GO_OBJECT, GO_TLS_OBJECT, GoCode};
use super::tls_tracer::size_scratches;
use super::user_probes::{FileIdentity, ProbedFile, UserProbe, UserProbes, UserProbesStatus};
use super::{EbpfState, KernelError, SocketTracer};

/// The counters of the programs, summed over CPUs; see `enum sf_go_counter`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GoCounters {
    /// Streams whose goroutine became known.
    pub handlers: u64,
    /// Requests whose asking goroutine was seen.
    pub askers: u64,
    /// Goroutines found at a probe to work for who began them.
    pub inherited: u64,
    /// Calls whose connection was not found.
    pub lost_connection: u64,
}

/// See the module's description. Dropping it detaches everything.
#[derive(Debug)]
pub struct GoProbes {
    requests: UserProbes,
    tls: UserProbes,
}

impl GoProbes {
    /// Loads the programs. Nothing is attached yet.
    ///
    /// # Errors
    /// [`KernelError::NotPermitted`] names the missing capability; else what the kernel refused.
    pub fn load(socket: &SocketTracer) -> Result<Self, KernelError> {
        let of_tls = "the programs for Go's crypto/tls";
        Ok(Self {
            requests: UserProbes::load("the programs for Go", GO_OBJECT, socket)?,
            tls: UserProbes::load_with(of_tls, GO_TLS_OBJECT, socket, |object| {
                size_scratches(of_tls, object)
            })?,
        })
    }

    /// Attaches them to an executable, for all processes that run it. False: it has them already, or there is
    /// no place.
    ///
    /// # Errors
    /// What the kernel refused; nothing is attached then.
    pub fn attach(&mut self, file: &ProbedFile, code: &GoRequestCode) -> Result<bool, KernelError> {
        let chosen = |is_chosen: fn(GoPoint) -> bool| -> Vec<UserProbe> {
            let probes = code.probes.iter().filter(|probe| is_chosen(probe.point));
            probes.map(|probe| UserProbe { program: program(probe.point), at: probe.at, cookie: 0 }).collect()
        };
        let mut is_new = false;
        for (user_probes, probes) in
            [(&mut self.requests, chosen(|point| !is_of_tls(point))), (&mut self.tls, chosen(is_of_tls))]
        {
            if !probes.is_empty() {
                is_new |= user_probes.attach(file, &probes)?;
            }
        }
        Ok(is_new)
    }

    /// Takes the probes off all executables but those that `is_wanted` names.
    pub fn keep_only(&mut self, is_wanted: impl Fn(&FileIdentity) -> bool) {
        self.requests.keep_only(&is_wanted);
        self.tls.keep_only(&is_wanted);
    }

    /// Takes out the reads of processes that are no more: none of them will return.
    pub fn forget_reads(&self, lives: impl Fn(u32) -> bool) {
        let Ok(reads) = self.tls.map("go_reads") else { return };
        for key in reads.keys() {
            if socket_abi::process_of_goroutine(&key).is_some_and(|pid| !lives(pid)) {
                // Gone meanwhile is fine.
                let _ = reads.delete(&key);
            }
        }
    }

    /// Adds the programs and maps, as the kernel has them.
    pub fn add_ebpf(&self, state: &mut EbpfState) {
        state.extend([&self.requests, &self.tls].map(UserProbes::ebpf));
    }

    /// The executables with probes: those for requests, and those for TLS.
    #[must_use]
    pub fn status(&self) -> [UserProbesStatus; 2] {
        [&self.requests, &self.tls].map(UserProbes::status)
    }

    /// Kernel memory of the maps that are not the socket tracer's.
    #[must_use]
    pub fn map_bytes(&self) -> u64 {
        self.requests.map_bytes() + self.tls.map_bytes()
    }

    /// The counters so far.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn counters(&self) -> Result<GoCounters, KernelError> {
        let map = self.requests.map("go_counters")?;
        let [handlers, askers, inherited, lost_connection] = socket_abi::go_counters(&map)?;
        Ok(GoCounters { handlers, askers, inherited, lost_connection })
    }
}

fn is_of_tls(point: GoPoint) -> bool {
    matches!(point, GoPoint::TlsRead | GoPoint::TlsReadEnd | GoPoint::TlsWrite)
}

/// The program that looks there.
fn program(point: GoPoint) -> &'static str {
    match point {
        GoPoint::HttpClient => "on_go_http_client",
        GoPoint::Http2Client => "on_go_http2_client",
        GoPoint::Http2Handler => "on_go_http2_handler",
        GoPoint::GrpcHandler => "on_go_grpc_handler",
        GoPoint::GrpcFieldsMade => "on_go_grpc_fields_made",
        GoPoint::GrpcFieldsWritten => "on_go_grpc_fields_written",
        GoPoint::TlsRead => "on_go_tls_read",
        GoPoint::TlsReadEnd => "on_go_tls_read_end",
        GoPoint::TlsWrite => "on_go_tls_write",
    }
}

/// Where goroutines of a process begin that work for who began them: the ranges of the kernel side, how many
/// of them are of HTTP/2 senders, and how many there are in all.
#[must_use]
pub(super) fn code_ranges(code: &GoRequestCode, load_bias: u64) -> (Box<GoCode>, u32, u32) {
    let mut ranges = Box::new(GoCode::default());
    let places = ranges.ranges.len();
    let senders = code.http2_senders.len().min(places / 4);
    let all = code.http2_senders.iter().take(senders).chain(&code.own);
    let mut used = 0;
    for (place, range) in ranges.ranges.iter_mut().zip(all) {
        place.begin = range.begin.0.wrapping_add(load_bias);
        place.end = range.end.0.wrapping_add(load_bias);
        used += 1;
    }
    (ranges, u32::try_from(senders).unwrap_or(0), used)
}

#[cfg(test)]
mod tests {
    use spanflame_symbols::ElfAddress;
    use spanflame_symbols::go::CodeRange;

    use super::*;

    #[test]
    fn ranges_of_senders_come_before_own_ones_and_too_many_are_cut() {
        let range = |begin| CodeRange { begin: ElfAddress(begin), end: ElfAddress(begin + 16) };
        let code = GoRequestCode {
            own: (0..500).map(|index| range(0x1000 + 32 * index)).collect(),
            http2_senders: vec![range(0x500), range(0x600)],
            ..GoRequestCode::default()
        };
        let (ranges, senders, all) = code_ranges(&code, 0x10_0000);
        assert_eq!((senders, all as usize), (2, ranges.ranges.len()));
        assert_eq!((ranges.ranges[1].begin, ranges.ranges[1].end), (0x10_0600, 0x10_0610));
        assert_eq!(ranges.ranges[2].begin, 0x10_1000);
        let (_, senders, all) = code_ranges(&GoRequestCode::default(), 0);
        assert_eq!((senders, all), (0, 0));
    }
}
