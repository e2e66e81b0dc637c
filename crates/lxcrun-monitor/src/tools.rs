//! LXC's tools that want to hear of the container's end: lxc-wait, lxc-stop and lxc-monitor.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use protocol::monitor::INIT_FD;
use rustix::net::{SocketAddrUnix, getsockname, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// A monitor has about twenty descriptors, and one for each tool.
const MAX_FD: i32 = 128;

/// Whether liblxc has somebody to tell.
pub fn want_to_hear(root: &Path) -> bool {
    monitor_pipe(root).exists() || has_client().unwrap_or(true)
}

/// The pipe of lxc-monitord, which serves lxc-monitor.
fn monitor_pipe(root: &Path) -> PathBuf {
    let run = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(|| "/run".into(), PathBuf::from);
    let root = root.strip_prefix("/").unwrap_or(root);
    run.join("lxc").join(root).join("monitor-fifo")
}

/// Whether a tool is connected to the command socket of liblxc.
fn has_client() -> rustix::io::Result<bool> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    let mut fds = kernel::open_among(INIT_FD + 1..MAX_FD)?
        .into_iter()
        .filter_map(|number| pidfd_getfd(&own, number, PidfdGetfdFlags::empty()).ok());
    Ok(fds.any(|fd| is_client(fd.as_fd()).unwrap_or(false)))
}

/// A connection has the name of the socket that accepted it.
fn is_client(fd: impl AsFd) -> rustix::io::Result<bool> {
    let name = SocketAddrUnix::try_from(getsockname(&fd)?)?;
    let is_command = name.abstract_name().is_some_and(|name| name.ends_with(b"/command"));
    Ok(is_command && !sockopt::socket_acceptconn(&fd)?)
}
