//! Defaults, file, environment and flags → one configuration, or everything that is wrong with them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::environment::{Environment, variable_of, warn_of_unknown};
use super::error::{ConfigurationErrors, Place, Position, Problem, Problems, quoted};
use super::rules::Rules;
use super::schema::{Configuration, NOT_HERE};
use super::section::{MemberKind, Section, all_keys, join};
use super::substitute::substitute;
use super::suggest;
use super::yaml::{self, Content, Entry};

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
                Ok(text) => reading.file(path, &text, &self.environment),
                Err(problem) => reading.problems.add(|| problem),
            }
        }
        reading.finish(self)
    }

    /// As [`Sources::load`], of a file's text.
    #[cfg(test)]
    pub(super) fn load_text(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigurationErrors> {
        let sources = Self { environment: Environment::of(variables), ..Self::default() };
        let mut reading = Reading::default();
        reading.file(Path::new("test.yaml"), text, &sources.environment);
        reading.finish(&sources)
    }
}

fn read_file(path: &Path) -> Result<String, Problem> {
    let problem = |message: String| Problem {
        place: Place::File { path: path.to_owned(), position: None },
        key: String::new(),
        message,
    };
    let limit = yaml::MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    let result = if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    result.map_err(|error| problem(format!("cannot be read: {error}")))?;
    if bytes.len() > yaml::MAX_BYTES {
        return Err(problem(format!(
            "is larger than {} KiB, so it is no configuration",
            yaml::MAX_BYTES >> 10
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let right = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = right.iter().filter(|&&byte| byte == b'\n').count() + 1;
        problem(format!("is not UTF-8 in line {line}"))
    })
}

#[derive(Default)]
struct Reading {
    configuration: Configuration,
    origins: Origins,
    problems: Problems,
    failed: Vec<String>,
    warnings: Vec<String>,
}

impl Reading {
    fn finish(mut self, sources: &Sources) -> Result<Loaded, ConfigurationErrors> {
        self.environment(&sources.environment);
        for flag in &sources.flags {
            self.set_text(flag.key, &flag.text, Place::Flag(flag.option));
        }
        let Self { configuration, origins, mut problems, failed, mut warnings } = self;
        let mut rules = Rules {
            configuration: &configuration,
            origins: &origins,
            failed: &failed,
            problems: Vec::new(),
            warnings: Vec::new(),
        };
        rules.check();
        let (of_rules, warnings_of_rules) = (rules.problems, rules.warnings);
        for problem in of_rules {
            problems.add(|| problem);
        }
        warnings.extend(warnings_of_rules);
        problems.into_result()?;
        Ok(Loaded { configuration, origins, warnings })
    }

    fn file(&mut self, path: &Path, text: &str, environment: &Environment) {
        let place = |position: Position| Place::File { path: path.to_owned(), position: Some(position) };
        let (mut entries, errors) = match yaml::parse(text) {
            Ok(parsed) => parsed,
            Err(error) => (Vec::new(), vec![error]),
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
        let mut file = FileReading {
            place: &place,
            paths: paths_of_all_keys(),
            origins: &mut self.origins,
            problems: &mut self.problems,
            failed: &mut self.failed,
        };
        file.section(&mut self.configuration, "", &entries);
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
                self.origins.0.insert(key.to_owned(), place);
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

/// Puts the entries of a file into the sections they belong to.
struct FileReading<'a> {
    place: &'a dyn Fn(Position) -> Place,
    /// The paths of all keys, to find the one that was meant.
    paths: Vec<String>,
    origins: &'a mut Origins,
    problems: &'a mut Problems,
    failed: &'a mut Vec<String>,
}

impl FileReading<'_> {
    /// Calls itself as deep as the table is.
    fn section(&mut self, section: &mut dyn Section, path: &str, entries: &[Entry]) {
        for entry in entries {
            let mut members = section.members();
            let Some(index) = members.iter().position(|member| member.name == entry.key) else {
                let siblings: Vec<&str> = members.iter().map(|member| member.name).collect();
                self.unknown(path, entry, &siblings);
                continue;
            };
            let member = members.swap_remove(index);
            let path = join(path, member.name);
            match member.kind {
                MemberKind::Section(inner) => match &entry.value.content {
                    Content::Mapping(entries) => self.section(inner, &path, entries),
                    // A section of which every key is commented out.
                    Content::Null | Content::Failed => {}
                    Content::Scalar(_) | Content::Sequence(_) => {
                        let names: Vec<&str> = inner.members().iter().map(|member| member.name).collect();
                        let message = format!("is a section: its keys stand below it ({})", names.join(", "));
                        self.wrong(entry.value.position, &path, message);
                    }
                },
                MemberKind::Key(value, _) => match value.set_from_node(&entry.value) {
                    Ok(()) => {
                        self.origins.0.insert(path, (self.place)(entry.position));
                    }
                    Err(faults) => {
                        for fault in faults {
                            // Where nothing stands, the key is what there is to point at.
                            let is_null = entry.value.content == Content::Null;
                            let position = if is_null { entry.position } else { fault.position };
                            self.wrong(position, &path, fault.message);
                        }
                        self.failed.push(path);
                    }
                },
            }
        }
    }

    fn wrong(&mut self, position: Position, path: &str, message: String) {
        let place = (self.place)(position);
        self.problems.add(|| Problem { place, key: path.to_owned(), message });
    }

    fn unknown(&mut self, path: &str, entry: &Entry, siblings: &[&str]) {
        let place = (self.place)(entry.position);
        let paths = &self.paths;
        self.problems.add(|| Problem {
            place,
            key: path.to_owned(),
            message: explain_unknown(path, &entry.key, siblings, paths),
        });
    }
}

/// What to say about the key `name` that the section at `path` does not have.
fn explain_unknown(path: &str, name: &str, siblings: &[&str], paths: &[String]) -> String {
    let full = join(path, name);
    if let Some((_, explanation)) = NOT_HERE.iter().find(|(known, _)| *known == full) {
        return format!("{} {explanation}", quoted(name));
    }
    let unknown = format!("unknown key {}", quoted(name));
    if let Some(nearest) = suggest::nearest(name, siblings.iter().copied()) {
        return format!("{unknown}; did you mean `{nearest}`?");
    }
    // Right name, wrong place: `listen` at the top.
    let elsewhere = |path: &&String| path.rsplit('.').next().is_some_and(|last| last == name);
    if let Some(right) = paths.iter().find(elsewhere) {
        return format!("{unknown}; did you mean `{right}`?");
    }
    // A section that went one level astray: `profiling:` at the top.
    let inside = |path: &&String| path.split('.').any(|part| part == name);
    if let Some(right) = paths.iter().find(inside).and_then(|path| path.split_once(&format!("{name}."))) {
        return format!("{unknown}; did you mean `{}{name}`?", right.0);
    }
    let here = if path.is_empty() { "at the top".to_owned() } else { format!("in `{path}`") };
    format!("{unknown}; {here} there are {}", siblings.join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::error::MAX_PROBLEMS;
    use crate::config::{Effect, ListenHost};

    fn load(text: &str) -> Result<Loaded, ConfigurationErrors> {
        Sources::load_text(text, &[])
    }

    /// The only error of a text, as its user sees it.
    fn error(text: &str) -> String {
        let errors = load(text).expect_err(text);
        assert_eq!(errors.problems.len(), 1, "{errors}");
        errors.to_string()
    }

    /// The configurations of the seed documents, under our name.
    #[test]
    fn every_key_of_the_seed_documents_that_is_ours_is_understood() {
        let text = "
spanflame: {log_level: info, log_format: json}
otlp:
  endpoint: \"otel-collector:4317\"
  insecure: true
  compression: gzip
  traces: {enabled: true, sample_rate: 0.1, sampler: parent_based_traceidratio}
  profiles: {enabled: true}
agent:
  ebpf:
    enabled: true
    network:
      enabled: true
      http: true
      grpc: true
      exclude_paths: [\"/health\", \"/healthz\", \"/ready\", \"/metrics\"]
      exclude_ports:
        - 22    # SSH
        - 2379  # etcd
  profiling: {enabled: true, sample_rate: 99}
self_telemetry:
  enabled: true
  listen: \":19090\"
  path: \"/metrics\"
  prometheus_namespace: \"telegen\"
  tracing: {enabled: true, sample_rate: 0.01}
  auth: {enabled: true, bearer_token: \"${API_TOKEN}\"}
  rate_limit: {enabled: true, requests_per_second: 100}
  cors: {enabled: true, allowed_origins: [\"http://localhost:3000\"]}
";
        let loaded = Sources::load_text(text, &[("API_TOKEN", "s3cret")]).expect("valid");
        assert_eq!(loaded.warnings, Vec::<String>::new());
        let Configuration { agent, otlp, self_telemetry, .. } = &loaded.configuration;
        assert_eq!(agent.profiling.sample_rate.get(), 99);
        assert_eq!(agent.ebpf.network.exclude_ports, [22, 2379]);
        assert!((otlp.traces.sample_rate.get() - 0.1).abs() < 1e-12);
        assert!(!otlp.uses_tls());
        assert_eq!(self_telemetry.listen.host, ListenHost::All);
        assert!(self_telemetry.auth.bearer_token.as_ref().is_some_and(|token| token.matches(b"s3cret")));
    }

    #[test]
    fn without_any_configuration_everything_is_on_and_reachable_from_here_only() {
        let Configuration { agent, storage, otlp, ingest, self_telemetry, .. } =
            load("").expect("defaults are valid").configuration;
        assert!(agent.profiling.enabled && agent.ebpf.enabled && agent.ebpf.network.enabled);
        assert_eq!(agent.profiling.sample_rate.get(), 19);
        assert_eq!(self_telemetry.listen.to_string(), "127.0.0.1:19090");
        assert!(!ingest.otlp.enabled && otlp.endpoint.is_none() && self_telemetry.debug);
        assert_eq!(storage.max_age.get().as_secs(), 7 * 86_400);
    }

    #[test]
    fn flags_go_before_the_environment_and_that_before_the_file_and_that_before_the_defaults() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = directory.path().join("a.yaml");
        std::fs::write(
            &file,
            "agent: {profiling: {sample_rate: 1}}\nstorage: {max_age: 1d, max_bytes: 1GiB}\n",
        )
        .expect("written");
        let sources = Sources {
            file: Some(file.clone()),
            environment: Environment::of(&[
                ("SPANFLAME_STORAGE_MAX_AGE", "2d"),
                ("SPANFLAME_STORAGE_MAX_BYTES", "2GiB"),
            ]),
            flags: Vec::new(),
        }
        .with_flag("--max-bytes", "storage.max_bytes", "3GiB");
        let Loaded { configuration, origins, .. } = sources.load().expect("valid");
        assert_eq!(configuration.agent.profiling.sample_rate.get(), 1);
        assert_eq!(configuration.storage.max_age.to_string(), "2d");
        assert_eq!(configuration.storage.max_bytes.to_string(), "3GiB");
        assert_eq!(origins.of("storage.max_bytes"), Place::Flag("--max-bytes"));
        assert_eq!(origins.of("storage.max_age"), Place::Environment("SPANFLAME_STORAGE_MAX_AGE".to_owned()));
        assert_eq!(origins.of("storage.dir"), Place::Default);
        let position = Some(Position { line: 1, column: 21 });
        assert_eq!(origins.of("agent.profiling.sample_rate"), Place::File { path: file.clone(), position });

        std::fs::write(&file, "agent: {profiling: {sample_rate: 49}}\n").expect("written");
        let reloaded = sources.load().expect("valid").configuration;
        let changed = crate::config::changed_keys(&configuration, &reloaded);
        assert_eq!(changed.len(), 1, "environment and flags still hold: {changed:?}");
        assert_eq!(
            (changed[0].key.as_str(), changed[0].effect),
            ("agent.profiling.sample_rate", Effect::Reload)
        );
    }

    #[test]
    fn an_unknown_key_names_its_line_and_what_was_probably_meant() {
        for (text, wanted) in [
            ("otpl: {}\n", "test.yaml:1:1: unknown key `otpl`; did you mean `otlp`?"),
            (
                "agent:\n  profiling:\n    sampleRate: 1\n",
                "test.yaml:3:5: agent.profiling: unknown key `sampleRate`; did you mean `sample_rate`?",
            ),
            ("listen: ':1'\n", "test.yaml:1:1: unknown key `listen`; did you mean `self_telemetry.listen`?"),
            ("profiling: {}\n", "test.yaml:1:1: unknown key `profiling`; did you mean `agent.profiling`?"),
            ("telegen: {log_level: info}\n", "test.yaml:1:1: `telegen` is called `spanflame` here"),
            (
                "agent: {database: {}}\n",
                "test.yaml:1:9: agent: `database` is not supported: queries of databases are not followed",
            ),
            (
                "storage: {xyzzy: 1}\n",
                "test.yaml:1:11: storage: unknown key `xyzzy`; in `storage` there are dir, max_age, max_bytes",
            ),
            (
                "<<: {a: 1}\n",
                "test.yaml:1:1: unknown key `<<`; at the top there are spanflame, agent, storage, otlp, ingest, self_telemetry",
            ),
        ] {
            assert_eq!(error(text), wanted);
        }
    }

    #[test]
    fn wrong_types_and_ranges_name_the_key_its_place_and_what_is_expected() {
        for (text, wanted) in [
            (
                "agent: {profiling: {sample_rate: 1000}}\n",
                "test.yaml:1:34: agent.profiling.sample_rate: `1000` is not a whole number from 1 to 999",
            ),
            (
                "self_telemetry:\n  debug: yes\n",
                "test.yaml:2:10: self_telemetry.debug: `yes` is not true or false",
            ),
            (
                "storage:\n  max_age:\n",
                "test.yaml:2:3: storage.max_age: has no value; leave the key out for its default, or give a duration \
                 from 10s to 36500d such as 10s, 15m, 1h30m or 7d",
            ),
            (
                "storage: 2GiB\n",
                "test.yaml:1:10: storage: is a section: its keys stand below it (dir, max_age, max_bytes)",
            ),
        ] {
            assert_eq!(error(text), wanted);
        }
    }

    #[test]
    fn all_mistakes_are_reported_at_once_and_one_mistake_is_one_error() {
        let errors = load(
            "spanflame: {log_level: loud}\nagent: {profilng: {}}\nstorage: {max_bytes: 1}\nself_telemetry:\n  \
             listen: nowhere\n  listen: ':1'\n  auth: {enabled: true}\notlp:\n  timeout: ${MISSING}\n",
        )
        .expect_err("wrong");
        let keys: Vec<&str> = errors.problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "",
                "otlp.timeout",
                "spanflame.log_level",
                "agent",
                "storage.max_bytes",
                "self_telemetry.listen",
                "self_telemetry.auth.enabled"
            ],
            "{errors}"
        );
    }

    #[test]
    fn sections_whose_keys_are_all_commented_out_are_empty() {
        let loaded = load("otlp:\n  # endpoint: x:1\nagent:\n  ebpf:\n    network: ~\n").expect("valid");
        assert_eq!(loaded.configuration, Configuration::default());
        assert!(loaded.origins.is_empty());
    }

    #[test]
    fn what_a_variable_holds_is_not_shown_by_errors_of_the_keys_that_use_it() {
        let text = "storage: {max_age: '${TOKEN}'}\nself_telemetry: {allowed_hosts: '${TOKEN}'}\n";
        let errors = Sources::load_text(text, &[("TOKEN", "hunter 2")]).expect_err("no duration").to_string();
        assert!(errors.contains("`${TOKEN}` is not a duration") && !errors.contains("hunter"), "{errors}");
        let errors = Sources::load_text("", &[("SPANFLAME_SELF_TELEMETRY_AUTH_BEARER_TOKEN", "hunter 2")])
            .expect_err("a space")
            .to_string();
        assert!(
            errors
                .starts_with("SPANFLAME_SELF_TELEMETRY_AUTH_BEARER_TOKEN: self_telemetry.auth.bearer_token:")
        );
        assert!(!errors.contains("hunter"), "{errors}");
    }

    #[test]
    fn a_variable_can_hold_a_whole_list_or_nothing() {
        let text = "self_telemetry: {allowed_hosts: '${HOSTS:-}'}\notlp: {endpoint: '${ENDPOINT:-}'}\n";
        let loaded = Sources::load_text(text, &[("HOSTS", "a, b.c")]).expect("valid");
        let hosts: Vec<_> =
            loaded.configuration.self_telemetry.allowed_hosts.iter().map(ToString::to_string).collect();
        assert_eq!(hosts, ["a", "b.c"]);
        let loaded = Sources::load_text(text, &[]).expect("valid");
        assert!(loaded.configuration.self_telemetry.allowed_hosts.is_empty());
        assert_eq!(loaded.configuration.otlp.endpoint, None);
        let loaded = Sources::load_text("", &[("SPANFLAME_AGENT_EBPF_NETWORK_EXCLUDE_PORTS", "22,80")])
            .expect("valid");
        assert_eq!(loaded.configuration.agent.ebpf.network.exclude_ports, [22, 80]);
    }

    #[test]
    fn unknown_variables_are_warnings_with_the_nearest_name() {
        let variables =
            [("SPANFLAME_SELFTELEMETRY_LISTEN", "x"), ("SPANFLAME_RING_BYTES", "4096"), ("PATH", "/")];
        let warnings = Sources::load_text("", &variables).expect("valid").warnings;
        assert_eq!(
            warnings,
            [
                "the environment's SPANFLAME_SELFTELEMETRY_LISTEN sets no key; did you mean SPANFLAME_SELF_TELEMETRY_LISTEN?"
            ]
        );
    }

    #[test]
    fn listeners_off_loopback_need_authentication_or_a_clear_word() {
        for address in ["':19090'", "0.0.0.0:1", "'[::]:1'", "10.0.0.1:1", "example.com:1"] {
            let message = error(&format!("self_telemetry: {{listen: {address}}}\n"));
            assert!(message.contains("--allow-unauthenticated") && message.contains(":1:"), "{message}");
        }
        for text in [
            "self_telemetry: {listen: ':1', auth: {enabled: true, bearer_token: t}}\n",
            "self_telemetry: {listen: ':1', allow_unauthenticated: true}\n",
            "self_telemetry: {listen: ':1', enabled: false}\n",
            "self_telemetry: {listen: 'localhost:1'}\n",
            "ingest: {otlp: {grpc_listen: ':4317'}}\n",
        ] {
            assert!(load(text).is_ok(), "{text}");
        }
        let errors = load("ingest: {otlp: {enabled: true, grpc_listen: ':4317', http_listen: ':4318'}}\n");
        assert_eq!(errors.expect_err("both are open").problems.len(), 2);
        let errors = Sources::default()
            .with_flag("--listen", "self_telemetry.listen", ":1")
            .load()
            .expect_err("open")
            .to_string();
        assert!(errors.starts_with("--listen: self_telemetry.listen: `:1`"), "{errors}");
    }

    #[test]
    fn keys_that_contradict_each_other_are_errors() {
        for (text, part) in [
            ("self_telemetry: {auth: {enabled: true}}", "nobody could get in"),
            ("self_telemetry: {auth: {bearer_token: t}}", "not asked for"),
            ("self_telemetry: {cors: {enabled: true}}", "has none"),
            ("self_telemetry: {cors: {enabled: true, allowed_origins: ['*']}}", "every page"),
            ("otlp: {endpoint: 'https://x', insecure: true}", "begins with https"),
            ("otlp: {endpoint: 'http://x/otlp'}", "gRPC"),
            ("otlp: {profiles: {enabled: true}}", "no otlp.endpoint"),
            ("self_telemetry: {tracing: {enabled: true}}", "no otlp.endpoint"),
            ("ingest: {otlp: {enabled: true, http_listen: '127.0.0.1:4317'}}", "taken by"),
        ] {
            let message = error(&format!("{text}\n"));
            assert!(message.contains(part), "{text}: {message}");
        }
        for text in [
            "self_telemetry: {auth: {enabled: false, bearer_token: t}}",
            "otlp: {endpoint: 'http://x'}",
            "otlp: {endpoint: 'http://x/otlp', protocol: http}",
            "otlp: {profiles: {enabled: false}}",
            "ingest: {otlp: {http_listen: '127.0.0.1:4317'}}",
        ] {
            assert!(load(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn secrets_in_clear_text_over_the_network_are_warned_of() {
        let warnings = |endpoint: &str| {
            let text =
                format!("otlp: {{endpoint: '{endpoint}', insecure: true, headers: {{authorization: t}}}}\n");
            load(&text).expect("valid").warnings.len()
        };
        assert_eq!((warnings("otel:4317"), warnings("localhost:4317")), (1, 0));
    }

    #[test]
    fn files_that_cannot_be_read_are_one_error_that_names_them() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let large = directory.path().join("large.yaml");
        std::fs::write(&large, vec![b'#'; yaml::MAX_BYTES + 1]).expect("written");
        let latin = directory.path().join("latin.yaml");
        std::fs::write(&latin, b"# ok\n# \xfc\n").expect("written");
        for (path, part) in [
            (directory.path().join("missing.yaml"), "No such file"),
            (directory.path().to_owned(), "directory"),
            (large, "larger than 512 KiB"),
            (latin, "not UTF-8 in line 2"),
        ] {
            let errors =
                Sources { file: Some(path.clone()), ..Sources::default() }.load().expect_err("unreadable");
            let message = errors.to_string();
            assert!(
                message.starts_with(path.to_str().expect("UTF-8")) && message.contains(part),
                "{message}"
            );
        }
    }

    #[test]
    fn a_file_of_nothing_but_mistakes_is_listed_in_part_and_counted_in_full() {
        let text: String = (0..5000).map(|number| format!("key_{number}: 1\n")).collect();
        let errors = load(&text).expect_err("wrong");
        assert_eq!((errors.problems.len(), errors.further), (MAX_PROBLEMS, 5000 - MAX_PROBLEMS));
    }

    fn piece_of_configuration() -> impl Strategy<Value = String> {
        let words = vec![
            "spanflame",
            "log_level",
            "otlp",
            "endpoint",
            "headers",
            "agent",
            "ebpf",
            "network",
            "exclude_ports",
            "storage",
            "max_age",
            "self_telemetry",
            "listen",
            "auth",
            "bearer_token",
            "cors",
            "allowed_origins",
        ];
        prop_oneof![
            4 => proptest::sample::select(words).prop_map(str::to_owned),
            4 => proptest::sample::select(vec![": ", ":\n  ", ":\n    ", "\n", "\n  ", "\n    ", ", ", "{", "}", "[", "]", "- "])
                .prop_map(str::to_owned),
            2 => proptest::sample::select(vec!["true", "1", "7d", ":1", "x:1", "'", "\"", "${TOKEN}", "${", "$", "~", "#", "&a ", "*a"])
                .prop_map(str::to_owned),
            1 => any::<String>(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn hostile_files_neither_panic_nor_show_a_secret_nor_report_without_bound(
            pieces in proptest::collection::vec(piece_of_configuration(), 0..60)
        ) {
            let text = pieces.concat();
            match Sources::load_text(&text, &[("TOKEN", "hunter2hunter2")]) {
                Ok(loaded) => {
                    let shown = format!("{loaded:?}{}{}", loaded.to_yaml(), loaded.to_json());
                    let uses = |value: &Option<super::super::Secret>| value.is_some();
                    prop_assert!(
                        !uses(&loaded.configuration.self_telemetry.auth.bearer_token) || !shown.contains("hunter2")
                    );
                }
                Err(errors) => {
                    prop_assert!(!errors.problems.is_empty() && errors.problems.len() <= MAX_PROBLEMS);
                    prop_assert!(!errors.to_string().contains("hunter2"), "{}", errors);
                }
            }
        }
    }
}
