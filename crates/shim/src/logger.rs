//! `binary://PATH?NAME=VALUE`: a program that gets what a process prints. Each name and each value is an argument.
//!
//! It finds standard output at descriptor 3, standard error at 4, and closes 5 when it is ready.

use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use command_fds::{CommandFdExt, FdMapping};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::io::Owner;
use crate::uri;

/// How long it may take to get ready, and to end: as in runc's shim.
const READY: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
const END: Timespec = Timespec { tv_sec: 12, tv_nsec: 0 };

/// A logger at work.
pub struct Logger {
    child: Child,
    pidfd: OwnedFd,
}

impl Logger {
    /// Starts it, and waits until it is ready. `uri` is what follows `binary://`.
    pub fn start(uri: &str, owner: Owner<'_>, outputs: [OwnedFd; 2]) -> anyhow::Result<Self> {
        let (ready, ready_end) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut command = Command::new(uri::path(uri));
        command.args(uri::query(uri).into_iter().flat_map(|(name, value)| [name, value]));
        command.env_clear().envs([("CONTAINER_ID", owner.id), ("CONTAINER_NAMESPACE", owner.namespace)]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let fds = outputs.into_iter().chain([ready_end]);
        let mappings = (3..).zip(fds).map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd });
        command.fd_mappings(mappings.collect())?;
        let mut child = command.spawn()?;
        // Our copies of its descriptors go with it.
        drop(command);
        let pidfd = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(e) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(e.into());
            }
        };
        let logger = Self { child, pidfd };
        match within(&ready, READY) {
            Ok(true) => Ok(logger),
            not_ready => {
                logger.end();
                not_ready?;
                bail!("did not get ready within {} seconds", READY.tv_sec)
            }
        }
    }

    /// Nobody writes any more: it is asked to end. One that doesn't is killed.
    pub fn end(mut self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::TERM);
        if !within(&self.pidfd, END).unwrap_or(false) {
            let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Whether something is to be read within a time; the end counts.
fn within(fd: &OwnedFd, time: Timespec) -> anyhow::Result<bool> {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let ready =
        rustix::io::retry_on_intr(|| poll(&mut fds, Some(&time))).context("cannot wait for the logger")?;
    Ok(ready > 0)
}
