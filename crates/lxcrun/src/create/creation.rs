//! A container that is being made, step by step.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxMemory, LinuxResources, Spec};
use protocol::init::{FromInit, ToInit};
use protocol::monitor::{Item, StartRequest};
use protocol::{Channel, Hook, Received, Watch};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Pid;

use super::request::FdTable;
use crate::apparmor::Generated;
use crate::cgroup::{Cgroup, CgroupPath, Claim, Layout, RawLimit};
use crate::config::{self, Plan, Surroundings};
use crate::container::Container;
use crate::delete::run_poststop_hooks;
use crate::error::{Context, refuse, unable};
use crate::monitor::Monitor;
use crate::mounts::HostTree;
use crate::netlink::PairsBefore;
use crate::pid_file;
use crate::resctrl::Resctrl;
use crate::state::{ProcessId, State, Status};
use crate::state_dir::{CONFIG, GATE, StateDir};
use crate::{Bundle, ContainerId, Error, Host, Result, listener, mounts, notify, process, rootless};

/// A container that is being made. Dropped before it is finished, it takes everything with it.
pub(super) struct Creation {
    pub(super) id: ContainerId,
    directory: Option<StateDir>,
    pub(super) state: State,
    pub(super) cgroup: Cgroup,
    /// Whether somebody has made it before: then a failure does not remove it.
    cgroup_existed: bool,
    /// Keeps others out of it until the init is in. Without one nothing in it is ours to kill.
    claim: Option<Claim>,
    /// Whether we make them, and liblxc doesn't know.
    own_cgroups: bool,
    /// Whether it is kept from making any.
    pub(super) hidden_cgroups: bool,
    /// Whether systemd has made the unit for it, and not for somebody else.
    unit_started: bool,
    /// Whether liblxc leaves its monitor in the cgroups that it is in.
    monitor_stays_in_cgroups: bool,
    /// Whether the monitor stays as the container's parent when it is made.
    keep_monitor: bool,
    monitor_cgroups: [Cgroup; 2],
    monitor: Option<Monitor>,
    init: Channel,
    /// The init, which becomes a child of this process without its monitor, if this is a subreaper or the first of its PID namespace.
    init_process: Option<OwnedFd>,
    /// Those of the host before liblxc makes the container's.
    pairs_before: Option<PairsBefore>,
    /// Becomes readable when it is not wanted any more.
    pub(super) cancelled: Option<OwnedFd>,
    /// What lxc-attach may do, in LXC's words.
    attach_filter: Option<String>,
    /// The limit of memory that the init has by now.
    memory_limit: Option<i64>,
    /// To be run when the container fails after its environment was made (runtime-spec, runtime.md, "Lifecycle").
    poststop: Vec<Hook>,
}

impl Creation {
    /// Takes the id, and has a monitor load liblxc while we go on.
    pub(super) fn begin(
        root: &Path,
        id: &ContainerId,
        bundle: &Bundle,
        plan: &Plan,
        host: &Host,
        keep_monitor: bool,
    ) -> Result<Self> {
        let hierarchies = host.hierarchies.clone();
        let cgroup = Cgroup::new(id, hierarchies.clone(), &plan.cgroup.container())
            .in_unit(plan.cgroup.unit().cloned())
            .delegated(plan.raw.delegation.is_some());
        let monitor_stays_in_cgroups = Plan::monitor_stays_in_cgroups(host);
        let monitor_cgroups = plan.cgroup.monitor(monitor_stays_in_cgroups);
        let directory = StateDir::create(root, id)?;
        let existing = cgroup.existing()?;
        let (init, init_end) = Channel::pair().at(id, "no channel for the init")?;
        init.learn_senders().at(id, "no channel for the init")?;
        let monitor = Monitor::spawn(id, directory.root(), init_end)?;
        let monitor_process = match monitor.process() {
            Err(e) => return monitor.retire().and(Err(e)),
            process => process?,
        };
        let state = State {
            cgroup: plan.cgroup.container(),
            monitor_cgroups: monitor_cgroups.clone(),
            unit: plan.cgroup.unit().cloned(),
            delegated: plan.raw.delegation.is_some(),
            monitor: Some(monitor_process),
            liblxc_cleans_up: plan.raw.needs_liblxc_at_the_end(),
            apparmor_profile: plan.raw.apparmor_profile.clone(),
            lxc_settings: plan.raw.first().is_some(),
            raw_rlimits: plan.raw.rlimits.clone(),
            ..State::new(id, bundle.path(), &plan.rootfs, bundle.spec())
        };
        let monitor_cgroups = monitor_cgroups.map(|path| Cgroup::new(id, hierarchies.clone(), &path));
        let creation = Self {
            id: id.clone(),
            directory: Some(directory),
            state,
            cgroup,
            cgroup_existed: existing.is_some(),
            claim: None,
            own_cgroups: false,
            hidden_cgroups: false,
            unit_started: false,
            monitor_stays_in_cgroups,
            keep_monitor,
            monitor_cgroups,
            monitor: Some(monitor),
            init,
            init_process: None,
            pairs_before: None,
            cancelled: None,
            attach_filter: None,
            memory_limit: None,
            poststop: plan.poststop_hooks.clone(),
        };
        creation.directory()?.write_spec(bundle.config())?;
        Ok(creation)
    }

    /// Takes the cgroup for this container alone, or that of `fallback` when another one was quicker.
    pub(super) fn claim_cgroup(&mut self, plan: &mut Plan, fallback: Option<CgroupPath>) -> Result<()> {
        let refused = match self.try_claim() {
            Err(refused @ Error::Spec { .. }) => refused,
            claimed => return claimed,
        };
        let Some(path) = fallback.filter(|_| plan.cgroup.unit().is_none()) else { return Err(refused) };
        let path = if plan.cgroup.is_for_liblxc() { path } else { path.without_liblxc() };
        self.state.cgroup = path.container();
        self.state.monitor_cgroups = path.monitor(self.monitor_stays_in_cgroups);
        self.cgroup = self.state.cgroup(self.cgroup.hierarchies().clone());
        self.monitor_cgroups = self.state.monitor_cgroups.each_ref().map(|path| self.cgroup.beside(path));
        self.cgroup_existed = self.cgroup.existing()?.is_some();
        plan.cgroup = path;
        self.try_claim()
    }

    fn try_claim(&mut self) -> Result<()> {
        if self.cgroup.is_none() || self.state.unit.is_some() {
            // systemd makes a unit once.
            return Ok(());
        }
        let Some(claim) = self.cgroup.claim()? else {
            let reason = format!("/{}: another container is being made in it", self.cgroup.path());
            return Err(refuse(&self.id, "linux.cgroupsPath", reason));
        };
        if !claim.made || self.cgroup_existed {
            // Somebody may have come into it before it was ours.
            self.cgroup_existed |= self.cgroup.existing()?.is_some();
        }
        self.claim = Some(claim);
        Ok(())
    }

    /// Settles which cgroups are for us to make, and which for liblxc.
    pub(super) fn divide_cgroups(&mut self, plan: &Plan, host: &Host) {
        self.hidden_cgroups = plan.makes_cgroups(host) && (!self.keep_monitor || self.cgroup_existed);
        self.own_cgroups = self.hidden_cgroups || (plan.cgroup.is_some() && !plan.cgroup.is_for_liblxc());
    }

    pub(super) fn directory(&self) -> Result<&StateDir> {
        self.directory.as_ref().ok_or_else(|| self.gone("state directory"))
    }

    pub(super) fn monitor(&self) -> Result<&Monitor> {
        self.monitor.as_ref().ok_or_else(|| self.gone("monitor"))
    }

    fn gone(&self, what: &str) -> Error {
        unable(&self.id, "create", format!("the {what} is gone"))
    }

    /// Copies a root file system into the container's directory.
    pub(super) fn copy_rootfs(&mut self, from: &Path) -> Result<PathBuf> {
        let to = self.directory()?.path().join("rootfs");
        let copy = || {
            fs::create_dir(&to)?;
            kernel::copy_tree(&fs::File::open(from)?, &fs::File::open(&to)?)
        };
        copy().at(&self.id, format!("cannot copy {} to {}", from.display(), to.display()))?;
        self.state.rootfs.clone_from(&to);
        Ok(to)
    }

    /// Makes the directory for the notify socket and plans its mount.
    pub(super) fn make_notify_directory(&self, plan: &mut Plan) -> Result<HostTree> {
        let directory = self.directory()?.path().join(notify::DIRECTORY);
        fs::create_dir(&directory).at(&self.id, format!("cannot make {}", directory.display()))?;
        let tree = HostTree::open(plan, &directory, false).at(&self.id, directory.display().to_string())?;
        plan.mounts.push(notify::mount(directory));
        plan.process.env.push(notify::VARIABLE.into());
        Ok(tree)
    }

    /// Why it failed: whoever deletes it kills what we talk to. A hook that is ended says so itself.
    pub(super) fn blame_delete(&self, error: Error) -> Error {
        if matches!(error, Error::Hook { .. }) {
            return error;
        }
        let deleted = self.directory.as_ref().and_then(|directory| directory.check_not_condemned().err());
        deleted.unwrap_or(error)
    }

    fn remove_cgroups(&self) {
        let _ = self.cgroup.kill_all();
        let own = (!self.cgroup_existed).then_some(&self.cgroup);
        for problem in own.into_iter().chain(&self.monitor_cgroups).flat_map(Cgroup::remove) {
            tracing::warn!("container {}: {problem}", self.id);
        }
    }

    /// Makes the AppArmor profile that the program and every exec will have, if one is to be made.
    pub(super) fn generate_profile(&mut self, plan: &mut Plan) -> Result<()> {
        let wanted = &plan.raw.wanted_profile;
        if !wanted.is_generated() {
            return Ok(());
        }
        let profile = Generated::new(&self.id, self.directory()?.root(), wanted);
        let label = Some(profile.label());
        plan.process.apparmor_profile.clone_from(&label);
        self.state.apparmor_profile = label;
        self.state.generated_profile = Some(profile.clone());
        self.directory()?.write_state(&self.state)?;
        profile.load(&self.id, self.directory()?, wanted)
    }

    pub(super) fn bind_gate(&self) -> Result<OwnedFd> {
        let path = self.directory()?.short_path(GATE);
        Ok(UnixListener::bind(path).at(&self.id, "cannot make the gate")?.into())
    }

    /// Has the monitor start the container, and returns its configuration.
    pub(super) fn start_liblxc(
        &mut self,
        spec: &Spec,
        host: &Host,
        plan: &Plan,
        user_namespace: Option<&OwnedFd>,
    ) -> Result<Vec<Item>> {
        if plan.raw.has_network() {
            self.pairs_before = Some(PairsBefore::note().at(&self.id, "cannot read the network devices")?);
        }
        let mut enter = if self.own_cgroups {
            None
        } else if plan.cgroup.is_some() && plan.cgroup.unit().is_none() {
            host.hierarchies.roots_to_enter().at(&self.id, "cannot read /proc/PID/cgroup")?
        } else {
            // In a unit the monitor is where it is to make the container's cgroup: systemd has put it there.
            Some(Vec::new())
        };
        // No process may be in the root of a part of version 2 that has limits below, as in a container with engines in it.
        let claim_root =
            host.cgroup_layout() == Layout::Unified && enter.take_if(|roots| !roots.is_empty()).is_some();
        let surroundings = Surroundings {
            directory: self.directory()?.path(),
            keep_monitor: self.keep_monitor,
            in_user_namespace: user_namespace.is_some(),
            monitor_stays_in_cgroups: self.monitor_stays_in_cgroups,
            relative_cgroups: enter.is_some(),
        };
        let config = plan.lxc_config(&self.id, spec, &surroundings)?;
        if !self.own_cgroups {
            self.cgroup.fill_parents()?;
        }
        self.attach_filter = self.keep_monitor.then(|| config::attach_filter(spec)).flatten();
        if self.attach_filter.is_some() {
            // Nobody attaches before the container has its own filter.
            let nothing = config::ATTACH_NOTHING.as_bytes();
            self.directory()?.write_unread(config::ATTACH_FILTER, nothing)?;
        }
        self.write_down(spec)?;
        let directory = self.directory()?;
        let request = StartRequest {
            name: self.id.to_string(),
            root: directory.root().to_owned(),
            config: config.clone(),
            user_namespace: user_namespace.is_some(),
            enter: enter.unwrap_or_default(),
            take_cgroups: self.cgroups_to_take()?,
            claim_root,
            stay_in_cgroups: self.monitor_stays_in_cgroups,
            hide_cgroups: self.hidden_cgroups.then(|| directory.path().to_owned()),
        };
        self.monitor()?.start(request, user_namespace)?;
        Ok(config)
    }

    /// What is about to be made, for who has to remove it if we can't; and the unit, which comes first.
    fn write_down(&mut self, spec: &Spec) -> Result<()> {
        let directory = self.directory()?;
        directory.write_state(&self.state)?;
        // Who condemns it later finds the monitor in the state, and ends it.
        directory.check_not_condemned()?;
        if let Some(unit) = &self.state.unit {
            unit.start(&self.id, spec, self.monitor()?.pid())?;
            self.unit_started = true;
            self.cgroup.fill_unit();
        }
        Ok(())
    }

    /// Those that are there, and that liblxc is to use as if it had made them.
    fn cgroups_to_take(&self) -> Result<Vec<PathBuf>> {
        if self.own_cgroups {
            return Ok(Vec::new());
        }
        if self.cgroup_existed {
            // In all hierarchies, and fit for processes.
            self.cgroup.make()?;
            return Ok(self.cgroup.directories().collect());
        }
        Ok(self.claim.iter().map(|claim| claim.directory.clone()).collect())
    }

    /// Waits for the init's first word, and sees that it is in its cgroup.
    pub(super) fn meet_init(&mut self, config: &[Item]) -> Result<Pid> {
        if self.own_cgroups {
            // While liblxc is at work.
            self.cgroup.make()?;
            self.cgroup.prepare_to_move();
        }
        let hello = self.receive(|m| matches!(m, FromInit::Hello))?;
        let pid = hello.sender.ok_or_else(|| self.gone("init's pid"))?;
        tracing::debug!("nsexec container setup is done; child process in init(): pid {pid}");
        let init = ProcessId::of(pid).at(&self.id, "the init has ended")?;
        if self.cgroup.is_none() {
            // Who deletes it after a kill -9 of this process finds the init in no cgroup. It has not been asked for anything
            // yet: a hook could keep it from seeing that we are gone.
            self.directory()?.write_state(&State { unfinished_init: Some(init), ..self.state.clone() })?;
        }
        self.state.init = Some(init);
        self.init_process = init.open().at(&self.id, "cannot open the init")?;
        if self.own_cgroups {
            self.cgroup.enter(pid, &[], None)?
        } else {
            self.cgroup.check_member(pid)?
        }
        // Only now: liblxc would read it when the monitor makes its handle, and lock it by a file of its own.
        let text = config::render(config, &self.id, &self.state.bundle);
        self.directory()?.write_unread(CONFIG, text.as_bytes())?;
        Ok(pid)
    }

    pub(super) fn send(&self, message: &ToInit, fds: &FdTable) -> Result<()> {
        match self.init.send(message, &fds.borrowed()) {
            // It has given up: what it said before tells why.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => self.expect(|_| false).map(drop),
            sent => sent.at(&self.id, "the init does not listen"),
        }
    }

    /// Leaves the cgroup to the container: to its processes alone, and to its root where it may change it.
    pub(super) fn leave_cgroup(&self, plan: &Plan, host: &Host, init: Pid) -> Result<()> {
        if self.keep_monitor && self.state.unit.is_some() {
            // Before there are limits, which are the container's.
            let monitor = self.monitor()?.pid();
            self.cgroup.leave_to_container(monitor).at(&self.id, "cannot move the monitor")?;
        }
        // An ordinary user can't give files away; their own are those of the container's root already.
        if plan.owns_cgroup(host) && !rootless::is_ordinary_user() {
            self.cgroup.hand_over(init, plan.process.uid)?;
        }
        Ok(())
    }

    /// Sets the limits of memory, which are no longer in `resources` then. The kernel charges more than is used, for each
    /// processor, as far as the limit has room: one that is set later finds it all taken, and may be refused for it.
    pub(super) fn limit_memory(&mut self, resources: &mut LinuxResources) -> Result<()> {
        self.memory_limit =
            resources.memory().as_ref().and_then(LinuxMemory::limit).filter(|limit| *limit > 0);
        // systemd is told everything at once.
        if resources.memory().is_none() || self.state.unit.is_some() {
            return Ok(());
        }
        let mut memory = LinuxResources::default();
        memory.set_devices(None).set_memory(*resources.memory());
        resources.set_memory(None);
        self.limit(&memory, &[])
    }

    /// Sets limits, those of raw settings last.
    pub(super) fn limit(&self, resources: &LinuxResources, raw: &[RawLimit]) -> Result<()> {
        self.cgroup.apply(resources).map_err(|e| self.blame_limit(e))?;
        self.cgroup.apply_raw(raw, resources.devices().as_deref().unwrap_or_default())
    }

    /// An init that has ended has a likely reason. The words are runc's.
    fn blame_limit(&self, error: Error) -> Error {
        match (self.memory_limit, self.state.init) {
            (Some(limit), Some(init)) if init.is_alive().is_ok_and(|alive| !alive) => {
                let reason = format!("container init was OOM-killed (memory limit too low?): {limit} bytes");
                refuse(&self.id, "linux.resources.memory.limit", reason)
            }
            _ => error,
        }
    }

    pub(super) fn proceed(&self) -> Result<()> {
        self.send(&ToInit::Proceed, &FdTable::default())
    }

    /// Runs hooks of the runtime's namespaces.
    pub(super) fn run_hooks(&self, hooks: &[Hook]) -> Result<()> {
        let state = self.state.oci(Status::Creating).json();
        for hook in hooks {
            // Whoever deletes the container meanwhile kills the monitor.
            let client = Some(self.monitor()?.pidfd());
            let cancelled = self.cancelled.as_ref().map(AsFd::as_fd);
            let note = Some(self.directory()?.note_for_hook()?);
            let ran = hook.run_under(&state, &self.state.bundle, Watch { client, cancelled, note });
            ran.map_err(|source| Error::Hook { id: self.id.clone(), source })?;
        }
        Ok(())
    }

    /// Waits until the init has made all mounts, and does what it can't do itself.
    pub(super) fn until_mounted(&self, plan: &Plan) -> Result<()> {
        loop {
            let said = self.receive(|m| matches!(m, FromInit::Mounted | FromInit::MapOwners(_)))?;
            let (FromInit::MapOwners(index), [tree]) = (said.message, said.fds.as_slice()) else {
                return Ok(());
            };
            mounts::map_part(&self.id, plan, index, tree)?;
            self.proceed()?;
        }
    }

    /// Waits until the init has done all that comes before `start`. Returns the master of its terminal.
    pub(super) fn until_ready(&self, spec: &Spec) -> Result<Option<OwnedFd>> {
        loop {
            let said = self.receive(|m| matches!(m, FromInit::Ready | FromInit::Listener))?;
            let (FromInit::Listener, Some(listener)) = (said.message, said.fds.first()) else {
                return Ok(said.fds.into_iter().next());
            };
            let state = self.state.oci(Status::Creating);
            listener::send(&self.id, spec, &state, state.pid, listener)?;
            self.proceed()?;
        }
    }

    /// Waits for one message of the init and returns the descriptors with it.
    fn expect(&self, wanted: impl Fn(&FromInit) -> bool) -> Result<Vec<OwnedFd>> {
        self.receive(wanted).map(|received| received.fds)
    }

    fn receive(&self, wanted: impl Fn(&FromInit) -> bool) -> Result<Received<FromInit>> {
        let monitor = self.monitor()?;
        let mut fds = vec![
            PollFd::new(&self.init, PollFlags::IN),
            PollFd::from_borrowed_fd(monitor.news(), PollFlags::IN),
        ];
        fds.extend(self.cancelled.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        rustix::io::retry_on_intr(|| poll(&mut fds, None)).at(&self.id, "cannot wait for the init")?;
        let init_speaks = !fds[0].revents().is_empty();
        if !init_speaks && fds[1].revents().is_empty() {
            return Err(Error::Cancelled { id: self.id.clone(), verb: "create" });
        }
        let log = || self.directory().map(StateDir::log_tail).unwrap_or_default();
        if init_speaks {
            let received = self.init.receive::<FromInit>().at(&self.id, "the init's message")?;
            match received {
                Some(received) if wanted(&received.message) => return Ok(received),
                Some(received) => match received.message {
                    FromInit::Failed(failure) => return Err(Error::Init { id: self.id.clone(), failure }),
                    message => {
                        let reason = format!("the init said {message:?} out of turn");
                        return Err(Error::Liblxc { id: self.id.clone(), reason, log: log() });
                    }
                },
                // Its end is closed in the monitor, too: the monitor knows more.
                None => return Err(self.blame_limit(monitor.reason(log))),
            }
        }
        Err(self.blame_limit(monitor.reason(log)))
    }

    /// The last steps: the monitor retires or stays, the state is written, and the init goes to its gate.
    pub(super) fn finish(&mut self, pid_file: Option<&Path>, terminal: Option<OwnedFd>) -> Result<Container> {
        if self.keep_monitor
            && !self.state.liblxc_cleans_up
            && let Some(init) = self.state.init
        {
            self.monitor()?.end_with(init.pid)?;
        }
        if let Some(filter) = &self.attach_filter {
            self.directory()?.write(config::ATTACH_FILTER, filter.as_bytes())?;
        }
        if !self.keep_monitor
            && let Some(monitor) = self.monitor.take()
        {
            monitor.retire()?;
            self.state.monitor = None;
            for cgroup in &self.monitor_cgroups {
                let problems = cgroup.remove();
                if !problems.is_empty() {
                    return Err(Error::Cleanup { id: self.id.clone(), problems });
                }
            }
        }
        self.directory()?.write_state(&self.state)?;
        if let Some(file) = pid_file {
            pid_file::write(&self.id, &self.state.bundle.join(file), self.state.init.map_or(0, |i| i.pid))?;
        }
        self.init.send(&ToInit::Proceed, &[]).at(&self.id, "the init does not listen")?;
        let mut directory = self.directory.take().ok_or_else(|| self.gone("state directory"))?;
        directory.keep();
        directory.unlock();
        let mut container = Container::new(directory, self.state.clone(), self.monitor.take(), terminal);
        container.cancelled = self.cancelled.take();
        container.knows_cgroup(self.cgroup.clone());
        Ok(container)
    }
}

impl Drop for Creation {
    fn drop(&mut self) {
        let Some(directory) = self.directory.take() else { return };
        if let Some(monitor) = self.monitor.take() {
            let _ = monitor.retire();
        }
        if self.claim.is_some() || self.state.unit.is_some() {
            self.remove_cgroups();
        }
        self.init_process.iter().for_each(process::kill_and_reap);
        if let Some(Err(e)) = self.pairs_before.as_ref().map(PairsBefore::until_new_ones_are_gone) {
            tracing::warn!("container {}: cannot tell whether its network devices are gone: {e}", self.id);
        }
        let resctrl = self.state.resctrl.iter().flat_map(Resctrl::remove);
        for problem in resctrl.chain(self.state.generated_profile.iter().flat_map(Generated::remove)) {
            tracing::warn!("container {}: {problem}", self.id);
        }
        if self.unit_started
            && let Err(e) = self.cgroup.stop_unit()
        {
            tracing::warn!("{e}");
        }
        drop(directory);
        if self.state.init.is_some() {
            run_poststop_hooks(&self.state, &self.poststop);
        }
    }
}
