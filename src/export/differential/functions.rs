//! The functions of both sides in a table, and that table as JSON.
//!
//! ```json
//! {
//!   "schema_version": 1,
//!   "value": {"kind": "cpu", "unit": "nanoseconds"},
//!   "normalized": false,
//!   "total": {"base": 12, "new": 15},
//!   "functions": [{"name": "…", "module": "…", "file": "…", "line": 7,
//!                  "base": {"self": 1, "total": 2}, "new": {"self": 3, "total": 4}}]
//! }
//! ```
//!
//! The function whose own value has changed most comes first. Values of the base are scaled if `normalized`. What a
//! function calls, itself included by recursion, counts once in `total`.

use std::io::Write;

use serde_json::json;

use super::DiffTree;
use crate::export::ExportError;
use crate::export::flame_tree::NodeClass;
use crate::model::ValueType;

/// The version of the JSON.
const SCHEMA_VERSION: u32 = 1;

/// What a function costs on both sides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiffFunction {
    /// Index in [`DiffTree::frames`].
    pub frame: u32,
    /// By itself, in the base.
    pub base_self: f64,
    /// By itself, on the new side.
    pub new_self: f64,
    /// With all that it calls, in the base.
    pub base: f64,
    /// With all that it calls, on the new side.
    pub new: f64,
}

/// The functions, those first whose own value has changed most. Takes time proportional to the nodes.
#[must_use]
pub fn functions(tree: &DiffTree<'_>) -> Vec<DiffFunction> {
    let mut table: Vec<DiffFunction> = (0_u32..)
        .zip(&tree.frames)
        .map(|(frame, _)| DiffFunction { frame, base_self: 0.0, new_self: 0.0, base: 0.0, new: 0.0 })
        .collect();
    // How often each function stands on the path to the node that is looked at.
    let mut on_path = vec![0_u32; table.len()];
    let mut path: Vec<u32> = Vec::new();
    for node in &tree.nodes {
        for left in path.drain((node.depth as usize).min(path.len())..) {
            if let Some(count) = on_path.get_mut(left as usize) {
                *count -= 1;
            }
        }
        path.push(node.frame);
        let (Some(row), Some(count)) =
            (table.get_mut(node.frame as usize), on_path.get_mut(node.frame as usize))
        else {
            continue;
        };
        row.base_self += node.base_self;
        row.new_self += node.new_self;
        if *count == 0 {
            row.base += node.base;
            row.new += node.new;
        }
        *count += 1;
    }
    table.retain(|row| {
        tree.frames.get(row.frame as usize).is_some_and(|frame| matches!(frame.class, NodeClass::Code(_)))
    });
    let change = |row: &DiffFunction| (row.new_self - row.base_self).abs();
    table.sort_by(|one, other| change(other).total_cmp(&change(one)));
    table
}

/// Writes them, see the module.
///
/// # Errors
/// [`ExportError::Stream`].
pub fn write_json(
    tree: &DiffTree<'_>,
    value_type: &ValueType,
    normalized: bool,
    writer: &mut dyn Write,
) -> Result<(), ExportError> {
    // Fractions of a nanosecond come from scaling only, and say nothing.
    let number = |value: f64| json!(value.round());
    let root = tree.nodes.first();
    let functions: Vec<_> = functions(tree)
        .iter()
        .filter_map(|row| {
            let frame = tree.frames.get(row.frame as usize)?;
            Some(json!({
                "name": frame.name,
                "module": frame.module,
                "file": frame.file,
                "line": frame.line,
                "base": {"self": number(row.base_self), "total": number(row.base)},
                "new": {"self": number(row.new_self), "total": number(row.new)},
            }))
        })
        .collect();
    serde_json::to_writer_pretty(
        &mut *writer,
        &json!({
            "schema_version": SCHEMA_VERSION,
            "value": {"kind": value_type.kind, "unit": value_type.unit},
            "normalized": normalized,
            "total": {
                "base": number(root.map_or(0.0, |root| root.base)),
                "new": number(root.map_or(0.0, |root| root.new)),
            },
            "functions": functions,
        }),
    )?;
    writeln!(writer)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{tests::profile, unite};
    use super::*;
    use crate::export::flame_tree::{TreeOptions, merge};

    #[test]
    fn recursion_counts_once_and_the_greatest_change_comes_first() {
        let (base, new) = (profile("main;f;f 10\nmain;g 5\n"), profile("main;f;f 12\nmain;g 50\n"));
        let tree = |profile| merge(profile, &TreeOptions::default()).expect("a tree");
        let tree = unite(&[tree(&base)], &[tree(&new)], false);
        let names: Vec<(&str, f64, f64)> = functions(&tree)
            .iter()
            .map(|row| (&*tree.frames[row.frame as usize].name, row.base, row.new))
            .collect();
        assert_eq!(names, [("g", 5.0, 50.0), ("f", 10.0, 12.0), ("main", 15.0, 62.0)]);
    }

    #[test]
    fn the_json_is_as_it_is_documented() {
        let (base, new) = (profile("main;f 10\n"), profile("main;f 15\n"));
        let tree = |profile| merge(profile, &TreeOptions::default()).expect("a tree");
        let tree = unite(&[tree(&base)], &[tree(&new)], true);
        let mut bytes = Vec::new();
        write_json(&tree, &ValueType::new("cpu", "nanoseconds"), true, &mut bytes).expect("written");
        let json: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(json["total"], json!({"base": 15.0, "new": 15.0}));
        assert_eq!(json["functions"][0]["name"], "f");
        assert_eq!(json["functions"][0]["new"], json!({"self": 15.0, "total": 15.0}));
        assert_eq!(json["schema_version"], 1);
    }
}
