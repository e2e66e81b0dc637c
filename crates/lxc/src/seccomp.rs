//! Keeping liblxc's own seccomp filter away from the init, which loads a better one.
//!
//! `lxc.seccomp.profile` is for lxc-attach: that asks the monitor for it. But liblxc loads it for the init, too, by
//! seccomp_load(3), and two filters cost every system call twice. A program that defines the symbol `seccomp_load` as
//! [`lxcrun_seccomp_load`] and exports it, which is a matter of linking, is the one that liblxc calls.

use libc::{c_int, c_void};

/// Says that the filter was loaded.
#[unsafe(no_mangle)]
pub extern "C" fn lxcrun_seccomp_load(_filter: *mut c_void) -> c_int {
    0
}
