//! Commands, field by field.

use std::path::PathBuf;

use lxcrun::oci_spec::runtime::LinuxSeccomp;

use crate::error::Result;
use crate::{Command, Device, Mount, Namespace, Network, ProcessConfig, Resources, UserNamespace};

/// A [`Command`] in the making: [`Command::builder`].
///
/// ```
/// use execdriver::{Command, Mount, Resources};
///
/// let command = Command::builder("web", "/srv/images/web")
///     .args(["httpd", "-f", "-h", "/www"])
///     .env("LANG", "C.UTF-8")
///     .mount(Mount::bind("/srv/www", "/www").read_only())
///     .resources(Resources { memory: Some(64 << 20), ..Resources::default() })
///     .cap_drop(["all"])
///     .cap_add(["net_bind_service"])
///     .lxc_config("lxc.prlimit.nofile", "512")
///     .build()?;
/// assert_eq!(command.process_config.arguments, ["-f", "-h", "/www"]);
/// # Ok::<(), execdriver::Error>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct CommandBuilder(Result<Command>);

impl CommandBuilder {
    pub(crate) fn new(id: &str, rootfs: PathBuf) -> Self {
        Self(id.parse().map(|id| Command::new(id, rootfs)).map_err(Into::into))
    }

    /// The command.
    ///
    /// # Errors
    /// What [`Command::check`] finds, and an id that is none.
    pub fn build(self) -> Result<Command> {
        let command = self.0?;
        command.check()?;
        Ok(command)
    }

    fn with(mut self, change: impl FnOnce(&mut Command)) -> Self {
        if let Ok(command) = &mut self.0 {
            change(command);
        }
        self
    }

    /// Its program and the arguments.
    pub fn args<S: Into<String>>(self, args: impl IntoIterator<Item = S>) -> Self {
        self.with(|c| {
            let new = ProcessConfig::new(args);
            (c.process_config.entrypoint, c.process_config.arguments) = (new.entrypoint, new.arguments);
        })
    }

    /// One variable of its program.
    pub fn env(self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.with(|c| c.process_config.env.push(format!("{}={}", name.as_ref(), value.as_ref())))
    }

    /// Who its program runs as: a name, `uid`, `uid:gid` or `name:group`.
    pub fn user(self, user: impl Into<String>) -> Self {
        self.with(|c| c.process_config.user = user.into())
    }

    /// Where its program starts.
    pub fn working_dir(self, directory: impl Into<PathBuf>) -> Self {
        self.with(|c| c.working_dir = directory.into())
    }

    /// Whether its program gets a terminal.
    pub fn tty(self, tty: bool) -> Self {
        self.with(|c| c.process_config.tty = tty)
    }

    /// Columns and rows of the terminal to begin with.
    pub fn console_size(self, columns: u16, rows: u16) -> Self {
        self.with(|c| c.process_config.console_size = Some((columns, rows)))
    }

    /// Whether it may do everything.
    pub fn privileged(self, privileged: bool) -> Self {
        self.with(|c| c.process_config.privileged = privileged)
    }

    /// The whole process at once, instead of all that was said of it before.
    pub fn process(self, process: ProcessConfig) -> Self {
        self.with(|c| c.process_config = process)
    }

    /// Whether its root file system can't be written to.
    pub fn readonly_rootfs(self, readonly: bool) -> Self {
        self.with(|c| c.readonly_rootfs = readonly)
    }

    /// Its host name.
    pub fn hostname(self, name: impl Into<String>) -> Self {
        self.with(|c| c.hostname = Some(name.into()))
    }

    /// Its network.
    pub fn network(self, network: Network) -> Self {
        self.with(|c| c.network = network)
    }

    /// Its IPC namespace.
    pub fn ipc(self, namespace: Namespace) -> Self {
        self.with(|c| c.ipc = namespace)
    }

    /// Its PID namespace.
    pub fn pid(self, namespace: Namespace) -> Self {
        self.with(|c| c.pid = namespace)
    }

    /// Its UTS namespace.
    pub fn uts(self, namespace: Namespace) -> Self {
        self.with(|c| c.uts = namespace)
    }

    /// Its cgroup namespace.
    pub fn cgroupns(self, namespace: Namespace) -> Self {
        self.with(|c| c.cgroupns = namespace)
    }

    /// Its time namespace.
    pub fn timens(self, namespace: Namespace) -> Self {
        self.with(|c| c.timens = namespace)
    }

    /// Its user namespace.
    pub fn userns(self, namespace: UserNamespace) -> Self {
        self.with(|c| c.userns = namespace)
    }

    /// What it may use.
    pub fn resources(self, resources: Resources) -> Self {
        self.with(|c| c.resources = resources)
    }

    /// One more mount.
    pub fn mount(self, mount: Mount) -> Self {
        self.with(|c| c.mounts.push(mount))
    }

    /// One more device that it may use.
    pub fn allow_device(self, device: Device) -> Self {
        self.with(|c| c.allowed_devices.push(device))
    }

    /// One more device that is made in its /dev.
    pub fn create_device(self, device: Device) -> Self {
        self.with(|c| c.autocreated_devices.push(device))
    }

    /// Capabilities that it gets besides the default ones.
    pub fn cap_add<S: Into<String>>(self, names: impl IntoIterator<Item = S>) -> Self {
        self.with(|c| c.cap_add.extend(names.into_iter().map(Into::into)))
    }

    /// Capabilities that it does not get.
    pub fn cap_drop<S: Into<String>>(self, names: impl IntoIterator<Item = S>) -> Self {
        self.with(|c| c.cap_drop.extend(names.into_iter().map(Into::into)))
    }

    /// More groups of its program.
    pub fn group_add<S: Into<String>>(self, names: impl IntoIterator<Item = S>) -> Self {
        self.with(|c| c.group_add.extend(names.into_iter().map(Into::into)))
    }

    /// SELinux label of its program.
    pub fn process_label(self, label: impl Into<String>) -> Self {
        self.with(|c| c.process_label = Some(label.into()))
    }

    /// SELinux label of its files.
    pub fn mount_label(self, label: impl Into<String>) -> Self {
        self.with(|c| c.mount_label = Some(label.into()))
    }

    /// One more raw LXC setting.
    pub fn lxc_config(self, key: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.with(|c| c.lxc_config.push(format!("{}={}", key.as_ref(), value.as_ref())))
    }

    /// AppArmor profile of its program.
    pub fn apparmor_profile(self, profile: impl Into<String>) -> Self {
        self.with(|c| c.apparmor_profile = Some(profile.into()))
    }

    /// The cgroup that its own is made in.
    pub fn cgroup_parent(self, path: impl Into<PathBuf>) -> Self {
        self.with(|c| c.cgroup_parent = Some(path.into()))
    }

    /// What its program may ask of the kernel.
    pub fn seccomp(self, seccomp: LinuxSeccomp) -> Self {
        self.with(|c| c.seccomp = Some(seccomp))
    }
}
