//! Is the program slower than it was, and where?
//!
//! Comes in: profiles, one a run, of a base and of something new, with what is known of the machine and of the
//! work that was done ([`Run`], two [`Side`]s); or windows of two times of a server, of which [`stretches`] makes
//! runs. Goes out: a [`Comparison`]: a verdict for the whole, for each module and for each function, with estimate,
//! confidence interval and place in the source; and reports of it.
//! Never: a process that is started, a clock, a network, or a verdict that rests on counting samples as if they
//! were independent: the run is the unit.
//!
//! How a run is made comparable is `function_key.rs`; what is decided by which test at which level is
//! `decide.rs` on the statistics of `statistics/`; ARCHITECTURE.md, "Deciding", says why.

mod alignment;
pub mod allow_list;
mod batches;
pub mod by_function;
pub mod comparison;
mod confirm;
mod consequences;
mod costs;
mod decide;
pub mod function_key;
mod inlining;
mod levels;
pub mod machine_facts;
mod overall;
pub mod parts;
pub mod policy;
mod regrouping;
mod renamed_functions;
mod renaming;
pub mod report;
pub mod run;
pub mod run_facts;
mod self_test;
pub mod side;
pub mod stacks;
mod statistics;
pub mod stretches;
pub mod verdict;

pub use allow_list::{AllowList, AllowListError};
pub use comparison::{
    Allowed, Basis, Comparison, Estimate, Interval, Level, Line, Origin, Refusal, SelfTest, Subject,
};
pub use confirm::confirm;
pub use decide::compare;
pub use function_key::FunctionKey;
pub use machine_facts::{FactDifference, MachineFacts};
pub use policy::Policy;
pub use run::{Call, FunctionCost, GrowingRun, Run, RunError, Wanted};
pub use run_facts::{RunFacts, Work};
pub use side::{Side, SideError};
pub use verdict::{Overall, Sensitivity, Verdict};

#[cfg(test)]
mod decide_tests;
#[cfg(test)]
mod odd_runs_tests;
#[cfg(test)]
mod test_sides;
