//! The program's terminal, and our own standard input and output at its other side.
//!
//! Our own descriptors are somebody else's, too: they may be blocking or not, and nobody may be there to read. So each
//! is used only when poll(2) says that it is ready, and at most one pipe buffer's worth at a time, which then does not
//! block. Output that nobody will read is thrown away: it is not the program's fault.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, write};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{
    OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

/// What a ready pipe takes without blocking: pipe(7), `PIPE_BUF`.
const CHUNK: usize = 4096;

/// End of transmission: ^D, what ends the input of a terminal.
const EOT: u8 = 4;

/// Both ends of a terminal session: the program's, and ours if we have one.
pub struct Terminal {
    master: OwnedFd,
    /// What our own terminal was set to before.
    saved: Option<Termios>,
    /// Input that the program has not taken yet.
    input: Vec<u8>,
    /// Output that our reader has not taken yet.
    output: Vec<u8>,
    input_open: bool,
    /// Whether the last line of input has no end yet.
    in_line: bool,
    /// Whether the program may say more.
    master_open: bool,
    /// Whether somebody reads what it says.
    output_open: bool,
}

/// What has to be waited for, in the order in which poll is asked.
struct Wanted {
    master: PollFlags,
    input: bool,
    output: bool,
}

impl Terminal {
    pub fn new(master: OwnedFd) -> anyhow::Result<Self> {
        let saved = if isatty(stdin()) { Some(tcgetattr(stdin())?) } else { None };
        if let Some(saved) = &saved {
            let mut raw = saved.clone();
            raw.make_raw();
            // The program's does not make CR LF of LF (`plain_newlines`): ours does.
            raw.output_modes.insert(saved.output_modes & OutputModes::OPOST);
            tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        }
        let terminal = Self {
            master,
            saved,
            input: Vec::new(),
            output: Vec::new(),
            input_open: true,
            in_line: false,
            master_open: true,
            output_open: true,
        };
        fcntl_setfl(&terminal.master, fcntl_getfl(&terminal.master)? | OFlags::NONBLOCK)?;
        terminal.follow_size();
        Ok(terminal)
    }

    /// Gives the program's terminal the size of ours.
    pub fn follow_size(&self) {
        if self.saved.is_some()
            && let Ok(size) = tcgetwinsize(stdin())
        {
            let _ = tcsetwinsize(&self.master, size);
        }
    }

    /// No more input is wanted.
    pub fn end_input(&mut self) {
        self.input_open = false;
        self.input.clear();
    }

    /// Whether something waits to be written.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether nothing is left to be read or written.
    pub fn is_done(&self) -> bool {
        !self.master_open && self.output.is_empty()
    }

    /// Backpressure: nothing is read while the last of it has not been written.
    fn wanted(&self) -> Wanted {
        let (input, output) = (!self.input.is_empty(), !self.output.is_empty());
        let mut master = PollFlags::empty();
        master.set(PollFlags::IN, self.master_open && !output);
        master.set(PollFlags::OUT, self.master_open && input);
        Wanted { master, input: self.master_open && self.input_open && !input, output }
    }

    /// Adds what has to be waited for.
    pub fn watch<'f>(&'f self, fds: &mut Vec<PollFd<'f>>) {
        let wanted = self.wanted();
        if !wanted.master.is_empty() {
            fds.push(PollFd::new(&self.master, wanted.master));
        }
        if wanted.input {
            fds.push(PollFd::from_borrowed_fd(stdin(), PollFlags::IN));
        }
        if wanted.output {
            fds.push(PollFd::from_borrowed_fd(stdout(), PollFlags::OUT));
        }
    }

    /// Moves what can be moved now; `ready` are poll's answers to what [`watch`](Self::watch) has just asked.
    pub fn relay(&mut self, ready: &[PollFlags]) {
        let mut ready = ready.iter().copied();
        let wanted = self.wanted();
        let mut answer = |asked: bool| if asked { ready.next() } else { None }.unwrap_or(PollFlags::empty());
        let master = answer(!wanted.master.is_empty());
        let (input, output) = (!answer(wanted.input).is_empty(), !answer(wanted.output).is_empty());
        if input {
            self.read_input();
        }
        if !self.input.is_empty() {
            self.write_input();
        }
        if master.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && self.output.is_empty() {
            self.read_output();
        }
        if output {
            self.write_output();
        }
    }

    fn read_input(&mut self) {
        let mut buffer = [0; CHUNK];
        match read(stdin(), &mut buffer) {
            Ok(0) => {
                self.input_open = false;
                // Our end of input is the terminal's. After half a line the first ^D only hands that over: termios(3), VEOF.
                if self.saved.is_none() {
                    self.input.extend(std::iter::repeat_n(EOT, if self.in_line { 2 } else { 1 }));
                }
            }
            Ok(count) => {
                self.input.extend(&buffer[..count]);
                self.in_line = !matches!(buffer[count - 1], b'\n' | b'\r' | EOT);
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.input_open = false,
        }
    }

    fn write_input(&mut self) {
        match write(&self.master, &self.input) {
            Ok(count) => drop(self.input.drain(..count)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Nobody will ever read it.
            Err(_) => self.input.clear(),
        }
    }

    fn read_output(&mut self) {
        let mut buffer = [0; 4 * CHUNK];
        match read(&self.master, &mut buffer) {
            // Every program has closed it.
            Ok(0) | Err(Errno::IO) => self.master_open = false,
            Ok(count) if self.output_open => self.output.extend(&buffer[..count]),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.master_open = false,
        }
    }

    fn write_output(&mut self) {
        let chunk = self.output.len().min(CHUNK);
        match write(stdout(), &self.output[..chunk]) {
            Ok(count) => drop(self.output.drain(..count)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Our reader has gone.
            Err(_) => {
                self.output_open = false;
                self.output.clear();
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(stdin(), OptionalActions::Now, saved);
        }
    }
}
