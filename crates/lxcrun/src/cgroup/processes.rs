//! Which processes are in a container's cgroups, and what is done to all of them at once.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::hierarchies::Hierarchy;
use super::{Cgroup, NO_CGROUP, read, tree, write};
use crate::error::{Context, refuse, unable};
use crate::{Error, Result};

/// Lists the processes of a cgroup, and takes one more.
const PROCS: &str = "cgroup.procs";

impl Cgroup {
    /// Every process in it and in the cgroups below, by number.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        // Any hierarchy has them all: a container can move its processes below its own cgroups but not out of them.
        // Only while liblxc is at work the unified one is ahead of the others, because clone3(2) enters it.
        let unified = self.hierarchies.unified();
        self.pids_in(unified.into_iter().chain(self.hierarchies.legacy().next()))
    }

    /// The same for a directory that is not the container's yet: somebody may be in a single hierarchy.
    pub(super) fn pids_of_anybody(&self) -> Vec<Pid> {
        self.pids_in(self.hierarchies.all())
    }

    fn pids_in<'a>(&self, hierarchies: impl Iterator<Item = &'a Hierarchy>) -> Vec<Pid> {
        let mut pids = Vec::new();
        if self.is_none() {
            return pids;
        }
        for hierarchy in hierarchies {
            for directory in tree(&hierarchy.mountpoint.join(&self.path)) {
                let text = read(&directory, PROCS).unwrap_or_default();
                pids.extend(text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)));
            }
        }
        pids.sort_by_key(|pid| pid.as_raw_nonzero());
        pids.dedup();
        pids
    }

    /// Puts a process into every hierarchy: into the container's own cgroup, or into one below it where `below` says
    /// so, as `PATH` (all hierarchies) or `CONTROLLER[,CONTROLLER]:PATH`. It goes to where `init` is when the container's
    /// own is gone, or takes none: it has moved itself below and passes controllers on to there.
    pub(crate) fn enter(&self, pid: Pid, below: &[String], init: Option<Pid>) -> Result<()> {
        self.check_below(below)?;
        if self.is_none() {
            return Ok(());
        }
        for hierarchy in self.hierarchies.all() {
            if let Some(directory) = self.place_in(hierarchy, pid, below, init)? {
                self.move_to(&directory, hierarchy, pid, init.filter(|_| below.is_empty()))?;
            }
        }
        Ok(())
    }

    fn check_below(&self, below: &[String]) -> Result<()> {
        for given in below {
            let (controllers, path) = controllers_and_path(given);
            if path.split('/').any(|part| part == "..") {
                return Err(self.wrong_below(format!("bad sub cgroup path: {path} is not a sub cgroup path")));
            }
            if !controllers.is_empty() && !self.hierarchies.all().any(|h| h.is_called(controllers)) {
                return Err(self.wrong_below(format!("unknown controller {controllers} in {given:?}")));
            }
        }
        Ok(())
    }

    /// The words are runc's.
    fn wrong_below(&self, reason: String) -> Error {
        unable(&self.id, "exec --cgroup", reason)
    }

    /// Where process `pid` belongs in one hierarchy: into the cgroup that `below` names, the container's own, or else that of
    /// `init`. Nowhere, when there is none of them.
    fn place_in(
        &self,
        hierarchy: &Hierarchy,
        pid: Pid,
        below: &[String],
        init: Option<Pid>,
    ) -> Result<Option<PathBuf>> {
        let home = hierarchy.mountpoint.join(self.home());
        let mut directory = home.clone();
        for (controllers, path) in below.iter().map(|given| controllers_and_path(given)) {
            if controllers.is_empty() || hierarchy.is_called(controllers) {
                directory = home.join(path.trim_start_matches('/'));
                if !directory.exists() {
                    let (pid, file) = (pid.as_raw_nonzero(), directory.join(PROCS));
                    let reason = format!("adding pid {pid}: {}: no such file or directory", file.display());
                    return Err(self.wrong_below(reason));
                }
            }
        }
        if directory.exists() {
            return Ok(Some(directory));
        }
        // Somebody has taken the init out of it and removed it, or there never was one here.
        let elsewhere = init.map(|init| self.directory_of(init, hierarchy)).transpose();
        elsewhere.at(&self.id, "cannot tell the init's cgroups")
    }

    /// Moves a process into `directory`; where that passes controllers on and takes none, to `init` instead.
    fn move_to(&self, directory: &Path, hierarchy: &Hierarchy, pid: Pid, init: Option<Pid>) -> Result<()> {
        let text = pid.as_raw_nonzero().to_string();
        let moved = match (write(directory, PROCS, &text), &self.unit, init) {
            (Err(e), _, Some(init)) if e.kind() == io::ErrorKind::ResourceBusy => {
                self.directory_of(init, hierarchy).and_then(|directory| write(&directory, PROCS, &text))
            }
            // Between the cgroup of a login session and one of the user's systemd only that may move their processes.
            (Err(e), Some(unit), _) if e.kind() == io::ErrorKind::PermissionDenied => {
                let inside = directory.strip_prefix(hierarchy.mountpoint.join(unit.cgroup()));
                return unit.take_in(&self.id, pid, inside.unwrap_or(Path::new("")));
            }
            (moved, ..) => moved,
        };
        moved.map_err(|e| {
            let (file, why) = (directory.join(PROCS), protocol::words(&e.to_string()));
            let reason = format!("error adding pid {text} to cgroups: {}: {why}", file.display());
            refuse(&self.id, "linux.cgroupsPath", reason)
        })
    }

    /// Where a process is in one hierarchy.
    fn directory_of(&self, pid: Pid, hierarchy: &Hierarchy) -> io::Result<PathBuf> {
        let text = crate::host::read(format!("/proc/{}/cgroup", pid.as_raw_nonzero()))?;
        let path = self.hierarchies.paths(&text).find(|(found, _)| *found == hierarchy).map(|(_, path)| path);
        match path.map(|path| path.trim_start_matches('/')) {
            // As our cgroup namespace shows what is outside.
            Some(path) if !path.starts_with("..") => Ok(hierarchy.mountpoint.join(path)),
            _ => Err(io::Error::other(format!("that of process {} is out of sight", pid.as_raw_nonzero()))),
        }
    }

    /// Has the kernel get ready to move processes. It does so only after a grace period of RCU, a hundredth of a second or
    /// more, unless it has just moved others: by moving this process to where it is, that passes while others are at work.
    pub(crate) fn prepare_to_move(&self) {
        let Some(hierarchy) = self.hierarchies.legacy().next() else { return };
        let own = crate::host::read("/proc/self/cgroup").unwrap_or_default();
        if let Some((_, path)) = self.hierarchies.paths(&own).find(|(found, _)| *found == hierarchy) {
            // Where its own cgroup can't be seen, moving takes its time.
            let _ = write(&hierarchy.mountpoint.join(path.trim_start_matches('/')), PROCS, "0");
        }
    }

    /// Takes a killed process out of a frozen cgroup of version 1, to where this process is: frozen it would not end.
    pub(crate) fn leave_freezer(&self, pid: Pid) {
        let freezer = self.hierarchies.legacy().find(|hierarchy| hierarchy.is_called("freezer"));
        let Some(freezer) = freezer.filter(|_| self.is_frozen()) else { return };
        let own = crate::host::read("/proc/self/cgroup").unwrap_or_default();
        if let Some((_, path)) = self.hierarchies.paths(&own).find(|(found, _)| *found == freezer) {
            let directory = freezer.mountpoint.join(path.trim_start_matches('/'));
            let _ = write(&directory, PROCS, &pid.as_raw_nonzero().to_string());
        }
    }

    /// Takes LXC's monitor out of the container's unit to where this process is, so that only the container is limited
    /// and counted. Who has no right to that leaves it in, if the container is in a cgroup below.
    pub(crate) fn leave_to_container(&self, monitor: u32) -> io::Result<()> {
        let Some(unified) = self.hierarchies.unified() else { return Ok(()) };
        let own = crate::host::read("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        match write(&unified.mountpoint.join(own), PROCS, &monitor.to_string()) {
            Err(e)
                if matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound)
                    && !self.is_of_unit() =>
            {
                Ok(())
            }
            moved => moved,
        }
    }

    /// Sends `signal` to every process; those that end meanwhile are no failure.
    pub(crate) fn signal_all(&self, signal: Signal) -> Result<()> {
        self.signal_all_while(signal, &|| true)
    }

    /// The same for as long as the cgroup is `ours`, which is asked for when the processes are open: what was in it until then
    /// is of the same container.
    pub(crate) fn signal_all_while(&self, signal: Signal, ours: &dyn Fn() -> bool) -> Result<()> {
        for pids in self.pids().chunks(AT_ONCE) {
            let open = open_listed(pids, || self.pids()).at(&self.id, "cannot open a process")?;
            if !ours() {
                return Ok(());
            }
            for (pid, pidfd) in open {
                match pidfd_send_signal(&pidfd, signal) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(e) => {
                        let what = format!("cannot signal process {}", pid.as_raw_nonzero());
                        return Err(e).at(&self.id, what);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether it is frozen, by the container's own setting or by one above.
    pub(crate) fn is_frozen(&self) -> bool {
        match self.directory("freezer") {
            Some((directory, false)) => read(&directory, "freezer.state").is_ok_and(|s| s != "THAWED"),
            Some((directory, true)) => read(&directory, "cgroup.freeze").is_ok_and(|s| s == "1"),
            None => false,
        }
    }

    /// Freezes, and returns when the kernel says that it is done, or thaws. What cannot be frozen in time is thawed again.
    pub(crate) fn set_frozen(&self, frozen: bool) -> Result<()> {
        let Some((directory, unified)) = self.directory("freezer") else {
            let reason = if self.is_none() { NO_CGROUP } else { "this host has no freezer cgroup" };
            return Err(unable(&self.id, "freezer", reason));
        };
        let what = format!("cannot {} {}", if frozen { "freeze" } else { "thaw" }, directory.display());
        if unified { freeze_v2(&directory, frozen) } else { freeze_v1(&directory, frozen) }.at(&self.id, what)
    }
}

/// The parts of `CONTROLLER[,CONTROLLER]:PATH`; no controllers for a `PATH` alone.
fn controllers_and_path(given: &str) -> (&str, &str) {
    given.split_once(':').unwrap_or(("", given))
}

/// So many processes are opened at once: fewer than anybody's limit of descriptors, whatever a container has.
const AT_ONCE: usize = 256;

/// Pidfds of some of the processes that `list` lists, but not of this one; none when there are none.
pub(super) fn open_some(list: impl Fn() -> Vec<Pid>) -> io::Result<Vec<(Pid, OwnedFd)>> {
    for pids in list().chunks(AT_ONCE) {
        let opened = open_listed(pids, &list)?;
        if !opened.is_empty() {
            return Ok(opened);
        }
    }
    Ok(Vec::new())
}

/// Pidfds of these processes that `list` lists, but not of this one. A number that was free and taken again between
/// reading and opening is not among them: what is opened must still be in the list afterwards.
fn open_listed(pids: &[Pid], list: impl Fn() -> Vec<Pid>) -> io::Result<Vec<(Pid, OwnedFd)>> {
    let own = rustix::process::getpid();
    let mut opened = Vec::new();
    for pid in pids.iter().filter(|pid| **pid != own) {
        match pidfd_open(*pid, PidfdFlags::empty()) {
            Ok(pidfd) => opened.push((*pid, pidfd)),
            Err(e) if crate::process::is_gone(e) => {}
            Err(e) => return Err(e.into()),
        }
    }
    if !opened.is_empty() {
        let still = list();
        opened.retain(|(pid, _)| still.contains(pid));
    }
    Ok(opened)
}

/// Version 1 has no event for it: a task that can't be frozen yet keeps the state FREEZING, and writing FROZEN
/// again makes the kernel look at all tasks anew. Between two looks the processor goes to whoever else wants it.
pub(super) fn freeze_v1(directory: &Path, frozen: bool) -> io::Result<()> {
    if !frozen {
        return write(directory, "freezer.state", "THAWED");
    }
    for _ in 0..10_000 {
        write(directory, "freezer.state", "FROZEN")?;
        if read(directory, "freezer.state")? == "FROZEN" {
            return Ok(());
        }
        std::thread::yield_now();
    }
    write(directory, "freezer.state", "THAWED")?;
    Err(cannot_be_frozen())
}

/// So long a task may take to become frozen: one that waits for a disk, or for a server that is frozen itself, may never
/// be. runc gives up after as long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Version 2 says so in cgroup.events, which inotify(7) reports. Of a thaw there is nothing to wait for: it wakes everybody
/// up, but for who is frozen by a cgroup above, and that is not ours to thaw.
fn freeze_v2(directory: &Path, frozen: bool) -> io::Result<()> {
    if !frozen {
        return write(directory, "cgroup.freeze", "0");
    }
    let watch = watch_events(directory)?;
    write(directory, "cgroup.freeze", "1")?;
    if until_said(directory, &watch, "frozen 1")? {
        return Ok(());
    }
    write(directory, "cgroup.freeze", "0")?;
    Err(cannot_be_frozen())
}

/// Waits until nobody is in a cgroup of version 2, whose processes have ended: they leave it a moment later.
pub(super) fn until_left(directory: &Path) -> io::Result<bool> {
    until_said(directory, &watch_events(directory)?, "populated 0")
}

fn watch_events(directory: &Path) -> io::Result<OwnedFd> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, directory.join("cgroup.events"), inotify::WatchFlags::MODIFY)?;
    Ok(watch)
}

/// Waits until cgroup.events has this line; false when that takes too long.
fn until_said(directory: &Path, watch: &OwnedFd, wanted: &str) -> io::Result<bool> {
    let end = Instant::now() + PATIENCE;
    while !read(directory, "cgroup.events")?.lines().any(|line| line == wanted) {
        let left =
            Timespec::try_from(end.saturating_duration_since(Instant::now())).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Ok(false),
            Ok(_) => {
                // What it says has been said: the file is read anew.
                let mut buffer = [0_u8; 4096];
                rustix::io::retry_on_intr(|| rustix::io::read(watch, &mut buffer))?;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(true)
}

fn cannot_be_frozen() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "some of its tasks cannot be frozen")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn processes_are_found_however_deep_they_are() {
        let root = tempfile::tempdir().unwrap();
        let deep: PathBuf = std::iter::repeat_n("d", 500).collect();
        fs::create_dir_all(root.path().join(&deep)).unwrap();
        fs::create_dir(root.path().join("beside")).unwrap();
        for (place, pids) in
            [("".as_ref(), "30\n"), (deep.as_path(), "10\n20\n"), ("beside".as_ref(), "20\n0\n")]
        {
            fs::write(root.path().join(place).join(PROCS), pids).unwrap();
        }
        let cgroup = Cgroup::at(&"web".parse().unwrap(), root.path());
        let pids: Vec<i32> = cgroup.pids().iter().map(|pid| pid.as_raw_nonzero().get()).collect();
        assert_eq!(pids, [10, 20, 30]);
    }
}
