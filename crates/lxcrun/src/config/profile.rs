//! `lxc.apparmor.profile=generated`, and the settings of LXC that say what is in the profile.

use crate::error::refuse;
use crate::{ContainerId, Result};

/// The name that stands for a profile of the container's own.
pub(crate) const GENERATED: &str = "generated";

/// What a generated AppArmor profile is to be like.
#[derive(Debug, Clone, Default)]
pub(crate) struct WantedProfile {
    /// The field that said the last word about it.
    pub field: String,
    /// Whether there is to be one.
    pub generated: bool,
    /// `allow_nesting`: whether there will be containers in the container.
    pub nesting: bool,
    /// `raw`: rules to be added, a line each.
    pub rules: Vec<String>,
}

impl WantedProfile {
    /// Whether there is to be one.
    pub(crate) fn is_generated(&self) -> bool {
        self.generated
    }

    pub(super) fn generate(&mut self, field: &str, generated: bool) {
        self.field = field.into();
        self.generated = generated;
    }

    /// Takes a setting, named without `lxc.apparmor.`. An empty one takes back what was said before, as in LXC.
    pub(super) fn set(&mut self, field: &str, name: &str, value: &str) -> Result<(), String> {
        self.field = field.into();
        match (name, value) {
            ("raw", "") => self.rules.clear(),
            ("raw", rule) => self.rules.push(rule.into()),
            ("allow_nesting", "" | "0") => self.nesting = false,
            ("allow_nesting", "1") => self.nesting = true,
            ("allow_nesting", _) => return Err(format!("{value:?} is not 0 or 1")),
            _ => return Err("is no setting of LXC's".into()),
        }
        Ok(())
    }

    /// Fails when there are settings for a profile that is not generated.
    pub(super) fn check(&self, id: &ContainerId) -> Result<()> {
        if !self.generated && (self.nesting || !self.rules.is_empty()) {
            let reason = "lxc.apparmor.raw and allow_nesting need lxc.apparmor.profile=generated";
            return Err(refuse(id, &self.field, reason));
        }
        Ok(())
    }
}
