//! The heap of glibc. Another C library keeps little, and has no such calls.

/// Has all threads share one heap: for a process whose threads come and go, and rarely work at the same time.
pub fn share_one_heap() {
    // SAFETY: mallopt takes numbers, and is safe to call at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}

/// Gives the kernel back what is free.
pub fn free_memory() {
    // SAFETY: malloc_trim takes the heap's own locks; what is in use is not touched.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}
