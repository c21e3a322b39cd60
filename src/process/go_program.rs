//! Whether a process is a Go program, of which version, and where in its code it works on requests.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spanflame_symbols::ObjectFile;
use spanflame_symbols::go::{GoProgram, GoRequestCode, GoroutineOffsets};

use crate::kernel::FileIdentity;

/// Executables whose code is remembered: each takes some kilobytes.
const MAX_EXECUTABLES: usize = 256;
/// Longest `/proc/PID/maps` that is looked through; an executable stands near its beginning.
const MAX_MAPS_BYTES: u64 = 1 << 20;

/// A process that runs a Go program.
#[derive(Debug)]
pub struct GoProcess {
    /// How its goroutines are found; `None` if that is not known.
    pub goroutines: Option<GoroutineOffsets>,
    /// Where it works on requests; `None` if that is not known.
    pub code: Option<Arc<GoRequestCode>>,
    /// Its executable, as it runs.
    pub file: File,
    /// What it calls that.
    pub path: PathBuf,
    /// What is added to the executable's addresses in this process.
    pub load_bias: u64,
}

/// Tells Go programs, and remembers executables.
#[derive(Debug, Default)]
pub struct GoPrograms {
    code: Vec<(FileIdentity, Option<Arc<GoRequestCode>>)>,
}

impl GoPrograms {
    /// What the executable of a process says of itself; `None` if it is no Go program, or cannot be read. O(size
    /// of the executable) if it was not seen before.
    #[must_use]
    pub fn of(&mut self, pid: u32) -> Option<GoProcess> {
        let path = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        // The link itself leads to the file that runs, also if it was removed or replaced.
        let open = || File::open(format!("/proc/{pid}/exe")).ok();
        let object = ObjectFile::new(open()?, Path::new(&path)).ok()?;
        let program = GoProgram::read(&object).ok().flatten()?;
        let file = open()?;
        let code = program.goroutines.and_then(|_| self.code_of(&file, &object));
        let load_bias = load_bias(pid, &file, &object).unwrap_or(0);
        Some(GoProcess { goroutines: program.goroutines, code, file, path, load_bias })
    }

    fn code_of(&mut self, file: &File, object: &ObjectFile) -> Option<Arc<GoRequestCode>> {
        let identity = FileIdentity::of(file).ok()?;
        if let Some((_, code)) = self.code.iter().find(|(known, _)| *known == identity) {
            return code.clone();
        }
        let code = GoRequestCode::read(object).unwrap_or_else(|error| {
            tracing::debug!("where a Go program works on requests cannot be read: {error}");
            None
        });
        let code = code.map(Arc::new);
        if self.code.len() >= MAX_EXECUTABLES {
            self.code.remove(0);
        }
        self.code.push((identity, code.clone()));
        code
    }
}

/// What is added to a file's addresses where a process has mapped it.
fn load_bias(pid: u32, file: &File, object: &ObjectFile) -> Option<u64> {
    let inode = file.metadata().ok()?.ino();
    let mut maps = Vec::new();
    File::open(format!("/proc/{pid}/maps")).ok()?.take(MAX_MAPS_BYTES).read_to_end(&mut maps).ok()?;
    let maps = String::from_utf8_lossy(&maps);
    // Its own mappings come first, whatever maps it again later.
    maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (begin, _) = fields.next()?.split_once('-')?;
        let begin = u64::from_str_radix(begin, 16).ok()?;
        let offset = u64::from_str_radix(fields.nth(1)?, 16).ok()?;
        if fields.nth(1)?.parse() != Ok(inode) {
            return None;
        }
        let holds = |at: u64, bytes: u64| (at & !0xfff..at.saturating_add(bytes)).contains(&offset);
        let segment = object.segments().iter().find(|of| holds(of.offset.0, of.file_bytes))?;
        let linked = segment.address.0.wrapping_sub(segment.offset.0).wrapping_add(offset);
        Some(begin.wrapping_sub(linked))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_load_bias_leads_to_our_own_bytes() {
        let file = File::open("/proc/self/exe").expect("we run");
        let object = ObjectFile::new(File::open("/proc/self/exe").expect("we run"), Path::new("us"));
        let object = object.expect("an object");
        let bias = load_bias(std::process::id(), &file, &object).expect("mapped");
        let here = our_own_load_bias_leads_to_our_own_bytes as *const () as u64;
        let linked = spanflame_symbols::ElfAddress(here.wrapping_sub(bias));
        let in_file = object.read_loaded(linked, 16).expect("in a segment");
        // SAFETY: the first bytes of this very function.
        let in_memory = unsafe { std::slice::from_raw_parts(here as *const u8, 16) };
        assert_eq!(in_file, in_memory);
    }

    #[test]
    fn this_is_no_go_program() {
        assert!(GoPrograms::default().of(std::process::id()).is_none());
    }
}
