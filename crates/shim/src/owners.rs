//! Mounts that show other owners than their files have: the root of a container with a user namespace, made of an image
//! that belongs to root of the host. Source: mount_setattr(2), "ID-mapped mounts".

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, bail};
use kernel::MountAttr;
use nix::sched::{CloneFlags, unshare};
use rustix::fs::CWD;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_change, move_mount, open_tree,
};

/// Makes a user namespace with containerd's mappings, the options `uidmap` and `gidmap`.
pub fn user_namespace(uids: &str, gids: &str) -> anyhow::Result<OwnedFd> {
    let (uid_map, gid_map) = (map(uids).context("uidmap")?, map(gids).context("gidmap")?);
    kernel::user_namespace(&uid_map, &gid_map)
        .with_context(|| format!("cannot make a user namespace with uidmap={uids},gidmap={gids}"))
}

/// `CONTAINER:HOST:SIZE`, any number of them with commas between, as lines of /proc/PID/uid_map.
fn map(mappings: &str) -> anyhow::Result<String> {
    let line = |mapping: &str| {
        let numbers: Result<Vec<u32>, _> = mapping.split(':').map(str::parse).collect();
        match numbers.as_deref() {
            Ok([container, host, size]) => Ok(format!("{container} {host} {size}\n")),
            _ => bail!("{mapping:?} is not CONTAINER:HOST:SIZE"),
        }
    };
    mappings.split(',').map(line).collect()
}

/// Does something in a mount namespace of its own. Of what it mounts there only clones remain that it returns, even when
/// this process is killed meanwhile.
///
/// A thread has the namespace for itself, and ends with it.
pub fn in_private_namespace<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    let private = || {
        unshare(CloneFlags::CLONE_NEWNS)
            .map_err(anyhow::Error::from)
            .and_then(|()| {
                let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
                Ok(mount_change("/", flags)?)
            })
            .context("a private mount namespace")?;
        work()
    };
    let done = std::thread::scope(|scope| scope.spawn(private).join());
    done.unwrap_or_else(|_| bail!("the thread that mounts has panicked"))
}

/// A clone of the mount at `path`, attached nowhere; with `recursive` of all below it, too.
pub fn clone_tree(path: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, path, if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags })
}

/// The same, with the owners that the user namespace maps.
pub fn mapped_clone(path: &Path, recursive: bool, users: &OwnedFd) -> anyhow::Result<OwnedFd> {
    let tree = clone_tree(path, recursive).with_context(|| path.display().to_string())?;
    let none = MountAttr::empty();
    kernel::set_mount_attributes(&tree, recursive, MountAttr::IDMAP, none, None, Some(users.as_fd()))
        .with_context(|| format!("cannot map the owners of {}", path.display()))?;
    Ok(tree)
}

/// The layers of an overlay with mapped owners, and their names for `lowerdir`. An overlay takes no mapping itself.
///
/// The kernel wants layers to be attached somewhere: they are at `place`, one over the other, and the name of each is
/// that of its descriptor. For a private namespace.
pub fn mapped_layers(layers: &str, place: &Path, users: &OwnedFd) -> anyhow::Result<(String, Vec<OwnedFd>)> {
    let mut trees = Vec::new();
    for layer in layers.split(':') {
        let tree = mapped_clone(Path::new(layer), false, users)?;
        attach(&tree, place)?;
        trees.push(tree);
    }
    let names: Vec<String> = trees.iter().map(|tree| format!("/proc/self/fd/{}", tree.as_raw_fd())).collect();
    Ok((names.join(":"), trees))
}

/// Attaches a clone.
pub fn attach(tree: &OwnedFd, target: &Path) -> rustix::io::Result<()> {
    move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_those_of_containerd() {
        assert_eq!(map("0:200000:65536").unwrap(), "0 200000 65536\n");
        assert_eq!(map("0:1:2,5:6:7").unwrap(), "0 1 2\n5 6 7\n");
        for wrong in ["", "0:1", "0:1:2:3", "0:1:2,", "0:-1:2", "a:1:2", "0:1:4294967296"] {
            assert!(map(wrong).is_err(), "{wrong:?}");
        }
    }
}
