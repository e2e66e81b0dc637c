//! From a command to an OCI specification. No input or output happens here: what must be looked up comes in through
//! [`Facts`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lxcrun::oci_spec::runtime::{LinuxCapabilities, Process, Spec};
use serde_json::{Value, json};

use crate::capabilities::{self, Capabilities};
use crate::error::{Result, refuse};
use crate::process::{overlaid, variable};
use crate::{Command, Device, IdMapping, Namespace, Network, ProcessConfig, User, UserNamespace};

/// The PATH of a program that was given none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Files of /proc and /sys that tell about the host, and are hidden.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Those of /proc that change the host, and are read-only.
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// How many mounts every container has before those of its command.
pub(crate) const BUILT_IN_MOUNTS: usize = 6;

/// What a command needs looked up.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Who `process_config.user` is.
    pub user: User,
    /// The paths of the namespaces that are joined, by the field that names them: `network`, `ipc`, `userns` and so on.
    pub namespaces: BTreeMap<&'static str, PathBuf>,
    /// Every capability that this driver can give.
    pub capabilities: std::collections::BTreeSet<String>,
    /// Whether AppArmor is on.
    pub apparmor: bool,
    /// AppArmor profile of commands that name none.
    pub default_apparmor_profile: Option<String>,
    /// Whether the kernel counts swap.
    pub swap_is_counted: bool,
}

impl Command {
    /// The command as an OCI specification for [`lxcrun::create`].
    ///
    /// ```
    /// use execdriver::{Command, Facts};
    ///
    /// let command = Command::builder("web", "/srv/web").args(["true"]).hostname("www").build()?;
    /// let spec = command.compile(&Facts::default())?;
    /// assert_eq!(spec.hostname().as_deref(), Some("www"));
    /// # Ok::<(), execdriver::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field) with the first field that is wrong.
    pub fn compile(&self, facts: &Facts) -> Result<Spec> {
        self.check()?;
        let privileged = self.process_config.privileged;
        let mut spec = json!({
            "ociVersion": lxcrun::OCI_VERSION,
            "root": { "path": self.rootfs, "readonly": self.readonly_rootfs },
            "process": self.first_process(facts)?,
            "mounts": self.oci_mounts(),
            "linux": {
                "namespaces": self.oci_namespaces(facts)?,
                "resources": self.oci_resources(facts),
                "devices": self.autocreated_devices.iter().map(node).collect::<Vec<_>>(),
                "maskedPaths": if privileged { &[][..] } else { &MASKED[..] },
                "readonlyPaths": if privileged { &[][..] } else { &READONLY[..] },
            },
        });
        set(&mut spec, "hostname", self.wanted_hostname());
        let linux = &mut spec["linux"];
        set(linux, "mountLabel", self.mount_label.as_ref().filter(|l| !l.is_empty()));
        set(linux, "cgroupsPath", self.cgroup_parent.as_ref().map(|parent| parent.join(self.id.as_str())));
        set(linux, "seccomp", self.seccomp.as_ref());
        if let UserNamespace::Own { uid_mappings, gid_mappings } = &self.userns {
            check_mapped(&facts.user, uid_mappings, gid_mappings)
                .map_err(|reason| refuse(&self.id, "process_config.user", reason))?;
            linux["uidMappings"] = oci_mappings(uid_mappings);
            linux["gidMappings"] = oci_mappings(gid_mappings);
        }
        serde_json::from_value(spec).map_err(|e| refuse(&self.id, "command", e.to_string()))
    }

    fn first_process(&self, facts: &Facts) -> Result<Value> {
        let wanted = &self.process_config;
        let mut env = wanted.env.clone();
        if variable(&env, "PATH").is_none() {
            env.push(DEFAULT_PATH.into());
        }
        let available = &facts.capabilities;
        let set_of = match &wanted.capabilities {
            Some(names) => capabilities::exactly(names, available),
            None => capabilities::adjusted(&self.cap_add, &self.cap_drop, wanted.privileged, available),
        };
        let set_of = set_of.map_err(|e| refuse(&self.id, "process_config.capabilities", e.to_string()))?;
        let cwd = match (&wanted.working_dir, self.working_dir.as_os_str().is_empty()) {
            (Some(directory), _) => directory,
            (None, false) => &self.working_dir,
            (None, true) => Path::new("/"),
        };
        let mut process = process(wanted, env, cwd, &facts.user, &set_of);
        process["rlimits"] = self.resources.rlimits.iter().map(crate::Rlimit::oci).collect();
        set(&mut process, "apparmorProfile", self.profile(facts)?);
        set(&mut process, "selinuxLabel", self.process_label.as_ref().filter(|l| !l.is_empty()));
        Ok(process)
    }

    /// The AppArmor profile. One that was asked for by name is never left out silently, also where all is privileged.
    fn profile<'a>(&'a self, facts: &'a Facts) -> Result<Option<&'a str>> {
        match self.apparmor_profile.as_deref().filter(|p| !p.is_empty()) {
            Some("unconfined") => Ok(None),
            Some(_) if !facts.apparmor => {
                Err(refuse(&self.id, "apparmor_profile", "AppArmor is off on this host"))
            }
            Some(profile) => Ok(Some(profile)),
            None if self.process_config.privileged => Ok(None),
            None => Ok(facts.default_apparmor_profile.as_deref().filter(|_| facts.apparmor)),
        }
    }

    fn oci_mounts(&self) -> Vec<Value> {
        let sys = if self.process_config.privileged { "rw" } else { "ro" };
        let filesystem = |destination: &str, fstype: &str, options: &[&str]| json!({ "destination": destination, "type": fstype, "source": fstype, "options": options });
        let safe = ["nosuid", "noexec", "nodev"];
        let shm = match self.ipc {
            Namespace::Host => json!({ "destination": "/dev/shm", "type": "bind", "source": "/dev/shm",
                "options": ["rbind", "rw"] }),
            _ => filesystem("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        };
        let built_in: [Value; BUILT_IN_MOUNTS] = [
            filesystem("/proc", "proc", &safe),
            filesystem("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            filesystem(
                "/dev/pts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            shm,
            filesystem("/dev/mqueue", "mqueue", &safe),
            self.sys(filesystem("/sys", "sysfs", &["nosuid", "noexec", "nodev", sys]), sys),
        ];
        let wanted = self.mounts.iter().map(|mount| {
            json!({
                "destination": mount.destination,
                "type": mount.fstype.as_deref().unwrap_or("bind"),
                "source": mount.source,
                "options": mount.oci_options(),
            })
        });
        built_in.into_iter().chain(wanted).collect()
    }

    /// A sysfs shows a network namespace, and only its owner may mount it: with a user namespace of its own and
    /// somebody else's network a container gets the host's.
    fn sys(&self, own: Value, access: &str) -> Value {
        let foreign_network = !matches!(self.network, Network::None | Network::Interfaces(_));
        if matches!(self.userns, UserNamespace::Host) || !foreign_network {
            return own;
        }
        let recursive = if access == "ro" { "rro" } else { "rw" };
        let options = ["rbind", "nosuid", "noexec", "nodev", access, recursive];
        json!({ "destination": "/sys", "type": "bind", "source": "/sys", "options": options })
    }

    fn oci_namespaces(&self, facts: &Facts) -> Result<Vec<Value>> {
        let mut all = vec![json!({ "type": "mount" })];
        let mut add = |field: &'static str, kind: &str, own: bool, joined: bool| -> Result<()> {
            if joined {
                let missing = || refuse(&self.id, field, "the namespace to join was not looked up");
                let path = facts.namespaces.get(field).ok_or_else(missing)?;
                all.push(json!({ "type": kind, "path": path }));
            } else if own {
                all.push(json!({ "type": kind }));
            }
            Ok(())
        };
        let own_network = matches!(self.network, Network::None | Network::Interfaces(_));
        add("network", "network", own_network, self.network.joined().is_some())?;
        for (field, namespace) in self.namespaces() {
            let kind = match field {
                "cgroupns" => "cgroup",
                "timens" => "time",
                other => other,
            };
            add(field, kind, *namespace == Namespace::Own, namespace.joined().is_some())?;
        }
        let own_users = matches!(self.userns, UserNamespace::Own { .. });
        add("userns", "user", own_users, self.userns.joined().is_some())?;
        Ok(all)
    }

    fn oci_resources(&self, facts: &Facts) -> Value {
        let wanted = &self.resources;
        let (reservation, swap) = wanted.derived_memory(facts.swap_is_counted);
        let memory = present(json!({
            "limit": wanted.memory,
            "reservation": reservation,
            "swap": swap,
            "swappiness": wanted.memory_swappiness,
            "disableOOMKiller": wanted.oom_kill_disable.then_some(true),
        }));
        let cpu = present(json!({
            "shares": wanted.cpu_shares,
            "period": wanted.cpu_period,
            "quota": wanted.cpu_quota,
            "cpus": wanted.cpuset_cpus,
            "mems": wanted.cpuset_mems,
        }));
        let pages = |l: &crate::HugepageLimit| json!({ "pageSize": l.page_size, "limit": l.limit });
        present(json!({
            "devices": self.device_rules(),
            "memory": memory,
            "cpu": cpu,
            "blockIO": present(json!({ "weight": wanted.blkio_weight })),
            "pids": present(json!({ "limit": wanted.pids_limit })),
            "hugepageLimits": wanted.hugepage_limits.iter().map(pages).collect::<Vec<_>>(),
        }))
    }

    /// Nothing but what is listed; everything for a privileged container. What every container may use is added by
    /// the library.
    fn device_rules(&self) -> Vec<Value> {
        if self.process_config.privileged {
            return vec![json!({ "allow": true, "access": "rwm" })];
        }
        let rule = |device: &Device| {
            let mut rule = json!({ "allow": true, "type": device.kind, "access": device.permissions });
            set(&mut rule, "major", device.major);
            set(&mut rule, "minor", device.minor);
            rule
        };
        let allowed = self.allowed_devices.iter().chain(&self.autocreated_devices).map(rule);
        std::iter::once(json!({ "allow": false, "access": "rwm" })).chain(allowed).collect()
    }
}

/// Fails when a user, or one of their groups, is nobody in a user namespace with these ids.
fn check_mapped(user: &User, uids: &[IdMapping], gids: &[IdMapping]) -> std::result::Result<(), String> {
    let has = |all: &[IdMapping], id: u32| {
        all.iter().any(|m| id.checked_sub(m.container_id).is_some_and(|offset| offset < m.size))
    };
    if !has(uids, user.uid) {
        return Err(format!("user {} is not in the container's user namespace", user.uid));
    }
    let mut groups = std::iter::once(&user.gid).chain(&user.additional_gids);
    match groups.find(|group| !has(gids, **group)) {
        Some(group) => Err(format!("group {group} is not in the container's user namespace")),
        None => Ok(()),
    }
}

fn oci_mappings(all: &[IdMapping]) -> Value {
    let one = |m: &IdMapping| json!({ "containerID": m.container_id, "hostID": m.host_id, "size": m.size });
    all.iter().map(one).collect()
}

impl ProcessConfig {
    /// One more process for a container whose first one is `first`, as the specification has it.
    pub(crate) fn compile(&self, first: &Process, user: &User, facts: &Facts) -> Result<Process, String> {
        let kept = first.capabilities().clone().map(|c| names(&c)).unwrap_or_default();
        let set_of = match (&self.capabilities, self.privileged) {
            (Some(wanted), _) => {
                capabilities::exactly(wanted, &facts.capabilities).map_err(|e| e.to_string())?
            }
            (None, true) => facts.capabilities.clone(),
            (None, false) => kept,
        };
        // HOME is that of the user, unless it was asked for.
        let first_env: Vec<String> =
            first.env().iter().flatten().filter(|v| !v.starts_with("HOME=")).cloned().collect();
        let env = overlaid(&first_env, &self.env);
        let cwd = self.working_dir.as_deref().unwrap_or(first.cwd());
        let mut json = process(self, env, cwd, user, &set_of);
        json["noNewPrivileges"] =
            (self.no_new_privileges || first.no_new_privileges().unwrap_or(false)).into();
        if !self.privileged {
            set(&mut json, "apparmorProfile", first.apparmor_profile().as_ref());
        }
        set(&mut json, "selinuxLabel", first.selinux_label().as_ref());
        serde_json::from_value(json).map_err(|e| e.to_string())
    }
}

/// The names in the bounding set.
fn names(capabilities: &LinuxCapabilities) -> Capabilities {
    let of = |c: &lxcrun::oci_spec::runtime::Capability| {
        serde_json::to_value(c).ok().and_then(|v| v.as_str().map(str::to_owned))
    };
    capabilities.bounding().iter().flatten().filter_map(of).collect()
}

/// What first and later processes have in common.
fn process(
    wanted: &ProcessConfig,
    mut env: Vec<String>,
    cwd: &Path,
    user: &User,
    caps: &Capabilities,
) -> Value {
    if variable(&env, "HOME").is_none_or(str::is_empty) {
        env.retain(|v| v != "HOME=");
        env.push(format!("HOME={}", user.home));
    }
    let mut process = json!({
        "terminal": wanted.tty,
        "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.additional_gids },
        "args": wanted.args(),
        "env": env,
        "cwd": cwd,
        "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
        "noNewPrivileges": wanted.no_new_privileges,
    });
    if wanted.tty {
        let size = wanted.console_size.map(|(columns, rows)| json!({ "width": columns, "height": rows }));
        set(&mut process, "consoleSize", size);
    }
    process
}

/// A node of the container's /dev.
fn node(device: &Device) -> Value {
    json!({
        "type": device.kind,
        "path": device.path,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode,
        "uid": device.uid,
        "gid": device.gid,
    })
}

/// Sets a member, if there is a value.
fn set(object: &mut Value, name: &str, value: Option<impl serde::Serialize>) {
    if let Some(value) = value {
        object[name] = json!(value);
    }
}

/// An object without the members that have no value; null when none is left.
fn present(mut object: Value) -> Value {
    if let Value::Object(members) = &mut object {
        members.retain(|_, value| !value.is_null());
        if members.is_empty() {
            return Value::Null;
        }
    }
    object
}
