//! Copying what can't be handed to a program itself: in the thread that waits for the program anyway.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use lxcrun::OomWatch;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Gid, OFlags, Uid, fchown, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, ioctl_fionread, retry_on_intr};

use crate::Terminal;

/// As much as a pipe holds.
const BUFFER: usize = 65536;
/// More than a terminal holds, which does not say how much that is.
const TERMINAL: u64 = 65536;
/// End of transmission: ^D, what ends the input of a terminal.
const EOT: u8 = 4;

/// Everything that is copied for one process.
#[derive(Default)]
pub(crate) struct Pump<'io> {
    pub copies: Vec<Copy<'io>>,
    pub feeder: Option<Feeder>,
    terminal: Option<TerminalPump<'io>>,
}

/// One output.
pub(crate) struct Copy<'io> {
    pub source: OwnedFd,
    pub sink: Box<dyn Write + Send + 'io>,
}

/// One input.
pub(crate) struct Feeder {
    pub reader: Box<dyn Read + Send>,
    pub into: OwnedFd,
}

struct TerminalPump<'io> {
    master: Arc<OwnedFd>,
    /// Readable when the terminal is to be closed.
    close: Arc<OwnedFd>,
    input: Option<OwnedFd>,
    /// Input that the terminal has not taken yet.
    pending: Vec<u8>,
    /// Whether the last line of input has no end yet.
    in_line: bool,
    sink: Box<dyn Write + Send + 'io>,
}

/// Who is ready, in the order in which they were asked.
#[derive(Default)]
struct Ready {
    end: bool,
    oom: bool,
    copies: Vec<bool>,
    close: bool,
    input: bool,
    /// It has output, or nobody is on its other side.
    master: bool,
}

impl<'io> Pump<'io> {
    /// Copies to and from a terminal.
    pub(crate) fn connect(
        &mut self,
        master: OwnedFd,
        input: Option<OwnedFd>,
        sink: Box<dyn Write + Send + 'io>,
    ) -> io::Result<Terminal> {
        fcntl_setfl(&master, fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
        let master = Arc::new(master);
        let (terminal, close) = Terminal::new(&master)?;
        self.terminal =
            Some(TerminalPump { master, close, input, pending: Vec::new(), in_line: false, sink });
        Ok(terminal)
    }

    /// Gives the pipes to a user and a group of the host: who is in another user namespace could not open them anew as
    /// /dev/stdout otherwise, not even as root there.
    pub(crate) fn give_to(&self, owner: Option<(u32, u32)>) -> io::Result<()> {
        let Some((uid, gid)) = owner else { return Ok(()) };
        // Both ends of a pipe are one file.
        let ends = self.copies.iter().map(|copy| &copy.source).chain(self.feeder.iter().map(|f| &f.into));
        for end in ends {
            fchown(end, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        Ok(())
    }

    /// Begins to read input.
    pub(crate) fn feed(&mut self) -> io::Result<()> {
        let Some(Feeder { mut reader, into }) = self.feeder.take() else { return Ok(()) };
        let feed = move || {
            // Who embeds this may die of the signal that a program's end would bring: signal(7).
            let _ = broken_pipe().thread_block();
            let mut into = std::fs::File::from(into);
            // Its end is that of the input, or of the program: neither is a failure.
            let _ = io::copy(&mut reader, &mut into);
        };
        std::thread::Builder::new().name("container-stdin".into()).spawn(feed).map(drop)
    }

    /// Copies until `end` is readable. Out-of-memory events are taken while the container is there to be looked at.
    pub(crate) fn until(&mut self, end: BorrowedFd<'_>, oom: Option<&OomWatch>) -> io::Result<()> {
        loop {
            let ready = self.wait(end, oom)?;
            if let (true, Some(oom)) = (ready.oom, oom) {
                oom.next()?;
            }
            if ready.end {
                return Ok(());
            }
            self.advance(&ready);
        }
    }

    /// Copies what is left when the program has ended. Those that it has left behind may write for ever, so no more is
    /// taken than is there by now.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        for Copy { source, mut sink } in self.copies.drain(..) {
            let left = ioctl_fionread(&source)?;
            // Whoever has opened the pipe anew may have read it.
            fcntl_setfl(&source, fcntl_getfl(&source)? | OFlags::NONBLOCK)?;
            pass_on_all(&source, &mut sink, left);
        }
        if let Some(mut terminal) = self.terminal.take() {
            pass_on_all(&*terminal.master, &mut terminal.sink, TERMINAL);
        }
        Ok(())
    }

    fn wait(&self, end: BorrowedFd<'_>, oom: Option<&OomWatch>) -> io::Result<Ready> {
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(self.copies.len() + 5);
        fds.push(PollFd::from_borrowed_fd(end, PollFlags::IN));
        fds.extend(oom.map(|oom| PollFd::new(oom, PollFlags::IN)));
        fds.extend(self.copies.iter().map(|copy| PollFd::new(&copy.source, PollFlags::IN)));
        let mut takes_input = false;
        if let Some(terminal) = &self.terminal {
            let write = if terminal.pending.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            fds.push(PollFd::new(&*terminal.close, PollFlags::IN));
            fds.push(PollFd::new(&*terminal.master, PollFlags::IN | write));
            if let Some(input) = terminal.input.as_ref().filter(|_| terminal.pending.is_empty()) {
                takes_input = true;
                fds.push(PollFd::new(input, PollFlags::IN));
            }
        }
        match poll(&mut fds, None) {
            Err(Errno::INTR) => {
                return Ok(Ready { copies: vec![false; self.copies.len()], ..Ready::default() });
            }
            polled => polled?,
        };
        let mut flags = fds.iter().map(PollFd::revents);
        let mut next =
            |asked: bool| if asked { flags.next().unwrap_or(PollFlags::empty()) } else { PollFlags::empty() };
        Ok(Ready {
            end: !next(true).is_empty(),
            oom: !next(oom.is_some()).is_empty(),
            copies: self.copies.iter().map(|_| !next(true).is_empty()).collect(),
            close: !next(self.terminal.is_some()).is_empty(),
            master: next(self.terminal.is_some()).intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR),
            input: !next(takes_input).is_empty(),
        })
    }

    fn advance(&mut self, ready: &Ready) {
        let mut ready_copies = ready.copies.iter();
        self.copies.retain_mut(|copy| {
            !ready_copies.next().is_some_and(|r| *r) || pass_on(&copy.source, &mut copy.sink).is_some()
        });
        let Some(terminal) = &mut self.terminal else { return };
        if ready.close || !terminal.advance(ready) {
            // Dropped here, the master hangs the terminal up.
            self.terminal = None;
        }
    }
}

impl TerminalPump<'_> {
    /// Returns whether there is anybody left on the other side.
    fn advance(&mut self, ready: &Ready) -> bool {
        if ready.input {
            self.read_input();
        }
        if !self.pending.is_empty() {
            match rustix::io::write(&*self.master, &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Nobody will ever read it.
                Err(_) => self.pending.clear(),
            }
        }
        !ready.master || pass_on(&*self.master, &mut self.sink).is_some()
    }

    fn read_input(&mut self) {
        let Some(input) = &self.input else { return };
        let mut buffer = [0; 4096];
        match rustix::io::read(input, &mut buffer) {
            Ok(count @ 1..) => {
                self.pending.extend(&buffer[..count]);
                self.in_line = !matches!(buffer[count - 1], b'\n' | b'\r' | EOT);
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            // One that can't be read has ended, too.
            Ok(0) | Err(_) => {
                // After half a line the first one only hands that over: termios(3), VEOF.
                let count = if self.in_line { 2 } else { 1 };
                self.pending.extend(std::iter::repeat_n(EOT, count));
                self.input = None;
            }
        }
    }
}

/// A descriptor to write to, be it one that others have made non-blocking: then it is waited for.
pub(crate) struct Waiting(pub OwnedFd);

impl Write for Waiting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match write_without_signal(&self.0, bytes) {
                Err(Errno::AGAIN) => {
                    // Also when nobody reads any more, which the next attempt says.
                    let room = || poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None);
                    retry_on_intr(room)?;
                }
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// write(2) in a thread of somebody's who may not want to die of `SIGPIPE`.
fn write_without_signal(fd: &OwnedFd, bytes: &[u8]) -> rustix::io::Result<usize> {
    let signal = broken_pipe();
    let before = signal.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok();
    let written = retry_on_intr(|| rustix::io::write(fd, bytes));
    let Some(before) = before.filter(|before| !before.contains(Signal::SIGPIPE)) else { return written };
    if written == Err(Errno::PIPE) {
        // The kernel has sent it to this thread alone.
        let _ = signal.wait();
    }
    let _ = before.thread_set_mask();
    written
}

fn broken_pipe() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGPIPE);
    set
}

/// Copies what is there, until that was `left`.
fn pass_on_all(source: impl AsFd, sink: &mut Box<dyn Write + Send + '_>, mut left: u64) {
    while left > 0
        && let Some(count @ 1..) = pass_on(&source, sink)
    {
        left = left.saturating_sub(count);
    }
    let _ = sink.flush();
}

/// Copies what is there. Returns how much that was, if more may come.
fn pass_on(source: impl AsFd, sink: &mut Box<dyn Write + Send + '_>) -> Option<u64> {
    // Not on the stack, which an embedder's threads may have little of.
    let mut buffer = vec![0; BUFFER];
    match retry_on_intr(|| rustix::io::read(&source, &mut buffer)) {
        // Every program has closed it; a terminal says EIO then.
        Ok(0) | Err(Errno::IO) => {
            let _ = sink.flush();
            None
        }
        Ok(count) => match sink.write_all(&buffer[..count]) {
            Ok(()) => Some(count as u64),
            Err(e) => {
                // Closed on this side, too, the program is told as by any reader that goes away.
                tracing::warn!("a container's output is lost: {e}");
                None
            }
        },
        Err(Errno::AGAIN) => Some(0),
        Err(e) => {
            tracing::warn!("a container's output cannot be read: {e}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Input, Pipes};
    use std::io::{Read, Write};

    #[test]
    fn what_was_written_before_the_end_is_copied_after_it() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        {
            let ([_, stdout, stderr], mut pump) =
                Pipes::null().stdout(&mut out).stderr(&mut err).open().unwrap();
            std::fs::File::from(stdout).write_all(b"out").unwrap();
            // Somebody still has the other end, but writes no more.
            let mut stderr = std::fs::File::from(stderr);
            stderr.write_all(b"err").unwrap();
            let (end, _writer) = std::io::pipe().unwrap();
            drop(_writer);
            pump.until(std::os::fd::AsFd::as_fd(&end), None).unwrap();
            pump.drain().unwrap();
        }
        assert_eq!((out.as_slice(), err.as_slice()), (b"out".as_slice(), b"err".as_slice()));
    }

    #[test]
    fn who_writes_for_ever_is_not_waited_for() {
        const MUCH: usize = 16 << 20;
        /// Takes much, but not everything.
        struct Counter(usize);
        impl Write for Counter {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0 += bytes.len();
                if self.0 > MUCH { Err(std::io::ErrorKind::BrokenPipe.into()) } else { Ok(bytes.len()) }
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut counter = Counter(0);
        let ([_, stdout, _], mut pump) = Pipes::null().stdout(&mut counter).open().unwrap();
        let mut stdout = std::fs::File::from(stdout);
        stdout.write_all(b"first").unwrap();
        let writer = std::thread::spawn(move || while stdout.write_all(&[b'x'; 4096]).is_ok() {});
        pump.drain().unwrap();
        drop(pump);
        // Nobody reads any more: it is told.
        writer.join().unwrap();
        assert!((5..=2 * super::BUFFER).contains(&counter.0), "{}", counter.0);
    }

    #[test]
    fn input_is_copied_from_any_reader() {
        let text = vec![b'x'; 300_000];
        let (fds, mut pump) =
            Pipes::null().stdin(Input::reader(std::io::Cursor::new(text.clone()))).open().unwrap();
        pump.feed().unwrap();
        let [stdin, ..] = fds;
        let mut seen = Vec::new();
        std::fs::File::from(stdin).read_to_end(&mut seen).unwrap();
        assert_eq!(seen, text);
    }

    #[test]
    fn what_a_descriptor_cannot_take_yet_is_written_later() {
        use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
        let (mut output, ours) = std::io::pipe().unwrap();
        fcntl_setfl(&ours, fcntl_getfl(&ours).unwrap() | OFlags::NONBLOCK).unwrap();
        let text = vec![b'x'; 1 << 20];
        let writer = std::thread::spawn({
            let text = text.clone();
            move || {
                let mut sink = super::Waiting(ours.into());
                sink.write_all(&text).unwrap();
                sink
            }
        });
        let mut seen = vec![0; text.len()];
        output.read_exact(&mut seen).unwrap();
        assert_eq!(seen, text);
        // It fills the pipe, and is told when nobody reads any more.
        let mut sink = writer.join().unwrap();
        let writer = std::thread::spawn(move || sink.write_all(&text));
        output.read_exact(&mut [0; 4096]).unwrap();
        drop(output);
        assert_eq!(writer.join().unwrap().unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_sink_that_fails_closes_the_pipe() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut broken = Broken;
        let ([_, stdout, _], mut pump) = Pipes::null().stdout(&mut broken).open().unwrap();
        let mut stdout = std::fs::File::from(stdout);
        stdout.write_all(b"lost").unwrap();
        pump.drain().unwrap();
        // A process that another test forks has a copy of the reading end until its exec: the event waits for that.
        let patience = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        let mut fds = [rustix::event::PollFd::new(&stdout, rustix::event::PollFlags::empty())];
        assert_eq!(rustix::event::poll(&mut fds, Some(&patience)).unwrap(), 1, "the pipe is still open");
        assert_eq!(stdout.write(b"more").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    }
}
