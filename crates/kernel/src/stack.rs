//! A shorter way to `main`.
//!
//! Before `main` Rust's runtime asks pthread_getattr_np(3) where the stack ends, for one sentence should it overflow; the
//! page below the stack ends the program in any case. glibc finds that by reading and parsing all of /proc/self/maps,
//! which is a tenth of what a short program does. So a program may define the symbol `pthread_getattr_np` as
//! [`lxcrun_pthread_getattr_np`], which is a matter of linking.

/// pthread_getattr_np(3) that knows nothing of any thread.
#[unsafe(no_mangle)]
pub extern "C" fn lxcrun_pthread_getattr_np(
    _thread: libc::pthread_t,
    _attributes: *mut libc::pthread_attr_t,
) -> libc::c_int {
    libc::ENOSYS
}
