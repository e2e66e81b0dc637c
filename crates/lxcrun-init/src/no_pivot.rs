//! `--no-pivot`: moves the root instead of pivot_root(2), which a root on a ramdisk does not allow.
//!
//! The host's mounts stay below, where no path leads. But the kernel lets a user namespace mount a new procfs or sysfs
//! wherever a complete one is to be found in its mount namespace, and the container's are masked: so the host's go first.

use std::path::{Path, PathBuf};

use kernel::MountInfo;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::failure::{Result, fail};
use crate::mounts;
use crate::proc::Proc;

/// Makes the working directory, which is the container's root at `rootfs`, the root.
pub fn change_root(proc: &Proc, rootfs: &Path) -> Result<()> {
    let mountinfo = proc.read("thread-self/mountinfo").map_err(|e| fail("--no-pivot: mountinfo", e))?;
    let mounts: Vec<Mounted> = MountInfo::all(&mountinfo).filter_map(Mounted::of).collect();
    let complete = |m: &&Mounted| matches!(m.fstype, "proc" | "sysfs") && !m.place.starts_with(rootfs);
    for mount in mounts.iter().rev().filter(complete) {
        hide(mount, &mounts)
            .map_err(|e| fail(format!("--no-pivot: the host's {}", mount.place.display()), e))?;
    }
    mounts::move_to_path_from_cwd().map_err(|e| fail("--no-pivot: moving the root", e))?;
    rustix::process::chroot(".").map_err(|e| fail("--no-pivot: chroot", e))
}

struct Mounted<'a> {
    id: u64,
    parent: u64,
    place: PathBuf,
    fstype: &'a str,
}

impl<'a> Mounted<'a> {
    fn of(mount: MountInfo<'a>) -> Option<Self> {
        let fstype = mount.filesystem()?.fstype;
        Some(Self { id: mount.id()?, parent: mount.parent()?, place: mount.place()?, fstype })
    }
}

/// Takes a mount away in this mount namespace alone.
fn hide(mount: &Mounted<'_>, mounts: &[Mounted<'_>]) -> rustix::io::Result<()> {
    // It would go on the host, too, if what it is on were shared with the host.
    if let Some(parent) = mounts.iter().find(|m| m.id == mount.parent) {
        let parent = rustix::fs::open(&parent.place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        match mounts::propagate(&parent, protocol::init::Propagation::Slave, false) {
            // Something else is on top of it.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(e) => return Err(e),
        }
    }
    match unmount(&mount.place, UnmountFlags::DETACH) {
        // In a user namespace it is locked to what it is on: then it is covered.
        Err(Errno::INVAL | Errno::PERM) => {
            let cover = mounts::empty_directory().map_err(|_| Errno::PERM)?;
            mounts::move_to_path(&cover, &mount.place)
        }
        unmounted => unmounted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_parsed() {
        let of = |line| MountInfo::all(line).next().and_then(Mounted::of);
        let mount = of("36 35 98:0 /mnt1 /a\\040b rw,noatime master:1 shared:2 - proc proc rw").unwrap();
        assert_eq!((mount.id, mount.parent, mount.fstype), (36, 35, "proc"));
        assert_eq!(mount.place, Path::new("/a b"));
        assert!(of("36 35").is_none());
    }
}
