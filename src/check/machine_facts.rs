//! What a run was made on, and whether two runs can be compared for all that.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Side;

/// What is known of the machine and of the recording. What is not known is absent, and no reason to refuse.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineFacts {
    /// Model of the CPU, as `/proc/cpuinfo` calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_model: Option<String>,
    /// CPUs that the program could use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// `x86_64`, `aarch64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Release of the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Governor of the CPUs' frequency; several are joined by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub governor: Option<String>,
    /// Samples a second and CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling_hz: Option<f64>,
    /// Samples that were taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples_taken: Option<u64>,
    /// Samples that were lost, whatever the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples_lost: Option<u64>,
    /// Share of the CPUs' time that the hypervisor gave to others, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steal_share: Option<f64>,
    /// Share of the CPUs' time that other processes of this machine took, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others_share: Option<f64>,
}

/// Something in which the sides differ, so that a difference in cost need not be the program's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FactDifference {
    /// What differs (`cpu_model`).
    pub fact: &'static str,
    /// On the base's side.
    pub base: String,
    /// On the new side.
    pub new: String,
}

/// A greater difference of the shares of lost samples is one: losses are not spread evenly over a program.
const LOST_SHARE: f64 = 0.02;
/// A greater difference of what others took of the machine is one.
const TAKEN_SHARE: f64 = 0.1;

/// In what the machines of the sides differ, of what is known of both.
pub(super) fn differences(base: &Side, new: &Side) -> Vec<FactDifference> {
    let mut differences = Vec::new();
    let mut texts = |fact: &'static str, text: fn(&MachineFacts) -> Option<String>| {
        let of = |side: &Side| -> BTreeSet<String> {
            side.runs.iter().filter_map(|run| text(&run.facts.machine)).collect()
        };
        let (base, new) = (of(base), of(new));
        if !base.is_empty() && !new.is_empty() && base != new {
            let joined = |values: BTreeSet<String>| values.into_iter().collect::<Vec<_>>().join(" and ");
            differences.push(FactDifference { fact, base: joined(base), new: joined(new) });
        }
    };
    texts("cpu_model", |machine| machine.cpu_model.clone());
    texts("cpus", |machine| machine.cpus.map(|cpus| cpus.to_string()));
    texts("architecture", |machine| machine.architecture.clone());
    texts("kernel", |machine| machine.kernel.clone());
    texts("governor", |machine| machine.governor.clone());
    texts("sampling_hz", |machine| machine.sampling_hz.map(|hertz| hertz.to_string()));

    let mut shares = |fact: &'static str, most: f64, share: fn(&MachineFacts) -> Option<f64>| {
        // Of runs that took turns, a neighbour that woke up during one has not disturbed a side: hence the median.
        let of = |side: &Side| {
            let mut shares: Vec<f64> = side.runs.iter().filter_map(|run| share(&run.facts.machine)).collect();
            shares.sort_by(f64::total_cmp);
            let (low, high) = (shares.get(shares.len().checked_sub(1)? / 2)?, shares.get(shares.len() / 2)?);
            Some(f64::midpoint(*low, *high))
        };
        if let (Some(base), Some(new)) = (of(base), of(new))
            && (base - new).abs() > most
        {
            let percent = |share: f64| format!("{:.1} %", share * 100.0);
            differences.push(FactDifference { fact, base: percent(base), new: percent(new) });
        }
    };
    shares("samples_lost", LOST_SHARE, |machine| {
        let (lost, taken) = (machine.samples_lost? as f64, machine.samples_taken? as f64);
        (taken > 0.0).then(|| lost / taken)
    });
    shares("steal_share", TAKEN_SHARE, |machine| machine.steal_share);
    shares("others_share", TAKEN_SHARE, |machine| machine.others_share);
    differences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::test_sides::side_of_machines;

    fn taken_by_others(shares: &[f64]) -> Side {
        let machine = |&share: &f64| MachineFacts { others_share: Some(share), ..MachineFacts::default() };
        side_of_machines(shares.iter().map(machine))
    }

    #[test]
    fn a_neighbour_that_woke_up_once_makes_no_other_machine_and_one_that_stays_does() {
        let quiet = taken_by_others(&[0.01, 0.02, 0.01, 0.02]);
        assert!(differences(&taken_by_others(&[0.01, 0.9, 0.02, 0.01]), &quiet).is_empty());
        let [difference] = &differences(&taken_by_others(&[0.4, 0.5, 0.4, 0.02]), &quiet)[..] else {
            panic!("one difference")
        };
        assert_eq!(
            (difference.fact, &*difference.base, &*difference.new),
            ("others_share", "40.0 %", "1.5 %")
        );
    }

    #[test]
    fn what_is_not_known_of_a_side_is_no_difference() {
        assert!(differences(&taken_by_others(&[0.9; 4]), &side_of_machines([])).is_empty());
    }
}
