//! Heads of HTTP/1 messages (RFC 9112): what they ask or answer, and how their body is framed.

use std::mem::MaybeUninit;

use super::super::fields::{FieldName, RequestFields, known};
use crate::trace::exchange::{Known, ProtocolVersion, RequestHead};

/// Fields that a head usually has at most; a head with more is parsed a second time.
const FEW_FIELDS: usize = 48;
/// Fields that a head may have at all.
const MANY_FIELDS: usize = 512;

/// How a body is framed, as its head says (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding` that ends in `chunked`.
    Chunked,
    /// Neither: a request has no body, a response's body ends with the connection.
    Unsaid,
    /// `Transfer-Encoding` that does not end in `chunked`: the body of a response ends with the connection.
    UntilClose,
    /// It contradicts itself, or may stand where nothing was captured.
    Unknown,
}

/// A request's head.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) head: RequestHead,
    pub(super) framing: Framing,
    /// `HEAD`: its response has no body whatever it says.
    pub(super) is_head: bool,
    /// `CONNECT`: if it succeeds, the connection speaks something else.
    pub(super) is_connect: bool,
}

/// A response's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) framing: Framing,
    /// `Upgrade: h2c`: if it is an upgrade, HTTP/2 follows.
    pub(super) names_http2: bool,
}

/// What became of parsing a head.
#[derive(Debug)]
pub(super) enum Parsed<Head> {
    /// It is so many bytes long.
    Complete(Head, usize),
    /// It goes on.
    Partial,
    /// That is no head.
    Malformed,
}

/// Parses a request's head at the beginning of `bytes`. Empty lines before it count as part of it.
pub(super) fn request(bytes: &[u8]) -> Parsed<Request> {
    match request_strictly(bytes, false) {
        Parsed::Malformed => {}
        parsed => return parsed,
    }
    // Folded lines and fields that are none: servers differ in what they bear, so it may be a request.
    let Some(end) = head_end(bytes, 0) else { return Parsed::Partial };
    let mut unfolded = bytes.get(..end).unwrap_or_default().to_vec();
    unfold(&mut unfolded);
    request_strictly(&unfolded, true)
}

fn request_strictly(bytes: &[u8], ignores_invalid_fields: bool) -> Parsed<Request> {
    let mut few = [const { MaybeUninit::uninit() }; FEW_FIELDS];
    match request_with(bytes, &mut few, ignores_invalid_fields) {
        Err(httparse::Error::TooManyHeaders) => {}
        Err(_) => return Parsed::Malformed,
        Ok(parsed) => return parsed,
    }
    let mut many = [const { MaybeUninit::uninit() }; MANY_FIELDS];
    request_with(bytes, &mut many, ignores_invalid_fields).unwrap_or(Parsed::Malformed)
}

fn request_with<'b>(
    bytes: &'b [u8],
    fields: &mut [MaybeUninit<httparse::Header<'b>>],
    ignores_invalid_fields: bool,
) -> Result<Parsed<Request>, httparse::Error> {
    let mut config = httparse::ParserConfig::default();
    config.ignore_invalid_headers_in_requests(ignores_invalid_fields);
    let mut parsed = httparse::Request::new(&mut []);
    let httparse::Status::Complete(length) =
        config.parse_request_with_uninit_headers(&mut parsed, bytes, fields)?
    else {
        return Ok(Parsed::Partial);
    };
    let method = parsed.method.unwrap_or_default();
    let target = parsed.path.unwrap_or_default();
    let is_connect = method == "CONNECT";
    let mut framing = FramingFields::default();
    let mut fields = RequestFields::default();
    for header in parsed.headers.iter() {
        match FieldName::of(header.name.as_bytes()) {
            FieldName::Other => {}
            FieldName::ContentLength => framing.content_length(header.value),
            FieldName::TransferEncoding => framing.transfer_encoding(header.value),
            name => fields.take(name, || known(header.value)),
        }
    }
    // A request whose coding is not chunked has no end that can be told: servers refuse it.
    let framing = match framing.framing() {
        Framing::UntilClose => Framing::Unknown,
        framing => framing,
    };
    let scheme = match target.split_once("://") {
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => Known::Value("http".into()),
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => Known::Value("https".into()),
        _ => Known::Absent,
    };
    let b3 = fields.b3();
    let head = RequestHead {
        version: if parsed.version == Some(0) { ProtocolVersion::Http10 } else { ProtocolVersion::Http11 },
        method: Known::Value(method.into()),
        target: if is_connect { Known::Absent } else { known(target.as_bytes()) },
        scheme,
        authority: if is_connect && fields.authority == Known::Absent {
            known(target.as_bytes())
        } else {
            fields.authority
        },
        user_agent: fields.user_agent,
        content_type: fields.content_type,
        traceparent: fields.traceparent,
        tracestate: fields.tracestate,
        b3,
    };
    Ok(Parsed::Complete(Request { is_head: method == "HEAD", is_connect, framing, head }, length))
}

/// What a request's head says whose end was not captured, from its complete lines: the fields that were
/// not seen are unknown. `None` if not even the request line is complete.
pub(super) fn request_before_hole(bytes: &[u8]) -> Option<Request> {
    let Parsed::Complete(mut request, _) = request(&lines_before_hole(bytes)?) else { return None };
    request.framing = Framing::Unknown;
    for field in [
        &mut request.head.authority,
        &mut request.head.user_agent,
        &mut request.head.content_type,
        &mut request.head.traceparent,
        &mut request.head.b3,
    ] {
        if *field == Known::Absent {
            *field = Known::Unknown;
        }
    }
    // There may be more of it in the part that is missing.
    request.head.tracestate = Known::Unknown;
    Some(request)
}

/// Parses a response's head at the beginning of `bytes`.
pub(super) fn response(bytes: &[u8]) -> Parsed<Response> {
    let mut few = [const { MaybeUninit::uninit() }; FEW_FIELDS];
    match response_with(bytes, &mut few) {
        Err(httparse::Error::TooManyHeaders) => {}
        Err(_) => return Parsed::Malformed,
        Ok(parsed) => return parsed,
    }
    let mut many = [const { MaybeUninit::uninit() }; MANY_FIELDS];
    response_with(bytes, &mut many).unwrap_or(Parsed::Malformed)
}

fn response_with<'b>(
    bytes: &'b [u8],
    fields: &mut [MaybeUninit<httparse::Header<'b>>],
) -> Result<Parsed<Response>, httparse::Error> {
    let mut config = httparse::ParserConfig::default();
    config
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .ignore_invalid_headers_in_responses(true);
    let mut parsed = httparse::Response::new(&mut []);
    let httparse::Status::Complete(length) =
        config.parse_response_with_uninit_headers(&mut parsed, bytes, fields)?
    else {
        return Ok(Parsed::Partial);
    };
    let mut framing = FramingFields::default();
    let mut names_http2 = false;
    for header in parsed.headers.iter() {
        match FieldName::of(header.name.as_bytes()) {
            FieldName::ContentLength => framing.content_length(header.value),
            FieldName::TransferEncoding => framing.transfer_encoding(header.value),
            FieldName::Upgrade => names_http2 |= header.value.trim_ascii().eq_ignore_ascii_case(b"h2c"),
            _ => {}
        }
    }
    let response =
        Response { status: parsed.code.unwrap_or_default(), framing: framing.framing(), names_http2 };
    Ok(Parsed::Complete(response, length))
}

/// What a response's head says whose end was not captured.
pub(super) fn response_before_hole(bytes: &[u8]) -> Option<Response> {
    match response(&lines_before_hole(bytes)?) {
        Parsed::Complete(response, _) => Some(Response { framing: Framing::Unknown, ..response }),
        Parsed::Partial | Parsed::Malformed => None,
    }
}

/// The complete lines of a head that is cut short, made a head of its own.
fn lines_before_hole(bytes: &[u8]) -> Option<Vec<u8>> {
    let end = bytes.iter().rposition(|&byte| byte == b'\n')? + 1;
    let mut lines = bytes.get(..end)?.to_vec();
    lines.extend_from_slice(b"\r\n");
    Some(lines)
}

/// Where the first head in `bytes` ends: behind its first empty line that does not precede it. What is
/// before `searched_from` has been searched already.
pub(super) fn head_end(bytes: &[u8], searched_from: usize) -> Option<usize> {
    let begin = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    // A line end right before may be the one that the empty line follows.
    let mut at = searched_from.saturating_sub(3).max(begin);
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == b'\n')? + 1;
        match bytes.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
}

/// Makes a folded line (RFC 9112 section 5.2) one line of the same length.
fn unfold(head: &mut [u8]) {
    for at in 0..head.len() {
        if head[at] == b'\n' && matches!(head.get(at + 1), Some(b' ' | b'\t')) {
            head[at] = b' ';
            if at > 0 && head[at - 1] == b'\r' {
                head[at - 1] = b' ';
            }
        }
    }
}

/// Whether a fragment that begins so may begin with a request line: a method in capital letters, a target
/// and a version, as far as it goes.
pub(in crate::trace) fn may_be_request(bytes: &[u8]) -> Likeness {
    const LONGEST_METHOD: usize = 24;
    const EMPTY_LINES: usize = 4;
    let empty_lines = bytes.iter().take(EMPTY_LINES).take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let bytes = bytes.get(empty_lines..).unwrap_or_default();
    let method =
        bytes.iter().take(LONGEST_METHOD + 1).take_while(|byte| matches!(byte, b'A'..=b'Z' | b'-')).count();
    let Some(after_method) = bytes.get(method..) else { return Likeness::No };
    match after_method.first() {
        None if method <= LONGEST_METHOD => return Likeness::Maybe,
        Some(b' ') if (1..=LONGEST_METHOD).contains(&method) => {}
        _ => return Likeness::No,
    }
    let target_and_more = after_method.get(1..).unwrap_or_default();
    let target = target_and_more.iter().take_while(|&&byte| byte > b' ' && byte != 0x7f).count();
    let after_target = target_and_more.get(target..).unwrap_or_default();
    if after_target.is_empty() {
        return Likeness::Maybe;
    }
    if target == 0 {
        return Likeness::No;
    }
    starts_with(after_target, b" HTTP/1.")
}

/// Whether a fragment that begins so may begin with a status line.
pub(in crate::trace) fn may_be_response(bytes: &[u8]) -> Likeness {
    starts_with(bytes, b"HTTP/1.")
}

/// Whether bytes start with these, as far as they go.
pub(in crate::trace) fn starts_with(bytes: &[u8], beginning: &[u8]) -> Likeness {
    if bytes.len() < beginning.len() {
        return if beginning.starts_with(bytes) { Likeness::Maybe } else { Likeness::No };
    }
    if bytes.starts_with(beginning) { Likeness::Yes } else { Likeness::No }
}

/// Whether bytes look like something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::trace) enum Likeness {
    /// They do.
    Yes,
    /// They do as far as they go.
    Maybe,
    /// They do not.
    No,
}

/// The fields that frame a body, each possibly several times.
#[derive(Default)]
struct FramingFields {
    length: Option<u64>,
    contradictory: bool,
    /// Whether the last coding is `chunked`.
    chunked: Option<bool>,
}

impl FramingFields {
    /// Digits; "5, 5" is 5 (RFC 9110 section 8.6).
    fn content_length(&mut self, value: &[u8]) {
        for part in value.split(|&byte| byte == b',') {
            let part = part.trim_ascii();
            let digits = part.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(part).ok().filter(|_| digits).and_then(|part| part.parse().ok());
            match (length, self.length) {
                (Some(length), None) => self.length = Some(length),
                (Some(length), Some(before)) if length == before => {}
                _ => self.contradictory = true,
            }
        }
    }

    fn transfer_encoding(&mut self, value: &[u8]) {
        if let Some(last) = value.rsplit(|&byte| byte == b',').map(<[u8]>::trim_ascii).find(|c| !c.is_empty())
        {
            self.chunked = Some(last.eq_ignore_ascii_case(b"chunked"));
        }
    }

    /// `Transfer-Encoding` overrides `Content-Length` (RFC 9112 section 6.3).
    fn framing(&self) -> Framing {
        match (self.chunked, self.length) {
            (Some(true), _) => Framing::Chunked,
            (Some(false), _) => Framing::UntilClose,
            (None, _) if self.contradictory => Framing::Unknown,
            (None, Some(length)) => Framing::Length(length),
            (None, None) => Framing::Unsaid,
        }
    }
}
