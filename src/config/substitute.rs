//! `${VAR}` and `${VAR:-default}` in values, by variables of the environment.
//!
//! Done in scalars after the YAML has been read, so a variable's value is text and can never become keys.
//! `$$` is a dollar. Any other use of `$` is an error: a token of which `$API` was meant as a variable would
//! otherwise be taken literally, and protect nothing. Values put in are not searched again.

use super::environment::Environment;
use super::error::{Position, quoted};
use super::yaml::{Content, Entry, Node};

/// Room for all values of a file together once variables are in.
const MAX_SUBSTITUTED_BYTES: usize = 1 << 20;

/// Something wrong with a `$`; `key` is the path of the value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SubstitutionError {
    pub(super) key: String,
    pub(super) position: Position,
    pub(super) message: String,
}

/// Substitutes in all values below `entries`. What cannot be substituted is marked as failed in the tree, so
/// that it is reported once.
pub(super) fn substitute(entries: &mut [Entry], environment: &Environment) -> Vec<SubstitutionError> {
    let mut substitution =
        Substitution { environment, room_bytes: MAX_SUBSTITUTED_BYTES, errors: Vec::new() };
    substitution.mapping(entries, "");
    substitution.errors
}

struct Substitution<'a> {
    environment: &'a Environment,
    room_bytes: usize,
    errors: Vec<SubstitutionError>,
}

impl Substitution<'_> {
    fn mapping(&mut self, entries: &mut [Entry], path: &str) {
        for entry in entries {
            let path = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
            self.node(&mut entry.value, &path);
        }
    }

    /// Calls itself as deep as the tree is, which `yaml.rs` bounds.
    fn node(&mut self, node: &mut Node, path: &str) {
        match &mut node.content {
            Content::Null => {}
            Content::Sequence(items) => items.iter_mut().for_each(|item| self.node(item, path)),
            Content::Mapping(entries) => self.mapping(entries, path),
            Content::Scalar(scalar) => match expand(&scalar.text, self.environment, self.room_bytes) {
                Ok(None) => {}
                Ok(Some(text)) => {
                    self.room_bytes = self.room_bytes.saturating_sub(text.len());
                    if text.is_empty() {
                        // `endpoint: "${ENDPOINT:-}"` without the variable: as if nothing stood there.
                        node.content = Content::Null;
                    } else {
                        scalar.substituted_in = Some(std::mem::replace(&mut scalar.text, text));
                    }
                }
                Err(message) => {
                    self.errors.push(SubstitutionError {
                        key: path.to_owned(),
                        position: node.position,
                        message,
                    });
                    node.content = Content::Failed;
                }
            },
            Content::Failed => {}
        }
    }
}

/// The text with its variables put in; `None` if there is no `$` in it.
fn expand(text: &str, environment: &Environment, room_bytes: usize) -> Result<Option<String>, String> {
    if !text.contains('$') {
        return Ok(None);
    }
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        let Some(body) = after.strip_prefix('{') else {
            let name: String = after.chars().take_while(|&character| is_of_name(character)).collect();
            return Err(if name.is_empty() {
                "a lone `$`: write `$$` for a dollar, `${VAR}` for a variable".to_owned()
            } else {
                format!("write `${{{name}}}` for the variable, `$$` for a dollar")
            });
        };
        let Some((body, after)) = body.split_once('}') else {
            return Err("`${` without its `}`".to_owned());
        };
        let value = variable(body, environment)?;
        if expanded.len().saturating_add(value.len()) > room_bytes {
            return Err(format!("values exceed {MAX_SUBSTITUTED_BYTES} bytes once variables are put in"));
        }
        expanded.push_str(value);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(Some(expanded))
}

/// The value for what stands between the braces.
fn variable<'a>(body: &'a str, environment: &'a Environment) -> Result<&'a str, String> {
    let (name, default) = match body.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (body, None),
    };
    if name.is_empty()
        || !name.chars().all(is_of_name)
        || name.starts_with(|first: char| first.is_ascii_digit())
    {
        return Err(format!(
            "{} is no variable: `${{VAR}}` and `${{VAR:-default}}` are understood",
            quoted(body)
        ));
    }
    if default.is_some_and(|default| default.contains('$')) {
        return Err(format!("the default of `{name}` must be plain text"));
    }
    let value = match environment.get(name) {
        None => None,
        Some(value) => Some(value.to_str().ok_or_else(|| format!("the variable `{name}` is not UTF-8"))?),
    };
    match (value, default) {
        // As a shell has it: `:-` is for variables that are empty as well.
        (Some(""), Some(default)) => Ok(default),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default),
        (None, None) => Err(format!(
            "the environment has no variable `{name}`; set it, or give a default: `${{{name}:-default}}`"
        )),
    }
}

fn is_of_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;

    fn environment() -> Environment {
        let large = "x".repeat(1 << 19);
        Environment::of(&[
            ("TOKEN", "s3cret"),
            ("EMPTY", ""),
            ("DOLLARS", "$${TOKEN}: [x]\n"),
            ("LARGE", large.as_str()),
        ])
    }

    fn expanded(text: &str) -> Result<Option<String>, String> {
        expand(text, &environment(), MAX_SUBSTITUTED_BYTES)
    }

    #[test]
    fn variables_defaults_and_dollars() {
        for (text, wanted) in [
            ("${TOKEN}", "s3cret"),
            ("a-${TOKEN}-b-${TOKEN}", "a-s3cret-b-s3cret"),
            ("${MISSING:-fall back}", "fall back"),
            ("${MISSING:-}", ""),
            ("${EMPTY:-used}", "used"),
            ("${EMPTY}", ""),
            ("${TOKEN:-unused}", "s3cret"),
            ("${MISSING:-a:-b}", "a:-b"),
            ("$$", "$"),
            ("pa$$word", "pa$word"),
            ("$${TOKEN}", "${TOKEN}"),
            ("$$${TOKEN}", "$s3cret"),
            ("${DOLLARS}", "$${TOKEN}: [x]\n"),
        ] {
            assert_eq!(expanded(text), Ok(Some(wanted.to_owned())), "{text}");
        }
        assert_eq!(expanded("no variable {here}"), Ok(None));
    }

    #[test]
    fn everything_else_with_a_dollar_is_an_error_that_says_what_to_write() {
        for (text, part) in [
            ("${MISSING}", "no variable `MISSING`"),
            ("$TOKEN", "`${TOKEN}`"),
            ("end$", "`$$`"),
            ("$ 5", "`$$`"),
            ("${TOKEN", "without its"),
            ("${}", "no variable"),
            ("${TO KEN}", "no variable"),
            ("${1ST}", "no variable"),
            ("${TOKEN:?message}", "understood"),
            ("${MISSING:-${TOKEN}}", "plain text"),
        ] {
            let message = expanded(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
            assert!(!message.contains("s3cret"), "{message}");
        }
    }

    #[test]
    fn what_variables_hold_never_becomes_structure_and_is_not_expanded_again() {
        let (mut entries, _) = yaml::parse("a: ${DOLLARS}\nb: ['${EMPTY}', x]\n").expect("YAML");
        assert_eq!(substitute(&mut entries, &environment()), []);
        let Content::Scalar(scalar) = &entries[0].value.content else { panic!("{entries:?}") };
        assert_eq!(scalar.text, "$${TOKEN}: [x]\n");
        assert_eq!(scalar.substituted_in.as_deref(), Some("${DOLLARS}"));
        let Content::Sequence(items) = &entries[1].value.content else { panic!("{entries:?}") };
        assert_eq!(items[0].content, Content::Null, "an empty variable is nothing");
    }

    #[test]
    fn a_small_file_does_not_become_a_huge_one() {
        let text = format!("a: [{}]", "\"${LARGE}\",".repeat(10_000));
        let (mut entries, _) = yaml::parse(&text).expect("YAML");
        let errors = substitute(&mut entries, &environment());
        assert!(errors.len() > 9_000, "{}", errors.len());
        assert!(errors[0].message.contains("exceed"), "{:?}", errors[0]);
    }
}
