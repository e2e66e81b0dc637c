//! Containers below a directory that their own root may not enter.
//!
//! liblxc (5 to 7: `do_start` in its start.c) starts no container in a user namespace whose root can't get to the path of
//! containers on the host, as under a Docker that remaps users: its own directories are root's alone. Nothing of such a
//! container's is looked up there: what it gets it gets as descriptors. So a program may define the symbol `access` as
//! [`lxcrun_access`] and export it, as `wait.rs` tells of `waitpid`.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use libc::{c_char, c_int};

static REACHABLE: OnceLock<CString> = OnceLock::new();

/// From now on liblxc takes this path for one that everybody can get to.
pub fn take_for_reachable(path: &Path) {
    if let Ok(path) = CString::new(path.as_os_str().as_bytes()) {
        REACHABLE.get_or_init(|| path);
    }
}

/// access(2), but for the path of [`take_for_reachable`].
///
/// # Safety
/// As of access(2): `path` ends in a NUL byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxcrun_access(path: *const c_char, mode: c_int) -> c_int {
    if let Some(known) = REACHABLE.get()
        && mode == libc::X_OK
        && !path.is_null()
        // SAFETY: not null, and the caller's promise.
        && unsafe { CStr::from_ptr(path) } == known.as_c_str()
    {
        return 0;
    }
    // SAFETY: the caller's promise is what the kernel asks for.
    let answer = unsafe { libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, path, mode) };
    c_int::try_from(answer).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_path_is_always_reachable() {
        let access = |path: &CStr, mode| {
            // SAFETY: a C string.
            unsafe { lxcrun_access(path.as_ptr(), mode) }
        };
        assert_eq!(access(c"/", libc::X_OK), 0);
        assert_eq!(access(c"/no/such", libc::X_OK), -1);
        take_for_reachable(Path::new("/no/such"));
        assert_eq!(access(c"/no/such", libc::X_OK), 0);
        assert_eq!(access(c"/no/such", libc::R_OK), -1);
        assert_eq!(access(c"/no/such/more", libc::X_OK), -1);
        // SAFETY: the kernel takes no null for a path.
        assert_eq!(unsafe { lxcrun_access(std::ptr::null(), libc::X_OK) }, -1);
    }
}
