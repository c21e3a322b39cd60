//! The sampler on this machine's kernel. These need the capabilities to load BPF programs; without
//! them each says so and passes.

use std::time::{Duration, Instant};

use super::*;

const OPTIONS: SamplerOptions = SamplerOptions {
    frequency_hz: 997,
    only_targets: true,
    ring_buffer_bytes: 1 << 20,
    exclude_agent: false,
};

fn load(options: &SamplerOptions) -> Option<Sampler> {
    match Sampler::load(options) {
        Ok(sampler) => Some(sampler),
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

fn assert_accounts(counters: &Counters) {
    assert_eq!(counters.ticks, counters.idle + counters.not_selected + counters.taken, "{counters:?}");
    assert_eq!(
        counters.taken,
        counters.sent + counters.lost_ring_full + counters.lost_no_scratch,
        "{counters:?}"
    );
    assert_eq!(counters.malformed, 0);
}

#[test]
fn a_busy_target_is_sampled_and_every_tick_is_accounted_for() {
    let Some(mut sampler) = load(&OPTIONS) else { return };
    let pid = std::process::id();
    sampler.add_target(pid, true).expect("room for a target");
    assert_eq!(sampler.targets(), [pid]);
    sampler.enable_run_statistics().expect("may measure programs");
    sampler.start().expect("the sampler starts");
    burn(Duration::from_millis(300));
    sampler.stop().expect("the sampler stops");

    let mut samples = Vec::new();
    let count = sampler.drain(&mut |sample| samples.push(sample)).expect("drained");
    let counters = sampler.counters().expect("counters");
    assert_accounts(&counters);
    assert_eq!(count, samples.len());
    assert_eq!(counters.sent, samples.len() as u64);
    assert!(samples.len() > 50, "300 ms at 997 Hz gave {}", samples.len());
    assert!(samples.iter().all(|sample| sample.pid == pid && sample.weight_ns == 1_003_009));
    assert!(samples.windows(2).all(|pair| pair[0].time_ns <= pair[1].time_ns || pair[0].tid != pair[1].tid));
    let statistics = sampler.run_statistics();
    assert!(statistics.sampling.run_count >= counters.ticks, "{statistics:?}");
    assert!(statistics.all.run_time_ns >= statistics.sampling.run_time_ns);
    assert!(sampler.map_bytes() > 1 << 20, "the ring alone is a megabyte");
}

#[test]
fn a_full_ring_loses_samples_by_count() {
    let Some(mut sampler) = load(&SamplerOptions { ring_buffer_bytes: 4096, ..OPTIONS }) else { return };
    sampler.add_target(std::process::id(), false).expect("room for a target");
    sampler.start().expect("the sampler starts");
    burn(Duration::from_millis(300));
    sampler.stop().expect("the sampler stops");
    let received = sampler.drain(&mut |_| {}).expect("drained") as u64;
    let counters = sampler.counters().expect("counters");
    assert_accounts(&counters);
    assert_eq!(counters.sent, received);
    assert!(counters.lost_ring_full > 0, "{counters:?}");
}

#[test]
fn impossible_options_are_refused_before_anything_is_loaded() {
    for options in [
        SamplerOptions { frequency_hz: 0, ..OPTIONS },
        SamplerOptions { frequency_hz: 1_000_000, ..OPTIONS },
        SamplerOptions { ring_buffer_bytes: 5000, ..OPTIONS },
        SamplerOptions { ring_buffer_bytes: 1024, ..OPTIONS },
    ] {
        assert!(matches!(Sampler::load(&options), Err(KernelError::Option { .. })), "{options:?}");
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
