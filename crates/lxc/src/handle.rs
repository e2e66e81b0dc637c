//! One container of liblxc.

use std::ffi::{CStr, CString, c_char};
use std::marker::PhantomData;
use std::path::Path;
use std::ptr::NonNull;

use crate::{Error, Liblxc, sys};

/// One `struct lxc_container`: released once, in `drop`; neither `Send` nor `Sync`.
#[derive(Debug)]
pub struct Handle<'lib> {
    raw: NonNull<sys::lxc_container>,
    put: unsafe extern "C" fn(*mut sys::lxc_container) -> i32,
    library: PhantomData<&'lib Liblxc>,
}

/// What `error_num` is before liblxc sets it.
const NO_STATUS: i32 = -1;

/// How a container that liblxc started has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// `start` returned false, and no status: it never ran. The reason is in the log.
    NotStarted,
    /// Its init called exit(2).
    Exited(u8),
    /// A signal ended its init.
    Signalled(u8),
}

impl<'lib> Handle<'lib> {
    /// Makes a handle with an empty configuration.
    ///
    /// # Errors
    /// [`Error::New`] when liblxc returns none, [`Error::Nul`] for a NUL byte in a string.
    pub fn new(library: &'lib Liblxc, name: &str, path: &Path) -> Result<Self, Error> {
        let new: sys::lxc_container_new_fn = library.symbol(c"lxc_container_new")?;
        let put: sys::lxc_container_put_fn = library.symbol(c"lxc_container_put")?;
        let failed = || Error::New { name: name.into(), path: path.display().to_string() };
        let (new, put) = new.zip(put).ok_or_else(failed)?;
        let c_name = c_string("the container's name", name)?;
        let c_path = c_string("the path of containers", &path.to_string_lossy())?;
        // SAFETY: both strings are NUL-terminated, outlive the call and are copied by liblxc.
        let raw = unsafe { new(c_name.as_ptr(), c_path.as_ptr()) };
        let raw = NonNull::new(raw).ok_or_else(failed)?;
        Ok(Self { raw, put, library: PhantomData })
    }

    /// Sets one configuration item.
    ///
    /// # Errors
    /// [`Error::Refused`] for an unknown key or a value that liblxc's parser doesn't take. Not every bad
    /// value is noticed here: some only make `start` fail.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), Error> {
        let refused = || Error::Refused { key: key.into(), value: value.into() };
        let c_key = c_string("an LXC key", key)?;
        let c_value = c_string("the value of an LXC key", value)?;
        let set = self.function(|c| c.set_config_item).ok_or_else(refused)?;
        // SAFETY: the handle is live (released only in `drop`), `&mut self` makes us its only user, both
        // strings are NUL-terminated and outlive the call, and liblxc copies what it keeps.
        let accepted = unsafe { set(self.raw.as_ptr(), c_key.as_ptr(), c_value.as_ptr()) };
        if accepted { Ok(()) } else { Err(refused()) }
    }

    /// Starts the container in the foreground, as this process's child, and returns when it has ended.
    ///
    /// `argv` is executed as it is, by execvp(3) inside the container. Open file descriptors are inherited.
    ///
    /// # Errors
    /// [`Error::Threads`] when this process has more than one thread: liblxc forks and goes on in the child.
    pub fn start(&mut self, argv: &[&CStr]) -> Result<Ended, Error> {
        let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
        if threads > 1 {
            return Err(Error::Threads { threads });
        }
        let foreground = self.function(|c| c.want_daemonize);
        let start = self.function(|c| c.start);
        let (Some(foreground), Some(start)) = (foreground, start) else { return Ok(Ended::NotStarted) };
        // SAFETY: the handle is live and ours alone; the call stores a flag.
        if !unsafe { foreground(self.raw.as_ptr(), false) } {
            return Ok(Ended::NotStarted);
        }
        let mut pointers: Vec<*mut c_char> = argv.iter().map(|a| a.as_ptr().cast_mut()).collect();
        pointers.push(std::ptr::null_mut());
        // SAFETY: the handle is live and ours alone; a plain integer, which is no status that liblxc reports.
        unsafe { (*self.raw.as_ptr()).error_num = NO_STATUS };
        // SAFETY: the handle is live and ours alone; `pointers` is a NULL-terminated array of NUL-terminated
        // strings that outlive the call, and liblxc's parameter is `char *const []`: it writes to neither.
        let started = unsafe { start(self.raw.as_ptr(), 0, pointers.as_ptr()) };
        // SAFETY: the handle is live; `error_num` is a plain integer that the finished call has set.
        let status = unsafe { (*self.raw.as_ptr()).error_num };
        // In a user namespace it can't give network devices back, and returns false after the container has run.
        let ran = started || matches!(status.to_le_bytes(), [0 | 0x7f, _, 0, 0]);
        Ok(if ran { Ended::from_error_num(status) } else { Ended::NotStarted })
    }

    /// Reads a function pointer out of the struct.
    fn function<F: Copy>(&self, field: impl Fn(&sys::lxc_container) -> Option<F>) -> Option<F> {
        // SAFETY: the handle is live and nothing writes to the struct while `&self` is held; `sys.rs` has the
        // layout of the installed header (a test compares them).
        field(unsafe { self.raw.as_ref() })
    }
}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle came from `lxc_container_new` and is released here only.
        unsafe { (self.put)(self.raw.as_ptr()) };
    }
}

impl Ended {
    /// As wait(2) has it, for a process that has ended.
    pub(crate) fn from_wait_status(status: i32) -> Self {
        let [low, high, ..] = status.to_le_bytes();
        match low & 0x7f {
            0 => Self::Exited(high),
            signal => Self::Signalled(signal),
        }
    }

    /// liblxc reports an exit as `code << 8` and a signal as `signal << 8 | 0x7f`, which the W* macros of C
    /// take for neither (`lxc_error_set_and_log` in its start.c).
    fn from_error_num(status: i32) -> Self {
        let [low, high, ..] = status.to_le_bytes();
        match low {
            0 => Self::Exited(high),
            0x7f => Self::Signalled(high),
            signal => Self::Signalled(signal & 0x7f),
        }
    }
}

fn c_string(what: &'static str, text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::Nul { what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_num_is_decoded_as_liblxc_encodes_it() {
        assert_eq!(Ended::from_error_num(0), Ended::Exited(0));
        assert_eq!(Ended::from_error_num(7 << 8), Ended::Exited(7));
        assert_eq!(Ended::from_error_num(0x97f), Ended::Signalled(9));
    }
}
