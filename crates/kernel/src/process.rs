//! clone3(2), for the two places where a process must be forked and not executed, and how a process has ended.

use std::ffi::{CStr, c_char};
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::{Errno, Result};
use rustix::process::Pid;

/// Which of the two a caller of [`clone_sibling`] or [`clone_child`] has become.
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
    // The signal is that of the caller: with this flag the kernel wants none to be named.
    clone(libc::CLONE_PARENT, 0)
}

/// Forks a child of the caller, which tells of its end by SIGCHLD.
///
/// Source: clone3(2).
///
/// # Panics
/// When the caller has more than one thread: a fork would copy locks that nobody will ever release.
///
/// # Errors
/// `EAGAIN` at a limit of processes, `ENOMEM`.
pub fn clone_child() -> Result<Clone> {
    clone(0, libc::SIGCHLD)
}

unsafe extern "C" {
    /// The first of this process's arguments (program_invocation_name(3)).
    static program_invocation_name: *mut c_char;
}

/// Writes another name over the first of this process's arguments, which ps(1) shows, as far as there is room.
///
/// To be called by a process with a single thread, such as one that was just forked: another might be reading it.
pub fn rename(name: &str) {
    // SAFETY: the C library has set it before `main`, to a string of this process's stack, and nobody has since.
    let old = unsafe { program_invocation_name };
    // SAFETY: it ends in a NUL byte, and by the contract above nobody changes it meanwhile.
    let room = unsafe { CStr::from_ptr(old) }.count_bytes();
    // SAFETY: the string that was measured, without its end.
    let old = unsafe { std::slice::from_raw_parts_mut(old.cast::<u8>(), room) };
    let new = name.bytes().chain(std::iter::repeat(0));
    old.iter_mut().zip(new).for_each(|(old, new)| *old = new);
}

/// Ends this process without the handlers of exit(3), which are another's where a process was forked and has not executed
/// a program.
pub fn exit(code: i32) -> ! {
    // SAFETY: runs nothing of this process any more.
    unsafe { libc::_exit(code) }
}

/// What clone3(2) is asked for a fork: with these flags, and with this signal at the child's end, or none for 0.
pub(crate) fn clone_args(flags: i32, exit_signal: i32) -> libc::clone_args {
    libc::clone_args {
        flags: flags.unsigned_abs().into(),
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: exit_signal.unsigned_abs().into(),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    }
}

fn clone(flags: i32, exit_signal: i32) -> Result<Clone> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    assert!(threads <= 1, "a fork in a process with {threads} threads");
    let args = clone_args(flags, exit_signal);
    // SAFETY: without CLONE_VM and with no new stack this is fork(2): the child runs on a copy of this
    // address space. There is a single thread (asserted), so no lock is held by a thread that vanishes.
    let ret = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    let pid = i32::try_from(crate::check(ret)?).map_err(|_| Errno::RANGE)?;
    Ok(Pid::from_raw(pid).map_or(Clone::Child, Clone::Parent))
}

/// `struct pidfd_info` in its first size: linux/pidfd.h.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_GET_INFO`, with the size of that structure.
const PIDFD_GET_INFO: u32 = 0xC040_FF0B;
/// `PIDFD_INFO_EXIT`
const EXIT: u64 = 1 << 3;
/// The first release of Linux that has it.
const WITH_EXIT: (u32, u32) = (6, 15);

/// How a process has ended that somebody has waited for, or that nobody had to: the status of wait(2). None as long as it
/// has not ended, or waits to be waited for. The descriptor must have been opened before.
///
/// Source: linux/pidfd.h, `PIDFD_GET_INFO` with `PIDFD_INFO_EXIT`.
///
/// # Errors
/// `ENOTTY` or `ESRCH` where the kernel remembers no such thing: before 6.15.
pub fn status_after_reaping(pidfd: impl AsFd) -> Result<Option<i32>> {
    let mut info = PidfdInfo { mask: EXIT, ..PidfdInfo::default() };
    // SAFETY: the number says how large the structure is that the kernel reads and writes, which lives across the call.
    let ret = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO.into(), &raw mut info) };
    crate::check(ret.into())?;
    Ok((info.mask & EXIT != 0).then_some(info.exit_code))
}

/// Whether [`status_after_reaping`] works here. There is no way to ask without a process that has ended, so the kernel's
/// release counts; and whether the call is answered at all, which a seccomp filter may forbid.
#[must_use]
pub fn statuses_outlive_reaping() -> bool {
    let release = rustix::system::uname();
    if !is_since(&release.release().to_string_lossy(), WITH_EXIT) {
        return false;
    }
    let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty());
    own.is_ok_and(|own| status_after_reaping(own).is_ok())
}

/// Whether a release of Linux, like `6.12.3-amd64`, is that one or a later one.
fn is_since(release: &str, wanted: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= wanted,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        for (release, since) in [
            ("6.15", true),
            ("6.18.44-x", true),
            ("10.0", true),
            ("6.12.3-amd64", false),
            ("6", false),
            ("", false),
        ] {
            assert_eq!(is_since(release, WITH_EXIT), since, "{release}");
        }
    }

    #[test]
    fn a_status_is_known_after_somebody_has_taken_it() {
        let mut child = std::process::Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        child.wait().unwrap();
        if statuses_outlive_reaping() {
            assert_eq!(status_after_reaping(pidfd).unwrap(), Some(7 << 8));
        } else {
            status_after_reaping(pidfd).unwrap_err();
        }
    }
}
