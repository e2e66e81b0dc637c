//! Waiting for conditions, never for a while: everything here blocks in the kernel until it holds, or until
//! the deadline, which is a failure.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The longest that anything in the suite may take: generous, as the machine may be emulated, where twenty containers that
/// dockerd starts at once take minutes.
pub const DEADLINE: Duration = Duration::from_secs(240);

/// Blocks until `fd` can be read (or has hung up); `false` at the deadline.
pub fn readable(fd: impl AsFd, within: Duration) -> bool {
    let end = Instant::now() + within;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("a short time");
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => panic!("poll: {e}"),
        }
    }
}

/// A pidfd, or `None` if there is no such process any more.
pub fn pidfd(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Blocks until the process has exited; `false` at the deadline.
pub fn exits(pid: u32, within: Duration) -> bool {
    pidfd(pid).is_none_or(|fd| readable(fd, within))
}

/// Blocks until the process has exited.
#[track_caller]
pub fn until_exit(pid: u32) {
    assert!(exits(pid, DEADLINE), "process {pid} still runs");
}

/// A named pipe on which a test and a program in a container or a hook meet.
pub struct Fifo {
    path: PathBuf,
    file: File,
}

impl Fifo {
    /// Makes the pipe, and holds both its ends open: a reader of it waits until this is dropped.
    pub fn new(path: impl Into<PathBuf>) -> Fifo {
        let path = path.into();
        mkfifoat(CWD, &path, Mode::from_raw_mode(0o666)).expect("a fifo");
        let file = OpenOptions::new().read(true).write(true).open(&path).expect("the fifo");
        Fifo { path, file }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it hold no more than a page: who writes more waits until it is read.
    pub fn hold_little(&self) {
        fcntl_setpipe_size(&self.file, 1).expect("a size");
    }

    /// Writes a line, for one reader.
    #[track_caller]
    pub fn send(&mut self, line: &str) {
        writeln!(self.file, "{line}").expect("write to a fifo");
    }

    /// Waits for a line and returns it.
    #[track_caller]
    pub fn line(&mut self) -> String {
        read_line(&mut self.file)
    }
}

/// Reads up to the next line feed or the end, a byte at a time; fails at the deadline.
#[track_caller]
pub fn read_line(from: &mut (impl Read + AsFd)) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        assert!(readable(&*from, DEADLINE), "no line came, only {:?}", String::from_utf8_lossy(&line));
        if from.read(&mut byte).expect("read") == 0 || byte[0] == b'\n' {
            return String::from_utf8_lossy(&line).into_owned();
        }
        line.push(byte[0]);
    }
}
