//! Defaults, file, environment and flags → one configuration, or everything that is wrong with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::environment::{Environment, variable_of, warn_of_unknown};
use super::error::{ConfigurationErrors, Place, Position, Problem, Problems};
use super::file::{FileReading, FileText, read_file};
use super::rules::Rules;
use super::schema::Configuration;
use super::section::all_keys;
use super::substitute::substitute;
use super::yaml;

/// Where a configuration is read from. Kept by a server, so that a reload reads the same file again under the
/// same environment and flags.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    file: Option<PathBuf>,
    environment: Environment,
    flags: Vec<Flag>,
}

#[derive(Debug, Clone)]
struct Flag {
    option: &'static str,
    key: &'static str,
    text: String,
}

/// A configuration that was read and found right.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub configuration: Configuration,
    /// Where each came from.
    pub origins: Origins,
    /// What is right and yet probably not meant.
    pub warnings: Vec<String>,
}

/// Where the values came from that nobody left at their defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<String, Place>);

impl Origins {
    pub(super) fn set(&mut self, key: String, place: Place) {
        self.0.insert(key, place);
    }

    /// Where the value of the key at this path came from.
    #[must_use]
    pub fn of(&self, key: &str) -> Place {
        self.0.get(key).cloned().unwrap_or(Place::Default)
    }

    /// How many keys are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether all keys have their defaults.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Sources {
    /// The environment of this process and, if given, a file; `-` is standard input.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>) -> Self {
        Self { file, environment: Environment::of_process(), flags: Vec::new() }
    }

    /// Sets `key` as the flag `option` of the command line says.
    #[must_use]
    pub fn with_flag(mut self, option: &'static str, key: &'static str, text: impl Into<String>) -> Self {
        self.flags.push(Flag { option, key, text: text.into() });
        self
    }

    /// Reads everything.
    ///
    /// # Errors
    /// All that is wrong, the file's mistakes first.
    pub fn load(&self) -> Result<Loaded, ConfigurationErrors> {
        let mut reading = Reading::default();
        if let Some(path) = &self.file {
            match read_file(path) {
                Ok(file) => reading.file(path, &file, &self.environment),
                Err(problem) => {
                    reading.file_is_unreadable = true;
                    reading.problems.add(|| problem);
                }
            }
        }
        reading.finish(self)
    }

    /// As [`Sources::load`], of a file's text.
    #[cfg(test)]
    pub(super) fn load_text(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigurationErrors> {
        let sources = Self { environment: Environment::of(variables), ..Self::default() };
        let mut reading = Reading::default();
        let file = FileText { text: text.to_owned(), is_readable_by_all: true };
        reading.file(Path::new("test.yaml"), &file, &sources.environment);
        reading.finish(&sources)
    }
}

#[derive(Default)]
struct Reading {
    configuration: Configuration,
    origins: Origins,
    problems: Problems,
    failed: Vec<String>,
    /// Nothing is known of what the file would have set.
    file_is_unreadable: bool,
    warnings: Vec<String>,
}

impl Reading {
    fn finish(mut self, sources: &Sources) -> Result<Loaded, ConfigurationErrors> {
        self.environment(&sources.environment);
        for flag in &sources.flags {
            self.set_text(flag.key, &flag.text, Place::Flag(flag.option));
        }
        let Self { configuration, origins, mut problems, failed, file_is_unreadable, mut warnings } = self;
        let mut rules = Rules {
            configuration: &configuration,
            origins: &origins,
            failed: &failed,
            problems: Vec::new(),
            warnings: Vec::new(),
        };
        if !file_is_unreadable {
            rules.check();
        }
        let (of_rules, warnings_of_rules) = (rules.problems, rules.warnings);
        for problem in of_rules {
            problems.add(|| problem);
        }
        warnings.extend(warnings_of_rules);
        problems.into_result()?;
        Ok(Loaded { configuration, origins, warnings })
    }

    fn file(&mut self, path: &Path, file: &FileText, environment: &Environment) {
        let place = |position: Position| Place::File { path: path.to_owned(), position: Some(position) };
        let (mut entries, errors) = match yaml::parse(&file.text) {
            Ok(parsed) => parsed,
            Err(error) => {
                self.file_is_unreadable = true;
                (Vec::new(), vec![error])
            }
        };
        for error in errors {
            self.problems.add(|| Problem {
                place: place(error.position),
                key: String::new(),
                message: error.message,
            });
        }
        for error in substitute(&mut entries, environment) {
            self.problems.add(|| Problem {
                place: place(error.position),
                key: error.key,
                message: error.message,
            });
        }
        let mut reading = FileReading {
            place: &place,
            paths: paths_of_all_keys(),
            origins: &mut self.origins,
            problems: &mut self.problems,
            failed: &mut self.failed,
            literal_secrets: Vec::new(),
        };
        reading.section(&mut self.configuration, "", &entries);
        if file.is_readable_by_all && !reading.literal_secrets.is_empty() {
            self.warnings.push(format!(
                "{}: every user of this machine can read {}; take the right away, or write ${{VAR}}",
                Place::File { path: path.to_owned(), position: None },
                reading.literal_secrets.join(" and ")
            ));
        }
    }

    fn environment(&mut self, environment: &Environment) {
        let paths = paths_of_all_keys();
        let names: Vec<String> = paths.iter().map(|path| variable_of(path)).collect();
        for (name, value) in environment.of_keys() {
            let Some(path) =
                names.iter().position(|of_key| of_key == name).and_then(|index| paths.get(index))
            else {
                self.warnings.extend(warn_of_unknown(name, &names));
                continue;
            };
            let place = Place::Environment(name.to_owned());
            match value.to_str() {
                Some(text) => self.set_text(path, text, place),
                None => {
                    self.failed.push(path.clone());
                    self.problems.add(|| Problem {
                        place,
                        key: path.clone(),
                        message: "is not UTF-8".to_owned(),
                    });
                }
            }
        }
    }

    fn set_text(&mut self, key: &str, text: &str, place: Place) {
        let found = all_keys(&mut self.configuration).into_iter().find(|known| known.path == key);
        let outcome = match found {
            Some(known) => known.value.set_from_text(text),
            None => Err("there is no such key".to_owned()),
        };
        match outcome {
            Ok(()) => {
                self.origins.set(key.to_owned(), place);
            }
            Err(message) => {
                self.failed.push(key.to_owned());
                self.problems.add(|| Problem { place, key: key.to_owned(), message });
            }
        }
    }
}

fn paths_of_all_keys() -> Vec<String> {
    all_keys(&mut Configuration::default()).into_iter().map(|key| key.path).collect()
}

#[cfg(test)]
mod tests;
