//! CPU time of this process, by the crate `pprof`: a timer signal each so much CPU time, and a stack from its
//! handler. It works without any permission, so it also tells what the sampler itself costs where that may
//! not run.
//!
//! A signal that arrives in the C library or the loader is not unwound, since that could wait for a lock that
//! the interrupted code holds: those samples are missing, and the profile says so.

use std::time::{Duration, Instant, SystemTime};

use crate::model::{
    Frame, Function, Interner, Label, Location, Mapping, Profile, Sample, SliceInterner, ValueType,
};

/// Libraries in which a stack is not taken.
const NOT_UNWOUND: [&str; 4] = ["libc.", "libgcc", "ld-linux", "vdso"];
const TURN: Duration = Duration::from_millis(100);

/// Looks on for `duration`, less if nobody waits any more. Blocks.
pub fn take(
    frequency_hz: i32,
    duration: Duration,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<Profile, pprof::Error> {
    let guard =
        pprof::ProfilerGuardBuilder::default().frequency(frequency_hz).blocklist(&NOT_UNWOUND).build()?;
    // The first time the crate looks at our own symbols before it begins, which takes as long as it likes.
    let began_at = SystemTime::now();
    let began = Instant::now();
    while began.elapsed() < duration && !is_cancelled() {
        std::thread::sleep(TURN.min(duration.saturating_sub(began.elapsed())));
    }
    let length = began.elapsed();
    let report = guard.report().build()?;
    drop(guard);
    let mut profile = to_profile(&report, frequency_hz);
    let began_at = began_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    profile.start_unix_ns = u64::try_from(began_at.as_nanos()).unwrap_or(u64::MAX);
    profile.duration_ns = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
    Ok(profile)
}

fn to_profile(report: &pprof::Report, frequency_hz: i32) -> Profile {
    let period_ns = 1_000_000_000 / i64::from(frequency_hz.max(1));
    let mut functions = Interner::new();
    let mut locations = Interner::new();
    let mut stacks = SliceInterner::default();
    let mut label_sets = Interner::new();
    let mut samples = Vec::new();
    for (frames, &count) in &report.data {
        let mut stack = Vec::with_capacity(frames.frames.len());
        for inlined in &frames.frames {
            let mut named = Vec::with_capacity(inlined.len());
            for symbol in inlined {
                let known_file = symbol.filename.as_ref().map(|file| file.to_string_lossy().into_owned());
                let function = Function {
                    name: symbol.name(),
                    file: known_file.unwrap_or_default(),
                    ..Function::default()
                };
                named.push(Frame { function: functions.intern(function), line: symbol.lineno() });
            }
            // The address of the function, which is what there is: one location for each of its lines.
            let address = inlined.last().and_then(|symbol| symbol.addr).map_or(0, |address| address as u64);
            stack.push(locations.intern(Location {
                mapping: Some(0),
                address,
                frames: named,
                ..Location::default()
            }));
        }
        let labels = vec![Label::text("thread_name", &frames.thread_name_or_id())];
        let count = i64::try_from(count).unwrap_or(0);
        samples.push(Sample {
            stack: stacks.intern(&stack),
            labels: label_sets.intern(labels),
            values: vec![count, count.saturating_mul(period_ns)],
        });
    }
    let executable =
        std::env::current_exe().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    Profile {
        value_types: vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")],
        default_value: 1,
        period_type: Some(ValueType::new("cpu", "nanoseconds")),
        period: period_ns,
        mappings: vec![Mapping {
            path: executable,
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
            ..Mapping::default()
        }],
        functions: functions.into_values(),
        locations: locations.into_values(),
        stacks: stacks.into_slices(),
        label_sets: label_sets.into_values(),
        samples,
        comments: vec![format!("no stacks are taken in {}: time there is missing", NOT_UNWOUND.join(", "))],
        ..Profile::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn burn_in_own_profile_test(until: &std::sync::atomic::AtomicBool) -> u64 {
        let mut sum = 1_u64;
        while !until.load(std::sync::atomic::Ordering::Relaxed) {
            for number in 0..1000_u64 {
                sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(number));
            }
        }
        sum
    }

    #[test]
    fn what_burns_here_is_found_by_name_and_thread() {
        let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let until = std::sync::Arc::clone(&done);
        let burner = std::thread::Builder::new().name("burner".to_owned());
        let burner = burner.spawn(move || burn_in_own_profile_test(&until)).unwrap();
        let profile = take(199, Duration::from_millis(800), &|| false).unwrap();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        burner.join().unwrap();
        profile.validate().unwrap();
        let burns = |sample: &&Sample| {
            profile.label_text(sample, "thread_name") == Some("burner")
                && profile.stacks[sample.stack as usize].iter().any(|&location| {
                    profile.locations[location as usize].frames.iter().any(|frame| {
                        profile.functions[frame.function as usize].name.contains("burn_in_own_profile_test")
                    })
                })
        };
        let burnt: i64 = profile.samples.iter().filter(burns).map(|sample| sample.values[0]).sum();
        // 800 ms at 199 Hz are 159; other tests have the processors too.
        assert!(burnt >= 20, "{burnt} of {}", profile.total(0));
        assert!(profile.duration_ns >= 800_000_000);
    }
}
