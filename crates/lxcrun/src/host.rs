//! What the host has, looked up once: the plan for a container is made from it without asking again.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::cgroup::{Hierarchies, Layout};
use crate::{Error, Result};

/// Reads a file of /proc, /sys or a cgroup. Their sizes are not known before, and a buffer that grows from nothing
/// takes half a dozen reads where this one takes one. Asking for the size first, as a `File` does, says nothing.
///
/// The names that others give to processes, cgroups and mount points need not be text; what is no UTF-8 in them is
/// replaced, and hides nothing else.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<String> {
    const PAGE: usize = 4096;
    let mut bytes = Vec::with_capacity(PAGE);
    File::open(path)?.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

/// Facts about the host.
#[derive(Debug, Clone)]
pub struct Host {
    /// What this process may do itself: it can't give more.
    pub(crate) capabilities: u64,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) security: SecurityModules,
}

/// The security modules that give processes labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SecurityModules {
    pub apparmor: bool,
    pub selinux: bool,
}

impl SecurityModules {
    /// Looks at what the kernel says of them.
    pub(crate) fn probe() -> Self {
        /// `SELINUX_MAGIC` of statfs(2).
        const SELINUX_MAGIC: i64 = 0xf97c_ff8c;
        let apparmor = std::fs::read("/sys/module/apparmor/parameters/enabled");
        let selinux = rustix::fs::statfs("/sys/fs/selinux");
        Self {
            apparmor: apparmor.is_ok_and(|text| text.starts_with(b"Y")),
            selinux: selinux.is_ok_and(|s| s.f_type == SELINUX_MAGIC),
        }
    }
}

fn check_proc() -> io::Result<()> {
    let myself = std::fs::read_link("/proc/self")?;
    if myself.as_os_str() == std::process::id().to_string().as_str() {
        return Ok(());
    }
    Err(io::Error::other("it is of another PID namespace, where other processes have these numbers"))
}

impl Host {
    /// Looks at the host.
    ///
    /// # Errors
    /// [`Error::Io`] when /proc can't be read, or is that of another PID namespace: what it says of a pid is another process's.
    pub fn probe(id: &crate::ContainerId) -> Result<Self> {
        check_proc().map_err(|source| Error::Io {
            id: id.clone(),
            what: "cannot rely on /proc".into(),
            source,
        })?;
        let hierarchies = Hierarchies::probe().map_err(|source| Error::Io {
            id: id.clone(),
            what: "cannot read /proc/self/mountinfo".into(),
            source,
        })?;
        let own = rustix::thread::capabilities(None).map_err(|e| Error::Io {
            id: id.clone(),
            what: "capget".into(),
            source: e.into(),
        })?;
        Ok(Self { hierarchies, capabilities: own.permitted.bits(), security: SecurityModules::probe() })
    }

    pub(crate) fn cgroup_layout(&self) -> Layout {
        self.hierarchies.layout()
    }
}
