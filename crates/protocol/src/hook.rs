//! OCI hooks: programs run at a point of the life cycle with the container's state on their standard input.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// How much of what a failing hook said goes into the error.
const TAIL: u64 = 2048;

/// One hook. Source: runtime-spec, config.md, "POSIX-platform Hooks".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The field it came from, for instance `hooks.prestart[0]`.
    pub field: String,
    /// The program.
    pub path: PathBuf,
    /// Its arguments, the zeroth included.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<String>,
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

impl Hook {
    /// Runs the hook in `directory` to its end.
    ///
    /// # Errors
    /// When it can't be started, exits with anything but 0, or takes longer than its time.
    pub fn run(&self, state: &str, directory: &Path) -> Result<(), HookError> {
        self.try_run(state, directory)
            .map_err(|reason| HookError(format!("{}: hook {}: {reason}", self.field, self.path.display())))
    }

    fn try_run(&self, state: &str, directory: &Path) -> Result<(), String> {
        // Files in memory and not pipes: a hook need not read its state, and may leave a daemon behind that keeps its
        // output open.
        let mut input = File::from(memfd_create("state", MemfdFlags::CLOEXEC).map_err(text)?);
        input.write_all(state.as_bytes()).and_then(|()| input.rewind()).map_err(text)?;
        let mut said = File::from(memfd_create("hook", MemfdFlags::CLOEXEC).map_err(text)?);
        let mut command = Command::new(&self.path);
        if let Some((name, rest)) = self.args.split_first() {
            command.arg0(name).args(rest);
        }
        command.env_clear().envs(self.env.iter().filter_map(|e| e.split_once('=')));
        command.current_dir(directory);
        command.stdin(input);
        command.stdout(said.try_clone().map_err(text)?).stderr(said.try_clone().map_err(text)?);
        let mut child = command.spawn().map_err(text)?;

        let ended = self.wait(&mut child);
        if ended.is_err() {
            // Killing and reaping what has ended already is harmless.
            let _ = child.kill();
            let _ = child.wait();
        }
        let status = ended?;
        if status.success() {
            return Ok(());
        }
        let how = match status.code() {
            Some(code) => format!("exit status {code}"),
            None => format!("signal {}", status.signal().unwrap_or(0)),
        };
        let mut output = String::new();
        let _ = said.rewind();
        let _ = said.take(TAIL).read_to_string(&mut output);
        let output = output.trim();
        Err(if output.is_empty() { how } else { format!("{how}, output: {output}") })
    }

    fn wait(&self, child: &mut Child) -> Result<std::process::ExitStatus, String> {
        let Some(timeout) = self.timeout else { return child.wait().map_err(text) };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("no pid")?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(text)?;
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(text)?;
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            match poll(&mut fds, Some(&left)) {
                Ok(0) => return Err(format!("timed out after {} s", timeout.as_secs())),
                Ok(_) => return child.wait().map_err(text),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(text(e)),
            }
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout: Option<Duration>) -> Hook {
        Hook {
            field: "hooks.prestart[0]".into(),
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec!["A=b".into()],
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
            "hooks.prestart[0]: hook /bin/sh: exit status 3, output: no such bridge"
        );
    }

    #[test]
    fn a_hook_past_its_time_is_killed() {
        let begun = Instant::now();
        let error = sh("sleep 60", Some(Duration::from_secs(1))).run("", Path::new("/")).unwrap_err();
        assert!(error.to_string().contains("timed out after 1 s"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
