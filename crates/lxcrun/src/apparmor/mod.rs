//! AppArmor profiles of single containers: made for `lxc.apparmor.profile=generated`, loaded by apparmor_parser(8), and
//! taken away with the container.
//!
//! liblxc makes them, too, but only for an init that it confines from the start, and ours has a container to make first.

mod profile;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use serde::{Deserialize, Serialize};

use crate::config::WantedProfile;
use crate::error::{Context, refuse};
use crate::state_dir::StateDir;
use crate::{ContainerId, Result};

/// AppArmor's files: the kernel's admin-guide/LSM/apparmor.
const KERNEL: &str = "/sys/kernel/security/apparmor";
/// The profile's text, in the container's directory, for people.
const FILE: &str = "apparmor";
/// The descriptor by which the parser holds the lock of the container's directory.
const LOCK_FD: i32 = 3;

/// A container's own profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Generated {
    name: String,
    /// Whether it has a namespace of policies, for containers in the container.
    nesting: bool,
}

impl Generated {
    /// Decides its name, of which there is one on a host, so that it can be written down before it is loaded.
    pub(crate) fn new(id: &ContainerId, root: &Path, wanted: &WantedProfile) -> Self {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.+/".contains(c);
        let root = root.display().to_string().replace(|c| !known(c), "-");
        Self { name: format!("lxcrun-{id}_<{root}>"), nesting: wanted.nesting }
    }

    /// The label of the container's processes. In a namespace of policies they find themselves unconfined.
    pub(crate) fn label(&self) -> String {
        match self.namespace() {
            Some(namespace) => format!("{}//&:{namespace}:unconfined", self.name),
            None => self.name.clone(),
        }
    }

    fn namespace(&self) -> Option<String> {
        self.nesting.then(|| self.name.replace('/', "-"))
    }

    /// Loads it.
    pub(crate) fn load(&self, id: &ContainerId, directory: &StateDir, wanted: &WantedProfile) -> Result<()> {
        directory.write_unread(FILE, profile::text(&self.name, wanted).as_bytes())?;
        if let Some(reason) = parse(id, directory)? {
            return Err(refuse(id, &wanted.field, reason));
        }
        if let Some(namespace) = self.namespace() {
            let path = namespace_path(&namespace);
            let made = fs::create_dir(&path);
            made.map_err(|e| refuse(id, &wanted.field, format!("cannot make {}: {e}", path.display())))?;
        }
        Ok(())
    }

    /// Takes it away, and returns what went wrong. What is not there is not missed.
    pub(crate) fn remove(&self) -> Vec<String> {
        let namespace = self.namespace().map(|namespace| {
            let path = namespace_path(&namespace);
            (fs::remove_dir(&path), path)
        });
        let file = Path::new(KERNEL).join(".remove");
        let profile = (write(&file, &self.name), file);
        let failed = |(removed, path): (io::Result<()>, PathBuf)| match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Some(format!("AppArmor profile {}: {}: {e}", self.name, path.display()))
            }
            _ => None,
        };
        namespace.into_iter().chain([profile]).filter_map(failed).collect()
    }
}

fn namespace_path(namespace: &str) -> PathBuf {
    Path::new(KERNEL).join("policy/namespaces").join(namespace)
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    io::Write::write_all(&mut fs::OpenOptions::new().write(true).open(file)?, text.as_bytes())
}

/// Why the parser does not take the profile, if so. It holds the lock of the container's directory: whoever deletes the
/// container of a `create` that was killed waits for its end, and finds what it has loaded.
fn parse(id: &ContainerId, directory: &StateDir) -> Result<Option<String>> {
    let what = "cannot start apparmor_parser";
    let lock = FdMapping { parent_fd: directory.duplicate_lock().at(id, what)?, child_fd: LOCK_FD };
    let mut parser = Command::new("apparmor_parser");
    parser.args(["--replace", "--skip-cache", "--quiet"]).arg(directory.path().join(FILE));
    parser.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    parser.fd_mappings(vec![lock]).map_err(io::Error::other).at(id, what)?;
    let output = match kernel::block_none_in(&mut parser).output() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(Some("apparmor_parser is missing: it loads a generated profile".into()));
        }
        output => output.at(id, what)?,
    };
    let said = String::from_utf8_lossy(&output.stderr);
    Ok((!output.status.success()).then(|| format!("apparmor_parser: {}", said.trim().replace('\n', "; "))))
}
