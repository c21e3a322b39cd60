//! Finds functions that have vanished into their callers.
//!
//! With debug information an inlined function is a frame like any other, and nothing is to be done. Without it,
//! one that is inlined on one side only seems gone there, and its callers slower. Such a function is counted with
//! its callers on both sides: where one side has a function and the other has nearly none of it, and its callers
//! together cost more there by at least half of it. A function that was really taken out leaves no such trace.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::FunctionKey;
use super::alignment::{Alignment, Which};
use super::comparison::Origin;
use super::renaming::{StandIns, merge_rows, only_on};

/// The part of a function's cost that its callers must have gained.
const GAINED: f64 = 0.5;
/// A caller of a smaller part of the calls is left out of what is looked at.
const LEAST_PART: f64 = 0.01;

pub(super) fn put_together(alignment: &mut Alignment, floor: f64) {
    for side in [Which::Base, Which::New] {
        let merges = count_vanished(alignment, side, floor);
        // The values are with the callers already; what is left of the row goes.
        for &(function, _) in &merges {
            if let Some(row) = alignment.rows.get_mut(function) {
                row.own.fill(0.0);
                row.inclusive.fill(0.0);
            }
        }
        merge_rows(alignment, &merges);
    }
}

/// Counts what only this side has and what has vanished with its callers. Goes out: each such row and that of its main
/// caller. Takes time in proportion to the calls of the candidates, times a logarithm: a function is looked at when the
/// greater ones have been, which its callers are nearly always, and again only when a caller of its has vanished after it.
fn count_vanished(alignment: &mut Alignment, side: Which, floor: f64) -> Vec<(usize, usize)> {
    let mut ranked: Vec<(f64, usize)> = only_on(alignment, side, floor)
        .into_iter()
        .filter_map(|index| Some((alignment.share(&alignment.rows.get(index)?.inclusive, side), index)))
        .collect();
    ranked.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
    let rank_of: HashMap<usize, usize> =
        ranked.iter().enumerate().map(|(rank, &(_, index))| (index, rank)).collect();
    // Whom each row calls, of those that are looked at, by their ranks.
    let mut calls: HashMap<usize, Vec<usize>> = HashMap::new();
    for (rank, &(_, index)) in ranked.iter().enumerate() {
        for &(caller, _) in callers_of(alignment, index, side) {
            calls.entry(caller).or_default().push(rank);
        }
    }
    let mut stand_ins = StandIns::new(alignment.rows.len());
    let mut merges: Vec<(usize, usize)> = Vec::new();
    let mut due: BTreeSet<usize> = (0..ranked.len()).collect();
    while !due.is_empty() {
        let mut again: BTreeSet<usize> = BTreeSet::new();
        while let Some(rank) = due.pop_first() {
            let Some(&(_, function)) = ranked.get(rank) else { continue };
            let Some(callers) = vanished_into(alignment, side, function, &mut stand_ins) else { continue };
            let Some(&(main, _)) = callers.first() else { continue };
            count_with_callers(alignment, function, &callers);
            stand_ins.set(function, main);
            merges.push((function, main));
            // A caller that cost nothing itself may have to go on to its own. Whom the function called has other callers
            // now.
            let mut called = calls.remove(&function).unwrap_or_default();
            let gained = callers.iter().filter_map(|(caller, _)| rank_of.get(caller));
            again.extend(called.iter().chain(gained).filter(|rank| !due.contains(rank)));
            let of_main = calls.entry(main).or_default();
            if of_main.len() < called.len() {
                std::mem::swap(of_main, &mut called);
            }
            of_main.append(&mut called);
        }
        again.retain(|rank| ranked.get(*rank).is_some_and(|&(_, index)| stand_ins.of(index) == index));
        due = again;
    }
    merges
}

/// A row and the part that it has.
type Part = (usize, f64);

fn callers_of(alignment: &Alignment, row: usize, side: Which) -> &[(usize, f64)] {
    let callers = alignment.rows.get(row).and_then(|row| row.callers.get(side as usize));
    callers.map_or(&[], Vec::as_slice)
}

/// The callers that a function has vanished into, with their parts, if it has.
fn vanished_into(
    alignment: &Alignment,
    side: Which,
    function: usize,
    stand_ins: &mut StandIns,
) -> Option<Vec<Part>> {
    let cost = alignment.cost(&alignment.rows.get(function)?.own, side);
    // What costs nothing itself leaves nothing with its callers; it is no line of its own either.
    if cost <= 0.0 {
        return None;
    }
    let callers = parts(callers_of(alignment, function, side), function, stand_ins);
    let gained: f64 = callers
        .iter()
        .filter_map(|&(caller, _)| alignment.rows.get(caller))
        .map(|caller| alignment.cost(&caller.own, side.other()) - alignment.cost(&caller.own, side))
        .sum();
    (gained >= GAINED * cost && !callers.is_empty()).then_some(callers)
}

/// The callers with their parts, the greatest first. One that was counted with its own callers is its main one.
fn parts(calls: &[(usize, f64)], function: usize, stand_ins: &mut StandIns) -> Vec<Part> {
    // In one order each time, so that sums are the same each time.
    let mut sums: BTreeMap<usize, f64> = BTreeMap::new();
    for &(caller, value) in calls {
        let caller = stand_ins.of(caller);
        if caller != function {
            *sums.entry(caller).or_default() += value;
        }
    }
    let whole: f64 = sums.values().sum();
    let mut parts: Vec<Part> = sums
        .into_iter()
        .map(|(caller, value)| (caller, value / whole))
        .filter(|&(_, part)| part >= LEAST_PART)
        .collect();
    parts.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
    let kept: f64 = parts.iter().map(|&(_, part)| part).sum();
    for (_, part) in &mut parts {
        *part /= kept;
    }
    parts
}

fn count_with_callers(alignment: &mut Alignment, function: usize, callers: &[Part]) {
    let Some(row) = alignment.rows.get(function) else { return };
    let (own, key) = (row.own.clone(), row.key.clone());
    // What had vanished into it goes on with it.
    let carried: Vec<FunctionKey> = match &row.origin {
        Some(Origin::Inlined { functions }) => functions.clone(),
        _ => Vec::new(),
    };
    for &(caller, part) in callers {
        let Some(row) = alignment.rows.get_mut(caller) else { continue };
        for (value, added) in row.own.iter_mut().zip(&own) {
            *value += part * added;
        }
        let mut functions: Vec<FunctionKey> = match row.origin.take() {
            Some(Origin::Inlined { functions }) => functions,
            // Both at once: the other name is what a reader should know first.
            Some(renamed @ Origin::Renamed { .. }) => {
                row.origin = Some(renamed);
                continue;
            }
            // Regrouping comes after this.
            Some(Origin::Regrouped { .. }) | None => Vec::new(),
        };
        functions.push(key.clone());
        if !carried.is_empty() {
            let known: HashSet<FunctionKey> = functions.iter().cloned().collect();
            functions.extend(carried.iter().filter(|key| !known.contains(key)).cloned());
        }
        row.origin = Some(Origin::Inlined { functions });
    }
}

#[cfg(test)]
#[path = "inlining_tests.rs"]
mod tests;
