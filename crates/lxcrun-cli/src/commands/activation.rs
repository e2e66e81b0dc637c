//! What a service manager hands to its services goes on to the container's program: sockets that it has opened
//! (sd_listen_fds(3)), and the word that the service is ready (sd_notify(3)).

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use anyhow::Context;
use lxcrun::{Container, NotifySocket};

/// How many sockets are ours, from descriptor 3 on: those of `LISTEN_FDS` when `LISTEN_PID` means this process.
pub fn listen_fds() -> anyhow::Result<u32> {
    let own = std::process::id().to_string();
    match (std::env::var("LISTEN_PID"), std::env::var("LISTEN_FDS")) {
        (Ok(pid), Ok(count)) if pid == own => {
            count.parse().with_context(|| format!("LISTEN_FDS={count} is no number"))
        }
        _ => Ok(0),
    }
}

/// The variables with which the program finds them.
pub fn environment(sockets: u32) -> Vec<String> {
    if sockets == 0 {
        return Vec::new();
    }
    vec![format!("LISTEN_FDS={sockets}"), "LISTEN_PID=1".into()]
}

/// Whether a service manager wants to know when the service is ready.
pub fn wants_notice() -> bool {
    manager().is_some()
}

fn manager() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty())
}

/// A program's word on its way to the service manager.
pub struct Notice {
    from: NotifySocket,
    manager: OsString,
    /// The service's main process from then on, where this process goes away.
    main_pid: Option<i32>,
}

impl Notice {
    /// To be called before the program is started. `detached` containers outlive this process.
    pub fn prepare(container: &Container, detached: bool) -> anyhow::Result<Option<Self>> {
        let Some(manager) = manager() else { return Ok(None) };
        let main_pid = container.init_pid().filter(|_| detached);
        Ok(container.notify_socket()?.map(|from| Self { from, manager, main_pid }))
    }

    /// Waits for the program's word and passes it on.
    pub fn pass_on(&self) -> anyhow::Result<()> {
        if !self.from.wait_until_ready()? {
            return Ok(());
        }
        let message = match self.main_pid {
            Some(pid) => format!("READY=1\nMAINPID={pid}\n"),
            None => "READY=1\n".into(),
        };
        self.send(message.as_bytes()).with_context(|| format!("NOTIFY_SOCKET {}", self.manager.display()))
    }

    fn send(&self, message: &[u8]) -> std::io::Result<()> {
        let address = match self.manager.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&self.manager)?,
        };
        UnixDatagram::unbound()?.send_to_addr(message, &address).map(drop)
    }
}
