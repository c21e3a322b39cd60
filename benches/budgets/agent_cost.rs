//! What the agent itself takes: CPU at three rates, memory, bytes of its maps.

use std::time::Duration;

use anyhow::Result;

use crate::Context;
use crate::measured_process::{BpfBefore, watch};
use crate::recorder::Recording;
use crate::report::{Bound, Figure, Section};

/// Runs it.
pub fn section(context: &mut Context) -> Section {
    let mut section = Section::new(
        "Agent: CPU and memory",
        &format!(
            "whole host, all processors busy 45 user frames deep, idle company {}; steady CPU is user + system over {} s from the \
             third second on, total CPU is the whole program from start to written file; shares are of the whole machine",
            context.company_names(),
            context.seconds(10)
        ),
    );
    for frequency_hz in [19, 99, 997] {
        let load = context.deep.start(45, context.processors);
        if let Err(error) = load.and_then(|_load| measure(context, frequency_hz, "", &mut section)) {
            section.missing(format!("agent at {frequency_hz} Hz"), &error);
        }
    }
    section
}

/// Measures the agent beside a load that is `under` something, which the figures' names end in.
pub fn measure(context: &Context, frequency_hz: u32, under: &str, section: &mut Section) -> Result<()> {
    let window_s = context.seconds(10);
    let (mut steady, mut total, mut stated, mut memory, mut maps) = (vec![], vec![], vec![], vec![], vec![]);
    for run in 0..context.runs {
        let before = BpfBefore::take();
        let recording = Recording {
            frequency_hz,
            seconds: window_s + 5,
            cache: &context.warm_cache,
            output: context.scratch.path().join(format!("agent-{frequency_hz}{under}-{run}.pb.gz")),
        };
        let started = recording.start()?;
        let watched =
            watch(started.pid(), &before, Duration::from_secs(3), Duration::from_secs(window_s.into()));
        let recorded = started.finish()?;
        let (used, _) = watched?;
        let processors = context.processors as f64;
        steady.push(used.cpu_percent_of_core / processors);
        total.push(recorded.cpu_ms / 10.0 / recorded.wall_s / processors);
        stated.push(recorded.statistics.agent_cpu_ms / 10.0 / recorded.wall_s / processors);
        memory.push(recorded.statistics.agent_peak_memory_bytes as f64 / 1e6);
        maps.push(recorded.statistics.bpf_map_bytes as f64 / 1e6);
    }
    let steady = Figure::new(format!("steady CPU at {frequency_hz} Hz{under}"), "% of the machine", steady);
    section.add(if frequency_hz == 99 { steady.bounded(Bound::AtMost(0.5)) } else { steady });
    section.add(Figure::new(
        format!("total CPU at {frequency_hz} Hz, start and symbols included{under}"),
        "% of the machine",
        total,
    ));
    section.add(Figure::new("… as its statistics say", "% of the machine", stated));
    section.add(
        Figure::new(format!("peak memory at {frequency_hz} Hz (VmHWM){under}"), "MB", memory)
            .bounded(Bound::AtMost(150.0)),
    );
    section.add(Figure::new(format!("BPF maps at {frequency_hz} Hz{under}"), "MB", maps));
    Ok(())
}
