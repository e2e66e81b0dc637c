//! bpf(2), as far as the devices of a cgroup need it. Source: the kernel's include/uapi/linux/bpf.h.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Result;

/// One instruction: `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BpfInstruction {
    /// What it does.
    pub code: u8,
    /// The destination's number in the low four bits, the source's in the high four.
    pub registers: u8,
    /// Where to jump, or where to load from.
    pub offset: i16,
    /// A number.
    pub immediate: i32,
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;

const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;

/// More programs than the kernel attaches to one cgroup (`BPF_CGROUP_MAX_PROGS`).
const MOST_PROGRAMS: u32 = 64;

/// An argument of bpf(2): the members of `union bpf_attr` that one command has.
///
/// # Safety
/// Only for `repr(C)` types without padding, in which a zero is a value of every member.
unsafe trait Attribute {}

#[repr(C)]
struct Load {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 4],
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}
// SAFETY: integers only; by their sizes nothing is padded.
unsafe impl Attribute for Load {}

#[repr(C)]
struct Attach {
    cgroup: RawFd,
    program: RawFd,
    kind: u32,
    flags: u32,
    replaced: RawFd,
}
// SAFETY: integers of one size only.
unsafe impl Attribute for Attach {}

#[repr(C)]
struct Query {
    cgroup: RawFd,
    kind: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    /// Newer kernels answer in members that we don't know: as long as any `union bpf_attr` so far.
    unknown: [u32; 33],
}
// SAFETY: integers only; by their sizes nothing is padded.
unsafe impl Attribute for Query {}

#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}
// SAFETY: integers of one size only.
unsafe impl Attribute for ById {}

#[repr(C)]
struct GetInfo {
    program: RawFd,
    length: u32,
    info: u64,
}
// SAFETY: integers only; by their sizes nothing is padded.
unsafe impl Attribute for GetInfo {}

/// The start of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    before: [u64; 8],
    name: [u8; 16],
}

fn bpf<A: Attribute>(command: libc::c_int, attribute: &mut A) -> Result<libc::c_long> {
    // SAFETY: the kernel reads and writes at most the given size at the pointer, which is that of a live value of
    // integers (`Attribute`). Addresses in it are those of values that the callers below keep until we return.
    let ret = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), std::mem::size_of::<A>())
    };
    crate::check(ret)
}

fn owned(fd: libc::c_long) -> Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(|_| rustix::io::Errno::BADF)?;
    // SAFETY: the kernel has just made it for us (close-on-exec, as every BPF descriptor), so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The address of something that the kernel is to read or write.
fn address<T>(value: *const T) -> u64 {
    value.expose_provenance() as u64
}

/// Has the kernel verify and load a program for the devices of a cgroup, under a name of at most 15 bytes.
///
/// # Errors
/// `EPERM` without the right to, `EINVAL` or `EACCES` when the verifier refuses it.
pub fn load_device_program(name: &CStr, instructions: &[BpfInstruction]) -> Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut load = Load {
        kind: TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(instructions.len()).map_err(|_| rustix::io::Errno::TOOBIG)?,
        instructions: address(instructions.as_ptr()),
        license: address(license.as_ptr()),
        log: [0; 4],
        kernel_version: 0,
        flags: 0,
        name: [0; 16],
    };
    for (to, from) in load.name.iter_mut().take(15).zip(name.to_bytes()) {
        *to = *from;
    }
    owned(bpf(PROG_LOAD, &mut load)?)
}

/// Attaches a program to a cgroup, beside those that are there, or in place of one of them: at no moment there is
/// neither.
///
/// # Errors
/// The kernel's.
pub fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let mut attach = Attach {
        cgroup: cgroup.as_raw_fd(),
        program: program.as_raw_fd(),
        kind: ATTACH_CGROUP_DEVICE,
        flags: if replaced.is_some() { ALLOW_MULTI | REPLACE } else { ALLOW_MULTI },
        replaced: replaced.map_or(0, |fd| fd.as_raw_fd()),
    };
    bpf(PROG_ATTACH, &mut attach).map(drop)
}

/// The programs for devices that are attached to a cgroup itself, with their names.
///
/// # Errors
/// The kernel's.
pub fn device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<(OwnedFd, String)>> {
    let mut ids = [0_u32; MOST_PROGRAMS as usize];
    let mut query = Query {
        cgroup: cgroup.as_raw_fd(),
        kind: ATTACH_CGROUP_DEVICE,
        flags: 0,
        attach_flags: 0,
        ids: address(ids.as_mut_ptr()),
        count: MOST_PROGRAMS,
        unknown: [0; 33],
    };
    bpf(PROG_QUERY, &mut query)?;
    let found = ids.iter().take(query.count as usize);
    found
        .map(|id| {
            let program = owned(bpf(PROG_GET_FD_BY_ID, &mut ById { id: *id, next: 0, flags: 0 })?)?;
            let name = name_of(&program)?;
            Ok((program, name))
        })
        .collect()
}

fn name_of(program: &OwnedFd) -> Result<String> {
    let mut info = Info::default();
    let mut get = GetInfo {
        program: program.as_raw_fd(),
        length: u32::try_from(std::mem::size_of::<Info>()).unwrap_or(0),
        info: address(std::ptr::from_mut(&mut info)),
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut get)?;
    let name = info.name.split(|b| *b == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}
