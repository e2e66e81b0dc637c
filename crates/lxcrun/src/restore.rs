//! `restore`: makes a container again from what [`checkpoint`](crate::Container::checkpoint) has saved.
//!
//! CRIU makes the processes and their namespaces. What was the host's it finds in a mount namespace of its own, where
//! the root is mounted below the container's directory: the host's mounts never change.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use oci_spec::runtime::{LinuxResources, Spec};
use protocol::{Hook, Watch};
use rustix::fs::{CWD, FileType, fstat};
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, mount, mount_change, move_mount};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::set_thread_groups;

use crate::cgroup::{Cgroup, Claim};
use crate::checkpoint::{self, DESCRIPTORS};
use crate::config::{HookKind, MountKind, Plan, Sharing, hooks};
use crate::create::{own_stdio, resources, systemd_cgroup};
use crate::criu::rpc::{CgroupRoot, Features, InheritFd, JoinNamespace, Kind, Options};
use crate::criu::{self, CgroupsMode, Criu, Directory};
use crate::delete::run_poststop_hooks;
use crate::error::{Context, refuse, unable};
use crate::netdevices::{MovedDevices, bring_loopback_up};
use crate::state::{ProcessId, State, Status};
use crate::state_dir::StateDir;
use crate::{
    Bundle, Container, ContainerId, Error, Host, Result, console, mounts, netdevices, pid_file, process,
};

const LOG: &str = "restore.log";
/// Where CRIU finds the root, below the container's directory.
const ROOT: &str = "criu.root";
/// Where CRIU makes a directory.
const TMP: &str = "/tmp";

/// What `restore` is asked for besides the bundle.
#[derive(Debug, Default)]
pub struct RestoreOptions {
    /// Directory of the images.
    pub image_path: PathBuf,
    /// Directory for CRIU's log; by default one that goes away with the container.
    pub work_path: Option<PathBuf>,
    /// Standard input, output and error, in place of the pipes and fifos of the saved container; those of this process by
    /// default.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Where to send the master of the program's terminal.
    pub console_socket: Option<PathBuf>,
    /// Becomes readable when nobody wants the container any more: a hook that runs then is ended, and `restore` fails.
    pub cancelled: Option<OwnedFd>,
    /// Where to write the init's pid.
    pub pid_file: Option<PathBuf>,
    /// The caller won't wait for the container, nor take its terminal.
    pub detach: bool,
    /// Restore open TCP connections.
    pub tcp_established: bool,
    /// Allow unix sockets whose other end is outside.
    pub ext_unix_sk: bool,
    /// Allow a terminal from outside.
    pub shell_job: bool,
    /// Restore file locks.
    pub file_locks: bool,
    /// Give names to files that were deleted while open.
    pub link_remap: bool,
    /// What to do about cgroups.
    pub cgroups_mode: Option<CgroupsMode>,
    /// Have systemd make a scope for the container: `linux.cgroupsPath` is `slice:prefix:name`.
    pub systemd_cgroup: bool,
    /// Free what the images have twice.
    pub auto_dedup: bool,
    /// Fetch memory when it is needed.
    pub lazy_pages: bool,
    /// `TYPE:NAME` of an LSM profile in place of the saved one.
    pub lsm_profile: Option<String>,
    /// LSM context of mounts in place of the saved one.
    pub lsm_mount_context: Option<String>,
}

/// Makes a container from a bundle and the images of a checkpoint. It runs on where it was.
///
/// Its init is a child of this process, for [`Container::wait`]; when this process ends, of the nearest subreaper.
///
/// # Errors
/// Any of [`Error`]; nothing is left behind then.
pub fn restore(
    root: &Path,
    id: &ContainerId,
    bundle: &Bundle,
    mut options: RestoreOptions,
) -> Result<Container> {
    let spec = bundle.spec();
    let host = Host::probe(id)?;
    let plan = plan(id, bundle, &host, &options)?;
    let saved = saved_stdio(id, &options.image_path)?;

    let mut restoration = Restoration::begin(root, id, bundle, &plan, &host)?;
    let tree = open_root(id, &plan)?;
    let stdio = restoration.take_stdio(options.stdio.take(), &plan)?;
    check_replaceable(id, &saved, &stdio)?;
    // A fifo is another one now, whose permissions may be others, too.
    let other_permissions = saved.iter().any(|name| checkpoint::is_external(name));
    let inherited = Inherited::new(id, &plan, saved, stdio)?;
    let config_file = checkpoint::config_file(id, spec)?;
    let needed = paths_on_host(&plan, config_file.as_deref(), &options);
    let (mut criu, images, work) = restoration.spawn_criu(tree, inherited.fds, &needed, &options)?;
    restoration.note_criu(criu.pid())?;
    let (limits, limits_of_restored) = split(resources(spec, &host));
    restoration.make_cgroup(spec, criu.pid(), &limits)?;

    let request = Options {
        root: Some(restoration.directory()?.path().join(ROOT).display().to_string()),
        cgroup_roots: cgroup_roots(&restoration.cgroup),
        external_mounts: criu::mounts::on_host(id, &plan, &restoration.cgroup)?,
        join_namespaces: joined_namespaces(&plan),
        config_file,
        inherit_fds: inherited.names,
        skip_file_rwx_check: other_permissions.then_some(true),
        ..options.for_criu(&images, &work)
    };
    criu.check(Features { lazy_pages: options.lazy_pages.then_some(true), ..Features::default() })?;
    // Without a place of its own it goes with the container's directory.
    let log = criu::Log { path: work.path.join(LOG), stays: options.work_path.is_some() };
    let cancelled = options.cancelled.as_ref().map(AsFd::as_fd);
    let (terminal, mut devices) =
        restoration.run_criu(criu, request, &log, &plan, &limits_of_restored, cancelled)?;

    let terminal = console::hand_over(id, terminal, options.console_socket.as_deref(), false)?;
    let container = restoration.finish(options.pid_file.as_deref(), terminal)?;
    devices.keep();
    Ok(container)
}

/// What the bundle asks for, where a restore can give it.
fn plan(id: &ContainerId, bundle: &Bundle, host: &Host, options: &RestoreOptions) -> Result<Plan> {
    let mut plan = Plan::new(id, bundle.path(), bundle.spec(), host, &[])?;
    if options.systemd_cgroup {
        plan.cgroup = systemd_cgroup(id, bundle.spec(), host)?;
    }
    check_terminal(id, &plan, options)?;
    checkpoint::check_restorable(id, &plan)?;
    Ok(plan)
}

/// The root, attached nowhere, with a place in it for each mount.
fn open_root(id: &ContainerId, plan: &Plan) -> Result<OwnedFd> {
    let mounts::HostTree::Cloned(tree) = mounts::open_rootfs(id, plan)? else {
        return Err(unable(id, "restore", "only root can restore a container"));
    };
    criu::mounts::make_places(id, plan, &tree)?;
    Ok(tree)
}

impl RestoreOptions {
    /// What they ask CRIU for.
    fn for_criu(&self, images: &Directory, work: &Directory) -> Options {
        Options {
            evasive_devices: Some(true),
            restore_sibling: Some(true),
            tcp_established: Some(self.tcp_established),
            ext_unix_sk: Some(self.ext_unix_sk),
            shell_job: Some(self.shell_job),
            file_locks: Some(self.file_locks),
            link_remap: Some(self.link_remap),
            auto_dedup: Some(self.auto_dedup),
            lazy_pages: Some(self.lazy_pages),
            lsm_profile: self.lsm_profile.clone(),
            lsm_mount_context: self.lsm_mount_context.clone(),
            manage_cgroups_mode: self.cgroups_mode.map(CgroupsMode::number),
            empty_namespaces: Some(criu::EMPTY_NAMESPACES),
            ..criu::options(images, work, LOG)
        }
    }
}

fn check_terminal(id: &ContainerId, plan: &Plan, options: &RestoreOptions) -> Result<()> {
    if options.console_socket.is_some() && !plan.terminal {
        return Err(refuse(id, "process.terminal", "is false: a console socket would never be used"));
    }
    if plan.terminal && options.console_socket.is_none() && options.detach {
        return Err(refuse(id, "process.terminal", "needs a console socket when the container is detached"));
    }
    Ok(())
}

/// What CRIU, which makes the processes in their cgroup, can't do its work under, apart from the rest: with rules for devices it
/// could neither make device nodes nor find out what the kernel can do, and it is one process more than the container has.
fn split(mut resources: LinuxResources) -> (LinuxResources, LinuxResources) {
    let mut later = LinuxResources::default();
    later.set_devices(resources.devices().clone());
    later.set_pids(*resources.pids());
    resources.set_devices(None);
    resources.set_pids(None);
    (resources, later)
}

/// What standard input, output and error were connected with.
fn saved_stdio(id: &ContainerId, images: &Path) -> Result<Vec<String>> {
    let path = images.join(DESCRIPTORS);
    let what = format!("no checkpoint in {}: cannot read {DESCRIPTORS}", images.display());
    let text = fs::read(&path).at(id, &what)?;
    serde_json::from_slice(&text).map_err(std::io::Error::other).at(id, what)
}

/// CRIU opens what takes the place of a fifo as one, to restore its data and how it was open.
fn check_replaceable(id: &ContainerId, saved: &[String], stdio: &[OwnedFd]) -> Result<()> {
    for ((saved, fd), what) in saved.iter().zip(stdio).zip(["input", "output", "error"]) {
        if checkpoint::is_external(saved) && !is_pipe(fd) {
            let reason = "was a fifo, whose place only a fifo or a pipe can take";
            return Err(unable(id, format!("standard {what}"), reason));
        }
    }
    Ok(())
}

fn is_pipe(fd: &OwnedFd) -> bool {
    fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// The place for the processes in each hierarchy: where the bundle says, wherever they were.
fn cgroup_roots(cgroup: &Cgroup) -> Vec<CgroupRoot> {
    let path = format!("/{}", cgroup.path());
    let root =
        |controller: Option<&String>| CgroupRoot { controller: controller.cloned(), path: path.clone() };
    let controllers = cgroup.hierarchies().legacy().flat_map(|hierarchy| &hierarchy.controllers);
    controllers.map(|controller| root(Some(controller))).chain(std::iter::once(root(None))).collect()
}

/// What CRIU finds on the host by its path, and CRIU itself.
fn paths_on_host(plan: &Plan, config_file: Option<&str>, options: &RestoreOptions) -> Vec<PathBuf> {
    let mut paths = vec![options.image_path.clone()];
    paths.extend(options.work_path.clone());
    paths.extend(plan.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Bind { source, .. } => Some(source.clone()),
        _ => None,
    }));
    paths.extend(joined_namespaces(plan).into_iter().map(|namespace| namespace.file.into()));
    paths.extend(config_file.map(PathBuf::from));
    if configurations_name_tmp(config_file, |name| std::env::var_os(name)) {
        paths.push(TMP.into());
    }
    let programs = std::env::var_os("PATH").unwrap_or_default();
    paths.extend(std::env::split_paths(&programs).filter(|path| path.exists()));
    paths
}

/// Whether a configuration of CRIU's names a file in /tmp, such as its log. Besides `given` it reads some unasked: criu(8),
/// "CONFIGURATION FILES".
fn configurations_name_tmp(given: Option<&str>, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let of_user = variable("HOME").map(|home| Path::new(&home).join(".criu/default.conf"));
    let of_caller = variable("CRIU_CONFIG_FILE").map(PathBuf::from);
    let all = [Some("/etc/criu/default.conf".into()), of_user, of_caller, given.map(PathBuf::from)];
    all.into_iter().flatten().any(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(TMP)))
}

/// Whether a path leads into /tmp, or to what /tmp is seen in; one that can't be looked at may.
fn needs_tmp(path: &Path) -> bool {
    let (Ok(tmp), Ok(path)) = (fs::canonicalize(TMP), fs::canonicalize(path)) else { return true };
    path.starts_with(&tmp) || tmp.starts_with(&path)
}

/// Those that CRIU joins by itself.
fn joined_namespaces(plan: &Plan) -> Vec<JoinNamespace> {
    let kinds = [("ipc", "ipc"), ("uts", "uts"), ("user", "user")];
    let joined = kinds.into_iter().filter_map(|(of_spec, kind)| match plan.namespaces.get(of_spec) {
        Some(Sharing::Path(path)) => {
            Some(JoinNamespace { namespace: kind.into(), file: path.display().to_string() })
        }
        _ => None,
    });
    joined.collect()
}

/// Descriptors for CRIU, with what the images call them.
#[derive(Default)]
struct Inherited {
    names: Vec<InheritFd>,
    fds: Vec<OwnedFd>,
}

impl Inherited {
    /// What takes the place of the saved program's standard input, output and error, and namespaces that are others'.
    fn new(id: &ContainerId, plan: &Plan, saved: Vec<String>, stdio: Vec<OwnedFd>) -> Result<Self> {
        let mut inherited = Self::default();
        for (name, fd) in saved.into_iter().zip(stdio).filter(|(name, _)| checkpoint::is_reconnected(name)) {
            inherited.push(name, fd);
        }
        for namespace in checkpoint::external_namespaces(id, plan)? {
            let file = File::open(namespace.path).at(id, namespace.path.display().to_string())?;
            inherited.push(namespace.name.into(), file.into());
        }
        Ok(inherited)
    }

    fn push(&mut self, key: String, fd: OwnedFd) {
        self.names.push(InheritFd { key, fd: criu::inherited_fd(self.fds.len()) });
        self.fds.push(fd);
    }
}

/// A container that is being restored. Dropped before it is finished, it takes everything with it.
struct Restoration {
    id: ContainerId,
    directory: Option<StateDir>,
    state: State,
    cgroup: Cgroup,
    /// Keeps others out of it until the processes are in.
    _claim: Option<Claim>,
    /// Whether systemd has made the unit for it, and not for somebody else.
    unit_started: bool,
    /// A pidfd of CRIU, and of the restored init.
    criu: Option<OwnedFd>,
    init: Option<OwnedFd>,
    poststop: Vec<Hook>,
}

impl Restoration {
    fn begin(root: &Path, id: &ContainerId, bundle: &Bundle, plan: &Plan, host: &Host) -> Result<Self> {
        let poststop = hooks(id, bundle.spec(), HookKind::Poststop)?;
        let directory = StateDir::create(root, id)?;
        let cgroup = Cgroup::new(id, host.hierarchies.clone(), &plan.cgroup.container())
            .in_unit(plan.cgroup.unit().cloned());
        if let Some(existing) = cgroup.existing()? {
            return Err(refuse(id, "linux.cgroupsPath", format!("{} exists already", existing.display())));
        }
        let state = State {
            cgroup: plan.cgroup.container(),
            unit: plan.cgroup.unit().cloned(),
            ..State::new(id, bundle.path(), &plan.rootfs, bundle.spec())
        };
        // What will be made is written down before.
        directory.write_spec(bundle.config())?;
        let claim = claim(id, &cgroup)?;
        let id = id.clone();
        let restoration = Self {
            id,
            directory: Some(directory),
            state,
            cgroup,
            _claim: claim,
            unit_started: false,
            criu: None,
            init: None,
            poststop,
        };
        restoration.directory()?.write_state(&restoration.state)?;
        Ok(restoration)
    }

    /// Standard input, output and error, and their names for the next checkpoint.
    fn take_stdio(&mut self, given: Option<[OwnedFd; 3]>, plan: &Plan) -> Result<Vec<OwnedFd>> {
        let stdio = match given {
            Some(stdio) => stdio.into(),
            None => own_stdio().at(&self.id, "standard input, output and error")?,
        };
        if !plan.terminal {
            self.state.stdio = stdio.iter().map(checkpoint::name_of).collect();
        }
        Ok(stdio)
    }

    /// Makes the cgroup, with its limits and CRIU in it: the processes are born there.
    fn make_cgroup(&mut self, spec: &Spec, criu: Pid, limits: &LinuxResources) -> Result<()> {
        if let Some(unit) = &self.state.unit {
            unit.start(&self.id, spec, criu.as_raw_nonzero().get().unsigned_abs())?;
            self.unit_started = true;
            self.cgroup.fill_unit();
        }
        self.cgroup.make()?;
        self.cgroup.enter(criu, &[], None)?;
        if self.state.unit.is_some() {
            // A unit with a process of its own passes no controllers down.
            self.cgroup.make()?;
        }
        self.cgroup.apply(limits)
    }

    fn directory(&self) -> Result<&StateDir> {
        self.directory.as_ref().ok_or_else(|| unable(&self.id, "restore", "the state directory is gone"))
    }

    /// Starts CRIU in a mount namespace where `tree` is at [`ROOT`], with the session keyring of the container: the
    /// processes will have it, and not that of our caller.
    ///
    /// A thread has these for itself; the one made here gives them to CRIU and ends. CRIU's directories are opened in
    /// that namespace, too: it mounts something in one of them. It makes a directory in /tmp, which stays when it is killed: so
    /// that is one of its own, unless a path that is `needed` leads to the host's.
    fn spawn_criu(
        &self,
        tree: OwnedFd,
        inherited: Vec<OwnedFd>,
        needed: &[PathBuf],
        options: &RestoreOptions,
    ) -> Result<(Criu, Directory, Directory)> {
        let root = self.directory()?.path().join(ROOT);
        fs::create_dir(&root).at(&self.id, format!("cannot make {}", root.display()))?;
        let id = &self.id;
        let state = self.directory()?.path();
        let spawn = move || {
            let what = "a private mount namespace for criu";
            unshare(CloneFlags::CLONE_NEWNS).at(id, what)?;
            mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).at(id, what)?;
            move_mount(tree.as_fd(), "", CWD, &root, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at(id, what)?;
            join_keyring(id)?;
            // CRIU gives groups to a process that had some, and leaves one that had none with its own.
            set_thread_groups(&[]).at(id, "cannot give up this process's groups")?;
            let images = Directory::open(id, &options.image_path)?;
            let work = checkpoint::work_directory(id, options.work_path.as_deref(), state)?;
            if !needed.iter().map(PathBuf::as_path).chain([state]).any(needs_tmp) {
                // That it can't be done leaves the host's.
                let _ = mount("tmpfs", TMP, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0700");
            }
            Ok((Criu::spawn(id, "restore", inherited, None)?, images, work))
        };
        let spawned = std::thread::scope(|scope| scope.spawn(spawn).join());
        spawned.unwrap_or_else(|_| {
            Err(Error::of_criu(id, "restore", "the thread that starts criu has panicked"))
        })
    }

    /// Has CRIU make the processes, and does our part of it in between. Returns the master of their terminal, and the network
    /// devices that go back to the host unless they are kept.
    fn run_criu(
        &mut self,
        criu: Criu,
        request: Options,
        log: &criu::Log,
        plan: &Plan,
        limits: &LinuxResources,
        cancelled: Option<BorrowedFd<'_>>,
    ) -> Result<(Option<OwnedFd>, MovedDevices)> {
        let mut terminal = None;
        let mut devices = MovedDevices::default();
        criu.run(Kind::Restore, request, log, |news| match news.script.as_str() {
            "setup-namespaces" => {
                self.will_reap(news.pid);
                devices = self.set_up_network(news.pid, plan)?;
                self.run_hooks(news.pid, plan, cancelled)
            }
            "orphan-pts-master" => {
                terminal = news.fd;
                Ok(())
            }
            // Everything is there, and nothing runs yet.
            "post-restore" => {
                self.meet_init(news.pid)?;
                self.cgroup.apply(limits)
            }
            _ => Ok(()),
        })?;
        Ok((terminal, devices))
    }

    /// What is in a new network namespace before hooks see it.
    fn set_up_network(&self, init: Option<Pid>, plan: &Plan) -> Result<MovedDevices> {
        let Some(init) = init.filter(|_| plan.namespaces.is_new("network")) else {
            return Ok(MovedDevices::default());
        };
        let path = format!("/proc/{}/ns/net", init.as_raw_nonzero());
        let namespace = File::open(&path).at(&self.id, path)?.into();
        bring_loopback_up(&namespace).at(&self.id, "cannot bring the loopback device up")?;
        netdevices::move_into(&self.id, &plan.net_devices, init)
    }

    /// The hooks of `create` that run in the runtime's namespaces.
    fn run_hooks(&self, init: Option<Pid>, plan: &Plan, cancelled: Option<BorrowedFd<'_>>) -> Result<()> {
        let mut state = self.state.clone();
        state.init = init.and_then(|pid| ProcessId::of(pid).ok());
        let state = state.oci(Status::Creating).json();
        for hook in &plan.create_runtime_hooks {
            // Whoever deletes the container meanwhile kills CRIU.
            let client = self.criu.as_ref().map(AsFd::as_fd);
            let note = Some(self.directory()?.note_for_hook()?);
            let ran = hook.run_under(&state, &self.state.bundle, Watch { client, cancelled, note });
            ran.map_err(|source| Error::Hook { id: self.id.clone(), source })?;
        }
        Ok(())
    }

    /// Writes down which process is to be killed by who deletes the container meanwhile.
    fn note_criu(&mut self, criu: Pid) -> Result<()> {
        self.criu = Some(pidfd_open(criu, PidfdFlags::empty()).at(&self.id, "criu has ended")?);
        self.state.monitor = Some(ProcessId::of(criu).at(&self.id, "criu has ended")?);
        let directory = self.directory()?;
        directory.write_state(&self.state)?;
        directory.check_not_condemned()
    }

    /// The init is a child of this process from its first moment, which CRIU may not outlive.
    fn will_reap(&mut self, init: Option<Pid>) {
        self.init = init.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    }

    fn meet_init(&mut self, pid: Option<Pid>) -> Result<()> {
        let Some(pid) = pid else {
            return Err(Error::of_criu(&self.id, "restore", "criu has not told the init's pid"));
        };
        self.state.monitor = None;
        self.init = Some(pidfd_open(pid, PidfdFlags::empty()).at(&self.id, "the init has ended")?);
        self.state.init = Some(ProcessId::of(pid).at(&self.id, "the init has ended")?);
        self.cgroup.check_member(pid)
    }

    fn finish(mut self, pid_file: Option<&Path>, terminal: Option<OwnedFd>) -> Result<Container> {
        let (Some(process), Some(init)) = (self.state.init, self.init.take()) else {
            return Err(Error::of_criu(&self.id, "restore", "criu has restored no init"));
        };
        let directory = self.directory()?;
        let root = directory.path().join(ROOT);
        fs::remove_dir(&root).at(&self.id, format!("cannot remove {}", root.display()))?;
        directory.write_state(&self.state)?;
        if let Some(file) = pid_file {
            pid_file::write(&self.id, &self.state.bundle.join(file), process.pid)?;
        }
        let Some(mut directory) = self.directory.take() else {
            return Err(unable(&self.id, "restore", "the state directory is gone"));
        };
        directory.keep();
        directory.unlock();
        Ok(Container::restored(directory, self.state.clone(), init, terminal))
    }
}

/// Takes the cgroup for this container alone; systemd makes a unit once anyway.
fn claim(id: &ContainerId, cgroup: &Cgroup) -> Result<Option<Claim>> {
    if cgroup.is_none() || cgroup.is_in_unit() {
        return Ok(None);
    }
    match cgroup.claim()? {
        Some(claim) if claim.made => Ok(Some(claim)),
        _ => Err(refuse(id, "linux.cgroupsPath", format!("/{} exists already", cgroup.path()))),
    }
}

fn join_keyring(id: &ContainerId) -> Result<()> {
    let what = "the session keyring";
    let name = std::ffi::CString::new(id.keyring()).map_err(std::io::Error::other).at(id, what)?;
    kernel::join_session_keyring(&name).at(id, what)
}

impl Drop for Restoration {
    fn drop(&mut self) {
        let Some(directory) = self.directory.take() else { return };
        let _ = self.cgroup.kill_all();
        self.init.iter().for_each(process::kill_and_reap);
        for problem in self.cgroup.remove() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_tmp_is_needed_by_what_is_in_it_or_has_it_in_it() {
        let directory = tempfile::tempdir_in(TMP).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/usr", &link).unwrap();
        assert!(needs_tmp(directory.path()));
        assert!(needs_tmp(Path::new("/")));
        assert!(needs_tmp(Path::new("/no/such/place")));
        assert!(!needs_tmp(&link), "it leads elsewhere");
        assert!(!needs_tmp(Path::new("/usr")));
    }

    #[test]
    fn the_hosts_tmp_is_needed_by_what_a_configuration_of_criu_names() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("home");
        fs::create_dir_all(home.join(".criu")).unwrap();
        let [own, other] = ["own.conf", "other.conf"].map(|name| directory.path().join(name));
        let names_tmp = |own: Option<&Path>| {
            configurations_name_tmp(own.and_then(Path::to_str), |name| match name {
                "HOME" => Some(home.clone().into()),
                "CRIU_CONFIG_FILE" => Some(other.clone().into()),
                _ => None,
            })
        };
        fs::write(&own, "log-file restore.log\n").unwrap();
        assert!(!names_tmp(Some(&own)));
        for file in [&own, &other, &home.join(".criu/default.conf")] {
            fs::write(file, "log-file /tmp/restore.log\n").unwrap();
            assert!(names_tmp(Some(&own)), "{}", file.display());
            fs::remove_file(file).unwrap();
        }
        assert!(!names_tmp(None));
    }
}
