//! A process has a file mapped whose file system does not answer: whoever reads its memory waits for the file by
//! himself, and neither the process nor others who look at it wait with him.
//!
//! The file system is FUSE's (`linux/fuse.h`, protocol 7.31), served by this test, which does not touch the file itself.
//! It is mounted where nobody else sees it, in a mount namespace of the test's thread.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use spanflame_symbols::process_memory::{LiveMemory, ProcessMemory};

const FILE_BYTES: u64 = 1 << 20;
/// Nothing takes so long that is not stuck. Not longer: whoever kills this test while one of its threads waits for the file
/// leaves it waiting, since the file system is only gone with all threads.
const LIMIT: Duration = Duration::from_secs(15);
/// Maps the file without touching it, says so, and maps something else for each line that it reads.
const MAPS_IT: &str = "
import mmap, sys
with open(sys.argv[1], 'rb') as file:
    mapping = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
begin = [line.split('-')[0] for line in open('/proc/self/maps') if line.rstrip().endswith(sys.argv[1])][0]
print(begin, flush=True)
kept = []
for line in sys.stdin:
    kept.append(mmap.mmap(-1, 1 << 20))
    print('mapped', flush=True)
";

/// Answers as a file system with one file, `/file`. Of each request to read the file it says so and waits for leave.
fn serve(mut fuse: &File, read_asked: &Sender<()>, may_answer: &Receiver<()>) {
    let mut request = vec![0; (1 << 17) + 4096];
    while let Ok(bytes) = fuse.read(&mut request) {
        let word = |at: usize| u64::from_le_bytes(request[at..at + 8].try_into().expect("eight"));
        if bytes < 40 {
            return;
        }
        let (operation, unique, node) = (word(0) >> 32, word(8), word(16));
        let attributes = |node: u64| {
            let (mode, size): (u32, u64) = if node == 1 { (0o40755, 0) } else { (0o100_644, FILE_BYTES) };
            let mut body: Vec<u8> =
                [node, size, size / 512, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
            let halves = [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0];
            body.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
            body
        };
        let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let body = match operation {
            // FUSE_INIT: 7.31; pages that are read ahead 65536 bytes, writes of 65536 bytes.
            26 => Some(words(&[7 | 31 << 32, 65536, 16 | 65536 << 32, 1, 0, 0, 0, 0])),
            // FUSE_LOOKUP: node 2, valid for an hour.
            1 => Some([words(&[2, 0, 3600, 3600, 0]), attributes(2)].concat()),
            // FUSE_GETATTR.
            3 => Some([words(&[3600, 0]), attributes(node)].concat()),
            // FUSE_OPEN, FUSE_OPENDIR.
            14 | 27 => Some(words(&[0, 0])),
            // FUSE_READ of an offset and so many bytes: each byte tells its page.
            15 => {
                let (offset, count) = (word(48), word(56) & 0xffff_ffff);
                let _ = read_asked.send(());
                if may_answer.recv().is_err() {
                    return;
                }
                Some((offset..offset + count).map(|at| (at >> 12) as u8 + 1).collect())
            }
            // FUSE_FORGET, FUSE_INTERRUPT, FUSE_BATCH_FORGET want no answer.
            2 | 36 | 42 => continue,
            _ => None,
        };
        // ENOSYS for what it does not know.
        let error: i32 = if body.is_some() { 0 } else { -38 };
        let body = body.unwrap_or_default();
        let mut answer = (16 + body.len() as u32).to_le_bytes().to_vec();
        answer.extend(error.to_le_bytes());
        answer.extend(unique.to_le_bytes());
        answer.extend(body);
        // A request that was interrupted wants none.
        let _ = fuse.write(&answer);
    }
}

/// Mounts a file system for this thread and what it starts. `Err`: why that cannot be done here.
fn mount(folder: &Path) -> Result<File, String> {
    let failed = |what: &str| format!("{what}: {}", std::io::Error::last_os_error());
    let fuse = File::options().read(true).write(true).open("/dev/fuse").map_err(|error| error.to_string())?;
    let c_string = |text: &str| std::ffi::CString::new(text).expect("no zero");
    let (root, none, kind) = (c_string("/"), c_string("none"), c_string("fuse"));
    let target = c_string(folder.to_str().expect("text"));
    let options = c_string(&format!("fd={},rootmode=40000,user_id=0,group_id=0", fuse.as_raw_fd()));
    // SAFETY: numbers, and strings that end with a zero and outlive the calls.
    unsafe {
        if libc::unshare(libc::CLONE_NEWNS) != 0 {
            return Err(failed("a mount namespace"));
        }
        let private = libc::MS_REC | libc::MS_PRIVATE;
        if libc::mount(none.as_ptr(), root.as_ptr(), std::ptr::null(), private, std::ptr::null()) != 0 {
            return Err(failed("mounts of our own"));
        }
        let (options, flags) = (options.as_ptr().cast(), libc::MS_NOSUID | libc::MS_NODEV);
        if libc::mount(none.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options) != 0 {
            return Err(failed("a FUSE file system"));
        }
    }
    Ok(fuse)
}

fn check() -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a folder");
    let fuse = mount(folder.path())?;
    let (read_asked, was_read_asked) = channel();
    let (may_answer, leave) = channel();
    std::thread::spawn(move || serve(&fuse, &read_asked, &leave));
    let mut child = Command::new("python3")
        .args(["-c", MAPS_IT])
        .arg(folder.path().join("file"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("python3: {error}"))?;
    let pid = child.id();
    let (line, lines) = channel();
    let output = BufReader::new(child.stdout.take().expect("piped"));
    std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|text| line.send(text)));
    let begin = lines.recv_timeout(LIMIT).expect("it has mapped the file");
    let begin = u64::from_str_radix(&begin, 16).expect("hexadecimal");

    let only = LiveMemory::open(pid).expect("its memory").only_what_is_there();
    assert!(only.u64_at(begin).is_err(), "nobody waits for what is not there");

    let (answer, answered) = channel();
    std::thread::spawn(move || {
        let memory = LiveMemory::open(pid).expect("its memory");
        let _ = answer.send(memory.u64_at(begin + 5 * 4096));
    });
    was_read_asked.recv_timeout(LIMIT).expect("the file is read");
    // The file system does not answer. The process maps more, and its mappings can be read.
    child.stdin.as_mut().expect("piped").write_all(b"go on\n").expect("it reads");
    assert_eq!(lines.recv_timeout(LIMIT).as_deref(), Ok("mapped"), "the process goes on");
    let (seen, sees) = channel();
    std::thread::spawn(move || seen.send(std::fs::read_to_string(format!("/proc/{pid}/maps")).is_ok()));
    assert_eq!(sees.recv_timeout(LIMIT), Ok(true), "its mappings are seen");
    assert!(answered.try_recv().is_err(), "nothing was read yet");

    // It answers: the memory is the file.
    for _ in 0..64 {
        may_answer.send(()).expect("it is served");
    }
    assert_eq!(answered.recv_timeout(LIMIT), Ok(Ok(u64::from_le_bytes([6; 8]))));
    drop(child.stdin.take());
    let _ = child.wait();
    Ok(())
}

#[test]
fn a_file_that_does_not_come_holds_up_nobody_but_its_reader() {
    // A thread of its own has the mount namespace, which is gone with it.
    let checked = std::thread::spawn(check).join().expect("it is so");
    if let Err(reason) = checked {
        println!("skipped: {reason}");
    }
}
