//! What the host has, looked up once: the plan for a container is made from it without asking again.

use crate::cgroup::{Hierarchies, Layout};
use crate::{Error, Result};

/// Facts about the host.
#[derive(Debug, Clone)]
pub struct Host {
    /// What this process may do itself: it can't give more.
    pub(crate) capabilities: u64,
    pub(crate) hierarchies: Hierarchies,
}

impl Host {
    /// Looks at the host.
    ///
    /// # Errors
    /// [`Error::Io`] when /proc can't be read.
    pub fn probe(id: &crate::ContainerId) -> Result<Self> {
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
        Ok(Self { hierarchies, capabilities: own.permitted.bits() })
    }

    pub(crate) fn cgroup_layout(&self) -> Layout {
        self.hierarchies.layout()
    }
}
