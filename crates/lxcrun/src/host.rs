//! What the host has, looked up once: the plan for a container is made from it without asking again.

use crate::cgroup::{Hierarchies, Layout};
use crate::{Error, Result};

/// Facts about the host.
#[derive(Debug, Clone)]
pub struct Host {
    pub(crate) hierarchies: Hierarchies,
}

impl Host {
    /// Looks at the host.
    ///
    /// # Errors
    /// [`Error::Spec`] when /proc can't be read.
    pub fn probe(id: &crate::ContainerId) -> Result<Self> {
        let hierarchies = Hierarchies::probe()
            .map_err(|source| Error::Io { id: id.clone(), what: "cannot read /proc/self/mountinfo".into(), source })?;
        Ok(Self { hierarchies })
    }

    pub(crate) fn cgroup_layout(&self) -> Layout {
        self.hierarchies.layout()
    }
}
