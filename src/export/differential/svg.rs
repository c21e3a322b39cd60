//! The differential flame graph as a picture: a box is as wide as both sides together, so that frames which are gone are
//! seen as well as new ones. Red costs more than it did, blue less, the stronger the greater the part of both sides that
//! is the difference; what only one side has is outlined, what is gone by dashes. A click shows a box over the whole
//! width, a click on the root all of it again.
//!
//! Own code, since inferno draws the new side's widths only. Boxes below [`NARROWEST_PX`] are not drawn, and counted in
//! the subtitle.

use std::fmt::Write as _;
use std::io::Write;

use super::{DiffNode, DiffTree};
use crate::export::ExportError;
use crate::model::ValueType;

const WIDTH_PX: f64 = 1200.0;
const MARGIN_PX: f64 = 10.0;
const ROW_PX: u32 = 16;
const HEAD_PX: u32 = 72;
const FOOT_PX: u32 = 12;
/// A box that is narrower is not drawn.
const NARROWEST_PX: f64 = 0.1;
/// Width of a letter of the text in boxes.
const LETTER_PX: f64 = 7.0;

/// What is written beside the graph.
#[derive(Debug, Clone, Copy)]
pub struct Captions<'a> {
    /// The headline.
    pub title: &'a str,
    /// What a reader calls the base.
    pub base: &'a str,
    /// What a reader calls the new side.
    pub new: &'a str,
    /// Whether the base was scaled to the new side's total.
    pub normalized: bool,
}

/// Draws it.
///
/// # Errors
/// [`ExportError::Stream`].
pub fn write(
    tree: &DiffTree<'_>,
    value_type: &ValueType,
    captions: &Captions<'_>,
    writer: &mut dyn Write,
) -> Result<(), ExportError> {
    let unit = Unit::of(value_type);
    let (base_total, new_total) = tree.nodes.first().map_or((0.0, 0.0), |root| (root.base, root.new));
    let both = base_total + new_total;
    let boxes = boxes(tree, both);
    let rows = boxes.iter().map(|shown| shown.depth + 1).max().unwrap_or(1);
    let height = HEAD_PX + rows * ROW_PX + FOOT_PX;
    let hidden = tree.nodes.len() - boxes.len();
    let mut subtitle = format!(
        "{}: {} · {}: {} ({}) · red: more than it was, blue: less; outlined: only one side has it, dashed: gone",
        captions.base,
        // What was measured, not what it was scaled to.
        unit.text(base_total / tree.base_scale),
        captions.new,
        unit.text(new_total),
        relative(base_total / tree.base_scale, new_total),
    );
    if captions.normalized {
        subtitle.push_str(" · shares of each side's own total");
    }
    if hidden > 0 {
        let _ = write!(subtitle, " · {hidden} boxes too narrow to draw");
    }
    write!(writer, "{}", head(height, captions.title, &subtitle))?;
    if both <= 0.0 {
        writeln!(
            writer,
            r#"<text x="600" y="64" text-anchor="middle" font-size="13">Neither side has a sample.</text>"#
        )?;
    }
    for shown in &boxes {
        let y = height - FOOT_PX - (shown.depth + 1) * ROW_PX;
        write!(writer, "{}", box_text(tree, shown, y, &unit, (base_total, new_total)))?;
    }
    writeln!(writer, "</g>\n</svg>")?;
    Ok(())
}

/// A box that is drawn. Position and width are parts of the whole width.
struct Box<'a> {
    node: &'a DiffNode,
    depth: u32,
    left: f64,
    width: f64,
}

fn boxes<'a>(tree: &'a DiffTree<'_>, both: f64) -> Vec<Box<'a>> {
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

fn box_text(tree: &DiffTree<'_>, shown: &Box<'_>, y: u32, unit: &Unit, totals: (f64, f64)) -> String {
    let Box { node, left, width, .. } = shown;
    let name = match tree.frames.get(node.frame as usize) {
        Some(frame) if !frame.name.is_empty() => frame.name.as_ref(),
        _ => "all",
    };
    let whole = WIDTH_PX - 2.0 * MARGIN_PX;
    let (x, width_px) = (MARGIN_PX + left * whole, width * whole);
    let share = |value: f64, total: f64| if total > 0.0 { 100.0 * value / total } else { 0.0 };
    let shares = (share(node.base, totals.0), share(node.new, totals.1));
    let place = match tree.frames.get(node.frame as usize) {
        Some(frame) if !frame.file.is_empty() && frame.line > 0 => format!("\n{}:{}", frame.file, frame.line),
        Some(frame) if !frame.file.is_empty() => format!("\n{}", frame.file),
        _ => String::new(),
    };
    let tip = format!(
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
    let outline = match (node.base > 0.0, node.new > 0.0) {
        (true, false) => r##" stroke="#334" stroke-dasharray="3 2""##,
        (false, true) => r##" stroke="#334""##,
        _ => "",
    };
    let letters = ((width_px - 6.0) / LETTER_PX).max(0.0) as usize;
    let text = cut(name, letters);
    format!(
        concat!(
            r#"<g class="b" data-l="{:.6}" data-w="{:.6}" data-n="{}"><title>{}</title>"#,
            r#"<rect x="{:.2}" y="{}" width="{:.2}" height="{}" rx="1" fill="{}"{}/>"#,
            r#"<text x="{:.2}" y="{}">{}</text></g>"#,
            "\n"
        ),
        left,
        width,
        escape(name),
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

/// `+12.3 %`, `new`, `gone`.
fn relative(base: f64, new: f64) -> String {
    match (base > 0.0, new > 0.0) {
        (true, true) => format!("{:+.1} %", 100.0 * (new - base) / base),
        (true, false) => "gone".to_owned(),
        (false, true) => "new".to_owned(),
        (false, false) => "nothing".to_owned(),
    }
}

/// How values are shown.
struct Unit {
    name: String,
    is_time: bool,
}

impl Unit {
    fn of(value_type: &ValueType) -> Self {
        match value_type.unit.as_str() {
            "nanoseconds" => Self { name: String::new(), is_time: true },
            "count" => Self { name: format!(" {}", value_type.kind), is_time: false },
            unit => Self { name: format!(" {unit}"), is_time: false },
        }
    }

    fn text(&self, value: f64) -> String {
        if self.is_time {
            return if value >= 1e9 {
                format!("{:.2} s", value / 1e9)
            } else {
                format!("{:.1} ms", value / 1e6)
            };
        }
        format!("{value:.0}{}", self.name)
    }
}

/// The first letters; nothing where not even three have room.
fn cut(name: &str, letters: usize) -> String {
    if name.chars().count() <= letters {
        return name.to_owned();
    }
    if letters < 3 {
        return String::new();
    }
    name.chars().take(letters - 2).chain("..".chars()).collect()
}

/// Text as XML takes it: control characters are not in it at all.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push('\n'),
            other if other.is_control() || matches!(other, '\u{fffe}' | '\u{ffff}') => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

fn head(height: u32, title: &str, subtitle: &str) -> String {
    format!(
        r##"<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<svg version="1.1" width="{WIDTH_PX}" height="{height}" viewBox="0 0 {WIDTH_PX} {height}" xmlns="http://www.w3.org/2000/svg" onload="begin()">
<style>.b{{cursor:pointer}}.b text{{font:12px monospace;pointer-events:none}}.b:hover rect{{stroke:#000}}</style>
<script><![CDATA[
{SCRIPT}]]></script>
<rect width="100%" height="100%" fill="#f8f8f8"/>
<text x="600" y="26" text-anchor="middle" font-family="sans-serif" font-size="17">{}</text>
<text x="600" y="46" text-anchor="middle" font-family="sans-serif" font-size="11" fill="#555">{}</text>
<g id="boxes">
"##,
        escape(title),
        escape(subtitle)
    )
}

/// A click on a box shows it, and what is above and below it, over the whole width.
const SCRIPT: &str = "function begin() {
  const boxes = [...document.querySelectorAll('.b')];
  const show = (from, width) => {
    for (const box of boxes) {
      const left = Number(box.dataset.l), own = Number(box.dataset.w);
      const begin = Math.max(0, (left - from) / width), end = Math.min(1, (left + own - from) / width);
      const px = (end - begin) * 1180;
      box.style.display = px < 0.1 ? 'none' : '';
      const [, rect, text] = box.children;
      rect.setAttribute('x', 10 + begin * 1180);
      rect.setAttribute('width', Math.max(0, px));
      text.setAttribute('x', 13 + begin * 1180);
      const letters = Math.floor((px - 6) / 7), name = box.dataset.n;
      text.textContent = name.length <= letters ? name : letters < 3 ? '' : name.slice(0, letters - 2) + '..';
    }
  };
  for (const box of boxes)
    box.addEventListener('click', () => show(Number(box.dataset.l), Number(box.dataset.w)));
}
";

#[cfg(test)]
mod tests {
    use super::super::{tests::profile, unite};
    use super::*;
    use crate::export::flame_tree::{TreeOptions, merge};

    fn picture(base: &str, new: &str) -> String {
        let (base, new) = (profile(base), profile(new));
        let tree = |profile| merge(profile, &TreeOptions::default()).expect("a tree");
        let tree = unite(&[tree(&base)], &[tree(&new)], false);
        let captions = Captions { title: "a < b", base: "old", new: "fresh", normalized: false };
        let mut bytes = Vec::new();
        write(&tree, &ValueType::new("samples", "count"), &captions, &mut bytes).expect("written");
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn what_is_gone_is_drawn_dashed_and_what_is_new_outlined() {
        let picture = picture("main;gone 5\nmain;a 10\n", "main;fresh 5\nmain;a 10\n");
        let line_of = |name: &str| {
            let begin = format!("<title>{name}\n");
            let at = picture.find(&begin).unwrap_or_else(|| panic!("no {name}"));
            picture[at..].split("</g>").next().unwrap_or_default().to_owned()
        };
        assert!(line_of("gone").contains("stroke-dasharray"));
        assert!(line_of("gone").contains("-5 samples (-33.33 points, gone)"), "{}", line_of("gone"));
        assert!(line_of("fresh").contains("stroke=") && !line_of("fresh").contains("dasharray"));
        assert!(line_of("a").contains("fill=\"rgb(235,235,235)\""), "{}", line_of("a"));
        assert!(picture.contains("a &lt; b"));
        assert!(picture.contains("old: 15 samples · fresh: 15 samples (+0.0 %)"));
    }

    #[test]
    fn two_empty_sides_are_a_picture_that_says_so() {
        assert!(picture("", "").contains("Neither side has a sample."));
    }

    #[test]
    fn names_cannot_leave_their_place() {
        assert_eq!(escape("a<b>&\"\u{1}c"), "a&lt;b&gt;&amp;&quot; c");
        assert_eq!(cut("abcdef", 4), "ab..");
        assert_eq!(cut("äöüß", 4), "äöüß");
        assert_eq!(cut("abcdef", 2), "");
    }
}
