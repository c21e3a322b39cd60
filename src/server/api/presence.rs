//! Never there, or there and idle? The store knows only what was sampled; the difference is that between
//! 404 and an empty profile.

use crate::process::{LivingProcess, living};
use crate::server::{ApiError, App};
use crate::store::{Selector, TimeRange};

use super::moment::{now_unix_ns, rfc3339};
use super::selector::is_type;

/// The types that this host's own profiler keeps, under all their names.
const OWN_TYPES: [&str; 4] = ["cpu", "cpu/nanoseconds", "samples", "samples/count"];

/// Whether something that was not found in the windows of a range was there all the same and slept. Asks
/// `/proc`: blocks, some tens of microseconds for each process.
///
/// # Errors
/// 404, saying what there is instead.
pub fn check(app: &App, selector: &Selector, range: TimeRange, windows: u64) -> Result<(), ApiError> {
    let never = |message: String| {
        let error = ApiError::not_found(message);
        Err(error
            .with_detail("from", rfc3339(range.from_unix_ns))
            .with_detail("to", rfc3339(range.to_unix_ns)))
    };
    if windows == 0 {
        let is_own = OWN_TYPES.contains(&selector.profile_type.as_str()) && app.recorder.is_some();
        let started_ns = app
            .started_at
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        let watched = range.to_unix_ns > started_ns && range.from_unix_ns < now_unix_ns();
        if !is_own || !watched {
            return never(what_there_is(app, selector, range)?);
        }
    }
    if is_everything(selector) {
        return Ok(());
    }
    if app.recorder.is_some() && is_alive(selector, range.to_unix_ns) {
        return Ok(());
    }
    never(format!("there was no {} in this range", described(selector)))
}

/// Why no window has this type: what there is instead.
fn what_there_is(app: &App, selector: &Selector, range: TimeRange) -> Result<String, ApiError> {
    let types = app.store.types(range)?;
    if types.is_empty() {
        let kept = app.store.statistics();
        return Ok(match kept.windows {
            0 => "nothing has been recorded yet".to_owned(),
            _ => format!(
                "nothing is kept of this range; there are windows from {} to {}",
                rfc3339(kept.oldest_unix_ns),
                rfc3339(kept.newest_unix_ns)
            ),
        });
    }
    let names: Vec<&str> = types.iter().map(|kept| kept.value_type.kind.as_str()).collect();
    let (asked, there) = (&selector.profile_type, names.join(", "));
    // Types that were uploaded have names of their own; what is neither one of those nor one of ours is a mistake.
    let is_known = is_type(asked)
        || app.store.types(TimeRange::ALL)?.iter().any(|kept| {
            let (kind, unit) = (&kept.value_type.kind, &kept.value_type.unit);
            asked == kind || asked.split_once('/').is_some_and(|(one, other)| one == kind && other == unit)
        });
    if !is_known {
        let message = format!("type: there is no type {asked:?}; there is: {there}");
        return Err(ApiError::invalid("type", message));
    }
    Ok(format!("nothing of type {asked} is kept of this range; there is: {there}"))
}

fn is_everything(selector: &Selector) -> bool {
    *selector == Selector::of_type(&selector.profile_type)
}

/// Whether a process that a selector selects is alive, and was before `before_unix_ns`.
#[must_use]
pub fn is_alive(selector: &Selector, before_unix_ns: u64) -> bool {
    // Whether it is of a trace cannot be seen from outside.
    if selector.trace_id.is_some() || selector.span_id.is_some() || selector.spans.is_some() {
        return false;
    }
    let is_it = |process: &LivingProcess| {
        process.started_unix_ns < before_unix_ns
            && selector.service.as_ref().is_none_or(|service| *service == process.service)
            && selector.selects_git_sha(&process.git_sha)
            && selector.container.as_ref().is_none_or(|container| is_container(container, process))
            && selector.thread.as_ref().is_none_or(|thread| has_thread(thread, process))
    };
    match selector.pid {
        Some(pid) => {
            let process = u32::try_from(pid).ok().and_then(LivingProcess::read);
            process.is_some_and(|process| is_it(&process))
        }
        None => living().iter().any(is_it),
    }
}

fn is_container(wanted: &str, process: &LivingProcess) -> bool {
    let id = process.container_id.as_str();
    !id.is_empty() && (id == wanted || wanted.len() >= 12 && id.starts_with(wanted))
}

fn has_thread(wanted: &str, process: &LivingProcess) -> bool {
    let tid = wanted.parse::<u32>().ok();
    process.threads().iter().any(|thread| thread.name == wanted || Some(thread.tid) == tid)
}

/// The selector in words.
#[must_use]
pub fn described(selector: &Selector) -> String {
    let texts = [
        ("service", &selector.service),
        ("container", &selector.container),
        ("thread", &selector.thread),
        ("git_sha", &selector.git_sha),
        ("trace", &selector.trace_id),
        ("span", &selector.span_id),
    ];
    let mut words: Vec<String> = selector.pid.iter().map(|pid| format!("process {pid}")).collect();
    words.extend(texts.iter().filter_map(|(name, text)| Some(format!("{name} {:?}", text.as_ref()?))));
    if words.is_empty() { "such thing".to_owned() } else { words.join(" with ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_under_every_name_and_nobody_else_is() {
        let own = LivingProcess::read(std::process::id()).unwrap();
        let cpu = || Selector::of_type("cpu");
        let pid = Some(i64::from(own.pid));
        let some = |text: &str| Some(text.to_owned());
        let now = now_unix_ns();
        for selector in [
            Selector { pid, ..cpu() },
            Selector { pid, thread: Some(own.pid.to_string()), ..cpu() },
            Selector { service: Some(own.service.clone()), ..cpu() },
        ] {
            assert!(is_alive(&selector, now), "{selector:?}");
            // The moment of the start is computed anew, from two clocks.
            assert!(!is_alive(&selector, own.started_unix_ns - 1_000_000_000), "{selector:?}");
        }
        for selector in [
            Selector { pid: Some(i64::from(i32::MAX)), ..cpu() },
            Selector { pid: Some(-1), ..cpu() },
            Selector { service: some("nobody has this name"), ..cpu() },
            Selector { pid, service: some("nobody has this name"), ..cpu() },
            Selector { pid, thread: some("nobody has this name"), ..cpu() },
            Selector { container: some("0123456789ab"), ..cpu() },
            Selector { pid, git_sha: some("0123456789ab"), ..cpu() },
            Selector { pid, trace_id: some("0123456789abcdef0123456789abcdef"), ..cpu() },
        ] {
            assert!(!is_alive(&selector, now), "{selector:?}");
        }
    }

    #[test]
    fn a_selector_reads_as_words() {
        let selector = Selector { pid: Some(4), thread: Some("a b".to_owned()), ..Selector::of_type("cpu") };
        assert_eq!(described(&selector), "process 4 with thread \"a b\"");
    }
}
