//! Sockets that a caller names: where the terminal's master and the process's pidfd are sent to.

use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, sendmsg, socket_with,
};
use rustix::termios::{OptionalActions, OutputModes, tcgetattr, tcsetattr};

use crate::error::Context;
use crate::{ContainerId, Result};

/// A terminal's master goes to who listens for it at `socket`, with the terminal's name as runc does it; who runs the
/// program themselves gets it back.
pub(crate) fn hand_over(
    id: &ContainerId,
    master: Option<OwnedFd>,
    socket: Option<&Path>,
    plain_newlines: bool,
) -> Result<Option<OwnedFd>> {
    match (master, socket) {
        (Some(master), Some(path)) => {
            let what = format!("console socket {}", path.display());
            send_fd(id, &what, path, b"/dev/ptmx", &master).map(|()| None)
        }
        (Some(master), None) if plain_newlines => keep_newlines(id, &master).map(|()| Some(master)),
        (master, _) => Ok(master),
    }
}

/// Sends a pidfd to the socket at `path`. runc's word beside it is `standard` for an init, `setns` for an exec.
pub(crate) fn send_pidfd(id: &ContainerId, path: &Path, kind: &[u8], pidfd: &OwnedFd) -> Result<()> {
    send_fd(id, &format!("pidfd socket {}", path.display()), path, kind, pidfd)
}

fn send_fd(id: &ContainerId, what: &str, path: &Path, text: &[u8], fd: &OwnedFd) -> Result<()> {
    send_with(path, text, fd).at(id, what)
}

/// Sends all of `text` to the socket at `path`, and a descriptor with its beginning.
pub(crate) fn send_with(path: &Path, text: &[u8], fd: &OwnedFd) -> io::Result<()> {
    let mut socket = connect(path)?;
    let fds = [fd.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let content = [IoSlice::new(text)];
    // Whoever embeds us may have handlers for signals that come meanwhile. What was not sent has taken no descriptor along.
    let send = || sendmsg(&socket, &content, &mut control, SendFlags::NOSIGNAL);
    let sent = rustix::io::retry_on_intr(send)?;
    socket.write_all(&text[sent..])
}

/// Connects with the socket at `path`, without waiting for a listener whose queue is full: he may never take anybody out of
/// it, and nobody could end such a wait. It is as with runc, whose sockets never wait, either.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Err(Errno::AGAIN) => {
            let reason = "its queue is full: whoever listens there accepts nobody";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, reason));
        }
        connected => connected?,
    }
    let socket = UnixStream::from(socket);
    socket.set_nonblocking(false)?;
    Ok(socket)
}

/// Has a terminal leave LF as it is.
fn keep_newlines(id: &ContainerId, master: &OwnedFd) -> Result<()> {
    let set = || {
        let mut modes = tcgetattr(master)?;
        modes.output_modes.remove(OutputModes::ONLCR);
        tcsetattr(master, OptionalActions::Now, &modes)
    };
    set().at(id, "process.terminal: cannot set its modes")
}
