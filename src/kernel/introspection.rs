//! The programs and maps of ours as the kernel has them, for people to look at.

use std::os::fd::AsFd;

use libbpf_rs::{Map, MapCore, MapType, Object, ProgramImpl};

use super::run_statistics::program_id;

/// What is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EbpfState {
    /// The programs.
    pub programs: Vec<ProgramState>,
    /// The maps that programs share with this process; those behind a map of maps count with it.
    pub maps: Vec<MapState>,
}

impl Extend<Self> for EbpfState {
    fn extend<Others: IntoIterator<Item = Self>>(&mut self, others: Others) {
        for other in others {
            self.programs.extend(other.programs);
            self.maps.extend(other.maps);
        }
    }
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramState {
    /// Its name in the object file; the kernel's has the first 15 characters of it.
    pub name: String,
    /// `perf_event`, `tracing`, … as `bpftool` says.
    pub kind: String,
    /// Whether events reach it.
    pub attached: bool,
    /// The kernel's number of it, as `bpftool prog` lists it.
    pub id: u32,
}

/// A map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapState {
    /// Its name in the object file.
    pub name: String,
    /// `hash`, `array`, `ringbuf`, … as `bpftool` says.
    pub kind: String,
    /// Entries that are in use: all of an array; of a ring buffer the bytes that wait to be read.
    pub entries: u64,
    /// Entries that there can be; of a ring buffer its bytes.
    pub max_entries: u64,
}

/// The programs of an object. `attached` says of each name whether events reach it.
pub(super) fn programs<'a>(
    object: &'a Object,
    attached: &'a dyn Fn(&str) -> bool,
) -> impl Iterator<Item = ProgramState> + 'a {
    // Those that were left out have no number.
    object.progs().filter(ProgramImpl::autoload).map(move |program| {
        let name = program.name().to_string_lossy().into_owned();
        let kind = snake_case(&format!("{:?}", program.prog_type()));
        ProgramState { attached: attached(&name), id: program_id(program.as_fd()), name, kind }
    })
}

/// A map; `waiting_bytes` is what a ring buffer has to be read. O(entries), each a system call.
pub(super) fn map(map: &Map<'_>, waiting_bytes: u64) -> MapState {
    let max_entries = u64::from(map.max_entries());
    let entries = match map.map_type() {
        MapType::RingBuf => waiting_bytes,
        MapType::Array | MapType::PercpuArray => max_entries,
        _ => map.keys().count() as u64,
    };
    let name = map.name().to_string_lossy().into_owned();
    MapState { name, kind: snake_case(&format!("{:?}", map.map_type())), entries, max_entries }
}

/// `PerfEvent` → `perf_event`.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for (index, letter) in name.chars().enumerate() {
        if letter.is_ascii_uppercase() && index > 0 {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    match snake.as_str() {
        "ring_buf" => "ringbuf".to_owned(),
        _ => snake,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_as_bpftool_names_them() {
        assert_eq!(snake_case("PerfEvent"), "perf_event");
        assert_eq!(snake_case("RingBuf"), "ringbuf");
        assert_eq!(snake_case("ArrayOfMaps"), "array_of_maps");
        assert_eq!(snake_case("PercpuArray"), "percpu_array");
    }
}
