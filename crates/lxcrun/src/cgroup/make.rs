//! Making a container's cgroups where liblxc takes no part: at a restore, and where it would do too much.

use std::fs;
use std::io;
use std::path::Path;

use super::hierarchies::Hierarchy;
use super::{Cgroup, read, write};
use crate::Result;
use crate::error::Context;

impl Cgroup {
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

fn make(hierarchy: &Hierarchy, path: &str) -> io::Result<()> {
    let mut directory = hierarchy.mountpoint.clone();
    for name in Path::new(path) {
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
