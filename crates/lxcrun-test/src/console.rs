//! Terminals: the socket on which a runtime hands over a container's, and pairs of our own.

use std::fs::File;
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::wait::{DEADLINE, readable};

/// What `--console-socket` names.
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Listens at `path`.
    pub fn new(path: impl Into<PathBuf>) -> ConsoleSocket {
        let path = path.into();
        let listener = UnixListener::bind(&path).expect("a socket");
        ConsoleSocket { listener, path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the terminal.
    #[track_caller]
    pub fn receive(&self) -> Pty {
        Pty { master: File::from(self.receive_fd()) }
    }

    /// Waits for a descriptor of any kind.
    #[track_caller]
    pub fn receive_fd(&self) -> OwnedFd {
        receive_fd(&self.listener, "socket").1
    }
}

/// Waits for one message with a descriptor; `what` names the socket.
#[track_caller]
pub(crate) fn receive_fd(listener: &UnixListener, what: &str) -> (Vec<u8>, OwnedFd) {
    assert!(readable(listener, DEADLINE), "nobody connected to the {what}");
    let (stream, _) = listener.accept().expect("a connection");
    assert!(readable(&stream, DEADLINE), "nothing came through the {what}");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = vec![0; 65536];
    let got = recvmsg(&stream, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC);
    text.truncate(got.expect("a message").bytes);
    let mut fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    (text, fds.next().and_then(|mut fds| fds.next()).expect("a file descriptor"))
}

/// The master side of a terminal.
pub struct Pty {
    master: File,
}

impl Pty {
    /// A terminal of our own, with its other side.
    pub fn open() -> (Pty, OwnedFd) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a pty");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let peer = ioctl_tiocgptpeer(&master, flags).expect("the pty's other side");
        (Pty { master: File::from(master) }, peer)
    }

    /// Types `text`.
    #[track_caller]
    pub fn write(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("write to the terminal");
    }

    /// Sets its size.
    #[track_caller]
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).expect("a new size");
    }

    /// Reads until `text` has come, and returns all that did.
    #[track_caller]
    pub fn read_until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(text) {
            let more = self.read_some();
            assert!(!more.is_empty(), "the terminal ended before {text:?}, after {seen:?}");
            seen += &more;
        }
        seen
    }

    /// Reads until the other side has closed.
    #[track_caller]
    pub fn read_to_end(&mut self) -> String {
        let mut seen = String::new();
        loop {
            let more = self.read_some();
            if more.is_empty() {
                return seen;
            }
            seen += &more;
        }
    }

    #[track_caller]
    fn read_some(&mut self) -> String {
        assert!(readable(&self.master, DEADLINE), "nothing came from the terminal");
        let mut bytes = [0; 4096];
        match self.master.read(&mut bytes) {
            Ok(n) => String::from_utf8_lossy(&bytes[..n]).into_owned(),
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => String::new(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => self.read_some(),
            Err(e) => panic!("read from the terminal: {e}"),
        }
    }
}
