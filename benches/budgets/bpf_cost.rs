//! BPF time per sample and per user frame, by depth of the stack.

use anyhow::Result;

use crate::report::{Bound, Figure, Section};
use crate::{Context, recorder::Recording};

/// Through how many functions the stacks of a load lead, and how deep they are. Which of them is like the load of the peer's
/// figures (GROUND.md, 22.6 µs) the machine decides, so the budgets are of both: among 4096 functions hardly a return address
/// is met twice before a processor's caches have forgotten its rule. On a Xeon with much cache the peer took 21.6 µs for that,
/// on an EPYC whose caches others share it takes 27 to 32, and 23 to 24 among 128.
const LOADS: [(u32, &[u32]); 2] = [(128, &[10, 30, 45, 100]), (4096, &[10, 30, 45, 100])];

/// Runs it.
pub fn section(context: &mut Context) -> Section {
    let rows = context.rows_alive();
    let mut section = Section::new(
        "BPF time",
        &format!(
            "kernel's own run-time statistics, whole host at 997 Hz for {} s, all processors busy in fixtures/bench/deep.c, each stack along \
             another path; {} unwind rows in the objects of living processes ({})",
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
    for (functions, depths) in LOADS {
        measure_load(context, section, functions, depths)?;
    }
    Ok(())
}

fn measure_load(context: &Context, section: &mut Section, functions: u32, depths: &[u32]) -> Result<()> {
    let mut cost_by_depth = Vec::new();
    for &depth in depths {
        let _load = context.deep.start_among(functions, depth, context.processors)?;
        let (mut per_sample, mut per_frame, mut frames, mut complete) = (vec![], vec![], vec![], vec![]);
        for run in 0..context.runs {
            let recording = Recording {
                frequency_hz: 997,
                seconds: context.seconds(8),
                cache: &context.warm_cache,
                output: context.scratch.path().join(format!("bpf-{functions}-{depth}-{run}.folded")),
            };
            let recorded = recording.run()?;
            let statistics = &recorded.statistics;
            per_sample.push(statistics.bpf_us_per_sample());
            frames.push(statistics.user_frames_per_sample());
            per_frame.push(statistics.bpf_run_ms * 1e6 / statistics.frames.user as f64);
            complete.push(statistics.complete_percent());
            let incomplete = statistics.incomplete();
            if !incomplete.is_empty() {
                section
                    .note(format!("not complete, {depth} frames among {functions}, run {run}: {incomplete}"));
            }
        }
        let mut add = |figure: Figure, bound: Option<Bound>| {
            section.add(match bound {
                Some(bound) => figure.bounded(bound),
                None => figure,
            });
        };
        let load = format!("{depth} frames among {functions} functions");
        let sample = Figure::new(format!("a sample, {load}"), "µs", per_sample);
        let frames = Figure::new("… user frames of the average sample", "frames", frames);
        if let (Some(cost), Some(depth_measured)) = (sample.median(), frames.median()) {
            cost_by_depth.push((depth_measured, cost));
        }
        add(sample, (depth == 30).then_some(Bound::AtMost(5.0)));
        add(frames, None);
        // What a sample costs besides its frames is divided by few of them in a shallow stack. The peers'
        // figures are of 45.
        let per_frame = Figure::new("… per user frame, all of the sample's cost", "ns", per_frame);
        add(per_frame, (depth == 45).then_some(Bound::AtMost(150.0)));
        add(Figure::new("… complete user stacks", "%", complete), Some(Bound::AtLeast(99.5)));
    }
    if let (Some(&(shallow, cheap)), Some(&(deep, dear))) = (cost_by_depth.first(), cost_by_depth.last()) {
        let marginal = (dear - cheap) * 1e3 / (deep - shallow);
        let what = format!("one more user frame among {functions} functions (slope)");
        section.add(Figure::new(what, "ns", vec![marginal]).bounded(Bound::AtMost(150.0)));
    }
    Ok(())
}
