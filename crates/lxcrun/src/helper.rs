//! Our helper programs, as processes.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Pid, WaitOptions, waitpid};

/// Descriptors of the parent keep clear of the numbers that the child gives its own.
const ABOVE_CHILD_FDS: i32 = 16;

/// A helper at work: a child of this process, and nobody else's to wait for.
#[derive(Debug)]
pub(crate) struct Helper {
    pid: Pid,
}

impl Helper {
    /// Spawns the program in `file`, which sees `mappings` and nothing else, and no environment but `variable`.
    ///
    /// By posix_spawn(3), whose child borrows our memory until it executes. A fork copies the tables of all our
    /// pages, and `std::process::Command` forks when descriptors are given numbers.
    pub fn spawn(
        file: OwnedFd,
        name: &str,
        mappings: Vec<(OwnedFd, i32)>,
        variable: Option<(&str, PathBuf)>,
    ) -> io::Result<Self> {
        // Opened by its path in the child, after the numbers are given.
        let file = fcntl_dupfd_cloexec(file, ABOVE_CHILD_FDS)?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let null = fcntl_dupfd_cloexec(null, ABOVE_CHILD_FDS)?;
        let mut actions = PosixSpawnFileActions::init()?;
        for number in 0..=2 {
            actions.add_dup2(null.as_raw_fd(), number)?;
        }
        let mut kept = Vec::new();
        for (fd, number) in mappings {
            let fd = fcntl_dupfd_cloexec(fd, ABOVE_CHILD_FDS)?;
            actions.add_dup2(fd.as_raw_fd(), number)?;
            kept.push(fd);
        }
        let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let environment = variable.map(|(name, value)| {
            let mut entry = OsString::from(name);
            entry.push("=");
            entry.push(value);
            CString::new(entry.into_vec())
        });
        let environment: Vec<CString> = environment.into_iter().collect::<Result<_, _>>()?;
        let pid = posix_spawn(&*path, &actions, &as_a_shell_would()?, &[CString::new(name)?], &environment)?;
        let pid = Pid::from_raw(pid.as_raw()).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { pid })
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits for its end.
    pub fn wait(&self) -> io::Result<()> {
        loop {
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Err(Errno::INTR) => {}
                // It has ended, and the program that we are part of ignores SIGCHLD.
                Err(Errno::CHILD) => return Ok(()),
                waited => return Ok(waited.map(drop)?),
            }
        }
    }
}

/// No signal blocked, and none ignored that a helper can't do without, or that Rust's runtime ignores.
fn as_a_shell_would() -> nix::Result<PosixSpawnAttr> {
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF)?;
    attributes.set_sigmask(&SigSet::empty())?;
    let mut ignored = SigSet::empty();
    ignored.add(Signal::SIGPIPE);
    // By whoever has started us: liblxc would wait for the end of its children in vain.
    ignored.add(Signal::SIGCHLD);
    attributes.set_sigdefault(&ignored)?;
    Ok(attributes)
}
