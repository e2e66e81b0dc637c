//! Keeping liblxc's child from waiting for a parent that was killed.
//!
//! The child (5 to 7: `do_start` in liblxc's start.c) begins by receiving a descriptor from its parent, on one of a pair
//! of sockets of which it holds both ends. If the parent is killed before it has sent that, the child waits for ever,
//! and on cgroup v1 it is in no cgroup of the container's yet, so that nobody finds it. From there on liblxc looks after
//! its parent itself. So a program may define the symbol `recvmsg` as [`lxcrun_recvmsg`] and export it, as `wait.rs`
//! tells of `waitpid`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use libc::{c_int, msghdr, ssize_t};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{Errno, Result};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

/// A process and its pidfd.
static PARENT: OnceLock<(u32, OwnedFd)> = OnceLock::new();

/// From now on what this process forks ends when it waits for a message while this process has ended.
///
/// # Errors
/// `EMFILE` and the like.
pub fn end_orphans() -> Result<()> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    PARENT.get_or_init(|| (std::process::id(), own));
    Ok(())
}

/// recvmsg(2), which ends a process that would wait in it for its parent in vain.
///
/// # Safety
/// As of recvmsg(2): `fd` is open, and `message` and what it points to may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxcrun_recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    if fd >= 0 && flags & libc::MSG_DONTWAIT == 0 {
        // SAFETY: not -1, and by the caller's promise open for the time of this call.
        let socket = unsafe { BorrowedFd::borrow_raw(fd) };
        if waits_in_vain(socket).unwrap_or(false) {
            // SAFETY: ends the process, without the handlers of the parent that it is a copy of.
            unsafe { libc::_exit(1) };
        }
    }
    // SAFETY: the caller's promise is what the kernel asks for.
    let received = unsafe { libc::syscall(libc::SYS_recvmsg, fd, message, flags) };
    ssize_t::try_from(received).unwrap_or(-1)
}

/// Waits, in a child of the process, until there is something to receive, or until the process has ended with nothing
/// left to receive.
fn waits_in_vain(socket: BorrowedFd<'_>) -> Result<bool> {
    let Some((_, parent)) = PARENT.get().filter(|(process, _)| *process != std::process::id()) else {
        return Ok(false);
    };
    if fcntl_getfl(socket)?.contains(OFlags::NONBLOCK) {
        return Ok(false);
    }
    loop {
        let mut fds =
            [PollFd::new(&socket, PollFlags::IN), PollFd::from_borrowed_fd(parent.as_fd(), PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => {}
            polled => return polled.map(|_| fds[0].revents().is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// What `waits_in_vain` says in a child whose parent has ended, with or without a message for it.
    fn in_an_orphan(message: bool) -> bool {
        let (mut heard, mut tell) = std::io::pipe().unwrap();
        let (mut parents, childs) = UnixStream::pair().unwrap();
        // SAFETY: what runs in the two processes does not allocate, and ends by _exit.
        let parent = unsafe { libc::fork() };
        if parent == 0 {
            let ready = end_orphans().is_ok() && (!message || parents.write_all(b"x").is_ok());
            // SAFETY: as above.
            if ready && unsafe { libc::fork() } == 0 {
                let in_vain = waits_in_vain(childs.as_fd()).is_ok_and(|in_vain| in_vain);
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
    fn the_process_itself_waits_for_whomever_it_likes() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(waits_in_vain(one.as_fd()), Ok(false));
    }
}
