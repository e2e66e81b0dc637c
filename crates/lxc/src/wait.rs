//! Hearing from liblxc's own wait for the container's init, before its clean-up.
//!
//! liblxc (5 to 7: `lxc_wait_for_pid_status` in its utils.c, called at the end of `__lxc_start`) waits by waitpid(3),
//! and only then cleans up. A program that defines the symbol `waitpid` as [`lxcrun_waitpid`] and exports it, which is
//! a matter of linking, is the one that liblxc calls: the loader looks in the program first.

use std::cell::RefCell;

use libc::{c_int, pid_t};

use crate::Ended;

/// What becomes of this process after a child was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// liblxc goes on.
    GoOn,
    /// liblxc goes on as after a halt, also where it would take the child's end for a reboot.
    Halt,
    /// The process ends here, without any more of liblxc.
    End,
}

/// The signal that ends an init whose system reboots: reboot(2), "Behavior inside PID namespaces".
const REBOOT: u8 = 1;
/// The status of one whose system halts, which is SIGINT's.
const HALT: c_int = 2;

type Hook = Box<dyn FnMut(i32, Ended) -> Next>;

thread_local! {
    /// With the process that it was set in: what liblxc forks has a copy.
    static HOOK: RefCell<Option<(u32, Hook)>> = const { RefCell::new(None) };
}

/// Has `hook` called for each child that liblxc has waited for by its pid in this thread.
pub fn when_waited(hook: impl FnMut(i32, Ended) -> Next + 'static) {
    HOOK.set(Some((std::process::id(), Box::new(hook))));
}

/// waitpid(2), followed by the hook.
///
/// # Safety
/// As of waitpid(3): `status` is null or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxcrun_waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t {
    // SAFETY: the caller's promise about `status` is what wait4 asks for; it takes no usage when that is null.
    let waited = unsafe { libc::wait4(pid, status, options, std::ptr::null_mut()) };
    if waited > 0 && waited == pid && !status.is_null() {
        // SAFETY: not null, so an integer that wait4 has just written.
        let status = unsafe { &mut *status };
        let ended = Ended::from_wait_status(*status);
        match tell(pid, ended) {
            Next::GoOn => {}
            Next::Halt if ended == Ended::Signalled(REBOOT) => *status = HALT,
            Next::Halt => {}
            // SAFETY: ends the process, without handlers: liblxc's would meet it in the middle of its work.
            Next::End => unsafe { libc::_exit(0) },
        }
    }
    waited
}

fn tell(pid: i32, ended: Ended) -> Next {
    HOOK.with(|hook| match hook.try_borrow_mut().as_deref_mut() {
        Ok(Some((process, hook))) if *process == std::process::id() => hook(pid, ended),
        _ => Next::GoOn,
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::{cell::Cell, rc::Rc};

    use super::*;

    fn wait_for(script: &str) -> (i32, c_int) {
        #[expect(clippy::zombie_processes, reason = "waited for by number")]
        let child = Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut status = -1;
        // SAFETY: `status` lives across the call.
        assert_eq!(unsafe { lxcrun_waitpid(pid, &raw mut status, 0) }, pid);
        (pid, status)
    }

    #[test]
    fn the_hook_hears_how_a_child_has_ended_and_the_caller_too() {
        let heard = Rc::new(Cell::new(None));
        let told = Rc::clone(&heard);
        when_waited(move |pid, ended| {
            told.set(Some((pid, ended)));
            Next::GoOn
        });
        let (pid, status) = wait_for("exit 7");
        assert_eq!((heard.get(), status), (Some((pid, Ended::Exited(7))), 7 << 8));
        let (pid, status) = wait_for("kill -9 $$");
        assert_eq!((heard.get(), status), (Some((pid, Ended::Signalled(9))), 9));
    }

    #[test]
    fn a_reboot_becomes_a_halt_where_that_is_wanted() {
        for (next, script, status) in [
            (Next::GoOn, "kill -HUP $$", 1),
            (Next::Halt, "kill -HUP $$", HALT),
            (Next::Halt, "kill -9 $$", 9),
            (Next::Halt, "exit 7", 7 << 8),
        ] {
            when_waited(move |_, _| next);
            assert_eq!(wait_for(script).1, status, "{script}");
        }
    }
}
