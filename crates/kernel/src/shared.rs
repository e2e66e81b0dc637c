//! A number that one process writes and another reads, without a system call of the writer.

use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::MemfdFlags;
use rustix::io::{Errno, Result};
use rustix::mm::{MapFlags, ProtFlags};

const SIZE: usize = size_of::<AtomicU32>();

/// A number in shared memory, zero at first. No seccomp filter can keep its owner from setting it.
#[derive(Debug)]
pub struct SharedNumber(NonNull<AtomicU32>);

impl SharedNumber {
    /// Makes one, and the close-on-exec descriptor by which [`read_shared`] reads it.
    ///
    /// # Errors
    /// The kernel's, when memory or descriptors run out.
    pub fn new() -> Result<(Self, OwnedFd)> {
        let file = rustix::fs::memfd_create("number", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, SIZE as u64)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses a free place for the new mapping, so no memory of ours is replaced; the file is as
        // long as the mapping, and nobody truncates it: only this process can write to its descriptor.
        let memory = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), SIZE, access, MapFlags::SHARED, file.as_fd(), 0)?
        };
        Ok((Self(NonNull::new(memory.cast()).ok_or(Errno::NOMEM)?), file))
    }

    /// Sets it.
    pub fn set(&self, number: u32) {
        // SAFETY: the mapping lives as long as `self`, begins at a page and is as long as an `AtomicU32`, all of whose
        // bit patterns are valid; other processes only read the file.
        unsafe { self.0.as_ref() }.store(number, Ordering::SeqCst);
    }
}

impl Drop for SharedNumber {
    fn drop(&mut self) {
        // SAFETY: this is the mapping of `new`, of the same length, and nobody uses it after this.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), SIZE) };
    }
}

/// Reads the number of the [`SharedNumber`] that this descriptor belongs to, also when its owner has ended.
///
/// # Errors
/// The kernel's; `INVAL` when the descriptor is of something else.
pub fn read_shared(file: impl AsFd) -> Result<u32> {
    let mut bytes = [0; SIZE];
    match rustix::io::pread(file, &mut bytes, 0)? {
        SIZE => Ok(u32::from_ne_bytes(bytes)),
        _ => Err(Errno::INVAL),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_last_number_is_read_after_the_owner_is_gone() {
        let (number, file) = super::SharedNumber::new().unwrap();
        assert_eq!(super::read_shared(&file), Ok(0));
        number.set(7);
        drop(number);
        assert_eq!(super::read_shared(&file), Ok(7));
    }
}
