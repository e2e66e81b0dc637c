//! A container that is being made: what there is of it so far, and what becomes of that when a step fails.

mod cgroups;
mod conversation;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use protocol::init::ToInit;
use protocol::monitor::{Item, StartRequest};
use protocol::{Channel, Hook, Watch};

use crate::apparmor::Generated;
use crate::cgroup::{Cgroup, Claim, Layout};
use crate::config::{self, Plan, Surroundings};
use crate::container::Container;
use crate::delete::run_poststop_hooks;
use crate::error::{Context, unable};
use crate::monitor::Monitor;
use crate::mounts::HostTree;
use crate::netlink::PairsBefore;
use crate::pid_file;
use crate::resctrl::Resctrl;
use crate::state::{State, Status};
use crate::state_dir::{GATE, StateDir};
use crate::{Bundle, ContainerId, Error, Host, Result, notify, process};

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
    /// Whether we make its cgroups, and liblxc knows nothing of them.
    own_cgroups: bool,
    /// Whether liblxc is shown no hierarchies, so that it makes no cgroups for its monitor, either.
    pub(super) hidden_cgroups: bool,
    /// Whether systemd has made the unit for it, and not for somebody else.
    unit_started: bool,
    /// Whether liblxc's monitor gets no cgroups of its own and stays where it is.
    monitor_stays_in_cgroups: bool,
    /// Whether the monitor stays as the container's parent when it is made.
    keep_monitor: bool,
    monitor_cgroups: [Cgroup; 2],
    monitor: Option<Monitor>,
    init: Channel,
    /// The init, which becomes a child of this process without its monitor, if this is a subreaper or the first of its PID namespace.
    init_process: Option<OwnedFd>,
    /// The host's pairs of network devices before liblxc has made the container's: who undoes that waits until there are no more.
    pairs_before: Option<PairsBefore>,
    /// Becomes readable when nobody wants the container any more.
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
        let monitor_stays_in_cgroups = plan.monitor_stays_in_cgroups(host);
        let monitor_cgroups = plan.cgroup.monitor(monitor_stays_in_cgroups);
        let directory = StateDir::create(root, id)?;
        let existing = cgroup.existing()?;
        let (init, init_end) = Channel::pair().at(id, "no channel for the init")?;
        init.learn_senders().at(id, "no channel for the init")?;
        let executes_init = plan.namespaces.get("user").is_some();
        let monitor = Monitor::spawn(id, directory.root(), init_end, executes_init)?;
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
        let mut enter = self.cgroups_to_enter(plan, host)?;
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
        self.forbid_attach(spec)?;
        self.write_down(spec)?;
        let directory = self.directory()?;
        let request = StartRequest {
            name: self.id.to_string(),
            root: directory.root().to_owned(),
            config: config.clone(),
            user_namespace: user_namespace.is_some(),
            init_program: self.monitor()?.executes_init(),
            enter: enter.unwrap_or_default(),
            take_cgroups: self.cgroups_to_take()?,
            claim_root,
            stay_in_cgroups: self.monitor_stays_in_cgroups,
            hide_cgroups: self.hidden_cgroups.then(|| directory.path().to_owned()),
        };
        self.monitor()?.start(request, user_namespace)?;
        Ok(config)
    }

    /// Nobody attaches before the container has its own filter.
    fn forbid_attach(&mut self, spec: &Spec) -> Result<()> {
        self.attach_filter = self.keep_monitor.then(|| config::attach_filter(spec)).flatten();
        if self.attach_filter.is_some() {
            let nothing = config::ATTACH_NOTHING.as_bytes();
            self.directory()?.write_unread(config::ATTACH_FILTER, nothing)?;
        }
        Ok(())
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

    /// The last steps: the monitor retires or stays, the state is written, and the init goes to its gate.
    pub(super) fn finish(&mut self, pid_file: Option<&Path>, terminal: Option<OwnedFd>) -> Result<Container> {
        if self.keep_monitor
            && let Some(init) = self.state.init
        {
            self.monitor()?.meet_init(init.pid, !self.state.liblxc_cleans_up)?;
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
        if self.claim.is_some() || self.unit_started {
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
