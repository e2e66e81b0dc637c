//! The console socket: where a caller that keeps no container alive wants the terminal's master sent to.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::error::Context;
use crate::{ContainerId, Result};

/// Sends `master` to the socket at `path`, with the terminal's name as runc does it.
pub(crate) fn send(id: &ContainerId, path: &Path, master: &OwnedFd) -> Result<()> {
    let what = format!("console socket {}", path.display());
    let socket = UnixStream::connect(path).at(id, &what)?;
    let fds = [master.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let name = IoSlice::new(b"/dev/ptmx");
    sendmsg(&socket, &[name], &mut control, SendFlags::NOSIGNAL).at(id, what).map(drop)
}
