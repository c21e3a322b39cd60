//! Two profilers' words on the same load: stacks of those functions that both know, and their shares beside each
//! other.

use std::collections::{BTreeMap, BTreeSet};

use super::folded::percent;
use super::skip;

/// What one profiler saw of a program, reduced to the functions that are compared.
#[derive(Debug, Clone, Default)]
pub struct PeerStacks {
    /// Functions root to leaf, and how often.
    stacks: Vec<(Vec<String>, u64)>,
    /// Samples without any of these functions.
    pub others: u64,
}

impl PeerStacks {
    /// Adds a stack, root to leaf.
    pub fn add(&mut self, functions: Vec<String>, samples: u64) {
        if functions.is_empty() {
            self.others += samples;
        } else {
            self.stacks.push((functions, samples));
        }
    }

    /// Samples with some of the functions.
    pub fn total(&self) -> u64 {
        self.stacks.iter().map(|(_, samples)| samples).sum()
    }

    /// Percent of the samples by innermost function, or by every function that is on the stack.
    fn shares(&self, with_callees: bool) -> BTreeMap<&str, f64> {
        let mut samples_of: BTreeMap<&str, u64> = BTreeMap::new();
        for (functions, samples) in &self.stacks {
            let leaf = functions.len() - 1;
            let counted = if with_callees { &functions[..] } else { &functions[leaf..] };
            for function in counted.iter().map(String::as_str).collect::<BTreeSet<_>>() {
                *samples_of.entry(function).or_default() += samples;
            }
        }
        let total = self.total();
        samples_of.into_iter().map(|(function, samples)| (function, percent(samples, total))).collect()
    }
}

/// Functions that have more than this of the time are compared, percent …
const AT_LEAST: f64 = 5.0;
/// … and may differ by so many points.
const AT_MOST_APART: f64 = 3.0;
/// A difference by chance is to be rare: three standard errors of it, for a function that has half of the time.
const AT_MOST_BY_CHANCE: f64 = AT_MOST_APART;

/// Measures again where two profilers do not agree, since what a neighbour does to one of them is nothing that either
/// says; what they see differently they see so each time.
pub fn agree_in_one_of_three(mut measure: impl FnMut() -> bool) {
    assert!((0..3).any(|_| measure()), "they do not agree, see above");
}

/// Says that nothing could be compared, which is no disagreement.
pub fn not_compared(reason: &str) -> bool {
    skip(reason);
    true
}

/// Whether every function above 5 % has the same share for both within 3 points, by itself and, if
/// `counts_callees` wants its name, with what it calls. Fails unless so many functions were compared by each. Skips if
/// the program got so little CPU time that such a difference is nothing.
pub fn compare(
    what: &str,
    ours: &PeerStacks,
    peers: &PeerStacks,
    counts_callees: impl Fn(&str) -> bool,
    functions_at_least: usize,
) -> bool {
    println!(
        "{what}: {} samples and {} others by spanflame, {} and {} by the peer",
        ours.total(),
        ours.others,
        peers.total(),
        peers.others
    );
    let mut wrong = Vec::new();
    for with_callees in [false, true] {
        let how = if with_callees { "with what it calls" } else { "by itself" };
        let (our_shares, peer_shares) = (ours.shares(with_callees), peers.shares(with_callees));
        let mut compared = 0;
        for function in our_shares.keys().chain(peer_shares.keys()).collect::<BTreeSet<_>>() {
            let share = |shares: &BTreeMap<&str, f64>| shares.get(function).copied().unwrap_or(0.0);
            let (our, peer) = (share(&our_shares), share(&peer_shares));
            if our.max(peer) < AT_LEAST || with_callees && !counts_callees(function) {
                continue;
            }
            compared += 1;
            let line = format!("{function} {how}: spanflame {our:.1} %, the peer {peer:.1} %");
            println!("{what}: {line}");
            if (our - peer).abs() > AT_MOST_APART {
                wrong.push(line);
            }
        }
        assert!(compared >= functions_at_least, "{what}: only {compared} functions have 5 % {how}");
    }
    // Ours are taken as often as any peer's.
    let (own, theirs) = (ours.total(), peers.total());
    assert!(own * 10 >= theirs * 8, "{what}: only {own} samples by spanflame, {theirs} by the peer");
    let variance = |stacks: &PeerStacks| 0.25 / stacks.total() as f64;
    let by_chance = 3.0 * 100.0 * (variance(ours) + variance(peers)).sqrt();
    if by_chance > AT_MOST_BY_CHANCE {
        let reason = format!("{what}: the machine is so busy that {by_chance:.1} points are chance");
        return not_compared(&reason);
    }
    if !wrong.is_empty() {
        println!("{what}: they do not agree: {wrong:#?}");
    }
    wrong.is_empty()
}

#[test]
fn shares_are_by_leaf_and_by_every_function_once() {
    let mut stacks = PeerStacks::default();
    let path = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    stacks.add(path(&["main", "fold", "fold"]), 3);
    stacks.add(path(&["main"]), 1);
    stacks.add(Vec::new(), 5);
    assert_eq!((stacks.total(), stacks.others), (4, 5));
    assert_eq!(stacks.shares(false), BTreeMap::from([("fold", 75.0), ("main", 25.0)]));
    assert_eq!(stacks.shares(true), BTreeMap::from([("fold", 75.0), ("main", 100.0)]));
}
