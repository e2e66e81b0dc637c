//! File descriptors that cross an exec.

use std::ops::{Range, RangeInclusive};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, Result, fcntl_setfd};

/// Takes a descriptor that the parent has left open for us under an agreed number, and marks it close-on-exec.
///
/// To be called once for each number, before anything else in the process opens files.
///
/// # Errors
/// `EBADF` when nothing is open under that number.
pub fn take_inherited(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: asking for the flags of a number that may be closed has no effect.
    crate::check(unsafe { libc::fcntl(number, libc::F_GETFD) }.into())?;
    // SAFETY: the descriptor is open (checked), and by the contract above nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Those of `numbers` under which something is open, but for `O_PATH` descriptors.
///
/// # Errors
/// `EINVAL` when they are more than `RLIMIT_NOFILE`.
pub fn open_among(numbers: Range<RawFd>) -> Result<Vec<RawFd>> {
    let mut fds: Vec<libc::pollfd> = numbers.map(|fd| libc::pollfd { fd, events: 0, revents: 0 }).collect();
    let count = libc::nfds_t::try_from(fds.len()).map_err(|_| rustix::io::Errno::INVAL)?;
    // SAFETY: the kernel reads and writes `count` elements; asking a number that is closed has no effect.
    crate::check(unsafe { libc::poll(fds.as_mut_ptr(), count, 0) }.into())?;
    Ok(fds.into_iter().filter(|fd| fd.revents & libc::POLLNVAL == 0).map(|fd| fd.fd).collect())
}

/// Marks every descriptor from `first` on close-on-exec (CVE-2024-21626 began with one that was not).
///
/// # Errors
/// `ENOSYS` before Linux 5.11.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC no descriptor is closed: ownership in this process is untouched.
    let ret =
        unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    crate::check(ret).map(drop)
}

/// Closes every descriptor with one of these numbers, but standard input, output and error.
///
/// To be called by a process that has just begun and holds nothing under these numbers: they are its parent's, which has
/// not marked them close-on-exec.
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub fn close_range(numbers: RangeInclusive<u32>) -> Result<()> {
    let first = (*numbers.start()).max(3);
    if first > *numbers.end() {
        return Ok(());
    }
    // SAFETY: by the contract above nobody in this process owns a descriptor with such a number.
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first, *numbers.end(), 0) };
    crate::check(ret).map(drop)
}

/// Gives `fds` the numbers from `first` on, open across an exec.
///
/// # Errors
/// `EMFILE` at the limit of descriptors.
///
/// To be called just before an exec, by a process that holds nothing else under these numbers: what is there is
/// closed.
pub fn place_from(first: RawFd, fds: Vec<OwnedFd>) -> Result<()> {
    let above = RawFd::try_from(fds.len()).map_err(|_| rustix::io::Errno::MFILE)?.saturating_add(first);
    let moved: Vec<OwnedFd> =
        fds.into_iter().map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, above)).collect::<Result<_>>()?;
    for (number, fd) in (first..).zip(&moved) {
        // SAFETY: dup3 closes `number` and makes it a copy of `fd`. By the contract above nothing that is still
        // used owns `number`.
        crate::check(unsafe { libc::dup3(fd.as_raw_fd(), number, 0) }.into())?;
    }
    Ok(())
}
