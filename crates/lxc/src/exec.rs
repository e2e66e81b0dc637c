//! Going on in the process that liblxc has made for the container's init, instead of executing a program in it.
//!
//! The last thing that liblxc (4 to 7: `start` in its start.c) does in the container is execvp(3) of what it was asked to
//! start. To execute a program takes a third of a millisecond here: a new address space, and a C library that asks the
//! processor, which under a hypervisor answers slowly, some hundred times what it can do. A program that defines the symbol
//! `execvp` as [`lxcrun_execvp`] and exports it, as `wait.rs` tells of `waitpid`, may have what it wants to execute inside
//! itself.

use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

use libc::c_int;

static INSTEAD: OnceLock<(&CStr, fn() -> !)> = OnceLock::new();

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// From now on nobody in this process or its children executes `name`: `init` is called where liblxc would.
///
/// What an exec does to a process is left to `init`: the descriptors that are close-on-exec are open, and memory is what
/// it was. Once in a process: a second call has no effect.
pub fn instead_of_exec(name: &'static CStr, init: fn() -> !) {
    let _ = INSTEAD.set((name, init));
}

/// execvp(3), unless `file` is the name of [`instead_of_exec`].
///
/// # Safety
/// As of execvp(3): `file` ends in a NUL byte, and `argv` is an array of such strings that ends in a null pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxcrun_execvp(file: *const c_char, argv: *const *const c_char) -> c_int {
    if let Some((name, init)) = INSTEAD.get()
        && !file.is_null()
    {
        // SAFETY: not null, and the caller's promise.
        let file = unsafe { CStr::from_ptr(file) };
        if file == *name {
            init()
        }
    }
    // SAFETY: the caller's promise is what the function asks for. Nobody changes the environment meanwhile: liblxc is used by
    // a single thread.
    unsafe { libc::execvpe(file, argv, environ) }
}
