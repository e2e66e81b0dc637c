//! Whose namespaces a container has.

use std::path::PathBuf;

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
    /// A new one in which the container's ids from 0 to `size` - 1 are the host's from `first` on.
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

impl UserNamespace {
    pub(crate) fn joined(&self) -> Option<Joined<'_>> {
        match self {
            Self::Own { .. } | Self::Host => None,
            Self::Container(id) => Some(Joined::Container(id)),
            Self::Path(path) => Some(Joined::Path(path)),
        }
    }
}
