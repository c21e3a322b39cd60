//! Loads the sampling programs, starts and stops them, hands on what they send.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libbpf_rs::{Link, Map, MapCore, MapFlags, MapHandle, Object, ProgramInput};

use super::abi::{self, LIFECYCLE_OBJECT, SAMPLE_OBJECT, SMALL_SAMPLE_OBJECT, sf_config, sf_counter};
use super::bpf_object::{
    find_map, find_program, forward_libbpf_messages, is_created, map_handle, open_object, sum_counter,
};
use super::event_ring::EventRing;
use super::introspection::{self, EbpfState};
use super::process_maps::ProcessMaps;
use super::run_statistics::{self, RunStatistics, map_memory_bytes};
use super::shared_contexts::OthersContexts;
use super::{KernelError, cpus, perf_event, sample_decoder};
use crate::model::RawSample;

/// What to sample, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplerOptions {
    /// Samples a second and CPU, 1 to 999 as a rule, at most 10,000.
    pub frequency_hz: u32,
    /// Only processes that [`ProcessMaps::add_target`] names.
    pub only_targets: bool,
    /// Size of the ring buffer: a power of two, at least a page.
    pub ring_buffer_bytes: u32,
    /// Ticks in this process itself are not samples.
    pub exclude_agent: bool,
}

/// The sampler's counters, summed over CPUs.
/// `ticks = idle + not_selected + thinned + taken`; `taken = sent + lost_ring_full + lost_no_scratch`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counters {
    pub ticks: u64,
    pub idle: u64,
    pub not_selected: u64,
    pub taken: u64,
    pub sent: u64,
    pub lost_ring_full: u64,
    pub lost_no_scratch: u64,
    pub user_frames: u64,
    pub kernel_frames: u64,
    /// Ticks that a later sample of their CPU stands for.
    pub thinned: u64,
    /// Of those: within a request, when such samples had taken their share of the second.
    pub over_budget: u64,
    /// Taken within a request.
    pub stamped: u64,
    /// Taken in a span that the application named.
    pub said: u64,
    /// Taken in a span that another tracer named, and nobody else.
    pub shared: u64,
    /// Of those sent: records that could not be decoded. Counted on this side.
    pub malformed: u64,
}

/// A reader is woken for news about a process at most this often a CPU.
const WAKE_INTERVAL_NS: u32 = 5_000_000;
const MAX_FREQUENCY_HZ: u32 = 10_000;
const MAX_RING_BUFFER_BYTES: u32 = 256 << 20;

/// Who is at which request: the tracer's maps, for the sampler to look into.
#[derive(Debug)]
pub struct RequestMaps {
    pub(super) threads: MapHandle,
    pub(super) goroutines: MapHandle,
    pub(super) go_http2_senders: MapHandle,
    pub(super) go_processes: MapHandle,
    pub(super) go_code: MapHandle,
}

/// How to sample within requests.
#[derive(Debug, Clone, Copy)]
pub struct RequestSampling<'a> {
    /// From [`SocketTracer::request_maps`](super::SocketTracer::request_maps).
    pub maps: &'a RequestMaps,
    /// Samples a second and CPU within requests. Taken is the multiple of [`SamplerOptions::frequency_hz`]
    /// that is nearest, so that those outside of requests come at exactly that rate.
    pub frequency_hz: u32,
    /// Share of a CPU's time, in thousandths, that samples within requests may take; above it they are taken
    /// at the rate of all others for the rest of the second, and counted as [`Counters::over_budget`].
    pub budget_permille: u32,
}

/// The loaded programs and maps. Nothing fires before [`Sampler::start`].
#[derive(Debug)]
pub struct Sampler {
    // Links go before the objects whose programs they run.
    timer_links: Vec<Link>,
    lifecycle_links: Vec<Link>,
    sample: Object,
    lifecycle: Object,
    ring: EventRing,
    follows_generated_code: bool,
    others_contexts: OthersContexts,
    slab_bytes: Arc<AtomicU64>,
    statistics: Option<OwnedFd>,
    frequency_hz: u32,
    malformed: u64,
}

impl Sampler {
    /// Loads the programs, which look into `of_processes`; with `requests` samples carry the request that they were
    /// taken in, and are taken more often there. Most of its time the kernel verifies the programs.
    ///
    /// # Errors
    /// [`KernelError::NotPermitted`] names the missing capability; [`KernelError::Option`] an option
    /// that cannot be; else what the kernel refused.
    pub fn load(
        options: &SamplerOptions,
        requests: Option<&RequestSampling<'_>>,
        of_processes: &ProcessMaps,
    ) -> Result<Self, KernelError> {
        check_options(options)?;
        // The kernel lowers its limit when interrupts take long; the host's own rate may still be allowed.
        let most = perf_event::frequency_limit().map_or(u32::MAX, |limit_hz| limit_hz / options.frequency_hz);
        let ticks_per_sample =
            requests.map(|requests| ticks_per_sample(options.frequency_hz, requests).min(most.max(1)));
        let frequency_hz = options.frequency_hz * ticks_per_sample.unwrap_or(1);
        perf_event::check_frequency(frequency_hz)?;
        forward_libbpf_messages();

        let config = sf_config {
            only_targets: u32::from(options.only_targets),
            exclude_agent: u32::from(options.exclude_agent),
            wake_at_bytes: options.ring_buffer_bytes / 4,
            wake_interval_ns: WAKE_INTERVAL_NS,
            ticks_per_sample: ticks_per_sample.unwrap_or(0),
            budget_ns: requests.map_or(0, |requests| requests.budget_permille.min(1000) * 1_000_000),
        };
        // CPUs that come later have no timer, see `start`.
        let cpus = cpus::online()?.last().map_or(1, |last| last + 1);
        let load = |elf: &[u8]| {
            let mut sample = open_object("the sampler", elf)?;
            let cannot = |error| KernelError::bpf("prepare the sampler", error);
            of_processes.share_with("the sampler", &mut sample)?;
            for mut map in sample.maps_mut() {
                if map.name() == "events" {
                    map.set_max_entries(options.ring_buffer_bytes).map_err(cannot)?;
                } else if map.name() == "sample_scratch" {
                    map.set_max_entries(cpus).map_err(cannot)?;
                } else if map.name() == ".rodata.config" {
                    map.set_initial_value(abi::bytes_of(&config)).map_err(cannot)?;
                } else if map.name() == ".data.contract" {
                    map.set_autocreate(false).map_err(cannot)?;
                } else if let Some(shared) = requests.and_then(|requests| requests.maps.named(map.name())) {
                    map.reuse_fd(shared.as_fd()).map_err(cannot)?;
                } else if ["goroutines", "go_http2_senders"].iter().any(|name| map.name() == *name) {
                    // Nobody writes or reads it then.
                    map.set_max_entries(1).map_err(cannot)?;
                }
            }
            sample.load().map_err(|error| KernelError::bpf("load the sampler", error))
        };
        // What the verifier says of the whole one would alarm without need where the small one does.
        let print_before = libbpf_rs::set_print(None);
        let whole = load(SAMPLE_OBJECT);
        libbpf_rs::set_print(print_before);
        let follows_generated_code = whole.is_ok();
        let sample = whole.or_else(|_| load(SMALL_SAMPLE_OBJECT))?;

        let mut lifecycle = open_object("the life-cycle programs", LIFECYCLE_OBJECT)?;
        of_processes.share_with("the life-cycle programs", &mut lifecycle)?;
        let lifecycle =
            lifecycle.load().map_err(|error| KernelError::bpf("load the life-cycle programs", error))?;

        let events = find_map(&sample, "events")?.as_fd().try_clone_to_owned().map_err(|source| {
            KernelError::System { what: "duplicate the ring buffer's descriptor".to_owned(), source }
        })?;
        let sampler = Self {
            timer_links: Vec::new(),
            lifecycle_links: Vec::new(),
            ring: EventRing::new(events, options.ring_buffer_bytes)?,
            follows_generated_code,
            others_contexts: OthersContexts::new(map_handle(&sample, "others_contexts")?),
            slab_bytes: of_processes.slab_bytes(),
            statistics: None,
            frequency_hz,
            malformed: 0,
            sample,
            lifecycle,
        };
        // In a pid namespace this process does not know the pid that the programs see.
        find_program(&sampler.sample, "learn_agent")?
            .test_run(ProgramInput::default())
            .map_err(|error| KernelError::bpf("learn this process's pid in the initial namespace", error))?;
        sampler.check_pid_namespace()?;
        Ok(sampler)
    }

    /// Samples and records carry pids of the initial namespace; `/proc` has those of ours.
    fn check_pid_namespace(&self) -> Result<(), KernelError> {
        let own_pid = std::process::id();
        // libbpf puts the object's name before that of the section.
        let mut maps = self.sample.maps().filter(is_created);
        let globals = maps
            .find(|map| map.name().as_encoded_bytes().ends_with(b".bss"))
            .ok_or(KernelError::Missing("map .bss"))?
            .lookup(&0_u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| KernelError::bpf("read the sampler's variables", error))?
            .unwrap_or_default();
        match abi::agent_tgid(&globals) {
            Some(kernel_pid) if kernel_pid == own_pid => Ok(()),
            Some(kernel_pid) => Err(KernelError::PidNamespace { own_pid, kernel_pid }),
            None => Err(KernelError::Missing("variable agent_tgid")),
        }
    }

    /// Whether frames of code that V8 and HotSpot have generated are read: not where the kernel's verifier refuses
    /// their unwinders.
    #[must_use]
    pub fn follows_generated_code(&self) -> bool {
        self.follows_generated_code
    }

    /// Samples in which neither the application nor we know of a span take it from the map that another tracer has
    /// pinned at `path`, while there is one. Looks for it, if that was not done in the last seconds.
    pub fn read_contexts_of_others(&mut self, path: &Path) {
        self.others_contexts.look_for(path);
    }

    /// Starts a timer on each CPU that is online. Does nothing if they run already.
    ///
    /// # Errors
    /// What the kernel refused; nothing is left running then.
    pub fn start(&mut self) -> Result<(), KernelError> {
        if !self.timer_links.is_empty() {
            return Ok(());
        }
        let mut lifecycle_links = Vec::new();
        for program in self.lifecycle.progs_mut() {
            let name = program.name().to_string_lossy().into_owned();
            let link = program.attach().map_err(|error| KernelError::bpf(format!("attach {name}"), error))?;
            lifecycle_links.push(link);
        }
        let program = find_program(&self.sample, "sample")?;
        let mut timer_links = Vec::new();
        for cpu in cpus::online()? {
            let Some(event) = perf_event::open_timer(cpu, self.frequency_hz)? else { continue };
            let link = program
                .attach_perf_event(event.as_raw_fd())
                .map_err(|error| KernelError::bpf(format!("attach the sampler to CPU {cpu}"), error))?;
            // The link closes the event when it goes.
            let _ = event.into_raw_fd();
            timer_links.push(link);
        }
        self.lifecycle_links = lifecycle_links;
        self.timer_links = timer_links;
        Ok(())
    }

    /// Stops the timers. Afterwards the counters are final and no sample is added to the ring.
    ///
    /// # Errors
    /// None at present.
    pub fn stop(&mut self) -> Result<(), KernelError> {
        // Closing a perf event waits until it runs nowhere any more.
        self.timer_links.clear();
        self.lifecycle_links.clear();
        Ok(())
    }

    /// Becomes readable when samples should be fetched before the reader's own timer says so.
    #[must_use]
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.ring.poll_fd()
    }

    /// Up to where samples are written or being written into the ring buffer, bytes since the beginning.
    #[must_use]
    pub fn written_position(&self) -> u64 {
        self.ring.written_position()
    }

    /// Up to where they were read.
    #[must_use]
    pub fn read_position(&self) -> u64 {
        self.ring.read_position()
    }

    /// Hands every sample that waits to `on_sample`. Returns how many there were.
    ///
    /// # Errors
    /// None at present. Records that cannot be decoded are counted in [`Counters::malformed`].
    pub fn drain(&mut self, on_sample: &mut dyn FnMut(RawSample)) -> Result<usize, KernelError> {
        let weight_ns = 1_000_000_000 / u64::from(self.frequency_hz);
        let malformed = &mut self.malformed;
        let mut samples = 0;
        self.ring.drain(&mut |record| match sample_decoder::decode(record, weight_ns) {
            Some(sample) => {
                samples += 1;
                on_sample(sample);
            }
            None => *malformed += 1,
        });
        Ok(samples)
    }

    /// The counters so far. While the sampler runs a CPU may be between two of them.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn counters(&self) -> Result<Counters, KernelError> {
        let map = find_map(&self.sample, "counters")?;
        let sum = |counter: sf_counter| sum_counter(&map, counter.0, "the sampler");
        Ok(Counters {
            ticks: sum(sf_counter::SF_COUNTER_TICKS)?,
            idle: sum(sf_counter::SF_COUNTER_IDLE)?,
            not_selected: sum(sf_counter::SF_COUNTER_NOT_SELECTED)?,
            taken: sum(sf_counter::SF_COUNTER_TAKEN)?,
            sent: sum(sf_counter::SF_COUNTER_SENT)?,
            lost_ring_full: sum(sf_counter::SF_COUNTER_LOST_RING_FULL)?,
            lost_no_scratch: sum(sf_counter::SF_COUNTER_LOST_NO_SCRATCH)?,
            user_frames: sum(sf_counter::SF_COUNTER_USER_FRAMES)?,
            kernel_frames: sum(sf_counter::SF_COUNTER_KERNEL_FRAMES)?,
            thinned: sum(sf_counter::SF_COUNTER_THINNED)?,
            over_budget: sum(sf_counter::SF_COUNTER_OVER_BUDGET)?,
            stamped: sum(sf_counter::SF_COUNTER_STAMPED)?,
            said: sum(sf_counter::SF_COUNTER_SAID)?,
            shared: sum(sf_counter::SF_COUNTER_SHARED)?,
            malformed: self.malformed,
        })
    }

    /// Makes the kernel measure its BPF programs, as long as this sampler lives. Costs some 20 ns a run.
    ///
    /// # Errors
    /// Takes `CAP_SYS_ADMIN`.
    pub fn enable_run_statistics(&mut self) -> Result<(), KernelError> {
        if self.statistics.is_none() {
            self.statistics = Some(run_statistics::enable()?);
        }
        Ok(())
    }

    /// What the programs cost since they are measured; `None` if they are not.
    #[must_use]
    pub fn run_statistics(&self) -> Option<RunStatistics> {
        self.statistics.as_ref()?;
        let mut statistics = RunStatistics::default();
        run_statistics::add(&self.sample, &mut statistics);
        run_statistics::add(&self.lifecycle, &mut statistics);
        Some(statistics)
    }

    /// Kernel memory that all maps take, unwind tables included.
    #[must_use]
    pub fn map_bytes(&self) -> u64 {
        let own: u64 = self.sample.maps().filter(is_created).map(|map| map_memory_bytes(map.as_fd())).sum();
        let is_shared = |map: &Map<'_>| self.sample.maps().any(|shared| shared.name() == map.name());
        let lifecycle = self.lifecycle.maps().filter(|map| is_created(map) && !is_shared(map));
        let lifecycle: u64 = lifecycle.map(|map| map_memory_bytes(map.as_fd())).sum();
        own + lifecycle + self.slab_bytes.load(Ordering::Relaxed)
    }

    /// The programs and maps as the kernel has them. A system call for each entry of a map that is a hash.
    #[must_use]
    pub fn ebpf(&self) -> EbpfState {
        let is_sampling = |name: &str| name == "sample" && !self.timer_links.is_empty();
        let is_following = |_: &str| !self.lifecycle_links.is_empty();
        let programs = introspection::programs(&self.sample, &is_sampling)
            .chain(introspection::programs(&self.lifecycle, &is_following));
        let is_shared = |map: &Map<'_>| self.sample.maps().any(|shared| shared.name() == map.name());
        let lifecycle = self.lifecycle.maps().filter(|map| is_created(map) && !is_shared(map));
        let maps = self.sample.maps().filter(is_created).chain(lifecycle);
        let waiting_bytes = self.ring.written_position().saturating_sub(self.ring.read_position());
        EbpfState {
            programs: programs.collect(),
            maps: maps.map(|map| introspection::map(&map, waiting_bytes)).collect(),
        }
    }
}

impl RequestMaps {
    fn named(&self, name: &OsStr) -> Option<&MapHandle> {
        match name.to_str()? {
            "threads" => Some(&self.threads),
            "goroutines" => Some(&self.goroutines),
            "go_http2_senders" => Some(&self.go_http2_senders),
            "go_processes" => Some(&self.go_processes),
            "go_code" => Some(&self.go_code),
            _ => None,
        }
    }
}

/// Ticks of the timer for one sample outside of requests.
fn ticks_per_sample(frequency_hz: u32, requests: &RequestSampling<'_>) -> u32 {
    ((requests.frequency_hz + frequency_hz / 2) / frequency_hz).clamp(1, u32::from(u16::MAX))
}

fn check_options(options: &SamplerOptions) -> Result<(), KernelError> {
    if !(1..=MAX_FREQUENCY_HZ).contains(&options.frequency_hz) {
        return Err(KernelError::Option {
            option: "frequency",
            value: options.frequency_hz.to_string(),
            expected: "1 to 10,000 samples a second",
        });
    }
    perf_event::check_frequency(options.frequency_hz)?;
    check_ring_buffer(options.ring_buffer_bytes)
}

/// Whether a ring buffer can have that size.
pub(super) fn check_ring_buffer(bytes: u32) -> Result<(), KernelError> {
    let page_bytes = rustix::param::page_size() as u32;
    if !bytes.is_power_of_two() || !(page_bytes..=MAX_RING_BUFFER_BYTES).contains(&bytes) {
        return Err(KernelError::Option {
            option: "ring buffer size",
            value: bytes.to_string(),
            expected: "a power of two from one page to 256 MiB",
        });
    }
    Ok(())
}
