//! Names for random text addresses, with empty caches and again with full ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use spanflame_symbols::symbolize::Symbolizer;
use spanflame_symbols::{ElfAddress, ObjectFile};

use crate::Context;
use crate::report::{Figure, Section};
use crate::unwind_tables::open;

const ADDRESSES: usize = 2000;

/// Runs it.
pub fn section(context: &mut Context) -> Section {
    let mut section = Section::new(
        "Symbols",
        &format!(
            "{ADDRESSES} random addresses of the executable segments, one thread; cold: a new symbolizer, opening and reading the object \
             included; warm: the same addresses again"
        ),
    );
    let objects = [
        ("spanflame (DWARF)", PathBuf::from(env!("CARGO_BIN_EXE_spanflame"))),
        ("node", PathBuf::from("/usr/bin/node")),
        ("libc", PathBuf::from("/usr/lib/x86_64-linux-gnu/libc.so.6")),
        ("libstdc++", PathBuf::from("/usr/lib/x86_64-linux-gnu/libstdc++.so.6")),
    ];
    for (name, path) in objects {
        if let Err(error) = measure(context, name, &path, &mut section) {
            section.missing(name, &error);
        }
    }
    section
}

fn measure(context: &Context, name: &str, path: &Path, section: &mut Section) -> Result<()> {
    let (mut cold, mut warm, mut named_percent) = (vec![], vec![], vec![]);
    for run in 0..context.runs {
        let addresses = random_addresses(&open(path)?, run as u64 + 1);
        ensure!(!addresses.is_empty(), "{} has no executable segment", path.display());
        let begin = Instant::now();
        let mut symbolizer = Symbolizer::new();
        let object = Arc::new(open(path)?);
        let symbols = symbolizer.object(&object, &addresses);
        cold.push(addresses.len() as f64 / begin.elapsed().as_secs_f64());
        ensure!(symbols.len() == addresses.len(), "{} symbols for {}", symbols.len(), addresses.len());
        let named = symbols.iter().filter(|symbol| symbol.is_ok()).count();
        named_percent.push(named as f64 * 100.0 / addresses.len() as f64);
        let begin = Instant::now();
        let again = symbolizer.object(&object, &addresses);
        warm.push(addresses.len() as f64 / begin.elapsed().as_secs_f64());
        ensure!(again == symbols, "the second look-up gives other names than the first");
    }
    section.add(Figure::new(format!("{name}, cold"), "addresses/s", cold));
    section.add(Figure::new(format!("{name}, warm"), "addresses/s", warm));
    section.add(Figure::new("… named", "%", named_percent));
    Ok(())
}

/// Uniform over the bytes of the executable segments, by the xorshift64 generator.
fn random_addresses(object: &ObjectFile, seed: u64) -> Vec<ElfAddress> {
    let segments: Vec<_> = object.segments().iter().filter(|segment| segment.executable).collect();
    let bytes: u64 = segments.iter().map(|segment| segment.file_bytes).sum();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut addresses = Vec::with_capacity(ADDRESSES);
    while bytes > 0 && addresses.len() < ADDRESSES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let mut position = state % bytes;
        for segment in &segments {
            if position < segment.file_bytes {
                addresses.extend(segment.address.checked_add(position));
                break;
            }
            position -= segment.file_bytes;
        }
    }
    addresses
}
