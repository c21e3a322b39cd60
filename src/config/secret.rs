//! Values that are never shown: tokens, and headers that carry them.
//!
//! Neither `Debug` nor `Display` nor `Serialize` nor an error message contains one. What is shown instead,
//! [`REDACTED`], is refused as a value, so that a listing that is used as a configuration does not turn
//! into a well-known token.

use std::collections::BTreeMap;
use std::fmt;
use std::hint::black_box;

use serde_json::Value as Json;

use super::error::quoted_key;
use super::value::{Fault, KeyType, Scalar, is_visible_ascii};
use super::yaml::{Content, Node};

/// What stands in the place of a secret.
pub(super) const REDACTED: &str = "[redacted]";

/// A token or password: visible ASCII, since it travels in headers.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// The secret itself, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `candidate` is the secret. How long this takes depends on the lengths, not on how much of it
    /// is right.
    #[must_use]
    pub fn matches(&self, candidate: &[u8]) -> bool {
        let secret = self.0.as_bytes();
        if secret.len() != candidate.len() {
            return false;
        }
        let difference = secret.iter().zip(candidate).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
        difference == 0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.0.as_bytes())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

impl serde::Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

impl Scalar for Secret {
    const SECRET: bool = true;

    fn expected() -> String {
        "a secret of visible ASCII characters".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text == REDACTED {
            return Err(format!("`{REDACTED}` is what is shown in place of one"));
        }
        if !is_visible_ascii(text) {
            return Err("it is empty, or has a space, a line break or another character in it".to_owned());
        }
        Ok(Self(text.into()))
    }

    fn to_json(&self) -> Json {
        Json::from(REDACTED)
    }
}

/// Headers of requests by name in lower case; their values are secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers(BTreeMap<String, HeaderValue>);

/// Like a [`Secret`], and spaces within it are right.
#[derive(Clone, PartialEq, Eq)]
struct HeaderValue(Secret);

impl fmt::Debug for HeaderValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

impl HeaderValue {
    fn parse(text: &str) -> Result<Self, String> {
        let fits = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if text == REDACTED {
            return Err(format!("`{REDACTED}` is what is shown in place of a header's value"));
        }
        if !fits || text.trim() != text || text.is_empty() {
            return Err("the value is not text of visible ASCII characters with spaces within".to_owned());
        }
        Ok(Self(Secret(text.into())))
    }
}

impl Headers {
    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.0.iter().map(|(name, value)| (name.as_str(), &value.0))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One header.
    #[cfg(test)]
    pub(crate) fn for_tests(name: &str, value: &str) -> Self {
        let mut headers = Self::default();
        headers.insert(name, value).expect("a header");
        headers
    }

    fn insert(&mut self, name: &str, value: &str) -> Result<(), String> {
        // RFC 9110, 5.6.2: a token.
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || name.len() > 128 || !name.bytes().all(is_token) {
            // Not shown: of `authorization: Bearer s3cret=` in a variable it holds the secret.
            return Err(
                "a header's name is not one; in a variable headers are `name=value,name=value`".to_owned()
            );
        }
        let value = HeaderValue::parse(value).map_err(|message| format!("{name}: {message}"))?;
        match self.0.insert(name.to_ascii_lowercase(), value) {
            None => Ok(()),
            Some(_) => Err(format!("{name}: stands here twice")),
        }
    }
}

impl KeyType for Headers {
    const SECRET: bool = true;

    fn from_node(node: &Node) -> Result<Self, Vec<Fault>> {
        let shape = |message: &str| vec![Fault { position: node.position, message: message.to_owned() }];
        let entries = match &node.content {
            Content::Mapping(entries) => entries,
            Content::Null => return Ok(Self::default()),
            Content::Failed => return Err(Vec::new()),
            Content::Scalar(scalar) if scalar.substituted_in.is_some() => {
                return Self::from_text(&scalar.text).map_err(|message| shape(&message));
            }
            Content::Scalar(_) | Content::Sequence(_) => {
                return Err(shape("is not headers, each `name: value` on a line of its own below"));
            }
        };
        let mut headers = Self::default();
        let mut faults = Vec::new();
        for entry in entries {
            let result = match &entry.value.content {
                Content::Scalar(scalar) => headers.insert(&entry.key, &scalar.text),
                Content::Failed => Ok(()),
                _ => Err(format!("{}: is not one value", quoted_key(&entry.key))),
            };
            if let Err(message) = result {
                faults.push(Fault { position: entry.position, message });
            }
        }
        if faults.is_empty() { Ok(headers) } else { Err(faults) }
    }

    /// `name=value,name=value`, as `OTEL_EXPORTER_OTLP_HEADERS` has it.
    fn from_text(text: &str) -> Result<Self, String> {
        let mut headers = Self::default();
        for pair in text.split(',') {
            // What stands before a missing `=` may be the secret.
            let (name, value) = pair.split_once('=').ok_or("a header without `=` between name and value")?;
            headers.insert(name.trim(), value.trim())?;
        }
        Ok(headers)
    }

    fn to_json(&self) -> Json {
        self.0.keys().map(|name| (name.clone(), Json::from(REDACTED))).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::value::tests::from_yaml;

    #[test]
    fn the_secret_is_compared_as_a_whole() {
        let secret = Secret::parse("s3cret").expect("a secret");
        assert!(secret.matches(b"s3cret"));
        for wrong in [&b"s3cre"[..], b"s3cret ", b"s3crex", b"x3cret", b"", b"S3CRET"] {
            assert!(!secret.matches(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_listing_is_no_configuration_and_spaces_are_no_part_of_a_token() {
        for text in ["", REDACTED, "a b", " a", "a\n", "ü"] {
            let message = <Secret as KeyType>::from_text(text).expect_err(text);
            assert!(
                text.is_empty() || text == REDACTED || !message.contains(&format!("`{text}`")),
                "{message}"
            );
        }
    }

    #[test]
    fn headers_are_read_from_a_mapping_and_from_pairs() {
        let of_file: Headers =
            from_yaml("{Authorization: Basic abc=, x-scope: '${SCOPE}'}").expect("headers");
        let of_variable = Headers::from_text("authorization=Basic abc=, X-Scope=${SCOPE}").expect("headers");
        assert_eq!(of_file, of_variable);
        let shown: Vec<_> = of_file.iter().map(|(name, value)| (name, value.reveal())).collect();
        assert_eq!(shown, [("authorization", "Basic abc="), ("x-scope", "${SCOPE}")]);
        assert_eq!(
            KeyType::to_json(&of_file).to_string(),
            r#"{"authorization":"[redacted]","x-scope":"[redacted]"}"#
        );
    }

    #[test]
    fn hostile_headers_are_refused_without_showing_their_value() {
        for text in [
            "hunter2",
            "a=hun\nter2",
            "b c=hunter2",
            "a=",
            "=hunter2",
            "a=1,A=hunter2",
            "a=[redacted]",
            "authorization: Bearer hunter2==",
        ] {
            let message = Headers::from_text(text).expect_err(text);
            assert!(!message.contains("hunter2"), "{message}");
        }
        for text in [
            "hunter2",
            "[hunter2]",
            "{a: [hunter2]}",
            "{a: {b: hunter2}}",
            "{a:hunter2}",
            "{a:hunter2: [1]}",
            "{'x y': hunter2}",
            "{a: }",
        ] {
            let messages = from_yaml::<Headers>(text).expect_err(text);
            assert!(messages.iter().all(|message| !message.contains("hunter2")), "{messages:?}");
        }
    }

    proptest! {
        #[test]
        fn no_way_of_showing_a_secret_shows_it(text in "[!-~]{6,40}") {
            prop_assume!(!REDACTED.contains(&text) && text != REDACTED);
            let secret = Secret::parse(&text).expect("visible ASCII");
            let headers = Headers::from_text(&format!("name={}", text.replace(',', "."))).expect("a header");
            let shown = format!(
                "{secret} {secret:?} {secret:#?} {headers:?} {} {} {}",
                serde_json::to_string(&secret).expect("JSON"),
                Scalar::to_json(&secret),
                KeyType::to_json(&headers),
            );
            prop_assert!(!shown.contains(&text), "{}", shown);
        }
    }
}
