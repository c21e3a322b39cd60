//! What a session takes of the machine beside the processor: kernel memory and a folder on disk.

use std::path::PathBuf;

/// Room for half a second of samples of 1 KiB on every CPU that is online, ours to use or not; a full ring
/// buffer loses samples, counted. `SPANFLAME_RING_BYTES` overrides it.
#[must_use]
pub fn ring_buffer_bytes(frequency_hz: u32, cpus: usize) -> u32 {
    if let Some(wanted) =
        std::env::var("SPANFLAME_RING_BYTES").ok().and_then(|bytes| bytes.parse::<u32>().ok())
    {
        return wanted.clamp(4096, 1 << 30).next_power_of_two();
    }
    let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
    let wanted = frequency_hz.saturating_mul(cpus).saturating_mul(512);
    wanted.clamp(256 << 10, 64 << 20).next_power_of_two()
}

/// Where unwind tables are kept between runs: `SPANFLAME_CACHE_DIR`, else `/var/cache/spanflame` for root, else below the user's cache folder.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("SPANFLAME_CACHE_DIR") {
        return (!folder.is_empty()).then(|| PathBuf::from(folder));
    }
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/cache/spanflame"));
    }
    let user_cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let user_cache =
        user_cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    user_cache.map(|folder| folder.join("spanflame"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_buffer_is_a_power_of_two_within_bounds() {
        for frequency_hz in [1, 99, 997, 9999] {
            for cpus in [0, 1, 2, 64, 1024, usize::MAX] {
                let bytes = ring_buffer_bytes(frequency_hz, cpus);
                assert!(bytes.is_power_of_two() && (256 << 10..=64 << 20).contains(&bytes));
            }
        }
        assert!(ring_buffer_bytes(997, 64) > ring_buffer_bytes(997, 2), "each CPU fills it");
    }
}
