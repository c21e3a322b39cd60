//! Folded stacks: `comm;root;…;leaf N`, a line for each different stack, sorted.
//!
//! The first field is always the name of the process, `[unknown]` if the sample has no label
//! `comm`, so that a reader need not guess. Kernel frames end in `_[k]`, inlined ones in `_[i]`, JIT
//! ones in `_[j]`; a kernel function inlined into another is marked as kernel. Names are changed
//! where they would break the line, see [`super::frame_text`]. Stacks whose sum is not positive are
//! left out: the format has no sign, and readers take 0 for an error.

use std::collections::BTreeMap;
use std::io::Write;

use indexmap::IndexMap;

use super::frame_text::{NamedFrame, frames_of_location, safe_name};
use super::{ExportError, Options};
use crate::model::{Profile, StackId};

/// A frame path from root to leaf, as text, with its sum.
pub(super) type FoldedLines = BTreeMap<String, i64>;

/// The frames of every location, outermost first, in the order of [`Profile::locations`].
pub(super) fn frames_of_locations(profile: &Profile) -> Vec<Vec<NamedFrame<'_>>> {
    profile.locations.iter().map(|location| frames_of_location(profile, location)).collect()
}

/// Sums one value by stack and process name, in the order of the samples; the labels are otherwise left out.
pub(super) fn sums_by_stack<'a>(
    profile: &'a Profile,
    value: usize,
) -> IndexMap<(StackId, Option<&'a str>), i64> {
    let mut sums: IndexMap<(StackId, Option<&'a str>), i64> = IndexMap::new();
    for sample in &profile.samples {
        let comm = profile.label_text(sample, "comm").filter(|comm| !comm.is_empty());
        let sum = sums.entry((sample.stack, comm)).or_default();
        *sum = sum.saturating_add(sample.values.get(value).copied().unwrap_or(0));
    }
    sums
}

/// Whether any sample says to which process it belongs.
#[must_use]
pub fn has_comm(profile: &Profile) -> bool {
    profile.label_sets.iter().flatten().any(|label| label.key == "comm")
}

/// The lines of a profile. `with_comm` puts the process's name first.
pub(super) fn lines(profile: &Profile, value: usize, with_comm: bool) -> FoldedLines {
    let texts: Vec<String> = frames_of_locations(profile)
        .iter()
        .map(|frames| frames.iter().map(NamedFrame::folded).collect::<Vec<_>>().join(";"))
        .collect();
    let mut lines = FoldedLines::new();
    for ((stack, comm), sum) in sums_by_stack(profile, value) {
        let mut line = String::new();
        if with_comm {
            line.push_str(&safe_name(comm.unwrap_or("[unknown]")));
        }
        let stack = profile.stacks.get(stack).unwrap_or_default();
        for &location in stack.iter().rev() {
            if !line.is_empty() {
                line.push(';');
            }
            line.push_str(texts.get(location as usize).map_or("[unknown]", String::as_str));
        }
        if line.is_empty() {
            line.push_str("[unknown]");
        }
        let total = lines.entry(line).or_default();
        *total = total.saturating_add(sum);
    }
    lines.retain(|_, sum| *sum > 0);
    lines
}

/// Writes folded stacks of one value, by default the first.
///
/// # Errors
/// [`ExportError::Stream`].
pub fn write(profile: &Profile, writer: &mut dyn Write, options: &Options) -> Result<(), ExportError> {
    for (line, sum) in lines(profile, options.value.unwrap_or(0), true) {
        writeln!(writer, "{line} {sum}")?;
    }
    Ok(())
}
