//! Raw LXC settings: what only LXC gives, from a program that embeds us, from `--lxc-conf`, or from annotations.
//!
//! They are applied after everything that is generated. Names of LXC 1.x are understood. A key that the container's
//! life or its isolation depends on is refused, because it would be undone or would undo something; annotations come
//! from users who may not be root, so most keys are refused there unless the system's configuration allows them.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};
use protocol::monitor::Item;
use serde::Deserialize;

use super::profile::{GENERATED, WantedProfile};
use crate::cgroup::Layout;
use crate::error::refuse;
use crate::{ContainerId, Result};

/// The prefix of annotations that are LXC settings.
pub const ANNOTATION_PREFIX: &str = "org.linuxcontainers.lxc.";
/// Where an administrator allows more settings in annotations.
pub const SYSTEM_CONFIG: &str = "/etc/lxcrun/lxcrun.toml";

/// Keys that can't be had at all, with what to use instead.
const REFUSED: [(&str, &str); 22] = [
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
];

/// Keys that an annotation may set unless the administrator says otherwise: they stay within the container.
const ANNOTATIONS: [&str; 8] = [
    "lxc.prlimit.",
    "lxc.uts.name",
    "lxc.time.offset.",
    "lxc.sched.core",
    "lxc.signal.",
    "lxc.start.",
    "lxc.group",
    DELEGATION,
];

/// Not a key of LXC's, but what its `lxc.cgroup.dir.container.inner` is for: whether the container may make cgroups.
const DELEGATION: &str = "lxc.cgroup-delegate";

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

/// Settings, translated and checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct RawSettings {
    /// For liblxc.
    pub items: Vec<Item>,
    /// `lxc.mount.entry`: LXC would mount it where the init mounts over it, so it becomes a mount like any other.
    pub mounts: Vec<Mount>,
    /// `lxc.apparmor.profile`: the program's, like `process.apparmorProfile`, and the last word.
    pub apparmor_profile: Option<String>,
    /// What `lxc.apparmor.profile=generated` and the settings beside it ask for.
    pub wanted_profile: WantedProfile,
    /// The field that asks for a cgroup of the container's own to change.
    pub delegation: Option<String>,
}

/// The part of the system's configuration that is about annotations.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SystemConfig {
    annotations: Annotations,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Annotations {
    /// Keys; a `*` at the end stands for anything.
    allow: Vec<String>,
}

impl RawSettings {
    /// The settings of `spec`'s annotations, then those of `trusted`.
    pub(crate) fn new(id: &ContainerId, spec: &Spec, trusted: &[(String, String)]) -> Result<Self> {
        let mut settings = Self::default();
        let mut annotations: Vec<(&str, &String)> = spec
            .annotations()
            .iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.strip_prefix(ANNOTATION_PREFIX)?, value)))
            .collect();
        annotations.sort();
        if !annotations.is_empty() {
            let allowed = allowed_by_administrator(id)?;
            for (key, value) in annotations {
                let field = format!("annotations[{ANNOTATION_PREFIX}{key}]");
                let key = full_name(key);
                if !ANNOTATIONS.iter().any(|k| matches(k, &key)) && !allowed.iter().any(|k| allows(k, &key)) {
                    let reason = format!(
                        "{key} is not allowed in an annotation (annotations.allow in {SYSTEM_CONFIG})"
                    );
                    return Err(refuse(id, field, reason));
                }
                settings.add(id, &field, &key, value)?;
            }
        }
        for (key, value) in trusted {
            settings.add(id, "lxc_config", &full_name(key), value)?;
        }
        settings.wanted_profile.check(id)?;
        Ok(settings)
    }

    fn add(&mut self, id: &ContainerId, field: &str, key: &str, value: &str) -> Result<()> {
        let key = self.translate(id, key);
        if let Some((_, instead)) = REFUSED.iter().find(|(k, _)| matches(k, &key)) {
            return Err(refuse(id, field, format!("{key} can't be set: {instead}")));
        }
        if value.contains('\n') || value.contains('\0') {
            return Err(refuse(id, field, format!("the value of {key} has more than one line")));
        }
        if key == DELEGATION {
            self.delegation = match value {
                "true" | "1" => Some(field.into()),
                "false" | "0" => None,
                _ => return Err(refuse(id, field, format!("{key}: {value:?} is not true or false"))),
            };
        } else if key == "lxc.mount.entry" {
            let mount =
                parse_mount_entry(value).map_err(|reason| refuse(id, field, format!("{key}: {reason}")))?;
            self.mounts.push(mount);
        } else if key == "lxc.apparmor.profile" {
            self.apparmor_profile = Some(value.into()).filter(|name: &String| !name.is_empty());
            self.wanted_profile.generate(field, value == GENERATED);
        } else if let Some(setting) = key.strip_prefix("lxc.apparmor.") {
            let set = self.wanted_profile.set(field, setting, value);
            set.map_err(|reason| refuse(id, field, format!("{key}: {reason}")))?;
        } else {
            self.items.push(Item { key, value: value.into(), field: field.into() });
        }
        Ok(())
    }

    /// Today's name of a key. Networks of LXC 1.x have no number: each `type` begins the next one.
    fn translate(&self, id: &ContainerId, key: &str) -> String {
        let mut new = key.to_owned();
        for (old, now) in RENAMED {
            if key == old {
                new = now.into();
            } else if let Some(rest) =
                key.strip_prefix(old).filter(|r| r.starts_with('.') && old == "lxc.limit")
            {
                new = format!("{now}{rest}");
            }
        }
        if let Some(rest) = new.strip_prefix("lxc.network.") {
            let begun = self
                .items
                .iter()
                .filter(|i| i.key.starts_with("lxc.net.") && i.key.ends_with(".type"))
                .count();
            let index = if rest == "type" { begun } else { begun.saturating_sub(1) };
            new = format!("lxc.net.{index}.{rest}");
        }
        if new != key {
            tracing::warn!("container {id}: {key} is called {new} today");
        }
        new
    }

    /// Whether the container gets its network from LXC and not an empty one.
    pub(crate) fn has_network(&self) -> bool {
        self.items.iter().any(|i| i.key.starts_with("lxc.net."))
    }
}

impl RawSettings {
    /// Whether LXC sets the limit of this name (`RLIMIT_NOFILE`): then it has the last word.
    pub(crate) fn sets_rlimit(&self, name: &str) -> bool {
        let key = format!("lxc.prlimit.{}", name.trim_start_matches("RLIMIT_").to_lowercase());
        self.items.iter().any(|item| item.key == key)
    }

    /// Fails for limits of a cgroup version that this host does not have: liblxc passes them over in silence.
    pub(crate) fn check_cgroup_version(&self, id: &ContainerId, layout: Layout) -> Result<()> {
        let (wrong, instead) = match layout {
            Layout::Unified => {
                ("lxc.cgroup.", "this host has cgroup v2 alone: lxc.cgroup2.* are its settings")
            }
            Layout::Legacy => {
                ("lxc.cgroup2.", "this host's controllers are of cgroup v1: it is lxc.cgroup.*")
            }
            Layout::None => ("lxc.cgroup", "this host has no cgroup file system mounted"),
        };
        match self.items.iter().find(|item| item.key.starts_with(wrong)) {
            Some(Item { key, field, .. }) => Err(refuse(id, field, format!("{key} can't be set: {instead}"))),
            None => Ok(()),
        }
    }

    /// Whether liblxc has something to do when the container has ended: network devices to give back, hooks to run.
    pub(crate) fn needs_liblxc_at_the_end(&self) -> bool {
        self.has_network() || self.items.iter().any(|i| i.key.starts_with("lxc.hook."))
    }
}

fn full_name(key: &str) -> String {
    if key.starts_with("lxc.") { key.into() } else { format!("lxc.{key}") }
}

/// Whether `key` is `pattern`, or below it when that ends in a dot.
fn matches(pattern: &str, key: &str) -> bool {
    key == pattern.trim_end_matches('.') || (pattern.ends_with('.') && key.starts_with(pattern)) || {
        // lxc.cgroup.dir stands for lxc.cgroup.dir.container, too.
        key.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('.'))
    }
}

fn allows(pattern: &str, key: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => key.starts_with(prefix),
        None => key == pattern,
    }
}

/// `annotations.allow` of the system's configuration. None is an empty one; a damaged one allows nothing.
fn allowed_by_administrator(id: &ContainerId) -> Result<Vec<String>> {
    let text = match std::fs::read_to_string(SYSTEM_CONFIG) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(|e| refuse(id, SYSTEM_CONFIG, e.to_string()))?,
    };
    let config: SystemConfig =
        toml::from_str(&text).map_err(|e| refuse(id, SYSTEM_CONFIG, e.message().to_owned()))?;
    Ok(config.annotations.allow)
}

/// One line of fstab(5) as LXC takes it: a target below the root, `create=dir` and the like for what we do anyway.
fn parse_mount_entry(entry: &str) -> Result<Mount, String> {
    let fields: Vec<String> = entry.split_whitespace().map(unescape).collect();
    let (Some(source), Some(target), Some(fstype)) = (fields.first(), fields.get(1), fields.get(2)) else {
        return Err("has less than three fields: source, target, type, options".into());
    };
    let mut options: Vec<String> = Vec::new();
    for option in fields.get(3).map(String::as_str).unwrap_or_default().split(',').filter(|o| !o.is_empty()) {
        match option {
            "create=dir" | "create=file" | "relative" => {}
            "optional" if !Path::new(source).exists() => {
                return Err(format!("{source} does not exist, and optional mounts are not supported"));
            }
            "optional" => {}
            other => options.push(other.into()),
        }
    }
    let mut mount = Mount::default();
    mount
        .set_destination(PathBuf::from("/").join(target.trim_start_matches('/')))
        .set_source(Some(source.into()))
        .set_typ(Some(if fstype == "none" { "bind".into() } else { fstype.clone() }))
        .set_options(Some(options));
    Ok(mount)
}

/// `\040` and other octal escapes: fstab(5).
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|d| first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        let octal =
            octal.and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| u8::from_str_radix(d, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<RawSettings> {
        let trusted: Vec<(String, String)> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        RawSettings::new(&"x".parse().unwrap(), &Spec::default(), &trusted)
    }

    fn lines(pairs: &[(&str, &str)]) -> Vec<String> {
        settings(pairs).unwrap().items.into_iter().map(|i| format!("{}={}", i.key, i.value)).collect()
    }

    #[test]
    fn names_of_lxc_1_are_translated() {
        assert_eq!(
            lines(&[("utsname", "a"), ("lxc.haltsignal", "PWR")]),
            ["lxc.uts.name=a", "lxc.signal.halt=PWR"]
        );
        assert_eq!(lines(&[("limit.nofile", "5")]), ["lxc.prlimit.nofile=5"]);
        let networks = [
            ("network.type", "veth"),
            ("network.ipv4", "10.0.0.2/24"),
            ("network.type", "macvlan"),
            ("network.link", "d0"),
        ];
        let expected = [
            "lxc.net.0.type=veth",
            "lxc.net.0.ipv4.address=10.0.0.2/24",
            "lxc.net.1.type=macvlan",
            "lxc.net.1.link=d0",
        ];
        assert_eq!(lines(&networks), expected);
    }

    #[test]
    fn what_the_life_cycle_depends_on_is_refused() {
        for key in [
            "rootfs",
            "lxc.rootfs.path",
            "init_cmd",
            "log.file",
            "lxc.monitor.unshare",
            "cgroup.dir.container",
            "pts",
        ] {
            let error = settings(&[(key, "x")]).unwrap_err().to_string();
            assert!(error.contains("can't be set"), "{key}: {error}");
        }
    }

    #[test]
    fn limits_of_the_other_cgroup_version_are_refused() {
        let check = |key: &str, layout| {
            settings(&[(key, "1")]).unwrap().check_cgroup_version(&"x".parse().unwrap(), layout)
        };
        let error = check("cgroup.pids.max", Layout::Unified).unwrap_err().to_string();
        assert!(error.contains("lxc.cgroup.pids.max can't be set"), "{error}");
        assert!(check("cgroup2.pids.max", Layout::Legacy).is_err());
        assert!(check("cgroup2.pids.max", Layout::None).is_err());
        assert!(check("cgroup2.pids.max", Layout::Unified).is_ok());
        assert!(check("cgroup.pids.max", Layout::Legacy).is_ok());
    }

    #[test]
    fn an_apparmor_profile_is_the_programs_and_not_for_liblxc() {
        let named = settings(&[("lxc.aa_profile", "b")]).unwrap();
        assert_eq!((named.apparmor_profile.as_deref(), named.items.as_slice()), (Some("b"), [].as_slice()));
    }

    #[test]
    fn settings_of_a_generated_profile_need_one() {
        let raw = ("apparmor.raw", "deny /x w,");
        let wanted = settings(&[raw, ("apparmor.profile", "generated")]).unwrap().wanted_profile;
        assert_eq!(
            (wanted.is_generated(), wanted.rules.as_slice()),
            (true, ["deny /x w,".to_owned()].as_slice())
        );
        for wrong in [&[raw][..], &[("apparmor.allow_nesting", "2")], &[("apparmor.other", "1")]] {
            assert!(settings(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_mount_entry_becomes_a_mount() {
        let found =
            settings(&[("mount.entry", "/srv/a\\040b srv/x none bind,ro,create=dir 0 0")]).unwrap().mounts;
        assert_eq!(found[0].destination(), Path::new("/srv/x"));
        assert_eq!(found[0].source().as_deref(), Some(Path::new("/srv/a b")));
        assert_eq!(found[0].options().as_deref(), Some(["bind".to_owned(), "ro".to_owned()].as_slice()));
    }
}
