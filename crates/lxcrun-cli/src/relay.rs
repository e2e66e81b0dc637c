//! What a program in the foreground needs from us: its signals, and with a terminal its input and output.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lxcrun::Signal;
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

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
    let mut terminal = terminal.map(Terminal::new).transpose()?;
    loop {
        let mut fds = vec![
            PollFd::from_borrowed_fd(end, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.0.as_fd(), PollFlags::IN),
        ];
        let terminal_from = fds.len();
        if let Some(terminal) = &terminal {
            terminal.watch(&mut fds);
        }
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            polled => polled?,
        };
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
            terminal.relay(&ready[terminal_from..])?;
        }
        if !ready[0].is_empty() {
            if let Some(terminal) = &mut terminal {
                terminal.drain()?;
            }
            return Ok(());
        }
    }
}

/// Both ends of a terminal session: the program's, and ours if we have one.
struct Terminal {
    master: OwnedFd,
    /// What our own terminal was set to before.
    saved: Option<Termios>,
    /// Input that the program has not taken yet.
    input: Vec<u8>,
    input_open: bool,
    output_open: bool,
}

impl Terminal {
    fn new(master: OwnedFd) -> anyhow::Result<Self> {
        let stdin = rustix::stdio::stdin();
        let saved = if isatty(stdin) { Some(tcgetattr(stdin)?) } else { None };
        if let Some(saved) = &saved {
            let mut raw = saved.clone();
            raw.make_raw();
            tcsetattr(stdin, OptionalActions::Now, &raw)?;
        }
        fcntl_setfl(&master, OFlags::NONBLOCK)?;
        let terminal = Self { master, saved, input: Vec::new(), input_open: true, output_open: true };
        terminal.follow_size();
        Ok(terminal)
    }

    /// Gives the program's terminal the size of ours.
    fn follow_size(&self) {
        let stdin = rustix::stdio::stdin();
        if self.saved.is_some()
            && let Ok(size) = tcgetwinsize(stdin)
        {
            let _ = tcsetwinsize(&self.master, size);
        }
    }

    fn watch<'f>(&'f self, fds: &mut Vec<PollFd<'f>>) {
        let mut master = PollFlags::empty();
        if self.output_open {
            master |= PollFlags::IN;
        }
        if !self.input.is_empty() {
            master |= PollFlags::OUT;
        }
        if self.output_open {
            fds.push(PollFd::new(&self.master, master));
            if self.input_open && self.input.is_empty() {
                fds.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
            }
        }
    }

    fn relay(&mut self, ready: &[PollFlags]) -> io::Result<()> {
        if ready.get(1).is_some_and(|r| !r.is_empty()) {
            self.read_input();
        }
        if !self.input.is_empty() {
            match rustix::io::write(&self.master, &self.input) {
                Ok(count) => drop(self.input.drain(..count)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Nobody will ever read it.
                Err(_) => self.input.clear(),
            }
        }
        if ready.first().is_some_and(|r| r.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)) {
            self.write_output()?;
        }
        Ok(())
    }

    fn read_input(&mut self) {
        let mut buffer = [0; 4096];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(0) => {
                self.input_open = false;
                // Our end of input is the terminal's: ^D.
                if self.saved.is_none() {
                    self.input.push(4);
                }
            }
            Ok(count) => self.input.extend(&buffer[..count]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.input_open = false,
        }
    }

    /// Copies what is there now. Returns whether there was anything.
    fn write_output(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16384];
        match rustix::io::read(&self.master, &mut buffer) {
            Ok(0) | Err(Errno::IO) => {
                // Every program has closed it.
                self.output_open = false;
                Ok(false)
            }
            Ok(count) => {
                let mut rest = &buffer[..count];
                while !rest.is_empty() {
                    rest = &rest
                        [rustix::io::retry_on_intr(|| rustix::io::write(rustix::stdio::stdout(), rest))?..];
                }
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Copies what is left after the program's end.
    fn drain(&mut self) -> io::Result<()> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        while self.output_open {
            if poll(&mut [PollFd::new(&self.master, PollFlags::IN)], Some(&now))? == 0
                || !self.write_output()?
            {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, saved);
        }
    }
}
