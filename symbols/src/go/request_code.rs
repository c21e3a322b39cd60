//! Where a Go program works on requests: the functions at whose beginning or end goroutines change hands, and
//! the code whose goroutines work for whoever began them.
//!
//! A request that is sent or answered is often not moved by the goroutine that works on it. Where it is handed
//! over, the registers say which connection, stream and goroutine it is (Go's register ABI, from Go 1.17 on:
//! RAX, RBX, RCX, RDI, RSI, R8 hold the first words of the arguments, RAX and RBX those of the results):
//!
//! ```text
//! net/http.(*persistConn).roundTrip(pc, …)          in the asking goroutine; another one writes
//! …http2ClientConn).RoundTrip(cc, req)              likewise (roundTrip from Go 1.23)
//! …http2serverConn).runHandler(sc, rw, …)           in the goroutine of one stream
//! grpc.(*Server).handleStream(s, transport, stream) likewise
//! …(*http2Client).createHeaderFields(…) fields      in the asking goroutine, at its end
//! …(*loopyWriter).writeHeader(l, stream, _, fields) in the goroutine that writes for all streams
//! crypto/tls.(*Conn).Read(c, b), Write(c, b)        plain bytes
//! ```
//!
//! **Where to look.** Behind the check for a larger stack: a function whose stack must grow begins anew, and
//! would be seen twice. Ends are `ret` instructions, found by decoding the function: a return probe changes
//! the return address, which Go's stack walks do not bear.
//!
//! **Own code.** A goroutine works for the request within which it was begun if the program itself began it:
//! its first function is of the program's own module, or one that starts others' functions
//! (`errgroup`, `sync.WaitGroup.Go`). What libraries begin may be shared by all requests, and the
//! runtime begins its collector's workers wherever it happens to be; none of these are listed.
//!
//! Offsets in structs of net/http, crypto/tls, net and internal/poll are the same from Go 1.18 to 1.26, by the
//! DWARF of programs built with each release; they stand in `bpf/go.bpf.c`. Those of gRPC are by its version,
//! see [`GrpcOffsets`].

use iced_x86::{Decoder, DecoderOptions, Mnemonic};

use super::build_info::BuildInfo;
use super::goroutine_ids;
use super::goroutines::p_goidcache;
use super::symbols::read_table;
use super::text::{Text, without_abi};
use crate::object_file::Machine;
use crate::{ElfAddress, FileOffset, ObjectError, ObjectFile};

/// Largest function that is looked at for its ends.
const MAX_FUNCTION_BYTES: usize = 64 << 10;
/// Instructions within which the check for a larger stack ends.
const MAX_PROLOGUE_INSTRUCTIONS: usize = 8;
/// Pieces of own code that are told; the longest ones where there are more.
pub const MAX_CODE_RANGES: usize = 128;

/// Minor versions of Go whose structs are known.
const VERSIONS: std::ops::RangeInclusive<u32> = 18..=26;
const GRPC: &str = "google.golang.org/grpc";

/// What the kernel side is to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GoPoint {
    /// HTTP/1: a request is about to be sent.
    HttpClient,
    /// HTTP/2 of net/http and golang.org/x/net: likewise.
    Http2Client,
    /// HTTP/2 of the same: a handler begins.
    Http2Handler,
    /// gRPC: a handler begins.
    GrpcHandler,
    /// gRPC: the fields of a request were made, by the goroutine that asks.
    GrpcFieldsMade,
    /// gRPC: fields are about to be written to a stream.
    GrpcFieldsWritten,
    /// crypto/tls: plain bytes are to be read.
    TlsRead,
    /// crypto/tls: they were.
    TlsReadEnd,
    /// crypto/tls: plain bytes are to be written.
    TlsWrite,
}

/// A place in an executable's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoProbe {
    /// What happens there.
    pub point: GoPoint,
    /// Where the instruction begins.
    pub at: FileOffset,
}

/// Some code, from its first byte to behind its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeRange {
    /// First byte.
    pub begin: ElfAddress,
    /// Behind the last one.
    pub end: ElfAddress,
}

/// Offsets in structs of `google.golang.org/grpc/internal/transport`, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcOffsets {
    /// What `handleStream` is given, a `ServerStream`, begins with a pointer to the `Stream`; else it is
    /// one, or begins with one.
    pub stream_is_pointer: bool,
    /// `Stream.id`.
    pub stream_id: u32,
    /// `http2Server.conn`.
    pub server_conn: u32,
    /// `loopyWriter.conn`; `None` in versions that do not have it.
    pub writer_conn: Option<u32>,
}

/// See the module's description.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GoRequestCode {
    /// In order of place.
    pub probes: Vec<GoProbe>,
    /// Where goroutines begin that work for who began them. In order, without overlaps.
    pub own: Vec<CodeRange>,
    /// Where those begin that send one HTTP/2 request for who began them. Likewise.
    pub http2_senders: Vec<CodeRange>,
    /// `runtime.sched.goidgen`, the last goroutine id of those that were given out to processors, as the code
    /// says that gives them, else the symbol table. `None`: neither does.
    pub goroutine_ids: Option<ElfAddress>,
    /// If gRPC is linked in, in a version that is known.
    pub grpc: Option<GrpcOffsets>,
}

/// What a function is, by its name.
enum Kind {
    Point(GoPoint),
    /// The work of an HTTP/2 client: in `RoundTrip`, or from Go 1.23 on in `roundTrip`, which that calls.
    RoundTrip {
        client: usize,
        is_inner: bool,
    },
    Own,
    Http2Sender,
    GivesIds,
    Other,
}

/// The functions of each HTTP/2 client of which one is the one to look at.
#[derive(Default)]
struct RoundTrips([Option<(bool, CodeRange)>; HTTP2_CLIENTS.len()]);

impl RoundTrips {
    fn add(&mut self, client: usize, is_inner: bool, range: CodeRange) {
        if let Some(known) = self.0.get_mut(client)
            && (is_inner || known.is_none())
        {
            *known = Some((is_inner, range));
        }
    }

    fn chosen(self) -> impl Iterator<Item = CodeRange> {
        self.0.into_iter().flatten().map(|(_, range)| range)
    }
}

impl GoRequestCode {
    /// Of an executable; `None` if it is no Go program, or its functions cannot be found. O(functions).
    ///
    /// # Errors
    /// [`ObjectError`] if it cannot be read, or its pclntab is damaged.
    pub fn read(object: &ObjectFile) -> Result<Option<Self>, ObjectError> {
        if object.machine() != Machine::X86_64 {
            return Ok(None);
        }
        let Some(info) = BuildInfo::read(object)? else { return Ok(None) };
        // Of a version that is not known nothing is.
        let minor = info.minor_version().filter(|minor| VERSIONS.contains(minor));
        let Some(p_goidcache) = minor.and_then(p_goidcache) else { return Ok(None) };
        Self::of(object, &info, p_goidcache)
    }

    fn of(object: &ObjectFile, info: &BuildInfo, p_goidcache: u32) -> Result<Option<Self>, ObjectError> {
        let Some((table, _, text_start)) = read_table(object)? else { return Ok(None) };
        let grpc = info.version_of(GRPC).and_then(grpc_offsets);
        let namer = Namer::new(info);
        let mut round_trips = RoundTrips::default();
        let mut code = Self { grpc, ..Self::default() };
        let mut text = Text::new(object);
        for index in 0..table.functions() {
            let Some(function) = table.function(index) else { continue };
            let Some(name) = function.name() else { continue };
            let Some(begin) = text_start.checked_add(u64::from(function.entry)) else { continue };
            let Some(end) = begin.checked_add(u64::from(function.bytes)) else { continue };
            let range = CodeRange { begin, end };
            match namer.kind(without_abi(&name)) {
                Kind::Other => {}
                Kind::Own => add(&mut code.own, range),
                Kind::Http2Sender => add(&mut code.http2_senders, range),
                Kind::Point(point) => code.watch(object, &mut text, point, range),
                Kind::GivesIds => {
                    code.goroutine_ids = function_bytes(&mut text, range)
                        .and_then(|bytes| goroutine_ids::in_code(bytes, range.begin, p_goidcache));
                }
                Kind::RoundTrip { client, is_inner } => round_trips.add(client, is_inner, range),
            }
        }
        for range in round_trips.chosen() {
            code.watch(object, &mut text, GoPoint::Http2Client, range);
        }
        if code.goroutine_ids.is_none() {
            code.goroutine_ids = goroutine_ids::in_symbols(object)?;
        }
        code.keep_whole();
        code.probes.sort_by_key(|probe| probe.at);
        while code.own.len() > MAX_CODE_RANGES {
            let bytes = |range: &CodeRange| range.end.0 - range.begin.0;
            let shortest = code.own.iter().enumerate().min_by_key(|(_, range)| bytes(range));
            let Some((index, _)) = shortest else { break };
            code.own.remove(index);
        }
        Ok(Some(code))
    }

    fn watch(&mut self, object: &ObjectFile, text: &mut Text<'_>, point: GoPoint, of: CodeRange) {
        let Some(bytes) = function_bytes(text, of) else { return };
        let begin = of.begin;
        let mut add = |point, offset: u64| {
            let place = begin.checked_add(offset).and_then(|at| object.loaded_range(at, 1).ok());
            if let Some((at, _)) = place {
                self.probes.push(GoProbe { point, at });
            }
        };
        match point {
            GoPoint::GrpcFieldsMade => {
                for end in ends(bytes).unwrap_or_default() {
                    add(point, end);
                }
            }
            GoPoint::TlsRead => {
                let Some(ends) = ends(bytes) else { return };
                add(point, behind_stack_check(bytes));
                for end in ends {
                    add(GoPoint::TlsReadEnd, end);
                }
            }
            _ => add(point, behind_stack_check(bytes)),
        }
    }

    /// Points that mean nothing without another are left out.
    fn keep_whole(&mut self) {
        let has = |point: GoPoint| self.probes.iter().any(|probe| probe.point == point);
        let grpc_client = self.grpc.is_some_and(|grpc| grpc.writer_conn.is_some())
            && has(GoPoint::GrpcFieldsMade)
            && has(GoPoint::GrpcFieldsWritten);
        let grpc = self.grpc.is_some();
        let http2_client = !self.http2_senders.is_empty();
        self.probes.retain(|probe| match probe.point {
            GoPoint::GrpcFieldsMade | GoPoint::GrpcFieldsWritten => grpc_client,
            GoPoint::GrpcHandler => grpc,
            GoPoint::Http2Client => http2_client,
            _ => true,
        });
    }
}

/// The code of a function; `None` if it is not there, or unusually long.
fn function_bytes<'a>(text: &'a mut Text<'_>, of: CodeRange) -> Option<&'a [u8]> {
    let length =
        usize::try_from(of.end.0 - of.begin.0).ok().filter(|length| *length <= MAX_FUNCTION_BYTES)?;
    text.bytes(of.begin, length)
}

/// Adds a range that begins where the last one ends, or behind it.
fn add(ranges: &mut Vec<CodeRange>, range: CodeRange) {
    match ranges.last_mut() {
        Some(last) if last.end == range.begin => last.end = range.end,
        _ => ranges.push(range),
    }
}

/// Tells functions by their names.
struct Namer {
    /// How names of the program's own module begin.
    own: Vec<Vec<u8>>,
}

/// Modules whose goroutines are nobody's even where one of their own commands is looked at.
const LIBRARIES: [&[u8]; 3] = [b"google.golang.org/grpc", b"golang.org/x/", b"google.golang.org/protobuf"];
/// They run the functions that they are given.
const STARTERS: [&[u8]; 3] = [
    b"golang.org/x/sync/errgroup.(*Group).Go.",
    b"golang.org/x/sync/errgroup.(*Group).TryGo.",
    b"sync.(*WaitGroup).Go.",
];
const HTTP2_CLIENTS: [&[u8]; 2] = [b"net/http.(*http2ClientConn).", b"golang.org/x/net/http2.(*ClientConn)."];

impl Namer {
    fn new(info: &BuildInfo) -> Self {
        let mut own = vec![b"main.".to_vec()];
        let module = info.own_module().map(str::as_bytes);
        if let Some(module) = module.filter(|module| !LIBRARIES.iter().any(|of| module.starts_with(of))) {
            own.push([module, b"/"].concat());
            own.push([&escaped(module)[..], b"."].concat());
        }
        Self { own }
    }

    fn kind(&self, name: &[u8]) -> Kind {
        let point = match name {
            b"net/http.(*persistConn).roundTrip" => GoPoint::HttpClient,
            b"net/http.(*http2serverConn).runHandler"
            | b"golang.org/x/net/http2.(*serverConn).runHandler" => GoPoint::Http2Handler,
            b"google.golang.org/grpc.(*Server).handleStream" => GoPoint::GrpcHandler,
            b"google.golang.org/grpc/internal/transport.(*http2Client).createHeaderFields" => {
                GoPoint::GrpcFieldsMade
            }
            b"google.golang.org/grpc/internal/transport.(*loopyWriter).writeHeader" => {
                GoPoint::GrpcFieldsWritten
            }
            b"crypto/tls.(*Conn).Read" => GoPoint::TlsRead,
            b"crypto/tls.(*Conn).Write" => GoPoint::TlsWrite,
            goroutine_ids::GIVER => return Kind::GivesIds,
            _ => return self.kind_by_beginning(name),
        };
        Kind::Point(point)
    }

    fn kind_by_beginning(&self, name: &[u8]) -> Kind {
        for (client, prefix) in HTTP2_CLIENTS.iter().enumerate() {
            let Some(method) = name.strip_prefix(*prefix) else { continue };
            return match method {
                b"roundTrip" => Kind::RoundTrip { client, is_inner: true },
                b"RoundTrip" => Kind::RoundTrip { client, is_inner: false },
                // What begins in there is `go cs.doRequest(…)`, by several names.
                _ if method.starts_with(b"roundTrip.") || method.starts_with(b"RoundTrip.") => {
                    Kind::Http2Sender
                }
                _ => Kind::Other,
            };
        }
        let is_own = self.own.iter().any(|own| name.starts_with(own));
        if is_own || STARTERS.iter().any(|starter| name.starts_with(starter)) {
            Kind::Own
        } else {
            Kind::Other
        }
    }
}

/// A package's path as it stands in names of functions: dots of its last element are written out
/// (`objabi.PathToPrefix`).
fn escaped(path: &[u8]) -> Vec<u8> {
    let last = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let mut text = Vec::new();
    for (index, &byte) in path.iter().enumerate() {
        if index >= last && byte == b'.' || byte <= b' ' || byte == b'%' || byte == b'"' || byte >= 0x7f {
            text.extend(format!("%{byte:02x}").bytes());
        } else {
            text.push(byte);
        }
    }
    text
}

/// Where a function begins its work, in bytes: behind the check whether its stack must grow.
fn behind_stack_check(code: &[u8]) -> u64 {
    let decoder = Decoder::new(64, code, DecoderOptions::NONE);
    let mut prologue = decoder.into_iter().take(MAX_PROLOGUE_INSTRUCTIONS);
    prologue.find(|instruction| instruction.mnemonic() == Mnemonic::Jbe).map_or(0, |check| check.next_ip())
}

/// Where a function's `ret` instructions are. `None` if its code cannot be decoded.
fn ends(code: &[u8]) -> Option<Vec<u64>> {
    let mut ends = Vec::new();
    for instruction in Decoder::new(64, code, DecoderOptions::NONE) {
        if instruction.is_invalid() {
            return None;
        }
        if instruction.mnemonic() == Mnemonic::Ret {
            ends.push(instruction.ip());
        }
    }
    Some(ends).filter(|ends| !ends.is_empty())
}

/// By the structs' definitions in releases on both sides of each change (1.40 … 1.83), and by the DWARF of a
/// program with 1.83.
fn grpc_offsets(version: &str) -> Option<GrpcOffsets> {
    let mut numbers = version.strip_prefix("v1.")?.split('.');
    let minor: u32 = numbers.next()?.parse().ok()?;
    let (stream_is_pointer, stream_id) = match minor {
        40..=68 => (false, 0),
        69..=76 => (true, 0),
        77..=83 => (false, 108),
        _ => return None,
    };
    Some(GrpcOffsets {
        stream_is_pointer,
        stream_id,
        server_conn: if minor < 60 { 32 } else { 16 },
        writer_conn: (minor >= 54).then_some(80),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_looked_at_behind_its_stack_check() {
        // cmp rsp, [r14+16]; jbe +9; push rbp
        assert_eq!(behind_stack_check(&[0x49, 0x3b, 0x66, 0x10, 0x76, 9, 0x55, 0xc3]), 6);
        // lea r12, [rsp-0x1a8]; cmp r12, [r14+16]; jbe +0xe68; push rbp
        let large = [
            0x4c, 0x8d, 0xa4, 0x24, 0x58, 0xfe, 0xff, 0xff, 0x4d, 0x3b, 0x66, 0x10, 0x0f, 0x86, 0x68, 0xe, 0,
            0, 0x55,
        ];
        assert_eq!(behind_stack_check(&large), 18);
        assert_eq!(behind_stack_check(&[0x55, 0xc3]), 0, "one that checks nothing");
        assert_eq!(behind_stack_check(&[]), 0);
    }

    #[test]
    fn ends_are_returns_and_not_bytes_that_look_so() {
        // mov eax, 0xc3c3; ret; xchg ax, ax; ret; int3
        let code = [0xb8, 0xc3, 0xc3, 0, 0, 0xc3, 0x66, 0x90, 0xc3, 0xcc];
        assert_eq!(ends(&code), Some(vec![5, 8]));
        assert_eq!(ends(&[0x90]), None, "none");
        assert_eq!(ends(&[0xc3, 0x06]), None, "what is no instruction");
    }

    #[test]
    fn functions_are_told_by_their_names() {
        let namer = Namer { own: vec![b"main.".to_vec(), b"example.org/shop/".to_vec()] };
        let is_own = |name: &[u8]| matches!(namer.kind(name), Kind::Own);
        assert!(is_own(b"main.handle.func1") && is_own(b"example.org/shop/orders.(*Service).Get.gowrap1"));
        assert!(
            is_own(b"golang.org/x/sync/errgroup.(*Group).Go.func1") && is_own(b"sync.(*WaitGroup).Go.func1")
        );
        for library in [
            &b"runtime.gcBgMarkWorker"[..],
            b"net/http.(*Transport).dialConn.gowrap2",
            b"google.golang.org/grpc/internal/transport.NewHTTP2Client.func6",
            b"database/sql.(*DB).connectionOpener",
            b"golang.org/x/sync/singleflight.(*Group).DoChan.gowrap1",
            b"example.org/shopping.f",
        ] {
            assert!(matches!(namer.kind(library), Kind::Other), "{}", String::from_utf8_lossy(library));
        }
        let sender = b"net/http.(*http2ClientConn).roundTrip.gowrap1";
        assert!(matches!(namer.kind(sender), Kind::Http2Sender));
        assert!(matches!(
            namer.kind(b"net/http.(*http2ClientConn).RoundTrip"),
            Kind::RoundTrip { client: 0, is_inner: false }
        ));
    }

    #[test]
    fn dots_of_a_path_s_last_element_are_written_out() {
        assert_eq!(escaped(b"gopkg.in/yaml.v3"), b"gopkg.in/yaml%2ev3");
        assert_eq!(escaped(b"example.org"), b"example%2eorg");
        assert_eq!(escaped(b"example.org/shop"), b"example.org/shop");
    }

    #[test]
    fn offsets_of_grpc_change_with_its_versions() {
        let of =
            |version| grpc_offsets(version).map(|of| (of.stream_is_pointer, of.stream_id, of.server_conn));
        assert_eq!(of("v1.59.0"), Some((false, 0, 32)));
        assert_eq!(of("v1.60.0"), Some((false, 0, 16)));
        assert_eq!(of("v1.69.4"), Some((true, 0, 16)));
        assert_eq!(of("v1.83.1-dev"), Some((false, 108, 16)));
        assert_eq!(of("v1.84.0"), None);
        assert_eq!(of("v2.0.0"), None);
        assert_eq!(grpc_offsets("v1.53.0").and_then(|of| of.writer_conn), None);
    }

    #[test]
    fn pieces_that_touch_are_one() {
        let range = |begin, end| CodeRange { begin: ElfAddress(begin), end: ElfAddress(end) };
        let mut ranges = vec![];
        for (begin, end) in [(0, 16), (16, 32), (48, 64)] {
            add(&mut ranges, range(begin, end));
        }
        assert_eq!(ranges, [range(0, 32), range(48, 64)]);
    }
}
