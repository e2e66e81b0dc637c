//! Raw `lxc.cgroup.*` and `lxc.cgroup2.*`. They are ours to set, after the limits of the specification: liblxc sets its own
//! when it starts, before there are any, and knows nothing of our device programs.

use oci_spec::runtime::LinuxDeviceCgroup;
use protocol::monitor::Item;

use super::devices::{self, Rule};
use super::limits::{LastFile, Setting};
use super::{Cgroup, LIMITS, Layout, NO_CGROUP};
use crate::error::refuse;
use crate::{Error, Result, rootless};

/// One raw limit, checked.
#[derive(Debug, Clone)]
pub(crate) struct RawLimit {
    item: Item,
    /// The file's name.
    file: String,
    /// What it says about devices: files of version 1, rules of our program on version 2.
    rules: Option<Vec<Rule>>,
}

impl RawLimit {
    pub(crate) fn new(item: Item) -> std::result::Result<Self, String> {
        let file = item.key.strip_prefix("lxc.cgroup2.").or_else(|| item.key.strip_prefix("lxc.cgroup."));
        let (Some(file), Some((controller, _))) = (file, file.and_then(|file| file.split_once('.'))) else {
            return Err("names no file of a cgroup: CONTROLLER.FILE".into());
        };
        match controller {
            "cgroup" if !LIMITS.contains(&file) => return Err("is no limit".into()),
            "freezer" => return Err("is no limit: lxcrun pause freezes a container".into()),
            _ => {}
        }
        if item.value.is_empty() {
            return Err("has no value".into());
        }
        let rules = match file {
            "devices.allow" => Some(Rule::of_lxc(true, &item.value)?),
            "devices.deny" => Some(Rule::of_lxc(false, &item.value)?),
            _ => None,
        };
        Ok(Self { file: file.to_owned(), item, rules })
    }

    pub(crate) fn item(&self) -> &Item {
        &self.item
    }

    fn controller(&self) -> String {
        self.file.split('.').next().unwrap_or_default().to_owned()
    }
}

impl Cgroup {
    /// Applies raw limits, in their order, to a container whose specification has these rules for devices.
    pub(crate) fn apply_raw(&self, limits: &[RawLimit], rules: &[LinuxDeviceCgroup]) -> Result<()> {
        let refused = |limit: &RawLimit, reason: String| {
            refuse(&self.id, &limit.item.field, format!("{}: {reason}", limit.item.key))
        };
        let Some(first) = limits.first() else { return Ok(()) };
        if self.is_none() {
            return Err(refused(first, NO_CGROUP.into()));
        }
        let unified = self.layout() == Layout::Unified;
        let mut files = LastFile::default();
        for limit in limits.iter().filter(|limit| !unified || limit.rules.is_none()) {
            let mut setting = [Setting::new("", limit.controller(), &limit.file, &limit.item.value)];
            self.tell_systemd(&mut setting, None).map_err(|e| match e {
                Error::Spec { reason, .. } => refused(limit, reason),
                other => other,
            })?;
            let [setting] = setting;
            self.set(&setting, &mut files).map_err(|e| refused(limit, self.why_refused(&setting, &e)))?;
        }
        let of_devices: Vec<&RawLimit> = limits.iter().filter(|limit| limit.rules.is_some()).collect();
        match (of_devices.first(), self.directory("devices")) {
            (Some(first), Some((directory, true))) => {
                if rootless::is_ordinary_user() {
                    return Err(refused(first, "only root may allow and deny devices".into()));
                }
                let last: Vec<Rule> =
                    of_devices.iter().flat_map(|l| l.rules.iter().flatten()).cloned().collect();
                self.tell_systemd(&mut [], Some((rules, &last)))?;
                devices::attach(&directory, rules, &last).map_err(|(_, reason)| refused(first, reason))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(key: &str, value: &str) -> std::result::Result<RawLimit, String> {
        RawLimit::new(Item { key: key.into(), value: value.into(), field: "lxc_config".into() })
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for key in [
            "lxc.cgroup",
            "lxc.cgroup2",
            "lxc.cgroup.tasks",
            "lxc.cgroup.cgroup.procs",
            "lxc.cgroup.freezer.state",
        ] {
            assert!(limit(key, "1").is_err(), "{key}");
        }
        assert!(limit("lxc.cgroup2.memory.max", "").is_err());
        assert!(limit("lxc.cgroup.devices.deny", "c 1").is_err());
        assert_eq!(limit("lxc.cgroup.memory.limit_in_bytes", "64m").unwrap().file, "memory.limit_in_bytes");
    }

    /// A file of a directory that looks like version 2.
    #[test]
    fn a_refused_limit_is_told_by_its_key() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("pids.max"), "max").unwrap();
        let cgroup = Cgroup::at(&"x".parse().unwrap(), directory.path());
        cgroup.apply_raw(&[limit("lxc.cgroup2.pids.max", "7").unwrap()], &[]).unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join("pids.max")).unwrap(), "7ax");
        let refused = cgroup.apply_raw(&[limit("lxc.cgroup2.memory.max", "7").unwrap()], &[]);
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("lxc_config: lxc.cgroup2.memory.max: "), "{message}");
    }
}
