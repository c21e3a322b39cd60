//! Any text as a mangled name.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|name: &str| {
    if let Some(demangled) = spanflame_symbols::symbolize::demangle(name) {
        assert!(!demangled.is_empty());
    }
});
