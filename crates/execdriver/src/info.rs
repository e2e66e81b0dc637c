//! What can be told about a container.

use std::time::SystemTime;

use lxcrun::{ContainerId, Status};
use serde::{Serialize, Serializer};

/// What a container is doing.
///
/// ```no_run
/// use execdriver::{Driver, LxcDriver};
///
/// let info = LxcDriver::new()?.info(&"web".parse()?)?;
/// println!("{} is {}, process {:?}", info.id, info.status, info.pid);
/// # Ok::<(), execdriver::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Info {
    /// The container.
    pub id: ContainerId,
    /// What it is doing.
    pub status: Status,
    /// Its init as this process sees it, while there is one.
    pub pid: Option<i32>,
    /// When its making began.
    #[serde(serialize_with = "rfc3339")]
    pub created: SystemTime,
    /// When its program was executed.
    #[serde(serialize_with = "maybe_rfc3339")]
    pub started: Option<SystemTime>,
    /// What it ended with, when nobody was there to be told: its daemon was killed, and LXC's monitor has left this behind
    /// for the next one, a moment after the end. 128 + the signal that ended it. [`Driver::run`](crate::Driver::run) returns it to
    /// everybody else.
    pub exit_code: Option<u8>,
    /// Whether the kernel's out-of-memory killer has hit any of its processes since it was made, also before the daemon was
    /// started again: the container's cgroup counts. `None` when there is nobody to ask any more, or never was: on a host
    /// without a memory cgroup, and soon after the end of a container whose daemon was killed, because LXC's monitor removes
    /// the cgroup then. Who has to know of a kill that ends such a one watches it from the daemon's restart on:
    /// [`Driver::watch_oom`](crate::Driver::watch_oom).
    pub oom_killed: Option<bool>,
}

impl Info {
    /// Whether its program has begun and not ended: a paused one has not.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused)
    }
}

/// What a container uses.
///
/// ```no_run
/// use execdriver::{Driver, LxcDriver};
///
/// let stats = LxcDriver::new()?.stats(&"web".parse()?)?;
/// println!("{} of {} bytes", stats.container.memory.usage.usage, stats.memory_limit);
/// # Ok::<(), execdriver::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResourceStats {
    /// When this was read.
    #[serde(serialize_with = "rfc3339")]
    pub read: SystemTime,
    /// What its memory is limited to, in bytes: the machine's memory when nothing less was asked for.
    pub memory_limit: u64,
    /// Processor time, memory, processes, block devices, huge pages and network interfaces.
    #[serde(flatten)]
    pub container: lxcrun::ResourceStats,
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_nanos(*time))
}

fn maybe_rfc3339<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => rfc3339(time, serializer),
        None => serializer.serialize_none(),
    }
}
