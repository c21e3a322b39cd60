//! The sampler on this machine's kernel. These need the capabilities to load BPF programs; without
//! them each says so and passes.

use std::time::{Duration, Instant};

use spanflame_symbols::ElfAddress;
use spanflame_symbols::unwind::{UnwindTable, layout};

use super::*;

const OPTIONS: SamplerOptions = SamplerOptions {
    frequency_hz: 997,
    only_targets: true,
    ring_buffer_bytes: 1 << 20,
    exclude_agent: false,
};

fn load(options: &SamplerOptions) -> Option<(Sampler, ProcessMaps, Tables)> {
    let loaded = ProcessMaps::create()
        .and_then(|(maps, tables)| Ok((Sampler::load(options, None, &maps)?, maps, tables)));
    match loaded {
        Ok(loaded) => Some(loaded),
        Err(error) if error.is_not_permitted() => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn burn(time: Duration) {
    let begin = Instant::now();
    let mut value = 1u64;
    while begin.elapsed() < time {
        value = std::hint::black_box(value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

/// Burns until that many samples were taken: how long that is depends on who else is busy.
fn burn_until_taken(sampler: &Sampler, samples: u64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while sampler.counters().expect("counters").taken < samples {
        assert!(Instant::now() < deadline, "{:?}", sampler.counters());
        burn(Duration::from_millis(20));
    }
}

fn assert_accounts(counters: &Counters) {
    assert_eq!(
        counters.ticks,
        counters.idle + counters.not_selected + counters.thinned + counters.taken,
        "{counters:?}"
    );
    assert_eq!(
        counters.taken,
        counters.sent + counters.lost_ring_full + counters.lost_no_scratch,
        "{counters:?}"
    );
    assert_eq!(counters.malformed, 0);
}

#[test]
fn a_busy_target_is_sampled_and_every_tick_is_accounted_for() {
    let Some((mut sampler, maps, _)) = load(&OPTIONS) else { return };
    let pid = std::process::id();
    maps.add_target(pid, false).expect("room for a target");
    assert_eq!(maps.targets(), [pid]);
    sampler.enable_run_statistics().expect("may measure programs");
    sampler.start().expect("the sampler starts");
    burn_until_taken(&sampler, 100);
    sampler.stop().expect("the sampler stops");

    let mut samples = Vec::new();
    let count = sampler.drain(&mut |sample| samples.push(sample)).expect("drained");
    let counters = sampler.counters().expect("counters");
    assert_accounts(&counters);
    assert_eq!(count, samples.len());
    assert_eq!(counters.sent, samples.len() as u64);
    assert!(samples.len() >= 100, "{counters:?}");
    assert!(samples.iter().all(|sample| sample.pid == pid && sample.weight_ns == 1_003_009));
    assert!(samples.windows(2).all(|pair| pair[0].time_ns <= pair[1].time_ns || pair[0].tid != pair[1].tid));
    let statistics = sampler.run_statistics().expect("measured");
    assert!(statistics.sampling.run_count >= counters.ticks, "{statistics:?}");
    assert!(statistics.all.run_time_ns >= statistics.sampling.run_time_ns);
    assert!(sampler.map_bytes() > 1 << 20, "the ring alone is a megabyte");
}

#[test]
fn a_full_ring_loses_samples_by_count() {
    let Some((mut sampler, maps, _)) = load(&SamplerOptions { ring_buffer_bytes: 4096, ..OPTIONS }) else {
        return;
    };
    maps.add_target(std::process::id(), false).expect("room for a target");
    sampler.start().expect("the sampler starts");
    burn_until_taken(&sampler, 200);
    sampler.stop().expect("the sampler stops");
    let received = sampler.drain(&mut |_| {}).expect("drained") as u64;
    let counters = sampler.counters().expect("counters");
    assert_accounts(&counters);
    assert_eq!(counters.sent, received);
    assert!(counters.lost_ring_full > 0, "{counters:?}");
}

#[test]
fn impossible_options_are_refused_before_anything_is_loaded() {
    let Some((_, maps, _)) = load(&OPTIONS) else { return };
    for options in [
        SamplerOptions { frequency_hz: 0, ..OPTIONS },
        SamplerOptions { frequency_hz: 1_000_000, ..OPTIONS },
        SamplerOptions { ring_buffer_bytes: 5000, ..OPTIONS },
        SamplerOptions { ring_buffer_bytes: 1024, ..OPTIONS },
    ] {
        let loaded = Sampler::load(&options, None, &maps);
        assert!(matches!(loaded, Err(KernelError::Option { .. })), "{options:?}");
    }
}

#[test]
fn a_child_is_seen_from_fork_to_exit() {
    let mut events = match ProcessEvents::open() {
        Ok(events) => events,
        Err(error) if error.is_not_permitted() => return eprintln!("skipped: {error}"),
        Err(error) => panic!("{error}"),
    };
    let mut child = std::process::Command::new("/bin/true").spawn().expect("/bin/true runs");
    let pid = child.id();
    child.wait().expect("it ends");
    let mut seen = Vec::new();
    events.drain(&mut seen).expect("drained");
    let of_child: Vec<&ProcessEvent> = seen
        .iter()
        .filter(|event| match event {
            ProcessEvent::Mapped { pid: of, .. }
            | ProcessEvent::Exec { pid: of, .. }
            | ProcessEvent::Forked { pid: of, .. }
            | ProcessEvent::Exited { pid: of, .. } => *of == pid,
            _ => false,
        })
        .collect();
    assert!(
        matches!(of_child.first(), Some(ProcessEvent::Forked { parent_pid, .. }) if *parent_pid == std::process::id())
    );
    assert!(matches!(of_child.last(), Some(ProcessEvent::Exited { tid, .. }) if *tid == pid), "{of_child:?}");
    let exec =
        of_child.iter().position(|event| matches!(event, ProcessEvent::Exec { comm, .. } if comm == "true"));
    let program = of_child
        .iter()
        .position(|event| matches!(event, ProcessEvent::Mapped { path, .. } if path.ends_with("true")));
    assert!(exec.is_some() && program > exec, "the program is mapped after exec: {of_child:?}");
    assert_eq!((events.lost(), events.malformed()), (0, 0));
}

/// A program whose every function keeps a frame pointer, 30 calls deep, busy at the bottom.
const DEEP_PROGRAM: &str = r"
#include <unistd.h>
static volatile unsigned long sink, stop;
__attribute__((noinline)) static unsigned long burn(void)
{
	while (!stop)
		sink = sink * 31 + 1;
	return sink;
}
__attribute__((noinline)) static unsigned long descend(int depth)
{
	return depth ? descend(depth - 1) + sink : burn();
}
int main(void)
{
	alarm(60);
	return descend(27) & 1;
}
";
/// descend(27) … descend(0) and burn.
const DEEP_FRAMES: usize = 29;

/// A child that is killed when dropped.
struct Victim(std::process::Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Compiles and starts the program; `None` without a compiler.
fn start_deep_program(folder: &std::path::Path) -> Option<Victim> {
    let source = folder.join("deep.c");
    let program = folder.join("deep");
    std::fs::write(&source, DEEP_PROGRAM).expect("the source can be written");
    let compiled = std::process::Command::new("cc")
        .args(["-O0", "-fno-omit-frame-pointer", "-o"])
        .args([&program, &source])
        .status();
    if !compiled.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no C compiler");
        return None;
    }
    Some(Victim(std::process::Command::new(&program).spawn().expect("it runs")))
}

/// The executable mapping of the process's own program: begin, end, file offset.
fn program_text(pid: u32) -> (u64, u64, u64) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");
        if let Some(line) = maps.lines().find(|line| line.contains("r-xp") && line.ends_with("/deep")) {
            let mut words = line.split_whitespace();
            let (begin, end) = words.next().and_then(|range| range.split_once('-')).expect("a range");
            let offset = words.nth(1).expect("an offset");
            let hex = |text| u64::from_str_radix(text, 16).expect("hexadecimal");
            return (hex(begin), hex(end), hex(offset));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("process {pid} never ran its program");
}

/// A table with `rows` rows for each chunk of a text: all say CFA = rbp + 16, by many rules.
fn frame_pointer_table(text_begin: u64, text_bytes: u64, rows: usize) -> UnwindTable {
    let rule = |number: usize| {
        let mut bytes =
            vec![layout::cfa::REGISTER, 6, layout::saved_fp::AT_CFA, layout::return_address::AT_CFA];
        bytes.extend(16i32.to_ne_bytes());
        bytes.extend((number as i32).to_ne_bytes()); // the addend is not looked at: makes rules differ
        bytes.extend((-16i16).to_ne_bytes());
        bytes.extend(0i16.to_ne_bytes());
        bytes
    };
    let chunks = text_bytes.div_ceil(4096) as usize;
    let mut directory = Vec::new();
    let mut leaves = Vec::new();
    for chunk in 0..chunks {
        directory.extend((chunk as u32).to_ne_bytes());
        directory.extend(0u16.to_ne_bytes());
        directory.extend((rows as u16).to_ne_bytes());
        let mut leaf = vec![0u8; 4096];
        for row in 0..rows {
            let pc = (row * 4096 / rows) as u16;
            leaf[row * 2..][..2].copy_from_slice(&pc.to_ne_bytes());
            leaf[2048 + row * 2..][..2].copy_from_slice(&(1 + (row % 500) as u16).to_ne_bytes());
        }
        leaves.extend(leaf);
    }
    let mut rules = vec![0u8; 16];
    rules.extend((1..501).flat_map(rule));
    directory.resize(directory.len().next_multiple_of(4096), 0);
    rules.resize(rules.len().next_multiple_of(4096), 0);
    UnwindTable {
        text_begin: ElfAddress(text_begin),
        chunks: chunks as u32,
        directory_pages: (directory.len() / 4096) as u32,
        rule_pages: (rules.len() / 4096) as u32,
        leaf_pages: chunks as u32,
        rows: (rows * chunks) as u64,
        oversized_chunks: 0,
        pages: [directory, rules, leaves].concat(),
    }
}

#[test]
fn a_deep_stack_is_walked_to_the_end_of_what_has_a_table_at_a_known_cost() {
    let Some((mut sampler, maps, mut tables)) = load(&OPTIONS) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(victim) = start_deep_program(folder.path()) else { return };
    let pid = victim.0.id();
    let (begin, end, offset) = program_text(pid);
    // Objects before and mappings around, so that nothing is found at once.
    let object = (0..20).map(|_| tables.allocate_object().expect("room")).last().expect("twenty");
    tables.publish_table(object, &frame_pointer_table(offset, end - begin, 300)).expect("published");
    let mapping = ProcessMapping { begin, end, bias: begin - offset, kind: MappingKind::Object(object) };
    let mut mappings: Vec<ProcessMapping> = (1..40)
        .map(|i| ProcessMapping { begin: i << 16, end: (i << 16) + 4096, bias: 0, kind: MappingKind::Jit })
        .collect();
    mappings.push(mapping);
    tables.set_process(pid, super::monotonic_ns(), false, &mappings).expect("stored");
    maps.add_target(pid, false).expect("room for a target");
    sampler.enable_run_statistics().expect("may measure programs");
    sampler.start().expect("the sampler starts");
    while sampler.counters().expect("counters").taken < 200 {
        std::thread::sleep(Duration::from_millis(20));
    }
    sampler.stop().expect("the sampler stops");

    let mut samples = Vec::new();
    sampler.drain(&mut |sample| samples.push(sample)).expect("drained");
    let counters = sampler.counters().expect("counters");
    assert_accounts(&counters);
    assert!(samples.len() >= 200, "{counters:?}");
    for sample in &samples {
        // Above main comes libc, whose mapping nobody told.
        assert_eq!(sample.outcome, crate::model::Outcome::UnknownMapping, "{sample:?}");
        let inside = sample
            .user
            .iter()
            .filter(|frame| matches!(frame, RawFrame::Object { object: of, .. } if *of == object))
            .count();
        assert_eq!((inside, sample.user.len()), (DEEP_FRAMES + 1, DEEP_FRAMES + 2), "{sample:?}");
    }
    let runs = sampler.run_statistics().expect("measured").sampling;
    eprintln!(
        "{} ns a sample, {} ns a frame, {} ns a tick, map bytes {}",
        runs.run_time_ns / counters.taken,
        runs.run_time_ns / (counters.user_frames + counters.kernel_frames),
        runs.run_time_ns / runs.run_count,
        sampler.map_bytes(),
    );
}

/// A program that forks a child which burns, then burns itself; prints the child's pid.
const FORKING_PROGRAM: &str = r#"
#include <stdio.h>
#include <unistd.h>
static volatile unsigned long sink, stop;
__attribute__((noinline)) static unsigned long burn(void) { while (!stop) sink = sink * 31 + 1; return sink; }
int main(void)
{
	char begin;
	alarm(60);
	if (read(0, &begin, 1) != 1)
		return 1;
	int child = fork();
	if (!child) {
		alarm(60);
		return burn() & 1;
	}
	printf("%d\n", child);
	fflush(stdout);
	if (read(0, &begin, 1) == 1)
		execl("/bin/sleep", "sleep", "0", (char *)0);
	return 0;
}
"#;

#[test]
fn a_child_of_fork_is_walked_with_its_parents_mappings_until_the_parent_changes() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    let Some((mut sampler, maps, mut tables)) = load(&OPTIONS) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (source, program) = (folder.path().join("forking.c"), folder.path().join("deep"));
    std::fs::write(&source, FORKING_PROGRAM).expect("the source can be written");
    let compiled = Command::new("cc").args(["-O0", "-o"]).args([&program, &source]).status();
    if !compiled.is_ok_and(|status| status.success()) {
        return eprintln!("skipped: no C compiler");
    }
    let parent = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut parent = Victim(parent.expect("it runs"));
    let pid = parent.0.id();
    let (begin, end, offset) = program_text(pid);
    let object = tables.allocate_object().expect("room");
    tables.publish_table(object, &frame_pointer_table(offset, end - begin, 100)).expect("published");
    let mapping = ProcessMapping { begin, end, bias: begin - offset, kind: MappingKind::Object(object) };
    tables.set_process(pid, super::monotonic_ns(), false, &[mapping]).expect("stored");
    maps.add_target(pid, true).expect("room for a target");
    sampler.start().expect("the sampler starts");

    let mut input = parent.0.stdin.take().expect("piped");
    let mut line = String::new();
    input.write_all(b"x").expect("it listens");
    BufReader::new(parent.0.stdout.take().expect("piped")).read_line(&mut line).expect("it answers");
    let child: u32 = line.trim().parse().expect("a pid");
    assert_eq!(maps.targets(), [pid.min(child), pid.max(child)], "the child is followed");
    let outcomes_of_child = |sampler: &mut Sampler| {
        // What was taken before the change that is looked at does not count.
        sampler.drain(&mut |_| {}).expect("drained");
        let deadline = Instant::now() + Duration::from_secs(30);
        let (mut outcomes, mut samples) = (std::collections::BTreeSet::new(), 0);
        while samples < 20 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
            sampler
                .drain(&mut |sample| {
                    if sample.pid == child {
                        samples += 1;
                        outcomes.insert((sample.outcome.name(), sample.user.len().min(2)));
                    }
                })
                .expect("drained");
        }
        outcomes.into_iter().collect::<Vec<_>>()
    };
    // burn, main, and libc, which nobody told of.
    let with_alias = outcomes_of_child(&mut sampler);
    assert_eq!(with_alias, [("unknown_mapping", 2)]);

    // The parent's table is replaced, as after a dlopen: the child does not see what is not its own.
    tables.set_process(pid, super::monotonic_ns(), false, &[mapping]).expect("stored");
    let after_change = outcomes_of_child(&mut sampler);
    assert_eq!(after_change, [("unknown_process", 1)]);

    // User space has heard of it.
    tables.set_process(child, super::monotonic_ns(), false, &[mapping]).expect("stored");
    let known = outcomes_of_child(&mut sampler);
    assert_eq!(known, [("unknown_mapping", 2)]);

    // Who exits is no target any more.
    // SAFETY: kill takes no pointers; the child is ours.
    unsafe { libc::kill(child as i32, libc::SIGKILL) };
    let deadline = Instant::now() + Duration::from_secs(5);
    while maps.targets().contains(&child) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(maps.targets(), [pid]);
    sampler.stop().expect("the sampler stops");
    assert_accounts(&sampler.counters().expect("counters"));
}
