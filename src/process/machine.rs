//! Which machine this is, and how busy: what decides whether two measurements can be compared.
//!
//! Sources: `/proc/cpuinfo` and `/proc/stat` (proc(5)), cpufreq's files in sysfs
//! (Documentation/admin-guide/pm/cpufreq.rst), `uname(2)`, `sched_getaffinity(2)`.

use std::collections::BTreeSet;
use std::fs;

/// What does not change while a program runs. What the machine does not tell is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Model of the CPU.
    pub cpu_model: Option<String>,
    /// CPUs that this process may use.
    pub cpus: Option<u32>,
    /// `x86_64`, `aarch64`.
    pub architecture: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Governors of the CPUs' frequency, joined by commas where they differ.
    pub governor: Option<String>,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn this() -> Self {
        let system = rustix::system::uname();
        let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            cpu_model: cpu_model(&cpuinfo),
            cpus: std::thread::available_parallelism().ok().and_then(|cpus| u32::try_from(cpus.get()).ok()),
            architecture: text(system.machine()),
            kernel: text(system.release()),
            governor: governor(),
        }
    }
}

/// The first CPU's model: `model name` on x86, `Processor` or `CPU part` on ARM.
fn cpu_model(cpuinfo: &str) -> Option<String> {
    ["model name", "Processor", "CPU part"].into_iter().find_map(|wanted| {
        cpuinfo.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            let value = value.trim();
            (key.trim() == wanted && !value.is_empty()).then(|| value.to_owned())
        })
    })
}

fn governor() -> Option<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/sys/devices/system/cpu").ok()?.flatten() {
        if let Ok(text) = fs::read_to_string(entry.path().join("cpufreq/scaling_governor")) {
            found.insert(text.trim().to_owned());
        }
    }
    (!found.is_empty()).then(|| found.into_iter().collect::<Vec<_>>().join(","))
}

/// What all CPUs together have spent since the machine was started, in clock ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// At work, for user space or the kernel, guests included.
    pub busy: u64,
    /// At nothing.
    pub idle: u64,
    /// Wanted, and given to others by the hypervisor.
    pub steal: u64,
}

impl CpuTimes {
    /// So far. None if `/proc/stat` does not say.
    #[must_use]
    pub fn so_far() -> Option<Self> {
        Self::of(&fs::read_to_string("/proc/stat").ok()?)
    }

    fn of(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let numbers: Vec<u64> =
            line.split_ascii_whitespace().map_while(|number| number.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guests are counted in user and nice.
        let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = numbers.as_slice() else {
            return None;
        };
        let busy = [user, nice, system, irq, softirq]
            .into_iter()
            .fold(0_u64, |sum, &ticks| sum.saturating_add(ticks));
        Some(Self { busy, idle: idle.saturating_add(*iowait), steal: *steal })
    }

    /// What was spent since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(earlier.busy),
            idle: self.idle.saturating_sub(earlier.idle),
            steal: self.steal.saturating_sub(earlier.steal),
        }
    }

    /// All of it.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.busy.saturating_add(self.idle).saturating_add(self.steal)
    }
}

/// Clock ticks a second.
#[must_use]
pub fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known() {
        let machine = Machine::this();
        assert!(machine.cpus.is_some_and(|cpus| cpus > 0));
        assert!(!machine.kernel.is_empty() && !machine.architecture.is_empty());
    }

    #[test]
    fn a_cpu_has_the_name_that_its_architecture_gives_it() {
        assert_eq!(
            cpu_model("processor\t: 0\nmodel name\t: A CPU @ 2 GHz\n").as_deref(),
            Some("A CPU @ 2 GHz")
        );
        assert_eq!(cpu_model("processor\t: 0\nCPU part\t: 0xd0c\n").as_deref(), Some("0xd0c"));
        assert_eq!(cpu_model("model name\t:\n"), None);
    }

    #[test]
    fn guests_are_not_counted_twice_and_a_short_line_says_nothing() {
        let stat = "cpu  10 1 5 100 7 2 3 4 6 1\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        let times = CpuTimes::of(stat).expect("it is whole");
        assert_eq!(times, CpuTimes { busy: 21, idle: 107, steal: 4 });
        assert_eq!(times.since(&CpuTimes { busy: 1, idle: 7, steal: 4 }).all(), 120);
        assert_eq!(CpuTimes::of("cpu  10 1 5 100\n"), None);
        assert_eq!(CpuTimes::of("intr 1\n"), None);
    }
}
