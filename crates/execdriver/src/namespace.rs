//! Whose namespaces a container has.

use std::path::{Path, PathBuf};

use lxcrun::ContainerId;
use serde::{Deserialize, Serialize};

/// Where one namespace of a container comes from.
///
/// ```
/// use execdriver::Namespace;
///
/// let ipc: Namespace = serde_json::from_str(r#"{"container":"db"}"#)?;
/// assert_eq!(ipc, Namespace::Container("db".parse().unwrap()));
/// assert_eq!(serde_json::from_str::<Namespace>(r#""host""#)?, Namespace::Host);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namespace {
    /// A new one.
    #[default]
    Own,
    /// That of the driver's process.
    Host,
    /// That of another container of this driver, which must be running.
    Container(ContainerId),
    /// The one at this path.
    Path(PathBuf),
}

/// Where a container's user namespace comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum UserNamespace {
    /// That of the driver's process.
    #[default]
    Host,
    /// A new one with these ids. The root file system must be readable for them.
    Own {
        /// Users.
        uid_mappings: Vec<IdMapping>,
        /// Groups.
        gid_mappings: Vec<IdMapping>,
    },
    /// That of another container of this driver, which must be running.
    Container(ContainerId),
    /// The one at this path.
    Path(PathBuf),
}

impl UserNamespace {
    /// A new one in which the container's ids from 0 to `size` - 1 are the host's from `first` on. There must be some, and none
    /// above the highest number, or [`Command::check`](crate::Command::check) refuses it.
    ///
    /// ```
    /// # use execdriver::{Command, UserNamespace};
    /// let shifted = UserNamespace::shifted(100_000, 65_536);
    /// let command = Command::builder("web", "/srv/web").args(["httpd"]).userns(shifted).build()?;
    /// # Ok::<(), execdriver::Error>(())
    /// ```
    #[must_use]
    pub fn shifted(first: u32, size: u32) -> Self {
        let mapping = vec![IdMapping { container_id: 0, host_id: first, size }];
        Self::Own { uid_mappings: mapping.clone(), gid_mappings: mapping }
    }
}

/// A range of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMapping {
    /// The first id in the container.
    pub container_id: u32,
    /// The first id on the host.
    pub host_id: u32,
    /// How many there are.
    pub size: u32,
}

/// A namespace that is joined, by the names of [`Namespace`] and [`UserNamespace`].
pub(crate) enum Joined<'a> {
    Container(&'a ContainerId),
    Path(&'a PathBuf),
}

impl Namespace {
    /// What is joined, if any is.
    pub(crate) fn joined(&self) -> Option<Joined<'_>> {
        match self {
            Self::Own | Self::Host => None,
            Self::Container(id) => Some(Joined::Container(id)),
            Self::Path(path) => Some(Joined::Path(path)),
        }
    }
}

/// Why there can be no namespace at a path, if there can't.
pub(crate) fn check_path(path: &Path) -> Result<(), String> {
    if path.as_os_str().is_empty() {
        return Err("the path of the namespace is empty".into());
    }
    if !path.is_absolute() {
        return Err(format!("{path:?} is not absolute"));
    }
    Ok(())
}

/// Why the kernel would not take these ranges of ids, if it wouldn't: user_namespaces(7).
fn check_ranges(of: &str, ranges: &[IdMapping]) -> Result<(), String> {
    if ranges.is_empty() {
        return Err(format!("no {of} of the container is one of the host's"));
    }
    if !ranges.iter().any(|range| range.container_id == 0) {
        return Err(format!("{of} 0 of the container is none of the host's: LXC needs it"));
    }
    // The last number means "no change" to the kernel, so nobody has it.
    let end = |first: u32, size: u32| first.checked_add(size);
    for (index, range) in ranges.iter().enumerate() {
        let IdMapping { container_id, host_id, size } = *range;
        if size == 0 {
            return Err(format!("a range of 0 {of}s, from {host_id} on, is none"));
        }
        let (Some(inside), Some(outside)) = (end(container_id, size), end(host_id, size)) else {
            let reason = format!("{size} {of}s from {container_id} on as the host's from {host_id} on");
            return Err(format!("{reason}: there are none above {}", u32::MAX - 1));
        };
        for other in &ranges[..index] {
            let apart = |a: u32, a_end: u32, b: u32| a_end <= b || b.saturating_add(other.size) <= a;
            if !apart(container_id, inside, other.container_id) || !apart(host_id, outside, other.host_id) {
                return Err(format!("two ranges of {of}s share some: {other:?} and {range:?}"));
            }
        }
    }
    Ok(())
}

impl UserNamespace {
    /// Why it can't be had, if it can't.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Path(path) => check_path(path),
            Self::Own { uid_mappings, gid_mappings } => {
                check_ranges("user", uid_mappings).and_then(|()| check_ranges("group", gid_mappings))
            }
            Self::Host | Self::Container(_) => Ok(()),
        }
    }

    pub(crate) fn joined(&self) -> Option<Joined<'_>> {
        match self {
            Self::Own { .. } | Self::Host => None,
            Self::Container(id) => Some(Joined::Container(id)),
            Self::Path(path) => Some(Joined::Path(path)),
        }
    }
}
