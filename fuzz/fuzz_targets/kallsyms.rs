//! Any texts as `/proc/kallsyms` and `/proc/modules`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, Vec<u64>, &str)| {
    let (modules, addresses, kallsyms) = input;
    spanflame_symbols::symbolize::fuzzing::kallsyms(kallsyms, modules, &addresses);
});
