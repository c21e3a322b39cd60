//! Texts with rules of their own: host names, paths, origins, folders, the prefix of metrics.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::value::{Scalar, is_visible_ascii};

/// Types that are a checked text: shown as it is.
macro_rules! text_type {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

text_type! {
    /// The name of a host, in lower case and without a final dot.
    HostName
}

impl Scalar for HostName {
    fn expected() -> String {
        "the name of a host such as spanflame.example.com".to_owned()
    }

    /// RFC 1123, 2.1, and underscores, which container names have.
    fn parse(text: &str) -> Result<Self, String> {
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err("the host is no name".to_owned());
        }
        Ok(Self(name))
    }

    fn to_json(&self) -> Json {
        Json::from(self.as_str())
    }
}

text_type! {
    /// The path under which the metrics are served.
    UrlPath
}

/// Where something else is served.
const TAKEN: [&str; 7] = ["/", "/healthz", "/ready", "/status", "/config", "/openapi.json", "/favicon.ico"];
const TAKEN_BELOW: [&str; 5] = ["/api/", "/debug/", "/admin/", "/status/", "/assets/"];

impl UrlPath {
    pub(super) fn metrics() -> Self {
        Self("/metrics".to_owned())
    }
}

impl Scalar for UrlPath {
    fn expected() -> String {
        "a path such as /metrics".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let is_segment = |segment: &str| {
            let is_of_segment = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(is_of_segment)
        };
        if TAKEN.contains(&text) || TAKEN_BELOW.iter().any(|prefix| text.starts_with(prefix)) {
            return Err("something else is served there".to_owned());
        }
        match text.strip_prefix('/') {
            Some(rest) if text.len() <= 200 && rest.split('/').all(is_segment) => Ok(Self(text.to_owned())),
            _ => Err(String::new()),
        }
    }

    fn to_json(&self) -> Json {
        Json::from(self.as_str())
    }
}

text_type! {
    /// Paths of requests: one, or all that begin so if it ends in `*`.
    PathPattern
}

impl PathPattern {
    /// Whether the path of a request, without its query, is meant.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == self.0,
        }
    }
}

impl Scalar for PathPattern {
    fn expected() -> String {
        "a path such as /healthz, or /static/* for all below".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let beginning = text.strip_suffix('*').unwrap_or(text);
        if beginning.contains('*') {
            return Err("`*` is understood at the end only".to_owned());
        }
        if beginning.contains(['?', '#']) {
            return Err("queries are not looked at".to_owned());
        }
        if !beginning.starts_with('/') || !is_visible_ascii(text) {
            return Err(String::new());
        }
        Ok(Self(text.to_owned()))
    }

    fn to_json(&self) -> Json {
        Json::from(self.as_str())
    }
}

text_type! {
    /// The origin of a web page (`https://grafana.example.com`), or `*` for all.
    WebOrigin
}

impl WebOrigin {
    /// Whether any page is meant.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.0 == "*"
    }
}

impl Scalar for WebOrigin {
    fn expected() -> String {
        "an origin such as http://localhost:3000, or *".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self(text.to_owned()));
        }
        let lower = text.to_ascii_lowercase();
        if !lower.starts_with("http://") && !lower.starts_with("https://") {
            return Err("it begins with http:// or https://".to_owned());
        }
        // As a browser sends it: no path, not even a slash, and no port that goes without saying.
        let endpoint = super::Endpoint::parse(&lower)?;
        if !endpoint.path.is_empty() || lower.ends_with('/') {
            return Err("an origin has no path, nor a final slash".to_owned());
        }
        if lower.starts_with("http://") && endpoint.port == Some(80)
            || lower.starts_with("https://") && endpoint.port == Some(443)
        {
            return Err("browsers leave this port out".to_owned());
        }
        Ok(Self(endpoint.to_string()))
    }

    fn to_json(&self) -> Json {
        Json::from(self.as_str())
    }
}

text_type! {
    /// What the names of all metrics begin with, without the underscore after it.
    MetricPrefix
}

impl MetricPrefix {
    pub(super) fn of_spanflame() -> Self {
        Self("spanflame".to_owned())
    }
}

impl Scalar for MetricPrefix {
    fn expected() -> String {
        "the beginning of metric names: letters, digits and underscores, no digit first".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if text.is_empty()
            || text.len() > 64
            || !text.bytes().all(is_fit)
            || text.starts_with(|first: char| first.is_ascii_digit())
        {
            return Err(String::new());
        }
        Ok(Self(text.to_owned()))
    }

    fn to_json(&self) -> Json {
        Json::from(self.as_str())
    }
}

/// A folder; absolute, since a service has no place of its own to start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory(PathBuf);

impl Directory {
    pub(super) fn of_state() -> Self {
        Self(PathBuf::from("/var/lib/spanflame"))
    }

    pub(super) fn of_bpf() -> Self {
        Self(PathBuf::from("/sys/fs/bpf"))
    }

    /// The folder.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl Scalar for Directory {
    fn expected() -> String {
        "the absolute path of a folder".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.contains('\0') || !text.starts_with('/') {
            return Err(String::new());
        }
        Ok(Self(PathBuf::from(text)))
    }

    fn to_json(&self) -> Json {
        Json::from(self.0.to_string_lossy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::tests::check_scalar;

    #[test]
    fn host_names() {
        let long = "a".repeat(64);
        check_scalar::<HostName>(
            &[("localhost", "localhost"), ("A.Example.COM.", "a.example.com"), ("my_app-1", "my_app-1")],
            &["", ".", "a..b", "-a", "a-", "a b", "a:80", "ü.de", "*", &long],
        );
    }

    #[test]
    fn paths_of_metrics_take_no_others_place() {
        check_scalar::<UrlPath>(
            &[("/metrics", "/metrics"), ("/a/b-c.d", "/a/b-c.d"), ("/apis", "/apis")],
            &[
                "",
                "/",
                "metrics",
                "/metrics/",
                "//",
                "/a?b",
                "/a b",
                "/../x",
                "/./x",
                "/status",
                "/api/v1/x",
                "/{x}",
            ],
        );
    }

    #[test]
    fn a_pattern_is_the_whole_path_or_its_beginning() {
        check_scalar::<PathPattern>(
            &[("/healthz", "/healthz"), ("/static/*", "/static/*"), ("/*", "/*")],
            &["", "healthz", "*", "/a*b", "/a**", "/a?b=c", "/a b", "/a\n"],
        );
        let pattern = |text: &str| PathPattern::parse(text).expect(text);
        assert!(pattern("/health").matches("/health"));
        assert!(!pattern("/health").matches("/healthz") && !pattern("/health").matches("/x/health"));
        assert!(pattern("/static/*").matches("/static/") && pattern("/static/*").matches("/static/a/b"));
        assert!(!pattern("/static/*").matches("/static"));
    }

    #[test]
    fn origins_are_as_browsers_send_them() {
        check_scalar::<WebOrigin>(
            &[
                ("http://localhost:3000", "http://localhost:3000"),
                ("HTTPS://Grafana.example.com", "https://grafana.example.com"),
                ("*", "*"),
            ],
            &[
                "",
                "localhost:3000",
                "http://a/",
                "http://a/x",
                "http://a:80",
                "https://a:443",
                "http://*",
                "null",
            ],
        );
    }

    #[test]
    fn prefixes_and_folders() {
        check_scalar::<MetricPrefix>(
            &[("spanflame", "spanflame"), ("_a1", "_a1")],
            &["", "1a", "a-b", "a:b", "ü"],
        );
        check_scalar::<Directory>(&[("/var/lib/x", "/var/lib/x")], &["", "relative", "~/x", "/a\0b"]);
    }
}
