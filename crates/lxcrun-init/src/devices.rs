//! Device nodes, on the container's own /dev.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use protocol::init::{Device, DeviceKind};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, makedev, mknodat, openat, symlinkat,
};
use rustix::io::Errno;

use crate::failure::{Result, fail, refuse};
use crate::mounts::{clone_host_file, move_to};
use crate::root::{Missing, Root, exists};

/// The links that programs expect in /dev. Source: runtime-spec, config-linux.md, "Default Devices", and runc.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

/// Makes one node below `root`.
pub fn create(root: &Root, device: &Device) -> Result<()> {
    let name = || format!("{} ({})", device.field, device.path.display());
    let (parent, file) = root.parent(&device.path).map_err(|e| fail(name(), e))?;
    if device.bind {
        return bind(root, device).map_err(|e| fail(name(), e));
    }
    let (kind, number) = kind_and_number(device.kind);
    let mode = Mode::from_raw_mode(device.mode);
    let made = match mknodat(&parent, file, kind, mode, number) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(Errno::PERM) => return bind(root, device).map_err(|e| fail(name(), e)),
        Err(e) => return Err(fail(name(), e)),
    };
    // Held open, so that nobody can put a link to something else in its place.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = openat(&parent, file, flags, Mode::empty()).map_err(|e| fail(name(), e))?;
    let stat = rustix::fs::fstat(&node).map_err(|e| fail(name(), e))?;
    if device.listed && !is(&stat, device.kind) {
        return Err(refuse(format!("{}: the image has another file there", name())));
    }
    // What was there, the image has or somebody has mounted: it may be the host's own node.
    if made && (stat.st_uid, stat.st_gid) != (device.uid, device.gid) {
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        chownat(&node, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH).map_err(|e| fail(name(), e))?;
    }
    Ok(())
}

/// Mounts the host's node of the same path over an empty file.
fn bind(root: &Root, device: &Device) -> std::result::Result<(), String> {
    let host: OwnedFd = clone_host_file(&device.path).map_err(|e| format!("the host's node: {e}"))?;
    let stat = rustix::fs::fstat(&host).map_err(|e| e.to_string())?;
    if !is(&stat, device.kind) {
        return Err("the host's node of this path is another device".into());
    }
    let target = root.resolve(&device.path, Missing::File).map_err(|e| e.to_string())?;
    move_to(&host, &target).map_err(|e| e.to_string())
}

fn kind_and_number(kind: DeviceKind) -> (FileType, u64) {
    match kind {
        DeviceKind::Block(major, minor) => (FileType::BlockDevice, makedev(major, minor)),
        DeviceKind::Character(major, minor) => (FileType::CharacterDevice, makedev(major, minor)),
        DeviceKind::Fifo => (FileType::Fifo, 0),
    }
}

fn is(stat: &Stat, kind: DeviceKind) -> bool {
    let (kind, number) = kind_and_number(kind);
    FileType::from_raw_mode(stat.st_mode) == kind && (kind == FileType::Fifo || stat.st_rdev == number)
}

/// Makes the standard links in /dev, and /dev/ptmx where the container has its own /dev/pts.
pub fn link(root: &Root) -> Result<()> {
    let dev = root.resolve(Path::new("/dev"), Missing::Directory).map_err(|e| fail("/dev", e))?;
    for (name, target) in LINKS {
        let there = exists(rustix::fd::AsFd::as_fd(&dev), OsStr::new(name)).map_err(|e| fail("/dev", e))?;
        // /dev/core only makes sense where the kernel offers it.
        if there || (name == "core" && rustix::fs::access("/proc/kcore", rustix::fs::Access::EXISTS).is_err())
        {
            continue;
        }
        symlinkat(target, &dev, name).map_err(|e| fail(format!("/dev/{name}"), e))?;
    }
    match rustix::fs::unlinkat(&dev, "ptmx", AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(fail("/dev/ptmx", e)),
    }
    symlinkat("pts/ptmx", &dev, "ptmx").map_err(|e| fail("/dev/ptmx", e))
}
