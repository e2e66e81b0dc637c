//! Standard input, output and error of a process: where containerd's URIs lead.
//!
//! Fifos for output are handed to the container's program itself, so what it writes passes through nobody: a shim that is killed
//! or busy never stands in its way. A terminal needs somebody who copies ([`Terminal`]), and so does a file of the host's,
//! which must not become the container's, and an exec: containerd reads until nobody writes, and what an exec has left
//! behind in the container may write for ever. Input is copied, too: who opens a fifo anew, as `/dev/stdin`, waits for who
//! writes to it, also when the input has ended; a pipe without a name gives its end.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use rustix::fs::{Gid, OFlags, Uid, fchown, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::logger::Logger;
use crate::terminal::{Copying, InputEnd, PATIENCE, Terminal};
use crate::uri;

/// What containerd says about standard input, output and error.
#[derive(Debug, Clone, Default)]
pub struct Uris {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

/// Who a process belongs to, for loggers, and who owns its pipes.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    pub namespace: &'a str,
    /// The container's id, or an exec's own.
    pub id: &'a str,
    pub uid: u32,
    pub gid: u32,
    /// Whether nobody of its processes outlives it.
    pub ends_with_it: bool,
}

/// The ends that the process gets, and what is held for it.
pub struct Opened {
    /// Without a terminal.
    pub stdio: Option<[OwnedFd; 3]>,
    pub io: Io,
}

/// What is held for a process as long as it is known.
#[derive(Default)]
pub struct Io {
    /// Keeps its input open until containerd closes it.
    input: Option<File>,
    /// The other ends of fifos: without a reader, the process would be killed for writing.
    readers: Vec<File>,
    logger: Option<Logger>,
    /// For the terminal, until there is one.
    ends: Option<(File, InputEnd, File)>,
    /// What is on its way elsewhere.
    copies: Vec<Copying>,
    /// Input on its way to the process, which need not want it.
    typing: Option<Copying>,
    pub terminal: Option<Terminal>,
}

impl Uris {
    /// Opens everything. Nothing here waits for the other side.
    pub fn open(&self, owner: Owner<'_>) -> anyhow::Result<Opened> {
        let mut io = Io::default();
        let stdin = io.open_input(&self.stdin)?;
        let stdout = io.open_outputs(self, owner)?;
        if self.terminal {
            let end = if io.input.is_some() { InputEnd::HangUp } else { InputEnd::Nothing };
            io.ends = Some((stdin, end, stdout.0));
            return Ok(Opened { stdio: None, io });
        }
        let stdin = if io.input.is_some() { io.copy_input(stdin, owner)? } else { stdin };
        Ok(Opened { stdio: Some([stdin.into(), stdout.0.into(), stdout.1.into()]), io })
    }
}

impl Io {
    fn open_input(&mut self, uri: &str) -> anyhow::Result<File> {
        let path = uri.strip_prefix("fifo://").unwrap_or(uri);
        if path.is_empty() {
            return Ok(File::open("/dev/null")?);
        }
        let what = || format!("standard input {uri}");
        let file = open_end(OpenOptions::new().read(true), path).with_context(what)?;
        if file.metadata().with_context(what)?.file_type().is_fifo() {
            // Now that there is a reader.
            self.input = Some(open_end(OpenOptions::new().write(true), path).with_context(what)?);
        }
        Ok(file)
    }

    /// A pipe that what is written to this fifo comes through.
    fn copy_input(&mut self, fifo: File, owner: Owner<'_>) -> anyhow::Result<File> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let reader = File::from(reader);
        give(&reader, owner)?;
        self.typing = Some(Copying::start(fifo, writer.into())?);
        Ok(reader)
    }

    fn open_outputs(&mut self, uris: &Uris, owner: Owner<'_>) -> anyhow::Result<(File, File)> {
        if let Some(rest) = uris.stdout.strip_prefix("binary://") {
            let (stdout, for_stdout) = pipe(owner)?;
            let (stderr, for_stderr) = pipe(owner)?;
            let what = || format!("logger {}", uris.stdout);
            self.logger = Some(Logger::start(rest, owner, [for_stdout, for_stderr]).with_context(what)?);
            return Ok((stdout, stderr));
        }
        let stdout = self
            .open_output(&uris.stdout, owner)
            .with_context(|| format!("standard output {}", uris.stdout))?;
        // containerd's client names a fifo for the errors of a terminal, too, which has none, and makes no such fifo.
        let stderr = if uris.terminal || uris.stderr == uris.stdout {
            stdout.try_clone()?
        } else {
            self.open_output(&uris.stderr, owner)
                .with_context(|| format!("standard error {}", uris.stderr))?
        };
        Ok((stdout, stderr))
    }

    fn open_output(&mut self, uri: &str, owner: Owner<'_>) -> anyhow::Result<File> {
        if uri.is_empty() {
            return Ok(OpenOptions::new().write(true).open("/dev/null")?);
        }
        if let Some(rest) = uri.strip_prefix("file://") {
            let path = PathBuf::from(uri::path(rest));
            if let Some(directory) = path.parent() {
                std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
            }
            return self.copy_to(OpenOptions::new().create(true).append(true).mode(0o644).open(path)?, owner);
        }
        let path = match uri.split_once("://") {
            None => uri,
            Some(("fifo", path)) => path,
            Some((scheme, _)) => bail!("{scheme} is not supported: fifo, file and binary are"),
        };
        if !std::fs::metadata(path)?.file_type().is_fifo() {
            return self.copy_to(OpenOptions::new().append(true).open(path)?, owner);
        }
        self.readers.push(open_end(OpenOptions::new().read(true), path)?);
        let file = open_end(OpenOptions::new().write(true), path)?;
        if !owner.ends_with_it {
            return self.copy_to(file, owner);
        }
        give(&file, owner)?;
        Ok(file)
    }

    /// A pipe that leads to a file.
    fn copy_to(&mut self, file: File, owner: Owner<'_>) -> anyhow::Result<File> {
        let (writer, reader) = pipe(owner)?;
        self.copies.push(Copying::start(reader.into(), file)?);
        Ok(writer)
    }

    /// Copies between the terminal and what was opened for it.
    pub fn connect(&mut self, master: OwnedFd) -> anyhow::Result<()> {
        if let Some((input, end, output)) = self.ends.take() {
            self.terminal = Some(Terminal::connect(master.into(), input, end, output)?);
        }
        Ok(())
    }

    /// The process reads to the end of what was written, and then no more. When nobody else holds its input, it ends there,
    /// and a terminal is hung up.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// The process has ended. What it had no terminal for is copied until it is closed.
    pub fn end(&self) {
        if let Some(terminal) = &self.terminal {
            terminal.end();
        }
    }

    /// Lets everything go, when it is written.
    pub fn close(&mut self) {
        if let Some(terminal) = self.terminal.take() {
            terminal.close();
        }
        let deadline = Instant::now() + PATIENCE;
        self.copies.drain(..).for_each(|copying| copying.close(deadline));
        let logger = self.logger.take();
        *self = Self::default();
        if let Some(logger) = logger {
            logger.end();
        }
    }
}

/// Opens an end of a fifo without waiting for the other, and as if it had waited.
fn open_end(options: &mut OpenOptions, path: &str) -> std::io::Result<File> {
    let file = options.custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    fcntl_setfl(&file, OFlags::empty())?;
    Ok(file)
}

/// A pipe: its writing and its reading end.
fn pipe(owner: Owner<'_>) -> anyhow::Result<(File, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let writer = File::from(writer);
    give(&writer, owner)?;
    Ok((writer, reader))
}

/// To a user of the container's user namespace, which could not open it anew otherwise.
fn give(file: &File, owner: Owner<'_>) -> rustix::io::Result<()> {
    if (owner.uid, owner.gid) == (0, 0) {
        return Ok(());
    }
    fchown(file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
}
