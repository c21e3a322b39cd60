//! Threads of this process and what they wait for: name and state of each, and where in the kernel it stands
//! if we may see that (`/proc/self/task/TID/stack` for root, else `wchan`).

use crate::model::{
    Frame, FrameKind, Function, Interner, Label, Location, Profile, Sample, Slices, ValueType,
};
use crate::server::api::moment::now_unix_ns;

/// A thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    tid: u32,
    name: String,
    state: &'static str,
    /// Kernel functions, innermost first; empty if it runs or nothing is known.
    waits_in: Vec<String>,
}

/// Reads those that there are.
pub fn read() -> Vec<Thread> {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    let tids = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
    let mut threads: Vec<Thread> = tids.filter_map(read_thread).collect();
    threads.sort_by_key(|thread| thread.tid);
    threads
}

fn read_thread(tid: u32) -> Option<Thread> {
    let file = |name: &str| std::fs::read(format!("/proc/self/task/{tid}/{name}"));
    let text = |name: &str| file(name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    // One that has ended meanwhile is none.
    let stat = text("stat").ok()?;
    let state = stat.rsplit_once(')')?.1.trim_start().chars().next()?;
    let waits_in = if state == 'R' {
        Vec::new()
    } else {
        let mut stack = parse_stack(&text("stack").unwrap_or_default());
        if stack.is_empty() {
            let wchan = text("wchan").unwrap_or_default();
            stack.extend(Some(wchan.trim().to_owned()).filter(|name| !matches!(name.as_str(), "" | "0")));
        }
        stack
    };
    let name = text("comm").ok()?.trim_end_matches('\n').to_owned();
    Some(Thread { tid, name, state: state_in_words(state), waits_in })
}

/// Lines `[<0>] function+0x12/0x34`.
fn parse_stack(text: &str) -> Vec<String> {
    let function = |line: &str| {
        let name = line.split_once("] ")?.1.split('+').next()?.trim();
        (!name.is_empty()).then(|| name.to_owned())
    };
    text.lines().filter_map(function).collect()
}

/// The letters of proc(5).
fn state_in_words(state: char) -> &'static str {
    match state {
        'R' => "running",
        'S' => "sleeping",
        'D' => "waiting for a disk",
        'T' | 't' => "stopped",
        'Z' | 'X' | 'x' => "ended",
        'I' => "idle",
        _ => "unknown",
    }
}

/// As a profile that counts threads: state, name, and where in the kernel.
pub fn profile(threads: &[Thread]) -> Profile {
    let mut functions = Interner::new();
    let mut locations: Interner<Location> = Interner::new();
    let mut label_sets = Interner::new();
    let mut stacks = Slices::default();
    let mut samples = Vec::new();
    for thread in threads {
        let mut stack = Vec::new();
        let mut push = |name: &str, kind| {
            let function = functions.intern(Function { name: name.to_owned(), ..Function::default() });
            let frames = vec![Frame { function, line: 0 }];
            let address = u64::from(function) + 1;
            stack.push(locations.intern(Location { kind, address, frames, ..Location::default() }));
        };
        for function in &thread.waits_in {
            push(function, FrameKind::Kernel);
        }
        push(&format!("[{}]", thread.state), FrameKind::Native);
        push(&thread.name, FrameKind::Native);
        stacks.push(stack);
        let labels = vec![
            Label::text("state", thread.state),
            Label::text("thread_name", &thread.name),
            Label::number("tid", i64::from(thread.tid)),
        ];
        let labels = label_sets.intern(labels);
        samples.push(Sample { stack: (stacks.len() - 1) as u32, labels, values: vec![1] });
    }
    Profile {
        value_types: vec![ValueType::new("threads", "count")],
        period_type: Some(ValueType::new("threads", "count")),
        period: 1,
        start_unix_ns: now_unix_ns(),
        functions: functions.into_values(),
        locations: locations.into_values(),
        stacks,
        label_sets: label_sets.into_values(),
        samples,
        ..Profile::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_of_the_kernel_is_read_by_its_functions() {
        let text =
            "[<0>] futex_wait_queue+0x60/0x90\n[<0>] __futex_wait+0x1\n[<0>] 0xffff\nnonsense\n[<0>] \n";
        assert_eq!(parse_stack(text), ["futex_wait_queue", "__futex_wait", "0xffff"]);
        assert!(parse_stack("").is_empty());
    }

    #[test]
    fn every_thread_is_one_sample_with_its_name_and_state() {
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let sleeper = std::thread::Builder::new().name("sleeper".to_owned());
        let sleeper = sleeper.spawn(move || wait.recv()).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let threads = loop {
            let threads = read();
            let asleep = threads.iter().any(|thread| thread.name == "sleeper" && thread.state == "sleeping");
            if asleep || std::time::Instant::now() > deadline {
                break threads;
            }
        };
        let profile = profile(&threads);
        profile.validate().unwrap();
        assert_eq!(profile.total(0), threads.len() as i64);
        let found = profile
            .samples
            .iter()
            .find(|sample| profile.label_text(sample, "thread_name") == Some("sleeper"));
        assert_eq!(profile.label_text(found.unwrap(), "state"), Some("sleeping"));
        drop(release);
        let _ = sleeper.join().unwrap();
    }
}
