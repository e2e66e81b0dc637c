//! A mount namespace of our own, so that the host's mounts stay as they are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::statfs;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};

const CGROUPS: &str = "/sys/fs/cgroup";
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// The cgroup that LXC leaves behind, by a name that we know.
pub const LXC_PIVOT: &str = "lxcrun-bench-pivot";

/// The namespace and, in it, a directory in memory that nobody outside sees.
pub struct Sandbox {
    dir: PathBuf,
}

impl Sandbox {
    /// Enters the namespace: everything measured from now on runs in it, so its cost is nobody's.
    pub fn enter() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .context("cannot make the mounts private")?;
        hide_unified()?;
        let dir = PathBuf::from(format!("/run/lxcrun-bench.{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let sandbox = Self { dir };
        mount("lxcrun-bench", &sandbox.dir, "tmpfs", MountFlags::empty(), c"mode=0755")
            .with_context(|| format!("cannot mount {}", sandbox.dir.display()))?;
        Ok(sandbox)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// crun refuses cgroup v1 with a v2 hierarchy beside it, so that it sees an empty directory there: the rest is
/// plain v1 for all. A file system of its own, as crun makes its cgroup in that directory all the same.
fn hide_unified() -> Result<()> {
    let unified = Path::new(CGROUPS).join("unified");
    let unified = unified.as_path();
    if statfs(unified).is_ok_and(|fs| fs.f_type == CGROUP2_SUPER_MAGIC) {
        unmount(unified, UnmountFlags::empty())
            .with_context(|| format!("cannot unmount {}", unified.display()))?;
        mount("lxcrun-bench", unified, "tmpfs", MountFlags::empty(), c"mode=0755")
            .with_context(|| format!("cannot cover {}", unified.display()))?;
    }
    Ok(())
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // LXC moves its monitor there to remove the monitor's own cgroup, and leaves it.
        let hierarchies = fs::read_dir(CGROUPS).into_iter().flatten().flatten().map(|entry| entry.path());
        for hierarchy in hierarchies.chain([PathBuf::from(CGROUPS)]) {
            let pivot = hierarchy.join(LXC_PIVOT);
            let _absent = fs::remove_dir(pivot.join("lxc.pivot")).and_then(|()| fs::remove_dir(&pivot));
        }
        let gone = unmount(&self.dir, UnmountFlags::DETACH).map_err(Into::into);
        if let Err(err) = gone.and_then(|()| fs::remove_dir(&self.dir)) {
            eprintln!("lxcrun-bench: {} stays behind: {err}", self.dir.display());
        }
    }
}
