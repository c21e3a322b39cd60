//! What is known of a run beside its profile: the contents of `run-NN.json`, which stands beside the profile
//! `run-NN.pb.gz` in a folder that `check run --keep` wrote.
//!
//! ```text
//! DIR/base/run-01.pb.gz  run-01.json  run-02.pb.gz  …     a side: `check compare --base DIR/base`
//! DIR/new/run-01.pb.gz   run-01.json  …
//! ```
//!
//! A profile without such a file is a run of which nothing is known. Unknown keys are stepped over, so that a
//! later version may add some; a higher `schema_version` is refused. Other tools write JSON beside profiles, too: only an
//! object that says `whole_execution`, which every version writes, or `schema_version` and nothing that is not of ours, is
//! taken for facts.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::MachineFacts;

/// The version of `run-NN.json` that is written, and the highest that is read.
pub const SCHEMA_VERSION: u32 = 1;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunFacts {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The command that ran, as arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Its place in the order in which both sides ran (0 first), where they took turns. What took turns is not
    /// told apart by what changes with time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    /// When it began, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// From start to end, nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_ns: Option<u64>,
    /// The profile covers one whole execution of the command, so that costs of runs may be compared as they
    /// are. A window of something that goes on does not.
    pub whole_execution: bool,
    /// It is a stretch of so many windows of what a server has recorded. The runs of such a side may all be of one
    /// execution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<u64>,
    /// Work that was done, if it was counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    /// The machine.
    pub machine: MachineFacts,
}

/// Why a text is not the facts of a run, though it seems that it should be.
#[derive(Debug, thiserror::Error)]
pub enum RunFactsError {
    /// It is no JSON, or its values are none that facts have.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Another version wrote it.
    #[error("a newer spanflame wrote it: read it with that one")]
    Newer,
}

/// Keys that facts have had since the first version.
const KEYS: [&str; 9] = [
    "schema_version",
    "command",
    "position",
    "started",
    "wall_ns",
    "whole_execution",
    "windows",
    "work",
    "machine",
];

impl RunFacts {
    /// Reads facts. None if it is JSON of another sort.
    ///
    /// # Errors
    /// [`RunFactsError`].
    pub fn of_json(text: &str) -> Result<Option<Self>, RunFactsError> {
        let value: Value = serde_json::from_str(text)?;
        if !value.as_object().is_some_and(are_facts) {
            return Ok(None);
        }
        if value.get("schema_version").and_then(Value::as_u64) > Some(u64::from(SCHEMA_VERSION)) {
            return Err(RunFactsError::Newer);
        }
        Ok(Some(serde_json::from_value(value)?))
    }
}

fn are_facts(object: &Map<String, Value>) -> bool {
    let is_of_ours = |key: &String| KEYS.contains(&key.as_str());
    object.get("whole_execution").is_some_and(Value::is_boolean)
        || object.get("schema_version").is_some_and(Value::is_u64) && object.keys().all(is_of_ours)
}

/// Work that a run did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// How much, more than zero.
    pub done: f64,
    /// Of what (`requests`); free text.
    #[serde(default)]
    pub unit: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_has_no_other_keys() {
        let whole = RunFacts {
            schema_version: SCHEMA_VERSION,
            command: vec!["bench".to_owned()],
            position: Some(3),
            started: Some("2026-11-22T12:00:00Z".to_owned()),
            wall_ns: Some(5),
            whole_execution: true,
            windows: Some(2),
            work: Some(Work { done: 2.5, unit: "requests".to_owned() }),
            machine: MachineFacts { cpus: Some(2), ..MachineFacts::default() },
        };
        let json = serde_json::to_value(&whole).unwrap();
        let mut keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let mut known = KEYS.to_vec();
        keys.sort_unstable();
        known.sort_unstable();
        assert_eq!(keys, known);
        assert_eq!(RunFacts::of_json(&json.to_string()).unwrap(), Some(whole));
        let nothing_known = RunFacts { schema_version: SCHEMA_VERSION, ..RunFacts::default() };
        let json = serde_json::to_string(&nothing_known).unwrap();
        assert_eq!(RunFacts::of_json(&json).unwrap(), Some(nothing_known));
    }

    #[test]
    fn json_of_another_sort_is_none_and_facts_that_are_broken_are_an_error() {
        for other in [
            "[]",
            "1",
            "{}",
            r#"{"machine":"host-7","command":"make"}"#,
            r#"{"schema_version":1,"verdict":"regressed","lines":[]}"#,
            r#"{"schema_version":"2.0","work":5}"#,
            r#"{"whole_execution":"yes"}"#,
        ] {
            assert_eq!(RunFacts::of_json(other).unwrap(), None, "{other}");
        }
        let later = r#"{"schema_version":1,"whole_execution":false,"weather":"fine"}"#;
        assert!(RunFacts::of_json(later).unwrap().is_some());
        for broken in [
            "",
            r#"{"schema_version":1,"whole_execution":tr"#,
            r#"{"whole_execution":true,"machine":{"cpus":"many"}}"#,
            r#"{"schema_version":1,"work":5}"#,
            r#"{"schema_version":2,"whole_execution":true}"#,
        ] {
            assert!(RunFacts::of_json(broken).is_err(), "{broken}");
        }
    }
}
