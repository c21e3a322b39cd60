//! What lies at addresses of the kernel or of a living process, by name: a question that comes alone,
//! without samples.

use spanflame_symbols::ElfAddress;
use spanflame_symbols::symbolize::{Symbol, Symbolizer};

use crate::model::ObjectId;
use crate::process::objects::ObjectIds;
use crate::process::{Interest, MappingContent, ObjectRegistry, ProcessTable};

/// Kernel addresses of x86-64 and AArch64 have their highest bit set, those of processes never.
const KERNEL_BIT: u64 = 1 << 63;

/// Ids that no kernel side has to know.
struct CountedIds(u32);

impl ObjectIds for CountedIds {
    fn next_object_id(&mut self) -> Option<ObjectId> {
        self.0 = self.0.checked_add(1)?;
        Some(ObjectId(self.0))
    }
}

/// The function at each address, the one that the machine code belongs to; nothing where none is known.
/// Addresses of a process need its `pid`. Reads its mappings, its files and their symbols: blocks.
#[must_use]
pub fn address_names(pid: Option<u32>, addresses: &[u64]) -> Vec<Option<String>> {
    let mut symbolizer = Symbolizer::new();
    let mut objects = ObjectRegistry::default();
    let mut processes =
        ProcessTable::new(Interest::Only { pids: pid.into_iter().collect(), follow_children: false });
    if let Some(pid) = pid {
        processes.read_process(pid, &mut objects, &mut CountedIds(0));
    }
    let process = pid.and_then(|pid| Some((pid, processes.get(pid)?)));
    let mut names = Vec::with_capacity(addresses.len());
    for &address in addresses {
        let mut symbols: Vec<Symbol> = Vec::new();
        if address & KERNEL_BIT != 0 {
            symbols.extend(symbolizer.kernel(&[address]).into_iter().map(|found| found.symbol));
        } else if let Some((pid, process)) = process {
            match process.mappings.find(address).map(|mapping| mapping.content) {
                Some(MappingContent::Object { object, bias }) => {
                    if let Some(file) = objects.get(object).and_then(|object| object.file.as_ref().ok()) {
                        let address = ElfAddress(address.wrapping_sub(bias.0));
                        symbols = symbolizer.object_of_process(Some(pid), file, &[address]);
                    }
                }
                Some(MappingContent::Jit) => {
                    symbolizer.remember_process(pid);
                    symbols = symbolizer.jit(pid, &[address]);
                }
                Some(MappingContent::Uprobes) | None => {}
            }
        }
        let function =
            symbols.into_iter().next().and_then(Result::ok).and_then(|frames| frames.into_iter().last());
        names.push(function.map(|frame| frame.name));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_of_this_process_is_found_by_its_address_and_nothing_where_nothing_is() {
        let here = address_names as *const () as u64;
        let names = address_names(Some(std::process::id()), &[here + 1, 8]);
        let name = names[0].as_deref().unwrap();
        assert!(name.contains("address_names"), "{name}");
        assert_eq!(names[1], None);
        assert_eq!(address_names(None, &[here]), [None]);
    }
}
