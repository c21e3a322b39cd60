//! Finds functions that have vanished into their callers.
//!
//! With debug information an inlined function is a frame like any other, and nothing is to be done. Without it,
//! one that is inlined on one side only seems gone there, and its callers slower. Such a function is counted with
//! its callers on both sides: where one side has a function and the other has nearly none of it, and its callers
//! together cost more there by at least half of it. A function that was really taken out leaves no such trace.

use std::collections::HashMap;

use super::FunctionKey;
use super::alignment::{Alignment, Which};
use super::comparison::Origin;
use super::renaming::{merge_rows, only_on};

/// The part of a function's cost that its callers must have gained.
const GAINED: f64 = 0.5;
/// A caller of a smaller part of the calls is left out of what is looked at.
const LEAST_PART: f64 = 0.01;

pub(super) fn put_together(alignment: &mut Alignment, floor: f64) {
    for side in [Which::Base, Which::New] {
        // A caller may have vanished into its own: it has to be found first.
        let mut left = only_on(alignment, side, floor);
        let mut merges: Vec<(usize, usize)> = Vec::new();
        while let Some((at, callers)) = find(alignment, side, &left) {
            let function = left.swap_remove(at);
            count_with_callers(alignment, function, &callers);
            if let Some(&(main, _)) = callers.first() {
                merges.push((function, main));
                rename_in_calls(alignment, function, main);
            }
        }
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

/// A row and the part that it has.
type Part = (usize, f64);

/// One of these that has vanished into its callers: where it stands, and the callers with their parts.
fn find(alignment: &Alignment, side: Which, candidates: &[usize]) -> Option<(usize, Vec<Part>)> {
    candidates.iter().enumerate().find_map(|(at, &index)| {
        let row = alignment.rows.get(index)?;
        let cost = alignment.share(&row.own, side);
        // What costs nothing itself leaves nothing with its callers; it is no line of its own either.
        if cost <= 0.0 {
            return None;
        }
        let callers = parts(row.callers.get(side as usize)?, index);
        let gained: f64 = callers
            .iter()
            .filter_map(|&(caller, _)| alignment.rows.get(caller))
            .map(|caller| alignment.share(&caller.own, side.other()) - alignment.share(&caller.own, side))
            .sum();
        (gained >= GAINED * cost && !callers.is_empty()).then_some((at, callers))
    })
}

/// The callers with their parts, the greatest first.
fn parts(calls: &[(usize, f64)], function: usize) -> Vec<Part> {
    let mut sums: HashMap<usize, f64> = HashMap::new();
    for &(caller, value) in calls.iter().filter(|call| call.0 != function) {
        *sums.entry(caller).or_default() += value;
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
    let Some((own, key)) = alignment.rows.get(function).map(|row| (row.own.clone(), row.key.clone())) else {
        return;
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
            None => Vec::new(),
        };
        functions.push(key.clone());
        row.origin = Some(Origin::Inlined { functions });
    }
}

/// Calls of and by a function that was counted with its callers are calls of and by its main caller.
fn rename_in_calls(alignment: &mut Alignment, function: usize, main: usize) {
    for row in &mut alignment.rows {
        for calls in row.callers.iter_mut().chain(&mut row.callees) {
            for call in calls {
                if call.0 == function {
                    call.0 = main;
                }
            }
        }
    }
}
