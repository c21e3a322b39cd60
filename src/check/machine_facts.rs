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
        let of = |side: &Side| {
            let shares: Vec<f64> = side.runs.iter().filter_map(|run| share(&run.facts.machine)).collect();
            (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
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
