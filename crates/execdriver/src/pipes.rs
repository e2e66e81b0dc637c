//! Where a program's input comes from, and where its output goes.

use std::fmt;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::pump::{Copy, Feeder, Pump, Waiting};

/// Standard input, output and error of a program.
///
/// Files, pipes and sockets are handed to the program itself. What is only [`Read`] or [`Write`] is copied: output by
/// the thread that called the driver, input by a thread of its own, which ends with the next `read` after the program.
/// A program with a terminal has one output: that is `stdout`.
///
/// ```
/// use execdriver::{Input, Pipes};
///
/// let mut output = Vec::new();
/// let pipes = Pipes::null().stdin(Input::reader(&b"some text"[..])).stdout(&mut output);
/// # drop(pipes);
/// let (reader, writer) = std::io::pipe()?;
/// let pipes = Pipes::inherit().stderr(writer);
/// # drop((pipes, reader));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Pipes<'io> {
    stdin: Input,
    stdout: Output<'io>,
    stderr: Output<'io>,
}

/// Where a program's standard input comes from.
#[derive(Default)]
pub enum Input {
    /// There is none: it ends at once. At a terminal nobody types, and who reads there waits, as with `docker run -t`.
    #[default]
    Null,
    /// This process's.
    Inherit,
    /// This file, pipe or socket itself.
    Fd(OwnedFd),
    /// What this yields. It is read as fast as the program does.
    Reader(Box<dyn Read + Send>),
}

/// Where a program's output goes.
#[derive(Default)]
pub enum Output<'io> {
    /// Nowhere.
    #[default]
    Null,
    /// To this process's.
    Inherit,
    /// To this file, pipe or socket itself.
    Fd(OwnedFd),
    /// Here. A program that writes faster has to wait. It must wait, too, when it can't take more: one that returns
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) has failed as by any other error. A descriptor that does not wait is given as
    /// [`Fd`](Self::Fd).
    Writer(Box<dyn Write + Send + 'io>),
}

impl<'io> Pipes<'io> {
    /// No input, and nobody who wants the output.
    #[must_use]
    pub fn null() -> Self {
        Self::default()
    }

    /// Those of this process.
    #[must_use]
    pub fn inherit() -> Self {
        Self { stdin: Input::Inherit, stdout: Output::Inherit, stderr: Output::Inherit }
    }

    /// The same with another standard input.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Input>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// The same with another standard output.
    #[must_use]
    pub fn stdout(mut self, stdout: impl Into<Output<'io>>) -> Self {
        self.stdout = stdout.into();
        self
    }

    /// The same with another standard error.
    #[must_use]
    pub fn stderr(mut self, stderr: impl Into<Output<'io>>) -> Self {
        self.stderr = stderr.into();
        self
    }

    /// The program's ends, and what is to be copied.
    pub(crate) fn open(self) -> io::Result<([OwnedFd; 3], Pump<'io>)> {
        let mut pump = Pump::default();
        let stdin = match self.stdin.source(&mut pump, rustix::stdio::stdin())? {
            Some(source) => source,
            None => null()?,
        };
        let mut output = |output: Output<'io>, own: rustix::fd::BorrowedFd<'static>| match output {
            Output::Null => null(),
            Output::Inherit => own.try_clone_to_owned(),
            Output::Fd(fd) => Ok(fd),
            Output::Writer(sink) => {
                let (source, end) = pipe_with(PipeFlags::CLOEXEC)?;
                pump.copies.push(Copy { source, sink });
                Ok(end)
            }
        };
        let stdout = output(self.stdout, rustix::stdio::stdout())?;
        let stderr = output(self.stderr, rustix::stdio::stderr())?;
        Ok(([stdin, stdout, stderr], pump))
    }

    /// Everything for a program with the terminal `master`.
    pub(crate) fn open_terminal(self, master: OwnedFd) -> io::Result<(crate::Terminal, Pump<'io>)> {
        let mut pump = Pump::default();
        let input = self.stdin.source(&mut pump, rustix::stdio::stdin())?;
        let sink: Box<dyn Write + Send + 'io> = match self.stdout {
            Output::Null => Box::new(io::sink()),
            Output::Inherit => Box::new(Waiting(rustix::stdio::stdout().try_clone_to_owned()?)),
            Output::Fd(fd) => Box::new(Waiting(fd)),
            Output::Writer(sink) => sink,
        };
        let terminal = pump.connect(master, input, sink)?;
        Ok((terminal, pump))
    }
}

impl Input {
    /// Input from anything that can be read.
    pub fn reader(reader: impl Read + Send + 'static) -> Self {
        Self::Reader(Box::new(reader))
    }

    /// What can be read from by number.
    fn source(self, pump: &mut Pump<'_>, own: impl AsFd) -> io::Result<Option<OwnedFd>> {
        Ok(match self {
            Self::Null => None,
            Self::Inherit => Some(own.as_fd().try_clone_to_owned()?),
            Self::Fd(fd) => Some(fd),
            Self::Reader(reader) => {
                let (end, into) = pipe_with(PipeFlags::CLOEXEC)?;
                pump.feeder = Some(Feeder { reader, into });
                Some(end)
            }
        })
    }
}

impl<'io> Output<'io> {
    /// Output to anything that can be written.
    pub fn writer(writer: impl Write + Send + 'io) -> Self {
        Self::Writer(Box::new(writer))
    }
}

fn null() -> io::Result<OwnedFd> {
    Ok(open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Inherit => f.write_str("Inherit"),
            Self::Fd(fd) => f.debug_tuple("Fd").field(fd).finish(),
            Self::Reader(_) => f.write_str("Reader"),
        }
    }
}

impl fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Inherit => f.write_str("Inherit"),
            Self::Fd(fd) => f.debug_tuple("Fd").field(fd).finish(),
            Self::Writer(_) => f.write_str("Writer"),
        }
    }
}

macro_rules! from_descriptor {
    ($target:ty: $($source:ty),*) => {
        $(impl From<$source> for $target {
            fn from(source: $source) -> Self {
                Self::Fd(source.into())
            }
        })*
    };
}

from_descriptor!(Input: OwnedFd, File, PipeReader, UnixStream, TcpStream);
from_descriptor!(Output<'_>: OwnedFd, File, PipeWriter, UnixStream, TcpStream);

impl<'io, W: Write + Send> From<&'io mut W> for Output<'io> {
    fn from(writer: &'io mut W) -> Self {
        Self::writer(writer)
    }
}
