//! `containerd-shim-lxcrun-v2`: stands between containerd and the containers of one pod.
//!
//! containerd calls it three times: `start` leaves a process behind that serves the task API at a socket ([`serve`]),
//! `delete` removes what a killed one has left, `-info` tells what the runtime can do. containerd's API is in
//! [`service`], what a task is in [`task`].
#![forbid(unsafe_code)]

mod checkpoint;
mod delete;
mod events;
mod flags;
mod info;
mod io;
mod log;
mod logger;
mod metrics;
mod options;
mod owners;
mod process;
mod rootfs;
mod serve;
mod service;
mod start;
mod status;
mod task;
mod terminal;
mod uri;

use std::io::Write;
use std::process::ExitCode;

use flags::{Action, Flags};

/// containerd knows the runtime by this name.
const RUNTIME: &str = "io.containerd.lxcrun.v2";

fn main() -> ExitCode {
    kernel::keep_children();
    let flags = match Flags::parse(std::env::args_os().skip(1)) {
        Ok(flags) => flags,
        Err(reason) => return fail(&reason),
    };
    let done = match flags.action {
        Action::Version => {
            let version = env!("CARGO_PKG_VERSION");
            writeln!(std::io::stdout(), "{RUNTIME} (lxcrun {version})").map_err(Into::into)
        }
        Action::Info => info::info(),
        Action::Start => start::start(&flags),
        Action::Delete => delete::delete(&flags),
        Action::Serve => serve::serve(&flags),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}")),
    }
}

fn fail(reason: &str) -> ExitCode {
    // That nobody can read it changes nothing.
    let _ = writeln!(std::io::stderr(), "{RUNTIME}: {reason}");
    ExitCode::FAILURE
}
