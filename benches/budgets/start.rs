//! From the start of the agent to its first sample, and to its first complete stack.

use anyhow::Result;

use crate::Context;
use crate::recorder::Recording;
use crate::report::{Bound, Figure, Section};

/// Runs it.
pub fn section(context: &mut Context) -> Section {
    let mut section = Section::new(
        "Start",
        &format!(
            "`record` of the whole host at 99 Hz, all processors busy 45 user frames deep, idle company {}; cold: an empty \
             cache folder each time (files are in the page cache either way)",
            context.company_names()
        ),
    );
    for cold in [true, false] {
        if let Err(error) = measure(context, cold, &mut section) {
            section.missing(if cold { "start, cache cold" } else { "start, cache warm" }, &error);
        }
    }
    section
}

fn measure(context: &Context, cold: bool, section: &mut Section) -> Result<()> {
    let _load = context.deep.start(45, context.processors)?;
    let (mut first, mut complete) = (vec![], vec![]);
    for run in 0..context.runs + 2 {
        let empty = tempfile::tempdir()?;
        let recording = Recording {
            frequency_hz: 99,
            seconds: 3,
            cache: if cold { empty.path() } else { &context.warm_cache },
            output: context.scratch.path().join(format!("start-{cold}-{run}.folded")),
        };
        let statistics = recording.run()?.statistics;
        first.extend(statistics.start_to_first_sample_ms);
        complete.extend(statistics.start_to_first_complete_ms);
    }
    let (name, bound_ms) = if cold { ("cold", 1000.0) } else { ("warm", 300.0) };
    section.add(Figure::new(format!("start to first sample, cache {name}"), "ms", first));
    section.add(
        Figure::new(format!("start to first complete sample, cache {name}"), "ms", complete)
            .bounded(Bound::AtMost(bound_ms)),
    );
    Ok(())
}
