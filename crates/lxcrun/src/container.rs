//! A container that exists: what every later process can find out about it.

use std::cell::LazyCell;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::OnceLock;

use protocol::monitor::Exit;
use rustix::process::Signal;

use crate::cgroup::{Cgroup, Hierarchies, OomWatch, ResourceStats};
use crate::error::{Context, unable};
use crate::monitor::Monitor;
use crate::state::{OciState, State, Status};
use crate::state_dir::{GATE, StateDir};
use crate::{ContainerId, Error, Result, process};

/// A container in a state root.
#[derive(Debug)]
pub struct Container {
    pub(crate) directory: StateDir,
    pub(crate) state: State,
    monitor: Option<Monitor>,
    /// The init, of a container that this process made.
    init: Option<OwnedFd>,
    /// How it has ended, as [`wait`](Self::wait) has heard.
    ended: Option<Exit>,
    terminal: Option<OwnedFd>,
    /// Becomes readable when whoever made it does not want it any more, and it has hooks.
    pub(crate) cancelled: Option<OwnedFd>,
    /// Looked up once: every operation needs it several times.
    cgroup: OnceLock<Cgroup>,
}

impl Container {
    pub(crate) fn new(
        directory: StateDir,
        state: State,
        monitor: Option<Monitor>,
        terminal: Option<OwnedFd>,
    ) -> Self {
        let init = monitor.as_ref().and(state.init).and_then(|init| init.open().ok().flatten());
        Self {
            directory,
            state,
            monitor,
            init,
            ended: None,
            terminal,
            cancelled: None,
            cgroup: OnceLock::new(),
        }
    }

    /// A container whose init, with this pidfd, is a child of this process. It may have ended meanwhile.
    pub(crate) fn restored(
        directory: StateDir,
        state: State,
        init: OwnedFd,
        terminal: Option<OwnedFd>,
    ) -> Self {
        Self { init: Some(init), ..Self::new(directory, state, None, terminal) }
    }

    /// Finds a container.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unfinished`], or [`Error::State`] when its state file can't be used.
    pub fn load(root: &Path, id: &ContainerId) -> Result<Self> {
        Self::load_from(StateDir::open(root, id)?)?
            .ok_or_else(|| Error::NotFound { id: id.clone(), root: root.into() })
    }

    /// `None` when `create` has not come far enough for it to be one.
    pub(crate) fn load_from(directory: StateDir) -> Result<Option<Self>> {
        Ok(directory.state_of_container()?.map(|state| Self::new(directory, state, None, None)))
    }

    /// Whether somebody is at work on making the container `id`: then [`delete`](crate::delete) with `force` has that fail.
    ///
    /// # Errors
    /// [`Error::State`] when its state file can't be used, [`Error::Io`].
    pub fn is_being_made(root: &Path, id: &ContainerId) -> Result<bool> {
        match StateDir::open(root, id) {
            Err(Error::NotFound { .. }) => Ok(false),
            opened => opened?.is_being_made(),
        }
    }

    /// Every container in `root`, by id, each looked at when it is asked for. What is being made or removed meanwhile is
    /// left out.
    ///
    /// # Errors
    /// When `root` can't be read; one that isn't there has no containers. Those of a container are as of
    /// [`load`](Self::load).
    pub fn list(root: &Path) -> std::io::Result<impl Iterator<Item = Result<Self>>> {
        let mut ids: Vec<ContainerId> = Vec::new();
        let (root, entries) = match std::fs::canonicalize(root) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => (root.to_owned(), None),
            real => {
                let real = real?;
                (real.clone(), Some(std::fs::read_dir(real)?))
            }
        };
        for entry in entries.into_iter().flatten() {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                ids.extend(entry.file_name().to_str().and_then(|name| name.parse().ok()));
            }
        }
        ids.sort();
        // Looked for once, whoever needs them.
        let hierarchies = LazyCell::new(|| Hierarchies::probe().ok());
        Ok(ids.into_iter().filter_map(move |id| {
            let directory = StateDir::open_below(root.clone(), &id).transpose()?;
            let container = directory.and_then(Self::load_from).transpose()?;
            Some(container.inspect(|container| {
                if let Some(hierarchies) = &*hierarchies {
                    container.knows_cgroup(container.state.cgroup(hierarchies.clone()));
                }
            }))
        }))
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &ContainerId {
        &self.state.id
    }

    /// Pid of its init in this PID namespace, as it was at `create`.
    #[must_use]
    pub fn init_pid(&self) -> Option<i32> {
        self.state.init.map(|init| init.pid)
    }

    /// What it is doing now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status_and_gate().0
    }

    /// The status, and for a created container a connection to the init at its gate. The gate's file is removed by
    /// `start`, but one that was killed can't do that: a socket that nobody listens at tells.
    pub(crate) fn status_and_gate(&self) -> (Status, Option<UnixStream>) {
        let Some(init) = self.state.init else {
            let status = if self.directory.is_locked() { Status::Creating } else { Status::Stopped };
            return (status, None);
        };
        let alive = match &self.init {
            Some(init) => !process::has_ended(init),
            // Who can't be looked at must not be taken for one that has ended.
            None => init.is_alive().unwrap_or(true),
        };
        if !alive {
            return (Status::Stopped, None);
        }
        if self.cgroup().is_ok_and(|cgroup| cgroup.is_frozen()) {
            return (Status::Paused, None);
        }
        let gate = self.directory.has(GATE).then(|| self.directory.short_path(GATE));
        match gate.and_then(|gate| UnixStream::connect(gate).ok()) {
            Some(gate) => (Status::Created, Some(gate)),
            None => (Status::Running, None),
        }
    }

    /// The state as the specification has it.
    #[must_use]
    pub fn oci_state(&self) -> OciState {
        OciState { owner: self.directory.owner(), ..self.state.oci(self.status()) }
    }

    /// What it uses.
    ///
    /// # Errors
    /// [`Error::Io`] when this host's cgroups can't be found.
    pub fn stats(&self) -> Result<ResourceStats> {
        let cgroup = self.cgroup()?;
        cgroup.check_exists("stats")?;
        let mut stats = cgroup.stats();
        stats.network_interfaces = self.network_interfaces();
        Ok(stats)
    }

    /// Watches for OOM kills, from now on.
    ///
    /// # Errors
    /// [`Error::Io`] when the kernel can't, [`Error::Spec`] when this host has no memory cgroup.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        self.cgroup()?.watch_oom()
    }

    /// How many of its processes the OOM killer has killed, by the count of its cgroup; `None` when that is gone, as some time
    /// after the container's end, or on a host without a memory cgroup.
    ///
    /// # Errors
    /// [`Error::Io`] when this host's cgroups can't be found.
    pub fn oom_kills(&self) -> Result<Option<u64>> {
        Ok(self.cgroup()?.oom_kills())
    }

    /// A pidfd of its init, readable when it has ended; `None` when it has ended already.
    ///
    /// # Errors
    /// [`Error::Io`], as at the limit of descriptors.
    pub fn init_pidfd(&self) -> Result<Option<OwnedFd>> {
        let Some(init) = self.state.init else { return Ok(None) };
        init.open().at(self.id(), "cannot open the init")
    }

    /// Every process in it: pids in this PID namespace.
    ///
    /// # Errors
    /// [`Error::Io`] when this host's cgroups can't be found.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let cgroup = self.cgroup()?;
        cgroup.check_exists("processes")?;
        Ok(cgroup.pids().into_iter().map(|pid| pid.as_raw_nonzero().get()).collect())
    }

    /// Freezes every process in it. Returns when all are.
    ///
    /// # Errors
    /// [`Error::Status`] unless it is running or created, [`Error::Io`] when the kernel can't.
    pub fn pause(&self) -> Result<()> {
        let _held = self.directory.hold_freezer()?;
        match self.status() {
            Status::Running | Status::Created => self.cgroup()?.set_frozen(true),
            status => Err(self.cannot("pause", status)),
        }
    }

    /// Thaws every process in it, but for what a frozen cgroup above keeps.
    ///
    /// # Errors
    /// [`Error::Status`] unless it is paused, [`Error::Io`] when the kernel can't.
    pub fn resume(&self) -> Result<()> {
        let _held = self.directory.hold_freezer()?;
        match self.status() {
            Status::Paused => self.cgroup()?.set_frozen(false),
            status => Err(self.cannot("resume", status)),
        }
    }

    /// Changes what it may use. What `resources` does not mention stays as it is, but unlimited memory means unlimited
    /// swap, as in runc: on cgroup v1 memory alone can't be more than memory and swap.
    ///
    /// # Errors
    /// [`Error::Spec`] with the field that the kernel refused; nothing has changed then.
    pub fn update(&self, resources: &oci_spec::runtime::LinuxResources) -> Result<()> {
        self.update_with_schemata(resources, &[])
    }

    /// The same, and changes the schemata of the container's class of service: lines like `L3:0=f`.
    ///
    /// # Errors
    /// Like [`update`](Self::update), and [`Error::Spec`] when it has no class of its own.
    pub fn update_with_schemata(
        &self,
        resources: &oci_spec::runtime::LinuxResources,
        lines: &[&str],
    ) -> Result<()> {
        let status = self.status();
        if matches!(status, Status::Stopped | Status::Creating) {
            return Err(self.cannot("update", status));
        }
        let changed = self.cgroup()?.change(&with_unlimited_swap(resources))?;
        self.update_schemata(lines).inspect_err(|_| changed.undo())
    }

    fn update_schemata(&self, lines: &[&str]) -> Result<()> {
        match &self.state.resctrl {
            _ if lines.is_empty() => Ok(()),
            Some(resctrl) => resctrl.update(self.id(), lines),
            None => {
                Err(crate::error::refuse(self.id(), "linux.intelRdt", "the container was made without it"))
            }
        }
    }

    /// Waits for the container's end. Only for one that this process restored, or created with
    /// [`keep_monitor`](crate::CreateOptions::keep_monitor).
    ///
    /// # Errors
    /// [`Error::Unable`] for any other container.
    pub fn wait(&mut self) -> Result<Exit> {
        // The kernel and the monitor tell it once.
        if let Some(exit) = self.ended {
            return Ok(exit);
        }
        let exit = match (&self.monitor, &self.init) {
            (Some(monitor), _) => match monitor.wait()? {
                Some(exit) => exit,
                None => self.end_without_monitor()?,
            },
            (None, Some(child)) => process::wait_for_child(&self.state.id, child)?,
            (None, None) => {
                return Err(unable(self.id(), "wait", "it is no child of this process"));
            }
        };
        self.ended = Some(exit);
        Ok(exit)
    }

    /// The kernel kills the container of a monitor that was killed (`lxc.monitor.signal.pdeath`), but for a program that got
    /// other rights by being executed: `PR_SET_PDEATHSIG` of prctl(2).
    fn end_without_monitor(&self) -> Result<Exit> {
        if self.status() != Status::Stopped {
            let _ = self.kill(Signal::KILL);
        }
        if let Some(init) = &self.init {
            crate::cgroup::wait_for_end(init).at(self.id(), "cannot wait for the init")?;
        }
        Ok(Exit::Signal(9))
    }

    /// The shell's number for how it ended, when LXC's monitor has outlived the process that created it: everybody else
    /// heard it from [`wait`](Self::wait), or as the init's parent.
    #[must_use]
    pub fn exit_code_left_behind(&self) -> Option<u8> {
        let file = self.directory.path().join(protocol::monitor::EXIT_FILE);
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// A pidfd that becomes readable when the container has ended and [`wait`](Self::wait) will not block for long.
    /// Only for one that this process restored, or created with
    /// [`keep_monitor`](crate::CreateOptions::keep_monitor).
    #[must_use]
    pub fn end(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.monitor.as_ref().map(Monitor::pidfd).or_else(|| self.init.as_ref().map(AsFd::as_fd))
    }

    /// The master of the program's terminal, for a container that was created without a console socket.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Spares it looking for the hierarchies.
    pub(crate) fn knows_cgroup(&self, cgroup: Cgroup) {
        self.cgroup.get_or_init(|| cgroup);
    }

    pub(crate) fn cgroup(&self) -> Result<&Cgroup> {
        if let Some(cgroup) = self.cgroup.get() {
            return Ok(cgroup);
        }
        let hierarchies = Hierarchies::probe().at(self.id(), "cannot read /proc/self/mountinfo")?;
        Ok(self.cgroup.get_or_init(|| self.state.cgroup(hierarchies)))
    }

    pub(crate) fn cannot(&self, verb: &'static str, status: Status) -> Error {
        Error::Status { id: self.id().clone(), verb, status }
    }

    /// Counters of the interfaces in the init's network namespace.
    fn network_interfaces(&self) -> Vec<crate::cgroup::NetworkInterface> {
        let Some(init) = self.state.init else { return Vec::new() };
        let text = crate::host::read(format!("/proc/{}/net/dev", init.pid)).unwrap_or_default();
        // Its number may be another process's: what was read is the init's if it lives afterwards.
        if !init.is_alive().unwrap_or(false) {
            return Vec::new();
        }
        text.lines().skip(2).filter_map(crate::cgroup::NetworkInterface::parse).collect()
    }
}

fn with_unlimited_swap(resources: &oci_spec::runtime::LinuxResources) -> oci_spec::runtime::LinuxResources {
    let mut resources = resources.clone();
    if let Some(mut memory) = *resources.memory()
        && memory.limit() == Some(-1)
        && memory.swap().is_none()
    {
        memory.set_swap(Some(-1));
        resources.set_memory(Some(memory));
    }
    resources
}
