//! The driver that runs containers by LXC.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lxcrun::{Container, ContainerId, OomWatch, Signal, Status};
use rustix::fs::{Mode, OFlags, open};

use crate::command::nul_in;
use crate::driver::StartCallback;
use crate::error::{Error, Result, refuse};
use crate::host::HostFacts;
use crate::namespace::Joined;
use crate::user::Accounts;
use crate::{
    Command, Driver, ExitStatus, Facts, Info, Pipes, ProcessConfig, ResourceStats, UserNamespace, network,
    running,
};

/// Where a driver keeps its containers unless told otherwise.
pub const DEFAULT_ROOT: &str = "/run/lxcrun-driver";

/// Runs containers by LXC. One serves a whole daemon.
///
/// It keeps nothing in memory that a later process would need: another driver with the same root sees the same
/// containers.
///
/// ```no_run
/// use execdriver::{Driver, LxcDriver};
///
/// let driver = LxcDriver::builder().root("/run/mydaemon/containers").build()?;
/// println!("{}, {} bytes of memory, AppArmor: {}", driver.name(), driver.machine_memory(), driver.has_apparmor());
/// # Ok::<(), execdriver::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LxcDriver {
    root: PathBuf,
    host: HostFacts,
    default_apparmor_profile: Option<String>,
}

/// An [`LxcDriver`] in the making: [`LxcDriver::builder`].
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct LxcDriverBuilder {
    root: Option<PathBuf>,
    default_apparmor_profile: Option<String>,
}

impl LxcDriverBuilder {
    /// The directory for its containers' state, [`DEFAULT_ROOT`] by default. It is made with mode 0700; the first
    /// command with a user namespace of its own makes that 0711, because LXC has the namespace's root look there.
    ///
    /// One that is there already must be this user's alone. An empty one that others may only look into is made so; any
    /// other that is open to others is refused, because it is somebody's for something else.
    pub fn root(mut self, root: impl Into<PathBuf>) -> Self {
        self.root = Some(root.into());
        self
    }

    /// The AppArmor profile of commands that name none, where AppArmor is on. It must be loaded already.
    pub fn default_apparmor_profile(mut self, profile: impl Into<String>) -> Self {
        self.default_apparmor_profile = Some(profile.into());
        self
    }

    /// Looks at the host and makes the driver.
    ///
    /// # Errors
    /// [`Error::Missing`] when liblxc, namespaces or cgroups are missing, naming which, and [`Error::Root`] when the
    /// directory can't be used.
    pub fn build(self) -> Result<LxcDriver> {
        let host = HostFacts::probe()?;
        let root = self.root.unwrap_or_else(|| DEFAULT_ROOT.into());
        let root = make_root(&root).map_err(|reason| Error::Root { path: root, reason })?;
        Ok(LxcDriver { root, host, default_apparmor_profile: self.default_apparmor_profile })
    }
}

/// A directory of ours alone.
fn make_root(root: &Path) -> Result<PathBuf, String> {
    if !root.is_absolute() {
        return Err("is not absolute".into());
    }
    if root.to_str().is_none_or(|text| text.contains(char::is_control)) {
        return Err("is not UTF-8 without control characters".into());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(|e| e.to_string())?;
    let root = fs::canonicalize(root).map_err(|e| e.to_string())?;
    let metadata = fs::metadata(&root).map_err(|e| e.to_string())?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(format!("belongs to user {}", metadata.uid()));
    }
    let mode = metadata.mode() & 0o7777;
    // One that other users may search, but not see, is so for containers with a user namespace.
    if matches!(mode, 0o700 | SEARCHABLE) {
        return Ok(root);
    }
    let is_empty = || fs::read_dir(&root).map(|mut entries| entries.next().is_none());
    let is_closed = mode & 0o077 == 0;
    if !is_closed && (mode & 0o022 != 0 || !is_empty().map_err(|e| e.to_string())?) {
        return Err(format!(
            "is there already and open to other users (mode {mode:04o}): take another one, or make it 0700 if it is this \
             driver's alone"
        ));
    }
    fs::set_permissions(&root, Permissions::from_mode(0o700)).map_err(|e| e.to_string())?;
    Ok(root)
}

/// LXC wants the root of a user namespace to get to a container's directory, which itself stays ours alone.
const SEARCHABLE: u32 = 0o711;

impl LxcDriver {
    /// A driver with the usual root.
    ///
    /// # Errors
    /// Those of [`LxcDriverBuilder::build`].
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// A driver, to be adjusted.
    pub fn builder() -> LxcDriverBuilder {
        LxcDriverBuilder::default()
    }

    /// The directory of its containers' state.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The machine's memory, in bytes.
    #[must_use]
    pub fn machine_memory(&self) -> u64 {
        self.host.memory
    }

    /// Whether AppArmor is on.
    #[must_use]
    pub fn has_apparmor(&self) -> bool {
        self.host.apparmor
    }

    fn load(&self, id: &ContainerId) -> Result<Container> {
        Ok(Container::load(&self.root, id)?)
    }

    /// A container, unless it has gone already, or was never completed: then it has no process.
    fn find(&self, id: &ContainerId) -> Result<Option<Container>> {
        match self.load(id) {
            Err(error) if error.is_not_found() => Ok(None),
            Err(Error::Lxcrun(lxcrun::Error::Unfinished { .. })) => Ok(None),
            loaded => loaded.map(Some),
        }
    }

    fn info_of(&self, container: &Container) -> Info {
        let state = container.oci_state();
        let exit_code = container.exit_code_left_behind().filter(|_| state.status == Status::Stopped);
        let oom_kills = container.oom_kills().ok().flatten();
        Info {
            exit_code,
            oom_killed: oom_kills.map(|kills| kills > 0),
            id: state.id,
            status: state.status,
            pid: Some(state.pid).filter(|pid| *pid != 0),
            created: humantime::parse_rfc3339(&state.created).unwrap_or(SystemTime::UNIX_EPOCH),
            started: running::started(&self.root, container.id()),
        }
    }

    fn facts(&self) -> Facts {
        Facts {
            capabilities: self.host.capabilities.clone(),
            apparmor: self.host.apparmor,
            default_apparmor_profile: self.default_apparmor_profile.clone(),
            swap_is_counted: self.host.swap_is_counted,
            ..Facts::default()
        }
    }

    /// Opens the namespaces that a command joins. They stay what they are for as long as the descriptors are open,
    /// whatever becomes of the container that they are taken from.
    fn open_joined(&self, command: &Command) -> Result<(BTreeMap<&'static str, PathBuf>, Vec<OwnedFd>)> {
        let mut wanted = vec![("network", command.network.joined()), ("userns", command.userns.joined())];
        wanted.extend(command.namespaces().map(|(field, namespace)| (field, namespace.joined())));
        let (mut paths, mut fds) = (BTreeMap::new(), Vec::new());
        for (field, joined) in wanted {
            match joined {
                None => {}
                Some(Joined::Path(path)) => drop(paths.insert(field, path.clone())),
                Some(Joined::Container(id)) => {
                    let fd = self.open_namespace(command, field, id)?;
                    paths.insert(field, format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()).into());
                    fds.push(fd);
                }
            }
        }
        Ok((paths, fds))
    }

    fn open_namespace(&self, command: &Command, field: &str, other: &ContainerId) -> Result<OwnedFd> {
        let refuse = |reason: String| refuse(&command.id, field, reason);
        let container = self.find(other)?.ok_or_else(|| refuse(format!("there is no container {other}")))?;
        let ended = || refuse(format!("container {other} is not running"));
        let pid = container.init_pid().ok_or_else(ended)?;
        let kind = match field {
            "network" => "net",
            "userns" => "user",
            "cgroupns" => "cgroup",
            "timens" => "time",
            other => other,
        };
        let path = format!("/proc/{pid}/ns/{kind}");
        let opened = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        // Its init is still the one with that number, so this was its namespace.
        if matches!(container.status(), Status::Stopped | Status::Creating) {
            return Err(ended());
        }
        opened.map_err(|e| refuse(format!("{path}: {e}")))
    }
}

impl Driver for LxcDriver {
    fn run(&self, command: &Command, pipes: Pipes<'_>, start: &mut StartCallback<'_>) -> Result<ExitStatus> {
        command.check()?;
        let wanted = &command.process_config.user;
        let accounts = Accounts::read(&command.rootfs)
            .map_err(|e| refuse(&command.id, "rootfs", format!("{}: {e}", command.rootfs.display())))?;
        let user = accounts.find(wanted);
        let mut user = user.map_err(|reason| refuse(&command.id, "process_config.user", reason))?;
        accounts
            .add_groups(&mut user, &command.group_add)
            .map_err(|reason| refuse(&command.id, "group_add", reason))?;
        network::find_links(&command.network)
            .map_err(|(field, reason)| refuse(&command.id, field, reason))?;
        if matches!(command.userns, UserNamespace::Own { .. }) {
            fs::set_permissions(&self.root, Permissions::from_mode(SEARCHABLE))
                .map_err(|e| Error::Root { path: self.root.clone(), reason: e.to_string() })?;
        }
        let (namespaces, joined) = self.open_joined(command)?;
        let spec = command.compile(&Facts { user, namespaces, ..self.facts() })?;
        running::run(&self.root, command, &spec, joined, pipes, start)
    }

    fn exec(
        &self,
        id: &ContainerId,
        process: &ProcessConfig,
        pipes: Pipes<'_>,
        start: &mut StartCallback<'_>,
    ) -> Result<ExitStatus> {
        if let Some(field) = nul_in(process) {
            return Err(refuse(id, format!("process_config.{field}"), "has a NUL character"));
        }
        process.check().map_err(|(field, reason)| refuse(id, field, reason))?;
        let container = self.load(id)?;
        let first = container.default_process()?;
        let user = match (process.user.is_empty(), container.init_pid()) {
            (false, Some(pid)) => {
                // Its own view: what is mounted over /etc/passwd counts.
                let accounts = Accounts::read(Path::new(&format!("/proc/{pid}/root")))
                    .map_err(|e| refuse(id, "process_config.user", e.to_string()))?;
                accounts.find(&process.user).map_err(|reason| refuse(id, "process_config.user", reason))?
            }
            _ => self.first_user(&first),
        };
        let compiled =
            process.compile(&first, &user, &self.facts()).map_err(|e| refuse(id, "process_config", e))?;
        running::exec(&container, &compiled, pipes, start)
    }

    fn kill(&self, id: &ContainerId, signal: Signal) -> Result<()> {
        loop {
            if signal == Signal::KILL && lxcrun::cancel_creation(&self.root, id)? {
                return Ok(());
            }
            match self.find(id)?.map(|container| container.kill(signal)) {
                None | Some(Err(lxcrun::Error::NotRunning { .. })) => {}
                Some(sent) => return Ok(sent?),
            }
            if !Container::is_being_made(&self.root, id)? {
                return Ok(());
            }
            // Its making has begun meanwhile.
            if signal != Signal::KILL {
                let status = Status::Creating;
                return Err(lxcrun::Error::Status { id: id.clone(), verb: "kill", status }.into());
            }
        }
    }

    fn pause(&self, id: &ContainerId) -> Result<()> {
        Ok(self.load(id)?.pause()?)
    }

    fn unpause(&self, id: &ContainerId) -> Result<()> {
        Ok(self.load(id)?.resume()?)
    }

    fn terminate(&self, id: &ContainerId) -> Result<()> {
        // With a PID namespace of its own, everything ends with the init.
        self.kill(id, Signal::KILL)?;
        let Some(container) = self.find(id)? else { return Ok(()) };
        Ok(container.end_all()?)
    }

    fn clean(&self, id: &ContainerId) -> Result<()> {
        Ok(lxcrun::delete(&self.root, id, true)?)
    }

    fn name(&self) -> String {
        format!("lxc-{}", self.host.liblxc)
    }

    fn list(&self) -> Result<Vec<Result<Info>>> {
        let all = Container::list(&self.root)
            .map_err(|e| Error::Root { path: self.root.clone(), reason: e.to_string() })?;
        Ok(all.map(|container| Ok(self.info_of(&container?))).collect())
    }

    fn info(&self, id: &ContainerId) -> Result<Info> {
        Ok(self.info_of(&self.load(id)?))
    }

    fn pids(&self, id: &ContainerId) -> Result<Vec<i32>> {
        Ok(self.load(id)?.pids()?)
    }

    fn watch_oom(&self, id: &ContainerId) -> Result<OomWatch> {
        Ok(self.load(id)?.watch_oom()?)
    }

    fn stats(&self, id: &ContainerId) -> Result<ResourceStats> {
        let container = self.load(id)?.stats()?;
        let limit = container.memory.usage.limit;
        let memory_limit = if limit == 0 { self.host.memory } else { limit.min(self.host.memory) };
        Ok(ResourceStats { read: SystemTime::now(), memory_limit, container })
    }
}

impl LxcDriver {
    /// Who the container's first process is.
    fn first_user(&self, first: &lxcrun::oci_spec::runtime::Process) -> crate::User {
        let user = first.user();
        let home = first.env().iter().flatten().find_map(|v| v.strip_prefix("HOME=")).unwrap_or("/");
        crate::User {
            uid: user.uid(),
            gid: user.gid(),
            additional_gids: user.additional_gids().clone().unwrap_or_default(),
            home: home.into(),
        }
    }
}
