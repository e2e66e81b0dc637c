//! Who waits for the process of an exec when the runtime's program can't be relied on to: it may ignore SIGCHLD, or have
//! somebody wait for whatever child ends.

use std::io::{self, Write};
use std::os::fd::OwnedFd;

use protocol::init::{CONTROL_FD, WAITER_FD};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, WaitOptions, set_dumpable_behavior, setsid, wait};

/// Returns in a child, which is the helper from there on. This process waits for the helper's siblings, of which there is
/// one, and says how it ended.
///
/// It is in no namespace and no cgroup of the container: nobody there can end it.
pub fn stay_behind() -> io::Result<()> {
    let report = kernel::take_inherited(WAITER_FD)?;
    // What the runtime's program has let slip is not to stay open for as long as the exec runs.
    kernel::close_range(3..=CONTROL_FD.unsigned_abs() - 1)?;
    kernel::close_range(WAITER_FD.unsigned_abs() + 1..=u32::MAX)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // What is typed at the terminal of the runtime's program is not for us.
    setsid()?;
    match kernel::clone_child()? {
        kernel::Clone::Child => {
            drop(report);
            Ok(())
        }
        kernel::Clone::Parent(helper) => wait_for_siblings_of(helper, report),
    }
}

fn wait_for_siblings_of(helper: Pid, report: OwnedFd) -> ! {
    // While we have it, nobody hears that the helper has gone.
    drop(kernel::take_inherited(CONTROL_FD));
    let mut report = std::fs::File::from(report);
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid != helper => {
                // The runtime may have gone: then nobody wants to know.
                let _ = report.write_all(&status.as_raw().to_ne_bytes());
            }
            Ok(_) | Err(Errno::INTR) => {}
            // There is nobody left.
            Err(_) => crate::exit(0),
        }
    }
}
