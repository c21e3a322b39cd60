//! The environment: variables that set keys, and those that `${VAR}` names.

use std::ffi::{OsStr, OsString};

use super::suggest;

/// What the names of our variables begin with.
const PREFIX: &str = "SPANFLAME_";

/// Variables of the process and of its tests that are no keys.
const OF_THE_PROCESS: [&str; 4] =
    ["SPANFLAME_CACHE_DIR", "SPANFLAME_CHECK_TOKEN", "SPANFLAME_RING_BYTES", "SPANFLAME_LONG_TESTS"];

/// Beginnings of names that others set: our tests and benches; and Kubernetes, in every pod beside a service
/// called `spanflame`.
const OF_OTHERS: [&str; 4] = ["SPANFLAME_TEST_", "SPANFLAME_BENCH_", "SPANFLAME_SERVICE_", "SPANFLAME_PORT"];

/// The variables, as they were when the process started.
#[derive(Debug, Clone, Default)]
pub(super) struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    pub(super) fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    #[cfg(test)]
    pub(super) fn of(variables: &[(&str, &str)]) -> Self {
        Self(variables.iter().map(|&(name, value)| (name.into(), value.into())).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_os_str())
    }

    /// Those that may set keys, by name. One that is empty counts as not set, as OpenTelemetry has it.
    pub(super) fn of_keys(&self) -> Vec<(&str, &OsStr)> {
        let mut ours: Vec<_> = self
            .0
            .iter()
            .filter_map(|(name, value)| Some((name.to_str()?, value.as_os_str())))
            .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
            .filter(|(name, _)| !OF_THE_PROCESS.contains(name))
            .collect();
        ours.sort_unstable();
        ours
    }
}

/// The variable that sets the key at `path`. The section `spanflame` does not repeat its name.
pub(super) fn variable_of(path: &str) -> String {
    let path = path.strip_prefix("spanflame.").unwrap_or(path);
    format!("{PREFIX}{}", path.replace('.', "_").to_uppercase())
}

/// A warning for a variable that sets no key; none for names that are known to be others'.
pub(super) fn warn_of_unknown(name: &str, known: &[String]) -> Option<String> {
    if OF_OTHERS.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    let hint = match suggest::nearest(name, known.iter().map(String::as_str)) {
        Some(nearest) => format!("; did you mean {nearest}?"),
        None => String::new(),
    };
    let shown: String = name.chars().take(100).flat_map(char::escape_debug).collect();
    Some(format!("the environment's {shown} sets no key{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_paths() {
        assert_eq!(variable_of("spanflame.log_level"), "SPANFLAME_LOG_LEVEL");
        assert_eq!(variable_of("self_telemetry.listen"), "SPANFLAME_SELF_TELEMETRY_LISTEN");
        assert_eq!(variable_of("agent.ebpf.network.http"), "SPANFLAME_AGENT_EBPF_NETWORK_HTTP");
    }

    #[test]
    fn empty_variables_and_those_of_the_process_set_no_key() {
        let environment = Environment::of(&[
            ("SPANFLAME_OTLP_ENDPOINT", ""),
            ("SPANFLAME_CACHE_DIR", "/x"),
            ("SPANFLAME_LOG_LEVEL", "debug"),
            ("OTHER_SPANFLAME_X", "1"),
            ("spanflame_log_level", "1"),
        ]);
        assert_eq!(environment.of_keys(), [("SPANFLAME_LOG_LEVEL", OsStr::new("debug"))]);
    }

    #[test]
    fn unknown_variables_are_warned_of_with_the_nearest_name_unless_they_are_others() {
        let known = vec!["SPANFLAME_LOG_LEVEL".to_owned(), "SPANFLAME_OTLP_ENDPOINT".to_owned()];
        let warning = warn_of_unknown("SPANFLAME_LOGLEVEL", &known).expect("unknown");
        assert!(warning.ends_with("did you mean SPANFLAME_LOG_LEVEL?"), "{warning}");
        for others in ["SPANFLAME_PORT_19090_TCP", "SPANFLAME_SERVICE_HOST", "SPANFLAME_TEST_BINARY"] {
            assert_eq!(warn_of_unknown(others, &known), None);
        }
    }
}
