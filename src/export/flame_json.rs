//! A merged tree as nested JSON, for scripts: `{"name","self","total","children"}`.
//!
//! The root reads `all`. Children stand in the order of their names.

use std::io::Write;

use super::ExportError;
use super::flame_tree::FlameTree;

/// Writes the tree. Nothing recurses: a deep stack is a long line and no deep call. `about` are further
/// keys of the root, which come first.
///
/// # Errors
/// [`ExportError::Stream`].
pub fn write_tree(
    tree: &FlameTree<'_>,
    about: &serde_json::Map<String, serde_json::Value>,
    writer: &mut dyn Write,
) -> Result<(), ExportError> {
    let totals = totals(tree);
    let mut open = 0_u32;
    for (index, node) in tree.nodes.iter().enumerate() {
        if index > 0 {
            // The node before this one is open, and all above it.
            while open > node.depth {
                writer.write_all(b"]}")?;
                open -= 1;
            }
            if tree.nodes[index - 1].depth >= node.depth {
                writer.write_all(b",")?;
            }
        }
        let name = match tree.frames.get(node.frame as usize) {
            Some(frame) if index > 0 => &*frame.name,
            _ => "all",
        };
        writer.write_all(b"{")?;
        for (key, value) in about.iter().filter(|_| index == 0) {
            serde_json::to_writer(&mut *writer, key)?;
            writer.write_all(b":")?;
            serde_json::to_writer(&mut *writer, value)?;
            writer.write_all(b",")?;
        }
        writer.write_all(b"\"name\":")?;
        serde_json::to_writer(&mut *writer, name)?;
        write!(writer, ",\"self\":{},\"total\":{},\"children\":[", node.self_value, totals[index])?;
        open = node.depth + 1;
    }
    for _ in 0..open {
        writer.write_all(b"]}")?;
    }
    Ok(())
}

/// Self value and everything below, of each node.
fn totals(tree: &FlameTree<'_>) -> Vec<u64> {
    let mut totals: Vec<u64> = tree.nodes.iter().map(|node| node.self_value).collect();
    // Backwards, a node comes after everything below it; `waiting[d]` is what the nodes at depth d that
    // were passed give to the parent they share.
    let mut waiting: Vec<u64> = Vec::new();
    for (index, node) in tree.nodes.iter().enumerate().rev() {
        let depth = node.depth as usize;
        if waiting.len() < depth + 2 {
            waiting.resize(depth + 2, 0);
        }
        totals[index] = totals[index].saturating_add(std::mem::take(&mut waiting[depth + 1]));
        waiting[depth] = waiting[depth].saturating_add(totals[index]);
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::super::flame_tree::{MAX_DEPTH, NodeClass, TreeFrame, TreeNode};
    use super::*;

    fn tree(rows: &[(u32, u32, u64)]) -> FlameTree<'static> {
        let frame = |name: &str| TreeFrame {
            name: name.to_owned().into(),
            class: NodeClass::Label,
            unnamed: false,
            is_approximate: false,
            file: "",
            line: 0,
            module: "",
            build_id: "",
        };
        FlameTree {
            frames: vec![frame(""), frame("a"), frame("b\"\n"), frame("c")],
            nodes: rows
                .iter()
                .map(|&(depth, frame, self_value)| TreeNode { depth, frame, self_value })
                .collect(),
            total: rows.iter().map(|row| row.2).sum(),
        }
    }

    fn written(tree: &FlameTree<'_>) -> String {
        let mut bytes = Vec::new();
        write_tree(tree, &serde_json::Map::new(), &mut bytes).expect("memory takes it");
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn totals_are_sums_and_siblings_after_deep_children_stand_beside_their_own() {
        let tree = tree(&[(0, 0, 1), (1, 1, 2), (2, 2, 4), (3, 3, 8), (1, 3, 16)]);
        let expected = concat!(
            r#"{"name":"all","self":1,"total":31,"children":[{"name":"a","self":2,"total":14,"children":["#,
            r#"{"name":"b\"\n","self":4,"total":12,"children":[{"name":"c","self":8,"total":8,"children":[]}]}"#,
            r#"]},{"name":"c","self":16,"total":16,"children":[]}]}"#
        );
        assert_eq!(written(&tree), expected);
        assert_eq!(written(&self::tree(&[(0, 0, 0)])), r#"{"name":"all","self":0,"total":0,"children":[]}"#);
    }

    #[test]
    fn what_the_tree_is_of_stands_at_its_root() {
        let about = serde_json::json!({"type": "cpu", "windows": 3});
        let mut bytes = Vec::new();
        let tree = tree(&[(0, 0, 0), (1, 1, 2)]);
        write_tree(&tree, about.as_object().expect("an object"), &mut bytes).expect("memory takes it");
        let read: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(read["windows"], 3);
        assert_eq!(read["total"], 2);
        assert!(read["children"][0].get("windows").is_none());
    }

    #[test]
    fn the_deepest_stack_needs_no_deep_call() {
        let rows: Vec<(u32, u32, u64)> = (0..=MAX_DEPTH as u32).map(|depth| (depth, 1, 1)).collect();
        let text = written(&tree(&rows));
        assert!(text.contains(&format!("\"total\":{}", MAX_DEPTH + 1)) && text.ends_with("]}"));
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
