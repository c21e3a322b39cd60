//! The value of a key: how it is read from a file and from the environment, and how it is shown.
//!
//! A type of a key is a [`Scalar`], a list of scalars, a scalar that may be absent, or `Headers`. Types say
//! what they expect; the sentence of an error is made here, and it shows what was written, but neither a
//! secret nor what a variable held.

use std::any::Any;

use serde_json::Value as Json;

use super::error::{Position, quoted};
use super::yaml::{Content, Node};

/// A value written as one word or text.
pub(super) trait Scalar: Clone + PartialEq + 'static {
    /// Errors do not show what was written.
    const SECRET: bool = false;
    /// What is expected, to go on after "is not": "an address such as …".
    fn expected() -> String;
    /// The value of `text`.
    ///
    /// # Errors
    /// What is wrong with it beyond not being what is expected, or an empty text; never the value itself.
    fn parse(text: &str) -> Result<Self, String>;
    /// As it is shown; a secret answers its replacement. Read again it is the same value.
    fn to_json(&self) -> Json;
}

/// What is wrong with a value of a file, and where in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) position: Position,
    pub(super) message: String,
}

/// Anything that a key can hold.
pub(super) trait KeyType: Clone + PartialEq + 'static {
    /// As [`Scalar::SECRET`].
    const SECRET: bool = false;
    /// The value of a node of the file.
    ///
    /// # Errors
    /// All that is wrong with it.
    fn from_node(node: &Node) -> Result<Self, Vec<Fault>>;
    /// The value of a variable or a flag.
    ///
    /// # Errors
    /// What is wrong with it, as a whole sentence.
    fn from_text(text: &str) -> Result<Self, String>;
    /// As it is shown.
    fn to_json(&self) -> Json;
}

/// A [`KeyType`] whose type is not known: what the walk over the table deals with.
pub(super) trait Value {
    fn is_secret(&self) -> bool;
    fn set_from_node(&mut self, node: &Node) -> Result<(), Vec<Fault>>;
    fn set_from_text(&mut self, text: &str) -> Result<(), String>;
    fn to_json(&self) -> Json;
    fn equals(&self, other: &dyn Value) -> bool;
    /// Takes the value of another key of the same type; of another type, nothing.
    fn set_from(&mut self, other: &dyn Value);
    fn as_any(&self) -> &dyn Any;
}

impl<T: KeyType> Value for T {
    fn is_secret(&self) -> bool {
        <T as KeyType>::SECRET
    }

    fn set_from_node(&mut self, node: &Node) -> Result<(), Vec<Fault>> {
        *self = T::from_node(node)?;
        Ok(())
    }

    fn set_from_text(&mut self, text: &str) -> Result<(), String> {
        *self = T::from_text(text)?;
        Ok(())
    }

    fn to_json(&self) -> Json {
        KeyType::to_json(self)
    }

    fn equals(&self, other: &dyn Value) -> bool {
        other.as_any().downcast_ref::<T>() == Some(self)
    }

    fn set_from(&mut self, other: &dyn Value) {
        if let Some(other) = other.as_any().downcast_ref::<T>() {
            self.clone_from(other);
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl<T: Scalar> KeyType for T {
    const SECRET: bool = <T as Scalar>::SECRET;

    fn from_node(node: &Node) -> Result<Self, Vec<Fault>> {
        let fault = |message: String| vec![Fault { position: node.position, message }];
        let expected = T::expected();
        match &node.content {
            Content::Scalar(scalar) => {
                let written = scalar.substituted_in.as_ref().unwrap_or(&scalar.text);
                parse::<T>(&scalar.text, written).map_err(fault)
            }
            Content::Null => {
                Err(fault(format!("has no value; leave the key out for its default, or give {expected}")))
            }
            Content::Sequence(_) => Err(fault(format!("is a list, and should be {expected}"))),
            Content::Mapping(_) => Err(fault(format!("has keys below it, and should be {expected}"))),
            Content::Failed => Err(Vec::new()),
        }
    }

    fn from_text(text: &str) -> Result<Self, String> {
        parse(text, text)
    }

    fn to_json(&self) -> Json {
        Scalar::to_json(self)
    }
}

fn parse<T: Scalar>(text: &str, written: &str) -> Result<T, String> {
    T::parse(text).map_err(|detail| {
        let what = if <T as Scalar>::SECRET { "the value".to_owned() } else { quoted(written) };
        let expected = T::expected();
        let colon = if detail.is_empty() { "" } else { ": " };
        format!("{what} is not {expected}{colon}{detail}")
    })
}

impl<T: Scalar> KeyType for Option<T> {
    const SECRET: bool = <T as Scalar>::SECRET;

    fn from_node(node: &Node) -> Result<Self, Vec<Fault>> {
        match node.content {
            Content::Null => Ok(None),
            _ => T::from_node(node).map(Some),
        }
    }

    fn from_text(text: &str) -> Result<Self, String> {
        T::from_text(text).map(Some)
    }

    fn to_json(&self) -> Json {
        self.as_ref().map_or(Json::Null, Scalar::to_json)
    }
}

/// A list: in a file a sequence, in a variable words between commas.
impl<T: Scalar> KeyType for Vec<T> {
    fn from_node(node: &Node) -> Result<Self, Vec<Fault>> {
        let fault = |message: String| vec![Fault { position: node.position, message }];
        match &node.content {
            Content::Sequence(nodes) => {
                let mut items = Vec::new();
                let mut faults = Vec::new();
                for node in nodes {
                    match T::from_node(node) {
                        Ok(item) => items.push(item),
                        Err(of_item) => faults.extend(of_item),
                    }
                }
                if faults.is_empty() { Ok(items) } else { Err(faults) }
            }
            // One variable may hold the whole list: `exclude_paths: ${EXCLUDED:-}`.
            Content::Scalar(scalar) if scalar.substituted_in.is_some() => scalar
                .text
                .split(',')
                .map(|item| parse(item.trim(), scalar.substituted_in.as_deref().unwrap_or_default()))
                .collect::<Result<_, _>>()
                .map_err(fault),
            Content::Scalar(_) => Err(fault("is one value, and should be a list: `[a, b]`".to_owned())),
            Content::Mapping(_) => Err(fault("has keys below it, and should be a list: `[a, b]`".to_owned())),
            Content::Null => Ok(Vec::new()),
            Content::Failed => Err(Vec::new()),
        }
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.split(',').map(|item| T::from_text(item.trim())).collect()
    }

    fn to_json(&self) -> Json {
        Json::Array(self.iter().map(Scalar::to_json).collect())
    }
}

impl Scalar for bool {
    fn expected() -> String {
        "true or false".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(String::new()),
        }
    }

    fn to_json(&self) -> Json {
        Json::Bool(*self)
    }
}

/// A port number.
impl Scalar for u16 {
    fn expected() -> String {
        "a port from 1 to 65535".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(port) if port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
            _ => Err(String::new()),
        }
    }

    fn to_json(&self) -> Json {
        Json::from(*self)
    }
}

/// Whether there is text, and nothing in it that a reader would not see.
pub(super) fn is_visible_ascii(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::yaml;

    /// The value of `key: TEXT` in a file.
    pub(in crate::config) fn from_yaml<T: KeyType>(text: &str) -> Result<T, Vec<String>> {
        let (entries, errors) = yaml::parse(&format!("key: {text}\n")).expect(text);
        assert!(errors.is_empty(), "{errors:?}");
        T::from_node(&entries[0].value)
            .map_err(|faults| faults.into_iter().map(|fault| fault.message).collect())
    }

    /// `T` reads each of `good`, shows it as given, and refuses each of `bad`.
    pub(in crate::config) fn check_scalar<T: Scalar + std::fmt::Debug>(good: &[(&str, &str)], bad: &[&str]) {
        for (text, shown) in good {
            let value = T::parse(text).unwrap_or_else(|detail| panic!("{text}: {detail}"));
            let json = Scalar::to_json(&value);
            assert_eq!(json.as_str().map_or_else(|| json.to_string(), str::to_owned), *shown, "{text}");
            assert_eq!(T::parse(shown).as_ref(), Ok(&value), "{text} is shown as another value");
        }
        for text in bad {
            let result = T::from_text(text);
            let message = result.expect_err(text);
            assert!(message.contains(&T::expected()), "{message}");
        }
    }

    #[test]
    fn booleans_are_true_or_false_and_none_of_yamls_other_words() {
        check_scalar::<bool>(
            &[("true", "true"), ("false", "false")],
            &["yes", "on", "1", "True", "", "truee"],
        );
        assert_eq!(from_yaml::<bool>("\"true\""), Ok(true), "quotes do not change it");
        assert_eq!(from_yaml::<bool>("yes"), Err(vec!["`yes` is not true or false".to_owned()]));
    }

    #[test]
    fn ports() {
        check_scalar::<u16>(
            &[("1", "1"), ("65535", "65535")],
            &["0", "65536", "-1", "+1", "1.0", "ssh", "", " 1"],
        );
    }

    #[test]
    fn a_value_of_the_wrong_shape_says_what_it_is_and_what_it_should_be() {
        for (text, part) in [("[true]", "is a list"), ("{a: 1}", "keys below"), ("", "has no value")] {
            let messages = from_yaml::<bool>(text).expect_err(text);
            assert!(messages[0].contains(part) && messages[0].contains("true or false"), "{messages:?}");
        }
        for (text, part) in [("1", "one value"), ("{a: 1}", "keys below")] {
            let messages = from_yaml::<Vec<u16>>(text).expect_err(text);
            assert!(messages[0].contains(part) && messages[0].contains("list"), "{messages:?}");
        }
    }

    #[test]
    fn every_wrong_item_of_a_list_is_reported_and_null_is_the_empty_list() {
        assert_eq!(from_yaml::<Vec<u16>>("[22, 2379]"), Ok(vec![22, 2379]));
        assert_eq!(from_yaml::<Vec<u16>>("[1, a, 2, b]").map_err(|messages| messages.len()), Err(2));
        assert_eq!(from_yaml::<Vec<u16>>("[1, [2]]").map_err(|messages| messages.len()), Err(1));
        assert_eq!(from_yaml::<Vec<u16>>(""), Ok(Vec::new()));
        assert_eq!(<Vec<u16>>::from_text("22, 2379"), Ok(vec![22, 2379]));
        assert!(<Vec<u16>>::from_text("22,,2379").is_err());
    }

    #[test]
    fn an_optional_value_is_absent_by_null_only() {
        assert_eq!(from_yaml::<Option<u16>>("~"), Ok(None));
        assert_eq!(from_yaml::<Option<u16>>("22"), Ok(Some(22)));
        assert!(from_yaml::<Option<u16>>("''").is_err());
    }
}
