//! The socket at which a container's program says that it is ready: sd_notify(3), as runc passes it on.
//!
//! The program does not get the caller's own socket: it could say anything there, for instance that another process is
//! the service's main one. What it says arrives at a socket in the container's directory, and only `READY` goes on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};

use crate::config::{MountKind, PlannedMount};
use crate::error::Context;
use crate::{Container, Result};

/// In the container's directory.
pub(crate) const DIRECTORY: &str = "notify";
const SOCKET: &str = "notify.sock";
/// What the program finds in its environment.
pub(crate) const VARIABLE: &str = "NOTIFY_SOCKET=/run/notify/notify.sock";

/// The mount of the directory.
pub(crate) fn mount(directory: PathBuf) -> PlannedMount {
    PlannedMount {
        field: "NOTIFY_SOCKET".into(),
        destination: "/run/notify".into(),
        kind: MountKind::Bind { source: directory, recursive: false },
        attributes: Default::default(),
        recursive_attributes: Default::default(),
        propagation: Vec::new(),
        readonly_at_last: false,
        idmap: None,
        label: None,
    }
}

/// A socket that hears when a container's program is ready.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    init: Option<OwnedFd>,
}

impl Container {
    /// Listens for the program's messages; `None` for a container that was not created with
    /// [`notify`](crate::CreateOptions::notify). To be called before [`start`](Self::start).
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when somebody listens already.
    pub fn notify_socket(&self) -> Result<Option<NotifySocket>> {
        let directory = self.directory.short_path(DIRECTORY);
        if !directory.exists() {
            return Ok(None);
        }
        let path = directory.join(SOCKET);
        let what = "cannot listen at the notify socket";
        let socket = UnixDatagram::bind(&path).at(self.id(), what)?;
        // Whoever the program runs as.
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&path, all).at(self.id(), what)?;
        Ok(Some(NotifySocket { socket, init: self.init_pidfd()? }))
    }
}

impl NotifySocket {
    /// Waits until the program says that it is ready; false when the container has ended before.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait_until_ready(&self) -> std::io::Result<bool> {
        let mut buffer = [0; 4096];
        loop {
            let mut fds = vec![PollFd::new(&self.socket, PollFlags::IN)];
            fds.extend(self.init.as_ref().map(|init| PollFd::new(init, PollFlags::IN)));
            rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
            if fds[0].revents().is_empty() {
                return Ok(false);
            }
            let length = self.socket.recv(&mut buffer)?;
            if buffer[..length].split(|byte| *byte == b'\n').any(|line| line.starts_with(b"READY=")) {
                return Ok(true);
            }
        }
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
