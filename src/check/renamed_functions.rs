//! Which function that is gone is which one that is new, by their neighbours, cost and name.
//!
//! Of all that fit, the two with the most likeness are one. Then it is asked again, since they are neighbours of others:
//! where a whole package has another name, what is known goes from callers to callees. Functions that share a
//! neighbour are found by an index, and only those whose neighbours have been found meanwhile are looked at again.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::FunctionKey;
use super::alignment::{Alignment, Row, Which};

/// The part of neighbours that must be the same.
const ENOUGH: f64 = 0.5;
/// The smaller cost must be this part of the greater one, unless the names differ in parameters only.
const LIKE_COST: f64 = 0.7;
/// Letters of a name that are compared: its end says most.
const COMPARED_LETTERS: usize = 200;
/// Steps that are made at most, of about a nanosecond: beyond, these are different programs.
const MOST_STEPS: u64 = 1_000_000_000;

/// Which rows are one, `(gone, new)`, and whether it was given up early.
pub(super) fn find(alignment: &Alignment, gone: &[usize], new: &[usize]) -> (Vec<(usize, usize)>, bool) {
    let mut search = Search::new(alignment, gone, new);
    let mut pairs = Vec::new();
    for before in 0..search.gone.len() {
        search.offer_best(before);
    }
    while let Some(Offer { before, after, asked, .. }) = search.offers.pop() {
        if search.steps > MOST_STEPS {
            return (pairs, true);
        }
        let (Some(base), Some(found)) = (search.gone.get(before), search.new.get(after)) else { continue };
        // Of what was offered and has changed meanwhile another offer stands.
        if base.is_found || base.asked != asked {
            continue;
        }
        if found.is_found {
            search.offer_best(before);
            continue;
        }
        pairs.push((base.row, found.row));
        search.take(before, after);
    }
    (pairs, false)
}

/// A function of one side only.
struct Candidate<'a> {
    row: usize,
    name: &'a str,
    /// Of the side's total, with all that it calls.
    share: f64,
    is_found: bool,
    /// How often it was looked at.
    asked: u32,
}

/// That these two are one.
#[derive(PartialEq)]
struct Offer {
    likeness: f64,
    before: usize,
    after: usize,
    asked: u32,
}

impl Eq for Offer {}

impl PartialOrd for Offer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Offer {
    /// The greatest likeness first; of equal ones the first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let place = |offer: &Self| Reverse((offer.before, offer.after, offer.asked));
        self.likeness.total_cmp(&other.likeness).then_with(|| place(self).cmp(&place(other)))
    }
}

/// Rows with their parts of the calls, which add up to one, in the order of the rows, so that sums are the same each time;
/// empty if there are none.
type Parts = Vec<(usize, f64)>;

struct Search<'a> {
    alignment: &'a Alignment,
    gone: Vec<Candidate<'a>>,
    new: Vec<Candidate<'a>>,
    /// By row: which of `new` have it as a caller, as a callee, and for which part.
    by_neighbour: [HashMap<usize, Vec<(usize, f64)>>; 2],
    /// Which of `new` have no caller.
    uncalled: Vec<usize>,
    /// By name: which of `new`.
    by_name: HashMap<&'a str, Vec<usize>>,
    /// By row: which of `gone` it calls, or is called by.
    neighbours_of: HashMap<usize, Vec<usize>>,
    /// What a row is called for the sake of comparing neighbours.
    as_one: HashMap<usize, usize>,
    /// How alike the names of these two are.
    like_names: HashMap<(usize, usize), f64>,
    offers: BinaryHeap<Offer>,
    steps: u64,
}

impl<'a> Search<'a> {
    fn new(alignment: &'a Alignment, gone: &[usize], new: &[usize]) -> Self {
        let of_side = |rows: &[usize], side| -> Vec<Candidate<'a>> {
            let named = rows.iter().filter_map(|&row| Some((row, alignment.rows.get(row)?)));
            named
                .filter(|(_, known)| *known.key.name != *FunctionKey::UNNAMED)
                .map(|(row, known)| Candidate {
                    row,
                    name: &known.key.name,
                    share: alignment.share(&known.inclusive, side),
                    is_found: false,
                    asked: 0,
                })
                .collect()
        };
        let mut search = Self {
            alignment,
            gone: of_side(gone, Which::Base),
            new: of_side(new, Which::New),
            by_neighbour: [HashMap::new(), HashMap::new()],
            uncalled: Vec::new(),
            by_name: HashMap::new(),
            neighbours_of: HashMap::new(),
            as_one: HashMap::new(),
            like_names: HashMap::new(),
            offers: BinaryHeap::new(),
            steps: 0,
        };
        for (after, candidate) in search.new.iter().enumerate() {
            search.by_name.entry(candidate.name).or_default().push(after);
            let Some(row) = alignment.rows.get(candidate.row) else { continue };
            let [callers, callees] =
                [&row.callers[1], &row.callees[1]].map(|calls| parts(calls, &search.as_one));
            if callers.is_empty() {
                search.uncalled.push(after);
            }
            for (index, parts) in search.by_neighbour.iter_mut().zip([callers, callees]) {
                for (neighbour, part) in parts {
                    index.entry(neighbour).or_default().push((after, part));
                }
            }
        }
        for (before, candidate) in search.gone.iter().enumerate() {
            let Some(row) = alignment.rows.get(candidate.row) else { continue };
            for &(neighbour, _) in row.callers[0].iter().chain(&row.callees[0]) {
                search.neighbours_of.entry(neighbour).or_default().push(before);
            }
        }
        search
    }

    /// Offers the new function that is most like this one, if any is.
    fn offer_best(&mut self, before: usize) {
        let Some(best) = self.best(before) else { return };
        let Some(candidate) = self.gone.get_mut(before) else { return };
        candidate.asked += 1;
        self.offers.push(Offer { likeness: best.0, before, after: best.1, asked: candidate.asked });
    }

    fn best(&mut self, before: usize) -> Option<(f64, usize)> {
        let candidate = self.gone.get(before)?;
        let row: &Row = self.alignment.rows.get(candidate.row)?;
        let [callers, callees] = [&row.callers[0], &row.callees[0]].map(|calls| parts(calls, &self.as_one));
        self.steps += 100 * (row.callers[0].len() + row.callees[0].len()) as u64;
        // The common part of callers and of callees, by new function.
        let mut common: HashMap<usize, [f64; 2]> = HashMap::new();
        for (kind, parts) in [&callers, &callees].into_iter().enumerate() {
            for &(neighbour, part) in parts {
                for &(after, other) in self.by_neighbour[kind].get(&neighbour).into_iter().flatten() {
                    common.entry(after).or_default()[kind] += part.min(other);
                    self.steps += 50;
                }
            }
        }
        // What nobody calls is alike in that. Of what calls nothing, callers alone tell who it is.
        if callers.is_empty() {
            for &after in &self.uncalled {
                common.entry(after).or_default()[0] = 1.0;
            }
        }
        for &after in self.by_name.get(candidate.name).into_iter().flatten() {
            common.entry(after).or_default();
        }
        self.steps += 100 * common.len() as u64;
        let mut best: Option<(f64, usize)> = None;
        for (after, [of_callers, of_callees]) in common {
            let Some(other) = self.new.get(after).filter(|other| !other.is_found) else { continue };
            let calls_nothing = callees.is_empty() && self.calls_nothing(other.row);
            let neighbours = if calls_nothing { of_callers } else { f64::midpoint(of_callers, of_callees) };
            let cost = ratio(candidate.share, other.share);
            let has_moved = candidate.name == other.name;
            let is_enough = || {
                neighbours >= ENOUGH
                    && (cost >= LIKE_COST
                        || without_parameters(candidate.name) == without_parameters(other.name))
            };
            if !has_moved && !is_enough() {
                continue;
            }
            let name = *self.like_names.entry((before, after)).or_insert_with(|| {
                let (one, two) = (end_of(candidate.name), end_of(other.name));
                self.steps += one.len() as u64 * two.len() as u64;
                strsim::normalized_levenshtein(one, two)
            });
            let likeness = f64::from(u8::from(has_moved)) + neighbours + cost + 0.5 * name;
            let is_better = |(most, known): (f64, usize)| match likeness.total_cmp(&most) {
                std::cmp::Ordering::Equal => after < known,
                order => order.is_gt(),
            };
            if best.is_none_or(is_better) {
                best = Some((likeness, after));
            }
        }
        best
    }

    fn calls_nothing(&self, row: usize) -> bool {
        self.alignment.rows.get(row).is_some_and(|row| row.callees[1].iter().all(|(_, value)| *value <= 0.0))
    }

    /// These two are one: who knows one of them is looked at again.
    fn take(&mut self, before: usize, after: usize) {
        let (Some(base), Some(found)) = (self.gone.get_mut(before), self.new.get_mut(after)) else { return };
        base.is_found = true;
        found.is_found = true;
        self.as_one.insert(base.row, found.row);
        for neighbour in self.neighbours_of.remove(&base.row).unwrap_or_default() {
            if self.gone.get(neighbour).is_some_and(|candidate| !candidate.is_found) {
                self.offer_best(neighbour);
            }
        }
    }
}

/// Which part of the calls each row has.
fn parts(calls: &[(usize, f64)], as_one: &HashMap<usize, usize>) -> Parts {
    let whole: f64 = calls.iter().map(|(_, value)| value).sum();
    if whole <= 0.0 {
        return Parts::new();
    }
    let mut parts: Parts =
        calls.iter().map(|&(row, value)| (as_one.get(&row).copied().unwrap_or(row), value / whole)).collect();
    parts.sort_by_key(|(row, _)| *row);
    parts.dedup_by(|later, first| {
        let is_same = later.0 == first.0;
        if is_same {
            first.1 += later.1;
        }
        is_same
    });
    parts
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

fn end_of(name: &str) -> &str {
    let begin = name.char_indices().rev().nth(COMPARED_LETTERS - 1).map_or(0, |(at, _)| at);
    name.get(begin..).unwrap_or(name)
}

#[cfg(test)]
#[path = "renamed_functions_tests.rs"]
mod tests;
