//! What a container sees besides its root file system.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A mount: a directory or file of the host, unless `fstype` names a file system.
///
/// ```
/// use execdriver::Mount;
///
/// let data = Mount::bind("/srv/data", "/data").read_only();
/// assert!(!data.writable);
/// let scratch = Mount::filesystem("tmpfs", "/scratch").option("size=16m");
/// assert_eq!(scratch.fstype.as_deref(), Some("tmpfs"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// The path on the host, with everything that is mounted below; absolute, because a relative one would be one in the image.
    #[serde(default)]
    pub source: PathBuf,
    /// The path in the container, absolute. It is made when it is missing: a directory or a file, as the source is.
    pub destination: PathBuf,
    /// Whether it can be written to; what is mounted below is read-only with it.
    #[serde(default)]
    pub writable: bool,
    /// What later mounts do on one side to the other. By default the container sees the host's, and not the other way
    /// round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propagation: Option<Propagation>,
    /// A file system instead of the host's files, for instance `tmpfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fstype: Option<String>,
    /// More options, as in the OCI runtime specification.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// What mounts made later do on one side to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Propagation {
    /// Nothing.
    Private,
    /// The host's appear in the container.
    Slave,
    /// They appear on the other side, whoever makes them.
    Shared,
}

impl Mount {
    /// A writable part of the host.
    #[must_use]
    pub fn bind(source: impl Into<PathBuf>, destination: impl Into<PathBuf>) -> Self {
        Self { source: source.into(), destination: destination.into(), writable: true, ..Self::default() }
    }

    /// A writable file system of its own.
    #[must_use]
    pub fn filesystem(fstype: impl Into<String>, destination: impl Into<PathBuf>) -> Self {
        let fstype = fstype.into();
        Self {
            source: fstype.clone().into(),
            destination: destination.into(),
            writable: true,
            fstype: Some(fstype),
            ..Self::default()
        }
    }

    /// The same, but read-only.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.writable = false;
        self
    }

    /// The same with one more option.
    #[must_use]
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// Why it can't be made, if it can't: the field and the reason.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if !self.destination.is_absolute() {
            return Err(("destination", format!("{:?} is not absolute", self.destination)));
        }
        let binds = self.options.iter().any(|option| matches!(option.as_str(), "bind" | "rbind"));
        let is_of_host = binds || self.fstype.as_deref().is_none_or(|fstype| fstype == "bind");
        if is_of_host && !self.source.is_absolute() {
            return Err(("source", format!("{:?} is not absolute: it is a path on the host", self.source)));
        }
        Ok(())
    }

    /// Its options as the specification has them.
    pub(crate) fn oci_options(&self) -> Vec<String> {
        let mut all: Vec<&str> = Vec::new();
        if self.fstype.is_none() {
            all.push("rbind");
        }
        match (self.writable, self.fstype.is_none()) {
            (true, _) => all.push("rw"),
            (false, true) => all.extend(["ro", "rro"]),
            (false, false) => all.push("ro"),
        }
        all.extend(self.propagation.map(|propagation| match propagation {
            Propagation::Private => "rprivate",
            Propagation::Slave => "rslave",
            Propagation::Shared => "rshared",
        }));
        all.into_iter().map(str::to_owned).chain(self.options.iter().cloned()).collect()
    }
}
