//! Which machine this is, and how much its timings wander by themselves.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

/// What the figures were taken on.
#[derive(Debug)]
pub struct Machine {
    processor: String,
    processors: usize,
    memory_gib: f64,
    kernel: String,
    load_average: String,
    noise_percent: f64,
}

impl Machine {
    /// Looks at the machine and times a fixed piece of work.
    pub fn look() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let value_of = |text: &str, key: &str| -> Option<String> {
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory_kib = value_of(&meminfo, "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok())
            .unwrap_or(f64::NAN);
        let read_line = |path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        Self {
            processor: value_of(&cpuinfo, "model name").unwrap_or_else(|| "unknown processor".to_owned()),
            processors: processors(),
            memory_gib: memory_kib / 1024.0 / 1024.0,
            kernel: read_line("/proc/sys/kernel/osrelease"),
            load_average: read_line("/proc/loadavg"),
            noise_percent: noise_percent(),
        }
    }

    /// Two lines for the head of the report.
    pub fn print(&self) {
        println!(
            "{} × {}, {:.0} GiB, Linux {}",
            self.processors, self.processor, self.memory_gib, self.kernel
        );
        println!(
            "load average at the start {}; the same work takes {:.1} % longer or shorter (standard deviation of 40)",
            self.load_average, self.noise_percent
        );
    }

    /// The machine for programs.
    pub fn json(&self) -> Value {
        json!({
            "processor": self.processor, "processors": self.processors, "memory_gib": self.memory_gib,
            "kernel": self.kernel, "load_average": self.load_average, "noise_percent": self.noise_percent,
        })
    }
}

/// Processors that are online.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn noise_percent() -> f64 {
    let mut state = 1_u64;
    let durations: Vec<f64> = (0..40)
        .map(|_| {
            let begin = Instant::now();
            for _ in 0..10_000_000 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            }
            std::hint::black_box(state);
            begin.elapsed().as_secs_f64()
        })
        .collect();
    let count = durations.len() as f64;
    let mean = durations.iter().sum::<f64>() / count;
    let variance = durations.iter().map(|duration| (duration - mean).powi(2)).sum::<f64>() / count;
    variance.sqrt() / mean * 100.0
}
