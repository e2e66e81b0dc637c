//! What a command and everything that descends from it cost.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitOptions, getpid, pidfd_open, set_child_subreaper, wait, waitpid};

/// Nothing measured here takes this long.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy)]
pub struct Sample {
    /// User and system time of all processes that ended in the meantime.
    pub cpu: Duration,
    pub wall: Duration,
}

/// Runs commands as their subreaper: what they leave behind becomes our child, and is counted when it ends.
pub struct Stopwatch {
    stderr: PathBuf,
}

impl Stopwatch {
    pub fn new(dir: &Path) -> Result<Self> {
        set_child_subreaper(Some(getpid())).context("cannot become a subreaper")?;
        Ok(Self { stderr: dir.join("stderr") })
    }

    /// Runs a command to its end, successful or an error.
    pub fn run(&self, command: &mut Command) -> Result<()> {
        // A file, not a pipe: a container that stays keeps it open.
        let stderr = File::create(&self.stderr)?;
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).status();
        let status = status.with_context(|| format!("cannot run {command:?}"))?;
        ensure!(
            status.success(),
            "{command:?} ended with {status}: {}",
            std::fs::read_to_string(&self.stderr)?.trim()
        );
        Ok(())
    }

    /// Measures `work`. Whatever it left running and is still there doesn't count; see [`Self::settle`].
    pub fn time(&self, work: impl FnOnce() -> Result<()>) -> Result<Sample> {
        let cpu = cpu_of_children()?;
        let start = Instant::now();
        work()?;
        let wall = start.elapsed();
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        Ok(Sample { cpu: cpu_of_children()? - cpu, wall })
    }

    /// Measures `work`, with the CPU time of everything that it left behind until all of that has ended.
    pub fn time_all(&self, work: impl FnOnce() -> Result<()>) -> Result<Sample> {
        let cpu = cpu_of_children()?;
        let Sample { wall, .. } = self.time(work)?;
        self.settle()?;
        Ok(Sample { cpu: cpu_of_children()? - cpu, wall })
    }

    /// Waits for the process whose number is in the file, which a runtime left to us.
    pub fn wait_for(&self, pid_file: &Path) -> Result<()> {
        let text = std::fs::read_to_string(pid_file).with_context(|| format!("no {}", pid_file.display()))?;
        let pid =
            text.trim().parse().ok().and_then(Pid::from_raw).context("no process number in the pid file")?;
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(()),
            Err(err) => return Err(err).context("pidfd_open"),
        };
        let timeout = Timespec::try_from(PATIENCE)?;
        let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout))?;
        ensure!(ended == 1, "process {pid} still runs after {PATIENCE:?}");
        waitpid(Some(pid), WaitOptions::NOHANG).context("the container's init was not handed to us")?;
        Ok(())
    }

    /// Waits until nothing descends from us.
    pub fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) => {}
                Err(Errno::CHILD) => return Ok(()),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_micros(200)),
                Ok(None) => bail!("a process still runs after {PATIENCE:?}"),
                Err(err) => return Err(err).context("wait"),
            }
        }
    }
}

fn cpu_of_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = (usage.user_time() + usage.system_time()).num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}
