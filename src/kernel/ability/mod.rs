//! What this kernel lets this user do.
//!
//! Comes in: nothing. Goes out: a [`Survey`]: every [`Ability`] present, missing or unknown, what it
//! costs to go without, and how to get it. Never: the kernel's version number as an answer. A
//! distribution's kernel has what was ported back to it, lacks what was configured away, and a
//! container's user may do less than either; so each ability is asked for by using it
//! ([`attempt`]), by libbpf's feature probes, or by reading the setting that decides ([`setting`]).
//!
//! One trap governs the order: libbpf's probes take every refusal of a program type for "not
//! supported" and every refusal of a helper for "supported", the refusal of an unprivileged user
//! included. So they are only asked once a program has been loaded by us; otherwise the answer is
//! unknown, with that reason.

mod asking;
mod attempt;
mod question;
mod setting;

use std::cell::OnceCell;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use super::{KernelError, ProcessMaps, Sampler, SamplerOptions};

pub use setting::Setting;

use setting::Capabilities;

/// Whether an ability is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It was used, just now.
    Present,
    /// The kernel does not have it, or this user may not use it.
    Missing,
    /// It could not be asked for.
    Unknown,
}

impl State {
    /// The word in the table and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
        }
    }
}

/// Something that spanflame uses of the kernel, and whether it can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ability {
    /// Short and stable.
    pub name: &'static str,
    /// Whether `record` cannot work without it.
    pub required: bool,
    /// Whether it is there.
    pub state: State,
    /// What was seen: a path, the kernel's refusal, the reason why nothing is known.
    pub detail: String,
    /// What goes without it, one sentence.
    pub cost: &'static str,
    /// How to get it.
    pub remedy: &'static str,
}

/// What was found out about one ability.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    state: State,
    detail: String,
}

impl Finding {
    fn present(detail: impl Into<String>) -> Self {
        Self { state: State::Present, detail: detail.into() }
    }

    fn missing(detail: impl Into<String>) -> Self {
        Self { state: State::Missing, detail: detail.into() }
    }

    fn unknown(detail: impl Into<String>) -> Self {
        Self { state: State::Unknown, detail: detail.into() }
    }
}

/// What several questions need to know, found out once.
#[derive(Debug)]
struct Host {
    capabilities: io::Result<Capabilities>,
    /// Whether a program could be loaded, which decides whether libbpf's probes can be believed.
    load: io::Result<()>,
    cpu: i32,
    sampler: OnceCell<Result<LoadedSampler, String>>,
}

/// What loading the programs that take samples showed.
#[derive(Debug, Clone, Copy)]
struct LoadedSampler {
    took: Duration,
    /// Nothing if the programs could be loaded and the question could not be asked.
    follows_generated_code: Option<bool>,
}

impl Host {
    fn look() -> Self {
        Self {
            capabilities: Capabilities::read(),
            load: attempt::load_perf_event_program().map(drop),
            cpu: setting::first_online_cpu(),
            sampler: OnceCell::new(),
        }
    }

    /// Loads the programs that take samples, once, and lets go of them.
    fn sampler(&self) -> &Result<LoadedSampler, String> {
        self.sampler.get_or_init(|| {
            let options = SamplerOptions {
                frequency_hz: 1,
                only_targets: true,
                ring_buffer_bytes: 1 << 16,
                exclude_agent: true,
            };
            let begun = Instant::now();
            let loaded = ProcessMaps::create().and_then(|(maps, _)| Sampler::load(&options, None, &maps));
            // It has libbpf speak into our log; the questions that follow are to be refused in silence.
            libbpf_rs::set_print(None);
            let follows_generated_code = match loaded {
                Ok(sampler) => Some(sampler.follows_generated_code()),
                // It is asked once they are loaded, and has a question of its own.
                Err(KernelError::PidNamespace { .. }) => None,
                Err(error) => return Err(error.to_string()),
            };
            Ok(LoadedSampler { took: begun.elapsed(), follows_generated_code })
        })
    }
}

/// All abilities of this kernel and this user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Release of the running kernel, for the reader; nothing is decided by it.
    pub kernel: String,
    /// In the order in which a person wants to read them: what is required first.
    pub abilities: Vec<Ability>,
    /// Settings that decide about abilities.
    pub settings: Vec<Setting>,
}

impl Survey {
    /// Asks for everything, in well under a second. Needs no privileges: what an unprivileged user
    /// cannot ask is unknown.
    #[must_use]
    pub fn take() -> Self {
        // A refusal is an answer here, and not one for standard error.
        let print_before = libbpf_rs::set_print(None);
        let host = Host::look();
        let abilities = question::ALL
            .iter()
            .map(|question| {
                let Finding { state, detail } = (question.ask)(&host);
                Ability {
                    name: question.name,
                    required: question.required,
                    state,
                    detail,
                    cost: question.cost,
                    remedy: question.remedy,
                }
            })
            .collect();
        libbpf_rs::set_print(print_before);
        Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map(|release| release.trim().to_owned())
                .unwrap_or_default(),
            abilities,
            settings: setting::read_all(),
        }
    }

    /// Required abilities that are missing; recording is possible when there are none.
    pub fn obstacles(&self) -> impl Iterator<Item = &Ability> {
        self.abilities.iter().filter(|ability| ability.required && ability.state == State::Missing)
    }

    /// How many abilities are in this state.
    #[must_use]
    pub fn count(&self, state: State) -> usize {
        self.abilities.iter().filter(|ability| ability.state == state).count()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_ability_says_once_what_it_costs_and_how_to_get_it() {
        let mut names = HashSet::new();
        for question in question::ALL {
            assert!(names.insert(question.name), "{} is asked twice", question.name);
            assert!(question.cost.ends_with('.'), "{}: the cost is a sentence", question.name);
            assert!(!question.remedy.is_empty(), "{} has no remedy", question.name);
        }
    }

    #[test]
    fn a_survey_answers_every_question_with_what_was_seen() {
        let survey = Survey::take();
        assert_eq!(survey.abilities.len(), question::ALL.len());
        assert_eq!(
            survey.count(State::Present) + survey.count(State::Missing) + survey.count(State::Unknown),
            survey.abilities.len()
        );
        for ability in &survey.abilities {
            assert!(!ability.detail.is_empty(), "{} does not say what was seen", ability.name);
        }
    }

    #[test]
    fn what_cannot_be_asked_without_loading_a_program_is_unknown_rather_than_missing() {
        let host = Host {
            capabilities: Err(io::Error::other("not read")),
            load: Err(io::Error::from_raw_os_error(libc::EPERM)),
            cpu: 0,
            sampler: OnceCell::new(),
        };
        for name in [
            "bpf_loop",
            "ring_buffer",
            "task_storage",
            "sock_ops",
            "sk_msg",
            "read_kernel_memory",
            "generated_code",
        ] {
            let question = question::ALL.iter().find(|question| question.name == name).unwrap();
            assert_eq!((question.ask)(&host).state, State::Unknown, "{name}");
        }
        let load = question::ALL.iter().find(|question| question.name == "bpf_load").unwrap();
        assert_eq!((load.ask)(&host).state, State::Missing);
    }
}
