//! An agent that answers for system calls of a container: seccomp_unotify(2).

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use libseccomp::{ScmpNotifReq, ScmpNotifResp, ScmpNotifRespFlags};
use serde_json::Value;

use crate::console::receive_fd;
use crate::wait::{DEADLINE, readable};

/// A socket that a runtime sends the listeners of seccomp filters to.
pub struct SeccompAgent {
    listener: UnixListener,
    path: PathBuf,
}

/// What came with a listener, and the listener.
pub struct Notifications {
    /// The container process state.
    pub state: Value,
    fd: OwnedFd,
}

impl SeccompAgent {
    /// Listens at `path`.
    pub fn new(path: impl Into<PathBuf>) -> SeccompAgent {
        let path = path.into();
        let listener = UnixListener::bind(&path).expect("a socket");
        SeccompAgent { listener, path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for a listener.
    #[track_caller]
    pub fn receive(&self) -> Notifications {
        let (text, fd) = receive_fd(&self.listener, "seccomp agent");
        Notifications { state: serde_json::from_slice(&text).expect("the state as JSON"), fd }
    }
}

impl Notifications {
    /// Waits for one system call and answers it with what `answer` makes of the name and the caller's pid here: 0, or
    /// an error number.
    #[track_caller]
    pub fn answer(&self, answer: impl FnOnce(&str, u32) -> i32) {
        assert!(readable(&self.fd, DEADLINE), "no notification came");
        let fd = self.fd.as_raw_fd();
        let request = ScmpNotifReq::receive(fd).expect("a notification");
        let name = request.data.syscall.get_name().expect("a system call");
        let error = answer(&name, request.pid);
        let none = ScmpNotifRespFlags::empty();
        ScmpNotifResp::new(request.id, 0, -error, none.bits()).respond(fd).expect("a caller that waits");
    }
}
