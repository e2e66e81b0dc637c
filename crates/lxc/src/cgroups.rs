//! Having liblxc make each cgroup once, take those that are there, and leave its monitor where it is.
//!
//! liblxc (5 and 6: `cgfsng_monitor_create`, `_enter` and `cgfsng_payload_create` in its cgfsng.c) makes a cgroup for its
//! monitor beside the container's in every hierarchy, and moves the monitor there. On cgroup v1 that is half of its work
//! with cgroups, and nothing that anybody asked for. It can be given one name for both, but insists on making each. So a
//! program may define the symbols `mkdirat` and `write` as [`lxcrun_mkdirat`] and [`lxcrun_write`] and export them, as
//! `wait.rs` tells of `waitpid`: the second making succeeds, and the move is left out. So does the making of one that
//! somebody has made for the container before.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use libc::{c_char, c_int, c_void, mode_t, size_t, ssize_t};

static OWN: OnceLock<Own> = OnceLock::new();

struct Own {
    /// What liblxc forks has a copy of all this, and is none of its business.
    process: u32,
    /// The same as liblxc writes it.
    text: String,
    stays: AtomicBool,
    made: Mutex<Vec<Made>>,
    /// What is to be done before the first directory is made.
    before: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// A directory that this process may make again: where, and its name.
#[derive(PartialEq)]
struct Made {
    device: libc::dev_t,
    inode: libc::ino_t,
    name: CString,
}

/// From now on this process enters no cgroup, and may make a directory again that it has made.
pub fn stay_in_cgroups() {
    Own::get().stays.store(true, Ordering::Relaxed);
}

/// From now on this process may make a directory that is there.
///
/// # Errors
/// When it is not there, or is no directory in another.
pub fn take_cgroup(directory: &Path) -> io::Result<()> {
    let nameless = || io::Error::from(io::ErrorKind::InvalidInput);
    let (Some(above), Some(name)) = (directory.parent(), directory.file_name()) else {
        return Err(nameless());
    };
    let name = CString::new(name.as_bytes()).map_err(|_| nameless())?;
    File::open(directory)?;
    let taken = Made::new(File::open(above)?.as_raw_fd(), &name).ok_or_else(io::Error::last_os_error)?;
    Own::get().remember(taken);
    Ok(())
}

/// Has `hook` called once, when liblxc knows which cgroups there are and has made none yet.
pub fn before_cgroups(hook: impl FnOnce() + Send + 'static) {
    *Own::get().before.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
}

impl Own {
    fn get() -> &'static Self {
        OWN.get_or_init(|| {
            let process = std::process::id();
            let stays = AtomicBool::default();
            Own {
                process,
                text: process.to_string(),
                stays,
                made: Mutex::default(),
                before: Mutex::default(),
            }
        })
    }

    /// Set for this process and not for a parent of it.
    fn here() -> Option<&'static Self> {
        OWN.get().filter(|own| own.process == std::process::id())
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

/// mkdirat(2); that a directory is there is no failure if it is one of [`take_cgroup`], or one that this process has made
/// after [`stay_in_cgroups`].
///
/// # Safety
/// As of mkdirat(2): `name` ends in a NUL byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxcrun_mkdirat(directory: c_int, name: *const c_char, mode: mode_t) -> c_int {
    if let Some(own) = Own::here()
        && let Some(hook) = own.before.lock().unwrap_or_else(PoisonError::into_inner).take()
    {
        hook();
    }
    // SAFETY: the caller's promise is what the kernel asks for.
    let made = unsafe { libc::syscall(libc::SYS_mkdirat, directory, name, mode) } == 0;
    let exists = !made && errno() == libc::EEXIST;
    if (made || exists)
        && let Some(own) = Own::here()
    {
        // SAFETY: the kernel has read a string there, and nobody else is here to have changed it.
        let directory = Made::new(directory, unsafe { CStr::from_ptr(name) });
        match directory {
            Some(directory) if made => own.remember(directory),
            Some(directory) if own.has_made(&directory) => return 0,
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
    if unsafe { is_own_number(buffer, count) } && is_in_cgroup(fd) && Own::here().is_some() {
        return count.cast_signed();
    }
    // SAFETY: the caller's promise is what the kernel asks for.
    let written = unsafe { libc::syscall(libc::SYS_write, fd, buffer, count) };
    ssize_t::try_from(written).unwrap_or(-1)
}

/// # Safety
/// `count` bytes can be read at `buffer`.
unsafe fn is_own_number(buffer: *const c_void, count: size_t) -> bool {
    let stays = |own: &&Own| own.stays.load(Ordering::Relaxed) && own.text.len() == count;
    let Some(own) = OWN.get().filter(stays).filter(|_| !buffer.is_null()) else { return false };
    // SAFETY: not null, and the caller's promise.
    let written = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), count) };
    written == own.text.as_bytes()
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
        take_cgroup(&place.join("before")).unwrap();
        assert_eq!(mkdir(&opened, c"before"), Ok(()));
        assert!(take_cgroup(&place.join("nothing")).is_err());

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
