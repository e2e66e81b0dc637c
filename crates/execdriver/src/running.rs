//! From a specification to an exit status: one container, or one exec, in one call.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lxcrun::oci_spec::runtime::{Process, Spec};
use lxcrun::{Bundle, Container, ContainerId, CreateOptions, ExecOptions, ExecProcess, Exit, Signal, Status};

use crate::driver::StartCallback;
use crate::error::{Error, Result};
use crate::fields::{in_command, in_process};
use crate::pump::Pump;
use crate::{Command, ExitStatus, Pipes, Started, Terminal};

/// The file in a container's directory that says when its program was executed.
const STARTED: &str = "started";

/// Runs a container and removes it. `joined` are the namespaces that the specification refers to, held open.
pub(crate) fn run(
    root: &Path,
    command: &Command,
    spec: &Spec,
    joined: Vec<OwnedFd>,
    pipes: Pipes<'_>,
    start: &mut StartCallback<'_>,
) -> Result<ExitStatus> {
    let id = &command.id;
    let bundle = Bundle::from_spec(&command.rootfs, spec)?;
    let mut options =
        CreateOptions { keep_monitor: true, lxc_config: command.lxc_keys()?, ..CreateOptions::default() };
    let streams = Streams::open(id, pipes, command.process_config.tty, &mut options.stdio)?;
    let mut made = Made {
        container: Some(
            lxcrun::create(root, id, &bundle, options).map_err(|e| in_command(command, spec, e))?,
        ),
        ended: false,
    };
    let container = made.container(root, id)?;
    drop(joined);
    let (terminal, mut pump) = streams.connect(id, container.take_terminal())?;
    pump.give_to(owner_on_host(container.init_pid(), spec.process().as_ref()))
        .map_err(pipes_error(id, "cannot give it its pipes"))?;
    let warn = |e: &lxcrun::Error| tracing::warn!("no out-of-memory kill will be noticed: {e}");
    let oom = container.watch_oom().inspect_err(warn).ok();
    if let Err(error) = container.start() {
        return Err(if was_killed(container, &error) && !oom.is_some_and(|oom| oom.happened()) {
            lxcrun::Error::Deleted { id: id.clone() }.into()
        } else {
            in_command(command, spec, error)
        });
    }

    record_start(root, id);
    pump.feed().map_err(pipes_error(id, "cannot read its input"))?;
    start(Started { pid: container.init_pid().unwrap_or(0), terminal });
    if let Some(end) = container.end() {
        pump.until(end, oom.as_ref()).map_err(pipes_error(id, "cannot copy its output"))?;
    }
    let exit = container.wait();
    made.ended = true;
    let status = ExitStatus::new(id, exit?, oom.is_some_and(|oom| oom.happened()));
    // Whoever is left of it in a shared PID namespace dies here, and nobody writes to the pipes any more. What can't
    // be done about the rest is no reason to forget how it ended.
    drop(made);
    if let Err(e) = pump.drain() {
        tracing::warn!("container {id}: the end of its output is lost: {e}");
    }
    Ok(status)
}

/// Whether `start` failed because somebody has killed the container that waited for it.
fn was_killed(container: &mut Container, error: &lxcrun::Error) -> bool {
    // Not of a program that can't be executed, which says so itself, nor of a hook.
    let unexplained = error.exit_code().is_none()
        && !matches!(error, lxcrun::Error::Hook { .. } | lxcrun::Error::State { .. });
    unexplained
        && container.status() == Status::Stopped
        && matches!(container.wait(), Ok(Exit::Signal(signal)) if i32::from(signal) == Signal::KILL.as_raw())
}

/// Runs one more process in a container.
pub(crate) fn exec(
    container: &Container,
    process: &Process,
    pipes: Pipes<'_>,
    start: &mut StartCallback<'_>,
) -> Result<ExitStatus> {
    let id = container.id();
    // A daemon may have children of its own, and wait for them as it likes.
    let mut options = ExecOptions { shared_children: true, ..ExecOptions::default() };
    let streams = Streams::open(id, pipes, process.terminal().unwrap_or(false), &mut options.stdio)?;
    streams
        .give_to(owner_on_host(container.init_pid(), Some(process)))
        .map_err(pipes_error(id, "cannot give an exec its pipes"))?;
    let oom_kills = container.oom_kills()?;
    let mut joined = Joined { process: container.exec(process, options).map_err(in_process)?, ended: false };
    let (terminal, mut pump) = streams.connect(id, joined.process.take_terminal())?;

    pump.feed().map_err(pipes_error(id, "cannot read its input"))?;
    start(Started { pid: joined.process.pid(), terminal });
    pump.until(joined.process.pidfd(), None).map_err(pipes_error(id, "cannot copy its output"))?;
    let exit = joined.wait()?;
    if let Err(e) = pump.drain() {
        tracing::warn!("container {id}: the end of an exec's output is lost: {e}");
    }
    let killed = matches!(exit, Exit::Signal(signal) if i32::from(signal) == Signal::KILL.as_raw());
    Ok(ExitStatus::new(id, exit, killed && container.oom_kills().is_ok_and(|now| now > oom_kills)))
}

/// The host's numbers for the user and the group of a process in the user namespace of process `init`; none where the
/// numbers are the same, because the process is given its pipes by the init then.
fn owner_on_host(init: Option<i32>, process: Option<&Process>) -> Option<(u32, u32)> {
    let (init, user) = (init?, process?.user());
    let on_host = |file: &str, id: u32| {
        kernel::outside_of(&fs::read_to_string(format!("/proc/{init}/{file}")).ok()?, id)
    };
    let inside = (user.uid(), user.gid());
    Some((on_host("uid_map", inside.0)?, on_host("gid_map", inside.1)?)).filter(|outside| *outside != inside)
}

/// When the container's program was executed.
pub(crate) fn started(root: &Path, id: &ContainerId) -> Option<SystemTime> {
    humantime::parse_rfc3339(fs::read_to_string(start_record(root, id)).ok()?.trim()).ok()
}

fn start_record(root: &Path, id: &ContainerId) -> PathBuf {
    root.join(id.as_str()).join(STARTED)
}

/// The record is for people: a container runs as well without.
fn record_start(root: &Path, id: &ContainerId) {
    let now = humantime::format_rfc3339_nanos(SystemTime::now()).to_string();
    let path = start_record(root, id);
    let temporary = path.with_file_name(format!(".{STARTED}"));
    let written = fs::write(&temporary, now).and_then(|()| fs::rename(temporary, path));
    // It may have ended, and somebody may have cleaned up after it.
    if let Err(e) = written
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("container {id}: cannot record its start: {e}");
    }
}

fn pipes_error(id: &ContainerId, what: &'static str) -> impl FnOnce(io::Error) -> Error {
    let id = id.clone();
    move |source| Error::Pipes { id, what, source }
}

/// A process's streams before it is there.
enum Streams<'io> {
    Opened(Pump<'io>),
    ForTerminal(Pipes<'io>),
}

impl<'io> Streams<'io> {
    /// Opens what a process without a terminal gets into `stdio`.
    fn open(
        id: &ContainerId,
        pipes: Pipes<'io>,
        tty: bool,
        stdio: &mut Option<[OwnedFd; 3]>,
    ) -> Result<Self> {
        if tty {
            return Ok(Self::ForTerminal(pipes));
        }
        let (fds, pump) = pipes.open().map_err(pipes_error(id, "cannot open its pipes"))?;
        *stdio = Some(fds);
        Ok(Self::Opened(pump))
    }

    /// [`Pump::give_to`]
    fn give_to(&self, owner: Option<(u32, u32)>) -> io::Result<()> {
        match self {
            Self::Opened(pump) => pump.give_to(owner),
            Self::ForTerminal(_) => Ok(()),
        }
    }

    /// The rest, when the terminal is there.
    fn connect(self, id: &ContainerId, master: Option<OwnedFd>) -> Result<(Option<Terminal>, Pump<'io>)> {
        let failed = pipes_error(id, "cannot use its terminal");
        match (self, master) {
            (Self::Opened(pump), _) => Ok((None, pump)),
            (Self::ForTerminal(pipes), Some(master)) => {
                let (terminal, pump) = pipes.open_terminal(master).map_err(failed)?;
                Ok((Some(terminal), pump))
            }
            (Self::ForTerminal(_), None) => Err(failed(io::Error::other("there is none"))),
        }
    }
}

/// A container of this call. However the call ends, nothing of it is left. It is removed by its handle: by then its id may
/// be that of another one.
struct Made {
    container: Option<Container>,
    ended: bool,
}

impl Made {
    fn container(&mut self, root: &Path, id: &ContainerId) -> Result<&mut Container> {
        let gone = || lxcrun::Error::NotFound { id: id.clone(), root: root.into() };
        Ok(self.container.as_mut().ok_or_else(gone)?)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let Some(mut container) = self.container.take() else { return };
        if !self.ended {
            let _ = container.kill(Signal::KILL);
            let _ = container.wait();
        }
        if let Err(e) = container.delete() {
            tracing::error!("{e}");
        }
    }
}

/// A process of an exec of this call, likewise.
struct Joined {
    process: ExecProcess,
    ended: bool,
}

impl Joined {
    fn wait(&mut self) -> Result<Exit> {
        self.ended = true;
        Ok(self.process.wait()?)
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.process.kill(Signal::KILL);
            let _ = self.process.wait();
        }
    }
}
