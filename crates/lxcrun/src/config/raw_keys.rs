//! Names of raw LXC settings: those that can't be had, those that anybody may set, and those of LXC 1.x.

use crate::error::refuse;
use crate::{ContainerId, Result};

/// Keys that can't be had at all, because the container's life or its isolation depends on them: they would be undone or would
/// undo something. With what to use instead.
const REFUSED: [(&str, &str); 28] = [
    ("lxc.rootfs.", "the root file system is root.path"),
    ("lxc.init.", "the program is process.args"),
    ("lxc.execute.cmd", "the program is process.args"),
    ("lxc.environment", "the environment is process.env"),
    ("lxc.console.", "the terminal is process.terminal"),
    ("lxc.tty.", "the terminal is process.terminal"),
    ("lxc.pty.", "/dev/pts is a mount of the specification"),
    ("lxc.autodev", "/dev is a mount of the specification"),
    ("lxc.cap.", "capabilities are process.capabilities"),
    ("lxc.seccomp.", "the filter is linux.seccomp"),
    ("lxc.no_new_privs", "it is process.noNewPrivileges"),
    ("lxc.log.", "the log is lxcrun's"),
    ("lxc.monitor.", "the monitor is lxcrun's"),
    ("lxc.cgroup.dir", "the cgroup is linux.cgroupsPath"),
    ("lxc.cgroup.relative", "the cgroup is linux.cgroupsPath"),
    ("lxc.namespace.", "namespaces are linux.namespaces"),
    ("lxc.idmap", "mappings are linux.uidMappings and gidMappings"),
    ("lxc.include", "a file of settings can't be checked"),
    ("lxc.mount.fstab", "mounts are mounts, or lxc.mount.entry"),
    ("lxc.mount.auto", "mounts are mounts, or lxc.mount.entry"),
    ("lxc.apparmor.allow_incomplete", "a kernel that can't enforce the whole profile enforces what it can"),
    ("lxc.selinux.", "the label is process.selinuxLabel"),
    ("lxc.arch", "it is linux.personality"),
    ("lxc.ephemeral", "delete removes the container, and LXC would do it before its end is known"),
    ("lxc.keyring.", "the session keyring is lxcrun's (--no-new-keyring)"),
    ("lxc.hook.autodev", "/dev is a mount of the specification, and LXC makes none that it could run for"),
    ("lxc.hook.clone", "lxc-copy is not for this container"),
    ("lxc.hook.destroy", "lxc-destroy is not for this container; hooks.poststop runs at delete"),
];

/// Keys that an annotation may set unless the administrator says otherwise: they stay within the container.
pub(super) const ANNOTATIONS: [&str; 9] = [
    "lxc.prlimit.",
    "lxc.uts.name",
    "lxc.time.offset.",
    "lxc.sched.core",
    "lxc.signal.",
    "lxc.start.",
    "lxc.group",
    DELEGATION,
    super::lxcfs::KEY,
];

/// Not a key of LXC's, but what its `lxc.cgroup.dir.container.inner` is for: whether the container may make cgroups.
pub(super) const DELEGATION: &str = "lxc.cgroup-delegate";

/// Keys that LXC does not have.
pub(crate) const OWN: [&str; 2] = [DELEGATION, super::lxcfs::KEY];

/// Names of LXC 1.x and 2.0, and what they are called now. Source: lxc-update-config(1).
const RENAMED: [(&str, &str); 24] = [
    ("lxc.rootfs.backend", "lxc.rootfs.backend"),
    ("lxc.utsname", "lxc.uts.name"),
    ("lxc.rootfs", "lxc.rootfs.path"),
    ("lxc.aa_profile", "lxc.apparmor.profile"),
    ("lxc.aa_allow_incomplete", "lxc.apparmor.allow_incomplete"),
    ("lxc.se_context", "lxc.selinux.context"),
    ("lxc.pts", "lxc.pty.max"),
    ("lxc.tty", "lxc.tty.max"),
    ("lxc.devttydir", "lxc.tty.dir"),
    ("lxc.console", "lxc.console.path"),
    ("lxc.seccomp", "lxc.seccomp.profile"),
    ("lxc.id_map", "lxc.idmap"),
    ("lxc.mount", "lxc.mount.fstab"),
    ("lxc.init_cmd", "lxc.init.cmd"),
    ("lxc.init_uid", "lxc.init.uid"),
    ("lxc.init_gid", "lxc.init.gid"),
    ("lxc.haltsignal", "lxc.signal.halt"),
    ("lxc.rebootsignal", "lxc.signal.reboot"),
    ("lxc.stopsignal", "lxc.signal.stop"),
    ("lxc.loglevel", "lxc.log.level"),
    ("lxc.logfile", "lxc.log.file"),
    ("lxc.limit", "lxc.prlimit"),
    ("lxc.network.ipv4", "lxc.network.ipv4.address"),
    ("lxc.network.ipv6", "lxc.network.ipv6.address"),
];

/// What to use instead of a key that can't be had.
pub(super) fn instead_of(key: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(refused, _)| matches(refused, key)).map(|(_, instead)| *instead)
}

/// What a key of LXC 1.x is called now, and any other as it is.
pub(super) fn renamed(key: &str) -> String {
    let mut new = key.to_owned();
    for (old, now) in RENAMED {
        if key == old {
            new = now.into();
        } else if let Some(rest) = key.strip_prefix(old).filter(|r| r.starts_with('.') && old == "lxc.limit")
        {
            new = format!("{now}{rest}");
        }
    }
    new
}

/// A key is written into a file that LXC's tools read line by line, so it has no other characters than LXC's own keys.
pub(super) fn check(id: &ContainerId, field: &str, key: &str) -> Result<()> {
    let is_known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if key.chars().all(is_known) {
        return Ok(());
    }
    Err(refuse(id, field, format!("{key:?} is no name of an LXC setting")))
}

pub(super) fn full_name(key: &str) -> String {
    if key.starts_with("lxc.") { key.into() } else { format!("lxc.{key}") }
}

/// Whether `key` is `pattern`, or below it when that ends in a dot.
pub(super) fn matches(pattern: &str, key: &str) -> bool {
    key == pattern.trim_end_matches('.') || (pattern.ends_with('.') && key.starts_with(pattern)) || {
        // lxc.cgroup.dir stands for lxc.cgroup.dir.container, too.
        key.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('.'))
    }
}
