//! The files of cgroup version 1. Source: runtime-spec, config-linux.md, and the kernel's admin-guide/cgroup-v1.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::limits::{Setting, hugepage_settings};
use super::{Cgroup, devices, read};

/// A field and why it can't be had.
pub(super) type Refusal = (&'static str, String);

pub(super) fn settings(cgroup: &Cgroup, resources: &LinuxResources) -> Result<Vec<Setting>, Refusal> {
    let mut all = Vec::new();
    if let Some(memory) = resources.memory() {
        all.extend(memory_settings(cgroup, memory)?);
    }
    if let Some(cpu) = resources.cpu() {
        all.extend(cpu_settings(cpu)?);
    }
    if let Some(limit) =
        resources.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit).filter(|l| *l != 0)
    {
        let limit = if limit > 0 { limit.to_string() } else { "max".into() };
        all.push(Setting::new("linux.resources.pids.limit", "pids", "pids.max", limit));
    }
    if let Some(io) = resources.block_io() {
        all.extend(blkio_settings(cgroup, io));
    }
    // Beside hierarchies of version 1 there may be one of version 2 that has this controller.
    let files = match cgroup.directory("hugetlb") {
        Some((_, true)) => ["max", "rsvd.max"],
        _ => ["limit_in_bytes", "rsvd.limit_in_bytes"],
    };
    all.extend(hugepage_settings(resources, files));
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id() {
            all.push(Setting::new("linux.resources.network.classID", "net_cls", "net_cls.classid", class));
        }
        for priority in network.priorities().iter().flatten() {
            let value = format!("{} {}", priority.name(), priority.priority());
            all.push(Setting::new(
                "linux.resources.network.priorities",
                "net_prio",
                "net_prio.ifpriomap",
                value,
            ));
        }
    }
    all.extend(rdma_settings(resources));
    if resources.unified().as_ref().is_some_and(|u| !u.is_empty()) {
        return Err((
            "linux.resources.unified",
            "invalid configuration: needs cgroup v2, this host has v1".into(),
        ));
    }
    if let Some(rules) = resources.devices() {
        all.extend(devices::v1_settings(rules)?);
    }
    Ok(all)
}

/// The same on both versions.
pub(super) fn rdma_settings(resources: &LinuxResources) -> Vec<Setting> {
    let mut all = Vec::new();
    for (device, limit) in resources.rdma().iter().flatten() {
        let mut value = device.clone();
        if let Some(handles) = limit.hca_handles() {
            value += &format!(" hca_handle={handles}");
        }
        if let Some(objects) = limit.hca_objects() {
            value += &format!(" hca_object={objects}");
        }
        all.push(Setting::new("linux.resources.rdma", "rdma", "rdma.max", value));
    }
    all
}

fn memory_settings(cgroup: &Cgroup, memory: &LinuxMemory) -> Result<Vec<Setting>, Refusal> {
    let nonzero = |value: Option<i64>| value.filter(|v| *v != 0);
    let limit = nonzero(memory.limit());
    let swap = nonzero(memory.swap());
    let number = |file: &str| {
        let (directory, _) = cgroup.directory("memory")?;
        read(&directory, file).ok()?.parse::<i64>().ok()
    };
    check_usage(memory, || number("memory.usage_in_bytes"))?;
    let set = |field, file: &str, value: i64| Setting::new(field, "memory", file, value);
    let mut all = Vec::new();
    all.extend(limit.map(|l| set("linux.resources.memory.limit", "memory.limit_in_bytes", l)));
    match swap {
        Some(swap) => all.push(set("linux.resources.memory.swap", "memory.memsw.limit_in_bytes", swap)),
        // An unlimited memory below limited memory and swap is refused by the kernel.
        None if limit == Some(-1) => {
            all.insert(0, set("linux.resources.memory.limit", "memory.memsw.limit_in_bytes", -1).optional());
        }
        None => {}
    }
    // The limit of memory and swap together is never below that of memory: when both rise it goes first.
    if let (Some(_), Some(swap)) = (limit, swap)
        && (swap == -1 || swap > number("memory.limit_in_bytes").unwrap_or(i64::MAX))
    {
        all.reverse();
    }
    let mut set = |field, file: &str, value: Option<i64>| {
        all.extend(value.map(|v| Setting::new(field, "memory", file, v)));
    };
    set("linux.resources.memory.reservation", "memory.soft_limit_in_bytes", nonzero(memory.reservation()));
    set("linux.resources.memory.kernelTCP", "memory.kmem.tcp.limit_in_bytes", nonzero(memory.kernel_tcp()));
    if let Some(swappiness) = memory.swappiness() {
        let field = "linux.resources.memory.swappiness";
        match i64::try_from(swappiness) {
            Ok(swappiness @ 0..=100) => set(field, "memory.swappiness", Some(swappiness)),
            _ => return Err((field, format!("{swappiness} is not between 0 and 100"))),
        }
    }
    // What is so anyway is not written: engines say "false" with every container.
    let now = || {
        let (directory, _) = cgroup.directory("memory")?;
        Some(read(&directory, "memory.oom_control").ok()?.lines().any(|line| line == "oom_kill_disable 1"))
    };
    let disabled = memory.disable_oom_killer().filter(|disabled| *disabled || now() == Some(true));
    set("linux.resources.memory.disableOOMKiller", "memory.oom_control", disabled.map(i64::from));
    // memory.kernel (memory.kmem.limit_in_bytes) is obsolete: kernels from 5.16 on don't have it, and the
    // specification says that runtimes may ignore it. useHierarchy is always so in these kernels.
    Ok(all)
}

/// `checkBeforeUpdate`: a limit below what is in use is refused before the kernel kills for it.
pub(super) fn check_usage(memory: &LinuxMemory, used: impl Fn() -> Option<i64>) -> Result<(), Refusal> {
    if memory.check_before_update() != Some(true) {
        return Ok(());
    }
    // The order and the words are runc's.
    for (field, what, limit) in [
        ("linux.resources.memory.swap", "memory+swap", memory.swap()),
        ("linux.resources.memory.limit", "memory", memory.limit()),
    ] {
        if let Some(limit) = limit.filter(|l| *l > 0)
            && let Some(used) = used()
            && used >= limit
        {
            let reason =
                format!("rejecting {what} limit {limit} <= usage {used}, because checkBeforeUpdate is set");
            return Err((field, reason));
        }
    }
    Ok(())
}

fn cpu_settings(cpu: &LinuxCpu) -> Result<Vec<Setting>, Refusal> {
    let mut all = Vec::new();
    let mut set = |field, controller, file: &str, value: Option<String>| {
        if let Some(value) = value {
            all.push(Setting::new(field, controller, file, value));
        }
    };
    let nonzero = |value: Option<u64>| value.filter(|v| *v != 0).map(|v| v.to_string());
    if let Some(shares) = cpu.shares().filter(|s| *s != 0 && !(2..=262_144).contains(s)) {
        // The kernel would take the nearest value that it has.
        return Err(("linux.resources.cpu.shares", format!("{shares} is not between 2 and 262144")));
    }
    set("linux.resources.cpu.shares", "cpu", "cpu.shares", nonzero(cpu.shares()));
    // The quota is checked against the period that is set, so the period goes first.
    set("linux.resources.cpu.period", "cpu", "cpu.cfs_period_us", nonzero(cpu.period()));
    set(
        "linux.resources.cpu.quota",
        "cpu",
        "cpu.cfs_quota_us",
        cpu.quota().filter(|q| *q != 0).map(|q| q.to_string()),
    );
    set("linux.resources.cpu.burst", "cpu", "cpu.cfs_burst_us", cpu.burst().map(|b| b.to_string()));
    set("linux.resources.cpu.realtimePeriod", "cpu", "cpu.rt_period_us", nonzero(cpu.realtime_period()));
    set(
        "linux.resources.cpu.realtimeRuntime",
        "cpu",
        "cpu.rt_runtime_us",
        cpu.realtime_runtime().filter(|r| *r != 0).map(|r| r.to_string()),
    );
    set("linux.resources.cpu.idle", "cpu", "cpu.idle", cpu.idle().map(|i| i.to_string()));
    set("linux.resources.cpu.cpus", "cpuset", "cpuset.cpus", cpu.cpus().clone().filter(|c| !c.is_empty()));
    set("linux.resources.cpu.mems", "cpuset", "cpuset.mems", cpu.mems().clone().filter(|m| !m.is_empty()));
    Ok(all)
}

fn blkio_settings(cgroup: &Cgroup, io: &LinuxBlockIo) -> Vec<Setting> {
    let mut all = blkio_weights(cgroup, io);
    all.extend(blkio_throttles(io));
    all
}

fn blkio_weights(cgroup: &Cgroup, io: &LinuxBlockIo) -> Vec<Setting> {
    // Kernels with the BFQ scheduler call it so; those before 5.0 could have the other one.
    let plain = cgroup.directory("blkio").is_some_and(|(dir, _)| dir.join("blkio.weight").exists());
    let file = if plain { "blkio.weight" } else { "blkio.bfq.weight" };
    let mut all = Vec::new();
    let mut set = |field, file: &str, value: String| all.push(Setting::new(field, "blkio", file, value));
    if let Some(weight) = io.weight().filter(|w| *w != 0) {
        set("linux.resources.blockIO.weight", file, weight.to_string());
    }
    if let Some(weight) = io.leaf_weight().filter(|w| *w != 0) {
        set("linux.resources.blockIO.leafWeight", "blkio.leaf_weight", weight.to_string());
    }
    for device in io.weight_device().iter().flatten() {
        let field = "linux.resources.blockIO.weightDevice";
        let number = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = device.weight() {
            set(field, &format!("{file}_device"), format!("{number} {weight}"));
        }
        if let Some(weight) = device.leaf_weight() {
            set(field, "blkio.leaf_weight_device", format!("{number} {weight}"));
        }
    }
    all
}

fn blkio_throttles(io: &LinuxBlockIo) -> Vec<Setting> {
    let mut all = Vec::new();
    for (field, file, list) in [
        (
            "linux.resources.blockIO.throttleReadBpsDevice",
            "blkio.throttle.read_bps_device",
            io.throttle_read_bps_device(),
        ),
        (
            "linux.resources.blockIO.throttleWriteBpsDevice",
            "blkio.throttle.write_bps_device",
            io.throttle_write_bps_device(),
        ),
        (
            "linux.resources.blockIO.throttleReadIOPSDevice",
            "blkio.throttle.read_iops_device",
            io.throttle_read_iops_device(),
        ),
        (
            "linux.resources.blockIO.throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
            io.throttle_write_iops_device(),
        ),
    ] {
        for device in list.iter().flatten() {
            let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            all.push(Setting::new(field, "blkio", file, value));
        }
    }
    all
}
