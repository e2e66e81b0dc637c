//! What a program in the foreground needs from us: its signals, and with a terminal its input and output.

mod terminal;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lxcrun::Signal;
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use terminal::Terminal;

/// This process's signals, as something to read from.
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks all signals and keeps them for [`until_end`].
    pub fn block() -> anyhow::Result<Self> {
        use nix::sys::signal::Signal::{SIGCHLD, SIGTTIN, SIGTTOU, SIGURG};
        let mut all = SigSet::all();
        // Of our own helpers, and of our own writing to a terminal.
        for own in [SIGCHLD, SIGTTIN, SIGTTOU, SIGURG] {
            all.remove(own);
        }
        all.thread_block()?;
        Ok(Self(SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// Readable when one has come that asks for our end, and that nobody has taken yet.
    pub fn of_end() -> anyhow::Result<OwnedFd> {
        use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
        let set: SigSet = [SIGHUP, SIGINT, SIGQUIT, SIGTERM].into_iter().collect();
        Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?.into())
    }

    fn next(&self) -> Option<Signal> {
        let info = self.0.read_signal().ok().flatten()?;
        kernel::signal_of(info.ssi_signo.cast_signed())
    }
}

/// Passes signals on, and with a `terminal` input and output, until `end` is readable and all output is out.
pub fn until_end(
    end: BorrowedFd<'_>,
    signals: &Signals,
    terminal: Option<OwnedFd>,
    pass_on: impl Fn(Signal),
) -> anyhow::Result<()> {
    const IDLE_AFTER: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
    let mut terminal = terminal.map(Terminal::new).transpose()?;
    let mut idle = false;
    loop {
        let mut fds = vec![
            PollFd::from_borrowed_fd(end, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.0.as_fd(), PollFlags::IN),
        ];
        let terminal_from = fds.len();
        if let Some(terminal) = &terminal {
            terminal.watch(&mut fds);
        }
        if wait(&mut fds, if idle { None } else { Some(&IDLE_AFTER) })? == 0 {
            // Most of this program is behind us, and it may be long before it is needed again. That it stays in memory where
            // it can't be given back is no failure.
            let _ = kernel::free_code();
            idle = true;
            continue;
        }
        idle = false;
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        drop(fds);
        if !ready[1].is_empty() {
            while let Some(signal) = signals.next() {
                match &terminal {
                    Some(terminal) if signal == Signal::WINCH => terminal.follow_size(),
                    _ => pass_on(signal),
                }
            }
        }
        if let Some(terminal) = &mut terminal {
            terminal.relay(&ready[terminal_from..]);
        }
        if !ready[0].is_empty() {
            return terminal.map_or(Ok(()), |terminal| drain(terminal, signals));
        }
    }
}

/// Writes what is left after the program's end, however slowly it is read. A signal that would have ended the program
/// ends this.
fn drain(mut terminal: Terminal, signals: &Signals) -> anyhow::Result<()> {
    const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    terminal.end_input();
    loop {
        let mut fds = vec![PollFd::from_borrowed_fd(signals.0.as_fd(), PollFlags::IN)];
        terminal.watch(&mut fds);
        // Nothing more comes from a program that has ended: what the terminal has not got now, it never gets.
        let timeout = if terminal.has_output() { None } else { Some(&NOW) };
        if wait(&mut fds, timeout)? == 0 {
            return Ok(());
        }
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        drop(fds);
        while let Some(signal) = signals.next() {
            if matches!(signal, Signal::INT | Signal::TERM | Signal::QUIT | Signal::HUP) {
                return Ok(());
            }
        }
        terminal.relay(&ready[1..]);
        if terminal.is_done() {
            return Ok(());
        }
    }
}

fn wait(fds: &mut [PollFd<'_>], timeout: Option<&Timespec>) -> rustix::io::Result<usize> {
    loop {
        match poll(fds, timeout) {
            Err(Errno::INTR) => {}
            polled => return polled,
        }
    }
}
