//! clone3(2), for the one place where a process must be forked and not executed.

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
