//! What every BPF object of ours needs: opening it, finding its maps and programs.

use libbpf_rs::{
    Map, MapCore, MapFlags, MapHandle, Object, ObjectBuilder, OpenMapMut, OpenObject, PrintLevel,
};

use super::KernelError;

/// libbpf writes to standard error unless told otherwise.
pub(super) fn forward_libbpf_messages() {
    // libbpf-rs hands the message over by value.
    #[allow(clippy::needless_pass_by_value)]
    fn forward(level: PrintLevel, message: String) {
        let message = message.trim_end();
        match level {
            PrintLevel::Warn => tracing::warn!(target: "libbpf", "{message}"),
            PrintLevel::Info => tracing::debug!(target: "libbpf", "{message}"),
            PrintLevel::Debug => tracing::trace!(target: "libbpf", "{message}"),
        }
    }
    libbpf_rs::set_print(Some((PrintLevel::Info, forward)));
}

pub(super) fn open_object(what: &str, elf: &[u8]) -> Result<OpenObject, KernelError> {
    ObjectBuilder::default().open_memory(elf).map_err(|error| KernelError::bpf(format!("open {what}"), error))
}

/// Constants are compiled into programs and variables into one object, unless a name of their own says that
/// they are meant for several.
fn may_be_shared(name: &str) -> bool {
    let is_own = name.starts_with(".rodata") || name.ends_with(".data") || name.ends_with(".bss");
    !is_own || name == ".rodata.config"
}

/// Makes a map of an object that is not loaded yet one that exists.
///
/// # Errors
/// If it is not as large, or the kernel refuses.
pub(super) fn share_map(
    what: &'static str,
    map: &mut OpenMapMut<'_>,
    shared: &impl MapCore,
) -> Result<(), KernelError> {
    let cannot = |error| KernelError::bpf(format!("prepare {what}"), error);
    if (shared.key_size(), shared.value_size()) != (map.key_size(), map.value_size()) {
        return Err(KernelError::Option {
            option: "a shared map",
            value: format!("{} of {what}", map.name().display()),
            expected: "as large in both objects: the binary was built wrongly",
        });
    }
    map.reuse_fd(shared.as_fd()).map_err(cannot)
}

/// Makes the maps of another object those of this one that have the same names, and returns these.
///
/// # Errors
/// If they are not as large, or the kernel refuses.
pub(super) fn share_maps(
    what: &'static str,
    object: &mut OpenObject,
    with: &Object,
) -> Result<Vec<String>, KernelError> {
    let cannot = |error| KernelError::bpf(format!("prepare {what}"), error);
    let mut names = Vec::new();
    for mut map in object.maps_mut() {
        let Some(name) = map.name().to_str().map(str::to_owned) else { continue };
        if name == ".data.contract" {
            map.set_autocreate(false).map_err(cannot)?;
            continue;
        }
        let Some(shared) =
            with.maps().filter(|_| may_be_shared(&name)).find(|map| map.name() == name.as_str())
        else {
            continue;
        };
        share_map(what, &mut map, &shared)?;
        names.push(name);
    }
    Ok(names)
}

/// Whether a map exists in the kernel: the one that only carries the contract's types does not.
pub(super) fn is_created(map: &Map<'_>) -> bool {
    map.name() != ".data.contract"
}

pub(super) fn find_map<'a>(object: &'a Object, name: &'static str) -> Result<Map<'a>, KernelError> {
    object.maps().filter(is_created).find(|map| map.name() == name).ok_or(KernelError::Missing(name))
}

pub(super) fn map_handle(object: &Object, name: &'static str) -> Result<MapHandle, KernelError> {
    MapHandle::try_from(&find_map(object, name)?)
        .map_err(|error| KernelError::bpf(format!("duplicate the descriptor of map {name}"), error))
}

/// One of the counters in a per-CPU array, summed over CPUs. While programs run, a CPU may be between two of them.
/// `whose` says in an error which programs count there.
///
/// # Errors
/// If the map cannot be read.
pub(super) fn sum_counter(map: &impl MapCore, index: u32, whose: &str) -> Result<u64, KernelError> {
    let per_cpu = map
        .lookup_percpu(&index.to_ne_bytes(), MapFlags::ANY)
        .map_err(|error| KernelError::bpf(format!("read the counters of {whose}"), error))?;
    let values = per_cpu.unwrap_or_default();
    Ok(values.iter().filter_map(|value| value.as_slice().try_into().ok().map(u64::from_ne_bytes)).sum())
}

pub(super) fn find_program<'a>(
    object: &'a Object,
    name: &'static str,
) -> Result<libbpf_rs::ProgramMut<'a>, KernelError> {
    object.progs_mut().find(|program| program.name() == name).ok_or(KernelError::Missing(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_and_nameless_variables_are_an_objects_own() {
        for own in [".rodata", ".rodata.calls", "socket_b.bss", "tls_bpf.data", ".bss", ".data"] {
            assert!(!may_be_shared(own), "{own}");
        }
        for shared in ["connections", "threads", ".rodata.config", ".data.agent"] {
            assert!(may_be_shared(shared), "{shared}");
        }
    }
}
