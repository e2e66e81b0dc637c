//! `linux.cgroupsPath` and the directories beside it.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use sha2::{Digest, Sha256};

use crate::error::refuse;
use crate::systemd::Unit;
use crate::{ContainerId, Result};

/// Where a container's cgroups are, below the root of every hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CgroupPath {
    /// The cgroup that liblxc makes all others below: that of a unit of systemd that the container is in, or the root.
    base: String,
    container: String,
    id: ContainerId,
    /// Whether liblxc has no part in it.
    without_liblxc: bool,
    /// At the end of names that are made of the id.
    suffix: String,
    unit: Option<Unit>,
}

/// The container's cgroup in that of its unit, where it is not the unit's own.
const IN_UNIT: &str = "container";

impl CgroupPath {
    /// The path asked for, or runc's default, `ID`.
    pub(crate) fn new(id: &ContainerId, wanted: Option<&Path>) -> Result<Self> {
        let Some(wanted) = wanted.filter(|p| !p.as_os_str().is_empty()) else {
            return Ok(Self::below_root(id, id.to_string()));
        };
        let refuse =
            |reason: &str| Err(refuse(id, "linux.cgroupsPath", format!("{}: {reason}", wanted.display())));
        let mut parts: Vec<&str> = Vec::new();
        for component in wanted.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => match name.to_str() {
                    Some(name) if !name.contains('\n') => parts.push(name),
                    _ => return refuse("is no name of a cgroup"),
                },
                Component::ParentDir | Component::Prefix(_) => return refuse("leads upwards"),
            }
        }
        if parts.is_empty() {
            return refuse("is the root of the hierarchies");
        }
        Ok(Self::below_root(id, parts.join("/")))
    }

    fn below_root(id: &ContainerId, container: String) -> Self {
        let (base, suffix) = Default::default();
        Self { base, container, id: id.clone(), without_liblxc: false, suffix, unit: None }
    }

    /// The default where the id is the name of something else, for instance of a container in another state root.
    pub(crate) fn of_root(id: &ContainerId, root: &Path) -> Self {
        // Another release finds it by the same name.
        let hash = Sha256::digest(root.as_os_str().as_bytes());
        let suffix: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let suffix = format!("-{suffix}");
        Self { suffix: suffix.clone(), ..Self::below_root(id, format!("lxc.payload.{id}{suffix}")) }
    }

    /// The same, made by us alone: liblxc makes none for an ordinary user who may not make it below the root.
    pub(crate) fn without_liblxc(self) -> Self {
        Self { without_liblxc: true, ..self }
    }

    /// Whether liblxc makes it, and puts the init into it.
    pub(crate) fn is_for_liblxc(&self) -> bool {
        self.is_some() && !self.without_liblxc
    }

    /// That of a unit of systemd.
    pub(crate) fn of_unit(id: &ContainerId, unit: Unit) -> Self {
        let container = unit.cgroup().to_owned();
        Self { unit: Some(unit), ..Self::below_root(id, container) }
    }

    /// One in that of a unit of systemd, for a container that LXC's monitor can't leave the unit's own to.
    pub(crate) fn in_unit(id: &ContainerId, unit: Unit) -> Self {
        Self { base: format!("{}/", unit.cgroup()), unit: Some(unit), ..Self::below_root(id, IN_UNIT.into()) }
    }

    /// The unit of systemd that it belongs to.
    pub(crate) fn unit(&self) -> Option<&Unit> {
        self.unit.as_ref()
    }

    /// Whether it is the unit's own.
    pub(crate) fn is_of_unit(&self) -> bool {
        self.unit.as_ref().is_some_and(|unit| unit.cgroup() == self.container())
    }

    /// No cgroup at all, for an ordinary user who may make none.
    pub(crate) fn none(id: &ContainerId) -> Self {
        Self::below_root(id, String::new())
    }

    /// Whether there is a cgroup.
    pub(crate) fn is_some(&self) -> bool {
        !self.container.is_empty()
    }

    /// The container's own.
    pub(crate) fn container(&self) -> String {
        format!("{}{}", self.base, self.container)
    }

    /// That of liblxc's monitor, which must not exist either, so every container has one; and where that goes to remove
    /// its own. liblxc leaves it behind, we don't. Empty for a monitor that `stays` where it is.
    pub(crate) fn monitor(&self, stays: bool) -> [String; 2] {
        if stays || !self.is_for_liblxc() {
            return Default::default();
        }
        self.monitor_for_lxc(false).map(|path| format!("{}{path}", self.base))
    }

    /// The container's own, below the base.
    pub(crate) fn for_lxc(&self) -> &str {
        &self.container
    }

    /// Those of liblxc's monitor, below the base. It wants some also for one that `stays` where it is.
    pub(crate) fn monitor_for_lxc(&self, stays: bool) -> [String; 2] {
        if stays {
            return [self.container.clone(), self.container.clone()];
        }
        ["monitor", "pivot"].map(|what| format!("lxc.{what}.{}{}", self.id, self.suffix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(wanted: Option<&str>) -> Result<String> {
        let id = "x".parse().unwrap();
        CgroupPath::new(&id, wanted.map(Path::new)).map(|p| p.container)
    }

    #[test]
    fn a_path_is_below_the_root_and_stays_there() {
        assert_eq!(path(Some("/docker/abc")).unwrap(), "docker/abc");
        assert_eq!(path(Some("a//b/./c/")).unwrap(), "a/b/c");
        assert_eq!(path(None).unwrap(), "x");
        assert_eq!(path(Some("")).unwrap(), "x");
        assert!(path(Some("/a/../../b")).is_err());
        assert!(path(Some("/")).is_err());
    }

    #[test]
    fn a_monitor_that_stays_where_it_is_has_none_of_its_own() {
        let id = "x".parse().unwrap();
        let path = CgroupPath::new(&id, Some(Path::new("/docker/abc"))).unwrap();
        assert_eq!(path.monitor(false), ["lxc.monitor.x", "lxc.pivot.x"]);
        assert_eq!(path.monitor_for_lxc(true), ["docker/abc", "docker/abc"]);
        assert_eq!(path.monitor(true), ["", ""]);
    }
}
