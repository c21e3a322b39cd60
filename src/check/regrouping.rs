//! Finds functions that were divided, put together or written anew beside the old one.
//!
//! Where one function has become two that the same caller calls, or two have become one, or a new one does the work of
//! one that is gone, each by itself is gone or new, and what is new would seem to have made the program slower by all
//! that it costs. The one that is gone (or new) is therefore counted with those that its caller calls instead, in
//! proportion to what these have gained. Costs are only counted elsewhere: together they are what they were, so that what
//! became dearer on the way still shows. In this order:
//!
//! - with those that are on the other side only, however much they cost; or
//! - with others that have changed by a fifth at least, if what they have gained is nearly what this one costs.

use std::collections::HashSet;

use super::alignment::{Alignment, Which};
use super::comparison::Origin;
use super::renaming::{StandIns, merge_rows, only_on};

/// The part of a function's calls that must come from one caller.
const MAIN_PART: f64 = 0.5;
/// A function of both sides must have less than this part of what it costs on the other one.
const CHANGED: f64 = 0.8;
/// What such functions have gained, as a part of what the one costs that is counted with them.
const NEARLY: std::ops::RangeInclusive<f64> = 0.8..=1.25;
/// No more functions of a side are looked at, the greatest first.
const MOST: usize = 200;

pub(super) fn put_together(alignment: &mut Alignment, floor: f64) {
    let common = common_change(alignment, floor);
    for side in [Which::Base, Which::New] {
        let merges = count_regrouped(alignment, side, common, floor);
        merge_rows(alignment, &merges);
    }
}

/// The median of what functions of both sides cost on the new side, as a part of what they do in the base. Where less was
/// done, or shares are compared, everything that stayed as it was would seem to have gained what one function no longer
/// costs.
fn common_change(alignment: &Alignment, floor: f64) -> f64 {
    let mut changes: Vec<f64> = alignment
        .rows
        .iter()
        .filter(|row| [Which::Base, Which::New].iter().all(|side| alignment.share(&row.own, *side) >= floor))
        .map(|row| alignment.cost(&row.own, Which::New) / alignment.cost(&row.own, Which::Base))
        .collect();
    changes.sort_by(f64::total_cmp);
    changes.get(changes.len() / 2).copied().unwrap_or(1.0)
}

/// A row and what it has gained by itself and with all that it calls.
struct Heir {
    row: usize,
    own: f64,
    inclusive: f64,
}

/// Counts what only this side has with what the other one has instead. Goes out: each such row, of which nothing is left,
/// and the one that most of it is counted with.
fn count_regrouped(alignment: &mut Alignment, side: Which, common: f64, floor: f64) -> Vec<(usize, usize)> {
    let only_there: HashSet<usize> = lines_only_on(alignment, side.other(), floor).into_iter().collect();
    let mut ranked: Vec<(f64, usize)> = lines_only_on(alignment, side, floor)
        .into_iter()
        .filter_map(|index| Some((index, alignment.rows.get(index)?)))
        .filter(|(_, row)| row.origin.is_none())
        .map(|(index, row)| (alignment.share(&row.inclusive, side), index))
        .collect();
    // Callers before what they call.
    ranked.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
    ranked.truncate(MOST);
    let mut stand_ins = StandIns::new(alignment.rows.len());
    let mut merges = Vec::new();
    for (_, function) in ranked {
        let heirs = heirs(alignment, side, function, common, &only_there, &mut stand_ins);
        let Some(main) = heirs.iter().max_by(|one, other| one.own.total_cmp(&other.own)) else { continue };
        stand_ins.set(function, main.row);
        merges.push((function, main.row));
        count_with(alignment, function, &heirs);
    }
    merges
}

/// As [`only_on`], without what costs next to nothing itself: that is no line by itself.
fn lines_only_on(alignment: &Alignment, side: Which, floor: f64) -> Vec<usize> {
    let mut only = only_on(alignment, side, floor);
    only.retain(|index| {
        alignment.rows.get(*index).is_some_and(|row| alignment.share(&row.own, side) >= floor)
    });
    only
}

/// What the function is to be counted with; empty if there is nothing.
fn heirs(
    alignment: &Alignment,
    side: Which,
    function: usize,
    common: f64,
    only_there: &HashSet<usize>,
    stand_ins: &mut StandIns,
) -> Vec<Heir> {
    let Some(row) = alignment.rows.get(function) else { return Vec::new() };
    let cost = |values: &[f64], side: Which| match side {
        Which::Base => alignment.cost(values, side),
        Which::New => alignment.cost(values, side) / common,
    };
    let calls = row.callers.get(side as usize).map_or(&[][..], Vec::as_slice);
    let whole: f64 = calls.iter().map(|(_, value)| value).sum();
    let main = calls.iter().max_by(|one, other| one.1.total_cmp(&other.1).then(other.0.cmp(&one.0)));
    let Some(caller) = main.filter(|(_, value)| *value >= MAIN_PART * whole).map(|&(caller, _)| caller)
    else {
        return Vec::new();
    };
    let caller = alignment.rows.get(stand_ins.of(caller));
    let callees = caller.and_then(|caller| caller.callees.get(side.other() as usize));
    let mut seen = HashSet::new();
    let (mut anew, mut changed) = (Vec::new(), Vec::new());
    for &(callee, _) in callees.map_or(&[][..], Vec::as_slice) {
        let Some(heir) = alignment.rows.get(callee) else { continue };
        if callee == function || heir.key.module != row.key.module || !seen.insert(callee) {
            continue;
        }
        let gained = |values: &[f64]| cost(values, side.other()) - cost(values, side);
        let (own, inclusive) = (gained(&heir.own), gained(&heir.inclusive));
        if own <= 0.0 || stand_ins.of(callee) != callee {
            continue;
        }
        let heir_now = Heir { row: callee, own, inclusive: inclusive.max(0.0) };
        if only_there.contains(&callee) {
            // What has another name already is the one that it was.
            if !matches!(heir.origin, Some(Origin::Renamed { .. })) {
                anew.push(heir_now);
            }
        } else if cost(&heir.own, side) < CHANGED * cost(&heir.own, side.other()) {
            changed.push(heir_now);
        }
    }
    if !anew.is_empty() {
        return anew;
    }
    let gained: f64 = changed.iter().map(|heir| heir.own).sum();
    if NEARLY.contains(&(gained / cost(&row.own, side))) { changed } else { Vec::new() }
}

/// Gives a row's costs to others, in proportion to what these have gained, and leaves it nothing.
fn count_with(alignment: &mut Alignment, function: usize, heirs: &[Heir]) {
    let (own_gain, inclusive_gain) =
        heirs.iter().fold((0.0, 0.0), |sums, heir| (sums.0 + heir.own, sums.1 + heir.inclusive));
    let Some(row) = alignment.rows.get_mut(function) else { return };
    let key = row.key.clone();
    let columns = row.own.len();
    let own = std::mem::replace(&mut row.own, vec![0.0; columns]);
    let inclusive = std::mem::replace(&mut row.inclusive, vec![0.0; columns]);
    for heir in heirs {
        let Some(row) = alignment.rows.get_mut(heir.row) else { continue };
        let own_part = heir.own / own_gain;
        let inclusive_part = if inclusive_gain > 0.0 { heir.inclusive / inclusive_gain } else { own_part };
        for (value, added) in row.own.iter_mut().zip(&own) {
            *value += own_part * added;
        }
        for (value, added) in row.inclusive.iter_mut().zip(&inclusive) {
            *value += inclusive_part * added;
        }
        match &mut row.origin {
            None => row.origin = Some(Origin::Regrouped { functions: vec![key.clone()] }),
            Some(Origin::Regrouped { functions }) => functions.push(key.clone()),
            // The other name, or what was inlined, is what a reader should know first.
            Some(Origin::Renamed { .. } | Origin::Inlined { .. }) => {}
        }
    }
}

#[cfg(test)]
#[path = "regrouping_tests.rs"]
mod tests;
