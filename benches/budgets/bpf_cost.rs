//! BPF time per sample and per user frame, by depth of the stack.

use anyhow::Result;

use crate::report::{Bound, Figure, Section};
use crate::{Context, recorder::Recording};

const DEPTHS: [u32; 4] = [10, 30, 45, 100];

/// Runs it.
pub fn section(context: &mut Context) -> Section {
    let rows = context.rows_alive();
    let mut section = Section::new(
        "BPF time",
        &format!(
            "kernel's own run-time statistics, whole host at 997 Hz for {} s, all processors busy in fixtures/bench/deep.c; \
             {} unwind rows in the objects of living processes ({})",
            context.seconds(8),
            rows,
            context.company_names()
        ),
    );
    if let Err(error) = measure(context, &mut section) {
        section.missing("BPF time", &error);
    }
    section
}

fn measure(context: &Context, section: &mut Section) -> Result<()> {
    let mut cost_by_depth = Vec::new();
    for depth in DEPTHS {
        let _load = context.deep.start(depth, context.processors)?;
        let (mut per_sample, mut per_frame, mut frames, mut complete) = (vec![], vec![], vec![], vec![]);
        for run in 0..context.runs {
            let recording = Recording {
                frequency_hz: 997,
                seconds: context.seconds(8),
                cache: &context.warm_cache,
                output: context.scratch.path().join(format!("bpf-{depth}-{run}.folded")),
            };
            let recorded = recording.run()?;
            let statistics = &recorded.statistics;
            per_sample.push(statistics.bpf_us_per_sample());
            frames.push(statistics.user_frames_per_sample());
            per_frame.push(statistics.bpf_run_ms * 1e6 / statistics.frames.user as f64);
            complete.push(statistics.complete_percent());
        }
        let sample = Figure::new(format!("a sample, load {depth} frames deep"), "µs", per_sample);
        let frames =
            Figure::new(format!("… user frames of the average sample, load {depth}"), "frames", frames);
        if let (Some(cost), Some(depth_measured)) = (sample.median(), frames.median()) {
            cost_by_depth.push((depth_measured, cost));
        }
        section.add(if depth == 30 { sample.bounded(Bound::AtMost(5.0)) } else { sample });
        section.add(frames);
        // What a sample costs besides its frames is divided by few of them in a shallow stack. The peers'
        // figures are of this load.
        let per_frame =
            Figure::new(format!("… per user frame, all of the sample's cost, load {depth}"), "ns", per_frame);
        section.add(if depth == 45 { per_frame.bounded(Bound::AtMost(150.0)) } else { per_frame });
        section.add(
            Figure::new(format!("… complete user stacks, load {depth}"), "%", complete)
                .bounded(Bound::AtLeast(99.5)),
        );
    }
    if let (Some(&(shallow, cheap)), Some(&(deep, dear))) = (cost_by_depth.first(), cost_by_depth.last()) {
        let marginal = (dear - cheap) * 1e3 / (deep - shallow);
        section.add(
            Figure::new("one more user frame (slope, least to greatest depth)", "ns", vec![marginal])
                .bounded(Bound::AtMost(150.0)),
        );
    }
    Ok(())
}
