//! What a person is told of a recording: at its end, and in the profile itself.

use std::fmt;
use std::path::Path;

use super::statistics::{SampleAccount, StackAccount};
use crate::model::{Label, Profile};

/// What a person is told at the end.
pub(super) struct Summary<'a> {
    pub(super) samples: &'a SampleAccount,
    pub(super) stacks: &'a StackAccount,
    pub(super) output: &'a Path,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_user = self.samples.written - self.stacks.no_user;
        let share =
            if with_user == 0 { 100.0 } else { self.stacks.complete as f64 * 100.0 / with_user as f64 };
        write!(
            formatter,
            "Wrote {} samples to {} ({share:.1} % of user stacks complete",
            self.samples.written,
            self.output.display()
        )?;
        let lost: u64 = self.samples.lost.values().sum();
        if lost > 0 {
            write!(formatter, "; {lost} lost: {:?}", self.samples.lost)?;
        }
        formatter.write_str(")")
    }
}

/// The account of samples goes into the profile, so that it can be read from the file alone.
pub(super) fn add_comments(profile: &mut Profile, samples: &SampleAccount) {
    profile.comments.push(format!("spanflame {}", env!("CARGO_PKG_VERSION")));
    profile
        .comments
        .push(format!("taken={} written={} idle={}", samples.taken, samples.written, samples.idle));
    for (reason, count) in &samples.lost {
        profile.comments.push(format!("lost {reason}={count}"));
    }
    debug_assert!(
        profile.label_sets.iter().all(|labels| labels.is_sorted_by_key(|label: &Label| &label.key))
    );
}
