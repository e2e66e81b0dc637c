//! `create`: everything up to, but not including, the user's program.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxMemory, LinuxResources, Spec};
use protocol::init::{FdIndex, FromInit, Rootfs, Stdio as InitStdio, ToInit};
use protocol::monitor::{Item, Plan as MonitorPlan};
use protocol::{Channel, Hook, Received, Watch};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::apparmor::Generated;
use crate::cgroup::{Cgroup, CgroupPath, Claim, Layout, NO_CGROUP, RawLimit};
use crate::checkpoint::name_of;
use crate::config::{self, HookKind, Plan, Surroundings, hooks};
use crate::container::Container;
use crate::delete::run_poststop_hooks;
use crate::error::{Context, refuse};
use crate::listener;
use crate::monitor::Monitor;
use crate::mounts;
use crate::mounts::HostTree;
use crate::netdevices::MovedDevices;
use crate::notify;
use crate::resctrl::Resctrl;
use crate::state::{self, ProcessId, State, StateDir, Status};
use crate::systemd::Unit;
use crate::{Bundle, ContainerId, Error, Host, Result, console, process, rootless};

/// What `create` is asked for besides the bundle.
#[derive(Debug, Default)]
pub struct CreateOptions {
    /// Standard input, output and error of a program without a terminal; those of this process by default.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Where to send the master of the program's terminal.
    pub console_socket: Option<PathBuf>,
    /// Where to send a pidfd of the process.
    pub pidfd_socket: Option<PathBuf>,
    /// Have the terminal leave LF as it is and not make CR LF of it: for output that goes to another terminal, which does
    /// that, or to a file. For a terminal that is not sent to a console socket.
    pub plain_newlines: bool,
    /// Becomes readable when nobody wants the container any more. Hooks end then, and `create` and `start` fail; without hooks
    /// neither waits for anybody.
    pub cancelled: Option<OwnedFd>,
    /// Where to write the init's pid.
    pub pid_file: Option<PathBuf>,
    /// Descriptors that the program gets from 3 on.
    pub preserve_fds: Vec<OwnedFd>,
    /// Move the root instead of pivot_root(2), for a root on a ramdisk.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// Have systemd make a scope for the container: `linux.cgroupsPath` is `slice:prefix:name`.
    pub systemd_cgroup: bool,
    /// Give the container a copy of `root.path` in its own directory, which goes away with it.
    pub copy_rootfs: bool,
    /// Variables that the program gets besides those of the specification, `NAME=value`.
    pub environment: Vec<String>,
    /// Give the program a socket for messages of sd_notify(3), which [`Container::notify_socket`] listens at.
    pub notify: bool,
    /// Raw LXC settings from somebody who may do anything with this host: name, with or without `lxc.`, and value.
    pub lxc_config: Vec<(String, String)>,
    /// Leave LXC's monitor as the container's parent, so that this process can wait for its end and LXC's tools see
    /// the container. Otherwise the init becomes a child of the nearest subreaper.
    pub keep_monitor: bool,
}

/// Makes a container from a bundle. Its program waits for [`Container::start`].
///
/// # Errors
/// Any of [`Error`]; nothing is left behind then.
pub fn create(root: &Path, id: &ContainerId, bundle: &Bundle, options: CreateOptions) -> Result<Container> {
    let spec = bundle.spec();
    check_paths(id, root, bundle)?;
    let host = Host::probe(id)?;
    rootless::check(id, spec)?;
    let mut plan = Plan::new(id, bundle.path(), spec, &host, &options.lxc_config)?;
    check_terminal(id, &plan, &options)?;
    if !options.keep_monitor {
        plan.raw.check_without_monitor(id)?;
    }
    let user_namespace = rootless::user_namespace(id, &plan)?;
    let named = spec.linux().as_ref().and_then(|l| l.cgroups_path().as_deref());
    let mut otherwise =
        named.is_none_or(|path| path.as_os_str().is_empty()).then(|| CgroupPath::of_root(id, root));
    if Cgroup::new(id, host.hierarchies.clone(), &plan.cgroup.container()).is_there()
        && let Some(path) = otherwise.take()
    {
        plan.cgroup = path;
    }
    if options.systemd_cgroup {
        plan.cgroup = systemd_cgroup(id, spec, &host)?;
    } else if rootless::is_ordinary_user() {
        plan.cgroup = cgroup_of_user(id, plan.cgroup, named, &host)?;
        if !plan.cgroup.is_some() && !plan.namespaces.is_new("pid") {
            tracing::warn!("{}", NO_WAY_TO_KILL);
        }
    }
    if let (Some(field), false) = (&plan.raw.delegation, plan.cgroup.is_some()) {
        return Err(refuse(id, field, NO_CGROUP));
    }
    let binds = mounts::open_binds(id, &plan)?;

    let resctrl = plan.intel_rdt.as_ref().map(|wanted| Resctrl::new(id, wanted)).transpose()?;

    let mut creation = Creation::begin(root, id, bundle, &plan, &host)?;
    creation.cancelled = options.cancelled.filter(|_| spec.hooks().is_some());
    creation.claim_cgroup(&mut plan, otherwise)?;
    creation.divide_cgroups(&plan, &host, options.keep_monitor);
    creation.state.resctrl.clone_from(&resctrl);
    creation.state.no_new_keyring = options.no_new_keyring;
    creation.generate_profile(&mut plan)?;
    if options.copy_rootfs {
        plan.rootfs = creation.copy_rootfs(&plan.rootfs)?;
    }
    let mut binds = binds;
    if options.notify {
        binds.push(creation.make_notify_directory(&mut plan)?);
    }
    plan.process.env.extend(options.environment);
    let rootfs = mounts::open_rootfs(id, &plan)?;
    if options.copy_rootfs {
        mounts::allow_programs(id, &rootfs)?;
    }
    let sources = mounts::Sources { rootfs, binds };
    let gate = creation.bind_gate()?;
    let mut enter = if creation.own_cgroups {
        None
    } else if plan.cgroup.is_some() && plan.cgroup.unit().is_none() {
        host.hierarchies.roots_to_enter().at(id, "cannot read /proc/PID/cgroup")?
    } else {
        // In a unit the monitor is where it is to make the container's cgroup: systemd has put it there.
        Some(Vec::new())
    };
    // No process may be in the root of a part of version 2 that has limits below, as in a container with engines in it.
    let claim_root =
        host.cgroup_layout() == Layout::Unified && enter.take_if(|roots| !roots.is_empty()).is_some();
    let surroundings = Surroundings {
        directory: creation.directory()?.path(),
        monitored: options.keep_monitor,
        in_user_namespace: user_namespace.is_some(),
        monitor_stays: Plan::monitor_stays(&host),
        relative_cgroups: enter.is_some(),
    };
    let config = plan.lxc_config(id, spec, &surroundings)?;
    if !creation.own_cgroups {
        creation.cgroup.fill_parents()?;
    }
    creation.attach_filter = options.keep_monitor.then(|| config::attach_filter(spec)).flatten();
    if creation.attach_filter.is_some() {
        // Nobody attaches before the container has its own filter.
        let nothing = config::ATTACH_NOTHING.as_bytes();
        creation.directory()?.write_unread(config::ATTACH_FILTER, nothing)?;
    }
    let enter = enter.unwrap_or_default();
    creation.start_liblxc(spec, &config, enter, claim_root, user_namespace.as_ref())?;
    if creation.own_cgroups {
        creation.cgroup.make()?;
        creation.cgroup.prepare_to_move();
    }
    let init = creation.meet_init(&config)?;
    let mut limits = resources(spec, &host);
    creation.limit_memory(&mut limits)?;
    if options.keep_monitor && creation.state.unit.is_some() {
        // Before there are limits, which are the container's.
        creation.cgroup.leave_to_container(creation.monitor()?.pid()).at(id, "cannot move the monitor")?;
    }
    // An ordinary user can't give files away; their own are those of the container's root already.
    if plan.owns_cgroup(&host) && !rootless::is_ordinary_user() {
        creation.cgroup.hand_over(init, plan.process.uid)?;
    }

    let mut fds = FdTable::default();
    let stdio = options.stdio.map_or_else(own_stdio, |fds| Ok(fds.into()));
    let stdio = stdio.at(id, "standard input, output and error")?;
    if !plan.terminal {
        creation.state.stdio = stdio.iter().map(name_of).collect();
    }
    let given = Given {
        stdio,
        preserved: options.preserve_fds,
        no_pivot: options.no_pivot,
        new_keyring: !options.no_new_keyring,
        sources,
        gate,
    };
    let request = init_request(&creation, &plan, given, &mut fds)?;
    creation.send(&ToInit::Prepare(Box::new(request)), &fds)?;
    drop(fds);
    creation.until_mounted(&plan)?;
    // Only now: rules for devices also go for making their nodes. Before the hooks, which may want to change some.
    creation.limit(&limits, &plan.raw.limits)?;
    if let (Some(resctrl), Some(wanted)) = (resctrl, &plan.intel_rdt) {
        resctrl.apply(id, wanted, init)?;
    }
    let mut devices = move_net_devices(id, &plan, init)?;
    let state = creation.state.oci(Status::Creating).json();
    for hook in &plan.create_runtime_hooks {
        // Whoever deletes the container meanwhile kills the monitor.
        let client = Some(creation.monitor()?.pidfd());
        let cancelled = creation.cancelled.as_ref().map(AsFd::as_fd);
        let note = Some(creation.directory()?.note_for_hook()?);
        let ran = hook.run_under(&state, bundle.path(), Watch { client, cancelled, note });
        ran.map_err(|source| Error::Hook { id: id.clone(), source })?;
    }
    creation.proceed()?;
    let terminal = creation.until_ready(spec)?;
    tracing::debug!("the init waits at its gate; init: closing the pipe to signal completion");

    process::set_rlimits(id, init, &plan.rlimits)?;
    process::set_oom_score_adj(id, init, plan.oom_score_adj)?;
    let terminal = match (terminal, &options.console_socket) {
        (Some(master), Some(socket)) => {
            console::send(id, socket, &master)?;
            None
        }
        (Some(master), None) if options.plain_newlines => {
            console::keep_newlines(id, &master)?;
            Some(master)
        }
        (terminal, _) => terminal,
    };
    if let Some(socket) = &options.pidfd_socket {
        let pidfd = pidfd_open(init, PidfdFlags::empty()).at(id, "the init has ended")?;
        console::send_pidfd(id, socket, b"standard", &pidfd)?;
    }
    let container = creation.finish(options.keep_monitor, options.pid_file.as_deref(), terminal)?;
    devices.keep();
    Ok(container)
}

/// `linux.netDevices`, into the namespace that the init is in now.
pub(crate) fn move_net_devices(id: &ContainerId, plan: &Plan, init: Pid) -> Result<MovedDevices> {
    if plan.net_devices.is_empty() {
        return Ok(MovedDevices::default());
    }
    let path = format!("/proc/{}/ns/net", init.as_raw_nonzero());
    let namespace = fs::File::open(&path).at(id, path)?;
    MovedDevices::new(id, &plan.net_devices, &namespace.into())
}

/// runc's words.
const NO_WAY_TO_KILL: &str = "Creating a rootless container with no cgroup and no private pid namespace. Such \
    configuration is strongly discouraged (as it is impossible to properly kill all container's processes)";

/// The cgroup of a container of who may not do everything: where they may make one, in a part of version 2 that was given
/// to them.
fn cgroup_of_user(
    id: &ContainerId,
    wanted: CgroupPath,
    named: Option<&Path>,
    host: &Host,
) -> Result<CgroupPath> {
    let may_make = |path: &str| Cgroup::new(id, host.hierarchies.clone(), path).can_be_made();
    if may_make(&wanted.container()) {
        // liblxc makes cgroups below the root alone. Root of a system in a container has that, and is root to liblxc, too.
        let has_root = rustix::process::geteuid().is_root() && may_make(id.as_str());
        return Ok(if has_root { wanted } else { wanted.without_liblxc() });
    }
    if named.is_some_and(|path| !path.as_os_str().is_empty()) {
        // The words are runc's.
        let reason = "unable to apply cgroup configuration: applying cgroup configuration: permission denied: this user \
                      may make no cgroup there";
        return Err(refuse(id, "linux.cgroupsPath", reason));
    }
    Ok(CgroupPath::none(id))
}

/// The cgroup in a unit of systemd that does not exist yet.
pub(crate) fn systemd_cgroup(id: &ContainerId, spec: &Spec, host: &Host) -> Result<CgroupPath> {
    if host.cgroup_layout() != Layout::Unified {
        return Err(refuse(id, "linux.cgroupsPath", "--systemd-cgroup needs a host with cgroup v2 alone"));
    }
    let wanted = spec.linux().as_ref().and_then(|l| l.cgroups_path().as_deref());
    Ok(CgroupPath::in_unit(id, Unit::new(id, wanted)?))
}

/// `linux.resources`; no device is allowed that it does not allow, also when it says nothing.
pub(crate) fn resources(spec: &Spec, host: &Host) -> LinuxResources {
    let mut resources = spec.linux().as_ref().and_then(|l| l.resources().clone()).unwrap_or_default();
    if host.cgroup_layout() != Layout::None && resources.devices().is_none() {
        resources.set_devices(Some(Vec::new()));
    }
    resources
}

/// Both are written down, in JSON and in lines.
fn check_paths(id: &ContainerId, root: &Path, bundle: &Bundle) -> Result<()> {
    for (what, path) in [("state root", root), ("bundle", bundle.path())] {
        match path.to_str() {
            None => return Err(refuse(id, what, format!("{} is not UTF-8", path.display()))),
            Some(text) if text.contains(char::is_control) => {
                return Err(refuse(id, what, format!("{text:?} has a control character")));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn check_terminal(id: &ContainerId, plan: &Plan, options: &CreateOptions) -> Result<()> {
    if options.console_socket.is_some() && !plan.terminal {
        return Err(refuse(id, "process.terminal", "is false: a console socket would never be used"));
    }
    if plan.terminal && options.console_socket.is_none() && !options.keep_monitor {
        return Err(refuse(id, "process.terminal", "needs a console socket when the container is detached"));
    }
    Ok(())
}

/// Descriptors on their way to the init.
#[derive(Debug, Default)]
pub(crate) struct FdTable(Vec<OwnedFd>);

impl FdTable {
    pub(crate) fn push(&mut self, fd: OwnedFd) -> FdIndex {
        self.0.push(fd);
        self.0.len() - 1
    }

    pub(crate) fn borrowed(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(AsFd::as_fd).collect()
    }
}

/// A container that is being made. Dropped before it is finished, it takes everything with it.
struct Creation {
    id: ContainerId,
    directory: Option<StateDir>,
    state: State,
    cgroup: Cgroup,
    /// Whether somebody has made it before: then a failure does not remove it.
    cgroup_existed: bool,
    /// Keeps others out of it until the init is in. Without one nothing in it is ours to kill.
    claim: Option<Claim>,
    /// Whether we make them, and liblxc doesn't know.
    own_cgroups: bool,
    /// Whether it is kept from making any.
    hidden_cgroups: bool,
    /// Whether systemd has made the unit for it, and not for somebody else.
    unit_started: bool,
    /// Whether liblxc leaves its monitor in the cgroups that it is in.
    monitor_stays: bool,
    monitor_cgroups: [Cgroup; 2],
    monitor: Option<Monitor>,
    init: Channel,
    /// Becomes readable when it is not wanted any more.
    cancelled: Option<OwnedFd>,
    /// What lxc-attach may do, in LXC's words.
    attach_filter: Option<String>,
    /// The limit of memory that the init has by now.
    memory_limit: Option<i64>,
    /// To be run when the container fails after its environment was made (runtime-spec, runtime.md, "Lifecycle").
    poststop: Vec<Hook>,
}

impl Creation {
    /// Takes the id, and has a monitor load liblxc while we go on.
    fn begin(root: &Path, id: &ContainerId, bundle: &Bundle, plan: &Plan, host: &Host) -> Result<Self> {
        let hierarchies = host.hierarchies.clone();
        let cgroup = Cgroup::new(id, hierarchies.clone(), &plan.cgroup.container())
            .in_unit(plan.cgroup.unit().cloned())
            .delegated(plan.raw.delegation.is_some());
        let monitor_stays = Plan::monitor_stays(host);
        let monitor_cgroups = plan.cgroup.monitor(monitor_stays);
        let directory = StateDir::create(root, id)?;
        let existing = cgroup.existing()?;
        let (init, init_end) = Channel::pair().at(id, "no channel for the init")?;
        init.learn_senders().at(id, "no channel for the init")?;
        let monitor = Monitor::spawn(id, directory.root(), init_end)?;
        let state = State {
            cgroup: plan.cgroup.container(),
            monitor_cgroups: monitor_cgroups.clone(),
            unit: plan.cgroup.unit().cloned(),
            delegated: plan.raw.delegation.is_some(),
            monitor: Some(monitor.process()?),
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
            monitor_stays,
            monitor_cgroups,
            monitor: Some(monitor),
            init,
            cancelled: None,
            attach_filter: None,
            memory_limit: None,
            poststop: hooks(id, bundle.spec(), HookKind::Poststop)?,
        };
        creation.directory()?.write_spec(bundle.config())?;
        Ok(creation)
    }

    /// Takes the cgroup for this container alone, or that of the path `otherwise` when another one was quicker.
    fn claim_cgroup(&mut self, plan: &mut Plan, otherwise: Option<CgroupPath>) -> Result<()> {
        let refused = match self.try_claim() {
            Err(refused @ Error::Spec { .. }) => refused,
            claimed => return claimed,
        };
        let Some(path) = otherwise.filter(|_| plan.cgroup.unit().is_none()) else { return Err(refused) };
        let path = if plan.cgroup.is_for_liblxc() { path } else { path.without_liblxc() };
        self.state.cgroup = path.container();
        self.state.monitor_cgroups = path.monitor(self.monitor_stays);
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
    fn divide_cgroups(&mut self, plan: &Plan, host: &Host, monitored: bool) {
        self.hidden_cgroups = plan.makes_cgroups(host) && (!monitored || self.cgroup_existed);
        self.own_cgroups = self.hidden_cgroups || (plan.cgroup.is_some() && !plan.cgroup.is_for_liblxc());
    }

    fn directory(&self) -> Result<&StateDir> {
        self.directory.as_ref().ok_or_else(|| self.gone("state directory"))
    }

    fn monitor(&self) -> Result<&Monitor> {
        self.monitor.as_ref().ok_or_else(|| self.gone("monitor"))
    }

    fn gone(&self, what: &str) -> Error {
        Error::State { id: self.id.clone(), reason: format!("the {what} is gone") }
    }

    /// Copies a root file system into the container's directory.
    fn copy_rootfs(&mut self, from: &Path) -> Result<PathBuf> {
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
    fn make_notify_directory(&self, plan: &mut Plan) -> Result<HostTree> {
        let directory = self.directory()?.path().join(notify::DIRECTORY);
        fs::create_dir(&directory).at(&self.id, format!("cannot make {}", directory.display()))?;
        let tree = HostTree::open(plan, &directory, false).at(&self.id, directory.display().to_string())?;
        plan.mounts.push(notify::mount(directory));
        plan.process.env.push(notify::VARIABLE.into());
        Ok(tree)
    }

    fn remove_cgroups(&self) {
        let _ = self.cgroup.kill_all();
        let own = (!self.cgroup_existed).then_some(&self.cgroup);
        for problem in own.into_iter().chain(&self.monitor_cgroups).flat_map(Cgroup::remove) {
            tracing::warn!("container {}: {problem}", self.id);
        }
    }

    /// Makes the AppArmor profile that the program and every exec will have, if one is to be made.
    fn generate_profile(&mut self, plan: &mut Plan) -> Result<()> {
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

    fn bind_gate(&self) -> Result<OwnedFd> {
        let path = self.directory()?.short_path(state::GATE);
        Ok(UnixListener::bind(path).at(&self.id, "cannot make the gate")?.into())
    }

    /// Sends the monitor its plan. What it will make is written down before.
    fn start_liblxc(
        &mut self,
        spec: &Spec,
        config: &[Item],
        enter: Vec<PathBuf>,
        claim_root: bool,
        user_namespace: Option<&OwnedFd>,
    ) -> Result<()> {
        let directory = self.directory()?;
        directory.write_state(&self.state)?;
        // Who condemns it later finds the monitor in the state, and ends it.
        directory.check_not_condemned()?;
        if let Some(unit) = &self.state.unit {
            unit.start(&self.id, spec, self.monitor()?.pid())?;
            self.unit_started = true;
            self.cgroup.fill_unit();
        }
        let directory = self.directory()?;
        let mut take_cgroups = Vec::new();
        if self.cgroup_existed && !self.own_cgroups {
            // In all hierarchies, and fit for processes.
            self.cgroup.make()?;
            take_cgroups.extend(self.cgroup.directories());
        } else if let (false, Some(claim)) = (self.own_cgroups, &self.claim) {
            take_cgroups.push(claim.directory.clone());
        }
        let (name, root) = (self.id.to_string(), directory.root().to_owned());
        let plan = MonitorPlan {
            name,
            root,
            config: config.to_vec(),
            user_namespace: user_namespace.is_some(),
            enter,
            take_cgroups,
            claim_root,
            stay_in_cgroups: self.monitor_stays,
            hide_cgroups: self.hidden_cgroups.then(|| directory.path().to_owned()),
        };
        self.monitor()?.start(plan, user_namespace)
    }

    /// Waits for the init's first word.
    fn meet_init(&mut self, config: &[Item]) -> Result<Pid> {
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
        if self.own_cgroups {
            self.cgroup.enter(pid, &[], None)?
        } else {
            self.cgroup.check_member(pid)?
        }
        // Only now: liblxc would read it when the monitor makes its handle, and lock it by a file of its own.
        let text = config::render(config, &self.id, &self.state.bundle);
        self.directory()?.write_unread(state::CONFIG, text.as_bytes())?;
        Ok(pid)
    }

    fn send(&self, message: &ToInit, fds: &FdTable) -> Result<()> {
        match self.init.send(message, &fds.borrowed()) {
            // It has given up: what it said before tells why.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => self.expect(|_| false).map(drop),
            sent => sent.at(&self.id, "the init does not listen"),
        }
    }

    /// Sets the limits of memory, which are no longer in `resources` then. The kernel charges more than is used, for each
    /// processor, as far as the limit has room: one that is set later finds it all taken, and may be refused for it.
    fn limit_memory(&mut self, resources: &mut LinuxResources) -> Result<()> {
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
    fn limit(&self, resources: &LinuxResources, raw: &[RawLimit]) -> Result<()> {
        self.cgroup.apply(resources).map_err(|e| self.blame_limit(e))?;
        self.cgroup.apply_raw(raw, resources.devices().as_deref().unwrap_or_default())
    }

    /// An init that has ended has a likely reason. The words are runc's.
    fn blame_limit(&self, otherwise: Error) -> Error {
        match (self.memory_limit, self.state.init) {
            (Some(limit), Some(init)) if init.is_alive().is_ok_and(|alive| !alive) => {
                let reason = format!("container init was OOM-killed (memory limit too low?): {limit} bytes");
                refuse(&self.id, "linux.resources.memory.limit", reason)
            }
            _ => otherwise,
        }
    }

    fn proceed(&self) -> Result<()> {
        self.send(&ToInit::Proceed, &FdTable::default())
    }

    /// Waits until the init has made all mounts, and does what it can't do itself.
    fn until_mounted(&self, plan: &Plan) -> Result<()> {
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
    fn until_ready(&self, spec: &Spec) -> Result<Option<OwnedFd>> {
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
            return Err(Error::State { id: self.id.clone(), reason: process::CANCELLED.into() });
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
    fn finish(
        mut self,
        keep_monitor: bool,
        pid_file: Option<&Path>,
        terminal: Option<OwnedFd>,
    ) -> Result<Container> {
        if keep_monitor
            && !self.state.liblxc_cleans_up
            && let Some(init) = self.state.init
        {
            self.monitor()?.end_with(init.pid)?;
        }
        if let Some(filter) = &self.attach_filter {
            self.directory()?.write(config::ATTACH_FILTER, filter.as_bytes())?;
        }
        if !keep_monitor && let Some(monitor) = self.monitor.take() {
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
            write_pid_file(&self.id, &self.state.bundle.join(file), self.state.init.map_or(0, |i| i.pid))?;
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
        let resctrl = self.state.resctrl.iter().flat_map(Resctrl::remove);
        for problem in resctrl.chain(self.state.generated_profile.iter().flat_map(Generated::remove)) {
            tracing::warn!("container {}: {problem}", self.id);
        }
        let unit = self.state.unit.as_ref().filter(|_| self.unit_started);
        if let Some(Err(e)) = unit.map(|unit| unit.stop(&self.id)) {
            tracing::warn!("{e}");
        }
        drop(directory);
        if self.state.init.is_some() {
            run_poststop_hooks(&self.state, &self.poststop);
        }
    }
}

/// What the caller and the host give to the init.
struct Given {
    stdio: Vec<OwnedFd>,
    preserved: Vec<OwnedFd>,
    no_pivot: bool,
    new_keyring: bool,
    sources: mounts::Sources,
    gate: OwnedFd,
}

/// What the init is asked to do, with the descriptors that it needs for it.
fn init_request(
    creation: &Creation,
    plan: &Plan,
    given: Given,
    fds: &mut FdTable,
) -> Result<protocol::init::Container> {
    let id = &creation.id;
    let mut process = plan.process.clone();
    if !plan.terminal {
        let indices: Vec<FdIndex> = given.stdio.into_iter().map(|fd| fds.push(fd)).collect();
        process.stdio = InitStdio::Fds([indices[0], indices[1], indices[2]]);
    }
    process.preserved = given.preserved.into_iter().map(|fd| fds.push(fd)).collect();
    let tree = given.sources.rootfs.for_init(fds);
    let mounts = mounts::for_init(id, plan, given.sources.binds, &creation.cgroup, fds)?;
    let mut to_join = |name| match plan.namespaces.to_join(name) {
        Some(path) => {
            let file = fs::File::open(path).at(id, path.display().to_string())?;
            Ok(Some(fds.push(file.into())))
        }
        None => Ok(None),
    };
    let (cgroup_namespace, mount_namespace) = (to_join("cgroup")?, to_join("mount")?);
    let joined_time_namespace = to_join("time")?;
    Ok(protocol::init::Container {
        cgroups_hidden: creation.hidden_cgroups,
        new_cgroup_namespace: !plan.cgroup.is_for_liblxc()
            && plan.cgroup.is_some()
            && plan.namespaces.is_new("cgroup"),
        cgroup_namespace,
        mount_namespace,
        time_namespace: plan.time_namespace.clone(),
        joined_time_namespace,
        rootfs: Rootfs {
            tree,
            path: plan.rootfs.clone(),
            readonly: plan.rootfs_readonly,
            propagation: plan.rootfs_propagation,
            no_pivot: given.no_pivot,
        },
        mounts,
        devices: plan.devices.clone(),
        dev_links: plan.dev_links,
        hostname: plan.hostname.clone(),
        domainname: plan.domainname.clone(),
        sysctl: plan.sysctl.clone(),
        masked_paths: plan.masked_paths.clone(),
        readonly_paths: plan.readonly_paths.clone(),
        create_container_hooks: plan.create_container_hooks.clone(),
        start_container_hooks: plan.start_container_hooks.clone(),
        creating_state: creation.state.oci(Status::Creating).json(),
        created_state: creation.state.oci(Status::Created).json(),
        bundle: creation.state.bundle.clone(),
        gate: fds.push(given.gate),
        keyring: given.new_keyring.then(|| format!("_ses.{id}")),
        process,
    })
}

/// Copies of this process's standard input, output and error.
pub(crate) fn own_stdio() -> io::Result<Vec<OwnedFd>> {
    let own = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    own.iter().map(BorrowedFd::try_clone_to_owned).collect()
}

/// A detached clone of a tree of the host.
pub(crate) fn clone_tree(path: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags)
}

/// Writes a pid file by rename, so that a reader sees all of it or nothing.
pub(crate) fn write_pid_file(id: &ContainerId, path: &Path, pid: i32) -> Result<()> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = path.with_file_name(format!(".{name}-{}", std::process::id()));
    // What a process of this number has left that was killed.
    let _ = fs::remove_file(&temporary);
    // Never through a link that somebody has put there.
    let mut open = fs::OpenOptions::new();
    open.write(true)
        .create_new(true)
        .open(&temporary)
        .and_then(|mut file| io::Write::write_all(&mut file, pid.to_string().as_bytes()))
        .and_then(|()| fs::rename(&temporary, path))
        .inspect_err(|_| drop(fs::remove_file(&temporary)))
        .at(id, format!("cannot write the pid file {}", path.display()))
}
