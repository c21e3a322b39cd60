//! Finds what is called something else on the new side: modules, and functions.
//!
//! A *module* of only one side and one of only the other are one if the functions of the same name make up
//! at least half of both (`app-1.2` and `app-1.3`). A *function* that is gone and one that is new are one if
//!
//! - they have the same name in different modules (it was moved), or
//! - at least half of their neighbours, by cost, are the same functions, and they cost nearly the same or differ
//!   only in their parameters (`renamed_functions.rs`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::FunctionKey;
use super::alignment::{Alignment, Row, Which};
use super::comparison::Origin;
use super::renamed_functions;

/// A function is gone (or new) if the other side has less than this part of it.
const REMNANT: f64 = 0.05;
/// The part of a module's cost that must be of functions of the same names.
const ENOUGH: f64 = 0.5;
/// No more modules of a side are looked at, the greatest first.
const MOST_MODULES: usize = 1_000;
/// No more of them are told.
const TOLD_MODULES: usize = 10;

pub(super) fn put_together(alignment: &mut Alignment, floor: f64) {
    rename_modules(alignment);
    let gone = only_on(alignment, Which::Base, floor);
    let new = only_on(alignment, Which::New, floor);
    if gone.is_empty() || new.is_empty() {
        return;
    }
    rename_functions(alignment, &gone, &new);
}

/// Rows of at least this share on one side, in most of its runs, and nearly nothing on the other. What is in a few of many
/// runs is chance, and nothing can be told from its being gone.
pub(super) fn only_on(alignment: &Alignment, side: Which, floor: f64) -> Vec<usize> {
    let is_only = |row: &Row| {
        let here = alignment.share(&row.inclusive, side);
        let columns = row.inclusive.get(alignment.columns(side)).unwrap_or_default();
        let present = columns.iter().filter(|value| **value > 0.0).count();
        here >= floor
            && 2 * present > columns.len()
            && alignment.share(&row.inclusive, side.other()) < REMNANT * here
    };
    alignment.rows.iter().enumerate().filter(|(_, row)| is_only(row)).map(|(index, _)| index).collect()
}

fn rename_modules(alignment: &mut Alignment) {
    /// Of a module: the functions' shares by name, on both sides together, and the sum.
    #[derive(Default)]
    struct Module {
        by_name: HashMap<Arc<str>, f64>,
        shares: [f64; 2],
    }
    let mut modules: HashMap<Arc<str>, Module> = HashMap::new();
    for row in &alignment.rows {
        let shares = [Which::Base, Which::New].map(|side| alignment.share(&row.own, side));
        let module = modules.entry(Arc::clone(&row.key.module)).or_default();
        *module.by_name.entry(Arc::clone(&row.key.name)).or_default() += shares[0] + shares[1];
        module.shares = [module.shares[0] + shares[0], module.shares[1] + shares[1]];
    }
    let only = |side: usize| {
        let mut only: Vec<(&Arc<str>, &Module)> = modules
            .iter()
            .filter(|(_, module)| module.shares[1 - side] == 0.0 && module.shares[side] > 0.0)
            .collect();
        only.sort_by(|one, other| {
            other.1.shares[side].total_cmp(&one.1.shares[side]).then_with(|| one.0.cmp(other.0))
        });
        only.truncate(MOST_MODULES);
        only
    };
    let (gone, new) = (only(0), only(1));
    let mut by_name: HashMap<&str, Vec<(usize, f64)>> = HashMap::new();
    for (at, (_, module)) in new.iter().enumerate() {
        for (name, &share) in &module.by_name {
            by_name.entry(name).or_default().push((at, share));
        }
    }
    let mut pairs: Vec<(f64, Arc<str>, Arc<str>)> = Vec::new();
    for (before, of_base) in &gone {
        // What each new module has in common with this one.
        let mut common = vec![0.0; new.len()];
        for (name, &share) in &of_base.by_name {
            for &(at, other) in by_name.get(&**name).into_iter().flatten() {
                if let Some(sum) = common.get_mut(at) {
                    *sum += share.min(other);
                }
            }
        }
        for ((after, of_new), common) in new.iter().zip(common) {
            let likeness = common / of_base.shares[0].max(of_new.shares[1]);
            if likeness >= ENOUGH {
                pairs.push((likeness, (*before).clone(), (*after).clone()));
            }
        }
    }
    pairs.sort_by(|one, other| {
        other.0.total_cmp(&one.0).then_with(|| (&one.1, &one.2).cmp(&(&other.1, &other.2)))
    });
    let mut new_names: HashMap<Arc<str>, Arc<str>> = HashMap::new();
    let mut taken: HashSet<Arc<str>> = HashSet::new();
    for (_, gone, new) in pairs {
        if taken.contains(&new) || new_names.contains_key(&gone) {
            continue;
        }
        if taken.len() < TOLD_MODULES {
            let note = format!("{new} is compared with {gone}: their functions have the same names");
            alignment.notes.push(note);
        }
        alignment.renamed_modules.push((gone.to_string(), new.to_string()));
        taken.insert(new.clone());
        new_names.insert(gone, new);
    }
    if new_names.is_empty() {
        return;
    }
    if let Some(more @ 1..) = taken.len().checked_sub(TOLD_MODULES) {
        alignment.notes.push(format!("so are {more} other modules that have another name"));
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

fn rename_functions(alignment: &mut Alignment, gone: &[usize], new: &[usize]) {
    let (merges, gave_up) = renamed_functions::find(alignment, gone, new);
    if gave_up {
        alignment.notes.push(format!(
            "{} functions are only in the base and {} only in what is new: too many to look for all new names",
            gone.len(),
            new.len()
        ));
    }
    for &(before, after) in &merges {
        let from = alignment.rows.get(before).map(|row| row.key.clone());
        if let (Some(from), Some(row)) = (from, alignment.rows.get_mut(after)) {
            row.origin = Some(Origin::Renamed { from });
        }
    }
    merge_rows(alignment, &merges);
}

/// Which row is counted with which.
pub(super) struct StandIns(Vec<usize>);

impl StandIns {
    /// Of so many rows, each its own.
    pub(super) fn new(rows: usize) -> Self {
        Self((0..rows).collect())
    }

    /// From now on `from`, and all that is counted with it, is counted with `to`.
    pub(super) fn set(&mut self, from: usize, to: usize) {
        let to = self.of(to);
        if let Some(stand_in) = self.0.get_mut(from)
            && to != from
        {
            *stand_in = to;
        }
    }

    /// The row that stands for this one. Each look shortens the way of the next one.
    pub(super) fn of(&mut self, mut row: usize) -> usize {
        while let Some(&next) = self.0.get(row)
            && next != row
        {
            let after = self.0.get(next).copied().unwrap_or(next);
            if let Some(stand_in) = self.0.get_mut(row) {
                *stand_in = after;
            }
            row = after;
        }
        row
    }
}

/// Adds rows to others and takes them away. Takes time in proportion to the rows and their calls.
pub(super) fn merge_rows(alignment: &mut Alignment, merges: &[(usize, usize)]) {
    let mut stand_ins = StandIns::new(alignment.rows.len());
    for &(from, to) in merges {
        stand_ins.set(from, to);
    }
    for &(from, _) in merges {
        // At once where it ends, so that no call is moved twice.
        let to = stand_ins.of(from);
        if to == from {
            continue;
        }
        let Some(row) = alignment.rows.get_mut(from) else { continue };
        let taken = row.take();
        if let Some(target) = alignment.rows.get_mut(to) {
            target.absorb(taken);
        }
    }
    let mut kept_as: Vec<usize> = Vec::with_capacity(alignment.rows.len());
    let mut kept = 0;
    for index in 0..alignment.rows.len() {
        kept_as.push(kept);
        kept += usize::from(stand_ins.of(index) == index);
    }
    let mut index = 0;
    alignment.rows.retain(|_| {
        index += 1;
        stand_ins.of(index - 1) == index - 1
    });
    for row in &mut alignment.rows {
        for call in row.callers.iter_mut().chain(&mut row.callees).flatten() {
            let now = stand_ins.of(call.0);
            call.0 = kept_as.get(now).copied().unwrap_or(now);
        }
    }
}
