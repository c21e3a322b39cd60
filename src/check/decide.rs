//! From two sides to a verdict.

use super::alignment::Alignment;
use super::batches::Apart;
use super::comparison::{
    Basis, Comparison, Estimate, Interval, Level, Line, Origin, Refusal, SelfTest, SideSummary,
};
use super::levels::{Candidate, candidates, part_of_level};
use super::side::{Runs, SideError};
use super::statistics::common_shift::{Change, common_shift};
use super::statistics::false_discovery;
use super::statistics::moderation::Prior;
use super::statistics::neighbours::{correlation, unbiased, variance_inflation};
use super::statistics::scale::Scale;
use super::statistics::student::{upper_quantile, upper_tail};
use super::statistics::two_sample::{Direction, Scaled, TwoSample};
use super::{Overall, Policy, Sensitivity, Side, Verdict, batches, machine_facts, overall, self_test, side};
use crate::model::ValueType;

/// Of confidence intervals.
const CONFIDENCE: f64 = 0.95;
/// A base of less than this part of the smallest share that is judged is as good as nothing.
const NEARLY_NOTHING: f64 = 0.05;

/// Compares two sides. Takes time proportional to runs times functions, and to the square of the number of
/// functions that are large enough to be judged.
///
/// # Errors
/// [`SideError`]: too few runs, or runs that count different things.
pub fn compare(base: &Side, new: &Side, policy: &Policy) -> Result<Comparison, SideError> {
    side::check_comparable(base, new, policy)?;
    let Apart { base, new, refusals } = batches::apart(base, new, policy);
    let (base, new) = (base.as_ref(), new.as_ref());
    // Each takes as long as the other.
    let (mut comparison, self_test) = std::thread::scope(|scope| {
        let self_test = scope.spawn(|| self_test::of_side(base, policy));
        let comparison = compare_figures(&base.all(), &new.all(), policy, None);
        (comparison, self_test.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    comparison.refusals = refusals;
    comparison.self_test = self_test;
    if let SelfTest::Alarmed { lines } = &comparison.self_test {
        let lines = lines.clone();
        comparison.refusals.push(match base.all().are_stretches() {
            true => Refusal::ChangedMidway { side: base.label.clone(), lines },
            false => Refusal::BaseDiffersFromItself { lines },
        });
    }
    // The mean of a time that a deployment has torn, say, is that of no time at all.
    if new.all().are_stretches()
        && let SelfTest::Alarmed { lines } = self_test::of_side(new, policy)
    {
        comparison.refusals.push(Refusal::ChangedMidway { side: new.label.clone(), lines });
    }
    let machines = machine_facts::differences(base, new);
    if !machines.is_empty() {
        comparison.refusals.push(Refusal::MachinesDiffer(machines));
    }
    overall::decide(&mut comparison);
    Ok(comparison)
}

/// The figures of a second look at the same sides, of which something was taken out. Each line is tested as strictly as
/// in the `first`: that others are no changes any more must not make it harder for a line to be one.
pub(super) fn compare_again(base: &Side, new: &Side, first: &Comparison) -> Comparison {
    let Apart { base, new, .. } = batches::apart(base, new, &first.policy);
    compare_figures(&base.as_ref().all(), &new.as_ref().all(), &first.policy, Some(first))
}

/// The figures alone: no self-test, no look at the machines, and nothing said of the whole. `first`: as
/// [`compare_again`] has it.
pub(super) fn compare_figures(
    base: &Runs<'_>,
    new: &Runs<'_>,
    policy: &Policy,
    first: Option<&Comparison>,
) -> Comparison {
    let (basis, work) = basis(base, new);
    let mut alignment = Alignment::new(base, new, &basis, &work, policy.min_share / 2.0);
    let candidates = candidates(&alignment, &basis, &work, policy);
    let are_stretches = [base.are_stretches(), new.are_stretches()];
    let (judged, common_change) = judge(&candidates, &basis, policy, are_stretches, first);
    let mut notes = std::mem::take(&mut alignment.notes);
    let renamed_modules = std::mem::take(&mut alignment.renamed_modules);
    notes.extend(unused_work(base, new, &basis));
    notes.extend([base, new].into_iter().find_map(few_samples));
    if basis == Basis::Share {
        notes.push(
            "shares are compared, since the work that was done is not known: what became slower as a whole is not seen"
                .to_owned(),
        );
    }
    if base.runs.iter().chain(&new.runs).any(|run| run.facts.windows.is_some()) {
        notes.push(
            "a server's runs are stretches of what went on: what differs from one start of the program to the next is \
             not in their noise"
                .to_owned(),
        );
    }
    Comparison {
        overall: Overall::Inconclusive,
        refusals: Vec::new(),
        basis,
        value_type: base.runs.first().map_or_else(
            || ValueType { kind: String::new(), unit: String::new() },
            |run| run.value_type.clone(),
        ),
        base: summary(base),
        new: summary(new),
        policy: *policy,
        self_test: SelfTest::NotMade,
        lines: judged,
        common_change,
        renamed_modules,
        notes,
        unmatched_entries: Vec::new(),
    }
}

fn summary(side: &Runs<'_>) -> SideSummary {
    let runs = side.runs.len();
    SideSummary {
        label: side.label.to_owned(),
        runs,
        samples: side.runs.iter().try_fold(0_u64, |sum, run| Some(sum.saturating_add(run.sample_count?))),
        mean_total: side.runs.iter().map(|run| run.total as f64).sum::<f64>() / runs.max(1) as f64,
    }
}

/// Samples of a run below which hardly anything can be told of it.
const FEW_SAMPLES: u64 = 100;

/// What a reader should know of executions that were too short to be sampled; of stretches a refusal tells.
fn few_samples(side: &Runs<'_>) -> Option<String> {
    let samples = summary(side).samples? / side.runs.len().max(1) as u64;
    (samples < FEW_SAMPLES && !side.are_stretches()).then(|| {
        format!(
            "a run of {} has {samples} samples, of which hardly anything can be told: let it do more work (some seconds), \
             or sample it more often (--frequency)",
            side.label
        )
    })
}

/// Amounts of work that costs can be divided by. Beyond, nothing can be computed with what comes of it.
const WORK: std::ops::RangeInclusive<f64> = 1e-100..=1e100;

/// What can be compared, and the work of each run.
fn basis(base: &Runs<'_>, new: &Runs<'_>) -> (Basis, Vec<f64>) {
    let runs = || base.runs.iter().chain(&new.runs);
    let work: Option<Vec<f64>> = runs()
        .map(|run| run.facts.work.as_ref().map(|work| work.done).filter(|done| WORK.contains(done)))
        .collect();
    let mut units = runs().filter_map(|run| run.facts.work.as_ref()).map(|work| work.unit.as_str());
    let unit = units.next().unwrap_or_default().to_owned();
    match work {
        Some(work) if units.all(|other| other == unit) => (Basis::PerWork { unit }, work),
        _ if runs().all(|run| run.facts.whole_execution) => (Basis::PerRun, Vec::new()),
        _ => (Basis::Share, Vec::new()),
    }
}

/// What a reader should know of work that was counted and not divided by: runs may have done different amounts of it.
fn unused_work(base: &Runs<'_>, new: &Runs<'_>, basis: &Basis) -> Option<String> {
    let runs = || base.runs.iter().chain(&new.runs);
    let mut counted = runs().filter_map(|run| run.facts.work.as_ref());
    let first = counted.next().filter(|_| !matches!(basis, Basis::PerWork { .. }))?;
    let why = match counted.find(|other| other.unit != first.unit) {
        Some(other) => format!("is of {:?} in one run and of {:?} in another", first.unit, other.unit),
        None => {
            match runs().find(|run| !run.facts.work.as_ref().is_some_and(|work| WORK.contains(&work.done))) {
                Some(run) => format!("is not known of {}, or no amount above zero", run.name),
                None => return None,
            }
        }
    };
    Some(format!("the work that runs did {why}: costs are not divided by it"))
}

/// A candidate with its test.
struct Tested {
    candidate: Candidate,
    test: TwoSample,
    change: Option<Change>,
}

/// The lines, and by what all functions have changed in common, where that tells what one of them has changed itself.
fn judge(
    candidates: &[Candidate],
    basis: &Basis,
    policy: &Policy,
    are_stretches: [bool; 2],
    first: Option<&Comparison>,
) -> (Vec<Line>, f64) {
    let scale = if *basis == Basis::Share { Scale::ArcSine } else { Scale::Root };
    let likeness = Likeness::new(candidates, scale, are_stretches);
    let mut levels: Vec<(Level, Vec<Tested>)> = Vec::new();
    for level in [Level::Total, Level::Module, Level::FunctionSelf, Level::FunctionInclusive] {
        let of_level = candidates.iter().filter(|candidate| candidate.level == level);
        let scaled: Vec<(Candidate, Scaled)> = of_level
            .map(|candidate| (candidate.clone(), Scaled::new(scale, &candidate.base, &candidate.new)))
            .collect();
        let spreads: Vec<_> = scaled.iter().map(|(_, scaled)| scaled.spread()).collect();
        let prior = Prior::fit(&spreads);
        let tested = scaled.into_iter().map(|(candidate, scaled)| {
            let test = scaled.test(prior.as_ref()).inflated(likeness.inflation(&candidate));
            let change = test.log_ratio().map(|(log_ratio, error)| Change { log_ratio, error });
            Tested { candidate, test, change }
        });
        levels.push((level, tested.collect()));
    }
    let own: &[Tested] = levels
        .iter()
        .find(|(level, _)| *level == Level::FunctionSelf)
        .map_or(&[], |(_, tested)| tested.as_slice());
    let changes: Vec<Option<Change>> = own.iter().map(|tested| tested.change).collect();
    let of_all = common_shift(&changes, None);
    let common = Common { changes, of_all, basis };
    let present: Vec<Level> = levels
        .iter()
        .filter(|(_, tested)| tested.iter().any(|tested| tested.candidate.judged))
        .map(|(level, _)| *level)
        .collect();

    let mut lines = Vec::new();
    for (level, tested) in &levels {
        let level_of = |direction| policy.false_alarm_level * part_of_level(direction, *level, &present);
        let judged: Vec<(usize, &Tested)> =
            tested.iter().enumerate().filter(|(_, tested)| tested.candidate.judged).collect();
        let left_out = |index: usize| (*level == Level::FunctionSelf).then_some(index);
        let p_of = |direction: Direction| -> Vec<f64> {
            judged.iter().map(|(index, tested)| common.p_value(tested, left_out(*index), direction)).collect()
        };
        let p_values = [Direction::Increase, Direction::Decrease].map(p_of);
        let increases = match first {
            None => false_discovery::adjusted(&p_values[0]),
            Some(first) => as_strictly_as_in(first, *level, &p_values[0]),
        };
        let decreases = false_discovery::adjusted(&p_values[1]);
        let mut of_level: Vec<Line> = judged
            .iter()
            .zip(p_values[0].iter().zip(&p_values[1]))
            .zip(increases.iter().zip(&decreases))
            .map(|(((index, tested), (&p_increase, &p_decrease)), (&q_increase, &q_decrease))| {
                // Adjusted for the levels too, so that one number is compared with one number.
                let whole = |q: f64, direction| (q * policy.false_alarm_level / level_of(direction)).min(1.0);
                let (direction, p_value, q_value) = if p_increase <= p_decrease {
                    (Direction::Increase, p_increase, whole(q_increase, Direction::Increase))
                } else {
                    (Direction::Decrease, p_decrease, whole(q_decrease, Direction::Decrease))
                };
                let test = Outcome {
                    direction,
                    p_value,
                    q_value,
                    counts: common.counts(tested, left_out(*index), direction, policy),
                    first_rank: level_of(Direction::Increase) / judged.len() as f64,
                };
                line(tested, &test, policy)
            })
            .collect();
        let weight = |line: &Line| (line.new.share - line.base.share).abs();
        of_level.sort_by(|one, other| {
            weight(other).total_cmp(&weight(one)).then_with(|| one.subject.name.cmp(&other.subject.name))
        });
        lines.extend(of_level);
    }
    let is_relative = *basis == Basis::Share;
    (lines, common.of_all.filter(|_| is_relative).map_or(1.0, |shift| shift.log_ratio.exp()))
}

/// Chances of increases, adjusted by what Benjamini and Hochberg came to in an earlier comparison: a line is one if it
/// would have been among those that were.
fn as_strictly_as_in(first: &Comparison, level: Level, p_values: &[f64]) -> Vec<f64> {
    let of_level = || first.lines.iter().filter(|line| line.level == level);
    let increased = of_level().filter(|line| {
        line.q_value <= first.policy.false_alarm_level && line.effect.is_none_or(|effect| effect > 0.0)
    });
    let factor = of_level().count() as f64 / increased.count().max(1) as f64;
    p_values.iter().map(|p_value| (p_value * factor).min(1.0)).collect()
}

/// How alike runs are that follow each other.
struct Likeness {
    scale: Scale,
    /// Which sides' runs follow each other; those of the others are independent.
    are_stretches: [bool; 2],
    /// The mean correlation of all functions.
    common: f64,
}

impl Likeness {
    fn new(candidates: &[Candidate], scale: Scale, are_stretches: [bool; 2]) -> Self {
        let mut likeness = Self { scale, are_stretches, common: 0.0 };
        let own = candidates.iter().filter(|candidate| candidate.level == Level::FunctionSelf);
        let known: Vec<f64> = own.filter_map(|candidate| likeness.of(candidate)).collect();
        let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
        let moments =
            candidates.first().and_then(|one| likeness.stretches(one).map(<[f64]>::len).min()).unwrap_or(0);
        likeness.common = unbiased(mean, moments);
        likeness
    }

    fn stretches<'a>(&self, candidate: &'a Candidate) -> impl Iterator<Item = &'a [f64]> + use<'a> {
        let sides = [candidate.base.as_slice(), candidate.new.as_slice()].into_iter().zip(self.are_stretches);
        sides.filter_map(|(values, are_stretches)| are_stretches.then_some(values))
    }

    fn of(&self, candidate: &Candidate) -> Option<f64> {
        let scaled = |values: &[f64]| values.iter().map(|&value| self.scale.to(value)).collect::<Vec<f64>>();
        let sides: Vec<Vec<f64>> = self.stretches(candidate).map(scaled).collect();
        correlation(&sides)
    }

    /// How many times the variance is to be taken. One line's own correlation is known badly, so it counts only as
    /// far as it is clearly above that of all.
    fn inflation(&self, candidate: &Candidate) -> f64 {
        let moments: usize = self.stretches(candidate).map(<[f64]>::len).sum();
        if moments == 0 {
            return 1.0;
        }
        let own = self.of(candidate).map_or(0.0, |own| own - 1.0 / (moments as f64).sqrt());
        variance_inflation(self.common.max(own))
    }
}

/// What all functions have in common.
struct Common<'a> {
    changes: Vec<Option<Change>>,
    /// The shift of all of them, which every line but those of functions by themselves is held against.
    of_all: Option<Change>,
    basis: &'a Basis,
}

impl Common<'_> {
    fn shift(&self, left_out: Option<usize>) -> Option<Change> {
        if left_out.is_some() { common_shift(&self.changes, left_out) } else { self.of_all }
    }

    /// The chance of such a change of the line's own if there is none. Where work was counted a change is what it
    /// is. Else a function must have changed against the others: of shares, since one's gain is all others' loss;
    /// of runs also against itself, since these may have been of a fixed length, or not.
    fn p_value(&self, tested: &Tested, left_out: Option<usize>, direction: Direction) -> f64 {
        let plain = tested.test.p_value(direction);
        if matches!(self.basis, Basis::PerWork { .. }) || tested.candidate.level == Level::Total {
            return plain;
        }
        let Some(shift) = self.shift(left_out) else {
            // With nothing to compare it with, a share is as likely the others' doing.
            return if *self.basis == Basis::Share { 1.0 } else { plain };
        };
        let Some(change) = tested.change else {
            // From nothing, or to nothing: no common change does that, if the test is sure.
            return plain;
        };
        let t = (change.log_ratio - shift.log_ratio) / self.error_against(shift, change, &tested.test);
        let own = upper_tail(if direction == Direction::Increase { t } else { -t }, tested.test.degrees);
        if *self.basis == Basis::Share { own } else { own.max(plain) }
    }

    /// The standard error of a change held against what all others have in common. Shares that are high by chance make
    /// the others low: the logarithms of any two have the covariance `-v`, where `v / 4` is the variance on the
    /// scale of the arcus sine, so that of their difference has `2 v` more. That of the mean of the others has one
    /// `v` less than if they were independent, as [`common_shift`] takes them.
    fn error_against(&self, shift: Change, change: Change, test: &TwoSample) -> f64 {
        let independent = change.error.hypot(shift.error);
        if *self.basis == Basis::Share { independent.hypot(2.0 * test.error()) } else { independent }
    }

    /// Whether it is large enough to count, against itself and against the others.
    fn counts(
        &self,
        tested: &Tested,
        left_out: Option<usize>,
        direction: Direction,
        policy: &Policy,
    ) -> bool {
        let Some(change) = tested.change else { return true };
        let least = least_log_ratio(direction, policy.min_effect);
        let sign = if direction == Direction::Increase { 1.0 } else { -1.0 };
        let own = matches!(self.basis, Basis::PerWork { .. }) || tested.candidate.level == Level::Total;
        let shift = if own { None } else { self.shift(left_out) };
        let shift = shift.map_or(0.0, |shift| shift.log_ratio);
        sign * change.log_ratio >= least && sign * (change.log_ratio - shift) >= least
    }
}

/// The logarithm of the smallest change that counts, as a positive number.
fn least_log_ratio(direction: Direction, min_effect: f64) -> f64 {
    match direction {
        Direction::Increase => min_effect.ln_1p(),
        Direction::Decrease => -(-min_effect).ln_1p(),
    }
}

/// What the test of a line came to.
struct Outcome {
    /// In which direction it seems to have changed.
    direction: Direction,
    p_value: f64,
    q_value: f64,
    counts: bool,
    /// The level at which the first of all lines is tested.
    first_rank: f64,
}

fn line(tested: &Tested, outcome: &Outcome, policy: &Policy) -> Line {
    let Tested { candidate, test, change } = tested;
    let Outcome { direction, p_value, q_value, counts, first_rank } = *outcome;
    let base = estimate(&candidate.base, candidate.shares[0]);
    let new = estimate(&candidate.new, candidate.shares[1]);
    let from_nothing = base.share < NEARLY_NOTHING * policy.min_share;
    let effect = (!from_nothing).then(|| test.effect());
    let large_enough = effect.is_none_or(|effect| match direction {
        Direction::Increase => effect >= policy.min_effect,
        Direction::Decrease => effect <= -policy.min_effect,
    });
    let interval = |tail: f64| {
        let (log_ratio, error) = change.map(|change| (change.log_ratio, change.error))?;
        let reach = error * upper_quantile(tail, test.degrees);
        Some(Interval { low: (log_ratio - reach).exp_m1(), high: (log_ratio + reach).exp_m1() })
    };
    let equivalent = interval(policy.equivalence_level).is_some_and(|interval| {
        let margin = policy.equivalence_margin;
        interval.high <= margin && interval.low >= 1.0 / (1.0 + margin) - 1.0
    });
    let seen = |effect: f64| effect.max(policy.min_effect);
    let sensitivity = Sensitivity {
        smallest_effect: test.smallest_effect(first_rank, policy.power).filter(|_| !from_nothing).map(seen),
        runs_needed: test.runs_needed(policy.min_effect, first_rank, policy.power).filter(|_| !from_nothing),
    };
    let verdict = if q_value <= policy.false_alarm_level && large_enough && counts {
        match direction {
            Direction::Increase => Verdict::Regressed,
            Direction::Decrease => Verdict::Improved,
        }
    } else if let Some(Origin::Renamed { from }) = &candidate.origin {
        Verdict::Moved { from: from.clone() }
    } else if equivalent {
        Verdict::Unchanged
    } else {
        Verdict::Inconclusive(sensitivity)
    };
    Line {
        level: candidate.level,
        subject: candidate.subject.clone(),
        base,
        new,
        effect,
        interval: interval((1.0 - CONFIDENCE) / 2.0).filter(|_| !from_nothing),
        p_value,
        q_value,
        sensitivity,
        verdict,
        origin: candidate.origin.clone(),
        allowed: None,
        same_as: candidate.same_as.clone(),
    }
}

fn estimate(values: &[f64], share: f64) -> Estimate {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Estimate { mean, deviation: (squares / (count - 1.0).max(1.0)).sqrt(), share, runs: values.len() }
}
