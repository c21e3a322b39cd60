//! What counts as a change.

use serde::Serialize;

/// What counts as a change, and how sure one has to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Policy {
    /// Functions and modules of a smaller share of the total are not judged, 0 to 1.
    pub min_share: f64,
    /// A smaller relative change is no regression and no improvement, however certain it is.
    pub min_effect: f64,
    /// How often a comparison of equal programs may come to any verdict but `unchanged` and `inconclusive`.
    /// It is divided between the levels and directions (`levels.rs`) and within a level by Benjamini and
    /// Hochberg.
    pub false_alarm_level: f64,
    /// A line is `unchanged` if its cost is shown to lie within this margin of what it was.
    pub equivalence_margin: f64,
    /// How often equivalence may be claimed of what differs by just the margin.
    pub equivalence_level: f64,
    /// How often a comparison of equal programs may be refused because the base seemed to differ from itself.
    pub self_test_level: f64,
    /// How probable it shall be that an effect of the size called "smallest that could have been seen" is seen.
    pub power: f64,
    /// Fewer runs a side are refused.
    pub least_runs: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            min_share: 0.01,
            min_effect: 0.05,
            false_alarm_level: 0.05,
            equivalence_margin: 0.05,
            equivalence_level: 0.05,
            self_test_level: 0.005,
            power: 0.8,
            least_runs: 3,
        }
    }
}
