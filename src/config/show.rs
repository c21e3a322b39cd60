//! The configuration as text: listings with secrets redacted, and the annotated example.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json};

use super::environment::variable_of;
use super::schema::Configuration;
use super::section::{Effect, KeyFacts, MemberKind, Section, all_keys, join};
use super::sources::{Loaded, Origins};

impl serde::Serialize for Configuration {
    /// Nested as in the file, every key with its value, secrets redacted: what `/config` answers.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The walk over the table is one for reading and writing, and wants what it may write to.
        section_to_json(&mut self.clone()).serialize(serializer)
    }
}

fn section_to_json(section: &mut dyn Section) -> Json {
    let mut object = Map::new();
    for member in section.members() {
        let value = match member.kind {
            MemberKind::Section(inner) => section_to_json(inner),
            MemberKind::Key(value, _) => value.to_json(),
        };
        object.insert(member.name.to_owned(), value);
    }
    Json::Object(object)
}

impl Loaded {
    /// What is in effect, as YAML that can be read again; behind each value where it comes from. Secrets are
    /// redacted.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        Listing { annotations: Annotations::Origins(&self.origins), text: &mut text }
            .section(&mut self.configuration.clone(), "");
        text
    }

    /// `{"configuration": {…}, "origins": {KEY: PLACE}}`, with the origin of every key. Secrets are redacted.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut configuration = self.configuration.clone();
        let origins: Map<String, Json> = all_keys(&mut configuration)
            .into_iter()
            .map(|key| (key.path.clone(), Json::from(self.origins.of(&key.path).to_string())))
            .collect();
        serde_json::json!({ "configuration": section_to_json(&mut configuration), "origins": origins })
    }
}

/// Every key with its documentation and its default, as YAML: `etc/spanflame.yaml`.
#[must_use]
pub fn example() -> String {
    let mut text = EXAMPLE_HEAD.to_owned();
    Listing { annotations: Annotations::Documentation, text: &mut text }
        .section(&mut Configuration::default(), "");
    text
}

const EXAMPLE_HEAD: &str = "\
# The configuration of `spanflame serve`: every key, with its default. Written by `spanflame config example`.
#
#   spanflame config validate --config FILE    names every mistake with its line
#   spanflame config show --config FILE        shows what is in effect, and where each value comes from
#
# Defaults are overridden by this file, the file by the environment, the environment by flags. Below each
# key's description stand the variable that sets it and what a change needs: a reload (SIGHUP, or POST
# /admin/reload) or a restart. `no effect yet` is said of keys whose part is still being built.
#
# In values, ${VAR} is a variable of the environment, ${VAR:-default} has a default, and $$ is a dollar.
# Durations: 500ms, 10s, 15m, 1h30m, 7d. Sizes: 500MB (of 1000), 2GiB (of 1024).
";

enum Annotations<'a> {
    Origins(&'a Origins),
    Documentation,
}

struct Listing<'a> {
    annotations: Annotations<'a>,
    text: &'a mut String,
}

impl Listing<'_> {
    /// Calls itself as deep as the table is.
    fn section(&mut self, section: &mut dyn Section, path: &str) {
        let depth = if path.is_empty() { 0 } else { path.split('.').count() };
        let indent = "  ".repeat(depth);
        for member in section.members() {
            let path = join(path, member.name);
            match member.kind {
                MemberKind::Section(inner) => {
                    if let Annotations::Documentation = self.annotations {
                        // No empty line between a section and its first one.
                        if !self.text.ends_with(":\n") {
                            self.text.push('\n');
                        }
                        self.comment(&indent, inner.documentation());
                    }
                    self.line(&format!("{indent}{}:", member.name));
                    self.section(inner, &path);
                }
                MemberKind::Key(value, facts) => {
                    let shown = to_yaml(&value.to_json());
                    match &self.annotations {
                        Annotations::Origins(origins) => {
                            let origin = origins.of(&path);
                            self.line(&format!("{indent}{}: {shown}  # {origin}", member.name));
                        }
                        Annotations::Documentation => {
                            self.described_key(&indent, &path, member.name, &shown, facts);
                        }
                    }
                }
            }
        }
    }

    fn described_key(&mut self, indent: &str, path: &str, name: &str, shown: &str, facts: KeyFacts) {
        let effect = match facts.effect {
            Effect::Reload => "reload",
            Effect::Restart => "restart",
            Effect::NotYet => "no effect yet",
        };
        self.comment(indent, facts.documentation);
        self.line(&format!("{indent}# {}; {effect}", variable_of(path)));
        match facts.examples.first() {
            None => self.line(&format!("{indent}{name}: {shown}")),
            Some(example) if shown == "null" => self.line(&format!("{indent}# {name}: {example}")),
            // Beside the value: on a line of its own it would be the key a second time once uncommented.
            Some(example) => self.line(&format!("{indent}{name}: {shown}  # such as {example}")),
        }
    }

    fn comment(&mut self, indent: &str, lines: &[&str]) {
        for line in lines {
            self.line(&format!("{indent}#{line}"));
        }
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }
}

/// As YAML that our own reader takes for the same value: JSON but for plain words, with dollars doubled.
fn to_yaml(value: &Json) -> String {
    if let Json::String(text) = value
        && is_plain(text)
    {
        return text.clone();
    }
    let mut yaml = String::new();
    for character in value.to_string().chars() {
        match character {
            '$' => yaml.push_str("$$"),
            // JSON leaves these as they are, and YAML takes them for line breaks or not at all.
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                // Writing to a string does not fail.
                let _ = write!(yaml, "\\u{:04x}", u32::from(character));
            }
            character => yaml.push(character),
        }
    }
    yaml
}

/// Words that mean themselves without quotes.
fn is_plain(text: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:".contains(&byte);
    let is_null = text.eq_ignore_ascii_case("null");
    !is_null
        && text.bytes().all(is_fit)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '/')
        && !text.ends_with(':')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Sources;

    /// Values in which everything that can go wrong in a listing does: quotes, dollars, colons, unset keys.
    const AWKWARD: &str = "
otlp:
  endpoint: https://otel.example.com/otlp
  protocol: http
  headers: {authorization: Bearer hunter2-hunter2}
storage:
  dir: '/var/\"odd\" $$dir: # [x]'
  max_age: 1h30m
self_telemetry:
  listen: ':19091'
  allowed_hosts: [a.example.com, b]
  auth: {enabled: true, bearer_token: '${TOKEN}'}
agent: {ebpf: {network: {exclude_paths: [/a, '/b*']}}}
";

    fn awkward() -> Loaded {
        Sources::load_text(AWKWARD, &[("TOKEN", "hunter2"), ("SPANFLAME_LOG_LEVEL", "debug")]).expect("valid")
    }

    #[test]
    fn the_example_has_every_key_and_is_the_defaults() {
        let example = example();
        let loaded = Sources::load_text(&example, &[]).expect("valid");
        assert_eq!(loaded.configuration, Configuration::default());
        assert_eq!(loaded.warnings, Vec::<String>::new());
        for key in all_keys(&mut Configuration::default()) {
            assert!(example.contains(&format!("# {};", variable_of(&key.path))), "{}", key.path);
            let is_there = loaded.origins.of(&key.path) != crate::config::Place::Default;
            assert!(is_there || key.value.to_json().is_null(), "{} is missing", key.path);
        }
    }

    #[test]
    fn the_annotated_file_of_the_repository_is_the_example() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/spanflame.yaml");
        let file = std::fs::read_to_string(path).expect(path);
        assert!(file == example(), "write it anew: spanflame config example > etc/spanflame.yaml");
    }

    #[test]
    fn the_examples_beside_keys_are_valid_and_not_the_defaults() {
        let variables = [("API_TOKEN", "t0ken"), ("OTLP_TOKEN", "t0ken")];
        for key in all_keys(&mut Configuration::default()) {
            for example in key.facts.examples {
                let nested = key
                    .path
                    .split('.')
                    .enumerate()
                    .map(|(depth, part)| format!("\n{}{part}:", " ".repeat(depth)))
                    .collect::<String>();
                let auth = "\nself_telemetry: {auth: {enabled: false}}";
                let others = if key.path.starts_with("self_telemetry") { "" } else { auth };
                let text = format!("{nested} {example}{others}\n");
                let result = Sources::load_text(&text, &variables);
                let configuration = match result {
                    Ok(loaded) => loaded.configuration,
                    // A token that is not asked for is refused, which is another rule's business.
                    Err(errors) if key.path.ends_with("bearer_token") => {
                        assert!(errors.to_string().contains("not asked for"), "{errors}");
                        continue;
                    }
                    Err(errors) => panic!("{text}: {errors}"),
                };
                let changed = crate::config::changed_keys(&Configuration::default(), &configuration);
                assert_eq!(changed.len(), 1, "{text}: {changed:?}");
                assert_eq!(changed[0].key, key.path);
            }
        }
    }

    #[test]
    fn every_key_is_documented_in_whole_sentences_and_its_variable_is_its_own() {
        let mut variables = Vec::new();
        for key in all_keys(&mut Configuration::default()) {
            let text = key.facts.documentation.concat();
            assert!(text.starts_with(' ') && text.ends_with('.'), "{}: {text}", key.path);
            variables.push(variable_of(&key.path));
        }
        let count = variables.len();
        variables.sort();
        variables.dedup();
        assert_eq!(variables.len(), count, "two keys have one variable: {variables:?}");
    }

    #[test]
    fn a_listing_says_where_each_value_comes_from() {
        let yaml = awkward().to_yaml();
        for line in [
            "  log_level: debug  # SPANFLAME_LOG_LEVEL",
            "  log_format: json  # default",
            "  max_age: 90m  # test.yaml:8:3",
            "  listen: \":19091\"  # test.yaml:10:3",
            "  allowed_hosts: [\"a.example.com\",\"b\"]  # test.yaml:11:3",
            "  headers: {\"authorization\":\"[redacted]\"}  # test.yaml:5:3",
            "    bearer_token: \"[redacted]\"  # test.yaml:12:25",
            "  sample_rate: 19  # default",
        ] {
            assert!(yaml.lines().any(|of_yaml| of_yaml.trim() == line.trim()), "{line} is not in\n{yaml}");
        }
        let json = awkward().to_json();
        assert_eq!(json["origins"]["spanflame.log_level"], "SPANFLAME_LOG_LEVEL");
        assert_eq!(json["origins"]["storage.max_age"], "test.yaml:8:3");
        assert_eq!(json["origins"]["otlp.timeout"], "default");
        assert_eq!(json["configuration"]["otlp"]["endpoint"], "https://otel.example.com/otlp");
        assert_eq!(json["configuration"]["otlp"]["protocol"], "http/protobuf");
    }

    #[test]
    fn a_listing_read_again_is_the_same_configuration_but_for_secrets_which_are_refused() {
        let before = awkward();
        let yaml = before.to_yaml();
        let errors = Sources::load_text(&yaml, &[]).expect_err("a redacted token is none");
        assert_eq!(errors.problems.len(), 2, "{errors}");
        let yaml = yaml
            .replace("{\"authorization\":\"[redacted]\"}", "{authorization: Bearer hunter2-hunter2}")
            .replace("\"[redacted]\"", "hunter2");
        let after = Sources::load_text(&yaml, &[]).expect("valid").configuration;
        assert_eq!(crate::config::changed_keys(&before.configuration, &after), []);
    }

    #[test]
    fn no_listing_holds_a_secret() {
        let loaded = awkward();
        let shown = [
            loaded.to_yaml(),
            loaded.to_json().to_string(),
            format!("{loaded:?} {:#?}", loaded.configuration),
            serde_json::to_string(&loaded.configuration).expect("JSON"),
        ];
        for text in shown {
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_listed_so_that_it_is_read_again(text in "/\\PC{0,20}|/[\u{0}-\u{ffff}]{0,8}|/[$\"'\\\\#:\\[{,~-]{0,9}") {
            let yaml = format!("storage: {{dir: {}}}\n", to_yaml(&Json::from(text.clone())));
            match Sources::load_text(&yaml, &[]) {
                Ok(loaded) => prop_assert_eq!(loaded.configuration.storage.dir.as_path().to_str(), Some(text.as_str())),
                Err(errors) => prop_assert!(text.contains('\0'), "{}: {}", yaml, errors),
            }
        }
    }
}
