//! Prints what naming addresses or building an unwind table costs: `VmRSS` and `VmHWM` after it.
//!
//! `peak_memory kernel` · `peak_memory symbols FILE [ADDRESSES]` · `peak_memory table FILE`.
//! One thing a process, since the high-water mark never falls.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use spanflame_symbols::symbolize::Symbolizer;
use spanflame_symbols::{ElfAddress, ObjectFile, UnwindTable};

fn memory_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

fn report(what: &str, since: Instant) {
    let (now_kib, peak_kib) = (memory_kib("VmRSS"), memory_kib("VmHWM"));
    println!("{what}: {:.0} ms, now {now_kib} KiB, peak {peak_kib} KiB", since.elapsed().as_secs_f64() * 1e3);
}

fn open(path: &str) -> Option<Arc<ObjectFile>> {
    let path = Path::new(path);
    Some(Arc::new(ObjectFile::new(File::open(path).ok()?, path).ok()?))
}

/// Addresses spread evenly over the executable segments.
fn spread(object: &ObjectFile, count: u64) -> Vec<ElfAddress> {
    let code = object.segments().iter().filter(|segment| segment.executable);
    let Some(segment) = code.max_by_key(|segment| segment.file_bytes) else { return Vec::new() };
    (0..count).map(|step| ElfAddress(segment.address.0 + segment.file_bytes * step / count)).collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let begin = Instant::now();
    report("start", begin);
    match arguments.as_slice() {
        ["kernel"] => {
            let text = std::fs::File::open("/proc/kallsyms").ok();
            let lines =
                text.into_iter().flat_map(|file| std::io::BufRead::lines(std::io::BufReader::new(file)));
            let addresses: Vec<u64> = lines
                .step_by(50)
                .take(200)
                .filter_map(|line| u64::from_str_radix(line.ok()?.split(' ').next()?, 16).ok())
                .collect();
            report("addresses", begin);
            let mut symbolizer = Symbolizer::new();
            let named = symbolizer.kernel(&addresses).iter().filter(|symbol| symbol.symbol.is_ok()).count();
            report(&format!("{named} of {} named", addresses.len()), begin);
        }
        ["symbols", rest @ ..] => {
            let count = rest.iter().find_map(|argument| argument.parse().ok()).unwrap_or(300);
            let mut symbolizer = Symbolizer::new();
            for path in rest.iter().filter(|argument| argument.parse::<u64>().is_err()) {
                let Some(object) = open(path) else { continue };
                let addresses = spread(&object, count);
                let since = Instant::now();
                let symbols = symbolizer.object(&object, &addresses);
                let named = symbols.iter().filter(|symbol| symbol.is_ok()).count();
                report(&format!("{path}: {named} of {count} named"), since);
                if std::env::var_os("SHOW").is_some() {
                    for (address, symbol) in addresses.iter().zip(symbols) {
                        println!("{address} {symbol:?}");
                    }
                }
            }
            println!("{:?}", symbolizer.stats());
        }
        ["table", path] => {
            let Some(object) = open(path) else { return };
            match UnwindTable::build(&object) {
                Ok(table) => {
                    let digest = xxhash_rust::xxh3::xxh3_64(&table.pages);
                    let bytes = table.pages.len();
                    report(&format!("{} rows, {bytes} bytes, digest {digest:016x}", table.rows), begin);
                }
                Err(error) => report(&error.to_string(), begin),
            }
        }
        _ => eprintln!("usage: peak_memory kernel | symbols FILE… [COUNT] | table FILE"),
    }
}
