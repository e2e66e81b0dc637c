//! The end of a container's processes, and then of its cgroups, whatever is done in them meanwhile.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, pidfd_send_signal};

use super::processes::{freeze_v1, open_some, until_left};
use super::{Cgroup, below, read, tree, write};
use crate::Result;
use crate::error::{Context, unable};

impl Cgroup {
    /// Kills every process and waits until none is left. A process that asks for its own container's end would wait
    /// for itself, and is left out.
    pub(crate) fn kill_all(&self) -> Result<()> {
        self.kill_all_while(&|| true)
    }

    /// The same for as long as the cgroup is `ours`, as [`signal_all_while`](Self::signal_all_while) has it.
    pub(crate) fn kill_all_while(&self, ours: &dyn Fn() -> bool) -> Result<()> {
        let mut again = false;
        loop {
            let members = open_some(|| self.pids()).at(&self.id, "cannot open a process")?;
            if members.is_empty() || !ours() {
                return Ok(());
            }
            if again {
                self.outrun();
            }
            for (pid, pidfd) in &members {
                kill(pidfd).at(&self.id, format!("cannot kill process {}", pid.as_raw_nonzero()))?;
            }
            self.wait_for_killed(members.into_iter().map(|(_, pidfd)| pidfd).collect())?;
            again = true;
        }
    }

    /// For who forks faster than it is killed: version 1 can stop it for that, version 2 kills all at once, which must not
    /// hit a process that asks for its own container's end. What does not help is no failure: the rest goes on.
    fn outrun(&self) {
        match self.directory("freezer") {
            Some((freezer, false)) => drop(freeze_v1(&freezer, true)),
            Some((directory, true)) if !self.pids().contains(&rustix::process::getpid()) => {
                drop(write(&directory, "cgroup.kill", "1"));
            }
            _ => {}
        }
    }

    /// Waits for the end of killed processes, and sees to it that none of them is frozen.
    ///
    /// Whoever has not ended yet may be frozen by one that has meanwhile: therefore they are thawed after each end.
    /// The last of them has nobody left in the container who could do that to it.
    pub(crate) fn wait_for_killed(&self, mut killed: Vec<OwnedFd>) -> Result<()> {
        while !killed.is_empty() {
            self.thaw_all()?;
            killed.iter().try_for_each(|pidfd| self.check_not_held(pidfd))?;
            let mut fds: Vec<PollFd<'_>> = killed.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            rustix::io::retry_on_intr(|| poll(&mut fds, None))
                .at(&self.id, "cannot wait for a killed process")?;
            let ended: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            let mut ended = ended.into_iter();
            killed.retain(|_| !ended.next().unwrap_or(false));
        }
        Ok(())
    }

    /// Thaws it and every cgroup below, which the container may have frozen itself. Only for version 1, where a frozen
    /// process takes no signal at all; in version 2 it can be killed.
    pub(crate) fn thaw_all(&self) -> Result<()> {
        let Some((directory, false)) = self.directory("freezer") else { return Ok(()) };
        thaw_tree(&directory).at(&self.id, format!("cannot thaw {}", directory.display()))?;
        if read(&directory, "freezer.parent_freezing").is_ok_and(|frozen| frozen == "1") {
            let reason = format!("a cgroup above {} is frozen: thaw it first", directory.display());
            return Err(unable(&self.id, "freezer", reason));
        }
        Ok(())
    }

    /// A process that somebody else has put into a frozen cgroup of his own takes no signal, and it's his to thaw.
    fn check_not_held(&self, pidfd: &OwnedFd) -> Result<()> {
        let Some((own, false)) = self.directory("freezer") else { return Ok(()) };
        let Some(pid) = pid_of(pidfd) else { return Ok(()) };
        let text = crate::host::read(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let mut paths = self.hierarchies.paths(&text);
        let Some((freezer, path)) = paths.find(|(h, _)| h.is_called("freezer")) else { return Ok(()) };
        let directory = freezer.mountpoint.join(path.trim_start_matches('/'));
        let frozen = read(&directory, "freezer.state").is_ok_and(|state| state != "THAWED");
        if directory.starts_with(own) || !frozen {
            return Ok(());
        }
        let reason = format!("process {pid} is frozen in {}: thaw it first", directory.display());
        Err(unable(&self.id, "freezer", reason))
    }
}

/// Which process it is; none when it has ended.
fn pid_of(pidfd: &OwnedFd) -> Option<i32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    (pid > 0).then_some(pid)
}

fn thaw_tree(directory: &Path) -> io::Result<()> {
    tree(directory).iter().try_for_each(|directory| {
        let frozen = read(directory, "freezer.state").is_ok_and(|state| state != "THAWED");
        if frozen { unless_gone(write(directory, "freezer.state", "THAWED")) } else { Ok(()) }
    })
}

/// Removes a cgroup and those below it, the deepest first. None there is none left.
///
/// A process may come into it after all others were killed: an exec that began before. It is killed, and waited for.
pub(super) fn remove_tree(directory: &Path) -> io::Result<()> {
    loop {
        match unless_gone(std::fs::remove_dir(directory)) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {}
            removed => return removed,
        }
        let below = below(directory);
        below.iter().try_for_each(|directory| remove_tree(directory))?;
        let ended = end_processes(directory)?;
        if below.is_empty() && !ended {
            // What was in the way has gone by itself, or is going, or is none of ours to remove.
            if read(directory, "cgroup.procs").is_ok_and(|pids| pids.is_empty()) {
                let _ = until_left(directory);
            }
            return unless_gone(std::fs::remove_dir(directory));
        }
    }
}

/// Kills the processes of this cgroup alone and waits for them; false when there are none but us.
fn end_processes(directory: &Path) -> io::Result<bool> {
    let processes = open_some(|| {
        let text = read(directory, "cgroup.procs").unwrap_or_default();
        text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect()
    })?;
    for (_, pidfd) in &processes {
        kill(pidfd)?;
    }
    if directory.join("freezer.state").exists() {
        unless_gone(write(directory, "freezer.state", "THAWED"))?;
    }
    processes.iter().try_for_each(|(_, pidfd)| wait_for_end(pidfd))?;
    Ok(!processes.is_empty())
}

/// Somebody else was faster to remove it.
pub(super) fn unless_gone(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        // An open file of a cgroup that was removed.
        Err(e) if e.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(()),
        done => done,
    }
}

/// That it has ended meanwhile is no failure.
fn kill(pidfd: &OwnedFd) -> rustix::io::Result<()> {
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Err(Errno::SRCH) => Ok(()),
        sent => sent,
    }
}

/// Waits until the process of `pidfd` has ended.
pub(crate) fn wait_for_end(pidfd: &OwnedFd) -> rustix::io::Result<()> {
    rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(pidfd, PollFlags::IN)], None)).map(drop)
}
