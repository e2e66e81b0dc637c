//! Names of raw LXC settings: those that can't be had, those that anybody may set, and those of LXC 1.x.

/// Keys that can't be had at all, with what to use instead.
pub(super) const REFUSED: [(&str, &str); 28] = [
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
pub(super) const RENAMED: [(&str, &str); 24] = [
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
