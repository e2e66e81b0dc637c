//! A container between nothing and restored.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use oci_spec::runtime::{LinuxResources, Spec};
use protocol::{Hook, Watch};
use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, mount, mount_change, move_mount};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::set_thread_groups;

use super::RestoreOptions;
use super::paths::{TMP, needs_tmp};
use crate::cgroup::{Cgroup, Claim};
use crate::checkpoint;
use crate::config::{HookKind, Plan, hooks};
use crate::create::own_stdio;
use crate::criu::rpc::{Kind, Options};
use crate::criu::{self, Criu, Directory};
use crate::delete::run_poststop_hooks;
use crate::error::{Context, refuse, unable};
use crate::netdevices::{MovedDevices, bring_loopback_up};
use crate::state::{ProcessId, State, Status};
use crate::state_dir::StateDir;
use crate::{Bundle, Container, ContainerId, Error, Host, Result, netdevices, pid_file, process};

/// Where CRIU finds the root, below the container's directory.
const ROOT: &str = "criu.root";

/// A container that is being restored. Dropped before it is finished, it takes everything with it.
pub(super) struct Restoration {
    id: ContainerId,
    directory: Option<StateDir>,
    state: State,
    pub(super) cgroup: Cgroup,
    /// Keeps others out of it until the processes are in.
    claim: Option<Claim>,
    /// Whether systemd has made the unit for it, and not for somebody else.
    unit_started: bool,
    /// A pidfd of CRIU, and of the restored init.
    criu: Option<OwnedFd>,
    init: Option<OwnedFd>,
    poststop: Vec<Hook>,
}

impl Restoration {
    pub(super) fn begin(
        root: &Path,
        id: &ContainerId,
        bundle: &Bundle,
        plan: &Plan,
        host: &Host,
    ) -> Result<Self> {
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
            claim,
            unit_started: false,
            criu: None,
            init: None,
            poststop,
        };
        restoration.directory()?.write_state(&restoration.state)?;
        Ok(restoration)
    }

    /// Standard input, output and error, and their names for the next checkpoint.
    pub(super) fn take_stdio(&mut self, given: Option<[OwnedFd; 3]>, plan: &Plan) -> Result<Vec<OwnedFd>> {
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
    pub(super) fn make_cgroup(&mut self, spec: &Spec, criu: Pid, limits: &LinuxResources) -> Result<()> {
        if let Some(unit) = &self.state.unit {
            unit.start(&self.id, spec, criu.as_raw_nonzero().get().unsigned_abs())?;
            self.unit_started = true;
            self.cgroup.fill_unit();
        }
        if !self.cgroup.is_of_unit() {
            self.cgroup.make()?;
            self.cgroup.enter(criu, &[], None)?;
            if self.state.unit.is_some() {
                // A unit with a process of its own passes no controllers down.
                self.cgroup.make()?;
            }
        }
        self.cgroup.apply(limits)
    }

    fn directory(&self) -> Result<&StateDir> {
        self.directory.as_ref().ok_or_else(|| unable(&self.id, "restore", "the state directory is gone"))
    }

    /// Where CRIU finds the root.
    pub(super) fn root(&self) -> Result<PathBuf> {
        Ok(self.directory()?.path().join(ROOT))
    }

    /// Starts CRIU in a mount namespace where `tree` is at [`ROOT`], with the session keyring of the container: the
    /// processes will have it, and not that of our caller.
    ///
    /// A thread has these for itself; the one made here gives them to CRIU and ends. CRIU's directories are opened in
    /// that namespace, too: it mounts something in one of them. It makes a directory in /tmp, which stays when it is killed: so
    /// that is one of its own, unless a path that is `needed` leads to the host's.
    pub(super) fn spawn_criu(
        &self,
        tree: OwnedFd,
        inherited: Vec<OwnedFd>,
        needed: &[PathBuf],
        options: &RestoreOptions,
    ) -> Result<(Criu, Directory, Directory)> {
        let root = self.root()?;
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
    pub(super) fn run_criu(
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
    pub(super) fn note_criu(&mut self, criu: Pid) -> Result<()> {
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

    pub(super) fn finish(mut self, pid_file: Option<&Path>, terminal: Option<OwnedFd>) -> Result<Container> {
        let (Some(process), Some(init)) = (self.state.init, self.init.take()) else {
            return Err(Error::of_criu(&self.id, "restore", "criu has restored no init"));
        };
        let root = self.root()?;
        fs::remove_dir(&root).at(&self.id, format!("cannot remove {}", root.display()))?;
        self.directory()?.write_state(&self.state)?;
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
    if cgroup.is_none() || cgroup.has_unit() {
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
        let ours = self.claim.is_some() || self.unit_started;
        if ours {
            let _ = self.cgroup.kill_all();
        }
        self.init.iter().for_each(process::kill_and_reap);
        for problem in ours.then_some(&self.cgroup).into_iter().flat_map(Cgroup::remove) {
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
