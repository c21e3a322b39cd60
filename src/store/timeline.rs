//! How much each window has of what is selected: by window, and in steps of time.

use super::block::Samples;
use super::error::StoreError;
use super::query::{Selected, Source, Times, asked_for, value_type};
use super::segment::broken;
use super::selection::Selection;
use super::windows::Windows;
use super::{MAX_POINTS, Selector, TimeRange, Timeline, WindowValue, WindowValues};

/// See [`WindowStore::windows`](super::WindowStore::windows).
pub(super) fn windows(
    source: &Source<'_>,
    selector: &Selector,
    range: TimeRange,
) -> Result<WindowValues, StoreError> {
    let mut found = values(source, selector, range)?;
    found.windows.retain(|window| window.value != 0);
    if found.windows.len() as u64 > MAX_POINTS {
        return Err(StoreError::TooMuch { what: "windows", limit: MAX_POINTS as usize });
    }
    found.windows.sort_by_key(|window| (window.start_unix_ns, window.duration_ns));
    Ok(found)
}

/// See [`WindowStore::timeline`](super::WindowStore::timeline).
pub(super) fn timeline(
    source: &Source<'_>,
    selector: &Selector,
    range: TimeRange,
    step_ns: u64,
) -> Result<Timeline, StoreError> {
    let bad = |what: String| Err(StoreError::BadQuery { what });
    if step_ns == 0 {
        return bad("a step of nothing".to_owned());
    }
    let steps = range.to_unix_ns.saturating_sub(range.from_unix_ns).div_ceil(step_ns);
    if steps > MAX_POINTS {
        return bad(format!("{steps} steps; ask for at most {MAX_POINTS}"));
    }
    let mut steps = Steps { range, step_ns, values: vec![0; usize::try_from(steps).unwrap_or_default()] };
    let found = values(source, selector, range)?;
    for window in &found.windows {
        steps.add(window);
    }
    Ok(Timeline {
        value_type: found.value_type,
        from_unix_ns: range.from_unix_ns,
        step_ns,
        values: steps.values,
        coverage: found.coverage,
        matched: found.matched,
    })
}

/// All windows of the selected type, also those that have nothing of what is selected.
fn values(source: &Source<'_>, selector: &Selector, range: TimeRange) -> Result<WindowValues, StoreError> {
    let selection = Selection::new(selector)?;
    let mut found = WindowValues::default();
    let mut times = Times::default();
    source.visit(range, |reader, tables| {
        let selected = Selected::new(reader, tables, &selection)?;
        let mut by_thread = Windows::default();
        let mut of_segment: Vec<(i64, WindowValue)> = Vec::new();
        reader.windows(range, |window| {
            let failed = |what| broken(reader.path(), "window", what);
            let Some(value) = selected.value(window.format) else { return Ok(()) };
            let format = selected.tables.format(window.format).map_err(failed)?;
            let of = value_type(&selected, window.format).unwrap_or_else(|| asked_for(selector));
            // Nanoseconds and bytes of the same name do not add up.
            if *found.value_type.get_or_insert_with(|| of.clone()) != of {
                return Ok(());
            }
            times.add(window.start_ns, window.duration_ns);
            let mut sum = 0_i64;
            if selection.is_by_thread() {
                by_thread.add(&window, format, &selected).map_err(failed)?;
            } else {
                let add = |series, totals: &[i64]| {
                    if selected.has_series(series) {
                        found.matched = true;
                        sum = sum.saturating_add(totals.get(value).copied().unwrap_or(0));
                    }
                };
                window.totals(format, add).map_err(failed)?;
            }
            let (start_unix_ns, duration_ns) = (window.start_ns, window.duration_ns);
            of_segment.push((window.id, WindowValue { start_unix_ns, duration_ns, value: sum }));
            Ok(())
        })?;
        let failed = |what| broken(reader.path(), "block", what);
        by_thread.read(reader, |batch| {
            for (window, series, block) in batch.blocks() {
                let row = selected.tables.series(series).map_err(failed)?;
                let Some(value) = selected.value(row.format) else { continue };
                let factors = selected.tables.format(row.format).map_err(failed)?.expected_factors();
                let index = of_segment.binary_search_by_key(&window, |&(id, _)| id);
                let entry = index.ok().and_then(|index| of_segment.get_mut(index));
                let Some((_, WindowValue { value: sum, .. })) = entry else { continue };
                let mut samples = Samples::new(reader.layout(), block, &factors).map_err(failed)?;
                while let Some(thread) = samples.next_group().map_err(failed)? {
                    if selection.has_thread(&thread, &selected.tables).map_err(failed)? {
                        found.matched = true;
                        let add = |_, values: &[i64]| {
                            *sum = sum.saturating_add(values.get(value).copied().unwrap_or(0));
                        };
                        samples.read(add).map_err(failed)?;
                    }
                }
            }
            Ok(batch.cleared())
        })?;
        found.windows.extend(of_segment.into_iter().map(|(_, window)| window));
        Ok(())
    })?;
    found.coverage = times.coverage();
    Ok(found)
}

/// The steps of a time line.
struct Steps {
    range: TimeRange,
    step_ns: u64,
    values: Vec<i64>,
}

impl Steps {
    /// Divides the value of a window among the steps it spans, so that the parts add up to it exactly.
    fn add(&mut self, window: &WindowValue) {
        let (start_ns, value) = (window.start_unix_ns, window.value);
        let duration_ns = window.duration_ns.max(1);
        let end_ns = start_ns.saturating_add(duration_ns);
        // What of the value lies before a moment.
        let before = |moment_ns: u64| {
            let passed_ns = moment_ns.clamp(start_ns, end_ns) - start_ns;
            i128::from(value) * i128::from(passed_ns) / i128::from(duration_ns)
        };
        let step_of = |moment_ns: u64| moment_ns.saturating_sub(self.range.from_unix_ns) / self.step_ns;
        let last_ns = (end_ns - 1).min(self.range.to_unix_ns.saturating_sub(1));
        for step in step_of(start_ns)..=step_of(last_ns) {
            let from_ns = self.range.from_unix_ns.saturating_add(step.saturating_mul(self.step_ns));
            let to_ns = from_ns.saturating_add(self.step_ns).min(self.range.to_unix_ns);
            let Some(sum) = usize::try_from(step).ok().and_then(|step| self.values.get_mut(step)) else {
                return;
            };
            let part = before(to_ns) - before(from_ns);
            *sum = sum.saturating_add(i64::try_from(part).unwrap_or(0));
        }
    }
}
