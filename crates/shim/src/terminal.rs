//! A terminal: somebody has to copy between it and containerd's fifos.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};

/// How long what a process has printed last may take to be read by containerd, as in runc's shim.
const PATIENCE: Duration = Duration::from_secs(2);
const STACK: usize = 64 << 10;

/// What a process prints, on its way to where it belongs.
pub struct Copying {
    /// Closed, it ends the copying.
    stop: OwnedFd,
    /// The other end is dropped when all is copied.
    done: Receiver<()>,
}

impl Copying {
    pub fn start(from: File, to: File) -> anyhow::Result<Self> {
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let (copying, done) = channel::<()>();
        spawn("output", move || {
            let _copying = copying;
            copy(from, to, &stopped);
        })?;
        Ok(Self { stop, done })
    }

    /// The process has ended: waits, for a bounded time, until all is copied. What others print that it has left behind is
    /// not waited for.
    pub fn close(self) {
        let _ = self.done.recv_timeout(PATIENCE);
        drop(self.stop);
    }
}

/// A terminal whose input and output are copied.
pub struct Terminal {
    master: File,
    /// Closed, it ends the copying of input.
    stop: OwnedFd,
    output: Copying,
}

impl Terminal {
    /// Copies from now on.
    pub fn connect(master: File, input: File, output: File) -> anyhow::Result<Self> {
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let typist = master.try_clone()?;
        spawn("input", move || copy(input, typist, &stopped))?;
        let output = Copying::start(master.try_clone()?, output)?;
        Ok(Self { master, stop, output })
    }

    pub fn resize(&self, columns: u32, rows: u32) -> io::Result<()> {
        let number = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let size = Winsize { ws_row: number(rows), ws_col: number(columns), ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(&self.master, size)?)
    }

    /// The process has ended.
    pub fn close(self) {
        drop(self.stop);
        self.output.close();
    }
}

fn spawn(name: &str, copy: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let thread = std::thread::Builder::new().name(name.into()).stack_size(STACK).spawn(copy);
    thread.map(drop).context("cannot start a thread")
}

/// Ends at the end of what is read, when nobody takes it, or when it is stopped.
fn copy(mut from: File, mut to: File, stopped: &OwnedFd) {
    let mut buffer = [0; 8192];
    loop {
        let mut fds = [PollFd::new(&from, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        let polled = rustix::io::retry_on_intr(|| poll(&mut fds, None));
        if polled.is_err() || !fds[1].revents().is_empty() {
            return;
        }
        match read(&mut from, &mut buffer) {
            Ok(count @ 1..) if to.write_all(&buffer[..count]).is_ok() => {}
            _ => return,
        }
    }
}

fn read(from: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}
