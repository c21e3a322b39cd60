//! Runs that are stretches of one execution, put together until neighbours no longer resemble each other.
//!
//! Whoever was busy with one kind of request in a minute mostly is in the next. Such runs are no independent
//! measurements: a test that takes them for some alarms at every slow change. Means of longer stretches are nearly
//! independent where those of short ones are not ("batch means": Law and Carson 1979; Schmeiser 1982), so neighbours are
//! put together in pairs as long as enough runs remain.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{FunctionKey, Policy, Refusal, Run, Side};

/// Neighbours that resemble each other more, as a correlation, are put together. At this limit the variance of a mean is
/// about a fifth greater than that of independent runs.
const LIMIT: f64 = 0.1;
/// So few runs are not put together: five are too few to see in halves whether a side drifts.
const FEWEST_TO_HALVE: usize = 20;
/// If they resemble each other more then, and more than chance makes them, nothing is decided.
const TOO_MUCH: f64 = 0.2;
/// The resemblance of independent runs exceeds so many of its standard errors once in a hundred sides.
const ERRORS_OF_CHANCE: f64 = 2.33;

/// The side with runs that are as good as independent, as far as it has enough of them, and why nothing may be decided if
/// they are not. Sides of executions are left as they are.
pub(super) fn apart<'a>(side: &'a Side, policy: &Policy) -> (Cow<'a, Side>, Option<Refusal>) {
    let are_stretches = side.runs.iter().all(|run| run.facts.windows.is_some());
    if !are_stretches {
        return (Cow::Borrowed(side), None);
    }
    let mut side = Cow::Borrowed(side);
    let mut resemblance = Resemblance::of(&side.runs, policy.min_share);
    while resemblance.correlation > LIMIT && side.runs.len() >= FEWEST_TO_HALVE {
        let runs = in_pairs(&side.runs);
        resemblance = Resemblance::of(&runs, policy.min_share);
        side = Cow::Owned(Side { label: side.label.clone(), runs });
    }
    let is_too_much = resemblance.correlation > TOO_MUCH.max(ERRORS_OF_CHANCE * resemblance.error);
    let refusal = is_too_much.then(|| Refusal::RunsResembleNeighbours { side: side.label.clone() });
    (side, refusal)
}

/// How neighbours resemble each other.
#[derive(Debug, Clone, Copy)]
struct Resemblance {
    /// The correlation of the shares of functions with those of the run before, averaged over functions; that of
    /// independent runs is about zero.
    correlation: f64,
    /// Its standard error if runs are independent.
    error: f64,
}

impl Resemblance {
    fn of(runs: &[Run], min_share: f64) -> Self {
        let mut shares: HashMap<&FunctionKey, Vec<f64>> = HashMap::new();
        for (at, run) in runs.iter().enumerate() {
            for function in run.functions.iter().filter(|function| function.self_value > 0) {
                let of = shares.entry(&function.key).or_insert_with(|| vec![0.0; runs.len()]);
                if let Some(share) = of.get_mut(at) {
                    *share = (function.self_value as f64 / run.total.max(1) as f64).min(1.0).sqrt().asin();
                }
            }
        }
        let count = runs.len() as f64;
        let least = min_share.sqrt().asin() * count;
        let large = shares.values().filter(|of| of.iter().sum::<f64>() >= least);
        let correlations: Vec<f64> = large.filter_map(|of| lag_one(of)).collect();
        if correlations.is_empty() {
            return Self { correlation: 0.0, error: 0.0 };
        }
        let functions = correlations.len() as f64;
        // Of independent values it is less than nothing, since the mean was made of them.
        let correlation = correlations.iter().sum::<f64>() / functions + 1.0 / count;
        // Shares add up to one: one function is what the others leave.
        Self { correlation, error: (count * (functions - 1.0).max(1.0)).sqrt().recip() }
    }
}

/// The correlation of values with the ones before them; none of values that are all the same.
fn lag_one(values: &[f64]) -> Option<f64> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let products: f64 =
        values.iter().zip(values.iter().skip(1)).map(|(one, next)| (one - mean) * (next - mean)).sum();
    (squares > 0.0).then(|| products / squares)
}

/// Each two neighbours as one; the last of an odd number joins the pair before it.
fn in_pairs(runs: &[Run]) -> Vec<Run> {
    let mut pairs: Vec<Run> = Vec::new();
    for (at, run) in runs.iter().enumerate() {
        let is_first = at % 2 == 0 && at + 1 < runs.len();
        match pairs.last_mut() {
            Some(last) if !is_first => absorb(last, run),
            _ => pairs.push(run.clone()),
        }
    }
    pairs
}

/// Adds a later run.
fn absorb(run: &mut Run, later: &Run) {
    run.total = run.total.saturating_add(later.total);
    run.sample_count = run.sample_count.zip(later.sample_count).map(|(one, other)| one.saturating_add(other));
    run.duration_ns = run.duration_ns.saturating_add(later.duration_ns);
    run.facts.windows = run.facts.windows.zip(later.facts.windows).map(|(one, other)| one + other);
    // Nobody draws what was put together.
    run.stacks = Vec::new();
    let mut places: HashMap<FunctionKey, usize> =
        run.functions.iter().enumerate().map(|(at, function)| (function.key.clone(), at)).collect();
    let mut moved = Vec::with_capacity(later.functions.len());
    for function in &later.functions {
        let at = *places.entry(function.key.clone()).or_insert(run.functions.len());
        moved.push(u32::try_from(at).unwrap_or(u32::MAX));
        match run.functions.get_mut(at) {
            Some(known) => {
                known.self_value = known.self_value.saturating_add(function.self_value);
                known.inclusive_value = known.inclusive_value.saturating_add(function.inclusive_value);
                // The first line that was seen of it.
                if known.line == 0 || function.line > 0 && function.line < known.line {
                    known.line = function.line;
                }
            }
            None => run.functions.push(function.clone()),
        }
    }
    let mut calls: HashMap<(u32, u32), usize> =
        run.calls.iter().enumerate().map(|(at, call)| ((call.caller, call.callee), at)).collect();
    for call in &later.calls {
        let place = |function: u32| moved.get(function as usize).copied();
        let (Some(caller), Some(callee)) = (place(call.caller), place(call.callee)) else { continue };
        let at = *calls.entry((caller, callee)).or_insert(run.calls.len());
        match run.calls.get_mut(at) {
            Some(known) => known.value = known.value.saturating_add(call.value),
            None => run.calls.push(super::Call { caller, callee, value: call.value }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FunctionCost, Overall, RunFacts, compare};
    use super::*;
    use crate::check::test_sides::side;

    /// Numbers of a standard normal distribution, the same ones each time.
    struct Noise(u64);

    impl Noise {
        fn uniform(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
        }

        fn normal(&mut self) -> f64 {
            (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
        }
    }

    /// Stretches of a program of eight functions whose costs wander: each is what it was in the stretch before by
    /// `memory`, and new for the rest.
    fn stretches(count: usize, memory: f64, noise: &mut Noise) -> Side {
        let mut side = side("a server", 1, &[("main", 1.0)]);
        let run = side.runs.swap_remove(0);
        let mut states: Vec<f64> = (0..8).map(|_| noise.normal()).collect();
        side.runs = (0..count)
            .map(|_| {
                let functions = states.iter_mut().enumerate().map(|(index, state)| {
                    *state = memory * *state + (1.0 - memory * memory).sqrt() * noise.normal();
                    let value = (10_000.0 * (0.05 * *state).exp()) as u64;
                    let name = format!("function {}", char::from(b'a' + index as u8));
                    FunctionCost {
                        key: FunctionKey::new(&name, "app"),
                        name,
                        self_value: value,
                        inclusive_value: value,
                        ..run.functions[0].clone()
                    }
                });
                let functions: Vec<FunctionCost> = functions.collect();
                let total = functions.iter().map(|function| function.self_value).sum();
                let facts = RunFacts { windows: Some(1), ..RunFacts::default() };
                Run { functions, total, facts, ..run.clone() }
            })
            .collect();
        side
    }

    /// Of comparisons of what does not differ, the shares that alarm and that are refused for want of independence.
    fn outcomes(count: usize, memory: f64, taken_for_executions: bool) -> [f64; 2] {
        const COMPARISONS: usize = 200;
        let mut noise = Noise(5);
        let (mut alarms, mut refused) = (0, 0);
        for _ in 0..COMPARISONS {
            let mut sides = [(); 2].map(|()| stretches(count, memory, &mut noise));
            if taken_for_executions {
                for run in sides.iter_mut().flat_map(|side| &mut side.runs) {
                    run.facts.windows = None;
                }
            }
            // Whatever is certain counts, however small.
            let policy = Policy { min_effect: 0.0001, ..Policy::default() };
            let found = compare(&sides[0], &sides[1], &policy).expect("comparable");
            alarms += u32::from(matches!(found.overall, Overall::Regressed | Overall::Improved));
            let is_one = |refusal: &Refusal| matches!(refusal, Refusal::RunsResembleNeighbours { .. });
            refused += u32::from(found.refusals.iter().any(is_one));
        }
        [alarms, refused].map(|outcomes| f64::from(outcomes) / COMPARISONS as f64)
    }

    #[test]
    fn stretches_that_resemble_the_one_before_decide_nothing_and_others_as_much_as_runs_do() {
        let [taken_for_runs, _] = outcomes(12, 0.0, true);
        let [alarms, refused] = outcomes(12, 0.0, false);
        assert!(alarms <= taken_for_runs && refused <= 0.03, "{alarms} of {taken_for_runs}, {refused}");
        let [taken_for_runs, _] = outcomes(12, 0.6, true);
        assert!(taken_for_runs > 0.3, "the test shows nothing: {taken_for_runs}");
        let [alarms, refused] = outcomes(12, 0.6, false);
        assert!(alarms <= 0.05 && refused > 0.8, "{alarms}, {refused}");
        // Twenty that resemble each other a little are put together.
        let [taken_for_runs, _] = outcomes(20, 0.3, true);
        let [alarms, refused] = outcomes(20, 0.3, false);
        assert!(alarms <= 0.7 * taken_for_runs && refused < 0.5, "{alarms} of {taken_for_runs}, {refused}");
    }

    #[test]
    fn runs_of_executions_stay_as_they_are() {
        let mut wandering = stretches(20, 0.9, &mut Noise(1));
        for run in &mut wandering.runs {
            run.facts.windows = None;
        }
        let (kept, refusal) = apart(&wandering, &Policy::default());
        assert_eq!((kept.runs.len(), refusal), (20, None));
    }

    #[test]
    fn nothing_is_lost_when_runs_are_put_together() {
        let mut whole = side(
            "a server",
            3,
            &[("main;parse", 300.0), ("main;hash", 200.0), ("main;hash;copy@libc.so", 50.0)],
        );
        whole.runs.truncate(5);
        for run in &mut whole.runs {
            run.facts.windows = Some(2);
        }
        // A function that the first half never called.
        whole.runs[0].functions.truncate(2);
        whole.runs[0].calls.retain(|call| call.caller < 2 && call.callee < 2);
        let pairs = in_pairs(&whole.runs);
        assert_eq!(pairs.iter().map(|run| run.facts.windows).collect::<Vec<_>>(), [Some(4), Some(6)]);
        let sum = |runs: &[Run], of: fn(&Run) -> u64| runs.iter().map(of).sum::<u64>();
        for of in [
            (|run| run.total) as fn(&Run) -> u64,
            |run| run.functions.iter().map(|function| function.self_value).sum(),
            |run| run.functions.iter().map(|function| function.inclusive_value).sum(),
            |run| run.calls.iter().map(|call| call.value).sum(),
            |run| {
                let names = |call: &super::super::Call| {
                    [call.caller, call.callee].map(|at| run.functions[at as usize].name.as_str())
                };
                run.calls.iter().filter(|call| names(call) == ["hash", "copy"]).map(|call| call.value).sum()
            },
        ] {
            assert_eq!(sum(&pairs, of), sum(&whole.runs, of));
            assert!(sum(&pairs, of) > 0);
        }
    }
}
