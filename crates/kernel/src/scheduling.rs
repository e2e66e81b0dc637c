//! How the kernel treats the calling thread: its processor time, block device requests, memory, and system calls.

use rustix::io::Result;
use rustix::thread::CpuSet;

/// Policy and parameters of sched_setattr(2).
#[derive(Debug, Clone, Copy, Default)]
pub struct SchedulerAttributes {
    /// `SCHED_*`
    pub policy: u32,
    /// `SCHED_FLAG_*`
    pub flags: u64,
    /// -20 to 19.
    pub nice: i32,
    /// 1 to 99, for the realtime policies.
    pub priority: u32,
    /// In nanoseconds, for `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Likewise.
    pub deadline: u64,
    /// Likewise.
    pub period: u64,
}

/// Every processor that there can be. The kernel takes those of them that the caller's cgroup has.
#[must_use]
pub fn every_processor() -> CpuSet {
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    all
}

/// Sets the calling thread's scheduling policy and its parameters. Source: sched_setattr(2).
///
/// # Errors
/// `EINVAL` for a policy or parameters that the kernel does not take, `EPERM` without CAP_SYS_NICE.
pub fn set_scheduler(wanted: SchedulerAttributes) -> Result<()> {
    let attr = libc::sched_attr {
        size: 48, // its first version: SCHED_ATTR_SIZE_VER0
        sched_policy: wanted.policy,
        sched_flags: wanted.flags,
        sched_nice: wanted.nice,
        sched_priority: wanted.priority,
        sched_runtime: wanted.runtime,
        sched_deadline: wanted.deadline,
        sched_period: wanted.period,
    };
    // SAFETY: `attr` lives across the call and has the bytes that its `size` announces, which bounds what the kernel
    // reads; pid 0 is the calling thread.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    crate::check(ret).map(drop)
}

/// Sets the calling thread's priority for block devices, class and level in one number. Source: ioprio_set(2).
///
/// # Errors
/// `EINVAL` for a priority that is none, `EPERM` for the realtime class without CAP_SYS_ADMIN or CAP_SYS_NICE.
pub fn set_io_priority(priority: u16) -> Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_long = 1;
    // SAFETY: the call takes three numbers; process 0 is the calling thread.
    let ret =
        unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, libc::c_long::from(priority)) };
    crate::check(ret).map(drop)
}

/// Sets the calling thread's memory policy. Source: set_mempolicy(2).
///
/// # Errors
/// `EINVAL` for nodes that the policy does not take or that are not there.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> Result<()> {
    // The kernel looks at one bit less than it is told of.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: `mask` is null with a length of 0, or points to the words that `bits` counts; the kernel reads whole
    // words for `bits - 1` bits, which is what is there.
    let ret = unsafe { libc::syscall(libc::SYS_set_mempolicy, libc::c_long::from(mode), mask, bits) };
    crate::check(ret).map(drop)
}

/// Sets the calling thread's execution domain. Source: personality(2).
///
/// # Errors
/// `EINVAL` when the kernel can't change it.
pub fn set_personality(persona: u32) -> Result<()> {
    // SAFETY: the call takes a number and changes how later system calls are understood: nothing in memory.
    let ret = unsafe { libc::personality(libc::c_ulong::from(persona)) };
    crate::check(ret.into()).map(drop)
}
