//! OCI hooks: programs run at a point of the life cycle with the container's state on their standard input.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use kernel::ChildNote;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde::{Deserialize, Serialize};

/// How much of what a failing hook said goes into the error.
const TAIL: u64 = 2048;

const SIGSYS: i32 = 31;

/// One hook. Source: runtime-spec, config.md, "POSIX-platform Hooks".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Which one it is, for instance `prestart hook #0`.
    pub name: String,
    /// The program.
    pub path: PathBuf,
    /// Its arguments, the zeroth included.
    pub args: Vec<String>,
    /// Its whole environment; without one that of who runs it.
    pub env: Option<Vec<String>>,
    /// After this it is killed and has failed.
    pub timeout: Option<Duration>,
}

/// Why a hook has failed.
#[derive(Debug)]
pub struct HookError(String);

impl std::fmt::Display for HookError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HookError {}

/// What ends a hook before its time.
#[derive(Debug, Default)]
pub struct Watch<'a> {
    /// A pidfd of the process without which the hook has nothing to do.
    pub client: Option<BorrowedFd<'a>>,
    /// Becomes readable when nobody wants it done any more.
    pub cancelled: Option<BorrowedFd<'a>>,
    /// Where its process is noted, for who deletes the container after this process was killed.
    pub note: Option<ChildNote>,
}

impl Hook {
    /// Runs the hook in `directory` to its end.
    ///
    /// # Errors
    /// When it can't be started, exits with anything but 0, or takes longer than its time.
    pub fn run(&self, state: &str, directory: &Path) -> Result<(), HookError> {
        self.run_under(state, directory, Watch::default())
    }

    /// Runs the hook like [`run`](Self::run), for as long as nothing that is watched happens: then it is killed with
    /// all that it has started, but for what has left its process group.
    ///
    /// # Errors
    /// Like [`run`](Self::run), and when it was ended.
    pub fn run_under(&self, state: &str, directory: &Path, watch: Watch<'_>) -> Result<(), HookError> {
        self.try_run(state, directory, watch).map_err(|reason| {
            HookError(format!("error running {}: {}: {reason}", self.name, self.path.display()))
        })
    }

    fn try_run(&self, state: &str, directory: &Path, mut watch: Watch<'_>) -> Result<(), String> {
        // Files in memory and not pipes: a hook need not read its state, and may leave a daemon behind that keeps its
        // output open.
        let mut input = File::from(memfd_create("state", MemfdFlags::CLOEXEC).map_err(text)?);
        input.write_all(state.as_bytes()).and_then(|()| input.rewind()).map_err(text)?;
        let mut said = File::from(memfd_create("hook", MemfdFlags::CLOEXEC).map_err(text)?);
        let mut command = Command::new(&self.path);
        if let Some((name, rest)) = self.args.split_first() {
            command.arg0(name).args(rest);
        }
        if let Some(env) = &self.env {
            command.env_clear().envs(env.iter().filter_map(|e| e.split_once('=')));
        }
        command.current_dir(directory);
        command.stdin(input);
        command.stdout(said.try_clone().map_err(text)?).stderr(said.try_clone().map_err(text)?);
        // A group of its own, to be ended with what it has started.
        command.process_group(0);
        if let Some(note) = watch.note.take() {
            kernel::note_child_in(&mut command, note);
        }
        // The runtime may keep its own signals for later, as `run` does.
        let mut child = kernel::block_none_in(&mut command).spawn().map_err(text)?;

        let ended = self.wait(&mut child, &watch);
        if ended.is_err() {
            // Killing and reaping what has ended already is harmless.
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            let _ = child.wait();
        }
        let how = match ended {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => match status.code() {
                Some(code) => format!("exit status {code}"),
                None => match status.signal().unwrap_or(0) {
                    // What a seccomp filter says to a hook.
                    SIGSYS => format!("signal {SIGSYS} (bad system call)"),
                    signal => format!("signal {signal}"),
                },
            },
            Err(reason) => reason,
        };
        let output = tail(&mut said);
        Err(if output.is_empty() { how } else { format!("{how}, output: {output}") })
    }

    fn wait(&self, child: &mut Child, watch: &Watch<'_>) -> Result<ExitStatus, String> {
        let reasons = [
            (watch.client, "killed, because the container has ended"),
            (watch.cancelled, "killed, because a signal asked for it"),
        ];
        let watched: Vec<_> =
            reasons.iter().filter_map(|(fd, reason)| Some((fd.as_ref()?, reason))).collect();
        if self.timeout.is_none() && watched.is_empty() {
            return child.wait().map_err(text);
        }
        let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map_err(text)?;
        // One that is beyond all time is none.
        let deadline = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        fds.extend(watched.iter().map(|(fd, _)| PollFd::from_borrowed_fd(**fd, PollFlags::IN)));
        loop {
            let left = deadline.map(|end| Timespec::try_from(end.saturating_duration_since(Instant::now())));
            match poll(&mut fds, left.transpose().map_err(text)?.as_ref()) {
                Ok(0) => {
                    return Err(format!("timed out after {} s", self.timeout.unwrap_or_default().as_secs()));
                }
                Ok(_) if !fds[0].revents().is_empty() => return child.wait().map_err(text),
                Ok(_) => {
                    let happened = fds[1..].iter().zip(&watched).find(|(fd, _)| !fd.revents().is_empty());
                    return Err(happened.map_or("killed", |(_, (_, reason))| reason).into());
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(text(e)),
            }
        }
    }
}

/// The end of what a hook has said. It may be in any encoding, or cut within a character.
fn tail(said: &mut File) -> String {
    let mut bytes = Vec::new();
    let length = said.metadata().map_or(0, |m| m.len());
    let _ = said.seek(SeekFrom::Start(length.saturating_sub(TAIL)));
    let _ = said.take(TAIL).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn sh(script: &str, timeout: Option<Duration>) -> Hook {
        Hook {
            name: "prestart hook #0".into(),
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: Some(vec!["A=b".into()]),
            timeout,
        }
    }

    #[test]
    fn state_arrives_on_standard_input_and_only_the_given_environment() {
        let hook = sh("test \"$(cat)\" = hello && test \"$A\" = b && test -z \"$HOME\"", None);
        hook.run("hello", Path::new("/")).unwrap();
    }

    #[test]
    fn a_failure_says_what_the_hook_said() {
        let error = sh("echo no such bridge >&2; exit 3", None).run("", Path::new("/")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "error running prestart hook #0: /bin/sh: exit status 3, output: no such bridge"
        );
    }

    #[test]
    fn the_end_of_what_a_hook_said_is_told_in_whatever_encoding() {
        let script = "head -c 9000 /dev/zero | tr '\\0' x; printf ' caf\\351 is closed'; exit 1";
        let error = sh(script, None).run("", Path::new("/")).unwrap_err().to_string();
        assert!(error.ends_with("x caf\u{fffd} is closed"), "{error}");
        assert!(error.len() < 2500, "{} bytes", error.len());
    }

    #[test]
    fn a_hook_whose_client_has_ended_is_killed() {
        let mut client = Command::new("/bin/true").spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&client), PidfdFlags::empty()).unwrap();
        let hook = sh("echo begun; exec sleep 1000", None);
        let watch = Watch { client: Some(pidfd.as_fd()), ..Watch::default() };
        let error = hook.run_under("", Path::new("/"), watch).unwrap_err();
        client.wait().unwrap();
        assert!(error.to_string().contains("the container has ended"), "{error}");
    }

    #[test]
    fn a_timeout_beyond_all_time_is_none() {
        let longest = Duration::from_secs(i64::MAX.unsigned_abs());
        for timeout in [longest, Duration::MAX] {
            sh("exit 0", Some(timeout)).run("", Path::new("/")).unwrap();
        }
    }

    #[test]
    fn a_hook_past_its_time_is_killed() {
        let begun = Instant::now();
        let error = sh("sleep 60", Some(Duration::from_secs(1))).run("", Path::new("/")).unwrap_err();
        assert!(error.to_string().contains("timed out after 1 s"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
