//! `spanflame doctor`: what this kernel and this user permit, and with `--pid` what is known of the
//! code of a process. Changes nothing, needs no privileges, and says what they would add.

mod process;

use std::collections::HashMap;
use std::io::{self, Write};

use anyhow::{Context, anyhow};
use serde::Serialize;

use self::process::ProcessReport;
use super::CommandError;
use crate::kernel::ability::{Ability, State, Survey};

/// Options of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    sudo spanflame doctor              what works here, what does not, and what that costs\n  \
    sudo spanflame doctor --pid 1234   can the stacks of this process be unwound and named?\n  \
    spanflame doctor --json | jq '.abilities[] | select(.state != \"present\")'\n\n\
    Exit code: 0 when recording is possible, 1 when a required ability is missing.")]
pub struct Args {
    /// Look at this process too: its executable mappings, their unwind information and symbols
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,
    /// One JSON object on standard output instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// [`CommandError::Failed`] when a required ability is missing, after the report was written;
/// [`CommandError::Usage`] for a process that does not exist; [`CommandError::ExportFailed`] when
/// standard output cannot be written.
#[allow(clippy::needless_pass_by_value)] // A subcommand owns its arguments.
pub fn run(args: Args) -> Result<(), CommandError> {
    let process = args.pid.map(ProcessReport::read).transpose().map_err(CommandError::Usage)?;
    let survey = Survey::take();
    let report = Report::new(&survey, process);
    let text = if args.json {
        let mut json =
            serde_json::to_string_pretty(&report).context("the report cannot be written as JSON")?;
        json.push('\n');
        json
    } else {
        report.to_text()
    };
    let mut output = io::stdout().lock();
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .context("cannot write the report to standard output")
        .map_err(CommandError::ExportFailed)?;
    if report.summary.can_record { Ok(()) } else { Err(anyhow!("{}", report.summary.sentence).into()) }
}

/// What is printed; the field names are those of the JSON.
#[derive(Debug, Serialize)]
struct Report<'survey> {
    kernel: &'survey str,
    /// Effective user id.
    user_id: u32,
    summary: Summary,
    abilities: Vec<AbilityReport<'survey>>,
    settings: Vec<SettingReport<'survey>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<ProcessReport>,
}

#[derive(Debug, Serialize)]
struct Summary {
    can_record: bool,
    present: usize,
    missing: usize,
    unknown: usize,
    /// Names of required abilities that are missing.
    obstacles: Vec<&'static str>,
    sentence: String,
}

#[derive(Debug, Serialize)]
struct AbilityReport<'survey> {
    name: &'survey str,
    state: &'static str,
    required: bool,
    detail: &'survey str,
    cost: &'survey str,
    remedy: &'survey str,
}

#[derive(Debug, Serialize)]
struct SettingReport<'survey> {
    name: &'survey str,
    /// `null` when it could not be read.
    value: Option<&'survey str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'survey str>,
}

impl<'survey> From<&'survey Ability> for AbilityReport<'survey> {
    fn from(ability: &'survey Ability) -> Self {
        Self {
            name: ability.name,
            state: ability.state.name(),
            required: ability.required,
            detail: &ability.detail,
            cost: ability.cost,
            remedy: ability.remedy,
        }
    }
}

impl<'survey> Report<'survey> {
    fn new(survey: &'survey Survey, process: Option<ProcessReport>) -> Self {
        let obstacles: Vec<&'static str> = survey.obstacles().map(|ability| ability.name).collect();
        let sentence = if obstacles.is_empty() {
            "recording is possible on this host by this user".to_owned()
        } else {
            format!("recording is not possible on this host by this user: missing {}", obstacles.join(", "))
        };
        Self {
            kernel: &survey.kernel,
            user_id: rustix::process::geteuid().as_raw(),
            summary: Summary {
                can_record: obstacles.is_empty(),
                present: survey.count(State::Present),
                missing: survey.count(State::Missing),
                unknown: survey.count(State::Unknown),
                obstacles,
                sentence,
            },
            abilities: survey.abilities.iter().map(AbilityReport::from).collect(),
            settings: survey
                .settings
                .iter()
                .map(|setting| SettingReport {
                    name: setting.name,
                    value: setting.value.as_deref().ok(),
                    reason: setting.value.as_ref().err().map(String::as_str),
                })
                .collect(),
            process,
        }
    }

    fn to_text(&self) -> String {
        let mut lines = vec![
            format!("kernel {}, user id {}", self.kernel, self.user_id),
            self.summary.sentence.clone(),
            String::new(),
        ];
        // One remedy, mostly to be root, serves many abilities; it is spelt out once.
        let mut spelt_out: HashMap<&str, &str> = HashMap::new();
        for ability in &self.abilities {
            let mark = if ability.required { "*" } else { " " };
            lines.push(format!("{:8}{mark} {:24}{}", ability.state, ability.name, ability.detail));
            if ability.state != State::Present.name() {
                lines.push(format!("{:10}{:24}costs: {}", "", "", ability.cost));
                let first = *spelt_out.entry(ability.remedy).or_insert(ability.name);
                let remedy = if first == ability.name { ability.remedy } else { &format!("as for {first}") };
                lines.push(format!("{:10}{:24}get it: {remedy}", "", ""));
            }
        }
        lines.push("(* required by `spanflame record`)".to_owned());
        lines.push(String::new());
        for setting in &self.settings {
            let shown = match (setting.value, setting.reason) {
                (Some(value), _) => value.to_owned(),
                (None, reason) => format!("unknown ({})", reason.unwrap_or_default()),
            };
            lines.push(format!("{:34}{shown}", setting.name));
        }
        if let Some(process) = &self.process {
            lines.push(String::new());
            process.append_text(&mut lines);
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(state: State) -> Survey {
        Survey {
            kernel: "6.1.0".to_owned(),
            abilities: vec![Ability {
                name: "btf",
                required: true,
                state,
                detail: "seen".to_owned(),
                cost: "It costs.",
                remedy: "Get it.",
            }],
            settings: Vec::new(),
        }
    }

    #[test]
    fn only_a_missing_required_ability_prevents_recording() {
        for (state, can_record) in [(State::Present, true), (State::Unknown, true), (State::Missing, false)] {
            let survey = survey(state);
            let report = Report::new(&survey, None);
            assert_eq!(report.summary.can_record, can_record, "{state:?}");
            assert_eq!(report.summary.obstacles.is_empty(), can_record);
        }
    }

    #[test]
    fn cost_and_remedy_are_shown_where_something_is_missing() {
        assert!(Report::new(&survey(State::Missing), None).to_text().contains("costs: It costs."));
        assert!(!Report::new(&survey(State::Present), None).to_text().contains("costs:"));
    }
}
