//! Devices of a container.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A device: one that may be used (`allowed_devices`), or one that is made in the container's /dev
/// (`autocreated_devices`).
///
/// With a user namespace nobody may make a node: the container gets the host's, which must be at the same path there, and
/// keeps its mode and owner. One that the host has elsewhere is bound by [`Mount`](crate::Mount) and allowed.
///
/// ```
/// use execdriver::Device;
///
/// let fuse = Device::character("/dev/fuse", 10, 229);
/// assert_eq!((fuse.kind, fuse.mode), ('c', 0o666));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// `c` for a character device, `b` for a block device. Anything else is refused.
    #[serde(rename = "type")]
    pub kind: char,
    /// Where it is in the container. A node is made below /dev alone, because anywhere else it would stay in the image.
    #[serde(default)]
    pub path: PathBuf,
    /// Its major number; none for any (only to allow).
    #[serde(default)]
    pub major: Option<u32>,
    /// Its minor number; none for any (only to allow).
    #[serde(default)]
    pub minor: Option<u32>,
    /// What may be done with it: of `r` (read), `w` (write) and `m` (make a node).
    #[serde(default = "everything")]
    pub permissions: String,
    /// Mode of its node.
    #[serde(default = "default_mode", rename = "file_mode")]
    pub mode: u32,
    /// Owner of its node.
    #[serde(default)]
    pub uid: u32,
    /// Group of its node.
    #[serde(default)]
    pub gid: u32,
}

fn everything() -> String {
    "rwm".into()
}

fn default_mode() -> u32 {
    0o666
}

/// Whether a path can lead nowhere but below /dev, which is the container's own.
fn is_below_dev(path: &Path) -> bool {
    let below = path.strip_prefix("/dev").is_ok_and(|rest| rest.components().next().is_some());
    below && !path.components().any(|part| part == Component::ParentDir)
}

impl Device {
    /// A character device that may be read, written and made, of root's, with mode 0666.
    #[must_use]
    pub fn character(path: impl Into<PathBuf>, major: u32, minor: u32) -> Self {
        Self::new('c', path.into(), major, minor)
    }

    /// A block device, likewise.
    #[must_use]
    pub fn block(path: impl Into<PathBuf>, major: u32, minor: u32) -> Self {
        Self::new('b', path.into(), major, minor)
    }

    fn new(kind: char, path: PathBuf, major: u32, minor: u32) -> Self {
        Self {
            kind,
            path,
            major: Some(major),
            minor: Some(minor),
            permissions: everything(),
            mode: default_mode(),
            uid: 0,
            gid: 0,
        }
    }

    /// Why it can't be allowed, if it can't.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !matches!(self.kind, 'b' | 'c') {
            return Err(format!("{}: type {:?} is neither c nor b", self.path.display(), self.kind));
        }
        if self.permissions.is_empty() || self.permissions.chars().any(|c| !"rwm".contains(c)) {
            return Err(format!(
                "{}: permissions {:?} are not of r, w and m",
                self.path.display(),
                self.permissions
            ));
        }
        // Those of dev_t in the kernel.
        for (what, number, bits) in [("major", self.major, 12), ("minor", self.minor, 20)] {
            if let Some(number) = number.filter(|number| number >> bits != 0) {
                let highest = (1_u32 << bits) - 1;
                return Err(format!("{}: {what} {number} is above {highest}", self.path.display()));
            }
        }
        Ok(())
    }

    /// Why no node can be made of it, if none can.
    pub(crate) fn check_node(&self) -> Result<(u32, u32), String> {
        self.check()?;
        if !is_below_dev(&self.path) {
            return Err(format!(
                "{:?} is no path below /dev: anywhere else the node would stay in the image",
                self.path
            ));
        }
        if self.mode > 0o777 {
            return Err(format!("{}: mode {:#o} is above 0o777", self.path.display(), self.mode));
        }
        // The last one means "no change" to the kernel.
        if self.uid == u32::MAX || self.gid == u32::MAX {
            return Err(format!("{}: nobody has the number {}", self.path.display(), u32::MAX));
        }
        self.major
            .zip(self.minor)
            .ok_or_else(|| format!("{}: a node needs both numbers", self.path.display()))
    }
}
