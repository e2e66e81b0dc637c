//! Small parts that the test binary plays in a process of its own, as they change that process for good.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, waitpid};

const MARK: &str = "--helper";
const NEXT: &str = "--next-command";

/// Plays the part that the arguments ask for, if they do.
pub fn main() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != MARK {
        return None;
    }
    let args: Vec<OsString> = args.collect();
    match subreaper(&args) {
        Ok(end) => {
            println!("{end}");
            Some(ExitCode::SUCCESS)
        }
        Err(e) => {
            eprintln!("helper: {e}");
            Some(ExitCode::FAILURE)
        }
    }
}

/// A process that adopts orphans, as containerd's shim and conmon do: it runs the commands one after the other,
/// then waits for the process named in `pid_file`, and prints how that ended.
pub fn subreaper_command(pid_file: &Path, commands: &[Vec<OsString>]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("our path"));
    command.arg(MARK).arg(pid_file);
    for argv in commands {
        command.arg(NEXT).args(argv);
    }
    command
}

fn subreaper(args: &[OsString]) -> io::Result<String> {
    let missing = || io::Error::other("missing argument");
    let (pid_file, commands) = args.split_first().ok_or_else(missing)?;
    set_child_subreaper(Some(getpid()))?;
    for argv in commands.split(|arg| arg == NEXT).filter(|argv| !argv.is_empty()) {
        let status = Command::new(&argv[0]).args(&argv[1..]).status()?;
        if !status.success() {
            return Err(io::Error::other(format!("{argv:?}: {status}")));
        }
    }
    let pid: i32 = fs::read_to_string(pid_file)?.trim().parse().map_err(io::Error::other)?;
    let pid = Pid::from_raw(pid).ok_or_else(missing)?;
    let status = waitpid(Some(pid), WaitOptions::empty())?.ok_or_else(missing)?.1;
    Ok(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exited {code}"),
        (_, Some(signal)) => format!("killed {signal}"),
        _ => format!("{status:?}"),
    })
}
