//! Sides for tests: a few functions whose costs are written down.

use super::stacks::GrowingStacks;
use super::{Call, FunctionCost, FunctionKey, MachineFacts, Run, RunFacts, Side};
use crate::model::ValueType;

/// A stack, root first, of `function@module` (the module is `app` if none is given), and its cost.
pub(super) type Stack<'a> = (&'a str, f64);

/// A side of ten executions, each costing what the stacks say, give or take a little that differs from run to run
/// and function to function.
pub(super) fn side(label: &str, seed: u64, stacks: &[Stack<'_>]) -> Side {
    let runs = (0..10_u64).map(|number| run(number, seed, stacks)).collect();
    Side { label: label.to_owned(), runs }
}

fn run(number: u64, seed: u64, stacks: &[Stack<'_>]) -> Run {
    let mut functions: Vec<FunctionCost> = Vec::new();
    let mut calls: Vec<Call> = Vec::new();
    let mut total = 0;
    let mut growing = GrowingStacks::default();
    for (index, (stack, cost)) in stacks.iter().enumerate() {
        let value = (cost * (1.0 + 0.01 * noise(seed, number, index as u64))).round() as u64;
        total += value;
        let mut caller = None;
        let mut path = Vec::new();
        let frames: Vec<&str> = stack.split(';').collect();
        for (depth, frame) in frames.iter().enumerate() {
            let (name, module) = frame.split_once('@').unwrap_or((frame, "app"));
            let key = FunctionKey::new(name, module);
            let at = functions.iter().position(|function| function.key == key).unwrap_or_else(|| {
                functions.push(FunctionCost {
                    key,
                    name: name.into(),
                    module_path: module.into(),
                    file: format!("src/{name}.rs").into(),
                    line: 7,
                    self_value: 0,
                    inclusive_value: 0,
                });
                functions.len() - 1
            });
            path.push(at as u32);
            if !path[..depth].contains(&(at as u32)) {
                functions[at].inclusive_value += value;
            }
            if depth + 1 == frames.len() {
                functions[at].self_value += value;
            }
            let callee = at as u32;
            if let Some(caller) = caller {
                match calls.iter_mut().find(|call| call.caller == caller && call.callee == callee) {
                    Some(call) => call.value += value,
                    None => calls.push(Call { caller, callee, value }),
                }
            }
            caller = Some(callee);
        }
        growing.add(path.into_iter(), value).expect("it is not deep");
    }
    Run {
        name: format!("run {number}"),
        value_type: ValueType::new("samples", "count"),
        total,
        sample_count: Some(total),
        duration_ns: 0,
        facts: RunFacts { whole_execution: true, ..RunFacts::default() },
        functions,
        calls,
        stacks: growing.into_nodes(),
    }
}

/// Between -1.7 and 1.7, the same for the same numbers, of variance about one.
fn noise(seed: u64, run: u64, index: u64) -> f64 {
    let mut mixed = (seed << 40 | run << 20 | index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed >> 11) as f64 / (1_u64 << 53) as f64 - 0.5) * 12_f64.sqrt()
}

/// A side of one run on each of these machines.
pub(super) fn side_of_machines(machines: impl IntoIterator<Item = MachineFacts>) -> Side {
    let mut side = side("a side", 1, &[("main", 100.0)]);
    let run = side.runs.swap_remove(0);
    side.runs = machines
        .into_iter()
        .map(|machine| Run { facts: RunFacts { machine, ..run.facts.clone() }, ..run.clone() })
        .collect();
    side
}
