//! The kernel's OOM killer at work in a container.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify;
use rustix::io::Errno;

use super::{Cgroup, read, tree, write};
use crate::Result;
use crate::error::{Context, unable};

/// How long the kernel may take to tell that a cgroup was removed.
const REMOVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };

/// A watch for OOM kills. Its descriptor becomes readable when there is something to look at.
///
/// Version 1 of cgroups tells by an eventfd(2) on memory.oom_control, version 2 by a change of memory.events. An event of
/// version 1 is a hint: it comes before the kill is counted, and also when a cgroup above has run out of memory, when the
/// killer is off, and when the cgroup is removed.
#[derive(Debug)]
pub struct OomWatch {
    directory: PathBuf,
    fd: OwnedFd,
    unified: bool,
    /// The counter's value when the watch began.
    before: u64,
    /// Its last known value.
    kills: AtomicU64,
    /// How many kills were told of: more than there are yet, where version 1 tells of one before it counts it.
    told: AtomicU64,
    /// Version 1: how often the eventfd was signalled.
    signalled: AtomicU64,
    /// Version 1: whether it was signalled while the cgroup was at its limit.
    at_limit: AtomicBool,
}

impl Cgroup {
    /// Processes that the OOM killer has killed so far; `None` when the cgroup is gone, or this host has none for memory.
    pub(crate) fn oom_kills(&self) -> Option<u64> {
        let (directory, unified) = self.directory("memory")?;
        counter(&directory, unified)
    }

    pub(crate) fn watch_oom(&self) -> Result<OomWatch> {
        let Some((directory, unified)) = self.directory("memory") else {
            return Err(unable(&self.id, "memory", "this host has no memory cgroup"));
        };
        let watch = || -> io::Result<OwnedFd> {
            if unified {
                let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
                // The other one tells when the last process has ended: kernels say nothing of a removal to who watches a file.
                for file in ["memory.events", "cgroup.events"] {
                    inotify::add_watch(&fd, directory.join(file), inotify::WatchFlags::MODIFY)?;
                }
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
        let before = counter(&directory, unified).unwrap_or(0);
        Ok(OomWatch {
            directory,
            fd,
            unified,
            before,
            kills: AtomicU64::new(before),
            told: AtomicU64::new(before),
            signalled: AtomicU64::new(0),
            at_limit: AtomicBool::new(false),
        })
    }
}

/// The counter `oom_kill`; `None` when the cgroup is gone. In version 1 a kill is counted where its victim was, in version 2
/// also above that.
fn counter(directory: &Path, unified: bool) -> Option<u64> {
    let file = if unified { "memory.events" } else { "memory.oom_control" };
    let own = |directory: &Path| -> Option<u64> {
        read(directory, file).ok()?.lines().find_map(|l| l.strip_prefix("oom_kill "))?.parse().ok()
    };
    let kills = own(directory)?;
    if unified {
        return Some(kills);
    }
    Some(kills + tree(directory).iter().skip(1).filter_map(|below| own(below)).sum::<u64>())
}

/// The most that the kernel asks for at once before it calls the killer: an allocation of a larger size just fails.
const ONE_ALLOCATION: u64 = 32 << 10;

/// Whether a cgroup of version 1 may use no more.
fn is_at_limit(directory: &Path) -> bool {
    let bytes = |file: &str| -> Option<u64> { read(directory, file).ok()?.trim().parse().ok() };
    ["memory", "memory.memsw"].iter().any(|kind| {
        let used = bytes(&format!("{kind}.usage_in_bytes"));
        used.zip(bytes(&format!("{kind}.limit_in_bytes")))
            .is_some_and(|(used, limit)| used.saturating_add(ONE_ALLOCATION) >= limit)
    })
}

impl OomWatch {
    /// Takes one notification, without waiting for one. True when the container has run out of memory since the last call.
    ///
    /// In version 1 a kill for want of memory of a cgroup above may be seen by a later call only, or by [`happened`].
    ///
    /// # Errors
    /// The kernel's.
    ///
    /// [`happened`]: Self::happened
    pub fn next(&self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        let signalled = match rustix::io::read(&self.fd, &mut buffer) {
            Ok(8) if !self.unified => {
                let count = u64::from_ne_bytes(buffer[..8].try_into().map_err(io::Error::other)?);
                self.signalled.fetch_add(count, Ordering::Relaxed);
                true
            }
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => false,
            Err(e) => return Err(e.into()),
        };
        // Asked before the counter: what is no longer at its limit because of the kill has counted it.
        let at_limit = signalled && is_at_limit(&self.directory);
        let told = self.told.load(Ordering::Relaxed);
        let kills = self.kills();
        let known = if at_limit { kills.max(told + 1) } else { kills };
        self.at_limit.fetch_or(at_limit, Ordering::Relaxed);
        self.told.fetch_max(known, Ordering::Relaxed);
        Ok(known > told)
    }

    /// The counter, or what it last was.
    fn kills(&self) -> u64 {
        let now = counter(&self.directory, self.unified).unwrap_or(0);
        self.kills.fetch_max(now, Ordering::Relaxed).max(now)
    }

    /// Whether a process was killed since the watch began, also when the cgroup is gone meanwhile. To be asked when the
    /// container has ended: a kill is counted before its victim ends.
    #[must_use]
    pub fn happened(&self) -> bool {
        let _ = self.next();
        if self.kills() > self.before {
            return true;
        }
        // A cgroup of version 1 may have taken its counter along. Its removal is one more event.
        if self.unified || self.directory.exists() {
            return false;
        }
        let signalled = || self.signalled.load(Ordering::Relaxed);
        if signalled() == 1 && poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&REMOVAL)).is_ok() {
            let _ = self.next();
        }
        self.at_limit.load(Ordering::Relaxed) || signalled() > 1
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
