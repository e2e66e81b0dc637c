//! Handing a container its cgroup, to make others below. Source: runtime-spec, config-linux.md, "Cgroup ownership"; the
//! kernel's admin-guide/cgroup-v2, "Delegation".

use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use super::Cgroup;
use crate::Result;
use crate::error::refuse;

/// The cgroup below the container's own that is its to change. Its limits are outside of that, out of its reach.
pub(crate) const INNER: &str = "delegated";
/// Which files of a cgroup whoever it is delegated to may write.
const FILES: &str = "/sys/kernel/cgroup/delegate";
/// Those of kernels that don't say.
const FILES_BEFORE: &str = "cgroup.procs cgroup.subtree_control cgroup.threads";

impl Cgroup {
    /// The same, with a cgroup below that is handed to the container.
    pub(crate) fn delegated(self, delegated: bool) -> Self {
        Self { delegated, ..self }
    }

    /// Where the container's processes are and its cgroup namespace begins, below the root of each hierarchy.
    pub(crate) fn home(&self) -> PathBuf {
        if self.delegated { Path::new(&self.path).join(INNER) } else { self.path.clone().into() }
    }

    /// Gives the cgroup that the container sees to the user `uid` of the user namespace of `init`.
    pub(crate) fn hand_over(&self, init: Pid, uid: u32) -> Result<()> {
        let Some(unified) = self.hierarchies.unified().filter(|_| !self.is_none()) else { return Ok(()) };
        let directory = unified.mountpoint.join(self.home());
        let give = || -> io::Result<()> {
            let map = std::fs::read_to_string(format!("/proc/{}/uid_map", init.as_raw_nonzero()))?;
            let uid = kernel::outside_of(&map, uid)
                .ok_or_else(|| io::Error::other(format!("user {uid} is not mapped")))?;
            give(&directory, uid)?;
            let files = std::fs::read_to_string(FILES).unwrap_or_else(|_| FILES_BEFORE.into());
            files.split_whitespace().try_for_each(|file| match give(&directory.join(file), uid) {
                // One of a controller that the cgroup doesn't have.
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                given => given,
            })
        };
        give().map_err(|e| {
            let reason = format!("cannot give {} to the container: {e}", directory.display());
            refuse(&self.id, "linux.cgroupsPath", reason)
        })
    }
}

/// What is theirs already needs no right to give it.
fn give(path: &Path, uid: u32) -> io::Result<()> {
    if path.metadata()?.uid() == uid { Ok(()) } else { chown(path, Some(uid), None) }
}
