//! seccomp(2): loading a filter that was compiled elsewhere.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, Result};

/// Whether a filter that is loaded with these flags comes with a notification fd.
#[must_use]
pub fn gives_listener(flags: u64) -> bool {
    flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0
}

/// Loads a classic BPF program as a seccomp filter of the calling thread.
///
/// `program` is an array of `struct sock_filter` in native byte order, as libseccomp exports it; `flags` are
/// `SECCOMP_FILTER_FLAG_*`. With `SECCOMP_FILTER_FLAG_NEW_LISTENER` the notification fd is returned.
///
/// # Errors
/// `EINVAL` for a program that is none, `EACCES` without CAP_SYS_ADMIN or no_new_privs.
pub fn load_filter(program: &[u8], flags: u64) -> Result<Option<OwnedFd>> {
    let entries: Vec<libc::sock_filter> = program
        .chunks_exact(size_of::<libc::sock_filter>())
        .map(|c| libc::sock_filter {
            code: u16::from_ne_bytes([c[0], c[1]]),
            jt: c[2],
            jf: c[3],
            k: u32::from_ne_bytes([c[4], c[5], c[6], c[7]]),
        })
        .collect();
    let fprog = libc::sock_fprog {
        len: u16::try_from(entries.len()).map_err(|_| Errno::INVAL)?,
        filter: entries.as_ptr().cast_mut(),
    };
    // SAFETY: `fprog` points to `len` entries that live across the call; the kernel copies and checks them.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::c_long::from(libc::SECCOMP_SET_MODE_FILTER),
            flags,
            &raw const fprog,
        )
    };
    let fd = crate::check(ret)?;
    if !gives_listener(flags) {
        return Ok(None);
    }
    let fd = RawFd::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: with NEW_LISTENER the kernel returned a new fd that nothing else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Whether the kernel knows this `SECCOMP_FILTER_FLAG_*`.
#[must_use]
pub fn seccomp_flag_is_known(flag: u64) -> bool {
    // It goes with a listener only.
    let flags = match flag {
        libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV => flag | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
        _ => flag,
    };
    // SAFETY: there is no program at address 0: the kernel looks at the flags, then fails to read it (seccomp(2)).
    let ret = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::c_long::from(libc::SECCOMP_SET_MODE_FILTER),
            flags,
            std::ptr::null::<libc::sock_fprog>(),
        )
    };
    crate::check(ret) == Err(Errno::FAULT)
}
