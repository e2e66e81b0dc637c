//! The kernel's OOM killer at work in a container.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use rustix::io::Errno;

use super::{Cgroup, read, write};
use crate::Result;
use crate::error::{Context, refuse};

/// A watch for OOM kills. Its descriptor becomes readable when there is something to look at.
///
/// Version 1 of cgroups tells by an eventfd(2) on memory.oom_control, version 2 by a change of memory.events.
#[derive(Debug)]
pub struct OomWatch {
    directory: PathBuf,
    fd: OwnedFd,
    /// Version 1: how often the eventfd was signalled. Version 2: not used.
    signalled: AtomicU64,
    unified: bool,
    /// The counter's last known value.
    kills: AtomicU64,
}

impl Cgroup {
    /// Processes that the OOM killer has killed so far.
    pub(crate) fn oom_kills(&self) -> u64 {
        self.directory("memory").map_or(0, |(directory, unified)| counter(&directory, unified).unwrap_or(0))
    }

    pub(crate) fn watch_oom(&self) -> Result<OomWatch> {
        let Some((directory, unified)) = self.directory("memory") else {
            return Err(refuse(&self.id, "memory", "this host has no memory cgroup"));
        };
        let watch = || -> io::Result<OwnedFd> {
            if unified {
                let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
                inotify::add_watch(&fd, directory.join("memory.events"), inotify::WatchFlags::MODIFY)?;
                return Ok(fd);
            }
            let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            let control = File::open(directory.join("memory.oom_control"))?;
            write(
                &directory,
                "cgroup.event_control",
                &format!("{} {}", fd.as_raw_fd(), control.as_raw_fd()),
            )?;
            Ok(fd)
        };
        let fd = watch().at(&self.id, format!("cannot watch {}", directory.display()))?;
        let kills = AtomicU64::new(counter(&directory, unified).unwrap_or(0));
        Ok(OomWatch { directory, fd, signalled: AtomicU64::new(0), unified, kills })
    }
}

/// The counter `oom_kill`; `None` when the cgroup is gone.
fn counter(directory: &std::path::Path, unified: bool) -> Option<u64> {
    let text = read(directory, if unified { "memory.events" } else { "memory.oom_control" }).ok()?;
    text.lines().find_map(|l| l.strip_prefix("oom_kill "))?.parse().ok()
}

impl OomWatch {
    /// Takes one notification, without waiting for one. True when a process was killed since the last call.
    ///
    /// # Errors
    /// The kernel's.
    pub fn next(&self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        match rustix::io::read(&self.fd, &mut buffer) {
            Ok(8) if !self.unified => {
                let count = u64::from_ne_bytes(buffer[..8].try_into().map_err(io::Error::other)?);
                self.signalled.fetch_add(count, Ordering::Relaxed);
                // The event comes before the counter is raised; only that of the removal comes without a cgroup.
                if self.directory.exists() {
                    self.kills.fetch_max(1, Ordering::Relaxed);
                    return Ok(true);
                }
            }
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let Some(now) = counter(&self.directory, self.unified) else { return Ok(false) };
        Ok(self.kills.fetch_max(now, Ordering::Relaxed) < now)
    }

    /// Whether a process was killed since the watch began, also when the cgroup is gone meanwhile.
    #[must_use]
    pub fn happened(&self) -> bool {
        let _ = self.next();
        // The removal of a cgroup of version 1 signals its eventfds once more: what came before was the OOM killer.
        let gone = !self.directory.exists();
        self.kills.load(Ordering::Relaxed) > 0 || (gone && self.signalled.load(Ordering::Relaxed) > 1)
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
