//! What is judged: lines of costs at four levels, and how the chance of a false alarm is divided between them.

use std::collections::HashMap;

use super::Policy;
use super::alignment::{Alignment, Row, Which};
use super::comparison::{Basis, Level, Origin, Subject};
use super::statistics::two_sample::Direction;

/// What is smaller than what is judged by no more than this still tells what variance is to be expected.
pub(super) const UNJUDGED: f64 = 0.25;
/// Two lines whose costs differ by less than this part in every run are one.
const SAME: f64 = 0.005;

/// Something whose cost is judged.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Candidate {
    pub level: Level,
    pub subject: Subject,
    pub origin: Option<Origin>,
    /// Costs of the base's runs, of the basis's unit.
    pub base: Vec<f64>,
    /// Costs of the new runs.
    pub new: Vec<f64>,
    /// Shares of both sides' totals.
    pub shares: [f64; 2],
    pub same_as: Vec<Subject>,
    /// It is large enough to be judged; else it only tells what is expected of others.
    pub judged: bool,
}

/// The part of [`Policy::false_alarm_level`] that a level and direction may use up. The parts of those that there
/// are add up to one.
///
/// Nobody's build fails for an improvement that is not seen, so increases get nineteen twentieths. Functions by
/// themselves are where a change is named and where noise is greatest, so they get most of it; the total and
/// modules are known much better and can afford a strict test.
pub(super) fn part_of_level(direction: Direction, level: Level, present: &[Level]) -> f64 {
    let weight = |level: Level| match level {
        Level::Total | Level::Module => 0.02,
        Level::FunctionSelf => 0.92,
        Level::FunctionInclusive => 0.04,
    };
    let whole: f64 = present.iter().copied().map(weight).sum();
    let of_direction = match direction {
        Direction::Increase => 0.95,
        Direction::Decrease => 0.05,
    };
    if whole > 0.0 { of_direction * weight(level) / whole } else { 0.0 }
}

/// All that is looked at, level by level.
pub(super) fn candidates(
    alignment: &Alignment,
    basis: &Basis,
    work: &[f64],
    policy: &Policy,
) -> Vec<Candidate> {
    let making = Making { alignment, basis, work, policy };
    let mut candidates = Vec::new();
    let total = making.candidate(Level::Total, &Subject::default(), &alignment.totals, None);
    let whole = total.iter().next().cloned();
    // Of shares the total is always one.
    if *basis != Basis::Share {
        candidates.extend(total);
    }
    candidates.extend(making.modules(whole.as_ref()));
    let own: Vec<Candidate> = alignment
        .rows
        .iter()
        .filter_map(|row| making.candidate(Level::FunctionSelf, &row.subject, &row.own, row.origin.as_ref()))
        .collect();
    candidates.extend(making.inclusive(whole.as_ref(), &own));
    candidates.extend(own);
    candidates
}

struct Making<'a> {
    alignment: &'a Alignment,
    basis: &'a Basis,
    work: &'a [f64],
    policy: &'a Policy,
}

impl Making<'_> {
    /// None for what is too small to tell anything.
    fn candidate(
        &self,
        level: Level,
        subject: &Subject,
        values: &[f64],
        origin: Option<&Origin>,
    ) -> Option<Candidate> {
        let shares = [Which::Base, Which::New].map(|side| self.alignment.share(values, side));
        let share = shares[0].max(shares[1]);
        if share < self.policy.min_share * UNJUDGED {
            return None;
        }
        let divisors = match self.basis {
            Basis::Share => &self.alignment.totals,
            Basis::PerWork { .. } => self.work,
            Basis::PerRun => &[][..],
        };
        let cost = |column: usize| {
            values.get(column).copied().unwrap_or(0.0) / divisors.get(column).copied().unwrap_or(1.0)
        };
        Some(Candidate {
            level,
            subject: subject.clone(),
            origin: origin.cloned(),
            base: self.alignment.columns(Which::Base).map(cost).collect(),
            new: self.alignment.columns(Which::New).map(cost).collect(),
            shares,
            same_as: Vec::new(),
            judged: share >= self.policy.min_share,
        })
    }

    /// Modules that are not the whole program.
    fn modules(&self, whole: Option<&Candidate>) -> Vec<Candidate> {
        let mut sums: HashMap<&str, (Subject, Vec<f64>)> = HashMap::new();
        for row in &self.alignment.rows {
            let (subject, sum) = sums.entry(&*row.key.module).or_insert_with(|| {
                let subject = Subject {
                    name: row.key.module.to_string(),
                    module: row.subject.module.clone(),
                    ..Subject::default()
                };
                (subject, vec![0.0; row.own.len()])
            });
            // Any row will do for the path, as long as it is always the same one.
            if row.subject.module < subject.module {
                subject.module.clone_from(&row.subject.module);
            }
            for (sum, value) in sum.iter_mut().zip(&row.own) {
                *sum += value;
            }
        }
        let mut modules: Vec<Candidate> = sums
            .into_values()
            .filter_map(|(subject, values)| self.candidate(Level::Module, &subject, &values, None))
            .filter(|module| !whole.is_some_and(|whole| Self::is_same(whole, module)))
            .collect();
        modules.sort_by(|one, other| one.subject.name.cmp(&other.subject.name));
        modules
    }

    /// Functions with all that they call, where that says something that no other line says.
    fn inclusive(&self, whole: Option<&Candidate>, own: &[Candidate]) -> Vec<Candidate> {
        let own_of: HashMap<_, _> = own.iter().map(|line| (&line.subject.key, line)).collect();
        let on_both_sides = |row: &&Row| {
            // What a function costs that is on one side only is seen by itself, and with its callers. Its inclusive
            // cost is that of a place in the call tree that the other side does not have.
            let both = [Which::Base, Which::New].map(|side| self.alignment.share(&row.inclusive, side));
            both[0].min(both[1]) >= 0.05 * both[0].max(both[1])
        };
        let rows = self.alignment.rows.iter().filter(on_both_sides);
        let mut lines: Vec<(f64, Candidate)> = rows
            .filter_map(|row| {
                let line = self.candidate(
                    Level::FunctionInclusive,
                    &row.subject,
                    &row.inclusive,
                    row.origin.as_ref(),
                )?;
                let is_its_own = own_of.get(&row.subject.key).is_some_and(|own| Self::is_same(own, &line));
                let is_all = whole.is_some_and(|whole| Self::is_same(whole, &line));
                let own_part = self.alignment.share(&row.own, Which::New);
                (!is_its_own && !is_all).then_some((own_part, line))
            })
            .collect();
        // Of a chain of callers with one cost the one that does most itself speaks for all.
        lines.sort_by(|one, other| {
            other.0.total_cmp(&one.0).then_with(|| one.1.subject.name.cmp(&other.1.subject.name))
        });
        let mut kept: Vec<Candidate> = Vec::new();
        for (_, line) in lines {
            match kept.iter_mut().find(|known| Self::is_same(known, &line)) {
                Some(known) => known.same_as.push(line.subject),
                None => kept.push(line),
            }
        }
        kept
    }

    /// Whether the costs are the same in every run, up to what does not matter.
    fn is_same(one: &Candidate, other: &Candidate) -> bool {
        let near = |(one, other): (&f64, &f64)| (one - other).abs() <= SAME * one.max(*other);
        let both = one.base.iter().zip(&other.base).chain(one.new.iter().zip(&other.new));
        both.into_iter().all(near)
    }
}
