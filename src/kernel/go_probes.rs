//! The programs at places in Go programs (bpf/go.bpf.c), and what they must know of each process.

use spanflame_symbols::go::{GoPoint, GoRequestCode};

use super::socket_abi::{GO_OBJECT, GoCode};
use super::user_probes::{ProbedFile, UserProbe, UserProbes};
use super::{KernelError, SocketTracer};

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
    probes: UserProbes,
}

impl GoProbes {
    /// Loads the programs. Nothing is attached yet.
    ///
    /// # Errors
    /// [`KernelError::NotPermitted`] names the missing capability; else what the kernel refused.
    pub fn load(socket: &SocketTracer) -> Result<Self, KernelError> {
        Ok(Self { probes: UserProbes::load("the programs for Go", GO_OBJECT, socket)? })
    }

    /// Attaches them to an executable, for all processes that run it. False: it has them already, or there is
    /// no place.
    ///
    /// # Errors
    /// What the kernel refused; nothing is attached then.
    pub fn attach(&mut self, file: &ProbedFile, code: &GoRequestCode) -> Result<bool, KernelError> {
        let probes: Vec<UserProbe> = code
            .probes
            .iter()
            .filter_map(|probe| Some(UserProbe { program: program(probe.point)?, at: probe.at, cookie: 0 }))
            .collect();
        if probes.is_empty() {
            return Ok(false);
        }
        self.probes.attach(file, &probes)
    }

    /// How probes of executables are asked for, and told of.
    #[must_use]
    pub fn user_probes(&self) -> &UserProbes {
        &self.probes
    }

    /// Likewise.
    pub fn user_probes_mut(&mut self) -> &mut UserProbes {
        &mut self.probes
    }

    /// The counters so far.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn counters(&self) -> Result<GoCounters, KernelError> {
        let map = self.probes.map("go_counters")?;
        let [handlers, askers, inherited, lost_connection] = super::socket_abi::go_counters(&map)?;
        Ok(GoCounters { handlers, askers, inherited, lost_connection })
    }
}

/// The program that looks there.
fn program(point: GoPoint) -> Option<&'static str> {
    match point {
        GoPoint::HttpClient => Some("on_go_http_client"),
        GoPoint::Http2Client => Some("on_go_http2_client"),
        GoPoint::Http2Handler => Some("on_go_http2_handler"),
        GoPoint::GrpcHandler => Some("on_go_grpc_handler"),
        GoPoint::GrpcFieldsMade => Some("on_go_grpc_fields_made"),
        GoPoint::GrpcFieldsWritten => Some("on_go_grpc_fields_written"),
        GoPoint::TlsRead | GoPoint::TlsReadEnd | GoPoint::TlsWrite => None,
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
