//! Where a server is, who asks it, and for what.

use anyhow::anyhow;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderValue, Uri};

/// A server and a selector.
pub(super) struct Address {
    /// `https://host:port/prefix`, without a final slash and without credentials.
    base: String,
    is_tls: bool,
    /// Names and values of the query as they were written, still encoded.
    pairs: Vec<(String, String)>,
    authorization: Option<HeaderValue>,
    shown: String,
}

impl Address {
    /// Of a text that begins as a URL does; None for any other. Messages carry no credentials. `token` is for servers of
    /// URLs without credentials.
    pub(super) fn of(text: &str, token: Option<&str>) -> Option<anyhow::Result<Self>> {
        let (scheme, rest) = text.split_once("://")?;
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        Some(Self::parse(is_tls, rest, token))
    }

    fn parse(is_tls: bool, rest: &str, token: Option<&str>) -> anyhow::Result<Self> {
        let scheme = if is_tls { "https" } else { "http" };
        let rest = rest.split('#').next().unwrap_or_default();
        let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match location.find('/') {
            Some(slash) => location.split_at(slash),
            None => (location, ""),
        };
        let (credentials, host) = match authority.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, authority),
        };
        let base = format!("{scheme}://{host}{}", path.trim_end_matches('/'));
        let shown = if query.is_empty() { base.clone() } else { format!("{base}/?{query}") };
        // With the query, since what it may not contain cannot be sent.
        let parsed = format!("{base}/?{query}").parse::<Uri>();
        let has_host = parsed.as_ref().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()));
        if !has_host || path.contains("/api/") {
            return Err(anyhow!(
                "{shown}: is no address of a server; give it as http://HOST:19090/?service=NAME&from=-1h&to=-30m, \
                 with blanks and the like written as %20"
            ));
        }
        let authorization = match (credentials, token) {
            (Some(credentials), _) => Some(basic(credentials)),
            (None, Some(token)) => Some(HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ())),
            (None, None) => None,
        };
        let authorization = authorization.transpose().map_err(|()| {
            let variable = super::TOKEN_VARIABLE;
            anyhow!("{shown}: its credentials cannot be sent; give http://x:TOKEN@HOST/…, or a token in {variable}")
        })?;
        let authorization = authorization.map(|mut value| {
            value.set_sensitive(true);
            value
        });
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name.to_owned(), value.to_owned())
        });
        Ok(Self { base, is_tls, pairs: pairs.collect(), authorization, shown })
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// With the selector and without credentials.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    pub(super) fn is_tls(&self) -> bool {
        self.is_tls
    }

    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    pub(super) fn has_parameter(&self, name: &str) -> bool {
        self.pairs.iter().any(|(known, _)| known == name)
    }

    /// Where the windows are listed. What is asked for by its revision is looked for in all that is kept, unless a range
    /// is given: when a baseline was recorded nobody remembers.
    pub(super) fn windows(&self) -> String {
        let mut query = self.pairs.clone();
        if self.has_parameter("git_sha") && !self.has_parameter("from") && !self.has_parameter("to") {
            query.push(("from".to_owned(), "0".to_owned()));
        }
        path("/api/v1/profiles/windows", query)
    }

    /// Where the profile of a range is.
    pub(super) fn profile(&self, from: &str, to: &str) -> String {
        let selecting = self.pairs.iter().filter(|(name, _)| name != "from" && name != "to").cloned();
        let range = [("from", from), ("to", to), ("format", "pprof")];
        let range = range.map(|(name, value)| (name.to_owned(), value.to_owned()));
        path("/api/v1/profiles/flamegraph", selecting.chain(range))
    }

    /// Where the server says what it runs on.
    pub(super) fn status(&self) -> String {
        "/status".to_owned()
    }
}

fn path(path: &str, pairs: impl IntoIterator<Item = (String, String)>) -> String {
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

/// `user:password` of a URL as HTTP Basic has it (RFC 7617).
fn basic(credentials: &str) -> Result<HeaderValue, ()> {
    let (user, password) = credentials.split_once(':').ok_or(())?;
    let pair = [decoded(user).ok_or(())?, decoded(password).ok_or(())?].join(&b':');
    HeaderValue::from_str(&format!("Basic {}", BASE64.encode(pair))).map_err(|_| ())
}

/// Undoes `%XX`.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(rest.next()?).to_digit(16);
        bytes.push(match byte {
            b'%' => u8::try_from(digit()? << 4 | digit()?).ok()?,
            other => other,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> Address {
        Address::of(text, None).expect("a URL").expect("a right one")
    }

    #[test]
    fn a_selector_is_passed_on_and_each_range_takes_the_place_of_the_whole() {
        let asked = address("http://host:19090/?service=my%20shop&from=-1h&to=-30m");
        assert_eq!(asked.base(), "http://host:19090");
        assert_eq!(asked.windows(), "/api/v1/profiles/windows?service=my%20shop&from=-1h&to=-30m");
        assert_eq!(
            asked.profile("2026-11-22T08:00:00Z", "2026-11-22T08:00:10.5Z"),
            "/api/v1/profiles/flamegraph?service=my%20shop&from=2026-11-22T08:00:00Z&to=2026-11-22T08:00:10.5Z\
             &format=pprof"
        );
        let behind_a_proxy = address("HTTPS://host/spanflame/?pid=7#part");
        assert_eq!((behind_a_proxy.base(), behind_a_proxy.is_tls()), ("https://host/spanflame", true));
        assert_eq!(behind_a_proxy.windows(), "/api/v1/profiles/windows?pid=7");
        assert_eq!(address("http://[::1]:9").windows(), "/api/v1/profiles/windows");
    }

    #[test]
    fn a_revision_is_looked_for_in_all_that_is_kept_unless_a_range_is_given() {
        let windows = |query: &str| address(&format!("http://h?{query}")).windows();
        assert_eq!(windows("git_sha=abc"), "/api/v1/profiles/windows?git_sha=abc&from=0");
        assert_eq!(windows("git_sha=abc&to=-1d"), "/api/v1/profiles/windows?git_sha=abc&to=-1d");
    }

    #[test]
    fn credentials_are_sent_and_never_shown() {
        let asked = address("http://x:s%3Acret@host:1/?service=a");
        assert_eq!(asked.authorization().expect("some").to_str().expect("text"), "Basic eDpzOmNyZXQ=");
        assert_eq!((asked.base(), asked.shown()), ("http://host:1", "http://host:1/?service=a"));
        let by_variable = Address::of("http://host", Some("s3cret")).expect("a URL").expect("right");
        let value = by_variable.authorization().expect("some");
        assert_eq!(value.to_str().expect("text"), "Bearer s3cret");
        assert!(!format!("{value:?}").contains("s3cret"));
        for text in
            ["http://x:s3cret@", "http://s3cret@host", "http://x:s3cret@host/?a=b c", "http://x:s3cret%9@h"]
        {
            let error = Address::of(text, None).expect("a URL").err().expect("a wrong one").to_string();
            assert!(!error.contains("s3cret") && error.contains("http://"), "{text}: {error}");
        }
    }

    #[test]
    fn files_are_no_addresses() {
        for text in ["runs/base", "http", "http:/host", "ftp://host/x", "", "a://b"] {
            assert!(Address::of(text, None).is_none(), "{text}");
        }
        for text in ["http://", "http:///x", "http://host/api/v1/profiles/top?service=a", "https://ho st"] {
            assert!(Address::of(text, None).is_some_and(|address| address.is_err()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "https?://[a-z@:/?#&=%\\[\\] 0-9]{0,40}") {
            if let Some(Ok(address)) = Address::of(&text, None) {
                let uri = format!("{}{}", address.base(), address.windows()).parse::<Uri>();
                prop_assert!(uri.is_ok(), "{:?}", uri);
            }
        }
    }
}
