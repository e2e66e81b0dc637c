//! `linux.cgroupsPath` and the directories beside it.

use std::path::{Component, Path};

use crate::error::refuse;
use crate::{ContainerId, Result};

/// Where a container's cgroups are, below the root of every hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CgroupPath {
    container: String,
    id: ContainerId,
}

impl CgroupPath {
    /// The path asked for, or liblxc's own default, `lxc.payload.ID`.
    pub(crate) fn new(id: &ContainerId, wanted: Option<&Path>) -> Result<Self> {
        let Some(wanted) = wanted.filter(|p| !p.as_os_str().is_empty()) else {
            return Ok(Self { container: format!("lxc.payload.{id}"), id: id.clone() });
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
        Ok(Self { container: parts.join("/"), id: id.clone() })
    }

    /// No cgroup at all, for an ordinary user who may make none.
    pub(crate) fn none(id: &ContainerId) -> Self {
        Self { container: String::new(), id: id.clone() }
    }

    /// Whether there is a cgroup.
    pub(crate) fn is_some(&self) -> bool {
        !self.container.is_empty()
    }

    /// The container's own.
    pub(crate) fn container(&self) -> &str {
        &self.container
    }

    /// That of liblxc's monitor: it must not exist either, so every container has one.
    pub(crate) fn monitor(&self) -> String {
        if !self.is_some() {
            return String::new();
        }
        format!("lxc.monitor.{}", self.id)
    }

    /// Where liblxc's monitor goes to remove its own. liblxc leaves it behind, we don't.
    pub(crate) fn pivot(&self) -> String {
        if !self.is_some() {
            return String::new();
        }
        format!("lxc.pivot.{}", self.id)
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
        assert_eq!(path(None).unwrap(), "lxc.payload.x");
        assert_eq!(path(Some("")).unwrap(), "lxc.payload.x");
        assert!(path(Some("/a/../../b")).is_err());
        assert!(path(Some("/")).is_err());
    }
}
