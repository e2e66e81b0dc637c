//! Signal dispositions that cross an exec.

use rustix::io::Result;
use rustix::process::Signal;

/// The signal of a number, real-time signals included; `None` for what is no signal.
#[must_use]
pub fn signal_of(number: i32) -> Option<Signal> {
    if !(1..=libc::SIGRTMAX()).contains(&number) {
        return None;
    }
    // SAFETY: the number is that of a signal. Those that the C library keeps for itself are only ever sent to other
    // processes here, and never to a thread of this one.
    Some(unsafe { Signal::from_raw_unchecked(number) })
}

/// Gives every signal its default action and blocks none, as a program expects to find them: Rust's runtime
/// ignores SIGPIPE, and our caller may have ignored or blocked others.
///
/// # Errors
/// None in practice: numbers that can't be changed are skipped.
pub fn reset_signals() -> Result<()> {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL needs no handler; SIGKILL, SIGSTOP and the C library's own numbers answer EINVAL.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the call initializes the set it is given.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: `none` is initialized and lives across the call; the old mask is not asked for.
    let ret = unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
    crate::check(ret.into()).map(drop)
}
