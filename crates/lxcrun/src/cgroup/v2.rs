//! The files of cgroup version 2, with the specification's numbers of version 1 converted. Source: runtime-spec,
//! config-linux.md; runc's and crun's conversion rules; the kernel's admin-guide/cgroup-v2.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::limits::Setting;
use super::v1::Refusal;

pub(super) fn settings(resources: &LinuxResources) -> Result<Vec<Setting>, Refusal> {
    let mut all = Vec::new();
    if resources.devices().as_ref().is_some_and(|d| d.iter().any(|rule| !rule.allow())) {
        return Err((
            "linux.resources.devices",
            "device rules on cgroup v2 are not supported by this version".into(),
        ));
    }
    if let Some(memory) = resources.memory() {
        all.extend(memory_settings(memory)?);
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
        all.extend(io_settings(io)?);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let file = format!("hugetlb.{}.max", limit.page_size());
        all.push(Setting::new("linux.resources.hugepageLimits", "hugetlb", file, limit.limit()));
    }
    if let Some(network) = resources.network()
        && (network.class_id().is_some() || network.priorities().as_ref().is_some_and(|p| !p.is_empty()))
    {
        return Err(("linux.resources.network", "cgroup v2 has no network controller".into()));
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
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        if file.contains('/') || file.starts_with("cgroup.") {
            return Err(("linux.resources.unified", format!("{file} is not a controller's file")));
        }
        all.push(Setting::new("linux.resources.unified", "unified", file, value));
    }
    Ok(all)
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

fn memory_settings(memory: &LinuxMemory) -> Result<Vec<Setting>, Refusal> {
    let mut all = Vec::new();
    if let Some(swap) = memory.swap().filter(|s| *s != 0) {
        // Version 1 counts memory and swap together, version 2 swap alone.
        let value = match memory.limit() {
            _ if swap < 0 => "max".into(),
            Some(limit) if limit > 0 && swap >= limit => (swap - limit).to_string(),
            Some(limit) if limit > 0 => {
                return Err((
                    "linux.resources.memory.swap",
                    format!("{swap} is below memory.limit, {limit}"),
                ));
            }
            _ => return Err(("linux.resources.memory.swap", "needs memory.limit".into())),
        };
        all.push(Setting::new("linux.resources.memory.swap", "memory", "memory.swap.max", value));
    }
    if let Some(limit) = memory.limit().filter(|l| *l != 0) {
        all.push(Setting::new("linux.resources.memory.limit", "memory", "memory.max", or_max(limit)));
    }
    if let Some(low) = memory.reservation().filter(|r| *r != 0) {
        all.push(Setting::new("linux.resources.memory.reservation", "memory", "memory.low", or_max(low)));
    }
    if memory.kernel_tcp().is_some() {
        return Err(("linux.resources.memory.kernelTCP", "cgroup v2 has no such limit".into()));
    }
    if memory.swappiness().is_some() {
        return Err(("linux.resources.memory.swappiness", "cgroup v2 has no such setting".into()));
    }
    if memory.disable_oom_killer() == Some(true) {
        return Err(("linux.resources.memory.disableOOMKiller", "cgroup v2 has no such setting".into()));
    }
    Ok(all)
}

fn cpu_settings(cpu: &LinuxCpu) -> Result<Vec<Setting>, Refusal> {
    let mut all = Vec::new();
    if let Some(shares) = cpu.shares().filter(|s| *s != 0) {
        // 2..262144 of version 1 to 1..10000 of version 2, as every runtime does it.
        let weight = 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
        all.push(Setting::new("linux.resources.cpu.shares", "cpu", "cpu.weight", weight));
    }
    if cpu.quota().is_some() || cpu.period().is_some() {
        let quota = cpu.quota().filter(|q| *q > 0).map_or_else(|| "max".into(), |q| q.to_string());
        let period = cpu.period().filter(|p| *p != 0).unwrap_or(100_000);
        all.push(Setting::new("linux.resources.cpu.quota", "cpu", "cpu.max", format!("{quota} {period}")));
    }
    if let Some(burst) = cpu.burst() {
        all.push(Setting::new("linux.resources.cpu.burst", "cpu", "cpu.max.burst", burst));
    }
    if let Some(idle) = cpu.idle() {
        all.push(Setting::new("linux.resources.cpu.idle", "cpu", "cpu.idle", idle));
    }
    if cpu.realtime_period().is_some_and(|p| p != 0) || cpu.realtime_runtime().is_some_and(|r| r != 0) {
        return Err(("linux.resources.cpu.realtimeRuntime", "cgroup v2 has no realtime limits".into()));
    }
    if let Some(cpus) = cpu.cpus().as_ref().filter(|c| !c.is_empty()) {
        all.push(Setting::new("linux.resources.cpu.cpus", "cpuset", "cpuset.cpus", cpus));
    }
    if let Some(mems) = cpu.mems().as_ref().filter(|m| !m.is_empty()) {
        all.push(Setting::new("linux.resources.cpu.mems", "cpuset", "cpuset.mems", mems));
    }
    Ok(all)
}

fn io_settings(io: &LinuxBlockIo) -> Result<Vec<Setting>, Refusal> {
    let mut all = Vec::new();
    if let Some(weight) = io.weight().filter(|w| *w != 0) {
        // 10..1000 of version 1 to 1..10000 of version 2.
        let weight = 1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990;
        all.push(Setting::new("linux.resources.blockIO.weight", "io", "io.weight", weight));
    }
    if io.leaf_weight().is_some_and(|w| w != 0) {
        return Err(("linux.resources.blockIO.leafWeight", "cgroup v2 has no leaf weights".into()));
    }
    if io.weight_device().as_ref().is_some_and(|w| !w.is_empty()) {
        for device in io.weight_device().iter().flatten() {
            let Some(weight) = device.weight() else { continue };
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            all.push(Setting::new("linux.resources.blockIO.weightDevice", "io", "io.bfq.weight", value));
        }
    }
    for (field, key, list) in [
        ("linux.resources.blockIO.throttleReadBpsDevice", "rbps", io.throttle_read_bps_device()),
        ("linux.resources.blockIO.throttleWriteBpsDevice", "wbps", io.throttle_write_bps_device()),
        ("linux.resources.blockIO.throttleReadIOPSDevice", "riops", io.throttle_read_iops_device()),
        ("linux.resources.blockIO.throttleWriteIOPSDevice", "wiops", io.throttle_write_iops_device()),
    ] {
        for device in list.iter().flatten() {
            let value = format!("{}:{} {key}={}", device.major(), device.minor(), device.rate());
            all.push(Setting::new(field, "io", "io.max", value));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(json: &str) -> Result<Vec<String>, Refusal> {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        Ok(settings(&resources)?.into_iter().map(|s| format!("{}={}", s.file, s.value)).collect())
    }

    #[test]
    fn numbers_of_version_1_are_converted() {
        let memory = r#"{"memory":{"limit":100,"swap":150,"reservation":50}}"#;
        assert_eq!(values(memory).unwrap(), ["memory.swap.max=50", "memory.max=100", "memory.low=50"]);
        assert_eq!(
            values(r#"{"cpu":{"shares":1024,"quota":50000}}"#).unwrap(),
            ["cpu.weight=39", "cpu.max=50000 100000"]
        );
        assert_eq!(values(r#"{"pids":{"limit":-1}}"#).unwrap(), ["pids.max=max"]);
        assert_eq!(values(r#"{"blockIO":{"weight":10}}"#).unwrap(), ["io.weight=1"]);
    }

    #[test]
    fn what_version_2_does_not_have_is_refused() {
        assert_eq!(
            values(r#"{"memory":{"swappiness":10}}"#).unwrap_err().0,
            "linux.resources.memory.swappiness"
        );
    }
}
