//! Labels of security modules. One that this host can't enforce is refused by name, when the container is made.

use oci_spec::runtime::Linux;
use protocol::init::Process;

use crate::error::refuse;
use crate::host::SecurityModules;
use crate::{ContainerId, Result};

/// The AppArmor profile that every kernel has and that confines nothing.
pub(crate) const UNCONFINED: &str = "unconfined";

/// Fails when the program's labels mean nothing on this host, and takes out the one that every host without AppArmor
/// fulfils: there the kernel has no place to ask it for. Whether a profile is loaded is for the kernel to say: the init
/// asks it before `create` is done.
pub(crate) fn settle(id: &ContainerId, host: SecurityModules, process: &mut Process) -> Result<()> {
    if !host.apparmor {
        process.apparmor_profile.take_if(|profile| profile == UNCONFINED);
    }
    if let Some(profile) = &process.apparmor_profile
        && !host.apparmor
    {
        let reason =
            format!("{profile:?}: config provided but apparmor not supported: AppArmor is off on this host");
        return Err(refuse(id, "process.apparmorProfile", reason));
    }
    if process.selinux_label.is_some() && !host.selinux {
        return Err(no_selinux(id, "process.selinuxLabel"));
    }
    Ok(())
}

/// `linux.mountLabel`
pub(super) fn mount_label(
    id: &ContainerId,
    host: SecurityModules,
    linux: Option<&Linux>,
) -> Result<Option<String>> {
    let label = linux.and_then(|l| l.mount_label().clone()).filter(|l| !l.is_empty());
    if label.is_some() && !host.selinux {
        return Err(no_selinux(id, "linux.mountLabel"));
    }
    Ok(label)
}

fn no_selinux(id: &ContainerId, field: &str) -> crate::Error {
    refuse(id, field, "label is specified in config, but selinux is disabled or not supported")
}

/// How a new file system gets `label`: as its option, by an attribute of its root, or not at all, because the policy
/// labels each of its files. Source: SELinux's fs_use and genfscon statements; runc does the same.
pub(super) enum Labelling {
    Option,
    Attribute,
    None,
}

impl Labelling {
    pub(super) fn of(fstype: &str) -> Self {
        match fstype {
            "proc" | "sysfs" | "cgroup" | "cgroup2" => Self::None,
            "mqueue" => Self::Attribute,
            _ => Self::Option,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Spec;

    fn process(change: impl Fn(&mut serde_json::Value)) -> Process {
        let mut json: serde_json::Value = serde_json::from_str(crate::DEFAULT_SPEC).unwrap();
        change(&mut json);
        let spec: Spec = serde_json::from_value(json).unwrap();
        crate::config::process::process(&"x".parse().unwrap(), &spec, &[]).unwrap().0
    }

    fn message(host: SecurityModules, change: impl Fn(&mut serde_json::Value)) -> String {
        settle(&"x".parse().unwrap(), host, &mut process(change))
            .map_or_else(|e| e.to_string(), |()| String::new())
    }

    const NONE: SecurityModules = SecurityModules { apparmor: false, selinux: false };
    const BOTH: SecurityModules = SecurityModules { apparmor: true, selinux: true };

    #[test]
    fn what_the_host_cannot_enforce_is_refused_by_name() {
        let profile =
            |json: &mut serde_json::Value| json["process"]["apparmorProfile"] = "docker-default".into();
        let refused = message(NONE, profile);
        assert!(
            refused.contains("process.apparmorProfile") && refused.contains("apparmor not supported"),
            "{refused}"
        );
        assert_eq!(message(BOTH, profile), "");
        let label = |json: &mut serde_json::Value| json["process"]["selinuxLabel"] = "a:b:c:s0".into();
        let refused = message(NONE, label);
        assert!(
            refused.contains("process.selinuxLabel") && refused.contains("selinux is disabled"),
            "{refused}"
        );
        assert_eq!(message(BOTH, label), "");
    }

    #[test]
    fn unconfined_is_fulfilled_by_every_host() {
        let left = |host| {
            let mut process = process(|json| json["process"]["apparmorProfile"] = "unconfined".into());
            settle(&"x".parse().unwrap(), host, &mut process).unwrap();
            process.apparmor_profile
        };
        assert_eq!((left(NONE), left(BOTH).as_deref()), (None, Some("unconfined")));
    }
}
