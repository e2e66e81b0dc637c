//! mount_setattr(2): the attributes of a mount, one by one or for a whole tree.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::Result;

bitflags::bitflags! {
    /// `MOUNT_ATTR_*` of mount_setattr(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct MountAttr: u64 {
        /// Read-only.
        const RDONLY = libc::MOUNT_ATTR_RDONLY;
        /// Ignore set-user-ID, set-group-ID and file capabilities.
        const NOSUID = libc::MOUNT_ATTR_NOSUID;
        /// No access to device files.
        const NODEV = libc::MOUNT_ATTR_NODEV;
        /// No program execution.
        const NOEXEC = libc::MOUNT_ATTR_NOEXEC;
        /// The mask of the access-time attributes, to be cleared before one of them is set.
        const ATIME = libc::MOUNT_ATTR__ATIME;
        /// Never update access times.
        const NOATIME = libc::MOUNT_ATTR_NOATIME;
        /// Always update access times.
        const STRICTATIME = libc::MOUNT_ATTR_STRICTATIME;
        /// Do not update access times of directories.
        const NODIRATIME = libc::MOUNT_ATTR_NODIRATIME;
        /// Do not follow symbolic links.
        const NOSYMFOLLOW = libc::MOUNT_ATTR_NOSYMFOLLOW;
        /// Map owners through a user namespace.
        const IDMAP = libc::MOUNT_ATTR_IDMAP;
    }
}

/// How mount events travel between a mount and its peers: mount_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// `MS_PRIVATE`
    Private,
    /// `MS_SHARED`
    Shared,
    /// `MS_SLAVE`
    Slave,
    /// `MS_UNBINDABLE`
    Unbindable,
}

impl Propagation {
    fn flag(self) -> u64 {
        match self {
            Self::Private => libc::MS_PRIVATE,
            Self::Shared => libc::MS_SHARED,
            Self::Slave => libc::MS_SLAVE,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// Changes the attributes of the mount that `mount` refers to, and with `recursive` of all below it.
///
/// `set` and `clear` name attributes to add and to take away, `propagation` a new propagation type, and
/// `userns` a user namespace for [`MountAttr::IDMAP`]. Source: mount_setattr(2), Linux 5.12.
///
/// # Errors
/// The kernel's, for instance `EPERM` for attributes that are locked in a user namespace.
pub fn set_mount_attributes(
    mount: impl AsFd,
    recursive: bool,
    set: MountAttr,
    clear: MountAttr,
    propagation: Option<Propagation>,
    userns: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let empty: &CStr = c"";
    let attr = libc::mount_attr {
        attr_set: set.bits(),
        attr_clr: clear.bits(),
        propagation: propagation.map_or(0, Propagation::flag),
        userns_fd: userns.map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs())),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated static string, `attr` lives across the call and its true size
    // is passed; the kernel only reads both.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            empty.as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    crate::check(ret).map(drop)
}
