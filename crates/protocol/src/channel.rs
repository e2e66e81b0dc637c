//! Typed messages with file descriptors over a Unix stream socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use rustix::process::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// File descriptors that one control message may carry (`SCM_MAX_FD` is 253).
const FDS_PER_MESSAGE: usize = 200;
/// Nothing that we send is near this: a length above it is not ours.
const MAX_LENGTH: usize = 256 << 20;

/// One end of a conversation. A message is a length, a count of descriptors, and its postcard encoding.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

/// A message, with the descriptors that came with it and the sender's pid where the receiver asked for it.
#[derive(Debug)]
pub struct Received<T> {
    /// The message.
    pub message: T,
    /// Descriptors, in the sender's order, close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// The sender, in the receiver's PID namespace.
    pub sender: Option<Pid>,
}

impl Channel {
    /// Two connected ends, close-on-exec.
    ///
    /// # Errors
    /// The kernel's, when descriptors run out.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        Ok((Self { socket: a }, Self { socket: b }))
    }

    /// Makes the kernel attach the sender's pid to each message: unlike a number in the message it can't be
    /// wrong, and it is translated into our PID namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn learn_senders(&self) -> io::Result<()> {
        Ok(sockopt::set_socket_passcred(&self.socket, true)?)
    }

    /// Sends a message and copies of `fds`.
    ///
    /// # Errors
    /// `BrokenPipe` when the other end is gone, otherwise the kernel's.
    pub fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let body = postcard::to_stdvec(message).map_err(invalid)?;
        let length = u32::try_from(body.len()).map_err(invalid)?;
        let count = u32::try_from(fds.len()).map_err(invalid)?;
        let mut bytes = Vec::with_capacity(8 + body.len());
        bytes.extend(length.to_ne_bytes());
        bytes.extend(count.to_ne_bytes());
        bytes.extend(body);

        let mut chunks = fds.chunks(FDS_PER_MESSAGE);
        let mut rest = bytes.as_slice();
        rest = &rest[self.send_once(rest, chunks.next().unwrap_or_default())?..];
        while !rest.is_empty() {
            rest = &rest[self.send_once(rest, &[])?..];
        }
        for chunk in chunks {
            self.send_once(b"+", chunk)?;
        }
        Ok(())
    }

    fn send_once(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        loop {
            match sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                sent => return Ok(sent?),
            }
        }
    }

    /// Waits for the next message; `None` when the other end is closed.
    ///
    /// # Errors
    /// `UnexpectedEof` when it ends within a message, `InvalidData` when it is not one of `T`, `EMFILE` when this process can
    /// have no more descriptors.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<Received<T>>> {
        let mut fds = Vec::new();
        let mut sender = None;
        let mut header = [0; 8];
        if !self.fill(&mut header, &mut fds, &mut sender)? {
            return Ok(None);
        }
        let [l0, l1, l2, l3, c0, c1, c2, c3] = header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let count = u32::from_ne_bytes([c0, c1, c2, c3]) as usize;
        if length > MAX_LENGTH {
            return Err(invalid(format!("a message of {length} bytes")));
        }
        let mut body = vec![0; length];
        let whole = self.fill(&mut body, &mut fds, &mut sender)?;
        let mut more = [0; 1];
        while whole && fds.len() < count && self.fill(&mut more, &mut fds, &mut sender)? {}
        if !whole || fds.len() != count {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let message = postcard::from_bytes(&body).map_err(invalid)?;
        Ok(Some(Received { message, fds, sender }))
    }

    /// Fills `buffer`; false when the other end is closed before its first byte.
    fn fill(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>, sender: &mut Option<Pid>) -> io::Result<bool> {
        let mut filled = 0;
        while filled < buffer.len() {
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE), ScmCredentials(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let slices = &mut [IoSliceMut::new(&mut buffer[filled..])];
            let got = match recvmsg(&self.socket, slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => continue,
                // The peer closed its end with bytes of ours unread: an end like any other.
                Err(rustix::io::Errno::CONNRESET) => 0,
                got => {
                    let got = got?;
                    // The kernel has dropped those that found no place, which would be waited for in vain.
                    if got.flags.contains(ReturnFlags::CTRUNC) {
                        return Err(rustix::io::Errno::MFILE.into());
                    }
                    got.bytes
                }
            };
            for message in control.drain() {
                match message {
                    RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
                    RecvAncillaryMessage::ScmCredentials(creds) => *sender = Some(creds.pid),
                    _ => {}
                }
            }
            if got == 0 {
                return if filled == 0 { Ok(false) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            filled += got;
        }
        Ok(true)
    }
}

fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl From<OwnedFd> for Channel {
    fn from(socket: OwnedFd) -> Self {
        Self { socket }
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.socket
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, Rlimit};

    use super::*;

    #[test]
    fn a_large_message_arrives_whole_with_all_its_descriptors() {
        let (a, b) = Channel::pair().unwrap();
        b.learn_senders().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let text = "x".repeat(3 << 20);
        let sent = text.clone();
        let writer = std::thread::spawn(move || {
            let fds = vec![null.as_fd(); 450];
            a.send(&sent, &fds).unwrap();
        });
        let got = b.receive::<String>().unwrap().unwrap();
        writer.join().unwrap();
        assert_eq!(got.message, text);
        assert_eq!(got.fds.len(), 450);
        assert_eq!(got.sender, Some(rustix::process::getpid()));
        assert!(b.receive::<String>().unwrap().is_none(), "the other end is closed");
    }

    /// Says to a test that it is alone in its process.
    const ALONE: &str = "LXCRUN_TEST_ALONE";

    #[test]
    fn descriptors_for_which_there_is_no_room_are_an_error_and_not_waited_for() {
        let name = "channel::tests::descriptors_for_which_there_is_no_room_are_an_error_and_not_waited_for";
        if std::env::var_os(ALONE).is_none() {
            // The limit is that of a whole process.
            let again = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", name])
                .env(ALONE, "1")
                .output()
                .unwrap();
            assert!(again.status.success(), "{again:?}");
            return;
        }
        let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
        rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(500), maximum }).unwrap();
        let (a, b) = Channel::pair().unwrap();
        b.learn_senders().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        // Those that come with a message's first byte, and those that come later: the sender stays, and nothing ends.
        for count in [20, FDS_PER_MESSAGE + 20] {
            a.send(&"sent", &vec![null.as_fd(); count]).unwrap();
            let mut all: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
            all.truncate(all.len() - (count - 10));
            let error = b.receive::<String>().unwrap_err();
            assert_eq!(
                error.raw_os_error(),
                Some(rustix::io::Errno::MFILE.raw_os_error()),
                "{count}: {error}"
            );
            if count < FDS_PER_MESSAGE {
                // The body of that one.
                let body = b.fill(&mut [0; 5], &mut Vec::new(), &mut None).unwrap();
                assert!(body);
            }
        }
    }
}
