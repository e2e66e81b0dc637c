//! Keeping liblxc and its child from waiting for one another when one of them was killed.
//!
//! Monitor and child (5 to 7: `lxc_spawn` and `do_start` in liblxc's start.c) send each other descriptors over a pair of
//! sockets of which both hold both ends. If one is killed before it has sent what the other waits for, that one waits for
//! ever: and on cgroup v1 the child is in no cgroup of the container's at first, so that nobody finds it. So a program may
//! define the symbols `recvmsg` and `recv` (the names of network devices) as [`lxcrun_recvmsg`] and [`lxcrun_recv`] and
//! export them, as `wait.rs` tells of `waitpid`. What they read(2) from each other comes over another pair, of which each
//! has but one end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use libc::{c_int, c_void, msghdr, size_t, ssize_t};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{Errno, Result};
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};

/// A process and its pidfd.
static PARENT: OnceLock<(u32, OwnedFd)> = OnceLock::new();

/// From now on this process and what it forks wait for no message of one another that can't come any more.
///
/// # Errors
/// `EMFILE` and the like.
pub fn end_orphans() -> Result<()> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    PARENT.get_or_init(|| (std::process::id(), own));
    Ok(())
}

/// Who may still send something.
enum Senders {
    /// For a child, its parent.
    Parent(&'static OwnedFd),
    /// For the parent, its children.
    Children(Vec<OwnedFd>),
}

/// recvmsg(2), which fails with `ECONNRESET` when the children that it would wait for have ended, and ends a process
/// that would wait for its parent in vain.
///
/// # Safety
/// As of recvmsg(2): `fd` is open, and `message` and what it points to may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxcrun_recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's promise.
    if !unsafe { may_receive(fd, flags) } {
        return -1;
    }
    // SAFETY: the caller's promise is what the kernel asks for.
    let received = unsafe { libc::syscall(libc::SYS_recvmsg, fd, message, flags) };
    ssize_t::try_from(received).unwrap_or(-1)
}

/// recv(2), likewise.
///
/// # Safety
/// As of recv(2): `fd` is open, and `length` bytes at `buffer` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxcrun_recv(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller's promise.
    if !unsafe { may_receive(fd, flags) } {
        return -1;
    }
    let nobody = std::ptr::null_mut::<c_void>();
    // SAFETY: the caller's promise is what the kernel asks for; it writes no address to null pointers.
    let received = unsafe { libc::syscall(libc::SYS_recvfrom, fd, buffer, length, flags, nobody, nobody) };
    ssize_t::try_from(received).unwrap_or(-1)
}

/// Waits until there is something to receive, if need be. False, with `errno`, when the children that would send it have
/// ended; the process ends when its parent has.
///
/// # Safety
/// `fd` is open, if it is one.
unsafe fn may_receive(fd: c_int, flags: c_int) -> bool {
    if fd < 0 || flags & libc::MSG_DONTWAIT != 0 {
        return true;
    }
    // SAFETY: not -1, and by the caller's promise open for the time of this call.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    // Who could still send something is only worth asking when nothing is there yet.
    let senders = if has_message(socket) { None } else { senders() };
    let in_vain = senders.as_ref().is_some_and(|who| waits_in_vain(socket, who).unwrap_or(false));
    match senders {
        // SAFETY: ends the process, without the handlers of the parent that it is a copy of.
        Some(Senders::Parent(_)) if in_vain => unsafe { libc::_exit(1) },
        Some(Senders::Children(_)) if in_vain => {
            crate::set_errno(libc::ECONNRESET);
            false
        }
        _ => true,
    }
}

fn has_message(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

fn senders() -> Option<Senders> {
    let (process, parent) = PARENT.get()?;
    if *process != std::process::id() {
        return Some(Senders::Parent(parent));
    }
    let children = std::fs::read_to_string("/proc/thread-self/children").ok()?;
    let pids = children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
    let children: Vec<OwnedFd> = pids.filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()).collect();
    (!children.is_empty()).then_some(Senders::Children(children))
}

/// Waits until there is something to receive, or until all senders have ended with nothing left to receive.
fn waits_in_vain(socket: BorrowedFd<'_>, senders: &Senders) -> Result<bool> {
    if fcntl_getfl(socket)?.contains(OFlags::NONBLOCK) {
        return Ok(false);
    }
    let mut alive: Vec<BorrowedFd<'_>> = match senders {
        Senders::Parent(parent) => vec![parent.as_fd()],
        Senders::Children(children) => children.iter().map(AsFd::as_fd).collect(),
    };
    loop {
        let all = std::iter::once(socket).chain(alive.iter().copied());
        let mut fds: Vec<PollFd<'_>> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            polled => polled?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[0] {
            return Ok(false);
        }
        let mut ended = ready[1..].iter();
        alive.retain(|_| ended.next() == Some(&false));
        if alive.is_empty() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// What `waits_in_vain` says in a child whose parent has ended, with or without a message for it.
    fn in_an_orphan(message: bool) -> bool {
        let (mut heard, mut tell) = std::io::pipe().unwrap();
        let (mut parents, childs) = UnixStream::pair().unwrap();
        // SAFETY: the child ends by _exit. It allocates, as it does in a monitor's child, and so needs the C library's
        // allocator to work after a fork of a process with threads, as glibc's does: fork(3) there takes care of its locks.
        let parent = unsafe { libc::fork() };
        if parent == 0 {
            let ready = end_orphans().is_ok() && (!message || parents.write_all(b"x").is_ok());
            // SAFETY: as above.
            if ready && unsafe { libc::fork() } == 0 {
                let in_vain =
                    senders().is_some_and(|parent| waits_in_vain(childs.as_fd(), &parent) == Ok(true));
                let _ = tell.write_all(&[u8::from(in_vain)]);
            }
            // SAFETY: as above.
            unsafe { libc::_exit(0) };
        }
        drop(tell);
        // SAFETY: a null status is not written to.
        assert_eq!(unsafe { libc::waitpid(parent, std::ptr::null_mut(), 0) }, parent);
        let mut in_vain = [2];
        heard.read_exact(&mut in_vain).unwrap();
        in_vain == [1]
    }

    #[test]
    fn a_child_does_not_wait_for_a_parent_that_has_ended() {
        assert!(in_an_orphan(false));
    }

    #[test]
    fn a_message_of_a_parent_that_has_ended_is_received() {
        assert!(!in_an_orphan(true));
    }

    #[test]
    fn what_is_there_is_received_as_ever() {
        let (mut one, other) = UnixStream::pair().unwrap();
        one.write_all(b"word").unwrap();
        let mut buffer = [0_u8; 8];
        // SAFETY: so many bytes are there.
        let received =
            unsafe { lxcrun_recv(other.as_fd().as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        assert_eq!((received, &buffer[..4]), (4, &b"word"[..]));
        let empty = libc::MSG_DONTWAIT;
        // SAFETY: as above.
        let received = unsafe {
            lxcrun_recv(other.as_fd().as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), empty)
        };
        assert_eq!(
            (received, Errno::from_io_error(&std::io::Error::last_os_error())),
            (-1, Some(Errno::AGAIN))
        );
    }

    #[test]
    fn a_parent_waits_until_its_last_child_has_ended() {
        let (mut one, other) = UnixStream::pair().unwrap();
        let mut children = ["exit 0", "read line"].map(|script| {
            let mut child = std::process::Command::new("sh");
            child.args(["-c", script]).stdin(std::process::Stdio::piped()).spawn().unwrap()
        });
        let senders = || {
            let pidfd = |child: &std::process::Child| pidfd_open(Pid::from_child(child), PidfdFlags::empty());
            Senders::Children(children.iter().map(|child| pidfd(child).unwrap()).collect())
        };
        one.write_all(b"x").unwrap();
        assert_eq!(waits_in_vain(other.as_fd(), &senders()), Ok(false));
        let senders = senders();
        let (empty, _sender) = UnixStream::pair().unwrap();
        let waiting = std::thread::spawn(move || waits_in_vain(empty.as_fd(), &senders));
        drop(children[1].stdin.take());
        assert_eq!(waiting.join().unwrap(), Ok(true));
        for child in &mut children {
            child.wait().unwrap();
        }
    }
}
