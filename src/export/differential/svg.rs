//! The differential flame graph as a picture: a box is as wide as both sides together, so that frames which are gone are
//! seen as well as new ones. Red costs more than it did, blue less, the stronger the greater the part of both sides that
//! is the difference; what only one side has is outlined, what is gone by dashes. A click shows a box over the whole
//! width, a click on the root all of it again.
//!
//! What was decided of a function ([`Mark`]) is a strong outline on each of its boxes with a ▲ or ▼ before its name, and an
//! entry in a line above the graph: a click there shows the widest of these boxes.
//!
//! Own code, since inferno draws the new side's widths only. Boxes below [`NARROWEST_PX`] are not drawn, and counted in
//! the subtitle.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write;

use super::{DiffNode, DiffTree};
use crate::export::ExportError;
use crate::model::ValueType;

const WIDTH_PX: f64 = 1200.0;
const MARGIN_PX: f64 = 10.0;
const ROW_PX: u32 = 16;
const HEAD_PX: u32 = 72;
/// Height of the line that says what was decided, and of the one that lists what is marked.
const VERDICT_PX: u32 = 20;
const MARKS_PX: u32 = 22;
/// Letters of a name in the list of what is marked.
const LISTED_LETTERS: usize = 40;
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
    /// How the values were made comparable, for a reader; empty if they are as they were measured.
    pub basis: &'a str,
    /// What was decided of the whole; empty if nothing was.
    pub verdict: &'a str,
}

/// What was decided of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Index in [`DiffTree::frames`].
    pub frame: u32,
    /// Whether it costs more than it did; else it costs less.
    pub costs_more: bool,
    /// Whether it was decided of the function by itself; else of all that it calls too, which is marked less strongly.
    pub is_own: bool,
    /// One word and a figure: `regressed +20.1 %`.
    pub short: String,
    /// The whole sentence, for the box's tip.
    pub sentence: String,
}

impl Mark {
    fn sign(&self) -> char {
        match (self.costs_more, self.is_own) {
            (true, true) => '▲',
            (true, false) => '△',
            (false, true) => '▼',
            (false, false) => '▽',
        }
    }

    fn colour(&self) -> &'static str {
        if self.costs_more { "#c00000" } else { "#0030c0" }
    }
}

/// Draws it. Marks are listed in their order; of several for one frame the first counts.
///
/// # Errors
/// [`ExportError::Stream`].
pub fn write(
    tree: &DiffTree<'_>,
    value_type: &ValueType,
    captions: &Captions<'_>,
    marks: &[Mark],
    writer: &mut dyn Write,
) -> Result<(), ExportError> {
    let unit = Unit::of(value_type);
    let (base_total, new_total) = tree.nodes.first().map_or((0.0, 0.0), |root| (root.base, root.new));
    let both = base_total + new_total;
    let boxes = boxes(tree, both);
    let rows = boxes.iter().map(|shown| shown.depth + 1).max().unwrap_or(1);
    let verdict_px = if captions.verdict.is_empty() { 0 } else { VERDICT_PX };
    let marks_px = if marks.is_empty() { 0 } else { MARKS_PX };
    let height = HEAD_PX + verdict_px + marks_px + rows * ROW_PX + FOOT_PX;
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
    if !captions.basis.is_empty() {
        let _ = write!(subtitle, " · {}", captions.basis);
    }
    if hidden > 0 {
        let _ = write!(subtitle, " · {hidden} boxes too narrow to draw");
    }
    write!(writer, "{}", head(height, captions, verdict_px, &subtitle))?;
    write!(writer, "{}", list_of_marks(tree, marks, HEAD_PX + verdict_px - 6))?;
    writeln!(writer, r#"<g id="boxes">"#)?;
    let mut mark_of: HashMap<u32, &Mark> = HashMap::new();
    for mark in marks {
        mark_of.entry(mark.frame).or_insert(mark);
    }
    if both <= 0.0 {
        writeln!(
            writer,
            r#"<text x="600" y="64" text-anchor="middle" font-size="13">Neither side has a sample.</text>"#
        )?;
    }
    // What is drawn last is not covered by its neighbours: a mark's outline is to be seen whole.
    for is_marked in [false, true] {
        for shown in boxes.iter().filter(|shown| mark_of.contains_key(&shown.node.frame) == is_marked) {
            let y = height - FOOT_PX - (shown.depth + 1) * ROW_PX;
            let mark = mark_of.get(&shown.node.frame).copied();
            write!(writer, "{}", box_text(tree, shown, y, &unit, (base_total, new_total), mark))?;
        }
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

fn name_of<'a>(tree: &'a DiffTree<'_>, frame: u32) -> &'a str {
    match tree.frames.get(frame as usize) {
        Some(frame) if !frame.name.is_empty() => frame.name.as_ref(),
        _ => "all",
    }
}

/// One line with what is marked, as far as it has room, and how many more there are.
fn list_of_marks(tree: &DiffTree<'_>, marks: &[Mark], y: u32) -> String {
    let mut list = String::new();
    let mut x = MARGIN_PX;
    for (index, mark) in marks.iter().enumerate() {
        let name = name_of(tree, mark.frame);
        let text = format!("{} {} {}", mark.sign(), cut(name, LISTED_LETTERS), mark.short);
        let width = (text.chars().count() + 3) as f64 * LETTER_PX;
        if index > 0 && x + width > WIDTH_PX - 10.0 * LETTER_PX {
            let _ =
                writeln!(list, r#"<text class="o" x="{x:.0}" y="{y}">+ {} more</text>"#, marks.len() - index);
            break;
        }
        let _ = writeln!(
            list,
            r#"<text class="m" data-f="{}" x="{x:.0}" y="{y}" fill="{}">{}<title>{}</title></text>"#,
            mark.frame,
            mark.colour(),
            escape(&text),
            escape(&mark.sentence),
        );
        x += width;
    }
    list
}

fn box_text(
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

fn head(height: u32, captions: &Captions<'_>, verdict_px: u32, subtitle: &str) -> String {
    let verdict = match captions.verdict {
        "" => String::new(),
        said => format!(
            r#"<text x="600" y="46" text-anchor="middle" font-family="sans-serif" font-size="14">{}</text>{}"#,
            escape(said),
            "\n"
        ),
    };
    format!(
        r##"<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<svg version="1.1" width="{WIDTH_PX}" height="{height}" viewBox="0 0 {WIDTH_PX} {height}" xmlns="http://www.w3.org/2000/svg" onload="begin()">
<style>.b{{cursor:pointer}}.b text{{font:12px monospace;pointer-events:none}}.b:hover rect{{stroke:#000}}.m,.o{{font:12px monospace}}.m{{cursor:pointer}}.m:hover{{text-decoration:underline}}</style>
<script><![CDATA[
{SCRIPT}]]></script>
<rect width="100%" height="100%" fill="#f8f8f8"/>
<text x="600" y="26" text-anchor="middle" font-family="sans-serif" font-size="17">{}</text>
{verdict}<text x="600" y="{}" text-anchor="middle" font-family="sans-serif" font-size="11" fill="#555">{}</text>
"##,
        escape(captions.title),
        46 + verdict_px,
        escape(subtitle)
    )
}

/// A click on a box shows it, and what is above and below it, over the whole width; one on what is marked the widest box of
/// it.
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
      const letters = Math.floor((px - 6) / 7), name = (box.dataset.m ?? '') + box.dataset.n;
      text.textContent = name.length <= letters ? name : letters < 3 ? '' : name.slice(0, letters - 2) + '..';
    }
  };
  for (const box of boxes)
    box.addEventListener('click', () => show(Number(box.dataset.l), Number(box.dataset.w)));
  for (const entry of document.querySelectorAll('.m'))
    entry.addEventListener('click', () => {
      const own = boxes.filter((box) => box.dataset.f === entry.dataset.f);
      const widest = own.sort((one, other) => Number(other.dataset.w) - Number(one.dataset.w))[0];
      if (widest !== undefined) show(Number(widest.dataset.l), Number(widest.dataset.w));
    });
}
";

#[cfg(test)]
mod tests {
    use super::super::{tests::profile, unite};
    use super::*;
    use crate::export::flame_tree::{TreeOptions, merge};

    fn picture(base: &str, new: &str) -> String {
        marked_picture(base, new, None)
    }

    /// With this mark on the function that it names.
    fn marked_picture(base: &str, new: &str, mark: Option<(&str, Mark)>) -> String {
        let (base, new) = (profile(base), profile(new));
        let tree = |profile| merge(profile, &TreeOptions::default()).expect("a tree");
        let tree = unite(&[tree(&base)], &[tree(&new)], false);
        let verdict = if mark.is_some() { "Slower & worse" } else { "" };
        let captions = Captions { title: "a < b", base: "old", new: "fresh", basis: "", verdict };
        let marks: Vec<Mark> = mark
            .into_iter()
            .map(|(name, mark)| {
                let frame = tree.frames.iter().position(|frame| frame.name == name).expect("a frame");
                Mark { frame: frame as u32, ..mark }
            })
            .collect();
        let mut bytes = Vec::new();
        write(&tree, &ValueType::new("samples", "count"), &captions, &marks, &mut bytes).expect("written");
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn what_was_decided_is_outlined_listed_and_said() {
        let mark = Mark {
            frame: 0,
            costs_more: true,
            is_own: true,
            short: "regressed +50.0 %".to_owned(),
            sentence: "a<b> regressed: 10 → 15".to_owned(),
        };
        let picture =
            marked_picture("main;a<b> 10\nmain;c 5\n", "main;a<b> 15\nmain;c 5\n", Some(("a<b>", mark)));
        let boxes = picture.split("<g class=\"b\"").skip(1);
        let boxes: Vec<&str> = boxes.filter(|text| text.contains(r#"data-v="more""#)).collect();
        let [marked] = boxes[..] else { panic!("{boxes:?}") };
        assert!(marked.contains(r##"stroke="#c00000" stroke-width="3""##), "{marked}");
        assert!(picture.contains(">▲ a&lt;b&gt;</text></g>"), "{picture}");
        assert!(picture.contains("\na&lt;b&gt; regressed: 10 → 15</title>"), "{picture}");
        assert!(picture.contains(">▲ a&lt;b&gt; regressed +50.0 %<title>"), "the list: {picture}");
        assert!(picture.contains(">Slower &amp; worse</text>"), "{picture}");
        assert_eq!(picture.matches(r#"<g class="b""#).count(), 4, "each box once: {picture}");
    }

    #[test]
    fn more_marks_than_have_room_are_counted() {
        let (base, new) = (profile("main;a 10\n"), profile("main;a 15\n"));
        let tree = |profile| merge(profile, &TreeOptions::default()).expect("a tree");
        let tree = unite(&[tree(&base)], &[tree(&new)], false);
        let mark = Mark {
            frame: 1,
            costs_more: false,
            is_own: false,
            short: "improved -50.0 %".to_owned(),
            sentence: String::new(),
        };
        let list = list_of_marks(&tree, &vec![mark; 100], 80);
        let listed = list.matches(r#"class="m""#).count();
        assert!((2..20).contains(&listed), "{list}");
        assert!(list.contains(&format!("+ {} more", 100 - listed)), "{list}");
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
