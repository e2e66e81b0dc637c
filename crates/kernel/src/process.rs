//! clone3(2), for the one place where a process must be forked and not executed, and the exit status of a process
//! that is not our child.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::{Errno, Result};
use rustix::process::Pid;

/// Which of the two a caller of [`clone_sibling`] has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clone {
    /// The caller, with the new process's id in the caller's PID namespace.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Forks a process whose parent is the caller's own parent (`CLONE_PARENT`), so that the caller can go away
/// and its parent can still wait for the new one. A PID namespace entered by setns(2) takes effect on it.
///
/// Source: clone3(2).
///
/// # Panics
/// When the caller has more than one thread: a fork would copy locks that nobody will ever release.
///
/// # Errors
/// `EAGAIN` at a limit of processes, `ENOMEM` also when the PID namespace has lost its init.
pub fn clone_sibling() -> Result<Clone> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    assert!(threads <= 1, "clone_sibling in a process with {threads} threads");
    let args = libc::clone_args {
        flags: u64::from(libc::CLONE_PARENT.unsigned_abs()),
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: 0,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    // SAFETY: without CLONE_VM and with no new stack this is fork(2): the child runs on a copy of this
    // address space. There is a single thread (asserted), so no lock is held by a thread that vanishes.
    let ret = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    let pid = i32::try_from(crate::check(ret)?).map_err(|_| Errno::RANGE)?;
    Ok(Pid::from_raw(pid).map_or(Clone::Child, Clone::Parent))
}

/// `struct pidfd_info` of linux/pidfd.h, its first version (64 bytes).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_GET_INFO` of linux/pidfd.h: `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::Ioctl = 0xc040_ff0b;
/// `PIDFD_INFO_EXIT` of linux/pidfd.h.
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// Whether [`exit_status`] works: from Linux 6.15 on.
#[must_use]
pub fn tells_exit_status() -> bool {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

/// The wait status of a process that has ended and that its parent has waited for, whoever that was.
///
/// Source: linux/pidfd.h, Linux 6.15.
///
/// # Errors
/// `EINVAL` or `ENOTTY` from an older kernel, `ESRCH` when the process has ended but nobody has waited for it yet.
pub fn exit_status(pidfd: impl AsFd) -> Result<i32> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request's number holds the size of `info`, which lives across the call; the kernel writes plain
    // integers into it and no more than that size.
    let ret = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    crate::check(ret.into())?;
    if info.mask & PIDFD_INFO_EXIT == 0 { Err(Errno::SRCH) } else { Ok(info.exit_code) }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    #[test]
    fn the_status_of_a_process_that_was_waited_for_is_known() {
        let mut child = std::process::Command::new("/bin/sh").args(["-c", "exit 7"]).spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        child.wait().unwrap();
        match super::exit_status(&pidfd) {
            Ok(status) => assert_eq!(status, 7 << 8),
            Err(e) => assert!(!super::tells_exit_status(), "{e}"),
        }
    }
}
