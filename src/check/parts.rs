//! A profile that holds several runs, such as stretches of a server's time: one walk over its stacks for all of them.

use std::collections::HashSet;

use super::costs::{Costs, functions_of};
use super::levels::UNJUDGED;
use super::run::{FunctionCost, RunError};
use super::run_facts::RunFacts;
use super::{FunctionKey, Policy, Run};
use crate::model::{Label, Profile};

/// A part of a profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// How messages call its run.
    pub name: String,
    /// What else is known of it.
    pub facts: RunFacts,
}

/// What each part of a profile cost; there are `MOST` parts at most.
#[derive(Debug)]
pub struct Parts<'a, const MOST: usize> {
    profile: &'a Profile,
    value: usize,
    parts: &'a [Part],
    functions: Vec<FunctionCost>,
    costs: Costs<MOST>,
    totals: [u64; MOST],
    /// If the profile tells them.
    sample_counts: Option<[u64; MOST]>,
}

impl<'a, const MOST: usize> Parts<'a, MOST> {
    /// `part_of` says in which of `parts` a sample is, by its label set; nothing for those that are of none, and of
    /// parts beyond `MOST`. Takes time proportional to the frames of all different stacks times `MOST`.
    ///
    /// # Errors
    /// [`RunError::Negative`].
    pub fn new(
        profile: &'a Profile,
        value: usize,
        parts: &'a [Part],
        part_of: impl Fn(&[Label]) -> Option<usize>,
    ) -> Result<Self, RunError> {
        let negative =
            || RunError::Negative { run: parts.first().map_or_else(String::new, |part| part.name.clone()) };
        let counted = profile.value_types.iter().position(|value_type| value_type.unit == "count");
        let part_of_labels: Vec<Option<usize>> =
            profile.label_sets.iter().map(|labels| part_of(labels)).collect();
        let mut by_stack = vec![[0_u64; MOST]; profile.stacks.len()];
        let mut totals = [0_u64; MOST];
        let mut sample_counts = [0_u64; MOST];
        for sample in &profile.samples {
            let of = |index: usize| u64::try_from(sample.values.get(index).copied().unwrap_or(0));
            let cost = of(value).map_err(|_| negative())?;
            let count = counted.map_or(Ok(0), of).map_err(|_| negative())?;
            let Some(part) = part_of_labels.get(sample.labels as usize).copied().flatten() else { continue };
            let of_stack = by_stack.get_mut(sample.stack as usize).and_then(|parts| parts.get_mut(part));
            let sums = (of_stack, totals.get_mut(part), sample_counts.get_mut(part));
            if let (Some(of_stack), Some(total), Some(counts)) = sums {
                for (sum, value) in [(of_stack, cost), (total, cost), (counts, count)] {
                    *sum = sum.saturating_add(value);
                }
            }
        }
        let (functions, by_location) = functions_of(profile);
        let mut costs = Costs::new(functions.len());
        let mut of_stack = Vec::new();
        for (stack, values) in profile.stacks.iter().zip(&by_stack) {
            if values.iter().any(|value| *value > 0) {
                by_location.of_stack(stack, &mut of_stack);
                costs.add(&of_stack, values);
            }
        }
        let sample_counts = counted.map(|_| sample_counts);
        Ok(Self { profile, value, parts, functions, costs, totals, sample_counts })
    }

    /// The functions that are on stacks of at least this share of all parts together, 0 to 1.
    #[must_use]
    pub fn above(&self, share: f64) -> HashSet<FunctionKey> {
        let sum = |values: &[u64; MOST]| values.iter().map(|value| *value as f64).sum::<f64>();
        let least = share * sum(&self.totals);
        let rows = self.functions.iter().zip(self.costs.inclusive());
        rows.filter(|(_, values)| sum(values) >= least).map(|(function, _)| function.key.clone()).collect()
    }

    /// A run for each part that has a value, of the functions that are wanted. How long it was is not known.
    #[must_use]
    pub fn runs(&self, is_wanted: impl Fn(&FunctionKey) -> bool) -> Vec<Run> {
        let Some(value_type) = self.profile.value_types.get(self.value) else { return Vec::new() };
        let rows = (0_u32..).zip(&self.functions);
        let wanted: Vec<u32> =
            rows.filter(|(_, function)| is_wanted(&function.key)).map(|(row, _)| row).collect();
        let parts = self.parts.iter().zip(self.totals).enumerate().filter(|(_, (_, total))| *total > 0);
        parts
            .map(|(index, (part, total))| {
                let (functions, calls) = self.costs.of_part(&self.functions, index, &wanted);
                let counted = self.sample_counts.and_then(|counts| counts.get(index).copied());
                Run {
                    name: part.name.clone(),
                    value_type: value_type.clone(),
                    total,
                    sample_count: if value_type.unit == "count" { Some(total) } else { counted },
                    duration_ns: 0,
                    facts: part.facts.clone(),
                    functions,
                    calls,
                    stacks: Vec::new(),
                }
            })
            .collect()
    }
}

/// The functions of two sides that are large enough on one of them to tell anything: of a program with many the others
/// would take nearly all the time, and no line is about them.
#[must_use]
pub fn large_functions<const MOST: usize>(
    sides: &[Parts<'_, MOST>; 2],
    policy: &Policy,
) -> HashSet<FunctionKey> {
    let least = policy.min_share * UNJUDGED;
    sides.iter().flat_map(|side| side.above(least)).collect()
}
