//! keyctl(2), as far as a container needs it.

use std::ffi::CStr;

use rustix::io::{Errno, Result};

/// Makes a new session keyring and joins it: the container does not see its creator's keys. A kernel without
/// keyrings has none to hide, which is a success.
///
/// Source: keyctl_join_session_keyring(3).
///
/// # Errors
/// `EDQUOT` when the user's quota is used up.
pub fn join_session_keyring(name: &CStr) -> Result<()> {
    // SAFETY: `name` is NUL-terminated and outlives the call; the kernel copies it.
    let ret = unsafe {
        libc::syscall(libc::SYS_keyctl, libc::c_long::from(libc::KEYCTL_JOIN_SESSION_KEYRING), name.as_ptr())
    };
    match crate::check(ret) {
        Err(Errno::NOSYS) => Ok(()),
        joined => joined.map(drop),
    }
}
