//! User namespaces that exist only for their mappings.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, Result};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::process::clone_args;

/// Makes a user namespace with these mappings, lines of /proc/PID/uid_map and gid_map, and returns its file.
///
/// A namespace needs a process to be born in: it is forked here, does nothing, and is gone when this returns.
/// Source: user_namespaces(7).
///
/// # Errors
/// `EPERM` without the right to map these ids, `EINVAL` for mappings that overlap, `ENOSPC` at the limit of user
/// namespaces.
pub fn user_namespace(uid_map: &str, gid_map: &str) -> Result<OwnedFd> {
    let map = |pid: Pid| {
        let write = |name: &str, map: &str| {
            fs::write(format!("/proc/{}/{name}", pid.as_raw_nonzero()), map).map_err(|e| errno(&e))
        };
        write("uid_map", uid_map)?;
        write("gid_map", gid_map)
    };
    new_user_namespace(map).map_err(|e| match e {
        NewUserNamespace::Made(e) | NewUserNamespace::Mapped(e) => e,
    })
}

/// Why there is no new user namespace.
#[derive(Debug)]
pub enum NewUserNamespace<E> {
    /// The kernel did not make it.
    Made(Errno),
    /// It was not mapped.
    Mapped(E),
}

/// Makes a user namespace, has `map` write the mappings of a process in it, and returns its file.
///
/// # Errors
/// The kernel's, or that of `map`.
pub fn new_user_namespace<E>(
    map: impl FnOnce(Pid) -> std::result::Result<(), E>,
) -> std::result::Result<OwnedFd, NewUserNamespace<E>> {
    let process = Process::fork(None).map_err(NewUserNamespace::Made)?;
    map(process.pid).map_err(NewUserNamespace::Mapped)?;
    let file = fs::File::open(process.file("ns/user"));
    file.map(OwnedFd::from).map_err(|e| NewUserNamespace::Made(errno(&e)))
}

/// The mappings of a user namespace as this process sees them, the texts of uid_map and gid_map. The kernel shows them
/// only of a process that is in it, so one is forked here and gone when this returns.
///
/// # Errors
/// `EINVAL` when `namespace` is none, or our own; `EPERM` without rights over it.
pub fn user_namespace_mappings(namespace: BorrowedFd<'_>) -> Result<(String, String)> {
    let process = Process::fork(Some(namespace.as_raw_fd()))?;
    let read = |name: &str| fs::read_to_string(process.file(name)).map_err(|e| errno(&e));
    Ok((read("uid_map")?, read("gid_map")?))
}

/// What a user or group of a user namespace is outside, by its uid_map or gid_map: user_namespaces(7). None for one that is not
/// mapped.
#[must_use]
pub fn outside_of(map: &str, id: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (inside, outside, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        let offset = id.checked_sub(inside).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    })
}

/// The user namespace that owns `namespace`. Source: ioctl_ns(2).
///
/// # Errors
/// `EPERM` when it is one that this process's user namespace is in, `ENOTTY` when `namespace` is none.
pub fn owner_of(namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    /// `_IO(0xb7, 1)`.
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    // SAFETY: the request takes no argument.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) };
    crate::check(fd.into())?;
    // SAFETY: the kernel has just made it, close-on-exec, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// A child in another user namespace. It does nothing and ends when this is dropped.
struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    /// The child reads from the other end: when this one is closed, also by our death, it exits.
    _end: OwnedFd,
}

impl Process {
    /// Forks a child into a new user namespace, or into an existing one.
    fn fork(existing: Option<RawFd>) -> Result<Self> {
        let (end_read, end) = pipe_with(PipeFlags::CLOEXEC)?;
        let (ready, ready_write) = pipe_with(PipeFlags::CLOEXEC)?;
        let fds = ChildFds {
            existing,
            end_read: end_read.as_raw_fd(),
            end_write: end.as_raw_fd(),
            ready: ready_write.as_raw_fd(),
        };
        let (pid, pidfd) = clone(&fds)?;
        drop(ready_write);
        let process = Self { pid, pidfd, _end: end };
        // Its copy of the pipe is closed once it is where it should be; a byte before is the reason why not.
        let mut failure = [0; 4];
        match rustix::io::retry_on_intr(|| rustix::io::read(&ready, &mut failure))? {
            0 => Ok(process),
            _ => Err(Errno::from_raw_os_error(i32::from_ne_bytes(failure))),
        }
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.pid.as_raw_nonzero())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        /// `__WALL` of waitid(2): also for a child that sends no signal at its end.
        const WALL: WaitIdOptions = WaitIdOptions::from_bits_retain(libc::__WALL.cast_unsigned());
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let wait = || waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED | WALL);
        let _ = rustix::io::retry_on_intr(wait);
    }
}

/// What the child uses. It has copies of all other descriptors, too, as long as it lives.
struct ChildFds {
    existing: Option<RawFd>,
    end_read: RawFd,
    end_write: RawFd,
    ready: RawFd,
}

fn clone(fds: &ChildFds) -> Result<(Pid, OwnedFd)> {
    let mut pidfd: RawFd = -1;
    let new = if fds.existing.is_none() { libc::CLONE_NEWUSER } else { 0 };
    // Without a signal nobody's handler for the end of children hears of this one.
    let args =
        libc::clone_args { pidfd: (&raw mut pidfd).addr() as u64, ..clone_args(new | libc::CLONE_PIDFD, 0) };
    // SAFETY: without CLONE_VM this is fork(2). Other threads may hold locks, so the child makes plain system calls
    // only and never returns from `wait_and_exit`.
    let ret = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match crate::check(ret)? {
        0 => wait_and_exit(fds),
        pid => {
            // SAFETY: with CLONE_PIDFD the kernel has put a new descriptor there that nothing else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::RANGE)?;
            Ok((pid, pidfd))
        }
    }
}

/// The child's whole life: system calls alone.
fn wait_and_exit(fds: &ChildFds) -> ! {
    if let Some(namespace) = fds.existing {
        // SAFETY: takes two numbers and changes this process's credentials only.
        let ret = unsafe { libc::syscall(libc::SYS_setns, namespace, libc::CLONE_NEWUSER) };
        if let Err(e) = crate::check(ret) {
            let errno = e.raw_os_error();
            // SAFETY: writes the four bytes of `errno`, which lives across the call.
            unsafe { libc::syscall(libc::SYS_write, fds.ready, &raw const errno, size_of::<i32>()) };
        }
    }
    for copy in [fds.ready, fds.end_write] {
        // SAFETY: closes this process's copy of a descriptor that it does not use.
        unsafe { libc::syscall(libc::SYS_close, copy) };
    }
    let mut byte = 0_u8;
    // SAFETY: reads at most one byte into `byte`, which lives across the call.
    unsafe { libc::syscall(libc::SYS_read, fds.end_read, &raw mut byte, 1) };
    // SAFETY: ends the process without running anything of the parent's.
    unsafe { libc::_exit(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_their_range() {
        let map = "         0     100000       1000\n      1000     200000      64536\n";
        assert_eq!(outside_of(map, 0), Some(100_000));
        assert_eq!(outside_of(map, 999), Some(100_999));
        assert_eq!(outside_of(map, 1000), Some(200_000));
        assert_eq!(outside_of(map, 65536), None);
        assert_eq!(outside_of("0 0 4294967295\n", 7), Some(7));
    }

    #[test]
    fn a_user_namespace_outlives_its_process() {
        let namespace = user_namespace("0 1000 5\n5 2000 1\n", "0 1000 1\n").unwrap();
        let own = fs::metadata("/proc/self/ns/user").unwrap();
        let stat = rustix::fs::fstat(&namespace).unwrap();
        assert_ne!(stat.st_ino, std::os::unix::fs::MetadataExt::ino(&own));
        let (uids, gids) = user_namespace_mappings(namespace.as_fd()).unwrap();
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&uids), ["0", "1000", "5", "5", "2000", "1"]);
        assert_eq!(words(&gids), ["0", "1000", "1"]);
        let none = fs::File::open("/dev/null").unwrap();
        assert_eq!(user_namespace_mappings(none.as_fd()).unwrap_err(), Errno::INVAL);
        assert_eq!(user_namespace("0 0 1\n0 1 1\n", "0 0 1\n").unwrap_err(), Errno::INVAL);
    }
}
