//! `delete`: takes everything away. Goes on past failures and returns them all.

use std::os::fd::OwnedFd;
use std::path::Path;

use protocol::Hook;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

use crate::apparmor::Generated;
use crate::cgroup::{Cgroup, CgroupPath, Hierarchies, wait_for_end};
use crate::config::{HookKind, hooks};
use crate::error::Context;
use crate::resctrl::Resctrl;
use crate::state::{ProcessId, State, Status};
use crate::state_dir::StateDir;
use crate::{Container, ContainerId, Error, Result};

/// Removes a container. One that is not stopped only by `force`, which kills it first; a created one has no program
/// yet and counts as stopped, as in runc. With `force` one that isn't there is no failure.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Status`], or [`Error::Cleanup`] with all that could not be removed.
pub fn delete(root: &Path, id: &ContainerId, force: bool) -> Result<()> {
    let directory = match StateDir::open(root, id) {
        Err(Error::NotFound { .. }) if force => return Ok(()),
        opened => opened?,
    };
    delete_opened(directory, force)
}

/// Has a `create` at work on the container fail, and returns when nothing of it is left. False when none was at work: whether
/// there is a container or not, nothing was done then.
///
/// # Errors
/// As [`delete`] with `force`.
pub fn cancel_creation(root: &Path, id: &ContainerId) -> Result<bool> {
    let directory = match StateDir::open(root, id) {
        Err(Error::NotFound { .. }) => return Ok(false),
        opened => opened?,
    };
    if !directory.is_incomplete()? {
        return Ok(false);
    }
    // It may be complete by now, and is deleted all the same: whoever asked was told of no container.
    delete_opened(directory, true).map(|()| true)
}

fn delete_opened(directory: StateDir, force: bool) -> Result<()> {
    let id = &directory.id().clone();
    let not_found = || Error::NotFound { id: id.clone(), root: directory.root().to_owned() };
    if directory.is_fresh()? {
        directory.remove_fresh()?;
        return if force { Ok(()) } else { Err(not_found()) };
    }
    if force {
        // A `create` or `start` at work may wait for a hook for ever: it goes on when what it works on is gone.
        directory.condemn()?;
        directory.end_criu()?;
        // A state that can't be read is told below.
        if let Ok(Some(state)) = directory.state() {
            // The descriptor is another one, because a lock belongs to the one that took it.
            Container::new(directory.reopen()?, state, None, None).end_processes()?;
        }
        directory.end_hook()?;
    }
    // Waits for a `create` at work; one that was killed has lost its lock.
    if !directory.lock_if_there()? {
        return if force { Ok(()) } else { Err(not_found()) };
    }
    let state = match directory.state() {
        Ok(Some(state)) => state,
        Ok(None) => {
            // Killed before it had made anything but the directory, and perhaps an empty cgroup.
            remove_claimed(id, &directory);
            return directory.remove();
        }
        Err(e) if force => return remove_damaged(id, directory, &e),
        Err(e) => return Err(e),
    };
    let container = Container::new(directory, state, None, None);
    container.remove(force)
}

/// Removes the cgroup that a `create` without a state may have claimed, unless somebody else has done so: what is empty and
/// of nobody at work has no other use.
fn remove_claimed(id: &ContainerId, directory: &StateDir) {
    let (Ok(spec), Ok(hierarchies)) = (directory.spec(), Hierarchies::probe()) else { return };
    let wanted = spec.linux().as_ref().and_then(|l| l.cgroups_path().as_deref());
    let wanted = CgroupPath::new(id, wanted).ok();
    for path in wanted.into_iter().chain([CgroupPath::of_root(id, directory.root())]) {
        let cgroup = Cgroup::new(id, hierarchies.clone(), &path.container());
        if !cgroup.is_there() {
            continue;
        }
        if let (Ok(Some(_claim)), Ok(Some(_))) = (cgroup.claim(), cgroup.existing()) {
            // An empty one that can't be removed harms nobody.
            cgroup.remove();
        }
    }
}

/// Removes a container whose state can't be read: with the cgroup that is surely its own. Its id alone may be the name of
/// another container's, in another state root.
fn remove_damaged(id: &ContainerId, directory: StateDir, reason: &Error) -> Result<()> {
    let hierarchies = Hierarchies::probe().at(id, "cannot read /proc/self/mountinfo")?;
    let spec = directory.spec().ok();
    let wanted = spec.as_ref().and_then(|spec| spec.linux().as_ref()?.cgroups_path().as_deref());
    let wanted = wanted.filter(|path| !path.as_os_str().is_empty());
    let named = wanted.and_then(|path| CgroupPath::new(id, Some(path)).ok());
    let own = named.unwrap_or_else(|| CgroupPath::of_root(id, directory.root()));
    let own = Cgroup::new(id, hierarchies, &own.container());
    let found = own.is_there();
    own.kill_all()?;
    let problems = own.remove();
    if !problems.is_empty() {
        return Err(Error::Cleanup { id: id.clone(), problems });
    }
    let left = if found { "other things of the host's" } else { "processes, cgroups and other things" };
    tracing::warn!("{reason}: no poststop hooks are run, and {left} that only the state knows may be left");
    directory.remove()
}

impl Container {
    /// Removes a container that this process has created and whose end it has waited for: what [`delete`] does, without
    /// asking for everything again.
    ///
    /// # Errors
    /// As [`delete`] with `force`.
    pub fn delete(self) -> Result<()> {
        // Somebody else may have deleted it, and the id be another container's.
        if self.directory.lock_if_there()? { self.remove(true) } else { Ok(()) }
    }

    fn remove(self, force: bool) -> Result<()> {
        let status = self.status();
        if !force && !matches!(status, Status::Stopped | Status::Created | Status::Creating) {
            return Err(self.cannot("delete", status));
        }
        let id = self.id().clone();
        let mut problems = Vec::new();
        let mut note = |what: &str, result: Result<()>| {
            if let Err(e) = result {
                problems.push(format!("{what}: {e}"));
            }
        };
        if !self.left_nothing() {
            note("processes", self.end_processes());
        }
        if !force && self.state.init.is_none() {
            // That of a `create` that was killed.
            note("hook", self.directory.end_hook());
        }
        match self.cgroup() {
            Ok(own) => {
                problems.extend(own.remove());
                let beside = self.state.monitor_cgroups.iter().map(|path| own.beside(path));
                problems.extend(beside.flat_map(|cgroup| cgroup.remove()));
                problems.extend(own.stop_unit().err().map(|e| e.to_string()));
            }
            Err(e) => problems.push(format!("cgroups: {e}")),
        }
        problems.extend(self.state.resctrl.iter().flat_map(Resctrl::remove));
        problems.extend(self.state.generated_profile.iter().flat_map(Generated::remove));
        if !problems.is_empty() {
            // The state stays, so that it can be tried again.
            return Err(Error::Cleanup { id, problems });
        }
        let poststop = self.poststop_hooks().or_else(|e| {
            if !force {
                return Err(e);
            }
            tracing::warn!("{e}: no poststop hooks are run");
            Ok(Vec::new())
        })?;
        let Self { directory, state, .. } = self;
        directory.remove()?;
        run_poststop_hooks(&state, &poststop);
        Ok(())
    }

    /// Whether a container that has ended by itself has left no process. Nobody is in cgroups that could be removed, which
    /// takes less time than to look for processes.
    fn left_nothing(&self) -> bool {
        let ended =
            |process: Option<ProcessId>| process.is_none_or(|it| it.is_alive().is_ok_and(|alive| !alive));
        self.state.init.is_some()
            && ended(self.state.init)
            && ended(self.state.monitor)
            && self.cgroup().is_ok_and(|own| own.remove_empty())
    }

    fn poststop_hooks(&self) -> Result<Vec<Hook>> {
        if !self.state.poststop {
            return Ok(Vec::new());
        }
        hooks(self.id(), &self.directory.spec()?, HookKind::Poststop)
    }

    /// Ends the init, every other process, and with an unfinished container the monitor, of which a `create` at work
    /// learns it.
    fn end_processes(&self) -> Result<()> {
        let monitor = match self.state.monitor {
            Some(monitor) => monitor.open().at(self.id(), "cannot open the monitor")?,
            None => None,
        };
        let init = match self.state.unfinished_init {
            Some(init) => init.open().at(self.id(), "cannot open the init")?,
            None => self.init_pidfd()?,
        };
        if let Some(monitor) = &monitor {
            // One whose container is finished is told of the init's end like any parent, and cleans up after liblxc.
            let signal = if self.state.init.is_none() { Signal::KILL } else { Signal::CONT };
            let _ = pidfd_send_signal(monitor, signal);
        }
        if let Some(init) = &init {
            let _ = pidfd_send_signal(init, Signal::KILL);
        }
        // Without the lock somebody else may finish the removal, and the cgroup be another container's.
        let ours = || self.directory.is_there().unwrap_or(false);
        // What fails here is told below. Whoever pauses the container may be waiting for one of them, and holds the freezer
        // for so long.
        let _ = self.cgroup()?.signal_all_while(Signal::KILL, &ours);
        // Whoever pauses it from here on would keep the killed alive.
        let _held = self.directory.hold_freezer()?;
        if let Some(init) = init {
            self.cgroup()?.wait_for_killed(vec![init])?;
        }
        if let Some(monitor) = &monitor {
            let _ = end_monitor(monitor);
        }
        self.cgroup()?.kill_all_while(&ours)
    }
}

/// Lets a monitor whose init has ended clean up after liblxc. One that doesn't come to an end is ended.
fn end_monitor(monitor: &OwnedFd) -> rustix::io::Result<()> {
    const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
    let mut fds = [PollFd::new(monitor, PollFlags::IN)];
    if rustix::io::retry_on_intr(|| poll(&mut fds, Some(&PATIENCE)))? == 0 {
        pidfd_send_signal(monitor, Signal::KILL)?;
    }
    wait_for_end(monitor)
}

/// A failure is logged and changes nothing (runtime-spec, runtime.md, "Lifecycle", step 13).
pub(crate) fn run_poststop_hooks(state: &State, hooks: &[Hook]) {
    let json = state.oci(Status::Stopped).json();
    for hook in hooks {
        if let Err(e) = hook.run(&json, &state.bundle) {
            tracing::warn!("container {}: {e}", state.id);
        }
    }
}
