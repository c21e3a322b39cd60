//! Where the labels are that a Go program gives its goroutines (`runtime/pprof.Do`).
//!
//! `g.labels` points to what the package made of them: up to Go 1.23 a map of texts, from 1.24 on a struct that
//! begins with a slice of pairs of texts (runtime/pprof/label.go). The offsets are those of the DWARF of programs
//! that were built with each release; a version that is not in the table has none.

use super::goroutines::{GoProgram, GoroutineOffsets};

/// How to get from a thread to the labels of its goroutine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoLabels {
    /// The way to the goroutine.
    pub goroutines: GoroutineOffsets,
    /// `g.labels`, bytes.
    pub g_labels: u32,
    /// Whether it leads to a slice, and not to a map.
    pub is_slice: bool,
}

impl GoProgram {
    /// Where the labels of its goroutines are, if that is known of its version.
    #[must_use]
    pub fn labels(&self) -> Option<GoLabels> {
        let goroutines = self.goroutines?;
        let (g_labels, is_slice) = match self.minor_version()? {
            18..=20 => (360, false),
            21..=22 => (344, false),
            23 => (352, false),
            24 => (352, true),
            25 => (344, true),
            26 => (352, true),
            _ => return None,
        };
        Some(GoLabels { goroutines, g_labels, is_slice })
    }
}
