//! Which runtimes an object file may hold, by the names of its symbols: a quick look that spares the real one.

use super::Runtime;
use crate::ObjectFile;

/// The largest table of names that is looked through. That of Node has some 20 MB.
const MAX_NAMES_BYTES: u64 = 64 << 20;

/// A runtime that is told by its symbols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Marked {
    /// One whose frames are read.
    Read(Runtime),
    /// One whose frames are not: its name as users know it.
    NotRead(&'static str),
}

/// Symbols that are in every build of a runtime, and in nothing else.
const MARKERS: &[(&str, Marked)] = &[
    ("_PyRuntime", Marked::Read(Runtime::Python)),
    ("v8dbg_SmiTag", Marked::Read(Runtime::V8)),
    ("gHotSpotVMStructs", Marked::Read(Runtime::Hotspot)),
    ("ruby_current_ec", Marked::NotRead("Ruby")),
    ("ruby_run_node", Marked::NotRead("Ruby")),
    ("zend_execute_ex", Marked::NotRead("PHP")),
    ("coreclr_initialize", Marked::NotRead(".NET")),
    ("perl_run", Marked::NotRead("Perl")),
    ("Perl_runops_standard", Marked::NotRead("Perl")),
    ("erts_printf", Marked::NotRead("BEAM (Erlang, Elixir)")),
    ("luaV_execute", Marked::NotRead("Lua")),
    ("lj_vm_call", Marked::NotRead("LuaJIT")),
    ("j9ThunkPersist", Marked::NotRead("OpenJ9")),
    ("R_ReplDLLinit", Marked::NotRead("R")),
];

/// What an object's symbols say it holds, without repetition. O(bytes of its symbols' names).
#[must_use]
pub fn marked(object: &ObjectFile) -> Vec<Marked> {
    let mut found = Vec::new();
    for section in [".dynstr", ".strtab"] {
        let Some(header) = object.section_header(section) else { continue };
        if header.bytes > MAX_NAMES_BYTES {
            continue;
        }
        let Ok(names) = object.read_section(header) else { continue };
        find_in(&names.data, &mut found);
    }
    found
}

/// Names stand between zeros.
fn find_in(names: &[u8], found: &mut Vec<Marked>) {
    for name in names.split(|&byte| byte == 0) {
        for (marker, marked) in MARKERS {
            if name == marker.as_bytes() && !found.contains(marked) {
                found.push(*marked);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_count_and_parts_of_names_do_not() {
        let mut found = Vec::new();
        find_in(b"\0my_PyRuntime\0_PyRuntimeState\0xgHotSpotVMStructs", &mut found);
        assert_eq!(found, []);
        find_in(b"\0a\0_PyRuntime\0b\0_PyRuntime\0zend_execute_ex", &mut found);
        assert_eq!(found, [Marked::Read(Runtime::Python), Marked::NotRead("PHP")]);
    }
}
