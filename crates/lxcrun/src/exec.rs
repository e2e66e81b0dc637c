//! `exec`: one more process in a running container.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};
use protocol::Channel;
use protocol::init::{CONTROL_FD, Exec, FdIndex, FromInit, Stdio as InitStdio, ToInit, WAITER, WAITER_FD};
use protocol::monitor::Exit;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::cgroup::Cgroup;
use crate::config::{CpuAffinity, exec_process, labels};
use crate::create::{FdTable, own_stdio};
use crate::error::{Context, refuse};
use crate::helper::Helper;
use crate::host::SecurityModules;
use crate::state::Status;
use crate::{Container, ContainerId, Error, Result, console, embedded, listener, pid_file, process};

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

/// A process of an exec: a child of this process.
#[derive(Debug)]
pub struct ExecProcess {
    id: ContainerId,
    pid: Pid,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
    waiter: Option<Waiter>,
}

/// A process that waits for that of an exec: protocol's `WAITER`.
#[derive(Debug)]
struct Waiter {
    process: Helper,
    /// What it says when the exec has ended.
    report: OwnedFd,
}

impl Waiter {
    /// How the exec has ended; the waiter ends with it.
    fn wait(&self, id: &ContainerId) -> Result<Exit> {
        let mut status = [0; 4];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&self.report, &mut status));
        let read = read.at(id, "cannot wait for the process");
        self.process.wait().at(id, "cannot wait for a helper process")?;
        // Nothing was said by one that was killed.
        if read? != status.len() {
            return Err(Error::StatusTaken { id: id.clone() });
        }
        Ok(Exit::of_status(i32::from_ne_bytes(status)))
    }
}

/// The process that joins the container, makes that of the exec, and ends.
enum HelperOfExec {
    Child(Helper),
    /// A child of the waiter's.
    Grandchild(Pid, OwnedFd),
}

impl HelperOfExec {
    fn pid(&self) -> Pid {
        match self {
            Self::Child(helper) => helper.pid(),
            Self::Grandchild(pid, _) => *pid,
        }
    }

    /// Waits for its end.
    fn wait(&self) -> io::Result<()> {
        match self {
            Self::Child(helper) => helper.wait(),
            Self::Grandchild(_, pidfd) => {
                let ended = || poll(&mut [PollFd::new(pidfd, PollFlags::IN)], None);
                Ok(rustix::io::retry_on_intr(ended).map(drop)?)
            }
        }
    }
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
        let (mut planned, rlimits) = exec_process(id, &spec, wanted, &self.state.raw_rlimits)?;
        // One that asks for nothing else is confined like the container's own program.
        let of_container = spec.process().as_ref().and_then(|p| p.apparmor_profile().as_ref());
        if self.state.apparmor_profile.is_some() && wanted.apparmor_profile().as_ref() == of_container {
            planned.apparmor_profile.clone_from(&self.state.apparmor_profile);
        }
        labels::settle(id, SecurityModules::probe(), &mut planned)?;
        let affinity = cpu_affinity(id, &spec, wanted)?;
        let mut fds = FdTable::default();
        if let InitStdio::Fds(_) = planned.stdio {
            let stdio = options
                .stdio
                .map_or_else(own_stdio, |fds| Ok(fds.into()))
                .at(id, "standard input and output")?;
            let indices: Vec<FdIndex> = stdio.into_iter().map(|fd| fds.push(fd)).collect();
            planned.stdio = InitStdio::Fds([indices[0], indices[1], indices[2]]);
        }
        planned.preserved = options.preserve_fds.into_iter().map(|fd| fds.push(fd)).collect();

        let init =
            self.init_pidfd()?.ok_or_else(|| Error::Exec { id: id.clone(), status: Status::Stopped })?;
        let root = self.root_beside_others(&spec).at(id, "the container's root")?.map(|root| fds.push(root));
        let request = Exec {
            container: fds.push(init),
            namespaces: self.other_namespaces().at(id, "the container's namespaces")?,
            root,
            keyring: (!self.state.no_new_keyring).then(|| format!("_ses.{id}")),
            process: planned,
        };
        // A process that is frozen says nothing until it is thawed.
        let cancelled = options.cancelled.filter(|_| status == Status::Paused);
        let cancelled = cancelled.as_ref();
        let (channel, helper_end) = Channel::pair().at(id, "no channel for the exec")?;
        channel.learn_senders().at(id, "no channel for the exec")?;
        let program = embedded::init().at(id, "cannot start a helper process")?;
        let mut helper_fds = vec![(helper_end.into(), CONTROL_FD)];
        let waits = options.shared_children && !kernel::statuses_outlive_reaping();
        let (report, name) = if waits {
            let (report, end) = pipe_with(PipeFlags::CLOEXEC).at(id, "no channel for the exec")?;
            helper_fds.push((end, WAITER_FD));
            (Some(report), WAITER)
        } else {
            (None, "lxcrun: exec")
        };
        let spawned =
            Helper::spawn(program, name, helper_fds, None).at(id, "cannot start a helper process")?;
        let mut cleanup =
            KillOnDrop { pid: Some(spawned.pid()), pidfd: None, cgroup: self.cgroup()?, waiter: None };
        let helper = match report {
            Some(report) => {
                // The helper is a child of what was spawned, and tells its pid.
                let (_, sender) = expect(id, &channel, None, |m| matches!(m, FromInit::Hello))?;
                let pid = sender.ok_or_else(|| refuse(id, "exec", "its pid is unknown"))?;
                let helper = pidfd_open(pid, PidfdFlags::empty()).at(id, "the exec has ended")?;
                cleanup.waiter = Some(Waiter { process: spawned, report });
                HelperOfExec::Grandchild(pid, helper)
            }
            None => HelperOfExec::Child(spawned),
        };
        let pid = helper.pid();
        cleanup.pid = Some(pid);
        set_affinity(id, pid, "initial", affinity.initial.as_ref())?;
        let beside = self.state.init.and_then(|init| Pid::from_raw(init.pid));
        self.cgroup()?.enter(pid, &options.cgroups, beside)?;
        if let Some(resctrl) = &self.state.resctrl {
            resctrl.enter(id, pid)?;
        }
        set_affinity(id, pid, "final", affinity.last.as_ref())?;
        if affinity.initial.is_none() && affinity.last.is_none() {
            process::reset_affinity(pid);
        }
        if cleanup.waiter.is_none() {
            expect(id, &channel, cancelled, |m| matches!(m, FromInit::Hello))?;
        }
        let sent = channel.send(&ToInit::Exec(Box::new(request)), &fds.borrowed());
        if let Err(e) = sent {
            // It has given up: what it said before tells why.
            expect(id, &channel, cancelled, |_| false)?;
            return Err(e).at(id, "the exec does not listen");
        }
        let (_, sender) = expect(id, &channel, cancelled, |m| matches!(m, FromInit::Hello))?;
        let pid = sender.ok_or_else(|| refuse(id, "exec", "its pid is unknown"))?;
        tracing::debug!("nsexec container setup is done; child process in init(): pid {pid}");
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(e) if process::is_gone(e) => {
                // Somebody else has waited for it already. What it said before tells why it has ended.
                helper.wait().at(id, "cannot wait for a helper process")?;
                cleanup.pid = None;
                expect(id, &channel, cancelled, |_| false)?;
                return Err(e).at(id, "the exec has ended");
            }
            opened => opened.at(id, "the exec's process")?,
        };
        helper.wait().at(id, "cannot wait for a helper process")?;
        cleanup.pid = Some(pid);
        cleanup.pidfd = Some(pidfd.try_clone().at(id, "the exec's process")?);

        let terminal =
            expect(id, &channel, cancelled, |m| matches!(m, FromInit::Ready))?.0.into_iter().next();
        process::set_rlimits(id, pid, &rlimits)?;
        process::set_oom_score_adj(id, pid, wanted.oom_score_adj())?;
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
            console::send_pidfd(id, socket, b"setns", &pidfd)?;
        }
        if let Some(file) = &options.pid_file {
            pid_file::write(id, file, pid.as_raw_nonzero().get())?;
        }
        tracing::debug!("setns_init: about to exec {:?}", wanted.args().as_deref().unwrap_or_default());
        unless_gone(channel.send(&ToInit::Proceed, &[])).at(id, "the exec does not listen")?;
        until_it_speaks(id, &channel, cancelled)?;
        while let Some(received) =
            unless_gone(channel.receive::<FromInit>()).at(id, "the exec's message")?.flatten()
        {
            match (received.message, received.fds.first()) {
                (FromInit::Failed(failure), _) => return Err(Error::Init { id: id.clone(), failure }),
                (FromInit::Listener, Some(listener)) => {
                    let pid = pid.as_raw_nonzero().get();
                    listener::send(id, &spec, &self.oci_state(), pid, listener)?;
                    channel.send(&ToInit::Proceed, &[]).at(id, "the exec does not listen")?;
                }
                (message, _) => return Err(out_of_turn(id, &message)),
            }
        }
        // The exec has closed it.
        cleanup.pid = None;
        let waiter = cleanup.waiter.take();
        Ok(ExecProcess { id: id.clone(), pid, pidfd, terminal, waiter })
    }

    /// The root of a container whose mount namespace is not its own: there, others have another.
    fn root_beside_others(&self, spec: &Spec) -> io::Result<Option<OwnedFd>> {
        let mut namespaces = spec.linux().iter().flat_map(|linux| linux.namespaces().iter().flatten());
        let mount = namespaces.find(|namespace| namespace.typ() == LinuxNamespaceType::Mount);
        if mount.is_some_and(|mount| mount.path().as_ref().is_none_or(|path| path.as_os_str().is_empty())) {
            return Ok(None);
        }
        let path = format!("/proc/{}/root", self.init_pid().unwrap_or(0));
        Ok(Some(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Those namespaces of the container that this process is not in already.
    fn other_namespaces(&self) -> io::Result<u32> {
        let pid = self.init_pid().unwrap_or(0);
        let mut flags = 0;
        for (name, flag) in NAMESPACES {
            let own = match std::fs::read_link(format!("/proc/self/ns/{name}")) {
                // This kernel has no such namespaces.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                own => own?,
            };
            if own != std::fs::read_link(format!("/proc/{pid}/ns/{name}"))? {
                flags |= flag.unsigned_abs();
            }
        }
        Ok(flags)
    }
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

/// Waits for one message of the init; its failure is the error.
fn expect(
    id: &ContainerId,
    channel: &Channel,
    cancelled: Option<&OwnedFd>,
    wanted: impl Fn(&FromInit) -> bool,
) -> Result<(Vec<OwnedFd>, Option<Pid>)> {
    until_it_speaks(id, channel, cancelled)?;
    match channel.receive::<FromInit>().at(id, "the exec's message")? {
        Some(received) => match received.message {
            FromInit::Failed(failure) => Err(Error::Init { id: id.clone(), failure }),
            message if wanted(&message) => Ok((received.fds, received.sender)),
            message => Err(out_of_turn(id, &message)),
        },
        None => Err(refuse(id, "exec", "its process ended early: the container may have ended")),
    }
}

fn until_it_speaks(id: &ContainerId, channel: &Channel, cancelled: Option<&OwnedFd>) -> Result<()> {
    if process::until_readable(channel, cancelled).at(id, "cannot wait for the exec")? {
        return Ok(());
    }
    Err(refuse(id, "exec", process::CANCELLED))
}

/// Whoever has the pidfd may have killed the process by now: then it says nothing, and its end tells how.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(None),
        result => result.map(Some),
    }
}

fn out_of_turn(id: &ContainerId, message: &FromInit) -> Error {
    refuse(id, "exec", format!("its process said {message:?} out of turn"))
}

/// Kills and reaps a child that is not wanted any more.
struct KillOnDrop<'a> {
    pid: Option<Pid>,
    /// The same, if it may be waited for by others: then its number may be somebody else's by now.
    pidfd: Option<OwnedFd>,
    /// Where it may be frozen.
    cgroup: &'a Cgroup,
    /// Who waits for it instead of us.
    waiter: Option<Waiter>,
}

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        let is_exec = self.pidfd.is_some();
        if let Some(pid) = self.pid
            && let Some(pidfd) = self.pidfd.take().or_else(|| pidfd_open(pid, PidfdFlags::empty()).ok())
        {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            // The container stays frozen; who leaves it is not.
            self.cgroup.leave_freezer(pid);
            // A caller's signals may come at any moment; a zombie of ours would stay in it.
            let _ = rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED));
        }
        let Some(waiter) = &self.waiter else { return };
        // It ends with those that it waits for. After the helper alone there may be one that ends only with our channel.
        if self.pid.is_some()
            && !is_exec
            && let Ok(pidfd) = pidfd_open(waiter.process.pid(), PidfdFlags::empty())
        {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
        let _ = waiter.process.wait();
    }
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

    /// Waits for its end.
    ///
    /// # Errors
    /// [`Error::StatusTaken`] when this program ignores SIGCHLD, or somebody else in it has waited for the process: see
    /// [`ExecOptions::shared_children`].
    pub fn wait(&self) -> Result<Exit> {
        match &self.waiter {
            Some(waiter) => waiter.wait(&self.id),
            None => process::wait_for_child(&self.id, &self.pidfd),
        }
    }
}
