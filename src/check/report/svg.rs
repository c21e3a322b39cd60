//! Both sides in one flame graph ([`crate::export::differential`]), the functions that a verdict names marked.
//!
//! Each side is the mean of its runs, on the basis that the verdicts are on: as they are, for the work that a run of the
//! new side did, or of shares of each run's total. Functions are those of the verdicts, so that one that has moved is no
//! gone and no new one, and what a compiler counts or hashes makes no difference.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;

use super::Findings;
use super::phrases::{change, headline, sentence, verdict};
use crate::check::comparison::{Basis, Comparison, Level, Line, Origin};
use crate::check::verdict::Verdict;
use crate::check::{FunctionKey, Run, Side};
use crate::export::ExportError;
use crate::export::differential::{Captions, DiffTree, Mark, unite_weighted, write_svg};
use crate::export::flame_tree::{FlameTree, NodeClass, TreeFrame, TreeNode};
use crate::export::frame_text::{FrameClass, module_name};

/// Writes it.
///
/// # Errors
/// The writer's.
pub fn write(findings: &Findings<'_>, writer: &mut dyn Write) -> Result<(), ExportError> {
    let Findings { comparison, base, new } = *findings;
    let names = Names::of(comparison, base, new);
    let scales = Scales::of(comparison, base, new);
    let base_trees: Vec<_> = base.runs.iter().map(|run| names.tree(run, true)).collect();
    let new_trees: Vec<_> = new.runs.iter().map(|run| names.tree(run, false)).collect();
    let (base_weights, new_weights) = (scales.weights(base), scales.weights(new));
    let base_trees: Vec<_> = base_trees.iter().zip(base_weights).collect();
    let new_trees: Vec<_> = new_trees.iter().zip(new_weights).collect();
    let mut united = unite_weighted(&base_trees, &new_trees, scales.base_scale);
    let marks = marks(comparison, &united);
    names.show(&mut united);
    let mean_of = |side: &Side| format!("{}, mean of {} runs", side.label, side.runs.len());
    let captions = Captions {
        title: &format!("{} → {}", base.label, new.label),
        base: &mean_of(base),
        new: &mean_of(new),
        basis: &scales.said,
        verdict: &headline(comparison),
    };
    write_svg(&united, &comparison.value_type, &captions, &marks, writer)
}

/// What functions are called: by their keys, so that both sides mean the same, and in the picture as a reader knows them.
struct Names<'a> {
    /// What the new side calls a function of the base that has moved.
    moved: HashMap<&'a FunctionKey, &'a FunctionKey>,
    /// How a key is shown: as the new side has it, else the base.
    shown: HashMap<(&'a str, &'a str), &'a str>,
}

impl<'a> Names<'a> {
    fn of(comparison: &'a Comparison, base: &'a Side, new: &'a Side) -> Self {
        let moved = comparison.lines.iter().filter_map(|line| match (&line.origin, &line.subject.key) {
            (Some(Origin::Renamed { from }), Some(to)) => Some((from, to)),
            _ => None,
        });
        let functions = base.runs.iter().chain(&new.runs).flat_map(|run| &run.functions);
        let shown = functions.map(|function| ((&*function.key.name, &*function.key.module), &*function.name));
        Self { moved: moved.collect(), shown: shown.collect() }
    }

    /// A run's stacks as a tree with a root. `moved`: functions have the names that they moved to.
    fn tree(&self, run: &'a Run, moved: bool) -> FlameTree<'a> {
        let frame = |name: &'a str, module: &'a str, class, file: &'a str, line| TreeFrame {
            name: Cow::Borrowed(name),
            class,
            unnamed: false,
            is_approximate: false,
            file,
            line,
            module,
            build_id: "",
        };
        let mut frames = vec![frame("", "", NodeClass::Root, "", 0)];
        frames.extend(run.functions.iter().map(|function| {
            let moved_to = if moved { self.moved.get(&function.key).copied() } else { None };
            let key: &'a FunctionKey = moved_to.unwrap_or(&function.key);
            let class = NodeClass::Code(FrameClass::Native);
            frame(&key.name, &key.module, class, &function.file, function.line)
        }));
        let inner = run.stacks.iter().fold(0_u64, |sum, node| sum.saturating_add(node.self_value));
        // What has no stack at all is the root's own.
        let mut nodes = vec![TreeNode { depth: 0, frame: 0, self_value: run.total.saturating_sub(inner) }];
        nodes.extend(run.stacks.iter().map(|node| TreeNode {
            depth: node.depth.saturating_add(1),
            frame: node.function.saturating_add(1),
            self_value: node.self_value,
        }));
        FlameTree { frames, nodes, total: run.total }
    }

    /// Gives the frames the names that a reader knows.
    fn show(&self, united: &mut DiffTree<'_>) {
        for frame in &mut united.frames {
            let shown = self.shown.get(&(frame.name.as_ref(), frame.module)).map(|name| (*name).to_owned());
            if let Some(shown) = shown {
                frame.name = Cow::Owned(shown);
            }
        }
    }
}

/// By what runs are multiplied so that both sides can be compared.
struct Scales {
    /// What all runs are brought to: an amount of work or a total. None if they are as they were measured.
    common: Option<f64>,
    is_work: bool,
    /// What the base was multiplied by as a whole, for a reader who wants to know what was measured.
    base_scale: f64,
    /// For a reader.
    said: String,
}

impl Scales {
    fn of(comparison: &Comparison, base: &Side, new: &Side) -> Self {
        let mean = |side: &Side, of: fn(&Run) -> f64| {
            side.runs.iter().map(of).sum::<f64>() / side.runs.len().max(1) as f64
        };
        match &comparison.basis {
            Basis::PerRun => Self { common: None, is_work: false, base_scale: 1.0, said: String::new() },
            Basis::PerWork { unit } => {
                let work = mean(new, work);
                let unit = if unit.is_empty() { "work" } else { unit };
                Self {
                    common: Some(work),
                    is_work: true,
                    base_scale: 1.0,
                    said: format!("both for {work:.0} × {unit}"),
                }
            }
            Basis::Share => {
                let (before, after) = (mean(base, |run| run.total as f64), mean(new, |run| run.total as f64));
                let base_scale = if before > 0.0 && after > 0.0 { after / before } else { 1.0 };
                Self {
                    common: Some(after),
                    is_work: false,
                    base_scale,
                    said: "shares of each run's own total".to_owned(),
                }
            }
        }
    }

    /// What each run counts, so that their sum is the side's mean.
    fn weights(&self, side: &Side) -> Vec<f64> {
        let runs = side.runs.len() as f64;
        let weight = |run: &Run| {
            let own = if self.is_work { work(run) } else { run.total as f64 };
            match self.common {
                Some(common) if own > 0.0 => common / own / runs,
                _ => 1.0 / runs,
            }
        };
        side.runs.iter().map(weight).collect()
    }
}

fn work(run: &Run) -> f64 {
    run.facts.work.as_ref().map_or(0.0, |work| work.done)
}

/// Marks of the functions that changed: by themselves first, and where only what they call says so, by that.
fn marks(comparison: &Comparison, united: &DiffTree<'_>) -> Vec<Mark> {
    // A module that is called something else on the new side has given its functions other keys than a frame of the
    // base's has: the name alone will do where only one frame has it.
    let mut by_key: HashMap<(&str, &str), u32> = HashMap::new();
    let mut by_name: HashMap<&str, Option<u32>> = HashMap::new();
    for (number, frame) in (0_u32..).zip(&united.frames) {
        let (name, module) = (frame.name.as_ref(), module_name(frame.module));
        by_key.insert((name, module), number);
        by_name.entry(name).and_modify(|known| *known = None).or_insert(Some(number));
    }
    let frame_of = |line: &Line| {
        let key = line.subject.key.as_ref()?;
        let known = by_key.get(&(&*key.name, module_name(&key.module))).copied();
        known.or_else(|| by_name.get(&*key.name).copied().flatten())
    };
    let mut marks: Vec<Mark> = Vec::new();
    for (level, is_own) in [(Level::FunctionSelf, true), (Level::FunctionInclusive, false)] {
        for line in comparison.lines.iter().filter(|line| line.level == level) {
            let costs_more = match line.verdict {
                Verdict::Regressed => true,
                Verdict::Improved => false,
                _ => continue,
            };
            let Some(frame) = frame_of(line) else { continue };
            if marks.iter().any(|mark| mark.frame == frame) {
                continue;
            }
            let short = format!("{} {}", verdict(line), change(line));
            marks.push(Mark { frame, costs_more, is_own, short, sentence: sentence(comparison, line) });
        }
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Policy, RunFacts, Wanted, Work, compare};
    use crate::{export, ingest};

    /// Ten runs of what the stacks say, a run costing up to a fiftieth more or less.
    fn side(label: &str, stacks: &[(&str, u64)], facts: impl Fn(u64) -> RunFacts) -> Side {
        let run = |number: u64| {
            let folded: String = stacks
                .iter()
                .zip(0_u64..)
                .map(|((stack, cost), index)| {
                    let noise = (number * 7 + index * 3 + label.len() as u64) % 5;
                    format!("{stack} {}\n", cost * (98 + noise) / 100)
                })
                .collect();
            let options = ingest::Options { first_field_is_frame: true, ..ingest::Options::default() };
            let profile =
                ingest::read(folded.as_bytes(), export::Format::Folded, &options).expect("folded stacks");
            let wanted = Wanted { value: None, stacks: true };
            Run::from_profile(&profile, &format!("{label} {number}"), wanted, facts(number)).expect("a run")
        };
        Side { label: label.to_owned(), runs: (0..10).map(run).collect() }
    }

    fn executions(_: u64) -> RunFacts {
        RunFacts { whole_execution: true, ..RunFacts::default() }
    }

    fn picture(base: &Side, new: &Side) -> (Comparison, String) {
        let comparison = compare(base, new, &Policy::default()).expect("they can be compared");
        let mut bytes = Vec::new();
        write(&Findings { comparison: &comparison, base, new }, &mut bytes).expect("written");
        (comparison.clone(), String::from_utf8(bytes).expect("text"))
    }

    fn boxes_of<'a>(picture: &'a str, name: &str) -> Vec<&'a str> {
        let boxes = picture.split("<g class=\"b\"").skip(1);
        boxes.filter(|text| text.contains(&format!(" data-n=\"{name}\""))).collect()
    }

    #[test]
    fn what_changed_is_marked_and_what_is_gone_is_still_seen() {
        let base = side(
            "base",
            &[
                ("main;parse", 4_000),
                ("main;work", 9_000),
                ("main;retired", 1_000),
                ("main;send;write", 3_000),
            ],
            executions,
        );
        let new = side(
            "new",
            &[("main;parse", 6_000), ("main;work", 9_000), ("main;send;write", 3_000)],
            executions,
        );
        let (comparison, picture) = picture(&base, &new);
        let [parse] = boxes_of(&picture, "parse")[..] else { panic!("{picture}") };
        assert!(parse.contains("data-v=\"more\"") && parse.contains("parse regressed: "), "{parse}");
        let [retired] = boxes_of(&picture, "retired")[..] else { panic!("{picture}") };
        assert!(retired.contains("data-v=\"less\"") && retired.contains("stroke-dasharray"), "{retired}");
        let [work] = boxes_of(&picture, "work")[..] else { panic!("{picture}") };
        assert!(!work.contains("data-v"), "{work}");
        assert!(picture.contains(&format!(">{}<", headline(&comparison))), "{picture}");
        assert!(picture.contains(">base → new<"), "{picture}");
    }

    #[test]
    fn a_function_that_moved_is_one_box() {
        let base = side("base", &[("main;hash_of", 4_000), ("main;work", 9_000)], executions);
        let new = side("new", &[("main;digest", 4_000), ("main;work", 9_000)], executions);
        let (comparison, picture) = picture(&base, &new);
        assert!(
            comparison.lines.iter().any(|line| matches!(line.verdict, Verdict::Moved { .. })),
            "{comparison:#?}"
        );
        assert_eq!(boxes_of(&picture, "digest").len(), 1, "{picture}");
        assert!(boxes_of(&picture, "hash_of").is_empty(), "{picture}");
        assert!(!picture.contains("stroke-dasharray=\"3 2\"/>"), "nothing is gone: {picture}");
    }

    #[test]
    fn sides_of_different_amounts_of_work_are_drawn_for_one_amount() {
        let of = |done: f64| {
            move |_| RunFacts { work: Some(Work { done, unit: "request".to_owned() }), ..RunFacts::default() }
        };
        let base = side("base", &[("main;parse", 1_000), ("main;work", 3_000)], of(100.0));
        let new = side("new", &[("main;parse", 3_000), ("main;work", 9_000)], of(300.0));
        let (_, picture) = picture(&base, &new);
        assert!(picture.contains("both for 300 × request"), "{picture}");
        let [work] = boxes_of(&picture, "work")[..] else { panic!("{picture}") };
        let base_line = work.lines().find(|line| line.starts_with("base ")).expect("a tip");
        let samples: f64 = base_line.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a figure");
        assert!((samples - 9_000.0).abs() < 200.0, "{work}");
    }
}
