//! A command: everything needed to run one container.

use std::path::{Component, Path, PathBuf};

use lxcrun::ContainerId;
use lxcrun::oci_spec::runtime::LinuxSeccomp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::error::{Error, Result, refuse};
use crate::namespace::check_path;
use crate::process::variable;
use crate::{
    CommandBuilder, Device, Mount, Namespace, Network, ProcessConfig, Resources, UserNamespace, capabilities,
    network,
};

/// Everything needed to run one container. As JSON it has these names; only `id`, `rootfs` and
/// `process_config.entrypoint` must be there. A name that is none, here or further in, is an error that says it: a limit
/// that was misspelt must not be no limit.
///
/// ```
/// use execdriver::{Command, Network};
///
/// let command: Command = serde_json::from_str(
///     r#"{
///         "id": "web",
///         "rootfs": "/srv/images/web",
///         "network": "host",
///         "resources": { "memory": 33554432 },
///         "process_config": { "entrypoint": "httpd", "arguments": ["-f"], "user": "www" }
///     }"#,
/// )?;
/// assert_eq!(command.network, Network::Host);
/// command.check()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The container's name.
    pub id: ContainerId,
    /// The directory that becomes its `/`.
    pub rootfs: PathBuf,
    /// Whether that can't be written to.
    #[serde(default)]
    pub readonly_rootfs: bool,
    /// Where its program starts, unless the process says otherwise; `/` when empty.
    #[serde(default)]
    pub working_dir: PathBuf,
    /// Its host name: by default the value of the variable HOSTNAME, or else that of the host.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Its network.
    #[serde(default)]
    pub network: Network,
    /// Its System V and POSIX message queues and shared memory.
    #[serde(default)]
    pub ipc: Namespace,
    /// Its view of processes.
    #[serde(default)]
    pub pid: Namespace,
    /// Its host name.
    #[serde(default)]
    pub uts: Namespace,
    /// Its view of cgroups.
    #[serde(default)]
    pub cgroupns: Namespace,
    /// Its boot clock: the host's by default.
    #[serde(default = "host")]
    pub timens: Namespace,
    /// Its view of users: the host's by default.
    #[serde(default)]
    pub userns: UserNamespace,
    /// What it may use.
    #[serde(default)]
    pub resources: Resources,
    /// What it sees besides its root file system.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Devices that it may use, besides those that every container may.
    #[serde(default)]
    pub allowed_devices: Vec<Device>,
    /// Devices that are made in its /dev, and that it may use.
    #[serde(default)]
    pub autocreated_devices: Vec<Device>,
    /// Capabilities besides [`DEFAULT_CAPABILITIES`](crate::DEFAULT_CAPABILITIES); `all` for every one.
    #[serde(default)]
    pub cap_add: Vec<String>,
    /// Capabilities that it does not get, also a privileged one; `all` for every one that is not added by name.
    #[serde(default)]
    pub cap_drop: Vec<String>,
    /// More groups of its program, by name or number.
    #[serde(default)]
    pub group_add: Vec<String>,
    /// Its program.
    pub process_config: ProcessConfig,
    /// SELinux label of its program.
    #[serde(default)]
    pub process_label: Option<String>,
    /// SELinux label of its files.
    #[serde(default)]
    pub mount_label: Option<String>,
    /// Raw LXC settings, `key=value`, the key with or without `lxc.`: they are applied after everything else. Names of
    /// LXC 1.x are translated. An empty value takes back what was set before, as in LXC; where nothing was it is refused.
    #[serde(default)]
    pub lxc_config: Vec<String>,
    /// AppArmor profile of its program; `unconfined` for none.
    #[serde(default)]
    pub apparmor_profile: Option<String>,
    /// The cgroup that its own is made in.
    #[serde(default)]
    pub cgroup_parent: Option<PathBuf>,
    /// What its program may ask of the kernel, as in the OCI runtime specification.
    #[serde(default, deserialize_with = "seccomp")]
    pub seccomp: Option<LinuxSeccomp>,
}

fn host() -> Namespace {
    Namespace::Host
}

/// The specification has its readers ignore what they don't know; a filter that was misspelt is none.
fn seccomp<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<LinuxSeccomp>, D::Error> {
    let mut unknown = None;
    let note = |path: serde_ignored::Path<'_>| {
        // Options that are there are steps of the path, too.
        unknown.get_or_insert_with(|| path.to_string().replace("?.", ""));
    };
    let filter = serde_ignored::deserialize(deserializer, note)?;
    match unknown {
        Some(path) => Err(D::Error::custom(format_args!("unknown field `seccomp.{path}`"))),
        None => Ok(filter),
    }
}

impl Command {
    /// A command with `rootfs` as its `/`, to be completed.
    ///
    /// ```
    /// use execdriver::Command;
    ///
    /// let command = Command::builder("web", "/srv/images/web").args(["httpd", "-f"]).user("www").build()?;
    /// assert_eq!(command.id.as_str(), "web");
    /// # Ok::<(), execdriver::Error>(())
    /// ```
    pub fn builder(id: impl AsRef<str>, rootfs: impl Into<PathBuf>) -> CommandBuilder {
        CommandBuilder::new(id.as_ref(), rootfs.into())
    }

    /// A command that says nothing but this; it still needs a program.
    #[must_use]
    pub fn new(id: ContainerId, rootfs: PathBuf) -> Self {
        Self {
            id,
            rootfs,
            readonly_rootfs: false,
            working_dir: PathBuf::new(),
            hostname: None,
            network: Network::default(),
            ipc: Namespace::default(),
            pid: Namespace::default(),
            uts: Namespace::default(),
            cgroupns: Namespace::default(),
            timens: Namespace::Host,
            userns: UserNamespace::default(),
            resources: Resources::default(),
            mounts: Vec::new(),
            allowed_devices: Vec::new(),
            autocreated_devices: Vec::new(),
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            group_add: Vec::new(),
            process_config: ProcessConfig::default(),
            process_label: None,
            mount_label: None,
            lxc_config: Vec::new(),
            apparmor_profile: None,
            cgroup_parent: None,
            seccomp: None,
        }
    }

    /// Checks all that can be known without looking at the host.
    ///
    /// # Errors
    /// [`Error::Field`] with the first field that is wrong.
    pub fn check(&self) -> Result<()> {
        self.check_texts()?;
        self.check_process()?;
        self.check_network()?;
        self.check_namespaces()?;
        self.check_resources()?;
        self.check_hostname()?;
        self.check_capabilities()?;
        self.check_mounts()?;
        self.check_devices()?;
        self.lxc_keys().map(drop)
    }

    fn wrong(&self, field: impl Into<String>, reason: impl Into<String>) -> Error {
        refuse(&self.id, field, reason)
    }

    fn check_texts(&self) -> Result<()> {
        if self.id.as_str().contains("..") {
            return Err(self.wrong("id", "has two dots in a row, which LXC takes for a way up"));
        }
        match nul_in(self) {
            Some(field) => Err(self.wrong(field, "has a NUL character")),
            None => Ok(()),
        }
    }

    fn check_process(&self) -> Result<()> {
        if !self.rootfs.is_absolute() {
            return Err(self.wrong("rootfs", format!("{:?} is not absolute", self.rootfs)));
        }
        self.process_config.check().map_err(|(field, reason)| self.wrong(field, reason))?;
        if !self.working_dir.as_os_str().is_empty() && !self.working_dir.is_absolute() {
            return Err(self.wrong("working_dir", format!("{:?} is not absolute", self.working_dir)));
        }
        Ok(())
    }

    fn check_network(&self) -> Result<()> {
        match &self.network {
            Network::Path(path) if path.as_os_str().is_empty() => {
                Err(self.wrong("network", "the path of the network namespace is empty"))
            }
            Network::Path(path) => check_path(path).map_err(|reason| self.wrong("network", reason)),
            Network::Interfaces(all) => all.iter().enumerate().try_for_each(|(index, interface)| {
                interface.check().map_err(|(member, reason)| {
                    self.wrong(format!("network.interfaces[{index}].{member}"), reason)
                })
            }),
            _ => Ok(()),
        }
    }

    fn check_namespaces(&self) -> Result<()> {
        for (field, namespace) in self.namespaces() {
            if let Namespace::Path(path) = namespace {
                check_path(path).map_err(|reason| self.wrong(field, reason))?;
            }
        }
        self.userns.check().map_err(|reason| self.wrong("userns", reason))
    }

    fn check_resources(&self) -> Result<()> {
        self.resources.check().map_err(|(field, reason)| self.wrong(format!("resources.{field}"), reason))?;
        match &self.cgroup_parent {
            Some(parent) if goes_up(parent) => {
                Err(self.wrong("cgroup_parent", format!("{parent:?} has `..` in it")))
            }
            _ => Ok(()),
        }
    }

    fn check_hostname(&self) -> Result<()> {
        if let Some(name) = self.wanted_hostname().filter(|name| name.len() > MAX_HOSTNAME) {
            let field = if self.hostname.is_some() { "hostname" } else { "process_config.env" };
            return Err(self.wrong(field, format!("{name:?} is longer than {MAX_HOSTNAME} bytes")));
        }
        if self.hostname.as_ref().is_some_and(|name| !name.is_empty()) && self.uts != Namespace::Own {
            let owner = if self.uts == Namespace::Host { "the host's" } else { "somebody else's" };
            let reason = format!("cannot be set: the container has {owner} uts namespace");
            return Err(self.wrong("hostname", reason));
        }
        Ok(())
    }

    fn check_capabilities(&self) -> Result<()> {
        for (field, names) in [("cap_add", &self.cap_add), ("cap_drop", &self.cap_drop)] {
            if self.process_config.capabilities.is_some() && !names.is_empty() {
                let reason = "has no effect: process_config.capabilities says exactly which ones there are";
                return Err(self.wrong(field, reason));
            }
            capabilities::exactly(names, &capabilities::Capabilities::new())
                .map_err(|e| self.wrong(field, e.to_string()))?;
        }
        Ok(())
    }

    fn check_mounts(&self) -> Result<()> {
        self.mounts.iter().enumerate().try_for_each(|(index, mount)| {
            mount.check().map_err(|(field, reason)| self.wrong(format!("mounts[{index}].{field}"), reason))
        })
    }

    fn check_devices(&self) -> Result<()> {
        for (index, device) in self.allowed_devices.iter().enumerate() {
            device.check().map_err(|reason| self.wrong(format!("allowed_devices[{index}]"), reason))?;
        }
        for (index, device) in self.autocreated_devices.iter().enumerate() {
            let wrong = |reason| self.wrong(format!("autocreated_devices[{index}]"), reason);
            device.check_node().map_err(wrong)?;
            let is_same = |other: &Device| other.path.components().eq(device.path.components());
            if self.autocreated_devices[..index].iter().any(is_same) {
                return Err(wrong(format!("{}: there is one already", device.path.display())));
            }
        }
        Ok(())
    }

    /// The namespaces that are like each other, by their fields.
    pub(crate) fn namespaces(&self) -> [(&'static str, &Namespace); 5] {
        [
            ("ipc", &self.ipc),
            ("pid", &self.pid),
            ("uts", &self.uts),
            ("cgroupns", &self.cgroupns),
            ("timens", &self.timens),
        ]
    }

    /// The host name that is asked for.
    pub(crate) fn wanted_hostname(&self) -> Option<&str> {
        if self.uts != Namespace::Own {
            return None;
        }
        let from_env = || variable(&self.process_config.env, "HOSTNAME");
        self.hostname.as_deref().or_else(from_env).filter(|name| !name.is_empty())
    }

    /// Keys and values for LXC: those of the network, and then the raw ones.
    ///
    /// # Errors
    /// [`Error::Field`] for one without `=`, and for one that could have no effect.
    pub(crate) fn lxc_keys(&self) -> Result<Vec<(String, String)>> {
        let mut keys = network::keys(&self.network);
        for setting in &self.lxc_config {
            let (key, value) = match setting.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => (key.trim(), value.trim()),
                _ => return Err(self.wrong("lxc_config", format!("{setting:?} is not key=value"))),
            };
            if value.is_empty() && !keys.iter().any(|(earlier, _)| is_part_of(earlier, key)) {
                let reason = format!("{key} has no value, and no earlier one that it would take back");
                return Err(self.wrong("lxc_config", reason));
            }
            keys.push((key.into(), value.into()));
        }
        Ok(keys)
    }
}

/// sethostname(2)
const MAX_HOSTNAME: usize = 64;

fn goes_up(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

/// The field of what is to be compiled that has a NUL character, which no file name and no argument can have.
pub(crate) fn nul_in(whole: &impl Serialize) -> Option<String> {
    fn search(value: &Value, path: &str) -> Option<String> {
        match value {
            Value::String(text) => text.contains('\0').then(|| path.to_owned()),
            Value::Array(all) => all.iter().enumerate().find_map(|(i, v)| search(v, &format!("{path}[{i}]"))),
            Value::Object(all) => all.iter().find_map(|(name, value)| {
                search(value, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") })
            }),
            _ => None,
        }
    }
    // What isn't text is refused when it is compiled.
    search(&serde_json::to_value(whole).ok()?, "")
}

/// Whether a key of LXC's is `whole`, or below it.
fn is_part_of(key: &str, whole: &str) -> bool {
    let bare = |key: &str| key.strip_prefix("lxc.").unwrap_or(key).to_owned();
    bare(key).strip_prefix(bare(whole).as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
