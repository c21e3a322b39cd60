//! SARIF 2.1.0 (OASIS, docs.oasis-open.org/sarif/sarif/v2.1.0): a result for each line that regressed, at the function's
//! first line, for hosts that show findings beside the code.
//!
//! Paths are relative to the project (`uriBaseId` `%SRCROOT%`); a function outside of it has its name only. What an
//! allow-list permits is a result that is suppressed, with the reason. If nothing was decided, why is a notification of the
//! run, and what seems to have regressed is a note, which fails nothing.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::phrases::{refusal, sentence, why_allowed};
use super::source::SourcePaths;
use crate::check::comparison::{Comparison, Level, Line};
use crate::check::verdict::{Overall, Verdict};

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
const RULE: &str = "slower";

/// Writes it.
///
/// # Errors
/// The writer's.
pub fn write(comparison: &Comparison, paths: &SourcePaths, writer: &mut dyn Write) -> io::Result<()> {
    let regressed = comparison.lines.iter().filter(|line| matches!(line.verdict, Verdict::Regressed));
    let results: Vec<Value> = regressed.map(|line| result(comparison, line, paths)).collect();
    let notifications: Vec<Value> = comparison
        .refusals
        .iter()
        .map(|reason| json!({"level": "warning", "message": {"text": refusal(reason)}}))
        .collect();
    let log = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "spanflame",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": [{
                    "id": RULE,
                    "name": "Slower",
                    "shortDescription": {"text": "Costs more than it did in the base"},
                    "fullDescription": {"text": "Over several runs of both revisions, this costs more than noise and the configured floors explain."},
                    "defaultConfiguration": {"level": "error"},
                }],
            }},
            "columnKind": "utf16CodeUnits",
            "invocations": [{
                "executionSuccessful": comparison.overall != Overall::Inconclusive,
                "toolExecutionNotifications": notifications,
            }],
            "results": results,
        }],
    });
    serde_json::to_writer_pretty(&mut *writer, &log)?;
    writeln!(writer)
}

fn result(comparison: &Comparison, line: &Line, paths: &SourcePaths) -> Value {
    let subject = &line.subject;
    let mut location = json!({});
    if let Some(file) = paths.relative(&subject.file) {
        location["physicalLocation"] =
            json!({"artifactLocation": {"uri": uri(&file), "uriBaseId": "%SRCROOT%"}});
        if subject.line > 0 {
            location["physicalLocation"]["region"] = json!({"startLine": subject.line});
        }
    }
    let kind = match line.level {
        Level::Total | Level::Module => "module",
        Level::FunctionSelf | Level::FunctionInclusive => "function",
    };
    location["logicalLocations"] = json!([{"name": line.described(), "kind": kind}]);
    let mut result = json!({
        "ruleId": RULE,
        "ruleIndex": 0,
        "level": if comparison.overall == Overall::Inconclusive { "note" } else { "error" },
        "message": {"text": sentence(comparison, line)},
        "locations": [location],
        // Neither line nor figures: the same finding stays the same after an edit above it.
        "partialFingerprints": {"spanflameSubject/v1": format!("{:?} {}", line.level, line.described())},
    });
    if let Some(allowed) = &line.allowed {
        let justification = format!("allowed{}", why_allowed(allowed));
        result["suppressions"] =
            json!([{"kind": "external", "status": "accepted", "justification": justification}]);
    }
    result
}

/// A relative path as a URI's (RFC 3986, section 3.3).
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(byte.into());
            }
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_uri() {
        assert_eq!(uri("src/a b:c/ä.rs"), "src/a%20b%3Ac/%C3%A4.rs");
    }
}
