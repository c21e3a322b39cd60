//! What every BPF object of ours needs: opening it, finding its maps and programs.

use std::os::fd::AsFd;

use libbpf_rs::{Map, MapCore, MapHandle, Object, ObjectBuilder, OpenObject, PrintLevel};

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

/// Lets an object use the maps of another one that have the same names. Both must describe them alike.
pub(super) fn share_maps(object: &mut OpenObject, with: &Object) -> Result<(), KernelError> {
    for mut map in object.maps_mut() {
        // What a program alone sees lies in sections of its own.
        if map.name().to_string_lossy().starts_with('.') {
            continue;
        }
        let Some(other) = with.maps().filter(is_created).find(|other| other.name() == map.name()) else {
            continue;
        };
        map.reuse_fd(other.as_fd()).map_err(|error| {
            KernelError::bpf(format!("share map {}", map.name().to_string_lossy()), error)
        })?;
    }
    Ok(())
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

pub(super) fn find_program<'a>(
    object: &'a Object,
    name: &'static str,
) -> Result<libbpf_rs::ProgramMut<'a>, KernelError> {
    object.progs_mut().find(|program| program.name() == name).ok_or(KernelError::Missing(name))
}
