//! `lxc.lxcfs`: files of LXCFS over those of the container's /proc that show the whole machine, so that whoever reads
//! them learns what the container may use. LXC has a hook of its own for that, which works on a root that it has mounted.

use std::path::{Path, PathBuf};

use kernel::{MountAttr, MountInfo};
use protocol::init::Attributes;

use super::mounts::{MountKind, PlannedMount, is_at};
use super::namespaces::Namespaces;
use crate::error::refuse;
use crate::{ContainerId, Result};

/// Not a key of LXC's, but what its `lxc.hook.mount` of LXCFS is for.
pub(super) const KEY: &str = "lxc.lxcfs";

/// What LXCFS has beside /proc: where the C library counts processors.
const PROCESSORS: &str = "sys/devices/system/cpu/online";

/// Where LXCFS is mounted, if anywhere. A container's /proc may have single files of the host's: they are not it.
pub(crate) fn mountpoint() -> std::io::Result<Option<PathBuf>> {
    Ok(in_mountinfo(&crate::host::read("/proc/self/mountinfo")?))
}

fn in_mountinfo(text: &str) -> Option<PathBuf> {
    let is_lxcfs = |mount: &MountInfo<'_>| {
        // Everybody may mount a file system of their own that calls itself so.
        let is_roots = |options: &str| options.split(',').any(|option| option == "user_id=0");
        mount.filesystem().is_some_and(|f| f.fstype == "fuse.lxcfs" && is_roots(f.options))
            && mount.root() == Some("/")
    };
    MountInfo::all(text).find(is_lxcfs).and_then(MountInfo::place)
}

/// The mounts that `field` asks for, to be made after `others`.
pub(super) fn mounts(
    id: &ContainerId,
    field: &str,
    namespaces: &Namespaces,
    others: &[PlannedMount],
) -> Result<Vec<PlannedMount>> {
    let refused = |reason: String| refuse(id, field, format!("{KEY}: {reason}"));
    if !namespaces.is_private("pid") {
        let reason = "needs a pid namespace: LXCFS tells by its first process which container asks";
        return Err(refused(reason.into()));
    }
    if !has(others, "/proc", "proc") {
        return Err(refused("the container has no procfs at /proc".into()));
    }
    let found = mountpoint().map_err(|e| refused(format!("/proc/self/mountinfo: {e}")))?;
    let Some(top) = found else {
        return Err(refused("LXCFS is not mounted on this host (see lxcrun doctor)".into()));
    };
    // One whose server has gone answers with an error, and would pass for one without files.
    let list = || std::fs::read_dir(top.join("proc"))?.collect::<std::io::Result<Vec<_>>>();
    let files = list().map_err(|e| refused(format!("{}/proc: {e}", top.display())))?;
    let mut names: Vec<_> = files.into_iter().map(|file| Path::new("proc").join(file.file_name())).collect();
    names.sort();
    if has(others, "/sys", "sysfs") {
        names.push(PROCESSORS.into());
    }
    let planned = names.into_iter().filter_map(|name| {
        let (source, destination) = (top.join(&name), Path::new("/").join(&name));
        // Newer ones have directories, too, and older kernels lack files.
        (source.is_file() && destination.is_file()).then(|| bind(field, source, destination))
    });
    let planned: Vec<PlannedMount> = planned.collect();
    if planned.is_empty() {
        return Err(refused(format!("{} has no files for /proc", top.display())));
    }
    Ok(planned)
}

/// Whether the container has a file system of its own there.
fn has(mounts: &[PlannedMount], place: &str, wanted: &str) -> bool {
    let last = mounts.iter().rfind(|m| is_at(m, place) && !matches!(m.kind, MountKind::Remount { .. }));
    last.is_some_and(|m| matches!(&m.kind, MountKind::Filesystem { fstype, .. } if fstype == wanted))
}

fn bind(field: &str, source: PathBuf, destination: PathBuf) -> PlannedMount {
    let flags = MountAttr::RDONLY | MountAttr::NOSUID | MountAttr::NODEV | MountAttr::NOEXEC;
    PlannedMount {
        field: field.into(),
        destination,
        kind: MountKind::Bind { source, recursive: false },
        attributes: Attributes { set: flags.bits(), clear: 0 },
        recursive_attributes: Attributes::default(),
        propagation: Vec::new(),
        readonly_at_last: false,
        label: None,
        idmap: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_file_of_lxcfs_nor_another_users_is_where_it_is_mounted() {
        let file = "50 40 0:99 /proc/meminfo /proc/meminfo rw - fuse.lxcfs lxcfs rw,user_id=0\n";
        assert_eq!(in_mountinfo(file), None);
        let whole = "51 40 0:99 / /var/lib/lxc\\040fs rw shared:7 - fuse.lxcfs lxcfs rw,user_id=0\n";
        assert_eq!(in_mountinfo(&format!("{file}{whole}")), Some("/var/lib/lxc fs".into()));
        assert_eq!(in_mountinfo("51 40 0:99 / /x rw - fuse.other lxcfs rw,user_id=0\n"), None);
        assert_eq!(in_mountinfo("51 40 0:99 / /x rw - fuse.lxcfs user_id=0 rw,user_id=1000\n"), None);
    }
}
