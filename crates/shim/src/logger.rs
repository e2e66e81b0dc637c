//! `binary://PATH?KEY=VALUE`: a program that gets what a container prints.
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
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let (ready, ready_end) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut command = Command::new(decode(path));
        command.args(query.split('&').filter(|pair| !pair.is_empty()).flat_map(argument));
        command.env_clear().envs([("CONTAINER_ID", owner.id), ("CONTAINER_NAMESPACE", owner.namespace)]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let fds = outputs.into_iter().chain([ready_end]);
        let mappings = (3..).zip(fds).map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd });
        command.fd_mappings(mappings.collect())?;
        let child = command.spawn()?;
        // Our copies of its descriptors go with it.
        drop(command);
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let logger = Self { child, pidfd };
        if !within(&ready, READY)? {
            logger.end();
            bail!("did not get ready within {} seconds", READY.tv_sec);
        }
        Ok(logger)
    }

    /// Nobody writes any more, so it ends. One that doesn't is killed.
    pub fn end(mut self) {
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

/// A key is one argument, and its value, if any, another.
fn argument(pair: &str) -> impl Iterator<Item = String> + use<> {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    [decode(key), decode(value)]
        .into_iter()
        .enumerate()
        .filter(|(n, text)| *n == 0 || !text.is_empty())
        .map(|(_, t)| t)
}

/// Undoes the escapes of a URI.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'%').then(|| after.get(..2)).flatten();
        let escaped = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        assert_eq!(decode("/a%20b%2Fc%zz%4"), "/a b/c%zz%4");
    }

    #[test]
    fn a_pair_is_one_or_two_arguments() {
        assert_eq!(argument("a=b").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(argument("a").collect::<Vec<_>>(), ["a"]);
        assert_eq!(argument("a=").collect::<Vec<_>>(), ["a"]);
    }
}
