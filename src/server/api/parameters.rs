//! The query of a URL, strictly: a parameter that nobody knows, that stands twice or that is no text is an
//! error, since one that is silently ignored is a wish that nobody fulfils.

use crate::server::ApiError;

/// The parameters of a request, decoded.
#[derive(Debug, Default)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads the part of a URL after `?`. `known` are the names that the endpoint has.
    ///
    /// # Errors
    /// 400, naming the parameter.
    pub fn parse(query: Option<&str>, known: &[&[&str]]) -> Result<Self, ApiError> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).map_err(|why| ApiError::invalid(name, format!("the query: {why}")))?;
            if !known.iter().any(|names| names.contains(&name.as_str())) {
                let known: Vec<&str> = known.iter().flat_map(|names| names.iter().copied()).collect();
                let message = format!("there is no parameter {name:?} here; there are: {}", known.join(", "));
                return Err(ApiError::invalid(&name, message));
            }
            if parameters.iter().any(|(other, _)| *other == name) {
                return Err(ApiError::invalid(&name, format!("{name}: it stands there twice")));
            }
            let value = decode(value).map_err(|why| ApiError::invalid(&name, format!("{name}: {why}")))?;
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    /// The value of this name, also if it is empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Those whose names begin so, without that beginning: the same parameters of something else.
    #[must_use]
    pub fn below(&self, prefix: &str) -> Self {
        let stripped = self.0.iter().filter_map(|(name, value)| {
            name.strip_prefix(prefix).map(|name| (name.to_owned(), value.clone()))
        });
        Self(stripped.collect())
    }

    /// The same with this one as well, instead of what there was of it.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.retain(|(other, _)| other != name);
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A whole number within bounds.
    ///
    /// # Errors
    /// 400, with the bounds.
    pub fn number(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let digits_only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits_only && (least..=most).contains(&number) => Ok(Some(number)),
            _ => {
                let message =
                    format!("{name}: a whole number from {least} to {most} is expected, not {text:?}");
                Err(ApiError::invalid(name, message))
            }
        }
    }

    /// Yes or no.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(other) => {
                Err(ApiError::invalid(name, format!("{name}: true or false is expected, not {other:?}")))
            }
        }
    }
}

/// Undoes the encoding of forms: `+` is a space, `%XX` a byte.
fn decode(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
                    return Err("a % is followed by something else than two hexadecimal digits");
                };
                bytes.push((high << 4 | low) as u8);
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: &[&[&str]] = &[&["a", "b c"], &["pid"]];

    #[test]
    fn values_are_decoded_and_may_be_empty() {
        let parameters = Parameters::parse(Some("a=x%2By+z%C3%A4&&b+c&pid=007"), KNOWN).unwrap();
        assert_eq!(parameters.get("a"), Some("x+y zä"));
        assert_eq!(parameters.get("b c"), Some(""));
        assert_eq!(parameters.get("nobody"), None);
        assert_eq!(parameters.number("pid", 1, 9).unwrap(), Some(7));
        assert_eq!(parameters.number("a", 1, 9).unwrap_err().code(), "invalid_request");
        assert!(Parameters::parse(None, KNOWN).unwrap().get("a").is_none());
    }

    #[test]
    fn what_is_unknown_or_twice_or_no_text_is_named() {
        for (query, about) in [
            ("q=1", "there is no parameter \"q\" here; there are: a, b c, pid"),
            ("a=1&b+c=2&a=1", "a: it stands there twice"),
            ("a=%ff", "a: it is not UTF-8"),
            ("a=%4", "a: a % is followed"),
            ("a=%zz", "a: a % is followed"),
            ("%a=1", "the query: a % is followed"),
            ("=1", "there is no parameter \"\""),
        ] {
            let error = Parameters::parse(Some(query), KNOWN).unwrap_err();
            assert!(error.message().starts_with(about), "{query}: {}", error.message());
            assert_eq!(error.status(), 400);
        }
    }

    #[test]
    fn numbers_have_no_sign_no_fraction_and_their_bounds() {
        for text in ["", "0", "11", "-1", "%2B1", "1.0", "1e0", "0x1", " 1", "99999999999999999999999", "٣"]
        {
            let query = format!("pid={text}");
            let parameters = Parameters::parse(Some(&query), KNOWN).unwrap();
            let error = parameters.number("pid", 1, 10).unwrap_err();
            assert!(error.message().contains("from 1 to 10"), "{text}: {}", error.message());
        }
    }

    #[test]
    fn parameters_of_something_else_have_a_beginning_of_their_own() {
        let known: &[&[&str]] = &[&["from", "base_from", "base_service"]];
        let parameters = Parameters::parse(Some("from=1&base_from=2&base_service="), known).unwrap();
        let base = parameters.below("base_").with("type", "cpu").with("from", "3");
        assert_eq!(
            (base.get("from"), base.get("service"), base.get("type")),
            (Some("3"), Some(""), Some("cpu"))
        );
        assert!(base.get("base_from").is_none());
    }

    proptest! {
        #[test]
        fn any_text_survives_encoding(name in "[abc]", value in any::<String>()) {
            let mut query = format!("{name}=");
            for byte in value.bytes() {
                query.push_str(&format!("%{byte:02X}"));
            }
            let known: &[&[&str]] = &[&["a", "b", "c"]];
            let parameters = Parameters::parse(Some(&query), known).unwrap();
            prop_assert_eq!(parameters.get(&name), Some(value.as_str()));
        }

        #[test]
        fn no_query_is_too_strange(query in any::<String>()) {
            let _ = Parameters::parse(Some(&query), KNOWN);
        }
    }
}
