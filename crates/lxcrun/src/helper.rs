//! Our helper programs, as processes.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use rustix::io::{Errno, fcntl_dupfd_cloexec, retry_on_intr};
use rustix::process::{
    Pid, PidfdFlags, WaitId, WaitIdOptions, WaitOptions, kill_process, pidfd_open, pidfd_send_signal, waitid,
    waitpid,
};

use crate::process;

/// Descriptors of the parent keep clear of the numbers that the child gives its own.
const ABOVE_CHILD_FDS: i32 = 16;

/// A helper at work: a child of this process, and nobody else's to wait for.
#[derive(Debug)]
pub(crate) struct Helper {
    pid: Pid,
    /// What it is waited for by: its number is another one's when the program that we are part of ignores SIGCHLD, or waits
    /// for whatever child ends.
    pidfd: OwnedFd,
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
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self { pid, pidfd }),
            Err(e) => {
                // Helpers wait for us to speak first, so that it lives, unless somebody has killed it.
                if !process::is_gone(e) {
                    let _ = kill_process(pid, rustix::process::Signal::KILL);
                    let _ = retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
                }
                Err(e.into())
            }
        }
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub fn kill(&self) {
        // One that has ended already is as dead as wanted.
        let _ = pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
    }

    /// Waits for its end.
    pub fn wait(&self) -> io::Result<()> {
        match retry_on_intr(|| waitid(WaitId::PidFd(self.pidfd()), WaitIdOptions::EXITED)) {
            // It has ended, and the program that we are part of ignores SIGCHLD.
            Err(Errno::CHILD) => Ok(()),
            waited => Ok(waited.map(drop)?),
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use libseccomp::{ScmpAction, ScmpFilterContext, ScmpSyscall};
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    /// A program that lives until the other end is closed.
    fn spawn() -> io::Result<(Helper, OwnedFd)> {
        let (input, end) = pipe_with(PipeFlags::CLOEXEC)?;
        let program = File::open("/bin/cat")?;
        Helper::spawn(program.into(), "cat", vec![(input, 0)], None).map(|helper| (helper, end))
    }

    #[test]
    fn one_that_somebody_else_has_waited_for_is_not_waited_for_by_its_number() {
        let (helper, end) = spawn().unwrap();
        drop(end);
        waitpid(Some(helper.pid()), WaitOptions::empty()).unwrap();
        helper.wait().unwrap();
        let (helper, _end) = spawn().unwrap();
        helper.kill();
        helper.wait().unwrap();
        helper.wait().unwrap();
    }

    /// Says to a test that it is alone in its process.
    const ALONE: &str = "LXCRUN_TEST_ALONE";

    #[test]
    fn without_a_descriptor_of_it_nothing_is_left() {
        let name = "helper::tests::without_a_descriptor_of_it_nothing_is_left";
        if std::env::var_os(ALONE).is_none() {
            let again = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", name])
                .env(ALONE, "1")
                .output();
            let again = again.unwrap();
            assert!(again.status.success(), "{again:?}");
            return;
        }
        let mut filter = ScmpFilterContext::new(ScmpAction::Allow).unwrap();
        let refused = ScmpAction::Errno(Errno::MFILE.raw_os_error());
        filter.add_rule(refused, ScmpSyscall::from_name("pidfd_open").unwrap()).unwrap();
        filter.load().unwrap();
        let error = spawn().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::MFILE.raw_os_error()));
        assert_eq!(waitpid(None, WaitOptions::NOHANG).unwrap_err(), Errno::CHILD, "it is still there");
    }
}
