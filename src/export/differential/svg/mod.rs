//! The differential flame graph as a picture: a box is as wide as both sides together, so that frames which are gone are
//! seen as well as new ones. Red costs more than it did, blue less, the stronger the greater the part of both sides that
//! is the difference; what only one side has is outlined, what is gone by dashes. A click shows a box over the whole
//! width, a click on the root all of it again.
//!
//! What was decided of a function ([`Mark`]) is a strong outline on each of its boxes with a ▲ or ▼ before its name, and an
//! entry in a line above the graph: a click there shows the widest of these boxes.
//!
//! Own code, since inferno draws the new side's widths only. Boxes below a tenth of a pixel are not drawn, and counted in
//! the subtitle.

mod boxes;
mod head;
mod text;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write;

use self::boxes::{box_text, boxes, name_of};
use self::head::head;
use self::text::{LETTER_PX, Unit, cut, relative};
use super::DiffTree;
use crate::export::ExportError;
use crate::export::xml::escape;
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
}
