//! Having liblxc make each cgroup once, and leave its monitor where it is.
//!
//! liblxc (5 and 6: `cgfsng_monitor_create`, `_enter` and `cgfsng_payload_create` in its cgfsng.c) makes a cgroup for its
//! monitor beside the container's in every hierarchy, and moves the monitor there. On cgroup v1 that is half of its work
//! with cgroups, and nothing that anybody asked for. It can be given one name for both, but insists on making each. So a
//! program may define the symbols `mkdirat` and `write` as [`lxcrun_mkdirat`] and [`lxcrun_write`] and export them, as
//! `wait.rs` tells of `waitpid`: the second making succeeds, and the move is left out.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::sync::{Mutex, OnceLock, PoisonError};

use libc::{c_char, c_int, c_void, mode_t, size_t, ssize_t};

static STAY: OnceLock<Stay> = OnceLock::new();

struct Stay {
    /// What liblxc forks has a copy of all this, and is none of its business.
    process: u32,
    /// The same as liblxc writes it.
    text: String,
    made: Mutex<Vec<Made>>,
}

/// A directory that this process has made: where, and its name.
#[derive(PartialEq)]
struct Made {
    device: libc::dev_t,
    inode: libc::ino_t,
    name: CString,
}

/// From now on this process enters no cgroup, and may make a directory again that it has made.
pub fn stay_in_cgroups() {
    let process = std::process::id();
    STAY.get_or_init(|| Stay { process, text: process.to_string(), made: Mutex::default() });
}

impl Stay {
    /// Set for this process and not for a parent of it.
    fn here() -> Option<&'static Self> {
        STAY.get().filter(|stay| stay.process == std::process::id())
    }

    fn remember(&self, made: Made) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(made);
    }

    fn has_made(&self, directory: &Made) -> bool {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).contains(directory)
    }
}

impl Made {
    fn new(directory: c_int, name: &CStr) -> Option<Self> {
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: `stat` has room for what the call writes.
        if unsafe { libc::fstat(directory, stat.as_mut_ptr()) } != 0 {
            return None;
        }
        // SAFETY: the call has succeeded and filled it.
        let stat = unsafe { stat.assume_init() };
        Some(Self { device: stat.st_dev, inode: stat.st_ino, name: name.into() })
    }
}

/// mkdirat(2); that a directory is there which this process has made is no failure after [`stay_in_cgroups`].
///
/// # Safety
/// As of mkdirat(2): `name` ends in a NUL byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxcrun_mkdirat(directory: c_int, name: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: the caller's promise is what the kernel asks for.
    let made = unsafe { libc::syscall(libc::SYS_mkdirat, directory, name, mode) } == 0;
    let exists = !made && errno() == libc::EEXIST;
    if (made || exists)
        && let Some(stay) = Stay::here()
    {
        // SAFETY: the kernel has read a string there, and nobody else is here to have changed it.
        let directory = Made::new(directory, unsafe { CStr::from_ptr(name) });
        match directory {
            Some(directory) if made => stay.remember(directory),
            Some(directory) if stay.has_made(&directory) => return 0,
            _ => {}
        }
        crate::set_errno(libc::EEXIST);
    }
    if made { 0 } else { -1 }
}

/// write(2), but for this process's own number in a file of a cgroup after [`stay_in_cgroups`].
///
/// # Safety
/// As of write(2): `count` bytes can be read at `buffer`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxcrun_write(fd: c_int, buffer: *const c_void, count: size_t) -> ssize_t {
    // SAFETY: the caller's promise; only what is as long as our own number is looked at.
    if unsafe { is_own_number(buffer, count) } && is_in_cgroup(fd) && Stay::here().is_some() {
        return count.cast_signed();
    }
    // SAFETY: the caller's promise is what the kernel asks for.
    let written = unsafe { libc::syscall(libc::SYS_write, fd, buffer, count) };
    ssize_t::try_from(written).unwrap_or(-1)
}

/// # Safety
/// `count` bytes can be read at `buffer`.
unsafe fn is_own_number(buffer: *const c_void, count: size_t) -> bool {
    let Some(stay) = STAY.get().filter(|stay| stay.text.len() == count && !buffer.is_null()) else {
        return false;
    };
    // SAFETY: not null, and the caller's promise.
    let written = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), count) };
    written == stay.text.as_bytes()
}

fn is_in_cgroup(fd: c_int) -> bool {
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `stat` has room for what the call writes.
    if unsafe { libc::fstatfs(fd, stat.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call has succeeded and filled it.
    let kind = unsafe { stat.assume_init() }.f_type;
    kind == libc::CGROUP_SUPER_MAGIC || kind == libc::CGROUP2_SUPER_MAGIC
}

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn mkdir(directory: &std::fs::File, name: &CStr) -> Result<(), c_int> {
        // SAFETY: the name ends in a NUL byte.
        match unsafe { lxcrun_mkdirat(directory.as_raw_fd(), name.as_ptr(), 0o755) } {
            0 => Ok(()),
            _ => Err(errno()),
        }
    }

    #[test]
    fn a_directory_may_be_made_again_by_who_has_made_it_alone() {
        let place = std::env::temp_dir().join(format!("lxc-cgroups-{}", std::process::id()));
        std::fs::create_dir_all(place.join("before")).unwrap();
        let opened = std::fs::File::open(&place).unwrap();
        assert_eq!(mkdir(&opened, c"before"), Err(libc::EEXIST));
        stay_in_cgroups();
        assert_eq!(mkdir(&opened, c"own"), Ok(()));
        assert_eq!(mkdir(&opened, c"own"), Ok(()));
        assert_eq!(mkdir(&opened, c"before"), Err(libc::EEXIST));
        assert_eq!(mkdir(&opened, c"not/there"), Err(libc::ENOENT));

        // Our number, but not in a cgroup.
        let text = std::process::id().to_string();
        let file = std::fs::File::create(place.join("file")).unwrap();
        // SAFETY: so many bytes are there.
        let written = unsafe { lxcrun_write(file.as_raw_fd(), text.as_ptr().cast(), text.len()) };
        assert_eq!(written, ssize_t::try_from(text.len()).unwrap());
        assert_eq!(std::fs::read_to_string(place.join("file")).unwrap(), text);
        std::fs::remove_dir_all(place).unwrap();
    }
}
