//! Which cgroup hierarchies this host has, and where.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use kernel::{MountInfo, MountedFilesystem};

/// The kinds of host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Only the unified hierarchy (cgroup v2).
    Unified,
    /// Version 1, perhaps with a unified hierarchy beside it.
    Legacy,
    /// No cgroup file system at all.
    None,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Version 1: its controllers, or `name=...`. Unified: empty.
    pub controllers: Vec<String>,
    pub mountpoint: PathBuf,
}

impl Hierarchy {
    pub(crate) fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }

    /// Whether /proc/PID/cgroup calls it by this comma-separated list.
    pub(crate) fn is_called(&self, list: &str) -> bool {
        if list.is_empty() {
            return self.is_unified();
        }
        self.controllers.iter().any(|c| list.split(',').any(|name| name == c))
    }
}

/// All mounted hierarchies; every container that is listed shares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchies(Arc<[Hierarchy]>);

impl Hierarchies {
    /// Finds them in /proc/self/mountinfo.
    pub(crate) fn probe() -> io::Result<Self> {
        Ok(Self::from_mountinfo(&crate::host::read("/proc/self/mountinfo")?))
    }

    fn from_mountinfo(mountinfo: &str) -> Self {
        let mut all: Vec<Hierarchy> = Vec::new();
        for mount in MountInfo::all(mountinfo) {
            let Some(mountpoint) = mountpoint(mount) else { continue };
            let Some(MountedFilesystem { fstype, options }) = mount.filesystem() else { continue };
            let controllers: Vec<String> = match fstype {
                "cgroup2" => Vec::new(),
                "cgroup" => options.split(',').filter(|o| is_controller(o)).map(str::to_owned).collect(),
                _ => continue,
            };
            if fstype == "cgroup" && controllers.is_empty() {
                continue;
            }
            if !all.iter().any(|h| h.controllers == controllers) {
                all.push(Hierarchy { controllers, mountpoint });
            }
        }
        Self(all.into())
    }

    /// A host of today, for tests.
    #[cfg(test)]
    pub(crate) fn unified_only() -> Self {
        Self::unified_at(std::path::Path::new("/sys/fs/cgroup"))
    }

    #[cfg(test)]
    pub(crate) fn unified_at(root: &std::path::Path) -> Self {
        Self([Hierarchy { controllers: Vec::new(), mountpoint: root.into() }].into())
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Hierarchy> {
        self.0.iter()
    }

    /// Those that an ordinary user may be given a part of. A unified one beside version 1 is none: there the kernel lets
    /// a process be moved only by who owns both places and all between them, and what is to be limited is elsewhere.
    pub(super) fn of_user(self) -> Self {
        match self.layout() {
            Layout::Legacy => Self(self.legacy().cloned().collect()),
            Layout::Unified | Layout::None => self,
        }
    }

    /// The hierarchies of version 1.
    pub(crate) fn legacy(&self) -> impl Iterator<Item = &Hierarchy> {
        self.0.iter().filter(|h| !h.is_unified())
    }

    pub(crate) fn unified(&self) -> Option<&Hierarchy> {
        self.0.iter().find(|h| h.is_unified())
    }

    /// The one where a cgroup is claimed: found without regard to the order of mounts, which is each mount namespace's own.
    pub(crate) fn of_claims(&self) -> Option<&Hierarchy> {
        self.unified().or_else(|| self.all().min_by_key(|hierarchy| &hierarchy.controllers))
    }

    /// The one that has `controller`: version 1 first, because a controller is in one hierarchy only.
    pub(crate) fn of(&self, controller: &str) -> Option<&Hierarchy> {
        self.legacy().find(|h| h.controllers.iter().any(|c| c == controller)).or_else(|| self.unified())
    }

    /// liblxc makes cgroups below those of pid 1, the specification means the roots. Where the two differ (in a
    /// container without a cgroup namespace), liblxc is told to use its own cgroups (`lxc.cgroup.relative`), and
    /// has to be moved to the roots before: these are the files to write its pid to. `None` where there is no
    /// difference.
    pub(crate) fn roots_to_enter(&self) -> io::Result<Option<Vec<PathBuf>>> {
        let init = crate::host::read("/proc/1/cgroup")?;
        if self.paths(&init).all(|(_, path)| matches!(path, "/" | "/init.scope")) {
            return Ok(None);
        }
        let own = crate::host::read("/proc/self/cgroup")?;
        let elsewhere = self.paths(&own).filter(|(_, path)| *path != "/");
        Ok(Some(elsewhere.map(|(hierarchy, _)| hierarchy.mountpoint.join("cgroup.procs")).collect()))
    }

    /// Hierarchies and paths of a /proc/PID/cgroup.
    pub(super) fn paths<'t>(&'t self, text: &'t str) -> impl Iterator<Item = (&'t Hierarchy, &'t str)> {
        text.lines().filter_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            Some((self.0.iter().find(|h| h.is_called(controllers))?, path))
        })
    }

    pub(crate) fn layout(&self) -> Layout {
        match (self.legacy().next(), self.unified()) {
            (Some(_), _) => Layout::Legacy,
            (None, Some(_)) => Layout::Unified,
            (None, None) => Layout::None,
        }
    }
}

/// Where a mount is that may be a hierarchy. A bind mount elsewhere of a part (of a container in a container) is none. Compared
/// as text: a host has hundreds of others.
fn mountpoint(mount: MountInfo<'_>) -> Option<PathBuf> {
    let place = mount.raw_place()?;
    let below = place.strip_prefix("/sys/fs/cgroup")?;
    (below.is_empty() || below.starts_with('/')).then(|| place.into())
}

/// Among the mount options of a v1 hierarchy, those that name its controllers.
fn is_controller(option: &str) -> bool {
    !matches!(option, "rw" | "ro" | "xattr" | "noprefix" | "clone_children" | "cpuset_v2_mode" | "none")
        && !option.starts_with("release_agent=")
        && (!option.contains('=') || option.starts_with("name="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_host_has_both() {
        let found = Hierarchies::from_mountinfo(
            "30 25 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
             31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
             32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n",
        );
        assert_eq!(found.layout(), Layout::Legacy);
        assert_eq!(found.of("cpuacct").unwrap().mountpoint, PathBuf::from("/sys/fs/cgroup/cpu,cpuacct"));
        assert!(found.of("memory").unwrap().is_unified());
        assert!(found.legacy().next().unwrap().is_called("name=systemd"));
    }

    /// Who may mount gives names: such as of a file manager for the label of a disk.
    #[test]
    fn mounts_of_others_are_passed_over() {
        let others = "40 30 0:30 / /sys/fs/cgroups rw - cgroup2 cgroup2 rw\n\
                      41 30 0:31 / /mnt/\u{fffd}/sys/fs/cgroup rw - cgroup cgroup rw,memory\n\
                      42 30 0:32 / /sys/fs/cgroup rw - tmpfs tmpfs\n43 30\n\n";
        assert_eq!(Hierarchies::from_mountinfo(others).layout(), Layout::None);
    }

    #[test]
    fn a_unified_host_has_one() {
        let found = Hierarchies::from_mountinfo("31 30 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert_eq!(found.layout(), Layout::Unified);
    }
}
