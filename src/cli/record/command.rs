//! A command that is held back before `execve` until sampling has begun, so that not even its first
//! instruction is missed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, pidfd_open, setrlimit};

/// A child process that waits before `execve`.
pub struct HeldCommand {
    pid: u32,
    gate: OwnedFd,
    spawned: Receiver<io::Result<Child>>,
    spawner: Spawner,
}

/// A child process that runs the user's command.
pub struct RunningCommand {
    child: Child,
    /// Without one its end is noticed a little later.
    pidfd: Option<OwnedFd>,
    _spawner: Spawner,
}

/// The thread that forked the child. It stays until the child is reaped, since a parent-death signal
/// (`PR_SET_PDEATHSIG`) fires at the end of the thread that forked, not of the process.
struct Spawner {
    ends_with_this: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Spawner {
    /// Joined, so that a child that was held and given up is reaped before we go on.
    fn drop(&mut self) {
        drop(self.ends_with_this.take());
        if let Some(thread) = self.thread.take() {
            // It does nothing that could panic; if it did, that was told on standard error.
            let _ = thread.join();
        }
    }
}

/// Program and arguments.
fn split(arguments: &[String]) -> io::Result<(&String, &[String])> {
    arguments.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no command"))
}

impl HeldCommand {
    /// Forks a child for `arguments` (program first, found through `PATH`) and holds it. It gets
    /// `descriptor_limit`, whatever ours is by now.
    ///
    /// # Errors
    /// The system's.
    pub fn hold(arguments: &[String], descriptor_limit: Rlimit) -> io::Result<Self> {
        let (program, rest) = split(arguments)?;
        let mut command = Command::new(program);
        command.args(rest);
        Self::hold_command(command, descriptor_limit)
    }

    /// The same for a command that no terminal has to do with: it reads nothing, what it says goes to `output`, and it
    /// is the first of a process group of its own.
    ///
    /// # Errors
    /// The system's.
    pub fn hold_apart(arguments: &[String], descriptor_limit: Rlimit, output: &File) -> io::Result<Self> {
        let (program, rest) = split(arguments)?;
        let mut command = Command::new(program);
        command.args(rest).process_group(0).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output.try_clone()?);
        Self::hold_command(command, descriptor_limit)
    }

    fn hold_command(mut command: Command, descriptor_limit: Rlimit) -> io::Result<Self> {
        let (gate_reader, gate_writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let (pid_reader, pid_writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let (gate_fd, gate_writer_fd) = (gate_reader.as_raw_fd(), gate_writer.as_raw_fd());
        let pid_fd = pid_writer.as_raw_fd();
        // SAFETY: between fork and exec the closure makes only async-signal-safe system calls, on
        // descriptors that are open in the parent for as long as the spawning thread runs.
        unsafe {
            command.pre_exec(move || {
                let pid = libc::getpid().to_ne_bytes();
                setrlimit(Resource::Nofile, descriptor_limit)?;
                // The child's own copy of the writing end would keep the gate from ever closing.
                libc::close(gate_writer_fd);
                if libc::write(pid_fd, pid.as_ptr().cast(), pid.len()) != pid.len().cast_signed() {
                    return Err(io::Error::last_os_error());
                }
                let mut go = 0_u8;
                match libc::read(gate_fd, (&raw mut go).cast(), 1) {
                    1 => Ok(()),
                    _ => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
                }
            });
        }
        // `spawn` returns once the child has called execve, so it has a thread to wait in.
        let (report, spawned) = crossbeam_channel::bounded(1);
        let (ends_with_this, ended) = crossbeam_channel::bounded::<()>(0);
        let thread = std::thread::Builder::new().name("spawn-command".to_owned()).spawn(move || {
            let child = command.spawn();
            drop((gate_reader, pid_writer));
            if report.send(child).is_ok() {
                // An error is the sign: the other end is gone.
                let _ = ended.recv();
            }
        })?;
        let spawner = Spawner { ends_with_this: Some(ends_with_this), thread: Some(thread) };
        let mut pid = [0_u8; 4];
        match File::from(pid_reader).read_exact(&mut pid) {
            Ok(()) => Ok(Self { pid: u32::from_ne_bytes(pid), gate: gate_writer, spawned, spawner }),
            Err(error) => Err(match spawned.recv() {
                Ok(Err(cause)) => cause,
                _ => error,
            }),
        }
    }

    /// The child's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets the child go on to `execve`.
    ///
    /// # Errors
    /// That of `execve`, such as a command that does not exist.
    pub fn release(self) -> io::Result<RunningCommand> {
        File::from(self.gate).write_all(&[1])?;
        let child = self.spawned.recv().map_err(|_| io::Error::other("the spawning thread failed"))??;
        let pid = Pid::from_child(&child);
        // From here on it runs and must not be forgotten, whatever else fails.
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok();
        Ok(RunningCommand { child, pidfd, _spawner: self.spawner })
    }
}

impl RunningCommand {
    /// The command's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Readable when the command has ended.
    #[must_use]
    pub fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// Its status, if it has ended.
    ///
    /// # Errors
    /// The system's.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end, at most `limit` and not beyond a signal; never ends it. `None` if it goes on.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        if let Some(status) = self.try_wait()? {
            return Ok(Some(status));
        }
        let mut sources: Vec<_> =
            self.poll_fd().map(|pidfd| PollFd::from_borrowed_fd(pidfd, PollFlags::IN)).into_iter().collect();
        let limit = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        match poll(&mut sources, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => self.try_wait(),
            Err(error) => Err(error.into()),
        }
    }
}

/// The status as a shell gives it on: its own, or 128 + N for signal N.
#[must_use]
pub fn shell_status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG_ENOUGH: Duration = Duration::from_secs(60);

    fn hold(arguments: &[String]) -> io::Result<HeldCommand> {
        HeldCommand::hold(arguments, rustix::process::getrlimit(Resource::Nofile))
    }

    fn arguments(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_runs_before_the_release() {
        let folder = tempfile::tempdir().expect("a folder");
        let marker = folder.path().join("ran");
        let held = hold(&arguments(&["touch", &marker.to_string_lossy()])).expect("the child is held");
        let cmdline = std::fs::read(format!("/proc/{}/cmdline", held.pid())).expect("it is there");
        assert!(!cmdline.starts_with(b"touch"), "it has not called execve");
        assert!(!marker.exists());
        let mut running = held.release().expect("it runs");
        assert_eq!(
            shell_status(running.wait(LONG_ENOUGH).expect("it can be waited for").expect("it ends")),
            0
        );
        assert!(marker.exists());
    }

    #[test]
    fn a_command_that_does_not_exist_is_an_error_at_its_release() {
        let held = hold(&arguments(&["/does/not/exist"])).expect("fork works");
        let error = held.release().err().expect("execve fails");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_status_is_the_commands_own_or_128_and_the_signal() {
        for (script, status) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)]
        {
            let held = hold(&arguments(&["sh", "-c", script])).expect("fork works");
            let mut running = held.release().expect("it runs");
            assert_eq!(
                shell_status(running.wait(LONG_ENOUGH).expect("it can be waited for").expect("it ends")),
                status,
                "{script}"
            );
        }
    }

    #[test]
    fn a_command_that_is_given_up_never_runs() {
        let folder = tempfile::tempdir().expect("a folder");
        let marker = folder.path().join("ran");
        let held = hold(&arguments(&["touch", &marker.to_string_lossy()])).expect("fork works");
        let pid = held.pid();
        drop(held);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "it is gone and reaped");
        assert!(!marker.exists());
    }

    #[test]
    fn it_has_the_descriptor_limit_that_it_was_given() {
        let folder = tempfile::tempdir().expect("a folder");
        let said = folder.path().join("said");
        let script = format!("ulimit -Sn > {}", said.display());
        let limit = Rlimit { current: Some(77), ..rustix::process::getrlimit(Resource::Nofile) };
        let held = HeldCommand::hold(&arguments(&["sh", "-c", &script]), limit).expect("fork works");
        held.release().expect("it runs").wait(LONG_ENOUGH).expect("it can be waited for").expect("it ends");
        assert_eq!(std::fs::read_to_string(&said).expect("it said so").trim(), "77");
    }

    #[test]
    fn waiting_ends_with_its_limit() {
        let held = hold(&arguments(&["sleep", "0.3"])).expect("fork works");
        let mut running = held.release().expect("it runs");
        assert_eq!(running.wait(Duration::from_millis(1)).expect("it can be waited for"), None);
        assert!(running.wait(LONG_ENOUGH).expect("it can be waited for").expect("it ends").success());
    }
}
