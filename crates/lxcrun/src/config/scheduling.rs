//! `process.scheduler`, `process.ioPriority`, `linux.memoryPolicy`, `linux.personality`, and lists of processors: from
//! the specification's words to the kernel's numbers.

use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, Linux, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonality,
    LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType,
    MemoryPolicyModeType, Process, Scheduler as WantedScheduler,
};
use protocol::{MemoryPolicy, Scheduler, Scheduling};
use rustix::thread::CpuSet;

use crate::error::refuse;
use crate::{ContainerId, Result};

/// Everything of `process` and `linux` that is about scheduling.
pub(super) fn scheduling(id: &ContainerId, linux: Option<&Linux>, process: &Process) -> Result<Scheduling> {
    let memory_policy = linux.and_then(|l| l.memory_policy().as_ref());
    let personality = linux.and_then(|l| l.personality().as_ref());
    Ok(Scheduling {
        scheduler: process.scheduler().as_ref().map(|s| scheduler(id, s)).transpose()?,
        io_priority: process.io_priority().as_ref().map(|p| io_priority(id, *p)).transpose()?,
        memory_policy: memory_policy.map(|p| memory(id, p)).transpose()?,
        personality: personality.map(|p| persona(id, p)).transpose()?,
    })
}

fn scheduler(id: &ContainerId, wanted: &WantedScheduler) -> Result<Scheduler> {
    let field = |name: &str| format!("process.scheduler.{name}");
    let policy = *wanted.policy();
    let number = match policy {
        LinuxSchedulerPolicy::SchedOther => libc::SCHED_OTHER,
        LinuxSchedulerPolicy::SchedFifo => libc::SCHED_FIFO,
        LinuxSchedulerPolicy::SchedRr => libc::SCHED_RR,
        LinuxSchedulerPolicy::SchedBatch => libc::SCHED_BATCH,
        LinuxSchedulerPolicy::SchedIdle => libc::SCHED_IDLE,
        LinuxSchedulerPolicy::SchedDeadline => libc::SCHED_DEADLINE,
        LinuxSchedulerPolicy::SchedIso => {
            return Err(refuse(id, field("policy"), "SCHED_ISO: Linux does not have this policy"));
        }
    };
    let nice = wanted.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return Err(refuse(id, field("nice"), format!("{nice} is not from -20 to 19")));
    }
    let realtime = matches!(policy, LinuxSchedulerPolicy::SchedFifo | LinuxSchedulerPolicy::SchedRr);
    let priority = wanted.priority().unwrap_or(0);
    if priority != 0 && !realtime {
        return Err(refuse(
            id,
            field("priority"),
            format!("is for SCHED_FIFO and SCHED_RR, not for {policy}"),
        ));
    }
    let times = [wanted.runtime(), wanted.deadline(), wanted.period()].map(|t| t.unwrap_or(0));
    if times != [0; 3] && policy != LinuxSchedulerPolicy::SchedDeadline {
        let reason = format!("runtime, deadline and period are for SCHED_DEADLINE, not for {policy}");
        return Err(refuse(id, "process.scheduler", reason));
    }
    Ok(Scheduler {
        policy: number.unsigned_abs(),
        flags: wanted.flags().iter().flatten().fold(0, |all, flag| all | scheduler_flag(*flag)),
        nice,
        priority: u32::try_from(priority)
            .map_err(|_| refuse(id, field("priority"), format!("{priority} is negative")))?,
        runtime: times[0],
        deadline: times[1],
        period: times[2],
    })
}

/// Source: linux/sched.h.
fn scheduler_flag(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

/// Source: linux/ioprio.h.
fn io_priority(id: &ContainerId, wanted: LinuxIOPriority) -> Result<u16> {
    const CLASS_SHIFT: u16 = 13;
    let class = match wanted.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u16::try_from(wanted.priority()) {
        Ok(level @ 0..=7) => Ok(class << CLASS_SHIFT | level),
        _ => Err(refuse(
            id,
            "process.ioPriority.priority",
            format!("{} is not from 0 to 7", wanted.priority()),
        )),
    }
}

/// Source: linux/mempolicy.h.
fn memory(id: &ContainerId, wanted: &LinuxMemoryPolicy) -> Result<MemoryPolicy> {
    let mode = match wanted.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flag = |flag: &MemoryPolicyFlagType| match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    };
    let nodes = wanted.nodes().as_deref().unwrap_or_default();
    Ok(MemoryPolicy {
        mode: wanted.flags().iter().flatten().fold(mode, |all, f| all | flag(f)),
        nodes: number_list(nodes).map_err(|reason| {
            refuse(id, "linux.memoryPolicy.nodes", format!("invalid memory policy node: {reason}"))
        })?,
    })
}

/// Source: linux/personality.h.
fn persona(id: &ContainerId, wanted: &LinuxPersonality) -> Result<u32> {
    if let Some(flag) = wanted.flags().iter().flatten().next() {
        return Err(refuse(id, "linux.personality.flags", format!("{flag:?}: the specification knows none")));
    }
    Ok(match wanted.domain() {
        LinuxPersonalityDomain::PerLinux => 0x0000,
        LinuxPersonalityDomain::PerLinux32 => 0x0008,
    })
}

/// `process.execCPUAffinity`: the processors before and after an exec enters the container's cgroups.
#[derive(Debug, Default)]
pub(crate) struct CpuAffinity {
    pub initial: Option<CpuSet>,
    pub last: Option<CpuSet>,
}

impl CpuAffinity {
    pub(crate) fn new(id: &ContainerId, wanted: &ExecCPUAffinity) -> Result<Self> {
        let set = |name: &str, list: &Option<String>| match list.as_deref().filter(|l| !l.is_empty()) {
            None => Ok(None),
            Some(list) => cpu_set(list)
                .map(Some)
                .map_err(|reason| refuse(id, format!("process.execCPUAffinity.{name}"), reason)),
        };
        Ok(Self {
            initial: set("initial", wanted.initial())?,
            last: set("final", wanted.cpu_affinity_final())?,
        })
    }
}

fn cpu_set(list: &str) -> std::result::Result<CpuSet, String> {
    let mut set = CpuSet::new();
    for (index, word) in number_list(list)?.into_iter().enumerate() {
        for cpu in (0..64).filter(|bit| word >> bit & 1 == 1).map(|bit| index * 64 + bit) {
            if cpu >= CpuSet::MAX_CPU {
                return Err(format!("{list:?} goes beyond processor {}", CpuSet::MAX_CPU - 1));
            }
            set.set(cpu);
        }
    }
    Ok(set)
}

/// No machine has more processors or memory nodes: a larger number is a mistake.
const MAX_NUMBER: usize = 8191;

/// A list like `0-3,7` as a mask: cpuset(7), "List format".
fn number_list(list: &str) -> std::result::Result<Vec<u64>, String> {
    let mut mask: Vec<u64> = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = first.parse::<usize>().ok().zip(last.parse::<usize>().ok());
        let Some((first, last)) = range.filter(|(first, last)| first <= last && *last <= MAX_NUMBER) else {
            return Err(format!("{part:?} in {list:?} is no number or range"));
        };
        mask.resize(mask.len().max(last / 64 + 1), 0);
        for number in first..=last {
            mask[number / 64] |= 1 << (number % 64);
        }
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_numbers_is_a_mask() {
        assert_eq!(number_list("0-3,7").unwrap(), [0b1000_1111]);
        assert_eq!(number_list("64").unwrap(), [0, 1]);
        assert!(number_list("").unwrap().is_empty());
        for list in ["x", "3-1", "-1", "0-99999", "1-2-3"] {
            assert!(number_list(list).is_err(), "{list}");
        }
    }

    #[test]
    fn parameters_must_fit_the_policy() {
        let check = |json: &str| {
            let wanted: WantedScheduler = serde_json::from_str(json).unwrap();
            scheduler(&"x".parse().unwrap(), &wanted)
        };
        let fifo = check(r#"{"policy":"SCHED_FIFO","priority":10}"#).unwrap();
        assert_eq!((fifo.policy, fifo.priority), (1, 10));
        for wrong in [
            r#"{"policy":"SCHED_OTHER","priority":10}"#,
            r#"{"policy":"SCHED_OTHER","nice":20}"#,
            r#"{"policy":"SCHED_RR","runtime":10}"#,
            r#"{"policy":"SCHED_ISO"}"#,
        ] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_io_priority_is_class_and_level() {
        let id = "x".parse().unwrap();
        let wanted = |json: &str| io_priority(&id, serde_json::from_str(json).unwrap());
        assert_eq!(wanted(r#"{"class":"IOPRIO_CLASS_BE","priority":4}"#).unwrap(), 2 << 13 | 4);
        assert!(wanted(r#"{"class":"IOPRIO_CLASS_BE","priority":8}"#).is_err());
    }
}
