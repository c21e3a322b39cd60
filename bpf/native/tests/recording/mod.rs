//! Processes that are held still and say where they are, and images of them: what was read of one, as text.
//!
//! Comes in: how to start a fixture. Goes out: what it tells of its frames, the objects that it has mapped, its memory
//! and ([`stack`]) its machine stack; and the same again from a file; what a runtime calls the frames of a walk
//! ([`naming`]). Never: which runtime, of which each test knows its own.

// Each test is a program of its own and uses a part of it.
#![allow(dead_code)]

pub mod naming;
pub mod stack;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use spanflame_symbols::address::Bias;
use spanflame_symbols::process_memory::RecordedMemory;
use spanflame_symbols::script::{MappedObject, Runtime, ScriptFrame};
use spanflame_symbols::{ObjectFile, ProcessAddress};
use spanflame_unwind_native::RawScriptFrame;

/// `SF_SCRIPT_ENTRY` and `SF_SCRIPT_LEAF`.
pub const ENTRY: u8 = 1;
pub const LEAF: u8 = 2;

/// What a runtime says of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub line: u32,
    pub name: String,
    pub file: String,
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository")
}

pub fn images() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images")
}

/// Whether what runs is to be written into [`images`].
pub fn is_recording() -> bool {
    std::env::var_os("SPANFLAME_RECORD").is_some()
}

/// The recordings whose names begin so.
pub fn recordings(prefix: &str) -> Vec<String> {
    std::fs::read_dir(images())
        .expect("recordings")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| std::fs::read_to_string(entry.path()).expect("readable"))
        .collect()
}

/// A process that is held still: it waits for its input to end.
pub struct Held {
    child: Child,
    /// The thread that waits.
    pub waiting: u32,
    /// What the runtime calls that thread.
    pub thread: u64,
    pub version: String,
    /// Innermost first.
    pub frames: Vec<Told>,
}

impl Held {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// `None`: it is a version that is not read, or cannot be started here.
pub fn start(command: &[String]) -> Option<Held> {
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let head = lines.next().unwrap_or_default();
    let (thread, version) = head.split_once(' ').unwrap_or_default();
    let (thread, version) = (thread.parse().unwrap_or(0), version.to_owned());
    let mut frames = Vec::new();
    for line in lines {
        if line == "held" {
            let waiting = wait_until_it_reads(child.id());
            return Some(Held { child, waiting, thread, version, frames });
        }
        frames.push(told(&line));
    }
    eprintln!("skipped: {command:?} does not run the fixture: {head}");
    let _ = child.wait();
    None
}

/// It has said so, but still has to begin to wait for its input: read(0, …) then is a thread's system call.
fn wait_until_it_reads(pid: u32) -> u32 {
    let begin = Instant::now();
    loop {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
        for thread in threads.flatten() {
            if std::fs::read_to_string(thread.path().join("syscall"))
                .is_ok_and(|text| text.starts_with("0 0x0 "))
            {
                return thread.file_name().to_string_lossy().parse().expect("a thread");
            }
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "it does not wait for its input");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn told(line: &str) -> Told {
    // Names may have spaces (`get price`), and so may files.
    let (line, rest) = line.split_once(' ').expect("a line first");
    let file = [" /", " node:"].iter().find_map(|begin| rest.find(begin)).or_else(|| rest.rfind(' '));
    let file = file.expect("a file last");
    let (name, file) = (&rest[..file], &rest[file + 1..]);
    Told { line: line.parse().expect("a line"), name: name.to_owned(), file: file.to_owned() }
}

/// An executable mapping of a process; of no object file: what `/proc/PID/maps` has in its place.
pub struct ExecutableMapping {
    pub begin: u64,
    pub end: u64,
    pub content: Result<MappedObject, String>,
}

/// The executable mappings of a process. Each file is opened once.
pub fn executable_mappings(pid: u32) -> Vec<ExecutableMapping> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("its mappings");
    let mut files: Vec<(String, Arc<ObjectFile>)> = Vec::new();
    let mut mappings = Vec::new();
    for line in maps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[1].as_bytes()[2] != b'x' {
            continue;
        }
        let (begin, end) = words[0].split_once('-').expect("a range");
        let [begin, end] = [begin, end].map(hex);
        let (offset, inode) = (hex(words[2]), words[4]);
        let path = words.get(5).copied().unwrap_or_default().to_owned();
        // Not by its path, which is another one for a process with a root of its own.
        let file = PathBuf::from(format!("/proc/{pid}/map_files/{begin:x}-{end:x}"));
        let content = match files.iter().find(|(known, _)| inode != "0" && *known == path) {
            Some((_, file)) => Ok(Arc::clone(file)),
            None if inode == "0" => Err(path),
            None => {
                let Ok(opened) = std::fs::File::open(&file) else { continue };
                match ObjectFile::new(opened, &file).map(Arc::new) {
                    Ok(object) => {
                        files.push((path, Arc::clone(&object)));
                        Ok(object)
                    }
                    // Generated code in a file (the class archive of JDK 11).
                    Err(_) => Err(path),
                }
            }
        };
        let content = content.map(|file| {
            let linked = file.elf_address(spanflame_symbols::FileOffset(offset)).expect("it is mapped");
            MappedObject { file, bias: Bias::between(ProcessAddress(begin), linked) }
        });
        mappings.push(ExecutableMapping { begin, end, content });
    }
    mappings
}

/// The executable files that a process has mapped.
pub fn mapped_objects(mappings: &[ExecutableMapping]) -> Vec<MappedObject> {
    mappings.iter().filter_map(|mapping| mapping.content.as_ref().ok().cloned()).collect()
}

/// As user space sees what the kernel side recorded.
pub fn script_frame(runtime: Runtime, raw: &RawScriptFrame) -> ScriptFrame {
    ScriptFrame {
        runtime,
        kind: raw.kind,
        is_entry: raw.flags & ENTRY != 0,
        is_leaf: raw.flags & LEAF != 0,
        address: raw.address,
        object: raw.object,
        other: raw.other,
        position: raw.position,
        identity: raw.identity,
    }
}

pub fn hex(text: &str) -> u64 {
    u64::from_str_radix(text, 16).expect("hexadecimal")
}

/// Pairs of digits; `_7_` stands for seven zeros.
pub fn bytes_of(digits: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, part) in digits.split('_').enumerate() {
        if index % 2 == 1 {
            bytes.resize(bytes.len() + part.parse::<usize>().expect("a count"), 0);
            continue;
        }
        let pairs = part.as_bytes().chunks(2);
        bytes.extend(pairs.map(|pair| hex(std::str::from_utf8(pair).expect("digits")) as u8));
    }
    bytes
}

pub fn digits_of(bytes: &[u8]) -> String {
    let mut text = String::new();
    for run in bytes.chunk_by(|one, next| (*one == 0) == (*next == 0)) {
        if run[0] == 0 && run.len() > 2 {
            let _ = write!(text, "_{}_", run.len());
        } else {
            for byte in run {
                let _ = write!(text, "{byte:02x}");
            }
        }
    }
    text
}

/// Regions so near to the one before stand on its line.
const NEAR_BYTES: u64 = 0x10000;

/// `frame` lines (line, name, file) and `memory` lines: an address and what is there, then what is further up: how many
/// bytes behind that, and what is there.
pub fn write_frames_and_memory(text: &mut String, frames: &[Told], memory: &RecordedMemory) {
    for frame in frames {
        let _ = writeln!(text, "frame {} {} {}", frame.line, frame.name, frame.file);
    }
    let mut end = None;
    for (begin, contents) in memory.regions() {
        let gap = end.and_then(|end| begin.checked_sub(end)).filter(|gap| *gap < NEAR_BYTES);
        let _ = match (gap, end) {
            (Some(gap), _) => write!(text, " +{gap:x} "),
            (None, Some(_)) => write!(text, "\nmemory {begin:x} "),
            (None, None) => write!(text, "memory {begin:x} "),
        };
        text.push_str(&digits_of(contents));
        end = Some(begin + contents.len() as u64);
    }
    text.push('\n');
}

/// The other way: whether a line was one of them.
pub fn read_frame_or_memory(
    (word, rest): (&str, &str),
    frames: &mut Vec<Told>,
    memory: &mut RecordedMemory,
) -> bool {
    match word {
        "frame" => frames.push(told(rest)),
        "memory" => {
            let mut end = 0;
            for pair in rest.split(' ').collect::<Vec<_>>().chunks(2) {
                let begin = pair[0].strip_prefix('+').map_or_else(|| hex(pair[0]), |gap| end + hex(gap));
                let contents = bytes_of(pair[1]);
                end = begin + contents.len() as u64;
                memory.add(begin, contents);
            }
        }
        _ => return false,
    }
    true
}
