//! Signal dispositions and masks that cross an exec.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

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

/// Has this process's children wait to be waited for, also if its caller has ignored SIGCHLD: such a one is reaped when it
/// ends, and nobody learns how (wait(2), NOTES).
pub fn keep_children() {
    // SAFETY: SIG_DFL needs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Of the kernel's set of signals, in bytes.
const SIGNALS_SIZE: usize = 8;

/// Gives every signal its default action and blocks none, as a program expects to find them: Rust's runtime
/// ignores SIGPIPE, and our caller may have ignored or blocked others.
///
/// # Errors
/// None in practice: numbers that can't be changed are skipped.
pub fn reset_signals() -> Result<()> {
    // Not by signal(3), which leaves the C library's own two numbers as its posix_spawn(3) has made them: ignored.
    let default_action = [0_usize; 8];
    for number in 1..=libc::SIGRTMAX() {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: an action of nothing but zeros is SIG_DFL without flags, and no longer than what is there; SIGKILL and
        // SIGSTOP answer EINVAL.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, default_action.as_ptr(), none, SIGNALS_SIZE) };
    }
    block_none()
}

/// Has the child of `command` block no signal, whatever this thread blocks: a child inherits that, and [`Command`] leaves
/// it so.
pub fn block_none_in(command: &mut Command) -> &mut Command {
    // Where there is nothing to do, its child needs no fork but can be had by posix_spawn(3).
    if !blocks_any() {
        return command;
    }
    // SAFETY: between fork and exec it makes one system call; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(|| block_none().map_err(Into::into)) }
}

/// Where a child notes itself, for who must end it after its parent was killed.
#[derive(Debug)]
pub struct ChildNote {
    /// Gets what the child's own /proc/self/stat says.
    pub file: OwnedFd,
    /// The child gives up when this directory has its sticky bit set.
    pub directory: OwnedFd,
}

/// Longer than the fields of proc_pid_stat(5) that anybody asks for: a name, and numbers.
const STAT_LENGTH: usize = 512;

/// Has the child of `command` note itself before it executes its program, and only then look whether it still may: so who
/// sets the sticky bit first and reads the note then misses none.
///
/// It does not stop when it reads a terminal in whose background it is, but gets an error.
pub fn note_child_in(command: &mut Command, note: ChildNote) -> &mut Command {
    // SAFETY: between fork and exec it makes system calls; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(move || note_self(&note)) }
}

fn note_self(note: &ChildNote) -> std::io::Result<()> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let stat = rustix::fs::open(c"/proc/self/stat", flags, rustix::fs::Mode::empty())?;
    let mut text = [0_u8; STAT_LENGTH];
    let length = rustix::io::read(&stat, &mut text)?;
    rustix::io::write(&note.file, &text[..length])?;
    if rustix::fs::fstat(&note.directory)?.st_mode & libc::S_ISVTX != 0 {
        return Err(rustix::io::Errno::CANCELED.into());
    }
    // SAFETY: SIG_IGN needs no handler.
    unsafe { libc::signal(libc::SIGTTIN, libc::SIG_IGN) };
    Ok(())
}

/// Whether this thread blocks any signal.
fn blocks_any() -> bool {
    let mut blocked = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the call initializes the set it is given.
    unsafe { libc::sigemptyset(blocked.as_mut_ptr()) };
    // SAFETY: without a new mask it only reads the present one, into a set that lives across the call.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), blocked.as_mut_ptr()) };
    // SAFETY: the set is initialized; a number that is no signal answers -1.
    (1..=libc::SIGRTMAX()).any(|number| unsafe { libc::sigismember(blocked.as_ptr(), number) } == 1)
}

fn block_none() -> Result<()> {
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the call initializes the set it is given.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: `none` is initialized and lives across the call; the old mask is not asked for.
    let ret = unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
    crate::check(ret.into()).map(drop)
}
