//! liblxc, loaded at run time, behind a safe handle.
//!
//! The library is opened by dlopen(3) and not linked, so that a program that only asks for a state never
//! pays for it, a host without it gets a sentence and not a loader error, and the same binary runs on
//! liblxc 5, 6 and 7 (one soname, `liblxc.so.1`).

mod access;
mod cgroups;
mod exec;
mod handle;
mod idle;
mod library;
mod orphan;
mod seccomp;
#[allow(clippy::all, clippy::pedantic, clippy::restriction)]
mod sys;
mod wait;

pub use access::take_for_reachable;
pub use cgroups::{before_cgroups, stay_in_cgroups, take_cgroup};
pub use exec::instead_of_exec;
pub use handle::{Ended, Handle};
pub use idle::when_idle;
pub use library::Liblxc;
pub use orphan::end_orphans;
pub use wait::{Next, when_waited};

/// What can go wrong before liblxc says anything itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// dlopen(3) or dlsym(3) failed.
    #[error("liblxc cannot be loaded (on Debian: apt-get install liblxc1)")]
    Load(#[source] libloading::Error),
    /// `lxc_container_new` returned null.
    #[error("liblxc cannot make a handle for {name:?} in {path:?}")]
    New {
        /// The container's name.
        name: String,
        /// liblxc's path of containers.
        path: String,
    },
    /// A string with a NUL byte inside can't be handed to C.
    #[error("{what} contains a NUL byte")]
    Nul {
        /// Which string.
        what: &'static str,
    },
    /// `set_config_item` returned false. The reason, if there is one, is in the log only.
    #[error("liblxc refused {key} = {value:?}")]
    Refused {
        /// The configuration key.
        key: String,
        /// The value.
        value: String,
    },
    /// `start` needs a process with one thread.
    #[error("liblxc starts a container only from a process with one thread, this one has {threads}")]
    Threads {
        /// Threads of this process.
        threads: usize,
    },
}

/// For functions that liblxc calls in the place of the C library's.
fn set_errno(value: libc::c_int) {
    // SAFETY: the function takes nothing, and its pointer is valid for as long as the thread.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: see above; nobody else writes to this thread's.
    unsafe { *errno = value };
}
