//! Runs of a program that does not exist, so that what changed is known: 400 functions whose shares follow Zipf's
//! law, samples that are correlated within a run (a Dirichlet-multinomial whose variance is [`DESIGN_EFFECT`] times
//! that of independent samples). Also what the rules of other tools say of the same runs.
//!
//! Nothing here is drawn from a clock: a seed gives the same runs for ever.

use spanflame::check::{Call, FunctionCost, FunctionKey, Run, RunFacts, Side, Work};
use spanflame::model::ValueType;

/// Functions.
pub const FUNCTIONS: usize = 400;
/// How many times the variance of independent samples.
pub const DESIGN_EFFECT: f64 = 3.0;
/// The function that changes: of 2.7 % of the total, the fifth or sixth of the greatest.
pub const CHANGED_SHARE: f64 = 0.027;

/// Random numbers (`SplitMix64`).
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A whole number below `end`, which is above 0.
    pub fn below(&mut self, end: usize) -> usize {
        ((self.uniform() * end as f64) as usize).min(end - 1)
    }

    /// The same, small numbers much more often than great ones.
    pub fn skewed(&mut self, end: usize) -> usize {
        let even = self.uniform();
        ((even * even * even * end as f64) as usize).min(end - 1)
    }

    /// From 0 to 1, without either.
    pub fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Of mean 0 and variance 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Marsaglia and Tsang, "A simple method for generating gamma variables", 2000.
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            return self.gamma(shape + 1.0) * self.uniform().powf(1.0 / shape);
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.uniform().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }
}

/// The program: each function's share of the total.
pub struct Program {
    shares: Vec<f64>,
    /// The function that [`Program::changed`] changes.
    pub changing: usize,
}

impl Program {
    /// Shares by Zipf's law (exponent 1), the one nearest [`CHANGED_SHARE`] set to it.
    pub fn zipf() -> Self {
        let whole: f64 = (1..=FUNCTIONS).map(|rank| 1.0 / rank as f64).sum();
        let mut shares: Vec<f64> = (1..=FUNCTIONS).map(|rank| 1.0 / rank as f64 / whole).collect();
        let changing = 5;
        shares[changing] = CHANGED_SHARE;
        Self { shares, changing }
    }

    /// The same with one function's cost changed by this part.
    pub fn changed(&self, effect: f64) -> Self {
        let mut shares = self.shares.clone();
        shares[self.changing] *= 1.0 + effect;
        Self { shares, changing: self.changing }
    }

    /// What all functions cost, the unchanged program's being about 1.
    fn whole(&self) -> f64 {
        self.shares.iter().sum()
    }

    /// Samples of each function in one run of `samples` samples.
    pub fn run(&self, samples: usize, random: &mut Random) -> Vec<u64> {
        // The variance of a Dirichlet-multinomial is (n + α) / (1 + α) times that of a multinomial.
        let concentration = (samples as f64 - DESIGN_EFFECT) / (DESIGN_EFFECT - 1.0);
        let whole = self.whole();
        let mut sums: Vec<f64> = Vec::with_capacity(FUNCTIONS);
        let mut sum = 0.0;
        for share in &self.shares {
            sum += random.gamma(concentration * share / whole);
            sums.push(sum);
        }
        let mut counts = vec![0; FUNCTIONS];
        for _ in 0..samples {
            let at = random.uniform() * sum;
            let function = sums.partition_point(|&end| end < at).min(FUNCTIONS - 1);
            counts[function] += 1;
        }
        counts
    }

    /// A side of runs, as [`spanflame::check`] wants it. With `work`, a run lasts as long as its work takes, give
    /// or take a fiftieth, and says what it did; without, it is a window of a fixed number of samples.
    pub fn side(&self, runs: usize, samples: usize, work: bool, random: &mut Random) -> Side {
        let runs = (0..runs).map(|number| {
            let taken = if work {
                (samples as f64 * self.whole() * (1.0 + 0.02 * random.normal())).max(100.0) as usize
            } else {
                samples
            };
            as_run(number, &self.run(taken, random), work)
        });
        Side { label: "simulated".to_owned(), runs: runs.collect() }
    }
}

/// Functions of 8 modules; the 20 that cost most are called by `main`, each of the others by one of these.
fn as_run(number: usize, counts: &[u64], work: bool) -> Run {
    const CALLERS: usize = 20;
    let total = counts.iter().sum();
    let of = |name: String, module: usize, self_value, inclusive_value| FunctionCost {
        key: FunctionKey::new(&name, &format!("module{module}")),
        name: name.into(),
        module_path: format!("/usr/lib/module{module}").into(),
        file: "".into(),
        line: 0,
        self_value,
        inclusive_value,
    };
    let mut inclusive = counts.to_vec();
    let mut calls = Vec::new();
    for (function, &count) in counts.iter().enumerate().skip(CALLERS) {
        inclusive[function % CALLERS] += count;
        calls.push(Call { caller: (function % CALLERS) as u32, callee: function as u32, value: count });
    }
    let main = counts.len() as u32;
    calls.extend((0..CALLERS).map(|callee| Call {
        caller: main,
        callee: callee as u32,
        value: inclusive[callee],
    }));
    let mut functions: Vec<FunctionCost> = counts
        .iter()
        .zip(&inclusive)
        .enumerate()
        .map(|(index, (&own, &inclusive))| of(format!("function{index}"), index % 8, own, inclusive))
        .collect();
    functions.push(of("main".to_owned(), 0, 0, total));
    Run {
        name: format!("run {number}"),
        value_type: ValueType::new("samples", "count"),
        total,
        sample_count: Some(total),
        duration_ns: 0,
        facts: RunFacts {
            work: work.then(|| Work { done: 1.0, unit: String::new() }),
            ..RunFacts::default()
        },
        functions,
        calls,
        stacks: Vec::new(),
    }
}

/// Of each function, its share in each run.
pub type Shares = Vec<Vec<f64>>;

/// The shares of all functions of a side.
pub fn shares(side: &Side) -> Shares {
    (0..FUNCTIONS)
        .map(|function| {
            let share = |run: &Run| run.functions[function].self_value as f64 / run.total as f64;
            side.runs.iter().map(share).collect()
        })
        .collect()
}

/// Which functions a rule takes for slower.
pub type Rule = fn(&Shares, &Shares) -> Vec<usize>;

/// The rules of others: what they call a regression.
pub const OTHER_RULES: [(&str, Rule); 4] = [
    ("more than 10 % relative, of at least 0.1 % (github-action-benchmark's sort, per function)", relative),
    ("more than 1 percentage point", percentage_points),
    ("pooled two-proportion z, Benjamini-Hochberg 5 % (samples taken for independent)", pooled),
    ("Mann-Whitney U of runs, 5 %, of at least 1 %, not corrected (benchstat)", rank_sum),
];

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn picked(base: &Shares, new: &Shares, is_alarm: impl Fn(&[f64], &[f64]) -> bool) -> Vec<usize> {
    (0..base.len()).filter(|&function| is_alarm(&base[function], &new[function])).collect()
}

fn relative(base: &Shares, new: &Shares) -> Vec<usize> {
    picked(base, new, |base, new| mean(base) >= 0.001 && mean(new) > 1.1 * mean(base))
}

fn percentage_points(base: &Shares, new: &Shares) -> Vec<usize> {
    picked(base, new, |base, new| mean(new) - mean(base) > 0.01)
}

/// For [`OTHER_SAMPLES`] samples a run.
fn pooled(base: &Shares, new: &Shares) -> Vec<usize> {
    let p_values: Vec<(usize, f64)> = (0..base.len())
        .filter(|&function| mean(&base[function]) >= 0.001)
        .map(|function| {
            let samples = (OTHER_SAMPLES * base[function].len()) as f64;
            let (one, other) = (mean(&base[function]), mean(&new[function]));
            let both = f64::midpoint(one, other);
            let error = (2.0 * both * (1.0 - both) / samples).sqrt();
            (function, 2.0 * normal_tail(((other - one) / error).abs()))
        })
        .collect();
    let mut sorted = p_values.clone();
    sorted.sort_by(|one, other| one.1.total_cmp(&other.1));
    let count = sorted.len() as f64;
    let passed =
        sorted.iter().enumerate().rev().find(|(rank, (_, p))| *p <= 0.05 * (*rank + 1) as f64 / count);
    let kept = passed.map_or(0, |(rank, _)| rank + 1);
    sorted.iter().take(kept).map(|(function, _)| *function).collect()
}

/// Samples a run that [`OTHER_RULES`] are told of.
pub const OTHER_SAMPLES: usize = 3_000;

fn rank_sum(base: &Shares, new: &Shares) -> Vec<usize> {
    picked(base, new, |base, new| {
        if mean(base) < 0.01 {
            return false;
        }
        let wins: f64 = new
            .iter()
            .flat_map(|new| {
                base.iter().map(move |base| {
                    if new > base {
                        1.0
                    } else if new < base {
                        0.0
                    } else {
                        0.5
                    }
                })
            })
            .sum();
        let (one, other) = (base.len() as f64, new.len() as f64);
        let deviation = (one * other * (one + other + 1.0) / 12.0).sqrt();
        2.0 * normal_tail((wins - one * other / 2.0).abs() / deviation) < 0.05
    })
}

/// The chance that a standard normal variable exceeds `z`: Abramowitz and Stegun 26.2.17.
fn normal_tail(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let series = t
        * (0.319_381_530
            + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt() * series
}
