//! The init and the monitor, carried inside this library: nothing needs to be installed beside it.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;

static INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lxcrun-init"));
static MONITOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lxcrun-monitor"));

/// `MFD_EXEC` of memfd_create(2), Linux 6.3; rustix has no name for it yet.
const MFD_EXEC: u32 = 0x10;

/// The init, as a descriptor to execute: sealed, so that no container can overwrite it (CVE-2019-5736).
pub(crate) fn init() -> io::Result<OwnedFd> {
    sealed(c"lxcrun-init", INIT)
}

/// The monitor, likewise.
pub(crate) fn monitor() -> io::Result<OwnedFd> {
    sealed(c"lxcrun-monitor", MONITOR)
}

fn sealed(name: &CStr, content: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // A host may have made files in memory not executable unless asked for (sysctl vm.memfd_noexec).
    let fd = match memfd_create(name, flags | MemfdFlags::from_bits_retain(MFD_EXEC)) {
        Err(Errno::INVAL) => memfd_create(name, flags)?,
        made => made?,
    };
    let mut rest = content;
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&fd, rest)?..];
    }
    fcntl_add_seals(&fd, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(fd)
}
