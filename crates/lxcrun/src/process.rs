//! What is set on a process from outside: it needs the host's rights, not the container's.

use std::fs;

use rustix::process::{Pid, Rlimit as Limits, prlimit};

use crate::config::Rlimit;
use crate::error::refuse;
use crate::{ContainerId, Result};

/// `process.rlimits`
pub(crate) fn set_rlimits(id: &ContainerId, pid: Pid, limits: &[Rlimit]) -> Result<()> {
    let bound = |value: u64| (value != u64::MAX).then_some(value);
    for limit in limits {
        let new = Limits { current: bound(limit.soft), maximum: bound(limit.hard) };
        prlimit(Some(pid), limit.resource, new).map_err(|e| {
            let reason = format!(
                "{} soft {} hard {}: {}",
                limit.name,
                limit.soft,
                limit.hard,
                std::io::Error::from(e)
            );
            refuse(id, "process.rlimits", reason)
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
