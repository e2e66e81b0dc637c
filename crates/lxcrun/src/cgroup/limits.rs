//! `linux.resources`: each setting becomes writes to files, in an order that the kernel accepts.

use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;

use super::{Cgroup, Layout, NO_CGROUP, v1, v2, write};
use crate::Result;
use crate::error::refuse;

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// For instance `linux.resources.memory.limit`.
    pub field: &'static str,
    pub controller: &'static str,
    pub file: String,
    pub value: String,
    /// A file that only some kernels have, with a value that is the default anyway.
    pub optional: bool,
}

impl Setting {
    pub(super) fn new(
        field: &'static str,
        controller: &'static str,
        file: impl Into<String>,
        value: impl std::fmt::Display,
    ) -> Self {
        Self { field, controller, file: file.into(), value: format!("{value}"), optional: false }
    }
}

impl Cgroup {
    /// Applies everything that `resources` asks for; `privileged` leaves all devices allowed.
    pub(crate) fn apply(&self, resources: &LinuxResources) -> Result<()> {
        if self.is_none() {
            return self.refuse_limits(resources);
        }
        let settings = match self.layout() {
            Layout::Unified => v2::settings(resources),
            Layout::Legacy => v1::settings(self, resources),
            Layout::None if *resources == LinuxResources::default() => Ok(Vec::new()),
            Layout::None => {
                Err(("linux.resources", "this host has no cgroup file system mounted".to_owned()))
            }
        }
        .map_err(|(field, reason)| refuse(&self.id, field, reason))?;
        settings.iter().try_for_each(|setting| self.set(setting))
    }

    /// Without a cgroup there are no limits. Rules for devices are kept all the same: in a user namespace there are only
    /// those devices that the runtime has bound.
    fn refuse_limits(&self, resources: &LinuxResources) -> Result<()> {
        let mut limits = resources.clone();
        limits.set_devices(None);
        let asked = match v2::settings(&limits) {
            Ok(settings) => settings.first().map(|setting| setting.field),
            Err((field, _)) => Some(field),
        };
        asked.map_or(Ok(()), |field| Err(refuse(&self.id, field, NO_CGROUP)))
    }

    fn set(&self, setting: &Setting) -> Result<()> {
        let Setting { field, controller, file, value, optional } = setting;
        let Some((directory, _)) = self.directory(controller) else {
            return Err(refuse(&self.id, *field, format!("this host has no {controller} cgroup")));
        };
        match write(&directory, file, value) {
            Ok(()) => Ok(()),
            Err(_) if *optional => Ok(()),
            Err(e) => {
                let path: PathBuf = directory.join(file);
                let reason = match e.kind() {
                    std::io::ErrorKind::NotFound => format!("this kernel has no {file} ({})", path.display()),
                    _ => format!("cannot write {value:?} to {}: {e}", path.display()),
                };
                Err(refuse(&self.id, *field, reason))
            }
        }
    }
}
