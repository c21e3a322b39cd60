//! What costs more only because something does that is allowed to: the callers of a function that an allow-list names, its
//! module, and the whole.
//!
//! What the function itself costs more is taken out of each new run, and of all that it is a part of: its own cost is
//! scaled to the mean that it had in the base, stack by stack. A line that is no regression of what is left is allowed as
//! well. One that is, because something else in it became slower too, is not.

use std::collections::HashMap;
use std::sync::Arc;

use super::comparison::{Allowed, Comparison, Level, Line, Subject};
use super::confirm::is_same;
use super::decide::compare_again;
use super::{FunctionKey, Run, Side, Verdict};

/// What an entry of an allow-list permits.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Permitted {
    /// The name that it has in the list.
    pub name: String,
    /// Why.
    pub reason: String,
    /// The functions that it names, and which part of their own new cost is no more than they had in the base: from 0
    /// to 1.
    pub kept_parts: HashMap<FunctionKey, f64>,
}

/// Allows the lines that would be no regression without what is permitted, and that need not be looked at further
/// without it. Lines that are allowed already stay as they are.
pub(super) fn allow(comparison: &mut Comparison, base: &Side, new: &Side, permitted: &[Permitted]) {
    let mut taken = Taken::default();
    let runs: Vec<Run> = new.runs.iter().map(|run| taken.out_of(run, permitted)).collect();
    if taken.whole.iter().all(|taken| *taken <= 0.0) {
        return;
    }
    let without = Side { label: new.label.clone(), runs };
    let again = compare_again(base, &without, comparison);
    let margin = comparison.policy.equivalence_margin;
    for line in comparison.lines.iter_mut().filter(|line| line.allowed.is_none()) {
        let because_of = taken.of(line, permitted);
        if because_of.is_empty() {
            continue;
        }
        let rest = again.lines.iter().find(|other| is_about(other, line));
        let is_explained = match line.verdict {
            Verdict::Regressed => rest.is_none_or(|rest| rest.verdict != Verdict::Regressed),
            _ => !line.adds_no_more_than(margin) && rest.is_none_or(|rest| rest.adds_no_more_than(margin)),
        };
        if is_explained {
            let mut reasons: Vec<&str> =
                because_of.iter().map(|permitted| permitted.reason.as_str()).collect();
            reasons.dedup();
            line.allowed = Some(Allowed {
                reason: reasons.join("; "),
                because_of: because_of.iter().map(|permitted| permitted.name.clone()).collect(),
                rest: rest.cloned().map(Box::new),
            });
        }
    }
}

/// Whether a line is about the same as another, or speaks for it: of callers with one cost only one has a line.
fn is_about(line: &Line, wanted: &Line) -> bool {
    let is_wanted = |subject: &Subject| subject.key.is_some() && subject.key == wanted.subject.key;
    is_same(line, wanted) || line.level == wanted.level && line.same_as.iter().any(is_wanted)
}

/// What was taken out of all runs, by the entries that permit it.
#[derive(Debug, Default)]
struct Taken {
    whole: Vec<f64>,
    modules: HashMap<Arc<str>, Vec<f64>>,
    /// Of what functions cost with all that they call.
    functions: HashMap<FunctionKey, Vec<f64>>,
}

impl Taken {
    /// The run without what each entry permits. Takes time proportional to the run's stacks times the entries.
    fn out_of(&mut self, run: &Run, permitted: &[Permitted]) -> Run {
        let mut left = run.clone();
        let mut whole_taken = 0.0;
        let mut inclusive_taken = vec![0.0; run.functions.len()];
        for (entry, permitted) in permitted.iter().enumerate() {
            let parts: Vec<f64> = run
                .functions
                .iter()
                .map(|function| permitted.kept_parts.get(&function.key).map_or(0.0, |kept| 1.0 - kept))
                .collect();
            let inclusive = inclusive_parts(run, &parts);
            for (function, (&of_function, part)) in inclusive.iter().zip(&parts).enumerate() {
                let Some(cost) = run.functions.get(function) else { continue };
                if of_function > 0.0 {
                    add(self.functions.entry(cost.key.clone()).or_default(), entry, of_function);
                }
                if let Some(sum) = inclusive_taken.get_mut(function) {
                    *sum += of_function;
                }
                let own = part * cost.self_value as f64;
                if own > 0.0 {
                    whole_taken += own;
                    add(self.modules.entry(Arc::clone(&cost.key.module)).or_default(), entry, own);
                    add(&mut self.whole, entry, own);
                }
                if own > 0.0
                    && let Some(left) = left.functions.get_mut(function)
                {
                    left.self_value = less(left.self_value, own);
                }
            }
        }
        for (function, taken) in left.functions.iter_mut().zip(inclusive_taken) {
            function.inclusive_value = less(function.inclusive_value, taken);
        }
        left.total = less(left.total, whole_taken);
        left
    }

    /// The entries of which something was taken out of a line's cost, the one with the most first.
    fn of<'a>(&self, line: &Line, permitted: &'a [Permitted]) -> Vec<&'a Permitted> {
        let amounts = match line.level {
            Level::Total => Some(&self.whole),
            Level::Module => self.modules.get(line.subject.name.as_str()),
            // Nothing is a part of what a function costs by itself.
            Level::FunctionSelf => None,
            Level::FunctionInclusive => line.subject.key.as_ref().and_then(|key| self.functions.get(key)),
        };
        let mut amounts: Vec<(f64, &Permitted)> = amounts
            .into_iter()
            .flatten()
            .copied()
            .zip(permitted)
            .filter(|(amount, _)| *amount > 0.0)
            .collect();
        amounts.sort_by(|one, other| other.0.total_cmp(&one.0));
        amounts.into_iter().map(|(_, permitted)| permitted).collect()
    }
}

fn add(amounts: &mut Vec<f64>, entry: usize, amount: f64) {
    if amounts.len() <= entry {
        amounts.resize(entry + 1, 0.0);
    }
    if let Some(sum) = amounts.get_mut(entry) {
        *sum += amount;
    }
}

/// Of each function, with all that it calls, what is those parts of functions' own costs. What it calls counts once,
/// also where it calls itself.
fn inclusive_parts(run: &Run, parts: &[f64]) -> Vec<f64> {
    let mut on_path = vec![0_u32; run.functions.len()];
    let mut path: Vec<u32> = Vec::new();
    let mut is_outermost = Vec::with_capacity(run.stacks.len());
    for node in &run.stacks {
        for left in path.drain((node.depth as usize).min(path.len())..) {
            if let Some(count) = on_path.get_mut(left as usize) {
                *count -= 1;
            }
        }
        path.push(node.function);
        let count = on_path.get_mut(node.function as usize);
        is_outermost.push(count.is_some_and(|count| {
            *count += 1;
            *count == 1
        }));
    }
    let mut inclusive = vec![0.0; run.functions.len()];
    // Each node is followed by what is below it, so that from behind what is below is complete.
    let mut below: Vec<f64> = Vec::new();
    for (node, is_outermost) in run.stacks.iter().zip(is_outermost).rev() {
        let depth = node.depth as usize;
        if below.len() < depth + 2 {
            below.resize(depth + 2, 0.0);
        }
        let part = parts.get(node.function as usize).copied().unwrap_or(0.0);
        let own = part * node.self_value as f64;
        let all = own + below.get_mut(depth + 1).map_or(0.0, std::mem::take);
        if let Some(sum) = below.get_mut(depth) {
            *sum += all;
        }
        if is_outermost && let Some(sum) = inclusive.get_mut(node.function as usize) {
            *sum += all;
        }
    }
    inclusive
}

/// What is left; fractions of a sample or of a nanosecond say nothing.
fn less(value: u64, taken: f64) -> u64 {
    (value as f64 - taken).round().max(0.0) as u64
}
