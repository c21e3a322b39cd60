//! The boxes: where each stands, its colour, outline and tip.

use std::fmt::Write as _;

use super::text::{LETTER_PX, Unit, cut, relative};
use super::{MARGIN_PX, Mark, ROW_PX, WIDTH_PX};
use crate::export::differential::{DiffNode, DiffTree};
use crate::export::xml::escape;

/// A box that is narrower is not drawn.
const NARROWEST_PX: f64 = 0.1;

/// A box that is drawn. Position and width are parts of the whole width.
pub(super) struct Box<'a> {
    pub(super) node: &'a DiffNode,
    pub(super) depth: u32,
    left: f64,
    width: f64,
}

/// The boxes that are wide enough; `both` is what the root has on both sides together.
pub(super) fn boxes<'a>(tree: &'a DiffTree<'_>, both: f64) -> Vec<Box<'a>> {
    let mut boxes = Vec::new();
    if both <= 0.0 {
        return boxes;
    }
    // By depth, where the next box begins.
    let mut next: Vec<f64> = Vec::new();
    for node in &tree.nodes {
        let depth = node.depth as usize;
        if next.len() < depth + 2 {
            next.resize(depth + 2, 0.0);
        }
        let (left, width) = (next[depth], (node.base + node.new) / both);
        next[depth] = left + width;
        next[depth + 1] = left;
        if width * (WIDTH_PX - 2.0 * MARGIN_PX) >= NARROWEST_PX {
            boxes.push(Box { node, depth: node.depth, left, width });
        }
    }
    boxes
}

/// What a frame is called.
pub(super) fn name_of<'a>(tree: &'a DiffTree<'_>, frame: u32) -> &'a str {
    match tree.frames.get(frame as usize) {
        Some(frame) if !frame.name.is_empty() => frame.name.as_ref(),
        _ => "all",
    }
}

/// A box as SVG.
pub(super) fn box_text(
    tree: &DiffTree<'_>,
    shown: &Box<'_>,
    y: u32,
    unit: &Unit,
    totals: (f64, f64),
    mark: Option<&Mark>,
) -> String {
    let Box { node, left, width, .. } = shown;
    let name = name_of(tree, node.frame);
    let whole = WIDTH_PX - 2.0 * MARGIN_PX;
    let (x, width_px) = (MARGIN_PX + left * whole, width * whole);
    let share = |value: f64, total: f64| if total > 0.0 { 100.0 * value / total } else { 0.0 };
    let shares = (share(node.base, totals.0), share(node.new, totals.1));
    let place = match tree.frames.get(node.frame as usize) {
        Some(frame) if !frame.file.is_empty() && frame.line > 0 => format!("\n{}:{}", frame.file, frame.line),
        Some(frame) if !frame.file.is_empty() => format!("\n{}", frame.file),
        _ => String::new(),
    };
    let mut tip = format!(
        "{name}{place}\nbase {} ({:.2} %)\nnew {} ({:.2} %)\n{}{} ({:+.2} points, {})",
        unit.text(node.base),
        shares.0,
        unit.text(node.new),
        shares.1,
        if node.new >= node.base { "+" } else { "-" },
        unit.text((node.new - node.base).abs()),
        shares.1 - shares.0,
        relative(node.base, node.new),
    );
    let dashes = if node.base > 0.0 && node.new <= 0.0 { r#" stroke-dasharray="3 2""# } else { "" };
    let outline = match mark {
        Some(mark) => {
            let _ = write!(tip, "\n{}", mark.sentence);
            let strength = if mark.is_own { 3 } else { 1 };
            format!(r#" stroke="{}" stroke-width="{strength}"{dashes}"#, mark.colour())
        }
        None if node.base > 0.0 && node.new > 0.0 => String::new(),
        None => format!(r##" stroke="#334"{dashes}"##),
    };
    // The script shows them again where a box becomes wider.
    let (sign, marked) = match mark {
        Some(mark) => {
            let word = if mark.costs_more { "more" } else { "less" };
            let sign = format!("{} ", mark.sign());
            let marked = format!(r#" data-f="{}" data-m="{sign}" data-v="{word}""#, mark.frame);
            (sign, marked)
        }
        None => (String::new(), String::new()),
    };
    let letters = ((width_px - 6.0) / LETTER_PX).max(0.0) as usize;
    let text = cut(&format!("{sign}{name}"), letters);
    format!(
        concat!(
            r#"<g class="b" data-l="{:.6}" data-w="{:.6}" data-n="{}"{}><title>{}</title>"#,
            r#"<rect x="{:.2}" y="{}" width="{:.2}" height="{}" rx="1" fill="{}"{}/>"#,
            r#"<text x="{:.2}" y="{}">{}</text></g>"#,
            "\n"
        ),
        left,
        width,
        escape(name),
        marked,
        escape(&tip),
        x,
        y,
        width_px,
        ROW_PX - 1,
        colour(node),
        outline,
        x + 3.0,
        y + 12,
        escape(&text),
    )
}

/// White where nothing changed.
fn colour(node: &DiffNode) -> String {
    let both = node.base + node.new;
    let change = if both > 0.0 { (node.new - node.base) / both } else { 0.0 };
    // Half as much again is a fifth of both, and should be seen.
    let strength = (change.abs() * 2.0).min(1.0);
    let faded = (235.0 - 150.0 * strength).round();
    if change >= 0.0 { format!("rgb(235,{faded},{faded})") } else { format!("rgb({faded},{faded},235)") }
}
