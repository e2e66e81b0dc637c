//! `exec`: one more process in a running container.

mod joining;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};
use protocol::init::{Exec, FdIndex, Stdio};
use protocol::monitor::Exit;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, pidfd_send_signal};
use rustix::thread::{CpuSet, sched_setaffinity};

use self::joining::{Joining, Waiter};
use crate::config::{CpuAffinity, Rlimit, exec_process, labels};
use crate::create::{FdTable, own_stdio};
use crate::error::{Context, refuse};
use crate::host::SecurityModules;
use crate::state::Status;
use crate::{Container, ContainerId, Error, Result, console, listener, pid_file, process};

/// What an exec is asked for besides its process.
#[derive(Debug, Default)]
pub struct ExecOptions {
    /// Standard input, output and error without a terminal; those of this process by default.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Where to send the master of the terminal.
    pub console_socket: Option<PathBuf>,
    /// Where to send a pidfd of the process.
    pub pidfd_socket: Option<PathBuf>,
    /// Have the terminal leave LF as it is and not make CR LF of it: for output that goes to another terminal, which does
    /// that, or to a file. For a terminal that is not sent to a console socket.
    pub plain_newlines: bool,
    /// Where to write the pid.
    pub pid_file: Option<PathBuf>,
    /// Descriptors that the process gets from 3 on.
    pub preserve_fds: Vec<OwnedFd>,
    /// Cgroups below the container's to put it into: `PATH`, or `CONTROLLER:PATH` for one hierarchy of version 1.
    pub cgroups: Vec<String>,
    /// Go on although the container is paused: the process runs when it is resumed.
    pub ignore_paused: bool,
    /// This program may ignore SIGCHLD, or wait for children that it does not know (waitpid(2) with -1, as a subreaper does).
    /// Where the kernel forgets then how the process has ended, before Linux 6.15, one of our own waits for it.
    pub shared_children: bool,
    /// Becomes readable when nobody wants the process of a paused container any more.
    pub cancelled: Option<OwnedFd>,
}

/// A process of an exec: a child of this process. Dropped it runs on, and nobody has waited for it.
#[derive(Debug)]
pub struct ExecProcess {
    id: ContainerId,
    pid: Pid,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
    waiter: Option<Waiter>,
    /// How it has ended. That is told once: whoever asks for it holds the lock until it knows.
    ended: Mutex<Option<Exit>>,
}

/// The namespaces of a process, by their files and their flags: namespaces(7).
const NAMESPACES: [(&str, i32); 8] = [
    ("user", libc::CLONE_NEWUSER),
    ("mnt", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("uts", libc::CLONE_NEWUTS),
    ("ipc", libc::CLONE_NEWIPC),
    ("net", libc::CLONE_NEWNET),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("time", libc::CLONE_NEWTIME),
];

impl Container {
    /// The process of an exec that says nothing else: the container's own environment, directory, user and rights.
    ///
    /// # Errors
    /// [`Error::State`] when the specification was not kept.
    pub fn default_process(&self) -> Result<Process> {
        self.directory.spec()?.process().clone().ok_or_else(|| refuse(self.id(), "process", "is missing"))
    }

    /// Executes a program in the container: in all its namespaces and cgroups, under its seccomp filter.
    ///
    /// # Errors
    /// [`Error::Exec`] unless it is running or created, [`Error::Spec`] for what is wrong with `wanted`,
    /// [`Error::Init`] when the program can't be executed.
    pub fn exec(&self, wanted: &Process, options: ExecOptions) -> Result<ExecProcess> {
        let status = self.status();
        match status {
            Status::Running | Status::Created => {}
            Status::Paused if options.ignore_paused => {}
            status => return Err(Error::Exec { id: self.id().clone(), status }),
        }
        let id = self.id();
        let spec = self.directory.spec()?;
        let wanted = &with_rights_of_container(wanted, spec.process().as_ref());
        let affinity = cpu_affinity(id, &spec, wanted)?;
        let mut fds = FdTable::default();
        let (plan, rlimits) = self.plan_exec(&spec, wanted, options.stdio, options.preserve_fds, &mut fds)?;
        // A process that is frozen says nothing until it is thawed.
        let cancelled = options.cancelled.filter(|_| status == Status::Paused);

        let mut joining = Joining::begin(id, self.cgroup()?, options.shared_children, cancelled)?;
        let pid = joining.join(plan, &fds)?;
        drop(fds);
        let admitted = self.admit(pid, &affinity, &options.cgroups);
        let terminal = joining.unless_it_has_ended(admitted)?.get_ready()?;
        process::set_rlimits(id, pid, &rlimits)?;
        process::set_oom_score_adj(id, pid, wanted.oom_score_adj())?;
        let terminal =
            console::hand_over(id, terminal, options.console_socket.as_deref(), options.plain_newlines)?;
        if let Some(socket) = &options.pidfd_socket {
            console::send_pidfd(id, socket, b"setns", joining.pidfd()?)?;
        }
        if let Some(file) = &options.pid_file {
            pid_file::write(id, file, pid.as_raw_nonzero().get())?;
        }
        tracing::debug!("setns_init: about to exec {:?}", wanted.args().as_deref().unwrap_or_default());
        joining.become_program(|listener| {
            listener::send(id, &spec, &self.oci_state(), pid.as_raw_nonzero().get(), listener)
        })?;
        joining.into_process(terminal)
    }

    /// What the process is asked for, with the descriptors that it needs, and the limits that it is given from outside.
    fn plan_exec(
        &self,
        spec: &Spec,
        wanted: &Process,
        stdio: Option<[OwnedFd; 3]>,
        preserved: Vec<OwnedFd>,
        fds: &mut FdTable,
    ) -> Result<(Exec, Vec<Rlimit>)> {
        let id = self.id();
        let (mut process, rlimits) = exec_process(id, spec, wanted, &self.state.raw_rlimits)?;
        // One that asks for nothing else is confined like the container's own program.
        let of_container = spec.process().as_ref().and_then(|p| p.apparmor_profile().as_ref());
        if self.state.apparmor_profile.is_some() && wanted.apparmor_profile().as_ref() == of_container {
            process.apparmor_profile.clone_from(&self.state.apparmor_profile);
        }
        labels::settle(id, SecurityModules::probe(), &mut process)?;
        if let Stdio::Fds(_) = process.stdio {
            let stdio = stdio.map_or_else(own_stdio, |fds| Ok(fds.into()));
            let stdio = stdio.at(id, "standard input and output")?;
            let indices: Vec<FdIndex> = stdio.into_iter().map(|fd| fds.push(fd)).collect();
            process.stdio = Stdio::Fds([indices[0], indices[1], indices[2]]);
        }
        process.preserved = preserved.into_iter().map(|fd| fds.push(fd)).collect();
        let stopped = || Error::Exec { id: id.clone(), status: Status::Stopped };
        let (init, pid) = self.init_pidfd()?.zip(self.init_pid()).ok_or_else(stopped)?;
        let root = root_beside_others(spec, pid).at(id, "the container's root")?;
        let namespaces = other_namespaces(pid).at(id, "the container's namespaces")?;
        // What was found by the number of the init is the init's if it lives afterwards.
        if process::has_ended(&init) {
            return Err(stopped());
        }
        let plan = Exec {
            container: fds.push(init),
            namespaces,
            root: root.map(|root| fds.push(root)),
            keyring: (!self.state.no_new_keyring).then(|| id.keyring()),
            process,
        };
        Ok((plan, rlimits))
    }

    /// Puts the process into the container's cgroups and its class of resctrl, on the processors that are wanted.
    fn admit(&self, pid: Pid, affinity: &CpuAffinity, below: &[String]) -> Result<()> {
        let id = self.id();
        set_affinity(id, pid, "initial", affinity.initial.as_ref())?;
        let init = self.state.init.and_then(|init| Pid::from_raw(init.pid));
        self.cgroup()?.enter(pid, below, init)?;
        if let Some(resctrl) = &self.state.resctrl {
            resctrl.enter(id, pid)?;
        }
        set_affinity(id, pid, "final", affinity.last.as_ref())?;
        if affinity.initial.is_none() && affinity.last.is_none() {
            process::reset_affinity(pid);
        }
        Ok(())
    }
}

/// The root of a container whose mount namespace is not its own: there, others have another.
fn root_beside_others(spec: &Spec, init: i32) -> io::Result<Option<OwnedFd>> {
    let mut namespaces = spec.linux().iter().flat_map(|linux| linux.namespaces().iter().flatten());
    let mount = namespaces.find(|namespace| namespace.typ() == LinuxNamespaceType::Mount);
    if mount.is_some_and(|mount| mount.path().as_ref().is_none_or(|path| path.as_os_str().is_empty())) {
        return Ok(None);
    }
    let path = format!("/proc/{init}/root");
    Ok(Some(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?))
}

/// Those namespaces of the container that this process is not in already.
fn other_namespaces(init: i32) -> io::Result<u32> {
    let mut flags = 0;
    for (name, flag) in NAMESPACES {
        let own = match std::fs::read_link(format!("/proc/self/ns/{name}")) {
            // This kernel has no such namespaces.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            own => own?,
        };
        if own != std::fs::read_link(format!("/proc/{init}/ns/{name}"))? {
            flags |= flag.unsigned_abs();
        }
    }
    Ok(flags)
}

/// What a process says nothing of is as in the container's own, as in runc: it has no more rights, and is confined alike.
fn with_rights_of_container(wanted: &Process, of_container: Option<&Process>) -> Process {
    let mut wanted = wanted.clone();
    let Some(first) = of_container else { return wanted };
    if wanted.capabilities().is_none() {
        wanted.set_capabilities(first.capabilities().clone());
    }
    if wanted.apparmor_profile().as_ref().is_none_or(String::is_empty) {
        wanted.set_apparmor_profile(first.apparmor_profile().clone());
    }
    if wanted.selinux_label().as_ref().is_none_or(String::is_empty) {
        wanted.set_selinux_label(first.selinux_label().clone());
    }
    if wanted.scheduler().is_none() {
        wanted.set_scheduler(first.scheduler().clone());
    }
    if wanted.io_priority().is_none() {
        wanted.set_io_priority(*first.io_priority());
    }
    wanted
}

/// That of the exec, else that of the container.
fn cpu_affinity(id: &ContainerId, spec: &Spec, wanted: &Process) -> Result<CpuAffinity> {
    let of_container = spec.process().as_ref().and_then(|p| p.exec_cpu_affinity().as_ref());
    match wanted.exec_cpu_affinity().as_ref().or(of_container) {
        Some(affinity) => CpuAffinity::new(id, affinity),
        None => Ok(CpuAffinity::default()),
    }
}

fn set_affinity(id: &ContainerId, pid: Pid, which: &str, cpus: Option<&CpuSet>) -> Result<()> {
    let Some(cpus) = cpus else { return Ok(()) };
    sched_setaffinity(Some(pid), cpus).map_err(|e| {
        refuse(id, format!("process.execCPUAffinity.{which}"), io::Error::from(e).to_string())
    })?;
    let mask = (0..128).filter(|cpu| cpus.is_set(*cpu)).fold(0_u128, |mask, cpu| mask | 1 << cpu);
    tracing::debug!("nsexec has set the {which} processors: affinity: {mask:#x}");
    Ok(())
}

impl ExecProcess {
    /// Its pid in this PID namespace.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Readable when it has ended.
    #[must_use]
    pub fn pidfd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The master of its terminal, when it was not sent to a console socket.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// [`Error::Io`] when it has ended.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        pidfd_send_signal(&self.pidfd, signal).at(&self.id, "cannot signal the process")
    }

    /// Waits for its end. Any number of threads may do so at once, and all are told the same.
    ///
    /// # Errors
    /// [`Error::StatusTaken`] when this program ignores SIGCHLD, or somebody else in it has waited for the process: see
    /// [`ExecOptions::shared_children`].
    pub fn wait(&self) -> Result<Exit> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(exit) = *ended {
            return Ok(exit);
        }
        let exit = match &self.waiter {
            Some(waiter) => waiter.wait(&self.id)?,
            None => process::wait_for_child(&self.id, &self.pidfd)?,
        };
        Ok(*ended.insert(exit))
    }
}
