//! A change of limits that is made as a whole or not at all.

use oci_spec::runtime::LinuxResources;

use super::limits::Setting;
use super::{Cgroup, read};
use crate::Result;

/// What the files said before a change.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    cgroup: &'a Cgroup,
    before: Vec<Setting>,
}

impl Cgroup {
    /// Applies `resources` to a container that has limits already. After a failure it has those again, as with runc.
    pub(crate) fn change(&self, resources: &LinuxResources) -> Result<Change<'_>> {
        let wanted = if self.is_none() { Vec::new() } else { self.settings(resources)? };
        // Memory and swap, quota and burst: what was written last may have to go first.
        let before = wanted.iter().rev().filter_map(|setting| self.before(setting)).collect();
        let change = Change { cgroup: self, before };
        match self.apply(resources) {
            Ok(()) => Ok(change),
            Err(e) => {
                change.undo();
                Err(e)
            }
        }
    }

    /// The setting that undoes this one; none for a file that can't be read, as for rules for devices.
    fn before(&self, setting: &Setting) -> Option<Setting> {
        let (directory, unified) = self.directory(&setting.controller)?;
        let before = read(&directory, &setting.file).ok()?;
        let value = undoing(&setting.file, &setting.value, &before, unified);
        Some(Setting { value, ..setting.clone() })
    }
}

impl Change<'_> {
    /// Writes everything back. What can't be is a warning: the failure that led here is the error.
    pub(crate) fn undo(mut self) {
        let told = self.cgroup.tell_systemd(&mut self.before, None);
        if let Err(e) = told.and_then(|()| self.cgroup.write_all(&self.before)) {
            tracing::warn!("limits from before the change: {e}");
        }
    }
}

/// What to write to `file` to make it say what it said `before` it got `value`.
fn undoing(file: &str, value: &str, before: &str, unified: bool) -> String {
    if let Some(disabled) = before.strip_prefix("oom_kill_disable ") {
        return disabled.lines().next().unwrap_or_default().into();
    }
    let mut lines: Vec<String> = before.lines().map(str::to_owned).collect();
    // A device that had no line has none again when it gets its default.
    for (device, _) in value.lines().filter_map(|line| line.split_once(' ')) {
        if device.contains(':') && !before.lines().any(|line| line.split(' ').next() == Some(device)) {
            let default = match file {
                "io.max" => "rbps=max wbps=max riops=max wiops=max",
                _ if unified => "default",
                _ => "0",
            };
            lines.push(format!("{device} {default}"));
        }
    }
    // The kernel takes an empty line for nothing, and no bytes for no write.
    if lines.is_empty() { " \n".into() } else { lines.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_again_what_it_said_before() {
        assert_eq!(undoing("memory.max", "1", "max", true), "max");
        assert_eq!(undoing("cpuset.cpus", "0", "", true), " \n");
        assert_eq!(undoing("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0", false), "0");
        let file = "blkio.throttle.read_bps_device";
        assert_eq!(undoing(file, "8:0 5\n8:16 6", "8:0 7\n9:0 1", false), "8:0 7\n9:0 1\n8:16 0");
        assert_eq!(undoing("io.weight", "8:0 5", "default 100", true), "default 100\n8:0 default");
        let none = "8:0 rbps=max wbps=max riops=max wiops=max";
        assert_eq!(undoing("io.max", "8:0 rbps=1", "", true), none);
    }
}
