//! Making a container's cgroups where liblxc takes no part: at a restore, and where it would do too much.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, fstat, stat};
use rustix::io::Errno;

use super::hierarchies::Hierarchy;
use super::{Cgroup, read, write};
use crate::Result;
use crate::error::Context;

/// A cgroup that this process alone makes a container in, for as long as this is open. The lock is the kernel's, and goes
/// with who is killed.
#[derive(Debug)]
pub(crate) struct Claim {
    _lock: OwnedFd,
    /// The directory that is locked.
    pub directory: PathBuf,
    /// Whether it was not there before.
    pub made: bool,
}

impl Cgroup {
    /// Claims it, by making and locking its directory in one hierarchy, the same one for all: between the look at whether it
    /// is there and the first process in it others do the same. `None` when somebody else has claimed it.
    pub(crate) fn claim(&self) -> Result<Option<Claim>> {
        let Some(hierarchy) = self.hierarchies.of_claims().filter(|_| !self.is_none()) else {
            return Ok(None);
        };
        let directory = hierarchy.mountpoint.join(&self.path);
        try_claim(hierarchy, &self.path, &directory)
            .at(&self.id, format!("cannot make cgroup {}", directory.display()))
    }

    /// Makes the directory in every hierarchy, ready for processes.
    pub(crate) fn make(&self) -> Result<()> {
        for hierarchy in self.hierarchies.all() {
            let what = || format!("cannot make cgroup {}", hierarchy.mountpoint.join(&self.path).display());
            make(hierarchy, &self.path).at(&self.id, what())?;
        }
        Ok(())
    }

    /// Passes controllers down to its unit: systemd knows only some of them.
    pub(crate) fn fill_unit(&self) {
        let (Some(unit), Some(unified)) = (&self.unit, self.hierarchies.unified()) else { return };
        let mut directory = unified.mountpoint.clone();
        for name in Path::new(unit.cgroup()) {
            pass_controllers_down(&directory);
            directory.push(name);
        }
    }

    /// Makes the cgroups above it fit for processes: whoever made a cpuset of version 1 may have left it empty. liblxc
    /// relies on what is above, which may this moment be made by another liblxc: so it is made here, and filled, too.
    pub(crate) fn fill_parents(&self) -> Result<()> {
        let Some(hierarchy) = self.hierarchies.legacy().find(|h| h.is_called("cpuset")) else {
            return Ok(());
        };
        let mut directory = hierarchy.mountpoint.clone();
        for name in Path::new(&self.path).parent().into_iter().flatten() {
            let above = directory.clone();
            directory.push(name);
            make_directory(&directory)
                .and_then(|()| fill_cpuset(&above, &directory))
                .and_then(|()| write(&directory, "cgroup.clone_children", "1"))
                .at(&self.id, format!("cannot fill cpuset {}", directory.display()))?;
        }
        Ok(())
    }
}

fn try_claim(hierarchy: &Hierarchy, path: &str, directory: &Path) -> io::Result<Option<Claim>> {
    let above = Path::new(path).parent().unwrap_or(Path::new(""));
    loop {
        let made = match fs::create_dir(directory) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) if e.kind() == io::ErrorKind::NotFound && !above.as_os_str().is_empty() => {
                make(hierarchy, above)?;
                continue;
            }
            Err(e) => return Err(e),
        };
        let lock: OwnedFd = match File::open(directory) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?.into(),
        };
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            locked => locked?,
        }
        // Somebody may have removed it before it was locked, and another one made it again.
        let (own, now) = (fstat(&lock)?, stat(directory));
        if now.is_ok_and(|now| (now.st_dev, now.st_ino) == (own.st_dev, own.st_ino)) {
            return Ok(Some(Claim { _lock: lock, directory: directory.to_owned(), made }));
        }
    }
}

fn make(hierarchy: &Hierarchy, path: impl AsRef<Path>) -> io::Result<()> {
    let mut directory = hierarchy.mountpoint.clone();
    for name in path.as_ref() {
        if hierarchy.is_unified() {
            pass_controllers_down(&directory);
        }
        let above = directory.clone();
        directory.push(name);
        make_directory(&directory)?;
        if hierarchy.is_called("cpuset") {
            fill_cpuset(&above, &directory)?;
        }
    }
    Ok(())
}

/// It may be there already.
fn make_directory(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// One that can't be passed on is missed by the limit that needs it, which names its field. So it is with all of a cgroup
/// that has processes: the kernel takes some controllers from it all the same, and then no process may be below. The root of
/// all, which has no type, may have any.
fn pass_controllers_down(directory: &Path) {
    if read(directory, "cgroup.procs").is_ok_and(|processes| !processes.is_empty())
        && directory.join("cgroup.type").exists()
    {
        return;
    }
    let controllers = read(directory, "cgroup.controllers").unwrap_or_default();
    let passed = read(directory, "cgroup.subtree_control").unwrap_or_default();
    let passed: Vec<&str> = passed.split_whitespace().collect();
    for controller in controllers.split_whitespace().filter(|controller| !passed.contains(controller)) {
        let _ = write(directory, "cgroup.subtree_control", &format!("+{controller}"));
    }
}

/// A new cpuset of version 1 has no processors and no memory, and takes no processes.
fn fill_cpuset(above: &Path, directory: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if read(directory, file)?.is_empty() {
            write(directory, file, &read(above, file)?)?;
        }
    }
    Ok(())
}
