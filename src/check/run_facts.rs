//! What is known of a run beside its profile: the contents of `run-NN.json`, which stands beside the profile
//! `run-NN.pb.gz` in a folder that `check run --keep` wrote.
//!
//! ```text
//! DIR/base/run-01.pb.gz  run-01.json  run-02.pb.gz  …     a side: `check compare --base DIR/base`
//! DIR/new/run-01.pb.gz   run-01.json  …
//! ```
//!
//! A profile without such a file is a run of which nothing is known. Unknown keys are stepped over, so that a
//! later version may add some; a higher `schema_version` is refused.

use serde::{Deserialize, Serialize};

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

/// Work that a run did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// How much, more than zero.
    pub done: f64,
    /// Of what (`requests`); free text.
    #[serde(default)]
    pub unit: String,
}
