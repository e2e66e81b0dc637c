//! A /proc of our own: never attached anywhere, so no image can put something else in its place.

use std::os::fd::OwnedFd;

use rustix::fs::{Access, AtFlags, Mode, OFlags, ResolveFlags, accessat, openat, openat2};
use rustix::io::{Errno, Result};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// A detached procfs of the caller's PID namespace.
pub struct Proc(OwnedFd);

impl Proc {
    /// Mounts it; where the kernel does not allow a new procfs (in a user namespace below a masked one), opens
    /// /proc as it is.
    pub fn mount() -> Result<Self> {
        match Self::mount_new() {
            Err(Errno::PERM) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = rustix::fs::open("/proc", flags, Mode::empty())?;
                let genuine = rustix::fs::fstatfs(&fd)?.f_type == rustix::fs::PROC_SUPER_MAGIC;
                if genuine { Ok(Self(fd)) } else { Err(Errno::PERM) }
            }
            mounted => mounted,
        }
    }

    fn mount_new() -> Result<Self> {
        let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        Ok(Self(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?))
    }

    /// Opens a namespace of this process: a file below ns/.
    pub fn open_namespace(&self, name: &str) -> Result<OwnedFd> {
        openat(&self.0, format!("self/ns/{name}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    }

    /// Whether `path` exists below it.
    pub fn has(&self, path: &str) -> bool {
        accessat(&self.0, path, Access::EXISTS, AtFlags::empty()).is_ok()
    }

    /// Whether this process may change its groups: not in a user namespace that an ordinary user has mapped alone.
    pub fn allows_setgroups(&self) -> bool {
        let open = openat(&self.0, "self/setgroups", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let mut text = [0; 4];
        !open.is_ok_and(|file| rustix::io::read(&file, &mut text) == Ok(4) && text == *b"deny")
    }

    /// Reads a file below it.
    pub fn read(&self, path: &str) -> Result<String> {
        use std::io::Read;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let file = openat2(&self.0, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
        let mut bytes = Vec::new();
        std::fs::File::from(file)
            .read_to_end(&mut bytes)
            .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Writes `value` to a file below it, in one go as these files want it.
    pub fn write(&self, path: &str, value: &str) -> Result<()> {
        // Neither links nor mounts lead out of it.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let file = openat2(&self.0, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
        rustix::io::write(&file, value.as_bytes()).map(drop)
    }
}
