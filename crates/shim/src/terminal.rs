//! A terminal: somebody has to copy between it and containerd's fifos.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::process::lock;

/// How long what a process has printed last may take to be read by containerd, as in runc's shim.
pub const PATIENCE: Duration = Duration::from_secs(2);
const STACK: usize = 64 << 10;
/// More than a terminal holds: what can still be read of it when its process has ended may be the process' own.
const PENDING: usize = 64 << 10;

/// What a process prints, on its way to where it belongs.
pub struct Copying {
    /// Closed, it ends the copying.
    stop: Option<OwnedFd>,
    /// The other end is dropped when all is copied.
    done: Receiver<()>,
}

impl Copying {
    pub fn start(from: File, to: File) -> anyhow::Result<Self> {
        Self::start_with(from, to, 0)
    }

    /// Copies up to so many bytes that are there when it is stopped.
    fn start_with(from: File, to: File, pending: usize) -> anyhow::Result<Self> {
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let (copying, done) = channel::<()>();
        spawn("output", move || {
            let _copying = copying;
            copy(from, to, &stopped, pending);
        })?;
        Ok(Self { stop: Some(stop), done })
    }

    /// Waits until all is copied, or for no longer: what others print that the process has left behind is not waited for.
    pub fn close(self, deadline: Instant) {
        let _ = self.done.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        drop(self.stop);
    }
}

/// A terminal whose input and output are copied.
pub struct Terminal {
    /// Nothing any more when it was hung up.
    held: Arc<Mutex<Option<Held>>>,
    /// Closed, it ends the copying of input.
    stop: OwnedFd,
    output: Copying,
}

/// What keeps a terminal from being hung up, beside those who copy.
struct Held {
    master: File,
    /// The other side, until the process has ended: a program may close its terminal and open it again, as systemd does.
    /// Whoever copies would take that for the end.
    slave: Option<OwnedFd>,
    /// Closed, it ends the copying of output.
    stop: Option<OwnedFd>,
}

/// What the end of a terminal's input means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputEnd {
    /// There was none from the start.
    Nothing,
    /// Somebody has hung up, as in runc's shim.
    HangUp,
}

impl Terminal {
    /// Copies from now on.
    pub fn connect(master: File, input: File, end: InputEnd, output: File) -> anyhow::Result<Self> {
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let typist = master.try_clone()?;
        let mut output = Copying::start_with(master.try_clone()?, output, PENDING)?;
        let slave =
            ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
        let held = Held { master, slave: Some(slave?), stop: output.stop.take() };
        let held = Arc::new(Mutex::new(Some(held)));
        let held_by_input = Arc::clone(&held);
        spawn("input", move || {
            let at_its_end = copy(input, typist, &stopped, 0);
            if at_its_end && end == InputEnd::HangUp {
                drop(lock(&held_by_input).take());
            }
        })?;
        Ok(Self { held, stop, output })
    }

    pub fn resize(&self, columns: u32, rows: u32) -> io::Result<()> {
        let number = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let size = Winsize { ws_row: number(rows), ws_col: number(columns), ws_xpixel: 0, ws_ypixel: 0 };
        match &*lock(&self.held) {
            Some(held) => Ok(tcsetwinsize(&held.master, size)?),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The process has ended: its output ends with what it has printed. Others that it has left behind may hold the
    /// terminal for ever.
    pub fn end(&self) {
        if let Some(held) = &mut *lock(&self.held) {
            held.slave = None;
            held.stop = None;
        }
    }

    /// Nobody needs it any more.
    pub fn close(self) {
        self.end();
        drop(self.stop);
        self.output.close(Instant::now() + PATIENCE);
        // Whoever types may still be busy with what nobody reads.
        drop(lock(&self.held).take());
    }
}

fn spawn(name: &str, copy: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let thread = std::thread::Builder::new().name(name.into()).stack_size(STACK).spawn(copy);
    thread.map(drop).context("cannot start a thread")
}

/// Ends at the end of what is read, which it tells, when nobody takes it, or when it is stopped: then after what is there
/// already, up to `pending` bytes.
fn copy(mut from: File, mut to: File, stopped: &OwnedFd, mut pending: usize) -> bool {
    let mut buffer = [0; 8192];
    loop {
        let mut fds = [PollFd::new(&from, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| poll(&mut fds, None)).is_err() {
            return false;
        }
        let [is_there, is_stopped] = fds.map(|fd| !fd.revents().is_empty());
        if is_stopped && (pending == 0 || !is_there) {
            return false;
        }
        match read(&mut from, &mut buffer) {
            Ok(0) => return true,
            Ok(count @ 1..) if to.write_all(&buffer[..count]).is_ok() => {
                pending -= if is_stopped { count.min(pending) } else { 0 };
            }
            _ => return false,
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{grantpt, openpt, unlockpt};

    /// A terminal, master and slave.
    fn terminal() -> (File, File) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        (master.into(), slave.into())
    }

    fn pipe() -> (File, File) {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        (reader.into(), writer.into())
    }

    #[test]
    fn the_output_of_a_terminal_ends_with_its_process_and_has_what_it_printed() {
        let (master, mut slave) = terminal();
        let ((input, _typist), (mut reader, output)) = (pipe(), pipe());
        let terminal = Terminal::connect(master, input, InputEnd::HangUp, output).unwrap();
        let printed = "x".repeat(4000);
        slave.write_all(printed.as_bytes()).unwrap();
        terminal.end();
        let mut read = String::new();
        // To the end, although somebody holds the terminal.
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, printed);
        drop(slave);
        terminal.close();
    }

    #[test]
    fn the_output_of_a_terminal_ends_although_somebody_prints_for_ever() {
        let (master, slave) = terminal();
        let ((input, _typist), (mut reader, output)) = (pipe(), pipe());
        let terminal = Terminal::connect(master, input, InputEnd::HangUp, output).unwrap();
        let printing = std::thread::spawn(move || while (&slave).write_all(&[b'x'; 100]).is_ok() {});
        terminal.end();
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        // Without a master the printing fails.
        terminal.close();
        printing.join().unwrap();
    }

    #[test]
    fn a_terminal_is_hung_up_when_its_input_has_ended() {
        let (master, mut slave) = terminal();
        let ((input, mut typist), (mut reader, output)) = (pipe(), pipe());
        let terminal = Terminal::connect(master, input, InputEnd::HangUp, output).unwrap();
        slave.write_all(b"out").unwrap();
        typist.write_all(b"typed\n").unwrap();
        let mut buffer = [0; 64];
        assert_eq!(slave.read(&mut buffer).unwrap(), 6);
        drop(typist);
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert!(read.starts_with("out"), "{read:?}");
        assert_eq!(slave.read(&mut buffer).unwrap_or(0), 0, "it has hung up");
        assert!(terminal.resize(80, 24).is_err());
        terminal.close();
    }

    #[test]
    fn a_terminal_without_input_is_not_hung_up() {
        let (master, mut slave) = terminal();
        let (mut reader, output) = pipe();
        let input = File::open("/dev/null").unwrap();
        let terminal = Terminal::connect(master, input, InputEnd::Nothing, output).unwrap();
        let mut buffer = [0; 3];
        for _ in 0..3 {
            slave.write_all(b"out").unwrap();
            reader.read_exact(&mut buffer).unwrap();
            assert_eq!(&buffer, b"out");
        }
        terminal.resize(80, 24).unwrap();
        drop(slave);
        terminal.close();
    }

    #[test]
    fn a_terminal_may_be_closed_and_opened_again() {
        let (master, mut slave) = terminal();
        let again = master.try_clone().unwrap();
        let ((input, mut typist), (mut reader, output)) = (pipe(), pipe());
        let terminal = Terminal::connect(master, input, InputEnd::HangUp, output).unwrap();
        let mut buffer = [0; 64];
        slave.write_all(b"one").unwrap();
        reader.read_exact(&mut buffer[..3]).unwrap();
        drop(slave);
        typist.write_all(b"typed\n").unwrap();
        // What was typed is echoed while the program has no terminal.
        reader.read_exact(&mut buffer[..7]).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let mut slave = File::from(ioctl_tiocgptpeer(&again, flags).unwrap());
        slave.write_all(b"two").unwrap();
        assert_eq!(slave.read(&mut buffer).unwrap(), 6);
        terminal.end();
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "two");
        terminal.close();
    }
}
