//! The files of cgroup version 1. Source: runtime-spec, config-linux.md, and the kernel's admin-guide/cgroup-v1.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxResources,
};

use super::limits::Setting;
use super::{Cgroup, read};

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
        all.extend(blkio_settings(io));
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let file = format!("hugetlb.{}.limit_in_bytes", limit.page_size());
        all.push(Setting::new("linux.resources.hugepageLimits", "hugetlb", file, limit.limit()));
    }
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
    if resources.unified().as_ref().is_some_and(|u| !u.is_empty()) {
        return Err(("linux.resources.unified", "needs cgroup v2, this host has v1".into()));
    }
    all.extend(device_settings(resources.devices().as_deref())?);
    Ok(all)
}

fn memory_settings(cgroup: &Cgroup, memory: &LinuxMemory) -> Result<Vec<Setting>, Refusal> {
    let mut all = Vec::new();
    let mut limits = Vec::new();
    if let Some(limit) = memory.limit() {
        limits.push(Setting::new("linux.resources.memory.limit", "memory", "memory.limit_in_bytes", limit));
    }
    if let Some(swap) = memory.swap() {
        limits.push(Setting::new(
            "linux.resources.memory.swap",
            "memory",
            "memory.memsw.limit_in_bytes",
            swap,
        ));
    } else if memory.limit() == Some(-1) {
        // An unlimited memory below limited memory and swap is refused by the kernel.
        let mut unlimited =
            Setting::new("linux.resources.memory.limit", "memory", "memory.memsw.limit_in_bytes", -1);
        unlimited.optional = true;
        limits.insert(0, unlimited);
    }
    // The limit of memory and swap together is never below that of memory: when both rise it goes first.
    if let (Some(_), Some(swap)) = (memory.limit(), memory.swap()) {
        let now = cgroup
            .directory("memory")
            .and_then(|(dir, _)| read(&dir, "memory.limit_in_bytes").ok())
            .and_then(|text| text.parse::<i64>().ok())
            .unwrap_or(i64::MAX);
        if swap == -1 || swap > now {
            limits.reverse();
        }
    }
    if memory.check_before_update() == Some(true)
        && let Some(limit) = memory.limit().filter(|l| *l > 0)
        && let Some((directory, _)) = cgroup.directory("memory")
        && let Some(used) = read(&directory, "memory.usage_in_bytes").ok().and_then(|t| t.parse::<i64>().ok())
        && used > limit
    {
        let reason =
            format!("{limit} bytes is less than the {used} bytes in use, and checkBeforeUpdate is set");
        return Err(("linux.resources.memory.limit", reason));
    }
    all.append(&mut limits);
    let mut set = |field, file: &str, value: Option<i64>| {
        if let Some(value) = value {
            all.push(Setting::new(field, "memory", file, value));
        }
    };
    set("linux.resources.memory.reservation", "memory.soft_limit_in_bytes", memory.reservation());
    set("linux.resources.memory.kernelTCP", "memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp());
    let swappiness = memory.swappiness().map(|s| i64::try_from(s).unwrap_or(i64::MAX));
    set("linux.resources.memory.swappiness", "memory.swappiness", swappiness);
    if memory.disable_oom_killer() == Some(true) {
        set("linux.resources.memory.disableOOMKiller", "memory.oom_control", Some(1));
    }
    // memory.kernel (memory.kmem.limit_in_bytes) is obsolete: kernels from 5.16 on don't have it, and the
    // specification says that runtimes may ignore it. useHierarchy is always so in these kernels.
    Ok(all)
}

fn cpu_settings(cpu: &LinuxCpu) -> Result<Vec<Setting>, Refusal> {
    let mut all = Vec::new();
    let mut set = |field, controller, file: &str, value: Option<String>| {
        if let Some(value) = value {
            all.push(Setting::new(field, controller, file, value));
        }
    };
    let nonzero = |value: Option<u64>| value.filter(|v| *v != 0).map(|v| v.to_string());
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

fn blkio_settings(io: &LinuxBlockIo) -> Vec<Setting> {
    let mut all = Vec::new();
    let mut set = |field, file: &str, value: String| all.push(Setting::new(field, "blkio", file, value));
    if let Some(weight) = io.weight().filter(|w| *w != 0) {
        set("linux.resources.blockIO.weight", weight_file(), weight.to_string());
    }
    if let Some(weight) = io.leaf_weight().filter(|w| *w != 0) {
        set("linux.resources.blockIO.leafWeight", "blkio.leaf_weight", weight.to_string());
    }
    for device in io.weight_device().iter().flatten() {
        let number = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = device.weight() {
            set(
                "linux.resources.blockIO.weightDevice",
                &format!("{}_device", weight_file()),
                format!("{number} {weight}"),
            );
        }
        if let Some(weight) = device.leaf_weight() {
            set(
                "linux.resources.blockIO.weightDevice",
                "blkio.leaf_weight_device",
                format!("{number} {weight}"),
            );
        }
    }
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
            set(field, file, format!("{}:{} {}", device.major(), device.minor(), device.rate()));
        }
    }
    all
}

/// Kernels with the BFQ scheduler call it so; those before 5.0 could have the other one.
fn weight_file() -> &'static str {
    if std::path::Path::new("/sys/fs/cgroup/blkio/blkio.weight").exists() {
        "blkio.weight"
    } else {
        "blkio.bfq.weight"
    }
}

/// What every container may use, whatever its list says. Source: runc, and the specification's default devices.
pub(super) const ALWAYS_ALLOWED: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
    "c 5:1 rwm",
];

fn device_settings(rules: Option<&[LinuxDeviceCgroup]>) -> Result<Vec<Setting>, Refusal> {
    let field = "linux.resources.devices";
    let Some(rules) = rules else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    let mut denies_all = false;
    for rule in rules {
        let access = rule.access().clone().filter(|a| !a.is_empty()).unwrap_or_else(|| "rwm".into());
        if access.chars().any(|c| !"rwm".contains(c)) {
            return Err((field, format!("access {access:?} has other letters than r, w and m")));
        }
        let kind = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::A => "a",
            LinuxDeviceType::B => "b",
            LinuxDeviceType::C | LinuxDeviceType::U => "c",
            LinuxDeviceType::P => return Err((field, "\"p\" is no type of a device rule".into())),
        };
        let number = |n: Option<i64>| n.filter(|n| *n >= 0).map_or_else(|| "*".into(), |n| n.to_string());
        let value = if kind == "a" {
            "a *:* rwm".into()
        } else {
            format!("{kind} {}:{} {access}", number(rule.major()), number(rule.minor()))
        };
        denies_all |= kind == "a" && !rule.allow();
        let file = if rule.allow() { "devices.allow" } else { "devices.deny" };
        all.push(Setting::new(field, "devices", file, value));
    }
    if denies_all {
        all.extend(ALWAYS_ALLOWED.iter().map(|value| Setting::new(field, "devices", "devices.allow", value)));
    }
    Ok(all)
}
