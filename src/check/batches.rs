//! Runs that are stretches of one execution, put together until they are as good as independent.
//!
//! Whoever was busy with one kind of request in a minute mostly is in the next. A test that takes such stretches for
//! independent runs alarms at what is only slow. Means of longer ones are less alike ("batch means": Law and Carson 1979),
//! so while the order of a side's stretches still means something, pairs of them become one, on both sides; for the
//! likeness that is left the test takes a greater variance (`decide.rs`). Where that is not enough nothing is decided.
//! What cannot be known from two times is whether a third would differ as much: a certain difference is one between
//! these times, whatever its cause.

use std::borrow::Cow;
use std::collections::HashMap;

use super::comparison::SelfTest;
use super::statistics::neighbours::chance_of_likeness;
use super::statistics::scale::Scale;
use super::stretches::LEAST_STRETCHES;
use super::{FunctionKey, Policy, Refusal, Run, Side, self_test};

/// A stretch of fewer samples says nothing of a function of the smallest share that is judged.
const LEAST_SAMPLES: u64 = 30;
/// If chance makes neighbours so alike less often than this, stretches are put together.
const ALIKE: f64 = 0.1;
/// If it does so less often than this, and no more can be put together, nothing is decided. Of five stretches only two
/// of the 120 orders are so rare: those that rise or fall all the time.
const TOO_ALIKE: f64 = 0.02;
/// Functions whose order in time is looked at: the largest ones.
const MOST_SERIES: usize = 64;
/// Of a function of a smaller share only noise is seen.
const LEAST_SHARE: f64 = 0.001;

/// Two sides whose runs are as good as independent, as far as there are enough of them.
pub(super) struct Apart<'a> {
    pub base: Cow<'a, Side>,
    pub new: Cow<'a, Side>,
    /// Why nothing may be decided if they are not.
    pub refusals: Vec<Refusal>,
}

/// Sides of executions are left as they are.
pub(super) fn apart<'a>(base: &'a Side, new: &'a Side, policy: &Policy) -> Apart<'a> {
    let mut sides = [Cow::Borrowed(base), Cow::Borrowed(new)];
    let mut refusals = Vec::new();
    loop {
        let in_time: Vec<&Side> =
            sides.iter().map(Cow::as_ref).filter(|side| side.all().are_stretches()).collect();
        let halves = in_time.iter().map(|side| side.runs.len() / 2).min().unwrap_or(0);
        let can_halve = halves >= LEAST_STRETCHES;
        let limit = if can_halve { ALIKE } else { TOO_ALIKE };
        let small = in_time.iter().find(|side| side.runs.iter().any(is_small));
        let alike = in_time.iter().find(|side| chance_of_likeness(&series(side)) <= limit);
        if small.is_none() && alike.is_none() {
            break;
        }
        if !can_halve {
            refusals.extend(small.map(|side| Refusal::TooFewSamples {
                side: side.label.clone(),
                samples: side.runs.iter().filter_map(|run| run.sample_count).fold(0, u64::saturating_add),
                least: LEAST_SAMPLES * LEAST_STRETCHES as u64,
            }));
            if small.is_none() {
                refusals
                    .extend(alike.map(|side| Refusal::RunsResembleNeighbours { side: side.label.clone() }));
            }
            break;
        }
        // So few could not be split any more: what is torn has to be seen before.
        let is_torn = |side: &&Side| matches!(self_test::of_side(side, policy), SelfTest::Alarmed { .. });
        if halves < 2 * self_test::LEAST_RUNS && in_time.iter().any(is_torn) {
            break;
        }
        for side in &mut sides {
            if side.all().are_stretches() {
                *side = Cow::Owned(Side { label: side.label.clone(), runs: in_pairs(&side.runs) });
            }
        }
    }
    let [base, new] = sides;
    Apart { base, new, refusals }
}

fn is_small(run: &Run) -> bool {
    run.sample_count.is_some_and(|count| count < LEAST_SAMPLES)
}

/// Each two neighbours as one; the last of an odd number joins the pair before it.
fn in_pairs(runs: &[Run]) -> Vec<Run> {
    let mut pairs: Vec<Run> = Vec::with_capacity(runs.len() / 2);
    for (at, run) in runs.iter().enumerate() {
        let is_first = at % 2 == 0 && at + 1 < runs.len();
        match pairs.last_mut() {
            Some(last) if !is_first => last.absorb(run),
            _ => pairs.push(run.clone()),
        }
    }
    pairs
}

/// What the largest functions cost themselves in each stretch, as shares on the scale of the tests.
fn series(side: &Side) -> Vec<Vec<f64>> {
    let stretches = side.runs.len();
    let mut shares: HashMap<&FunctionKey, Vec<f64>> = HashMap::new();
    for (stretch, run) in side.runs.iter().enumerate() {
        for function in run.functions.iter().filter(|function| function.self_value > 0) {
            let shares = shares.entry(&function.key).or_insert_with(|| vec![0.0; stretches]);
            if let Some(share) = shares.get_mut(stretch) {
                *share = function.self_value as f64 / run.total.max(1) as f64;
            }
        }
    }
    let mut largest: Vec<(f64, &FunctionKey, Vec<f64>)> =
        shares.into_iter().map(|(key, shares)| (shares.iter().sum(), key, shares)).collect();
    largest.sort_by(|one, other| other.0.total_cmp(&one.0).then_with(|| one.1.cmp(other.1)));
    largest.truncate(MOST_SERIES);
    largest.retain(|(sum, ..)| *sum >= LEAST_SHARE * stretches as f64);
    let scaled = |shares: Vec<f64>| shares.into_iter().map(|share| Scale::ArcSine.to(share)).collect();
    largest.into_iter().map(|(_, _, shares)| scaled(shares)).collect()
}

#[cfg(test)]
#[path = "batches_tests.rs"]
mod tests;
