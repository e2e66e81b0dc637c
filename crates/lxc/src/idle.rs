//! Hearing that liblxc waits and has nothing to do.
//!
//! A monitor of liblxc (5 and 6: `lxc_mainloop` in its mainloop.c) waits in epoll_wait(2) for its container's end, without
//! an end of its own. So a program may define the symbol `epoll_wait` as [`lxcrun_epoll_wait`] and export it, as `wait.rs`
//! tells of `waitpid`.

use std::sync::OnceLock;

use libc::{c_int, epoll_event};

static HOOK: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// In milliseconds. Most programs that end soon have ended by then.
const IDLE_AFTER: c_int = 1000;

/// Has `hook` called each time that liblxc has waited for a second for whatever may come, and nothing has.
pub fn when_idle(hook: impl Fn() + Send + Sync + 'static) {
    HOOK.get_or_init(|| Box::new(hook));
}

/// epoll_wait(2), with the hook in the middle of it.
///
/// # Safety
/// As of epoll_wait(2): there is room for `most` events at `events`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxcrun_epoll_wait(
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    timeout: c_int,
) -> c_int {
    if let (Some(hook), true) = (HOOK.get(), timeout < 0) {
        // SAFETY: the caller's promise.
        match unsafe { wait(epoll, events, most, IDLE_AFTER) } {
            0 => hook(),
            ready => return ready,
        }
    }
    // SAFETY: the caller's promise.
    unsafe { wait(epoll, events, most, timeout) }
}

/// # Safety
/// As of epoll_wait(2).
unsafe fn wait(epoll: c_int, events: *mut epoll_event, most: c_int, timeout: c_int) -> c_int {
    let no_signals = std::ptr::null::<libc::sigset_t>();
    // SAFETY: the caller's promise; without signals to block, their size means nothing.
    let ready =
        unsafe { libc::syscall(libc::SYS_epoll_pwait, epoll, events, most, timeout, no_signals, 0_usize) };
    c_int::try_from(ready).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};

    use rustix::event::epoll;
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    static IDLE: Mutex<Option<Sender<()>>> = Mutex::new(None);

    #[test]
    fn the_hook_is_called_while_nothing_comes_and_what_comes_is_told() {
        let (sender, idle) = channel();
        *IDLE.lock().unwrap() = Some(sender);
        when_idle(|| {
            let _ = IDLE.lock().unwrap().as_ref().unwrap().send(());
        });
        let watched = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let all = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        epoll::add(&all, &watched, epoll::EventData::new_u64(7), epoll::EventFlags::IN).unwrap();
        let wait = |timeout| {
            let mut event = epoll_event { events: 0, u64: 0 };
            // SAFETY: there is room for one event.
            let ready = unsafe { lxcrun_epoll_wait(all.as_raw_fd(), &raw mut event, 1, timeout) };
            (ready, event.u64)
        };
        assert_eq!(wait(0), (0, 0));
        assert!(idle.try_recv().is_err(), "somebody who doesn't wait is not idle");
        let (idle, watched) = (idle, &watched);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                idle.recv().unwrap();
                rustix::io::write(watched, &1_u64.to_ne_bytes()).unwrap();
            });
            assert_eq!(wait(-1), (1, 7));
        });
    }
}
