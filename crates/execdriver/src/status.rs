//! How a container ended.

use lxcrun::ContainerId;
use serde::{Deserialize, Serialize};

/// How a container, or a process in it, ended.
///
/// ```
/// use execdriver::ExitStatus;
///
/// assert!(ExitStatus { exit_code: 0, oom_killed: false }.success());
/// assert!(!ExitStatus { exit_code: 137, oom_killed: true }.success());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// What the program returned, or 128 + the signal that ended it: 137 may be either, as in Docker.
    ///
    /// Of a container, by [`Driver::run`](crate::Driver::run): 137 whenever the kernel's out-of-memory killer has hit a process
    /// in it, one of an exec, too, and whatever its program made of that. Of an exec: always the program's own.
    pub exit_code: u8,
    /// Whether the kernel's out-of-memory killer has hit: a process of the container, or of an exec the very one that was
    /// executed. Who wants to know of an exec's children watches the container:
    /// [`Driver::watch_oom`](crate::Driver::watch_oom).
    pub oom_killed: bool,
}

impl ExitStatus {
    /// 128 + SIGKILL.
    const KILLED: u8 = 137;

    pub(crate) fn new(id: &ContainerId, exit: lxcrun::Exit, oom_killed: bool) -> Self {
        let exit_code = exit.code();
        if oom_killed && exit_code != Self::KILLED {
            tracing::info!("container {id}: ended with {exit_code} after an out-of-memory kill");
        }
        Self { exit_code: if oom_killed { Self::KILLED } else { exit_code }, oom_killed }
    }

    /// Whether the program returned 0.
    #[must_use]
    pub fn success(self) -> bool {
        self.exit_code == 0
    }
}
