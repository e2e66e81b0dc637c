//! What is done to a process from outside: limits need the host's rights, not the container's.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use protocol::monitor::Exit;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, Resource, Rlimit as Limits, Signal, WaitId, WaitIdOptions, pidfd_send_signal, prlimit, waitid,
};
use rustix::thread::sched_setaffinity;

use crate::config::{DESCRIPTORS_OF_INIT, Rlimit};
use crate::error::{Context, refuse};
use crate::{ContainerId, Error, Result};

/// `process.rlimits`, and `lxc.prlimit.*`
pub(crate) fn set_rlimits(id: &ContainerId, pid: Pid, limits: &[Rlimit]) -> Result<()> {
    let bound = |value: u64| (value != u64::MAX).then_some(value);
    for limit in limits {
        let mut soft = limit.soft;
        if limit.resource() == Resource::Nofile {
            if limit.hard < DESCRIPTORS_OF_INIT {
                continue;
            }
            soft = soft.max(DESCRIPTORS_OF_INIT);
        }
        let new = Limits { current: bound(soft), maximum: bound(limit.hard) };
        prlimit(Some(pid), limit.resource(), new).map_err(|e| {
            let reason = format!(
                "{} soft {} hard {}: {}",
                limit.name,
                limit.soft,
                limit.hard,
                std::io::Error::from(e)
            );
            refuse(id, &limit.field, reason)
        })?;
    }
    Ok(())
}

/// `process.oomScoreAdj`
pub(crate) fn set_oom_score_adj(id: &ContainerId, pid: Pid, score: Option<i32>) -> Result<()> {
    let Some(score) = score else { return Ok(()) };
    fs::write(format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero()), score.to_string())
        .map_err(|e| refuse(id, "process.oomScoreAdj", format!("{score}: {e}")))
}

/// What pidfd_open(2) says of a process that has ended: also when its number is that of a thread by now.
pub(crate) fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::SRCH | Errno::INVAL | Errno::NOENT)
}

/// Whether the process of a pidfd has ended, waited for or not.
pub(crate) fn has_ended(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    let polled = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&Timespec::default())));
    polled.is_ok_and(|ready| ready > 0)
}

/// Kills a process, and waits for its end if it is a child of this one: nobody else would, and it stay a zombie.
pub(crate) fn kill_and_reap(process: &OwnedFd) {
    let _ = pidfd_send_signal(process, Signal::KILL);
    let wait = || waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED);
    // A caller's signals may come at any moment.
    let _ = rustix::io::retry_on_intr(wait);
}

/// Waits for the end of a child of this process.
pub(crate) fn wait_for_child(id: &ContainerId, child: &OwnedFd) -> Result<Exit> {
    let what = "cannot wait for the process";
    let wait = || waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED);
    let status = match rustix::io::retry_on_intr(wait) {
        // Its end was nobody's to wait for, or somebody else's in this process. The kernel has noted it before it let go.
        Err(Errno::CHILD) => {
            let known = kernel::status_after_reaping(child).ok().flatten();
            return known.map(Exit::of_status).ok_or_else(|| Error::StatusTaken { id: id.clone() });
        }
        status => status.at(id, what)?,
    };
    let status = status.ok_or(std::io::ErrorKind::NotFound).at(id, what)?;
    let number = |n: i32| u8::try_from(n).unwrap_or(u8::MAX);
    Ok(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(number(code)),
        (None, Some(signal)) => Exit::Signal(number(signal)),
        (None, None) => Exit::Code(u8::MAX),
    })
}

/// Lets a process use every processor of its cgroup, whatever ours were when we were started: only that limits a
/// container. Not allowed to is no failure: the limit then is the caller's.
pub(crate) fn reset_affinity(pid: Pid) {
    if let Err(e) = sched_setaffinity(Some(pid), &kernel::every_processor()) {
        tracing::debug!("process {}: its processors stay those of lxcrun: {e}", pid.as_raw_nonzero());
    }
}

/// Waits until `wanted` can be read; false when `cancelled` can be, and `wanted` can't.
pub(crate) fn until_readable(wanted: impl AsFd, cancelled: Option<&OwnedFd>) -> rustix::io::Result<bool> {
    // Who can't be cancelled waits in reading.
    let Some(cancelled) = cancelled else { return Ok(true) };
    let mut fds = [PollFd::new(&wanted, PollFlags::IN), PollFd::new(cancelled, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
    Ok(!fds[0].revents().is_empty())
}
