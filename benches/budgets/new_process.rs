//! From the exec of a process that the agent has not seen to its first complete stack.
//!
//! Folded stacks carry no times. Each new process runs under a name of its own and burns CPU from
//! main, so its ticks are a clock: those whose stack does not reach `_start` came before the first
//! complete one, at one tick a millisecond.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::Context;
use crate::recorder::Recording;
use crate::report::{Bound, Figure, Section};
use crate::workload::Running;

const FREQUENCY_HZ: u32 = 997;
const PROCESSES: u64 = 12;

/// Runs it.
pub fn section(context: &mut Context) -> Section {
    let mut section = Section::new(
        "New processes",
        &format!(
            "{PROCESSES} processes exec'd one after the other during one recording at {FREQUENCY_HZ} Hz, each busy for 400 ms: CPU \
             time before their first complete stack, in ticks"
        ),
    );
    for unseen in [false, true] {
        let name = if unseen { "executable never seen" } else { "executable known" };
        match measure(context, unseen) {
            Ok(delays) => section.add(
                Figure::new(format!("exec to first complete stack, {name}"), "ms", delays)
                    .bounded(Bound::AtMost(50.0)),
            ),
            Err(error) => section.missing(name, &error),
        }
    }
    section
}

fn measure(context: &Context, unseen: bool) -> Result<Vec<f64>> {
    let folder = tempfile::tempdir()?;
    let kind = if unseen { "new" } else { "old" };
    for serial in 0..PROCESSES {
        let executable = folder.path().join(format!("{kind}{serial:02}"));
        if unseen {
            context.deep.link_unseen(&executable, serial)?;
        } else {
            fs::copy(context.deep.executable(), &executable)?;
        }
    }
    let output = context.scratch.path().join(format!("exec-{kind}.folded"));
    let recording = Recording {
        frequency_hz: FREQUENCY_HZ,
        seconds: 12,
        cache: &context.warm_cache,
        output: output.clone(),
    };
    let started = recording.start()?;
    std::thread::sleep(Duration::from_secs(3));
    for serial in 0..PROCESSES {
        let executable = folder.path().join(format!("{kind}{serial:02}"));
        let mut running = Running::start(std::process::Command::new(executable).args(["30", "0", "0.4"]))?;
        running.child().wait()?;
    }
    started.finish()?;

    let folded = fs::read_to_string(&output)?;
    let mut delays = Vec::new();
    for serial in 0..PROCESSES {
        let name = format!("{kind}{serial:02}");
        let (mut complete, mut incomplete) = (0_u64, 0_u64);
        for line in folded.lines() {
            let Some((stack, count)) = line.rsplit_once(' ') else { continue };
            let mut frames = stack.split(';');
            if frames.next() != Some(name.as_str()) {
                continue;
            }
            let count: u64 = count.parse().with_context(|| format!("no count in {line:?}"))?;
            // The dynamic linker's own _start is a root as good as the program's.
            if frames.next().is_some_and(|root| root.starts_with("_start")) {
                complete += count;
            } else {
                incomplete += count;
            }
        }
        anyhow::ensure!(
            complete > 0,
            "process {name} has no complete stack at all ({incomplete} incomplete)"
        );
        delays.push(incomplete as f64 * 1e3 / f64::from(FREQUENCY_HZ));
    }
    Ok(delays)
}
