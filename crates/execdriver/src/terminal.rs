//! A container's terminal, as the daemon holds it.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use rustix::event::{EventfdFlags, eventfd};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};

/// A terminal of a running process. Copies of it are the same terminal.
///
/// ```no_run
/// # use execdriver::{Command, Driver, LxcDriver, Pipes};
/// # fn run(driver: &LxcDriver, command: &Command) -> execdriver::Result<()> {
/// driver.run(command, Pipes::inherit(), &mut |started| {
///     if let Some(terminal) = started.terminal {
///         terminal.resize(132, 43).expect("it has just begun");
///     }
/// })?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Terminal {
    /// The one strong reference is with whoever copies input and output.
    master: Weak<OwnedFd>,
    close: Arc<OwnedFd>,
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal").field("open", &(self.master.strong_count() > 0)).finish()
    }
}

impl Terminal {
    /// A handle for `master`, and what becomes readable when it is to be closed.
    pub(crate) fn new(master: &Arc<OwnedFd>) -> io::Result<(Self, Arc<OwnedFd>)> {
        let close = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok((Self { master: Arc::downgrade(master), close: close.clone() }, close))
    }

    /// Gives it another size. The programs in it are told by SIGWINCH.
    ///
    /// # Errors
    /// When it is closed.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(&*self.master()?, size)?)
    }

    /// Its columns and rows.
    ///
    /// # Errors
    /// When it is closed.
    pub fn size(&self) -> io::Result<(u16, u16)> {
        let size = tcgetwinsize(&*self.master()?)?;
        Ok((size.ws_col, size.ws_row))
    }

    /// Hangs it up: its programs get SIGHUP, and an end of their input.
    pub fn close(&self) {
        // Only a full counter could refuse, and then it was closed long ago.
        let _ = rustix::io::write(&*self.close, &1_u64.to_ne_bytes());
    }

    fn master(&self) -> io::Result<Arc<OwnedFd>> {
        self.master
            .upgrade()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the terminal is closed"))
    }
}
