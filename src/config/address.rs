//! Addresses: those we listen on, and the one that is exported to.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use serde_json::Value as Json;

use super::name::HostName;
use super::value::Scalar;

/// Where a listener is bound: `HOST:PORT`, or `:PORT` for all interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// Which interfaces.
    pub host: ListenHost,
    /// 0 lets the kernel choose.
    pub port: u16,
}

/// The interfaces of a [`ListenAddress`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenHost {
    /// All of IPv6 and IPv4.
    All,
    /// That of an address.
    Address(IpAddr),
    /// `localhost` is the loopback addresses, whatever a resolver says; others are asked of it.
    Name(HostName),
}

impl ListenAddress {
    pub(super) const fn loopback(port: u16) -> Self {
        Self { host: ListenHost::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)), port }
    }

    /// Whether only this machine reaches it. A name other than `localhost` counts as not.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            ListenHost::All => false,
            // Also ::ffff:127.0.0.1.
            ListenHost::Address(address) => address.to_canonical().is_loopback(),
            ListenHost::Name(name) => name.as_str() == "localhost",
        }
    }

    /// What to bind, the first that works.
    ///
    /// # Errors
    /// Those of the resolver, for names.
    pub fn socket_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let with_port = |address: IpAddr| SocketAddr::new(address, self.port);
        Ok(match &self.host {
            ListenHost::All => {
                vec![with_port(Ipv6Addr::UNSPECIFIED.into()), with_port(Ipv4Addr::UNSPECIFIED.into())]
            }
            ListenHost::Address(address) => vec![with_port(*address)],
            ListenHost::Name(name) if name.as_str() == "localhost" => {
                vec![with_port(Ipv4Addr::LOCALHOST.into()), with_port(Ipv6Addr::LOCALHOST.into())]
            }
            ListenHost::Name(name) => (name.as_str(), self.port).to_socket_addrs()?.collect(),
        })
    }

    /// Whether two listeners would want the same port of the same interface.
    #[must_use]
    pub fn collides_with(&self, other: &Self) -> bool {
        let is_all = |host: &ListenHost| match host {
            ListenHost::All => true,
            ListenHost::Address(address) => address.is_unspecified(),
            ListenHost::Name(_) => false,
        };
        self.port == other.port
            && self.port != 0
            && (self.host == other.host || is_all(&self.host) || is_all(&other.host))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match &self.host {
            ListenHost::All => write!(formatter, ":{port}"),
            ListenHost::Address(address) => write!(formatter, "{}", SocketAddr::new(*address, port)),
            ListenHost::Name(name) => write!(formatter, "{name}:{port}"),
        }
    }
}

impl Scalar for ListenAddress {
    fn expected() -> String {
        "an address such as 127.0.0.1:19090, [::1]:19090 or, for all interfaces, :19090".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = split_port(text)?;
        let port = port.ok_or("the port is missing")?;
        let host = match host {
            "" => ListenHost::All,
            host => match ip_address(host)? {
                Some(address) => ListenHost::Address(address),
                None => ListenHost::Name(HostName::parse(host)?),
            },
        };
        Ok(Self { host, port })
    }

    fn to_json(&self) -> Json {
        Json::from(self.to_string())
    }
}

/// Host and port of `HOST[:PORT]`; an IPv6 address keeps its brackets.
fn split_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an IPv6 address stand inside its brackets.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err("an IPv6 address stands in brackets".to_owned());
    }
    let Some(port) = port else { return Ok((host, None)) };
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(number) if is_number => Ok((host, Some(number))),
        _ => Err("the port is no number up to 65535".to_owned()),
    }
}

/// The address that a host is, if it is one and no name.
fn ip_address(host: &str) -> Result<Option<IpAddr>, String> {
    if let Some(inside) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address = inside.parse::<Ipv6Addr>().map_err(|_| "no IPv6 address in the brackets")?;
        return Ok(Some(address.into()));
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(Some(address.into()));
    }
    // 127.1 and 0x7f000001 are addresses to some resolvers and names to others.
    if host.rsplit('.').next().is_some_and(|last| last.starts_with(|first: char| first.is_ascii_digit())) {
        return Err("no IPv4 address".to_owned());
    }
    Ok(None)
}

/// Where OTLP is sent: `HOST:PORT`, or a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether TLS is spoken, if that was said here.
    pub scheme: Option<Scheme>,
    /// A name or an address, IPv6 in brackets.
    pub host: String,
    /// The port, if one was given.
    pub port: Option<u16>,
    /// What stands before `/v1/…`, without a final slash; empty or beginning with `/`.
    pub path: String,
}

/// How an [`Endpoint`] is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In clear text.
    Http,
    /// By TLS.
    Https,
}

impl Endpoint {
    /// Whether it is on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        ip_address(&self.host)
            .ok()
            .flatten()
            .map_or(self.host == "localhost", |address| address.to_canonical().is_loopback())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            None => {}
            Some(Scheme::Http) => formatter.write_str("http://")?,
            Some(Scheme::Https) => formatter.write_str("https://")?,
        }
        formatter.write_str(&self.host)?;
        if let Some(port) = self.port {
            write!(formatter, ":{port}")?;
        }
        formatter.write_str(&self.path)
    }
}

impl Scalar for Endpoint {
    fn expected() -> String {
        "an endpoint such as otel-collector:4317 or https://otel.example.com".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            None => (None, text),
            Some(("http", rest)) => (Some(Scheme::Http), rest),
            Some(("https", rest)) => (Some(Scheme::Https), rest),
            Some(_) => return Err("a URL begins with http:// or https://".to_owned()),
        };
        if rest.contains('@') {
            return Err("credentials belong into `otlp.headers`".to_owned());
        }
        let (authority, path) = match rest.find('/') {
            Some(slash) if scheme.is_some() => rest.split_at(slash),
            Some(_) => return Err("a path needs a scheme before the host".to_owned()),
            None => (rest, ""),
        };
        let is_of_path = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%".contains(&byte);
        if !path.bytes().all(is_of_path) {
            return Err("the path has more than letters, digits and `-._~%/` in it".to_owned());
        }
        let (host, port) = split_port(authority)?;
        if port.is_none() && scheme.is_none() {
            return Err("the port is missing".to_owned());
        }
        if port == Some(0) {
            return Err("nothing listens on port 0".to_owned());
        }
        let host = match ip_address(host)? {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            Some(IpAddr::V4(address)) => address.to_string(),
            None => HostName::parse(host)?.as_str().to_owned(),
        };
        Ok(Self { scheme, host, port, path: path.trim_end_matches('/').to_owned() })
    }

    fn to_json(&self) -> Json {
        Json::from(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::value::tests::check_scalar;

    fn listen(text: &str) -> ListenAddress {
        <ListenAddress as Scalar>::parse(text).expect(text)
    }

    #[test]
    fn addresses_to_listen_on() {
        check_scalar::<ListenAddress>(
            &[
                (":19090", ":19090"),
                ("127.0.0.1:0", "127.0.0.1:0"),
                ("[::1]:80", "[::1]:80"),
                ("[0:0::1]:80", "[::1]:80"),
                ("LocalHost:80", "localhost:80"),
                ("metrics.example.com:65535", "metrics.example.com:65535"),
            ],
            &[
                "",
                ":",
                "19090",
                "localhost",
                "::1:80",
                "[::1]",
                "[::1:80",
                "127.0.0.1:65536",
                "127.0.0.1:-1",
                "127.0.0.1:+1",
                "127.1:80",
                "256.0.0.1:80",
                "0x7f000001:80",
                "a b:80",
                "http://a:80",
                "a:80/x",
                "[127.0.0.1]:80",
                "[fe80::1%eth0]:80",
                "-a:80",
                "a..b:80",
                "1.2.3.4:80:90",
            ],
        );
    }

    #[test]
    fn loopback_is_what_cannot_be_reached_from_elsewhere_and_names_are_not_trusted() {
        for text in ["127.0.0.1:1", "127.255.0.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost:1"] {
            assert!(listen(text).is_loopback(), "{text}");
        }
        for text in [
            ":1",
            "0.0.0.0:1",
            "[::]:1",
            "10.0.0.1:1",
            "[::ffff:10.0.0.1]:1",
            "localhost.example.com:1",
            "myhost:1",
        ] {
            assert!(!listen(text).is_loopback(), "{text}");
        }
    }

    #[test]
    fn all_interfaces_are_both_families_and_localhost_is_asked_of_nobody() -> io::Result<()> {
        let shown = |text: &str| -> io::Result<Vec<String>> {
            Ok(listen(text).socket_addresses()?.iter().map(ToString::to_string).collect())
        };
        assert_eq!(shown(":80")?, ["[::]:80", "0.0.0.0:80"]);
        assert_eq!(shown("localhost:80")?, ["127.0.0.1:80", "[::1]:80"]);
        assert_eq!(shown("10.0.0.1:80")?, ["10.0.0.1:80"]);
        Ok(())
    }

    #[test]
    fn listeners_collide_on_equal_ports_of_the_same_or_of_all_interfaces() {
        let collide = |one: &str, other: &str| listen(one).collides_with(&listen(other));
        assert!(collide("127.0.0.1:80", "127.0.0.1:80"));
        assert!(collide(":80", "127.0.0.1:80") && collide("127.0.0.1:80", "0.0.0.0:80"));
        assert!(!collide("127.0.0.1:80", "127.0.0.1:81") && !collide("127.0.0.1:80", "10.0.0.1:80"));
        assert!(!collide("127.0.0.1:0", "127.0.0.1:0"), "the kernel chooses two");
    }

    #[test]
    fn endpoints() {
        check_scalar::<Endpoint>(
            &[
                ("otel-collector:4317", "otel-collector:4317"),
                ("https://otel.example.com", "https://otel.example.com"),
                ("http://127.0.0.1:4318/otlp/", "http://127.0.0.1:4318/otlp"),
                ("[::1]:4317", "[::1]:4317"),
                ("OTEL:4317", "otel:4317"),
            ],
            &[
                "",
                "otel-collector",
                "ftp://x:1",
                "x:0",
                "x:1/v1",
                "https://",
                "https:///x",
                "https://x/?a=b",
                "http://x:1#f",
                "x y:1",
                "http://http://x",
                "1.2.3:4",
                "https://x/ä",
            ],
        );
    }

    #[test]
    fn credentials_in_an_endpoint_are_refused() {
        let detail =
            <Endpoint as Scalar>::parse("https://user:hunter2@example.com").expect_err("credentials");
        assert!(detail.contains("otlp.headers") && !detail.contains("hunter2"), "{detail}");
    }

    #[test]
    fn an_endpoint_knows_whether_it_is_on_this_machine() {
        let local = |text: &str| <Endpoint as Scalar>::parse(text).expect(text).is_loopback();
        assert!(local("localhost:1") && local("127.0.0.1:1") && local("https://[::1]/x"));
        assert!(!local("otel:1") && !local("10.0.0.1:1"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_refused_or_shown_so_that_it_is_read_again(
            text in prop_oneof![any::<String>(), "(https?://)?[a-z0-9.:\\[\\]%@/-]{0,24}(:[0-9]{1,6})?/?[a-z/]{0,6}"]
        ) {
            if let Ok(address) = <ListenAddress as Scalar>::parse(&text) {
                prop_assert_eq!(Scalar::parse(&address.to_string()), Ok(address));
            }
            if let Ok(endpoint) = <Endpoint as Scalar>::parse(&text) {
                prop_assert_eq!(Scalar::parse(&endpoint.to_string()), Ok(endpoint));
            }
        }
    }
}
