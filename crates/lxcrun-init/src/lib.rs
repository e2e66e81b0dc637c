//! The init: pid 1 of a container until it executes the program, and the process of an exec.
//!
//! It needs nothing of the image: it is a static program, or goes on in the process that liblxc has made ([`take_over`]).
//! Read on in [`container`], which is a container's life inside, top to bottom; [`exec`] is the short way into a running
//! one; both end in [`process`].
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

/// The program: does what the runtime asks at the other end of [`CONTROL_FD`], and returns when that fails, or when the
/// runtime is gone.
#[must_use]
pub fn main() -> ExitCode {
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
    serve(&Channel::from(control), kernel::close_on_exec_from(3));
    ExitCode::FAILURE
}

/// The same in a process that liblxc has made of its monitor, and that has not executed a program. In a user namespace an
/// init must: the kernel goes by the namespace of the last exec for who may look at a process, and whose its files in
/// /proc are.
pub fn take_over() -> ! {
    let monitor = std::env::args().next().unwrap_or_default();
    kernel::rename(&monitor.replacen("monitor", "init", 1));
    let _ = rustix::thread::set_name(c"lxcrun-init");
    // What an exec would have closed, and with it the pipe at whose end liblxc learns that it has not failed.
    let number = CONTROL_FD.unsigned_abs();
    let closed =
        kernel::close_range(3..=number - 1).and_then(|()| kernel::close_range(number + 1..=u32::MAX));
    if let Ok(control) = kernel::take_inherited(CONTROL_FD) {
        serve(&Channel::from(control), closed);
    }
    exit(1)
}

/// Does what the runtime asks; returns only when that fails, or when the runtime is gone. `kept_out` is whether no
/// descriptor of others reaches the program.
fn serve(control: &Channel, kept_out: rustix::io::Result<()>) {
    let kept_out = kept_out.map_err(|e| fail("close_range", e));
    if let Err(failure) = kept_out.and_then(|()| answer(control)) {
        // When the runtime is gone there is nobody to tell.
        let _ = control.send(&FromInit::Failed(failure), &[]);
    }
}

fn answer(control: &Channel) -> Result<()> {
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

/// Ends this process at once. There is nothing to unwind, because all of it is a single function, and liblxc's handlers are
/// its monitor's.
fn exit(code: i32) -> ! {
    kernel::exit(code)
}

fn say(control: &Channel, message: &FromInit) -> Result<()> {
    control.send(message, &[]).map_err(|e| fail("the runtime does not listen", e))
}

/// Waits for the word to take the next step; false when the runtime is gone.
fn may_proceed(control: &Channel) -> bool {
    matches!(control.receive(), Ok(Some(protocol::Received { message: ToInit::Proceed, .. })))
}
