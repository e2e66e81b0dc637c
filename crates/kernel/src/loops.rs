//! Loop devices: files as block devices.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;

/// Of Linux's loop.h, as are those below.
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// How often others may be faster: each time somebody has got a device.
const ATTEMPTS: u32 = 100;

/// `struct loop_config`, with its `struct loop_info64`.
#[repr(C)]
#[derive(Default)]
struct Config {
    fd: u32,
    block_size: u32,
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    names: [[u64; 8]; 2],
    encrypt_key: [u64; 4],
    init: [u64; 2],
    reserved: [u64; 8],
}

/// How a file becomes a device.
#[derive(Debug, Clone, Copy)]
pub struct LoopOptions {
    /// Nobody can write to it.
    pub read_only: bool,
    /// Past the page cache of the file.
    pub direct_io: bool,
}

/// Makes a file a loop device, and returns that and its path. It is one until nobody has it open or mounted.
///
/// Source: loop(4).
///
/// # Errors
/// The kernel's: `ENOENT` without loop devices, `EBUSY` when others take every device first.
pub fn attach_loop(file: BorrowedFd<'_>, options: LoopOptions) -> io::Result<(OwnedFd, PathBuf)> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    let mut flags = LO_FLAGS_AUTOCLEAR;
    if options.read_only {
        flags |= LO_FLAGS_READ_ONLY;
    }
    if options.direct_io {
        flags |= LO_FLAGS_DIRECT_IO;
    }
    let config = Config { fd: file.as_raw_fd().unsigned_abs(), flags, ..Config::default() };
    for _ in 0..ATTEMPTS {
        // SAFETY: the request takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        let path = PathBuf::from(format!("/dev/loop{}", crate::check(number.into())?));
        let device = OpenOptions::new().read(true).write(!options.read_only).open(&path)?;
        // SAFETY: the request reads a `struct loop_config`, which `config` has the layout of, and which lives across the
        // call.
        let ret = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
        match crate::check(ret.into()) {
            Ok(_) => return Ok((device.into(), path)),
            Err(Errno::BUSY) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(Errno::BUSY.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!(size_of::<Config>(), 304);
        assert_eq!(std::mem::offset_of!(Config, flags), 60);
        assert_eq!(std::mem::offset_of!(Config, reserved), 240);
    }
}
