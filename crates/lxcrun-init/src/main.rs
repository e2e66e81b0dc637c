//! The init: pid 1 of a container until it executes the program, and the process of an exec.
//!
//! A static binary that needs nothing of the image. Read on in [`container`], which is a container's life
//! inside, top to bottom; [`exec`] is the short way into a running one; both end in [`process`].
#![forbid(unsafe_code)]

mod container;
mod devices;
mod exec;
mod failure;
mod labels;
mod mounts;
mod no_pivot;
mod proc;
mod process;
mod root;
mod terminal;
mod waiter;

use std::process::ExitCode;

use protocol::Channel;
use protocol::init::{CONTROL_FD, FromInit, ToInit, WAITER};

use crate::failure::{Result, fail};

fn main() -> ExitCode {
    if std::env::args_os().next().is_some_and(|name| name == WAITER)
        && let Err(e) = waiter::stay_behind()
    {
        eprintln!("{WAITER}: {e}");
        return ExitCode::FAILURE;
    }
    let Ok(control) = kernel::take_inherited(CONTROL_FD) else {
        eprintln!("lxcrun-init is started by lxcrun");
        return ExitCode::FAILURE;
    };
    let control = Channel::from(control);
    if let Err(failure) = serve(&control) {
        // When the runtime is gone there is nobody to tell.
        let _ = control.send(&FromInit::Failed(failure), &[]);
    }
    ExitCode::FAILURE
}

/// Does what the runtime asks; returns only when that fails, or when the runtime is gone.
fn serve(control: &Channel) -> Result<()> {
    kernel::close_on_exec_from(3).map_err(|e| fail("close_range", e))?;
    if say(control, &FromInit::Hello).is_err() {
        start_again();
    }
    let Some(request) = control.receive::<ToInit>().map_err(|e| fail("the runtime's request", e))? else {
        return Ok(());
    };
    match request.message {
        ToInit::Prepare(plan) => container::run(control, &plan, request.fds),
        ToInit::Exec(plan) => exec::run(control, &plan, request.fds),
        ToInit::Proceed => Ok(()),
    }
}

/// The runtime's end is closed: it was killed, or the container has ended before. liblxc takes the death of an init by
/// SIGHUP for a reboot and starts it again (`lxc_poll` in its start.c), but to everybody else it is just that death.
fn start_again() -> ! {
    const SIGHUP: i32 = 1;
    exit(128 + SIGHUP)
}

/// Ends this process at once. There is nothing to unwind, because all of it is a single function.
#[allow(clippy::exit)]
fn exit(code: i32) -> ! {
    std::process::exit(code)
}

fn say(control: &Channel, message: &FromInit) -> Result<()> {
    control.send(message, &[]).map_err(|e| fail("the runtime does not listen", e))
}

/// Waits for the word to take the next step; false when the runtime is gone.
fn may_proceed(control: &Channel) -> bool {
    matches!(control.receive(), Ok(Some(protocol::Received { message: ToInit::Proceed, .. })))
}
