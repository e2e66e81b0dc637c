//! Control groups: liblxc makes a container's directories and puts its init into them; everything else about
//! them is done here, by files, so that it works from any process and without LXC's monitor.

mod change;
mod delegation;
mod devices;
mod end;
mod hierarchies;
mod limits;
mod make;
mod oom;
mod path;
mod processes;
mod raw;
mod stats;
mod v1;
mod v2;

pub(crate) use delegation::INNER;
pub(crate) use end::wait_for_end;
use end::{remove_tree, unless_gone};
pub(crate) use hierarchies::{Hierarchies, Layout};
pub(crate) use make::Claim;
pub use oom::OomWatch;
pub(crate) use path::CgroupPath;
pub(crate) use raw::RawLimit;
pub use stats::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, CpusetStats, HugetlbStats, MemoryEvents, MemoryStats,
    MemoryUsage, NetworkInterface, PidsStats, Pressure, PressureLine, ResourceStats, Throttling,
};

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::error::{Context, refuse, unable};
use crate::systemd::Unit;
use crate::{ContainerId, Result, rootless};

/// Why something that needs a cgroup can't be had without one. It begins with words of runc.
pub(crate) const NO_CGROUP: &str = "rootless needs no limits + no cgrouppath when no permission is granted for cgroups: \
    the container has no cgroup";

/// Files of a cgroup itself that are limits; the others move, freeze and kill.
const LIMITS: [&str; 3] = ["cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"];

/// The cgroups of one container: a directory in each hierarchy.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup {
    id: ContainerId,
    hierarchies: Hierarchies,
    /// Below the root of each hierarchy, without a leading slash. Empty for none: an ordinary user may not be allowed any.
    path: String,
    /// The unit of systemd that it belongs to, which gets the same limits.
    unit: Option<Unit>,
    /// Whether the processes are in a cgroup below, which is the container's to change.
    delegated: bool,
}

impl Cgroup {
    pub(crate) fn new(id: &ContainerId, hierarchies: Hierarchies, path: &str) -> Self {
        let hierarchies = if rootless::is_ordinary_user() { hierarchies.of_user() } else { hierarchies };
        Self { id: id.clone(), hierarchies, path: path.into(), unit: None, delegated: false }
    }

    /// The same, of a unit of systemd.
    pub(crate) fn in_unit(self, unit: Option<Unit>) -> Self {
        Self { unit, ..self }
    }

    /// One in a directory that looks like the root of a hierarchy of version 2.
    #[cfg(test)]
    fn at(id: &ContainerId, root: &Path) -> Self {
        Self::new(id, Hierarchies::unified_at(root), ".")
    }

    /// Another cgroup of the same container.
    pub(crate) fn beside(&self, path: &str) -> Self {
        Self::new(&self.id, self.hierarchies.clone(), path)
    }

    /// Whether a directory of this name is there in any hierarchy.
    pub(crate) fn is_there(&self) -> bool {
        self.directories().any(|d| d.exists())
    }

    /// The directory of this name in any hierarchy, if there is one. Fails when somebody uses it: the container would share
    /// its limits and its end. The words are runc's.
    pub(crate) fn existing(&self) -> Result<Option<PathBuf>> {
        if let Some(unit) = &self.unit {
            // It is the container's alone, and goes with it.
            self.beside(unit.cgroup()).existing()?;
            if self.is_of_unit() {
                return Ok(None);
            }
        }
        let existing = self.directories().find(|d| d.exists());
        if existing.is_none() {
            return Ok(None);
        }
        let refuse = |reason: String| Err(refuse(&self.id, "linux.cgroupsPath", reason));
        match self.pids_of_anybody().len() {
            0 if self.is_frozen() => {
                refuse(format!("/{}: container's cgroup unexpectedly frozen", self.path))
            }
            0 => Ok(existing),
            n => refuse(format!("/{}: container's cgroup is not empty: {n} process(es) found", self.path)),
        }
    }

    /// Whether this process may make it: in every hierarchy the nearest directory above that is there takes directories and
    /// processes of its user.
    pub(crate) fn can_be_made(&self) -> bool {
        let writable = |path: &Path| accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
        let may_make = |directory: PathBuf| {
            let above = directory.ancestors().skip(1).find(|above| above.exists());
            above.is_some_and(|above| writable(above) && writable(&above.join("cgroup.procs")))
        };
        !self.is_none() && self.layout() != Layout::None && self.directories().all(may_make)
    }

    /// The container's directory in each hierarchy.
    pub(crate) fn directories(&self) -> impl Iterator<Item = PathBuf> {
        let there = !self.is_none();
        self.hierarchies.all().filter(move |_| there).map(|h| h.mountpoint.join(&self.path))
    }

    /// The directory that `controller` is in charge of: in its v1 hierarchy, or in the unified one.
    pub(crate) fn directory(&self, controller: &str) -> Option<(PathBuf, bool)> {
        if self.is_none() {
            return None;
        }
        let hierarchy = self.hierarchies.of(controller)?;
        Some((hierarchy.mountpoint.join(&self.path), hierarchy.is_unified()))
    }

    /// Fails when the container has no cgroup, and `what` needs one.
    pub(crate) fn check_exists(&self, what: &str) -> Result<()> {
        if self.is_none() { Err(unable(&self.id, what, NO_CGROUP)) } else { Ok(()) }
    }

    /// Whether the container has no cgroup of its own.
    pub(crate) fn is_none(&self) -> bool {
        self.path.is_empty()
    }

    /// Whether it belongs to a unit of systemd.
    pub(crate) fn has_unit(&self) -> bool {
        self.unit.is_some()
    }

    /// Whether it is the own cgroup of a unit of systemd, which makes it.
    pub(crate) fn is_of_unit(&self) -> bool {
        self.unit.as_ref().is_some_and(|unit| unit.cgroup() == self.path)
    }

    /// The directory of the unit of systemd around it, where there is one.
    fn outside(&self, controller: &str) -> Option<PathBuf> {
        let unit = self.unit.as_ref().filter(|_| !self.is_of_unit())?;
        Some(self.hierarchies.of(controller)?.mountpoint.join(unit.cgroup()))
    }

    /// Below the root of each hierarchy.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn layout(&self) -> Layout {
        self.hierarchies.layout()
    }

    pub(crate) fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    /// Fails unless the kernel says that `pid` is where it should be in every hierarchy.
    pub(crate) fn check_member(&self, pid: rustix::process::Pid) -> Result<()> {
        if self.is_none() {
            return Ok(());
        }
        let file = format!("/proc/{}/cgroup", pid.as_raw_nonzero());
        let text = std::fs::read_to_string(&file)
            .map_err(|e| refuse(&self.id, "linux.cgroupsPath", format!("{file}: {e}")))?;
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) =
                (fields.next(), fields.next().unwrap_or(""), fields.next().unwrap_or(""));
            let ours = self.hierarchies.all().any(|h| h.is_called(controllers));
            let home = self.home();
            if ours && Path::new(path.trim_start_matches('/')) != home {
                let reason = format!(
                    "liblxc has put the init into {path} of {controllers:?}, not into /{}",
                    home.display()
                );
                return Err(refuse(&self.id, "linux.cgroupsPath", reason));
            }
        }
        Ok(())
    }

    /// Removes the directories if nothing is in them, neither a process nor another cgroup. False when they are still there,
    /// or when there are none that could tell.
    pub(crate) fn remove_empty(&self) -> bool {
        !self.is_none() && self.directories().all(|d| unless_gone(std::fs::remove_dir(d)).is_ok())
    }

    /// Removes the directories and everything below; the first failure is returned after all were tried.
    pub(crate) fn remove(&self) -> Vec<String> {
        self.directories()
            .filter_map(|d| remove_tree(&d).err().map(|e| format!("{}: {e}", d.display())))
            .collect()
    }

    /// Has systemd take away its unit, after all that was below. systemd tries once to remove the unit's cgroup, when
    /// the last process in it has ended, and fails where that meets with the removal of one below.
    pub(crate) fn stop_unit(&self) -> Result<()> {
        let Some(unit) = &self.unit else { return Ok(()) };
        unit.stop(&self.id)?;
        let Some(unified) = self.hierarchies.unified() else { return Ok(()) };
        let directory = unified.mountpoint.join(unit.cgroup());
        unless_gone(std::fs::remove_dir(&directory))
            .at(&self.id, format!("cannot remove cgroup {}", directory.display()))
    }
}

/// A field, the file that it is for, and its value.
pub(crate) type FieldFile = (&'static str, String, String);

/// The files of cgroup v2 for `resources` without devices.
pub(crate) fn v2_files(
    resources: &oci_spec::runtime::LinuxResources,
) -> std::result::Result<Vec<FieldFile>, (&'static str, String)> {
    Ok(v2::settings(None, resources)?.into_iter().map(|s| (s.field, s.file, s.value)).collect())
}

/// Whether this host has cgroup v2 alone.
#[must_use]
pub fn cgroups_are_unified() -> bool {
    Hierarchies::probe().is_ok_and(|hierarchies| hierarchies.layout() == Layout::Unified)
}

/// Moves a process that is no container's into a cgroup that exists, in every hierarchy that has it.
///
/// # Errors
/// `ENOENT` when none has it; the kernel's.
pub fn enter_cgroup(path: &str, pid: u32) -> io::Result<()> {
    let path = path.trim_start_matches('/');
    let hierarchies = Hierarchies::probe()?;
    let directories: Vec<PathBuf> =
        hierarchies.all().map(|h| h.mountpoint.join(path)).filter(|d| d.exists()).collect();
    if directories.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no such cgroup"));
    }
    directories.iter().try_for_each(|directory| write(directory, "cgroup.procs", &pid.to_string()))
}

/// A cgroup and all below it, those above first. With one directory open at a time, and without recursion: a container that may
/// make cgroups makes them as deep as it likes.
fn tree(directory: &Path) -> Vec<PathBuf> {
    let mut all = vec![directory.to_owned()];
    let mut next = 0;
    while let Some(directory) = all.get(next) {
        all.extend(below(directory));
        next += 1;
    }
    all
}

/// The cgroups right below.
fn below(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

/// Reads a file of a cgroup, without its last newline.
fn read(directory: &Path, file: &str) -> io::Result<String> {
    let text = crate::host::read(directory.join(file))?;
    Ok(text.trim_end().to_owned())
}

/// Writes a file of a cgroup in one go. Never creates one: a missing file is a missing controller.
fn write(directory: &Path, file: &str, value: &str) -> io::Result<()> {
    use std::io::Write;
    std::fs::OpenOptions::new().write(true).open(directory.join(file))?.write_all(value.as_bytes())
}
