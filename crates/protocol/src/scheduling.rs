//! How the kernel treats a process: processor, block devices, memory nodes, and the execution domain.

use serde::{Deserialize, Serialize};

/// What is set on the process itself before it becomes the program. Each in the kernel's own numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// `process.scheduler`
    pub scheduler: Option<Scheduler>,
    /// `process.ioPriority`, class and level as ioprio_set(2) takes them.
    pub io_priority: Option<u16>,
    /// `linux.memoryPolicy`
    pub memory_policy: Option<MemoryPolicy>,
    /// `linux.personality`: personality(2).
    pub personality: Option<u32>,
}

/// `struct sched_attr` of sched_setattr(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduler {
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

/// Arguments of set_mempolicy(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// `MPOL_*`, with its flags.
    pub mode: i32,
    /// The nodes, a bit each.
    pub nodes: Vec<u64>,
}
