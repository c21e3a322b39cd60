//! Names and attributes of spans: OpenTelemetry's stable conventions for HTTP and RPC (semantic conventions
//! 1.38, `http/http-spans.md`, `rpc/grpc.md`), those of the seed documents that came before them, or both.
//!
//! What is unknown is left out; where a reader would expect it, `spanflame.unknown` says that it was sent and
//! could not be read.

use std::borrow::Cow;
use std::net::IpAddr;

use compact_str::ToCompactString as _;

use super::exchange::{Ended, Failure, Known, ProtocolVersion, RequestHead};
use super::route;
use crate::model::SpanStatus;
use crate::model::socket::{Direction, Endpoint, Opened};
use crate::model::span::{Attribute, AttributeValue, Text};

/// Names of attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conventions {
    /// OpenTelemetry's stable ones.
    #[default]
    Stable,
    /// Those before them: `http.method`, `net.peer.ip`.
    Seed,
    /// Both beside each other.
    Both,
}

impl Conventions {
    fn has_stable(self) -> bool {
        self != Self::Seed
    }

    fn has_seed(self) -> bool {
        self != Self::Stable
    }
}

/// What was sent and could not be read.
const UNKNOWN: &str = "spanflame.unknown";
/// The methods that may stand in a span's name; any other is `_OTHER`, so that nobody who sends nonsense
/// makes names without end (http-spans.md, `http.request.method`).
const METHODS: [&str; 10] =
    ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"];
/// A gRPC status that is the server's own fault (rpc/grpc.md): unknown, deadline exceeded, unimplemented,
/// internal, unavailable, data loss.
const GRPC_SERVER_ERRORS: [u16; 6] = [2, 4, 12, 13, 14, 15];

/// So many attributes a span of HTTP has under the stable names, with those of its outcome.
const USUAL_ATTRIBUTES: usize = 18;

/// What a request asks for, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Asked {
    /// One of [`METHODS`] or `_OTHER`; `None` if unknown.
    pub(super) method: Option<Cow<'static, str>>,
    /// Path without query and fragment; `None` if unknown.
    pub(super) path: Option<Text>,
    /// Without its question mark.
    pub(super) query: Option<Text>,
    /// The path's template.
    pub(super) route: Option<Text>,
    /// Whether it is gRPC.
    pub(super) is_rpc: bool,
    /// Service and method, if it is and they are known.
    pub(super) rpc: Option<(String, String)>,
}

impl Asked {
    /// What a head asks for.
    pub(super) fn of(head: &RequestHead) -> Self {
        let target = head.target.value();
        let path = target.and_then(route::path).map(Text::from);
        let query = target.and_then(route::query).map(Text::from);
        let rpc = Self::rpc_of(head, path.as_deref());
        // The answer will say whether anything was found there; until then the template is a good name.
        let route = path.as_deref().filter(|_| rpc.is_none()).and_then(route::template);
        // The path may have gone by before anybody listened.
        let is_rpc = rpc.is_some() || path.is_none() && Self::is_of_rpc(head);
        Self { method: Self::method_of(head), path, query, route, is_rpc, rpc }
    }

    /// What was taken for another request of HTTP turned out to be gRPC.
    pub(super) fn become_rpc(&mut self) {
        self.is_rpc = true;
        self.rpc = self.path.as_deref().and_then(Self::service_and_method);
        self.route = None;
    }

    /// The method in a span's name and its attributes.
    pub(super) fn method_of(head: &RequestHead) -> Option<Cow<'static, str>> {
        let sent = head.method.value()?;
        let known = METHODS.iter().find(|&&method| method == sent);
        Some(Cow::Borrowed(known.copied().unwrap_or("_OTHER")))
    }

    /// Whether a content type is gRPC's.
    fn is_of_rpc(head: &RequestHead) -> bool {
        let rest = head.content_type.value().and_then(|text| text.strip_prefix("application/grpc"));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
    }

    /// Service and method of a gRPC request: `/package.Service/Method`.
    pub(super) fn rpc_of(head: &RequestHead, path: Option<&str>) -> Option<(String, String)> {
        if Self::is_of_rpc(head) { Self::service_and_method(path?) } else { None }
    }

    /// What the path of a gRPC request names.
    pub(super) fn service_and_method(path: &str) -> Option<(String, String)> {
        let (service, method) = path.strip_prefix('/')?.rsplit_once('/')?;
        (!service.is_empty() && !method.is_empty()).then(|| (service.to_owned(), method.to_owned()))
    }

    /// The span's name.
    pub(super) fn name(&self) -> String {
        if let Some((service, method)) = &self.rpc {
            return format!("{service}/{method}");
        }
        let method = match self.method.as_deref() {
            None | Some("_OTHER") => "HTTP",
            Some(method) => method,
        };
        match &self.route {
            Some(route) => format!("{method} {route}"),
            None => method.to_owned(),
        }
    }
}

/// Collects attributes under the names that are asked for.
struct Writer {
    conventions: Conventions,
    attributes: Vec<Attribute>,
}

impl Writer {
    fn put(&mut self, stable: &'static str, seed: &'static str, value: Option<AttributeValue>) {
        let Some(value) = value else { return };
        let is_wanted = |name: &str, wanted: bool| wanted && !name.is_empty();
        if is_wanted(seed, self.conventions.has_seed()) && seed != stable {
            self.attributes.push((Cow::Borrowed(seed), value.clone()));
        }
        let wanted = self.conventions.has_stable() || seed == stable;
        if is_wanted(stable, wanted) {
            self.attributes.push((Cow::Borrowed(stable), value));
        }
    }

    fn text(&mut self, stable: &'static str, seed: &'static str, value: Option<impl Into<Text>>) {
        self.put(stable, seed, value.map(|text| AttributeValue::Text(text.into())));
    }

    /// Likewise, of what takes time to put together: only if it is wanted.
    fn costly<T: Into<Text>>(
        &mut self,
        stable: &'static str,
        seed: &'static str,
        value: impl FnOnce() -> Option<T>,
    ) {
        let is_wanted = |name: &str, wanted: bool| wanted && !name.is_empty();
        if is_wanted(stable, self.conventions.has_stable()) || is_wanted(seed, self.conventions.has_seed()) {
            self.text(stable, seed, value());
        }
    }

    fn number(&mut self, stable: &'static str, seed: &'static str, value: Option<i64>) {
        self.put(stable, seed, value.map(AttributeValue::Integer));
    }
}

/// Everything that is known when a request begins.
pub(super) struct Request<'a> {
    pub(super) conventions: Conventions,
    pub(super) direction: Direction,
    pub(super) head: &'a RequestHead,
    pub(super) asked: &'a Asked,
    pub(super) opened: Option<&'a Opened>,
    pub(super) is_encrypted: bool,
    pub(super) capture_query: bool,
}

impl Request<'_> {
    pub(super) fn attributes(&self) -> Vec<Attribute> {
        let mut writer =
            Writer { conventions: self.conventions, attributes: Vec::with_capacity(USUAL_ATTRIBUTES) };
        if self.asked.is_rpc {
            let names = self.asked.rpc.as_ref();
            writer.text("rpc.system", "rpc.system", Some("grpc"));
            writer.text("rpc.service", "rpc.service", names.map(|(service, _)| service));
            writer.text("rpc.method", "rpc.method", names.map(|(_, method)| method));
        } else {
            self.http(&mut writer);
        }
        self.network(&mut writer);
        let unknown = [
            ("method", self.head.method == Known::Unknown),
            ("path", self.head.target == Known::Unknown),
            ("content_type", may_be_rpc(self.head) && !self.asked.is_rpc),
            ("traceparent", self.head.traceparent == Known::Unknown),
        ];
        note_unknown(&mut writer.attributes, unknown.into_iter().filter(|&(_, is)| is).map(|(what, _)| what));
        writer.attributes
    }

    fn scheme(&self) -> &str {
        let said = self.head.scheme.value();
        said.unwrap_or(if self.is_encrypted { "https" } else { "http" })
    }

    fn http(&self, writer: &mut Writer) {
        let asked = self.asked;
        writer.text("http.request.method", "http.method", asked.method.as_deref());
        if asked.method.as_deref() == Some("_OTHER") {
            writer.text("http.request.method_original", "", self.head.method.value());
        }
        let query = if self.capture_query { asked.query.as_deref() } else { None };
        if self.direction == Direction::In {
            writer.text("url.scheme", "http.scheme", Some(self.scheme()));
            writer.text("url.path", "", asked.path.as_deref());
            writer.text("url.query", "", query);
            writer.text("http.route", "http.route", asked.route.as_deref());
            if asked.route.is_some() {
                writer.text("spanflame.route.source", "spanflame.route.source", Some("inferred"));
            }
            writer.costly("", "http.url", || self.url(query));
        } else {
            writer.costly("url.full", "http.url", || self.url(query));
            writer.text("url.template", "", asked.route.as_deref());
        }
        writer.text("user_agent.original", "http.user_agent", self.head.user_agent.value());
        writer.text("network.protocol.version", "", Some(version(self.head.version)));
    }

    /// The whole URL, as far as it is known, without credentials.
    fn url(&self, query: Option<&str>) -> Option<Text> {
        let path = self.asked.path.as_deref()?;
        let authority = match self.head.authority.value() {
            Some(authority) => Cow::Borrowed(authority.rsplit('@').next().unwrap_or(authority)),
            None => Cow::Owned(endpoint_text(self.server()?)?),
        };
        let question_mark = if query.is_some() { "?" } else { "" };
        let parts = [self.scheme(), "://", &authority, path, question_mark, query.unwrap_or_default()];
        Some(parts.into_iter().collect())
    }

    fn server(&self) -> Option<Endpoint> {
        let opened = self.opened?;
        Some(if self.direction == Direction::In { opened.local } else { opened.peer })
    }

    fn network(&self, writer: &mut Writer) {
        let Some(opened) = self.opened else { return };
        let said = self.head.authority.value().map(host_and_port);
        let server = self.server().and_then(internet);
        let host = said.map(|(host, _)| Text::new(host)).filter(|host| !host.is_empty());
        writer.text("server.address", "", host.or_else(|| server.map(|(address, _)| address_text(address))));
        let port = match said {
            Some((_, Some(port))) => Some(port),
            // The scheme's own port goes without saying.
            Some((_, None)) => None,
            None => server.map(|(_, port)| port),
        };
        writer.number("server.port", "", port.map(i64::from));
        match (internet(opened.local), internet(opened.peer)) {
            (Some((local, local_port)), Some((peer, peer_port))) => {
                let peer = address_text(peer);
                writer.text("network.peer.address", "net.peer.ip", Some(peer.clone()));
                writer.number("network.peer.port", "net.peer.port", Some(peer_port.into()));
                if self.direction == Direction::In {
                    writer.text("client.address", "", Some(peer));
                    writer.costly("", "net.host.ip", || Some(address_text(local)));
                    writer.number("", "net.host.port", Some(local_port.into()));
                }
            }
            _ => writer.text("network.transport", "net.transport", Some("unix")),
        }
    }
}

/// Whether a request may be gRPC, and its head does not tell: its content type went by before anybody listened.
pub(super) fn may_be_rpc(head: &RequestHead) -> bool {
    head.version == ProtocolVersion::Http2
        && head.content_type == Known::Unknown
        && head.method.value().is_none_or(|method| method == "POST")
}

/// Says that these were sent and could not be read, beside those of which that was said before.
fn note_unknown(attributes: &mut Vec<Attribute>, unknown: impl Iterator<Item = &'static str>) {
    let mut more = unknown.map(|what| AttributeValue::Text(what.into())).peekable();
    if more.peek().is_none() {
        return;
    }
    let said = attributes.iter_mut().find(|(name, _)| name == UNKNOWN);
    match said {
        Some((_, AttributeValue::List(said))) => said.extend(more),
        _ => attributes.push((Cow::Borrowed(UNKNOWN), AttributeValue::List(more.collect()))),
    }
}

/// Says that something of an answer was sent and could not be read.
pub(super) fn note_unknown_answer(attributes: &mut Vec<Attribute>, is_rpc: bool, ended: &Ended) {
    let has_answer = ended.response.is_some();
    let status_is_unknown = ended.response.is_some_and(|response| response.status.is_none());
    let code_is_unknown = is_rpc && has_answer && ended.grpc_status == Known::Unknown;
    let unknown = [("status", status_is_unknown && !is_rpc), ("grpc_status", code_is_unknown)];
    note_unknown(attributes, unknown.into_iter().filter(|&(_, is)| is).map(|(what, _)| what));
}

fn version(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::Http10 => "1.0",
        ProtocolVersion::Http11 => "1.1",
        ProtocolVersion::Http2 => "2",
    }
}

fn internet(endpoint: Endpoint) -> Option<(IpAddr, u16)> {
    match endpoint {
        Endpoint::Internet { address, port } => Some((address, port)),
        Endpoint::Unix { .. } => None,
    }
}

/// An address as it is written. Four numbers, of which most requests have some, go without what a general writer of
/// text takes.
fn address_text(address: IpAddr) -> Text {
    let IpAddr::V4(address) = address else { return address.to_string().into() };
    let mut text = Text::default();
    for (nth, octet) in address.octets().into_iter().enumerate() {
        if nth > 0 {
            text.push('.');
        }
        for (weight, from) in [(100, 100), (10, 10), (1, 0)] {
            if octet >= from {
                text.push(char::from(b'0' + octet / weight % 10));
            }
        }
    }
    text
}

fn endpoint_text(endpoint: Endpoint) -> Option<String> {
    internet(endpoint).map(|(address, port)| std::net::SocketAddr::new(address, port).to_string())
}

/// `host:port`, `host`, `[v6]:port`; credentials in front are dropped.
fn host_and_port(authority: &str) -> (&str, Option<u16>) {
    let authority = authority.rsplit('@').next().unwrap_or(authority);
    if let Some((host, rest)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, port.parse().ok()),
        _ => (authority, None),
    }
}

/// Says that the end of a span is not known, and why.
pub(super) fn uncertain_end(reason: &'static str) -> Attribute {
    (Cow::Borrowed("spanflame.end.uncertain"), AttributeValue::Text(reason.into()))
}

/// How a request went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    is_rpc: bool,
    /// Of HTTP. Of gRPC only where somebody answered who knows none.
    pub(super) http_status: Option<u16>,
    /// Of gRPC.
    pub(super) grpc_status: Option<u16>,
    /// `error.type`.
    pub(super) error: Option<Text>,
}

impl Outcome {
    /// Of a request that is over, as the one at this end (`direction`) sees it.
    pub(super) fn of(direction: Direction, is_rpc: bool, ended: &Ended) -> Self {
        let status = ended.response.and_then(|response| response.status);
        let failure = ended.failure.map(failure_name).map(Text::const_new);
        let number = |number: u16| number.to_compact_string();
        if !is_rpc {
            let first_error = if direction == Direction::In { 500 } else { 400 };
            let failed = status.filter(|&status| status >= first_error);
            return Self {
                is_rpc,
                http_status: status,
                grpc_status: None,
                error: failure.or_else(|| failed.map(number)),
            };
        }
        let code = ended.grpc_status.value().and_then(|code| code.parse::<u16>().ok());
        let failed = code.is_some_and(|code| match direction {
            Direction::In => GRPC_SERVER_ERRORS.contains(&code),
            Direction::Out => code != 0,
        });
        // A proxy has answered, which knows no gRPC (grpc's http-grpc-status-mapping.md).
        let of_a_proxy = status.filter(|&status| code.is_none() && status != 200);
        let error = failure.or_else(|| code.filter(|_| failed).or(of_a_proxy).map(number));
        Self { is_rpc, http_status: of_a_proxy, grpc_status: code, error }
    }

    /// Adds the attributes that say so, and says the status.
    pub(super) fn write(
        self,
        conventions: Conventions,
        ended: &Ended,
        attributes: &mut Vec<Attribute>,
    ) -> SpanStatus {
        let mut writer = Writer { conventions, attributes: std::mem::take(attributes) };
        writer.number("rpc.grpc.status_code", "rpc.grpc.status_code", self.grpc_status.map(i64::from));
        writer.number("http.response.status_code", "http.status_code", self.http_status.map(i64::from));
        let sizes = [
            ("http.request.body.size", "http.request_content_length", ended.request_body_bytes),
            ("http.response.body.size", "http.response_content_length", ended.response_body_bytes),
        ];
        for (stable, seed, bytes) in sizes.into_iter().filter(|_| !self.is_rpc) {
            writer.number(stable, seed, bytes.and_then(|bytes| i64::try_from(bytes).ok()));
        }
        if !ended.end_is_certain {
            writer.attributes.push(uncertain_end("lost_events"));
        }
        let status = if self.error.is_some() { SpanStatus::Error } else { SpanStatus::Unset };
        writer.text("error.type", "error.type", self.error);
        *attributes = writer.attributes;
        status
    }
}

fn failure_name(failure: Failure) -> &'static str {
    match failure {
        Failure::Reset => "reset",
        Failure::TimedOut => "timeout",
        Failure::EndOfStream => "eof",
        Failure::Cancelled => "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::socket::Role;
    use crate::model::span::{integer_of, text_of};
    use crate::trace::exchange::{ExchangeId, ResponseHead};

    fn head() -> RequestHead {
        let value = |text: &str| Known::Value(text.into());
        RequestHead {
            version: ProtocolVersion::Http11,
            method: value("GET"),
            target: value("/users/7?token=x"),
            scheme: Known::Absent,
            authority: value("shop.example:8080"),
            user_agent: value("curl/8"),
            content_type: Known::Absent,
            traceparent: Known::Absent,
            tracestate: Known::Absent,
            b3: Known::Absent,
        }
    }

    fn asked() -> Asked {
        Asked {
            method: Some(Cow::Borrowed("GET")),
            path: Some("/users/7".into()),
            query: Some("token=x".into()),
            route: Some("/users/{id}".into()),
            is_rpc: false,
            rpc: None,
        }
    }

    fn attributes(conventions: Conventions, direction: Direction, capture_query: bool) -> Vec<Attribute> {
        let at = |last: u8, port| Endpoint::Internet { address: IpAddr::from([10, 0, 0, last]), port };
        let opened = Opened {
            role: Role::Accepted,
            local: at(1, 8080),
            peer: at(2, 45678),
            network_namespace: 1,
            opened_by: None,
            opener: Default::default(),
        };
        let (head, asked) = (head(), asked());
        let opened = Some(&opened);
        Request {
            conventions,
            direction,
            head: &head,
            asked: &asked,
            opened,
            is_encrypted: false,
            capture_query,
        }
        .attributes()
    }

    #[test]
    fn a_server_span_has_the_names_of_the_conventions_that_were_asked_for() {
        let stable = attributes(Conventions::Stable, Direction::In, false);
        assert_eq!(text_of(&stable, "http.request.method"), Some("GET"));
        assert_eq!(text_of(&stable, "url.path"), Some("/users/7"));
        assert_eq!(text_of(&stable, "http.route"), Some("/users/{id}"));
        assert_eq!(text_of(&stable, "server.address"), Some("shop.example"));
        assert_eq!(integer_of(&stable, "server.port"), Some(8080));
        assert_eq!(text_of(&stable, "http.method"), None);
        let seed = attributes(Conventions::Seed, Direction::In, false);
        assert_eq!(text_of(&seed, "http.method"), Some("GET"));
        assert_eq!(text_of(&seed, "http.url"), Some("http://shop.example:8080/users/7"));
        assert_eq!(text_of(&seed, "net.host.ip"), Some("10.0.0.1"));
        assert_eq!(text_of(&seed, "http.route"), Some("/users/{id}"));
        assert_eq!(text_of(&seed, "http.request.method"), None);
        let both = attributes(Conventions::Both, Direction::In, false);
        assert!(text_of(&both, "http.method").is_some() && text_of(&both, "http.request.method").is_some());
        let routes = both.iter().filter(|(name, _)| name == "http.route").count();
        assert_eq!(routes, 1, "what both call the same stands there once");
    }

    #[test]
    fn a_query_stands_nowhere_unless_it_is_wanted() {
        for direction in [Direction::In, Direction::Out] {
            let text = format!("{:?}", attributes(Conventions::Both, direction, false));
            assert!(!text.contains("token"), "{text}");
            let text = format!("{:?}", attributes(Conventions::Both, direction, true));
            assert!(text.contains("token=x"), "{text}");
        }
    }

    #[test]
    fn credentials_and_brackets_are_no_part_of_a_host() {
        assert_eq!(host_and_port("a:b@shop:80"), ("shop", Some(80)));
        assert_eq!(host_and_port("[::1]:8080"), ("::1", Some(8080)));
        assert_eq!(host_and_port("::1"), ("::1", None));
        assert_eq!(host_and_port("shop"), ("shop", None));
        assert_eq!(host_and_port("shop:http"), ("shop", None));
    }

    #[test]
    fn a_path_of_grpc_is_service_and_method_only_with_its_content_type() {
        let mut head = head();
        let path = Some("/shop.v1.Cart/Add");
        assert_eq!(Asked::rpc_of(&head, path), None);
        head.content_type = Known::Value("application/grpc+proto".into());
        let rpc = Asked::rpc_of(&head, path);
        assert_eq!(rpc, Some(("shop.v1.Cart".to_owned(), "Add".to_owned())));
        assert_eq!(Asked { is_rpc: true, rpc, ..asked() }.name(), "shop.v1.Cart/Add");
        head.content_type = Known::Value("application/grpc-web".into());
        assert_eq!(Asked::rpc_of(&head, path), None);
    }

    #[test]
    fn what_could_not_be_read_is_named_once_and_a_content_type_only_where_it_may_be_grpc() {
        let unknown = |attributes: &[Attribute]| match attributes.iter().find(|(name, _)| name == UNKNOWN) {
            Some((_, AttributeValue::List(list))) => format!("{list:?}"),
            _ => String::new(),
        };
        let told = |method: Known, version, is_rpc| {
            let head = RequestHead {
                version,
                method,
                content_type: Known::Unknown,
                target: Known::Unknown,
                ..head()
            };
            let asked = Asked { is_rpc, ..Asked::default() };
            let request = Request {
                conventions: Conventions::Stable,
                direction: Direction::In,
                head: &head,
                asked: &asked,
                opened: None,
                is_encrypted: false,
                capture_query: false,
            };
            request.attributes()
        };
        let list = |names: &[&str]| {
            let texts: Vec<_> = names.iter().map(|name| AttributeValue::Text((*name).into())).collect();
            format!("{texts:?}")
        };
        let get = Known::Value("GET".into());
        assert_eq!(unknown(&told(get, ProtocolVersion::Http2, false)), list(&["path"]));
        let post = || Known::Value("POST".into());
        assert_eq!(unknown(&told(post(), ProtocolVersion::Http11, false)), list(&["path"]), "never gRPC");
        let mut posted = told(post(), ProtocolVersion::Http2, false);
        assert_eq!(unknown(&posted), list(&["path", "content_type"]));
        note_unknown_answer(&mut posted, false, &ended(None, Known::Unknown, None));
        assert_eq!(unknown(&posted), list(&["path", "content_type", "status"]));
        note_unknown_answer(&mut posted, false, &ended(Some(200), Known::Absent, None));
        assert_eq!(unknown(&posted), list(&["path", "content_type", "status"]));
        let mut as_rpc = told(post(), ProtocolVersion::Http2, true);
        note_unknown_answer(&mut as_rpc, true, &ended(Some(200), Known::Unknown, None));
        assert_eq!(unknown(&as_rpc), list(&["path", "grpc_status"]));
        let failed = Ended { response: None, ..ended(None, Known::Unknown, Some(Failure::Reset)) };
        let mut attributes = Vec::new();
        note_unknown_answer(&mut attributes, true, &failed);
        assert!(attributes.is_empty(), "there was no answer");
    }

    #[test]
    fn a_request_that_turns_out_to_be_grpc_says_nothing_of_http() {
        for conventions in [Conventions::Stable, Conventions::Seed, Conventions::Both] {
            for direction in [Direction::In, Direction::Out] {
                let mut asked = Asked { path: Some("/shop.Cart/Add".into()), ..asked() };
                asked.become_rpc();
                let head = head();
                let attributes = Request {
                    conventions,
                    direction,
                    head: &head,
                    asked: &asked,
                    opened: None,
                    is_encrypted: false,
                    capture_query: true,
                }
                .attributes();
                let is_of_http = |name: &str| {
                    name.starts_with("http.") || name.starts_with("url.") || name.contains("user_agent")
                };
                assert!(!attributes.iter().any(|(name, _)| is_of_http(name)), "{attributes:?}");
                assert_eq!(text_of(&attributes, "rpc.method"), Some("Add"));
                assert_eq!(asked.name(), "shop.Cart/Add");
            }
        }
    }

    fn ended(status: Option<u16>, grpc: Known, failure: Option<Failure>) -> Ended {
        Ended {
            exchange: ExchangeId(1),
            response: Some(ResponseHead { status }),
            first_response_byte_ns: Some(1),
            last_byte_ns: 2,
            end_is_certain: true,
            failure,
            request_body_bytes: Some(0),
            response_body_bytes: None,
            grpc_status: grpc,
            upgraded: false,
        }
    }

    fn outcome_of(direction: Direction, is_rpc: bool, ended: &Ended) -> (SpanStatus, Vec<Attribute>) {
        let mut attributes = Vec::new();
        let outcome = Outcome::of(direction, is_rpc, ended);
        let status = outcome.write(Conventions::Stable, ended, &mut attributes);
        (status, attributes)
    }

    fn error_of((_, attributes): (SpanStatus, Vec<Attribute>)) -> Option<String> {
        text_of(&attributes, "error.type").map(str::to_owned)
    }

    #[test]
    fn a_404_is_the_clients_error_and_a_503_everybodys() {
        let status =
            |direction, code| error_of(outcome_of(direction, false, &ended(Some(code), Known::Absent, None)));
        assert_eq!(status(Direction::In, 404), None);
        assert_eq!(status(Direction::Out, 404).as_deref(), Some("404"));
        assert_eq!(status(Direction::In, 503).as_deref(), Some("503"));
    }

    #[test]
    fn grpc_codes_are_errors_by_side_and_failures_win() {
        let code = |direction, code: &str, failure| {
            let ended = ended(Some(200), Known::Value(code.into()), failure);
            outcome_of(direction, true, &ended)
        };
        assert_eq!(error_of(code(Direction::In, "5", None)), None, "not found is no fault of the server");
        assert_eq!(error_of(code(Direction::Out, "5", None)).as_deref(), Some("5"));
        assert_eq!(error_of(code(Direction::In, "13", None)).as_deref(), Some("13"));
        let by_a_proxy = ended(Some(503), Known::Absent, None);
        let (status, attributes) = outcome_of(Direction::Out, true, &by_a_proxy);
        assert_eq!((status, text_of(&attributes, "error.type")), (SpanStatus::Error, Some("503")));
        let (status, attributes) = code(Direction::In, "0", Some(Failure::Reset));
        assert_eq!((status, text_of(&attributes, "error.type")), (SpanStatus::Error, Some("reset")));
        assert_eq!(integer_of(&attributes, "rpc.grpc.status_code"), Some(0));
    }
}
