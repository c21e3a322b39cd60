//! Finds what is called something else on the new side: modules, and functions.
//!
//! A *module* of only one side and one of only the other are one if the functions of the same name make up
//! at least half of both (`app-1.2` and `app-1.3`). A *function* that is gone and one that is new are one if
//!
//! - they have the same name in different modules (it was moved), or
//! - at least half of their neighbours, by cost, are the same functions, and they cost nearly the same or differ
//!   only in their parameters.
//!
//! Of several that fit, the one with the most likeness is taken. It is asked again after each find, since
//! neighbours may have been renamed too.

use std::collections::{HashMap, HashSet};

use super::FunctionKey;
use super::alignment::{Alignment, Row, Which};
use super::comparison::Origin;

/// A function is gone (or new) if the other side has less than this part of it.
const REMNANT: f64 = 0.05;
/// The part of cost or of neighbours that must be the same.
const ENOUGH: f64 = 0.5;
/// Beyond this many on a side, names are not looked for: everything was renamed, or these are different programs.
const MOST_CANDIDATES: usize = 300;

pub(super) fn put_together(alignment: &mut Alignment, floor: f64) {
    rename_modules(alignment);
    let gone = only_on(alignment, Which::Base, floor);
    let new = only_on(alignment, Which::New, floor);
    if gone.is_empty() || new.is_empty() {
        return;
    }
    if gone.len() > MOST_CANDIDATES || new.len() > MOST_CANDIDATES {
        alignment.notes.push(format!(
            "{} functions are only in the base and {} only in what is new: too many to look for new names",
            gone.len(),
            new.len()
        ));
        return;
    }
    rename_functions(alignment, gone, new);
}

/// Rows of at least this share on one side, and nearly nothing on the other.
pub(super) fn only_on(alignment: &Alignment, side: Which, floor: f64) -> Vec<usize> {
    let is_only = |row: &Row| {
        let here = alignment.share(&row.inclusive, side);
        here >= floor && alignment.share(&row.inclusive, side.other()) < REMNANT * here
    };
    alignment.rows.iter().enumerate().filter(|(_, row)| is_only(row)).map(|(index, _)| index).collect()
}

fn rename_modules(alignment: &mut Alignment) {
    /// Of a module: the functions' shares by name, on both sides together, and the sum.
    #[derive(Default)]
    struct Module {
        by_name: HashMap<String, f64>,
        shares: [f64; 2],
    }
    let mut modules: HashMap<String, Module> = HashMap::new();
    for row in &alignment.rows {
        let shares = [Which::Base, Which::New].map(|side| alignment.share(&row.own, side));
        let module = modules.entry(row.key.module.clone()).or_default();
        *module.by_name.entry(row.key.name.clone()).or_default() += shares[0] + shares[1];
        module.shares = [module.shares[0] + shares[0], module.shares[1] + shares[1]];
    }
    let only = |side: usize| {
        modules.iter().filter(move |(_, module)| module.shares[1 - side] == 0.0 && module.shares[side] > 0.0)
    };
    let mut pairs: Vec<(f64, String, String)> = Vec::new();
    for (gone, before) in only(0) {
        for (new, after) in only(1) {
            let common = before
                .by_name
                .iter()
                .map(|(name, &share)| after.by_name.get(name).map_or(0.0, |&other| share.min(other)));
            let likeness = common.sum::<f64>() / before.shares[0].max(after.shares[1]);
            if likeness >= ENOUGH {
                pairs.push((likeness, gone.clone(), new.clone()));
            }
        }
    }
    pairs.sort_by(|one, other| {
        other.0.total_cmp(&one.0).then_with(|| (&one.1, &one.2).cmp(&(&other.1, &other.2)))
    });
    let mut new_names: HashMap<String, String> = HashMap::new();
    let mut taken: HashSet<String> = HashSet::new();
    for (_, gone, new) in pairs {
        if taken.contains(&new) || new_names.contains_key(&gone) {
            continue;
        }
        alignment.notes.push(format!("{new} is compared with {gone}: their functions have the same names"));
        alignment.renamed_modules.push((gone.clone(), new.clone()));
        taken.insert(new.clone());
        new_names.insert(gone, new);
    }
    if new_names.is_empty() {
        return;
    }
    let mut by_key: HashMap<FunctionKey, usize> = HashMap::new();
    for (index, row) in alignment.rows.iter().enumerate() {
        by_key.insert(row.key.clone(), index);
    }
    let mut merges = Vec::new();
    for (index, row) in alignment.rows.iter_mut().enumerate() {
        if let Some(new) = new_names.get(&row.key.module) {
            row.key.module.clone_from(new);
            match by_key.get(&row.key) {
                Some(&target) => merges.push((index, target)),
                None => row.subject.key = Some(row.key.clone()),
            }
        }
    }
    merge_rows(alignment, &merges);
}

fn rename_functions(alignment: &mut Alignment, mut gone: Vec<usize>, mut new: Vec<usize>) {
    let mut merges: Vec<(usize, usize)> = Vec::new();
    // What a row is called for the sake of comparing neighbours.
    let mut as_one: HashMap<usize, usize> = HashMap::new();
    loop {
        let mut best: Option<(f64, usize, usize)> = None;
        for &before in &gone {
            for &after in &new {
                let Some(likeness) = likeness(alignment, before, after, &as_one) else { continue };
                if best.is_none_or(|(most, _, _)| likeness > most) {
                    best = Some((likeness, before, after));
                }
            }
        }
        let Some((_, before, after)) = best else { break };
        gone.retain(|&row| row != before);
        new.retain(|&row| row != after);
        as_one.insert(before, after);
        merges.push((before, after));
    }
    for &(before, after) in &merges {
        let from = alignment.rows.get(before).map(|row| row.key.clone());
        if let (Some(from), Some(row)) = (from, alignment.rows.get_mut(after)) {
            row.origin = Some(Origin::Renamed { from });
        }
    }
    merge_rows(alignment, &merges);
}

/// How alike they are, more being better; none if not enough to be one function.
fn likeness(
    alignment: &Alignment,
    before: usize,
    after: usize,
    as_one: &HashMap<usize, usize>,
) -> Option<f64> {
    let (base, new) = (alignment.rows.get(before)?, alignment.rows.get(after)?);
    if base.key.name == FunctionKey::UNNAMED || new.key.name == FunctionKey::UNNAMED {
        return None;
    }
    let cost =
        ratio(alignment.share(&base.inclusive, Which::Base), alignment.share(&new.inclusive, Which::New));
    let neighbours = (alike(&base.callers[0], &new.callers[1], as_one)
        + alike(&base.callees[0], &new.callees[1], as_one))
        / 2.0;
    let name = strsim::normalized_levenshtein(&base.key.name, &new.key.name);
    let moved = base.key.name == new.key.name;
    let other_parameters = without_parameters(&base.key.name) == without_parameters(&new.key.name);
    // A renamed function's own cost is as it was too, if the whole cost is not just that of its callees.
    let enough = moved || neighbours >= ENOUGH && (other_parameters || cost >= 0.7);
    enough.then_some(f64::from(u8::from(moved)) + neighbours + cost + 0.5 * name)
}

/// The part of neighbours that are the same, by cost: from 0 to 1. Having none on both sides is being alike.
fn alike(base: &[(usize, f64)], new: &[(usize, f64)], as_one: &HashMap<usize, usize>) -> f64 {
    let sums = |calls: &[(usize, f64)]| {
        let mut by_row: HashMap<usize, f64> = HashMap::new();
        for &(row, value) in calls {
            *by_row.entry(as_one.get(&row).copied().unwrap_or(row)).or_default() += value;
        }
        let whole: f64 = by_row.values().sum();
        (by_row, whole)
    };
    let ((base, base_whole), (new, new_whole)) = (sums(base), sums(new));
    match (base_whole > 0.0, new_whole > 0.0) {
        (false, false) => return 1.0,
        (true, true) => {}
        _ => return 0.0,
    }
    let part = |row: &usize, value: &f64| {
        new.get(row).map_or(0.0, |other| (value / base_whole).min(other / new_whole))
    };
    base.iter().map(|(row, value)| part(row, value)).sum()
}

/// The smaller divided by the greater.
fn ratio(one: f64, other: f64) -> f64 {
    if one.max(other) > 0.0 { one.min(other) / one.max(other) } else { 0.0 }
}

/// `parse` of `parse(int)` and of `parse<int>`.
fn without_parameters(name: &str) -> &str {
    let end = name.find(['(', '<']).filter(|&end| end > 0);
    end.and_then(|end| name.get(..end)).unwrap_or(name)
}

/// Adds rows to others and takes them away.
pub(super) fn merge_rows(alignment: &mut Alignment, merges: &[(usize, usize)]) {
    for &(from, to) in merges {
        if from == to {
            continue;
        }
        let Some(row) = alignment.rows.get_mut(from) else { continue };
        let (own, inclusive) = (vec![0.0; row.own.len()], vec![0.0; row.inclusive.len()]);
        let emptied =
            Row { own, inclusive, callers: Default::default(), callees: Default::default(), ..row.clone() };
        let taken = std::mem::replace(row, emptied);
        if let Some(target) = alignment.rows.get_mut(to) {
            target.absorb(taken);
        }
    }
    let to_of: HashMap<usize, usize> = merges.iter().copied().collect();
    let mut kept_as: Vec<usize> = Vec::with_capacity(alignment.rows.len());
    let mut kept = 0;
    for index in 0..alignment.rows.len() {
        kept_as.push(kept);
        kept += usize::from(!to_of.contains_key(&index));
    }
    let renumbered = |mut row: usize| {
        // Each step leads to another row, and there are no more than these.
        for _ in 0..merges.len() {
            match to_of.get(&row) {
                Some(&next) if next != row => row = next,
                _ => break,
            }
        }
        kept_as.get(row).copied().unwrap_or(row)
    };
    let rows = std::mem::take(&mut alignment.rows).into_iter().enumerate();
    alignment.rows = rows
        .filter(|(index, _)| !to_of.contains_key(index))
        .map(|(_, mut row)| {
            for calls in row.callers.iter_mut().chain(&mut row.callees) {
                for call in calls {
                    call.0 = renumbered(call.0);
                }
            }
            row
        })
        .collect();
}
