//! The monitor process, seen from outside.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use protocol::Channel;
use protocol::monitor::{AboutLiblxc, CONTROL_FD, Exit, FromMonitor, INIT_FD, StartRequest, ToMonitor};

use crate::error::Context;
use crate::helper::Helper;
use crate::state::ProcessId;
use crate::{ContainerId, Error, Result, embedded, rootless};

/// A monitor, waiting for its request or at work.
#[derive(Debug)]
pub(crate) struct Monitor {
    id: ContainerId,
    process: Helper,
    control: Channel,
    /// Whether the container's init is a program of its own. In a user namespace it has to be.
    executes_init: bool,
}

impl Monitor {
    /// Spawns a monitor that waits for a request. It will start an init that has `init_channel`.
    pub(crate) fn spawn(
        id: &ContainerId,
        root: &Path,
        init_channel: Channel,
        executes_init: bool,
    ) -> Result<Self> {
        let what = "cannot start the monitor";
        let (control, child_control) = Channel::pair().at(id, what)?;
        let mappings = vec![(child_control.into(), CONTROL_FD), (init_channel.into(), INIT_FD)];
        let program = if executes_init { embedded::unseen_monitor() } else { embedded::monitor() };
        let program = program.at(id, what)?;
        let name = format!("lxcrun: monitor of {id}");
        let process = Helper::spawn(program, &name, mappings, lock_directory(root)).at(id, what)?;
        Ok(Self { id: id.clone(), process, control, executes_init })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid().as_raw_pid().unsigned_abs()
    }

    pub(crate) fn process(&self) -> Result<ProcessId> {
        ProcessId::of(self.process.pid()).at(&self.id, "the monitor has ended")
    }

    /// Whether the init is a program of its own.
    pub(crate) fn executes_init(&self) -> bool {
        self.executes_init
    }

    /// `user_namespace` is one for the monitor to join.
    pub(crate) fn start(&self, request: StartRequest, user_namespace: Option<&OwnedFd>) -> Result<()> {
        let program = request.init_program.then(embedded::init).transpose();
        let program = program.at(&self.id, "cannot start the init")?;
        let fds: Vec<BorrowedFd<'_>> = user_namespace.into_iter().chain(&program).map(AsFd::as_fd).collect();
        self.control.send(&ToMonitor::Start(request), &fds).at(&self.id, "the monitor does not listen")
    }

    /// Becomes readable when the monitor has something to say, or has ended.
    pub(crate) fn news(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// Why the container did not come up. `log` is the end of liblxc's.
    pub(crate) fn reason(&self, log: impl Fn() -> String) -> Error {
        let id = self.id.clone();
        match self.control.receive::<FromMonitor>().ok().flatten().map(|r| r.message) {
            Some(FromMonitor::Refused(item)) => {
                Error::Refused { id, field: item.field, key: item.key, value: item.value, log: log() }
            }
            Some(FromMonitor::Failed(reason)) => Error::Liblxc { id, reason, log: log() },
            Some(FromMonitor::Exited(exit)) => {
                Error::Liblxc { id, reason: format!("the init ended early ({exit:?})"), log: log() }
            }
            Some(FromMonitor::Liblxc(_)) | None => {
                Error::Liblxc { id, reason: "the monitor ended early".into(), log: log() }
            }
        }
    }

    /// Tells it which process is the init, and whether to end with it: for a container that needs nothing of liblxc at the end.
    pub(crate) fn meet_init(&self, pid: i32, end_with_it: bool) -> Result<()> {
        self.control
            .send(&ToMonitor::Init { pid, end_with_it }, &[])
            .at(&self.id, "the monitor does not listen")
    }

    /// Waits for the end of the container; `None` when somebody has killed the monitor.
    pub(crate) fn wait(&self) -> Result<Option<Exit>> {
        let said = self.control.receive::<FromMonitor>();
        self.process.wait().at(&self.id, "cannot wait for the monitor")?;
        match said {
            Ok(Some(received)) => match received.message {
                FromMonitor::Exited(exit) => Ok(Some(exit)),
                other => Err(Error::Liblxc {
                    id: self.id.clone(),
                    reason: format!("{other:?}"),
                    log: String::new(),
                }),
            },
            Ok(None) | Err(_) => Ok(None),
        }
    }

    /// Ends it, and returns when it has ended. liblxc has nothing left to do once the init is at its gate.
    pub(crate) fn retire(self) -> Result<()> {
        self.process.kill();
        self.process.wait().at(&self.id, "cannot wait for the monitor")
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.process.pidfd()
    }
}

/// Tells liblxc where to make its lock files: an ordinary user may not at the usual place.
fn lock_directory(root: &Path) -> Option<(&'static str, PathBuf)> {
    rootless::is_ordinary_user().then(|| (RUN_DIRECTORY, run_directory(root)))
}

const RUN_DIRECTORY: &str = "XDG_RUNTIME_DIR";

/// Where liblxc and LXC's tools have `lxc/lock`.
pub(crate) fn run_directory(root: &Path) -> PathBuf {
    let own = || std::env::var_os(RUN_DIRECTORY).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    if rootless::is_ordinary_user() { own().unwrap_or_else(|| root.into()) } else { "/run".into() }
}

/// This host's liblxc, as the monitor finds it: this program may be a static one.
pub(crate) fn about_liblxc() -> io::Result<AboutLiblxc> {
    let (control, child_control) = Channel::pair()?;
    let mappings = vec![(child_control.into(), CONTROL_FD)];
    let monitor = Helper::spawn(embedded::unseen_monitor()?, "lxcrun: about liblxc", mappings, None)?;
    control.send(&ToMonitor::About, &[])?;
    let answer = control.receive::<FromMonitor>()?;
    monitor.wait()?;
    match answer.map(|received| received.message) {
        Some(FromMonitor::Liblxc(about)) => Ok(about),
        Some(FromMonitor::Failed(reason)) => Err(io::Error::other(reason)),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
