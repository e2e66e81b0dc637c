//! Whether the kernel's out-of-memory killer has hit a container: told at its end, when its cgroup is gone already.

use std::io;

use lxcrun::{Container, OomWatch};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long the kernel may take to tell that a cgroup was removed.
const REMOVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };

/// A watch on one container.
#[derive(Debug)]
pub(crate) struct OomFlag {
    watch: OomWatch,
    /// Version 1 of cgroups, where each out-of-memory situation is an event, and the cgroup's removal is one, too.
    legacy: bool,
    /// There was one that can't have been the removal.
    hit: bool,
    /// There was one that can have been either.
    unclear: bool,
}

impl OomFlag {
    /// Begins to watch; a host without a memory cgroup has nothing to be watched.
    pub(crate) fn new(container: &Container, legacy: bool) -> Option<Self> {
        let watch = container
            .watch_oom()
            .inspect_err(|e| tracing::warn!("no out-of-memory kill will be noticed: {e}"))
            .ok()?;
        Some(Self { watch, legacy, hit: false, unclear: false })
    }

    /// Takes an event, while the container is there to be asked.
    pub(crate) fn take(&mut self, container: &Container) -> io::Result<()> {
        self.hit |= self.watch.next()?;
        if self.legacy && !self.hit {
            // The event comes before the kill is counted, and the removal's after the cgroup has gone.
            let is_there = container.stats().is_ok_and(|stats| !stats.memory.raw.is_empty());
            self.hit = is_there;
            self.unclear = !is_there;
        }
        Ok(())
    }

    /// What is known when the container has ended.
    pub(crate) fn happened(&self) -> bool {
        if self.hit || self.watch.happened() {
            return true;
        }
        // One event and the cgroup gone: the removal's, unless that is still to come.
        let another = || poll(&mut [PollFd::new(&self.watch, PollFlags::IN)], Some(&REMOVAL));
        self.unclear && another().is_ok_and(|count| count > 0) && self.watch.happened()
    }

    pub(crate) fn watch(&self) -> &OomWatch {
        &self.watch
    }
}
